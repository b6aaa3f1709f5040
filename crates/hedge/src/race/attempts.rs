//! The attempts of one race, in an array with times in microseconds, so that a hundred thousand races stay
//! small.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::candidates::BackendIndex;

/// The maximum number of attempts of one race .
pub const MAX_ATTEMPTS: usize = 8;

/// The number of an attempt in its race, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u8);

/// The reason of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptKind {
    /// It opened the race.
    First,
    /// Another attempt is late; paid from the budget.
    Hedge,
    /// Another attempt failed, timed out or was not accepted, or the client asked again; costs no budget.
    Failover,
}

impl AttemptKind {
    /// All kinds, in order of declaration.
    pub const ALL: [Self; 3] = [Self::First, Self::Hedge, Self::Failover];

    /// Returns the word for logs, metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Hedge => "hedge",
            Self::Failover => "failover",
        }
    }
}

/// One attempt, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the attempt in the race.
    pub id: AttemptId,
    /// The asked backend.
    pub backend: BackendIndex,
    /// The reason.
    pub kind: AttemptKind,
    /// The time of asking, to the microsecond.
    pub asked_at: Instant,
    /// True if the request was sent with its extension (if it has one).
    pub extended: bool,
    /// True if the attempt has neither got a reply nor failed.
    pub open: bool,
    /// True if the request was sent.
    pub is_sent: bool,
    /// The state of the attempt.
    pub state: AttemptState,
}

/// The state of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// No reply yet.
    Silent,
    /// Only a network error came, such as ICMP, which may be forged; a reply may still come.
    Unreachable,
    /// A bare failure came, which may be forged; a whole reply may still come.
    Bare,
    /// No reply to this attempt, but its backend gave a weak reply to another one.
    Spoken,
    /// The extension was refused, and the backend is not asked again yet.
    ExtensionRefused,
    /// The extension was refused, and another attempt has taken its place.
    Replaced,
    /// A reply came.
    Replied,
    /// It ended without a reply.
    Failed,
    /// It could not be sent because a local resource was missing.
    Unsent,
    /// It was lost with its connection, which says nothing of its backend.
    Lost,
}

impl AttemptState {
    pub(super) fn is_open(self) -> bool {
        match self {
            Self::Silent | Self::Unreachable | Self::Bare | Self::Spoken => true,
            Self::ExtensionRefused | Self::Replaced | Self::Replied | Self::Failed | Self::Unsent | Self::Lost => false,
        }
    }

    /// Returns true if the backend may still reply, to this attempt or to one in its place.
    pub(super) fn may_speak(self) -> bool {
        match self {
            Self::Silent | Self::Unreachable | Self::Bare | Self::ExtensionRefused | Self::Lost => true,
            Self::Spoken | Self::Replaced | Self::Replied | Self::Failed | Self::Unsent => false,
        }
    }

    fn has_left(self) -> bool {
        match self {
            Self::Silent | Self::Unreachable | Self::Bare | Self::Spoken | Self::Replied | Self::Failed => true,
            Self::ExtensionRefused | Self::Replaced | Self::Unsent | Self::Lost => false,
        }
    }

    fn is_without_reply(self) -> bool {
        match self {
            Self::Silent | Self::Unreachable | Self::Replaced | Self::Unsent | Self::Lost => true,
            Self::Bare | Self::Spoken | Self::ExtensionRefused | Self::Replied | Self::Failed => false,
        }
    }
}

/// Microseconds since the start of a race, counted from 1 so that an `Option` takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(NonZeroU32);

impl Offset {
    /// The largest offset, more than 71 minutes.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// Returns the offset of `now`, rounded up so that an attempt never looks older than an earlier event.
    pub fn between(start: Instant, now: Instant) -> Self {
        let time = now.saturating_duration_since(start);
        Self::default().plus(time.as_secs(), time.subsec_nanos().div_ceil(1_000))
    }

    pub(super) fn after(self, time: Duration) -> Self {
        self.plus(time.as_secs(), time.subsec_micros())
    }

    /// Saturates after 71 minutes, and needs no wide arithmetic.
    #[inline]
    fn plus(self, secs: u64, micros: u32) -> Self {
        match secs {
            ..4_294 => Self(self.0.saturating_add(secs as u32 * 1_000_000 + micros)),
            _ => Self::MAX,
        }
    }

    pub(super) fn until(self, later: Self) -> Duration {
        Duration::from_micros(u64::from(later.0.get().saturating_sub(self.0.get())))
    }

    /// Converts to an absolute time.
    pub fn since(self, start: Instant) -> Instant {
        start + Self::default().until(self)
    }
}

