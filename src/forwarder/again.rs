//! Asking again: the attempt is made once more, at the same backend but from another socket and with another ID, because what
//! came to the first one may be forged.
//!
//! The race does not see that: it is the same attempt, which goes on waiting. It is no failure of the backend either, which may
//! have said nothing at all.

use std::time::Instant;

use super::pool::pool_at;
use super::proof::Proof;
use super::{Forwarder, Ticket};
use crate::metrics::{Cause, Dropped};
use crate::net::exchange::{Held, TicketKey};
use crate::policy::load::End;
use crate::policy::race::{BackendIndex, Retry};

impl Forwarder {
    /// A reply that is right in all else lacks some of what it must bear: it is ignored, and the backend is asked once more, to
    /// find out whether it is the one that does not give that.
    pub(super) fn doubt(&mut self, ticket: Ticket, key: TicketKey, now: Instant) {
        // If that may not be, the wait goes on.
        self.ask_again(ticket, Some(key), Proof::LENIENT, Cause::Case, now);
    }

    /// Counts a datagram from a backend's address that answers nothing that was asked from this socket. If there were too many,
    /// the socket is void, and what waited on it is asked again.
    ///
    /// RFC 5452 section 9.3 leaves open what comes of spoofing that is noticed. A forger who knows a port has so few guesses
    /// at an ID before that is in vain, and then has to find another port.
    pub(super) fn near_miss(&mut self, socket: u32, now: Instant) {
        self.counters.dropped(Dropped::Spoofed);
        if !self.exchange.is_suspicious(socket) {
            return;
        }
        let mut voided = std::mem::take(&mut self.voided);
        self.exchange.flush(&mut self.refused);
        self.exchange.void(socket, now, &mut voided);
        for held in voided.drain(..) {
            match held {
                Held::Waiting(ticket) => self.move_on(ticket, now),
                Held::Late(late) => {
                    if let Some(pool) = self.pools.get_mut(usize::from(late.pool)).and_then(Option::as_mut) {
                        pool.ended(late.backend, End::Void, late.is_charged, now);
                    }
                }
            }
        }
        self.voided = voided;
    }

    /// An attempt has lost its socket. It is asked from others for a few times, which a forger has to find first; then by TCP.
    fn move_on(&mut self, ticket: Ticket, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(ticket.race) else { return };
        entry.set_ticket(ticket.attempt(), None);
        let is_by_udp = entry.race.times_asked_again() < MOST_BY_UDP;
        if is_by_udp && self.ask_elsewhere(ticket, now) {
            return;
        }
        let backend = self.in_flight.get(ticket.race).and_then(|entry| entry.race.attempt(ticket.attempt()));
        if self.ask_by_tcp(ticket, now) {
            let Some(entry) = self.in_flight.get(ticket.race) else { return };
            if let Some(asked) = backend {
                // As far as it is known how busy the backend is, and how quick.
                pool_at(&mut self.pools, entry.pool).lost(asked.backend, now);
            }
            return;
        }
        if !is_by_udp && self.ask_elsewhere(ticket, now) {
            return;
        }
        self.give_up(ticket, true, now);
    }

    /// Asks once more by UDP where TCP could not be had; if that may not be either, the attempt has failed.
    pub(super) fn ask_elsewhere_or_fail(&mut self, ticket: Ticket, now: Instant) {
        if self.ask_elsewhere(ticket, now) {
            let Some(entry) = self.in_flight.get(ticket.race) else { return };
            if let Some(asked) = entry.race.attempt(ticket.attempt()) {
                pool_at(&mut self.pools, entry.pool).asked(asked.backend, now);
            }
            return;
        }
        self.give_up(ticket, false, now);
    }

    /// Asks from another socket what must be proved as before.
    fn ask_elsewhere(&mut self, ticket: Ticket, now: Instant) -> bool {
        self.ask_again(ticket, None, ticket.proof().and(Proof::LENIENT), Cause::NearMisses, now)
    }

    /// Ends an attempt for which there is no safe way to its backend: that it could not be asked is not its fault.
    fn give_up(&mut self, ticket: Ticket, is_out: bool, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(ticket.race).filter(|entry| !entry.is_fetching) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        if let Some(asked) = entry.race.attempt(ticket.attempt()).filter(|_| is_out) {
            pool.lost(asked.backend, now);
        }
        entry.race.on_unsent(ticket.attempt(), Retry::Never, pool.shared.budget());
        self.drive(ticket.race, None, now);
    }

    /// Asks the backend of an attempt again. Returns whether that could be done; if not, it waits on as it did. `key`: where it
    /// waits, unless it has lost its socket.
    fn ask_again(&mut self, ticket: Ticket, key: Option<TicketKey>, proof: Proof, cause: Cause, now: Instant) -> bool {
        let (at, attempt) = (ticket.race, ticket.attempt());
        let Some(entry) = self.in_flight.get_mut(at).filter(|entry| !entry.is_fetching) else { return false };
        let place = entry.pool;
        let Some(asked) = entry.race.attempt(attempt) else { return false };
        if !entry.race.ask_again(attempt) {
            return false;
        }
        if let Some(key) = key {
            self.exchange.shun(key, &mut self.refused);
        }
        let proof = proof.with(Proof::AGAIN);
        if self.send(at, attempt, asked.backend, asked.edns, proof, now).is_err() {
            return false;
        }
        if let Some(key) = key {
            self.exchange.withdraw(key);
        }
        if let Some(entry) = self.in_flight.with_aside(at) {
            entry.asked_again(now);
        }
        pool_at(&mut self.pools, place).counters(asked.backend).again[cause as usize].increment();
        true
    }

    /// Learns from the reply to an attempt that was asked leniently what its backend does not give.
    pub(super) fn learn_lacking(&mut self, place: u16, backend: BackendIndex, lacking: Proof, now: Instant) {
        let pool = pool_at(&mut self.pools, place);
        if lacking.has(Proof::CASE) && pool.remember_case_lost(backend, now) {
            let (pool, backend) = (&pool.shared.config.name, &pool.shared.backends[backend.get()].name);
            tracing::warn!(pool, backend, "does not keep the case of names: asked without DNS 0x20 for now");
        }
    }
}

/// How often attempts of one race are asked again by UDP before TCP is tried. A forger who finds every port at once has so many
/// times [`MOST_NEAR_MISSES`](crate::net::exchange::MOST_NEAR_MISSES) guesses.
const MOST_BY_UDP: u8 = 2;
