//! Back-off with jitter, so that clients of a lost server do not all come back at once.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The waits between tries.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceBackoff {
    failures: u32,
}

impl SourceBackoff {
    /// The first wait.
    pub const MIN: Duration = Duration::from_millis(100);

    /// The longest wait. A recovered server is found within that time.
    pub const MAX: Duration = Duration::from_secs(10);

    /// Resets the wait after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns the wait after one more failure: between a half and the whole of twice the previous one.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let whole = Self::MIN.saturating_mul(1 << self.failures.min(16)).min(Self::MAX);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = SourceBackoff::default();
        for millis in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let wait = backoff.next(&mut rng);
            let whole = Duration::from_millis(millis);
            assert!((whole / 2..=whole).contains(&wait), "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= SourceBackoff::MIN);
    }
}
