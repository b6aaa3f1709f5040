//! Backends that are asked by HTTPS (RFC 8484): what their connections may do, and that it costs no query.

use std::process::Command;

use tempfile::TempDir;
use testkit::encrypted_pool::{ADDRESS, OTHER, ask, ask_in_turn, lost, server, sum};
use testkit::peers::{Peer, ZONE};
use testkit::*;

use crate::connections::make_by_rsa;

#[test]
fn replies_come_in_any_order_and_queries_are_padded() {
    let ca = CertificateAuthority::new();
    let backend = HttpsBackend::misbehaving(HttpManner::Reverses(20), 9, &ca, answer(ADDRESS));
    let server = server(&ca, &[&backend], "");
    assert_eq!(ask(&server, 20, ADDRESS), 20);
    assert_eq!((backend.connections(), backend.queries()), (1, 20));
    // An OPT and padding (RFC 8467), path, name, ID 0 and content type (RFC 8484 section 4.1), though the
    // client has sent none.
    assert_eq!(backend.seen(), [(128, true); 20]);
    // It resumes the session of a probe that was quicker.
    let opened = |kind| sum(&server, "hedgerow_backend_connections_total", &[("kind", kind)]);
    assert_eq!(opened("full") + opened("resumed"), 1);
    assert_eq!(sum(&server, "hedgerow_backend_connections", &[]), 1);
    assert_eq!(sum(&server, "hedgerow_backend_lost_attempts_total", &[]), 0);
}

#[test]
fn reset_or_failure_with_twenty_waiting_loses_none() {
    let ca = CertificateAuthority::new();
    for (manner, causes) in
        [(HttpManner::ResetsWith(20), &["reset", "closed"][..]), (HttpManner::FailsWith(20), &["goaway", "closed"])]
    {
        let backend = HttpsBackend::misbehaving(manner, 1, &ca, answer(ADDRESS));
        let server = server(&ca, &[&backend], "");
        assert_eq!(ask(&server, 20, ADDRESS), 20, "{manner:?}");
        assert_eq!(backend.connections(), 2, "{manner:?}");
        assert_eq!(sum(&server, "hedgerow_backend_lost_attempts_total", &[]), 20, "{manner:?}");
        assert_eq!(causes.iter().map(|cause| lost(&server, cause)).sum::<u64>(), 1, "{manner:?}");
    }
}

#[test]
fn half_open_connection_costs_no_query() {
    let ca = CertificateAuthority::new();
    let backend = HttpsBackend::misbehaving(HttpManner::IsSilent, 1, &ca, answer(ADDRESS));
    let server = server(&ca, &[&backend], "[pools.all.health]\ntimeout = '300ms'\n");
    assert_eq!(ask(&server, 10, ADDRESS), 10);
    assert!(backend.connections() >= 2);
    server.admin().wait_for("it is given up", |metrics| {
        metrics.sum("hedgerow_backend_connections_lost_total", &[("cause", "timeout")]) >= 1
    });
}

#[test]
fn slow_backend_that_answers_a_ping_keeps_its_connection() {
    let ca = CertificateAuthority::new();
    let backend = HttpsBackend::misbehaving(HttpManner::AnswersAfter(ms(900)), 9, &ca, answer(ADDRESS));
    let rules = "[pools.all.hedge]\nbudget = 0.0\n[pools.all.health]\ntimeout = '300ms'\n";
    let server = server(&ca, &[&backend], rules);
    assert_eq!(ask(&server, 10, ADDRESS), 10);
    assert_eq!((backend.connections(), backend.queries()), (1, 10));
    assert_eq!(sum(&server, "hedgerow_backend_connections_lost_total", &[]), 0);
}

#[test]
fn goaway_costs_no_query() {
    let ca = CertificateAuthority::new();
    for count in [1, 3] {
        let backend = HttpsBackend::misbehaving(HttpManner::GoesAwayAfter(count), usize::MAX, &ca, answer(ADDRESS));
        let server = server(&ca, &[&backend], "");
        assert_eq!(ask_in_turn(&server, 9, ADDRESS), 9, "after {count}");
        assert_eq!(ask(&server, 20, ADDRESS), 20, "after {count}");
        assert!(backend.connections() > 3, "after {count}");
    }
}

#[test]
fn responses_that_are_no_replies_fail_their_query_alone() {
    let ca = CertificateAuthority::new();
    let manners = [
        HttpManner::Says(500, ""),
        HttpManner::Says(404, ""),
        HttpManner::MistakesType,
        HttpManner::FillsTo(70_000),
        HttpManner::FillsTo(11),
        HttpManner::ResetsStreams,
    ];
    for manner in manners {
        let bad = HttpsBackend::misbehaving(manner, usize::MAX, &ca, answer(ADDRESS));
        let good = HttpsBackend::new(&ca, answer(OTHER));
        let server = server(&ca, &[&bad, &good], "balance = 'ordered'\n");
        assert_eq!(ask_in_turn(&server, 5, OTHER), 5, "{manner:?}");
        // The other backend may have answered all before this one is asked.
        until("it is asked", || (bad.queries() >= 1).then_some(()));
        assert_eq!(bad.connections(), 1, "{manner:?}: it is no fault of the connection");
        assert_eq!(sum(&server, "hedgerow_backend_connections_lost_total", &[]), 0, "{manner:?}");
    }
}

