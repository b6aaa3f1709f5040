//! The delay before an empty place gets a new process.

use std::time::{Duration, Instant};

use hedge::backoff::Backoff;

use super::words::TreeRules;

#[derive(Debug)]
pub(super) struct RestartBackoff {
    delay: Backoff,
    not_before: Instant,
    not_before_unserved: Instant,
    /// True if a death has lengthened the delay since the last start, because further deaths are the same
    /// event.
    is_counted: bool,
}

impl RestartBackoff {
    pub(super) fn new(now: Instant) -> Self {
        Self { delay: Backoff::new(MIN_DELAY), not_before: now, not_before_unserved: now, is_counted: false }
    }

    /// A process that never loaded may have died of its start data.
    pub(super) fn on_young_death(&mut self, has_loaded: bool, now: Instant) {
        if has_loaded {
            self.not_before = self.not_before.max(now + MIN_DELAY);
            return;
        }
        self.not_before_unserved = now + MIN_DELAY;
        if !std::mem::replace(&mut self.is_counted, true) {
            self.not_before = self.not_before.max(now + self.delay.wait(MAX_DELAY));
        }
    }

    pub(super) fn on_load(&mut self) {
        self.delay.reset();
    }

    pub(super) fn on_start(&mut self) {
        self.is_counted = false;
    }

    pub(super) fn not_before(&self, is_served: bool) -> Instant {
        if is_served { self.not_before } else { self.not_before.min(self.not_before_unserved) }
    }
}

impl TreeRules {
    pub(super) fn ping(&self) -> Duration {
        self.watchdog.map_or(PING, |watchdog| (watchdog / 4).min(PING))
    }
}

/// A process that dies before this age may have died of its start data, so the next one waits.
pub(super) const YOUNG: Duration = Duration::from_secs(1);

const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

const PING: Duration = Duration::from_secs(1);
