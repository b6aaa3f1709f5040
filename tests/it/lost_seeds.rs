//! Engines whose connections to backends die at random, over hundreds of seeds and on a fake clock: no query
//! is lost while one backend answers, be it the only one, and no race makes more than eight attempts.
//!
//! A failure prints its seed; `HEDGEROW_SEED=n cargo test --test it lost_seeds::` runs that one alone.

use std::time::{Duration, Instant};

use config::PoolRules;
use engine::sim::{BackendModel, Course, Delay, ModelConnections, NameDistribution, PoolModel, Scenario, When};
use hedge::balance::Balance;
use hedge::race::{AttemptKind, MAX_ATTEMPTS};
use hedge::{AttemptTimeout, Dispatch, Hedge, HedgeDelay, RaceRules};
use metrics::ResponseSource;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::support::scenario_record::{ScenarioRecord, run};

/// How many seeds are run.
const SEEDS: u64 = 600;

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn pick<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    *choices.choose(rng).expect("there is something to choose")
}

/// Any rules that give a client time enough.
fn rules(rng: &mut StdRng) -> PoolRules {
    let delay = pick(rng, &[HedgeDelay::Auto, HedgeDelay::Percentile(0.9), HedgeDelay::Fixed(ms(3))]);
    PoolRules {
        race: RaceRules {
            dispatch: pick(rng, &[Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential]),
            fanout: rng.random_range(0..3),
            balance: pick(rng, &[Balance::Ordered, Balance::RoundRobin, Balance::Random, Balance::Sticky]),
            attempt_timeout: AttemptTimeout::after(ms(rng.random_range(300..1_500))),
            tries: rng.random_range(1..4),
            hedge: Hedge {
                delay,
                budget: pick(rng, &[0.0, 0.05, 0.5]),
                max: rng.random_range(0..4),
                ..Hedge::default()
            },
            ..RaceRules::default()
        },
        ..PoolRules::default()
    }
}

/// So many backends by stream, whose connections end every now and then. Of several, connections may stall as
/// well, and the first backend may go away for good.
fn scenario(backends: usize, rng: &mut StdRng) -> Scenario {
    let are_several = backends > 1;
    let max = rng.random_range(1..=4);
    let stalls = if are_several && max > 1 && rng.random_bool(0.5) {
        vec![When::NowAndThen { length: ms(200), every: ms(20_000) }]
    } else {
        Vec::new()
    };
    let ends = vec![When::NowAndThen { length: ms(1), every: ms(rng.random_range(40..400)) }];
    let connections = ModelConnections { max, stalls, ends };
    let median = Duration::from_micros(rng.random_range(100..3_000));
    let model = BackendModel {
        delay: Course::always(Delay::Lognormal { median, sigma: 0.4 }),
        connections: Some(connections),
        ..BackendModel::default()
    };
    let mut models = vec![model; backends];
    let dies = are_several && rng.random_bool(0.3);
    if dies {
        models[0].crashes = vec![When::Between { from: ms(300), to: Duration::MAX }];
    }
    let pool = PoolModel { rules: rules(rng), backends: models };
    Scenario {
        pools: vec![pool],
        queries: 120,
        names: NameDistribution::Unique,
        gap: ms(rng.random_range(1..8)),
        is_probed: true,
        is_audited: true,
        ..Scenario::of_pool(PoolRules::default(), Vec::new())
    }
}

/// Names the seed if the test fails while it runs.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: run it alone with HEDGEROW_SEED={0}", self.0);
        }
    }
}

/// Plays all seeds with so many backends; how many failovers there were.
fn check(backends: impl Fn(&mut StdRng) -> usize) -> usize {
    let start = Instant::now();
    let alone = std::env::var("HEDGEROW_SEED").ok();
    let alone = alone.map(|seed| seed.parse().expect("HEDGEROW_SEED is a number"));
    let mut failovers = 0;
    for seed in alone.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let _blame = Blame(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let backends = backends(&mut rng);
        let scenario = scenario(backends, &mut rng);
        let ScenarioRecord { races, queries } = run(&scenario, start, seed);
        for (number, reported) in queries.iter().enumerate() {
            let sources: Vec<_> = reported.iter().map(|(_, source)| *source).collect();
            let unanswered: Vec<_> = races.iter().filter(|race| race.won_by.is_none()).collect();
            assert_eq!(sources, [Some(ResponseSource::Backend)], "query {number} of {scenario:?}: {unanswered:?}");
        }
        for race in &races {
            assert!(race.asked.len() <= MAX_ATTEMPTS, "{race:?}");
            failovers += race.asked.iter().filter(|asked| asked.kind == AttemptKind::Failover).count();
        }
    }
    failovers
}

#[test]
fn no_query_is_lost_with_the_connections_of_the_only_backend() {
    assert!(check(|_| 1) > 300, "connections have ended with queries on them");
}

#[test]
fn no_query_is_lost_while_one_of_several_backends_answers() {
    assert!(check(|rng| rng.random_range(2..=4)) > 1_000, "connections have ended with queries on them");
}
