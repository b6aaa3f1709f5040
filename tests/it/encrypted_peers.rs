//! Tests with other programs for encrypted DNS: servers as our backends, proxies before our listeners, and
//! clients. A program that is not installed is reported and left out. NSD and BIND are in `connections.rs`,
//! `connections_https.rs` and `transfer_peers.rs`, curl in `https.rs`, kdig and dig in `https.rs`, `quic.rs`
//! and here.

use std::fs;
use std::net::SocketAddr;

use testkit::peers::encrypted::*;
use testkit::*;

/// A server by plain DNS, TLS and HTTPS, in this order, with a certificate for `dns.example` of the authority
/// in `ca.pem`. Each listener has these keys, and connections have others.
fn start(backend: &Backend, authorities: &CertificateAuthority, keys: &str, connections: &str) -> Server {
    let listeners = ["", "tls://", "https://"].map(|scheme| format!("{{ address = '{scheme}127.0.0.1:0'{keys} }}"));
    let config = Forwarder::to(&[backend], "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n")
        .listen(&format!("[{}]", listeners.join(", ")))
        .keys(&format!("deny = ['127.0.0.4']\n[forwarder.connections]\n{connections}"))
        .admin();
    let (chain, key) = authorities.issue("dns.example");
    let files = [("chain.pem", &*chain), ("key.pem", &key), ("ca.pem", &authorities.pem())];
    Server::start_with_files(&config.to_toml(), &files)
}

/// The port of a listener.
fn port(server: &Server, place: usize) -> u16 {
    server.listeners("forwarder")[place].port()
}

/// Has a server of others as backend, by TLS and by HTTPS.
fn check_backend(kind: Kind) {
    let authorities = CertificateAuthority::new();
    let Some((_peer, tls, https)) = EncryptedPeer::server(kind, &authorities) else { return };
    let health = "probe = { name = 'probe.example', type = 'A' }\ninterval = '100ms'";
    let pool = |name: &str, address: &str| {
        let backend = format!("{{ address = '{address}#dns.example', ca = 'ca.pem' }}");
        format!("[pools.{name}]\nbackends = [{backend}]\ntimeout = '20s'\n[pools.{name}.health]\n{health}\n")
    };
    let config = format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [forwarder.routes]\n'tls.example' = 'tls'\n'https.example' = 'https'\n{}{}",
        pool("tls", &format!("tls://{tls}")),
        pool("https", &format!("https://{https}/q")),
    );
    let server = Server::start_with_files(&config, &[("ca.pem", &authorities.pem())]);
    for transport in ["tls", "https"] {
        let name = |number| format!("q{number}.{transport}.example");
        let client = server.client();
        until("it answers", || (client.ask(&query(&name(0), A)).answers() == [ANSWER]).then_some(()));
        // Fifty at once, on connections that are there.
        let clients: Vec<_> = (1..=50).map(|number| (number, server.client())).collect();
        clients.iter().for_each(|(number, client)| client.send(&query(&name(*number), A)));
        for (number, client) in &clients {
            assert_eq!(client.receive().answers(), [ANSWER], "{number} by {transport}");
        }
        let metrics = server.admin().metrics();
        let labels = [("pool", transport)];
        assert!(metrics.sum("hedgerow_backend_connections", &labels) > 0, "{transport}");
        for cause in ["protocol", "tls", "reset", "timeout", "stalled"] {
            let lost = metrics.sum("hedgerow_backend_connections_lost_total", &[labels[0], ("cause", cause)]);
            assert_eq!(lost, 0, "{cause} by {transport}");
        }
    }
}

#[test]
fn unbound_is_asked_by_tls_and_https() {
    check_backend(Kind::Unbound);
}

#[test]
fn dnsdist_is_asked_by_tls_and_https() {
    check_backend(Kind::Dnsdist);
}

