//! What [`Dispatch::Auto`](crate::Dispatch::Auto) reads of a backend's attempts.

use std::time::{Duration, Instant};

/// A sample of the attempts, and the latest reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoadWatch {
    sample: Option<LoadSample>,
    latest: Option<LatestReply>,
}

/// An attempt with the number of others that were in flight when it was made.
#[derive(Clone, Copy, Debug)]
struct LoadSample {
    asked: Instant,
    ahead: u32,
}

/// The latest attempt that has a reply, and the latency of the latest reply.
#[derive(Clone, Copy, Debug)]
struct LatestReply {
    asked: Instant,
    at: Instant,
    took: Duration,
}

impl LoadWatch {
    /// Counts a new attempt, with so many others in flight.
    pub(super) fn asked(&mut self, ahead: u32, now: Instant) {
        if self.sample.is_none_or(|sample| now.saturating_duration_since(sample.asked) >= SAMPLED_FOR) {
            self.sample = Some(LoadSample { asked: now, ahead });
        }
    }

    /// Counts a reply. Returns the number of others that were in flight when its attempt was made, if that is
    /// the present sample.
    pub(super) fn replied(&mut self, took: Duration, now: Instant) -> Option<u32> {
        let asked = now.checked_sub(took)?;
        let latest = self.latest.map_or(asked, |latest| latest.asked.max(asked));
        self.latest = Some(LatestReply { asked: latest, at: now, took });
        self.sample.take_if(|sample| sample.is_of(asked)).map(|sample| sample.ahead)
    }

    /// Returns true if an attempt after this time has a reply.
    pub(super) fn has_answered_since(&self, time: Instant) -> bool {
        self.latest.is_some_and(|latest| latest.asked > time)
    }

    /// Returns the latency of the latest reply, if it is at most a second old.
    pub(super) fn latest_latency(&self, now: Instant) -> Option<Duration> {
        let is_recent = |latest: &LatestReply| now.saturating_duration_since(latest.at) <= Duration::from_secs(1);
        self.latest.filter(is_recent).map(|latest| latest.took)
    }
}

impl LoadSample {
    /// Returns true if this is the attempt of this time, which a race knows in whole microseconds.
    fn is_of(self, asked: Instant) -> bool {
        asked.saturating_duration_since(self.asked) + self.asked.saturating_duration_since(asked) < NEAR
    }
}

const NEAR: Duration = Duration::from_micros(2);

/// The time after which a sample without a reply is replaced.
const SAMPLED_FOR: Duration = Duration::from_secs(1);
