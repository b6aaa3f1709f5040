//! Backends that are asked by QUIC (RFC 9250): what their connections may do, and that it costs no query.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::encrypted_pool::{ADDRESS, OTHER, ask, ask_in_turn, lost, server, sum};
use testkit::*;

/// Asks until this backend has been asked too, while another answers: one to which there is no connection yet
/// stands behind.
fn ask_until_asked(server: &Server, backend: &QuicBackend) {
    until("it is asked", || {
        assert_eq!(ask_in_turn(server, 1, OTHER), 1);
        (backend.queries() > 0).then_some(())
    });
}

#[test]
fn replies_come_in_any_order_and_queries_are_padded() {
    let ca = CertificateAuthority::new();
    let backend = QuicBackend::misbehaving(QuicManner::Reverses(20), 9, &ca, answer(ADDRESS));
    let server = server(&ca, &[&backend], "");
    assert_eq!(ask(&server, 20, ADDRESS), 20);
    assert_eq!((backend.connections(), backend.queries()), (1, 20));
    // An OPT and padding (RFC 8467), and ID 0 (RFC 9250 section 4.2.1), though the client has sent none.
    assert_eq!(backend.seen(), [(128, true); 20]);
    // It resumes the session of a probe that was quicker.
    let opened = |kind| sum(&server, "hedgerow_backend_connections_total", &[("kind", kind)]);
    assert_eq!(opened("full") + opened("resumed"), 1);
    assert_eq!(sum(&server, "hedgerow_backend_connections", &[]), 1);
    assert_eq!(sum(&server, "hedgerow_backend_lost_attempts_total", &[]), 0);
}

#[test]
fn close_with_twenty_waiting_loses_none() {
    let ca = CertificateAuthority::new();
    for (code, cause) in [(0, "closed"), (2, "protocol"), (5, "closed")] {
        let backend = QuicBackend::misbehaving(QuicManner::ClosesWith(20, code), 1, &ca, answer(ADDRESS));
        let server = server(&ca, &[&backend], "");
        assert_eq!(ask(&server, 20, ADDRESS), 20, "{code}");
        assert_eq!(backend.connections(), 2, "{code}");
        assert_eq!(sum(&server, "hedgerow_backend_lost_attempts_total", &[]), 20, "{code}");
        assert_eq!(lost(&server, cause), 1, "{code}");
    }
}

#[test]
fn half_open_connection_costs_no_query() {
    let ca = CertificateAuthority::new();
    let backend = QuicBackend::misbehaving(QuicManner::DiesWith(10), 1, &ca, answer(ADDRESS));
    let server = server(&ca, &[&backend], "");
    assert_eq!(ask(&server, 10, ADDRESS), 10);
    assert!(backend.connections() >= 2);
    server.admin().wait_for("it is given up", |metrics| {
        metrics.sum("hedgerow_backend_connections_lost_total", &[("cause", "stalled")]) >= 1
    });
}

#[test]
fn slow_backend_that_acknowledges_keeps_its_connection() {
    let ca = CertificateAuthority::new();
    let backend = QuicBackend::misbehaving(QuicManner::AnswersAfter(ms(900)), 9, &ca, answer(ADDRESS));
    let rules = "[pools.all.hedge]\nbudget = 0.0\n[pools.all.health]\ntimeout = '300ms'\n";
    let server = server(&ca, &[&backend], rules);
    assert_eq!(ask(&server, 10, ADDRESS), 10);
    assert_eq!((backend.connections(), backend.queries()), (1, 10));
    assert_eq!(sum(&server, "hedgerow_backend_connections_lost_total", &[]), 0);
}

#[test]
fn streams_that_are_reset_fail_their_query_alone() {
    let ca = CertificateAuthority::new();
    let bad = QuicBackend::misbehaving(QuicManner::ResetsStreams(1), usize::MAX, &ca, answer(ADDRESS));
    let good = QuicBackend::new(&ca, answer(OTHER));
    let both = server(&ca, &[&bad, &good], "balance = 'ordered'\n");
    assert_eq!(ask_in_turn(&both, 5, OTHER), 5);
    ask_until_asked(&both, &bad);
    assert_eq!(bad.connections(), 1, "it is no fault of the connection");
    assert_eq!(sum(&both, "hedgerow_backend_connections_lost_total", &[]), 0);
    // Without another backend the client gets SERVFAIL at once.
    let alone = server(&ca, &[&bad], "");
    let response = alone.client().ask(&query("www.example", A));
    assert_eq!((response.rcode(), response.answers().len()), (2, 0));
}

