//! Tests of the race rules. Each test is a play: a list of timed inputs and the expected steps.

mod decisions;
mod early;
mod hedges;
mod lost;
mod play;
mod room;
mod unsent;
mod versions;

use super::*;
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};
use Rank::{Best, Failure, Fair, Good, Poor};
use play::Input::{Bare, Down, ExtensionRefused, Reply, Retransmission, Unreachable};
use play::{Play, ms, play, put_in};

/// Ranks of every kind, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Failure,
    Outdated,
    Poor,
    Fair,
    Good,
    Best,
    Doubtful,
    Decided,
}

impl ReplyRank for Rank {
    fn is_failure(self) -> bool {
        self <= Self::Outdated
    }

    fn is_provisional(self) -> bool {
        self == Self::Doubtful
    }
}

#[test]
fn stays_small() {
    assert!(size_of::<Race<Rank>>() <= 136, "{}", size_of::<Race<Rank>>());
}

#[test]
fn a_race_asks_all_at_once_and_an_accepted_reply_wins() {
    play(AtOnce, 3).at(20, Reply(1, Best)).check("0 first A, 0 first B, 0 first C, 20 reply 1");
    play(AtOnce, 2).at(20, Reply(1, Good)).check("0 first A, 0 first B, 20 reply 1");
}

#[test]
fn what_is_accepted_depends_on_the_rules() {
    for (accept, rank, accepted) in
        [(Good, Good, true), (Good, Fair, false), (Poor, Poor, true), (Poor, Failure, false), (Failure, Failure, true)]
    {
        let end = if accepted { "20 reply 0" } else { "3000 reply 0" };
        play(AtOnce, 2).accept(accept).at(20, Reply(0, rank)).check(&format!("0 first A, 0 first B, {end}"));
    }
}

#[test]
fn kept_reply_waits_for_other_attempts() {
    let ask = "0 first A, 0 first B";
    play(AtOnce, 2).at(10, Reply(0, Fair)).at(90, Reply(1, Best)).check(&format!("{ask}, 90 reply 1"));
    play(AtOnce, 2).at(10, Reply(0, Fair)).at(90, Reply(1, Fair)).check(&format!("{ask}, 90 reply 0"));
    play(AtOnce, 2).at(10, Reply(0, Fair)).at(90, Down(1)).check(&format!("{ask}, 90 reply 0"));
    play(AtOnce, 2).at(10, Reply(0, Fair)).check(&format!("{ask}, 3000 reply 0"));
}

#[test]
fn the_best_kept_reply_wins_and_of_equals_the_first() {
    let ask = "0 first A, 0 first B, 0 first C";
    for (ranks, winner) in [
        ([Failure, Fair, Poor], 1),
        ([Poor, Fair, Failure], 1),
        ([Failure, Failure, Failure], 0),
        ([Failure, Poor, Poor], 1),
    ] {
        play(AtOnce, 3)
            .at(10, Reply(0, ranks[0]))
            .at(20, Reply(1, ranks[1]))
            .at(30, Reply(2, ranks[2]))
            .check(&format!("{ask}, 30 reply {winner}"));
    }
}

#[test]
fn only_a_better_reply_is_kept_anew() {
    let Play { rules, candidates, latency, budget, start, .. } = play(AtOnce, 4);
    let context = RaceContext { rules: &rules, latency: &latency, loads: &[], by_stream: &[], budget: &budget };
    let mut race = Race::start(&context, &candidates, Good, start);
    while let RaceStep::Ask { .. } = race.poll(&context, start) {}
    assert_eq!(race.on_reply(AttemptId(0), Failure, start), ReplyValue::Kept);
    assert_eq!(race.on_reply(AttemptId(1), Fair, start), ReplyValue::Kept);
    assert_eq!(race.on_reply(AttemptId(2), Poor, start), ReplyValue::NotNeeded);
    assert_eq!(race.on_reply(AttemptId(3), Best, start), ReplyValue::Accepted);
}

#[test]
fn silence_ends_at_the_deadline() {
    play(AtOnce, 1).check("0 first A, 3000 nothing");
    play(AtOnce, 2).at(10, Down(0)).check("0 first A, 0 first B, 3000 nothing");
}

#[test]
fn a_race_without_candidates_is_over_at_once() {
    play(AtOnce, 0).check("0 nothing");
}

