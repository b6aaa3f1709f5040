//! Health of backends through real sockets: when they are probed, what makes one down, and what a client
//! meets meanwhile.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// Probed so rarely that no test meets a second probe which it has not caused.
const RARELY: &str = "[health]\ninterval = '1h'\ntimeout = '10s'";

/// Queries that wait as long as a test does, in turn, and these lines for health.
fn patient(health: &str) -> String {
    format!("dispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '20s'\n{health}")
}

/// How many different probes these datagrams belong to: one that is not replied to soon is sent again.
fn probes(seen: &[Seen]) -> usize {
    seen.iter().map(|seen| (seen.id(), seen.peer)).collect::<HashSet<_>>().len()
}

#[test]
fn probes_go_out_at_start_and_every_interval() {
    let backend = Backend::new(answer(ONE));
    let start = Instant::now();
    let _server = Forwarder::to(&[&backend], "[health]\ninterval = '200ms'\ntimeout = '10s'").start();
    let seen = backend.wait_for_probes(6);
    assert_eq!(probes(&seen), 6, "each probe has its own ID and port");
    // Up to a tenth early each, so that they do not march in step.
    let took = seen[5].at - seen[0].at;
    assert!(took >= ms(5 * 180) - ms(20), "{took:?}");
    assert!(took < ms(5_000), "{took:?}");
    assert!(seen[0].at - start < ms(5_000), "the first waits for nothing");
    assert_eq!(backend.queries().len(), 0);
}

#[test]
fn probes_go_out_after_so_many_queries() {
    let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
    let keys = patient(&format!("{RARELY}\nevery_queries = 10"));
    let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).start();
    let client = server.client();
    for round in 0..4 {
        for backend in &backends {
            // One for the start, and one for every ten.
            assert_eq!(backend.wait_for_probes(1 + round).len(), 1 + round);
        }
        for i in 0..10 {
            client.ask(&query(&format!("{round}-{i}.example"), A));
        }
    }
    backends.iter().for_each(|backend| drop(backend.wait_for_probes(5)));
}

#[test]
fn probe_asks_what_the_config_says() {
    let backend = Backend::new(answer(ONE));
    let _server = Forwarder::to(&[&backend], "[health]\nprobe = { name = 'Health.Example', type = 'TXT' }").start();
    let seen = &backend.wait_for_name("health.example", 1)[0];
    assert_eq!(question_of(&seen.bytes), query("Health.Example", TXT).question());
    assert_eq!(seen.flags() & (QR | 0x7800), 0, "a plain query");
    assert_eq!(backend.probes().len(), 0, "and no other");
}

#[test]
fn any_reply_at_all_is_life() {
    let replies = [
        nodata(),
        nxdomain(),
        servfail(),
        rcode(REFUSED),
        rcode(FORMERR),
        rcode(NOTIMP),
        truncated(),
        referral(),
        bare_servfail(),
    ];
    let health =
        "[health]\ninterval = '100ms'\ntimeout = '5s'\nfall = 1\nprobe = { name = 'probe.example', type = 'A' }";
    let backends = replies.map(Backend::new);
    let asked: Vec<_> = backends.iter().map(|backend| backend as _).collect();
    let server = Forwarder::to(&asked, health).admin().start();
    for backend in &backends {
        // The third goes out when the first two have had their replies.
        backend.wait_for_name("probe.example", 3);
    }
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_backend_up", &[]), backends.len() as u64, "{}", server.process.log());
    assert!(!server.process.log().contains(" down"), "{}", server.process.log());
}

#[test]
fn so_many_missed_probes_make_down_and_so_many_good_ones_up() {
    for (fall, rise) in [(1, 1), (3, 1), (1, 3)] {
        let backend = Backend::new(answer(ONE));
        let health = format!("[health]\ninterval = '100ms'\ntimeout = '80ms'\nfall = {fall}\nrise = {rise}");
        let server = Forwarder::to(&[&backend], &health).admin().start();
        let admin = server.admin();
        for (dead, count) in [(true, fall), (false, rise)] {
            let before = backend.probes().len();
            backend.play_dead(dead);
            admin.wait_for_state(backend.address(), !dead);
            let since = probes(&backend.probes()[before..]);
            assert!(since >= count, "fall {fall}, rise {rise}: {since} probes");
        }
    }
}

#[test]
fn icmp_moves_a_query_on_and_two_probes_that_meet_it_make_down() {
    let closed = Closed::new();
    let dies = Backend::new(answer(ONE));
    let stays = Backend::new(answer(TWO));
    let keys = patient(&format!("balance = 'ordered'\n{RARELY}\nfall = 100"));
    let server = Forwarder::to(&[&closed, &dies, &stays], &keys).admin().start();
    let admin = server.admin();
    admin.wait_for_state(closed.address(), false);
    let client = server.client();
    assert_eq!(client.ask(&query("a.example", A)).answers(), [ONE]);
    dies.wait_for_probes(1);
    let address = dies.address();
    drop(dies);
    assert_eq!(client.ask(&query("b.example", A)).answers(), [TWO], "the query that meets it moves on");
    // The next regular probe is an hour away.
    admin.wait_for_state(address, false);
    assert_eq!(client.ask(&query("c.example", A)).answers(), [TWO]);
    let metrics = admin.metrics();
    assert_eq!(metrics.attempts(address, None), 2, "only one query has met it");
    assert_eq!(metrics.attempts(closed.address(), None), 0);
    // The attempt, and two probes.
    assert_eq!(metrics.sum("hedgerow_unreachable_total", &[("backend", &address.to_string())]), 3);
}

