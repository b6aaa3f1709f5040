//! The buckets of log-linear latency histograms.
//!
//! Above `STEPS` µs, a bucket is at most 1/`STEPS` of its lower border wide.

use std::time::Duration;

/// Log-linear buckets of microseconds, with `STEPS` (a power of two) per doubling.
#[derive(Clone, Copy, Debug)]
pub struct LogLinear<const STEPS: u64>;

impl<const STEPS: u64> LogLinear<STEPS> {
    /// Returns the bucket of a number of microseconds.
    #[inline]
    pub const fn bucket(micros: u64) -> usize {
        if micros < STEPS {
            return micros as usize;
        }
        let doubling = micros.ilog2() - STEPS.ilog2();
        (STEPS + doubling as u64 * STEPS + ((micros >> doubling) - STEPS)) as usize
    }

    /// Returns the bucket of a time, at most that of `max` µs. Fractions of a microsecond are cut off.
    #[inline]
    pub fn bucket_of(time: Duration, max: u64) -> usize {
        // `as_micros` would compute with 128 bits.
        let micros = time.as_secs().saturating_mul(1_000_000).saturating_add(time.subsec_micros().into());
        Self::bucket(micros.min(max))
    }

    /// Returns the lower border of a bucket, in µs, which is the exclusive upper border of the previous one.
    pub const fn border(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < STEPS {
            return bucket;
        }
        let (doubling, step) = ((bucket - STEPS) / STEPS, (bucket - STEPS) % STEPS);
        (STEPS + step) << doubling
    }
}

/// Returns the bucket with the quantile `part` (0.0 to 1.0) of the samples per bucket; `None` without
/// samples.
pub fn quantile(counts: &[u64], part: f64) -> Option<usize> {
    let count: u64 = counts.iter().sum();
    let rank = (part.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as u64;
    let mut sum = 0;
    counts.iter().position(|count| {
        sum += count;
        sum >= rank
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks that a time lies between the borders of its bucket, and checks these borders.
    fn check<const STEPS: u64>(micros: u64) {
        let bucket = LogLinear::<STEPS>::bucket(micros);
        let (lower, upper) = (LogLinear::<STEPS>::border(bucket), LogLinear::<STEPS>::border(bucket + 1));
        assert!((lower..upper).contains(&micros), "{lower} <= {micros} < {upper}");
        assert!(upper - lower == 1 || (upper - lower) * STEPS <= lower, "{lower} to {upper}");
    }

    #[test]
    fn buckets_are_exact_at_first() {
        assert!((0..16).all(|micros| LogLinear::<8>::bucket(micros) == micros as usize));
        assert_eq!((LogLinear::<8>::bucket(17), LogLinear::<8>::border(17)), (16, 18));
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let longest = LogLinear::<8>::bucket(1_000);
        assert_eq!(LogLinear::<8>::bucket_of(Duration::MAX, 1_000), longest);
        assert_eq!(LogLinear::<8>::bucket_of(Duration::from_nanos(1_999), 1_000), 1);
    }

    #[test]
    fn quantiles_are_found_by_rank() {
        let counts = [0, 2, 0, 1, 1];
        for (part, expected) in [(0.0, 1), (0.5, 1), (0.51, 3), (0.75, 3), (0.76, 4), (1.0, 4), (2.0, 4)] {
            assert_eq!(quantile(&counts, part), Some(expected), "{part}");
        }
        assert_eq!((quantile(&[0, 0], 0.5), quantile(&[], 0.5)), (None, None));
    }

    proptest! {
        #[test]
        fn a_time_lies_between_the_borders_of_its_bucket(micros in 0..=u64::MAX >> 9) {
            check::<8>(micros);
            check::<32>(micros);
            check::<128>(micros);
        }
    }
}