#[test]
fn wrong_questions_fail_their_query_and_wrong_ids_their_connection() {
    let ca = CertificateAuthority::new();
    for (manner, cause) in [(QuicManner::MistakesIds, Some("protocol")), (QuicManner::MistakesQuestions, None)] {
        let bad = QuicBackend::misbehaving(manner, usize::MAX, &ca, answer(ADDRESS));
        let good = QuicBackend::new(&ca, answer(OTHER));
        let server = server(&ca, &[&bad, &good], "balance = 'ordered'\n");
        assert_eq!(ask_in_turn(&server, 5, OTHER), 5, "{manner:?}");
        ask_until_asked(&server, &bad);
        // By one look: there are more all the time.
        let metrics = server.admin().metrics();
        let lost_by = |labels: &[_]| metrics.sum("hedgerow_backend_connections_lost_total", labels);
        let lost: u64 = lost_by(&[]);
        match cause {
            Some(cause) => assert!(lost >= 1 && lost_by(&[("cause", cause)]) == lost, "{manner:?}"),
            None => assert_eq!(lost, 0, "{manner:?}"),
        }
    }
}

#[test]
fn backend_that_is_asked_too_much_gets_no_query_for_a_while() {
    let ca = CertificateAuthority::new();
    for manner in [QuicManner::ResetsStreams(4), QuicManner::ClosesWith(1, 4)] {
        let busy = QuicBackend::misbehaving(manner, usize::MAX, &ca, answer(ADDRESS));
        let good = QuicBackend::new(&ca, answer(OTHER));
        let server = server(&ca, &[&busy, &good], "balance = 'ordered'\n");
        assert_eq!(ask_in_turn(&server, 20, OTHER), 20, "{manner:?}");
        // Some are asked before it is heard that it wants none, on a machine that has other things to do.
        assert!(busy.queries() <= 6, "{manner:?}: {}", busy.queries());
        // It is asked again.
        let before = busy.queries();
        until("it is asked again", || {
            assert_eq!(ask_in_turn(&server, 1, OTHER), 1);
            (busy.queries() > before).then_some(())
        });
    }
}

#[test]
fn connection_that_is_closed_again_and_again_costs_no_query() {
    let ca = CertificateAuthority::new();
    for count in [1, 3] {
        let backend = QuicBackend::misbehaving(QuicManner::ClosesAfter(count), usize::MAX, &ca, answer(ADDRESS));
        let server = server(&ca, &[&backend], "");
        assert_eq!(ask_in_turn(&server, 9, ADDRESS), 9, "after {count}");
        assert!(backend.connections() >= 3, "after {count}");
    }
}

#[test]
fn handshake_that_hangs_or_agrees_on_nothing_moves_on() {
    let (ca, wrong) = (CertificateAuthority::new(), CertificateAuthority::new());
    let hangs = QuicBackend::misbehaving(QuicManner::Hangs, 9, &ca, answer(ADDRESS));
    let foreign = QuicBackend::new(&wrong, answer(ADDRESS));
    let other_protocol = QuicBackend::misbehaving(QuicManner::MistakesProtocol, 9, &ca, answer(ADDRESS));
    let good = QuicBackend::new(&ca, answer(OTHER));
    for bad in [&hangs, &foreign, &other_protocol] {
        let rules = "balance = 'ordered'\n[pools.all.connections]\nconnect_timeout = '300ms'\n";
        let server = server(&ca, &[bad, &good], rules);
        assert_eq!(ask(&server, 5, OTHER), 5);
        assert_eq!(bad.queries(), 0);
    }
}

#[test]
fn backend_that_is_not_there_or_is_another_is_down_at_once_and_says_why() {
    let (ca, wrong) = (CertificateAuthority::new(), CertificateAuthority::new());
    let foreign = QuicBackend::new(&wrong, answer(ADDRESS));
    let other_protocol = QuicBackend::misbehaving(QuicManner::MistakesProtocol, 9, &ca, answer(ADDRESS));
    let closed = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("it is bound");
    let closed = format!("{{ address = 'quic://{closed}#dns.example', ca = 'ca.pem' }}");
    for (entry, why) in [
        (foreign.entry(), "the certificate is not signed by a trusted authority"),
        (other_protocol.entry(), "NoApplicationProtocol"),
        (closed, "connection refused"),
    ] {
        let config = format!(
            "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
             [pools.all]\nbackends = [{entry}]\n[pools.all.health]\nfall = 9\ninterval = '1m'\n"
        );
        let server = Server::start_with_files(&config, &[("ca.pem", &ca.pem())]);
        let shown = || {
            let shown = server.process.ctl(&["--admin", &format!("http://{}", server.listener("admin")), "backends"]);
            String::from_utf8_lossy(&shown.stdout).into_owned()
        };
        until("it is down", || shown().contains("down").then_some(()));
        let shown = shown();
        assert!(shown.contains("quic") && shown.contains(why), "{why}: {shown}");
    }
}

