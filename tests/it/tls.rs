//! DNS over TLS to clients (RFC 7858): what comes by it is served as by TCP, behind a handshake and
//! certificates.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Instant;

use rustix::process::Signal;
use testkit::*;
use tokio_rustls::rustls::version::{TLS12, TLS13};

const ADDRESS: &str = "192.0.2.1";

/// A forwarder with a plain listener and one by TLS, whose certificate is for `dns.example`.
fn forwarder(backend: &Backend, keys: &str) -> Forwarder {
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let keys = format!("{keys}\n");
    Forwarder::to(&[backend], &format!("timeout = '20s'\nattempt_timeout = '20s'\n{certificate}"))
        .keys(&keys)
        .listen("['127.0.0.1:0', 'tls://127.0.0.1:0']")
        .admin()
}

/// Starts it with a certificate of this authority.
fn start(forwarder: &Forwarder, authorities: &CertificateAuthority) -> Server {
    let (chain, key) = authorities.issue("dns.example");
    Server::start_with_files(&forwarder.to_toml(), &[("chain.pem", &chain), ("key.pem", &key)])
}

/// Where it is asked by TLS.
fn tls_of(server: &Server) -> std::net::SocketAddr {
    server.listeners("forwarder")[1]
}

#[test]
fn both_versions_are_spoken_with_and_without_a_protocol_name() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    for (versions, alpn) in [(&[&TLS13][..], &["dot"][..]), (&[&TLS13], &[]), (&[&TLS12], &["dot"]), (&[&TLS12], &[])] {
        let config = authorities.trusted_by(alpn, versions);
        let mut client = TlsClient::of(tls_of(&server), &config, "dns.example");
        assert_eq!(client.alpn().map(<[u8]>::to_vec), alpn.first().map(|name| name.as_bytes().to_vec()));
        assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS]);
        assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS], "a second one by the same");
    }
    // By its address too, which stands in the certificate.
    let config = authorities.trusted(&["dot"]);
    assert_eq!(
        TlsClient::of(tls_of(&server), &config, "127.0.0.1").ask(&query("a.example.org", A)).answers(),
        [ADDRESS]
    );
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [ADDRESS], "plain DNS beside it");
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_queries_total", &[("transport", "tls")]), 9);
    assert_eq!(metrics.sum("hedgerow_connections_total", &[("transport", "tls"), ("result", "accepted")]), 5);
    let of_kind = |kind| metrics.sum("hedgerow_handshakes_total", &[("transport", "tls"), ("kind", kind)]);
    assert_eq!(of_kind("full") + of_kind("resumed"), 5);
    assert!(metrics.sum("hedgerow_certificate_not_after_seconds", &[("certificate", "main")]) > 60_000_000_000);
}

