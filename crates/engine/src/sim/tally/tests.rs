//! Scenarios with an outcome that can be calculated by hand, and the hedge budget under any shift of latency.

use std::time::Duration;

use config::PoolRules;
use hedge::balance::Balance;
use hedge::{AttemptTimeout, Dispatch, Hedge, HedgeDelay, RaceRules};
use proptest::prelude::*;

use super::*;
use crate::sim::{
    BackendModel, Capacity, Course, Delay, Empirical, NameDistribution, PoolModel, SeatModel, SiteModel, When,
};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns a backend that takes 1 ms, and sometimes `longer`.
fn stumbling(chance: f64, longer: Duration) -> BackendModel {
    let (usual, others) = (Box::new(Delay::Constant(ms(1))), vec![(chance, Delay::Constant(longer))]);
    BackendModel { delay: Course::always(Delay::Mixture { usual, others }), ..BackendModel::default() }
}

fn rules(dispatch: Dispatch) -> PoolRules {
    PoolRules { race: RaceRules { dispatch, ..RaceRules::default() }, ..PoolRules::default() }
}

/// Returns a scenario with two such backends and 3,000 queries a second.
fn scenario(rules: PoolRules, model: BackendModel, queries: usize) -> Scenario {
    let gap = Duration::from_secs(1) / 3_000;
    Scenario { queries, gap, is_probed: true, ..Scenario::of_pool(rules, vec![model; 2]) }
}

fn tally(scenario: &Scenario) -> Tally {
    Tally::of(scenario, Instant::now(), 1)
}

fn quantile(tally: &Tally, part: f64) -> f64 {
    tally.latency.quantile(part).expect("queries have come").as_secs_f64() * 1e3
}

#[test]
fn what_is_certain_comes_out_exactly() {
    for (dispatch, extra) in [(Dispatch::Race, 1.0), (Dispatch::Sequential, 0.0)] {
        let tally = tally(&scenario(rules(dispatch), BackendModel::default(), 10_000));
        assert_eq!((tally.queries, tally.lost, tally.extra_load()), (10_000, 0, extra));
        assert_eq!(tally.latency.max(), ms(1));
    }
}

#[test]
fn a_race_is_slow_only_if_all_are() {
    let tally = tally(&scenario(rules(Dispatch::Race), stumbling(0.1, ms(100)), 40_000));
    assert!(quantile(&tally, 0.985) < 2.0 && quantile(&tally, 0.995) > 99.0, "one in a hundred: {tally:?}");
}

#[test]
fn hedging_cuts_the_tail_for_a_little_load() {
    let sequential = tally(&scenario(rules(Dispatch::Sequential), stumbling(0.01, ms(500)), 50_000));
    let hedge = tally(&scenario(rules(Dispatch::Hedge), stumbling(0.01, ms(500)), 50_000));
    assert!((quantile(&sequential, 0.999) - 500.0).abs() < 3.0);
    assert!(quantile(&hedge, 0.999) * 90.0 < quantile(&sequential, 0.999), "{}", quantile(&hedge, 0.999));
    assert!(hedge.extra_load() < 0.05, "{}", hedge.extra_load());
    assert!(hedge.hedges_won > 0 && hedge.hedges_won <= hedge.hedges);
}

#[test]
fn lost_datagrams_cost_what_is_waited_for_them() {
    let model = BackendModel { loss: Course::always(0.05), ..BackendModel::default() };
    let patient = PoolRules {
        race: RaceRules { attempt_timeout: AttemptTimeout::after(ms(200)), ..rules(Dispatch::Sequential).race },
        ..rules(Dispatch::Sequential)
    };
    let tally = tally(&scenario(patient, model, 50_000));
    // Both are lost once in 400 times, and each gets only one attempt.
    assert!(tally.lost.abs_diff(125) < 50, "{}", tally.lost);
    assert!((quantile(&tally, 0.96) - 201.0).abs() < 1.0, "{}", quantile(&tally, 0.96));
    assert!((tally.extra_load() - 0.05).abs() < 0.005, "{}", tally.extra_load());
}

/// Returns the rules with `attempt_timeout = "auto"`.
fn auto(dispatch: Dispatch) -> PoolRules {
    let rules = rules(dispatch);
    PoolRules { race: RaceRules { attempt_timeout: AttemptTimeout::AUTO, ..rules.race }, ..rules }
}

