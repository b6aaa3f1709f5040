//! The report of a race that is over: who was asked when and why, who won, what was kept.

use std::fmt;
use std::time::{Duration, Instant};

use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

use super::QTYPE_QCLASS;
use super::entry::Replies;
use super::slots::RaceRef;
use crate::policy::Rank;
use crate::policy::race::{Attempt, AttemptId, BackendIndex, Kind, Outcome, Race, State};
use crate::sight::slow::{Fate, Outcome as SlowOutcome};
use crate::state::SharedPool;
use crate::wire::{self, Rcode, RecordType};

/// A race that is over, for the log and for simulations: an operator reads from it why a client got the response it got.
///
/// As text it lists the attempts: `ts1 first at 0 µs, ended; ts2 failover at 302 µs, ended`.
#[derive(Clone, Copy, Debug)]
pub struct RaceReport<'a> {
    /// Which one it is.
    pub id: RaceRef,
    /// The race.
    pub race: &'a Race,
    /// What was asked, in wire form.
    pub question: &'a [u8],
    /// The hash of that, folded.
    pub hash: u64,
    /// Its pool.
    pub pool: &'a SharedPool,
    /// How it ended.
    pub outcome: Outcome,
    /// What the reply that went out ranks, if one did.
    pub won_by: Option<Rank>,
    /// What clients are told; none: nothing.
    pub rcode: Option<Rcode>,
    /// The replies that did not win at once, if there were any.
    pub(super) replies: Option<&'a Replies>,
    /// When the first hedge was denied, if one was.
    pub(super) denied_at: Option<Instant>,
    /// How many wait for it.
    pub waiters: usize,
    /// How many were given a stale answer.
    pub stale_given: u32,
    /// Whether it was started to refresh a cached answer, and not for a client.
    pub is_prefetch: bool,
    /// Whether an operator wants to know all of it.
    pub is_explained: bool,
    /// When it ended.
    pub now: Instant,
}

