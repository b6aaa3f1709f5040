//! The health of one backend: up or down.
//!
//! Silence is ambiguous (a backend may be silent on a miss), and an off-path attacker can forge ICMP. So both
//! only trigger a probe. Any reply proves that the backend is up; with `expect = "no-failure"` a failure
//! reply is a missed probe. An authority always refuses `. NS`, so REFUSED to that question counts only
//! against a backend that has answered it before.
//!
//! A probe is one question in up to eight datagrams. With 20 % loss either way, single exchanges would take a
//! healthy backend down 90 times an hour (`fall = 2`); with eight datagrams that happens once in two years.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::rules::{Expect, HealthRules};
use crate::backoff::Backoff;

/// The health of one backend.
///
/// ```text
///        two probes in a row unreachable (ICMP), one refused (by stream), or `fall` failed in a row
///            ┌────────────────────────────────────────────────────┐
///            │                                                    ▼
///         ┌──┴───┐                                             ┌──────┐
///    ────▶│  up  │ probes every `interval`, and on suspicion   │ down │ probes after 250 ms, 500 ms, ...
///         └──────┘                                             └──┬───┘ at last every `interval`
///            ▲ ▲                                                  │
///            │ └──────────────────────────────────────────────────┘
///            │   `rise` probes replied to in a row, or any reply to a request
///         ┌──┴───┐
///    ────▶│ new  │ probes as if down, but one that is replied to is enough
///         └──────┘
/// ```
#[derive(Clone, Debug)]
pub struct Health {
    rules: HealthRules,
    state: HealthState,
    against: u8,
    unreachable: u8,
    probe: Option<OpenProbe>,
    last_probe: Option<Instant>,
    next_probe: Instant,
    backoff: Backoff,
    has_answered: bool,
}

/// The kind of a reply to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeReply {
    /// No failure.
    Answer,
    /// REFUSED to the default probe, the normal reply of an authority.
    Unserved,
    /// Any other failure.
    Failure,
}

/// The state of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// Added at run time and not probed successfully yet. It gets no requests.
    New,
    /// It gets requests.
    Up,
    /// It gets no requests while another backend is up.
    Down,
}

/// The next action of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStep {
    /// Start a probe with a new ID and a new port. Replies to earlier probes no longer count.
    Probe,
    /// Send the open probe's question once more. A reply to any of its datagrams counts.
    Repeat,
    /// Wait until this time or the next event.
    WaitUntil(Instant),
}

#[derive(Clone, Copy, Debug)]
struct OpenProbe {
    sent: u8,
    /// Counted from the last datagram, so that a pause of this process takes no chance from a backend.
    due: Instant,
}

impl Health {
    /// Creates the health of a backend in this state, with the first probe due at once.
    pub fn new(rules: HealthRules, state: HealthState, now: Instant) -> Self {
        Self {
            rules,
            state,
            against: 0,
            unreachable: 0,
            probe: None,
            last_probe: None,
            next_probe: now,
            backoff: Backoff::new(FIRST_BACKOFF),
            has_answered: false,
        }
    }

    /// Returns true if the backend is up.
    pub fn is_up(&self) -> bool {
        self.state == HealthState::Up
    }

    /// Returns true if a probe is open.
    pub fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Returns the next action, which the caller must carry out. It may change the state.
    pub fn poll(&mut self, now: Instant, rng: &mut impl Rng) -> HealthStep {
        if let Some(probe) = &mut self.probe {
            if now < probe.due {
                return HealthStep::WaitUntil(probe.due);
            }
            if probe.sent < SENDS {
                probe.sent += 1;
                probe.due = now + self.rules.timeout / u32::from(SENDS);
                return HealthStep::Repeat;
            }
            self.probe = None;
            self.on_probe_missed(now);
        }
        if now < self.next_probe {
            return HealthStep::WaitUntil(self.next_probe);
        }
        let wait = match self.state {
            HealthState::Up => self.rules.interval,
            HealthState::New | HealthState::Down => self.backoff.wait(self.rules.interval),
        };
        self.next_probe = now + wait.mul_f64(rng.random_range(1.0 - JITTER..=1.0));
        self.last_probe = Some(now);
        self.probe = Some(OpenProbe { sent: 1, due: now + self.rules.timeout / u32::from(SENDS) });
        HealthStep::Probe
    }

    /// Records a reply of this kind to the open probe. Returns true if it is good.
    pub fn on_probe_reply_of(&mut self, kind: ProbeReply, now: Instant) -> bool {
        let is_good = match (self.rules.expect, kind) {
            (Expect::Reply, _) | (Expect::NoFailure | Expect::Match, ProbeReply::Answer) => true,
            (Expect::NoFailure, ProbeReply::Unserved) => !self.has_answered,
            (Expect::NoFailure, ProbeReply::Failure) | (Expect::Match, ProbeReply::Unserved | ProbeReply::Failure) => {
                false
            }
        };
        self.has_answered |= kind == ProbeReply::Answer;
        if is_good {
            self.on_probe_reply(now);
        } else if self.probe.take().is_some() {
            self.on_probe_missed(now);
            // A failure reply comes within a round trip, so probes are spaced.
            self.next_probe = self.next_probe.max(now + FIRST_BACKOFF.min(self.rules.interval));
        }
        is_good
    }