/// Plays with 1,500 queries a second for each of so many backends.
fn played(rules: &PoolRules, model: &BackendModel, backends: u32, queries: usize) -> Tally {
    let pools = vec![PoolModel { rules: rules.clone(), backends: vec![model.clone(); backends as usize] }];
    let gap = Duration::from_secs(1) / (1_500 * backends);
    tally(&Scenario { pools, gap, ..scenario(rules.clone(), model.clone(), queries) })
}

#[test]
fn an_automatic_timeout_makes_up_for_lost_datagrams() {
    // 5 % of the queries and of the replies. Less than one query in a thousand is lost three times in a row.
    let model = BackendModel { loss: Course::always(1.0 - 0.95 * 0.95), ..BackendModel::default() };
    for (dispatch, backends, part) in
        [(Dispatch::Hedge, 2, 0.999), (Dispatch::Sequential, 2, 0.999), (Dispatch::Hedge, 1, 0.998)]
    {
        let tally = played(&auto(dispatch), &model, backends, 30_000);
        let reached = 0.95 * (1.0 + tally.extra_load());
        assert!(quantile(&tally, part) < 60.0, "{dispatch:?}, {backends}: {}", quantile(&tally, part));
        assert_eq!(tally.lost, 0, "{dispatch:?}, {backends}");
        assert!(reached < 1.06, "{dispatch:?}, {backends}: {reached}");
    }
}

#[test]
fn a_slow_backend_gets_no_storm() {
    let constant = |time| BackendModel { delay: Course::always(Delay::Constant(time)), ..BackendModel::default() };
    // Half of the capacity that is needed: the queue is full.
    let capacity = Some(Capacity { servers: 1, service: Delay::Constant(Duration::from_micros(1_333)) });
    let overloaded = BackendModel { capacity, ..BackendModel::default() };
    for (model, most) in [
        (constant(ms(100)), 0.002),
        (constant(ms(900)), 0.002),
        (stumbling(0.01, ms(500)), 0.012),
        (stumbling(0.2, ms(80)), 0.012),
        (overloaded, 0.25),
    ] {
        let tally = played(&auto(Dispatch::Hedge), &model, 1, 10_000);
        assert!(tally.extra_load() <= most, "{model:?}: {}", tally.extra_load());
    }
    // All are slower than their timer for a while.
    for factor in [20.0, 100.0, 300.0] {
        let at_times = vec![(factor, When::Between { from: ms(1_000), to: ms(2_000) })];
        let scenario = scenario(auto(Dispatch::Sequential), BackendModel::default(), 10_000);
        let tally = tally(&Scenario { slow: Course { usual: 1.0, at_times }, ..scenario });
        assert!(tally.extra_load() < 0.015, "{factor}: {}", tally.extra_load());
    }
}

#[test]
fn extra_load_has_a_price_where_capacity_is_short() {
    // 1,500 queries a second for each, of a capacity of 2,000: a race sends twice as much.
    let capacity = Some(Capacity { servers: 1, service: Delay::Constant(Duration::from_micros(500)) });
    let model = BackendModel { capacity, ..BackendModel::default() };
    let sequential = tally(&scenario(rules(Dispatch::Sequential), model.clone(), 30_000));
    let race = tally(&scenario(rules(Dispatch::Race), model, 30_000));
    assert!(quantile(&sequential, 0.5) < 5.0, "{}", quantile(&sequential, 0.5));
    assert!(quantile(&race, 0.5) > 100.0, "{}", quantile(&race, 0.5));
}

#[test]
fn a_crash_is_known_at_once_and_a_stall_soon() {
    let gone = |when| vec![When::Between { from: ms(2_000), to: when }];
    let sound = BackendModel::default();
    let crash = BackendModel { crashes: gone(Duration::MAX), ..BackendModel::default() };
    let stop = BackendModel { stalls: gone(Duration::MAX), ..BackendModel::default() };
    for ill in [crash, stop] {
        let hedge = rules(Dispatch::Hedge);
        let mut scenario = scenario(hedge, sound.clone(), 30_000);
        scenario.pools[0].backends[0] = ill;
        let tally = tally(&scenario);
        assert_eq!(tally.lost, 0);
        assert!(quantile(&tally, 0.99) < 5.0, "{}", quantile(&tally, 0.99));
        // Once the failure is known, the backend gets no queries.
        assert!(tally.extra_load() < 0.06, "{}", tally.extra_load());
    }
}

