//! Backends that a race asks out of turn: one without the extension, and the one with the newest data.

use super::attempts::AttemptId;
use super::{BackendIndex, NO_BACKEND, Race, RaceEnd, ReplyRank, ReplyValue};

impl<R: ReplyRank> Race<R> {
    /// Processes a reply from older data than the backend `newest` has. That backend is asked at once, and
    /// its reply is final.
    #[cold]
    pub fn on_outdated(&mut self, attempt: AttemptId, rank: R, newest: BackendIndex) -> ReplyValue {
        let Some((backend, before)) = self.replied(attempt) else { return ReplyValue::NotNeeded };
        self.attempts.mark_spoken(backend);
        let first = self.marked.newest;
        let newest = if first != NO_BACKEND && self.may_speak(first) { first } else { newest };
        if self.may_speak(newest) {
            self.marked.newest = newest;
        } else {
            self.move_on(before);
        }
        if let Some((kept, best)) = self.ranks.kept
            && !best.is_failure()
            && !best.is_provisional()
            && self.attempts.get(kept).is_some_and(|entry| entry.backend == newest)
        {
            self.outcome = Some(RaceEnd::Reply(kept));
            return ReplyValue::NotNeeded;
        }
        if self.ranks.kept.is_some_and(|(_, best)| best >= rank) {
            return ReplyValue::NotNeeded;
        }
        self.ranks.kept = Some((attempt, rank));
        ReplyValue::Kept
    }

    /// Processes a good reply that proves a provisional one wrong.
    #[cold]
    pub fn on_validated(&mut self, attempt: AttemptId) -> ReplyValue {
        if self.replied(attempt).is_none() {
            return ReplyValue::NotNeeded;
        }
        self.outcome = Some(RaceEnd::Reply(attempt));
        ReplyValue::Accepted
    }

    /// Returns true if the kept reply is provisional.
    #[inline]
    pub fn is_doubted(&self) -> bool {
        self.ranks.kept.is_some_and(|(_, best)| best.is_provisional())
    }

    fn may_speak(&self, backend: BackendIndex) -> bool {
        self.attempts.last_of(backend).is_none_or(|(_, last)| last.state.may_speak())
    }

    /// Returns true if the reply of this backend is final, whatever its version.
    pub fn is_final(&self, backend: BackendIndex) -> bool {
        self.marked.newest == backend
    }

    #[cold]
    #[inline(never)]
    pub(super) fn take_marked(&mut self) -> Option<BackendIndex> {
        if self.marked.plain != NO_BACKEND && !self.attempts.is_asked_plainly(self.marked.plain) {
            return Some(self.marked.plain);
        }
        // If its first attempt is lost with its connection, it is asked once more out of turn.
        let was_asked = self.attempts.last_of(self.marked.newest).is_some();
        let is_lost = || self.attempts.is_lost(self.marked.newest) && self.attempts.times_lost(self.marked.newest) == 1;
        if self.marked.newest == NO_BACKEND || was_asked && !is_lost() {
            return None;
        }
        let place = self.candidates.iter().position(|candidate| candidate == self.marked.newest);
        if let Some(place) = place {
            self.strike(place as u8);
        }
        Some(self.marked.newest)
    }
}
