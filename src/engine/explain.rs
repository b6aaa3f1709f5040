//! The report of a race that is over: who was asked when and why, who won, what was kept.

use std::fmt;
use std::time::{Duration, Instant};

use super::QTYPE_QCLASS;
use super::slots::RaceRef;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, Kind, Outcome, Race};
use crate::state::SharedPool;
use crate::wire::{self, RecordType};

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
    /// Its pool.
    pub pool: &'a SharedPool,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it was started to refresh a cached answer, and not for a client.
    pub is_prefetch: bool,
    /// Whether the reply that won was a kept one.
    pub is_kept: bool,
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
            Outcome::Reply(_) if self.is_kept => "kept",
            Outcome::Reply(_) => "won",
            Outcome::Failed => "failed",
            Outcome::Nothing => "silence",
            Outcome::Unsent => "unsent",
        }
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
            Rank::Nodata => "NODATA without AA",
            Rank::Nxdomain => "NXDOMAIN",
            Rank::NodataAuthoritative => "NODATA",
            Rank::Positive => "answer",
        };
        Some((what, self.backend(attempt)))
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.now.saturating_duration_since(self.race.started())
    }

    /// The label of the backend that an attempt asked.
    fn backend(&self, attempt: AttemptId) -> &'a str {
        let asked = self.race.attempt(attempt);
        asked.map_or("nobody", |asked| &self.pool.backends[asked.backend.get()].name)
    }
}

impl fmt::Display for RaceReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, attempt) in self.race.attempts().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let backend = &self.pool.backends[attempt.backend.get()].name;
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
