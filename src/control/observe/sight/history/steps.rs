//! Compact time steps, and histograms in half of their size.

use std::collections::VecDeque;
use std::time::Duration;

use dns::{Rcode, Transport};
use hedge::log_linear::quantile;
use metrics::{
    BUCKETS, DropReason, HistogramSnapshot, ResponseSource, Snapshot, Tap, TapFate, bucket_of_time, time_of_bucket,
};

use crate::control::observe::sight::live::VerdictState;

/// Adds the newest item of a ring, which drops the oldest one if it has `max` items.
pub(super) fn push<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// Puts earlier items, the newest first, before the `own` items of a ring. A ring with fewer own items is
/// newer than these and gets none.
pub(super) fn prepend<T>(ring: &mut VecDeque<T>, own: usize, earlier: impl Iterator<Item = T>) {
    if ring.len() == own {
        earlier.for_each(|item| ring.push_front(item));
    }
}

/// The counts of the server: since its start, or of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerTotals {
    /// Queries of clients by transport.
    pub(super) queries: [u64; Transport::ALL.len()],
    pub(super) failures: u64,
    pub(super) responses: [u64; ResponseSource::ALL.len()],
    /// Responses with each of [`RCODES`], and with others.
    pub(super) rcodes: [u64; RCODES.len() + 1],
    pub(super) dropped: [u64; DropReason::ALL.len()],
    /// Hits, stale hits, misses.
    pub(super) cache: Option<[u64; 3]>,
}

impl ServerTotals {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let counts = &snapshot.counts;
        let mut rcodes = [0; RCODES.len() + 1];
        for (rcode, count) in counts.responses.iter().flat_map(|by_rcode| by_rcode.iter().enumerate()) {
            let place = RCODES.iter().position(|known| usize::from(known.0) == rcode);
            rcodes[place.unwrap_or(RCODES.len())] += count;
        }
        Self {
            queries: counts.queries,
            failures: counts.failures,
            responses: counts.responses.map(|by_rcode| by_rcode.iter().sum()),
            rcodes,
            dropped: counts.dropped,
            cache: snapshot.cache.map(|cache| [cache.stats.hits, cache.stats.stale_hits, cache.stats.misses]),
        }
    }

    /// Returns the growth since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut grown = *self;
        grown.join(earlier, growth);
        // A new cache counts from zero.
        let is_new = |(now, before): ([u64; 3], [u64; 3])| now.iter().zip(before).any(|(now, before)| *now < before);
        if self.cache.zip(earlier.cache).is_some_and(is_new) {
            grown.cache = self.cache;
        }
        grown
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.join(more, |sum, count| sum + count);
    }

    fn join(&mut self, other: &Self, join: fn(u64, u64) -> u64) {
        let each = |own: &mut [u64], other: &[u64]| join_each(own, other, join);
        self.failures = join(self.failures, other.failures);
        each(&mut self.queries, &other.queries);
        each(&mut self.responses, &other.responses);
        each(&mut self.rcodes, &other.rcodes);
        each(&mut self.dropped, &other.dropped);
        if let (Some(own), Some(other)) = (&mut self.cache, &other.cache) {
            each(own, other);
        }
    }

    pub(super) fn all_queries(&self) -> u64 {
        self.queries.iter().sum()
    }

    /// Counts queries without a backend's answer: with a generated response, or none.
    pub(super) fn made_up(&self) -> u64 {
        self.responses[ResponseSource::Synthesized as usize] + self.dropped[DropReason::Unanswered as usize]
    }

    pub(super) fn answered(&self) -> u64 {
        self.responses.iter().sum::<u64>() + self.dropped[DropReason::Unanswered as usize]
    }
}

/// Records of taps by fate: since the start, or in a second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TapTotals(pub(super) [[u64; TapFate::ALL.len()]; Tap::ALL.len()]);

impl TapTotals {
    /// Returns the growth since `earlier`.
    pub(super) fn since(mut self, earlier: &Self) -> Self {
        join_each(self.0.as_flattened_mut(), earlier.0.as_flattened(), growth);
        self
    }

