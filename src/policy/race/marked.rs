//! Backends that a race asks out of turn: one that is asked without OPT, and the one whose word is final because it has the newest version
//! of the zone. And the one reply that replaces a doubtful decision.

use super::attempts::{AttemptId, State};
use super::{BackendIndex, Heard, NOBODY, Outcome, Race, Rank};

impl Race {
    /// A negative reply came to an attempt, of an older version of the zone than another backend has.
    #[cold]
    pub fn on_outdated(&mut self, attempt: AttemptId, newest: BackendIndex) -> Heard {
        let Some((backend, before)) = self.replied(attempt) else { return Heard::NotNeeded };
        self.attempts.mark_spoken(backend);
        // Two that deny the name may each know of another that has a newer version: the one that was named first has its say.
        let newest = if self.may_newest_speak() { self.newest } else { newest };
        match self.attempts.last_of(newest).map(|(_, entry)| entry.state) {
            // It is asked next, or waited for.
            None | Some(State::Silent | State::Unreachable | State::Bare | State::OptRefused | State::Lost) => {
                self.newest = newest;
            }
            // It has spoken, or cannot be had: the race goes on as after any reply that is of no use.
            Some(State::Spoken | State::Replaced | State::Replied | State::Failed | State::Unsent) => {
                self.move_on(before);
            }
        }
        if let Some((kept, rank)) = self.kept
            && rank > Rank::Outdated
            && rank != Rank::Doubtful
            && self.attempts.get(kept).is_some_and(|entry| entry.backend == newest)
        {
            self.outcome = Some(Outcome::Reply(kept));
            return Heard::NotNeeded;
        }
        if self.kept.is_some_and(|(_, best)| best >= Rank::Outdated) {
            return Heard::NotNeeded;
        }
        self.kept = Some((attempt, Rank::Outdated));
        Heard::Kept
    }

    /// A positive reply came to an attempt, which a backend that is trusted with that has validated: its clock agrees with the signatures.
    #[cold]
    pub fn on_validated(&mut self, attempt: AttemptId) -> Heard {
        if self.replied(attempt).is_none() {
            return Heard::NotNeeded;
        }
        self.outcome = Some(Outcome::Reply(attempt));
        Heard::Accepted
    }

    /// True if the kept reply is a decision that a wrong clock may have caused.
    #[inline]
    pub fn is_doubted(&self) -> bool {
        matches!(self.kept, Some((_, Rank::Doubtful)))
    }

    /// Whether the backend whose word is final is going to be asked, or waited for.
    fn may_newest_speak(&self) -> bool {
        self.newest != NOBODY
            && match self.attempts.last_of(self.newest).map(|(_, entry)| entry.state) {
                None | Some(State::Silent | State::Unreachable | State::Bare | State::OptRefused | State::Lost) => true,
                Some(State::Spoken | State::Replaced | State::Replied | State::Failed | State::Unsent) => false,
            }
    }

    /// Whether what this backend says is final, whichever version it has.
    pub fn is_final(&self, backend: BackendIndex) -> bool {
        self.newest == backend
    }

    /// The backend that is to be asked without OPT, or the one with the newest version of the zone, if it was not asked yet.
    #[cold]
    #[inline(never)]
    pub(super) fn take_marked(&mut self) -> Option<BackendIndex> {
        if self.without_opt != NOBODY && !self.attempts.is_asked_without_opt(self.without_opt) {
            return Some(self.without_opt);
        }
        // If its first attempt is lost with its connection, it is asked once more out of turn; after that when all others were.
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
