//! Events other than queries and replies: timers, changes of backends, ICMP errors, failures to send.

use std::time::Instant;

use super::active_race::ActiveRace;
use super::attempt::{Outstanding, QuarantinedAttempt, TakenSlot};
use super::io::{Io, NotSent};
use super::pool::Pool;
use super::pools::PoolSlot;
use super::{Engine, signal_prober};
use crate::policy::backend_load::AttemptEnd;
use crate::policy::health::HealthState;
use crate::policy::query_slots::{SlotState, SocketId, SocketSetId};
use crate::policy::race::{BackendIndex, Race};
use crate::state::HealthSignal;

impl<I: Io> Engine<I> {
    /// Runs the due races and reads the state of all backends.
    pub fn on_time(&mut self, io: &mut I, now: Instant) {
        while let Some((due, at)) = self.timers.pop_due(now) {
            self.with_race(io, at, now, |race| {
                if race.entry.armed() == Some(due) {
                    race.entry.disarm();
                    race.drive(None);
                }
            });
        }
        self.refresh_pools(io, now);
    }

    /// Reads the state of all backends.
    pub fn refresh_pools(&mut self, io: &mut I, now: Instant) {
        for slot in self.pools.slots() {
            self.refresh(io, slot, now);
        }
    }

    pub(super) fn refresh(&mut self, io: &mut I, slot: PoolSlot, now: Instant) {
        let Some(pool) = self.pools.get_mut(slot) else { return };
        let mut dead = Vec::new();
        pool.refresh(now, |backend| dead.push(backend));
        for backend in dead {
            let Some(sockets) = self.pools.get(slot).and_then(|pool| pool.known_sockets(backend)) else { continue };
            let mut taken = std::mem::take(&mut self.taken);
            io.take_waiting(sockets, &mut taken);
            self.fail_all(io, taken, (slot, backend), now);
        }
    }

    /// Handles an ICMP error on a socket. It may be forged, because it carries no ID: the races of its
    /// attempts move on and a probe finds out. If probes have found the backend down, the attempts fail.
    pub fn on_unreachable(&mut self, io: &mut I, socket: SocketId, now: Instant) {
        let Some((slot, index)) = io.set_of(socket).and_then(|sockets| self.owner(sockets)) else { return };
        let pool = self.pools.at(slot);
        pool.counters(index).unreachable.increment();
        let backend = pool.backend(index);
        if backend.health() != HealthState::Up {
            // If the failure is new to this worker, all queries to the backend fail.
            self.refresh(io, slot, now);
            let mut taken = std::mem::take(&mut self.taken);
            io.take_struck(socket, &mut taken);
            return self.fail_all(io, taken, (slot, index), now);
        }
        signal_prober(io, backend, HealthSignal::Unreachable);
        let mut struck = std::mem::take(&mut self.struck);
        io.report_struck(socket, &mut struck);
        for outstanding in struck.drain(..) {
            self.with_race(io, outstanding.race, now, |race| {
                if !race.entry.is_fetching {
                    race.entry.race.on_unreachable(outstanding.attempt());
                    race.drive(None);
                }
            });
        }
        self.struck = struck;
    }

    /// Handles a queued query that could not be sent, with the state of its slot.
    pub fn on_unsent(&mut self, io: &mut I, sockets: SocketSetId, taken_by: &TakenSlot, why: NotSent, now: Instant) {
        let end = match why {
            NotSent::Unreachable => AttemptEnd::Unreachable,
            NotSent::Want(_) | NotSent::Full => AttemptEnd::Unsent,
        };
        if let Some((slot, index)) = self.owner(sockets) {
            let pool = self.pools.at(slot);
            pool.end_without_reply(index, taken_by, end, now);
            if why == NotSent::Unreachable {
                signal_prober(io, pool.backend(index), HealthSignal::Unreachable);
            }
        }
        let SlotState::InFlight(outstanding) = taken_by else { return };
        let attempt = outstanding.attempt();
        self.with_race(io, outstanding.race, now, |race| match why {
            NotSent::Unreachable => race.end(attempt, Race::on_failure),
            NotSent::Want(want) => {
                race.clear_slot(attempt);
                race.on_unsent(attempt, want);
                race.drive(None);
            }
            NotSent::Full => {
                race.clear_slot(attempt);
                race.on_full(attempt);
                race.drive(None);
            }
        });
    }

