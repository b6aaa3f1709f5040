//! Whether one backend is up.
//!
//! Silence is ambiguous (a backend may be silent on a miss), and ICMP to a query can be forged by whoever guesses a port.
//! So both only raise suspicion and ask for a probe at once; probes decide. A probe that is unreachable is followed by
//! another at once, from another port, and two in a row take the backend down. Any reply is proof of life.
//!
//! With `expect = "no-failure"` a reply that is a failure is a missed probe instead, since a resolver whose uplink is gone still
//! replies. An authority refuses `. NS` for as long as it lives, so REFUSED to that question counts only against a backend that
//! has answered it before.
//!
//! Whoever drives this says what was met, and then takes [`Health::next_step`] until that says wait. Afterwards it looks
//! at [`Health::is_up`].
//!
//! A probe is one question, but not one datagram: for as long as nothing comes it is sent again, eight times in all,
//! spread evenly over the probe's `timeout`. If each datagram has a chance of 20 % to be lost either way, 36 % of single
//! exchanges fail, and two failed ones in a row would take a sound backend down 90 times an hour. Of probes one in 3,500
//! fails, and two in a row once in two years. A dead backend is noticed as soon as ever.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::rules::{Expect, HealthRules};

/// The health of one backend.
///
/// ```text
///        two probes in a row unreachable (ICMP), one refused (by stream), or `fall` failed in a row
///            ┌────────────────────────────────────────────────────┐
///            │                                                    ▼
///         ┌──┴───┐                                             ┌──────┐
///    ────▶│  up  │ probes every `interval`, and on suspicion   │ down │ probes 250 ms, 500 ms, 1 s ... after each
///         └──────┘                                             └──┬───┘ other, at last every `interval`
///            ▲ ▲                                                  │
///            │ └──────────────────────────────────────────────────┘
///            │   `rise` probes replied to in a row, or any reply to a query
///         ┌──┴───┐
///    ────▶│ new  │ probes as if down, but one that is replied to is enough
///         └──────┘
/// ```
#[derive(Clone, Debug)]
pub struct Health {
    /// The rules of the pool.
    rules: HealthRules,
    /// What the backend is taken for.
    state: HealthState,
    since: Instant,
    /// Probes in a row that spoke against the present state.
    against: u8,
    /// While up: probes in a row, the last ones, that were unreachable.
    unreachable: u8,
    /// The probe that is out.
    probe: Option<Probe>,
    /// When the last probe began.
    last_probe: Option<Instant>,
    /// When the next probe is due, once the one that is out has ended.
    next_probe: Instant,
    /// While not up: how long after the next probe the one after it is due.
    backoff: Duration,
    /// A probe had a reply that is no failure.
    has_answered: bool,
}

/// The kind of a reply to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeReply {
    /// No failure.
    Answer,
    /// REFUSED to the default probe, which authorities give for as long as they live.
    Unserved,
    /// Any other failure.
    Failure,
}

/// What a backend is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthState {
    /// It was added while we run, and nothing was heard of it yet. It is not asked.
    New,
    /// It is asked.
    Up,
    /// It is not asked while another is up.
    Down,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin a probe, with an ID and a port of its own. Replies to earlier ones no longer count.
    Probe,
    /// Send the question of the probe that is out once more. A reply to any of its datagrams will do.
    Repeat,
    /// Nothing before this time, unless something is met.
    WaitUntil(Instant),
}

/// A probe that is out.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// How often its question was sent.
    sent: u8,
    /// When it is to be sent again, or else has failed. Counted from when it was last sent: if this process was
    /// stopped for a while, the backend still gets all its chances.
    due: Instant,
}

impl Health {
    /// A backend that is up until shown otherwise, with the first probe due at once.
    pub fn new(rules: HealthRules, now: Instant) -> Self {
        Self::with_state(rules, HealthState::Up, now)
    }

    /// A backend that is not asked before its first good probe, which is due at once.
    pub fn new_unproven(rules: HealthRules, now: Instant) -> Self {
        Self::with_state(rules, HealthState::New, now)
    }

    /// A backend that was found down before, with the next probe due at once.
    pub fn new_down(rules: HealthRules, now: Instant) -> Self {
        Self::with_state(rules, HealthState::Down, now)
    }

    /// A backend in this state.
    fn with_state(rules: HealthRules, state: HealthState, now: Instant) -> Self {
        Self {
            rules,
            state,
            since: now,
            against: 0,
            unreachable: 0,
            probe: None,
            last_probe: None,
            next_probe: now,
            backoff: FIRST_BACKOFF,
            has_answered: false,
        }
    }

    /// Whether the backend is up.
    pub fn is_up(&self) -> bool {
        self.state == HealthState::Up
    }

    /// What the backend is taken for.
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// Since when it has been in this state.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether a probe is out.
    pub fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// What to do now. Each step is to be taken; it may be that one changes the state. Probing never stops.
    pub fn next_step(&mut self, now: Instant, rng: &mut impl Rng) -> Step {
        if let Some(probe) = &mut self.probe {
            if now < probe.due {
                return Step::WaitUntil(probe.due);
            }
            if probe.sent < SENDS {
                probe.sent += 1;
                probe.due = now + self.rules.timeout / u32::from(SENDS);
                return Step::Repeat;
            }
            self.probe = None;
            self.on_probe_missed(now);
        }
        if now < self.next_probe {
            return Step::WaitUntil(self.next_probe);
        }
        let wait = match self.state {
            HealthState::Up => self.rules.interval,
            HealthState::New | HealthState::Down => {
                let wait = self.backoff.min(self.rules.interval);
                self.backoff = wait.saturating_mul(2);
                wait
            }
        };
        // A little off, so that forwarders and backends do not march in step.
        self.next_probe = now + wait.mul_f64(rng.random_range(1.0 - JITTER..=1.0));
        self.last_probe = Some(now);
        self.probe = Some(Probe { sent: 1, due: now + self.rules.timeout / u32::from(SENDS) });
        Step::Probe
    }

