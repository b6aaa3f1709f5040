//! The back-off after failed dials to a backend: 100 ms, doubled with each failure, up to a bound.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::backoff::Backoff;

/// The time before which a backend must not be dialled again.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionBackoff {
    waits: Backoff,
    until: Option<Instant>,
}

impl ConnectionBackoff {
    /// Returns a back-off that allows a dial at once.
    pub fn new() -> Self {
        Self { waits: Backoff::new(FIRST), until: None }
    }

    /// Notes a failed dial. The wait is random by a quarter, so that workers do not dial all at once.
    pub fn failed(&mut self, max: Duration, now: Instant, rng: &mut StdRng) {
        self.until = Some(now + self.waits.wait(max).mul_f64(rng.random_range(0.75..1.25)));
    }

    /// Resets the back-off, because a connection was useful.
    pub fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// Returns the time of the next permitted dial, if it is in the future.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

impl Default for ConnectionBackoff {
    fn default() -> Self {
        Self::new()
    }
}

const FIRST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let (mut now, max) = (Instant::now(), Duration::from_secs(1));
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = ConnectionBackoff::new();
        assert_eq!(backoff.until(now), None);
        for expected in [100, 200, 400, 800, 1_000, 1_000] {
            backoff.failed(max, now, &mut rng);
            let wait = backoff.until(now).unwrap() - now;
            let expected = Duration::from_millis(expected);
            assert!(expected.mul_f64(0.75) <= wait && wait <= expected.mul_f64(1.25), "{wait:?}, not {expected:?}");
            now += wait;
            assert_eq!(backoff.until(now), None);
        }
        backoff.succeeded();
        backoff.failed(max, now, &mut rng);
        assert!(backoff.until(now).unwrap() <= now + Duration::from_millis(125));
    }
}
