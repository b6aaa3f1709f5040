//! How long queries took, in buckets so fine that what is read from them is right to half a percent.

use std::time::Duration;

/// Counts of times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many fell into each bucket, up to the highest that has any.
    counts: Vec<u64>,
    /// How many there are.
    count: u64,
    /// The longest.
    max: Duration,
}

impl Histogram {
    /// Adds one.
    pub fn record(&mut self, time: Duration) {
        let bucket = bucket(time);
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
        let rank = (part.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut sum = 0;
        let place = self.counts.iter().position(|count| {
            sum += count;
            sum >= rank
        })?;
        let middle = Duration::from_micros((border(place) + border(place + 1)) / 2);
        Some(middle.min(self.max))
    }

    /// The complementary cumulative distribution: times, and which share is slower than each. It falls to 0 at the longest.
    pub fn ccdf(&self) -> Vec<(Duration, f64)> {
        let mut left = self.count;
        let mut points = Vec::new();
        for (place, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            left -= count;
            let upper = Duration::from_micros(border(place + 1)).min(self.max);
            points.push((upper, left as f64 / self.count as f64));
        }
        points
    }
}

/// The bucket of a time; what is below a microsecond is cut off.
fn bucket(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    if micros < STEPS {
        return micros as usize;
    }
    let doubling = micros.ilog2() - STEPS.ilog2();
    (STEPS + u64::from(doubling) * STEPS + ((micros >> doubling) - STEPS)) as usize
}

/// The lower border of a bucket, in µs.
fn border(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (doubling, step) = ((bucket - STEPS) / STEPS, (bucket - STEPS) % STEPS);
    (STEPS + step) << doubling
}

/// Buckets for each doubling: the middle of one is at most 1/256 off.
const STEPS: u64 = 128;

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
