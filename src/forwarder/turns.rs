//! Turns: the worker is woken, hears what the backends have said, looks at the races whose time has come, and at the end
//! sends everything that was queued.

use std::time::Instant;

use super::pool::{Pool, pool_at};
use super::{Forwarder, Outstanding, Quarantined, tell};
use crate::net::backend_sockets::{Event, RecvError, Refused, SlotState, SocketSetId};
use crate::net::batch::RecvBatch;
use crate::net::refusal::Refusal;
use crate::policy::backend_load::End;
use crate::policy::health::HealthState;
use crate::policy::race::BackendIndex;
use crate::state::HealthSignal;

impl Forwarder {
    /// Takes what the backend sockets have: replies, ICMP errors, the alarm.
    pub fn hear_backends(&mut self, events: &mut Vec<Event>, batch: &mut RecvBatch, now: Instant) -> bool {
        let has_more = self.backend_sockets.ready(events);
        events.extend(self.unread.drain(..).map(Event::Socket));
        let mut is_time = false;
        for event in events.drain(..) {
            match event {
                Event::Alarm => is_time = true,
                Event::Socket(socket) => self.drain_socket(socket, batch, now),
            }
        }
        // Last, or a hedge would be paid for an attempt whose reply is here already.
        if is_time {
            self.on_time(now);
        }
        self.end_turn(now);
        has_more || !self.unread.is_empty()
    }

    /// Reads a backend socket until it is empty, or until others have waited long enough: it is not reported again, so it is
    /// remembered for the next turn.
    fn drain_socket(&mut self, socket: u32, batch: &mut RecvBatch, now: Instant) {
        for _ in 0..BATCHES_A_TURN {
            match self.backend_sockets.recv(socket, batch) {
                Ok(_) => {
                    batch.each_chunk(|chunk| self.hear_batch(socket, chunk, now));
                    if !batch.is_full() {
                        return;
                    }
                }
                Err(RecvError::Unreachable) => self.on_unreachable(socket, now),
                Err(RecvError::Other) => {}
            }
        }
        self.unread.push(socket);
    }

    /// Looks at the races whose time has come.
    fn on_time(&mut self, now: Instant) {
        while let Some((at_time, at)) = self.timers.pop_due(now) {
            let Some(entry) = self.in_flight.get_mut(at) else { continue };
            if entry.armed() == Some(at_time) {
                entry.disarm();
                self.drive(at, None, now);
            }
        }
        self.refresh_pools(now);
    }

    /// Looks at the state of all backends.
    pub fn refresh_all(&mut self, now: Instant) {
        self.refresh_pools(now);
        self.end_turn(now);
    }

    /// Adapts all pools.
    fn refresh_pools(&mut self, now: Instant) {
        for place in 0..self.pools.len() as u16 {
            self.refresh(place, now);
        }
    }

    /// ICMP says that what was sent from a socket has met nobody. That may be forged, for it takes no ID: the races of those
    /// attempts move on, and a probe is to find out at once. If probes have found the backend down, the attempts have failed.
    fn on_unreachable(&mut self, socket: u32, now: Instant) {
        let Some(socket_set) = self.backend_sockets.set_of(socket) else { return };
        let Some((place, index)) = self.owner(socket_set) else { return };
        let pool = pool_at(&mut self.pools, place);
        pool.counters(index).unreachable.increment();
        let backend = &pool.shared.backends[index.get()];
        if backend.health() != HealthState::Up {
            // If this worker did not know that, all that was asked of it has failed.
            self.refresh(place, now);
            let mut orphans = std::mem::take(&mut self.orphans);
            self.backend_sockets.take_struck(socket, &mut orphans);
            return self.fail_orphans(orphans, socket_set, now);
        }
        tell(&self.shared, backend, HealthSignal::Unreachable);
        let mut struck = std::mem::take(&mut self.struck);
        self.backend_sockets.tell_struck(socket, &mut struck);
        for outstanding in struck.drain(..) {
            let Some(entry) = self.in_flight.get_mut(outstanding.race).filter(|entry| !entry.is_fetching) else {
                continue;
            };
            entry.race.on_unreachable(outstanding.attempt());
            self.drive(outstanding.race, None, now);
        }
        self.struck = struck;
    }

    /// Adapts to changes of the backends' state. What waits for one that went down will not be answered.
    pub(super) fn refresh(&mut self, place: u16, now: Instant) {
        let Some(pool) = self.pools.get_mut(usize::from(place)).and_then(Option::as_mut) else { return };
        let mut dead = Vec::new();
        pool.refresh(now, |backend| dead.push(backend));
        let socket_sets: Vec<_> = dead.into_iter().map(|backend| pool.socket_set(backend)).collect();
        socket_sets.into_iter().for_each(|socket_set| self.fail_all(socket_set, now));
    }

    /// The pool that a set of sockets serves, as its place, and which backend they lead to.
    fn owner(&self, socket_set: SocketSetId) -> Option<(u16, BackendIndex)> {
        let pools = (0..).zip(&self.pools);
        pools.into_iter().find_map(|(place, pool)| Some((place, pool.as_ref()?.backend(socket_set)?)))
    }

