//! The best second attempts within a budget.
//!
//! A *SingleR* rule sends a second attempt at the delay `d` with the probability `q`, if no reply has come.
//! Kaler, He and Elnikety ("Optimal Reissue Policies for Reducing Tail Latency", SPAA 2017) prove that no
//! rule with more reissues has a better percentile at an equal budget. For the latency `X` of a first attempt
//! and `Y` of a second one, the cost of the rule and the part of the races that take longer than `t` are:
//!
//! ```text
//! cost    = q * P(X > d)
//! late(t) = P(X > t) * ((1 - q) * P(Y > t - a) + q * P(Y > t - d))
//! ```
//!
//! The paper has 1 where `P(Y > t - a)` stands: without a hedge, a race here asks the next backend after the
//! silence `a`. A pool has such a term for each backend, weighted by its share of the first attempts.

use std::time::Duration;

use crate::latency::{BUCKETS, Buckets};
use crate::survival::{SurvivalCurve, is_within};

/// The races whose first attempt is at one backend.
#[derive(Debug)]
pub(crate) struct FirstAttempts<'a> {
    /// Their part of all races.
    pub(crate) share: f64,
    /// The latency of the first attempt.
    pub(crate) first: &'a SurvivalCurve,
    /// The latency of a second attempt.
    pub(crate) second: &'a SurvivalCurve,
    /// The silence after which a second attempt is made without a hedge.
    pub(crate) failover: Option<Duration>,
}

/// A rule for second attempts: the delay at each backend, as the lower border of a bucket, and the
/// probability.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SingleR {
    pub(crate) delays: Vec<usize>,
    pub(crate) probability: f64,
}

impl SingleR {
    /// Returns the rule without second attempts.
    pub(crate) fn never(backends: usize) -> Self {
        Self { delays: vec![0; backends], probability: 0.0 }
    }

    /// Returns the rule with these delays, and the probability that the budget pays.
    pub(crate) fn within(delays: Vec<usize>, backends: &[FirstAttempts<'_>], budget: f64) -> Self {
        let certain = Self { delays, probability: 1.0 };
        let probability = (budget / certain.cost(backends)).min(1.0);
        Self { probability, ..certain }
    }

    /// Returns the second attempts per race.
    pub(crate) fn cost(&self, backends: &[FirstAttempts<'_>]) -> f64 {
        let costs = backends.iter().zip(&self.delays).map(|(backend, delay)| backend.share * backend.first.at(*delay));
        self.probability * costs.sum::<f64>()
    }

    /// Returns the part of the races that take longer than a border.
    pub(crate) fn late(&self, end: usize, backends: &[FirstAttempts<'_>]) -> f64 {
        let late = |(backend, delay): (&FirstAttempts<'_>, &usize)| backend.late(end, *delay, self.probability);
        backends.iter().zip(&self.delays).map(late).sum()
    }
}

/// Returns the first border within which the target part of the races has a reply, with the first of the
/// rules that has the fewest beyond it. `None` if no rule is known to reach the target. A later border is
/// easier to reach for each rule, so the search may halve the range.
pub(crate) fn best(rules: &[SingleR], backends: &[FirstAttempts<'_>], target: f64) -> Option<(usize, SingleR)> {
    let by = |end: usize| {
        let late = rules.iter().map(|rule| (rule.late(end, backends), rule));
        late.min_by(|(one, _), (other, _)| one.total_cmp(other)).filter(|(late, _)| is_within(*late, target))
    };
    let mut best = None;
    let (mut low, mut high) = (0, BUCKETS + 1);
    while low < high {
        let middle = low.midpoint(high);
        match (middle <= BUCKETS).then(|| by(middle)).flatten() {
            Some((_, rule)) => (best, high) = (Some((middle, rule)), middle),
            None => low = middle + 1,
        }
    }
    best.map(|(end, rule)| (end, rule.clone()))
}

impl FirstAttempts<'_> {
    fn late(&self, end: usize, delay: usize, probability: f64) -> f64 {
        let micros = Buckets::border(end);
        let beyond = |delay: u64| micros.checked_sub(delay).map_or(1.0, |rest| self.second.beyond(rest));
        let failover = self.failover.map_or(u64::MAX, |silence| u64::try_from(silence.as_micros()).unwrap_or(u64::MAX));
        let (unhedged, hedged) = (beyond(failover), beyond(Buckets::border(delay).min(failover)));
        self.share * self.first.at(end) * ((1.0 - probability) * unhedged + probability * hedged)
    }
}
