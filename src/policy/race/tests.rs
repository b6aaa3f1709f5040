//! The rules of a race, one by one. Each test is a play: what comes in when, and what the race says.

use std::collections::VecDeque;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::policy::Rank::{Failure, Nodata, NodataAuthoritative, Nxdomain, Positive};
use crate::policy::{Hedge, HedgeDelay};
use Dispatch::{Hedge as Hedged, Race as AtOnce, Sequential};
use Input::{Bare, Down, Earned, OptRefused, Outdated, Reply, Retransmission, TooLong, Unreachable, Unsent};

/// Something that happens to a race.
#[derive(Clone, Copy, Debug)]
enum Input {
    /// A reply to this attempt.
    Reply(u8, Rank),
    /// A negative reply to this attempt, of an older version than this backend has.
    Outdated(u8, u16),
    /// An ICMP error for this attempt.
    Unreachable(u8),
    /// The backend of this attempt is found down.
    Down(u8),
    /// A bare failure to this attempt.
    Bare(u8),
    /// A refusal of OPT to this attempt.
    OptRefused(u8),
    /// This attempt could not leave; another socket may help.
    Unsent(u8),
    /// This attempt could not leave, from no socket.
    TooLong(u8),
    /// The client asks again.
    Retransmission,
    /// Other races fill the budget.
    Earned,
}

/// A race among backends A, B, C ..., and what happens to it, in milliseconds.
struct Play {
    rules: Rules,
    /// Who may be asked.
    candidates: Candidates,
    /// The latency of each backend.
    latency: Vec<Latency>,
    /// What pays for hedges.
    budget: Budget,
    /// What happens, in the order of time.
    inputs: VecDeque<(u64, Input)>,
    /// When the race starts.
    start: Instant,
}

/// A play with so many backends that are up, and a dispatch.
fn play(dispatch: Dispatch, backends: u16) -> Play {
    let start = Instant::now();
    Play {
        rules: Rules {
            dispatch,
            hedge: Hedge { delay: HedgeDelay::Fixed(ms(100)), ..Hedge::default() },
            ..Rules::default()
        },
        candidates: Candidates::of((0..backends).map(BackendIndex), false),
        latency: vec![Latency::new(start); usize::from(backends)],
        budget: Budget::new(1.0),
        inputs: VecDeque::new(),
        start,
    }
}

impl Play {
    /// Changes the rules.
    fn rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }

    /// No backend is up.
    fn all_down(mut self) -> Self {
        self.candidates = Candidates::of(self.candidates.iter(), true);
        self
    }

    /// This backend took this long each time.
    fn known(mut self, backend: usize, latency: Duration) -> Self {
        for _ in 0..100 {
            self.latency[backend].record(latency, self.start);
        }
        self
    }

    /// Nothing is in the bucket.
    fn broke(self) -> Self {
        while self.budget.take() {}
        self
    }

    /// Something happens.
    fn at(mut self, time: u64, input: Input) -> Self {
        self.inputs.push_back((time, input));
        self
    }

    /// Plays to the end, and compares what the race said: `0 first A, 100 hedge B, 120 reply 1`. A time is
    /// when, `A` is who was asked (`a`: without OPT), and at the end stands the outcome.
    #[track_caller]
    fn check(mut self, expected: &str) -> Race {
        let context = RaceContext { rules: &self.rules, latency: &self.latency, budget: &self.budget };
        let mut race = Race::start(&context, &self.candidates, self.start);
        let (mut now, mut said) = (self.start, Vec::new());
        loop {
            let time = (now - self.start).as_millis();
            match race.next_step(&context, now) {
                Step::Ask { backend, kind, edns, .. } => {
                    let letter = if edns { b'A' } else { b'a' } + backend.0 as u8;
                    said.push(format!("{time} {} {}", format!("{kind:?}").to_lowercase(), letter as char));
                }
                Step::WaitUntil(wake) => {
                    assert!(wake > now && wake <= race.deadline(), "{said:?}, then until {:?}", wake - self.start);
                    match self.inputs.front() {
                        Some(&(time, input)) if self.start + ms(time) <= wake => {
                            self.inputs.pop_front();
                            now = self.start + ms(time);
                            put_in(&mut race, &self.budget, input, now);
                        }
                        Some(_) | None => now = wake,
                    }
                }
                Step::Finished(outcome) => {
                    said.push(match outcome {
                        Outcome::Reply(attempt) => format!("{time} reply {}", attempt.0),
                        Outcome::Failed => format!("{time} failed"),
                        Outcome::Nothing => format!("{time} nothing"),
                        Outcome::Unsent => format!("{time} unsent"),
                    });
                    break;
                }
            }
        }
        assert_eq!(said.join(", "), expected);
        race
    }
}

