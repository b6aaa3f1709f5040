//! RFC 8914, extended DNS errors, of an authority.

use testkit::*;

/// RFC 8914 section 4.21.
const NOT_AUTHORITATIVE: u16 = 20;

#[test]
fn section_4_21_names_of_other_servers_are_refused_with_the_reason() {
    let config = "[authorities.zones]\nlisten = ['127.0.0.1:0']\nnsid = 'ns1'\n\
                  zones = [{ file = 'z.zone', origin = 'example.net' }]\n\
                  [authorities.tables]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'refused'\n";
    let zone = "$TTL 300\n@ SOA . . 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\n";
    let files = [("z.zone", zone), ("hosts.txt", "ns.example.net 192.0.2.53 A\n")];
    let server = Server::start_with_files(config, &files);
    for listener in ["zones", "tables"] {
        let client = Client::of(server.listener(listener));
        let ask = |name: &str| {
            let response = client.ask(&query(name, A).edns(1232).option(3, b"").option(COOKIE, &[7; 8]));
            assert!(response.cookie().is_some(), "{listener} {name}");
            (response.rcode(), response.extended_error())
        };
        assert_eq!(ask("www.example.org"), (REFUSED, Some(NOT_AUTHORITATIVE)), "{listener}");
        assert_eq!(ask("ns.example.net"), (NOERROR, None), "{listener}");
        // Without EDNS there is no place for it.
        let plain = client.ask(&query("www.example.org", A));
        assert_eq!((plain.rcode(), plain.has_opt()), (REFUSED, false), "{listener}");
    }
}
