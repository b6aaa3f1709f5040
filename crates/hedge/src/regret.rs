//! The regret of a pool: its tail latency beside the best that one fixed hedge rule could have reached.
//!
//! `reissue` searches for the delay and the probability of a second attempt with which the races would have
//! had the lowest percentile, within the same budget. The regret is the percentile of the real races divided
//! by that.
//!
//! - For each race, `X` is the latency of the first attempt and `Y` that of the second one. An attempt that
//!   lost its race is a censored observation: its latency is at least its time so far. Its late reply
//!   replaces this by the exact time. Kaplan and Meier's product over the buckets estimates the distribution
//!   from both kinds. It ends where the observations end, and nothing is extrapolated.
//! - Times have the same buckets on both sides, 3 % wide, and a percentile is the upper border of its bucket.
//!   A pool that follows the best rule may be one bucket above it. A pool below it has the regret 1.0.
//! - `Y` is known from hedges and failovers. With fewer than [`MIN_SECOND`] of them, all attempts count.
//!
//! Approximations: `X` and `Y` are independent, though a name that is slow everywhere slows both, and each
//! has one distribution for all backends of the pool. A race counts only if its first reply wins, because no
//! delay helps against failures and unaccepted replies. A race without any reply counts nowhere.

mod tally;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::tally::{BucketRow, RegretCounts};

pub use self::tally::{BeatenAttempt, RegretTally};
use crate::latency::BUCKETS;
use crate::reissue::{FirstAttempts, SingleR, best};
use crate::survival::{SurvivalCurve, border};

/// The input of the search for the best rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegretRules {
    /// The part of the races (0.0 to 1.0) whose longest time is compared.
    pub target: f64,
    /// Second attempts per race; 0 allows none.
    pub budget: f64,
    /// The silence after which the next backend is asked without a hedge; `None` if there is no other one.
    pub failover: Option<Duration>,
}

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

/// The tail of a pool, and the best that a fixed rule could have reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Regret {
    /// The compared part of the races.
    pub target: f64,
    /// The budget of the best rule.
    pub budget: f64,
    /// The time within which that part of the races had a reply.
    pub achieved: Duration,
    /// The best rule, whose time is at most `achieved`.
    pub best: ReissueRule,
}

impl Regret {
    /// Returns the achieved time divided by the best one, to three decimals; 1.0 is optimal.
    pub fn ratio(&self) -> f64 {
        (self.achieved.div_duration_f64(self.best.time) * 1e3).round() / 1e3
    }

    /// Compares; `None` with too few races, or if no rule is known to reach the target.
    fn of(counts: &RegretCounts, rules: &RegretRules) -> Option<Self> {
        let of = |rows: &[BucketRow]| counts.sum(rows);
        let (races, first) = (of(&[BucketRow::Race]), of(&[BucketRow::FirstReplied]));
        let min = MIN_IN_TAIL / (1.0 - rules.target);
        if [&races, &first].iter().any(|row| (row.iter().sum::<u64>() as f64) < min) {
            return None;
        }
        let first_beaten = of(&[BucketRow::FirstBeaten]);
        let second = [BucketRow::SecondReplied, BucketRow::SecondBeaten].map(|row| of(&[row]));
        let [replied, beaten] = match second.iter().flatten().sum::<u64>() {
            MIN_SECOND.. => second,
            _ => [
                of(&[BucketRow::FirstReplied, BucketRow::SecondReplied]),
                of(&[BucketRow::FirstBeaten, BucketRow::SecondBeaten]),
            ],
        };
        let (first, second) = (SurvivalCurve::of(&first, &first_beaten), SurvivalCurve::of(&replied, &beaten));
        let achieved = SurvivalCurve::of(&races, &[]).quantile(rules.target)?;
        let races = [FirstAttempts { share: 1.0, first: &first, second: &second, failover: rules.failover }];
        let each = (0..=BUCKETS).map(|delay| SingleR::within(vec![delay], &races, rules.budget));
        let possible: Vec<_> = [SingleR::never(1)].into_iter().chain(each).collect();
        let (end, rule) = best(&possible, &races, rules.target)?;
        let best = ReissueRule {
            delay: border(rule.delays[0]),
            probability: rule.probability,
            time: border(end).min(achieved),
        };
        Some(Self { target: rules.target, budget: rules.budget, achieved, best })
    }
}

/// The regret of a pool over the last 8 to 10 minutes, from the tallies of all workers.
#[derive(Debug, Default)]
pub struct RegretMeter {
    /// The counts at the start of each epoch of the window, the oldest first.
    marks: VecDeque<(Instant, RegretCounts)>,
    measured: Option<Instant>,
    latest: Option<Regret>,
}

impl RegretMeter {
    /// Measures again if the last result is older than [`REST`].
    pub fn measure<'t>(
        &mut self,
        tallies: impl Iterator<Item = &'t RegretTally>,
        rules: &RegretRules,
        now: Instant,
    ) -> Option<Regret> {
        let age = |since: Instant| now.saturating_duration_since(since);
        if self.measured.is_some_and(|at| age(at) < REST) {
            return self.latest;
        }
        let counts = RegretCounts::of(tallies)?;
        self.measured = Some(now);
        if self.marks.is_empty() {
            self.marks.push_back((now, RegretCounts::default()));
        }
        while self.marks.front().is_some_and(|(began, _)| age(*began) > WINDOW) {
            self.marks.pop_front();
        }
        let recent = self.marks.front().map(|(_, mark)| counts.since(mark));
        self.latest = recent.and_then(|recent| Regret::of(&recent, rules));
        if self.marks.back().is_none_or(|(began, _)| age(*began) >= EPOCH) {
            self.marks.push_back((now, counts));
        }
        self.latest
    }

    /// Returns the last result.
    pub fn latest(&self) -> Option<Regret> {
        self.latest
    }
}

/// The fewest races beyond the target. With five, the true part of the percentile is within half and double
/// of the target's in 9 of 10 cases: p99.8 to p99.95 for p99.9. It takes 5,000 races.
const MIN_IN_TAIL: f64 = 5.0;

/// The fewest second attempts with a distribution of their own. The best rule depends on the slowest fiftieth
/// of them (p99.9 of all is p98 of 5 %), which is 20 of these.
pub const MIN_SECOND: u64 = 1_000;

/// The time between two measurements. One takes some 100 µs.
pub const REST: Duration = Duration::from_secs(5);

const WINDOW: Duration = Duration::from_secs(600);

const EPOCH: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests;
