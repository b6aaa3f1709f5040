//! What came of a scenario, added up.

use std::time::{Duration, Instant};

use super::event::Happening;
use super::histogram::Histogram;
use super::model::Scenario;
use super::world::play;
use crate::policy::race::{Kind, Outcome};

/// The sums of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Queries.
    pub queries: u64,
    /// How long their clients waited. One to whom no backend's reply could be given waited for the word that says so.
    pub latency: Histogram,
    /// Queries for which no backend's reply could be given.
    pub lost: u64,
    /// Attempts made when their races began.
    pub first: u64,
    /// Attempts made because another was late.
    pub hedges: u64,
    /// Attempts made because another had failed.
    pub failovers: u64,
    /// Hedges whose reply went to the client.
    pub hedges_won: u64,
    /// Hedges not made because the budget was spent.
    pub hedges_denied: u64,
}

impl Tally {
    /// Plays a scenario.
    pub fn of(scenario: &Scenario, start: Instant, seed: u64) -> Self {
        let mut tally = Self::default();
        play(scenario, start, seed, |_, at, happening| tally.add(at, happening));
        tally
    }

    /// Attempts for each query beyond the first.
    pub fn extra_load(&self) -> f64 {
        let attempts = self.first + self.hedges + self.failovers;
        (attempts as f64 - self.queries as f64) / self.queries.max(1) as f64
    }

    /// Adds what happened to a query, so long after it came.
    fn add(&mut self, at: Duration, happening: Happening) {
        match happening {
            Happening::Came { .. } => self.queries += 1,
            Happening::Asked { kind: Kind::First, .. } => self.first += 1,
            Happening::Asked { kind: Kind::Hedge, .. } => self.hedges += 1,
            Happening::Asked { kind: Kind::Failover, .. } => self.failovers += 1,
            Happening::Replied { .. } | Happening::FailedBare => {}
            Happening::Finished { outcome, winner, hedges_denied } => {
                self.latency.record(at);
                self.hedges_denied += u64::from(hedges_denied);
                self.hedges_won += u64::from(winner == Some(Kind::Hedge));
                self.lost += u64::from(!matches!(outcome, Outcome::Reply(_)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
