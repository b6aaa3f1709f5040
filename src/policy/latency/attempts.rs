//! The latency and the load of a backend, recorded from the attempts that a worker makes.

use std::time::Instant;

use super::Latency;
use crate::policy::backend_load::{BackendLoad, End};

/// The race of an attempt is over, or nobody waits for its reply any more, which has not come. Returns whether the
/// latency was charged with that, so that it can be corrected.
///
/// Of a backend that was not heard since, nothing is said: it may be down. Charged with its silence, it would come back with
/// a delay that is not its own.
pub fn charge(load: &BackendLoad, latency: &mut Latency, asked: Instant) -> bool {
    let is_late = load.was_heard_since(asked);
    if is_late {
        latency.give_up();
    }
    is_late
}

/// An attempt has ended, perhaps long after its race. `is_charged`: what [`charge`] has returned, if it was called.
pub fn ended(load: &mut BackendLoad, latency: &mut Latency, end: End, is_charged: bool, now: Instant) {
    if let End::Silence(waited) = end
        && !is_charged
        && let Some(asked) = now.checked_sub(waited)
    {
        charge(load, latency, asked);
    }
    load.ended(end, now);
    match end {
        End::Reply(took) | End::Failure(took) if is_charged => latency.correct(took, now),
        End::Reply(took) | End::Failure(took) => latency.record(took, now),
        End::Unreachable | End::Unsent | End::Void if is_charged => latency.forgive(),
        End::Unreachable | End::Unsent | End::Void | End::Silence(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A backend that replied 100 times within a millisecond; then so many attempts are given up, and end like this.
    /// Returns its p95 in ms.
    fn p95_after(given_up: u32, is_heard: bool, end: Option<End>) -> u128 {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let (mut load, mut latency) = (BackendLoad::new(start), Latency::new(start));
        for reply in 1..=100 {
            load.asked(start);
            ended(&mut load, &mut latency, End::Reply(Duration::from_micros(reply * 100)), false, start);
        }
        let now = start + ms(100);
        (0..given_up).for_each(|_| load.asked(start));
        if is_heard {
            load.asked(start);
            ended(&mut load, &mut latency, End::Reply(ms(1)), false, start + ms(1));
        }
        for _ in 0..given_up {
            let is_charged = charge(&load, &mut latency, start);
            assert_eq!(is_charged, is_heard);
            if let Some(end) = end {
                ended(&mut load, &mut latency, end, is_charged, now);
            }
        }
        latency.record(ms(1), now);
        latency.quantile(0.95).expect("there are samples enough").as_micros() / 100
    }

    #[test]
    fn what_is_given_up_is_late_unless_it_is_taken_back() {
        let usual = p95_after(0, true, None);
        assert!(p95_after(3, true, None) > usual);
        assert_eq!(p95_after(3, false, None), usual, "the backend may be down");
        assert_eq!(p95_after(3, true, Some(End::Unreachable)), usual, "it was down");
        assert_eq!(p95_after(3, true, Some(End::Unsent)), usual, "it was not asked");
        assert_eq!(p95_after(3, true, Some(End::Void)), usual, "nobody knows");
        let corrected = p95_after(3, true, Some(End::Reply(Duration::from_millis(1))));
        assert!(corrected <= usual, "they were quick after all");
    }
}
