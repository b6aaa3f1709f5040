//! Clients by TCP, TLS, HTTP and QUIC, and behind proxies, that break the rules of their transport.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use proxy_header::{ProxiedAddress, ProxyHeader};
use testkit::http2::*;
use testkit::quic_client::{QuicClient, quic_config};
use tokio_rustls::rustls::ClientConnection;

use super::*;

const CERTIFICATE: &str = "timeout = '5s'\n[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";

/// A forwarder with a listener for each transport: plain, TLS, HTTP, QUIC.
fn with_all_transports(backend: &Backend, keys: &str, authorities: &CertificateAuthority) -> Server {
    let listen = "['127.0.0.1:0', 'tls://127.0.0.1:0', 'http://127.0.0.1:0', 'quic://127.0.0.1:0']";
    let config = Forwarder::to(&[backend], CERTIFICATE).keys(keys).listen(listen).admin().to_toml();
    let (chain, key) = authorities.issue("dns.example");
    Server::start_with_files(&config, &[("chain.pem", &chain), ("key.pem", &key)])
}

#[test]
fn the_list_of_clients_holds_for_every_transport() {
    // CVE-2026-24029 (dnsdist): the list was not checked by HTTPS.
    let (backend, authorities) = (Backend::new(answer(TRUE)), CertificateAuthority::new());
    let server = with_all_transports(&backend, "allow = ['192.0.2.0/24']", &authorities);
    let [plain, tls, http, quic] = server.listeners("forwarder") else { panic!("four listeners") };
    let asked = query("www.example", A).id(0);
    assert_eq!(Client::of(*plain).ask(&asked).rcode(), REFUSED, "UDP");
    assert_eq!(TcpClient::of(*plain).ask(&asked).rcode(), REFUSED, "TCP");
    let mut client = TlsClient::of(*tls, &authorities.trusted(&["dot"]), "dns.example");
    assert_eq!(client.ask(&asked).rcode(), REFUSED, "TLS");
    let mut client = Http2Client::new(*http);
    client.post(1, &asked.to_vec());
    assert_eq!(Response { bytes: client.body_of(1).expect("a response") }.rcode(), REFUSED, "HTTP");
    let mut client = QuicClient::of(*quic, &quic_config(&authorities, &["doq"]), "dns.example");
    assert_eq!(client.ask(&asked).rcode(), REFUSED, "QUIC");
    assert!(backend.queries().is_empty());
}

/// Sends octets as long as the server takes them, at most 64 MiB. Returns the start of its response.
fn send_endlessly(at: std::net::SocketAddr, start: &[u8], part: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).expect("the server listens");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    let _ = stream.write_all(start);
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(part).is_ok() {
        sent += part.len();
    }
    assert!(sent < 64 << 20, "all of it was taken");
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn a_query_in_a_path_has_an_end() {
    // CVE-2026-32936 (CoreDNS): a long `dns=` was decoded before its length was checked. CVE-2025-68151
    // (CoreDNS): no limits for messages by HTTP.
    let (backend, authorities) = (Backend::new(answer(TRUE)), CertificateAuthority::new());
    let server = with_all_transports(&backend, "", &authorities);
    let http = server.listeners("forwarder")[2];
    let (memory, time) = (server.process.resident(), cpu_time(&server));
    let heard = send_endlessly(http, b"GET /dns-query?dns=", &[b'A'; 65_536]);
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 4"), "{heard}");
    let head = b"POST /dns-query HTTP/1.1\r\nhost: a\r\ncontent-type: application/dns-message\r\ncontent-length: 99999999\r\n\r\n";
    let heard = send_endlessly(http, head, &[0; 65_536]);
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 4"), "{heard}");
    // By HTTP/2: nearly as long as the header fields of a request may be.
    let mut client = Http2Client::new(http);
    let value = format!("/dns-query?dns={}", "A".repeat(12_000));
    let length = value.len() - 127;
    let path = [&[0x04, 0x7F, (length & 0x7F) as u8 | 0x80, (length >> 7) as u8][..], value.as_bytes()].concat();
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x82, 0x86][..], &path].concat());
    let body = client.body_of(1).unwrap_or_default();
    assert!(body.is_empty() || word(&body, 2) & 0xF == FORMERR, "{body:?}");
    let memory = server.process.resident().saturating_sub(memory);
    let time = cpu_time(&server) - time;
    assert!(memory < 8 << 20 && time < Duration::from_secs(2), "{memory} octets, {time:?}");
    assert_served(&server);
}