#[test]
fn the_only_backend_that_answers_by_an_error_is_told_as_servfail_at_once() {
    let ca = CertificateAuthority::new();
    let bad = HttpsBackend::misbehaving(HttpManner::Says(500, ""), usize::MAX, &ca, answer(ADDRESS));
    let server = server(&ca, &[&bad], "");
    let response = server.client().ask(&query("www.example", A));
    assert_eq!((response.rcode(), response.answers().len()), (2, 0));
}

#[test]
fn backend_that_wants_no_queries_for_a_while_gets_none() {
    let ca = CertificateAuthority::new();
    for status in [429, 503] {
        let busy = HttpsBackend::misbehaving(HttpManner::Says(status, "3600"), usize::MAX, &ca, answer(ADDRESS));
        let good = HttpsBackend::new(&ca, answer(OTHER));
        let server = server(&ca, &[&busy, &good], "balance = 'ordered'\n");
        // Each worker asks until it has read a response that says so.
        until("it is not asked any more", || {
            let heard = busy.queries();
            assert_eq!(ask_in_turn(&server, 20, OTHER), 20, "{status}");
            (heard > 0 && busy.queries() == heard).then_some(())
        });
    }
    // For no longer than it says.
    let busy = HttpsBackend::misbehaving(HttpManner::Says(503, "1"), usize::MAX, &ca, answer(ADDRESS));
    let good = HttpsBackend::new(&ca, answer(OTHER));
    let server = server(&ca, &[&busy, &good], "balance = 'ordered'\n");
    assert_eq!(ask_in_turn(&server, 1, OTHER), 1);
    let heard = busy.queries();
    until("it is asked again", || {
        assert_eq!(ask_in_turn(&server, 1, OTHER), 1);
        (busy.queries() > heard).then_some(())
    });
}

#[test]
fn handshake_that_hangs_or_agrees_on_nothing_moves_on() {
    let (ca, wrong) = (CertificateAuthority::new(), CertificateAuthority::new());
    let hangs = HttpsBackend::misbehaving(HttpManner::Hangs, 9, &ca, answer(ADDRESS));
    let foreign = HttpsBackend::new(&wrong, answer(ADDRESS));
    let other_protocol = HttpsBackend::misbehaving(HttpManner::MistakesProtocol, 9, &ca, answer(ADDRESS));
    let good = HttpsBackend::new(&ca, answer(OTHER));
    for bad in [&hangs, &foreign, &other_protocol] {
        let rules = "balance = 'ordered'\n[pools.all.connections]\nconnect_timeout = '300ms'\n";
        let server = server(&ca, &[bad, &good], rules);
        assert_eq!(ask(&server, 5, OTHER), 5);
        assert_eq!(bad.queries(), 0);
    }
}

#[test]
fn backend_that_does_not_speak_http2_is_down_at_once_and_says_why() {
    let ca = CertificateAuthority::new();
    let bad = HttpsBackend::misbehaving(HttpManner::MistakesProtocol, 9, &ca, answer(ADDRESS));
    let server = server(&ca, &[&bad], "[pools.all.health]\nfall = 9\ninterval = '1m'\n");
    let shown = || {
        let shown = server.process.ctl(&["--admin", &format!("http://{}", server.listener("admin")), "backends"]);
        String::from_utf8_lossy(&shown.stdout).into_owned()
    };
    until("it is down", || shown().contains("down").then_some(()));
    let shown = shown();
    assert!(shown.contains("https") && (shown.contains("ALPN") || shown.contains("NoApplicationProtocol")), "{shown}");
}

#[test]
fn backend_that_allows_few_streams_answers_all() {
    let ca = CertificateAuthority::new();
    for streams in [1, 3] {
        let backend = HttpsBackend::allowing(streams, HttpManner::Answers, 0, &ca, answer(ADDRESS));
        let server = server(&ca, &[&backend], "");
        // It is known from the first response on how many it allows.
        assert_eq!(ask_in_turn(&server, 3, ADDRESS), 3);
        let client = server.client();
        let ask_all = || {
            (0..20).for_each(|number| client.send(&query(&format!("q{number}.example"), A)));
            (0..20).filter(|_| client.receive().answers() == [ADDRESS]).count()
        };
        // Those for which there is no stream fail at once, and their client asks again.
        assert!(ask_all() >= 1, "{streams}");
        assert_eq!(ask_in_turn(&server, 9, ADDRESS), 9, "{streams}");
    }
}

