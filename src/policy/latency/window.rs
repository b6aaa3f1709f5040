//! The latencies of a while: how many replies took how long, in an epoch that is filled and the one before.
//!
//! Buckets are log-linear. Within a bucket samples are taken to lie evenly. When an epoch is over, the one before is forgotten.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::image::{age_millis, before};
use crate::log_linear::LogLinear;

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

/// A window to be told to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WindowImage {
    /// The buckets of this epoch that are not empty, by number.
    current: Vec<(u16, u16)>,
    /// The same of the epoch before.
    previous: Vec<(u16, u16)>,
    /// How many attempts were given up in this epoch, and how many in the one before.
    unanswered: [u32; 2],
    /// How long ago this epoch began, in milliseconds.
    age: u64,
}

impl Window {
    /// What it holds, for another process.
    pub(super) fn image(&self, now: Instant) -> WindowImage {
        let filled = |counts: &[u16; BUCKETS]| {
            (0..).zip(counts).filter(|(_, count)| **count > 0).map(|(bucket, &count)| (bucket, count)).collect()
        };
        WindowImage {
            current: filled(&self.current),
            previous: filled(&self.previous),
            unanswered: self.unanswered,
            age: age_millis(self.began, now),
        }
    }

    /// What another process had; a refresh is due.
    pub(super) fn of_image(image: &WindowImage, span: Span, now: Instant) -> Self {
        let counts = |filled: &[(u16, u16)]| {
            let mut counts = [0; BUCKETS];
            for &(bucket, count) in filled {
                counts[usize::from(bucket).min(BUCKETS - 1)] = count;
            }
            counts
        };
        let samples = image.current.iter().map(|&(_, count)| u32::from(count)).sum();
        Self {
            current: counts(&image.current),
            previous: counts(&image.previous),
            samples,
            unanswered: image.unanswered,
            began: before(now, image.age),
            ..Self::new(span, now)
        }
    }

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
        let (lowest, width) = (Buckets::border(place), Buckets::border(place + 1) - Buckets::border(place));
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

/// The bucket of a latency.
pub(super) fn bucket(latency: Duration) -> u16 {
    Buckets::bucket_of(latency, MAX_MICROS) as u16
}

/// One is at most 1/32 wide.
type Buckets = LogLinear<STEPS>;

/// Buckets for each doubling.
const STEPS: u64 = 32;
/// Longer ones, in µs, count as this: 16.8 s, more than any attempt worth waiting for.
pub(super) const MAX_MICROS: u64 = (1 << 24) - 1;
/// Up to and with that of the longest.
pub(super) const BUCKETS: usize = Buckets::bucket(MAX_MICROS) + 1;
/// What is this far outside the middle half of the replies is unusual: a quarter of a doubling.
const BEYOND: u16 = STEPS as u16 / 4;
/// No epoch has more samples than this, or a bucket might overflow.
const MAX_SAMPLES: u32 = u16::MAX as u32;
