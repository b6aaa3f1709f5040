//! The hedges of [`Dispatch::Auto`](crate::Dispatch::Auto): for each backend, the delay and the probability
//! with which the target percentile of the pool is least.
//!
//! [`tune`] takes what was measured at each backend: the distribution of its latency, and how the load
//! changes it. `reissue` has the formulas: since a hedge waits for a silence of the delay, they use the
//! latency of the asked backend on condition of that silence. The second attempt has the mean distribution of
//! the other backends, of those of other sites if there are any. The possible hedges start at the same
//! percentile of each backend's latency, or at the same delay for all: at the delay for which the budget
//! suffices, or earlier with a lower probability.
//!
//! **Load.** Copies make queues longer, so a part of the budget may have a lower tail than all of it. The
//! latency of a backend with `n` other attempts in flight grows as the power `s` of `1 + n` ([`LoadSlope`]).
//! With one server of the utilization `u`, `s` is 1 and `(1 + n)^s` is `1 / (1 - u)` on average, and `b` more
//! attempts per query make the latency longer by the factor `1 + b * ((1 + n)^s - 1)`, to the first order.
//! The chosen part of the budget has the least product of the time and this factor. A single hedge also needs
//! a backend that is not busier or slower than usual ([`HedgeRoom`]).
//!
//! Approximations: the latencies of two backends are independent; all others are as likely to get the hedge;
//! an abandoned attempt never gets a reply; and all of the latency grows with the load, not only the wait.

mod slope;

use std::time::Duration;

pub use self::slope::{HedgeRoom, LoadSlope, UsualLoad};
use crate::latency::SPENT;
use crate::reissue::{FirstAttempts, SingleR, best};
use crate::survival::{SurvivalCurve, border};

/// The measured latency of one backend.
#[derive(Clone, Debug)]
pub struct BackendSample {
    pub(crate) curve: SurvivalCurve,
    pub(crate) replies: u64,
    pub(crate) rate: f64,
    pub(crate) median: Duration,
    pub(crate) load: UsualLoad,
    /// The failure domain of the backend; 0 for one that no other backend shares.
    pub site: u16,
}

/// The rules of a tuning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuningRules {
    /// The part of the races (0.0 to 1.0) whose longest time shall be least.
    pub target: f64,
    /// Hedges per race, over time, 0.0 to 1.0.
    pub budget: f64,
    /// The part of the budget that may be used now.
    pub step: f64,
    /// The silence after which the next backend is asked without a hedge.
    pub failover: Duration,
}

/// The hedge of the races whose first attempt is at one backend, as the workers use it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TunedHedge {
    /// The delay of the hedge, in medians of the backend's latency: it follows a shift at once.
    pub medians: f32,
    /// The part of the races that may be hedged.
    pub probability: f32,
    /// The load up to which the backend gets hedges for others.
    pub room: HedgeRoom,
}

/// The hedges of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The hedge of each backend, in the order of the samples.
    pub hedges: Vec<TunedHedge>,
    /// The present delay of each hedge.
    pub delays: Vec<Duration>,
    /// The expected time within which the target part of the races has a reply; `None` if no hedges within
    /// the budget are known to reach the target.
    pub expected: Option<Duration>,
    /// The expected number of hedges per race.
    pub extra: f64,
    /// The part of the budget that the next tuning may use. Only hedges that are made show what they cost, so
    /// a large budget is used step by step, and where load matters only after the hedges that it allows.
    pub step: f64,
}

