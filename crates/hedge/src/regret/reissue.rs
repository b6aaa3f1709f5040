//! The distribution of a latency, and the best rule for a second attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RegretRules;
use crate::latency::{BUCKETS, Buckets};

/// A rule for a second attempt: at this delay, with this probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReissueRule {
    /// The delay of the second attempt.
    pub delay: Duration,
    /// The part of the races, of those without a reply by then, that make it.
    pub probability: f64,
    /// The time within which the target part of the races has a reply.
    pub time: Duration,
}

/// The probability that a latency is at least the lower border of each bucket, and the upper one of the last.
#[derive(Debug)]
pub(super) struct SurvivalCurve(Vec<f64>);

impl SurvivalCurve {
    /// Estimates a distribution by the method of Kaplan and Meier. An attempt that was silent for the time of
    /// a bucket counts as later than the replies in that bucket.
    pub(super) fn of(replied: &[u64], beaten: &[u64]) -> Self {
        let mut open = replied.iter().chain(beaten).sum::<u64>();
        let mut later = 1.0;
        let mut curve = vec![later];
        for (bucket, &replied) in replied.iter().enumerate() {
            if open > 0 {
                later *= (open - replied) as f64 / open as f64;
            }
            open -= replied + beaten.get(bucket).copied().unwrap_or(0);
            curve.push(later);
        }
        Self(curve)
    }

    /// Returns the border within which this part of the times lies; `None` if too many have no known end.
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        self.0.iter().position(|later| is_within(*later, part)).map(border)
    }

    /// Returns the probability of a longer time than this. Times in one bucket are taken as evenly spread.
    pub(super) fn beyond(&self, micros: u64) -> f64 {
        let bucket = Buckets::bucket(micros);
        let (Some(from), Some(to)) = (self.0.get(bucket), self.0.get(bucket + 1)) else { return self.0[BUCKETS] };
        let (lower, upper) = (Buckets::border(bucket), Buckets::border(bucket + 1));
        from + (to - from) * (micros - lower) as f64 / (upper - lower) as f64
    }
}

/// Returns the rule whose time is least: the first border at which some rule reaches the target. `None` if no
/// rule is known to reach it. A later border is easier for each rule, so the search may halve the range.
pub(super) fn best(first: &SurvivalCurve, second: &SurvivalCurve, rules: &RegretRules) -> Option<ReissueRule> {
    let mut best = None;
    let (mut low, mut high) = (0, BUCKETS + 1);
    while low < high {
        let middle = low.midpoint(high);
        match best_by(middle, first, second, rules).filter(|(_, late)| is_within(*late, rules.target)) {
            Some((rule, _)) => (best, high) = (Some(rule), middle),
            None => low = middle + 1,
        }
    }
    best
}

/// Returns the rule with the fewest races beyond a border, and their part; `None` behind the last border.
fn best_by(
    end: usize,
    first: &SurvivalCurve,
    second: &SurvivalCurve,
    rules: &RegretRules,
) -> Option<(ReissueRule, f64)> {
    let late = *first.0.get(end)?;
    let micros = Buckets::border(end);
    let beyond = |delay: u64| micros.checked_sub(delay).map_or(1.0, |rest| second.beyond(rest));
    let unhedged = rules.failover.map_or(1.0, |silence| beyond(u64::try_from(silence.as_micros()).unwrap_or(u64::MAX)));
    let none = (ReissueRule { delay: Duration::ZERO, probability: 0.0, time: border(end) }, late * unhedged);
    let hedged = (0..end).map(|delay| {
        // Without races that last until the delay, any probability is within the budget.
        let probability = (rules.budget / first.0[delay]).min(1.0);
        let late = late * ((1.0 - probability) * unhedged + probability * beyond(Buckets::border(delay)));
        (ReissueRule { delay: border(delay), probability, time: border(end) }, late)
    });
    hedged.filter(|_| rules.budget > 0.0).chain([none]).min_by(|(_, one), (_, other)| one.total_cmp(other))
}

/// Returns true if at most the rest of the target is late, but for the error of a product of many factors.
fn is_within(late: f64, target: f64) -> bool {
    late <= (1.0 - target) * (1.0 + 1e-9)
}

fn border(bucket: usize) -> Duration {
    Duration::from_micros(Buckets::border(bucket))
}
