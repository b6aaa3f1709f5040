//! How long things took: a log-linear histogram of microseconds that one thread fills and any thread reads.
//!
//! A bucket is at most an eighth of its lower border wide. 192 of them reach to 67 s, and longer ones count as that. A snapshot adds up histograms of many workers.

use std::array;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::Counter;
use crate::log_linear::{LogLinear, quantile};

/// What one thread has measured. About 1.5 KiB, no heap.
#[derive(Debug)]
pub struct Histogram {
    /// How many fell into each bucket.
    counts: [Counter; BUCKETS],
    /// All of them together, in ns.
    nanos: Counter,
}

impl Histogram {
    /// Adds one.
    pub fn record(&self, duration: Duration) {
        self.counts[Buckets::bucket_of(duration, MAX_MICROS)].increment();
        self.nanos.add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds what another process has measured.
    pub fn add(&self, measured: &HistogramSnapshot) {
        for (sum, count) in self.counts.iter().zip(measured.counts()) {
            sum.add(*count);
        }
        self.nanos.add(measured.nanos);
    }
}

impl Default for Histogram {
    /// Nothing was measured yet.
    fn default() -> Self {
        Self { counts: array::from_fn(|_| Counter::default()), nanos: Counter::default() }
    }
}

/// Histograms added up. It takes 1.5 KiB once there is something in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Filled", into = "Filled")]
pub struct HistogramSnapshot {
    /// How many fell into each bucket; `None`: none at all.
    counts: Option<Box<[u64; BUCKETS]>>,
    /// All of them together, in ns.
    nanos: u64,
}

impl HistogramSnapshot {
    /// Adds what is in `histogram` now.
    pub fn add(&mut self, histogram: &Histogram) {
        if self.counts.is_none() && histogram.counts.iter().all(|count| count.get() == 0) {
            return;
        }
        let counts = self.counts.get_or_insert_with(|| Box::new([0; BUCKETS]));
        for (sum, count) in counts.iter_mut().zip(&histogram.counts) {
            *sum += count.get();
        }
        self.nanos = self.nanos.saturating_add(histogram.nanos.get());
    }

    /// What was added since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let nanos = self.nanos.saturating_sub(earlier.nanos);
        let (Some(counts), before) = (&self.counts, earlier.counts()) else { return Self { counts: None, nanos } };
        let counts = array::from_fn(|bucket| counts[bucket].saturating_sub(before[bucket]));
        Self { counts: Some(Box::new(counts)), nanos }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        // Not a counter of its own: read while the writer is at work, it would not agree with the buckets.
        self.counts().iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }

    /// What this part (0.0 to 1.0) of them keeps, at most a sixteenth off; `None` if there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        quantile(self.counts(), part).map(time_of_bucket)
    }

    /// How many fell into each bucket.
    pub fn counts(&self) -> &[u64; BUCKETS] {
        self.counts.as_deref().unwrap_or(&[0; BUCKETS])
    }

    /// The buckets that are not empty: lower border, upper border, how many. The lower one is in the bucket, the upper one is not.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> + '_ {
        let filled = self.counts().iter().enumerate().filter(|(_, count)| **count > 0);
        let at = |bucket| Duration::from_micros(Buckets::border(bucket));
        filled.map(move |(bucket, &count)| (at(bucket), at(bucket + 1), count))
    }

    /// How many are certainly not above `bound`: those of all buckets that end at or below it. A bucket that `bound` cuts in
    /// two is left out, so that a quantile read from such counts is never too good; it is too bad by an eighth at most.
    pub fn at_most(&self, bound: Duration) -> u64 {
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        self.counts()
            .iter()
            .zip(1..)
            .take_while(|&(_, next)| Buckets::border(next) <= micros)
            .map(|(count, _)| count)
            .sum()
    }
}

/// The same as a process tells another: only the buckets that are not empty.
#[derive(Serialize, Deserialize)]
struct Filled {
    /// The buckets by number, and how many fell into each.
    counts: Vec<(usize, u64)>,
    /// All of them together, in ns.
    nanos: u64,
}

impl From<HistogramSnapshot> for Filled {
    fn from(snapshot: HistogramSnapshot) -> Self {
        let filled = snapshot.counts().iter().copied().enumerate().filter(|(_, count)| *count > 0);
        Self { counts: filled.collect(), nanos: snapshot.nanos }
    }
}

impl From<Filled> for HistogramSnapshot {
    fn from(Filled { counts: filled, nanos }: Filled) -> Self {
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

/// The time that stands for a bucket: its middle.
pub fn time_of_bucket(bucket: usize) -> Duration {
    Duration::from_micros((Buckets::border(bucket) + Buckets::border(bucket + 1) - 1) / 2)
}

/// One is at most an eighth wide.
type Buckets = LogLinear<STEPS>;

/// Buckets for each doubling.
const STEPS: u64 = 8;
/// Longer ones, in µs, count as this: 67 s, more than any timeout that a config may set.
const MAX_MICROS: u64 = (1 << 26) - 1;
/// Up to and with that of the longest.
pub const BUCKETS: usize = Buckets::bucket(MAX_MICROS) + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A snapshot of these, in µs.
    fn snapshot_of(samples: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::default();
        samples.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
        let mut snapshot = HistogramSnapshot::default();
        snapshot.add(&histogram);
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
        sum.add(&other);
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
