//! Tests of `attempt_timeout = "auto"`: early attempts and their allowance.

use super::super::*;
use super::Rank::{Best, Failure};
use super::play::Input::{Down, Lost, Reply, Retransmission};
use super::play::{Play, ms, play};
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};

/// Returns a play with so many backends that usually reply in a millisecond.
fn near(dispatch: Dispatch, backends: u16) -> Play {
    let play = play(dispatch, backends).rules(|rules| rules.attempt_timeout = AttemptTimeout::AUTO);
    (0..usize::from(backends)).fold(play, |play, backend| play.known(backend, ms(1)))
}

/// Returns a play with two backends that have not replied yet.
fn auto(dispatch: Dispatch) -> Play {
    play(dispatch, 2).rules(|rules| rules.attempt_timeout = AttemptTimeout::AUTO)
}

/// Takes the allowance of a backend.
fn spent(play: Play, backend: usize) -> Play {
    while play.latency[backend].take_early_attempt(0.0) {}
    play
}

#[test]
fn silence_moves_on_and_back_and_slower_from_the_second_repetition_on() {
    near(Sequential, 2).at(45, Reply(2, Best)).check("0 first A, 20 failover B, 40 failover A, 45 reply 2");
    let asked = "0 first A, 20 failover B, 40 failover A, 60 failover B, 80 failover A, 120 failover B";
    near(Sequential, 2).check(&format!("{asked}, 160 failover A, 240 failover B, 3000 nothing"));
    let asked = "0 first A, 20 failover A, 40 failover A, 80 failover A, 160 failover A, 320 failover A";
    near(Sequential, 1).check(&format!("{asked}, 640 failover A, 1280 failover A, 3000 nothing"));
}

#[test]
fn each_backend_has_its_own_time() {
    let known = auto(Sequential).known(0, ms(1)).known(1, ms(40));
    known.at(70, Reply(2, Best)).check("0 first A, 20 failover B, 60 failover A, 70 reply 2");
    // Before its first reply, the time of a backend is a second.
    auto(Sequential).check("0 first A, 1000 failover B, 3000 nothing");
}

#[test]
fn a_stream_is_waited_for_longest() {
    near(Sequential, 2).by_stream([true; 2]).check("0 first A, 1000 failover B, 3000 nothing");
    near(Sequential, 2)
        .by_stream([true; 2])
        .at(5, Lost(0))
        .at(9, Reply(1, Best))
        .check("0 first A, 5 failover B, 9 reply 1");
}

#[test]
fn a_hedge_is_an_open_attempt() {
    let hedged = near(Hedged, 2).rules(|rules| rules.hedge.delay = crate::HedgeDelay::Fixed(ms(2)));
    hedged.at(50, Reply(3, Best)).check("0 first A, 2 hedge B, 22 failover A, 42 failover B, 50 reply 3");
    near(Hedged, 2).at(25, Reply(1, Best)).check("0 first A, 20 failover B, 25 reply 1");
}

#[test]
fn as_many_attempts_stay_open_as_at_the_start() {
    near(AtOnce, 2).at(30, Reply(3, Best)).check("0 first A, 0 first B, 20 failover A, 20 failover B, 30 reply 3");
    near(AtOnce, 2)
        .at(9, Reply(0, Failure))
        .at(30, Reply(2, Best))
        .check("0 first A, 0 first B, 20 failover B, 30 reply 2");
}

#[test]
fn the_faster_of_two_is_repeated_before_the_timeout_of_the_other() {
    let far = auto(AtOnce).known(0, ms(100)).known(1, ms(1));
    far.at(30, Reply(2, Best)).check("0 first A, 0 first B, 20 failover B, 30 reply 2");
}

#[test]
fn what_the_allowance_does_not_pay_waits_for_a_second() {
    let poor = || spent(near(Sequential, 2), 0);
    // The attempt to B is free, and the allowance of B pays for the next ones.
    poor().at(1025, Reply(2, Best)).check("0 first A, 1000 failover B, 1020 failover A, 1025 reply 2");
    spent(poor(), 1).check("0 first A, 1000 failover B, 3000 nothing");
    spent(poor(), 1).rules(|rules| rules.tries = 2).check("0 first A, 1000 failover B, 2000 failover A, 3000 nothing");
    // A failure and a hint of the client cost nothing.
    spent(poor(), 1).at(5, Down(0)).at(9, Reply(1, Best)).check("0 first A, 5 failover B, 9 reply 1");
    spent(poor(), 1).at(7, Retransmission).at(9, Reply(1, Best)).check("0 first A, 7 failover B, 9 reply 1");
}

#[test]
fn early_attempts_are_no_tries() {
    let one = || near(Sequential, 1);
    // At 20 ms the allowance pays for one more; the next attempt is the second try.
    let last = (0..19).fold(one(), |play, _| {
        assert!(play.latency[0].take_early_attempt(0.0));
        play
    });
    last.rules(|rules| rules.tries = 2).check("0 first A, 20 failover A, 1020 failover A, 3000 nothing");
}

#[test]
fn a_denied_attempt_is_tried_again_after_twice_the_wait() {
    let Play { rules, candidates, latency, budget, start, .. } = spent(near(Sequential, 1), 0);
    let context = RaceContext { rules: &rules, latency: &latency, loads: &[], by_stream: &[], budget: &budget };
    let mut race = Race::start(&context, &candidates, Best, start);
    let (mut now, mut wakes) = (start, Vec::new());
    loop {
        match race.poll(&context, now) {
            RaceStep::Ask { .. } => {}
            RaceStep::WaitUntil(wake) => {
                now = wake;
                wakes.push((wake - start).as_millis());
            }
            RaceStep::Finished(_) => break,
        }
    }
    assert_eq!(wakes, [20, 40, 80, 160, 320, 640, 1000, 2000, 3000]);
    assert_eq!(race.tally(), (1, false));
}