/// Asks through a proxy from an address that is welcome and from one that is not, by kdig with these words.
fn check_proxy(server: &Server, at: SocketAddr, words: &str) {
    for (client, expected) in [("127.0.0.3", ANSWER), ("127.0.0.4", "status: REFUSED")] {
        let words = format!("-b {client} @127.0.0.1 -p {} {words} www.example A", at.port());
        let Some(reported) = ask_by("kdig", &server.path(""), &words) else { return };
        assert!(reported.contains(expected), "{words}: {reported}");
    }
}

#[test]
fn haproxy_tells_who_connects() {
    let (backend, authorities) = (Backend::new(answer(ANSWER)), CertificateAuthority::new());
    let server = start(&backend, &authorities, &format!(", proxy_from = ['{PROXY}']"), "");
    let Some((_haproxy, at)) = EncryptedPeer::haproxy_before(server.listeners("forwarder")) else { return };
    // HAProxy passes TLS through: the certificate is ours.
    let tls = "+tls-ca=ca.pem +tls-hostname=dns.example";
    check_proxy(&server, at[0], "+tcp");
    check_proxy(&server, at[1], &format!("+tls {tls}"));
    check_proxy(&server, at[2], &format!("+https {tls}"));
}

#[test]
fn dnsdist_tells_who_asks() {
    let (backend, authorities) = (Backend::new(answer(ANSWER)), CertificateAuthority::new());
    let server = start(&backend, &authorities, &format!(", proxy_from = ['{PROXY}']"), "");
    let Some((_dnsdist, at)) = EncryptedPeer::dnsdist_before(server.address()) else { return };
    check_proxy(&server, at, "+notcp");
    check_proxy(&server, at, "+tcp");
}

#[test]
fn dnsdist_is_told_who_asks() {
    let Some((_dnsdist, at)) = EncryptedPeer::dnsdist_behind("127.0.0.3") else { return };
    let pool = |name: &str, scheme: &str| {
        format!("[pools.{name}]\nbackends = [{{ address = '{scheme}{at}', proxy_protocol = true }}]\ntimeout = '20s'\n")
    };
    let server = Server::start(&format!(
        "workers = 1\n[forwarder]\nlisten = ['127.0.0.1:0']\n[forwarder.routes]\n'udp.example' = 'udp'\n'tcp.example' = 'tcp'\n{}{}",
        pool("udp", ""),
        pool("tcp", "tcp://"),
    ));
    for name in ["udp.example", "tcp.example"] {
        for (client, expected) in [("127.0.0.3", ANSWER), ("127.0.0.4", OTHER_ANSWER), ("127.0.0.3", ANSWER)] {
            let words = format!("-b {client} @127.0.0.1 -p {} {name} A", server.address().port());
            let Some(reported) = ask_by("kdig", &server.path(""), &words) else { return };
            assert!(reported.contains(expected), "{words}: {reported}");
        }
    }
}

#[test]
fn kdig_and_dig_ask_by_tls() {
    let (backend, authorities) = (Backend::new(answer(ANSWER)), CertificateAuthority::new());
    let server = start(&backend, &authorities, "", "");
    for (program, words) in
        [("kdig", "+tls +tls-sni=dns.example"), ("kdig", "+tls +padding"), ("dig", "+tls"), ("dig", "+tls +keepopen")]
    {
        let words = format!(
            "@127.0.0.1 -p {} {words} +tls-ca=ca.pem +tls-hostname=dns.example www.example A",
            port(&server, 1)
        );
        let Some(reported) = ask_by(program, &server.path(""), &words) else { return };
        assert!(reported.contains(ANSWER), "{program} {words}: {reported}");
    }
}

