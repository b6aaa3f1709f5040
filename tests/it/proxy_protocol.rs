//! The PROXY protocol towards listeners: for a configured proxy, the client is the one that the header names,
//! for all purposes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use hedgerow::control::observe::sight::names::NamesReport;
use proxy_header::{ProxiedAddress, ProxyHeader};
use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// A client that may ask, and one that may not.
const WELCOME: &str = "198.51.100.7:4000";
const STRANGER: &str = "203.0.113.9:4000";

const PROXY: &str = "127.0.0.2";

/// The header for this client; without one, for the proxy itself.
fn header(client: Option<&str>) -> Vec<u8> {
    let header = match client {
        Some(client) => {
            let asked = "127.0.0.1:53".parse().expect("an address");
            ProxyHeader::with_address(ProxiedAddress::datagram(client.parse().expect("an address"), asked))
        }
        None => ProxyHeader::with_local(),
    };
    let mut octets = Vec::new();
    header.encode_v2(&mut octets).expect("a vector takes everything");
    octets
}

/// A forwarder behind a proxy at [`PROXY`].
fn config(backend: &Backend, scheme: &str) -> String {
    let keys = "allow = ['198.51.100.0/24', '127.0.0.0/8']\n";
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    Forwarder::to(&[backend], certificate)
        .keys(keys)
        .listen(&format!("[{{ address = '{scheme}127.0.0.1:0', proxy_from = ['{PROXY}'] }}]"))
        .admin()
        .to_toml()
}

fn start(backend: &Backend, scheme: &str, authorities: &CertificateAuthority) -> Server {
    let (chain, key) = authorities.issue("dns.example");
    Server::start_with_files(&config(backend, scheme), &[("chain.pem", &chain), ("key.pem", &key)])
}

fn ask_by_udp(proxy: &UdpSocket, datagrams: &[Vec<u8>], server: SocketAddr) {
    for datagram in datagrams {
        proxy.send_to(datagram, server).expect("loopback takes it");
    }
}

fn receive(proxy: &UdpSocket) -> Response {
    let mut buffer = [0; 1500];
    let (length, _) = proxy.recv_from(&mut buffer).expect("a response");
    Response { bytes: buffer[..length].to_vec() }
}

fn proxy_socket() -> UdpSocket {
    let proxy = UdpSocket::bind((PROXY, 0)).expect("all of 127/8 is ours");
    proxy.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    proxy
}

#[test]
fn the_client_of_a_proxy_is_counted_and_not_the_proxy() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let (chain, key) = authorities.issue("dns.example");
    let config = config(&backend, "") + "names = true\n";
    let server = Server::start_with_files(&config, &[("chain.pem", &chain), ("key.pem", &key)]);
    let proxy = proxy_socket();
    let datagram = [header(Some(WELCOME)), query("www.example", A).to_vec()].concat();
    // One question of sixteen is drawn.
    let clients = until("a client is counted", || {
        ask_by_udp(&proxy, std::slice::from_ref(&datagram), server.address());
        receive(&proxy);
        let names: NamesReport = serde_json::from_str(&server.admin().get("/api/v1/names").body).expect("JSON");
        Some(names.clients).filter(|clients| !clients.is_empty())
    });
    let clients: Vec<_> = clients.iter().map(|one| one.client.to_string()).collect();
    assert_eq!(clients, ["198.51.100.7"]);
}

#[test]
fn datagrams_of_a_proxy_are_those_of_its_clients() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&backend, "", &authorities);
    let (proxy, at) = (proxy_socket(), server.address());
    let query = |id: u16| query("www.example.org", A).id(id).to_vec();
    let with = |client: Option<&str>, id: u16| [header(client), query(id)].concat();
    ask_by_udp(&proxy, &[with(Some(WELCOME), 1)], at);
    assert_eq!(receive(&proxy).answers(), [ADDRESS], "the response goes to the proxy, without a header");
    ask_by_udp(&proxy, &[with(Some(STRANGER), 2)], at);
    assert_eq!(receive(&proxy).rcode(), 5, "REFUSED: the client counts, not the proxy");
    // What has no header, or half of one, has no answer; the next has.
    ask_by_udp(&proxy, &[query(3), header(Some(WELCOME)), with(Some(WELCOME), 4)[..20].to_vec(), with(None, 5)], at);
    let next = receive(&proxy);
    assert_eq!((next.id(), next.answers()), (5, vec![ADDRESS.to_owned()]), "the proxy asks for itself");
    // Others need no header, and one of theirs is noise.
    let direct = server.client();
    direct.send_bytes(&with(Some(WELCOME), 6));
    assert_eq!(direct.receive().rcode(), 4, "read as a message, its opcode is unknown");
    assert_eq!(direct.ask(&support_query(7)).id(), 7);
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_dropped_total", &[("reason", "proxy")]), 2);
}

/// A query of this ID.
fn support_query(id: u16) -> Query {
    query("www.example.org", A).id(id)
}

/// A connection from the proxy, on which this was sent.
fn connect(server: SocketAddr, octets: &[u8]) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&format!("{PROXY}:0").parse::<SocketAddr>().expect("an address").into()).expect("all of 127/8 is ours");
    socket.connect(&server.into()).expect("the server listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.write_all(octets).expect("the server takes it");
    stream
}

/// The next message of a connection; none at its end.
fn next_message(stream: &mut TcpStream) -> Option<Response> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) => {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the server neither answers nor ends");
            return None;
        }
    }
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes).expect("the rest of it");
    Some(Response { bytes })
}

