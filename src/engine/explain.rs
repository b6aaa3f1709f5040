//! The report of a race that is over: who was asked when and why, who won, what was kept.

use std::fmt;
use std::time::Instant;

use super::QTYPE_QCLASS;
use super::slots::RaceRef;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, Kind, Outcome, Race};
use crate::state::SharedPool;
use crate::wire::{self, RecordType};

/// A race that is over. As text, it is a line from which an operator reads why a client got the response it got:
///
/// ```text
/// www.example.org. A: ts1 first at 0 µs, ended; ts2 failover at 302 µs, ended; NXDOMAIN of ts1 kept; ts2 wins after 790 µs
/// ```
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

impl fmt::Display for RaceReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id: _, race, question, pool, outcome, is_prefetch: _, is_kept, now } = self;
        let took = now.saturating_duration_since(race.started()).as_micros();
        let (qname, rest) = question.split_at(question.len().saturating_sub(QTYPE_QCLASS));
        let qtype = rest.first_chunk().map_or(RecordType(0), |octets| RecordType(u16::from_be_bytes(*octets)));
        write!(f, "{} {qtype}:", wire::display_name(qname))?;
        for attempt in race.attempts() {
            let backend = &pool.backends[attempt.backend.get()].name;
            let kind = match attempt.kind {
                Kind::First => "first",
                Kind::Hedge => "hedge",
                Kind::Failover => "failover",
            };
            let at = attempt.asked_at.saturating_duration_since(race.started()).as_micros();
            let opt = if attempt.edns { "" } else { " without OPT" };
            let fate = match (attempt.open, attempt.is_sent) {
                (true, _) => "silent",
                (false, true) => "ended",
                (false, false) => "not sent",
            };
            write!(f, " {backend} {kind}{opt} at {at} µs, {fate};")?;
        }
        if let Some((attempt, rank)) = race.kept() {
            let what = match rank {
                Rank::Failure => "failure",
                Rank::Nodata => "NODATA without AA",
                Rank::Nxdomain => "NXDOMAIN",
                Rank::NodataAuthoritative => "NODATA",
                Rank::Positive => "answer",
            };
            write!(f, " {what} of {} kept;", self.name(attempt))?;
        }
        if race.hedges_denied() > 0 {
            write!(f, " {} hedges denied for lack of budget;", race.hedges_denied())?;
        }
        match outcome {
            Outcome::Reply(winner) => {
                let kept = if *is_kept { " with the best reply kept" } else { "" };
                write!(f, " {} wins{kept} after {took} µs", self.name(*winner))
            }
            Outcome::Failed => write!(f, " only bare failures, given up after {took} µs"),
            Outcome::Nothing => write!(f, " nobody replied, given up after {took} µs"),
            Outcome::Unsent => write!(f, " not all could be asked, given up after {took} µs"),
        }
    }
}

impl RaceReport<'_> {
    /// The label of the backend that an attempt asked.
    fn name(&self, attempt: AttemptId) -> &str {
        let asked = self.race.attempt(attempt);
        asked.map_or("nobody", |asked| &self.pool.backends[asked.backend.get()].name)
    }
}
