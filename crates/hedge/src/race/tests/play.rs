//! A race as a play: timed inputs and the steps of the race.

use std::collections::VecDeque;

use super::super::*;
use super::Rank::{self, Failure, Good};
use crate::{Hedge, HedgeDelay};
use Input::{
    Bare, Down, Earned, ExtensionRefused, Lost, Outdated, Reply, Retransmission, TooLong, Unreachable, Unsent,
    Validated,
};

/// An event of a race.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// A reply to this attempt.
    Reply(u8, Rank),
    /// A weak reply to this attempt, of an older version than this backend has.
    Outdated(u8, u16),
    /// A validated positive reply to this attempt.
    Validated(u8),
    /// An ICMP error for this attempt.
    Unreachable(u8),
    /// The backend of this attempt is found down.
    Down(u8),
    /// A bare failure to this attempt.
    Bare(u8),
    /// A refusal of the extension to this attempt.
    ExtensionRefused(u8),
    /// This attempt could not be sent; another socket may help.
    Unsent(u8),
    /// The connection of this attempt has ended.
    Lost(u8),
    /// This attempt could not be sent from any socket.
    TooLong(u8),
    /// A retransmission by the client.
    Retransmission,
    /// Other races fill the budget.
    Earned,
}

/// A race among backends A, B, C ..., and its inputs in milliseconds.
pub(super) struct Play {
    pub(super) rules: RaceRules,
    pub(super) accept: Rank,
    pub(super) candidates: Candidates,
    pub(super) latency: Vec<Latency>,
    pub(super) loads: Vec<BackendLoad>,
    pub(super) by_stream: Vec<bool>,
    pub(super) budget: Budget,
    /// Inputs in the order of time.
    pub(super) inputs: VecDeque<(u64, Input)>,
    pub(super) start: Instant,
}

/// Creates a play with so many up backends.
pub(super) fn play(dispatch: Dispatch, backends: u16) -> Play {
    let start = Instant::now();
    Play {
        rules: RaceRules {
            dispatch,
            hedge: Hedge { delay: HedgeDelay::Fixed(ms(100)), ..Hedge::default() },
            ..RaceRules::default()
        },
        accept: Good,
        candidates: Candidates::of((0..backends).map(BackendIndex), false),
        latency: vec![Latency::new(start); usize::from(backends)],
        loads: Vec::new(),
        by_stream: Vec::new(),
        budget: Budget::new(1.0),
        inputs: VecDeque::new(),
        start,
    }
}

impl Play {
    pub(super) fn rules(mut self, change: impl FnOnce(&mut RaceRules)) -> Self {
        change(&mut self.rules);
        self
    }

    pub(super) fn accept(mut self, accept: Rank) -> Self {
        self.accept = accept;
        self
    }

    pub(super) fn by_stream<const N: usize>(mut self, by_stream: [bool; N]) -> Self {
        self.by_stream = by_stream.into();
        self
    }

    pub(super) fn all_down(mut self) -> Self {
        self.candidates = Candidates::of(self.candidates.iter(), true);
        self
    }

    /// Sets the latency of a backend.
    pub(super) fn known(mut self, backend: usize, latency: Duration) -> Self {
        for _ in 0..100 {
            self.latency[backend].record(latency, self.start);
        }
        self
    }

    pub(super) fn broke(self) -> Self {
        while self.budget.take() {}
        self
    }

    pub(super) fn at(mut self, time: u64, input: Input) -> Self {
        self.inputs.push_back((time, input));
        self
    }

    /// Plays to the end, and compares the steps: `0 first A, 100 hedge B, 120 reply 1`. The numbers are
    /// times, `A` is the backend (`a`: without the extension), and the outcome comes last.
    #[track_caller]
    pub(super) fn check(self, expected: &str) -> Race<Rank> {
        self.check_with_budget(expected).0
    }

    /// Like `check`, but also returns the budget.
    #[track_caller]
    pub(super) fn check_with_budget(mut self, expected: &str) -> (Race<Rank>, Budget) {
        let context = RaceContext {
            rules: &self.rules,
            latency: &self.latency,
            loads: &self.loads,
            by_stream: &self.by_stream,
            budget: &self.budget,
        };
        let mut race = Race::start(&context, &self.candidates, self.accept, self.start);
        let (mut now, mut said) = (self.start, Vec::new());
        loop {
            let time = (now - self.start).as_millis();
            match race.poll(&context, now) {
                RaceStep::Ask { backend, kind, extended, .. } => {
                    let letter = if extended { b'A' } else { b'a' } + backend.0 as u8;
                    said.push(format!("{time} {} {}", format!("{kind:?}").to_lowercase(), letter as char));
                }
                RaceStep::WaitUntil(wake) => {
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
                RaceStep::Finished(outcome) => {
                    said.push(match outcome {
                        RaceEnd::Reply(attempt) => format!("{time} reply {}", attempt.0),
                        RaceEnd::Failed => format!("{time} failed"),
                        RaceEnd::Nothing => format!("{time} nothing"),
                        RaceEnd::Unsent => format!("{time} unsent"),
                    });
                    break;
                }
            }
        }
        assert_eq!(said.join(", "), expected);
        (race, self.budget)
    }
}

/// Passes an input to a race.
pub(super) fn put_in(race: &mut Race<Rank>, budget: &Budget, input: Input, now: Instant) {
    match input {
        Reply(attempt, rank) => {
            race.on_reply(AttemptId(attempt), rank, now);
        }
        Outdated(attempt, newest) => {
            race.on_outdated(AttemptId(attempt), Rank::Outdated, BackendIndex(newest));
        }
        Validated(attempt) => {
            race.on_validated(AttemptId(attempt));
        }
        Unreachable(attempt) => race.on_unreachable(AttemptId(attempt)),
        Down(attempt) => race.on_failure(AttemptId(attempt)),
        Bare(attempt) => race.on_bare_failure(AttemptId(attempt)),
        ExtensionRefused(attempt) => {
            if race.on_extension_refused(AttemptId(attempt)) == ExtensionRefusal::IsFailure {
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

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
