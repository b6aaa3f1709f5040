//! DNS over QUIC to clients (RFC 9250): what comes by it is served as by TCP, a stream for each query; and
//! what clients may not do.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use quinn_proto::{ConnectionError, Dir};
use rustix::process::Signal;
use testkit::quic_client::{QuicClient, quic_config};
use testkit::*;

pub(crate) const ADDRESS: &str = "192.0.2.1";

/// The codes of DoQ (RFC 9250 section 8.4).
pub(crate) const NO_ERROR: u64 = 0;
pub(crate) const PROTOCOL_ERROR: u64 = 2;
pub(crate) const EXCESSIVE_LOAD: u64 = 4;
pub(crate) const UNSPECIFIED_ERROR: u64 = 5;

/// A forwarder with a plain listener and one by QUIC.
pub(crate) fn forwarder(backend: &Backend, keys: &str) -> Forwarder {
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    Forwarder::to(&[backend], &format!("timeout = '20s'\nattempt_timeout = '20s'\n{certificate}"))
        .keys(&format!("{keys}\n"))
        .listen("['127.0.0.1:0', 'quic://127.0.0.1:0']")
        .admin()
}

/// Starts it with a certificate of this authority.
pub(crate) fn start(forwarder: &Forwarder, authorities: &CertificateAuthority) -> Server {
    let (chain, key) = authorities.issue("dns.example");
    Server::start_with_files(&forwarder.to_toml(), &[("chain.pem", &chain), ("key.pem", &key)])
}

/// Where it is asked by QUIC.
pub(crate) fn quic_of(server: &Server) -> SocketAddr {
    server.listeners("forwarder")[1]
}

/// A client of it.
pub(crate) fn client_of(server: &Server, authorities: &CertificateAuthority) -> QuicClient {
    QuicClient::of(quic_of(server), &quic_config(authorities, &["doq"]), "dns.example")
}

/// A query as it goes by QUIC: its ID is 0.
pub(crate) fn asked(name: &str) -> Query {
    query(name, A).id(0)
}

/// A query in its frame.
pub(crate) fn frame(query: &Query) -> Vec<u8> {
    framed(&query.to_vec())
}

/// The sum of a metric over these labels and QUIC's.
pub(crate) fn sum(server: &Server, name: &str, labels: &[(&str, &str)]) -> u64 {
    server.admin().metrics().sum(name, &[&[("transport", "quic")], labels].concat())
}

/// Waits until no connection is open.
pub(crate) fn wait_for_none(server: &Server) {
    until("no connection is open", || (sum(server, "hedgerow_connections", &[]) == 0).then_some(()));
}

#[test]
fn queries_are_answered_each_on_its_stream() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = client_of(&server, &authorities);
    assert_eq!(client.alpn().as_deref(), Some(&b"doq"[..]));
    for _ in 0..3 {
        assert_eq!(client.ask(&asked("www.example.org")).answers(), [ADDRESS]);
    }
    // By its address too, which stands in the certificate.
    let config = quic_config(&authorities, &["doq"]);
    let mut other = QuicClient::of(quic_of(&server), &config, "127.0.0.1");
    assert_eq!(other.ask(&asked("a.example.org")).answers(), [ADDRESS]);
    assert_eq!(server.client().ask(&query("www.example.org", A)).answers(), [ADDRESS], "plain DNS beside it");
    assert_eq!(sum(&server, "hedgerow_queries_total", &[]), 4);
    assert_eq!(sum(&server, "hedgerow_connections", &[]), 2);
    assert_eq!(sum(&server, "hedgerow_connections_total", &[("result", "accepted")]), 2);
    let of_kind = |kind| sum(&server, "hedgerow_handshakes_total", &[("kind", kind)]);
    assert_eq!(of_kind("full") + of_kind("resumed"), 2);
}

