//! A log-linear histogram of durations in microseconds, with one writer and many readers.
//!
//! A bucket is at most an eighth of its lower bound wide. 192 buckets reach to 67 s, the largest value.

use std::array;
use std::time::Duration;

use hedge::log_linear::{LogLinear, quantile};
use serde::{Deserialize, Deserializer, Serialize};

use super::aggregate::{Aggregate, Counter};

/// The durations that one thread has measured. About 1.5 KiB, without heap memory.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; BUCKETS],
    nanos: Counter,
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&self, duration: Duration) {
        self.counts[bucket_of_time(duration)].increment();
        self.nanos.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: array::from_fn(|_| Counter::default()), nanos: Counter::default() }
    }
}

/// A sum of histograms. It allocates 1.5 KiB when it is not empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "SparseHistogram", into = "SparseHistogram")]
pub struct HistogramSnapshot {
    counts: Option<Box<[u64; BUCKETS]>>,
    nanos: u64,
}

impl Aggregate for HistogramSnapshot {
    type Counted = Histogram;

    fn collect(&mut self, counted: &Histogram) {
        if self.counts.is_none() && counted.counts.iter().all(|count| count.get() == 0) {
            return;
        }
        self.counts.get_or_insert_with(|| Box::new([0; BUCKETS])).collect(&counted.counts);
        self.nanos = self.nanos.saturating_add(counted.nanos.get());
    }

    fn subtract(&mut self, earlier: &Self) {
        if let Some(counts) = &mut self.counts {
            counts.subtract(earlier.counts());
        }
        self.nanos.subtract(&earlier.nanos);
    }

    fn carry(&self, to: &Histogram) {
        self.counts().carry(&to.counts);
        self.nanos.carry(&to.nanos);
    }

    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::deserialize(from)
    }

    fn none() -> Self {
        Self::default()
    }
}

impl HistogramSnapshot {
    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        // No separate counter: a read during a write would not agree with the buckets.
        self.counts().iter().sum()
    }

    /// Returns the sum of all durations.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// Returns the quantile `part` (0.0 to 1.0), at most a sixteenth off; `None` if the histogram is empty.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        quantile(self.counts(), part).map(time_of_bucket)
    }

    /// Returns the number of durations in each bucket.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        self.counts.as_deref().unwrap_or(&[0; BUCKETS])
    }

    /// Returns the lower bound (inclusive), upper bound (exclusive) and count of each filled bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> + '_ {
        let filled = self.counts().iter().enumerate().filter(|(_, count)| **count > 0);
        let at = |bucket| Duration::from_micros(Buckets::border(bucket));
        filled.map(move |(bucket, &count)| (at(bucket), at(bucket + 1), count))
    }

    /// Returns the number of durations in the buckets that end at or below `bound`. A bucket that `bound`
    /// cuts is left out, so a quantile from these counts is never too low, and at most an eighth too high.
    pub(crate) fn at_most(&self, bound: Duration) -> u64 {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        self.counts()
            .iter()
            .zip(1..)
            .take_while(|&(_, next)| Buckets::border(next) <= micros)
            .map(|(count, _)| count)
            .sum()
    }
}

#[derive(Serialize, Deserialize)]
struct SparseHistogram {
    counts: Vec<(usize, u64)>,
    nanos: u64,
}

impl From<HistogramSnapshot> for SparseHistogram {
    fn from(snapshot: HistogramSnapshot) -> Self {
        let filled = snapshot.counts().iter().copied().enumerate().filter(|(_, count)| *count > 0);
        Self { counts: filled.collect(), nanos: snapshot.nanos }
    }
}

impl From<SparseHistogram> for HistogramSnapshot {
    fn from(SparseHistogram { counts: filled, nanos }: SparseHistogram) -> Self {
        if filled.is_empty() {
            return Self { counts: None, nanos };
        }
        let mut counts = Box::new([0; BUCKETS]);
        for (bucket, count) in filled {
            counts[bucket.min(BUCKETS - 1)] += count;
        }
        Self { counts: Some(counts), nanos }
    }
}

