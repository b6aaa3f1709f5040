//! Balance policies through real sockets: how they share queries out, what they remember, and which backends
//! they avoid.

use std::collections::HashMap;

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// All words of `balance`.
const WORDS: [&str; 7] = ["ordered", "round-robin", "random", "sticky", "hash", "least-load", "fastest"];

/// One attempt a query, and nothing is due before a test is over.
fn patient(balance: &str) -> String {
    format!("balance = '{balance}'\ndispatch = 'sequential'\ntimeout = '20s'\nattempt_timeout = '20s'\n")
}

/// Asks so many different names, one after the other.
fn ask_names(server: &Server, count: usize) {
    let client = server.client();
    for i in 0..count {
        assert_eq!(client.ask(&query(&format!("{i}.example"), A)).answers(), [ONE], "name {i}");
    }
}

/// How many queries each backend has seen.
fn counts(backends: &[Backend]) -> Vec<usize> {
    backends.iter().map(|backend| backend.queries().len()).collect()
}

/// How far counts are from what weights say (Pearson's chi-square).
fn chi_square(counts: &[usize], weights: &[u16]) -> f64 {
    let total: usize = counts.iter().sum();
    let weight: u16 = weights.iter().sum();
    let parts = counts.iter().zip(weights).map(|(&count, &part)| {
        let expected = total as f64 * f64::from(part) / f64::from(weight);
        (count as f64 - expected).powi(2) / expected
    });
    parts.sum()
}

#[test]
fn queries_are_shared_out_by_weight() {
    for weights in [[1, 1, 1, 1], [4, 1, 3, 2]] {
        for (balance, is_exact) in
            [("round-robin", true), ("sticky", true), ("random", false), ("hash", false), ("least-load", false)]
        {
            let backends = [(); 4].map(|()| Backend::new(answer(ONE)));
            let asked: Vec<_> =
                backends.iter().zip(weights).map(|(backend, weight)| Weighted(backend, weight)).collect();
            let asked: Vec<_> = asked.iter().map(|backend| backend as _).collect();
            let server = Forwarder::to(&asked, &patient(balance)).start();
            ask_names(&server, 400);
            let counts = counts(&backends);
            // Three degrees of freedom: one run in 2,000,000 exceeds this by chance.
            let limit = if is_exact { 0.0 } else { 32.0 };
            let chi_square = chi_square(&counts, &weights);
            println!("{balance:11} {weights:?}: {counts:?}, chi-square {chi_square:.1}");
            assert_eq!(counts.iter().sum::<usize>(), 400);
            assert!(chi_square <= limit, "{balance}, {weights:?}: {counts:?}, chi-square {chi_square}");
        }
    }
}

#[test]
fn ordered_asks_the_first_whatever_its_weight() {
    let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
    let server =
        Forwarder::to(&[&Weighted(&backends[0], 1), &Weighted(&backends[1], 1000)], &patient("ordered")).start();
    ask_names(&server, 20);
    assert_eq!(counts(&backends), [20, 0]);
}

#[test]
fn sticky_goes_straight_to_the_table_that_has_the_name() {
    // After silence the next is asked by the clock: not so soon that a busy machine is taken for a silent
    // backend.
    for (what, miss, patience, rounds) in
        [("silence", silent as fn() -> Script, "200ms", 8), ("NXDOMAIN", nxdomain, "20s", 20)]
    {
        // Each has a half of the names, as their first label says.
        let backends =
            [Backend::new(miss().except("one", answer(ONE))), Backend::new(miss().except("two", answer(TWO)))];
        let keys = "balance = 'sticky'\ndispatch = 'sequential'\ntimeout = '20s'";
        let keys = format!("{keys}\nattempt_timeout = '{patience}'");
        let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).start();
        let client = server.client();
        for i in 0..rounds {
            let mut halves = [("one", 0, ONE), ("two", 1, TWO)];
            // Else each name would by chance have its turn at its home.
            halves.rotate_left(i % 2);
            for (label, home, address) in halves {
                let name = format!("{label}.{i}.example");
                let seen = || backends.each_ref().map(|backend| backend.queries_for(&name).len());
                assert_eq!(client.ask(&query(&name, A)).answers(), [address]);
                let first = seen();
                // In other case and of another type, it is the same name.
                assert_eq!(client.ask(&query(&name.to_uppercase(), AAAA)).answers(), [address]);
                let mut expected = first;
                expected[home] += 1;
                assert_eq!(seen(), expected, "{name} with {what} for a miss");
            }
        }
        let detours: usize = counts(&backends).iter().sum::<usize>() - 4 * rounds;
        assert!((1..2 * rounds).contains(&detours), "a new name goes to whose turn it is: {detours} went astray");
    }
}

#[test]
fn sticky_moves_when_its_backend_dies() {
    let (home, other) = (Backend::new(answer(ONE)), Backend::new(answer(TWO)));
    let server = Forwarder::to(&[&home, &other], &patient("sticky")).admin().start();
    let client = server.client();
    let ask = |name: &str| client.ask(&query(name, A)).answers();
    let moving = if ask("a.example") == [ONE] { "a.example" } else { "b.example" };
    for _ in 0..3 {
        assert_eq!(ask(moving), [ONE]);
    }
    let address = home.address().to_string();
    drop(home);
    assert_eq!(ask(moving), [TWO]);
    // The old home is back, but the name lives elsewhere now.
    let home = Backend::at(&address, answer(ONE));
    server.admin().wait_for_state(home.address(), true);
    for _ in 0..10 {
        assert_eq!(ask(moving), [TWO]);
    }
    assert_eq!(home.queries_for(moving).len(), 0);
}

