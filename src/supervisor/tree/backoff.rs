//! The time that an empty place waits until another process starts.

use std::time::{Duration, Instant};

use super::words::Rules;

/// How long the next start waits.
#[derive(Debug)]
pub(super) struct Backoff {
    delay: Duration,
    /// While a process serves, or will.
    not_before: Instant,
    /// While none does.
    not_before_unserved: Instant,
    /// True if a death has lengthened the delay since the last start: further deaths belong to the same event.
    is_counted: bool,
}

impl Backoff {
    pub(super) fn new(now: Instant) -> Self {
        Self { delay: Duration::ZERO, not_before: now, not_before_unserved: now, is_counted: false }
    }

    /// A young process has died. One that never loaded may have died of what it was started with.
    pub(super) fn on_young_death(&mut self, has_loaded: bool, now: Instant) {
        if has_loaded {
            self.not_before = self.not_before.max(now + MIN_DELAY);
            return;
        }
        self.not_before_unserved = now + MIN_DELAY;
        if !std::mem::replace(&mut self.is_counted, true) {
            self.delay = (self.delay * 2).clamp(MIN_DELAY, MAX_DELAY);
            self.not_before = self.not_before.max(now + self.delay);
        }
    }

    /// A process has loaded, so that the next one can.
    pub(super) fn on_load(&mut self) {
        self.delay = Duration::ZERO;
    }

    /// A process starts.
    pub(super) fn on_start(&mut self) {
        self.is_counted = false;
    }

    /// When the next process may start.
    pub(super) fn not_before(&self, is_served: bool) -> Instant {
        if is_served { self.not_before } else { self.not_before.min(self.not_before_unserved) }
    }
}

impl Rules {
    /// How often all processes are asked whether they make progress.
    pub(super) fn ping(&self) -> Duration {
        self.watchdog.map_or(PING, |watchdog| (watchdog / 4).min(PING))
    }
}

/// A process that dies before it is so old may die of what it was started with; the next one waits.
pub(super) const YOUNG: Duration = Duration::from_secs(1);

/// How long the place of one that died young stays empty, the first time and at most.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// How often all are asked whether they make progress, at least.
const PING: Duration = Duration::from_secs(1);
