//! Connections to stream backends: the end of a connection with its attempts, and failures to open one.
//!
//! The end of a connection does not count against its backend, which may have closed it in good order. Its
//! attempts are *lost*: no backend is charged, and each race at once asks the next backend, and this one
//! again by another connection.

use std::time::{Duration, Instant};

use super::active_race::ActiveRace;
use super::attempt::{Outstanding, TakenSlot};
use super::io::Io;
use super::{Engine, signal_prober};
use crate::policy::backend_load::AttemptEnd;
use crate::policy::query_slots::{SlotState, SocketSetId};
use crate::policy::race::Race;
use crate::state::HealthSignal;

impl<I: Io> Engine<I> {
    /// Handles the end of a connection, whose waiting attempts are in `lost`. It is already closed.
    pub fn on_connection_lost(
        &mut self,
        io: &mut I,
        sockets: SocketSetId,
        taken: impl IntoIterator<Item = TakenSlot>,
        now: Instant,
    ) {
        let Some((slot, index)) = self.owner(sockets) else { return };
        let mut lost = std::mem::take(&mut self.taken);
        lost.extend(taken);
        if let Some(pool) = self.pools.get_mut(slot) {
            // Before any race asks again, so that no backend looks busier than it is.
            for taken_by in &lost {
                pool.end_without_reply(index, taken_by, AttemptEnd::Void, now);
                if matches!(taken_by, SlotState::InFlight(_)) {
                    pool.counters(index).lost_attempts.increment();
                }
            }
        }
        self.for_races_of(io, lost, |race, outstanding| race.end(outstanding.attempt(), Race::on_lost), now);
    }

    /// Handles queries that a backend answered by errors of its transport, which are not replies: the
    /// attempts fail, and the backend is up.
    pub fn on_rejected(
        &mut self,
        io: &mut I,
        sockets: SocketSetId,
        taken: impl IntoIterator<Item = TakenSlot>,
        now: Instant,
    ) {
        let Some((slot, index)) = self.owner(sockets) else { return };
        let mut rejected = std::mem::take(&mut self.taken);
        rejected.extend(taken);
        // Before any race asks again. A race may already be over because of another reply of the same tick.
        for taken_by in &rejected {
            let asked_at = match taken_by {
                SlotState::InFlight(outstanding) => self.asked_at(io, *outstanding, now),
                SlotState::Quarantined(late) => Some(late.sent),
            };
            let end = asked_at.map_or(AttemptEnd::Void, |at| AttemptEnd::Failure(now.saturating_duration_since(at)));
            if let Some(pool) = self.pools.get_mut(slot) {
                pool.end_without_reply(index, taken_by, end, now);
            }
        }
        let reject = |race: &mut Race, attempt| {
            race.on_bare_failure(attempt);
            race.on_failure(attempt);
        };
        self.for_races_of(io, rejected, |race, outstanding| race.end(outstanding.attempt(), reject), now);
    }

    fn asked_at(&mut self, io: &mut I, outstanding: Outstanding, now: Instant) -> Option<Instant> {
        let asked_at = |race: &mut ActiveRace<'_, I>| race.entry.race.attempt(outstanding.attempt());
        self.with_race(io, outstanding.race, now, asked_at).flatten().map(|asked| asked.asked_at)
    }

    /// Handles a connection that could not be opened, with the attempts that waited for it. `is_refused`
    /// means that the machine refused it or the peer is not the expected one. A backend that is up is then
    /// probed at once, or as soon as its last probe is 50 ms old.
    pub fn on_connection_failed(
        &mut self,
        io: &mut I,
        sockets: SocketSetId,
        taken: impl IntoIterator<Item = TakenSlot>,
        is_refused: bool,
        now: Instant,
    ) {
        if is_refused && let Some((slot, index)) = self.owner(sockets) {
            signal_prober(io, self.pools.at(slot).backend(index), HealthSignal::Unreachable);
        }
        self.on_connection_lost(io, sockets, taken, now);
    }

    /// Returns the 99th percentile of the latency of the backend with these sockets, as this worker knows it;
    /// `None` if too few attempts were answered.
    pub fn p99(&self, sockets: SocketSetId) -> Option<Duration> {
        let (slot, index) = self.owner(sockets)?;
        self.pools.get(slot)?.p99(index)
    }
}

#[cfg(test)]
mod tests;