#[test]
fn hash_keeps_names_at_home_and_moves_only_those_of_who_leaves() {
    let backends = [(); 4].map(|()| Backend::new(answer(ONE)));
    let asked: Vec<_> = backends.iter().map(|backend| backend as _).collect();
    let server = Forwarder::to(&asked, &patient("hash")).admin().start();
    // Where each name was asked since the last time.
    let homes = || {
        let before = counts(&backends);
        ask_names(&server, 400);
        let mut homes = HashMap::new();
        for (place, (backend, before)) in backends.iter().zip(before).enumerate() {
            homes.extend(backend.queries()[before..].iter().map(|seen| (seen.name(), place)));
        }
        assert_eq!(homes.len(), 400);
        homes
    };
    let first = homes();
    assert_eq!(homes(), first, "the same names, the same backends");
    let gone = server.admin().try_delete(&format!("/api/v1/pools/all/backends/{}", backends[3].address()));
    assert_eq!(gone.status, 200, "{gone:?}");
    let second = until("the workers know", || Some(homes()).filter(|homes| homes.values().all(|&home| home != 3)));
    let moved = first.iter().filter(|(name, home)| second[*name] != **home).count();
    println!("hash: {moved} of 400 names moved when one of 4 backends left");
    assert!(first.iter().all(|(name, home)| *home == 3 || second[name] == *home), "only its names move");
    assert!((60..=150).contains(&moved), "about a quarter: {moved}");
}

#[test]
fn least_load_and_fastest_leave_who_stalls() {
    for balance in ["least-load", "fastest"] {
        let stalled = Backend::new(silent());
        let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
        let keys = format!(
            "balance = '{balance}'\ndispatch = 'hedge'\ntimeout = '20s'\nattempt_timeout = '20s'\n\
             [hedge]\ndelay = '20ms'\nbudget = 1.0"
        );
        let server = Forwarder::to(&[&stalled, &backends[0], &backends[1]], &keys).start();
        ask_names(&server, 300);
        let stalled = stalled.queries().len();
        println!("{balance}: {stalled} of 300 queries went to who stalls");
        assert!(stalled <= 15, "{balance}: {stalled} of 300");
    }
}

#[test]
fn least_load_and_fastest_spare_who_is_slow() {
    for balance in ["least-load", "fastest"] {
        let slow = Backend::new(answer(ONE).after(ms(40)));
        let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
        let server = Forwarder::to(&[&slow, &backends[0], &backends[1]], &patient(balance)).start();
        // Eight are in flight all the time.
        let client = server.client();
        let mut names = (0..400).map(|i| query(&format!("{i}.example"), A));
        names.by_ref().take(8).for_each(|query| client.send(&query));
        for query in names {
            client.receive();
            client.send(&query);
        }
        (0..8).for_each(|_| drop(client.receive()));
        let slow = slow.queries().len();
        println!("{balance}: {slow} of 400 queries went to who is slow");
        assert!(slow <= 66, "{balance}: {slow} of 400, more than half of an even share");
    }
}

#[test]
fn nobody_asks_who_is_down() {
    let closed = Closed::new();
    let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
    let mut config = Forwarder::new();
    for balance in WORDS {
        config = config.pool(balance, balance, &[&closed, &backends[0], &backends[1]], &patient(balance));
    }
    let server = config.admin().start();
    let admin = server.admin();
    admin.wait_for_state(closed.address(), false);
    let asked = admin.metrics().attempts(closed.address(), None);
    let client = server.client();
    for balance in WORDS {
        for i in 0..30 {
            assert_eq!(client.ask(&query(&format!("{i}.{balance}"), A)).answers(), [ONE], "{balance}");
        }
    }
    let metrics = admin.metrics();
    assert_eq!(metrics.attempts(closed.address(), None), asked);
    assert_eq!(metrics.sum("hedgerow_attempts_total", &[("kind", "failover")]), 0);
    assert_eq!(counts(&backends).iter().sum::<usize>(), 30 * WORDS.len());
}

#[test]
fn sticky_from_a_reload_remembers_as_much_as_from_the_start() {
    let backends = [(); 2].map(|()| Backend::new(answer(ONE)));
    let config = |balance| Forwarder::to(&[&backends[0], &backends[1]], &patient(balance)).admin();
    let server = config("round-robin").start();
    server.rewrite("config.toml", &config("sticky").to_toml());
    server.admin().post("/api/v1/reload", "");
    // An odd number: in turn, each name would meet with the other backend the second time.
    until("all names are asked where they were before", || {
        let before = backends[0].queries().len();
        ask_names(&server, 101);
        ask_names(&server, 101);
        let seen = backends[0].queries();
        let (once, again) = seen[before..].split_at((seen.len() - before) / 2);
        (once.iter().map(Seen::name).eq(again.iter().map(Seen::name))).then_some(())
    });
}