/// Tells a race what happens.
fn put_in(race: &mut Race, budget: &Budget, input: Input, now: Instant) {
    match input {
        Reply(attempt, rank) => {
            race.on_reply(AttemptId(attempt), rank, now);
        }
        Outdated(attempt, newest) => {
            race.on_outdated(AttemptId(attempt), BackendIndex(newest));
        }
        Unreachable(attempt) => race.on_unreachable(AttemptId(attempt)),
        Down(attempt) => race.on_failure(AttemptId(attempt)),
        Bare(attempt) => race.on_bare_failure(AttemptId(attempt)),
        OptRefused(attempt) => {
            if race.on_opt_refused(AttemptId(attempt)) == OptRefusal::IsFailure {
                race.on_reply(AttemptId(attempt), Failure, now);
            }
        }
        Unsent(attempt) => race.on_unsent(AttemptId(attempt), Retry::Once, budget),
        TooLong(attempt) => race.on_unsent(AttemptId(attempt), Retry::Never, budget),
        Retransmission => race.on_retransmission(),
        Earned => budget.earn(1_000),
    }
}

/// Milliseconds.
fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn stays_small() {
    assert!(size_of::<Race>() <= 192, "{}", size_of::<Race>());
}

#[test]
fn a_race_asks_all_at_once_and_an_accepted_reply_wins() {
    play(AtOnce, 3).at(20, Reply(1, Positive)).check("0 first A, 0 first B, 0 first C, 20 reply 1");
    play(AtOnce, 2).at(20, Reply(1, NodataAuthoritative)).check("0 first A, 0 first B, 20 reply 1");
}

#[test]
fn what_is_accepted_depends_on_the_rules() {
    for (accept, rank, accepted) in [
        (Accept::Positive, NodataAuthoritative, true),
        (Accept::Positive, Nxdomain, false),
        (Accept::Conclusive, Nodata, true),
        (Accept::Conclusive, Failure, false),
        (Accept::Any, Failure, true),
    ] {
        let end = if accepted { "20 reply 0" } else { "3000 reply 0" };
        play(AtOnce, 2)
            .rules(|rules| rules.accept = accept)
            .at(20, Reply(0, rank))
            .check(&format!("0 first A, 0 first B, {end}"));
    }
}

#[test]
fn kept_reply_waits_for_other_attempts() {
    let ask = "0 first A, 0 first B";
    play(AtOnce, 2).at(10, Reply(0, Nxdomain)).at(90, Reply(1, Positive)).check(&format!("{ask}, 90 reply 1"));
    play(AtOnce, 2).at(10, Reply(0, Nxdomain)).at(90, Reply(1, Nxdomain)).check(&format!("{ask}, 90 reply 0"));
    play(AtOnce, 2).at(10, Reply(0, Nxdomain)).at(90, Down(1)).check(&format!("{ask}, 90 reply 0"));
    play(AtOnce, 2).at(10, Reply(0, Nxdomain)).check(&format!("{ask}, 3000 reply 0"));
}

