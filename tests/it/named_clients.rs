//! The PROXY protocol towards backends: a backend that wants client addresses gets one before each datagram
//! and each connection, and its answers are for that client alone.

use std::net::SocketAddr;

use testkit::*;

const ADDRESS: &str = "192.0.2.1";

/// Returns the backend's note of a header with this client and this server.
fn named(client: SocketAddr, server: SocketAddr) -> Option<String> {
    Some(format!("{client} asked {server}"))
}

/// Probes one by one, for as long as a test may last.
const PROBED: &str = "health = { interval = '100ms' }";

#[test]
fn each_datagram_says_who_asks_and_no_answer_is_shared() {
    let backend = Backend::new(answer(ADDRESS).held());
    let server = Forwarder::to(&[&NamedClients("", &backend)], PROBED).cache("").start();
    let clients = ["127.0.0.1", "127.0.0.5", "127.0.0.5"].map(|local| Client::at(local, server.address()));
    let question = query("www.example.org", A);
    clients.iter().for_each(|client| client.send(&question));
    // All three wait at once, and none for another's.
    let seen = backend.wait_for(3);
    for client in &clients {
        let of_client = seen.iter().filter(|seen| seen.named == named(client.address(), server.address()));
        assert_eq!(of_client.count(), 1, "{seen:?}");
    }
    backend.release();
    clients.iter().for_each(|client| assert_eq!(client.receive().answers(), [ADDRESS]));
    // What was answered is asked anew.
    clients[0].send(&question);
    backend.wait_for(4);
    backend.release();
    assert_eq!(clients[0].receive().answers(), [ADDRESS]);
    // We probe for ourselves.
    let probes = backend.wait_for_probes(2);
    assert!(probes.iter().all(|probe| probe.named.as_deref() == Some("us")), "{probes:?}");
}

#[test]
fn each_connection_is_for_one_client() {
    let backend = Backend::new(answer(ADDRESS).except("held", answer(ADDRESS).held()));
    let server = Forwarder::to(&[&NamedClients("tcp://", &backend)], &format!("{PROBED}\nconnections = {{ max = 2 }}"))
        .cache("")
        .admin()
        .start();
    let client = |number: u8| Client::at(&format!("127.0.0.{number}"), server.address());
    let mut asked = Vec::new();
    // The third has the connection of the second make room, and so on.
    for number in [1, 2, 1, 3, 1, 2] {
        let client = client(number);
        assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS]);
        asked.push(client.address());
    }
    let seen = backend.wait_for(6);
    for (seen, client) in seen.iter().zip(&asked) {
        let named = seen.named.as_deref().expect("a header");
        assert!(
            named.starts_with(&client.ip().to_string()) && named.ends_with(&server.address().to_string()),
            "{named}"
        );
    }
    assert_eq!(seen[0].named, seen[2].named, "a client has the connection that it had");
    assert_eq!((seen[0].peer, seen[2].peer), (seen[2].peer, seen[4].peer));
    // Of as many connections as there may be, all are waited on: there is no place for a third.
    let waiting = [client(1), client(2)];
    waiting.iter().for_each(|client| client.send(&query("held.example.org", A)));
    backend.wait_for_name("held.example.org", 2);
    assert_eq!(client(3).ask(&query("www.example.org", A)).rcode(), 2, "SERVFAIL");
    backend.release();
    waiting.iter().for_each(|client| assert_eq!(client.receive().answers(), [ADDRESS]));
    let probes = backend.wait_for_probes(2);
    assert!(probes.iter().all(|probe| probe.named.as_deref() == Some("us")), "{probes:?}");
}