#[test]
fn connections_of_a_proxy_are_those_of_its_clients() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&backend, "tcp://", &authorities);
    let framed = framed(&support_query(1).to_vec());
    for (client, expected) in [(Some(WELCOME), Some(0)), (None, Some(0)), (Some(STRANGER), Some(5))] {
        let mut stream = connect(server.address(), &[header(client), framed.clone()].concat());
        assert_eq!(next_message(&mut stream).map(|response| response.rcode()), expected, "{client:?}");
    }
    // A header in pieces is a header.
    let mut stream = connect(server.address(), b"");
    for octet in [header(Some(WELCOME)), framed.clone()].concat() {
        stream.write_all(&[octet]).expect("the server takes it");
    }
    assert_eq!(next_message(&mut stream).expect("an answer").answers(), [ADDRESS]);
    assert!(next_message(&mut connect(server.address(), &[&framed[..], &[0; 16]].concat())).is_none(), "no header");
    let mut direct = server.tcp_client();
    assert_eq!(direct.ask(&support_query(2)).answers(), [ADDRESS], "who is no proxy needs none");
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_dropped_total", &[("reason", "proxy")]), 1);
}

#[test]
fn the_header_stands_before_tls() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&backend, "tls://", &authorities);
    let config = authorities.trusted(&["dot"]);
    for (client, rcode) in [(WELCOME, 0), (STRANGER, 5)] {
        let stream = connect(server.address(), &header(Some(client)));
        let mut client = TlsClient::over(stream, &config, "dns.example");
        assert_eq!(client.ask(&support_query(1)).rcode(), rcode);
    }
    let stream = connect(server.address(), b"");
    assert!(TlsClient::try_over(stream, &config, "dns.example").is_err(), "TLS without a header");
}

#[test]
fn limits_go_by_the_client_and_not_by_the_proxy() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let config = config(&backend, "tcp://")
        .replace("[forwarder.routes]", "[forwarder.connections]\nper_client = 1\n[forwarder.routes]");
    let (chain, key) = authorities.issue("dns.example");
    let server = Server::start_with_files(&config, &[("chain.pem", &chain), ("key.pem", &key)]);
    let framed = framed(&support_query(1).to_vec());
    let open = |client: &str| connect(server.address(), &[header(Some(client)), framed.clone()].concat());
    let mut connections: Vec<_> = ["198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1"].map(open).into();
    for stream in &mut connections {
        assert_eq!(next_message(stream).expect("each client has one").answers(), [ADDRESS]);
    }
    assert!(next_message(&mut open("198.51.100.2:2")).is_none(), "a second one of the same client");
}

#[test]
fn an_authority_believes_its_proxies_too_and_a_reload_changes_who_they_are() {
    let toml = |proxies: &str| {
        format!(
            "workers = 1\n[authorities.ts]\nlisten = [{{ address = '127.0.0.1:0', proxy_from = [{proxies}] }}]\nzones = ['a.txt']\n\
             allow = ['198.51.100.0/24', '127.0.0.0/8']\n"
        )
    };
    let server = Server::start_with_files(&toml("'127.0.0.2'"), &[("a.txt", "www.example.org 192.0.2.1 A\n")]);
    let (proxy, at) = (proxy_socket(), server.listener("ts"));
    let with = |client: &str, id: u16| [header(Some(client)), support_query(id).to_vec()].concat();
    ask_by_udp(&proxy, &[support_query(1).to_vec(), with(WELCOME, 2)], at);
    assert_eq!(receive(&proxy).id(), 2, "without a header there is no answer");
    ask_by_udp(&proxy, &[with(STRANGER, 3)], at);
    assert_eq!(receive(&proxy).rcode(), 5);
    server.reload("config.toml", &toml(""));
    server.process.wait_for_log("reloaded");
    ask_by_udp(&proxy, &[support_query(4).to_vec()], at);
    assert_eq!(receive(&proxy).answers(), [ADDRESS], "no proxy any more");
}

#[test]
fn a_proxy_elsewhere_does_not_name_this_host() {
    if !namespace::enter("proxy_protocol::a_proxy_elsewhere_does_not_name_this_host") {
        return;
    }
    let added = std::process::Command::new("ip").args(["address", "add", "192.0.2.10/24", "dev", "lo"]).status();
    assert!(added.is_ok_and(|status| status.success()), "our own namespace");
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "")
        .keys("allow = ['198.51.100.0/24', '127.0.0.0/8']\n")
        .listen(&format!("[{{ address = '127.0.0.1:0', proxy_from = ['{PROXY}', '192.0.2.10'] }}]"))
        .admin()
        .to_toml();
    let server = Server::start(&config);
    let elsewhere = UdpSocket::bind(("192.0.2.10", 0)).expect("an address of the namespace");
    elsewhere.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let with = |client: &str, id: u16| [header(Some(client)), support_query(id).to_vec()].concat();
    let named = [("127.0.0.1:4000", 1), ("127.9.9.9:4000", 2), ("0.0.0.0:4000", 3), ("224.0.0.1:4000", 4)];
    for (client, id) in named {
        ask_by_udp(&elsewhere, &[with(client, id)], server.address());
    }
    ask_by_udp(&elsewhere, &[with(WELCOME, 5)], server.address());
    assert_eq!(receive(&elsewhere).id(), 5, "only a client elsewhere has a response");
    assert_eq!(server.admin().metrics().sum("hedgerow_dropped_total", &[("reason", "proxy")]), 4);
    let proxy = proxy_socket();
    ask_by_udp(&proxy, &[with("127.0.0.1:4000", 6)], server.address());
    assert_eq!(receive(&proxy).answers(), [ADDRESS], "a proxy on loopback passes on what this host asks");
}