#[test]
fn the_best_kept_reply_wins_and_of_equals_the_first() {
    let ask = "0 first A, 0 first B, 0 first C";
    for (ranks, winner) in [
        ([Failure, Nxdomain, Nodata], 1),
        ([Nodata, Nxdomain, Failure], 1),
        ([Failure, Failure, Failure], 0),
        ([Failure, Nodata, Nodata], 1),
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
    let context = RaceContext { rules: &rules, latency: &latency, budget: &budget };
    let mut race = Race::start(&context, &candidates, start);
    while let Step::Ask { .. } = race.next_step(&context, start) {}
    assert_eq!(race.on_reply(AttemptId(0), Failure, start), Heard::Kept);
    assert_eq!(race.on_reply(AttemptId(1), Nxdomain, start), Heard::Kept);
    assert_eq!(race.on_reply(AttemptId(2), Nodata, start), Heard::NotNeeded);
    assert_eq!(race.on_reply(AttemptId(3), Positive, start), Heard::Accepted);
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
        .at(10, Reply(0, Nxdomain))
        .at(20, Down(1))
        .at(40, Reply(2, Positive))
        .check(&format!("{ask}, 10 failover C, 20 failover D, 40 reply 2"));
    race().check(&format!("{ask}, 1000 failover C, 1000 failover D, 3000 nothing"));
    race().at(10, Reply(0, Positive)).check(&format!("{ask}, 10 reply 0"));
    play(AtOnce, 2).rules(|rules| rules.fanout = 9).at(1, Reply(0, Positive)).check("0 first A, 0 first B, 1 reply 0");
}

#[test]
fn sequential_asks_the_next_after_silence_or_failure() {
    play(Sequential, 3).check("0 first A, 1000 failover B, 2000 failover C, 3000 nothing");
    play(Sequential, 3)
        .at(10, Reply(0, Failure))
        .at(20, Down(1))
        .at(30, Reply(2, Positive))
        .check("0 first A, 10 failover B, 20 failover C, 30 reply 2");
    play(Sequential, 2)
        .at(10, Reply(0, Nxdomain))
        .at(20, Reply(1, Failure))
        .check("0 first A, 10 failover B, 20 reply 0");
}

#[test]
fn an_attempt_moves_the_race_on_once() {
    for (first, second) in [
        (Reply(0, Failure), Reply(0, Failure)),
        (Reply(0, Nxdomain), Down(0)),
        (Down(0), Reply(0, Failure)),
        (Unreachable(0), Reply(0, Failure)),
        (Unreachable(0), Down(0)),
        (Unreachable(0), Bare(0)),
        (Unreachable(0), Unreachable(0)),
        (Bare(0), Unreachable(0)),
        (Bare(0), Bare(0)),
        (Bare(0), Down(0)),
        (Bare(0), Reply(0, Nodata)),
    ] {
        play(Sequential, 3)
            .at(10, first)
            .at(11, second)
            .at(20, Reply(1, Positive))
            .check("0 first A, 10 failover B, 20 reply 1");
    }
}

#[test]
fn an_attempt_that_timed_out_still_counts() {
    play(Sequential, 2).at(1_500, Reply(0, Positive)).check("0 first A, 1000 failover B, 1500 reply 0");
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
fn a_hedge_starts_after_the_delay_of_the_asked_backend() {
    play(Hedged, 2).at(150, Reply(1, Positive)).check("0 first A, 100 hedge B, 150 reply 1");
    let late = play(Hedged, 2).rules(|rules| rules.hedge.delay = HedgeDelay::Percentile(0.9));
    // Too few samples: `max_delay`.
    late.at(400, Reply(0, Positive)).check("0 first A, 250 hedge B, 400 reply 0");
    let known = play(Hedged, 2).known(0, ms(31)).known(1, ms(2));
    known
        .rules(|rules| rules.hedge.delay = HedgeDelay::Auto)
        .at(60, Reply(0, Positive))
        .check("0 first A, 31 hedge B, 60 reply 0");
}

#[test]
fn hedges_are_limited() {
    let wide = || play(Hedged, 4).rules(|rules| rules.hedge.max = 2);
    wide().at(500, Reply(0, Positive)).check("0 first A, 100 hedge B, 200 hedge C, 500 reply 0");
    play(Hedged, 3).check("0 first A, 100 hedge B, 1100 failover C, 3000 nothing");
    play(Hedged, 2).rules(|rules| rules.hedge.max = 0).check("0 first A, 1000 failover B, 3000 nothing");
}

#[test]
fn a_hedge_needs_another_backend() {
    play(Hedged, 1).at(500, Reply(0, Positive)).check("0 first A, 500 reply 0");
}

#[test]
fn a_hedge_without_budget_is_denied_once() {
    let race = play(Hedged, 3).broke().check("0 first A, 1000 failover B, 2000 failover C, 3000 nothing");
    // One for A, one for B; beside C nobody is left.
    assert_eq!(race.hedges_denied(), 2);
    let off = play(Hedged, 2).rules(|rules| rules.hedge.budget = 0.0);
    assert_eq!(off.check("0 first A, 1000 failover B, 3000 nothing").hedges_denied(), 0);
}

#[test]
fn a_denied_hedge_is_tried_again_when_twice_the_time_has_passed() {
    let earned = |time| play(Hedged, 2).broke().at(time, Earned).at(900, Reply(0, Positive));
    assert_eq!(earned(150).check("0 first A, 200 hedge B, 900 reply 0").hedges_denied(), 1);
    assert_eq!(earned(500).check("0 first A, 800 hedge B, 900 reply 0").hedges_denied(), 1);
    assert_eq!(earned(850).check("0 first A, 900 reply 0").hedges_denied(), 1);
    let at_once = play(Hedged, 2).rules(|rules| rules.hedge.delay = HedgeDelay::Fixed(ms(0))).broke();
    at_once.at(5, Earned).check("0 first A, 8 hedge B, 3000 nothing");
    // What was denied to one attempt is due to the next after its own delay.
    play(Hedged, 3)
        .broke()
        .at(350, Down(0))
        .at(400, Earned)
        .at(500, Reply(1, Positive))
        .check("0 first A, 350 failover B, 450 hedge C, 500 reply 1");
}

#[test]
fn a_hedge_goes_where_it_was_drawn_and_a_failover_to_the_next() {
    let mut play = play(Hedged, 4).at(150, Down(0)).at(200, Reply(2, Positive));
    let mut rng = SmallRng::seed_from_u64(0);
    while play.candidates.hedge_places().nth(1) != Some(3) {
        play.candidates.draw_hedges(1, 4, |_| 0.0, &mut rng);
    }
    play.check("0 first A, 100 hedge D, 150 failover B, 200 reply 2");
}

#[test]
fn a_failover_costs_no_budget() {
    play(Hedged, 3).broke().at(10, Down(0)).at(50, Reply(1, Positive)).check("0 first A, 10 failover B, 50 reply 1");
    // An older attempt may be the one that fails.
    play(Hedged, 3)
        .at(150, Reply(0, Nxdomain))
        .at(180, Reply(2, Positive))
        .check("0 first A, 100 hedge B, 150 failover C, 180 reply 2");
}

#[test]
fn silent_backends_are_asked_again_in_the_same_order() {
    let long = |rules: &mut Rules| (rules.tries, rules.timeout) = (2, ms(10_000));
    play(Sequential, 2)
        .rules(long)
        .check("0 first A, 1000 failover B, 2000 failover A, 3000 failover B, 10000 nothing");
    play(AtOnce, 2).rules(long).check("0 first A, 0 first B, 1000 failover A, 1000 failover B, 10000 nothing");
    play(AtOnce, 2)
        .rules(long)
        .at(10, Reply(0, Nxdomain))
        .at(1_100, Reply(2, Nodata))
        .check("0 first A, 0 first B, 1000 failover B, 1100 reply 0");
    play(Hedged, 2).rules(long).check("0 first A, 100 hedge B, 1100 failover A, 2100 failover B, 10000 nothing");
}

#[test]
fn a_backend_that_replied_is_not_asked_again() {
    play(Sequential, 2)
        .rules(|rules| rules.tries = 3)
        .at(10, Reply(0, Failure))
        .at(1_020, Reply(1, Nxdomain))
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
    play(Sequential, 2).at(10, Bare(0)).at(50, Reply(0, Positive)).check("0 first A, 10 failover B, 50 reply 0");
    play(Sequential, 1).at(10, Bare(0)).check("0 first A, 1000 failed");
    // Another attempt is out: its silence counts until the deadline.
    play(Sequential, 2).at(10, Bare(0)).check("0 first A, 10 failover B, 3000 failed");
    play(Sequential, 2).at(10, Bare(0)).at(20, Bare(1)).check("0 first A, 10 failover B, 1010 failed");
    // Something better came: it goes out once the bare one had its time.
    play(AtOnce, 2).at(10, Bare(0)).at(20, Reply(1, Nxdomain)).check("0 first A, 0 first B, 1000 reply 1");
    play(Sequential, 2).at(10, Bare(0)).at(20, Down(1)).at(30, Down(0)).check("0 first A, 10 failover B, 30 failed");
}

#[test]
fn an_icmp_error_moves_on_but_its_attempt_stays() {
    play(Sequential, 2).at(10, Unreachable(0)).at(50, Reply(0, Positive)).check("0 first A, 10 failover B, 50 reply 0");
    // It is waited for like a silent one, until the deadline.
    play(Sequential, 1).at(10, Unreachable(0)).at(2_900, Reply(0, Positive)).check("0 first A, 2900 reply 0");
    play(Sequential, 2)
        .at(10, Unreachable(0))
        .at(20, Reply(1, Nxdomain))
        .check("0 first A, 10 failover B, 3000 reply 1");
    // Once its backend is down, nobody waits.
    play(Sequential, 2)
        .at(10, Unreachable(0))
        .at(20, Unreachable(1))
        .at(30, Down(0))
        .at(40, Down(1))
        .check("0 first A, 10 failover B, 40 nothing");
    // One asked in its place is no hedge, and neither is due besides.
    play(Hedged, 3)
        .rules(|rules| rules.hedge.budget = 0.0)
        .at(10, Unreachable(0))
        .at(20, Unreachable(1))
        .at(30, Reply(2, Positive))
        .check("0 first A, 10 failover B, 20 failover C, 30 reply 2");
    // After `attempt_timeout` it has its next try, as one that is silent.
    play(Sequential, 1)
        .rules(|rules| rules.tries = 2)
        .at(10, Unreachable(0))
        .at(1_200, Reply(1, Positive))
        .check("0 first A, 1000 failover A, 1200 reply 1");
}

#[test]
fn who_refuses_opt_is_asked_once_more_without() {
    play(Sequential, 2).at(10, OptRefused(0)).at(20, Reply(1, Positive)).check("0 first A, 10 failover a, 20 reply 1");
    // Refused again: a failure.
    play(Sequential, 2)
        .at(10, OptRefused(0))
        .at(20, OptRefused(1))
        .at(30, Reply(2, Positive))
        .check("0 first A, 10 failover a, 20 failover B, 30 reply 2");
    // A duplicate of the refusal.
    play(Sequential, 2)
        .at(10, OptRefused(0))
        .at(11, OptRefused(0))
        .at(20, Reply(1, Positive))
        .check("0 first A, 10 failover a, 20 reply 1");
    // Further tries leave it out, and the replaced attempt was no try.
    play(Sequential, 1)
        .rules(|rules| rules.tries = 2)
        .at(10, OptRefused(0))
        .check("0 first A, 10 failover a, 1010 failover a, 3000 nothing");
}

#[test]
fn opt_refused_by_eight_is_a_failure() {
    let mut refused = play(AtOnce, 8);
    for attempt in 0..8 {
        refused = refused.at(10, OptRefused(attempt));
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
        .at(600, Reply(2, Positive))
        .check("0 first A, 300 failover B, 400 failover A, 500 failover B, 600 reply 2");
    play(AtOnce, 2)
        .at(10, Reply(0, Nxdomain))
        .at(300, Retransmission)
        .at(310, Reply(2, Positive))
        .check("0 first A, 0 first B, 300 failover B, 310 reply 2");
    let nine = (0..9).fold(play(Sequential, 1), |play, time| play.at(100 + time, Retransmission));
    let asked: Vec<_> = (100..107).map(|time| format!("{time} failover A")).collect();
    nine.check(&format!("0 first A, {}, 3000 nothing", asked.join(", ")));
}

#[test]
fn a_kept_negative_goes_out_after_the_grace() {
    let graceful = |grace| play(AtOnce, 2).rules(|rules| rules.grace = grace);
    let ask = "0 first A, 0 first B";
    graceful(Grace::After(ms(50))).at(10, Reply(0, Nxdomain)).check(&format!("{ask}, 60 reply 0"));
    graceful(Grace::After(ms(50)))
        .at(10, Reply(0, Nxdomain))
        .at(59, Reply(1, Positive))
        .check(&format!("{ask}, 59 reply 1"));
    // It is for negatives only.
    graceful(Grace::After(ms(50))).at(10, Reply(0, Failure)).check(&format!("{ask}, 3000 reply 0"));
    graceful(Grace::After(ms(0))).at(10, Reply(0, Nodata)).check(&format!("{ask}, 10 reply 0"));
}

#[test]
fn the_automatic_grace_follows_the_silent_backends() {
    let graceful = || play(AtOnce, 2).rules(|rules| rules.grace = Grace::Auto).at(10, Reply(0, Nxdomain));
    let ask = "0 first A, 0 first B";
    // An unknown backend may take its whole time.
    graceful().check(&format!("{ask}, 1010 reply 0"));
    graceful().known(0, ms(900)).known(1, Duration::from_micros(20)).check(&format!("{ask}, 15 reply 0"));
    graceful().known(1, ms(31)).check(&format!("{ask}, 103 reply 0"));
    graceful().known(1, ms(900)).check(&format!("{ask}, 1010 reply 0"));
}

#[test]
fn who_could_not_be_asked_is_asked_once_more_and_then_another() {
    let sent = "0 first A, 0 first A, 0 failover B, 20 reply 0";
    play(Sequential, 2).at(0, Unsent(0)).at(0, Unsent(0)).at(20, Reply(0, Positive)).check(sent);
    // Another socket would not help.
    let long = "0 first A, 0 failover B, 20 reply 0";
    play(Sequential, 2).at(0, TooLong(0)).at(20, Reply(0, Positive)).check(long);
    // The others are out already, and A takes the number after theirs.
    let both = "0 first A, 0 first B, 0 first A, 20 reply 2";
    play(AtOnce, 2).at(0, Unsent(0)).at(20, Reply(2, Positive)).check(both);
    let next = "0 first A, 0 first B, 0 first B, 0 failover C, 20 reply 1";
    let three = play(AtOnce, 3).rules(|rules| rules.fanout = 2);
    three.at(0, Unsent(1)).at(0, Unsent(1)).at(20, Reply(1, Positive)).check(next);
}

#[test]
fn nothing_is_made_up_where_somebody_could_not_be_asked() {
    let all = play(AtOnce, 2).at(0, TooLong(1)).at(0, TooLong(0));
    let race = all.check("0 first A, 0 first B, 0 unsent");
    assert_eq!((race.attempts().count(), race.is_incomplete()), (0, true));
    let down = play(AtOnce, 1).all_down().at(0, Unsent(0)).at(0, Unsent(0));
    down.check("0 first A, 0 first A, 0 unsent");
    // A was silent, or gone, or failed bare; that says nothing of what B has.
    let ask = "0 first A, 0 first B";
    play(AtOnce, 2).at(0, TooLong(1)).check(&format!("{ask}, 3000 unsent"));
    play(AtOnce, 2).at(0, TooLong(1)).at(10, Down(0)).check(&format!("{ask}, 10 unsent"));
    play(AtOnce, 2).at(0, TooLong(1)).at(10, Bare(0)).check(&format!("{ask}, 1000 unsent"));
    // But what A has said is A's word.
    let kept = play(AtOnce, 2).at(0, TooLong(1)).at(10, Reply(0, Nxdomain)).check(&format!("{ask}, 10 reply 0"));
    assert!(kept.is_incomplete());
    // Asked at last.
    let asked = play(AtOnce, 2).at(0, Unsent(1)).check("0 first A, 0 first B, 0 first B, 3000 nothing");
    assert!(!asked.is_incomplete());
    let tries = play(Sequential, 1).rules(|rules| rules.tries = 2);
    let again = tries.at(1001, TooLong(1)).check("0 first A, 1000 failover A, 3000 nothing");
    assert!(!again.is_incomplete());
}

#[test]
fn a_hedge_that_could_not_leave_costs_nothing() {
    let ask = "0 first A, 100 hedge B, 101 hedge B, 1000 failover B";
    let two = play(Hedged, 2).at(101, Unsent(1)).at(101, Unsent(1)).at(1020, Reply(1, Positive));
    let race = two.check(&format!("{ask}, 1020 reply 1"));
    assert!(!race.is_incomplete());
    // Another one may take it.
    let three = play(Hedged, 3).at(101, TooLong(1)).at(120, Reply(1, Positive));
    three.check("0 first A, 100 hedge B, 101 hedge C, 120 reply 1");
    // The budget pays for one, whoever it goes to in the end.
    let poor = play(Hedged, 3);
    while poor.budget.hedges_left() > 1 {
        poor.budget.take();
    }
    poor.at(101, TooLong(1)).check("0 first A, 100 hedge B, 101 hedge C, 1101 failover B, 3000 nothing");
}

#[test]
fn a_client_that_asks_again_has_those_asked_who_could_not_be() {
    let ask = "0 first A, 0 first B, 500 failover B, 520 reply 1";
    play(AtOnce, 2).at(0, TooLong(1)).at(500, Retransmission).at(520, Reply(1, Positive)).check(ask);
    let again = "0 first A, 0 first B, 500 failover B, 3000 unsent";
    play(AtOnce, 2).at(0, TooLong(1)).at(500, Retransmission).at(500, Unsent(1)).check(again);
}

#[test]
fn a_finished_race_hears_nothing() {
    let mut race = play(AtOnce, 2).at(20, Reply(1, Positive)).check("0 first A, 0 first B, 20 reply 1");
    let Play { rules, latency, budget, start, .. } = play(AtOnce, 2);
    let context = RaceContext { rules: &rules, latency: &latency, budget: &budget };
    assert_eq!(race.on_reply(AttemptId(0), Positive, start), Heard::NotNeeded);
    for input in [Down(0), Unreachable(0), Bare(0), OptRefused(0), Retransmission] {
        put_in(&mut race, &budget, input, start);
        assert_eq!(race.next_step(&context, start), Step::Finished(Outcome::Reply(AttemptId(1))));
    }
}

#[test]
fn an_unknown_attempt_is_ignored() {
    let spoken = [Reply(7, Positive), Down(7), Unreachable(7), Bare(7)];
    let race = spoken.into_iter().fold(play(AtOnce, 1), |play, input| play.at(5, input));
    race.check("0 first A, 3000 nothing");
}

#[test]
fn an_older_negative_has_the_newest_asked_at_once_and_what_that_says_is_final() {
    let newest_is_c = |dispatch| play(dispatch, 3).at(10, Outdated(0, 2));
    let ask = "0 first A, 10 failover C";
    for rank in [Nodata, Nxdomain, NodataAuthoritative, Positive] {
        newest_is_c(Sequential).at(20, Reply(1, rank)).check(&format!("{ask}, 20 reply 1"));
        newest_is_c(Hedged).broke().at(20, Reply(1, rank)).check(&format!("{ask}, 20 reply 1"));
    }
    // A failure is no word: the race goes on, and another that is not older has its say by the rules.
    newest_is_c(Sequential)
        .at(20, Reply(1, Failure))
        .at(30, Reply(2, Nxdomain))
        .check(&format!("{ask}, 20 failover B, 30 reply 2"));
    // Nor is one that could not be asked.
    newest_is_c(Sequential)
        .at(10, TooLong(1))
        .at(20, Reply(1, Nodata))
        .check(&format!("{ask}, 10 failover B, 20 reply 1"));
    // It need be no candidate.
    play(Sequential, 2).at(10, Outdated(0, 7)).at(20, Reply(1, Nodata)).check("0 first A, 10 failover H, 20 reply 1");
    // Whatever is accepted.
    for accept in [Accept::Positive, Accept::Conclusive, Accept::Any] {
        let race = newest_is_c(Sequential).rules(|rules| rules.accept = accept);
        race.at(20, Reply(1, Nxdomain)).check(&format!("{ask}, 20 reply 1"));
    }
}

#[test]
fn a_newest_that_was_asked_is_waited_for() {
    let ask = "0 first A, 0 first B, 0 first C";
    let race = || play(AtOnce, 3).rules(|rules| rules.accept = Accept::Conclusive).at(10, Outdated(0, 2));
    race().at(20, Outdated(1, 2)).at(30, Reply(2, Nxdomain)).check(&format!("{ask}, 30 reply 2"));
    race().at(20, Reply(1, Nxdomain)).check(&format!("{ask}, 20 reply 1"));
    race().at(20, Unreachable(2)).at(30, Reply(2, Nodata)).check(&format!("{ask}, 30 reply 2"));
    // What it has said before is final as well.
    let spoken = play(AtOnce, 3).at(5, Reply(2, Nxdomain)).at(10, Outdated(0, 2));
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
    // Two that are older, each in turn: the newest is asked once.
    let two = play(Sequential, 2).at(10, Outdated(0, 7)).at(20, Down(1)).at(30, Outdated(2, 7));
    two.check("0 first A, 10 failover H, 20 failover B, 30 reply 0");
    // An older one that is asked again and again is not believed for that.
    play(Sequential, 1).at(10, Outdated(0, 7)).check("0 first A, 10 failover H, 3000 reply 0");
}

#[test]
fn attempts_can_be_looked_at() {
    let race = play(Hedged, 2).at(150, Reply(1, Positive)).check("0 first A, 100 hedge B, 150 reply 1");
    let open: Vec<_> = race.attempts().map(|attempt| (attempt.kind, attempt.backend.0, attempt.open)).collect();
    assert_eq!(open, [(Kind::First, 0, true), (Kind::Hedge, 1, false)]);
    let hedge = race.attempt(AttemptId(1)).expect("it was made");
    assert_eq!(race.deadline() - hedge.asked_at, ms(2_900));
    assert_eq!(race.attempt(AttemptId(2)), None);
}