#[test]
fn certificate_that_the_book_makes_is_believed_by_lookup() {
    let book = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/encrypted.md")).expect("the book");
    let mut scripts = book.split("```").filter_map(|block| block.strip_prefix("sh\n"));
    let script = scripts.find(|block| block.contains("openssl req -x509")).expect("the book makes one");
    assert!(script.contains("CA:FALSE"), "{script}");
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    match Command::new("openssl").arg("version").output() {
        Ok(output) if output.status.success() => {}
        Ok(_) | Err(_) => return leave_out("openssl", "it is not installed"),
    }
    let made = Command::new("sh").args(["-e", "-c", script]).current_dir(&folder).output().expect("a shell");
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("it was made");
    let backend = Backend::new(answer(ADDRESS));
    let (chain, key) = (read("tls/chain.pem"), read("tls/key.pem"));
    let files = [("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(&forwarder(&backend, "").to_toml(), &files);
    let ca = server.path("chain.pem");
    let at = format!("@{}", tls_of(&server));
    for name in ["dns.example", "127.0.0.1"] {
        let mut lookup = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        lookup.args(["lookup", &at, "+tls", "--tls-name", name, "--ca"]).arg(&ca).arg("www.example.org");
        let reported = lookup.output().expect("it runs");
        assert!(reported.status.success(), "{name}: {reported:?}");
        assert_eq!(String::from_utf8_lossy(&reported.stdout), format!("www.example.org {ADDRESS} A\n"), "{name}");
    }
}

#[test]
fn who_offers_another_protocol_hears_so() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let refused = TlsClient::try_of(tls_of(&server), &authorities.trusted(&["h2"]), "dns.example");
    let error = refused.map(drop).expect_err("no HTTP is spoken here").to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn many_queries_of_one_record_are_answered_as_answers_come() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = TlsClient::of(tls_of(&server), &authorities.trusted(&["dot"]), "dns.example");
    let slow = query("slow.example.org", A);
    let quick: Vec<_> = (0..300).map(|i| query(&format!("{i}.example.org"), A)).collect();
    client.send(std::slice::from_ref(&slow));
    client.send(&quick);
    let mut ids: Vec<_> = quick.iter().map(|_| client.receive().id()).collect();
    let mut expected: Vec<_> = quick.iter().map(|query| query.id).collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    backend.release();
    assert_eq!(client.receive().id(), slow.id);
}

#[test]
fn octets_of_a_query_may_come_in_records_of_their_own() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = TlsClient::of(tls_of(&server), &authorities.trusted(&["dot"]), "dns.example");
    let query = query("www.example.org", A);
    for octet in framed(&query.to_vec()) {
        client.send_bytes(&[octet]);
    }
    assert_eq!(client.receive().id(), query.id);
    // A client that has sent its end is still answered.
    client.send(std::slice::from_ref(&query));
    client.close_sending();
    assert_eq!(client.receive().id(), query.id);
    assert!(client.wait_for_end(), "the end is said by TLS");
}

#[test]
fn large_answers_come_whole() {
    let records = 3000;
    let backend = Backend::new(truncated().by_tcp(reply(move |reply| {
        (0..records).fold(reply, |reply, i| reply.answer(a(&format!("10.0.{}.{}", i / 250, i % 250))))
    })));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = TlsClient::of(tls_of(&server), &authorities.trusted(&["dot"]), "dns.example");
    for _ in 0..3 {
        assert_eq!(client.ask(&query("many.example.org", A)).answers().len(), records);
    }
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let sections =
        ["first", "second"].map(|name| format!("[certificates.{name}]\nchain = '{name}.pem'\nkey = '{name}.key'\n"));
    let config = Forwarder::to(&[&backend], &sections.concat())
        .listen("['tls://127.0.0.1:0', { address = 'tls://127.0.0.1:0', certificate = 'second' }]");
    let [(chain, key), (other_chain, other_key)] =
        ["first.example", "second.example"].map(|name| authorities.issue(name));
    let files = [("first.pem", &*chain), ("first.key", &key), ("second.pem", &other_chain), ("second.key", &other_key)];
    let server = Server::start_with_files(&config.to_toml(), &files);
    let [by_name, own] = [0, 1].map(|place| server.listeners("forwarder")[place]);
    let trusted = authorities.trusted(&[]);
    let shown = |at, name| TlsClient::of(at, &trusted, name).shown();
    let (first, second) = (shown(by_name, "first.example"), shown(by_name, "second.example"));
    assert_ne!(first, second);
    // A client that connects to an address sends no server name.
    assert_eq!(shown(by_name, "127.0.0.1"), first);
    assert_eq!(shown(own, "127.0.0.1"), second);
    assert_eq!(shown(own, "second.example"), second);
}

