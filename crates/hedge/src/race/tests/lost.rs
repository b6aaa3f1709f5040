//! Attempts that were lost with their connection, and hedges by another connection.

use super::super::*;
use super::Rank::{Best, Failure, Fair, Poor};
use super::play::Input::{Bare, Down, ExtensionRefused, Lost, Outdated, Reply, Retransmission, TooLong, Unsent};
use super::play::{Play, play};
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};

/// Creates a play with stream backends.
fn by_stream(dispatch: Dispatch, backends: u16) -> Play {
    let play = play(dispatch, backends);
    Play { by_stream: vec![true; usize::from(backends)], ..play }
}

#[test]
fn a_lost_attempt_asks_the_next_at_once_and_its_backend_when_all_others_were_asked() {
    by_stream(Sequential, 3).at(10, Lost(0)).at(20, Reply(1, Best)).check("0 first A, 10 failover B, 20 reply 1");
    by_stream(Sequential, 3)
        .at(10, Lost(0))
        .at(20, Down(1))
        .at(30, Reply(2, Failure))
        .at(40, Reply(3, Best))
        .check("0 first A, 10 failover B, 20 failover C, 30 failover A, 40 reply 3");
    // It is no hedge, so an empty bucket does not matter.
    by_stream(Hedged, 2).broke().at(10, Lost(0)).at(20, Reply(1, Best)).check("0 first A, 10 failover B, 20 reply 1");
    // Backends with a lost attempt are queued in the order of asking.
    by_stream(AtOnce, 2)
        .at(10, Lost(1))
        .at(10, Lost(0))
        .at(20, Reply(3, Best))
        .check("0 first A, 0 first B, 10 failover B, 10 failover A, 20 reply 3");
}

#[test]
fn the_only_backend_is_asked_again_at_once() {
    for dispatch in [AtOnce, Hedged, Sequential] {
        by_stream(dispatch, 1).at(10, Lost(0)).at(20, Reply(1, Best)).check("0 first A, 10 failover A, 20 reply 1");
    }
    // Nor does it matter that none is up.
    by_stream(Sequential, 1).all_down().at(10, Lost(0)).check("0 first A, 10 failover A, 1000 nothing");
}

#[test]
fn eight_attempts_stay_the_bound() {
    for (backends, asked) in [(1, "AAAAAAAA"), (2, "ABABABAB"), (3, "ABCABCAB")] {
        let lost = (0..8)
            .fold(by_stream(Sequential, backends), |play, attempt| play.at(10 + u64::from(attempt), Lost(attempt)));
        let asked = asked.chars().enumerate().map(|(number, backend)| match number {
            0 => format!("0 first {backend}"),
            number => format!("{} failover {backend}", 9 + number),
        });
        let asked: Vec<_> = asked.collect();
        // No attempt is left to wait for.
        lost.check(&format!("{}, 17 nothing", asked.join(", ")));
    }
}

#[test]
fn who_lost_one_is_asked_after_silence_too() {
    by_stream(Sequential, 2).at(10, Lost(0)).check("0 first A, 10 failover B, 1010 failover A, 3000 nothing");
    // A loss is no try.
    by_stream(Sequential, 1)
        .rules(|rules| rules.tries = 2)
        .at(10, Lost(0))
        .check("0 first A, 10 failover A, 1010 failover A, 3000 nothing");
    // A client retransmission asks it at once.
    by_stream(Sequential, 2)
        .at(10, Lost(0))
        .at(50, Retransmission)
        .at(60, Reply(2, Best))
        .check("0 first A, 10 failover B, 50 failover A, 60 reply 2");
}

#[test]
fn a_kept_reply_waits_for_who_lost_its_connection() {
    by_stream(Sequential, 2)
        .at(10, Lost(0))
        .at(20, Reply(1, Fair))
        .at(30, Reply(2, Best))
        .check("0 first A, 10 failover B, 20 failover A, 30 reply 2");
    // After a negative reply of the backend its other attempt may be lost without a replacement.
    by_stream(Hedged, 1).at(110, Reply(1, Poor)).at(120, Lost(0)).check("0 first A, 100 hedge A, 110 reply 1");
    let spoken = || by_stream(AtOnce, 2).rules(|rules| rules.tries = 2).at(1_010, Reply(2, Poor));
    let ask = "0 first A, 0 first B, 1000 failover A, 1000 failover B";
    spoken().at(1_020, Lost(0)).at(1_030, Reply(3, Best)).check(&format!("{ask}, 1030 reply 3"));
    // Nor if it was lost before the backend spoke.
    let race = by_stream(AtOnce, 2).rules(|rules| (rules.tries, rules.hedge.max) = (2, 0));
    race.at(1_005, Lost(2))
        .at(1_010, Reply(0, Poor))
        .at(1_030, Reply(3, Best))
        .check(&format!("{ask}, 1005 failover A, 1030 reply 3"));
}

