//! What came of a scenario, query by query: for tests that look at each.

use std::time::{Duration, Instant};

use super::event::Happening;
use super::model::Scenario;
use super::world::play;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, BackendIndex, Heard, Kind, Outcome};

/// What came of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What each query met with, in the order of their coming.
    pub queries: Vec<Record>,
    /// How many responses filled the hedge budget.
    pub successes: u64,
}

/// What one query met with. Times count from the coming of the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When its client must have the response.
    pub deadline: Duration,
    /// The attempts.
    pub asked: Vec<Asked>,
    /// The replies, those that came too late included.
    pub replies: Vec<Reply>,
    /// Whether a bare failure came while the race ran.
    pub bare_failure: bool,
    /// How often a hedge was due but denied.
    pub hedges_denied: u8,
    /// Each outcome that the race has had, and when. There must be exactly one.
    pub outcomes: Vec<(Duration, Outcome)>,
}

/// One attempt of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// When.
    pub at: Duration,
    /// Who.
    pub backend: BackendIndex,
    /// Why.
    pub kind: Kind,
    /// Whether with OPT.
    pub edns: bool,
}

/// One reply of a [`Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reply {
    /// When.
    pub at: Duration,
    /// To which attempt.
    pub attempt: AttemptId,
    /// Its rank.
    pub rank: Rank,
    /// What the race made of it.
    pub heard: Heard,
}

/// Plays a scenario from `start` to its end and writes everything down.
pub fn run(scenario: &Scenario, start: Instant, seed: u64) -> Report {
    let mut queries = vec![Record::default(); scenario.queries];
    play(scenario, start, seed, |number, at, happening| queries[number].add(at, happening));
    let successes = queries.iter().filter(|query| query.is_success()).count() as u64;
    Report { queries, successes }
}

impl Record {
    /// Whether a reply that is no failure went to the client.
    fn is_success(&self) -> bool {
        let won = self.outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Reply(_)));
        let known = self.replies.iter().filter(|reply| reply.heard != Heard::NotNeeded);
        won && known.map(|reply| reply.rank).max() > Some(Rank::Failure)
    }

    /// Writes down what happened.
    fn add(&mut self, at: Duration, happening: Happening) {
        match happening {
            Happening::Came { deadline } => self.deadline = deadline,
            Happening::Asked { backend, kind, edns } => self.asked.push(Asked { at, backend, kind, edns }),
            Happening::Replied { attempt, rank, heard } => self.replies.push(Reply { at, attempt, rank, heard }),
            Happening::FailedBare => self.bare_failure |= self.outcomes.is_empty(),
            Happening::Finished { outcome, winner: _, hedges_denied } => {
                self.outcomes.push((at, outcome));
                self.hedges_denied = hedges_denied;
            }
        }
    }
}
