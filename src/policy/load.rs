//! What one backend has to do, and how it has done lately, as one worker sees it.
//!
//! The forwarder says [`asked`](Load::asked) and [`ended`](Load::ended) for each attempt; the policies of
//! `balance` read. Every attempt ends once: by a reply, however late, by an ICMP error, or when nobody waits for
//! it any more. Until then it counts as in flight, or a dead backend would look idle and fast.

use std::time::{Duration, Instant};

use super::peak::{PeakEwma, kept};
use super::slow_start;

/// The load of one backend.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Attempts out, those included that nobody waits for while their ID is quarantined.
    in_flight: u32,
    /// How many of its replies were failures.
    errors: Errors,
    /// How long it takes to reply.
    latency: PeakEwma,
    /// Attempts are out and nothing was heard since then.
    silent_since: Option<Instant>,
    /// When it came back after it was down; `None`: it was up from the start.
    returned: Option<Instant>,
}

impl Load {
    /// An idle backend of which nothing is known.
    pub fn new(now: Instant) -> Self {
        Self { in_flight: 0, errors: Errors::new(now), latency: PeakEwma::new(now), silent_since: None, returned: None }
    }

    /// What is known of the backend, for one who has asked it nothing.
    pub fn without_attempts(&self) -> Self {
        Self { in_flight: 0, silent_since: None, ..*self }
    }

    /// An attempt goes out.
    pub fn asked(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_add(1);
        self.silent_since.get_or_insert(now);
    }

    /// An attempt has ended.
    pub fn ended(&mut self, end: End, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let was_heard = match end {
            End::Reply(took) => {
                self.latency.observe(took, now);
                self.errors.observe(false, now);
                true
            }
            End::Failure(took) => {
                // How soon it fails does not tell how soon it would answer.
                self.latency.observe_at_least(took, now);
                self.errors.observe(true, now);
                true
            }
            End::Unreachable => {
                self.errors.observe(true, now);
                true
            }
            End::Silence(waited) => {
                self.latency.observe_at_least(waited, now);
                false
            }
        };
        if self.in_flight == 0 {
            self.silent_since = None;
        } else if was_heard {
            self.silent_since = Some(now);
        }
    }

    /// The backend came up after it was down: it starts slowly.
    pub fn came_back(&mut self, now: Instant) {
        self.returned = Some(now);
    }

    /// Attempts out.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many of its replies were failures lately.
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    /// The part of its normal load that it is given: less than 1 during the slow start.
    pub fn share(&self, now: Instant) -> f64 {
        self.returned.map_or(1.0, |returned| slow_start::share(now.saturating_duration_since(returned)))
    }

    /// What it is taken to cost to ask this backend one more time, in seconds: the wait for its reply, if it
    /// deals with one attempt after the other.
    pub fn cost(&self, now: Instant) -> f64 {
        // With attempts out it takes at least as long as it has been silent, whatever it used to take.
        let silence = self.silent_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let wait = self.latency.cost(now).max(silence).max(SHORTEST_WAIT) + self.errors.value(now) * ASKED_IN_VAIN;
        wait * (f64::from(self.in_flight) + 1.0)
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a reply that is no failure, after this time.
    Reply(Duration),
    /// With a reply that says failure, after this time.
    Failure(Duration),
    /// With an ICMP error.
    Unreachable,
    /// Nothing came in this time, and nobody waits any longer. No failure: some backends are silent on a miss.
    Silence(Duration),
}

/// The part of recent replies that were failures. Each counts for an eighth, and time mends all.
#[derive(Clone, Copy, Debug)]
pub struct Errors {
    /// The part as of `updated`.
    part: f64,
    /// When the last reply came.
    updated: Instant,
}

impl Errors {
    /// No errors yet.
    pub fn new(now: Instant) -> Self {
        Self { part: 0.0, updated: now }
    }

    /// There was another reply.
    pub fn observe(&mut self, is_error: bool, now: Instant) {
        let part = self.value(now);
        self.part = part + (f64::from(u8::from(is_error)) - part) * ONE_REPLY;
        self.updated = now;
    }

    /// The part of recent replies that were failures, from 0 to 1.
    pub fn value(&self, now: Instant) -> f64 {
        self.part * kept(self.updated, now)
    }

    /// The same in whole steps, each worth one failure. A trace of a failure long past makes no difference.
    pub fn level(&self, now: Instant) -> u8 {
        (self.value(now) / ONE_REPLY).round() as u8
    }
}

/// How much one reply counts.
const ONE_REPLY: f64 = 1.0 / 8.0;
/// Seconds that a backend is taken to need at least, so that attempts in flight count even if it was never timed.
const SHORTEST_WAIT: f64 = 1e-6;
/// Seconds that are charged to one that only fails, in proportion to one that sometimes does. It is often the
/// quickest of all, and the time that it costs is that of being asked in vain.
const ASKED_IN_VAIN: f64 = 0.1;
