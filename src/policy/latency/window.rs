//! The latencies of a while: how many replies took how long, in an epoch that is filled and the one before.
//!
//! Buckets are log-linear: each microsecond has its own at first, and then each doubling has [`STEPS`]. Within a bucket
//! samples are taken to lie evenly. When an epoch is over, the one before is forgotten.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// When an epoch is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// With so many samples,
    pub(super) enough: u32,
    /// but not before this.
    pub(super) shortest: Duration,
    /// With so many samples already,
    pub(super) few: u32,
    /// if it has lasted so long.
    pub(super) usual: Duration,
    /// After this in any case.
    pub(super) longest: Duration,
}

/// The samples of one to two epochs.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// The replies of this epoch, by bucket.
    current: [u16; BUCKETS],
    /// The replies of the epoch before, by bucket.
    previous: [u16; BUCKETS],
    /// The replies of both up to and with each bucket, as of the last refresh.
    sums: [u32; BUCKETS],
    /// How many replies this epoch has.
    samples: u32,
    /// How many attempts were given up in this epoch, and how many in the one before.
    unanswered: [u32; 2],
    /// When this epoch began.
    began: Instant,
    /// When it is over.
    span: Span,
}

impl Window {
    /// Nothing yet.
    pub(super) fn new(span: Span, now: Instant) -> Self {
        Self {
            current: [0; BUCKETS],
            previous: [0; BUCKETS],
            sums: [0; BUCKETS],
            samples: 0,
            unanswered: [0; 2],
            began: now,
            span,
        }
    }

    /// Counts a reply. Returns whether a new epoch has begun.
    pub(super) fn add(&mut self, bucket: u16, now: Instant) -> bool {
        let is_over = self.is_over(now);
        if is_over {
            self.previous = std::mem::replace(&mut self.current, [0; BUCKETS]);
            self.unanswered = [0, self.unanswered[0]];
            self.samples = 0;
            self.began = now;
        }
        let count = &mut self.current[usize::from(bucket)];
        *count = count.saturating_add(1);
        self.samples += 1;
        is_over
    }

    /// Counts an attempt that was given up.
    pub(super) fn add_unanswered(&mut self) {
        self.unanswered[0] = self.unanswered[0].saturating_add(1);
    }

    /// Takes that back. It may be of either epoch, or forgotten.
    pub(super) fn take_unanswered(&mut self) {
        if let Some(count) = self.unanswered.iter_mut().find(|count| **count > 0) {
            *count -= 1;
        }
    }

    /// Forgets all but these replies.
    pub(super) fn start_anew(&mut self, replies: impl Iterator<Item = u16>, now: Instant) {
        *self = Self::new(self.span, now);
        for bucket in replies {
            self.add(bucket, now);
        }
    }

    /// Brings the sums up to date.
    pub(super) fn refresh(&mut self) {
        let mut sum = 0;
        for ((current, previous), total) in self.current.iter().zip(&self.previous).zip(&mut self.sums) {
            sum += u32::from(*current) + u32::from(*previous);
            *total = sum;
        }
    }

    /// How many replies there are, as of the last refresh.
    pub(super) fn replies(&self) -> u32 {
        self.sums[BUCKETS - 1]
    }

    /// How many attempts were given up.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered[0].saturating_add(self.unanswered[1])
    }

    /// The latency of this rank, counted from 1, the shortest.
    pub(super) fn at_rank(&self, rank: u32) -> Duration {
        let rank = rank.clamp(1, self.replies().max(1));
        let place = self.place_of(rank);
        let below = place.checked_sub(1).map_or(0, |place| self.sums[place]);
        let count = self.sums[place].saturating_sub(below).max(1);
        let (lowest, width) = bounds(place);
        // A bucket of one microsecond is exact.
        let inside = if width > 1 { width * u64::from(rank - below) / u64::from(count) } else { 0 };
        Duration::from_micros(lowest + inside)
    }

    /// The buckets of the middle half of the replies, and a little beyond; all, if there are fewer than `least`.
    pub(super) fn usual(&self, least: u32) -> RangeInclusive<u16> {
        let replies = self.replies();
        if replies < least {
            return 0..=u16::MAX;
        }
        let place = |rank: u32| self.place_of(rank.max(1)) as u16;
        place(replies / 4).saturating_sub(BEYOND)..=place(replies - replies / 4) + BEYOND
    }

    /// The bucket in which the reply of this rank is.
    fn place_of(&self, rank: u32) -> usize {
        self.sums.partition_point(|&sum| sum < rank).min(BUCKETS - 1)
    }

    /// Whether this epoch is over.
    fn is_over(&self, now: Instant) -> bool {
        let Span { enough, shortest, few, usual, longest } = self.span;
        let age = now.saturating_duration_since(self.began);
        self.samples >= MAX_SAMPLES
            || self.samples >= enough && age >= shortest
            || self.samples >= few && age >= usual
            || age >= longest
    }
}

pub(super) fn bucket(latency: Duration) -> u16 {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(MAX_MICROS);
    if micros < LINEAR {
        return micros as u16;
    }
    let doubling = micros.ilog2();
    let step = (micros >> (doubling - STEPS.ilog2())) - STEPS;
    (LINEAR + u64::from(doubling - LINEAR.ilog2()) * STEPS + step) as u16
}

/// The shortest latency of a bucket, and its width, both in µs.
fn bounds(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < LINEAR {
        return (bucket, 1);
    }
    let (doubling, step) = ((bucket - LINEAR) / STEPS, (bucket - LINEAR) % STEPS);
    // A step of the first doubling is LINEAR / STEPS wide.
    let width = (LINEAR / STEPS) << doubling;
    ((STEPS + step) * width, width)
}

/// Latencies below this, in µs, are counted exactly.
const LINEAR: u64 = 64;
/// Buckets for each doubling above: one is at most 1/32 wide.
const STEPS: u64 = 32;
/// Longer ones, in µs, count as this: 16.8 s, more than any attempt worth waiting for.
pub(super) const MAX_MICROS: u64 = (1 << 24) - 1;
/// The linear ones, and 18 doublings from 2^6 to 2^24.
pub(super) const BUCKETS: usize = (LINEAR + 18 * STEPS) as usize;
/// What is this far outside the middle half of the replies is unusual: a quarter of a doubling.
const BEYOND: u16 = STEPS as u16 / 4;
/// No epoch has more samples than this, or a bucket might overflow.
const MAX_SAMPLES: u32 = u16::MAX as u32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_has_the_last_bucket() {
        assert_eq!(usize::from(bucket(Duration::from_micros(MAX_MICROS))), BUCKETS - 1);
        assert_eq!(usize::from(bucket(Duration::MAX)), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_latencies_and_is_narrow(micros in 0..=MAX_MICROS) {
            let (lowest, width) = bounds(bucket(Duration::from_micros(micros)).into());
            prop_assert!((lowest..lowest + width).contains(&micros), "{} us: {} and {} more", micros, lowest, width);
            prop_assert!(width == 1 || width * 32 <= micros, "{} us: {} wide", micros, width);
        }
    }
}
