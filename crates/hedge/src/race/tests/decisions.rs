//! Replies that are a decision of their backend.

use super::super::*;
use super::Rank::{self, Best, Decided, Doubtful, Failure, Fair, Good, Poor};
use super::play::Input::{Down, Outdated, Reply, Validated};
use super::play::{ms, play};
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};

const ACCEPTS: [Rank; 3] = [Good, Poor, Failure];

#[test]
fn a_decision_is_final_in_every_dispatch_whatever_is_accepted() {
    for accept in ACCEPTS {
        for (dispatch, ask) in [(AtOnce, "0 first A, 0 first B"), (Hedged, "0 first A"), (Sequential, "0 first A")] {
            let race = play(dispatch, 2).accept(accept);
            race.at(10, Reply(0, Decided)).check(&format!("{ask}, 10 reply 0"));
        }
    }
    play(AtOnce, 2).at(5, Reply(1, Fair)).at(10, Reply(0, Decided)).check("0 first A, 0 first B, 10 reply 0");
}

#[test]
fn a_doubtful_decision_is_kept_and_asks_the_next() {
    let ask = "0 first A, 10 failover B";
    for accept in ACCEPTS {
        let race = |rank| {
            let race = play(Sequential, 2).accept(accept);
            race.at(10, Reply(0, Doubtful)).at(20, rank).check(&format!("{ask}, 20 reply 0"));
        };
        for rank in [Failure, Poor, Fair, Good, Best, Doubtful, Decided] {
            race(Reply(1, rank));
        }
        race(Down(1));
        let race = play(Sequential, 2).accept(accept);
        race.at(10, Reply(0, Doubtful)).at(20, Validated(1)).check(&format!("{ask}, 20 reply 1"));
    }
    // It replaces any kept reply, and the race waits until the others have replied.
    let race = play(AtOnce, 3).at(5, Reply(1, Fair)).at(10, Reply(0, Doubtful)).at(20, Reply(2, Best));
    assert!(race.check("0 first A, 0 first B, 0 first C, 20 reply 0").is_finished());
}

#[test]
fn no_grace_ends_the_wait_of_a_doubtful_decision_for_a_validated_reply() {
    let race = play(AtOnce, 3).rules(|rules| rules.grace = Grace::After(ms(50)));
    let race = race.at(10, Reply(0, Doubtful)).at(20, Reply(1, Poor)).at(200, Validated(2));
    race.check("0 first A, 0 first B, 0 first C, 200 reply 2");
}

#[test]
fn the_newest_version_of_data_takes_no_doubt_away() {
    let ask = "0 first A, 0 first B, 0 first C";
    let race = || play(AtOnce, 3).at(10, Reply(2, Doubtful)).at(20, Outdated(0, 2));
    race().at(30, Validated(1)).check(&format!("{ask}, 30 reply 1"));
    race().at(30, Reply(1, Best)).check(&format!("{ask}, 30 reply 2"));
    let race = play(AtOnce, 3).at(10, Outdated(0, 2)).at(20, Reply(2, Doubtful)).at(30, Validated(1));
    race.check(&format!("{ask}, 30 reply 1"));
}