    /// Fails all attempts that wait for a backend.
    fn fail_all(&mut self, socket_set: SocketSetId, now: Instant) {
        let mut orphans = std::mem::take(&mut self.orphans);
        self.backend_sockets.take_waiting(socket_set, &mut orphans);
        self.fail_orphans(orphans, socket_set, now);
    }

    /// Fails attempts that were taken back.
    fn fail_orphans(
        &mut self,
        mut orphans: Vec<SlotState<Outstanding, Quarantined>>,
        socket_set: SocketSetId,
        now: Instant,
    ) {
        for orphan in &orphans {
            self.end_without_reply(orphan, socket_set, End::Unreachable, now);
        }
        for orphan in orphans.drain(..) {
            match orphan {
                SlotState::InFlight(outstanding) => self.fail(outstanding, now),
                SlotState::Quarantined(_) => {}
            }
        }
        self.orphans = orphans;
    }

    /// The system has no way to a backend: a probe is to find out at once whether that lasts.
    fn on_no_way(&mut self, socket_set: SocketSetId) {
        let Some((place, index)) = self.owner(socket_set) else { return };
        let backend = &pool_at(&mut self.pools, place).shared.backends[index.get()];
        tell(&self.shared, backend, HealthSignal::Unreachable);
    }

    /// Notes that an attempt ended without a reply: there is no way to its backend, or it never left.
    fn end_without_reply(
        &mut self,
        state: &SlotState<Outstanding, Quarantined>,
        socket_set: SocketSetId,
        end: End,
        now: Instant,
    ) {
        let is_charged = match state {
            SlotState::InFlight(_) => false,
            SlotState::Quarantined(quarantined) => quarantined.is_charged,
        };
        if let Some((place, backend)) = self.owner(socket_set) {
            let pool = pool_at(&mut self.pools, place);
            if matches!(state, SlotState::InFlight(_)) {
                pool.is_waited_for_no_more(backend);
            }
            pool.ended(backend, end, is_charged, now);
        }
    }

    /// A message could not be sent.
    fn take_refused(&mut self, refused: Refused<Outstanding, Quarantined>, now: Instant) {
        let Refused { state, socket_set, why } = refused;
        let end = match why {
            Refusal::Unreachable => End::Unreachable,
            Refusal::Unsent(_) => End::Unsent,
        };
        self.end_without_reply(&state, socket_set, end, now);
        if why == Refusal::Unreachable {
            self.on_no_way(socket_set);
        }
        match (state, why) {
            (SlotState::InFlight(outstanding), Refusal::Unreachable) => self.fail(outstanding, now),
            (SlotState::InFlight(outstanding), Refusal::Unsent(want)) => {
                if let Some(entry) = self.in_flight.get_mut(outstanding.race) {
                    entry.set_query_slot(outstanding.attempt(), None);
                }
                self.on_unsent(outstanding.race, outstanding.attempt(), want, now);
                self.drive(outstanding.race, None, now);
            }
            (SlotState::Quarantined(_), _) => {}
        }
    }

    /// Fails one attempt.
    fn fail(&mut self, outstanding: Outstanding, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(outstanding.race).filter(|entry| !entry.is_fetching) else { return };
        entry.set_query_slot(outstanding.attempt(), None);
        entry.race.on_failure(outstanding.attempt());
        self.drive(outstanding.race, None, now);
    }

    /// Ends a turn: everything that was queued leaves, and the alarm is set for what is next.
    pub(super) fn end_turn(&mut self, now: Instant) {
        loop {
            self.backend_sockets.flush(&mut self.refused);
            if let Some(socket) = self.backend_sockets.pop_struck() {
                self.on_unreachable(socket, now);
                continue;
            }
            let Some(refused) = self.refused.pop() else { break };
            self.take_refused(refused, now);
        }
        // Only now: until here something that was refused or orphaned may still have to be counted for such a pool.
        if self.pools.len() > self.pool_places.len() {
            self.remove_unused_pools();
        }
        self.way.flush(&self.counters, now);
        let pools = &mut self.pools;
        self.backend_sockets.tidy(now, |quarantined| {
            if let Some(pool) = pools.get_mut(usize::from(quarantined.pool)).and_then(Option::as_mut) {
                let end = End::Silence(now.saturating_duration_since(quarantined.sent));
                pool.ended(quarantined.backend, end, quarantined.is_charged, now);
            }
        });
        self.timers.discard(|at_time, at| self.in_flight.get(*at).is_none_or(|entry| entry.armed() != Some(at_time)));
        let next = [self.timers.peek(), self.backend_sockets.next_tidy(), self.way.paced.next_due()]
            .into_iter()
            .flatten()
            .min();
        if let Some(next) = next {
            self.backend_sockets.wake_at(next, now);
        }
        debug_assert!(
            self.in_flight.len() > 0 || self.pools.iter().flatten().all(Pool::is_not_waited_for),
            "what is waited for belongs to a race"
        );
        if self.is_idle() {
            self.idle.notify_waiters();
        }
    }
}

/// Batches that are read from one backend socket in a turn: some 500 replies, or half a millisecond.
const BATCHES_A_TURN: usize = 8;
