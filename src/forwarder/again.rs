//! Asking again: the attempt is made once more, at the same backend but from another socket and with another ID, because what
//! came to the first one may be forged.
//!
//! The race does not see that: it is the same attempt, which goes on waiting. It is no failure of the backend either, which may
//! have said nothing at all.

use std::time::Instant;

use super::pool::pool_at;
use super::proof::Proof;
use super::{Forwarder, Outstanding};
use crate::metrics::{Cause, Dropped};
use crate::net::backend_sockets::{QuerySlot, SlotState};
use crate::policy::Rank;
use crate::policy::backend_load::End;
use crate::policy::race::{BackendIndex, Retry};
use crate::state::backend_cookies::Urgency;
use crate::wire::Reply;

impl Forwarder {
    /// A reply that is right in all else lacks some of what it must bear: it is ignored, and the backend is asked once more, to
    /// find out whether it is the one that does not give that.
    pub(super) fn doubt(&mut self, outstanding: Outstanding, slot: QuerySlot, lacking: Proof, now: Instant) {
        let cause = if lacking.has(Proof::COOKIE) { Cause::Cookie } else { Cause::Case };
        if self.ask_again(outstanding, Some(slot), Proof::LENIENT, cause, now) {
            return;
        }
        let Some(entry) = self.in_flight.get(outstanding.race).filter(|entry| !entry.is_fetching) else { return };
        let (place, asked) = (entry.pool, entry.race.attempt(outstanding.attempt()));
        let Some(backend) = asked.map(|asked| asked.backend) else { return };
        // The query has cost as many datagrams as it may: one by TCP is believed, and the next query finds out.
        pool_at(&mut self.pools, place).set_doubted(backend);
        // If that may not be either, the wait goes on.
        if self.ask_by_tcp(outstanding, cause, now) {
            self.backend_sockets.withdraw(slot);
            pool_at(&mut self.pools, place).lost(backend, now);
            if let Some(entry) = self.in_flight.get_mut(outstanding.race) {
                entry.set_query_slot(outstanding.attempt(), None);
            }
        }
    }

    /// A backend says that the cookie which it had given is not good. If the reply proves that it is from there, it is asked once
    /// more at once, with the cookie that came with it; if that is not good either, by TCP (RFC 7873 section 5.3). No race is told.
    pub(super) fn on_badcookie(
        &mut self,
        outstanding: Outstanding,
        slot: QuerySlot,
        lacking: Proof,
        reply: &Reply<'_>,
        now: Instant,
    ) {
        let proof = outstanding.proof();
        let is_proved = proof.has(Proof::COOKIE) && !lacking.has(Proof::COOKIE);
        let Some(entry) = self.in_flight.get(outstanding.race) else { return };
        let Some(asked) = entry.race.attempt(outstanding.attempt()) else { return };
        let (place, sent) = (entry.pool, entry.sent_at(&asked, proof));
        let pool = pool_at(&mut self.pools, place);
        if is_proved && !proof.has(Proof::FRESH) {
            pool.renew_cookies(asked.backend, reply, Urgency::AtOnce, now);
            if self.ask_again(outstanding, Some(slot), Proof::FRESH, Cause::Badcookie, now) {
                return;
            }
        } else if is_proved && pool.remember_cookies_lost(asked.backend, now) {
            let (pool, backend) = (&pool.shared.config.name, &pool.shared.backends[asked.backend.get()].name);
            tracing::warn!(pool, backend, "refuses the DNS cookies that it gives: asked without for now");
        }
        self.backend_sockets.release(slot, now);
        if let Some(entry) = self.in_flight.get_mut(outstanding.race) {
            entry.set_query_slot(outstanding.attempt(), None);
        }
        pool_at(&mut self.pools, place).is_waited_for_no_more(asked.backend);
        self.learn(place, asked.backend, false, End::Reply(now.saturating_duration_since(sent)), now);
        if !self.ask_by_tcp(outstanding, Cause::Badcookie, now) {
            self.give_up(outstanding, false, now);
        }
    }

    /// Counts a datagram from a backend's address that answers nothing that was asked from this socket. If there were too many,
    /// the socket is void, and what waited on it is asked again.
    ///
    /// RFC 5452 section 9.3 leaves open what comes of spoofing that is noticed. A forger who knows a port has so few guesses
    /// at an ID before that is in vain, and then has to find another port.
    pub(super) fn near_miss(&mut self, socket: u32, now: Instant) {
        self.counters.dropped(Dropped::Spoofed);
        if !self.backend_sockets.is_suspicious(socket) {
            return;
        }
        let mut voided = std::mem::take(&mut self.voided);
        self.backend_sockets.flush(&mut self.refused);
        self.backend_sockets.void(socket, now, &mut voided);
        for state in voided.drain(..) {
            match state {
                SlotState::InFlight(outstanding) => self.move_on(outstanding, now),
                SlotState::Quarantined(quarantined) => {
                    if let Some(pool) = self.pools.get_mut(usize::from(quarantined.pool)).and_then(Option::as_mut) {
                        pool.ended(quarantined.backend, End::Void, quarantined.is_charged, now);
                    }
                }
            }
        }
        self.voided = voided;
    }

