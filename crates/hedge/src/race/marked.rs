//! Backends that a race asks out of turn: one without OPT, and the one with the newest zone version.

use super::attempts::{AttemptId, State};
use super::{BackendIndex, NOBODY, Race, RaceEnd, ReplyRank, ReplyValue};

impl<R: ReplyRank> Race<R> {
    /// Processes a negative reply of an older version of the zone than another backend has.
    #[cold]
    pub fn on_outdated(&mut self, attempt: AttemptId, rank: R, newest: BackendIndex) -> ReplyValue {
        let Some((backend, before)) = self.replied(attempt) else { return ReplyValue::NotNeeded };
        self.attempts.mark_spoken(backend);
        let newest = if self.may_newest_speak() { self.newest } else { newest };
        match self.attempts.last_of(newest).map(|(_, entry)| entry.state) {
            None | Some(State::Silent | State::Unreachable | State::Bare | State::OptRefused | State::Lost) => {
                self.newest = newest;
            }
            Some(State::Spoken | State::Replaced | State::Replied | State::Failed | State::Unsent) => {
                self.move_on(before);
            }
        }
        if let Some((kept, best)) = self.kept
            && !best.is_failure()
            && !best.is_provisional()
            && self.attempts.get(kept).is_some_and(|entry| entry.backend == newest)
        {
            self.outcome = Some(RaceEnd::Reply(kept));
            return ReplyValue::NotNeeded;
        }
        if self.kept.is_some_and(|(_, best)| best >= rank) {
            return ReplyValue::NotNeeded;
        }
        self.kept = Some((attempt, rank));
        ReplyValue::Kept
    }

    /// Processes a validated positive reply: the backend's clock agrees with the signatures.
    #[cold]
    pub fn on_validated(&mut self, attempt: AttemptId) -> ReplyValue {
        if self.replied(attempt).is_none() {
            return ReplyValue::NotNeeded;
        }
        self.outcome = Some(RaceEnd::Reply(attempt));
        ReplyValue::Accepted
    }

    /// Returns true if the kept reply is a decision that a wrong clock may have caused.
    #[inline]
    pub fn is_doubted(&self) -> bool {
        self.kept.is_some_and(|(_, best)| best.is_provisional())
    }

    fn may_newest_speak(&self) -> bool {
        self.newest != NOBODY
            && match self.attempts.last_of(self.newest).map(|(_, entry)| entry.state) {
                None | Some(State::Silent | State::Unreachable | State::Bare | State::OptRefused | State::Lost) => true,
                Some(State::Spoken | State::Replaced | State::Replied | State::Failed | State::Unsent) => false,
            }
    }

    /// Returns true if the reply of this backend is final, whatever its version.
    pub fn is_final(&self, backend: BackendIndex) -> bool {
        self.newest == backend
    }

    #[cold]
    #[inline(never)]
    pub(super) fn take_marked(&mut self) -> Option<BackendIndex> {
        if self.without_opt != NOBODY && !self.attempts.is_asked_without_opt(self.without_opt) {
            return Some(self.without_opt);
        }
        // If its first attempt is lost with its connection, it is asked once more out of turn.
        let was_asked = self.attempts.last_of(self.newest).is_some();
        let is_lost = || self.attempts.is_lost(self.newest) && self.attempts.times_lost(self.newest) == 1;
        if self.newest == NOBODY || was_asked && !is_lost() {
            return None;
        }
        let place = self.candidates.iter().position(|candidate| candidate == self.newest);
        if let Some(place) = place {
            self.strike(place as u8);
        }
        Some(self.newest)
    }
}
