//! The hedges of [`Dispatch::Auto`](crate::Dispatch::Auto): for each backend, the delay and the probability
//! with which the target percentile of the pool is least.
//!
//! [`tune`] takes what was measured at each backend: the distribution of its latency, and how the load
//! changes it. The best rules for these distributions come from `reissue`: since a hedge waits for a silence
//! of the delay, this uses the latency of the asked backend on condition of that silence. The second attempt
//! has the mean distribution of the other backends, of those of other sites if there are any.
//!
//! **Load.** Copies make queues longer, so a part of the budget may have a lower tail than all of it. The
//! latency of a backend with `n` other attempts in flight grows as the power `s` of `1 + n` ([`LoadSlope`]).
//! With one server of the utilization `u`, `s` is 1 and `(1 + n)^s` is `1 / (1 - u)` on average, and `b` more
//! attempts per query make the latency longer by the factor `1 + b * ((1 + n)^s - 1)`, to the first order.
//! The chosen part of the budget has the least product of the time and this factor.
//!
//! Approximations: the latencies of two backends are independent; all others are as likely to get the hedge;
//! an abandoned attempt never gets a reply; and all of the latency grows with the load, not only the wait.

mod slope;

use std::time::Duration;

pub use self::slope::LoadSlope;
use crate::latency::SPENT;
use crate::reissue::{FirstAttempts, best};
use crate::survival::SurvivalCurve;

/// The measured latency of one backend.
#[derive(Clone, Debug)]
pub struct BackendSample {
    pub(crate) curve: SurvivalCurve,
    pub(crate) replies: u64,
    pub(crate) rate: f64,
    pub(crate) median: Duration,
    pub(crate) retransmission_timeout: Duration,
    /// The relative growth of the latency for one more attempt per query; 0 if load makes no difference.
    pub(crate) crowding: f64,
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
    /// The silence after which the next backend is asked without a hedge; `None` for the retransmission
    /// timeout of the silent backend.
    pub failover: Option<Duration>,
}

/// The hedge of the races whose first attempt is at one backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TunedHedge {
    /// The delay of the hedge, in medians of the backend's latency: it follows a shift at once.
    pub medians: f32,
    /// The part of the races that may be hedged.
    pub probability: f32,
}

/// The hedges of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// The hedge of each backend, in the order of the samples.
    pub hedges: Vec<TunedHedge>,
    /// The expected time within which the target part of the races has a reply.
    pub expected: Duration,
    /// The expected number of hedges per race.
    pub extra: f64,
}

/// Returns the hedges with the least time for the target. `None` with fewer than two backends or too few
/// replies, or if no hedges within the budget are known to reach the target.
pub fn tune(samples: &[BackendSample], rules: &TuningRules) -> Option<Tuning> {
    let replies = samples.iter().map(|sample| sample.replies).sum::<u64>();
    if samples.len() < 2 || (replies as f64) < MIN_IN_TAIL / (1.0 - rules.target) {
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
            failover: Some(rules.failover.unwrap_or(sample.retransmission_timeout)),
        })
        .collect();
    let crowding = backends.iter().zip(samples).map(|(backend, sample)| backend.share * sample.crowding).sum::<f64>();
    // A race needs all of its budget, and no estimate of a percentile.
    let planned = if rules.budget >= 1.0 { 1.0 } else { rules.budget * SPENT };
    let parts = if crowding < NO_CROWDING { &PARTS[..1] } else { &PARTS };
    let found = parts.iter().filter_map(|part| {
        let found = best(&backends, rules.target, planned * part)?;
        Some((found.time.as_secs_f64() * (1.0 + found.cost * crowding), found))
    });
    let (_, best) = found.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
    let hedges = best.rules.iter().zip(samples).map(|(rule, sample)| TunedHedge {
        medians: rule.delay.div_duration_f32(sample.median.max(MIN_MEDIAN)),
        probability: rule.probability as f32,
    });
    Some(Tuning { hedges: hedges.collect(), expected: best.time, extra: best.cost })
}

/// Returns the latency of a hedge that replaces an attempt at this backend.
fn others(samples: &[BackendSample], place: usize) -> SurvivalCurve {
    let site = samples[place].site;
    let others = samples.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, sample)| sample);
    let (far, near): (Vec<_>, Vec<_>) = others.partition(|other| site == 0 || other.site != site);
    let curves: Vec<_> = if far.is_empty() { near } else { far }.iter().map(|other| &other.curve).collect();
    SurvivalCurve::mean(&curves)
}

/// The fewest replies beyond the target, as for the regret.
const MIN_IN_TAIL: f64 = 5.0;

/// The parts of the budget among which the load chooses.
const PARTS: [f64; 10] = [1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.02, 0.0];

/// The growth of the latency that makes no difference: 5 % more attempts lengthen it by 0.5 %.
const NO_CROWDING: f64 = 0.1;

const MIN_MEDIAN: Duration = Duration::from_micros(1);

#[cfg(test)]
mod tests;