impl<'a> RaceReport<'a> {
    /// The name that was asked for.
    pub fn qname(&self) -> impl fmt::Display + use<'a> {
        wire::display_name(self.split_question().0)
    }

    /// The type that was asked for.
    pub fn qtype(&self) -> RecordType {
        self.split_question().1.first_chunk().map_or(RecordType(0), |octets| RecordType(u16::from_be_bytes(*octets)))
    }

    /// Name, and type and class.
    fn split_question(&self) -> (&'a [u8], &'a [u8]) {
        self.question.split_at(self.question.len().saturating_sub(QTYPE_QCLASS))
    }

    /// How it ended, in a word.
    pub fn outcome(&self) -> &'static str {
        match self.outcome {
            Outcome::Reply(_) if self.is_kept() => "kept",
            Outcome::Reply(_) => "won",
            Outcome::Failed => "failed",
            Outcome::Nothing => "silence",
            Outcome::Unsent => "unsent",
        }
    }

    /// Whether the reply that won was not accepted, but the best that came.
    pub fn is_kept(&self) -> bool {
        self.race.kept().is_some_and(|(kept, _)| self.outcome == Outcome::Reply(kept))
    }

    /// The label of the backend whose reply went out, if one did.
    pub fn winner(&self) -> Option<&'a str> {
        match self.outcome {
            Outcome::Reply(winner) => Some(self.backend(winner)),
            Outcome::Failed | Outcome::Nothing | Outcome::Unsent => None,
        }
    }

    /// What was kept while others might have done better, and whose it was.
    pub fn kept(&self) -> Option<(&'static str, &'a str)> {
        let (attempt, rank) = self.race.kept()?;
        let what = match rank {
            Rank::Failure => "failure",
            Rank::Outdated => "outdated",
            Rank::Nodata => "NODATA without AA",
            Rank::Nxdomain => "NXDOMAIN",
            Rank::NodataAuthoritative => "NODATA",
            Rank::Positive => "answer",
            Rank::Doubtful => "doubtful decision",
            Rank::Decided => "decision",
        };
        Some((what, self.backend(attempt)))
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.now.saturating_duration_since(self.race.started())
    }

    /// Whether it is to be remembered: it took longer than its pool's races usually do, or came to no answer of a backend.
    pub fn is_slow(&self) -> bool {
        let threshold = self.pool.state.slow_threshold();
        self.took() > threshold || threshold < Duration::MAX && self.has_failed()
    }

    /// Whether its clients are told nothing that a backend has said, or SERVFAIL.
    fn has_failed(&self) -> bool {
        !matches!(self.outcome, Outcome::Reply(_)) || self.rcode == Some(Rcode::SERVFAIL)
    }

    /// The race as it is told: the JSON of a [`ToldRace`](crate::sight::slow::ToldRace). It started at this Unix time, in seconds. To
    /// write it allocates nothing.
    pub fn told(&'a self, at: f64) -> impl Serialize + 'a {
        Told { report: self, at }
    }

    /// What it came to, in the words of slow races.
    fn slow_outcome(&self) -> SlowOutcome {
        let is_answer = self.won_by.is_some_and(|rank| rank > Rank::Failure);
        match self.outcome {
            _ if self.stale_given > 0 && !is_answer => SlowOutcome::Stale,
            _ if self.stale_given > 0 && self.waiters == 0 => SlowOutcome::Stale,
            Outcome::Reply(_) if self.is_kept() => SlowOutcome::Kept,
            Outcome::Reply(_) => SlowOutcome::Won,
            Outcome::Failed | Outcome::Unsent => SlowOutcome::Failed,
            Outcome::Nothing => SlowOutcome::MadeUp,
        }
    }

    /// What became of an attempt: its reply, how long that took, and its fate.
    fn fate(&self, attempt: &Attempt) -> (Fate, Option<f64>, Option<Rank>) {
        let reply = self.replies.and_then(|replies| *replies.get(usize::from(attempt.id.0))?);
        let took = |at: Instant| millis(at.saturating_duration_since(attempt.asked_at));
        let replied = reply.map(|(at, rank)| (took(at.since(self.race.started())), rank));
        let is_winner = self.outcome == Outcome::Reply(attempt.id);
        let is_kept = self.race.kept().is_some_and(|(kept, _)| kept == attempt.id);
        let fate = match attempt.state {
            // The reply that ends a race is not noted: it is at hand.
            State::Replied if is_winner && replied.is_none() => {
                let fate = if is_kept { Fate::Kept } else { Fate::Won };
                return (fate, Some(took(self.now)), self.won_by);
            }
            State::Replied if is_winner => Fate::Kept,
            State::Replied if replied.is_some_and(|(_, rank)| rank == Rank::Failure) => Fate::Failed,
            State::Replied if is_kept => Fate::Kept,
            State::Replied | State::Spoken => Fate::Beaten,
            State::Unreachable => Fate::Unreachable,
            State::Bare | State::OptRefused | State::Replaced => return (Fate::Failed, None, Some(Rank::Failure)),
            State::Failed | State::Unsent => Fate::Failed,
            State::Lost => Fate::Lost,
            State::Silent => {
                let waited = self.now.saturating_duration_since(attempt.asked_at);
                let is_beaten = matches!(self.outcome, Outcome::Reply(_)) && waited < self.pool.rules().attempt_timeout;
                if is_beaten { Fate::Beaten } else { Fate::Silent }
            }
        };
        (fate, replied.map(|(took, _)| took), replied.map(|(_, rank)| rank))
    }

    /// The first hedge that was denied: whom it would have gone to, when, and how long the race then went without another attempt.
    fn denied(&self) -> Option<Denied<'a>> {
        let at = self.denied_at?;
        let next = self.race.attempts().find(|attempt| attempt.asked_at >= at);
        let until = next.map_or(self.now, |next| next.asked_at);
        let to = next.map(|next| next.backend).or_else(|| self.race.next_hedge());
        Some(Denied {
            to: to.map(|to| self.label(to)),
            at_ms: millis(at.saturating_duration_since(self.race.started())),
            for_ms: millis(until.saturating_duration_since(at)),
        })
    }

    /// The label of a backend.
    fn label(&self, backend: BackendIndex) -> &'a str {
        &self.pool.backend(backend).name
    }

    /// The label of the backend that an attempt asked.
    fn backend(&self, attempt: AttemptId) -> &'a str {
        let asked = self.race.attempt(attempt);
        asked.map_or("nobody", |asked| self.label(asked.backend))
    }
}

