//! The hedge budget of a pool: a token bucket that all workers share.
//!
//! Successful replies fill the bucket, hedges drain it. When everything is slow, nothing refills it, and
//! hedging stops.

use crate::sync::{AtomicI64, Ordering};

/// The hedge budget of a pool. The numbers are independent, so every access is `Relaxed`.
#[derive(Debug)]
pub struct Budget {
    tokens: AtomicI64,
    capacity: AtomicI64,
    rate: AtomicI64,
}

impl Budget {
    /// Creates a full bucket. `rate`: hedges per successful reply, 0.0 to 1.0; 0 disables hedges.
    pub fn new(rate: f64) -> Self {
        Self {
            tokens: AtomicI64::new(MIN_BURST * TOKEN),
            capacity: AtomicI64::new(MIN_BURST * TOKEN),
            rate: AtomicI64::new(micro(rate)),
        }
    }

    /// Adds the earnings of this many successful replies, up to the capacity.
    pub fn earn(&self, replies: u32) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let earned = self.rate.load(Ordering::Relaxed) * i64::from(replies);
        // A full bucket only reads: the cache line does not move between cores.
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
            (tokens < capacity && earned > 0).then(|| tokens.saturating_add(earned).min(capacity))
        });
    }

    /// Takes one hedge. Returns false if the bucket does not hold one.
    pub fn take(&self) -> bool {
        if self.rate.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let taken = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| (tokens >= TOKEN).then_some(tokens - TOKEN));
        taken.is_ok()
    }

    /// Returns a hedge that was taken but not sent.
    pub fn give_back(&self) {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let _ = self.tokens.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
            (tokens < capacity).then(|| tokens.saturating_add(TOKEN).min(capacity))
        });
    }

    /// Sets the capacity from the requests of the last minute: 1 % of them, at least ten hedges.
    pub fn set_recent_queries(&self, queries: u64) {
        let hedges = i64::try_from(queries / 100).unwrap_or(i64::MAX).clamp(MIN_BURST, MAX_BURST);
        let capacity = hedges * TOKEN;
        self.capacity.store(capacity, Ordering::Relaxed);
        self.tokens.fetch_min(capacity, Ordering::Relaxed);
    }

    /// Returns the content and the capacity in micro-tokens for a successor process.
    pub fn level(&self) -> (i64, i64) {
        (self.tokens.load(Ordering::Relaxed), self.capacity.load(Ordering::Relaxed))
    }

    /// Continues with the level of another process.
    pub fn set_level(&self, (tokens, capacity): (i64, i64)) {
        let capacity = capacity.clamp(MIN_BURST * TOKEN, MAX_BURST * TOKEN);
        self.capacity.store(capacity, Ordering::Relaxed);
        self.tokens.store(tokens.clamp(0, capacity), Ordering::Relaxed);
    }

    /// Returns the hedges per successful reply.
    pub fn rate(&self) -> f64 {
        self.rate.load(Ordering::Relaxed) as f64 / TOKEN as f64
    }

    /// Changes the rate. The content stays.
    pub fn set_rate(&self, rate: f64) {
        self.rate.store(micro(rate), Ordering::Relaxed);
    }

    /// Returns the number of hedges that the bucket can pay now.
    pub fn hedges_left(&self) -> u64 {
        u64::try_from(self.tokens.load(Ordering::Relaxed) / TOKEN).unwrap_or(0)
    }
}

fn micro(rate: f64) -> i64 {
    // The float conversion saturates, and NaN becomes 0.
    (rate.clamp(0.0, 1.0) * TOKEN as f64).round() as i64
}

const TOKEN: i64 = 1_000_000;
const MIN_BURST: i64 = 10;
const MAX_BURST: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
