//! Tests of the time, target and budget of hedges.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::super::*;
use super::Rank::{Best, Fair};
use super::play::Input::{Down, Earned, Reply};
use super::play::{ms, play};
use crate::HedgeDelay;
use Dispatch::Hedge as Hedged;

#[test]
fn a_hedge_starts_after_the_delay_of_the_asked_backend() {
    play(Hedged, 2).at(150, Reply(1, Best)).check("0 first A, 100 hedge B, 150 reply 1");
    let late = play(Hedged, 2).rules(|rules| rules.hedge.delay = HedgeDelay::Percentile(0.9));
    // Too few samples: `max_delay`.
    late.at(400, Reply(0, Best)).check("0 first A, 250 hedge B, 400 reply 0");
    let known = play(Hedged, 2).known(0, ms(31)).known(1, ms(2));
    known
        .rules(|rules| rules.hedge.delay = HedgeDelay::Auto)
        .at(60, Reply(0, Best))
        .check("0 first A, 31 hedge B, 60 reply 0");
}

#[test]
fn hedges_are_limited() {
    let wide = || play(Hedged, 4).rules(|rules| rules.hedge.max = 2);
    wide().at(500, Reply(0, Best)).check("0 first A, 100 hedge B, 200 hedge C, 500 reply 0");
    play(Hedged, 3).check("0 first A, 100 hedge B, 1100 failover C, 3000 nothing");
    play(Hedged, 2).rules(|rules| rules.hedge.max = 0).check("0 first A, 1000 failover B, 3000 nothing");
}

#[test]
fn a_hedge_needs_another_backend() {
    play(Hedged, 1).at(500, Reply(0, Best)).check("0 first A, 500 reply 0");
}

#[test]
fn a_hedge_without_budget_is_denied_once() {
    let race = play(Hedged, 3).broke().check("0 first A, 1000 failover B, 2000 failover C, 3000 nothing");
    // One for A, one for B; after C no backend is left.
    assert_eq!(race.hedges_denied(), 2);
    let off = play(Hedged, 2).rules(|rules| rules.hedge.budget = 0.0);
    assert_eq!(off.check("0 first A, 1000 failover B, 3000 nothing").hedges_denied(), 0);
}

#[test]
fn a_denied_hedge_is_tried_again_when_twice_the_time_has_passed() {
    let earned = |time| play(Hedged, 2).broke().at(time, Earned).at(900, Reply(0, Best));
    assert_eq!(earned(150).check("0 first A, 200 hedge B, 900 reply 0").hedges_denied(), 1);
    assert_eq!(earned(500).check("0 first A, 800 hedge B, 900 reply 0").hedges_denied(), 1);
    assert_eq!(earned(850).check("0 first A, 900 reply 0").hedges_denied(), 1);
    let at_once = play(Hedged, 2).rules(|rules| rules.hedge.delay = HedgeDelay::Fixed(ms(0))).broke();
    at_once.at(5, Earned).check("0 first A, 8 hedge B, 3000 nothing");
    // A hedge denied to one attempt is due to the next after its own delay.
    play(Hedged, 3)
        .broke()
        .at(350, Down(0))
        .at(400, Earned)
        .at(500, Reply(1, Best))
        .check("0 first A, 350 failover B, 450 hedge C, 500 reply 1");
}

#[test]
fn a_hedge_goes_where_it_was_drawn_and_a_failover_to_the_next() {
    let mut play = play(Hedged, 4).at(150, Down(0)).at(200, Reply(2, Best));
    let mut rng = SmallRng::seed_from_u64(0);
    while play.candidates.hedge_places().nth(1) != Some(3) {
        play.candidates.draw_hedges(1, 4, |_| 0.0, &mut rng);
    }
    play.check("0 first A, 100 hedge D, 150 failover B, 200 reply 2");
}

#[test]
fn a_failover_costs_no_budget() {
    play(Hedged, 3).broke().at(10, Down(0)).at(50, Reply(1, Best)).check("0 first A, 10 failover B, 50 reply 1");
    // An older attempt may be the one that fails.
    play(Hedged, 3)
        .at(150, Reply(0, Fair))
        .at(180, Reply(2, Best))
        .check("0 first A, 100 hedge B, 150 failover C, 180 reply 2");
}