#[test]
fn another_certificate_is_for_the_next_connection_and_a_broken_one_for_nobody() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let trusted = authorities.trusted(&["dot"]);
    let mut open = TlsClient::of(tls_of(&server), &trusted, "dns.example");
    let first = open.shown();
    let is_served = |client: &mut TlsClient| client.ask(&query("www.example.org", A)).answers() == [ADDRESS];
    assert!(is_served(&mut open));
    let (chain, key) = authorities.issue("dns.example");
    // Half of what is being written.
    server.rewrite("chain.pem", &chain[..chain.len() / 3]);
    let answer = server.admin().try_post("/api/v1/reload", "");
    assert!(answer.status == 400 && answer.body.contains("chain.pem: it is broken"), "{}", answer.body);
    let loads = |result| {
        let labels = [("certificate", "main"), ("result", result)];
        server.admin().metrics().sum("hedgerow_certificate_loads_total", &labels)
    };
    until("what is wrong is counted", || (loads("refused") == 1).then_some(()));
    let shown = server.process.ctl(&["--admin", &format!("http://{}", server.listener("admin")), "certificates"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("main") && shown.contains("it is broken"), "{shown}");
    assert_eq!(TlsClient::of(tls_of(&server), &trusted, "dns.example").shown(), first);
    server.rewrite("chain.pem", &chain);
    server.rewrite("key.pem", &key);
    let answer = server.admin().try_post("/api/v1/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut next = TlsClient::of(tls_of(&server), &trusted.clone(), "dns.example");
    assert!(is_served(&mut next) && is_served(&mut open), "both go on");
    let fresh = TlsClient::of(tls_of(&server), &authorities.trusted(&["dot"]), "dns.example");
    assert_ne!(fresh.shown(), first);
    assert_eq!(loads("loaded"), 2);
    let listed = server.admin().get("/api/v1/certificates");
    let listed = format!("{listed:?}");
    assert!(listed.contains("main") && !listed.contains("it is broken"), "{listed}");
}

#[test]
fn tickets_live_across_a_reload_and_are_good_for_every_worker() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "").workers(2), &authorities);
    let trusted = authorities.trusted(&["dot"]);
    let visit = || {
        let mut client = TlsClient::of(tls_of(&server), &trusted, "dns.example");
        // Tickets come behind the handshake: with the answer they are here.
        client.ask(&query("www.example.org", A));
        client.is_resumed()
    };
    assert!(!visit());
    assert!((0..8).all(|_| visit()), "whichever worker it is");
    assert_eq!(server.admin().try_post("/api/v1/reload", "").status, 200);
    assert!(visit());
}

#[test]
fn noise_gets_an_alert_and_is_counted() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let plain = framed(&query("www.example.org", A).to_vec());
    let noise: [&[u8]; 4] =
        [&plain, b"GET /dns-query HTTP/1.1\r\nHost: dns.example\r\n\r\n", &[0xFF; 600], &[0; 40_000]];
    for octets in noise {
        let mut socket = TcpStream::connect(tls_of(&server)).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let _ = socket.write_all(octets);
        let mut heard = Vec::new();
        // A client that sends on while it is refused may see a reset in place of the end.
        let _ = socket.read_to_end(&mut heard);
        assert!(heard.is_empty() || heard[0] == 21, "an alert, if anything: {heard:?}");
    }
    let labels = [("transport", "tls"), ("result", "handshake_failed")];
    let sum = |name: &str, labels: &[(&str, &str)]| server.admin().metrics().sum(name, labels);
    until("all are counted", || (sum("hedgerow_connections_total", &labels) == 4).then_some(()));
    until("none is open", || (sum("hedgerow_connections", &labels[..1]) == 0).then_some(()));
    assert!(server.process.log().lines().all(|line| !line.contains("ERROR")));
    TlsClient::of(tls_of(&server), &authorities.trusted(&[]), "dns.example").ask(&query("www.example.org", A));
}

#[test]
fn a_handshake_that_hangs_ends_with_the_time_of_the_first_query() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "[forwarder.connections]\nfirst_query = '300ms'"), &authorities);
    // One says nothing at all, one stops in the middle, one shakes hands and asks nothing.
    let silent = TcpStream::connect(tls_of(&server)).expect("the server listens");
    let mut half = TcpStream::connect(tls_of(&server)).expect("the server listens");
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("the server takes it");
    for mut socket in [silent, half] {
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        assert_eq!(socket.read(&mut [0; 64]).expect("an end"), 0);
    }
    let mut shaken = TlsClient::of(tls_of(&server), &authorities.trusted(&[]), "dns.example");
    shaken.wait_for_end();
    let labels = [("transport", "tls"), ("result", "timed_out")];
    let timed_out = || server.admin().metrics().sum("hedgerow_connections_total", &labels);
    until("all three are counted", || (timed_out() == 3).then_some(()));
}

