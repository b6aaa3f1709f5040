//! Engines over thousands of seeds: many queries, several pools, random rules and backends, reloads under
//! way, a fake clock. The invariants of the engine are checked after each event, those of races and responses
//! at the end.
//!
//! A failure prints its seed; `HEDGEROW_SEED=n cargo test --test it race_seeds::` runs that one alone.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use config::{Accept, PoolRules, Rank};
use engine::sim::{BackendModel, Course, Delay, FaultModel, NameDistribution, PoolModel, Scenario, SeatModel, When};
use hedge::balance::Balance;
use hedge::race::{AttemptKind, MAX_ATTEMPTS, RaceEnd};
use hedge::{AttemptTimeout, Dispatch, Grace, Hedge, HedgeDelay, RaceRules};
use metrics::ResponseSource;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::support::scenario_record::{RaceRecord, ScenarioRecord, run};

/// How many seeds are run.
const SEEDS: u64 = 3_000;

/// Every scenario and what came of it, by seed. It is run once for all tests.
fn played() -> &'static [(u64, Scenario, ScenarioRecord)] {
    static PLAYED: OnceLock<Vec<(u64, Scenario, ScenarioRecord)>> = OnceLock::new();
    PLAYED.get_or_init(|| {
        let start = Instant::now();
        let play = |seed| {
            let _blame = Blame(seed);
            let scenario = scenario(&mut StdRng::seed_from_u64(seed));
            let report = run(&scenario, start, seed);
            (seed, scenario, report)
        };
        let alone = std::env::var("HEDGEROW_SEED").ok();
        let alone = alone.map(|seed| seed.parse().expect("HEDGEROW_SEED is a number"));
        alone.map_or(0..SEEDS, |seed| seed..seed + 1).map(play).collect()
    })
}

/// Hands the scenario of each seed to `check` with its report.
fn for_each_seed(check: impl Fn(&Scenario, &ScenarioRecord)) {
    for (seed, scenario, report) in played() {
        let _blame = Blame(*seed);
        check(scenario, report);
    }
}

/// Runs a check on each race of each seed, with its pool.
fn for_each_race(check: impl Fn(&Scenario, &PoolModel, &RaceRecord)) {
    for_each_seed(|scenario, report| {
        report.races.iter().for_each(|race| check(scenario, pool_of(scenario, race), race));
    });
}

/// The pool of a race.
fn pool_of<'s>(scenario: &'s Scenario, race: &RaceRecord) -> &'s PoolModel {
    let number: usize = race.pool.strip_prefix("pool").and_then(|number| number.parse().ok()).expect("a number");
    &scenario.pools[number]
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

/// Any pools under any rules, which may change under way.
fn scenario(rng: &mut StdRng) -> Scenario {
    let pools = *pick(rng, &[1, 1, 2, 3]);
    let pools: Vec<_> = (0..pools).map(|_| pool(rng)).collect();
    let names = if rng.random_bool(0.5) {
        NameDistribution::Unique
    } else {
        NameDistribution::Zipf { exponent: 1.0, count: 8 }
    };
    let mut reload = || (Duration::from_millis(rng.random_range(1..2_000)), pools.iter().map(|_| rules(rng)).collect());
    let reloads = vec![reload(), reload()];
    let reloads = if rng.random_bool(0.4) { reloads } else { Vec::new() };
    Scenario {
        pools,
        queries: 30,
        names,
        ttl: rng.random_bool(0.3).then(|| Duration::from_secs(rng.random_range(1..4))),
        gap: Duration::from_micros(rng.random_range(1..200_000)),
        resend: rng.random_bool(0.3).then(|| Duration::from_millis(rng.random_range(1..2_000))),
        slow: Course::always(1.0),
        is_probed: false,
        reloads,
        replay: None,
        workers: 1,
        is_audited: true,
    }
}

fn pool(rng: &mut StdRng) -> PoolModel {
    let backends = rng.random_range(1..=10);
    PoolModel { rules: rules(rng), backends: (0..backends).map(|_| model(rng)).collect() }
}

