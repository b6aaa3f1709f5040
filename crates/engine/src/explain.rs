//! The report of a finished race: attempts, reasons, winner, cached result.

use std::fmt;
use std::time::{Duration, Instant};

use config::Rank;
use dns::{Rcode, RecordType};
use hedge::race::{Attempt, AttemptId, AttemptState, BackendIndex, RaceEnd};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::entry::Replies;
use super::query_slots::{PROLONGED, QUARANTINE};
use super::slots::RaceRef;
use super::{QTYPE_QCLASS, Race};
use crate::slow::{
    DeniedHedge, Fate, LATE_REPLIES, LateReply, RaceObstacles, RaceOutcome as SlowOutcome, SlowAttempt, SlowRace,
};
use crate::state::SharedPool;

/// A finished race, for the log and for simulations. It explains a client's response.
///
/// As text it lists the attempts: `ts1 first at 0 µs, ended; ts2 failover at 302 µs, ended`.
#[derive(Clone, Copy, Debug)]
pub struct RaceReport<'a> {
    /// The place of the race.
    pub id: RaceRef,
    /// The race.
    pub race: &'a Race,
    /// The question in wire form.
    pub question: &'a [u8],
    /// The hash of the folded question.
    pub hash: u64,
    /// The pool of the race.
    pub pool: &'a SharedPool,
    /// The result of the race.
    pub result: RaceResult,
    pub(super) replies: Option<&'a Replies>,
    pub(super) denied_at: Option<Instant>,
    /// The clients of the race.
    pub clients: RaceClients,
    /// The end of the race.
    pub now: Instant,
}

/// The result of a race.
#[derive(Clone, Copy, Debug)]
pub struct RaceResult {
    /// The outcome of the race.
    pub end: RaceEnd,
    /// The rank of the reply that clients got, if any.
    pub won_by: Option<Rank>,
    /// The response code that clients got; `None` if they got no response.
    pub rcode: Option<Rcode>,
}

/// The clients of a race at its end.
#[derive(Clone, Copy, Debug)]
pub struct RaceClients {
    /// The number of waiting clients.
    pub waiting: usize,
    /// The number of clients that got a stale answer.
    pub given_stale: u32,
    /// True if the race refreshed a cached answer and was not started for a client.
    pub is_prefetch: bool,
    /// True if an operator wants an explanation.
    pub is_explained: bool,
}