#[test]
fn slowness_that_all_share_cannot_be_hedged_away() {
    let slow = Course { usual: 1.0, at_times: vec![(50.0, When::NowAndThen { length: ms(500), every: ms(5_000) })] };
    let scenario = Scenario { slow, ..scenario(rules(Dispatch::Race), BackendModel::default(), 60_000) };
    let tally = tally(&scenario);
    assert!(quantile(&tally, 0.5) < 1.1 && quantile(&tally, 0.98) > 49.0, "{tally:?}");
}

#[test]
fn backends_of_one_site_are_slow_at_the_same_times() {
    let at_times = vec![(50.0, When::NowAndThen { length: ms(20), every: ms(200) })];
    let slow_part = |sites: [Option<&str>; 2]| {
        let mut scenario = scenario(rules(Dispatch::Race), BackendModel::default(), 10_000);
        for (backend, site) in scenario.pools[0].backends.iter_mut().zip(sites) {
            let slow = Course { usual: 1.0, at_times: at_times.clone() };
            backend.site = SiteModel { name: site.map(str::to_owned), slow };
        }
        let curve = tally(&scenario).latency.ccdf();
        let slower = curve.iter().take_while(|(time, _)| *time <= ms(2)).last();
        slower.map_or(1.0, |(_, slower)| *slower)
    };
    // A tenth of the time each: a hundredth, if the times are independent.
    for (sites, expected) in
        [([Some("a"), Some("a")], 0.05..0.2), ([Some("a"), Some("b")], 0.0..0.03), ([None, None], 0.0..0.03)]
    {
        let slow = slow_part(sites);
        assert!(expected.contains(&slow), "{sites:?}: {slow}");
    }
}

#[test]
fn spare_gets_queries_only_while_the_other_is_down() {
    for dispatch in [Dispatch::Race, Dispatch::Hedge, Dispatch::Sequential] {
        let mut scenario = scenario(rules(dispatch), BackendModel::default(), 30_000);
        let spare = BackendModel {
            seat: SeatModel { weight: 1, tier: 1 },
            delay: Course::always(Delay::Constant(ms(5))),
            ..BackendModel::default()
        };
        scenario.pools[0].backends[1] = spare;
        let calm = tally(&scenario);
        assert!(calm.extra_load() == 0.0 && quantile(&calm, 0.999) < 1.1, "{dispatch:?}: {calm:?}");
        scenario.pools[0].backends[0].crashes = vec![When::Between { from: ms(4_000), to: Duration::MAX }];
        let tally = tally(&scenario);
        assert_eq!(tally.lost, 0, "{dispatch:?}");
        assert!(quantile(&tally, 0.35) < 1.1 && quantile(&tally, 0.45) > 4.9, "{dispatch:?}: {tally:?}");
        assert!(tally.extra_load() < 0.1, "{dispatch:?}: {}", tally.extra_load());
    }
}

#[test]
fn the_first_backend_alone_is_a_pool_of_one() {
    let ordered = PoolRules {
        race: RaceRules { balance: Balance::Ordered, ..rules(Dispatch::Sequential).race },
        ..rules(Dispatch::Sequential)
    };
    let mut scenario = scenario(ordered, stumbling(0.01, ms(500)), 50_000);
    scenario.pools[0].backends.truncate(1);
    assert!((quantile(&tally(&scenario), 0.999) - 500.0).abs() < 3.0);
}

#[test]
fn what_was_measured_is_played_back() {
    let bins = [(ms(1), ms(2), 990), (ms(100), ms(200), 10)];
    let delay = Course::always(Delay::Empirical(Empirical::new(bins).expect("there are samples")));
    let tally =
        tally(&scenario(rules(Dispatch::Sequential), BackendModel { delay, ..BackendModel::default() }, 50_000));
    assert!((quantile(&tally, 0.5) - 1.5).abs() < 0.05);
    assert!((quantile(&tally, 0.995) - 150.0).abs() < 10.0, "{}", quantile(&tally, 0.995));
}

