//! When a worker that has died is replaced: at once, and later if it dies again and again.
//!
//! ```text
//!   dies ──▶ replaced at once ── lives for MIN_LIFE ──▶ as if it had never died
//!                  ▲     └────── dies before ──▶ 10 ms, 20 ms, ... 100 ms later
//!                  └───────────────────────────────────────┘
//! ```
//!
//! It is never given up: what makes it panic may be one client's query, and all other clients that the kernel sends there would have no answer.

use std::time::{Duration, Instant};

/// The deaths of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Replacement {
    /// When it began to live, last.
    replaced: Option<Instant>,
    /// How often it has died young in a row.
    young: u32,
    /// When it is to be replaced.
    due: Option<Instant>,
}

impl Replacement {
    /// It has died.
    pub(super) fn on_death(&mut self, now: Instant) {
        let is_young = self.replaced.is_some_and(|replaced| now.saturating_duration_since(replaced) < MIN_LIFE);
        self.young = if is_young { self.young + 1 } else { 0 };
        self.due = Some(now + (STEP * self.young).min(MAX_DELAY));
    }

    /// It could not be replaced, for want of something that the system may have again.
    pub(super) fn on_failure(&mut self, now: Instant) {
        self.due = Some(now + MAX_DELAY);
    }

    /// It lives again.
    pub(super) fn on_replaced(&mut self, now: Instant) {
        (self.replaced, self.due) = (Some(now), None);
    }

    /// When it is to be replaced.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// Who has lived for so long dies of something new.
const MIN_LIFE: Duration = Duration::from_secs(1);

/// By how much longer each time is waited with one that dies young.
const STEP: Duration = Duration::from_millis(10);

/// The longest that is waited: its clients wait too.
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
