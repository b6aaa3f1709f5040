//! Two backends whose latency shifts under way, on fake time: hedges follow, and the budget holds all the
//! while.

use std::time::{Duration, Instant};

use config::PoolRules;
use engine::sim::{BackendModel, Course, Delay, Scenario, When};
use hedge::race::AttemptKind;
use hedge::{Dispatch, Hedge, RaceRules};

use crate::support::scenario_record::{ScenarioRecord, run};

/// Queries in a second.
const RATE: usize = 3_000;
/// Seconds that a latency lasts.
const PHASE: usize = 4;
/// Queries while a latency lasts, about: they come by chance.
const QUERIES: usize = RATE * PHASE;

/// Takes this long or up to a tenth more, and each hundredth time half a second.
fn about(usual: Duration) -> Delay {
    let usual = Box::new(Delay::Uniform { from: usual, to: usual.mul_f64(1.1) });
    Delay::Mixture { usual, others: vec![(0.01, Delay::Constant(Duration::from_millis(500)))] }
}

/// Runs queries to two backends that take 1 ms, then 20 ms, then 1 ms again.
fn shifting(budget: f64) -> ScenarioRecord {
    let [fast, slow] = [1, 20].map(Duration::from_millis);
    let phase = Duration::from_secs(PHASE as u64);
    let delay =
        Course { usual: about(fast), at_times: vec![(about(slow), When::Between { from: phase, to: 2 * phase })] };
    let rules = PoolRules {
        race: RaceRules {
            dispatch: Dispatch::Hedge,
            hedge: Hedge { budget, ..Hedge::default() },
            ..RaceRules::default()
        },
        ..PoolRules::default()
    };
    let backends = vec![BackendModel { delay, ..BackendModel::default() }; 2];
    let gap = Duration::from_secs(1) / RATE as u32;
    run(&Scenario { queries: 3 * QUERIES, gap, ..Scenario::of_pool(rules, backends) }, Instant::now(), 4)
}

#[test]
fn hedges_follow_and_stay_within_the_budget_at_every_moment() {
    for budget in [0.02, 0.05, 0.1] {
        let mut hedges = 0;
        let (mut settled, mut far) = ([0; 3], 0);
        for (number, query) in shifting(budget).races.iter().enumerate() {
            let hedge = query.asked.iter().find(|asked| asked.kind == AttemptKind::Hedge);
            hedges += usize::from(hedge.is_some());
            // Each query earns a part of a hedge, and ten are given.
            let paid = 10.0 + budget * (number + 1) as f64;
            assert!(hedges as f64 <= paid, "{hedges} hedges, {paid} paid after {number} queries at {budget}");
            // Half a second after a shift it is forgotten. The end of a phase may be a little sooner than
            // reckoned.
            let (phase, within) = (number / QUERIES, number % QUERIES);
            let is_settled = (RATE / 2..QUERIES - RATE / 2).contains(&within);
            if let Some(hedge) = hedge.filter(|_| is_settled && query.hedges_denied == 0) {
                let usual = Duration::from_millis([1, 20, 1][phase]);
                let is_near = (usual..usual.mul_f64(1.2)).contains(&hedge.at);
                far += usize::from(!is_near);
                settled[phase] += 1;
            }
        }
        // A percentile of so few samples is now and then that of the stalls.
        assert!(far * 100 <= hedges, "{far} of {hedges} hedges were not made when they should have been, at {budget}");
        // Hedges do not stop: one in a hundred must be sent, and the budget pays for more.
        assert!(settled.iter().all(|&hedges| hedges > QUERIES / 200), "{settled:?} at {budget}");
    }
}

#[test]
fn what_stalls_is_late_only_where_both_do() {
    for budget in [0.02, 0.05, 0.1] {
        let mut took: Vec<_> = shifting(budget).races.iter().map(|query| query.outcomes[0].0).collect();
        took.sort_unstable();
        let p998 = took[took.len() * 998 / 1_000];
        assert!(p998 < Duration::from_millis(50), "{p998:?} at {budget}");
    }
}
