//! Peak EWMA: a moving average that follows bad news at once.
//!
//! A time longer than the estimate becomes the estimate; a shorter one lowers it, by more the older the last
//! sample is. Without samples the estimate fades, so that an avoided backend is tried again.

use std::time::{Duration, Instant};

/// An estimate of a duration by its recent peaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeakEwma {
    pub(crate) seconds: f64,
    pub(crate) updated: Instant,
}

impl PeakEwma {
    /// Creates an estimate of zero.
    pub(crate) fn new(now: Instant) -> Self {
        Self { seconds: 0.0, updated: now }
    }

    /// Creates an estimate of so many seconds.
    pub(crate) fn known(seconds: f64, now: Instant) -> Self {
        Self { seconds: seconds.max(0.0), updated: now }
    }

    pub(crate) fn observe(&mut self, took: Duration, now: Instant) {
        let (took, kept) = (took.as_secs_f64(), kept(self.updated, now));
        self.seconds = if took > self.seconds { took } else { self.seconds * kept + took * (1.0 - kept) };
        self.updated = now;
    }

    /// Adds a lower bound of a sample: the estimate may rise, but not fall.
    pub(crate) fn observe_at_least(&mut self, waited: Duration, now: Instant) {
        if waited.as_secs_f64() > self.cost(now) {
            self.observe(waited, now);
        }
    }

    /// Returns the estimate in seconds, faded by the time since its last change.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        self.seconds * kept(self.updated, now)
    }
}

pub(super) fn kept(since: Instant, now: Instant) -> f64 {
    let times = now.saturating_duration_since(since).as_secs_f64() / FADING.as_secs_f64();
    // Under load `times` is small, and the first terms of the series are exact to 2e-10.
    if times < MOMENT { 1.0 - times + times * times / 2.0 } else { (-times).exp() }
}

const MOMENT: f64 = 1e-3;

/// The time in which the estimate fades to 1/e. A backend that stalled for a second while others reply within
/// a millisecond is avoided for about a minute, and then tried with one request.
const FADING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Observes the times, each so long after the previous one, and compares the final cost in milliseconds.
    fn check(steps: &[(u64, u64)], rest: u64, expected: f64) {
        let mut now = Instant::now();
        let mut peak = PeakEwma::new(now);
        for &(wait, took) in steps {
            now += ms(wait);
            peak.observe(ms(took), now);
        }
        let cost = peak.cost(now + ms(rest)) * 1e3;
        assert!((cost - expected).abs() < 0.01, "{steps:?}, then {rest} ms: {cost} ms");
    }

    #[test]
    fn rises_at_once_and_falls_with_time() {
        let once = (-1.0_f64).exp();
        check(&[], 0, 0.0);
        check(&[(0, 10)], 0, 10.0);
        check(&[(0, 10), (1, 500)], 0, 500.0);
        // Ten seconds are one time constant, with a sample and without.
        check(&[(0, 500), (10_000, 10)], 0, 500.0 * once + 10.0 * (1.0 - once));
        check(&[(0, 500)], 10_000, 500.0 * once);
        // Many short times within a moment do not hide a long one.
        check(&[(0, 500), (0, 1), (0, 1), (0, 1)], 0, 500.0);
    }

    #[test]
    fn a_lower_limit_never_lowers() {
        let now = Instant::now();
        let mut peak = PeakEwma::new(now);
        peak.observe(ms(100), now);
        peak.observe_at_least(ms(50), now + ms(100));
        assert_eq!(peak.cost(now), 0.1);
        peak.observe_at_least(ms(200), now + ms(100));
        assert_eq!(peak.cost(now + ms(100)), 0.2);
    }

    #[test]
    fn a_moment_fades_as_any_other_time() {
        let start = Instant::now();
        for micros in [0, 1, 1_000, 9_999, 10_000, 10_001, 1_000_000] {
            let exact = (-(micros as f64) / 1e7).exp();
            let found = kept(start, start + Duration::from_micros(micros));
            assert!((found - exact).abs() < 2e-10, "{micros} us: {found}, not {exact}");
        }
    }

    proptest! {
        #[test]
        fn stays_between_nothing_and_the_longest(steps in prop::collection::vec((0..20_000_u64, 0..5_000_u64), 1..50)) {
            let (mut now, mut longest) = (Instant::now(), ms(0));
            let mut peak = PeakEwma::new(now);
            for (wait, took) in steps {
                now += ms(wait);
                longest = longest.max(ms(took));
                peak.observe(ms(took), now);
                prop_assert!((0.0..=longest.as_secs_f64() + 1e-9).contains(&peak.cost(now)), "{:?}", peak);
            }
        }
    }
}