    /// An attempt has lost its socket. It is asked from others for a few times, which a forger has to find first; then by TCP. With a
    /// cookie as often as may be, for to find a port is not enough then.
    fn move_on(&mut self, outstanding: Outstanding, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(outstanding.race) else { return };
        entry.set_query_slot(outstanding.attempt(), None);
        let has_cookie = outstanding.proof().has(Proof::COOKIE) && !outstanding.proof().has(Proof::LENIENT);
        let is_by_udp = has_cookie || entry.race.times_asked_again() < MAX_BY_UDP;
        if is_by_udp && self.ask_elsewhere(outstanding, now) {
            return;
        }
        let backend = self.in_flight.get(outstanding.race).and_then(|entry| entry.race.attempt(outstanding.attempt()));
        if self.ask_by_tcp(outstanding, Cause::NearMisses, now) {
            let Some(entry) = self.in_flight.get(outstanding.race) else { return };
            if let Some(asked) = backend {
                // As far as it is known how busy the backend is, and how quick.
                pool_at(&mut self.pools, entry.pool).lost(asked.backend, now);
            }
            return;
        }
        if !is_by_udp && self.ask_elsewhere(outstanding, now) {
            return;
        }
        self.give_up(outstanding, true, now);
    }

    /// Asks once more by UDP where TCP could not be had; if that may not be either, the attempt has failed.
    pub(super) fn ask_elsewhere_or_fail(&mut self, outstanding: Outstanding, now: Instant) {
        if self.ask_elsewhere(outstanding, now) {
            let Some(entry) = self.in_flight.get(outstanding.race) else { return };
            if let Some(asked) = entry.race.attempt(outstanding.attempt()) {
                pool_at(&mut self.pools, entry.pool).asked(asked.backend, now);
            }
            return;
        }
        self.give_up(outstanding, false, now);
    }

    /// Asks from another socket what must be proved as before.
    fn ask_elsewhere(&mut self, outstanding: Outstanding, now: Instant) -> bool {
        let proof = outstanding.proof().and(Proof::LENIENT.with(Proof::FRESH));
        self.ask_again(outstanding, None, proof, Cause::NearMisses, now)
    }

    /// Ends an attempt for which there is no safe way to its backend: that it could not be asked is not its fault.
    fn give_up(&mut self, outstanding: Outstanding, is_out: bool, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(outstanding.race).filter(|entry| !entry.is_fetching) else { return };
        let pool = pool_at(&mut self.pools, entry.pool);
        if let Some(asked) = entry.race.attempt(outstanding.attempt()).filter(|_| is_out) {
            pool.lost(asked.backend, now);
        }
        entry.race.on_unsent(outstanding.attempt(), Retry::Never, pool.shared.budget());
        self.drive(outstanding.race, None, now);
    }

    /// Asks the backend of an attempt again. Returns whether that could be done; if not, it waits on as it did. `key`: where it
    /// waits, unless it has lost its socket.
    fn ask_again(
        &mut self,
        outstanding: Outstanding,
        slot: Option<QuerySlot>,
        proof: Proof,
        cause: Cause,
        now: Instant,
    ) -> bool {
        let (at, attempt) = (outstanding.race, outstanding.attempt());
        let Some(entry) = self.in_flight.get_mut(at).filter(|entry| !entry.is_fetching) else { return false };
        let place = entry.pool;
        let Some(asked) = entry.race.attempt(attempt) else { return false };
        if !entry.race.ask_again(attempt) {
            return false;
        }
        if let Some(slot) = slot {
            self.backend_sockets.shun(slot, &mut self.refused);
        }
        let proof = proof.with(Proof::AGAIN);
        if self.send(at, attempt, asked.backend, asked.edns, proof, now).is_err() {
            return false;
        }
        if let Some(slot) = slot {
            self.backend_sockets.withdraw(slot);
        }
        if let Some(entry) = self.in_flight.with_aside(at) {
            entry.asked_again(now);
        }
        pool_at(&mut self.pools, place).counters(asked.backend).again[cause as usize].increment();
        true
    }

    /// Learns from the reply to an attempt that was asked leniently what its backend does not give.
    pub(super) fn learn_lacking(
        &mut self,
        place: u16,
        backend: BackendIndex,
        lacking: Proof,
        rank: Rank,
        now: Instant,
    ) {
        let pool = pool_at(&mut self.pools, place);
        if lacking.has(Proof::CASE) && pool.remember_case_lost(backend, now) {
            let (pool, backend) = (&pool.shared.config.name, &pool.shared.backends[backend.get()].name);
            tracing::warn!(pool, backend, "does not keep the case of names: asked without DNS 0x20 for now");
        }
        let pool = pool_at(&mut self.pools, place);
        // A failure may lack what all else has: who cannot read a query does not read its cookie either. So a client that asks in
        // some odd way does not rid the others of their proof.
        if lacking.has(Proof::COOKIE) && rank > Rank::Failure && pool.remember_cookies_lost(backend, now) {
            let (pool, backend) = (&pool.shared.config.name, &pool.shared.backends[backend.get()].name);
            tracing::warn!(pool, backend, "does not return DNS cookies any more: asked without for now");
        }
    }
}

/// How often attempts of one race are asked again by UDP before TCP is tried. A forger who finds every port at once has so many
/// times [`MAX_NEAR_MISSES`](crate::net::backend_sockets::MAX_NEAR_MISSES) guesses.
const MAX_BY_UDP: u8 = 2;