#[test]
fn a_handshake_in_parts_or_with_an_early_end_does_no_harm() {
    let (backend, authorities) = (Backend::new(answer(TRUE)), CertificateAuthority::new());
    let server = with_all_transports(&backend, "", &authorities);
    let tls = server.listeners("forwarder")[1];
    // CVE-2024-32650 (rustls): an alert that closes the connection within the handshake was an endless loop.
    let before = cpu_time(&server);
    let closed: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(tls).expect("it listens");
            stream.write_all(&[21, 3, 3, 0, 2, 1, 0]).expect("it is sent");
            stream
        })
        .collect();
    // Longer than the loops would take to be seen.
    for _ in 0..200 {
        assert_served(&server);
    }
    let spent = cpu_time(&server) - before;
    assert!(spent < Duration::from_secs(2), "{spent:?}");
    drop(closed);
    // RUSTSEC-2024-0399, CVE-2024-11738 (rustls): a hello in several records was a panic.
    for size in [1, 7, 50] {
        let name = "dns.example".to_owned().try_into().expect("a name");
        let mut session = ClientConnection::new(authorities.trusted(&["dot"]), name).expect("a good config");
        let mut hello = Vec::new();
        session.write_tls(&mut hello).expect("a vector takes everything");
        let mut stream = TcpStream::connect(tls).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        for part in hello[5..].chunks(size) {
            let record = [&hello[..3], &(part.len() as u16).to_be_bytes(), part].concat();
            if stream.write_all(&record).is_err() {
                break;
            }
        }
        while session.is_handshaking() && session.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {}
        assert_served(&server);
        let mut honest = TlsClient::of(tls, &authorities.trusted(&["dot"]), "dns.example");
        assert_eq!(honest.ask(&query("served.example", A)).answers(), [TRUE], "{size}");
    }
    assert!(!server.process.log().contains("panicked"));
}

