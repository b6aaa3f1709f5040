//! Hedges: when one is due, and to which backend.

use std::time::Duration;

use super::{AttemptState, BackendIndex, MIN_WAIT, Offset, Race, RaceContext, ReplyRank};
use crate::rules::Dispatch;

impl<R: ReplyRank> Race<R> {
    /// Returns the backend of the next hedge.
    pub fn next_hedge(&self) -> Option<BackendIndex> {
        self.unhedged().and_then(|place| self.candidates.get(usize::from(place)))
    }

    #[inline]
    fn unhedged(&self) -> Option<u8> {
        self.unhedged_places().next()
    }

    #[inline]
    fn unhedged_places(&self) -> impl Iterator<Item = u8> + '_ {
        self.candidates.hedge_places().filter(|place| (self.turns.asked | self.turns.unsendable) & 1 << place == 0)
    }

    #[inline]
    pub(super) fn take_hedge(&mut self, context: &RaceContext<'_>, now: Offset) -> Option<BackendIndex> {
        let place = self.unhedged();
        let again = if place.is_none() { Some(self.hedge_by_stream(context)?) } else { None };
        let (_, late) = self.attempts.in_state(AttemptState::Silent).next_back()?;
        let waited = late.asked.until(now);
        let is_auto = context.rules.dispatch == Dispatch::Auto;
        let place = if is_auto { self.with_room(context, waited, now) } else { place };
        let is_possible = place.is_some() || again.is_some();
        if !is_possible || !context.budget.take() {
            // A hedge without a backend that has room is put off, and no shortage of the budget.
            self.hedges.denied += u8::from(is_possible && self.hedge_again.is_none());
            let pause = if is_auto { waited / 4 } else { waited };
            self.hedge_again = Some(now.after(pause.max(MIN_WAIT)));
            return None;
        }
        self.hedges.from = self.attempts.next_id();
        self.hedges.made += 1;
        again.or_else(|| place.and_then(|place| self.strike(place)))
    }

    /// Returns the time when a hedge is due for the newest silent attempt. Only a second connection to the
    /// same backend is useful, because one connection may stall alone.
    #[inline]
    pub(super) fn hedge_due(&self, context: &RaceContext<'_>) -> Option<Offset> {
        let hedge = &context.rules.hedge;
        let is_over = self.hedges.made >= hedge.max || self.attempts.is_full();
        // Without a budget hedging is disabled, so no hedge counts as denied.
        if is_over || hedge.budget <= 0.0 || !context.rules.dispatch.is_hedging() {
            return None;
        }
        if self.unasked().is_none() {
            self.hedge_by_stream(context)?;
        }
        let (newest, entry) = self.attempts.in_state(AttemptState::Silent).next_back()?;
        if newest < self.hedges.from {
            return None;
        }
        let latency = context.latency.get(entry.backend.get());
        let delay = latency.map_or(hedge.max_delay, |latency| context.rules.hedge_delay(latency));
        let due = entry.asked.after(delay);
        Some(self.hedge_again.map_or(due, |again| due.max(again)))
    }

    /// Returns the next hedge to a backend that has room for it.
    #[cold]
    fn with_room(&self, context: &RaceContext<'_>, waited: Duration, now: Offset) -> Option<u8> {
        let now = now.since(self.start);
        let has_room = |backend: BackendIndex| {
            let load = context.loads.get(backend.get());
            let tuned = context.latency.get(backend.get()).and_then(|latency| latency.tuned());
            load.zip(tuned).is_none_or(|(load, tuned)| tuned.room.is_for(load, waited, now))
        };
        // A backend that is asked after the others, such as a spare, gets a hedge only after all others.
        let (line, len) = (self.candidates.first_in_line(), self.candidates.len() as u8);
        let end = if line < len && self.unhedged().is_some_and(|place| place < line) { line } else { len };
        let mut places = self.unhedged_places().filter(|place| *place < end);
        places.find(|place| self.candidates.get(usize::from(*place)).is_some_and(has_room))
    }
}
