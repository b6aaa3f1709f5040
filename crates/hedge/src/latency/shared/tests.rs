//! Tests of workers that share the latency of a backend.

use std::thread;

use proptest::prelude::*;

use super::super::{Latency, REFRESH_AFTER};
use super::*;
use crate::rules::Hedge;

const PARTS: [f64; 5] = [0.25, 0.5, 0.95, 0.99, 0.999];

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn workers(count: usize) -> (Vec<Latency>, Instant) {
    let now = Instant::now();
    let shared = Arc::new(SharedLatency::new(now));
    ((0..count).map(|_| Latency::of_shared(&shared)).collect(), now)
}

fn announced(latency: &Latency) -> u64 {
    latency.shared.as_ref().expect("it is shared").shared.announced.load(Relaxed)
}

#[test]
fn fifty_replies_to_any_workers_are_enough_for_all() {
    let (mut workers, now) = workers(3);
    for reply in 0..50_u64 {
        assert!(workers.iter().all(|worker| worker.quantile(0.5).is_none()), "after {reply}");
        workers[reply as usize % 2].record(ms(40), now + ms(reply));
    }
    for worker in &workers {
        let delay = worker.hedge_delay(&Hedge::default());
        assert!(delay > ms(38) && delay < ms(42), "{delay:?}");
        assert!(worker.retransmission_timeout() < ms(100));
    }
}

#[test]
fn many_replies_need_few_locks_and_announcements() {
    let (mut workers, start) = workers(2);
    let mut publications = 0;
    for reply in 0..20_000_u64 {
        let pending =
            |worker: &Latency| worker.shared.as_ref().and_then(|view| view.own.get()).map(|own| own.pending.len());
        let worker = &mut workers[reply as usize % 2];
        worker.record(Duration::from_micros(1_000 + reply % 100), start + ms(reply / 40));
        publications += u32::from(pending(worker) == Some(0));
        worker.quantile(0.95);
    }
    assert!(publications <= 20_000 / BATCH as u32 + 2 * MIN_SAMPLES, "{publications}");
    assert!(announced(&workers[0]) <= 500 / 10 + u64::from(FEW), "{}", announced(&workers[0]));
}

#[test]
fn the_delay_follows_a_shift_that_several_workers_see() {
    for (count, settled_after) in [(1, 170), (2, 190), (16, 350)] {
        let (mut workers, mut now) = workers(count);
        for usual in [1_000, 20_000, 1_000] {
            for sample in 0..6_000_u64 {
                now += Duration::from_micros(667);
                let worker = &mut workers[sample as usize % count];
                let micros = if sample % 100 == 99 { 500_000 } else { usual + sample * 37 % (usual / 5) };
                worker.record(Duration::from_micros(micros), now);
                let delay = worker.hedge_delay(&Hedge::default());
                let settled = usual..=usual + usual / 4;
                assert!(
                    sample < settled_after || settled.contains(&(delay.as_micros() as u64)),
                    "{count} workers, {sample}: {delay:?}"
                );
            }
        }
    }
}

#[test]
fn threads_lose_no_reply() {
    let (workers, now) = workers(4);
    let workers: Vec<_> = thread::scope(|scope| {
        let record = |mut worker: Latency| {
            (0..5_000).for_each(|_| _ = worker.record(ms(1), now));
            worker.publish();
            worker
        };
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || record(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it has not panicked")).collect()
    });
    assert_eq!(workers[0].image(now).long.replies(), 20_000);
    assert!(workers.iter().all(|worker| worker.quantile(0.5).is_some()));
}

#[test]
fn pending_replies_are_published_once() {
    let (mut workers, now) = workers(1);
    (0..50).for_each(|_| _ = workers[0].record(ms(1), now));
    workers[0].record(ms(1), now);
    let mut other = workers[0].clone();
    [&mut other, &mut workers[0]].into_iter().for_each(Latency::publish);
    assert_eq!(other.image(now).long.replies(), 51);
}

#[test]
fn the_largest_history_of_a_predecessor_counts() {
    let (mut workers, now) = workers(2);
    let image = |replies: u64, took| {
        let mut latency = Latency::new(now);
        (0..replies).for_each(|_| _ = latency.record(took, now));
        latency.image(now)
    };
    workers[0].record(ms(3), now);
    workers[0].learn(&image(100, ms(20)), now);
    workers[1].learn(&image(60, ms(1)), now);
    workers[1].learn(&LatencyImage::default(), now);
    for worker in &workers {
        assert!(worker.quantile(0.5).is_some_and(|usual| usual > ms(19) && usual < ms(21)));
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Reply(u64),
    GivenUp,
    Corrected(u64),
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let micros = 1..200_000_u64;
    let what = prop_oneof![
        6 => micros.clone().prop_map(Event::Reply),
        1 => Just(Event::GivenUp),
        1 => micros.prop_map(Event::Corrected),
    ];
    (0..3_usize, what)
}

proptest! {
    /// Three workers know together what one knows that has all replies.
    #[test]
    fn nothing_is_lost_or_counted_twice(events in prop::collection::vec(event(), 60..600)) {
        let (mut workers, start) = workers(3);
        let mut alone = Latency::new(start);
        let mut given_up = [0; 3];
        for (number, (worker, event)) in events.into_iter().enumerate() {
            let now = start + Duration::from_micros(number as u64 * 300);
            for latency in [&mut workers[worker], &mut alone] {
                match event {
                    Event::GivenUp => latency.give_up(),
                    Event::Corrected(micros) if given_up[worker] > 0 => {
                        latency.correct(Duration::from_micros(micros), now);
                    }
                    Event::Corrected(micros) | Event::Reply(micros) => {
                        latency.record(Duration::from_micros(micros), now);
                    }
                }
            }
            given_up[worker] = match event {
                Event::GivenUp => given_up[worker] + 1,
                Event::Corrected(_) => i32::max(given_up[worker] - 1, 0),
                Event::Reply(_) => given_up[worker],
            };
        }
        workers.iter_mut().for_each(Latency::publish);
        let now = start + ms(500) + REFRESH_AFTER;
        workers[0].record(ms(1), now);
        alone.record(ms(1), now);
        prop_assert_eq!(workers[1].image(now), alone.image(now));
        for worker in &workers {
            for part in PARTS {
                prop_assert_eq!(worker.quantile(part), alone.quantile(part), "{}", part);
            }
        }
    }
}