#[test]
fn who_does_not_offer_the_protocol_hears_so() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    for alpn in [&["dot"][..], &["h3"], &[]] {
        let mut client = QuicClient::begun(quic_of(&server), &quic_config(&authorities, alpn), "dns.example");
        let error = client.shake_hands().expect_err("DoQ alone is spoken here").to_string();
        // TLS alert 120, no_application_protocol.
        assert!(error.contains("120") || error.contains("application protocol"), "{alpn:?}: {error}");
    }
    until("all are counted", || {
        (sum(&server, "hedgerow_connections_total", &[("result", "handshake_failed")]) == 3).then_some(())
    });
    wait_for_none(&server);
}

#[test]
fn responses_leave_as_answers_come_each_to_its_query() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, "[forwarder.connections]\nin_flight = 64"), &authorities);
    let mut client = client_of(&server, &authorities);
    let slow = client.begin(&asked("slow.example.org"));
    // Many more than streams that may be open at once; and the last of a turn is written first.
    for round in 0..10 {
        let names: Vec<_> = (0..40).map(|i| format!("{round}-{i}.example.org")).collect();
        let streams: Vec<_> = names.iter().map(|_| client.open()).collect();
        for (stream, name) in streams.iter().zip(&names).rev() {
            client.write(*stream, &frame(&asked(name)), true);
        }
        for (stream, name) in streams.into_iter().zip(&names) {
            let response = client.receive(stream).expect("a response");
            assert_eq!(response.question(), asked(name).question(), "the response of its own query");
        }
    }
    backend.release();
    assert_eq!(client.receive(slow).expect("a response").answers(), [ADDRESS]);
}

#[test]
fn octets_of_a_query_may_come_one_by_one() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = client_of(&server, &authorities);
    let stream = client.open();
    for octet in frame(&asked("www.example.org")) {
        client.send(stream, &[octet], false);
    }
    client.send(stream, &[], true);
    assert_eq!(client.receive(stream).expect("a response").answers(), [ADDRESS]);
}

#[test]
fn large_answers_come_whole() {
    let records = 3000;
    let backend = Backend::new(truncated().by_tcp(reply(move |reply| {
        (0..records).fold(reply, |reply, i| reply.answer(a(&format!("10.0.{}.{}", i / 250, i % 250))))
    })));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = client_of(&server, &authorities);
    let streams: Vec<_> = (0..12).map(|_| client.begin(&asked("many.example.org"))).collect();
    for stream in streams {
        assert_eq!(client.receive(stream).expect("a response").answers().len(), records);
    }
}

#[test]
fn what_doq_forbids_ends_the_connection() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let good = frame(&asked("www.example.org"));
    let mut response = good.clone();
    response[4] |= 0x80;
    let keepalive = frame(&asked("www.example.org").edns(1232).option(11, b""));
    for (octets, what) in [
        (frame(&asked("www.example.org").id(7)), "an ID that is not 0"),
        (keepalive, "the keepalive option"),
        ([&good[..], &good].concat(), "a second query"),
        ([&good[..], b"x"].concat(), "octets after the query"),
        (good[..good.len() - 1].to_vec(), "the end before the query's"),
        (Vec::new(), "a stream without octets"),
        (vec![0, 1, 0], "no header"),
        (response, "a response"),
    ] {
        let mut client = client_of(&server, &authorities);
        assert_eq!(client.ask(&asked("www.example.org")).answers(), [ADDRESS], "before {what}");
        let stream = client.open();
        client.send(stream, &octets, true);
        assert_eq!(client.wait_for_close(), Some(PROTOCOL_ERROR), "{what}");
    }
    // A second query is found without the end of the stream, too, and a stream in one direction is no query.
    let mut client = client_of(&server, &authorities);
    let stream = client.open();
    client.send(stream, &[&good[..], &good].concat(), false);
    assert_eq!(client.wait_for_close(), Some(PROTOCOL_ERROR));
    let mut client = client_of(&server, &authorities);
    let stream = client.try_open(Dir::Uni).expect("one is let through, to be refused");
    client.send(stream, &good, true);
    assert_eq!(client.wait_for_close(), Some(PROTOCOL_ERROR));
    wait_for_none(&server);
    assert_eq!(client_of(&server, &authorities).ask(&asked("www.example.org")).answers(), [ADDRESS]);
}

