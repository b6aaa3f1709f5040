//! Backends that a race asks out of turn: one without the extension, the one with the newest data, and those
//! whose attempt was lost with its connection, which says nothing of the backend: no backend is charged, the
//! next candidate is asked at once, and the lost backend is queued once more.

use super::attempts::{AttemptId, AttemptState};
use super::{BackendIndex, LOST, NO_BACKEND, Race, RaceContext, RaceEnd, ReplyRank, ReplyValue};

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

    /// Records a lost attempt. The next candidate is asked at once, and the backend again at the end.
    #[cold]
    pub fn on_lost(&mut self, attempt: AttemptId) {
        let Some(entry) = self.attempts.get_mut(attempt) else {
            return;
        };
        if entry.state == AttemptState::Spoken {
            entry.state = AttemptState::Failed;
        } else if entry.state.is_open() {
            let before = std::mem::replace(&mut entry.state, AttemptState::Lost);
            let backend = entry.backend;
            self.turns.unsendable &= !self.bit_of(backend);
            self.met |= LOST;
            self.move_on(before);
        }
    }

    #[inline]
    pub(super) fn has_lost(&self) -> bool {
        self.met & LOST != 0
    }

    #[inline]
    pub(super) fn lost_again(&self) -> Option<BackendIndex> {
        if self.has_lost() { self.first_lost() } else { None }
    }

    #[cold]
    fn first_lost(&self) -> Option<BackendIndex> {
        let is_last = |id, backend| self.attempts.last_of(backend).is_some_and(|(last, _)| last == id);
        let is_in_line = |backend| self.bit_of(backend) != 0 && self.is_sendable(backend);
        let mut lost = self.attempts.in_state(AttemptState::Lost).map(|(id, entry)| (id, entry.backend));
        let found =
            lost.find(|&(id, backend)| is_last(id, backend) && is_in_line(backend) && self.attempts.is_lost(backend));
        found.map(|(_, backend)| backend)
    }

    #[inline]
    pub(super) fn hedge_by_stream(&self, context: &RaceContext<'_>) -> Option<BackendIndex> {
        if context.by_stream.is_empty() { None } else { self.lost_or_late(context) }
    }

    #[cold]
    fn lost_or_late(&self, context: &RaceContext<'_>) -> Option<BackendIndex> {
        let is_by_stream = |backend: &BackendIndex| context.by_stream.get(backend.get()).is_some_and(|is| *is);
        let late = self.attempts.in_state(AttemptState::Silent).next_back().map(|(_, entry)| entry.backend);
        let late = late.filter(|backend| self.is_sendable(*backend));
        self.lost_again().or(late).filter(is_by_stream)
    }

    fn is_sendable(&self, backend: BackendIndex) -> bool {
        self.turns.unsendable & self.bit_of(backend) == 0
    }

    fn bit_of(&self, backend: BackendIndex) -> u8 {
        self.candidates.iter().position(|candidate| candidate == backend).map_or(0, |place| 1 << place)
    }
}
