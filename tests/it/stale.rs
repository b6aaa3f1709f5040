//! Serving stale through sockets (RFC 8767): when every backend is dead, slow or failing.

use std::time::{Duration, Instant};

use testkit::*;

const ADDRESS: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// Asks until an answer has run out and is given all the same.
fn until_stale(client: &Client, name: &str) -> Response {
    until("a stale answer", || {
        let response = client.ask(&query(name, A).edns(1232));
        matches!(response.extended_error(), Some(STALE | STALE_NXDOMAIN)).then_some(response)
    })
}

#[test]
fn when_all_backends_are_killed_cached_names_are_stale_and_others_are_not() {
    let script = || answer_for(1, ADDRESS).except("no", nxdomain_for(1));
    let backends = [Backend::new(script()), Backend::new(script())];
    let server = Forwarder::to(&[&backends[0], &backends[1]], "on_all_down = 'refused'").cache("").admin().start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    assert_eq!(client.ask(&query("no.example", A)).rcode(), NXDOMAIN);
    drop(backends);
    let stale = until_stale(&client, "www.example");
    assert_eq!((stale.answers(), stale.ttls()), (vec![ADDRESS.to_owned()], vec![30]));
    assert_eq!(stale.extended_error(), Some(STALE));
    let negative = until_stale(&client, "no.example");
    assert_eq!((negative.rcode(), negative.extended_error()), (NXDOMAIN, Some(STALE_NXDOMAIN)));
    let other = client.ask(&query("other.example", A).edns(1232));
    assert_eq!((other.rcode(), other.extended_error()), (REFUSED, Some(NO_REACHABLE_AUTHORITY)));
    // In every form: without EDNS, and by TCP.
    assert_eq!(client.ask(&query("WWW.example", A)).answers(), [ADDRESS]);
    assert_eq!(server.tcp_client().ask(&query("www.example", A)).ttls(), [30]);
    let metrics = server.admin().metrics();
    assert!(metrics.sum("hedgerow_responses_total", &[("source", "stale")]) >= 4);
}

#[test]
fn a_slow_race_goes_on_while_its_clients_get_the_stale_answer() {
    let backend = Backend::new(answer_for(1, ADDRESS).then(answer_for(60, OTHER).held()));
    let keys = "timeout = '20s'\nattempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend], keys).cache("stale_answer_after = '700ms'\nprefetch = 0").start();
    let (client, other) = (server.client(), server.client());
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    until("it has run out", || {
        let began = Instant::now();
        let response = client.ask(&query("www.example", A).edns(1232));
        (response.extended_error() == Some(STALE)).then(|| assert!(began.elapsed() >= ms(700)))
    });
    // Later queries get the stale answer at once, on every path.
    let began = Instant::now();
    assert_eq!(other.ask(&query("WWW.example", A).edns(1232)).extended_error(), Some(STALE));
    assert_eq!(server.tcp_client().ask(&query("www.example", A)).ttls(), [30]);
    assert!(began.elapsed() < ms(700));
    assert_eq!(backend.queries().len(), 2, "one race");
    backend.release();
    let fresh = until("it is refreshed", || {
        Some(client.ask(&query("www.example", A))).filter(|response| response.answers() == [OTHER])
    });
    assert!(fresh.ttls()[0] > 30);
    assert_eq!(backend.queries().len(), 2);
}

#[test]
fn all_who_wait_get_it_at_the_same_time() {
    let backend = Backend::new(answer_for(1, ADDRESS).then(silent()).except("fence", answer(OTHER)));
    let keys = "timeout = '20s'\nattempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend], keys).cache("stale_answer_after = '900ms'\nprefetch = 0").start();
    let clients = [server.client(), server.client(), server.client()];
    assert_eq!(clients[0].ask(&query("www.example", A)).answers(), [ADDRESS]);
    until("a race has begun", || {
        clients[0].send(&query("www.example", A));
        // Taken behind it, so whatever became of it has become of it by now.
        clients[0].send(&query("fence.example", A));
        while clients[0].receive().question() != query("fence.example", A).question() {}
        (backend.queries_for("www.example").len() == 2).then_some(())
    });
    let began = Instant::now();
    clients[1..].iter().for_each(|client| client.send(&query("www.example", A)));
    for client in &clients[1..] {
        assert_eq!(client.receive().ttls(), [30]);
    }
    assert!(began.elapsed() < ms(1500), "those who came late wait no longer than the first");
}

