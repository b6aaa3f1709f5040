//! Scenarios of `dispatch = "auto"`, beside fixed policies.

use super::*;

/// Returns the tallies without hedges, with those of the budget, and with tuned ones, after a second.
fn tallies(scenario: &Scenario) -> [Tally; 3] {
    [Dispatch::Sequential, Dispatch::Hedge, Dispatch::Auto].map(|dispatch| {
        let mut scenario = scenario.clone();
        scenario.pools[0].rules.race = RaceRules::default().with_dispatch(dispatch);
        Tally::after(Duration::from_secs(1), &scenario, Instant::now(), 1).0
    })
}

/// Returns two backends with one server each, which takes 1 ms, and queries for this part of their capacity.
fn queue(model: BackendModel, load: f64) -> Scenario {
    let capacity = Some(Capacity { servers: 1, service: Delay::Constant(ms(1)) });
    let gap = Duration::from_secs_f64(1.0 / 2_000.0 / load);
    Scenario { gap, ..scenario(rules(Dispatch::Auto), BackendModel { capacity, ..model }, 40_000) }
}

fn p999(tally: &Tally) -> f64 {
    quantile(tally, 0.999)
}

#[test]
fn idle_backends_get_the_hedges_that_the_budget_pays() {
    let [sequential, hedge, auto] = tallies(&queue(stumbling(0.01, ms(300)), 0.2));
    assert!(p999(&auto) < 1.1 * p999(&hedge) && p999(&auto) * 20.0 < p999(&sequential), "{}", p999(&auto));
    assert!(auto.hedges as f64 <= 0.05 * auto.queries as f64 + 10.0, "{} of {}", auto.hedges, auto.queries);
}

#[test]
fn full_backends_get_hedges_only_for_what_no_queue_explains() {
    let [sequential, hedge, auto] = tallies(&queue(BackendModel::default(), 0.95));
    let times = [&sequential, &hedge, &auto].map(p999);
    assert!(times[2] < 1.1 * times[0] && times[2] < 0.8 * times[1], "{times:?}");
    let [sequential, hedge, auto] = tallies(&queue(stumbling(0.01, ms(300)), 0.9));
    let times = [&sequential, &hedge, &auto].map(p999);
    assert!(times[2] < 0.5 * times[0] && times[2] < times[1], "{times:?}");
}

#[test]
fn a_whole_budget_makes_races_while_there_is_room_and_no_overload() {
    let auto = |load| {
        let mut scenario = queue(stumbling(0.01, ms(300)), load);
        let race = &mut scenario.pools[0].rules.race;
        *race = RaceRules::default().with_dispatch(Dispatch::Auto);
        race.hedge.budget = 1.0;
        let hedged = Tally::after(Duration::from_secs(2), &scenario, Instant::now(), 1).0;
        scenario.pools[0].rules.race = RaceRules::default().with_dispatch(Dispatch::Hedge);
        (hedged, Tally::after(Duration::from_secs(2), &scenario, Instant::now(), 1).0)
    };
    let (idle, _) = auto(0.1);
    assert!(p999(&idle) < 6.0, "{}", p999(&idle));
    let (full, hedge) = auto(0.8);
    assert!(p999(&full) < 2.0 * p999(&hedge) && full.lost == 0, "{} {}", p999(&full), p999(&hedge));
}

#[test]
fn losses_beyond_the_budget_are_repeated_early() {
    let lossy = BackendModel { loss: Course::always(0.1), ..BackendModel::default() };
    let [sequential, hedge, auto] = tallies(&scenario(rules(Dispatch::Auto), lossy, 20_000));
    assert!(p999(&auto) < 100.0 && p999(&auto) < p999(&hedge) && p999(&hedge) <= p999(&sequential), "{}", p999(&auto));
    assert!(auto.lost == 0 && auto.extra_load() < 0.14, "{}", auto.extra_load());
}

#[test]
fn hedges_go_to_another_site() {
    let mut scenario = scenario(rules(Dispatch::Auto), stumbling(0.02, ms(100)), 20_000);
    scenario.pools[0].backends = vec![scenario.pools[0].backends[0].clone(); 4];
    for (backend, site) in scenario.pools[0].backends.iter_mut().zip(["a", "a", "b", "b"]) {
        backend.site.name = Some(site.to_owned());
    }
    scenario.pools[0].rules.race = RaceRules::default().with_dispatch(Dispatch::Auto);
    let (mut near, mut far) = (0, 0);
    play(&scenario, Instant::now(), 1, |_, happening| {
        if let Happening::RaceOver(report) = happening {
            let asked: Vec<_> = report.race.attempts().map(|attempt| attempt.backend.get() / 2).collect();
            asked.windows(2).for_each(|pair| *(if pair[0] == pair[1] { &mut near } else { &mut far }) += 1);
        }
    });
    // Those at the same site get the hedges for which the others have no room.
    assert!(far > 200 && near * 20 < far, "{far} and {near}");
}
