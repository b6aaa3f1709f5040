//! Sums over a scenario.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hedge::race::{AttemptKind, RaceEnd};
use metrics::ResponseSource;

use super::event::Happening;
use super::histogram::TimeHistogram;
use super::model::Scenario;
use super::world::play;
use crate::state::ForwarderState;
use crate::{RaceReport, ResponseSummary};

/// The sums of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The number of queries.
    pub queries: u64,
    /// The time that clients waited, also those that got only an error.
    pub latency: TimeHistogram,
    /// Queries that got no backend's reply.
    pub lost: u64,
    /// Attempts made at the beginning of a race.
    pub first: u64,
    /// Attempts made because another was late.
    pub hedges: u64,
    /// Attempts made because another had failed.
    pub failovers: u64,
    /// Hedges whose reply went to the client.
    pub hedges_won: u64,
    /// Hedges not made because the budget was spent.
    pub hedges_denied: u64,
    /// Queries answered from the cache, including stale answers.
    pub cached: u64,
    /// Races for which a client waited at their end; the other queries joined one of them, or were cached.
    pub races: u64,
}

impl Tally {
    /// Plays a scenario and adds up its events.
    pub fn of(scenario: &Scenario, start: Instant, seed: u64) -> Self {
        Self::after(Duration::ZERO, scenario, start, seed).0
    }

    /// Plays a scenario, and adds up its events after a time. Also returns the last state.
    pub fn after(begin: Duration, scenario: &Scenario, start: Instant, seed: u64) -> (Self, Arc<ForwarderState>) {
        let mut tally = Self::default();
        let mut add = |at, happening: Happening<'_>| {
            if at >= begin {
                tally.add(happening);
            }
        };
        let state = play(scenario, start, seed, &mut add);
        (tally, state)
    }

    /// Returns the attempts for each query beyond the first.
    pub fn extra_load(&self) -> f64 {
        let attempts = self.first + self.hedges + self.failovers;
        (attempts as f64 - self.queries as f64) / self.queries.max(1) as f64
    }

    /// Returns the number of queries that joined the race of another one.
    pub fn joined(&self) -> u64 {
        self.queries.saturating_sub(self.cached + self.races)
    }

    fn add(&mut self, happening: Happening<'_>) {
        match happening {
            Happening::Came => self.queries += 1,
            Happening::Replied { .. }
            | Happening::RepliedLate(_)
            | Happening::FailedBare { .. }
            | Happening::Second { .. } => {}
            Happening::RaceOver(report) => self.add_race(&report),
            Happening::Responded { waited, said, .. } => {
                self.latency.record(waited);
                match said.map(|ResponseSummary { source, .. }| source) {
                    Some(ResponseSource::Cache | ResponseSource::Stale) => self.cached += 1,
                    Some(ResponseSource::Backend) => {}
                    Some(
                        ResponseSource::Synthesized
                        | ResponseSource::Error
                        | ResponseSource::Authority
                        | ResponseSource::Rule,
                    )
                    | None => self.lost += 1,
                }
            }
        }
    }

    fn add_race(&mut self, report: &RaceReport<'_>) {
        let race = report.race;
        self.races += u64::from(!report.clients.is_prefetch);
        self.hedges_denied += u64::from(race.hedges_denied());
        for attempt in race.attempts() {
            match attempt.kind {
                AttemptKind::First => self.first += 1,
                AttemptKind::Hedge => {
                    self.hedges += 1;
                    self.hedges_won += u64::from(report.result.end == RaceEnd::Reply(attempt.id));
                }
                AttemptKind::Failover => self.failovers += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests;