#[test]
fn who_gets_no_response_hears_so() {
    let backend = Backend::new(silent());
    let authorities = CertificateAuthority::new();
    let certificate = "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let config = Forwarder::to(&[&backend], &format!("timeout = '200ms'\non_timeout = 'drop'\n{certificate}"))
        .listen("['127.0.0.1:0', 'quic://127.0.0.1:0']");
    let server = start(&config, &authorities);
    let mut client = client_of(&server, &authorities);
    let stream = client.begin(&asked("www.example.org"));
    assert_eq!(client.receive(stream).map(drop), Err(UNSPECIFIED_ERROR));
    let stream = client.begin(&asked("www.example.org"));
    assert_eq!(client.receive(stream).map(drop), Err(UNSPECIFIED_ERROR), "the connection goes on");
}

#[test]
fn clients_change_their_address_and_go_on_whichever_worker_hears_them() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let authorities = CertificateAuthority::new();
    let server = start(&forwarder(&backend, "").workers(3), &authorities);
    let mut client = client_of(&server, &authorities);
    let slow = client.begin(&asked("slow.example.org"));
    backend.wait_for_name("slow.example.org", 1);
    // The kernel chooses a worker for each port: of twelve, all but one of a million times another one is
    // among them.
    for i in 0..12 {
        client.move_on();
        assert_eq!(client.ask(&asked(&format!("{i}.example.org"))).answers(), [ADDRESS]);
    }
    backend.release();
    assert_eq!(client.receive(slow).expect("what was asked from another port").answers(), [ADDRESS]);
    assert_eq!(sum(&server, "hedgerow_connections_total", &[("result", "accepted")]), 1, "all on one connection");
    assert!(client.lost().is_none());
}

#[test]
fn sessions_are_resumed_by_every_worker_and_across_a_reload() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "").workers(2), &authorities);
    let config = quic_config(&authorities, &["doq"]);
    let visit = || {
        let mut client = QuicClient::of(quic_of(&server), &config, "dns.example");
        assert!(!client.has_early_data(), "the server does not offer it");
        // Tickets come behind the handshake: with the answer they are here.
        client.ask(&asked("www.example.org"));
    };
    let of_kind = |kind| sum(&server, "hedgerow_handshakes_total", &[("kind", kind)]);
    visit();
    (0..8).for_each(|_| visit());
    assert_eq!((of_kind("full"), of_kind("resumed"), of_kind("early")), (1, 8, 0));
    assert_eq!(server.admin().try_post("/api/v1/reload", "").status, 200);
    visit();
    assert_eq!((of_kind("full"), of_kind("resumed")), (1, 9));
}

#[test]
fn early_queries_are_answered_at_once_and_changes_wait_for_the_handshake() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "[forwarder.connections]\nearly_data = true").workers(1), &authorities);
    let config = quic_config(&authorities, &["doq"]);
    let mut first = QuicClient::of(quic_of(&server), &config, "dns.example");
    assert_eq!(first.ask(&asked("www.example.org")).answers(), [ADDRESS]);
    let mut client = QuicClient::begun(quic_of(&server), &config, "dns.example");
    assert!(client.has_early_data());
    let early = client.try_open(Dir::Bi).expect("streams as before");
    client.write(early, &frame(&asked("early.example.org")), true);
    let change = client.try_open(Dir::Bi).expect("streams as before");
    client.write(change, &frame(&asked("change.example.org").opcode(5)), true);
    client.flush();
    // The query is at the backend, and we have not heard a word of the server: the handshake is not complete.
    backend.wait_for_name("early.example.org", 1);
    assert_eq!(sum(&server, "hedgerow_queries_total", &[]), 2, "the first one, and the early one");
    client.shake_hands().expect("a handshake");
    assert!(client.is_early_data_taken());
    assert_eq!(client.receive(early).expect("a response").answers(), [ADDRESS]);
    assert_eq!(client.receive(change).expect("a response").rcode(), 4, "NOTIMP");
    assert_eq!(sum(&server, "hedgerow_handshakes_total", &[("kind", "early")]), 1);
}

