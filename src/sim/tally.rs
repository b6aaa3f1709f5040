//! What came of a scenario, added up.

use std::time::Instant;

use super::event::Happening;
use super::histogram::Histogram;
use super::model::Scenario;
use super::world::play;
use crate::engine::{RaceReport, Said};
use crate::metrics::Source;
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
    /// Queries answered from the cache, stale answers included.
    pub cached: u64,
    /// Races that a client waited for at their end; the other queries joined one of them, or were cached.
    pub races: u64,
}

impl Tally {
    /// Plays a scenario.
    pub fn of(scenario: &Scenario, start: Instant, seed: u64) -> Self {
        let mut tally = Self::default();
        play(scenario, start, seed, |_, happening| tally.add(happening));
        tally
    }

    /// Attempts for each query beyond the first.
    pub fn extra_load(&self) -> f64 {
        let attempts = self.first + self.hedges + self.failovers;
        (attempts as f64 - self.queries as f64) / self.queries.max(1) as f64
    }

    /// Queries that waited for a race which another had begun.
    pub fn joined(&self) -> u64 {
        self.queries.saturating_sub(self.cached + self.races)
    }

    fn add(&mut self, happening: Happening<'_>) {
        match happening {
            Happening::Came => self.queries += 1,
            Happening::Replied { .. } | Happening::FailedBare { .. } | Happening::Second { .. } => {}
            Happening::RaceOver(report) => self.add_race(&report),
            Happening::Responded { waited, said, .. } => {
                self.latency.record(waited);
                match said.map(|Said { source, .. }| source) {
                    Some(Source::Cache | Source::Stale) => self.cached += 1,
                    Some(Source::Backend) => {}
                    Some(Source::Synthesized | Source::Error | Source::Authority) | None => self.lost += 1,
                }
            }
        }
    }

    /// Adds a race that is over.
    fn add_race(&mut self, report: &RaceReport<'_>) {
        let race = report.race;
        self.races += u64::from(!report.is_prefetch);
        self.hedges_denied += u64::from(race.hedges_denied());
        for attempt in race.attempts() {
            match attempt.kind {
                Kind::First => self.first += 1,
                Kind::Hedge => {
                    self.hedges += 1;
                    self.hedges_won += u64::from(report.outcome == Outcome::Reply(attempt.id));
                }
                Kind::Failover => self.failovers += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests;