fn rules(rng: &mut StdRng) -> PoolRules {
    let delay =
        *pick(rng, &[HedgeDelay::Auto, HedgeDelay::Percentile(0.9), HedgeDelay::Fixed(Duration::from_millis(3))]);
    let grace = *pick(rng, &[Grace::Off, Grace::Off, Grace::Auto, Grace::After(Duration::from_millis(7))]);
    PoolRules {
        race: RaceRules {
            dispatch: *pick(rng, &[Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential]),
            fanout: rng.random_range(0..4),
            balance: *pick(rng, &[Balance::Ordered, Balance::RoundRobin, Balance::Random, Balance::Sticky]),
            timeout: Duration::from_millis(rng.random_range(1..4_000)),
            grace,
            attempt_timeout: match rng.random_range(1..1_500) {
                1..300 => AttemptTimeout::AUTO,
                millis => AttemptTimeout::after(ms(millis)),
            },
            tries: rng.random_range(1..5),
            hedge: Hedge {
                delay,
                budget: *pick(rng, &[0.0, 0.05, 0.5]),
                max: rng.random_range(0..4),
                ..Hedge::default()
            },
        },
        accept: *pick(rng, &[Accept::Positive, Accept::Conclusive, Accept::Any]),
        ..PoolRules::default()
    }
}

/// Any backend: most of them well, some ill in one way, some in several.
fn model(rng: &mut StdRng) -> BackendModel {
    let mut ill = |chance: f64| if rng.random_bool(0.2) { chance } else { 0.0 };
    let (tail, loss, failure, bare, unreachable) = (ill(0.1), ill(0.3), ill(0.5), ill(0.3), ill(0.5));
    let usual = Duration::from_micros(rng.random_range(20..100_000));
    let scattered = |median| Delay::Lognormal { median, sigma: 0.5 };
    let delay = Delay::Mixture { usual: Box::new(scattered(usual)), others: vec![(tail, scattered(100 * usual))] };
    BackendModel {
        seat: SeatModel { weight: rng.random_range(1..4), tier: rng.random_range(0..4_u8) / 2 },
        up: rng.random_bool(0.8),
        delay: Course::always(delay),
        loss: Course::always(loss),
        knows: *pick(rng, &[0.0, 0.5, 1.0]),
        miss: *pick(rng, &[None, Some(Rank::Nxdomain), Some(Rank::Nodata), Some(Rank::NodataAuthoritative)]),
        faults: FaultModel { failure, bare, unreachable, refuses_opt: rng.random_bool(0.1) },
        ..BackendModel::default()
    }
}

fn pick<'a, T>(rng: &mut StdRng, choices: &'a [T]) -> &'a T {
    choices.choose(rng).expect("there is something to choose")
}

#[test]
fn each_query_has_one_response_and_each_race_one_outcome_in_time() {
    for_each_seed(|scenario, report| {
        assert_eq!(report.queries.len(), scenario.queries);
        // A client that joins a race that began before a reload waits as that race does.
        let rules = scenario.pools.iter().map(|pool| &pool.rules);
        let rules = rules.chain(scenario.reloads.iter().flat_map(|(_, rules)| rules));
        let longest = rules.map(|rules| rules.race.timeout).max().expect("a pool has rules");
        for reported in &report.queries {
            assert!(matches!(reported[..], [(waited, _)] if waited <= longest), "{reported:?} within {longest:?}");
        }
        for race in &report.races {
            assert!(matches!(race.outcomes[..], [(ended, _)] if ended <= race.deadline), "{race:?}");
        }
    });
}

#[test]
fn an_accepted_reply_never_loses_to_a_kept_one() {
    for_each_race(|_, pool, race| {
        let accepts = |rank| race.rules.accept.accepts(rank);
        match race.replies.iter().find(|reply| !reply.is_late && accepts(reply.rank)) {
            Some(reply) => assert_eq!(race.outcomes[0], (reply.at, RaceEnd::Reply(reply.attempt)), "{race:?}"),
            // Where any reply is accepted, a refusal of OPT may be.
            None if pool.backends.iter().any(|model| model.faults.refuses_opt) => {}
            None => assert!(!race.won_by.is_some_and(accepts), "{race:?}"),
        }
    });
}

