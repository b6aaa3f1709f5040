//! Back-off: how long to wait before the next try, longer after each failure, with jitter so that not all who lost the same server
//! come back at once.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The waits between tries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    /// Failures in a row.
    failures: u32,
}

impl Backoff {
    /// The first wait.
    pub const MIN: Duration = Duration::from_millis(100);

    /// The longest wait. Who was away for long is found to be back within that.
    pub const MAX: Duration = Duration::from_secs(10);

    /// Something went well: the next failure is the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure: between a half and the whole of twice the time before.
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
        let mut backoff = Backoff::default();
        for millis in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let wait = backoff.next(&mut rng);
            let whole = Duration::from_millis(millis);
            assert!((whole / 2..=whole).contains(&wait), "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Backoff::MIN);
    }
}
