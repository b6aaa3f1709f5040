//! Hedges through real sockets: when a second attempt starts, what pays for it, and what needs no pay.
//! Deadlines that must not matter are set to 20 s: a response that comes at all has not waited for one.

mod support;

use std::time::Instant;

use support::*;

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
        assert!(backends[..=max].iter().all(|backend| backend.queries().len() == 2));
    }
}
