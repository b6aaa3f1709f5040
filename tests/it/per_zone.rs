//! Tests of `limits.per_zone`: a flood of names below one zone leaves room for all others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use testkit::*;

const ONE: &str = "192.0.2.1";

/// A backend that is silent below `dead.example` and answers all other names after this time.
fn half_dead(delay: Duration) -> Backend {
    let (mut answers, mut nothing) = (answer(ONE).after(delay), silent());
    Backend::new(Script::each_of(move |seen| {
        if seen.name().ends_with(".dead.example") { nothing.react(seen) } else { answers.react(seen) }
    }))
}

fn refused(server: &Server) -> u64 {
    server.admin().metrics().sum("hedgerow_limited_total", &[("listener", "forwarder"), ("limit", "zone")])
}

/// Asks for 20 names at a time, 400 in all, and returns the 99th percentile of the times. All are answered.
fn p99_of_healthy(server: &Server, run: &str) -> Duration {
    let client = server.client();
    let mut times = Vec::new();
    for burst in 0..20 {
        let start = Instant::now();
        for number in 0..20 {
            client.send(&query(&format!("{run}{burst}x{number}.good.example"), A));
        }
        for _ in 0..20 {
            assert_eq!(client.receive().answers(), [ONE], "no query for the healthy zone is refused");
            times.push(start.elapsed());
        }
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn a_flood_of_random_names_below_a_dead_zone_costs_the_healthy_zone_nothing() {
    let backend = half_dead(ms(40));
    let keys = "timeout = '60s'\nattempt_timeout = '60s'\ndispatch = 'sequential'";
    let server =
        Forwarder::to(&[&backend], keys).keys("limits = { waiting = 100000, in_flight = 600 }").admin().start();
    let alone = p99_of_healthy(&server, "alone");
    let flooder = server.client();
    for number in 0..300 {
        flooder.send(&query(&format!("r{number}.dead.example"), A));
        backend.wait_for_name(&format!("r{number}.dead.example"), 1);
    }
    let (is_over, sent) = (AtomicBool::new(false), AtomicUsize::new(300));
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let name = format!("r{}.dead.example", sent.fetch_add(1, Relaxed));
                assert_eq!(flooder.ask(&query(&name, A)).rcode(), SERVFAIL);
            }
        });
        let beside = p99_of_healthy(&server, "beside");
        is_over.store(true, Relaxed);
        beside
    });
    let refused = refused(&server);
    assert!(refused > 100 && refused == sent.load(Relaxed) as u64 - 300, "{refused} of {sent:?} refused");
    assert!(beside < alone * 3 / 2, "{beside:?} beside a flood, {alone:?} alone");
}

#[test]
fn so_many_queries_wait_below_one_suffix_and_the_rest_learn_the_reason() {
    let backend = Backend::new(answer(ONE).held());
    let config = Forwarder::new().pool("all", ".", &[&backend], "").pool("corp", "corp.example", &[&backend], "");
    let server = config.workers(2).keys("limits = { per_zone = 10 }").cache("").admin().start();
    let clients: Vec<_> = (0..10).map(|_| server.client()).collect();
    let name = |number: usize| format!("n{number}.a.zone.example");
    for (number, client) in clients.iter().enumerate() {
        client.send(&query(&name(number), A).id(number as u16));
    }
    backend.wait_for(10);
    // A new name, and one that waits: in the same race, and as a retransmission, which is no further query.
    let other = server.client();
    for number in [10, 0] {
        let reported = other.ask(&query(&name(number), A).edns(1232));
        assert_eq!((reported.rcode(), reported.extended_error()), (SERVFAIL, Some(0)));
        let text = &reported.options()[0].1[2..];
        assert_eq!(String::from_utf8_lossy(text), "too many queries wait for names below zone.example");
    }
    clients[0].send(&query(&name(0), A).id(0));
    // The suffix itself, other zones, and the zone of a route have room.
    let free = ["zone.example", "n0.other.example", "n0.co.uk", "n1.co.uk"].map(str::to_owned);
    let free: Vec<_> = free.into_iter().chain((0..20).map(|number| format!("n{number}.corp.example"))).collect();
    free.iter().for_each(|name| other.send(&query(name, A)));
    backend.wait_for(10 + free.len());
    assert_eq!(refused(&server), 2);
    backend.release();
    clients.iter().for_each(|client| assert_eq!(client.receive().answers(), [ONE]));
    free.iter().for_each(|_| assert_eq!(other.receive().answers(), [ONE]));
    // The places are free again, and the refusal was not kept.
    (10..20).for_each(|number| other.send(&query(&name(number), A)));
    backend.wait_for_name(&name(19), 1);
    backend.release();
    (10..20).for_each(|_| assert_eq!(other.receive().answers(), [ONE]));
}

#[test]
fn a_reload_changes_the_limit_and_every_place_is_given_back() {
    let backend = Backend::new(silent());
    let config = |limit| {
        let keys = format!("limits = {{ per_zone = {limit} }}");
        let pool = "timeout = '3s'\nattempt_timeout = '3s'\ndispatch = 'sequential'";
        Forwarder::to(&[&backend], pool).keys(&keys).admin()
    };
    let server = config(10).start();
    let client = server.client();
    let ask = |number: usize| client.send(&query(&format!("n{number}.zone.example"), A));
    (0..15).for_each(ask);
    until("five are refused", || (refused(&server) == 5).then_some(()));
    assert_eq!(backend.wait_for(10).len(), 10);
    server.reload("config.toml", &config(20).to_toml());
    let mut next = 15;
    until("twenty wait", || {
        ask(next);
        next += 1;
        refused(&server);
        (backend.queries().len() == 20).then_some(())
    });
    ask(next);
    until("all others are refused", || (refused(&server) == next as u64 + 1 - 20).then_some(()));
    server.admin().wait_for("all races are over", |metrics| metrics.sum("hedgerow_in_flight", &[]) == 0);
    let before = refused(&server);
    (100..125).for_each(ask);
    until("five are refused again", || (refused(&server) == before + 5).then_some(()));
    assert_eq!(backend.wait_for(40).len(), 40);
}