#[test]
fn an_acceptable_reply_that_came_in_time_is_returned() {
    for_each_race(|_, _, race| {
        // With grace a kept negative may go out before, and after a bare failure SERVFAIL may.
        if race.rules.race.grace != Grace::Off || race.bare_failure {
            return;
        }
        let accepts = |rank| race.rules.accept.accepts(rank);
        if race.replies.iter().any(|reply| reply.at < race.deadline && accepts(reply.rank)) {
            assert!(race.won_by.is_some_and(accepts), "{race:?}");
        }
    });
}

#[test]
fn the_best_reply_in_time_wins() {
    for_each_race(|_, pool, race| {
        let in_time = race.replies.iter().filter(|reply| !reply.is_late);
        let best = in_time.map(|reply| reply.rank).max();
        // A refusal of OPT may be kept as the failure that it is.
        let refusal = pool.backends.iter().any(|model| model.faults.refuses_opt).then_some(Rank::Failure);
        assert!(race.won_by == best || best.is_none() && race.won_by == refusal, "{race:?}");
    });
}

#[test]
fn nothing_is_said_while_somebody_who_may_know_better_is_out() {
    for_each_race(|_, pool, race| {
        let (ended, outcome) = race.outcomes[0];
        let early = ended < race.deadline && race.rules.race.grace == Grace::Off && !race.bare_failure;
        if early && outcome == RaceEnd::Nothing {
            assert!(race.replies.iter().all(|reply| reply.is_late), "{race:?}");
            let silent = |model: &BackendModel| model.faults.unreachable == 0.0;
            let asked = race.asked.iter().map(|asked| &pool.backends[asked.backend.get()]);
            assert!(!asked.into_iter().any(silent), "{race:?}");
        }
    });
}

#[test]
fn a_hedge_never_asks_the_same_backend_again() {
    for_each_race(|_, _, race| {
        for (place, hedge) in race.asked.iter().enumerate().filter(|(_, asked)| asked.kind == AttemptKind::Hedge) {
            let before = &race.asked[..place];
            assert!(before.iter().all(|asked| asked.backend != hedge.backend), "{race:?}");
        }
    });
}

#[test]
fn attempts_and_tries_are_bounded() {
    for_each_race(|scenario, pool, race| {
        assert!(race.asked.len() <= MAX_ATTEMPTS, "{race:?}");
        // Each of the waiting clients may have asked again, and early attempts are no tries.
        let is_early = race.rules.race.attempt_timeout == AttemptTimeout::AUTO;
        if is_early || scenario.names != NameDistribution::Unique {
            return;
        }
        for (number, model) in pool.backends.iter().enumerate() {
            let asked = race.asked.iter().filter(|asked| asked.backend.get() == number);
            // A retransmission and a refusal of OPT are worth one more each.
            let tries = usize::from(race.rules.race.tries);
            let most = tries + usize::from(scenario.resend.is_some()) + usize::from(model.faults.refuses_opt);
            assert!(asked.count() <= most, "{race:?}");
        }
    });
}

#[test]
fn backends_that_are_down_are_asked_only_if_all_are() {
    for_each_seed(|scenario, report| {
        for race in &report.races {
            let pool = pool_of(scenario, race);
            if pool.backends.iter().any(|model| model.up) {
                assert!(race.asked.iter().all(|asked| pool.backends[asked.backend.get()].up), "{race:?}");
            } else if race.all_down {
                assert!(race.deadline <= race.rules.race.attempt_timeout.longest(), "{race:?}");
                let at_once = race.asked.iter().filter(|asked| asked.at == Duration::ZERO).count();
                assert_eq!(at_once, pool.backends.len().min(MAX_ATTEMPTS), "{race:?}");
            } else if pool.backends.iter().all(|model| !model.faults.refuses_opt) {
                // A backend has shown by a reply that it is up, and refusals of OPT do not count.
                let before = report.races.iter().filter(|other| other.pool == race.pool && other.began <= race.began);
                assert!(before.flat_map(|other| &other.replies).next().is_some(), "{race:?}");
            }
        }
    });
}