#[test]
fn silence_on_misses_never_makes_down() {
    let backends = [(); 2].map(|()| Backend::new(silent()));
    let keys = "dispatch = 'sequential'\ntimeout = '200ms'\nattempt_timeout = '50ms'\n\
                [health]\ninterval = '100ms'\ntimeout = '5s'\nfall = 1";
    let server = Forwarder::to(&[&backends[0], &backends[1]], keys).admin().start();
    let client = server.client();
    // Probes that silence asked for and those that were due: the time in which it would be found down.
    for round in 0..10 {
        (0..20).for_each(|i| client.send(&query(&format!("{round}-{i}.example"), A).edns(1232)));
        for _ in 0..20 {
            let response = client.receive();
            assert_eq!((response.rcode(), response.extended_error()), (NXDOMAIN, Some(SYNTHESIZED)));
        }
    }
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_backend_up", &[]), 2);
    assert!(!server.process.log().contains(" down"), "{}", server.process.log());
    for backend in &backends {
        assert!(backend.probes().len() > 3, "suspicion asks for probes");
        assert!(backend.queries().len() > 100, "and it is asked all the same");
    }
}

#[test]
fn silence_asks_for_a_probe_at_once() {
    let stalls = Backend::new(answer(ONE).except("b", silent()));
    let other = Backend::new(answer(TWO));
    let keys = "balance = 'ordered'\ndispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '50ms'\n\
                [health]\ninterval = '1h'\ntimeout = '80ms'\nfall = 2";
    let server = Forwarder::to(&[&stalls, &other], keys).admin().start();
    let client = server.client();
    assert_eq!(client.ask(&query("a.example", A)).answers(), [ONE]);
    stalls.wait_for_probes(1);
    stalls.play_dead(true);
    // The next regular probe is an hour away.
    assert_eq!(client.ask(&query("b.example", A)).answers(), [TWO]);
    server.admin().wait_for_state(stalls.address(), false);
}

#[test]
fn who_returns_gets_queries_again() {
    let returns = Backend::new(answer(ONE));
    let stays = Backend::new(answer(TWO));
    let keys = patient("[health]\ninterval = '200ms'\ntimeout = '5s'");
    let server = Forwarder::to(&[&returns, &stays], &keys).admin().start();
    let (admin, client) = (server.admin(), server.client());
    let address = returns.address();
    drop(returns);
    admin.wait_for_state(address, false);
    for i in 0..20 {
        assert_eq!(client.ask(&query(&format!("{i}.example"), A)).answers(), [TWO]);
    }
    let returns = Backend::at(&address.to_string(), answer(ONE));
    admin.wait_for_state(address, true);
    let ask = |count: usize| (0..count).for_each(|i| drop(client.ask(&query(&format!("{i}.example"), A))));
    ask(100);
    // A slow start: with its whole share it would have seen 50.
    let early = returns.queries().len();
    assert!(early <= 35, "{early} of the first 100");
    until("it gets its share", || {
        ask(20);
        (returns.queries().len() > early + 20).then_some(())
    });
}

#[test]
fn when_all_are_down_they_are_asked_anyway() {
    let silent = [(); 2].map(|()| Backend::dead());
    let closed = [(); 2].map(|()| Closed::new());
    let rules = "dispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '400ms'\non_timeout = 'servfail'\n\
                 on_all_down = 'refused'\n[health]\ninterval = '100ms'\ntimeout = '80ms'\nfall = 1";
    let server = Forwarder::new()
        .pool("silent", "silent", &[&silent[0], &silent[1]], rules)
        .pool("closed", "closed", &[&closed[0], &closed[1]], rules)
        .admin()
        .start();
    server.admin().wait_for("all are down", |metrics| metrics.sum("hedgerow_backend_up", &[]) == 0);
    let client = server.client();
    for (pool, at_least) in [("silent", ms(400)), ("closed", Duration::ZERO)] {
        let start = Instant::now();
        let response = client.ask(&query(&format!("a.{pool}"), A).edns(1232));
        let took = start.elapsed();
        assert_eq!((response.rcode(), response.extended_error()), (REFUSED, Some(NO_REACHABLE_AUTHORITY)), "{pool}");
        assert!(took >= at_least, "{pool}: given up after {took:?}");
        assert!(took < at_least + ms(5_000), "{pool}: {took:?}, and not the timeout");
    }
    for backend in &silent {
        assert_eq!(backend.queries_for("a.silent").len(), 1, "asked anyway");
    }
}

#[test]
fn first_query_after_recovery_is_answered() {
    let closed = Closed::new();
    let dead = Backend::dead();
    let keys = patient("[health]\ninterval = '1h'\ntimeout = '80ms'\nfall = 1");
    let server = Forwarder::to(&[&closed, &dead], &keys).admin().start();
    server.admin().wait_for("all are down", |metrics| metrics.sum("hedgerow_backend_up", &[]) == 0);
    let address = closed.address().to_string();
    drop(closed);
    let recovered = Backend::at(&address, answer(ONE));
    // No probe is waited for: the query itself finds out.
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    server.admin().wait_for_state(recovered.address(), true);
}

#[test]
fn recovery_is_found_within_an_interval_without_queries() {
    let backend = Backend::dead();
    let server = Forwarder::to(&[&backend], "[health]\ninterval = '300ms'\ntimeout = '80ms'\nfall = 1\nrise = 1")
        .admin()
        .start();
    let admin = server.admin();
    admin.wait_for_state(backend.address(), false);
    backend.play_dead(false);
    let start = Instant::now();
    admin.wait_for_state(backend.address(), true);
    let took = start.elapsed();
    println!("found up {} ms after it recovered, with an interval of 300 ms", took.as_millis());
    assert!(took < ms(3_000), "{took:?}");
}