#[test]
fn early_queries_that_are_replayed_reach_no_backend() {
    // RFC 9250 section 5.5.3, RFC 8446 section 8.
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nearly_data = true\nfirst_query = '300ms'\nidle = '500ms'";
    let server = start(&forwarder(&backend, keys).workers(1), &authorities);
    let config = quic_config(&authorities, &["doq"]);
    QuicClient::of(quic_of(&server), &config, "dns.example").ask(&asked("www.example.org"));
    wait_for_none(&server);
    // An attacker takes all that the client sends.
    let tap = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    tap.set_nonblocking(true).expect("a socket");
    let at = tap.local_addr().expect("it is bound");
    let mut client = QuicClient::begun(at, &config, "dns.example");
    assert!(client.has_early_data());
    let stream = client.try_open(Dir::Bi).expect("streams as before");
    client.send(stream, &frame(&asked("early.example.org")), true);
    let mut room = [0; 2048];
    let mut next = || tap.recv(&mut room).ok().map(|length| room[..length].to_vec());
    let flight: Vec<_> = std::iter::from_fn(&mut next).collect();
    let accepted = || sum(&server, "hedgerow_connections_total", &[("result", "accepted")]);
    for round in 0..2 {
        let before = accepted();
        let attacker = UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
        // For a while after its end, a connection still takes what was meant for it.
        until("a connection begins", || {
            for octets in &flight {
                attacker.send_to(octets, quic_of(&server)).expect("loopback takes it");
            }
            (accepted() > before).then_some(())
        });
        wait_for_none(&server);
        // The connection may end before the backend has read its query.
        backend.wait_for_name("early.example.org", 1);
        assert_eq!(backend.queries_for("early.example.org").len(), 1, "after round {round}");
    }
}

#[test]
fn early_data_that_is_not_wanted_is_refused_and_not_the_connection() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let with = forwarder(&backend, "[forwarder.connections]\nearly_data = true");
    let server = start(&with, &authorities);
    let config = quic_config(&authorities, &["doq"]);
    let mut first = QuicClient::of(quic_of(&server), &config, "dns.example");
    first.ask(&asked("www.example.org"));
    let address = with.listen(&format!("['127.0.0.1:0', 'quic://{}']", quic_of(&server)));
    // The same without: what sessions there were are known no more.
    let text = address.to_toml().replace("early_data = true", "early_data = false");
    server.rewrite("config.toml", &text);
    assert_eq!(server.admin().try_post("/api/v1/reload", "").status, 200);
    let mut client = QuicClient::begun(quic_of(&server), &config, "dns.example");
    assert!(client.has_early_data());
    let stream = client.try_open(Dir::Bi).expect("streams as before");
    client.send(stream, &frame(&asked("early.example.org")), true);
    client.shake_hands().expect("a handshake");
    assert!(!client.is_early_data_taken());
    assert_eq!(client.ask(&asked("again.example.org")).answers(), [ADDRESS], "what is rejected is sent again");
    assert_eq!(sum(&server, "hedgerow_handshakes_total", &[("kind", "early")]), 0);
}