    /// The probe that is out had a reply of this kind.
    pub fn on_probe_reply_of(&mut self, kind: ProbeReply, now: Instant) {
        let is_good = match (self.rules.expect, kind) {
            (Expect::Reply, _) | (Expect::NoFailure, ProbeReply::Answer) => true,
            (Expect::NoFailure, ProbeReply::Unserved) => !self.has_answered,
            (Expect::NoFailure, ProbeReply::Failure) => false,
        };
        self.has_answered |= kind == ProbeReply::Answer;
        if is_good {
            self.on_probe_reply(now);
        } else if self.probe.take().is_some() {
            self.on_probe_missed(now);
            // A failure comes within a round trip: what lasts no longer than a restart takes no backend down.
            self.next_probe = self.next_probe.max(now + FIRST_BACKOFF.min(self.rules.interval));
        }
    }

    /// The probe that is out had a good reply.
    pub fn on_probe_reply(&mut self, now: Instant) {
        let was_out = self.probe.take().is_some();
        match self.state {
            HealthState::Up => {
                self.against = 0;
                self.unreachable = 0;
            }
            HealthState::New => self.turn(HealthState::Up, now),
            // Each sending may have its reply, but they are one good probe.
            HealthState::Down if was_out => {
                self.against = self.against.saturating_add(1);
                if self.against >= self.rules.rise {
                    return self.turn(HealthState::Up, now);
                }
                // Hope: the next good probe should not be long in coming.
                self.backoff = FIRST_BACKOFF;
                self.next_probe = self.next_probe.min(now + FIRST_BACKOFF.min(self.rules.interval));
            }
            HealthState::Down => {}
        }
    }

    /// The probe that is out could not be made at all, for want of a descriptor say. That tells nothing of the backend; the
    /// next one comes when it would have come anyway.
    pub fn on_probe_not_made(&mut self) {
        self.probe = None;
    }

    /// ICMP says that the probe that is out has met nobody.
    pub fn on_probe_unreachable(&mut self, now: Instant) {
        if self.probe.take().is_none() {
            return;
        }
        match self.state {
            HealthState::Up => {
                self.unreachable += 1;
                self.against = self.against.saturating_add(1);
                // One alone is never enough, even if one missed probe is.
                if self.unreachable >= UNREACHABLE || self.against >= self.rules.fall.max(UNREACHABLE) {
                    return self.turn(HealthState::Down, now);
                }
                self.next_probe = now;
            }
            HealthState::New | HealthState::Down => self.against = 0,
        }
    }

    /// No connection is taken where the probe was to go, or somebody else takes it. That is the word of whoever is there, for to end a
    /// handshake takes more than a forged datagram: a backend by stream is down at once.
    pub fn on_probe_refused(&mut self, now: Instant) {
        if self.probe.take().is_none() {
            return;
        }
        match self.state {
            HealthState::Up => self.turn(HealthState::Down, now),
            HealthState::New | HealthState::Down => self.against = 0,
        }
    }

    /// ICMP says that an attempt has met nobody, which may be forged. While the backend is up, that asks for a probe at once;
    /// but whoever forges many is not to cause as many probes.
    pub fn on_unreachable(&mut self, now: Instant) {
        self.suspect(REST_AFTER_PROBE, now);
    }

    /// A reply came to a query, of whatever kind. That is life, so it is up at once.
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

    /// An attempt timed out. While the backend is up, that asks for a probe at once; but a backend that is silent on
    /// every miss is not to be probed all the time.
    pub fn on_silence(&mut self, now: Instant) {
        self.suspect(self.rules.timeout, now);
    }

    /// Something speaks against the backend: a probe is due so long after the last one.
    fn suspect(&mut self, rest: Duration, now: Instant) {
        match self.state {
            HealthState::Up => {
                let earliest = self.last_probe.map_or(now, |last| now.max(last + rest));
                self.next_probe = self.next_probe.min(earliest);
            }
            HealthState::New | HealthState::Down => {}
        }
    }

    /// So many queries went to the pool as `every_queries` says: a probe is due.
    pub fn on_queries(&mut self, now: Instant) {
        self.next_probe = self.next_probe.min(now);
    }

    /// The probe that was out has failed.
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

    /// Goes over to another state.
    fn turn(&mut self, state: HealthState, now: Instant) {
        self.state = state;
        self.since = now;
        self.against = 0;
        self.unreachable = 0;
        let wait = match state {
            HealthState::Up => self.rules.interval,
            HealthState::New | HealthState::Down => FIRST_BACKOFF.min(self.rules.interval),
        };
        self.backoff = wait.saturating_mul(2);
        self.next_probe = self.next_probe.min(now + wait);
    }
}

/// How often the question of a probe is sent, if nothing comes. Lost datagrams are so told from a dead backend (see
/// above); more would only help where no query gets through either.
const SENDS: u8 = 8;
/// So many probes in a row that are unreachable take a backend down. A second one goes out at once and from another port, so
/// whoever has forged the answer to the first has to find the port of the next, in the time that an answer takes.
const UNREACHABLE: u8 = 2;
/// How soon after a probe the next one may follow because of ICMP to a query: at most 20 a second to one backend, however many
/// are forged, and a backend that has died is known by then.
const REST_AFTER_PROBE: Duration = Duration::from_millis(50);
/// How soon a backend that is down is probed again. A restarted server is often back within a second, and
/// a probe costs less than a query.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// How much sooner than said a probe may go out, as a part of the wait.
const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests;
