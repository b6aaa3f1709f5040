//! A moving average that believes bad news at once.
//!
//! A time longer than the estimate becomes the estimate; a shorter one only draws it down, the more the longer
//! ago the last one came. A plain average would go on sending queries to a backend that has just stalled.
//! Without news the estimate fades, so that one that was left is tried again some day.

use std::time::{Duration, Instant};

/// How long something takes, by its recent peaks.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    /// The estimate as of `updated`, in seconds.
    seconds: f64,
    /// When the estimate last changed.
    updated: Instant,
}

impl PeakEwma {
    /// Nothing is known yet, which costs nothing.
    pub fn new(now: Instant) -> Self {
        Self { seconds: 0.0, updated: now }
    }

    /// It took so long.
    pub fn observe(&mut self, took: Duration, now: Instant) {
        let (took, kept) = (took.as_secs_f64(), kept(self.updated, now));
        self.seconds = if took > self.seconds { took } else { self.seconds * kept + took * (1.0 - kept) };
        self.updated = now;
    }

    /// It took at least so long, how long is not known: the estimate may rise, but not fall.
    pub fn observe_at_least(&mut self, waited: Duration, now: Instant) {
        if waited.as_secs_f64() > self.cost(now) {
            self.observe(waited, now);
        }
    }

    /// The estimate, in seconds, faded by the time since it last changed.
    pub fn cost(&self, now: Instant) -> f64 {
        self.seconds * kept(self.updated, now)
    }
}

/// The part of an old value that counts after this time.
pub(super) fn kept(since: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(since).as_secs_f64() / FADING.as_secs_f64()).exp()
}

/// In this time what was known fades to 1/e. A backend that stalled for a second while others reply within a
/// millisecond is so left alone for about a minute, and then tried by one query.
const FADING: Duration = Duration::from_secs(10);