#[test]
fn queries_do_not_pile_up_for_an_overloaded_backend() {
    // As in dnsdist before CVE-2026-33594 was mended.
    let ca = CertificateAuthority::new();
    let backend = HttpsBackend::misbehaving(HttpManner::AnswersAfter(ms(60_000)), usize::MAX, &ca, answer(ADDRESS));
    let rules = "[pools.all.connections]\nmax = 1\npipeline = 10\n[pools.all.hedge]\nbudget = 0.0\n";
    let server = server(&ca, &[&backend], rules);
    let client = server.client();
    let flood = |from: usize| {
        for number in from..from + 2_000 {
            client.send(&query(&format!("q{number}.example"), A));
            // All but ten are refused at once.
            if number % 100 > 20 {
                client.receive();
            }
        }
    };
    flood(0);
    let before = server.process.resident();
    (1..5).for_each(|turn| flood(turn * 10_000));
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown}");
    assert!(backend.queries() <= 20, "{}", backend.queries());
}

#[test]
fn lookup_asks_by_https() {
    let ca = CertificateAuthority::new();
    let backend = HttpsBackend::misbehaving(HttpManner::Reverses(3), 1, &ca, answer(ADDRESS));
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
    let url = format!("@https://{}/q#dns.example", backend.address());
    let (reported, problem) = run(&[&[&*url, "--ca", &ca][..], &names].concat());
    assert_eq!(reported, expected, "{problem}");
    assert_eq!((backend.connections(), backend.queries()), (1, 3), "all by one connection");
    let at = format!("@{}", backend.address());
    let (reported, problem) =
        run(&[&[&*at, "+https=/q", "--tls-name", "dns.example", "--ca", &ca][..], &names].concat());
    assert_eq!(reported, expected, "{problem}");
    let (reported, problem) = run(&[&*at, "+https=/q", "--tls-name", "other.example", "--ca", &ca, "a.example"]);
    assert!(!reported.contains(ADDRESS) && problem.contains("not for other.example"), "{reported} {problem}");
}

#[test]
fn bind_is_asked_by_https() {
    let folder = TempDir::new().expect("a temporary folder");
    let Some((chain, _)) = make_by_rsa(folder.path()) else { return };
    let address = free_address();
    let Some(_bind) = Peer::start_by_https(address, folder.path()) else { return };
    let config = format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [pools.all]\nbackends = [{{ address = 'https://{address}/q#dns.example', ca = 'ca.pem' }}]\n"
    );
    let server = Server::start_with_files(&config, &[("ca.pem", &String::from_utf8(chain).expect("PEM"))]);
    let client = server.client();
    let name = |host| format!("h{host}.{ZONE}");
    until("it answers", || (client.ask(&query(&name(1), A)).answers() == ["192.0.2.1"]).then_some(()));
    let made = |server: &Server| sum(server, "hedgerow_backend_connections_total", &[("kind", "full")]);
    let before = made(&server);
    let clients: Vec<_> = (1..50).map(|host| (host, server.client())).collect();
    clients.iter().for_each(|(host, client)| client.send(&query(&name(*host), A)));
    for (host, client) in &clients {
        assert_eq!(client.receive().answers(), [format!("192.0.2.{host}")]);
    }
    assert_eq!((made(&server), lost(&server, "protocol") + lost(&server, "tls")), (before, 0));
}

#[test]
fn our_own_authority_is_asked_by_https() {
    let zone =
        "$ORIGIN example.net.\n$TTL 300\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.53\n*.many A 192.0.2.1\n";
    let (address, authorities) = (free_address(), CertificateAuthority::new());
    let (chain, key) = authorities.issue("ns.example");
    let config = format!(
        "workers = 1\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [authorities.ts1]\nlisten = ['https://{address}/q']\n\
         zones = [{{ file = 'example.net.zone', origin = 'example.net' }}]\n\
         [certificates.main]\nchain = 'chain.pem'\nkey = 'key.pem'\n\
         [pools.all]\nbackends = [{{ address = 'https://{address}/q#ns.example', ca = 'ca.pem' }}]\n"
    );
    let ca = authorities.pem();
    let files = [("example.net.zone", zone), ("chain.pem", &*chain), ("key.pem", &*key), ("ca.pem", &*ca)];
    let server = Server::start_with_files(&config, &files);
    let client = server.client();
    let first = query("first.many.example.net", A);
    until("it answers", || (client.ask(&first).answers() == [ADDRESS]).then_some(()));
    (0..200).for_each(|number| client.send(&query(&format!("q{number}.many.example.net"), A)));
    assert_eq!((0..200).filter(|_| client.receive().answers() == [ADDRESS]).count(), 200);
    assert_eq!(sum(&server, "hedgerow_backend_connections_lost_total", &[]), 0);
}