impl<'a> RaceReport<'a> {
    /// Returns the name of the question.
    pub fn qname(&self) -> impl fmt::Display + use<'a> {
        dns::display_name(self.split_question().0)
    }

    /// Returns the type of the question.
    pub fn qtype(&self) -> RecordType {
        self.split_question().1.first_chunk().map_or(RecordType(0), |octets| RecordType(u16::from_be_bytes(*octets)))
    }

    fn split_question(&self) -> (&'a [u8], &'a [u8]) {
        self.question.split_at(self.question.len().saturating_sub(QTYPE_QCLASS))
    }

    /// Returns the outcome in one word.
    pub fn outcome(&self) -> &'static str {
        match self.result.end {
            RaceEnd::Reply(_) if self.is_kept() => "kept",
            RaceEnd::Reply(_) => "won",
            RaceEnd::Failed => "failed",
            RaceEnd::Nothing => "silence",
            RaceEnd::Unsent => "unsent",
        }
    }

    /// Returns true if the winning reply was not accepted, only the best one.
    pub fn is_kept(&self) -> bool {
        self.race.kept().is_some_and(|(kept, _)| self.result.end == RaceEnd::Reply(kept))
    }

    /// Returns the label of the backend that won, if one did.
    pub fn winner(&self) -> Option<&'a str> {
        match self.result.end {
            RaceEnd::Reply(winner) => Some(self.backend(winner)),
            RaceEnd::Failed | RaceEnd::Nothing | RaceEnd::Unsent => None,
        }
    }

    /// Returns the rank and the backend of a reply that was kept while other backends could do better.
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

    /// Returns the duration of the race.
    pub fn took(&self) -> Duration {
        self.now.saturating_duration_since(self.race.started())
    }

    /// Returns true if the race was slower than usual for its pool or failed, so that it is to be remembered.
    pub fn is_slow(&self) -> bool {
        let threshold = self.pool.state.slow_threshold();
        self.took() > threshold || threshold < Duration::MAX && self.has_failed()
    }

    fn has_failed(&self) -> bool {
        !matches!(self.result.end, RaceEnd::Reply(_)) || self.result.rcode == Some(Rcode::SERVFAIL)
    }

    fn slow_outcome(&self) -> SlowOutcome {
        let is_answer = self.result.won_by.is_some_and(|rank| rank > Rank::Failure);
        match self.result.end {
            _ if self.clients.given_stale > 0 && !is_answer => SlowOutcome::Stale,
            _ if self.clients.given_stale > 0 && self.clients.waiting == 0 => SlowOutcome::Stale,
            RaceEnd::Reply(_) if self.is_kept() => SlowOutcome::Kept,
            RaceEnd::Reply(_) => SlowOutcome::Won,
            RaceEnd::Failed | RaceEnd::Unsent => SlowOutcome::Failed,
            RaceEnd::Nothing => SlowOutcome::MadeUp,
        }
    }

    /// Returns the race as a value that lasts, for a race that started at this Unix time.
    pub fn slow_race(&self, at: f64) -> SlowRace {
        SlowRace {
            at,
            pool: self.pool.config.name.clone(),
            name: self.qname().to_string(),
            qtype: self.qtype().to_string(),
            took_ms: millis(self.took()),
            outcome: self.slow_outcome(),
            winner: self.winner().map(str::to_owned),
            rcode: self.result.rcode.map(|rcode| rcode.to_string()),
            waiters: self.waiters(),
            obstacles: RaceObstacles {
                hedges_denied: self.race.hedges_denied().into(),
                denied: self.denied(),
                all_down: self.race.all_down(),
            },
            why: String::new(),
            attempts: self.race.attempts().map(|attempt| self.slow_attempt(&attempt)).collect(),
        }
    }

    /// Returns the JSON of a [`ReportedRace`](crate::slow::ReportedRace), which is written without an
    /// allocation.
    pub fn as_json(&'a self, at: f64) -> impl Serialize + 'a {
        ReportedRaceJson(RaceJson { report: self, at })
    }

    fn waiters(&self) -> u32 {
        (self.clients.waiting as u32).saturating_add(self.clients.given_stale)
    }

    fn slow_attempt<S: From<&'a str>>(&self, attempt: &Attempt) -> SlowAttempt<S> {
        let (fate, took_ms, rank) = self.fate(attempt);
        let at_ms = millis(attempt.asked_at.saturating_duration_since(self.race.started()));
        SlowAttempt { backend: self.label(attempt.backend).into(), kind: attempt.kind, at_ms, took_ms, fate, rank }
    }

    fn fate(&self, attempt: &Attempt) -> (Fate, Option<f64>, Option<Rank>) {
        let reply = self.replies.and_then(|replies| *replies.get(usize::from(attempt.id.0))?);
        let took = |at: Instant| millis(at.saturating_duration_since(attempt.asked_at));
        let replied = reply.map(|(at, rank)| (took(at.since(self.race.started())), rank));
        let is_winner = self.result.end == RaceEnd::Reply(attempt.id);
        let is_kept = self.race.kept().is_some_and(|(kept, _)| kept == attempt.id);
        let fate = match attempt.state {
            // The reply that ends a race is not in the notes.
            AttemptState::Replied if is_winner && replied.is_none() => {
                let fate = if is_kept { Fate::Kept } else { Fate::Won };
                return (fate, Some(took(self.now)), self.result.won_by);
            }
            AttemptState::Replied if is_winner => Fate::Kept,
            AttemptState::Replied if replied.is_some_and(|(_, rank)| rank == Rank::Failure) => Fate::Failed,
            AttemptState::Replied if is_kept => Fate::Kept,
            AttemptState::Replied | AttemptState::Spoken => Fate::Beaten,
            AttemptState::Unreachable => Fate::Unreachable,
            AttemptState::Bare | AttemptState::ExtensionRefused | AttemptState::Replaced => {
                return (Fate::Failed, None, Some(Rank::Failure));
            }
            AttemptState::Failed | AttemptState::Unsent => Fate::Failed,
            AttemptState::Lost => Fate::Lost,
            AttemptState::Silent => {
                let waited = self.now.saturating_duration_since(attempt.asked_at);
                let is_beaten = matches!(self.result.end, RaceEnd::Reply(_))
                    && waited < self.pool.rules().race.attempt_timeout.longest();
                if is_beaten { Fate::Beaten } else { Fate::Silent }
            }
        };
        (fate, replied.map(|(took, _)| took), replied.map(|(_, rank)| rank))
    }

    /// Returns the first denied hedge: its backend, its time, and the time until the next attempt.
    fn denied<S: From<&'a str>>(&self) -> Option<DeniedHedge<S>> {
        let at = self.denied_at?;
        let next = self.race.attempts().find(|attempt| attempt.asked_at >= at);
        let until = next.map_or(self.now, |next| next.asked_at);
        let to = next.map(|next| next.backend).or_else(|| self.race.next_hedge());
        Some(DeniedHedge {
            to: to.map(|to| self.label(to).into()),
            at_ms: millis(at.saturating_duration_since(self.race.started())),
            for_ms: millis(until.saturating_duration_since(at)),
        })
    }

    fn label(&self, backend: BackendIndex) -> &'a str {
        &self.pool.backend(backend).name
    }

    fn backend(&self, attempt: AttemptId) -> &'a str {
        let asked = self.race.attempt(attempt);
        asked.map_or("no backend", |asked| self.label(asked.backend))
    }
}