    /// Records a good reply to the open probe.
    pub fn on_probe_reply(&mut self, now: Instant) {
        let was_out = self.probe.take().is_some();
        match self.state {
            HealthState::Up => {
                self.against = 0;
                self.unreachable = 0;
            }
            HealthState::New => self.turn(HealthState::Up, now),
            HealthState::Down if was_out => {
                self.against = self.against.saturating_add(1);
                if self.against >= self.rules.rise {
                    return self.turn(HealthState::Up, now);
                }
                self.backoff.reset();
                self.next_probe = self.next_probe.min(now + FIRST_BACKOFF.min(self.rules.interval));
            }
            HealthState::Down => {}
        }
    }

    /// Records that the open probe could not be sent, which does not count against the backend.
    pub fn on_probe_not_made(&mut self) {
        self.probe = None;
    }

    /// Records an ICMP error for the open probe.
    pub fn on_probe_unreachable(&mut self, now: Instant) {
        if self.probe.take().is_none() {
            return;
        }
        match self.state {
            HealthState::Up => {
                self.unreachable += 1;
                self.against = self.against.saturating_add(1);
                // One ICMP error is never enough, even if one missed probe is.
                if self.unreachable >= UNREACHABLE || self.against >= self.rules.fall.max(UNREACHABLE) {
                    return self.turn(HealthState::Down, now);
                }
                self.next_probe = now;
            }
            HealthState::New | HealthState::Down => self.against = 0,
        }
    }

    /// Records a refused connection, or a handshake that failed because another server replied. A single
    /// forged datagram cannot end a handshake, so a backend by stream is down at once.
    pub fn on_probe_refused(&mut self, now: Instant) {
        if self.probe.take().is_none() {
            return;
        }
        match self.state {
            HealthState::Up => self.turn(HealthState::Down, now),
            HealthState::New | HealthState::Down => self.against = 0,
        }
    }

    /// Records an ICMP error for a request, which may be forged: it only triggers a probe.
    pub fn on_unreachable(&mut self, now: Instant) {
        self.suspect(REST_AFTER_PROBE, now);
    }

    /// Records a reply of any kind to a request: the backend is up at once.
    pub fn on_reply(&mut self, now: Instant) {
        match self.state {
            HealthState::Up => {
                self.against = 0;
                self.unreachable = 0;
                self.probe = None;
            }
            HealthState::New | HealthState::Down => self.turn(HealthState::Up, now),
        }
    }

    /// Records a timed out attempt, which triggers a probe at a limited rate.
    pub fn on_silence(&mut self, now: Instant) {
        self.suspect(self.rules.timeout, now);
    }

    fn suspect(&mut self, rest: Duration, now: Instant) {
        match self.state {
            HealthState::Up => {
                let earliest = self.last_probe.map_or(now, |last| now.max(last + rest));
                self.next_probe = self.next_probe.min(earliest);
            }
            HealthState::New | HealthState::Down => {}
        }
    }

    /// Schedules a probe because the pool has sent `every_queries` requests.
    pub fn on_queries(&mut self, now: Instant) {
        self.next_probe = self.next_probe.min(now);
    }

    fn on_probe_missed(&mut self, now: Instant) {
        match self.state {
            HealthState::Up => {
                self.unreachable = 0;
                self.against = self.against.saturating_add(1);
                if self.against >= self.rules.fall {
                    return self.turn(HealthState::Down, now);
                }
                self.next_probe = now;
            }
            HealthState::New | HealthState::Down => self.against = 0,
        }
    }

    fn turn(&mut self, state: HealthState, now: Instant) {
        self.state = state;
        self.against = 0;
        self.unreachable = 0;
        self.backoff.reset();
        let wait = match state {
            HealthState::Up => self.rules.interval,
            HealthState::New | HealthState::Down => self.backoff.wait(self.rules.interval),
        };
        self.next_probe = self.next_probe.min(now + wait);
    }
}

/// The number of datagrams of one probe, against loss (see the module head).
const SENDS: u8 = 8;
/// Consecutive unreachable probes that take a backend down. The second probe comes from another port, so an
/// attacker that forged the first ICMP error has to guess the next port within one round trip.
const UNREACHABLE: u8 = 2;
/// The minimum interval of probes caused by ICMP, however many errors are forged.
const REST_AFTER_PROBE: Duration = Duration::from_millis(50);
/// The first probe interval of a backend that is down: restarts often take less than a second.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests;
