//! The history of one pool.

use std::collections::VecDeque;

use super::mark::{Counts, Mark, Percentile, median};
use super::steps::{PoolStep, Ring, grown};
use super::{MARKS, MINUTES, SECONDS};
use crate::metrics::PoolSnapshot;
use crate::sight::live::{HedgesSecond, PoolMinute};

/// A pool, as it was second by second.
#[derive(Clone, Debug)]
pub(super) struct PoolTrack {
    pub(super) name: String,
    /// Whether there is a pool of that name now.
    pub(super) is_there: bool,
    /// The last second.
    pub(super) latest: PoolStep,
    /// What was denied by then, since the counter began.
    denied: u64,
    /// What was measured by then.
    second: Mark,
    /// All seconds added up: backends come and go, so that their counters cannot be.
    sums: Sums,
    /// What is kept of it; nothing, if there are too many pools.
    pub(super) kept: Option<Box<PoolRings>>,
}

/// What is kept of a pool.
#[derive(Clone, Debug)]
pub(super) struct PoolRings {
    pub(super) seconds: Ring<PoolStep>,
    pub(super) minutes: Ring<PoolStep>,
    /// The minute that has begun.
    open: PoolStep,
    /// What was measured before it.
    minute: Mark,
    /// How it stood each ten seconds of the last minute, the oldest first.
    marks: VecDeque<(Sums, Mark)>,
}

/// Seconds of a pool added up since it is watched.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    queries: u64,
    attempts: u64,
    sent: u64,
    won: u64,
    denied: u64,
}

/// What the backends of a pool have done in a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) attempts: u64,
    pub(super) sent: u64,
    pub(super) won: u64,
}

impl PoolTrack {
    /// A pool that there is. What it has counted so far was before our time if `is_old`.
    pub(super) fn new(pool: &PoolSnapshot, is_old: bool, is_kept: bool) -> Self {
        let mark = || if is_old { Mark::of(&pool.duration) } else { Mark::empty() };
        let kept = is_kept.then(|| {
            let mut marks = VecDeque::with_capacity(MARKS);
            marks.push_back((Sums::default(), mark()));
            Box::new(PoolRings {
                seconds: Ring::new(SECONDS),
                minutes: Ring::new(MINUTES),
                open: PoolStep::default(),
                minute: mark(),
                marks,
            })
        });
        Self {
            name: pool.name.clone(),
            is_there: true,
            latest: PoolStep::default(),
            denied: if is_old { pool.hedges_denied } else { 0 },
            second: mark(),
            sums: Sums::default(),
            kept,
        }
    }

    /// Takes a second.
    pub(super) fn take(&mut self, pool: &PoolSnapshot, work: Work) {
        let counts = self.second.until(&pool.duration);
        self.second.set(&pool.duration);
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let step = PoolStep {
            queries: small(counts.total()),
            attempts: small(work.attempts),
            in_flight: small(pool.in_flight),
            sent: small(work.sent),
            won: small(work.won),
            denied: grown(pool.hedges_denied, self.denied),
            tokens: small(pool.tokens),
            p50: counts.percentile(0.5),
            p99: counts.percentile(0.99),
            p999: counts.percentile(0.999),
            is_there: true,
        };
        self.denied = pool.hedges_denied;
        self.sums.queries += counts.total();
        self.sums.attempts += work.attempts;
        self.sums.sent += work.sent;
        self.sums.won += work.won;
        self.sums.denied += u64::from(step.denied);
        self.push(step);
    }

    /// There is no pool of that name in this second.
    pub(super) fn miss(&mut self) {
        if self.is_there {
            // If it comes back, it counts from nothing.
            (self.second, self.denied) = (Mark::empty(), 0);
            if let Some(kept) = &mut self.kept {
                kept.minute = Mark::empty();
                kept.marks.iter_mut().for_each(|(_, mark)| *mark = Mark::empty());
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

    /// Ten seconds are over.
    pub(super) fn end_ten(&mut self, pool: Option<&PoolSnapshot>) {
        let Some(kept) = &mut self.kept else { return };
        if kept.marks.len() == MARKS {
            kept.marks.pop_front();
        }
        let mark = pool.map_or_else(Mark::empty, |pool| Mark::of(&pool.duration));
        kept.marks.push_back((self.sums, mark));
    }

    /// A minute is over.
    pub(super) fn end_minute(&mut self, pool: Option<&PoolSnapshot>) {
        let Some(kept) = &mut self.kept else { return };
        let mut step = std::mem::take(&mut kept.open);
        if let Some(pool) = pool {
            let counts = kept.minute.until(&pool.duration);
            (step.p50, step.p99, step.p999) =
                (counts.percentile(0.5), counts.percentile(0.99), counts.percentile(0.999));
            kept.minute.set(&pool.duration);
        }
        kept.minutes.push(step);
    }

    /// The counters were given all of this at once.
    pub(super) fn carry(&mut self, given: &PoolSnapshot) {
        self.denied += given.hedges_denied;
        self.second.carry(&given.duration);
        if let Some(kept) = &mut self.kept {
            kept.minute.carry(&given.duration);
            kept.marks.iter_mut().for_each(|(_, mark)| mark.carry(&given.duration));
        }
    }

    /// What was measured in the last minute.
    pub(super) fn measured(&self, pool: &PoolSnapshot) -> Option<Counts> {
        let (_, mark) = self.kept.as_ref()?.marks.front()?;
        Some(mark.until(&pool.duration))
    }

    /// The last minute, up to the last second.
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

    /// The p99 that is usual: the median of those of the minutes of the last hour in which there were enough queries.
    pub(super) fn usual_p99(&self) -> Percentile {
        let Some(kept) = &self.kept else { return Percentile::NONE };
        let enough = kept.minutes.last(HOUR).filter(|minute| minute.queries >= MIN_QUERIES);
        median(enough.map(|minute| minute.p99), MIN_MINUTES)
    }

    /// Octets on the heap.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| {
            let marks = kept.marks.capacity() * size_of::<(Sums, Mark)>() + kept.marks.len() * Mark::OCTETS;
            size_of::<PoolRings>() + kept.seconds.octets() + kept.minutes.octets() + marks + Mark::OCTETS
        });
        self.name.capacity() + Mark::OCTETS + kept
    }
}

/// Minutes in an hour.
pub(super) const HOUR: usize = 60;
/// A p99 of fewer is the word of one query.
const MIN_QUERIES: u32 = 100;
/// Nothing is usual in less than that.
const MIN_MINUTES: usize = 5;
