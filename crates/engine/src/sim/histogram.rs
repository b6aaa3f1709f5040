//! Histogram of query times, with buckets so fine that a quantile is right to half a percent.

use std::time::Duration;

use hedge::log_linear::{LogLinear, quantile};

/// Counts of times by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeHistogram {
    counts: Vec<u64>,
    count: u64,
    max: Duration,
}

impl TimeHistogram {
    pub(crate) fn record(&mut self, time: Duration) {
        let bucket = Buckets::bucket_of(time, u64::MAX);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// Returns the longest time.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Returns the quantile at `part` (0.0 to 1.0); `None` if the histogram is empty.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let place = quantile(&self.counts, part)?;
        let middle = Duration::from_micros((Buckets::border(place) + Buckets::border(place + 1)) / 2);
        Some(middle.min(self.max))
    }

    /// Returns the complementary cumulative distribution: times, and the share that is slower than each.
    pub fn ccdf(&self) -> Vec<(Duration, f64)> {
        let mut left = self.count;
        let mut points = Vec::new();
        for (place, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            left -= count;
            let upper = Duration::from_micros(Buckets::border(place + 1)).min(self.max);
            points.push((upper, left as f64 / self.count as f64));
        }
        points
    }
}

/// Each doubling has 128 buckets: the middle of a bucket is at most 1/256 off.
type Buckets = LogLinear<128>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_quantile_and_no_curve() {
        let nothing = TimeHistogram::default();
        assert_eq!((nothing.quantile(0.5), nothing.ccdf()), (None, Vec::new()));
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(mut micros in prop::collection::vec(0..100_000_000_u64, 1..300), part in 0.0..=1.0) {
            let mut histogram = TimeHistogram::default();
            micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
            micros.sort_unstable();
            let exact = micros[f64::ceil(part * micros.len() as f64).max(1.0) as usize - 1];
            let read = histogram.quantile(part).expect("there are some").as_micros() as u64;
            prop_assert!(read.abs_diff(exact) * 200 <= exact, "{} is not {}", read, exact);
            prop_assert_eq!(histogram.max().as_micros() as u64, *micros.last().expect("there are some"));
        }

        #[test]
        fn merging_is_recording_all(one in prop::collection::vec(0..100_000_000_u64, 0..99), other in prop::collection::vec(0..100_000_000_u64, 0..99)) {
            let of = |times: &mut dyn Iterator<Item = &u64>| {
                let mut histogram = TimeHistogram::default();
                times.for_each(|&micros| histogram.record(Duration::from_micros(micros)));
                histogram
            };
            let mut merged = of(&mut one.iter());
            merged.merge(&of(&mut other.iter()));
            prop_assert_eq!(merged, of(&mut one.iter().chain(&other)));
        }

        #[test]
        fn the_curve_falls_to_nothing(micros in prop::collection::vec(0..100_000_000_u64, 1..300)) {
            let mut histogram = TimeHistogram::default();
            micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
            let curve = histogram.ccdf();
            prop_assert!(curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 > pair[1].1));
            prop_assert_eq!(curve.last().copied(), Some((histogram.max(), 0.0)));
        }
    }
}
