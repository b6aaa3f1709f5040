//! The attempts of one race: who was asked when, and what has become of it.
//!
//! A ledger, no more: `race` writes it and draws the conclusions. It is an array inside the race, and
//! times are microseconds since the race started, so that a hundred thousand races stay small.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::policy::candidates::BackendIndex;

/// The most attempts that one race makes (docs/src/contract.md, Races).
pub const MAX_ATTEMPTS: usize = 8;

/// One attempt of a race: the first is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u8);

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It opened the race.
    First,
    /// Another attempt is late; paid from the budget.
    Hedge,
    /// Another attempt failed, timed out or was not accepted, or the client asked again; costs no budget.
    Failover,
}

/// One attempt, as the forwarder sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number in the race.
    pub id: AttemptId,
    /// Who was asked.
    pub backend: BackendIndex,
    /// Why.
    pub kind: Kind,
    /// When, to the microsecond.
    pub asked_at: Instant,
    /// Whether it was asked with OPT (as far as the client's query has one).
    pub edns: bool,
    /// Whether it has neither replied nor failed.
    pub open: bool,
    /// Whether it has left.
    pub is_sent: bool,
    /// What has become of it.
    pub state: State,
}

/// What has become of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing came yet.
    Silent,
    /// Nothing came but an ICMP error, which may be forged; a reply may still come.
    Unreachable,
    /// A bare failure came, which may be forged; a whole reply may still come.
    Bare,
    /// Nothing came to this attempt, but its backend gave a negative reply to another one.
    Spoken,
    /// OPT was refused, and the backend is not asked again yet.
    OptRefused,
    /// OPT was refused, and another attempt has taken its place.
    Replaced,
    /// A reply came.
    Replied,
    /// It ended without a reply.
    Failed,
    /// It never left, for want of something of our own.
    Unsent,
    /// It was lost with its connection, which says nothing of its backend.
    Lost,
}

impl State {
    /// Whether the attempt has neither replied nor failed.
    pub(super) fn is_open(self) -> bool {
        match self {
            Self::Silent | Self::Unreachable | Self::Bare | Self::Spoken => true,
            Self::OptRefused | Self::Replaced | Self::Replied | Self::Failed | Self::Unsent | Self::Lost => false,
        }
    }
}

/// A time in a race: microseconds since its start. It reaches over an hour, and stays there.
///
/// Counted from 1, so that one that may be missing takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(NonZeroU32);

impl Offset {
    /// The offset of `now` in a race that started at `start`. Rounded up: an attempt is never taken for older than something
    /// that was heard before it was made.
    pub fn between(start: Instant, now: Instant) -> Self {
        Self::default().after(now.saturating_duration_since(start) + Duration::from_nanos(999))
    }

    /// This much later.
    pub(super) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)))
    }

    /// The time from here to there.
    pub(super) fn until(self, later: Self) -> Duration {
        Duration::from_micros(u64::from(later.0.get().saturating_sub(self.0.get())))
    }

    /// The time outside the race.
    pub fn since(self, start: Instant) -> Instant {
        start + Self::default().until(self)
    }
}

impl Default for Offset {
    /// The start.
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

/// One line of the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptRecord {
    /// When the backend was asked.
    pub(super) asked: Offset,
    /// Who was asked.
    pub(super) backend: BackendIndex,
    /// Why.
    pub(super) kind: Kind,
    /// What has become of it.
    pub(super) state: State,
}

/// The attempts of one race, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    /// The lines; those from `len` on mean nothing.
    entries: [AttemptRecord; MAX_ATTEMPTS],
    /// How many of `entries` are meant.
    len: u8,
    /// Which of them were asked without OPT, a bit for each.
    without_opt: u8,
    /// How often one of them was asked again from another socket.
    again: u8,
    /// The candidates whose attempt could not leave, a bit for each place in the order of asking.
    pub(super) unsent: u8,
}

impl Attempts {
    /// No attempts yet.
    pub(super) fn new() -> Self {
        let blank = AttemptRecord {
            asked: Offset::default(),
            backend: BackendIndex(0),
            kind: Kind::First,
            state: State::Failed,
        };
        Self { entries: [blank; MAX_ATTEMPTS], len: 0, without_opt: 0, again: 0, unsent: 0 }
    }

    /// Writes down a new attempt, with OPT or without. There must be room.
    pub(super) fn push(&mut self, backend: BackendIndex, kind: Kind, edns: bool, asked: Offset) -> AttemptId {
        let id = self.next_id();
        self.entries[usize::from(id.0)] = AttemptRecord { asked, backend, kind, state: State::Silent };
        self.without_opt |= u8::from(!edns) << id.0;
        self.len += 1;
        id
    }

    /// An attempt never left. The newest is struck out, as if it had not been made; another keeps its line.
    pub(super) fn withdraw(&mut self, id: AttemptId) {
        if id.0 + 1 == self.len {
            self.len = id.0;
            self.without_opt &= !(1 << id.0);
        } else if let Some(entry) = self.get_mut(id) {
            entry.state = State::Unsent;
        }
    }

    /// Whether an attempt to ask this backend has left. One that was to be made without OPT in place of another has to, itself.
    pub(super) fn has_asked(&self, backend: BackendIndex) -> bool {
        let has_left = |state| match state {
            State::Silent | State::Unreachable | State::Bare | State::Spoken | State::Replied | State::Failed => true,
            // What was lost says as little as what has not left.
            State::OptRefused | State::Replaced | State::Unsent | State::Lost => false,
        };
        self.as_slice().iter().any(|entry| entry.backend == backend && has_left(entry.state))
    }

