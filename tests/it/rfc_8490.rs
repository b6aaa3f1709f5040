//! RFC 8490, DNS stateful operations, which are refused.

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

#[test]
fn section_5_1_dso_by_tcp_is_not_implemented_and_the_connection_goes_on() {
    let backend = Backend::new(answer(ADDRESS));
    let config =
        Forwarder::to(&[&backend], "").to_toml() + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['t']\n";
    let server = Server::start_with_files(&config, &[("t", "www.example.org 192.0.2.1 A\n")]);
    // Opcode 6, without records, with a Keepalive TLV (type 1) of two timeouts.
    let keepalive = [header(0x77, 6 << 11, [0; 4]), vec![0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 1]].concat();
    for listener in ["forwarder", "ts"] {
        let mut client = TcpClient::of(server.listener(listener));
        client.send_bytes(&framed(&keepalive));
        let response = client.receive();
        assert_eq!((response.id(), response.opcode(), response.rcode()), (0x77, 6, NOTIMP), "{listener}");
        assert_eq!(response.bytes.len(), 12, "{listener}");
        assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS], "{listener}");
    }
    assert_eq!(backend.queries().len(), 1);
}