#[test]
fn a_late_hedge_goes_to_the_same_backend_by_another_connection_if_nobody_else_is_left() {
    let one = || by_stream(Hedged, 1).at(120, Reply(1, Best));
    let race = one().check("0 first A, 100 hedge A, 120 reply 1");
    assert_eq!(race.tally(), (2, true));
    // By UDP that would be the same path.
    play(Hedged, 1).at(120, Reply(0, Best)).check("0 first A, 120 reply 0");
    // Another backend is asked first, by UDP or stream.
    play(Hedged, 2).by_stream([true, false]).at(120, Reply(1, Best)).check("0 first A, 100 hedge B, 120 reply 1");
    // The late one must be by stream.
    let mixed = |by_stream| play(Hedged, 2).by_stream(by_stream).at(10, Down(0)).at(400, Reply(1, Best));
    mixed([true, false]).check("0 first A, 10 failover B, 400 reply 1");
    let other = mixed([false, true]).at(420, Reply(2, Best));
    other.check("0 first A, 10 failover B, 110 hedge B, 400 reply 1");
    // Like any hedge it is paid for, and counts towards the limit.
    let broke = one().broke().at(130, Reply(0, Best)).check("0 first A, 130 reply 0");
    assert_eq!(broke.hedges_denied(), 1);
    let none = by_stream(Hedged, 1).rules(|rules| rules.hedge.max = 0);
    none.at(130, Reply(0, Best)).check("0 first A, 130 reply 0");
    let two = by_stream(Hedged, 1).rules(|rules| rules.hedge.max = 2).at(300, Reply(0, Best));
    two.check("0 first A, 100 hedge A, 200 hedge A, 300 reply 0");
    // Only where hedges are made.
    by_stream(Sequential, 1).at(120, Reply(0, Best)).check("0 first A, 120 reply 0");
}

#[test]
fn a_hedge_goes_to_who_lost_its_connection_rather_than_to_the_late_one() {
    by_stream(Hedged, 2)
        .at(10, Lost(0))
        .at(130, Reply(2, Best))
        .check("0 first A, 10 failover B, 110 hedge A, 130 reply 2");
}

#[test]
fn a_hedge_by_another_connection_that_cannot_leave_costs_nothing() {
    let race = by_stream(Hedged, 1).at(101, TooLong(1)).at(130, Reply(0, Best));
    let budget = race.budget.hedges_left();
    let (_, left) = race.check_with_budget("0 first A, 100 hedge A, 130 reply 0");
    assert_eq!(left.hedges_left(), budget);
}

#[test]
fn who_lost_one_and_cannot_be_asked_again_is_not_asked_for_ever() {
    // Another socket may help, once.
    by_stream(Sequential, 1)
        .at(10, Lost(0))
        .at(10, Unsent(1))
        .at(10, Unsent(1))
        .check("0 first A, 10 failover A, 10 failover A, 10 unsent");
    by_stream(Sequential, 1).at(10, Lost(0)).at(10, TooLong(1)).check("0 first A, 10 failover A, 10 unsent");
    by_stream(Sequential, 2)
        .at(10, Lost(0))
        .at(20, Lost(1))
        .at(20, TooLong(2))
        .at(30, Reply(2, Best))
        .check("0 first A, 10 failover B, 20 failover A, 20 failover B, 30 reply 2");
}

#[test]
fn a_loss_is_heard_once_and_only_while_something_is_waited_for() {
    for (first, second) in [(Lost(0), Lost(0)), (Down(0), Lost(0)), (Lost(0), Down(0)), (Reply(0, Failure), Lost(0))] {
        by_stream(Sequential, 3)
            .at(10, first)
            .at(11, second)
            .at(20, Reply(1, Best))
            .check("0 first A, 10 failover B, 20 reply 1");
    }
    // A bare failure has moved the race on before; its backend is asked again when no candidate is left.
    by_stream(Sequential, 2)
        .at(10, Bare(0))
        .at(20, Lost(0))
        .at(30, Down(1))
        .at(40, Reply(2, Best))
        .check("0 first A, 10 failover B, 30 failover A, 40 reply 2");
}

#[test]
fn who_refused_the_extension_is_asked_again_without_it() {
    by_stream(Sequential, 1)
        .at(10, ExtensionRefused(0))
        .at(20, Lost(1))
        .at(30, Reply(2, Best))
        .check("0 first A, 10 failover a, 20 failover a, 30 reply 2");
}

#[test]
fn the_newest_that_is_lost_is_asked_once_more_at_once_and_its_word_stays_final() {
    let newest_is_c = || by_stream(Sequential, 3).at(10, Outdated(0, 2)).at(20, Lost(1));
    newest_is_c().at(30, Reply(2, Poor)).check("0 first A, 10 failover C, 20 failover C, 20 failover B, 30 reply 2");
    // The second time it is queued like any other.
    newest_is_c()
        .at(30, Lost(2))
        .at(40, Reply(3, Fair))
        .at(50, Reply(4, Poor))
        .check("0 first A, 10 failover C, 20 failover C, 20 failover B, 30 failover C, 50 reply 4");
}

#[test]
fn two_that_are_lost_at_once_are_made_up_for_though_the_first_try_could_not_leave() {
    // The connection of both has ended, and the next one has room only when the second loss is reported.
    by_stream(Hedged, 1)
        .at(110, Lost(1))
        .at(110, TooLong(2))
        .at(110, Lost(0))
        .at(120, Reply(2, Best))
        .check("0 first A, 100 hedge A, 110 failover A, 110 failover A, 120 reply 2");
}