#[test]
fn openssl_finds_versions_protocols_and_sessions_as_they_should_be() {
    let (backend, authorities) = (Backend::new(answer(ANSWER)), CertificateAuthority::new());
    let server = start(&backend, &authorities, "", "first_query = '1s'");
    let connect = |place: usize, words: &str| {
        let at = port(&server, place);
        let words = format!(
            "s_client -connect 127.0.0.1:{at} -CAfile ca.pem -verify_return_error -verify_hostname dns.example {words}"
        );
        ask_by("openssl", &server.path(""), &words)
    };
    // Whatever the machine's own policy is, OpenSSL is to offer it.
    let Some(old) = connect(1, "-tls1_1 -cipher ALL:@SECLEVEL=0") else { return };
    assert!(old.contains("alert") && old.contains("Cipher is (NONE)"), "TLS 1.1: {old}");
    for (place, words, expected) in [
        (1, "-tls1_2 -alpn dot", &["New, TLSv1.2,", "ALPN protocol: dot"][..]),
        (1, "-tls1_3 -alpn dot", &["New, TLSv1.3,", "ALPN protocol: dot"]),
        (1, "-tls1_3", &["New, TLSv1.3,", "No ALPN negotiated"]),
        (1, "-alpn h2", &["alert no application protocol"]),
        (2, "-alpn h2,http/1.1", &["ALPN protocol: h2"]),
        (2, "-alpn http/1.1", &["ALPN protocol: http/1.1"]),
        (2, "-alpn dot", &["alert no application protocol"]),
    ] {
        let reported = connect(place, words).expect("it is installed");
        expected
            .iter()
            .for_each(|expected| assert!(reported.contains(expected), "{place} {words}: {expected} in {reported}"));
    }
    // A session is resumed by its ticket, and no ticket lets data come before the handshake is complete.
    fs::write(server.path("early"), framed(&query("www.example", A).to_vec())).expect("a file of the test");
    for version in ["-tls1_2", "-tls1_3"] {
        // The tickets of TLS 1.3 come after the handshake: it stays until the server ends.
        let reported = connect(1, &format!("{version} -sess_out session -ign_eof")).expect("it is installed");
        assert!(reported.contains("New, TLSv1."), "{version}: {reported}");
        let reported = connect(1, &format!("{version} -sess_in session")).expect("it is installed");
        assert!(reported.contains("Reused, TLSv1."), "{version}: {reported}");
    }
    let reported = connect(1, "-sess_in session -early_data early").expect("it is installed");
    assert!(reported.contains("Reused, TLSv1.3") && reported.contains("Early data was not sent"), "{reported}");
}

#[test]
fn dnsperf_is_answered_all_it_asks_by_tls() {
    let (backend, authorities) = (Backend::new(answer(ANSWER)), CertificateAuthority::new());
    let server = start(&backend, &authorities, "", "");
    let names: String = (0..500).map(|number| format!("q{number}.example A\n")).collect();
    fs::write(server.path("names"), names).expect("a file of the test");
    let words = format!("-m dot -s 127.0.0.1 -p {} -d names -n 4 -c 4 -q 64 -t 30", port(&server, 1));
    let Some(reported) = ask_by("dnsperf", &server.path(""), &words) else { return };
    for expected in ["Queries completed:    2000 (100.00%)", "NOERROR 2000 (100.00%)", "Reconnections:        0"] {
        assert!(reported.contains(expected), "{expected} in {reported}");
    }
}

#[test]
fn h2load_is_answered_all_it_asks() {
    let (backend, authorities) = (Backend::new(answer(ANSWER)), CertificateAuthority::new());
    let server = start(&backend, &authorities, "", "");
    fs::write(server.path("query"), query("www.example", A).to_vec()).expect("a file of the test");
    let words = format!(
        "-n 2000 -c 4 -m 8 -d query -H content-type:application/dns-message https://127.0.0.1:{}/dns-query",
        port(&server, 2)
    );
    let Some(reported) = ask_by("h2load", &server.path(""), &words) else { return };
    assert!(reported.contains("2000 succeeded, 0 failed") && reported.contains("2000 2xx"), "{reported}");
    let labels = [("status", "200")];
    assert_eq!(server.admin().metrics().sum("hedgerow_http_responses_total", &labels), 2000);
}