    /// Whether an attempt was asked with OPT.
    pub(super) fn has_opt(&self, id: AttemptId) -> bool {
        self.without_opt & 1 << id.0 == 0
    }

    /// The last attempt to ask a backend.
    pub(super) fn last_of(&self, backend: BackendIndex) -> Option<(AttemptId, &AttemptRecord)> {
        self.iter().rfind(|(_, entry)| entry.backend == backend)
    }

    /// Whether a backend was asked without OPT.
    pub(super) fn is_asked_without_opt(&self, backend: BackendIndex) -> bool {
        self.iter().any(|(id, entry)| entry.backend == backend && !self.has_opt(id))
    }

    /// The number that the next attempt will have.
    pub(super) fn next_id(&self) -> AttemptId {
        AttemptId(self.len)
    }

    /// Whether the race has made all the attempts that it may.
    pub(super) fn is_full(&self) -> bool {
        self.made() >= MAX_ATTEMPTS
    }

    /// How many attempts may still be made.
    pub(super) fn room(&self) -> usize {
        MAX_ATTEMPTS.saturating_sub(self.made())
    }

    /// How many attempts were made. One that is asked again counts once more.
    fn made(&self) -> usize {
        usize::from(self.len) + usize::from(self.again)
    }

    /// How often one was asked again.
    pub(super) fn times_asked_again(&self) -> u8 {
        self.again
    }

    /// Notes that an attempt is asked again. There must be room.
    pub(super) fn ask_again(&mut self) {
        self.again += 1;
    }

    pub(super) fn get(&self, id: AttemptId) -> Option<&AttemptRecord> {
        self.as_slice().get(usize::from(id.0))
    }

    /// One attempt, to be changed.
    pub(super) fn get_mut(&mut self, id: AttemptId) -> Option<&mut AttemptRecord> {
        self.entries[..usize::from(self.len)].get_mut(usize::from(id.0))
    }

    /// All attempts with their numbers, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        (0..self.len).map(AttemptId).zip(self.as_slice())
    }

    /// The attempts in this state, oldest first.
    pub(super) fn in_state(&self, state: State) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        self.iter().filter(move |(_, entry)| entry.state == state)
    }

    /// The attempts that are waited for until the deadline, oldest first: nothing came to them, or nothing but ICMP.
    #[inline]
    pub(super) fn waited_for(&self) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        self.iter().filter(|(_, entry)| matches!(entry.state, State::Silent | State::Unreachable))
    }

    /// Closes the book on a backend that gave a negative reply: nobody waits for its other attempts.
    pub(super) fn mark_spoken(&mut self, backend: BackendIndex) {
        for entry in &mut self.entries[..usize::from(self.len)] {
            if entry.backend == backend && entry.state.is_open() {
                entry.state = State::Spoken;
            }
        }
    }

    /// How many tries a backend was given, if it has been silent, and when the last one was.
    ///
    /// A refusal of OPT is no word on the question, and asking once more without OPT is the same try.
    pub(super) fn silence_of(&self, backend: BackendIndex) -> Option<(u8, Offset)> {
        let (mut tries, mut replaced, mut last) = (0, 0, None);
        for entry in self.as_slice().iter().filter(|entry| entry.backend == backend) {
            tries += 1;
            match entry.state {
                State::Silent | State::Unreachable => last = Some(entry.asked),
                State::Unsent | State::Lost => tries -= 1,
                State::Replaced => replaced = 1,
                State::Bare | State::Spoken | State::OptRefused | State::Replied | State::Failed => return None,
            }
        }
        last.map(|last| (tries - replaced, last))
    }

    /// Whether the last attempt to ask a backend was lost, and it has said nothing to any other.
    pub(super) fn is_lost(&self, backend: BackendIndex) -> bool {
        let has_said_nothing = |state| match state {
            State::Silent | State::Unreachable | State::Replaced | State::Unsent | State::Lost => true,
            State::Bare | State::Spoken | State::OptRefused | State::Replied | State::Failed => false,
        };
        self.last_of(backend).is_some_and(|(_, last)| last.state == State::Lost)
            && self.as_slice().iter().all(|entry| entry.backend != backend || has_said_nothing(entry.state))
    }

    /// How many attempts to ask a backend were lost.
    pub(super) fn times_lost(&self, backend: BackendIndex) -> usize {
        self.in_state(State::Lost).filter(|(_, entry)| entry.backend == backend).count()
    }

    /// Whether a backend refused OPT in this race.
    pub(super) fn refuses_opt(&self, backend: BackendIndex) -> bool {
        self.as_slice()
            .iter()
            .any(|entry| entry.backend == backend && matches!(entry.state, State::OptRefused | State::Replaced))
    }

    /// An attempt as the forwarder sees it, in a race that started at `start`.
    pub(super) fn view(&self, id: AttemptId, entry: &AttemptRecord, start: Instant) -> Attempt {
        Attempt {
            id,
            backend: entry.backend,
            kind: entry.kind,
            asked_at: entry.asked.since(start),
            edns: self.has_opt(id),
            open: entry.state.is_open(),
            is_sent: entry.state != State::Unsent,
            state: entry.state,
        }
    }

    /// The lines that are meant.
    fn as_slice(&self) -> &[AttemptRecord] {
        &self.entries[..usize::from(self.len)]
    }
}
