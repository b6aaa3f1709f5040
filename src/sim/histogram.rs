//! How long queries took, in buckets so fine that what is read from them is right to half a percent.

use std::time::Duration;

use crate::log_linear::{LogLinear, quantile};

/// Counts of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell into each bucket, up to the highest that has any.
    counts: Vec<u64>,
    count: u64,
    /// The longest.
    max: Duration,
}

impl Histogram {
    /// Adds one.
    pub fn record(&mut self, time: Duration) {
        let bucket = Buckets::bucket_of(time, u64::MAX);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.count += 1;
        self.max = self.max.max(time);
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// What this part (0.0 to 1.0) of them keeps; `None` if there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let place = quantile(&self.counts, part)?;
        let middle = Duration::from_micros((Buckets::border(place) + Buckets::border(place + 1)) / 2);
        Some(middle.min(self.max))
    }

    /// The complementary cumulative distribution: times, and which share is slower than each. It falls to 0 at the longest.
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

/// There are 128 for each doubling: the middle of one is at most 1/256 off.
type Buckets = LogLinear<128>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_quantile_and_no_curve() {
        let nothing = Histogram::default();
        assert_eq!((nothing.quantile(0.5), nothing.ccdf()), (None, Vec::new()));
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(mut micros in prop::collection::vec(0..100_000_000_u64, 1..300), part in 0.0..=1.0) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
            micros.sort_unstable();
            let exact = micros[f64::ceil(part * micros.len() as f64).max(1.0) as usize - 1];
            let read = histogram.quantile(part).expect("there are some").as_micros() as u64;
            prop_assert!(read.abs_diff(exact) * 200 <= exact, "{} is not {}", read, exact);
            prop_assert_eq!(histogram.max().as_micros() as u64, *micros.last().expect("there are some"));
        }

        #[test]
        fn the_curve_falls_to_nothing(micros in prop::collection::vec(0..100_000_000_u64, 1..300)) {
            let mut histogram = Histogram::default();
            micros.iter().for_each(|&micros| histogram.record(Duration::from_micros(micros)));
            let curve = histogram.ccdf();
            prop_assert!(curve.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 > pair[1].1));
            prop_assert_eq!(curve.last().copied(), Some((histogram.max(), 0.0)));
        }
    }
}
