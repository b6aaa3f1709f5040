//! The history as another process continues it: in the form of `/api/v1/history`.
//!
//! That form has a name for each figure, so programs of different versions read what both know. Counts that
//! are missing are 0.

use std::time::{Duration, Instant};

use dns::Transport;
use metrics::{DropReason, ResponseSource, Snapshot};
use serde::{Deserialize, Serialize};

use super::show::rcode_labels;
use super::steps::{BackendStep, Percentile, PoolStep, ServerStep, ServerTotals, prepend};
use super::tracks::small;
use super::{History, MINUTE, MINUTES, SECONDS, TEN, TENS};
use crate::control::observe::sight::live::{BackendHistory, CacheLookups, Column, HistoryFigures, PoolHistory, Span};

/// The history of a server, for the process that continues it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedHistory {
    seconds: HistoryFigures,
    minutes: HistoryFigures,
}

impl History {
    /// Returns the history for the process that continues it.
    pub fn save(&self, snapshot: &Snapshot) -> SavedHistory {
        SavedHistory { seconds: self.show(Span::TenMinutes, snapshot), minutes: self.show(Span::Day, snapshot) }
    }

    /// Puts the history of a previous process before this one. `at` is the current Unix time. Steps that are
    /// too old, later than the own ones, or out of order are ignored, and so are unknown pools.
    pub fn restore(&mut self, now: Instant, at: u64, snapshot: &Snapshot, saved: &SavedHistory) {
        let SavedHistory { seconds, minutes } = saved;
        let (own, own_tens) = ((self.seconds.len(), self.minutes.len()), self.tens.len());
        let earlier = |figures: &HistoryFigures, first: Option<&ServerStep>, length: Duration, max: usize, own| {
            let before = first.map_or(at, |first| first.at);
            places(&figures.at, before, at.saturating_sub(length.as_secs() * max as u64), max - own)
        };
        let second_places = earlier(seconds, self.seconds.front(), Duration::from_secs(1), SECONDS, own.0);
        let minute_places = earlier(minutes, self.minutes.front(), MINUTE, MINUTES, own.1);
        let second_steps = server_steps(seconds, &second_places);
        let minute_steps = server_steps(minutes, &minute_places);
        let open = if own.1 == 0 { self.continue_minute(now, at, &second_steps, minute_steps.first()) } else { 0 };
        prepend(&mut self.seconds, own.0, second_steps.into_iter());
        prepend(&mut self.minutes, own.1, minute_steps.into_iter());
        for track in &mut self.pools {
            let steps = |figures: &HistoryFigures, places: &[usize]| -> Vec<PoolStep> {
                let pool = figures.pools.iter().find(|pool| pool.name == track.name);
                pool.map(|pool| places.iter().map(|place| pool_step(pool, *place)).collect()).unwrap_or_default()
            };
            let (second_steps, minute_steps) = (steps(seconds, &second_places), steps(minutes, &minute_places));
            track.restore(own, second_steps, minute_steps, open);
        }
        let first = self.tens.front().copied().unwrap_or(at);
        let oldest = at.saturating_sub(TEN.as_secs() * TENS as u64);
        let ten_places = places(&seconds.backend_at, first, oldest, TENS - own_tens);
        prepend(&mut self.tens, own_tens, ten_places.iter().map(|place| seconds.backend_at[*place]));
        for pool in &snapshot.pools {
            let Some(saved) = seconds.pools.iter().find(|saved| saved.name == pool.name) else { continue };
            for backend in &pool.backends {
                let Some(saved) = saved.backends.iter().find(|saved| saved.name == backend.name) else { continue };
                let steps = ten_places.iter().map_while(|place| backend_step(saved, *place));
                self.backends.restore((&pool.name, backend), own_tens, steps);
            }
        }
    }

