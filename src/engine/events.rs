//! Events other than queries and replies: timers, changes of backends, ICMP errors, failures to send, and the
//! ends of connections.
//!
//! The end of a connection does not count against its backend, which may have closed it in good order. Its
//! attempts are *lost*: no backend is charged, and each race at once asks the next backend, and this one
//! again by another connection.

use std::time::Instant;

use super::active_race::ActiveRace;
use super::attempt::{Outstanding, TakenSlot};
use super::io::{ClientHandle, Io, NotSent};
use super::pools::PoolSlot;
use super::slots::RaceRef;
use super::{Engine, Tick, signal_prober};
use crate::metrics::FetchResult;
use crate::policy::backend_load::AttemptEnd;
use crate::policy::health::HealthState;
use crate::policy::query_slots::{SlotState, SocketId, SocketSetId};
use crate::policy::race::{AttemptId, BackendIndex, Race};
use crate::state::HealthSignal;
use crate::wire::Reply;

impl<I: Io> Tick<'_, I> {
    /// Runs the due races and reads the state of all backends.
    pub fn on_time(&mut self) {
        while let Some((due, at)) = self.engine.timers.pop_due(self.now) {
            self.with_race(at, |race| {
                if race.entry.armed() == Some(due) {
                    race.entry.disarm();
                    race.drive(None);
                }
            });
        }
        self.refresh_pools();
    }

    /// Reads the state of all backends.
    pub fn refresh_pools(&mut self) {
        for slot in self.engine.pools.slots() {
            self.refresh(slot);
        }
    }

    pub(super) fn refresh(&mut self, slot: PoolSlot) {
        let Some(pool) = self.engine.pools.get_mut(slot) else { return };
        let mut dead = Vec::new();
        pool.refresh(self.now, |backend| dead.push(backend));
        for backend in dead {
            let Some(sockets) = self.engine.pools.at(slot).known_sockets(backend) else { continue };
            let mut taken = std::mem::take(&mut self.engine.taken);
            self.io.take_waiting(sockets, &mut taken);
            self.fail_all((slot, backend), taken);
        }
    }

    /// Handles an ICMP error on a socket. It may be forged, because it carries no ID: the races of its
    /// attempts move on and a probe finds out. If probes have found the backend down, the attempts fail.
    pub fn on_unreachable(&mut self, socket: SocketId) {
        let Some((slot, index)) = self.io.set_of(socket).and_then(|sockets| self.engine.owner(sockets)) else { return };
        let pool = self.engine.pools.at(slot);
        pool.counters(index).unreachable.increment();
        let backend = pool.backend(index);
        if backend.health() != HealthState::Up {
            // If the failure is new to this worker, all queries to the backend fail.
            self.refresh(slot);
            let mut taken = std::mem::take(&mut self.engine.taken);
            self.io.take_struck(socket, &mut taken);
            return self.fail_all((slot, index), taken);
        }
        signal_prober(self.io, backend, HealthSignal::Unreachable);
        let mut struck = std::mem::take(&mut self.engine.struck);
        self.io.report_struck(socket, &mut struck);
        for outstanding in struck.drain(..) {
            self.with_race(outstanding.race, |race| {
                if !race.entry.is_fetching {
                    race.entry.race.on_unreachable(outstanding.attempt());
                    race.drive(None);
                }
            });
        }
        self.engine.struck = struck;
    }

    /// Handles a queued query that could not be sent, with the state of its slot.
    pub fn on_unsent(&mut self, sockets: SocketSetId, taken_by: &TakenSlot, why: NotSent) {
        let end = match why {
            NotSent::Unreachable => AttemptEnd::Unreachable,
            NotSent::Want(_) | NotSent::Full => AttemptEnd::Unsent,
        };
        if let Some((slot, index)) = self.engine.owner(sockets) {
            let pool = self.engine.pools.at(slot);
            pool.end_without_reply(index, taken_by, end, self.now);
            if why == NotSent::Unreachable {
                signal_prober(self.io, pool.backend(index), HealthSignal::Unreachable);
            }
        }
        let SlotState::InFlight(outstanding) = taken_by else { return };
        self.with_race(outstanding.race, |race| {
            race.clear_slot(outstanding.attempt());
            race.on_not_sent(outstanding.attempt(), why);
            race.drive(None);
        });
    }

    /// Handles the end of a connection, with the attempts that waited there. It is already closed.
    pub fn on_connection_lost(&mut self, sockets: SocketSetId, taken: Vec<TakenSlot>) {
        let Some((slot, index)) = self.engine.owner(sockets) else { return };
        let lost = taken.iter().filter(|taken_by| matches!(taken_by, SlotState::InFlight(_))).count();
        self.engine.pools.at(slot).counters(index).lost_attempts.add(lost as u64);
        self.end_all((slot, index), taken, |_, _| AttemptEnd::Void, Race::on_lost);
    }

    /// Handles queries that a backend answered by errors of its transport, which are not replies: the
    /// attempts fail, and the backend is up.
    pub fn on_rejected(&mut self, sockets: SocketSetId, taken: Vec<TakenSlot>) {
        let Some(owner) = self.engine.owner(sockets) else { return };
        let now = self.now;
        let end = |engine: &Engine<I::Client>, taken_by: &TakenSlot| {
            let asked_at = match taken_by {
                // A race may already be over because of another reply of the same tick.
                SlotState::InFlight(outstanding) => engine.asked_at(*outstanding),
                SlotState::Quarantined(late) => Some(late.sent),
            };
            asked_at.map_or(AttemptEnd::Void, |at| AttemptEnd::Failure(now.saturating_duration_since(at)))
        };
        self.end_all(owner, taken, end, |race, attempt| {
            race.on_bare_failure(attempt);
            race.on_failure(attempt);
        });
    }

    /// Handles a connection that could not be opened, with the attempts that waited for it. `is_refused`
    /// means that the machine refused it or the peer is not the expected one. A backend that is up is then
    /// probed at once, or as soon as its last probe is 50 ms old.
    pub fn on_connection_failed(&mut self, sockets: SocketSetId, taken: Vec<TakenSlot>, is_refused: bool) {
        if is_refused && let Some((slot, index)) = self.engine.owner(sockets) {
            signal_prober(self.io, self.engine.pools.at(slot).backend(index), HealthSignal::Unreachable);
        }
        self.on_connection_lost(sockets, taken);
    }

    /// Handles a whole answer that was fetched for a race.
    pub fn on_fetched(&mut self, race: RaceRef, reply: &Reply<'_>) {
        self.with_race(race, |race| race.finish_fetch(reply));
    }

    /// Handles a failed fetch of a whole answer.
    pub fn on_fetch_failed(&mut self, race: RaceRef, result: FetchResult) {
        self.with_race(race, |race| race.fail_fetch(result));
    }

    fn fail_all(&mut self, owner: (PoolSlot, BackendIndex), taken: Vec<TakenSlot>) {
        self.end_all(owner, taken, |_, _| AttemptEnd::Unreachable, Race::on_failure);
    }

    /// Ends all attempts in slots that were taken back from one backend.
    fn end_all(
        &mut self,
        (slot, backend): (PoolSlot, BackendIndex),
        taken: Vec<TakenSlot>,
        end: impl Fn(&Engine<I::Client>, &TakenSlot) -> AttemptEnd,
        event: impl Fn(&mut Race, AttemptId),
    ) {
        // Before any race asks again, so that no backend looks busier than it is.
        for taken_by in &taken {
            let end = end(self.engine, taken_by);
            self.engine.pools.at(slot).end_without_reply(backend, taken_by, end, self.now);
        }
        self.for_races_of(taken, |race, outstanding| race.end(outstanding.attempt(), &event));
    }

    /// Passes each attempt that waited in these slots to its race, and keeps the buffer for the next time.
    pub(super) fn for_races_of(
        &mut self,
        mut taken: Vec<TakenSlot>,
        event: impl Fn(&mut ActiveRace<'_, I>, Outstanding),
    ) {
        for taken_by in taken.drain(..) {
            if let SlotState::InFlight(outstanding) = taken_by {
                self.with_race(outstanding.race, |race| event(race, outstanding));
            }
        }
        self.engine.taken = taken;
    }
}

impl<C: ClientHandle> Engine<C> {
    fn asked_at(&self, outstanding: Outstanding) -> Option<Instant> {
        let entry = self.in_flight.get(outstanding.race)?;
        entry.race.attempt(outstanding.attempt()).map(|asked| asked.asked_at)
    }
}

#[cfg(test)]
mod tests;
