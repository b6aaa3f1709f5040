//! The history of one pool.

use std::collections::VecDeque;

use super::mark::{Counts, HistogramMark, Percentile, median};
use super::steps::{PoolStep, StepRing, grown};
use super::{MARKS, MINUTES, SECONDS};
use crate::metrics::PoolSnapshot;
use crate::sight::live::{HedgesSecond, PoolMinute};

#[derive(Clone, Debug)]
pub(super) struct PoolTrack {
    pub(super) name: String,
    pub(super) is_there: bool,
    pub(super) latest: PoolStep,
    denied: u64,
    second: HistogramMark,
    /// The sum of all seconds, because backends come and go with their counters.
    sums: Sums,
    pub(super) kept: Option<Box<PoolRings>>,
}

#[derive(Clone, Debug)]
pub(super) struct PoolRings {
    pub(super) seconds: StepRing<PoolStep>,
    pub(super) minutes: StepRing<PoolStep>,
    open: PoolStep,
    minute: HistogramMark,
    marks: VecDeque<(Sums, HistogramMark)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    queries: u64,
    attempts: u64,
    sent: u64,
    won: u64,
    denied: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BackendWork {
    pub(super) attempts: u64,
    pub(super) sent: u64,
    pub(super) won: u64,
}

impl PoolTrack {
    /// Creates the track of an existing pool. If `is_old`, its counts so far precede this history.
    pub(super) fn new(pool: &PoolSnapshot, is_old: bool, is_kept: bool) -> Self {
        let mark = || if is_old { HistogramMark::of(&pool.counts.duration) } else { HistogramMark::empty() };
        let kept = is_kept.then(|| {
            let mut marks = VecDeque::with_capacity(MARKS);
            marks.push_back((Sums::default(), mark()));
            Box::new(PoolRings {
                seconds: StepRing::new(SECONDS),
                minutes: StepRing::new(MINUTES),
                open: PoolStep::default(),
                minute: mark(),
                marks,
            })
        });
        Self {
            name: pool.name.clone(),
            is_there: true,
            latest: PoolStep::default(),
            denied: if is_old { pool.counts.hedges_denied } else { 0 },
            second: mark(),
            sums: Sums::default(),
            kept,
        }
    }

    pub(super) fn take(&mut self, pool: &PoolSnapshot, work: BackendWork) {
        let counts = self.second.until(&pool.counts.duration);
        self.second.set(&pool.counts.duration);
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let step = PoolStep {
            queries: small(counts.total()),
            attempts: small(work.attempts),
            in_flight: small(pool.counts.in_flight.0),
            sent: small(work.sent),
            won: small(work.won),
            denied: grown(pool.counts.hedges_denied, self.denied),
            tokens: small(pool.tokens),
            p50: counts.percentile(0.5),
            p99: counts.percentile(0.99),
            p999: counts.percentile(0.999),
            is_there: true,
        };
        self.denied = pool.counts.hedges_denied;
        self.sums.queries += counts.total();
        self.sums.attempts += work.attempts;
        self.sums.sent += work.sent;
        self.sums.won += work.won;
        self.sums.denied += u64::from(step.denied);
        self.push(step);
    }

    pub(super) fn miss(&mut self) {
        if self.is_there {
            // If it comes back, its counters start at zero.
            (self.second, self.denied) = (HistogramMark::empty(), 0);
            if let Some(kept) = &mut self.kept {
                kept.minute = HistogramMark::empty();
                kept.marks.iter_mut().for_each(|(_, mark)| *mark = HistogramMark::empty());
            }
        }
        self.push(PoolStep::default());
    }

    fn push(&mut self, step: PoolStep) {
        self.is_there = step.is_there;
        self.latest = step;
        if let Some(kept) = &mut self.kept {
            kept.seconds.push(step);
            kept.open.extend(&step);
        }
    }

    pub(super) fn end_ten(&mut self, pool: Option<&PoolSnapshot>) {
        let Some(kept) = &mut self.kept else { return };
        if kept.marks.len() == MARKS {
            kept.marks.pop_front();
        }
        let mark = pool.map_or_else(HistogramMark::empty, |pool| HistogramMark::of(&pool.counts.duration));
        kept.marks.push_back((self.sums, mark));
    }

    pub(super) fn end_minute(&mut self, pool: Option<&PoolSnapshot>) {
        let Some(kept) = &mut self.kept else { return };
        let mut step = std::mem::take(&mut kept.open);
        if let Some(pool) = pool {
            let counts = kept.minute.until(&pool.counts.duration);
            (step.p50, step.p99, step.p999) =
                (counts.percentile(0.5), counts.percentile(0.99), counts.percentile(0.999));
            kept.minute.set(&pool.counts.duration);
        }
        kept.minutes.push(step);
    }

    pub(super) fn carry(&mut self, given: &PoolSnapshot) {
        self.denied += given.counts.hedges_denied;
        self.second.carry(&given.counts.duration);
        if let Some(kept) = &mut self.kept {
            kept.minute.carry(&given.counts.duration);
            kept.marks.iter_mut().for_each(|(_, mark)| mark.carry(&given.counts.duration));
        }
    }

    pub(super) fn measured(&self, pool: &PoolSnapshot) -> Option<Counts> {
        let (_, mark) = self.kept.as_ref()?.marks.front()?;
        Some(mark.until(&pool.counts.duration))
    }

    pub(super) fn minute(&self, pool: &PoolSnapshot) -> Option<PoolMinute> {
        let counts = self.measured(pool)?;
        let (before, _) = self.kept.as_ref()?.marks.front()?;
        let hedges = HedgesSecond {
            sent: self.sums.sent - before.sent,
            won: self.sums.won - before.won,
            denied: self.sums.denied - before.denied,
            tokens: pool.tokens,
        };
        Some(PoolMinute {
            queries: self.sums.queries - before.queries,
            attempts: self.sums.attempts - before.attempts,
            p50_ms: counts.percentile(0.5).millis(),
            p99_ms: counts.percentile(0.99).millis(),
            p999_ms: counts.percentile(0.999).millis(),
            hedges,
        })
    }

    /// Returns the usual p99: the median over those minutes of the last hour with enough queries.
    pub(super) fn usual_p99(&self) -> Percentile {
        let Some(kept) = &self.kept else { return Percentile::NONE };
        let enough = kept.minutes.last(HOUR).filter(|minute| minute.queries >= MIN_QUERIES);
        median(enough.map(|minute| minute.p99), MIN_MINUTES)
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| {
            let marks =
                kept.marks.capacity() * size_of::<(Sums, HistogramMark)>() + kept.marks.len() * HistogramMark::OCTETS;
            size_of::<PoolRings>() + kept.seconds.octets() + kept.minutes.octets() + marks + HistogramMark::OCTETS
        });
        self.name.capacity() + HistogramMark::OCTETS + kept
    }
}

pub(super) const HOUR: usize = 60;
/// The queries required for a p99, so that one query does not decide it.
const MIN_QUERIES: u32 = 100;
const MIN_MINUTES: usize = 5;