impl fmt::Display for RaceReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.race.attempts().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let backend = &self.pool.backend(attempt.backend).name;
            let kind = match attempt.kind {
                Kind::First => "first",
                Kind::Hedge => "hedge",
                Kind::Failover => "failover",
            };
            let at = attempt.asked_at.saturating_duration_since(self.race.started()).as_micros();
            let opt = if attempt.edns { "" } else { " without OPT" };
            let fate = match (attempt.open, attempt.is_sent) {
                (true, _) => "silent",
                (false, true) => "ended",
                (false, false) => "not sent",
            };
            write!(f, "{separator}{backend} {kind}{opt} at {at} µs, {fate}")?;
        }
        Ok(())
    }
}

/// A reply that has come to an attempt whose race was over.
#[derive(Clone, Copy, Debug)]
pub struct LateReport<'a> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool.
    pub pool: &'a SharedPool,
    /// Whose reply it is.
    pub backend: BackendIndex,
    /// When the backend was asked.
    pub sent: Instant,
    /// What the reply ranks.
    pub rank: Rank,
    /// When it came.
    pub now: Instant,
}

impl LateReport<'_> {
    /// How long it took.
    pub fn took(&self) -> Duration {
        self.now.saturating_duration_since(self.sent)
    }

    /// The reply as it is told: the JSON of a [`LateReply`](crate::sight::slow::LateReply). The backend was asked at this Unix time, in
    /// seconds.
    pub fn told(&self, asked_at: f64) -> impl Serialize {
        #[derive(serde::Serialize)]
        struct Told<'a> {
            hash: u64,
            pool: &'a str,
            backend: &'a str,
            asked_at: f64,
            took_ms: f64,
            rank: Rank,
        }
        let (pool, backend) = (&*self.pool.config.name, &*self.pool.backend(self.backend).name);
        Told { hash: self.hash, pool, backend, asked_at, took_ms: millis(self.took()), rank: self.rank }
    }
}

/// A race as it is told.
struct Told<'a> {
    report: &'a RaceReport<'a>,
    at: f64,
}

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut told = serializer.serialize_struct("ToldRace", 2)?;
        told.serialize_field("hash", &self.report.hash)?;
        told.serialize_field("race", &ToldBody(self))?;
        told.end()
    }
}

/// What is told of it.
struct ToldBody<'a>(&'a Told<'a>);

impl Serialize for ToldBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Told { report, at } = *self.0;
        let mut race = serializer.serialize_struct("SlowRace", 13)?;
        race.serialize_field("at", &at)?;
        race.serialize_field("pool", &report.pool.config.name)?;
        race.serialize_field("name", &Text(report.qname()))?;
        race.serialize_field("type", &Text(report.qtype()))?;
        race.serialize_field("took_ms", &millis(report.took()))?;
        race.serialize_field("outcome", &report.slow_outcome())?;
        race.serialize_field("winner", &report.winner())?;
        race.serialize_field("rcode", &report.rcode.map(Text))?;
        race.serialize_field("waiters", &(report.waiters as u64 + u64::from(report.stale_given)))?;
        race.serialize_field("hedges_denied", &report.race.hedges_denied())?;
        race.serialize_field("denied", &report.denied())?;
        race.serialize_field("all_down", &report.race.all_down())?;
        race.serialize_field("attempts", &ToldAttempts(report))?;
        race.end()
    }
}

/// Its attempts.
struct ToldAttempts<'a>(&'a RaceReport<'a>);

impl Serialize for ToldAttempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Line<'a> {
            backend: &'a str,
            kind: Kind,
            at_ms: f64,
            took_ms: Option<f64>,
            fate: Fate,
            rank: Option<Rank>,
        }
        let report = self.0;
        let mut lines = serializer.serialize_seq(None)?;
        for attempt in report.race.attempts() {
            let (fate, took_ms, rank) = report.fate(&attempt);
            let at_ms = millis(attempt.asked_at.saturating_duration_since(report.race.started()));
            let backend = report.label(attempt.backend);
            lines.serialize_element(&Line { backend, kind: attempt.kind, at_ms, took_ms, fate, rank })?;
        }
        lines.end()
    }
}

/// A hedge that was not paid.
#[derive(serde::Serialize)]
struct Denied<'a> {
    to: Option<&'a str>,
    at_ms: f64,
    for_ms: f64,
}

/// What is written as text.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
