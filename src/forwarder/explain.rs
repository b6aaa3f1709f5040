//! Explaining a race: at `debug`, one line for each, from which an operator reads why a client got the response it got.

use std::fmt;
use std::time::Instant;

use super::QTYPE_QCLASS;
use super::entry::Entry;
use super::pool::Pool;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, Kind, Outcome};
use crate::wire::{self, RecordType};

/// A race that is over, as a line: who was asked when and why, who won, what was kept.
///
/// ```text
/// www.example.org. A: ts1 first at 0 µs, ended; ts2 failover at 302 µs, ended; NXDOMAIN of ts1 kept; ts2 wins after 790 µs
/// ```
pub(super) struct Explained<'a> {
    /// The race.
    pub(super) entry: &'a Entry,
    /// Its pool.
    pub(super) pool: &'a Pool,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// Whether the reply that won was a kept one.
    pub(super) is_kept: bool,
    /// When it ended.
    pub(super) now: Instant,
}

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, pool, outcome, is_kept, now } = self;
        let took = now.saturating_duration_since(entry.race.started()).as_micros();
        let question = entry.question();
        let (qname, rest) = question.split_at(question.len().saturating_sub(QTYPE_QCLASS));
        let qtype = rest.first_chunk().map_or(RecordType(0), |octets| RecordType(u16::from_be_bytes(*octets)));
        write!(f, "{} {qtype}:", wire::display_name(qname))?;
        for attempt in entry.race.attempts() {
            let backend = &pool.shared.backends[attempt.backend.get()].name;
            let kind = match attempt.kind {
                Kind::First => "first",
                Kind::Hedge => "hedge",
                Kind::Failover => "failover",
            };
            let at = attempt.asked_at.saturating_duration_since(entry.race.started()).as_micros();
            let opt = if attempt.edns { "" } else { " without OPT" };
            let fate = match (attempt.open, attempt.is_sent) {
                (true, _) => "silent",
                (false, true) => "ended",
                (false, false) => "not sent",
            };
            write!(f, " {backend} {kind}{opt} at {at} µs, {fate};")?;
        }
        if let Some((attempt, rank)) = entry.race.kept() {
            let what = match rank {
                Rank::Failure => "failure",
                Rank::Nodata => "NODATA without AA",
                Rank::Nxdomain => "NXDOMAIN",
                Rank::NodataAuthoritative => "NODATA",
                Rank::Positive => "answer",
            };
            write!(f, " {what} of {} kept;", self.name(attempt))?;
        }
        if entry.race.hedges_denied() > 0 {
            write!(f, " {} hedges denied for lack of budget;", entry.race.hedges_denied())?;
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

impl Explained<'_> {
    /// The label of the backend that an attempt asked.
    fn name(&self, attempt: AttemptId) -> &str {
        let asked = self.entry.race.attempt(attempt);
        asked.map_or("nobody", |asked| &self.pool.shared.backends[asked.backend.get()].name)
    }
}
