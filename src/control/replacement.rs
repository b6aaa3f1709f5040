//! Schedules the replacement of a dead worker: at once, and later if it dies again and again.
//!
//! ```text
//!   dies ──▶ replaced at once ── lives for MIN_LIFE ──▶ as if it had never died
//!                  ▲     └────── dies before ──▶ 10 ms, 20 ms, ... 100 ms later
//!                  └───────────────────────────────────────┘
//! ```
//!
//! Replacement never stops: a query of one client may cause the panics, but all clients of this worker's
//! sockets need answers.

use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replacement {
    replaced: Option<Instant>,
    young: u32,
    due: Option<Instant>,
}

impl Replacement {
    pub(super) fn on_death(&mut self, now: Instant) {
        let is_young = self.replaced.is_some_and(|replaced| now.saturating_duration_since(replaced) < MIN_LIFE);
        self.young = if is_young { self.young + 1 } else { 0 };
        self.due = Some(now + (STEP * self.young).min(MAX_DELAY));
    }

    /// Schedules a retry, because the resource that was missing may be available again.
    pub(super) fn on_failure(&mut self, now: Instant) {
        self.due = Some(now + MAX_DELAY);
    }

    pub(super) fn on_replaced(&mut self, now: Instant) {
        (self.replaced, self.due) = (Some(now), None);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// A worker that lives longer than this dies for a new reason.
const MIN_LIFE: Duration = Duration::from_secs(1);

const STEP: Duration = Duration::from_millis(10);

/// The longest delay, short because clients wait.
const MAX_DELAY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dies_young_is_replaced_later_each_time() {
        let ms = Duration::from_millis;
        let (mut now, mut worker) = (Instant::now(), Replacement::default());
        assert_eq!(worker.due(), None);
        let expected = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100, 100];
        for delay in expected {
            worker.on_death(now);
            assert_eq!(worker.due(), Some(now + ms(delay)));
            now += ms(delay);
            worker.on_replaced(now);
            assert_eq!(worker.due(), None);
            now += ms(999);
        }
        now += ms(1);
        worker.on_death(now);
        assert_eq!(worker.due(), Some(now), "it has lived for a second");
        worker.on_failure(now);
        assert_eq!(worker.due(), Some(now + ms(100)), "no thread was to be had");
    }
}
