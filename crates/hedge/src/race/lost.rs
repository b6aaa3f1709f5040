//! Attempts that were lost with their connection, which says nothing of the backend: no backend is charged,
//! the next candidate is asked at once, and the lost backend is queued once more.

use super::attempts::{AttemptId, AttemptState};
use super::{BackendIndex, LOST, Race, RaceContext, ReplyRank};

impl<R: ReplyRank> Race<R> {
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