    /// Begins the current minute with the seconds since the last minute of the previous process, so that it
    /// ends on time. Returns their number, 0 if that minute is over. All steps have the newest first.
    fn continue_minute(
        &mut self,
        now: Instant,
        at: u64,
        seconds: &[ServerStep],
        last_minute: Option<&ServerStep>,
    ) -> usize {
        let last = last_minute.map_or(0, |minute| minute.at);
        let open = seconds.iter().take_while(|second| second.at > last).count();
        let Some(first) = seconds[..open].last() else { return 0 };
        let began = last_minute.map_or(first.at - 1, |minute| minute.at);
        let own_began = at.saturating_sub(now.saturating_duration_since(self.minute).as_secs());
        let elapsed = Duration::from_secs(own_began.saturating_sub(began));
        match self.minute.checked_sub(elapsed) {
            Some(began) if elapsed < MINUTE => self.minute = began,
            _ => return 0,
        }
        let own_part = std::mem::take(&mut self.open);
        seconds[..open].iter().rev().chain([&own_part]).for_each(|step| self.open.extend(step));
        open
    }
}

/// Returns the places of those steps from `oldest` on that are not later than `next`, nor than the step after
/// them, the newest first and `max` at most. Two steps may end in the same second of the clock.
pub(super) fn places(at: &[u64], mut next: u64, oldest: u64, max: usize) -> Vec<usize> {
    let is_earlier = |place: &usize| {
        let is_earlier = (oldest..=next).contains(&at[*place]);
        next = if is_earlier { at[*place] } else { next };
        is_earlier
    };
    (0..at.len()).rev().filter(is_earlier).take(max).collect()
}

fn server_steps(figures: &HistoryFigures, places: &[usize]) -> Vec<ServerStep> {
    let HistoryFigures { at, verdict, answers, cache, .. } = figures;
    let rcodes = rcode_labels();
    let step = |&place: &usize| {
        let count = |column: Option<&Vec<u64>>| column.and_then(|column| column.get(place)).map_or(0, bounded);
        ServerStep {
            at: at[place],
            counts: ServerTotals {
                queries: Transport::ALL.map(|transport| count(answers.transports.get(transport.label()))),
                failures: count(Some(&answers.failures)),
                responses: ResponseSource::ALL.map(|source| count(answers.responses.get(source.label()))),
                rcodes: rcodes.each_ref().map(|label| count(answers.rcodes.get(label))),
                dropped: DropReason::ALL.map(|reason| count(answers.dropped.get(reason.label()))),
                cache: cache.as_ref().and_then(|CacheLookups { hits, stale_hits, misses }| {
                    let count = |column: &Column<u64>| value(column, place).map(|count| bounded(&count));
                    Some([count(hits)?, count(stale_hits)?, count(misses)?])
                }),
            },
            verdict: verdict.get(place).copied().unwrap_or_default(),
            is_carried: true,
        }
    };
    places.iter().map(step).collect()
}

fn pool_step(pool: &PoolHistory, place: usize) -> PoolStep {
    let count = |column: &Column<u64>| value(column, place).map_or(0, small);
    let time = |column: &Column<f64>| Percentile::of_millis(value(column, place));
    PoolStep {
        queries: count(&pool.queries),
        attempts: count(&pool.attempts),
        in_flight: count(&pool.in_flight),
        sent: count(&pool.hedges.sent),
        won: count(&pool.hedges.won),
        denied: count(&pool.hedges.denied),
        tokens: count(&pool.hedges.tokens),
        p50: time(&pool.p50_ms),
        p99: time(&pool.p99_ms),
        p999: time(&pool.p999_ms),
        is_there: value(&pool.queries, place).is_some(),
    }
}

/// Returns the step of a backend; `None` if the backend did not exist.
fn backend_step(backend: &BackendHistory, place: usize) -> Option<BackendStep> {
    Some(BackendStep {
        errors: value(&backend.errors, place).map(small)?,
        timeouts: value(&backend.timeouts, place).map(small)?,
        p50: Percentile::of_millis(value(&backend.p50_ms, place)),
        p99: Percentile::of_millis(value(&backend.p99_ms, place)),
        is_unusual: true,
    })
}

fn value<T: Copy>(column: &Column<T>, place: usize) -> Option<T> {
    column.get(place).copied().flatten()
}

/// Returns a count that can be added up without an overflow, whatever another process has written.
fn bounded(count: &u64) -> u64 {
    small(*count).into()
}
