//! Tests of workers that share the load of a backend.

use std::thread;

use proptest::prelude::*;

use super::super::{AttemptEnd, BackendLoad, STALLED_ATTEMPTS};
use super::*;
use crate::latency::{Latency, charge};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn workers(count: usize) -> (Vec<BackendLoad>, Arc<SharedLoad>, Instant) {
    let now = Instant::now();
    let shared = Arc::new(SharedLoad::new(count, now));
    ((0..count).map(|worker| BackendLoad::of_shared(&shared, worker, now)).collect(), shared, now)
}

#[test]
fn open_attempts_are_known_to_all_until_their_worker_ends() {
    let (mut workers, shared, now) = workers(3);
    let counts = |workers: &[BackendLoad], at| {
        workers.iter().map(|worker| worker.in_flight_of_all(now + ms(at))).collect::<Vec<_>>()
    };
    assert_eq!(counts(&workers, 0), [0, 0, 0]);
    for (worker, attempts) in [(0, 2), (1, 3)] {
        (0..attempts).for_each(|_| workers[worker].asked(now));
    }
    assert_eq!(counts(&workers, 0), [2, 3, 0], "others are read once in a millisecond");
    assert_eq!(counts(&workers, 1), [5, 5, 5]);
    workers[1].ended(AttemptEnd::Void, now + ms(1));
    assert_eq!(counts(&workers, 2), [4, 4, 4]);
    workers.remove(0);
    assert_eq!(counts(&workers, 3), [2, 2]);
    workers.push(BackendLoad::of_shared(&shared, 0, now));
    assert_eq!(counts(&workers, 4), [2, 2, 2]);
}

#[test]
fn a_stall_is_a_stall_of_all() {
    let (mut workers, _, now) = workers(usize::try_from(STALLED_ATTEMPTS).expect("a few"));
    workers.iter_mut().for_each(|worker| worker.asked(now));
    let stalled =
        |workers: &[BackendLoad], at| workers.iter().filter(|load| load.is_stalled(ms(10), now + ms(at))).count();
    assert_eq!((stalled(&workers, 8), stalled(&workers, 12)), (0, workers.len()));
    // The reply to one of them is a reply to all.
    workers[0].asked(now);
    workers[0].ended(AttemptEnd::Reply(ms(15)), now + ms(15));
    assert_eq!((stalled(&workers, 20), stalled(&workers, 25)), (0, workers.len()));
}

#[test]
fn a_reply_to_any_worker_shows_that_an_earlier_attempt_is_late() {
    let (mut workers, _, now) = workers(2);
    let mut latency = Latency::new(now);
    workers.iter_mut().for_each(|worker| worker.asked(now));
    assert!(!charge(&workers[0], &mut latency, now));
    workers[1].ended(AttemptEnd::Reply(ms(5)), now + ms(5));
    assert!(charge(&workers[0], &mut latency, now) && !charge(&workers[0], &mut latency, now + ms(5)));
}

#[test]
fn results_are_published_when_they_are_news() {
    let (mut workers, shared, start) = workers(2);
    let (mut known, mut published) = ([0; 3], 0);
    for reply in 0..10_000_u32 {
        let now = start + Duration::from_micros(10) * reply;
        let worker = &mut workers[reply as usize % 2];
        worker.asked(now);
        worker.ended(AttemptEnd::Reply(Duration::from_micros(1_000)), now);
        let found = [&shared.latency, &shared.errors, &shared.heard].map(|value| value.load(Relaxed));
        published += found.iter().zip(known).filter(|(found, known)| *found != known).count();
        known = found;
    }
    // In 100 ms, the latency may change 100 times, and the time of a reply 400 times.
    assert!(published <= 500, "{published}");
    workers[0].asked(start + ms(100));
    workers[0].ended(AttemptEnd::Reply(ms(7)), start + ms(100));
    assert!(workers[1].cost(start + ms(100)) > 0.0069, "a peak is published at once");
}

#[test]
fn times_are_known_for_weeks_and_years_after_the_start() {
    let shared = SharedLoad::new(2, Instant::now());
    for days in [0, 49, 50, 1_000] {
        let now = shared.began + Duration::from_secs(86_400 * days) + ms(12_345);
        for (at, expected) in [
            (now, now),
            (now - ms(5_000), now - ms(5_000)),
            (now + ms(3), now + ms(3)),
            (now + Duration::from_secs(86_400 * 20), now + Duration::from_secs(86_400 * 20)),
        ] {
            let (value, found) = shared.unpack(shared.pack(7, at), now);
            let difference = found.max(expected) - found.min(expected);
            assert!(value == 7 && difference <= Duration::from_nanos(TICK), "{days} days: {difference:?}");
        }
    }
}

#[test]
fn workers_write_at_the_same_time() {
    let (workers, shared, now) = workers(4);
    thread::scope(|scope| {
        for mut worker in workers {
            scope.spawn(move || {
                for step in 0..10_000 {
                    let at = now + ms(step / 10);
                    worker.asked(at);
                    worker.ended(AttemptEnd::Reply(ms(1 + step % 5)), at);
                    assert!(worker.cost(at) < 0.0051 * 5.0, "{}", worker.cost(at));
                }
                assert!(worker.cost(now + ms(1_000)) > 0.004);
            });
        }
    });
    assert!(shared.open.iter().all(|open| open.load(Relaxed) == 0));
}

proptest! {
    /// Several workers know what one worker knows that has all their attempts.
    #[test]
    fn workers_know_what_a_lone_one_would(
        steps in prop::collection::vec((0..4_usize, 2..200_u64, 1..300_u64, 0..5_u8), 1..100),
    ) {
        let (mut workers, _, mut now) = workers(4);
        let mut lone = BackendLoad::new(now);
        for (worker, gap, took, what) in steps {
            now += ms(gap);
            let end = match what {
                0 | 1 => None,
                2 => Some(AttemptEnd::Reply(ms(took))),
                3 => Some(AttemptEnd::Failure(ms(took))),
                4.. => Some(AttemptEnd::Unreachable),
            };
            let end = end.filter(|_| workers[worker].in_flight() > 0);
            for load in [&mut workers[worker], &mut lone] {
                match end {
                    Some(end) => _ = load.ended(end, now),
                    None => load.asked(now),
                }
            }
            now += ms(1);
            for worker in &workers {
                prop_assert_eq!(worker.in_flight_of_all(now), lone.in_flight());
                let (silence, expected) = (worker.silence(now), lone.silence(now));
                prop_assert!(silence.abs_diff(expected) <= ms(1), "{:?}, not {:?}", silence, expected);
                let (errors, expected) = (worker.errors(now), lone.errors(now));
                prop_assert!((errors - expected).abs() < 1e-3, "{} errors, not {}", errors, expected);
                let (cost, expected) = (worker.cost(now), lone.cost(now));
                let tolerance = 0.01 * expected + 2e-3 * f64::from(lone.in_flight() + 1);
                prop_assert!((cost - expected).abs() < tolerance, "cost {}, not {}", cost, expected);
            }
        }
    }
}