#[test]
fn one_client_has_so_many_connections_of_all_transports() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "[forwarder.connections]\nper_client = 2"), &authorities);
    let trusted = authorities.trusted(&[]);
    let mut plain = server.tcp_client();
    plain.ask(&query("www.example.org", A));
    let mut one = TlsClient::of(tls_of(&server), &trusted, "dns.example");
    one.ask(&query("www.example.org", A));
    TlsClient::try_of(tls_of(&server), &trusted, "dns.example").map(drop).expect_err("that would be three");
    let labels = [("transport", "tls"), ("result", "refused")];
    assert_eq!(server.admin().metrics().sum("hedgerow_connections_total", &labels), 1);
}

#[test]
fn a_drain_answers_what_is_in_flight_and_says_the_end_by_tls() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS).held()), CertificateAuthority::new());
    let mut server = start(&forwarder(&backend, ""), &authorities);
    let trusted = authorities.trusted(&["dot"]);
    let mut waiting = TlsClient::of(tls_of(&server), &trusted, "dns.example");
    let query = query("www.example.org", A);
    waiting.send(std::slice::from_ref(&query));
    backend.wait_for(1);
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("finishing those in flight");
    backend.release();
    assert_eq!(waiting.receive().id(), query.id);
    assert!(waiting.wait_for_end(), "close_notify before the end");
    assert!(server.process.wait_for_exit().success());
}