#[test]
fn endless_queries_of_one_connection_keep_nobody_waiting() {
    // CVE-2026-80225 (Unbound): continuous queries on one connection by TCP or TLS kept others waiting.
    let (backend, authorities) = (Backend::new(answer(TRUE)), CertificateAuthority::new());
    let server = with_all_transports(&backend, "", &authorities);
    let plain = server.address();
    let many: Vec<u8> = framed(&query("www.example", A).to_vec()).repeat(500);
    let is_over = Arc::new(AtomicBool::new(false));
    let flooders: Vec<_> = (0..2)
        .map(|_| {
            let (many, is_over) = (many.clone(), Arc::clone(&is_over));
            let stream = TcpStream::connect(plain).expect("it listens");
            let mut reader = stream.try_clone().expect("a descriptor");
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while reader.read(&mut buffer).is_ok_and(|octets| octets > 0) {}
            });
            std::thread::spawn(move || {
                let mut stream = stream;
                while !is_over.load(Relaxed) && stream.write_all(&many).is_ok() {}
                let _ = stream.shutdown(std::net::Shutdown::Both);
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut tls = TlsClient::of(server.listeners("forwarder")[1], &authorities.trusted(&["dot"]), "dns.example");
    for _ in 0..100 {
        let began = Instant::now();
        assert_served(&server);
        assert_eq!(server.tcp_client().ask(&query("served.example", A)).answers(), [TRUE]);
        assert_eq!(tls.ask(&query("served.example", A)).answers(), [TRUE]);
        slowest = slowest.max(began.elapsed());
    }
    is_over.store(true, Relaxed);
    flooders.into_iter().for_each(|flooder| flooder.join().expect("it does not panic"));
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

/// A forwarder for everyone behind a proxy at 127.0.0.2, and the socket of the proxy.
fn behind_proxy(backend: &Backend, keys: &str) -> (Server, UdpSocket) {
    let config = Forwarder::to(&[backend], "").keys(&format!("allow = ['0.0.0.0/0', '::/0']\n{keys}")).cache("");
    let listen = "[{ address = '127.0.0.1:0', proxy_from = ['127.0.0.2'] }]";
    let server = config.listen(listen).admin().start();
    let proxy = UdpSocket::bind("127.0.0.2:0").expect("all of 127/8 is ours");
    proxy.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    (server, proxy)
}

/// A query behind the header for this client.
fn of_client(client: &str, query: &Query) -> Vec<u8> {
    let (client, asked) = (client.parse().expect("an address"), "127.0.0.1:53".parse().expect("an address"));
    let mut octets = Vec::new();
    let header = ProxyHeader::with_address(ProxiedAddress::datagram(client, asked));
    header.encode_v2(&mut octets).expect("a vector takes everything");
    [octets, query.to_vec()].concat()
}

/// Sends a query of a client and waits for its response.
fn ask_as(server: &Server, proxy: &UdpSocket, client: &str, query: &Query) -> Response {
    proxy.send_to(&of_client(client, query), server.address()).expect("loopback takes it");
    let mut buffer = [0; 1500];
    loop {
        let (length, _) = proxy.recv_from(&mut buffer).expect("a response");
        let response = Response { bytes: buffer[..length].to_vec() };
        if response.id() == query.id {
            return response;
        }
    }
}

#[test]
fn proxy_headers_of_other_transports_are_dropped() {
    // CVE-2026-62309 (CoreDNS): a datagram of 28 octets whose header named another transport was a panic.
    let backend = Backend::new(answer(TRUE));
    let (server, proxy) = behind_proxy(&backend, "");
    let asked = query("www.example", A);
    for family in [0x00, 0x01, 0x10, 0x11, 0x13, 0x21, 0x22, 0x31, 0x32, 0x41, 0xF1, 0xFF] {
        for command in [0x20, 0x21, 0x22, 0x11, 0xFF] {
            let head =
                [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, 0, 12][..], &[198, 51, 100, 7, 127, 0, 0, 1, 1, 1, 0, 53]];
            let datagram = head.concat();
            assert_eq!(datagram.len(), 28);
            proxy.send_to(&datagram, server.address()).expect("loopback takes it");
            proxy.send_to(&[datagram, asked.to_vec()].concat(), server.address()).expect("loopback takes it");
        }
        assert_eq!(ask_as(&server, &proxy, "198.51.100.7:4000", &query("www.example", A)).answers(), [TRUE]);
    }
    assert!(!server.process.log().contains("panicked"));
}

#[test]
fn a_cookie_is_bound_to_the_client_that_the_proxy_names() {
    // CVE-2026-54478 (Unbound): cookies were made of the proxy's address, so one was good for all its
    // clients.
    let backend = Backend::new(answer(TRUE));
    let (server, proxy) = behind_proxy(&backend, "");
    let (one, other) = ("198.51.100.7:4000", "198.51.100.8:4000");
    let first = ask_as(&server, &proxy, one, &query("www.example", A).option(COOKIE, b"01234567"));
    let cookie = first.cookie().expect("a cookie");
    let counted = |what: &str| server.admin().metrics().sum("hedgerow_cookies_total", &[("cookie", what)]);
    ask_as(&server, &proxy, one, &query("www.example", A).option(COOKIE, &cookie));
    assert_eq!((counted("valid"), counted("invalid")), (1, 0));
    let stolen = ask_as(&server, &proxy, other, &query("www.example", A).option(COOKIE, &cookie));
    assert_eq!((counted("valid"), counted("invalid")), (1, 1));
    assert_ne!(stolen.cookie(), Some(cookie), "it gets one of its own");
}

#[test]
fn any_number_of_sources_takes_the_same_memory() {
    // CVE-2025-50334 (Technitium): the table of the rate limit grew with the clients.
    const COUNT: u32 = 40_000;
    let backend = Backend::new(answer_for(3600, TRUE));
    let (server, proxy) = behind_proxy(&backend, "rate_limit = { answers = 200, loopback = true }");
    let asked = query("www.example", A);
    assert_eq!(ask_as(&server, &proxy, "198.51.100.7:4000", &asked).answers(), [TRUE]);
    let before = server.process.resident();
    for number in 0..COUNT {
        // Another /24 each.
        let [_, a, b, c] = (number + 0x0B_0000).to_be_bytes();
        let message = of_client(&format!("{a}.{b}.{c}.7:4000"), &asked);
        proxy.send_to(&message, server.address()).expect("loopback takes it");
        if number % 50 == 0 {
            let fence = query("www.example", A);
            assert_eq!(ask_as(&server, &proxy, &format!("{a}.{b}.{c}.8:4000"), &fence).answers(), [TRUE]);
        }
    }
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} octets for {COUNT} networks");
}