impl PartialEq for HistogramSnapshot {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos && self.counts() == other.counts()
    }
}

impl Eq for HistogramSnapshot {}

/// Returns the middle of a bucket.
pub fn time_of_bucket(bucket: usize) -> Duration {
    Duration::from_micros((Buckets::border(bucket) + Buckets::border(bucket + 1) - 1) / 2)
}

/// Returns the bucket of a time.
#[inline]
pub fn bucket_of_time(time: Duration) -> usize {
    Buckets::bucket_of(time, MAX_MICROS)
}

type Buckets = LogLinear<STEPS>;

const STEPS: u64 = 8;
/// Longer durations count as this, in µs: 67 s, more than any timeout that a config may set.
const MAX_MICROS: u64 = (1 << 26) - 1;
/// The number of buckets.
pub const BUCKETS: usize = Buckets::bucket(MAX_MICROS) + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot_of(samples: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        samples.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
        let mut snapshot = HistogramSnapshot::default();
        snapshot.collect(&histogram);
        snapshot
    }

    #[test]
    fn nothing_has_no_quantile() {
        let nothing = HistogramSnapshot::default();
        assert_eq!(nothing.quantile(0.5), None);
        assert_eq!((nothing.count(), nothing.sum()), (0, Duration::ZERO));
    }

    #[test]
    fn the_longest_has_the_last_bucket() {
        assert_eq!(Buckets::bucket_of(Duration::MAX, MAX_MICROS), BUCKETS - 1);
        assert_eq!((BUCKETS, Buckets::border(BUCKETS)), (192, MAX_MICROS + 1));
    }

    #[test]
    fn workers_are_added_up() {
        let mut sum = snapshot_of(&[10, 20]);
        let other = Histogram::default();
        other.record(Duration::from_nanos(30_500));
        sum.collect(&other);
        assert_eq!((sum.count(), sum.sum()), (3, Duration::from_nanos(60_500)));
        assert_eq!(sum.quantile(0.0), Some(Duration::from_micros(10)));
    }

    #[test]
    fn only_filled_buckets_are_told() {
        let us = Duration::from_micros;
        let buckets: Vec<_> = snapshot_of(&[3, 96, 100, 3]).buckets().collect();
        assert_eq!(buckets, [(us(3), us(4), 2), (us(96), us(104), 2)]);
    }

    #[test]
    fn a_bucket_that_a_bound_cuts_is_left_out() {
        // 96 to 103 µs are one bucket.
        let samples = snapshot_of(&[95, 96, 100, 103, 104]);
        let check = |bound, expected| assert_eq!(samples.at_most(Duration::from_micros(bound)), expected, "{bound}");
        check(95, 0);
        check(96, 1);
        check(100, 1);
        check(104, 4);
        check(111, 4);
        check(112, 5);
        check(u64::MAX, 5);
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(
            mut samples in prop::collection::vec(0..60_000_000_u64, 1..300),
            part in 0.0..=1.0,
        ) {
            let snapshot = snapshot_of(&samples);
            samples.sort_unstable();
            let exact = samples[f64::ceil(part * samples.len() as f64).max(1.0) as usize - 1];
            let read = snapshot.quantile(part).expect("there are samples").as_micros() as u64;
            prop_assert!(read.abs_diff(exact) * 16 <= exact, "{} is not near {}", read, exact);
        }

        #[test]
        fn counts_below_a_bound_are_never_too_many(
            samples in prop::collection::vec(0..20_000_000_u64, 0..300),
            bound in 0..20_000_000_u64,
        ) {
            let counted = snapshot_of(&samples).at_most(Duration::from_micros(bound)) as usize;
            let exact = |bound| samples.iter().filter(|&&micros| micros <= bound).count();
            prop_assert!(counted <= exact(bound) && counted >= exact((bound - bound / 8).saturating_sub(1)));
        }
    }
}