#[test]
fn hedges_stay_within_the_rules_and_the_budget() {
    for_each_seed(|scenario, report| {
        let hedges = |race: &RaceRecord| race.asked.iter().filter(|asked| asked.kind == AttemptKind::Hedge).count();
        let most = |rules: &PoolRules| {
            if rules.race.dispatch == Dispatch::Hedge { usize::from(rules.race.hedge.max) } else { 0 }
        };
        assert!(report.races.iter().all(|race| hedges(race) <= most(&race.rules)));
        for (number, pool) in scenario.pools.iter().enumerate() {
            let of_pool = report.races.iter().filter(|race| race.pool == format!("pool{number}"));
            let later = scenario.reloads.iter().map(|(_, rules)| &rules[number]);
            let budgets = std::iter::once(&pool.rules).chain(later).map(|rules| rules.race.hedge.budget);
            let budget = budgets.fold(0.0, f64::max);
            let successes = of_pool.clone().filter(|race| race.won_by > Some(Rank::Failure)).count();
            let all: usize = of_pool.map(hedges).sum();
            let paid = if budget > 0.0 { 10.0 + budget * successes as f64 } else { 0.0 };
            assert!(all as f64 <= paid + 1e-6, "{all} hedges, {paid} paid");
        }
    });
}

#[test]
fn equal_queries_share_a_race_or_an_answer() {
    for_each_seed(|scenario, report| {
        if scenario.names == NameDistribution::Unique && scenario.ttl.is_none() {
            assert_eq!(report.races.len(), scenario.queries);
        }
        let cached =
            report.queries.iter().flatten().filter(|(_, source)| *source == Some(ResponseSource::Cache)).count();
        assert!(scenario.ttl.is_some() || cached == 0, "there is no cache, and {cached} are answered from it");
    });
}

#[test]
fn the_same_seed_makes_the_same_report() {
    let later = Instant::now() + Duration::from_secs(1);
    for (seed, scenario, report) in played().iter().step_by(20) {
        let _blame = Blame(*seed);
        assert_eq!(&run(scenario, later, *seed), report);
    }
}

