//! The distribution of a latency, estimated from replies and from attempts whose latency is only known to be
//! longer than some time.

use std::time::Duration;

use crate::latency::{BUCKETS, Buckets};

/// The probability that a latency is at least the lower border of each bucket, and the upper one of the last.
#[derive(Clone, Debug)]
pub(crate) struct SurvivalCurve(Vec<f64>);

impl SurvivalCurve {
    /// Estimates a distribution by the method of Kaplan and Meier. An attempt that was silent for the time of
    /// a bucket counts as later than the replies in that bucket.
    pub(crate) fn of(replied: &[u64], beaten: &[u64]) -> Self {
        let mut open = replied.iter().chain(beaten).sum::<u64>();
        let mut later = 1.0;
        let mut curve = vec![later];
        for (bucket, &replied) in replied.iter().enumerate() {
            if open > 0 {
                later *= (open - replied) as f64 / open as f64;
            }
            open -= replied + beaten.get(bucket).copied().unwrap_or(0);
            curve.push(later);
        }
        Self(curve)
    }

    /// Returns the distribution of a choice among some distributions with these weights, whose sum is 1.
    pub(crate) fn mixture<'a>(curves: impl Iterator<Item = (f64, &'a Self)> + Clone) -> Self {
        let mean = |border: usize| curves.clone().map(|(weight, curve)| weight * curve.0[border]).sum();
        Self((0..=BUCKETS).map(mean).collect())
    }

    /// Returns the border within which this part of the times lies; `None` if too many have no known end.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        self.0.iter().position(|later| is_within(*later, part)).map(border)
    }

    /// Returns the probability of a time of at least this border.
    pub(crate) fn at(&self, border: usize) -> f64 {
        self.0[border]
    }

    /// Returns the probability of a longer time than this. Times in one bucket are taken as evenly spread.
    pub(crate) fn beyond(&self, micros: u64) -> f64 {
        let bucket = Buckets::bucket(micros);
        let (Some(from), Some(to)) = (self.0.get(bucket), self.0.get(bucket + 1)) else { return self.0[BUCKETS] };
        let (lower, upper) = (Buckets::border(bucket), Buckets::border(bucket + 1));
        from + (to - from) * (micros - lower) as f64 / (upper - lower) as f64
    }

    /// Returns the first border behind which at most this part of the times lies.
    pub(crate) fn reaches(&self, part: f64) -> usize {
        self.0.partition_point(|later| *later > part * (1.0 + 1e-9)).min(BUCKETS)
    }
}

/// Returns true if at most the rest of the target is late, but for the error of a product of many factors.
pub(crate) fn is_within(late: f64, target: f64) -> bool {
    late <= (1.0 - target) * (1.0 + 1e-9)
}

/// Returns the lower border of a bucket.
pub(crate) fn border(bucket: usize) -> Duration {
    Duration::from_micros(Buckets::border(bucket))
}
