//! Attempts that could not be sent because a local resource was missing.

use super::super::*;
use super::Rank::{Best, Fair};
use super::play::Input::{Bare, Down, Reply, Retransmission, TooLong, Unsent};
use super::play::play;
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};

#[test]
fn who_could_not_be_asked_is_asked_once_more_and_then_another() {
    let sent = "0 first A, 0 first A, 0 failover B, 20 reply 0";
    play(Sequential, 2).at(0, Unsent(0)).at(0, Unsent(0)).at(20, Reply(0, Best)).check(sent);
    // Another socket would not help.
    let long = "0 first A, 0 failover B, 20 reply 0";
    play(Sequential, 2).at(0, TooLong(0)).at(20, Reply(0, Best)).check(long);
    // The others are out already, and A takes the number after theirs.
    let both = "0 first A, 0 first B, 0 first A, 20 reply 2";
    play(AtOnce, 2).at(0, Unsent(0)).at(20, Reply(2, Best)).check(both);
    let next = "0 first A, 0 first B, 0 first B, 0 failover C, 20 reply 1";
    let three = play(AtOnce, 3).rules(|rules| rules.fanout = 2);
    three.at(0, Unsent(1)).at(0, Unsent(1)).at(20, Reply(1, Best)).check(next);
}

#[test]
fn nothing_is_made_up_where_somebody_could_not_be_asked() {
    let all = play(AtOnce, 2).at(0, TooLong(1)).at(0, TooLong(0));
    let race = all.check("0 first A, 0 first B, 0 unsent");
    assert_eq!((race.attempts().count(), race.is_incomplete()), (0, true));
    let down = play(AtOnce, 1).all_down().at(0, Unsent(0)).at(0, Unsent(0));
    down.check("0 first A, 0 first A, 0 unsent");
    // A was silent, unreachable, or failed bare; that says nothing about B.
    let ask = "0 first A, 0 first B";
    play(AtOnce, 2).at(0, TooLong(1)).check(&format!("{ask}, 3000 unsent"));
    play(AtOnce, 2).at(0, TooLong(1)).at(10, Down(0)).check(&format!("{ask}, 10 unsent"));
    play(AtOnce, 2).at(0, TooLong(1)).at(10, Bare(0)).check(&format!("{ask}, 1000 unsent"));
    // But a negative reply of A counts.
    let kept = play(AtOnce, 2).at(0, TooLong(1)).at(10, Reply(0, Fair)).check(&format!("{ask}, 10 reply 0"));
    assert!(kept.is_incomplete());
    let asked = play(AtOnce, 2).at(0, Unsent(1)).check("0 first A, 0 first B, 0 first B, 3000 nothing");
    assert!(!asked.is_incomplete());
    let tries = play(Sequential, 1).rules(|rules| rules.tries = 2);
    let again = tries.at(1001, TooLong(1)).check("0 first A, 1000 failover A, 3000 nothing");
    assert!(!again.is_incomplete());
}

#[test]
fn a_hedge_that_could_not_leave_costs_nothing() {
    let ask = "0 first A, 100 hedge B, 101 hedge B, 1000 failover B";
    let two = play(Hedged, 2).at(101, Unsent(1)).at(101, Unsent(1)).at(1020, Reply(1, Best));
    let race = two.check(&format!("{ask}, 1020 reply 1"));
    assert!(!race.is_incomplete());
    // Another backend may get it.
    let three = play(Hedged, 3).at(101, TooLong(1)).at(120, Reply(1, Best));
    three.check("0 first A, 100 hedge B, 101 hedge C, 120 reply 1");
    // The budget pays for one hedge, to any backend.
    let poor = play(Hedged, 3);
    while poor.budget.hedges_left() > 1 {
        poor.budget.take();
    }
    poor.at(101, TooLong(1)).check("0 first A, 100 hedge B, 101 hedge C, 1101 failover B, 3000 nothing");
}

#[test]
fn a_client_that_asks_again_has_those_asked_who_could_not_be() {
    let ask = "0 first A, 0 first B, 500 failover B, 520 reply 1";
    play(AtOnce, 2).at(0, TooLong(1)).at(500, Retransmission).at(520, Reply(1, Best)).check(ask);
    let again = "0 first A, 0 first B, 500 failover B, 3000 unsent";
    play(AtOnce, 2).at(0, TooLong(1)).at(500, Retransmission).at(500, Unsent(1)).check(again);
}
