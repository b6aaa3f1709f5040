//! Connections to backends that are asked by stream: one ends and takes with it what waited there, or could not be opened at all.
//!
//! A connection that ends says nothing of its backend, which may have closed it in good order. Its attempts are *lost*: nothing is charged
//! to anybody, and each race asks the next backend at once, and this one once more, by another connection.

use std::time::{Duration, Instant};

use super::active_race::ActiveRace;
use super::attempt::{Outstanding, TakenSlot};
use super::io::{Client, Io};
use super::{Engine, tell_prober};
use crate::policy::backend_load::End;
use crate::policy::query_slots::{SlotState, SocketSetId};
use crate::state::HealthSignal;

impl<C: Client> Engine<C> {
    /// A connection to a backend has ended or was given up, and this is what had waited there. It is closed already: what is asked from
    /// here on goes elsewhere.
    pub fn on_connection_lost<I: Io<Client = C>>(
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
            // Before any race asks another, so that nobody looks busy who is not.
            for taken_by in &lost {
                pool.end_without_reply(index, taken_by, End::Void, now);
                if matches!(taken_by, SlotState::InFlight(_)) {
                    pool.counters(index).lost_attempts.increment();
                }
            }
        }
        for taken_by in lost.drain(..) {
            match taken_by {
                SlotState::InFlight(outstanding) => {
                    self.with_race(io, outstanding.race, now, |race| race.lose(outstanding.attempt()));
                }
                SlotState::Quarantined(_) => {}
            }
        }
        self.taken = lost;
    }

    /// A backend has answered these queries by errors of its transport, which are no replies: their attempts have failed, and the
    /// backend lives.
    pub fn on_rejected<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        sockets: SocketSetId,
        taken: impl IntoIterator<Item = TakenSlot>,
        now: Instant,
    ) {
        let Some((slot, index)) = self.owner(sockets) else { return };
        let mut rejected = std::mem::take(&mut self.taken);
        rejected.extend(taken);
        // Before any race asks another, and though a race may be over by now, for another reply of the same tick.
        for taken_by in &rejected {
            let asked_at = match taken_by {
                SlotState::InFlight(outstanding) => self.asked_at(io, *outstanding, now),
                SlotState::Quarantined(late) => Some(late.sent),
            };
            let end = asked_at.map_or(End::Void, |at| End::Failure(now.saturating_duration_since(at)));
            if let Some(pool) = self.pools.get_mut(slot) {
                pool.end_without_reply(index, taken_by, end, now);
            }
        }
        for taken_by in rejected.drain(..) {
            if let SlotState::InFlight(outstanding) = taken_by {
                self.with_race(io, outstanding.race, now, |race| race.reject(outstanding.attempt()));
            }
        }
        self.taken = rejected;
    }

    /// When an attempt was made, if its race is not over.
    fn asked_at<I: Io<Client = C>>(&mut self, io: &mut I, outstanding: Outstanding, now: Instant) -> Option<Instant> {
        let asked_at = |race: &mut ActiveRace<'_, I>| race.entry.race.attempt(outstanding.attempt());
        self.with_race(io, outstanding.race, now, asked_at).flatten().map(|asked| asked.asked_at)
    }

    /// No connection to a backend could be opened, and this is what had waited for one. `is_refused`: the backend's machine says that
    /// nobody is there, or who is there is not the one that was meant, and a probe is to find out at once whether that lasts.
    pub fn on_connection_failed<I: Io<Client = C>>(
        &mut self,
        io: &mut I,
        sockets: SocketSetId,
        taken: impl IntoIterator<Item = TakenSlot>,
        is_refused: bool,
        now: Instant,
    ) {
        if is_refused && let Some((slot, index)) = self.owner(sockets) {
            tell_prober(io, self.pools.at(slot).backend(index), HealthSignal::Unreachable);
        }
        self.on_connection_lost(io, sockets, taken, now);
    }

    /// How long 99 % of the attempts take to ask the backend with these sockets, as this worker knows it; `None`: too few were answered.
    pub fn p99(&self, sockets: SocketSetId) -> Option<Duration> {
        let (slot, index) = self.owner(sockets)?;
        self.pools.get(slot)?.p99(index)
    }
}

#[cfg(test)]
mod tests;
