//! Hedges through real sockets: when a second attempt starts, what pays for it, and what needs no pay.
//! Deadlines that must not matter are set to 20 s: a response that comes at all has not waited for one.

use std::time::{Duration, Instant};

use testkit::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

/// A pool that hedges, asked in the order of the config. Nothing but the hedge is due before a test is over.
fn hedging(keys: &str) -> String {
    let patient = "balance = 'ordered'\ntimeout = '20s'\nattempt_timeout = '20s'";
    format!("dispatch = 'hedge'\n{patient}\n[hedge]\n{keys}")
}

#[test]
fn hedge_starts_after_the_delay_and_its_reply_wins() {
    for delay in ["delay = '100ms'", "delay = 'auto'\nmax_delay = '100ms'", "delay = 'p90'\nmax_delay = '100ms'"] {
        let slow = Backend::new(answer(ONE).held());
        let quick = Backend::new(answer(TWO));
        let keys = hedging(delay);
        let server = Forwarder::to(&[&slow, &quick], &keys).start();
        let asked = Instant::now();
        assert_eq!(server.client().ask(&query("www.example", A)).answers(), [TWO]);
        assert!(quick.queries()[0].at - asked >= ms(100), "{delay}");
        assert_eq!(slow.queries().len(), 1);
    }
}

#[test]
fn quick_answer_needs_no_hedge() {
    let quick = Backend::new(answer(ONE));
    let spare = Backend::new(answer(TWO));
    let keys = hedging("delay = '5s'");
    let server = Forwarder::to(&[&quick, &spare], &keys).start();
    for i in 0..20 {
        let response = server.client().ask(&query(&format!("{i}.example"), A));
        assert_eq!(response.answers(), [ONE]);
    }
    assert_eq!(spare.queries().len(), 0);
}

#[test]
fn full_bucket_pays_for_ten_hedges() {
    let slow = Backend::new(answer(ONE).held());
    let quick = Backend::new(answer(TWO));
    let keys = hedging("delay = '1ms'\nbudget = 0.001");
    let server = Forwarder::to(&[&slow, &quick], &keys).start();
    let client = server.client();
    for i in 0..30 {
        client.send(&query(&format!("{i}.example"), A));
    }
    slow.wait_for(30);
    // Ten are hedged, and their answers come; the others can only get the slow backend's.
    for _ in 0..10 {
        assert_eq!(client.receive().answers(), [TWO]);
    }
    slow.release();
    for _ in 0..20 {
        assert_eq!(client.receive().answers(), [ONE]);
    }
    assert_eq!(quick.queries().len(), 10);
}

#[test]
fn budget_of_zero_means_no_hedges() {
    let slow = Backend::new(answer(ONE).after(ms(60)));
    let spare = Backend::new(answer(TWO));
    let keys = hedging("delay = '1ms'\nbudget = 0.0");
    let server = Forwarder::to(&[&slow, &spare], &keys).start();
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    assert_eq!(spare.queries().len(), 0);
}

#[test]
fn failover_needs_no_hedge_budget() {
    let failing = Backend::new(servfail());
    let backend = Backend::new(answer(ONE));
    let keys = hedging("budget = 0.0");
    let server = Forwarder::to(&[&failing, &backend], &keys).start();
    for i in 0..30 {
        let response = server.client().ask(&query(&format!("{i}.example"), A));
        assert_eq!(response.answers(), [ONE]);
    }
}

#[test]
fn hedges_of_one_query_are_at_most_as_many_as_max_says() {
    for max in [1, 2] {
        let backends = [(); 4].map(|()| Backend::new(answer(ONE).held()));
        let asked = backends.each_ref().map(|backend| backend as _);
        let server = Forwarder::to(&asked, &hedging(&format!("delay = '1ms'\nmax = {max}"))).start();
        let client = server.client();
        client.send(&query("www.example", A));
        backends[max].wait_for(1);
        // A hedge too many would have had the time of a whole race with as many hedges.
        client.send(&query("other.example", A));
        backends[max].wait_for(2);
        assert_eq!(backends[max + 1].queries().len(), 0, "max = {max}");
        // Those that were asked before may hear of it a moment later.
        backends[..=max].iter().for_each(|backend| drop(backend.wait_for(2)));
        assert!(backends[..=max].iter().all(|backend| backend.queries().len() == 2));
    }
}

