//! How long one backend takes to reply, lately, as one worker sees it.
//!
//! A log-linear histogram of microseconds in two epochs: the current one is filled, the one before is
//! still counted, and what is older is forgotten. Reading is a search in sums that are brought up to date
//! now and then while recording, so a race may read at every step.
//!
//! What belongs in here is what a hedge or a grace should expect: the time that replies took, and for an
//! attempt that was beaten the time that it had lost by then ("at least so long"), corrected if its reply
//! still comes. Not the silence of a whole timeout: one dead backend, or one that is silent on a miss, would
//! lift every delay until no hedge ever fires.

use std::time::{Duration, Instant};

use super::rules::{Hedge, HedgeDelay};

/// The recent latency of one backend. About 4 KiB, no heap.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Samples of this epoch, by bucket.
    current: [u32; BUCKETS],
    /// Samples of the epoch before, by bucket.
    previous: [u32; BUCKETS],
    /// Samples of both epochs up to and with each bucket, as of the last refresh.
    sums: [u32; BUCKETS],
    /// How many samples this epoch has.
    samples: u32,
    /// How many samples came since the last refresh.
    stale: u32,
    /// When this epoch began.
    began: Instant,
}

impl Latency {
    /// No samples yet.
    pub fn new(now: Instant) -> Self {
        Self { current: [0; BUCKETS], previous: [0; BUCKETS], sums: [0; BUCKETS], samples: 0, stale: 0, began: now }
    }

    /// Adds a sample.
    pub fn record(&mut self, latency: Duration, now: Instant) {
        self.rotate(now);
        let count = &mut self.current[bucket(latency)];
        *count = count.saturating_add(1);
        self.samples = self.samples.saturating_add(1);
        self.stale += 1;
        if self.stale >= REFRESH_EVERY || self.samples <= MIN_SAMPLES {
            self.refresh();
        }
    }

    /// Replaces a sample that was only known to be "at least so long" by what it turned out to be.
    pub fn correct(&mut self, recorded: Duration, latency: Duration, now: Instant) {
        // The sample may be of either epoch, or forgotten.
        let place = bucket(recorded);
        if self.current[place] > 0 {
            self.current[place] -= 1;
            self.samples -= 1;
        } else {
            self.previous[place] = self.previous[place].saturating_sub(1);
        }
        self.record(latency, now);
    }

    /// The latency that this part (0.0 to 1.0) of the replies keeps, at most 5 % off; `None` before
    /// [`MIN_SAMPLES`] are in.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let total = self.sums[BUCKETS - 1];
        if total < MIN_SAMPLES {
            return None;
        }
        let rank = (part.clamp(0.0, 1.0) * f64::from(total)).ceil().max(1.0) as u32;
        let place = self.sums.partition_point(|&sum| sum < rank);
        Some(middle(place))
    }

    /// How long to wait for this backend before another is asked besides.
    pub fn hedge_delay(&self, hedge: &Hedge) -> Duration {
        let part = match hedge.delay {
            HedgeDelay::Fixed(delay) => return delay,
            HedgeDelay::Percentile(part) => part,
            // So many attempts are late as the budget can pay for.
            HedgeDelay::Auto => 1.0 - hedge.budget,
        };
        let delay = self.quantile(part).unwrap_or(hedge.max_delay);
        delay.max(hedge.min_delay).min(hedge.max_delay)
    }

    /// Begins a new epoch if this one is over.
    fn rotate(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        let enough = self.samples >= MIN_SAMPLES && age >= EPOCH;
        if !enough && age < LONGEST_EPOCH {
            return;
        }
        self.previous = std::mem::replace(&mut self.current, [0; BUCKETS]);
        self.samples = 0;
        self.began = now;
        self.refresh();
    }

    /// Brings the sums up to date.
    fn refresh(&mut self) {
        let mut sum = 0_u32;
        for ((current, previous), total) in self.current.iter().zip(&self.previous).zip(&mut self.sums) {
            sum = sum.saturating_add(current.saturating_add(*previous));
            *total = sum;
        }
        self.stale = 0;
    }
}

/// The bucket of a latency. Up to [`LINEAR`] µs each has its own; above, each doubling has [`STEPS`].
fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(LONGEST);
    if micros < LINEAR {
        return micros as usize;
    }
    let doubling = micros.ilog2();
    let step = (micros >> (doubling - STEPS.ilog2())) - STEPS;
    (LINEAR + u64::from(doubling - LINEAR.ilog2()) * STEPS + step) as usize
}

/// The latency that a bucket stands for: its middle.
fn middle(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    if bucket < LINEAR {
        return Duration::from_micros(bucket);
    }
    let (doubling, step) = ((bucket - LINEAR) / STEPS, (bucket - LINEAR) % STEPS);
    // A step of the first doubling is LINEAR / STEPS wide.
    let width = (LINEAR / STEPS) << doubling;
    Duration::from_micros((STEPS + step) * width + width / 2)
}

