//! Back-off: waits that double with each failure, up to a bound. Pure: callers add randomness and the clock.

use std::time::Duration;

/// The waits between tries.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates a back-off with this first wait.
    pub const fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// Returns the wait after one more failure: twice the previous one, at most `max`.
    pub fn wait(&mut self, max: Duration) -> Duration {
        let wait = self.next.min(max);
        self.next = wait.saturating_mul(2);
        wait
    }

    /// Starts again with the first wait, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100));
        let mut waits = |max| backoff.wait(Duration::from_millis(max)).as_millis();
        for (max, expected) in [(1_000, 100), (1_000, 200), (1_000, 400), (500, 500), (1_000, 1_000), (1_000, 1_000)] {
            assert_eq!(waits(max), expected);
        }
        backoff.reset();
        assert_eq!(backoff.wait(Duration::MAX), Duration::from_millis(100));
    }
}