#[test]
fn limits_hold_for_all_transports_together() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "[forwarder.connections]\nper_client = 2"), &authorities);
    let mut plain = server.tcp_client();
    plain.ask(&query("www.example.org", A));
    let mut one = client_of(&server, &authorities);
    one.ask(&asked("www.example.org"));
    let config = quic_config(&authorities, &["doq"]);
    let refused = QuicClient::begun(quic_of(&server), &config, "dns.example").shake_hands();
    // CONNECTION_REFUSED.
    assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))), "{refused:?}");
    assert_eq!(sum(&server, "hedgerow_connections_total", &[("result", "refused")]), 1);
    // One that is idle makes room where the table is full, if it has not ended already.
    let server = start(&forwarder(&backend, "[forwarder.connections]\nmax = 1"), &authorities);
    let mut first = client_of(&server, &authorities);
    first.ask(&asked("www.example.org"));
    first.listen_for(Duration::from_millis(600));
    let mut second = client_of(&server, &authorities);
    assert_eq!(second.ask(&asked("www.example.org")).answers(), [ADDRESS]);
    assert_eq!(first.wait_for_close(), Some(NO_ERROR));
    assert_eq!(sum(&server, "hedgerow_connections", &[]), 1);
}

#[test]
fn idle_connections_end_in_good_order() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, "[forwarder.connections]\nidle = '500ms'"), &authorities);
    let mut client = client_of(&server, &authorities);
    client.ask(&asked("www.example.org"));
    assert_eq!(client.wait_for_close(), Some(NO_ERROR));
    wait_for_none(&server);
}

#[test]
fn responses_are_padded_if_they_have_an_opt_record() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut client = client_of(&server, &authorities);
    let padded = client.ask(&asked("www.example.org").edns(1232).option(PADDING, &[0; 20]));
    assert_eq!((padded.bytes.len(), padded.answers()), (468, vec![ADDRESS.to_owned()]));
    assert!(padded.options().iter().all(|(code, data)| *code == PADDING && data.iter().all(|octet| *octet == 0)));
    // RFC 9250 section 5.4: whether the query asks for it or not. Without OPT there is no place for it.
    assert_eq!(client.ask(&asked("www.example.org").edns(1232)).bytes.len(), 468);
    assert!(client.ask(&asked("www.example.org")).bytes.len() < 468);
}

#[test]
fn a_drain_answers_what_is_in_flight_and_says_the_end() {
    let backend = Backend::new(answer(ADDRESS).except("slow", answer(ADDRESS).held()));
    let authorities = CertificateAuthority::new();
    let mut server = start(&forwarder(&backend, "").workers(2), &authorities);
    let mut waiting = client_of(&server, &authorities);
    let mut idle = client_of(&server, &authorities);
    idle.ask(&asked("www.example.org"));
    let streams: Vec<_> = (0..5).map(|i| waiting.begin(&asked(&format!("slow{i}.example.org")))).collect();
    backend.wait_for_name("slow4.example.org", 1);
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("finishing those in flight");
    assert_eq!(idle.wait_for_close(), Some(NO_ERROR), "who has nothing in flight need not wait");
    backend.release();
    for stream in streams {
        assert_eq!(waiting.receive(stream).expect("a response").answers(), [ADDRESS]);
    }
    assert_eq!(waiting.wait_for_close(), Some(NO_ERROR));
    assert!(server.process.wait_for_exit().success());
}