impl Default for Offset {
    fn default() -> Self {
        Self(NonZeroU32::MIN)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct AttemptRecord {
    pub(super) asked: Offset,
    pub(super) backend: BackendIndex,
    pub(super) kind: AttemptKind,
    pub(super) state: AttemptState,
}

#[derive(Clone, Debug)]
pub(super) struct AttemptList {
    entries: [AttemptRecord; MAX_ATTEMPTS],
    len: u8,
    plain: u8,
    again: u8,
    pub(super) unsent: u8,
}

impl AttemptList {
    pub(super) fn new() -> Self {
        let blank = AttemptRecord {
            asked: Offset::default(),
            backend: BackendIndex(0),
            kind: AttemptKind::First,
            state: AttemptState::Failed,
        };
        Self { entries: [blank; MAX_ATTEMPTS], len: 0, plain: 0, again: 0, unsent: 0 }
    }

    /// Adds an attempt. There must be room.
    pub(super) fn push(
        &mut self,
        backend: BackendIndex,
        kind: AttemptKind,
        extended: bool,
        asked: Offset,
    ) -> AttemptId {
        let id = self.next_id();
        self.entries[usize::from(id.0)] = AttemptRecord { asked, backend, kind, state: AttemptState::Silent };
        self.plain |= u8::from(!extended) << id.0;
        self.len += 1;
        id
    }

    pub(super) fn withdraw(&mut self, id: AttemptId) {
        if id.0 + 1 == self.len {
            self.len = id.0;
            self.plain &= !(1 << id.0);
        } else if let Some(entry) = self.get_mut(id) {
            entry.state = AttemptState::Unsent;
        }
    }

    /// An attempt without the extension in place of another must be sent itself.
    pub(super) fn has_asked(&self, backend: BackendIndex) -> bool {
        self.as_slice().iter().any(|entry| entry.backend == backend && entry.state.has_left())
    }

    pub(super) fn is_extended(&self, id: AttemptId) -> bool {
        self.plain & 1 << id.0 == 0
    }

    pub(super) fn last_of(&self, backend: BackendIndex) -> Option<(AttemptId, &AttemptRecord)> {
        self.iter().rfind(|(_, entry)| entry.backend == backend)
    }

    pub(super) fn is_asked_plainly(&self, backend: BackendIndex) -> bool {
        self.iter().any(|(id, entry)| entry.backend == backend && !self.is_extended(id))
    }

    pub(super) fn next_id(&self) -> AttemptId {
        AttemptId(self.len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.made() >= MAX_ATTEMPTS
    }

    pub(super) fn room(&self) -> usize {
        MAX_ATTEMPTS.saturating_sub(self.made())
    }

    fn made(&self) -> usize {
        usize::from(self.len) + usize::from(self.again)
    }

    pub(super) fn times_asked_again(&self) -> u8 {
        self.again
    }

    pub(super) fn ask_again(&mut self) {
        self.again += 1;
    }

    pub(super) fn get(&self, id: AttemptId) -> Option<&AttemptRecord> {
        self.as_slice().get(usize::from(id.0))
    }

    pub(super) fn get_mut(&mut self, id: AttemptId) -> Option<&mut AttemptRecord> {
        self.entries[..usize::from(self.len)].get_mut(usize::from(id.0))
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        (0..self.len).map(AttemptId).zip(self.as_slice())
    }

    pub(super) fn in_state(&self, state: AttemptState) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        self.iter().filter(move |(_, entry)| entry.state == state)
    }

    #[inline]
    pub(super) fn waited_for(&self) -> impl DoubleEndedIterator<Item = (AttemptId, &AttemptRecord)> {
        self.iter().filter(|(_, entry)| matches!(entry.state, AttemptState::Silent | AttemptState::Unreachable))
    }

    pub(super) fn mark_spoken(&mut self, backend: BackendIndex) {
        for entry in &mut self.entries[..usize::from(self.len)] {
            if entry.backend == backend && entry.state.is_open() {
                entry.state = AttemptState::Spoken;
            }
        }
    }

    /// A refusal of the extension is no reply, and the repetition without it is the same try.
    pub(super) fn silence_of(&self, backend: BackendIndex) -> Option<(u8, Offset)> {
        let (mut tries, mut replaced, mut last) = (0, 0, None);
        for entry in self.as_slice().iter().filter(|entry| entry.backend == backend) {
            tries += 1;
            match entry.state {
                AttemptState::Silent | AttemptState::Unreachable => last = Some(entry.asked),
                AttemptState::Unsent | AttemptState::Lost => tries -= 1,
                AttemptState::Replaced => replaced = 1,
                AttemptState::Bare
                | AttemptState::Spoken
                | AttemptState::ExtensionRefused
                | AttemptState::Replied
                | AttemptState::Failed => return None,
            }
        }
        last.map(|last| (tries - replaced, last))
    }

    pub(super) fn is_lost(&self, backend: BackendIndex) -> bool {
        self.last_of(backend).is_some_and(|(_, last)| last.state == AttemptState::Lost)
            && self.as_slice().iter().all(|entry| entry.backend != backend || entry.state.is_without_reply())
    }

    pub(super) fn times_lost(&self, backend: BackendIndex) -> usize {
        self.in_state(AttemptState::Lost).filter(|(_, entry)| entry.backend == backend).count()
    }

    pub(super) fn refuses_extension(&self, backend: BackendIndex) -> bool {
        self.as_slice().iter().any(|entry| {
            entry.backend == backend && matches!(entry.state, AttemptState::ExtensionRefused | AttemptState::Replaced)
        })
    }

    pub(super) fn view(&self, id: AttemptId, entry: &AttemptRecord, start: Instant) -> Attempt {
        Attempt {
            id,
            backend: entry.backend,
            kind: entry.kind,
            asked_at: entry.asked.since(start),
            extended: self.is_extended(id),
            open: entry.state.is_open(),
            is_sent: entry.state != AttemptState::Unsent,
            state: entry.state,
        }
    }

    fn as_slice(&self) -> &[AttemptRecord] {
        &self.entries[..usize::from(self.len)]
    }
}
