//! How many hedges a pool can pay for: a token bucket that all workers share.
//!
//! Successful replies fill it, hedges empty it. When everything is slow nothing refills it, and hedging
//! stops by itself. It never waits and never goes below zero; while it is full, which is nearly always,
//! earning only reads.

use crate::sync::{AtomicI64, Ordering};

/// The hedges that a pool can pay for.
///
/// Each number stands for itself and orders no other memory, so every access is `Relaxed`.
#[derive(Debug)]
pub struct Budget {
    /// What is in the bucket, in micro-tokens; one token pays one hedge. Never negative.
    tokens: AtomicI64,
    /// What the bucket holds at most, in micro-tokens.
    capacity: AtomicI64,
    /// What one reply earns, in micro-tokens.
    rate: AtomicI64,
}

impl Budget {
    /// A full bucket. `rate`: hedges per successful reply, 0.0 to 1.0; 0 means no hedges at all.
    pub fn new(rate: f64) -> Self {
        Self {
            tokens: AtomicI64::new(MIN_BURST * TOKEN),
            capacity: AtomicI64::new(MIN_BURST * TOKEN),
            rate: AtomicI64::new(micro(rate)),
        }
    }

    /// Puts in what this many successful replies earn. What does not fit is lost.
    pub fn earn(&self, replies: u32) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let earned = self.rate.load(Ordering::Relaxed) * i64::from(replies);
        // A full bucket fails the first closure call, which only reads: no cache line goes back and forth.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
            (tokens < capacity && earned > 0).then(|| tokens.saturating_add(earned).min(capacity))
        });
    }

    /// Takes out one hedge. False: there is none, and nothing was taken.
    pub fn take(&self) -> bool {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let taken = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| (tokens >= TOKEN).then_some(tokens - TOKEN));
        taken.is_ok()
    }

    /// Puts a hedge back that was taken and not made. What does not fit is lost.
    pub fn give_back(&self) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
            (tokens < capacity).then(|| tokens.saturating_add(TOKEN).min(capacity))
        });
    }

    /// Tells how many queries came in the last minute: the bucket holds 1 % of that, and at least ten hedges.
    pub fn set_recent_queries(&self, queries: u64) {
        let hedges = i64::try_from(queries / 100).unwrap_or(i64::MAX).clamp(MIN_BURST, MAX_BURST);
        let capacity = hedges * TOKEN;
        self.capacity.store(capacity, Ordering::Relaxed);
        self.tokens.fetch_min(capacity, Ordering::Relaxed);
    }

    /// What is in the bucket and what it holds at most, in micro-tokens, for a successor.
    pub fn level(&self) -> (i64, i64) {
        (self.tokens.load(Ordering::Relaxed), self.capacity.load(Ordering::Relaxed))
    }

    /// Goes on from what another process had.
    pub fn set_level(&self, (tokens, capacity): (i64, i64)) {
        let capacity = capacity.clamp(MIN_BURST * TOKEN, MAX_BURST * TOKEN);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.tokens.store(tokens.clamp(0, capacity), Ordering::Relaxed);
    }

    /// Changes the rate, at a reload. What is in the bucket stays.
    pub fn set_rate(&self, rate: f64) {
        self.rate.store(micro(rate), Ordering::Relaxed);
    }

    /// How many hedges could be paid right now.
    pub fn hedges_left(&self) -> u64 {
        u64::try_from(self.tokens.load(Ordering::Relaxed) / TOKEN).unwrap_or(0)
    }
}

/// A rate per reply in micro-tokens.
fn micro(rate: f64) -> i64 {
    // A float converts saturating, and NaN becomes 0.
    (rate.clamp(0.0, 1.0) * TOKEN as f64).round() as i64
}

/// One token in micro-tokens.
const TOKEN: i64 = 1_000_000;
/// The hedges that the smallest bucket holds: enough for a quiet pool to meet a bad second.
const MIN_BURST: i64 = 10;
/// The hedges that the largest bucket holds. It only keeps the arithmetic from overflowing.
const MAX_BURST: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes until nothing is left, and counts.
    fn drain(budget: &Budget) -> u32 {
        std::iter::from_fn(|| budget.take().then_some(1)).sum()
    }

    #[test]
    fn starts_full_and_refills_by_replies_only() {
        let budget = Budget::new(0.05);
        assert_eq!(drain(&budget), 10);
        assert!(!budget.take());
        budget.earn(19);
        assert!(!budget.take());
        budget.earn(1);
        assert!(budget.take());
        budget.earn(1_000_000);
        assert_eq!(drain(&budget), 10);
    }

    #[test]
    fn what_was_not_made_is_given_back() {
        let budget = Budget::new(0.05);
        budget.give_back();
        assert_eq!(drain(&budget), 10);
        budget.give_back();
        assert_eq!(drain(&budget), 1);
    }

    #[test]
    fn a_rate_of_zero_pays_for_nothing() {
        let budget = Budget::new(0.0);
        assert!(!budget.take());
        budget.set_rate(0.5);
        assert_eq!(drain(&budget), 10);
    }

    #[test]
    fn holds_one_percent_of_the_last_minute() {
        let budget = Budget::new(1.0);
        budget.set_recent_queries(6_000);
        budget.earn(1_000);
        assert_eq!(drain(&budget), 60);
        budget.earn(1_000);
        budget.set_recent_queries(500);
        assert_eq!(budget.hedges_left(), 10);
        budget.set_recent_queries(u64::MAX);
        budget.earn(u32::MAX);
        assert!(budget.take());
    }

    #[test]
    fn a_successor_pays_for_as_many_hedges() {
        let (budget, successor) = (Budget::new(0.5), Budget::new(0.5));
        budget.set_recent_queries(6_000);
        budget.earn(1_000);
        (0..33).for_each(|_| assert!(budget.take()));
        successor.set_level(budget.level());
        assert_eq!((successor.level(), successor.hedges_left()), (budget.level(), 27));
        successor.set_level((i64::MAX, i64::MAX));
        assert!(successor.take());
        successor.set_level((-1, 0));
        assert!(!successor.take());
        successor.earn(1_000);
        assert_eq!(drain(&successor), 10);
    }

    #[test]
    fn threads_together_never_overdraw() {
        let budget = Budget::new(0.1);
        let taken: u64 = std::thread::scope(|scope| {
            let worker = || {
                (0..20_000)
                    .map(|_| {
                        budget.earn(1);
                        u64::from(budget.take())
                    })
                    .sum::<u64>()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).sum()
        });
        assert!(taken <= 10 + 8_000, "{taken}");
        assert!(taken >= 8_000 - 10, "{taken}");
    }

    proptest! {
        #[test]
        fn takes_no_more_than_burst_and_earnings(rate in 0.0..=1.0, steps in prop::collection::vec(0u32..50, 1..200)) {
            let budget = Budget::new(rate);
            let (mut earned, mut taken) = (0.0, 0.0);
            for replies in steps {
                budget.earn(replies);
                earned += f64::from(replies) * rate;
                taken += f64::from(u8::from(budget.take()));
                prop_assert!(taken <= 10.0 + earned + 0.1, "{} of {}", taken, earned);
            }
        }
    }
}