/// So few samples say nothing: `max_delay` holds until then.
pub const MIN_SAMPLES: u32 = 50;
/// Latencies below this, in µs, are counted exactly.
const LINEAR: u64 = 32;
/// Buckets for each doubling above: the middle of one is at most 1/32 off.
const STEPS: u64 = 16;
/// Longer ones, in µs, count as this: 16.8 s, more than any attempt worth waiting for.
const LONGEST: u64 = (1 << 24) - 1;
/// The linear ones, and 19 doublings from 2^5 to 2^24.
const BUCKETS: usize = (LINEAR + 19 * STEPS) as usize;
/// A refresh reads 336 buckets. So often, it costs less than the recording.
const REFRESH_EVERY: u32 = 64;
/// After one to two epochs a sample is forgotten: long enough for a p99, short enough to notice a change.
const EPOCH: Duration = Duration::from_secs(10);
/// A quiet backend's epoch lasts until it has samples enough, but not beyond this.
const LONGEST_EPOCH: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Microseconds.
    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// A histogram that starts now.
    fn latency() -> (Latency, Instant) {
        let now = Instant::now();
        (Latency::new(now), now)
    }

    #[test]
    fn stays_small() {
        assert!(size_of::<Latency>() <= 4096, "{}", size_of::<Latency>());
    }

    #[test]
    fn the_longest_has_the_last_bucket() {
        assert_eq!(bucket(us(LONGEST)), BUCKETS - 1);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn says_nothing_before_fifty_samples() {
        let (mut latency, now) = latency();
        for _ in 0..49 {
            latency.record(us(100), now);
        }
        assert_eq!(latency.quantile(0.5), None);
        assert_eq!(latency.hedge_delay(&Hedge::default()), Hedge::default().max_delay);
        latency.record(us(100), now);
        assert!(latency.quantile(0.5).is_some());
    }

    #[test]
    fn old_samples_are_forgotten() {
        let (mut latency, start) = latency();
        for epoch in 0..4 {
            for _ in 0..100 {
                latency.record(us(if epoch < 2 { 100_000 } else { 10 }), start + epoch * EPOCH);
            }
        }
        assert_eq!(latency.quantile(1.0), Some(us(10)));
    }

    #[test]
    fn a_quiet_backend_keeps_its_samples_until_there_are_enough() {
        let (mut latency, start) = latency();
        for second in 0..60 {
            latency.record(us(500), start + Duration::from_secs(second));
        }
        assert!(latency.quantile(0.5).is_some());
    }

    #[test]
    fn a_correction_takes_the_place_of_its_sample() {
        let (mut latency, now) = latency();
        for _ in 0..60 {
            latency.record(us(10), now);
        }
        for _ in 0..60 {
            latency.correct(us(10), us(20), now);
        }
        latency.refresh();
        assert_eq!(latency.quantile(0.0), Some(us(20)));
        assert_eq!(latency.sums[BUCKETS - 1], 60);
        // Nothing is left to be corrected: the new sample counts all the same.
        latency.correct(us(10), us(20), now);
        latency.refresh();
        assert_eq!(latency.sums[BUCKETS - 1], 61);
    }

    #[test]
    fn the_delay_follows_the_rules() {
        let (mut latency, now) = latency();
        for sample in 1..=1_000 {
            latency.record(us(sample * 100), now);
        }
        latency.refresh();
        let check = |delay, budget, expected: u64| {
            let hedge = Hedge { delay, budget, ..Hedge::default() };
            let actual = latency.hedge_delay(&hedge);
            assert!(actual.abs_diff(us(expected)) <= us(expected / 20), "{delay:?}: {actual:?}, not {expected} us");
        };
        check(HedgeDelay::Fixed(Duration::from_secs(2)), 0.05, 2_000_000);
        check(HedgeDelay::Percentile(0.5), 0.05, 50_000);
        check(HedgeDelay::Auto, 0.05, 95_000);
        check(HedgeDelay::Auto, 0.5, 50_000);
        // Clamped by `min_delay`.
        check(HedgeDelay::Auto, 1.0, 1_000);
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_five_percent_off(micros in 0..=LONGEST) {
            let off = middle(bucket(us(micros))).abs_diff(us(micros));
            prop_assert!(off.as_micros() as u64 * 20 <= micros, "{} us: {:?} off", micros, off);
        }

        #[test]
        fn quantiles_agree_with_sorting(mut samples in prop::collection::vec(0..2_000_000_u64, 50..500), part in 0.0..=1.0) {
            let (mut latency, now) = latency();
            for &sample in &samples {
                latency.record(us(sample), now);
            }
            latency.refresh();
            samples.sort_unstable();
            let rank = f64::ceil(part * samples.len() as f64).max(1.0) as usize;
            let exact = samples[rank - 1];
            let off = latency.quantile(part).expect("there are samples enough").abs_diff(us(exact));
            prop_assert!(off.as_micros() as u64 * 20 <= exact, "{:?} off {}", off, exact);
        }
    }
}
