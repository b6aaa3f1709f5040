//! Negative replies of an older version than another backend has.

use super::super::*;
use super::Rank::{self, Best, Failure, Fair, Good, Poor};
use super::play::Input::{Down, Outdated, Reply, TooLong, Unreachable};
use super::play::{Play, play};
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};

#[test]
fn an_older_negative_has_the_newest_asked_at_once_and_what_that_says_is_final() {
    let newest_is_c = |dispatch| play(dispatch, 3).at(10, Outdated(0, 2));
    let ask = "0 first A, 10 failover C";
    for rank in [Poor, Fair, Good, Best] {
        newest_is_c(Sequential).at(20, Reply(1, rank)).check(&format!("{ask}, 20 reply 1"));
        newest_is_c(Hedged).broke().at(20, Reply(1, rank)).check(&format!("{ask}, 20 reply 1"));
    }
    // After a failure of the newest the race goes on, and a backend that is not older replies by the rules.
    newest_is_c(Sequential)
        .at(20, Reply(1, Failure))
        .at(30, Reply(2, Fair))
        .check(&format!("{ask}, 20 failover B, 30 reply 2"));
    // The same holds if it could not be asked.
    newest_is_c(Sequential)
        .at(10, TooLong(1))
        .at(20, Reply(1, Poor))
        .check(&format!("{ask}, 10 failover B, 20 reply 1"));
    // The newest need not be a candidate.
    play(Sequential, 2).at(10, Outdated(0, 7)).at(20, Reply(1, Poor)).check("0 first A, 10 failover H, 20 reply 1");
    // For any `accept`.
    for accept in [Good, Poor, Failure] {
        let race = newest_is_c(Sequential).accept(accept);
        race.at(20, Reply(1, Fair)).check(&format!("{ask}, 20 reply 1"));
    }
}

#[test]
fn a_newest_that_was_asked_is_waited_for() {
    let ask = "0 first A, 0 first B, 0 first C";
    let race = || play(AtOnce, 3).accept(Poor).at(10, Outdated(0, 2));
    race().at(20, Outdated(1, 2)).at(30, Reply(2, Fair)).check(&format!("{ask}, 30 reply 2"));
    race().at(20, Reply(1, Fair)).check(&format!("{ask}, 20 reply 1"));
    race().at(20, Unreachable(2)).at(30, Reply(2, Poor)).check(&format!("{ask}, 30 reply 2"));
    // An earlier reply of the newest is final as well.
    let spoken = play(AtOnce, 3).at(5, Reply(2, Fair)).at(10, Outdated(0, 2));
    spoken.check(&format!("{ask}, 10 reply 2"));
}

#[test]
fn an_older_negative_is_better_than_nothing() {
    let ask = "0 first A, 10 failover C";
    let race = || play(Sequential, 3).at(10, Outdated(0, 2));
    let kept = race().at(20, Down(1)).at(30, Down(2)).check(&format!("{ask}, 20 failover B, 30 reply 0"));
    assert_eq!(kept.kept(), Some((AttemptId(0), Rank::Outdated)));
    let failed = race().at(20, Reply(1, Failure)).at(30, Reply(2, Failure));
    failed.check(&format!("{ask}, 20 failover B, 30 reply 0"));
    // Two older backends reply in turn: the newest is asked once.
    let two = play(Sequential, 2).at(10, Outdated(0, 7)).at(20, Down(1)).at(30, Outdated(2, 7));
    two.check("0 first A, 10 failover H, 20 failover B, 30 reply 0");
    // An older backend that repeats itself is still not accepted.
    play(Sequential, 1).at(10, Outdated(0, 7)).check("0 first A, 10 failover H, 3000 reply 0");
}

#[test]
fn the_newest_that_was_named_first_has_its_say_while_it_may() {
    // Two deny the name, and each points to another newer backend.
    let two = || play(AtOnce, 4).at(10, Outdated(0, 2)).at(20, Outdated(1, 3));
    let ask = "0 first A, 0 first B, 0 first C, 0 first D";
    two().at(30, Reply(2, Poor)).check(&format!("{ask}, 30 reply 2"));
    two().at(30, Reply(3, Fair)).at(40, Reply(2, Poor)).check(&format!("{ask}, 40 reply 2"));
    // If the first fails, the backend that is named next has the final word.
    play(AtOnce, 4)
        .at(10, Outdated(0, 2))
        .at(20, Down(2))
        .at(30, Outdated(1, 3))
        .at(40, Reply(3, Poor))
        .check(&format!("{ask}, 40 reply 3"));
    // A newest backend that is due is asked in any case.
    let Play { rules, candidates, latency, budget, start, .. } = play(AtOnce, 2);
    let context = RaceContext { rules: &rules, latency: &latency, loads: &[], by_stream: &[], budget: &budget };
    let mut race = Race::start(&context, &candidates, Good, start);
    while let RaceStep::Ask { .. } = race.poll(&context, start) {}
    race.on_outdated(AttemptId(0), Rank::Outdated, BackendIndex(7));
    race.on_outdated(AttemptId(1), Rank::Outdated, BackendIndex(8));
    let step = race.poll(&context, start);
    assert!(matches!(step, RaceStep::Ask { backend: BackendIndex(7), .. }), "{step:?}");
    assert!(race.is_final(BackendIndex(7)) && !race.is_final(BackendIndex(8)));
}