impl fmt::Display for RaceReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.race.attempts().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let backend = &self.pool.backend(attempt.backend).name;
            let kind = attempt.kind.label();
            let at = attempt.asked_at.saturating_duration_since(self.race.started()).as_micros();
            let opt = if attempt.extended { "" } else { " without OPT" };
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

/// A reply to an attempt whose race was over.
#[derive(Clone, Copy, Debug)]
pub struct LateReport<'a> {
    /// The hash of the question.
    pub hash: u64,
    /// The pool of the race.
    pub pool: &'a SharedPool,
    /// The backend that replied.
    pub backend: BackendIndex,
    /// The time of the attempt.
    pub sent: Instant,
    /// The rank of the reply.
    pub rank: Rank,
    /// The arrival time of the reply.
    pub now: Instant,
}

impl LateReport<'_> {
    /// Returns the time between attempt and reply.
    pub fn took(&self) -> Duration {
        self.now.saturating_duration_since(self.sent)
    }

    /// Returns the reply to an attempt of this Unix time as a value, with borrowed names or own ones.
    pub fn late_reply<'s, S: From<&'s str>>(&'s self, asked_at: f64) -> LateReply<S> {
        LateReply {
            hash: self.hash,
            pool: self.pool.config.name.as_str().into(),
            backend: self.pool.backend(self.backend).name.as_str().into(),
            asked_at,
            took_ms: millis(self.took()),
            rank: self.rank,
        }
    }
}

struct RaceJson<'a> {
    report: &'a RaceReport<'a>,
    at: f64,
}

struct ReportedRaceJson<'a>(RaceJson<'a>);

impl Serialize for ReportedRaceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ReportedRace", 2)?;
        fields.serialize_field("hash", &self.0.report.hash)?;
        fields.serialize_field("race", &self.0)?;
        fields.end()
    }
}

/// Writes the fields of a [`SlowRace`], except the sentence that explains it.
impl Serialize for RaceJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { report, at } = self;
        let mut race = serializer.serialize_struct("SlowRace", 13)?;
        race.serialize_field("at", at)?;
        race.serialize_field("pool", &report.pool.config.name)?;
        race.serialize_field("name", &DisplayJson(report.qname()))?;
        race.serialize_field("type", &DisplayJson(report.qtype()))?;
        race.serialize_field("took_ms", &millis(report.took()))?;
        race.serialize_field("outcome", &report.slow_outcome())?;
        race.serialize_field("winner", &report.winner())?;
        race.serialize_field("rcode", &report.result.rcode.map(DisplayJson))?;
        race.serialize_field("waiters", &report.waiters())?;
        race.serialize_field("hedges_denied", &report.race.hedges_denied())?;
        race.serialize_field("denied", &report.denied::<&str>())?;
        race.serialize_field("all_down", &report.race.all_down())?;
        race.serialize_field("attempts", &AttemptsJson(report))?;
        race.end()
    }
}

struct AttemptsJson<'a>(&'a RaceReport<'a>);

impl Serialize for AttemptsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.race.attempts().map(|attempt| self.0.slow_attempt::<&str>(&attempt)))
    }
}

struct DisplayJson<T>(T);

impl<T: fmt::Display> Serialize for DisplayJson<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

const _: () = assert!(LATE_REPLIES.as_secs() == QUARANTINE.as_secs() + PROLONGED.as_secs());

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