#[test]
fn listeners_come_and_go_by_reload_and_others_are_not_bound_anew() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let [stays, comes] = [(); 2].map(|()| free_address());
    let config = |listen: &str| forwarder(&backend, "").listen(listen).to_toml();
    let (chain, key) = authorities.issue("dns.example");
    let files = [("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(&config(&format!("['tls://{stays}']")), &files);
    let trusted = authorities.trusted(&[]);
    let mut open = TlsClient::of(stays, &trusted, "dns.example");
    open.ask(&query("www.example.org", A));
    let reload = |listen: &str| {
        server.rewrite("config.toml", &config(listen));
        let answer = server.admin().try_post("/api/v1/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    reload(&format!("['tls://{comes}', 'tls://{stays}']"));
    open.ask(&query("www.example.org", A));
    TlsClient::of(comes, &trusted, "dns.example").ask(&query("www.example.org", A));
    // The same address in the clear, and the other way round.
    reload(&format!("['{comes}', 'tls://{stays}']"));
    until("plain DNS is spoken there", || {
        let mut socket = TcpStream::connect(comes).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        socket.write_all(&framed(&query("www.example.org", A).to_vec())).ok()?;
        let mut start = [0; 2];
        socket.read_exact(&mut start).ok()?;
        (start[0] == 0).then_some(())
    });
    open.ask(&query("www.example.org", A));
    reload(&format!("['{comes}']"));
    assert!(open.wait_for_end(), "connections end after the last client has left");
}

#[test]
fn padding_and_keepalive_are_answered_where_they_may_be() {
    const KEEPALIVE: u16 = 11;
    const PADDING: u16 = 12;
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "[forwarder.connections]\nidle = '12s'"), &authorities);
    let mut tls = TlsClient::of(tls_of(&server), &authorities.trusted(&["dot"]), "dns.example");
    let mut tcp = server.tcp_client();
    let plain = query("www.example.org", A).edns(1232);
    let both = || query("www.example.org", A).edns(1232).option(PADDING, &[0; 20]).option(KEEPALIVE, b"");
    let codes = |response: &Response| response.options().into_iter().map(|(code, _)| code).collect::<Vec<_>>();
    let padded = tls.ask(&both());
    assert_eq!((padded.bytes.len(), codes(&padded)), (468, vec![KEEPALIVE, PADDING]));
    assert_eq!(padded.options()[0].1, [0, 120], "in tenths of a second");
    assert_eq!(padded.answers(), [ADDRESS]);
    assert_eq!(codes(&tls.ask(&plain)), [0; 0]);
    assert_eq!(codes(&tcp.ask(&both())), [KEEPALIVE], "padding in the clear is only a burden");
    assert_eq!(codes(&server.client().ask(&both())), [0; 0], "by UDP there is no connection");
    // What is refused is padded too.
    let refused = tls.ask(&both().class(3));
    assert!(refused.rcode() != 0 || refused.bytes.len() == 468);
}

#[test]
fn an_authority_is_asked_and_sends_its_zone() {
    let zone =
        "$ORIGIN example.net.\n$TTL 300\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";
    let config = "[authorities.ts1]\nlisten = ['127.0.0.1:0', 'tls://127.0.0.1:0']\n\
                  zones = [{ file = 'example.net.zone', origin = 'example.net', transfer_to = ['127.0.0.1'] }]\n\
                  [certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let authorities = CertificateAuthority::new();
    let (chain, key) = authorities.issue("ns.example");
    let files = [("example.net.zone", zone), ("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(config, &files);
    let at = server.listeners("ts1")[1];
    let mut client = TlsClient::of(at, &authorities.trusted(&["dot"]), "ns.example");
    assert_eq!(client.ask(&query("www.example.net", A)).answers(), [ADDRESS]);
    const AXFR: u16 = 252;
    assert_eq!(client.ask(&query("example.net", AXFR)).message().answers.len(), 5, "SOA, NS, two addresses, SOA");
    // RFC 9103 section 7.3.1 lets a client pad what it asks for.
    let padded = client.ask(&query("www.example.net", A).edns(1232).option(12, b""));
    assert_eq!(padded.bytes.len(), 468);
    let Some(kdig) = installed("kdig") else { return leave_out("AXFR by TLS", "kdig is not installed") };
    let ca = server.path("ca.pem");
    fs::write(&ca, authorities.pem()).expect("a file of the test");
    let tls = [format!("+tls-ca={}", ca.display()), "+tls-hostname=ns.example".to_owned()];
    let port = at.port().to_string();
    let run = |words: &[&str]| {
        let output = Command::new(&kdig).args(["@127.0.0.1", "-p", &port]).args(&tls).args(words).output();
        String::from_utf8_lossy(&output.expect("it can be run").stdout).into_owned()
    };
    let transferred = run(&["+tls", "example.net", "AXFR"]);
    assert!(transferred.contains("www.example.net.") && transferred.contains("192.0.2.1"), "{transferred}");
    let asked = run(&["+tls", "+padding", "+ednsopt=11", "www.example.net", "A"]);
    assert!(asked.contains("192.0.2.1") && asked.contains("TLS session (TLS1.3)"), "{asked}");
    assert!(asked.contains("468 B"), "{asked}");
}

/// Where a program is, if it is installed.
fn installed(program: &str) -> Option<std::path::PathBuf> {
    std::env::var_os("PATH")?
        .to_str()?
        .split(':')
        .map(|folder| std::path::Path::new(folder).join(program))
        .find(|file| file.exists())
}

#[test]
fn commands_without_a_config_take_a_certificate() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (chain, key) = authorities.issue("dns.example");
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("chain.pem"), chain).expect("a file of the test");
    fs::write(at("key.pem"), key).expect("a file of the test");
    fs::write(at("hosts.txt"), "www.example.org 192.0.2.1 A\n").expect("a file of the test");
    let backend = backend.address().to_string();
    let certificate = ["--certificate", &at("chain.pem"), "--key", &at("key.pem")];
    let trusted = authorities.trusted(&["dot"]);
    for (command, last, name) in [("ls", &*backend, "forwarder"), ("ts", &at("hosts.txt"), "authority")] {
        let words = [&[command, "-l", "tls://127.0.0.1:0"], &certificate[..], &[last]].concat();
        let server = Server::run(words);
        let mut client = TlsClient::of(server.listener(name), &trusted, "dns.example");
        assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS], "{command}");
        let refused =
            Command::new(env!("CARGO_BIN_EXE_hedgerow")).args([command, "-l", "tls://127.0.0.1:0", last]).output();
        let refused = refused.expect("cargo has built the binary");
        let reported = String::from_utf8_lossy(&refused.stderr);
        assert!(
            refused.status.code() == Some(2) && reported.contains("add --certificate FILE and --key FILE"),
            "{reported}"
        );
    }
}

