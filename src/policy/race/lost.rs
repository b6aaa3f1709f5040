//! Attempts that were lost with their connection: what a race makes of that, and whom it asks by another one.
//!
//! A connection holds many attempts, and takes all of them with it when it ends. That says nothing of its backend, which may have closed
//! it in good order: nobody is charged, the next candidate is asked at once, and the one that was lost stands in line once more.

use super::attempts::{AttemptId, State};
use super::{BackendIndex, LOST, Race, RaceContext};

impl Race {
    /// An attempt was lost with its connection. The next candidate is asked at once, which is no hedge, and its backend once more when
    /// all others were, by another connection.
    #[cold]
    pub fn on_lost(&mut self, attempt: AttemptId) {
        let Some(entry) = self.attempts.get_mut(attempt) else {
            return;
        };
        match entry.state {
            State::Silent | State::Unreachable | State::Bare => {
                let before = std::mem::replace(&mut entry.state, State::Lost);
                let backend = entry.backend;
                // If it could not be asked before, it may be now.
                self.unsendable &= !self.bit_of(backend);
                self.met |= LOST;
                self.move_on(before);
            }
            // Nobody waits for it, and its backend is not asked again for it.
            State::Spoken => entry.state = State::Failed,
            State::OptRefused | State::Replaced | State::Replied | State::Failed | State::Unsent | State::Lost => {}
        }
    }

    /// Whether an attempt was lost.
    #[inline]
    pub(super) fn has_lost(&self) -> bool {
        self.met & LOST != 0
    }

    /// The backend that stands in line once more, for it has lost an attempt: of several the one that was asked longest ago.
    #[inline]
    pub(super) fn lost_again(&self) -> Option<BackendIndex> {
        if self.has_lost() { self.first_lost() } else { None }
    }

    #[cold]
    fn first_lost(&self) -> Option<BackendIndex> {
        let is_last = |id, backend| self.attempts.last_of(backend).is_some_and(|(last, _)| last == id);
        let is_in_line = |backend| self.bit_of(backend) != 0 && self.is_sendable(backend);
        let mut lost = self.attempts.in_state(State::Lost).map(|(id, entry)| (id, entry.backend));
        let found =
            lost.find(|&(id, backend)| is_last(id, backend) && is_in_line(backend) && self.attempts.is_lost(backend));
        found.map(|(_, backend)| backend)
    }

    /// Whom a hedge goes to for which no candidate is left: a backend that has lost an attempt, or the one that is late, by another
    /// connection. By UDP that would be the same way once more.
    #[inline]
    pub(super) fn hedge_by_stream(&self, context: &RaceContext<'_>) -> Option<BackendIndex> {
        if context.by_stream.is_empty() { None } else { self.lost_or_late(context) }
    }

    #[cold]
    fn lost_or_late(&self, context: &RaceContext<'_>) -> Option<BackendIndex> {
        let is_by_stream = |backend: &BackendIndex| context.by_stream.get(backend.get()).is_some_and(|is| *is);
        let late = self.attempts.in_state(State::Silent).next_back().map(|(_, entry)| entry.backend);
        let late = late.filter(|backend| self.is_sendable(*backend));
        self.lost_again().or(late).filter(is_by_stream)
    }

    /// Whether nothing that was to be sent to a backend could not be, of late.
    fn is_sendable(&self, backend: BackendIndex) -> bool {
        self.unsendable & self.bit_of(backend) == 0
    }

    /// The bit of a backend among the candidates; 0: it is none.
    fn bit_of(&self, backend: BackendIndex) -> u8 {
        self.candidates.iter().position(|candidate| candidate == backend).map_or(0, |place| 1 << place)
    }
}