#[test]
fn when_every_attempt_failed_nobody_waits() {
    play(AtOnce, 2).at(10, Down(0)).at(30, Down(1)).check("0 first A, 0 first B, 30 nothing");
}

#[test]
fn fanout_asks_the_others_as_earlier_ones_end() {
    let race = || play(AtOnce, 4).rules(|rules| rules.fanout = 2);
    let ask = "0 first A, 0 first B";
    race()
        .at(10, Reply(0, Fair))
        .at(20, Down(1))
        .at(40, Reply(2, Best))
        .check(&format!("{ask}, 10 failover C, 20 failover D, 40 reply 2"));
    race().check(&format!("{ask}, 1000 failover C, 1000 failover D, 3000 nothing"));
    race().at(10, Reply(0, Best)).check(&format!("{ask}, 10 reply 0"));
    play(AtOnce, 2).rules(|rules| rules.fanout = 9).at(1, Reply(0, Best)).check("0 first A, 0 first B, 1 reply 0");
}

#[test]
fn sequential_asks_the_next_after_silence_or_failure() {
    play(Sequential, 3).check("0 first A, 1000 failover B, 2000 failover C, 3000 nothing");
    play(Sequential, 3)
        .at(10, Reply(0, Failure))
        .at(20, Down(1))
        .at(30, Reply(2, Best))
        .check("0 first A, 10 failover B, 20 failover C, 30 reply 2");
    play(Sequential, 2).at(10, Reply(0, Fair)).at(20, Reply(1, Failure)).check("0 first A, 10 failover B, 20 reply 0");
}

#[test]
fn an_attempt_moves_the_race_on_once() {
    for (first, second) in [
        (Reply(0, Failure), Reply(0, Failure)),
        (Reply(0, Fair), Down(0)),
        (Down(0), Reply(0, Failure)),
        (Unreachable(0), Reply(0, Failure)),
        (Unreachable(0), Down(0)),
        (Unreachable(0), Bare(0)),
        (Unreachable(0), Unreachable(0)),
        (Bare(0), Unreachable(0)),
        (Bare(0), Bare(0)),
        (Bare(0), Down(0)),
        (Bare(0), Reply(0, Poor)),
    ] {
        play(Sequential, 3)
            .at(10, first)
            .at(11, second)
            .at(20, Reply(1, Best))
            .check("0 first A, 10 failover B, 20 reply 1");
    }
}

#[test]
fn an_attempt_that_timed_out_still_counts() {
    play(Sequential, 2).at(1_500, Reply(0, Best)).check("0 first A, 1000 failover B, 1500 reply 0");
}

#[test]
fn no_failure_wins_while_another_attempt_is_out() {
    play(Sequential, 2).at(1_100, Reply(1, Failure)).check("0 first A, 1000 failover B, 3000 reply 1");
    play(Sequential, 1)
        .rules(|rules| rules.tries = 2)
        .at(1_100, Reply(1, Failure))
        .check("0 first A, 1000 failover A, 3000 reply 1");
}

#[test]
fn silent_backends_are_asked_again_in_the_same_order() {
    let long = |rules: &mut RaceRules| (rules.tries, rules.timeout) = (2, ms(10_000));
    play(Sequential, 2)
        .rules(long)
        .check("0 first A, 1000 failover B, 2000 failover A, 3000 failover B, 10000 nothing");
    play(AtOnce, 2).rules(long).check("0 first A, 0 first B, 1000 failover A, 1000 failover B, 10000 nothing");
    play(AtOnce, 2)
        .rules(long)
        .at(10, Reply(0, Fair))
        .at(1_100, Reply(2, Poor))
        .check("0 first A, 0 first B, 1000 failover B, 1100 reply 0");
    play(Hedged, 2).rules(long).check("0 first A, 100 hedge B, 1100 failover A, 2100 failover B, 10000 nothing");
}

#[test]
fn a_backend_that_replied_is_not_asked_again() {
    play(Sequential, 2)
        .rules(|rules| rules.tries = 3)
        .at(10, Reply(0, Failure))
        .at(1_020, Reply(1, Fair))
        .check("0 first A, 10 failover B, 1010 failover B, 1020 reply 1");
}

#[test]
fn there_are_at_most_eight_attempts() {
    play(Sequential, 2).rules(|rules| (rules.tries, rules.timeout) = (9, ms(30_000))).check(
        "0 first A, 1000 failover B, 2000 failover A, 3000 failover B, 4000 failover A, \
         5000 failover B, 6000 failover A, 7000 failover B, 30000 nothing",
    );
}