#[test]
fn an_expired_certificate_is_told_by_check_and_served() {
    let authorities = CertificateAuthority::new();
    let (chain, key) = authorities.issue_by("dns.example", &rcgen::PKCS_ECDSA_P384_SHA384, 2001);
    let backend = Backend::new(answer(ADDRESS));
    let server =
        Server::start_with_files(&forwarder(&backend, "").to_toml(), &[("chain.pem", &chain), ("key.pem", &key)]);
    server.process.wait_for_log("the certificate has expired at 2001-01-01T00:00:00Z");
    let refused = TlsClient::try_of(tls_of(&server), &authorities.trusted(&[]), "dns.example");
    assert!(refused.map(drop).expect_err("it has expired").to_string().contains("expired"));
    let checked =
        Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(["check", "-c"]).arg(server.path("config.toml")).output();
    let checked = checked.expect("cargo has built the binary");
    let reported = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && reported.contains("the certificate has expired at 2001"), "{reported}");
}

#[test]
fn an_idle_connection_ends_with_close_notify() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nidle = '300ms'\nfirst_query = '1s'";
    let server = start(&forwarder(&backend, keys), &authorities);
    let trusted = authorities.trusted(&["dot"]);
    let mut client = TlsClient::of(tls_of(&server), &trusted, "dns.example");
    assert_eq!(client.ask(&query("www.example.org", A)).answers(), [ADDRESS]);
    assert!(client.wait_for_end(), "the idle time ends it");
    let mut silent = TlsClient::of(tls_of(&server), &trusted, "dns.example");
    assert!(silent.wait_for_end(), "the time of the first query ends it");
}

#[test]
fn an_idle_connection_takes_little_memory() {
    const COUNT: usize = 400;
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nper_client = 0\nmax = 2000\nidle = '5m'\nfirst_query = '1m'";
    let server = start(&forwarder(&backend, keys), &authorities);
    let trusted = authorities.trusted(&["dot"]);
    let open = |count| {
        let visit = |_| {
            let mut client = TlsClient::of(tls_of(&server), &trusted, "dns.example");
            client.ask(&query("www.example.org", A));
            client
        };
        (0..count).map(visit).collect::<Vec<_>>()
    };
    let warm = open(50);
    let before = server.process.resident();
    let clients = open(COUNT);
    let each = (server.process.resident() - before) / COUNT;
    eprintln!("{each} octets for each idle connection by TLS");
    assert!(each < 30_000, "{each} octets each");
    drop((warm, clients));
}

#[test]
fn handshakes_do_not_keep_datagrams_waiting() {
    const COUNT: usize = 200;
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nper_client = 0\nmax = 2000";
    let server = start(&forwarder(&backend, keys).cache(""), &authorities);
    let client = server.client();
    client.ask(&query("www.example.org", A));
    let trusted = authorities.trusted(&["dot"]);
    let connected = (0..COUNT).map(|_| TlsClient::connected(tls_of(&server), &trusted, "dns.example"));
    let mut connected: Vec<_> = connected.collect();
    let measure = |until: &dyn Fn() -> bool| {
        let mut times = Vec::new();
        while !until() || times.len() < 20 {
            let start = Instant::now();
            client.ask(&query("www.example.org", A));
            times.push(start.elapsed());
        }
        times.sort_unstable();
        (times[times.len() * 99 / 100], *times.last().expect("there are some"), times.len())
    };
    let count = std::cell::Cell::new(0);
    let quiet = measure(&|| count.replace(count.get() + 1) > 200);
    // All hellos are in the server's sockets at once.
    connected.iter_mut().for_each(TlsClient::send_hello);
    let began = Instant::now();
    let shaking = thread::spawn(move || connected.iter_mut().for_each(TlsClient::shake_hands));
    let busy = measure(&|| shaking.is_finished());
    shaking.join().expect("every handshake came to its end");
    let took = began.elapsed();
    eprintln!("UDP p99, max, count: quiet {quiet:?}, beside {COUNT} handshakes {busy:?}");
    let labels = [("transport", "tls"), ("kind", "full")];
    let complete = || server.admin().metrics().sum("hedgerow_handshakes_total", &labels);
    until("all are complete", || (complete() == COUNT as u64).then_some(()));
    // Without the gate a datagram waits for sixty handshakes, and for most of all of them as a rule.
    let (p99, ..) = busy;
    assert!(p99 * 4 < took, "{busy:?} while all handshakes took {took:?}");
}