#[test]
fn wasted_hedges_are_counted() {
    for (winner, answers, wasted) in [(0, ONE, 1), (1, TWO, 0)] {
        let backends = [ONE, TWO].map(|address| Backend::new(answer(address).held()));
        let server = Forwarder::to(&[&backends[0], &backends[1]], &hedging("delay = '1ms'")).admin().start();
        let client = server.client();
        client.send(&query("www.example", A));
        backends[1].wait_for(1);
        backends[winner].release();
        assert_eq!(client.receive().answers(), [answers]);
        let metrics = server.admin().metrics();
        let hedge = &[("kind", "hedge")];
        assert_eq!(metrics.sum("hedgerow_attempts_total", hedge), 1);
        assert_eq!(metrics.sum("hedgerow_wins_total", hedge), 1 - wasted);
        assert_eq!(metrics.sum("hedgerow_hedges_wasted_total", &[]), wasted);
        assert_eq!(metrics.sum("hedgerow_hedges_denied_total", &[]), 0);
    }
}

/// Asks these names, many at a time, and receives all answers.
fn ask_all(server: &Server, names: std::ops::Range<u32>) {
    let client = server.client();
    for start in names.clone().step_by(100) {
        let batch = start..names.end.min(start + 100);
        batch.clone().for_each(|name| client.send(&query(&format!("{name}.example"), A)));
        batch.for_each(|_| assert_eq!(client.receive().answers().len(), 1));
    }
}

