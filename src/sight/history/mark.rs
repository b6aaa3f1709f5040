//! A histogram at one moment, in half of its size, to compute the difference to a later one.

use crate::log_linear::quantile;
use crate::metrics::{BUCKETS, HistogramSnapshot, time_of_bucket};

/// The counts of a histogram at one moment. They wrap; the difference is still right.
#[derive(Clone, Debug)]
pub(super) struct HistogramMark {
    counts: Box<[u32; BUCKETS]>,
    /// The sum, which does not wrap: a smaller one means that the histogram was reset.
    total: u64,
}

impl HistogramMark {
    pub(super) fn empty() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }

    pub(super) fn of(now: &HistogramSnapshot) -> Self {
        let mut mark = Self::empty();
        mark.set(now);
        mark
    }

    pub(super) fn set(&mut self, now: &HistogramSnapshot) {
        for (mark, count) in self.counts.iter_mut().zip(now.counts()) {
            *mark = *count as u32;
        }
        self.total = now.count();
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

    use super::*;
    use crate::metrics::{Aggregate, Histogram};

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