#[test]
fn the_seeds_reach_every_corner() {
    let corners = std::cell::Cell::new([0_u32; 12]);
    for_each_seed(|scenario, report| {
        let races = report.races.iter();
        let count = |is_seen: &dyn Fn(&&RaceRecord) -> bool| races.clone().filter(is_seen).count() as u32;
        let has = |race: &RaceRecord, kind| race.asked.iter().any(|asked| asked.kind == kind);
        let outcome = |race: &RaceRecord| race.outcomes[0].1;
        let ended = |race: &RaceRecord| race.outcomes[0].0;
        let (first_reload, _) = scenario.reloads.first().cloned().unwrap_or((Duration::MAX, Vec::new()));
        let from = |source| report.queries.iter().flatten().filter(|(_, said)| *said == Some(source)).count() as u32;
        let seen = [
            count(&|race| has(race, AttemptKind::Hedge)),
            count(&|race| race.hedges_denied > 0),
            count(&|race| race.asked.len() == MAX_ATTEMPTS),
            count(&|race| race.asked.iter().any(|asked| !asked.edns)),
            count(&|race| outcome(race) == RaceEnd::Failed),
            count(&|race| outcome(race) == RaceEnd::Nothing && ended(race) < race.deadline),
            count(&|race| matches!(outcome(race), RaceEnd::Reply(_)) && ended(race) == race.deadline),
            count(&|race| race.replies.iter().any(|reply| reply.is_late)),
            // A reload while it runs.
            count(&|race| race.began < first_reload && first_reload < race.began + ended(race)),
            // Queries that had no race of their own: cached ones, and those that joined another's.
            from(ResponseSource::Cache),
            from(ResponseSource::Stale),
            (report.queries.len() as u32).saturating_sub(report.races.len() as u32 + from(ResponseSource::Cache)),
        ];
        let mut met = corners.get();
        met.iter_mut().zip(seen).for_each(|(count, seen)| *count += seen);
        corners.set(met);
    });
    if std::env::var_os("HEDGEROW_SEED").is_none() {
        // The rarest case is that no backend is left to wait for before the deadline: ICMP errors alone do
        // not end an attempt.
        assert!(corners.get().iter().all(|&count| count >= 10), "{:?}", corners.get());
    }
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns a backend that takes 1 ms, and sometimes `longer`.
fn stumbling(chance: f64, longer: Duration) -> BackendModel {
    let (usual, others) = (Box::new(Delay::Constant(ms(1))), vec![(chance, Delay::Constant(longer))]);
    BackendModel { delay: Course::always(Delay::Mixture { usual, others }), ..BackendModel::default() }
}

fn rules_of(dispatch: Dispatch) -> PoolRules {
    PoolRules { race: RaceRules { dispatch, ..RaceRules::default() }, ..PoolRules::default() }
}

/// Returns a scenario with two such backends and 3,000 queries a second.
fn of_two(rules: PoolRules, model: BackendModel, queries: usize) -> Scenario {
    let gap = Duration::from_secs(1) / 3_000;
    Scenario { queries, gap, is_probed: true, ..Scenario::of_pool(rules, vec![model; 2]) }
}

#[test]
fn every_query_has_one_outcome_whatever_backends_do() {
    for seed in 0..8 {
        let ill = |length, every| vec![When::NowAndThen { length: ms(length), every: ms(every) }];
        let one = BackendModel { crashes: ill(300, 900), loss: Course::always(0.1), ..BackendModel::default() };
        let other = BackendModel {
            stalls: ill(200, 700),
            crashes: ill(100, 900),
            faults: FaultModel { failure: 0.1, ..FaultModel::default() },
            ..stumbling(0.1, ms(400))
        };
        for dispatch in [Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential] {
            let mut rules = PoolRules {
                race: RaceRules {
                    attempt_timeout: AttemptTimeout::after(ms(150)),
                    timeout: ms(500),
                    tries: 2,
                    ..rules_of(dispatch).race
                },
                ..rules_of(dispatch)
            };
            rules.health.every_queries = 100;
            let mut scenario = of_two(rules, BackendModel::default(), 2_000);
            scenario.pools[0].backends = vec![one.clone(), other.clone()];
            let report = run(&scenario, Instant::now(), seed);
            assert!(report.races.iter().all(|race| race.outcomes.len() == 1), "seed {seed}, {dispatch:?}");
            assert!(report.queries.iter().all(|query| query.len() == 1), "seed {seed}, {dispatch:?}");
        }
    }
}

#[test]
fn two_seeds_are_played_alike_in_one_process_and_with_several_pools() {
    let mut scenario = of_two(rules_of(Dispatch::Hedge), stumbling(0.05, ms(50)), 5_000);
    scenario.pools.push(scenario.pools[0].clone());
    scenario.reloads = vec![(ms(500), vec![rules_of(Dispatch::Race), rules_of(Dispatch::Hedge)])];
    let report = run(&scenario, Instant::now(), 3);
    assert_eq!(report, run(&scenario, Instant::now() + ms(77), 3));
    let of_pool = |name: &str| report.races.iter().filter(|race| race.pool == name).count();
    assert_eq!((of_pool("pool0"), of_pool("pool1")), (2_500, 2_500));
    // After the reload the first pool races; the other one does not change.
    let races = |race: &&RaceRecord| race.pool == "pool0" && race.rules.race.dispatch == Dispatch::Race;
    assert!(report.races.iter().filter(races).all(|race| race.began >= ms(500) && race.asked.len() >= 2));
    assert!(report.races.iter().any(|race| races(&race)));
}