#[test]
fn listeners_come_and_go_by_reload_and_share_a_port_with_tls() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let [stays, comes] = [(); 2].map(|()| free_address());
    let config = |listen: &str| forwarder(&backend, "").workers(2).listen(listen).to_toml();
    let (chain, key) = authorities.issue("dns.example");
    let files = [("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(&config(&format!("['quic://{stays}']")), &files);
    let trusted = quic_config(&authorities, &["doq"]);
    let mut open = QuicClient::of(stays, &trusted, "dns.example");
    open.ask(&asked("www.example.org"));
    let reload = |listen: &str| {
        server.rewrite("config.toml", &config(listen));
        let answer = server.admin().try_post("/api/v1/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    reload(&format!("['tls://{stays}', 'quic://{comes}', 'quic://{stays}']"));
    open.ask(&asked("www.example.org"));
    let mut other = QuicClient::of(comes, &trusted, "dns.example");
    other.ask(&asked("www.example.org"));
    let mut tls = TlsClient::of(stays, &authorities.trusted(&["dot"]), "dns.example");
    tls.ask(&query("www.example.org", A));
    // The one leaves, the other stays; and both stay where TLS does.
    reload(&format!("['tls://{stays}', 'quic://{stays}']"));
    assert_eq!(other.wait_for_close(), Some(NO_ERROR), "connections end after the last client has left");
    open.ask(&asked("www.example.org"));
    tls.ask(&query("www.example.org", A));
    reload(&format!("['tls://{stays}']"));
    assert_eq!(open.wait_for_close(), Some(NO_ERROR));
    tls.ask(&query("www.example.org", A));
}

#[test]
fn another_certificate_is_for_the_next_connection() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let mut open = client_of(&server, &authorities);
    let (first, (chain, key)) = (open.shown(), authorities.issue("dns.example"));
    server.rewrite("chain.pem", &chain);
    server.rewrite("key.pem", &key);
    assert_eq!(server.admin().try_post("/api/v1/reload", "").status, 200);
    assert_ne!(client_of(&server, &authorities).shown(), first);
    assert_eq!(open.ask(&asked("www.example.org")).answers(), [ADDRESS], "who is connected goes on");
}

#[test]
fn a_restart_tells_clients_the_end_and_serves_who_comes_back() {
    let authorities = CertificateAuthority::new();
    let (chain, key) = authorities.issue("ns.example");
    let listen = "listen = ['127.0.0.1:0', 'quic://127.0.0.1:0']";
    let config = tree::config("").replace("listen = ['127.0.0.1:0']", listen)
        + "[certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let files = [("a.txt", &*tree::table(ADDRESS)), ("chain.pem", &chain), ("key.pem", &key)];
    let tree = tree::Tree::start_config(&config, &files, 2, |_| {});
    let at = tree.server.listeners("a")[1];
    let config = quic_config(&authorities, &["doq"]);
    let mut before = QuicClient::of(at, &config, "ns.example");
    assert_eq!(before.ask(&asked("www.example")).answers(), [ADDRESS]);
    let admin = format!("http://{}", tree.server.listener("admin"));
    let said = tree.server.process.ctl(&["--admin", &admin, "restart"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(before.wait_for_close(), Some(NO_ERROR));
    let mut after = QuicClient::of(at, &config, "ns.example");
    assert_eq!(after.ask(&asked("www.example")).answers(), [ADDRESS]);
}

#[test]
fn an_authority_is_asked_and_sends_its_zone() {
    let zone =
        "$ORIGIN example.net.\n$TTL 300\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.1\n";
    let many: String = (0..4000).map(|i| format!("host-{i} TXT \"{}\"\n", "x".repeat(100))).collect();
    let config = "[authorities.ts1]\nlisten = ['127.0.0.1:0', 'quic://127.0.0.1:0']\n\
                  zones = [{ file = 'example.net.zone', origin = 'example.net', transfer_to = ['127.0.0.1'] }]\n\
                  [certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n";
    let authorities = CertificateAuthority::new();
    let (chain, key) = authorities.issue("ns.example");
    let files = [("example.net.zone", &*format!("{zone}{many}")), ("chain.pem", &*chain), ("key.pem", &*key)];
    let server = Server::start_with_files(config, &files);
    let at = server.listeners("ts1")[1];
    let mut client = QuicClient::of(at, &quic_config(&authorities, &["doq"]), "ns.example");
    assert_eq!(client.ask(&asked("www.example.net")).answers(), [ADDRESS]);
    // More than one client is sent before it has acknowledged some, in messages one after the other on one
    // stream.
    let stream = client.begin(&query("example.net", 252).id(0));
    let messages = client.receive_all(stream).expect("a zone");
    assert!(messages.len() > 1 && messages.iter().all(|message| message.id() == 0));
    let records: usize = messages.iter().map(|message| message.message().answers.len()).sum();
    assert_eq!(records, 4005, "SOA, NS, two addresses, texts, SOA");
    assert_eq!(client.ask(&asked("www.example.net")).answers(), [ADDRESS], "the connection goes on");
    // RFC 9250 section 5.7: several at once, by AXFR and from a version that is older than any.
    let soa = record("example.net", SOA, &[0; 22]).to_vec();
    let ixfr = [header(0, 0, [1, 0, 1, 0]), query("example.net", IXFR).question(), soa].concat();
    let streams: Vec<_> = (0..4).map(|_| (client.begin(&query("example.net", AXFR).id(0)), client.open())).collect();
    streams.iter().for_each(|(_, stream)| client.send(*stream, &framed(&ixfr), true));
    for stream in streams.into_iter().flat_map(<[_; 2]>::from) {
        let messages = client.receive_all(stream).expect("a zone");
        assert_eq!(messages.iter().map(|message| message.message().answers.len()).sum::<usize>(), 4005);
    }
    // The server drops the rest of a stream that the client stops.
    let stream = client.begin(&query("example.net", 252).id(0));
    client.stop(stream, 3);
    client.flush();
    assert_eq!(client.ask(&asked("www.example.net")).answers(), [ADDRESS]);
}

#[test]
fn kdig_is_answered() {
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let server = start(&forwarder(&backend, ""), &authorities);
    let port = quic_of(&server).port().to_string();
    // That of Debian 12 crashes when it is to verify by QUIC, so it takes any certificate here.
    let output =
        Command::new("kdig").args(["@127.0.0.1", "-p", &port, "+quic", "+padding", "www.example.org", "A"]).output();
    let Ok(output) = output else { return leave_out("kdig by QUIC", "kdig is not installed") };
    let reported = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(reported.contains(ADDRESS) && reported.contains("QUIC"), "{reported}");
}

#[test]
fn handshakes_do_not_keep_datagrams_waiting() {
    const COUNT: usize = 200;
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nper_client = 0\nmax = 2000\nfirst_query = '20s'";
    let server = start(&forwarder(&backend, keys).workers(1).cache(""), &authorities);
    let client = server.client();
    client.ask(&query("www.example.org", A));
    let config = quic_config(&authorities, &["doq"]);
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
    let began = Instant::now();
    // All Initials are in the server's socket at once, and then each client goes on in its turn.
    let (at, of_clients) = (quic_of(&server), config.clone());
    let shaking = thread::spawn(move || {
        let begun = (0..COUNT).map(|_| QuicClient::begun(at, &of_clients, "dns.example"));
        let mut begun: Vec<_> = begun.collect();
        begun.iter_mut().map(|client| usize::from(client.shake_hands().is_ok())).sum::<usize>()
    });
    let busy = measure(&|| shaking.is_finished());
    let shaken = shaking.join().expect("every handshake came to an end");
    let took = began.elapsed();
    eprintln!("UDP p99, max, count: quiet {quiet:?}, beside {shaken} handshakes {busy:?} in {took:?}");
    assert!(shaken * 10 >= COUNT * 9, "{shaken} of {COUNT}");
    let (p99, ..) = busy;
    assert!(p99 * 4 < took, "{busy:?} while all handshakes took {took:?}");
}

#[test]
fn an_idle_connection_takes_little_memory() {
    const COUNT: usize = 300;
    let (backend, authorities) = (Backend::new(answer(ADDRESS)), CertificateAuthority::new());
    let keys = "[forwarder.connections]\nper_client = 0\nmax = 2000\nidle = '5m'\nfirst_query = '1m'";
    let server = start(&forwarder(&backend, keys).workers(1), &authorities);
    let config = quic_config(&authorities, &["doq"]);
    let open = |count| {
        let visit = |_| {
            let mut client = QuicClient::of(quic_of(&server), &config, "dns.example");
            client.ask(&asked("www.example.org"));
            client
        };
        (0..count).map(visit).collect::<Vec<_>>()
    };
    let warm = open(50);
    let before = server.process.resident();
    let clients = open(COUNT);
    let each = (server.process.resident() - before) / COUNT;
    eprintln!("{each} octets for each idle connection by QUIC");
    assert!(each < 45_000, "{each} octets each");
    drop((warm, clients));
}