#[test]
fn all_are_asked_when_none_is_up_and_the_wait_is_short() {
    for dispatch in [AtOnce, Hedged, Sequential] {
        play(dispatch, 3).all_down().check("0 first A, 0 first B, 0 first C, 1000 nothing");
    }
    play(Sequential, 2).all_down().at(5, Down(0)).at(7, Down(1)).check("0 first A, 0 first B, 7 nothing");
    let hasty = play(AtOnce, 1).all_down().rules(|rules| rules.timeout = ms(400));
    hasty.check("0 first A, 400 nothing");
}

#[test]
fn a_bare_failure_moves_on_but_its_attempt_stays() {
    play(Sequential, 2).at(10, Bare(0)).at(50, Reply(0, Best)).check("0 first A, 10 failover B, 50 reply 0");
    play(Sequential, 1).at(10, Bare(0)).check("0 first A, 1000 failed");
    // Another attempt is open: its silence counts until the deadline.
    play(Sequential, 2).at(10, Bare(0)).check("0 first A, 10 failover B, 3000 failed");
    play(Sequential, 2).at(10, Bare(0)).at(20, Bare(1)).check("0 first A, 10 failover B, 1010 failed");
    // A better reply came: it wins once the bare one had its time.
    play(AtOnce, 2).at(10, Bare(0)).at(20, Reply(1, Fair)).check("0 first A, 0 first B, 1000 reply 1");
    play(Sequential, 2).at(10, Bare(0)).at(20, Down(1)).at(30, Down(0)).check("0 first A, 10 failover B, 30 failed");
}

#[test]
fn an_icmp_error_moves_on_but_its_attempt_stays() {
    play(Sequential, 2).at(10, Unreachable(0)).at(50, Reply(0, Best)).check("0 first A, 10 failover B, 50 reply 0");
    // The race waits for it like for a silent one, until the deadline.
    play(Sequential, 1).at(10, Unreachable(0)).at(2_900, Reply(0, Best)).check("0 first A, 2900 reply 0");
    play(Sequential, 2).at(10, Unreachable(0)).at(20, Reply(1, Fair)).check("0 first A, 10 failover B, 3000 reply 1");
    // Once its backend is down, the race stops waiting.
    play(Sequential, 2)
        .at(10, Unreachable(0))
        .at(20, Unreachable(1))
        .at(30, Down(0))
        .at(40, Down(1))
        .check("0 first A, 10 failover B, 40 nothing");
    // A replacement is no hedge, and no hedge is due besides.
    play(Hedged, 3)
        .rules(|rules| rules.hedge.budget = 0.0)
        .at(10, Unreachable(0))
        .at(20, Unreachable(1))
        .at(30, Reply(2, Best))
        .check("0 first A, 10 failover B, 20 failover C, 30 reply 2");
    // After `attempt_timeout` it has its next try, like a silent one.
    play(Sequential, 1)
        .rules(|rules| rules.tries = 2)
        .at(10, Unreachable(0))
        .at(1_200, Reply(1, Best))
        .check("0 first A, 1000 failover A, 1200 reply 1");
}

#[test]
fn who_refuses_extension_is_asked_once_more_without() {
    play(Sequential, 2)
        .at(10, ExtensionRefused(0))
        .at(20, Reply(1, Best))
        .check("0 first A, 10 failover a, 20 reply 1");
    // Refused again: a failure.
    play(Sequential, 2)
        .at(10, ExtensionRefused(0))
        .at(20, ExtensionRefused(1))
        .at(30, Reply(2, Best))
        .check("0 first A, 10 failover a, 20 failover B, 30 reply 2");
    // A duplicate of the refusal.
    play(Sequential, 2)
        .at(10, ExtensionRefused(0))
        .at(11, ExtensionRefused(0))
        .at(20, Reply(1, Best))
        .check("0 first A, 10 failover a, 20 reply 1");
    // Further tries leave the extension out, and the replaced attempt was no try.
    play(Sequential, 1)
        .rules(|rules| rules.tries = 2)
        .at(10, ExtensionRefused(0))
        .check("0 first A, 10 failover a, 1010 failover a, 3000 nothing");
}

