//! Scenarios with several workers, beside the same with one.

use super::*;
use crate::sim::ModelConnections;

/// Returns the tallies of one worker and of several.
fn tallies(scenario: Scenario, workers: u16) -> [Tally; 2] {
    [1, workers].map(|workers| tally(&Scenario { workers, is_audited: true, ..scenario.clone() }))
}

#[test]
fn equal_queries_share_a_race_on_any_worker() {
    let model = BackendModel { delay: Course::always(Delay::Constant(ms(10))), ..BackendModel::default() };
    let [one, many] = tallies(one_name(rules(Dispatch::Sequential), model), 4);
    assert_eq!((one.races, one.latency), (many.races, many.latency));
}

#[test]
fn several_workers_share_the_cache() {
    let scenario = one_name(rules(Dispatch::Sequential), BackendModel::default());
    let [one, many] = tallies(Scenario { ttl: Some(Duration::from_secs(1)), ..scenario }, 4);
    assert_eq!((one.cached, one.races, one.first), (many.cached, many.races, many.first));
}

/// Each worker has its own connections, and learns from probes and reloads.
#[test]
fn crashes_and_reloads_reach_all_workers() {
    let connections = Some(ModelConnections { max: 2, ..ModelConnections::default() });
    let crashes = vec![When::Between { from: ms(500), to: ms(1_000) }];
    let mut scenario = scenario(rules(Dispatch::Hedge), BackendModel::default(), 12_000);
    scenario.pools[0].backends[0] = BackendModel { connections, crashes, ..BackendModel::default() };
    scenario.reloads = vec![(ms(3_000), vec![rules(Dispatch::Race)])];
    let [one, many] = tallies(scenario, 4);
    assert!(one.first.abs_diff(many.first) < 100 && one.first > 14_500, "{} and {}", one.first, many.first);
    assert!(one.lost + many.lost == 0 && quantile(&many, 0.99) < 5.0, "{}", quantile(&many, 0.99));
}