#[test]
fn regret_is_reported_after_enough_races() {
    let backends = [ONE, TWO].map(|address| Backend::new(answer(address)));
    let server = Forwarder::to(&[&backends[0], &backends[1]], "dispatch = 'sequential'").admin().start();
    let admin = server.admin();
    let regret = || {
        let status: serde_json::Value = serde_json::from_str(&admin.get("/api/v1/status").body).expect("JSON");
        status["pools"][0]["regret"].clone()
    };
    let metric = || admin.get("/metrics").body.lines().find(|line| line.starts_with(METRIC)).map(str::to_owned);
    ask_all(&server, 0..4_000);
    assert_eq!((regret(), metric()), (serde_json::Value::Null, None));
    let address = format!("http://{}", admin.address());
    let shown = || {
        let output = server.process.ctl(&["status", "--admin", &address]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(!shown().contains("best possible"));
    ask_all(&server, 4_000..5_100);
    until("the regret is measured", metric);
    let regret = regret();
    let number = |key: &str| regret[key].as_f64().expect("a number");
    let (ratio, achieved, best) = (number("ratio"), number("achieved_ms"), number("best_ms"));
    assert!(ratio >= 1.0 && (ratio - achieved / best).abs() < 0.01, "{regret}");
    assert_eq!((&regret["percentile"], &regret["budget"]), (&99.9.into(), &0.05.into()));
    assert_eq!(metric().expect("it was there"), format!("{METRIC}{{pool=\"all\"}} {ratio:?}"));
    let line = format!("all: p99.9 {achieved:.2} ms; best possible with 5 %: {best:.2} ms\n");
    assert!(shown().contains(&line), "{line} is not in {}", shown());
}

const METRIC: &str = "hedgerow_tail_regret_ratio";

#[test]
fn hedge_that_was_denied_is_made_when_the_budget_allows() {
    let slow = Backend::new(answer(ONE).held().except("quick", answer(ONE)));
    let spare = Backend::new(answer(TWO));
    let server = Forwarder::to(&[&slow, &spare], &hedging("delay = '1ms'\nbudget = 0.5")).admin().start();
    let client = server.client();
    (0..11).for_each(|i| client.send(&query(&format!("{i}.example"), A)));
    // The bucket holds ten, whose replies earn five; one after the other gets a hedge by and by.
    for _ in 0..11 {
        assert_eq!(client.receive().answers(), [TWO]);
    }
    assert_eq!(slow.queries().len(), 11);
}

/// The delay of the hedge for a name that `first` is asked for first, and leaves unanswered.
fn delay(server: &Server, first: &Backend, second: &Backend, name: &str) -> Duration {
    assert_eq!(server.client().ask(&query(name, A)).answers(), [TWO]);
    second.wait_for_name(name, 1)[0].at - first.wait_for_name(name, 1)[0].at
}

#[test]
fn all_workers_hedge_by_the_replies_to_any() {
    let first = Backend::new(answer(ONE).after(ms(40)).except("lost", silent()));
    let second = Backend::new(answer(TWO));
    let keys = hedging("delay = 'p90'\nmax_delay = '5s'\nbudget = 1.0");
    let server = Forwarder::to(&[&first, &second], &keys).workers(2).start();
    // At most one worker gets 50 of these replies.
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        (0..5).for_each(|name| client.send(&query(&format!("{name}.{number}.example"), A)));
    }
    clients.iter().for_each(|client| (0..5).for_each(|_| drop(client.receive())));
    for number in 0..16 {
        let delay = delay(&server, &first, &second, &format!("lost.{number}.example"));
        assert!(delay >= ms(35) && delay < ms(2_500), "{delay:?}");
    }
}

#[test]
fn attempts_that_are_never_answered_count_as_late() {
    // One of thirteen replies is slow: less than a tenth.
    let first = Backend::new(answer(ONE).except("slow", answer(ONE).after(ms(200))).except("lost", silent()));
    let second = Backend::new(answer(TWO));
    let keys = hedging("delay = 'p90'\nmin_delay = '0s'\nmax_delay = '5s'\nbudget = 1.0");
    let server = Forwarder::to(&[&first, &second], &keys).start();
    let client = server.client();
    let round = |round: usize| {
        client.send(&query(&format!("slow.{round}.example"), A));
        (0..12).for_each(|i| client.send(&query(&format!("{i}.{round}.example"), A)));
        (0..13).for_each(|_| drop(client.receive()));
    };
    (0..8).for_each(round);
    assert!(delay(&server, &first, &second, "lost.example") < ms(200), "more than nine of ten are quick");
    // Each round loses two: with those, less than nine of ten are quick.
    let mut rounds = 8..200;
    until("the delay is that of the slow ones", || {
        let number = rounds.next()?;
        client.send(&query(&format!("lost.{number}.first.example"), A));
        client.send(&query(&format!("lost.{number}.second.example"), A));
        round(number);
        (0..2).for_each(|_| drop(client.receive()));
        (delay(&server, &first, &second, &format!("lost.{number}.example")) >= ms(190)).then_some(())
    });
}

#[test]
fn hedge_spares_who_is_busy_but_failover_keeps_the_order() {
    let script = |number| if number % 2 == 0 { answer(ONE).held() } else { answer(TWO).except("fail", servfail()) };
    let backends = [0, 1, 2, 3].map(|number| Backend::new(script(number)));
    let asked = backends.each_ref().map(|backend| backend as _);
    // A second hedge, for the time before any backend is known to be busy.
    let keys = hedging("delay = '1ms'\nbudget = 1.0\nmax = 2").replace("ordered", "round-robin");
    let server = Forwarder::to(&asked, &keys).admin().start();
    let client = server.client();
    for i in 0..200 {
        assert_eq!(client.ask(&query(&format!("{i}.example"), A)).answers(), [TWO]);
    }
    // A backend that holds its answers back has ever more queries in flight. Drawn by chance alone, each
    // would get 33 hedges.
    for held in [&backends[0], &backends[2]] {
        let hedges = server.admin().metrics().attempts(held.address(), Some("hedge"));
        assert!(hedges <= 10, "{hedges} of 100 hedges");
        // The backend may read them late.
        held.wait_for(50 + hedges as usize);
        assert_eq!(held.queries().len() as u64, 50 + hedges);
    }
    // The turn is that of the first, then of the second, which fails: the third is next.
    client.send(&query("turn.example", A));
    let failing = query("fail.example", A);
    client.send(&failing);
    backends[1].wait_for_name("fail.example", 1);
    backends[2].wait_for_name("fail.example", 1);
}

#[test]
fn sticky_hedging_learns_where_a_name_lives_and_a_miss_costs_no_budget() {
    let one = Backend::new(nxdomain().except("one", answer(ONE)));
    let two = Backend::new(nxdomain().except("two", answer(TWO)));
    let keys = hedging("delay = '20s'\nbudget = 0.001").replace("ordered", "sticky");
    let server = Forwarder::to(&[&one, &two], &format!("accept = 'positive'\n{keys}")).admin().start();
    let client = server.client();
    let ask_all = || {
        for i in 0..40 {
            // Taken in turn, each goes to the wrong one first.
            assert_eq!(client.ask(&query(&format!("two.{i}.example"), A)).answers(), [TWO]);
            assert_eq!(client.ask(&query(&format!("one.{i}.example"), A)).answers(), [ONE]);
        }
    };
    ask_all();
    let misses = server.admin().metrics().sum("hedgerow_attempts_total", &[("kind", "failover")]);
    assert_eq!(misses, 80, "more than the bucket would have paid for");
    let before = [&one, &two].map(|backend| backend.queries().len());
    ask_all();
    for (backend, before) in [(&one, before[0]), (&two, before[1])] {
        assert_eq!(backend.queries().len() - before, 40, "each name is asked at its home only");
    }
    let metrics = server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_attempts_total", &[("kind", "failover")]), misses);
    assert_eq!(metrics.sum("hedgerow_attempts_total", &[("kind", "hedge")]), 0);
    assert_eq!(metrics.sum("hedgerow_hedges_denied_total", &[]), 0);
}

#[test]
fn only_successes_fill_the_budget() {
    let script = || answer(ONE).except("lost", silent()).except("fail", servfail());
    let backends = [(); 2].map(|()| Backend::new(script()));
    let keys = hedging("delay = '1ms'\nbudget = 1.0");
    let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).admin().start();
    let (client, admin) = (server.client(), server.admin());
    let hedges = |metrics: &Metrics| metrics.sum("hedgerow_attempts_total", &[("kind", "hedge")]);
    (0..10).for_each(|i| client.send(&query(&format!("lost.{i}.example"), A)));
    backends[1].wait_for(10);
    client.send(&query("lost.last.example", A));
    for i in 0..50 {
        assert_eq!(client.ask(&query(&format!("fail.{i}.example"), A)).rcode(), SERVFAIL);
    }
    assert_eq!(hedges(&admin.metrics()), 10);
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ONE]);
    admin.wait_for("it is made", |metrics| hedges(metrics) == 11);
}

