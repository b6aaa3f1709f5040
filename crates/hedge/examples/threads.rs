//! Hedged requests with threads and channels of the standard library: three stores, of which one is slow.
//! `cargo run -p hedge --example threads`

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use hedge::budget::Budget;
use hedge::latency::Latency;
use hedge::race::{AttemptId, AttemptKind, Race, RaceContext, RaceStep};
use hedge::{BackendIndex, Candidates, RaceRules};

/// The times that the stores take for a read.
const STORES: [Duration; 3] = [Duration::from_millis(400), Duration::from_millis(3), Duration::from_millis(5)];

fn main() {
    let rules = RaceRules::default();
    let budget = Budget::new(rules.hedge.budget);
    let mut latency = vec![Latency::new(Instant::now()); STORES.len()];
    for key in 0..6_u16 {
        let start = Instant::now();
        let candidates = Candidates::of((0..3).map(|place| BackendIndex((key + place) % 3)), false);
        let context = RaceContext { rules: &rules, latency: &latency, loads: &[], by_stream: &[], budget: &budget };
        // Of the ranks `false` (failure) and `true` (success), the second one wins at once.
        let mut race = Race::start(&context, &candidates, true, start);
        let (sender, replies) = channel();
        let end = loop {
            match race.poll(&context, Instant::now()) {
                RaceStep::Ask { attempt, backend, .. } => read(backend, attempt, sender.clone()),
                RaceStep::WaitUntil(until) => {
                    if let Ok(attempt) = replies.recv_timeout(until.saturating_duration_since(Instant::now())) {
                        race.on_reply(attempt, true, Instant::now());
                    }
                }
                RaceStep::Finished(end) => break end,
            }
        };
        let now = Instant::now();
        let winner = race.winner().unwrap_or_else(|| panic!("no store has replied: {end:?}"));
        latency[winner.backend.get()].record(now - winner.asked_at, now);
        budget.earn(1);
        let how = if winner.kind == AttemptKind::Hedge { "the hedge" } else { "the first attempt" };
        println!("key {key}: store {} by {how}, after {:?}", winner.backend.get(), now - start);
    }
}

/// Reads from a store in a thread of its own. The receiver may be gone when a beaten attempt ends.
fn read(backend: BackendIndex, attempt: AttemptId, replies: Sender<AttemptId>) {
    thread::spawn(move || {
        thread::sleep(STORES[backend.get()]);
        let _ = replies.send(attempt);
    });
}