/// Returns the hedges with the least time for the target; `None` with fewer than two backends or too few
/// replies.
pub fn tune(samples: &[BackendSample], rules: &TuningRules) -> Option<Tuning> {
    let replies = samples.iter().map(|sample| sample.replies).sum::<u64>() as f64;
    if samples.len() < 2 || replies < MIN_REPLIES {
        return None;
    }
    let others: Vec<_> = (0..samples.len()).map(|place| others(samples, place)).collect();
    let rate = samples.iter().map(|sample| sample.rate).sum::<f64>().max(f64::MIN_POSITIVE);
    let backends: Vec<_> = samples
        .iter()
        .zip(&others)
        .map(|(sample, second)| FirstAttempts {
            share: sample.rate / rate,
            first: &sample.curve,
            second,
            failover: Some(rules.failover),
        })
        .collect();
    let mean = |of: &dyn Fn(UsualLoad) -> f64| {
        backends.iter().zip(samples).map(|(backend, sample)| backend.share * of(sample.load)).sum::<f64>()
    };
    // The backends of a pool are alike more often than their few samples.
    let slope = mean(&|load| load.slope);
    let crowding = mean(&|load| UsualLoad { slope, ..load }.crowding());
    // A race needs all of its budget, and no estimate of a percentile.
    let planned = if rules.step >= 1.0 { 1.0 } else { rules.step * SPENT };
    let target = rules.target.min(1.0 - MIN_IN_TAIL / replies);
    let parts = if crowding < NO_CROWDING { &PARTS[..1] } else { &PARTS };
    // A probability below 1 leaves races unhedged whose times too few replies show.
    let certain = if target < rules.target { CERTAIN } else { FAMILIES };
    let families = |part: &f64| families(&backends, planned * part).into_iter().take(certain);
    let found = parts.iter().flat_map(families).filter_map(|(penalty, rules)| {
        let (end, rule) = best(&rules, &backends, target)?;
        let extra = rule.cost(&backends);
        Some((border(end).as_secs_f64() * (1.0 + extra * crowding) * penalty, border(end), rule))
    });
    let found = found.min_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let (expected, rule) = match found {
        Some((_, time, rule)) => (Some(time), rule),
        None => (None, SingleR::within(same_part(&backends, planned), &backends, planned)),
    };
    let extra = rule.cost(&backends);
    let hedge = |(delay, sample): (&usize, &BackendSample)| TunedHedge {
        medians: border(*delay).div_duration_f32(sample.median.max(MIN_MEDIAN)),
        probability: rule.probability as f32,
        room: UsualLoad { slope, ..sample.load }.room(),
    };
    let hedges = rule.delays.iter().zip(samples).map(hedge).collect();
    let used = if crowding < NO_CROWDING { rules.step } else { extra };
    let step = rules.budget.min(FIRST_STEP.max(GROWTH * used));
    Some(Tuning { hedges, delays: rule.delays.iter().copied().map(border).collect(), expected, extra, step })
}

/// Returns the families of rules that spend this budget, each with the factor by which its time must be lower
/// than that of the first one. The first one has fewer ways to follow chance.
fn families(backends: &[FirstAttempts<'_>], budget: f64) -> [(f64, Vec<SingleR>); FAMILIES] {
    let pool = SurvivalCurve::mixture(backends.iter().map(|backend| (backend.share, backend.first)));
    let same_delay = |cost: f64| vec![pool.reaches(cost); backends.len()];
    let within = |delays: Vec<usize>| SingleR::within(delays, backends, budget);
    let above = || COSTS.iter().map(|cost| (budget * cost).min(1.0));
    [
        (1.0, vec![within(same_part(backends, budget))]),
        (MARGIN, vec![within(same_delay(budget))]),
        (MARGIN, above().map(|cost| within(same_part(backends, cost))).collect()),
        (MARGIN * MARGIN, above().map(|cost| within(same_delay(cost))).collect()),
    ]
}

fn same_part(backends: &[FirstAttempts<'_>], cost: f64) -> Vec<usize> {
    backends.iter().map(|backend| backend.first.reaches(cost)).collect()
}

/// Returns the latency of a hedge that replaces an attempt at this backend.
fn others(samples: &[BackendSample], place: usize) -> SurvivalCurve {
    let site = samples[place].site;
    let others = samples.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, sample)| sample);
    let (far, near): (Vec<_>, Vec<_>) = others.partition(|other| site == 0 || other.site != site);
    let others = if far.is_empty() { near } else { far };
    SurvivalCurve::mixture(others.iter().map(|other| (1.0 / others.len() as f64, &other.curve)))
}

const GROWTH: f64 = 1.3;

/// The most hedges per race of the first step.
pub(crate) const FIRST_STEP: f64 = 0.05;

/// The fewest replies beyond the target, as for the regret: with fewer replies, a lower target applies.
const MIN_IN_TAIL: f64 = 5.0;

const MIN_REPLIES: f64 = 100.0;

/// The factor by which the times of more complicated rules must be lower.
const MARGIN: f64 = 1.05;

/// The costs of hedges with a probability below 1, in budgets.
const COSTS: [f64; 8] = [1.2, 1.5, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0];

const FAMILIES: usize = 4;

/// The families with the probability 1, which come first.
const CERTAIN: usize = 2;

/// The parts of the budget among which the load chooses.
const PARTS: [f64; 10] = [1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.0];

/// The growth of the latency that makes no difference: 5 % more attempts lengthen it by 0.5 %.
const NO_CROWDING: f64 = 0.1;

const MIN_MEDIAN: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests;
