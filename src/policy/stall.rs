//! Backends that have fallen silent are asked last: between the moment at which one dies without a word and the moment at
//! which probes know, as few queries as possible should wait for it.

use std::time::{Duration, Instant};

use super::candidates::{BackendIndex, Candidates};
use super::latency::Latency;
use super::load::Load;

/// The same candidates, those that have fallen silent at the end. `loads` and `latency` by [`BackendIndex`]; `longest` is
/// the pool's `attempt_timeout`.
pub fn stalled_last(
    candidates: &Candidates,
    loads: &[Load],
    latency: &[Latency],
    longest: Duration,
    now: Instant,
) -> Candidates {
    let is_stalled = |backend: &BackendIndex| {
        let load = loads.get(backend.get());
        load.is_some_and(|load| load.is_stalled(patience(latency.get(backend.get()), longest), now))
    };
    if candidates.all_down() || !candidates.iter().any(|backend| is_stalled(&backend)) {
        return *candidates;
    }
    let (stalled, others) = (candidates.iter().filter(is_stalled), candidates.iter());
    Candidates::of(others.filter(|backend| !is_stalled(backend)).chain(stalled), false)
}

/// How long a backend with many attempts out may be silent before others are asked first.
fn patience(latency: Option<&Latency>, longest: Duration) -> Duration {
    let p99 = latency.and_then(|latency| latency.quantile(0.99));
    p99.map_or(longest, |p99| (3 * p99).max(SHORTEST_PATIENCE).min(longest))
}

/// The least silence that is taken for a stall: a backend that pauses for less costs less than it would to avoid it.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a backend may be silent here.
    const LONGEST: Duration = Duration::from_secs(1);

    /// The order of three backends of which these are silent, after so long.
    fn check(silent: &[usize], all_down: bool, waited: Duration, expected: [u16; 3]) {
        let now = Instant::now();
        let mut loads = [Load::new(now); 3];
        for &backend in silent {
            (0..8).for_each(|_| loads[backend].asked(now));
        }
        let candidates = Candidates::of([0, 1, 2].map(BackendIndex), all_down);
        let latency = [Latency::new(now), Latency::new(now), Latency::new(now)];
        let found = stalled_last(&candidates, &loads, &latency, LONGEST, now + waited);
        assert_eq!(found.as_slice(), expected.map(BackendIndex), "{silent:?}");
        assert_eq!(found.all_down(), all_down);
    }

    #[test]
    fn the_silent_come_last_in_their_order() {
        check(&[], false, LONGEST, [0, 1, 2]);
        check(&[0], false, LONGEST, [1, 2, 0]);
        check(&[0, 1], false, LONGEST, [2, 0, 1]);
        check(&[0, 1, 2], false, LONGEST, [0, 1, 2]);
    }

    #[test]
    fn a_short_silence_is_none() {
        check(&[0], false, LONGEST / 2, [0, 1, 2]);
    }

    #[test]
    fn where_all_are_down_all_are_asked_anyway() {
        check(&[0], true, LONGEST, [0, 1, 2]);
    }

    #[test]
    fn patience_follows_the_latency_within_bounds() {
        let now = Instant::now();
        for (usual, expected) in [(1, 10), (10, 30), (900, 1_000)] {
            let mut latency = Latency::new(now);
            (0..100).for_each(|_| latency.record(Duration::from_millis(usual), now));
            let found = patience(Some(&latency), LONGEST).as_millis();
            assert!(found.abs_diff(expected) * 20 <= expected, "{usual} ms: {found} ms");
        }
        assert_eq!(patience(None, LONGEST), LONGEST);
    }
}