#[test]
fn auto_shows_the_hedges_that_it_has_chosen() {
    let backends = [ONE, TWO].map(|address| Backend::new(answer(address)));
    let rules = "dispatch = 'auto'\nbalance = 'round-robin'";
    let server = Forwarder::to(&[&backends[0], &backends[1]], rules).admin().start();
    let admin = server.admin();
    let tuning = || {
        let status: serde_json::Value = serde_json::from_str(&admin.get("/api/v1/status").body).expect("JSON");
        Some(status["pools"][0]["tuning"].clone()).filter(|tuning| !tuning.is_null())
    };
    assert_eq!(tuning(), None);
    let mut names = 0..;
    let tuning = until("the hedges are tuned", || {
        let start = names.next().expect("numbers go on") * 200;
        ask_all(&server, start..start + 200);
        tuning()
    });
    assert_eq!(tuning["percentile"], 99.9);
    let hedges = tuning["hedges"].as_array().expect("a list");
    assert!(hedges.len() == 2 && hedges.iter().all(|hedge| hedge["delay_ms"].is_f64()), "{tuning}");
    let address = format!("http://{}", admin.address());
    let shown = String::from_utf8(server.process.ctl(&["status", "--admin", &address]).stdout).expect("text");
    assert!(shown.contains("expected by dispatch = \"auto\":\nall: p99.9 "), "{shown}");
    let explained = admin.try_post("/api/v1/explain", r#"{"name": "www.example", "type": "A"}"#);
    assert!(explained.body.contains("best for p99.9, for "), "{}", explained.body);
}
