//! stub
use std::time::Instant;

use super::budget::Budget;
pub use super::candidates::{BackendIndex, Candidates};
use super::latency::Latency;
use super::rank::Rank;
use super::rules::Rules;

/// The most attempts that one race makes (CONTRACT.md, Races).
pub const MAX_ATTEMPTS: usize = 8;

/// One attempt of a race: the first is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u8);

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It opened the race.
    First,
    /// Another attempt is late; paid from the budget.
    Hedge,
    /// Another attempt failed, timed out, or was not accepted, or the client asked again; costs no budget.
    Failover,
}

/// What a race looks at but does not own.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The rules of the pool.
    pub rules: &'a Rules,
    /// The latency of each backend, by [`BackendIndex`].
    pub latency: &'a [Latency],
    /// What pays for hedges.
    pub budget: &'a Budget,
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It wins: the race is finished.
    Accepted,
    /// It is the best so far: the caller stores its bytes in place of those kept before.
    Kept,
    /// It is of no use: a better one is kept, or the race was finished before.
    NotNeeded,
}

/// What becomes of a refusal of OPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptRefusal {
    /// The same backend is asked once more without OPT: the reply is spent.
    AskedAgain,
    /// It is a failure like any other: the caller hands it to [`Race::on_reply`].
    IsFailure,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the query to this backend.
    Ask {
        /// The new attempt.
        attempt: AttemptId,
        /// Whom to ask.
        backend: BackendIndex,
        /// Why.
        kind: Kind,
        /// False: without OPT, since this backend refused it in this race.
        edns: bool,
    },
    /// Nothing before this time, unless there is input. Later than `now`, and no later than the deadline.
    WaitUntil(Instant),
    /// The race is over.
    Finished(Outcome),
}

/// How a race ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply to this attempt goes to the client: the accepted one, or the best kept one.
    Reply(AttemptId),
    /// There were only bare failures: SERVFAIL.
    Failed,
    /// Nobody replied in time, or every attempt failed.
    Nothing,
}

/// One attempt, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number in the race.
    pub id: AttemptId,
    /// Who was asked.
    pub backend: BackendIndex,
    /// Why.
    pub kind: Kind,
    /// When, to the microsecond.
    pub asked_at: Instant,
    /// Whether it was asked with OPT (as far as the client's query has one).
    pub edns: bool,
    /// Whether it has neither replied nor failed.
    pub open: bool,
}

/// One query's race.
#[derive(Clone, Debug)]
pub struct Race {}

impl Race {
    /// A race that starts now.
    pub fn start(_field: &Field<'_>, _candidates: &Candidates, _now: Instant) -> Self {
        todo!()
    }
    /// A reply came.
    pub fn on_reply(&mut self, _attempt: AttemptId, _rank: Rank, _now: Instant) -> Heard {
        todo!()
    }
    /// The attempt is over without a reply: an ICMP error, a send error, or its backend was found down.
    pub fn on_failure(&mut self, _attempt: AttemptId, _now: Instant) {
        todo!()
    }
    /// A failure of twelve octets came, which proves little: the next backend is asked, the attempt stays.
    pub fn on_bare_failure(&mut self, _attempt: AttemptId, _now: Instant) {
        todo!()
    }
    /// FORMERR or NOTIMP came to a query with OPT.
    pub fn on_opt_refused(&mut self, _attempt: AttemptId, _now: Instant) -> OptRefusal {
        todo!()
    }
    /// The client sent its query again.
    pub fn on_retransmission(&mut self, _now: Instant) {
        todo!()
    }
    /// What to do next: to be called after each input, and again after each [`Step::Ask`].
    pub fn next_step(&mut self, _field: &Field<'_>, _now: Instant) -> Step {
        todo!()
    }
    /// When the client must have its response.
    pub fn deadline(&self) -> Instant {
        todo!()
    }
    /// Whether no backend of the pool was up when the race started.
    pub fn all_down(&self) -> bool {
        todo!()
    }
    /// Whether the race is over.
    pub fn is_finished(&self) -> bool {
        todo!()
    }
    /// How many hedges were due but denied for lack of budget.
    pub fn hedges_denied(&self) -> u8 {
        todo!()
    }
    /// The attempts, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = Attempt> + '_ {
        std::iter::empty()
    }
    /// One attempt.
    pub fn attempt(&self, _id: AttemptId) -> Option<Attempt> {
        todo!()
    }
}
