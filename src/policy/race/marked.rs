//! Backends that a race asks out of turn: one that is asked without OPT, and the one whose word is final because it has the newest version
//! of the zone.

use super::attempts::{AttemptId, State};
use super::{BackendIndex, Heard, NOBODY, Outcome, Race, Rank};

impl Race {
    /// A negative reply came to an attempt, of an older version of the zone than another backend has.
    #[cold]
    pub fn on_outdated(&mut self, attempt: AttemptId, newest: BackendIndex) -> Heard {
        if self.is_finished() {
            return Heard::NotNeeded;
        }
        let Some(entry) = self.attempts.get_mut(attempt) else {
            return Heard::NotNeeded;
        };
        let before = std::mem::replace(&mut entry.state, State::Replied);
        let backend = entry.backend;
        self.attempts.mark_spoken(backend);
        match self.attempts.last_of(newest).map(|(_, entry)| entry.state) {
            // It is asked next, or waited for.
            None | Some(State::Silent | State::Unreachable | State::Bare | State::OptRefused) => self.newest = newest,
            // It has spoken, or cannot be had: the race goes on as after any reply that is of no use.
            Some(State::Spoken | State::Replaced | State::Replied | State::Failed | State::Unsent) => {
                self.move_on(before);
            }
        }
        if let Some((kept, rank)) = self.kept
            && rank > Rank::Outdated
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
        if self.newest == NOBODY || self.attempts.last_of(self.newest).is_some() {
            return None;
        }
        let place = self.candidates.iter().position(|candidate| candidate == self.newest);
        if let Some(place) = place {
            self.strike(place as u8);
        }
        Some(self.newest)
    }
}
