//! Counts of attempts and races by their time, one writer each, and their sums.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::latency::{BUCKETS, TimeBucket};
use crate::race::AttemptKind;

/// The attempts and races of one worker: 12.5 KiB. One thread counts, any thread reads.
#[derive(Debug)]
pub struct RegretTally([[AtomicU32; BUCKETS]; BucketRow::COUNT]);

/// A row of counts by bucket.
#[derive(Clone, Copy, Debug)]
pub(super) enum BucketRow {
    /// The time of races to the reply that won.
    Race,
    /// The time to the reply to a first attempt.
    FirstReplied,
    /// The least time of a first attempt, known when its race ended.
    FirstBeaten,
    /// The time to the reply to a second attempt.
    SecondReplied,
    /// The least time of a second attempt.
    SecondBeaten,
}

impl BucketRow {
    const COUNT: usize = 5;

    fn replied(kind: AttemptKind) -> Self {
        match kind {
            AttemptKind::First => Self::FirstReplied,
            AttemptKind::Hedge | AttemptKind::Failover => Self::SecondReplied,
        }
    }

    fn beaten(kind: AttemptKind) -> Self {
        match kind {
            AttemptKind::First => Self::FirstBeaten,
            AttemptKind::Hedge | AttemptKind::Failover => Self::SecondBeaten,
        }
    }
}

/// An attempt that had no reply when its race ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatenAttempt {
    /// The reason of the attempt.
    pub kind: AttemptKind,
    /// Where it is counted; `None` if no attempt has won the race.
    bucket: Option<TimeBucket>,
}

impl BeatenAttempt {
    /// Returns an attempt of a race without a winner, which is not counted.
    pub fn uncounted(kind: AttemptKind) -> Self {
        Self { kind, bucket: None }
    }
}

impl Default for RegretTally {
    fn default() -> Self {
        Self([const { [const { AtomicU32::new(0) }; BUCKETS] }; BucketRow::COUNT])
    }
}

impl RegretTally {
    /// Counts a race whose first reply has won, after this time.
    #[inline]
    pub fn won(&self, took: TimeBucket) {
        self.add(BucketRow::Race, took, 1);
    }

    /// Counts an attempt with a reply during its race.
    #[inline]
    pub fn replied(&self, kind: AttemptKind, took: TimeBucket) {
        self.add(BucketRow::replied(kind), took, 1);
    }

    /// Counts an attempt that was still silent after this time when its race was won.
    pub fn beaten(&self, kind: AttemptKind, waited: Duration) -> BeatenAttempt {
        let bucket = TimeBucket::of(waited);
        self.add(BucketRow::beaten(kind), bucket, 1);
        BeatenAttempt { kind, bucket: Some(bucket) }
    }

    /// Replaces a beaten attempt by its late reply.
    pub fn replied_late(&self, beaten: BeatenAttempt, took: TimeBucket) {
        if self.withdraw(beaten) {
            self.replied(beaten.kind, took);
        }
    }

    /// Replaces the least time of a beaten attempt by a longer one.
    pub fn still_silent(&self, beaten: BeatenAttempt, waited: Duration) {
        if self.withdraw(beaten) {
            self.beaten(beaten.kind, waited);
        }
    }

    fn withdraw(&self, BeatenAttempt { kind, bucket }: BeatenAttempt) -> bool {
        if let Some(bucket) = bucket {
            self.add(BucketRow::beaten(kind), bucket, u32::MAX);
        }
        bucket.is_some()
    }

    /// Adds without a read-modify-write, because there is one writer. `u32::MAX` subtracts one.
    #[inline]
    fn add(&self, row: BucketRow, TimeBucket(bucket): TimeBucket, count: u32) {
        let counter = &self.0[row as usize][usize::from(bucket)];
        counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
    }
}

/// The sums of tallies, modulo 2^32: only differences have a meaning.
#[derive(Clone, Debug)]
pub(super) struct RegretCounts(Box<[[u32; BUCKETS]; BucketRow::COUNT]>);

impl Default for RegretCounts {
    fn default() -> Self {
        Self(Box::new([[0; BUCKETS]; BucketRow::COUNT]))
    }
}

impl RegretCounts {
    /// Adds the tallies; `None` if there is none.
    pub(super) fn of<'t>(mut tallies: impl Iterator<Item = &'t RegretTally>) -> Option<Self> {
        let mut sums = Self::default();
        sums.collect(tallies.next()?);
        tallies.for_each(|tally| sums.collect(tally));
        Some(sums)
    }

    fn collect(&mut self, tally: &RegretTally) {
        for (sum, counter) in self.0.as_flattened_mut().iter_mut().zip(tally.0.as_flattened()) {
            *sum = sum.wrapping_add(counter.load(Relaxed));
        }
    }

    /// Returns the growth. An attempt that was beaten earlier and has its late reply since would be -1; it
    /// is 0.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let mut grown = self.clone();
        for (count, before) in grown.0.as_flattened_mut().iter_mut().zip(earlier.0.as_flattened()) {
            let difference = count.wrapping_sub(*before);
            *count = if difference > u32::MAX / 2 { 0 } else { difference };
        }
        grown
    }

    /// Returns the sum of these rows.
    pub(super) fn sum(&self, rows: &[BucketRow]) -> Vec<u64> {
        let count = |bucket: usize| rows.iter().map(|row| u64::from(self.0[*row as usize][bucket])).sum();
        (0..BUCKETS).map(count).collect()
    }
}