#[test]
fn an_extension_refused_by_eight_is_a_failure() {
    let mut refused = play(AtOnce, 8);
    for attempt in 0..8 {
        refused = refused.at(10, ExtensionRefused(attempt));
    }
    let letters: Vec<_> = ('A'..='H').map(|letter| format!("0 first {letter}")).collect();
    refused.check(&format!("{}, 10 reply 0", letters.join(", ")));
}

#[test]
fn a_retransmission_asks_the_next_or_the_longest_silent() {
    play(Sequential, 2)
        .at(300, Retransmission)
        .at(400, Retransmission)
        .at(500, Retransmission)
        .at(600, Reply(2, Best))
        .check("0 first A, 300 failover B, 400 failover A, 500 failover B, 600 reply 2");
    play(AtOnce, 2)
        .at(10, Reply(0, Fair))
        .at(300, Retransmission)
        .at(310, Reply(2, Best))
        .check("0 first A, 0 first B, 300 failover B, 310 reply 2");
    let nine = (0..9).fold(play(Sequential, 1), |play, time| play.at(100 + time, Retransmission));
    let asked: Vec<_> = (100..107).map(|time| format!("{time} failover A")).collect();
    nine.check(&format!("0 first A, {}, 3000 nothing", asked.join(", ")));
}

#[test]
fn a_kept_negative_goes_out_after_the_grace() {
    let graceful = |grace| play(AtOnce, 2).rules(|rules| rules.grace = grace);
    let ask = "0 first A, 0 first B";
    graceful(Grace::After(ms(50))).at(10, Reply(0, Fair)).check(&format!("{ask}, 60 reply 0"));
    graceful(Grace::After(ms(50))).at(10, Reply(0, Fair)).at(59, Reply(1, Best)).check(&format!("{ask}, 59 reply 1"));
    // Grace applies to negatives only.
    graceful(Grace::After(ms(50))).at(10, Reply(0, Failure)).check(&format!("{ask}, 3000 reply 0"));
    graceful(Grace::After(ms(0))).at(10, Reply(0, Poor)).check(&format!("{ask}, 10 reply 0"));
}

#[test]
fn the_automatic_grace_follows_the_silent_backends() {
    let graceful = || play(AtOnce, 2).rules(|rules| rules.grace = Grace::Auto).at(10, Reply(0, Fair));
    let ask = "0 first A, 0 first B";
    // An unknown backend may take its whole time.
    graceful().check(&format!("{ask}, 1010 reply 0"));
    graceful().known(0, ms(900)).known(1, Duration::from_micros(20)).check(&format!("{ask}, 15 reply 0"));
    graceful().known(1, ms(31)).check(&format!("{ask}, 103 reply 0"));
    graceful().known(1, ms(900)).check(&format!("{ask}, 1010 reply 0"));
}

#[test]
fn a_finished_race_hears_nothing() {
    let mut race = play(AtOnce, 2).at(20, Reply(1, Best)).check("0 first A, 0 first B, 20 reply 1");
    let Play { rules, latency, budget, start, .. } = play(AtOnce, 2);
    let context = RaceContext { rules: &rules, latency: &latency, loads: &[], by_stream: &[], budget: &budget };
    assert_eq!(race.on_reply(AttemptId(0), Best, start), ReplyValue::NotNeeded);
    for input in [Down(0), Unreachable(0), Bare(0), ExtensionRefused(0), Retransmission] {
        put_in(&mut race, &budget, input, start);
        assert_eq!(race.poll(&context, start), RaceStep::Finished(RaceEnd::Reply(AttemptId(1))));
    }
}

#[test]
fn an_unknown_attempt_is_ignored() {
    let spoken = [Reply(7, Best), Down(7), Unreachable(7), Bare(7)];
    let race = spoken.into_iter().fold(play(AtOnce, 1), |play, input| play.at(5, input));
    race.check("0 first A, 3000 nothing");
}

#[test]
fn attempts_can_be_looked_at() {
    let race = play(Hedged, 2).at(150, Reply(1, Best)).check("0 first A, 100 hedge B, 150 reply 1");
    let open: Vec<_> = race.attempts().map(|attempt| (attempt.kind, attempt.backend.0, attempt.open)).collect();
    assert_eq!(open, [(AttemptKind::First, 0, true), (AttemptKind::Hedge, 1, false)]);
    let hedge = race.attempt(AttemptId(1)).expect("it was made");
    assert_eq!(race.deadline() - hedge.asked_at, ms(2_900));
    assert_eq!(race.attempt(AttemptId(2)), None);
}
