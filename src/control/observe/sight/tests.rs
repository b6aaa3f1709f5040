//! Tests of the whole view: its memory, and the verdict on a healthy server.

use std::time::{Duration, Instant, SystemTime};

use super::history::{Site, backend, pool};
use super::live::{Span, VerdictState};
use super::*;

#[test]
fn it_takes_no_more_than_it_may() {
    for (pools, backends) in [(1, 3_000), (80, 30), (16, 16)] {
        let pools = (0..pools).map(|number| {
            let name = |backend| format!("{}-{number}-{backend}", "a-long-name-of-a-backend".repeat(4));
            pool(&format!("pool{number}"), (0..backends).map(|of| backend(&name(of))).collect())
        });
        let mut site = Site::new(pools.collect());
        // Rings allocate at the start; everything else that grows has grown by then.
        (0..70).for_each(|_| drop(site.sight_second()));
        let octets = site.sight.octets();
        let (pools, backends) = (site.snapshot.pools.len(), site.snapshot.pools[0].backends.len());
        assert!(octets <= MAX_OCTETS, "{octets} octets for {pools} pools of {backends} backends");
    }
}

#[test]
fn what_was_told_is_told_again_to_who_has_missed_it() {
    let mut site = Site::new(vec![pool("ts", vec![backend("ts1")])]);
    let first = site.sight_second().expect("a second is over");
    let second = site.sight_second().expect("another one is");
    assert_eq!(second.id, first.id + 1);
    assert_eq!(site.sight.missed(first.id), std::slice::from_ref(&second));
    assert_eq!(site.sight.missed(0), [first, second.clone()]);
    let reported: Second = serde_json::from_str(&second.data).expect("JSON");
    assert_eq!(&reported, site.sight.latest());
}

#[test]
fn a_tick_that_comes_at_once_is_no_second() {
    let now = Instant::now();
    let at = Duration::from_secs(1_000_000);
    let mut sight = Sight::new(now, at, &Snapshot::default());
    assert_eq!(sight.take(now + Duration::from_millis(100), at, &Snapshot::default()), None);
    assert!(sight.take(now + Duration::from_millis(990), at, &Snapshot::default()).is_some());
}

#[test]
fn a_verdict_says_since_when() {
    let mut site = Site::new(vec![pool("ts", vec![backend("ts1"), backend("ts2")])]);
    let began = site.at().as_secs();
    site.sight_second();
    assert_eq!((site.sight.verdict().state, site.sight.verdict().since), (VerdictState::Well, began));
    site.snapshot.pools[0].backends[1].state = metrics::BackendState::Down;
    site.snapshot.pools[0].backends[1].since = SystemTime::UNIX_EPOCH + site.at();
    let died = site.at().as_secs() + 1;
    (0..5).for_each(|_| drop(site.sight_second()));
    let verdict = site.sight.verdict().clone();
    assert_eq!((verdict.state, verdict.since), (VerdictState::Watch, died));
    assert_eq!(verdict.reasons[0].text, "ts2 of pool ts has been down for 5 s");
    assert_eq!(site.sight.verdict_number(), 1);
    let history = site.sight.history().show(Span::TenMinutes, &site.snapshot);
    assert_eq!(history.verdict[0], VerdictState::Well);
    assert_eq!(history.verdict[1..], [VerdictState::Watch; 5]);
}