    /// Handles the end of a slot's quarantine without a reply. If a later reply is to be reported, returns
    /// the record for a longer quarantine.
    pub fn on_quarantine_over(&mut self, late: &QuarantinedAttempt, now: Instant) -> Option<QuarantinedAttempt> {
        let is_charged = late.is_charged?;
        if let Some(pool) = self.pools.get_mut(late.pool) {
            let end = AttemptEnd::Silence(now.saturating_duration_since(late.sent));
            pool.ended(late.backend, end, is_charged, now);
        }
        late.is_reported.then_some(QuarantinedAttempt { is_charged: None, ..*late })
    }

    /// Ends a tick, after the queue was sent and failures were reported.
    pub fn end_tick(&mut self, io: &mut I, now: Instant) {
        // Only now, because queries taken back in this tick may still count for such a pool.
        if self.pools.len() > self.pool_slots.len() {
            self.remove_unused_pools(io, now);
        }
        if std::mem::take(&mut self.has_ended_plans) {
            self.pools.iter_mut().for_each(|pool| pool.forget_left(io, now));
        }
        let in_flight = &self.in_flight;
        self.timers.discard(|due, at| in_flight.get(*at).is_none_or(|entry| entry.armed() != Some(due)));
        debug_assert!(
            !self.is_empty() || self.pools.iter().all(|(_, pool)| pool.is_not_waited_for()),
            "what is waited for belongs to a race"
        );
    }

    /// Returns the next time at which [`on_time`](Self::on_time) has work.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.peek()
    }

    pub(super) fn owner(&self, sockets: SocketSetId) -> Option<(PoolSlot, BackendIndex)> {
        self.pools.iter().find_map(|(slot, pool)| Some((slot, pool.backend_of(sockets)?)))
    }

    fn fail_all(&mut self, io: &mut I, taken: Vec<TakenSlot>, (slot, backend): (PoolSlot, BackendIndex), now: Instant) {
        if let Some(pool) = self.pools.get_mut(slot) {
            taken.iter().for_each(|taken_by| pool.end_without_reply(backend, taken_by, AttemptEnd::Unreachable, now));
        }
        self.for_races_of(io, taken, |race, outstanding| race.end(outstanding.attempt(), Race::on_failure), now);
    }

    /// Passes each attempt that waited in these slots to its race, and keeps the buffer for the next time.
    pub(super) fn for_races_of(
        &mut self,
        io: &mut I,
        mut taken: Vec<TakenSlot>,
        event: impl Fn(&mut ActiveRace<'_, I>, Outstanding),
        now: Instant,
    ) {
        for taken_by in taken.drain(..) {
            if let SlotState::InFlight(outstanding) = taken_by {
                self.with_race(io, outstanding.race, now, |race| event(race, outstanding));
            }
        }
        self.taken = taken;
    }
}

impl Pool {
    /// Counts an attempt that ended without a reply: its backend is unreachable or the query was not sent.
    pub(super) fn end_without_reply(
        &mut self,
        backend: BackendIndex,
        taken_by: &TakenSlot,
        end: AttemptEnd,
        now: Instant,
    ) {
        let is_charged = match taken_by {
            SlotState::InFlight(_) => {
                self.is_waited_for_no_more(backend);
                false
            }
            SlotState::Quarantined(late) => match late.is_charged {
                Some(is_charged) => is_charged,
                None => return,
            },
        };
        self.ended(backend, end, is_charged, now);
    }
}