#[test]
fn backend_that_allows_few_streams_answers_all() {
    let ca = CertificateAuthority::new();
    for streams in [1, 3] {
        let backend = QuicBackend::allowing(streams, QuicManner::Answers, 0, &ca, answer(ADDRESS));
        let server = server(&ca, &[&backend], "");
        // Those that wait for the connection are asked one after the other.
        assert_eq!(ask(&server, 20, ADDRESS), 20, "{streams}");
        assert_eq!(ask_in_turn(&server, 9, ADDRESS), 9, "{streams}");
    }
}

#[test]
fn queries_go_with_the_first_flight_where_that_is_wanted() {
    let ca = CertificateAuthority::new();
    let rules = "[pools.all.connections]\nearly_data = true\nwarm = false\nmax = 1\n";
    let kind = |server: &Server, kind| sum(server, "hedgerow_backend_connections_total", &[("kind", kind)]);
    let backend = QuicBackend::misbehaving(QuicManner::ClosesAfter(1), usize::MAX, &ca, answer(ADDRESS));
    let taken = server(&ca, &[&backend], rules);
    assert_eq!(ask_in_turn(&taken, 5, ADDRESS), 5);
    assert!(backend.early() >= 1 && kind(&taken, "early") >= 1, "{} early", backend.early());
    // What is not taken goes again, within the attempt.
    let backend = QuicBackend::misbehaving(QuicManner::Forgets, usize::MAX, &ca, answer(ADDRESS));
    let rejected = server(&ca, &[&backend], rules);
    assert_eq!(ask_in_turn(&rejected, 5, ADDRESS), 5);
    // A probe after the first answer has a session that the backend still knows, and the next query uses it.
    assert!(backend.early() <= 1, "{} early", backend.early());
    assert_eq!(kind(&rejected, "early"), backend.early() as u64);
    // And nothing goes so unless it is wanted.
    let backend = QuicBackend::misbehaving(QuicManner::ClosesAfter(1), usize::MAX, &ca, answer(ADDRESS));
    let unwanted = server(&ca, &[&backend], "");
    assert_eq!(ask_in_turn(&unwanted, 5, ADDRESS), 5);
    assert_eq!((backend.early(), kind(&unwanted, "early")), (0, 0));
    assert!(kind(&unwanted, "resumed") >= 1);
}

#[test]
fn lookup_asks_by_quic() {
    let ca = CertificateAuthority::new();
    let backend = QuicBackend::misbehaving(QuicManner::Reverses(3), 1, &ca, answer(ADDRESS));
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, ca.pem()).expect("a file of the test");
    let run = |words: &[&str]| {
        let mut lookup = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
        let output = lookup.arg("lookup").args(words).args(["--timeout", "20s"]).output().expect("cargo has built it");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (ca, names) = (file.display().to_string(), ["a.example", "b.example", "c.example"]);
    let expected = names.map(|name| format!("{name} {ADDRESS} A\n")).concat();
    let url = format!("@quic://{}#dns.example", backend.address());
    let (reported, problem) = run(&[&[&*url, "--ca", &ca][..], &names].concat());
    assert_eq!(reported, expected, "{problem}");
    assert_eq!((backend.connections(), backend.queries()), (1, 3), "all by one connection");
    let at = format!("@{}", backend.address());
    let (reported, problem) = run(&[&[&*at, "+quic", "--tls-name", "dns.example", "--ca", &ca][..], &names].concat());
    assert_eq!(reported, expected, "{problem}");
    // What is said first is not lost on the way out: it would be said again after 300 ms.
    let is_quick = || {
        let begun = Instant::now();
        run(&[&*at, "+quic", "--tls-name", "dns.example", "--ca", &ca, "a.example"]);
        begun.elapsed() < Duration::from_millis(250)
    };
    assert!((0..10).any(|_| is_quick()), "each of ten was late");
    let (reported, problem) = run(&[&*at, "+quic", "--tls-name", "other.example", "--ca", &ca, "a.example"]);
    assert!(!reported.contains(ADDRESS) && problem.contains("not for other.example"), "{reported} {problem}");
}
