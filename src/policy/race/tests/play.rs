//! A race as a play: what comes in when, and what the race says to that.

use std::collections::VecDeque;

use super::super::*;
use crate::policy::Rank::Failure;
use crate::policy::{Hedge, HedgeDelay};
use Input::{
    Bare, Down, Earned, Lost, OptRefused, Outdated, Reply, Retransmission, TooLong, Unreachable, Unsent, Validated,
};

/// Something that happens to a race.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// A reply to this attempt.
    Reply(u8, Rank),
    /// A negative reply to this attempt, of an older version than this backend has.
    Outdated(u8, u16),
    /// A validated positive reply to this attempt.
    Validated(u8),
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
    /// The connection of this attempt has ended.
    Lost(u8),
    /// This attempt could not leave, from no socket.
    TooLong(u8),
    /// The client asks again.
    Retransmission,
    /// Other races fill the budget.
    Earned,
}

/// A race among backends A, B, C ..., and what happens to it, in milliseconds.
pub(super) struct Play {
    pub(super) rules: Rules,
    /// Who may be asked.
    pub(super) candidates: Candidates,
    /// The latency of each backend.
    pub(super) latency: Vec<Latency>,
    /// Which of them are asked by stream.
    pub(super) by_stream: Vec<bool>,
    /// What pays for hedges.
    pub(super) budget: Budget,
    /// What happens, in the order of time.
    pub(super) inputs: VecDeque<(u64, Input)>,
    /// When the race starts.
    pub(super) start: Instant,
}

/// A play with so many backends that are up, and a dispatch.
pub(super) fn play(dispatch: Dispatch, backends: u16) -> Play {
    let start = Instant::now();
    Play {
        rules: Rules {
            dispatch,
            hedge: Hedge { delay: HedgeDelay::Fixed(ms(100)), ..Hedge::default() },
            ..Rules::default()
        },
        candidates: Candidates::of((0..backends).map(BackendIndex), false),
        latency: vec![Latency::new(start); usize::from(backends)],
        by_stream: Vec::new(),
        budget: Budget::new(1.0),
        inputs: VecDeque::new(),
        start,
    }
}

impl Play {
    /// Changes the rules.
    pub(super) fn rules(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }

    /// These backends are asked by stream.
    pub(super) fn by_stream<const N: usize>(mut self, by_stream: [bool; N]) -> Self {
        self.by_stream = by_stream.into();
        self
    }

    /// No backend is up.
    pub(super) fn all_down(mut self) -> Self {
        self.candidates = Candidates::of(self.candidates.iter(), true);
        self
    }

    /// This backend took this long each time.
    pub(super) fn known(mut self, backend: usize, latency: Duration) -> Self {
        for _ in 0..100 {
            self.latency[backend].record(latency, self.start);
        }
        self
    }

    /// Nothing is in the bucket.
    pub(super) fn broke(self) -> Self {
        while self.budget.take() {}
        self
    }

    /// Something happens.
    pub(super) fn at(mut self, time: u64, input: Input) -> Self {
        self.inputs.push_back((time, input));
        self
    }

    /// Plays to the end, and compares what the race said: `0 first A, 100 hedge B, 120 reply 1`. A time is
    /// when, `A` is who was asked (`a`: without OPT), and at the end stands the outcome.
    #[track_caller]
    pub(super) fn check(self, expected: &str) -> Race {
        self.check_with_budget(expected).0
    }

    /// The same; with the race comes what has paid.
    #[track_caller]
    pub(super) fn check_with_budget(mut self, expected: &str) -> (Race, Budget) {
        let context = RaceContext {
            rules: &self.rules,
            latency: &self.latency,
            by_stream: &self.by_stream,
            budget: &self.budget,
        };
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
        (race, self.budget)
    }
}

/// Tells a race what happens.
pub(super) fn put_in(race: &mut Race, budget: &Budget, input: Input, now: Instant) {
    match input {
        Reply(attempt, rank) => {
            race.on_reply(AttemptId(attempt), rank, now);
        }
        Outdated(attempt, newest) => {
            race.on_outdated(AttemptId(attempt), BackendIndex(newest));
        }
        Validated(attempt) => {
            race.on_validated(AttemptId(attempt));
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
        Lost(attempt) => race.on_lost(AttemptId(attempt)),
        Retransmission => race.on_retransmission(),
        Earned => budget.earn(1_000),
    }
}

/// Milliseconds.
pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
