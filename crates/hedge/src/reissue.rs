//! The best hedges within a budget.
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
//! silence `a`. A pool has a rule for each backend that may get the first attempt. [`best`] searches for the
//! least `t` that the target part of the races can reach:
//!
//! 1. For one `t`, each delay of a backend is a pair of cost and `late(t)`. Only the lower convex hull of
//!    these pairs can be optimal.
//! 2. The budget buys the steepest parts of all hulls first, so it is spent at those backends where it helps
//!    most.
//! 3. With its part of the budget, each backend takes the rule with the least `late(t)`.

use std::time::Duration;

use crate::latency::{BUCKETS, Buckets};
use crate::survival::{SurvivalCurve, border, is_within};

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

/// A rule for a second attempt: at this delay, with this probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SingleR {
    pub(crate) delay: Duration,
    pub(crate) probability: f64,
    /// The second attempts per race.
    cost: f64,
    /// The part of the races beyond the border.
    late: f64,
}

impl SingleR {
    const fn never(late: f64) -> Self {
        Self { delay: Duration::ZERO, probability: 0.0, cost: 0.0, late }
    }

    /// Returns the rule that makes as many second attempts as this cost pays.
    fn within(self, cost: f64, never: &Self) -> Self {
        let part = if self.cost > cost { cost / self.cost } else { 1.0 };
        let late = never.late + part * (self.late - never.late);
        Self { probability: part * self.probability, cost: part * self.cost, late, ..self }
    }
}

/// The best rules of a pool.
#[derive(Debug)]
pub(crate) struct BestRules {
    /// The rule of each backend.
    pub(crate) rules: Vec<SingleR>,
    /// The second attempts per race.
    pub(crate) cost: f64,
    /// The time within which the target part of the races has a reply.
    pub(crate) time: Duration,
}

/// Returns the rules with the least time: the first border at which some rules reach the target. `None` if no
/// rules are known to reach it. A later border is easier to reach, so the search may halve the range.
pub(crate) fn best(backends: &[FirstAttempts<'_>], target: f64, budget: f64) -> Option<BestRules> {
    let mut best = None;
    let (mut low, mut high) = (0, BUCKETS + 1);
    while low < high {
        let middle = low.midpoint(high);
        match best_by(middle, backends, budget).filter(|(_, late)| is_within(*late, target)) {
            Some((rules, _)) => (best, high) = (Some(rules), middle),
            None => low = middle + 1,
        }
    }
    best
}

/// Returns the rules with the fewest races beyond a border, and the part of these; `None` behind the last
/// one.
fn best_by(end: usize, backends: &[FirstAttempts<'_>], budget: f64) -> Option<(BestRules, f64)> {
    if end > BUCKETS {
        return None;
    }
    let possible: Vec<_> = backends.iter().map(|backend| backend.possible(end)).collect();
    let mut steps = Vec::new();
    for (place, (backend, rules)) in backends.iter().zip(&possible).enumerate() {
        steps.extend(hull(rules).windows(2).map(|pair| HullStep {
            place,
            cost: backend.share * (pair[1].cost - pair[0].cost),
            gain: backend.share * (pair[0].late - pair[1].late),
        }));
    }
    steps.sort_by(|one, other| (other.gain * one.cost).total_cmp(&(one.gain * other.cost)));
    let (mut left, mut paid) = (budget, vec![0.0; backends.len()]);
    for HullStep { place, cost, .. } in steps {
        let pays = cost.min(left);
        left -= pays;
        paid[place] += pays;
    }
    let rules = backends.iter().zip(&possible).zip(paid).map(|((backend, rules), paid)| {
        let paid = if backend.share > 0.0 { paid / backend.share } else { 0.0 };
        let within = rules.iter().map(|rule| rule.within(paid, &rules[0]));
        within.min_by(|one, other| one.late.total_cmp(&other.late)).unwrap_or(rules[0])
    });
    let rules: Vec<_> = rules.collect();
    let sum =
        |of: fn(&SingleR) -> f64| backends.iter().zip(&rules).map(|(backend, rule)| backend.share * of(rule)).sum();
    let (cost, late) = (sum(|rule| rule.cost), sum(|rule| rule.late));
    Some((BestRules { rules, cost, time: border(end) }, late))
}

/// A step along a hull: its cost, and the part of the races that it brings below the border.
#[derive(Clone, Copy, Debug)]
struct HullStep {
    place: usize,
    cost: f64,
    gain: f64,
}

impl FirstAttempts<'_> {
    /// Returns the rule without second attempts, then those for each delay with ascending cost.
    fn possible(&self, end: usize) -> Vec<SingleR> {
        let (late, micros) = (self.first.at(end), Buckets::border(end));
        let beyond = |delay: u64| micros.checked_sub(delay).map_or(1.0, |rest| self.second.beyond(rest));
        let failover = self.failover.map_or(u64::MAX, |silence| u64::try_from(silence.as_micros()).unwrap_or(u64::MAX));
        let unhedged = beyond(failover);
        let hedged = self.first.steps().filter(|delay| *delay < end).map(|delay| SingleR {
            delay: border(delay),
            probability: 1.0,
            cost: self.first.at(delay),
            late: late * beyond(Buckets::border(delay).min(failover)),
        });
        [SingleR::never(late * unhedged)].into_iter().chain(hedged).collect()
    }
}

/// Returns the lower convex hull of rules with ascending cost, as far as it falls.
fn hull(rules: &[SingleR]) -> Vec<SingleR> {
    let mut hull: Vec<SingleR> = Vec::new();
    for rule in rules {
        if hull.last().is_some_and(|last| rule.late >= last.late) {
            continue;
        }
        let is_above = |before: &SingleR, last: &SingleR| {
            (last.late - before.late) * (rule.cost - before.cost)
                >= (rule.late - before.late) * (last.cost - before.cost)
        };
        while let [.., before, last] = hull[..]
            && is_above(&before, &last)
        {
            hull.pop();
        }
        hull.push(*rule);
    }
    hull
}