#[test]
fn a_failed_refresh_is_left_alone_for_a_while() {
    for (what, failing) in [("SERVFAIL", servfail()), ("REFUSED", rcode(REFUSED)), ("bare", bare_servfail())] {
        let backend = Backend::new(answer_for(1, ADDRESS).then(failing));
        let keys = "timeout = '300ms'\nattempt_timeout = '100ms'";
        let server = Forwarder::to(&[&backend], keys).cache("").start();
        let client = server.client();
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        until_stale(&client, "www.example");
        let asked = backend.queries().len();
        let began = Instant::now();
        for _ in 0..20 {
            let response = client.ask(&query("www.example", A).edns(1232));
            assert_eq!(
                (response.answers(), response.extended_error()),
                (vec![ADDRESS.to_owned()], Some(STALE)),
                "{what}"
            );
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{what}");
        assert_eq!(backend.queries().len(), asked, "{what}");
    }
}

#[test]
fn no_such_name_is_an_answer_and_no_failure() {
    let backend = Backend::new(answer_for(1, ADDRESS).then(nxdomain()));
    let server = Forwarder::to(&[&backend], "").cache("prefetch = 0").start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    let gone = until("the name is gone", || {
        Some(client.ask(&query("www.example", A).edns(1232))).filter(|response| response.rcode() == NXDOMAIN)
    });
    assert_eq!(gone.extended_error(), None);
}

#[test]
fn an_answer_that_may_not_be_kept_ends_the_stale_one() {
    for (what, newer, rcode) in [
        ("TTL 0", answer_for(0, OTHER), NOERROR),
        ("NODATA without SOA", reply(|reply| reply.with_flags(AA)), NOERROR),
        ("NXDOMAIN without SOA", reply(|reply| reply.rcode(NXDOMAIN).with_flags(AA)), NXDOMAIN),
    ] {
        let backend = Backend::new(answer_for(1, ADDRESS).then(newer));
        let keys = "accept = 'conclusive'\non_all_down = 'refused'";
        let server = Forwarder::to(&[&backend], keys).cache("prefetch = 0").start();
        let client = server.client();
        let ask = || client.ask(&query("www.example", A));
        assert_eq!(ask().answers(), [ADDRESS], "{what}");
        let newer = until("it has run out", || Some(ask()).filter(|response| response.answers() != [ADDRESS]));
        assert_eq!(newer.rcode(), rcode, "{what}");
        drop(backend);
        assert_eq!(ask().rcode(), REFUSED, "{what}");
    }
}

#[test]
fn a_client_need_not_wait_at_all() {
    let backend = Backend::new(answer_for(1, ADDRESS).then(answer_for(60, OTHER).held()));
    let server = Forwarder::to(&[&backend], "timeout = '20s'").cache("stale_answer_after = '0s'\nprefetch = 0").start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    assert_eq!(until_stale(&client, "www.example").answers(), [ADDRESS]);
    backend.wait_for(2);
    backend.release();
    until("it is refreshed", || (client.ask(&query("www.example", A)).answers() == [OTHER]).then_some(()));
}

#[test]
fn a_long_answer_is_refreshed_by_tcp_though_nobody_waits() {
    let long = |filling: &'static str, seconds: u32| {
        reply(move |reply| reply.answer(txt(3000).lasting(seconds)).answer(record("@", TXT, filling.as_bytes())))
    };
    let by_tcp = long("\x03old", 1).then(long("\x03new", 60));
    let backend = Backend::new(truncated().by_tcp(by_tcp));
    let server = Forwarder::to(&[&backend], "").cache("stale_answer_after = '0s'\nprefetch = 0").start();
    let mut client = server.tcp_client();
    let mut has =
        |text: &str| client.ask(&query("long.example", TXT)).answers().iter().any(|answer| answer.contains(text));
    assert!(has("old"));
    until("it is refreshed", || has("new").then_some(()));
}

#[test]
fn a_fetch_that_hangs_keeps_nobody_waiting() {
    let long = reply(|reply| reply.answer(txt(3000).lasting(1)));
    let backend = Backend::new(truncated().except("fence", answer(ADDRESS)).by_tcp(long.then(silent())));
    let keys = "timeout = '2s'\nattempt_timeout = '20s'";
    let server = Forwarder::to(&[&backend], keys).cache("stale_answer_after = '300ms'\nprefetch = 0").start();
    let mut stream = server.tcp_client();
    assert!(stream.ask(&query("long.example", TXT)).bytes.len() > 3000);
    let began = until("it has run out", || {
        let began = Instant::now();
        let response = stream.ask(&query("long.example", TXT).edns(1232));
        (response.extended_error() == Some(STALE)).then_some(began)
    });
    assert!((ms(300)..ms(2000)).contains(&began.elapsed()));
    // Nothing stale is there for another name, and the deadline passes.
    let response = stream.ask(&query("other.example", TXT).edns(1232));
    assert_eq!(response.rcode(), SERVFAIL);
    assert_eq!(server.client().ask(&query("fence.example", A)).answers(), [ADDRESS]);
}

#[test]
fn stale_may_be_off() {
    let backend = Backend::new(answer_for(1, ADDRESS).then(servfail()));
    let server = Forwarder::to(&[&backend], "").cache("stale = '0s'").start();
    let client = server.client();
    until("it has run out", || {
        let response = client.ask(&query("www.example", A).edns(1232));
        assert_eq!(response.extended_error().filter(|error| *error == STALE), None);
        (response.rcode() == SERVFAIL).then_some(())
    });
}
