//! The silence after which another attempt is due, and the payment for early attempts.

use std::time::{Duration, Instant};

use super::attempts::{AttemptId, AttemptList, Offset};
use super::{BackendIndex, MIN_WAIT, RaceContext};
use crate::latency::Latency;
use crate::rules::{AttemptTimeout, Dispatch};

impl AttemptList {
    /// Returns the ends of the timeouts that are not over.
    #[inline]
    pub(super) fn fresh<'a>(
        &'a self,
        context: &'a RaceContext<'_>,
        now: Offset,
    ) -> impl Iterator<Item = Offset> + use<'a> {
        let timeout = context.rules.attempt_timeout;
        let ends = self.waited_for().map(move |(id, entry)| {
            let is_auto = timeout.is_auto();
            let patience = if is_auto { self.patience(context, id, entry.backend) } else { timeout.longest() };
            entry.asked.after(patience)
        });
        ends.filter(move |&end| now < end)
    }

    /// Returns the ends of the longest timeouts with [`AttemptTimeout::AUTO`] that are not over.
    pub(super) fn young(&self, now: Offset) -> impl Iterator<Item = Offset> + '_ {
        let ends = self.waited_for().map(|(_, entry)| entry.asked.after(AttemptTimeout::LONGEST));
        ends.filter(move |&end| now < end)
    }

    /// Returns the retransmission timeout of an attempt. It doubles from the second repetition on: one loss
    /// says little of the load. A stream repeats what it loses by itself.
    #[cold]
    pub(super) fn patience(&self, context: &RaceContext<'_>, id: AttemptId, backend: BackendIndex) -> Duration {
        if context.by_stream.get(backend.get()).is_some_and(|is| *is) {
            return AttemptTimeout::LONGEST;
        }
        let latency = context.latency.get(backend.get());
        let timeout = latency.map_or(AttemptTimeout::LONGEST, Latency::retransmission_timeout);
        let earlier = self.waited_for().filter(|&(earlier, entry)| earlier < id && entry.backend == backend).count();
        (timeout * (1 << earlier.saturating_sub(1))).min(AttemptTimeout::LONGEST)
    }

    /// Returns the number of attempts to a backend less than the longest timeout after the previous one.
    #[cold]
    pub(super) fn early_of(&self, backend: BackendIndex) -> u8 {
        let asked = || self.iter().filter(|(_, entry)| entry.backend == backend).map(|(_, entry)| entry.asked);
        let is_early = |(before, at): &(Offset, Offset)| before.until(*at) < AttemptTimeout::LONGEST;
        asked().zip(asked().skip(1)).filter(is_early).count() as u8
    }

    /// Pays for an early attempt from the allowance of the newest silent backend. With [`Dispatch::Auto`],
    /// hedges make up for some losses, and an attempt that waits in a queue is not repeated.
    pub(super) fn pay(&self, context: &RaceContext<'_>, start: Instant, now: Offset) -> bool {
        let Some((_, late)) = self.waited_for().next_back() else { return false };
        let Some(latency) = context.latency.get(late.backend.get()) else { return false };
        if context.rules.dispatch != Dispatch::Auto {
            return latency.take_early_attempt(0.0);
        }
        let may_be_lost = may_be_lost(context, late.backend, late.asked.since(start), now.since(start));
        may_be_lost && latency.take_early_attempt(context.rules.hedge.budget * PAID_BY_HEDGES)
    }

    /// Returns the next end of a timeout, short or long. After a denial, the allowance is asked again after
    /// twice the wait.
    pub(super) fn due_early(&self, context: &RaceContext<'_>, is_denied: bool, now: Offset) -> Option<Offset> {
        let newest = self.waited_for().next_back().filter(|_| is_denied);
        let again = newest.map(|(_, late)| now.after(late.asked.until(now).max(MIN_WAIT)));
        self.young(now).chain(self.fresh(context, now)).chain(again).min()
    }
}

/// Returns true unless the attempt may wait in a queue: the backend is busier than usual, and has answered no
/// attempt that was made a median of its latency later.
#[cold]
fn may_be_lost(context: &RaceContext<'_>, backend: BackendIndex, asked: Instant, now: Instant) -> bool {
    let Some(load) = context.loads.get(backend.get()) else { return true };
    let latency = context.latency.get(backend.get());
    let known = latency.and_then(|latency| Some((latency.tuned()?, latency.quantile(0.5)?)));
    known.is_none_or(|(tuned, median)| {
        load.has_answered_since(asked + median) || tuned.room.is_usual(load.in_flight_of_all(now))
    })
}

/// The losses for which hedges are enough, in hedge budgets.
const PAID_BY_HEDGES: f64 = 0.2;