#[test]
fn a_seed_makes_the_same_tally_whenever_it_is_played() {
    let scenario = scenario(rules(Dispatch::Hedge), stumbling(0.01, ms(100)), 20_000);
    let one = Tally::of(&scenario, Instant::now(), 7);
    assert_eq!(one, Tally::of(&scenario, Instant::now() + ms(12_345), 7));
    assert_ne!(one, Tally::of(&scenario, Instant::now(), 8));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Hedges stay within the budget for every shift of latency.
    #[test]
    fn extra_load_stays_within_budget_and_burst(
        seed in any::<u64>(),
        budget in 0.01..0.2,
        percentile in prop::option::of(0.5..0.999),
        usual in 1..50_u64,
        shifts in prop::collection::vec((1..400_u64, 0..1_000_u64, 1..600_u64), 0..4),
        all_at_once in any::<bool>(),
    ) {
        let shift = |&(delay, from, length): &(u64, u64, u64)| {
            (Delay::Constant(ms(delay)), When::Between { from: ms(from), to: ms(from + length) })
        };
        let shifted = Course { usual: Delay::Constant(ms(usual)), at_times: shifts.iter().map(shift).collect() };
        let model = BackendModel { delay: shifted, ..BackendModel::default() };
        let delay = percentile.map_or(HedgeDelay::Auto, HedgeDelay::Percentile);
        let rules = PoolRules { race: RaceRules { hedge: Hedge { delay, budget, ..Hedge::default() }, ..rules(Dispatch::Hedge).race }, ..rules(Dispatch::Hedge) };
        // The scenario takes about a second.
        let mut scenario = scenario(rules, model, 3_000);
        if !all_at_once {
            scenario.pools[0].backends[1] = BackendModel::default();
        }
        let tally = Tally::of(&scenario, Instant::now(), seed);
        prop_assert_eq!(tally.lost, 0);
        prop_assert_eq!(tally.failovers, 0);
        // The bucket starts with ten. Later it holds up to a hundredth of the last minute's queries, which
        // were earned.
        prop_assert!(tally.extra_load() * 3_000.0 <= 3_000.0 * budget + 10.0 + 1e-6, "{:?}", tally);
    }
}

/// A pool in which all clients ask for one name, 3,000 times a second.
fn one_name(rules: PoolRules, model: BackendModel) -> Scenario {
    Scenario { names: NameDistribution::Zipf { exponent: 0.0, count: 1 }, ..scenario(rules, model, 10_000) }
}

#[test]
fn names_that_are_asked_again_join_the_race_that_runs() {
    let model = BackendModel { delay: Course::always(Delay::Constant(ms(10))), ..BackendModel::default() };
    let tally = tally(&one_name(rules(Dispatch::Sequential), model));
    // Of the 30 queries during one race, all but the first join it.
    assert_eq!((tally.cached, tally.lost, tally.joined() + tally.races), (0, 0, 10_000));
    assert!((250..450).contains(&tally.races), "{tally:?}");
    assert!(tally.extra_load() < -0.95 && tally.first == tally.races, "{tally:?}");
}

#[test]
fn names_that_are_asked_again_hit_the_cache_until_their_time_is_over() {
    // The scenario takes three seconds and a third: at most four queries leave, and the cache refreshes in
    // time.
    let scenario = one_name(rules(Dispatch::Sequential), BackendModel::default());
    let tally = tally(&Scenario { ttl: Some(Duration::from_secs(1)), ..scenario });
    assert!((9_900..10_000).contains(&tally.cached), "{tally:?}");
    assert!((1..=8).contains(&tally.first) && tally.lost == 0, "{tally:?}");
}

#[test]
fn a_sticky_pool_asks_first_who_knew_the_name() {
    // Each knows half of the names, and returns NXDOMAIN for the others.
    let model = BackendModel { knows: 0.5, ..BackendModel::default() };
    let failovers = |balance| {
        let rules = PoolRules {
            race: RaceRules { balance, ..rules(Dispatch::Sequential).race },
            ..rules(Dispatch::Sequential)
        };
        let names = NameDistribution::Zipf { exponent: 0.0, count: 100 };
        tally(&Scenario { names, ..scenario(rules, model.clone(), 20_000) }).failovers
    };
    // Both know a quarter of the names, neither knows another quarter: the order matters for the other half.
    let (sticky, turns) = (failovers(Balance::Sticky), failovers(Balance::RoundRobin));
    assert!(sticky * 10 < turns * 6 && sticky > 0, "{sticky} against {turns}");
}

mod auto;
mod workers;