#[test]
fn a_truncated_answer_is_fetched_by_a_connection_of_its_own() {
    let backend = Backend::new(truncated().by_tcp(answer(ADDRESS)));
    let server = Forwarder::to(&[&NamedClients("", &backend)], "").start();
    let mut clients = ["127.0.0.1", "127.0.0.5"].map(|local| TcpClient::from(local, server.address()));
    for client in &mut clients {
        for name in ["www.example.org", "www.example.org", "mail.example.org"] {
            assert_eq!(client.ask(&query(name, A)).answers(), [ADDRESS]);
        }
    }
    let seen = backend.queries();
    let by_tcp: Vec<_> = seen.iter().filter(|seen| seen.tcp).collect();
    assert_eq!((seen.len(), by_tcp.len()), (12, 6));
    for (number, seen) in seen.iter().enumerate() {
        let client = if number < 6 { "127.0.0.1:" } else { "127.0.0.5:" };
        let named = seen.named.as_deref().expect("a header");
        assert!(named.starts_with(client) && named.ends_with(&server.address().to_string()), "{named}");
    }
    let mut peers: Vec<_> = by_tcp.iter().map(|seen| seen.peer).collect();
    peers.dedup();
    assert_eq!(peers.len(), 6, "no connection is used twice");
}

/// A zone that one client alone may ask.
fn authority() -> Server {
    let toml = "workers = 1\n[authorities.ts]\nlisten = [{ address = '127.0.0.1:0', proxy_from = ['127.0.0.1'] }]\n\
                zones = ['a.txt']\nallow = ['127.0.0.5', '127.0.0.1']\n";
    Server::start_with_files(toml, &[("a.txt", "www.example.org 192.0.2.1 A\n")])
}

#[test]
fn an_authority_behind_a_forwarder_knows_whom_it_answers() {
    let ts = authority();
    let address = ts.listener("ts");
    for scheme in ["", "tcp://"] {
        let server = Forwarder::to(&[&NamedClients(scheme, &address)], "accept = 'any'").start();
        for (client, rcode) in [("127.0.0.5", 0), ("127.0.0.6", 5), ("127.0.0.5", 0)] {
            let response = Client::at(client, server.address()).ask(&query("www.example.org", A));
            assert_eq!(response.rcode(), rcode, "{scheme}{client}");
        }
        let mut client = TcpClient::from("127.0.0.6", server.address());
        assert_eq!(client.ask(&query("www.example.org", A)).rcode(), 5);
    }
}

#[test]
fn who_asks_through_a_proxy_is_passed_on() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Forwarder::to(&[&NamedClients("", &backend)], "")
        .listen("[{ address = '127.0.0.1:0', proxy_from = ['127.0.0.2'] }]")
        .start();
    let proxy = Client::at("127.0.0.2", server.address());
    let client: SocketAddr = "127.9.9.9:4000".parse().expect("an address");
    let mut octets = Vec::new();
    let address = proxy_header::ProxiedAddress::datagram(client, "192.0.2.53:53".parse().expect("an address"));
    proxy_header::ProxyHeader::with_address(address).encode_v2(&mut octets).expect("a vector takes everything");
    octets.extend(query("www.example.org", A).to_vec());
    proxy.send_bytes(&octets);
    assert_eq!(proxy.receive().answers(), [ADDRESS]);
    assert_eq!(backend.wait_for(1)[0].named, named(client, server.address()));
}

#[test]
fn who_is_told_may_change_with_a_reload() {
    let backend = Backend::new(answer(ADDRESS));
    let plain = Forwarder::to(&[&backend], "");
    let server = plain.start();
    let client = server.client();
    let ask = |name: &str, expected: Option<String>| {
        assert_eq!(client.ask(&query(name, A)).answers(), [ADDRESS]);
        assert_eq!(backend.wait_for_name(name, 1)[0].named, expected, "{name}");
    };
    let local = SocketAddr::from(([127, 0, 0, 1], client.address().port()));
    ask("one.example", None);
    server.reload("config.toml", &Forwarder::to(&[&NamedClients("", &backend)], "").to_toml());
    server.process.wait_for_log("reloaded");
    ask("two.example", named(local, server.address()));
    server.reload("config.toml", &plain.to_toml());
    let mut number = 0;
    until("it gets no PROXY header any more", || {
        number += 1;
        let name = format!("n{number}.example");
        assert_eq!(client.ask(&query(&name, A)).answers(), [ADDRESS]);
        backend.wait_for_name(&name, 1)[0].named.is_none().then_some(())
    });
}