    pub(super) fn add(&mut self, more: &Self) {
        join_each(self.0.as_flattened_mut(), more.0.as_flattened(), |sum, count| sum + count);
    }
}

/// Returns the growth of a counter. One that has fallen was reset.
fn growth(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

fn join_each(own: &mut [u64], other: &[u64], join: fn(u64, u64) -> u64) {
    own.iter_mut().zip(other).for_each(|(own, other)| *own = join(*own, *other));
}

/// The rcodes with a figure of their own.
pub(super) const RCODES: [Rcode; 4] = [Rcode::NOERROR, Rcode::NXDOMAIN, Rcode::SERVFAIL, Rcode::REFUSED];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerStep {
    pub(super) at: u64,
    pub(super) counts: ServerTotals,
    pub(super) verdict: VerdictState,
    /// True if a previous process has counted at least a part of it.
    pub(super) is_carried: bool,
}

impl ServerStep {
    pub(super) fn extend(&mut self, next: &Self) {
        self.at = next.at;
        // A minute has a cache if one of its seconds has one.
        if next.counts.cache.is_some() {
            self.counts.cache.get_or_insert_default();
        }
        self.counts.add(&next.counts);
        self.verdict = self.verdict.max(next.verdict);
        self.is_carried |= next.is_carried;
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
    /// True if the step says nothing about the usual latency: the backend was slow, or another process has
    /// measured it.
    pub(super) is_unusual: bool,
}

/// Returns the growth of a counter; all of it after a reset.
pub(super) fn grown(now: u64, before: u64) -> u32 {
    u32::try_from(now.checked_sub(before).unwrap_or(now)).unwrap_or(u32::MAX)
}

/// The counts of a histogram at one moment. They wrap; the difference is still right.
#[derive(Clone, Debug)]
pub(super) struct HistogramMark {
    counts: Box<[u32; BUCKETS]>,
    /// The sum, which does not wrap: a smaller one means that the histogram was reset.
    total: u64,
}

impl Default for HistogramMark {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl HistogramMark {
    pub(super) fn of(now: &HistogramSnapshot) -> Self {
        Self { counts: Box::new(now.counts().map(|count| count as u32)), total: now.count() }
    }

    /// Moves the mark, and returns the counts since the last one.
    pub(super) fn advance(&mut self, now: &HistogramSnapshot) -> Counts {
        let counts = self.until(now);
        *self.counts = now.counts().map(|count| count as u32);
        self.total = now.count();
        counts
    }

    /// Returns the counts since the mark; all, if the histogram was reset.
    pub(super) fn until(&self, now: &HistogramSnapshot) -> Counts {
        let mut counts = [0; BUCKETS];
        for ((count, now), mark) in counts.iter_mut().zip(now.counts()).zip(&*self.counts) {
            *count = u64::from((*now as u32).wrapping_sub(*mark));
        }
        let since = Counts(counts);
        // A bucket that has fallen shows as nearly 2^32.
        let is_grown = now.count().checked_sub(self.total).is_some_and(|grown| grown == since.total());
        if is_grown { since } else { Counts(*now.counts()) }
    }

    pub(super) fn carry(&mut self, given: &HistogramSnapshot) {
        for (mark, count) in self.counts.iter_mut().zip(given.counts()) {
            *mark = mark.wrapping_add(*count as u32);
        }
        self.total += given.count();
    }

    #[cfg(test)]
    pub(super) const OCTETS: usize = BUCKETS * size_of::<u32>();
}

#[derive(Clone, Debug)]
pub(super) struct Counts([u64; BUCKETS]);

impl Counts {
    pub(super) fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(super) fn percentile(&self, part: f64) -> Percentile {
        quantile(&self.0, part).map_or(Percentile::NONE, |bucket| Percentile(bucket as u8))
    }

    /// Counts the values at or above this bound, in µs.
    pub(super) fn from(&self, micros: u64) -> u64 {
        let is_above = |bucket: &usize| time_of_bucket(*bucket).as_micros() as u64 >= micros;
        (0..BUCKETS).filter(is_above).map(|bucket| self.0[bucket]).sum()
    }
}

/// A percentile as its bucket, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Percentile(u8);

impl Percentile {
    pub(super) const NONE: Self = Self(u8::MAX);

    pub(super) fn micros(self) -> Option<u64> {
        (self != Self::NONE).then(|| time_of_bucket(self.0.into()).as_micros() as u64)
    }

    pub(super) fn millis(self) -> Option<f64> {
        self.micros().map(|micros| micros as f64 / 1e3)
    }

    /// Returns the percentile that [`millis`](Self::millis) has shown.
    pub(super) fn of_millis(millis: Option<f64>) -> Self {
        let micros = |millis: f64| Duration::from_micros((millis * 1e3).round() as u64);
        millis.map_or(Self::NONE, |millis| Self(bucket_of_time(micros(millis)) as u8))
    }
}

impl Default for Percentile {
    fn default() -> Self {
        Self::NONE
    }
}

pub(super) fn median(of: impl Iterator<Item = Percentile>, min: usize) -> Percentile {
    let mut there: Vec<_> = of.filter(|percentile| *percentile != Percentile::NONE).collect();
    there.sort_unstable();
    if there.len() < min.max(1) { Percentile::NONE } else { there[there.len() / 2] }
}

const _: () = assert!(BUCKETS < u8::MAX as usize, "a byte holds the number of a bucket, with one value left for none");

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics::{Aggregate, Histogram};

    use super::*;

    fn snapshot(histogram: &Histogram) -> HistogramSnapshot {
        let mut snapshot = HistogramSnapshot::default();
        snapshot.collect(histogram);
        snapshot
    }

    #[test]
    fn a_percentile_is_that_of_what_came_since() {
        let histogram = Histogram::default();
        (0..1_000).for_each(|_| histogram.record(Duration::from_millis(1)));
        let mark = HistogramMark::of(&snapshot(&histogram));
        assert_eq!(mark.until(&snapshot(&histogram)).percentile(0.5), Percentile::NONE, "nothing came");
        (0..10).for_each(|_| histogram.record(Duration::from_millis(100)));
        let since = mark.until(&snapshot(&histogram));
        assert_eq!(since.total(), 10);
        let millis = since.percentile(0.5).millis().expect("something came");
        assert!((93.0..107.0).contains(&millis), "{millis}");
        assert_eq!((since.from(50_000), since.from(500_000)), (10, 0));
    }

    #[test]
    fn a_histogram_that_begins_anew_counts_from_nothing() {
        let histogram = Histogram::default();
        (0..1_000).for_each(|_| histogram.record(Duration::from_millis(1)));
        let mark = HistogramMark::of(&snapshot(&histogram));
        for more in [1, 2_000] {
            let other = Histogram::default();
            (0..more).for_each(|_| other.record(Duration::from_millis(9)));
            assert_eq!(mark.until(&snapshot(&other)).total(), more);
        }
    }

    #[test]
    fn what_is_carried_was_not_measured_here() {
        let (histogram, earlier) = (Histogram::default(), Histogram::default());
        (0..50).for_each(|_| earlier.record(Duration::from_millis(5)));
        let mut mark = HistogramMark::of(&snapshot(&histogram));
        snapshot(&earlier).carry(&histogram);
        mark.carry(&snapshot(&earlier));
        histogram.record(Duration::from_millis(1));
        assert_eq!(mark.until(&snapshot(&histogram)).total(), 1);
    }

    #[test]
    fn a_median_needs_enough() {
        let of = |buckets: &[u8], min| median(buckets.iter().map(|bucket| Percentile(*bucket)), min);
        assert_eq!(of(&[3, 1, 2, 255], 3), Percentile(2));
        assert_eq!(of(&[3, 1, 255, 255], 3), Percentile::NONE);
        assert_eq!(of(&[], 0), Percentile::NONE);
    }
}
