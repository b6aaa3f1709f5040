//! Compact time steps and the rings that hold them.

use std::collections::VecDeque;

use super::mark::Percentile;
use crate::metrics::{DropReason, ResponseSource, Snapshot, Tap, TapFate};
use crate::sight::live::VerdictState;

#[derive(Clone, Debug)]
pub(super) struct StepRing<T> {
    items: VecDeque<T>,
    max: usize,
}

impl<T> StepRing<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { items: VecDeque::with_capacity(max), max }
    }

    pub(super) fn push(&mut self, item: T) {
        if self.items.len() == self.max {
            self.items.pop_front();
        }
        self.items.push_back(item);
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.items.iter()
    }

    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &T> {
        self.items.iter().skip(self.items.len().saturating_sub(count))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut()
    }

    pub(super) fn latest_mut(&mut self) -> Option<&mut T> {
        self.items.back_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.items.capacity() * size_of::<T>()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerTotals {
    queries: u64,
    failures: u64,
    responses: [u64; ResponseSource::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
    /// Hits, stale hits, misses.
    cache: Option<[u64; 3]>,
    taps: Taps,
}

pub(super) type Taps = [[u64; TapFate::ALL.len()]; Tap::ALL.len()];

impl ServerTotals {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let counts = &snapshot.counts;
        Self {
            queries: counts.queries.iter().sum(),
            failures: counts.failures,
            responses: counts.responses.map(|by_rcode| by_rcode.iter().sum()),
            dropped: counts.dropped,
            cache: snapshot.cache.map(|cache| [cache.stats.hits, cache.stats.stale_hits, cache.stats.misses]),
            taps: counts.taps,
        }
    }

    /// Returns the step from `earlier` to this, which ends at `at`. A counter that has fallen was reset.
    pub(super) fn since(&self, earlier: &Self, at: u64) -> ServerStep {
        let zip = |now: &[u64], before: &[u64]| -> Vec<u32> {
            now.iter().zip(before).map(|(now, before)| grown(*now, *before)).collect()
        };
        let array = |counts: Vec<u32>| counts.try_into().expect("as many as there were");
        ServerStep {
            at,
            queries: grown(self.queries, earlier.queries),
            failures: grown(self.failures, earlier.failures),
            responses: array(zip(&self.responses, &earlier.responses)),
            dropped: zip(&self.dropped, &earlier.dropped).try_into().expect("as many as there were"),
            // A new cache counts from zero.
            cache: self.cache.map(|now| {
                let before = earlier.cache.filter(|before| now.iter().zip(before).all(|(now, before)| now >= before));
                zip(&now, &before.unwrap_or_default()).try_into().expect("as many as there were")
            }),
            verdict: VerdictState::Well,
        }
    }

    pub(super) fn taps_since(&self, earlier: &Self) -> Taps {
        let mut taps = self.taps;
        for (now, before) in taps.iter_mut().flatten().zip(earlier.taps.iter().flatten()) {
            *now = now.checked_sub(*before).unwrap_or(*now);
        }
        taps
    }

    pub(super) fn carry(&mut self, given: &Self) {
        self.queries += given.queries;
        self.failures += given.failures;
        self.taps.iter_mut().flatten().zip(given.taps.iter().flatten()).for_each(|(sum, count)| *sum += count);
        self.responses.iter_mut().zip(given.responses).for_each(|(sum, count)| *sum += count);
        self.dropped.iter_mut().zip(given.dropped).for_each(|(sum, count)| *sum += count);
        if let (Some(sums), Some(given)) = (&mut self.cache, given.cache) {
            sums.iter_mut().zip(given).for_each(|(sum, count)| *sum += count);
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerStep {
    pub(super) at: u64,
    pub(super) queries: u32,
    pub(super) failures: u32,
    pub(super) responses: [u32; ResponseSource::ALL.len()],
    pub(super) dropped: [u32; DropReason::ALL.len()],
    /// Hits, stale hits, misses.
    pub(super) cache: Option<[u32; 3]>,
    pub(super) verdict: VerdictState,
}

impl ServerStep {
    pub(super) fn extend(&mut self, next: &Self) {
        self.at = next.at;
        self.queries = self.queries.saturating_add(next.queries);
        self.failures = self.failures.saturating_add(next.failures);
        self.responses.iter_mut().zip(next.responses).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        self.dropped.iter_mut().zip(next.dropped).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        if let Some(cache) = next.cache {
            let sums = self.cache.get_or_insert_default();
            sums.iter_mut().zip(cache).for_each(|(sum, count)| *sum = sum.saturating_add(count));
        }
        self.verdict = self.verdict.max(next.verdict);
    }

    /// Counts queries without a backend's answer: with a generated response, or none.
    pub(super) fn made_up(&self) -> u64 {
        u64::from(self.responses[ResponseSource::Synthesized as usize])
            + u64::from(self.dropped[DropReason::Unanswered as usize])
    }

    pub(super) fn answered(&self) -> u64 {
        let responses: u64 = self.responses.iter().copied().map(u64::from).sum();
        responses + u64::from(self.dropped[DropReason::Unanswered as usize])
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PoolStep {
    pub(super) queries: u32,
    pub(super) attempts: u32,
    pub(super) in_flight: u32,
    pub(super) sent: u32,
    pub(super) won: u32,
    pub(super) denied: u32,
    pub(super) tokens: u32,
    pub(super) p50: Percentile,
    pub(super) p99: Percentile,
    pub(super) p999: Percentile,
    pub(super) is_there: bool,
}

impl PoolStep {
    /// Adds the next step, without percentiles, which cannot be added.
    pub(super) fn extend(&mut self, next: &Self) {
        self.queries = self.queries.saturating_add(next.queries);
        self.attempts = self.attempts.saturating_add(next.attempts);
        self.sent = self.sent.saturating_add(next.sent);
        self.won = self.won.saturating_add(next.won);
        self.denied = self.denied.saturating_add(next.denied);
        self.is_there |= next.is_there;
        (self.in_flight, self.tokens) = (next.in_flight, next.tokens);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendStep {
    pub(super) errors: u32,
    pub(super) timeouts: u32,
    pub(super) p50: Percentile,
    pub(super) p99: Percentile,
    pub(super) is_slow: bool,
}

/// Returns the growth of a counter; all of it after a reset.
pub(super) fn grown(now: u64, before: u64) -> u32 {
    u32::try_from(now.checked_sub(before).unwrap_or(now)).unwrap_or(u32::MAX)
}
