//! Asking again: the attempt is made once more, at the same backend but from another socket and with another ID, because what
//! came to the first one may be forged.
//!
//! The race does not see that: it is the same attempt, which goes on waiting. It is no failure of the backend either, which may
//! have said nothing at all.

use std::time::Instant;

use super::Engine;
use super::active_race::ActiveRace;
use super::attempt::Outstanding;
use super::io::{AskedFor, Client, Io, TcpQuery};
use super::pool::Pool;
use super::proof::Proof;
use crate::metrics::{Cause, Dropped};
use crate::policy::Rank;
use crate::policy::backend_load::End;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId};
use crate::policy::race::{BackendIndex, Retry};
use crate::state::backend_cookies::Urgency;
use crate::wire::{self, Reply};

impl<C: Client> Engine<C> {
    /// Counts a datagram from a backend's address that answers nothing that was asked from this socket. If there were too many,
    /// the socket is void, and what waited on it is asked again.
    ///
    /// RFC 5452 section 9.3 leaves open what comes of spoofing that is noticed. A forger who knows a port has so few guesses
    /// at an ID before that is in vain, and then has to find another port.
    pub(super) fn on_near_miss<I: Io<Client = C>>(&mut self, io: &mut I, socket: SocketId, now: Instant) {
        self.worker.counters.dropped(Dropped::Spoofed);
        if !io.is_suspicious(socket) {
            return;
        }
        let mut taken = std::mem::take(&mut self.taken);
        io.void(socket, now, &mut taken);
        for slot in taken.drain(..) {
            match slot {
                SlotState::InFlight(outstanding) => {
                    self.with_race(io, outstanding.race, now, |race| race.move_on(outstanding));
                }
                SlotState::Quarantined(late) => {
                    if let Some(pool) = self.pools.get_mut(late.pool).filter(|_| !late.is_silent) {
                        pool.ended(late.backend, End::Void, late.is_charged, now);
                    }
                }
            }
        }
        self.taken = taken;
    }
}

impl<I: Io> ActiveRace<'_, I> {
    /// A reply that is right in all else lacks some of what it must bear: it is ignored, and the backend is asked once more, to
    /// find out whether it is the one that does not give that.
    pub(super) fn doubt(&mut self, outstanding: Outstanding, slot: QuerySlot, lacking: Proof) {
        let cause = if lacking.has(Proof::COOKIE) { Cause::Cookie } else { Cause::Case };
        if self.ask_again(outstanding, Some(slot), Proof::LENIENT, cause) || self.entry.is_fetching {
            return;
        }
        let Some(asked) = self.entry.race.attempt(outstanding.attempt()) else { return };
        // The query has cost as many datagrams as it may: one by TCP is believed, and the next query finds out.
        self.pool.set_doubted(asked.backend);
        // If that may not be either, the wait goes on.
        if self.ask_by_tcp(outstanding, cause) {
            self.io.withdraw(slot);
            self.pool.lost(asked.backend, self.now);
            self.clear_slot(outstanding.attempt());
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
    ) {
        let (proof, now) = (outstanding.proof(), self.now);
        let is_proved = proof.has(Proof::COOKIE) && !lacking.has(Proof::COOKIE);
        let Some(asked) = self.entry.race.attempt(outstanding.attempt()) else { return };
        let sent = self.entry.sent_at(&asked, proof);
        if is_proved && !proof.has(Proof::FRESH) {
            self.pool.renew_cookies(asked.backend, reply, Urgency::AtOnce, now);
            if self.ask_again(outstanding, Some(slot), Proof::FRESH, Cause::Badcookie) {
                return;
            }
        } else if is_proved && self.pool.remember_cookies_lost(asked.backend, now) {
            let (pool, backend) = self.pool.labels(asked.backend);
            tracing::warn!(pool, backend, "refuses the DNS cookies that it gives: asked without for now");
        }
        self.settle(outstanding, slot, End::Reply(now.saturating_duration_since(sent)));
        if !self.ask_by_tcp(outstanding, Cause::Badcookie) {
            self.give_up(outstanding, false);
        }
    }

    /// An attempt has lost its socket. It is asked from others for a few times, which a forger has to find first; then by TCP. With a
    /// cookie as often as may be, for to find a port is not enough then.
    fn move_on(&mut self, outstanding: Outstanding) {
        self.clear_slot(outstanding.attempt());
        let proof = outstanding.proof();
        let has_cookie = proof.has(Proof::COOKIE) && !proof.has(Proof::LENIENT);
        let is_by_udp = has_cookie || self.entry.race.times_asked_again() < MAX_BY_UDP;
        if is_by_udp && self.ask_elsewhere(outstanding) {
            return;
        }
        if self.ask_by_tcp(outstanding, Cause::NearMisses) {
            if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
                // As far as it is known how busy the backend is, and how quick.
                self.pool.lost(asked.backend, self.now);
            }
            return;
        }
        if !is_by_udp && self.ask_elsewhere(outstanding) {
            return;
        }
        self.give_up(outstanding, true);
    }

    /// Asks once more by UDP where TCP could not be had; if that may not be either, the attempt has failed.
    pub(super) fn ask_elsewhere_or_fail(&mut self, outstanding: Outstanding) {
        if self.ask_elsewhere(outstanding) {
            if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
                self.pool.asked(asked.backend, self.now);
            }
            return;
        }
        self.give_up(outstanding, false);
    }

    /// Asks from another socket what must be proved as before.
    fn ask_elsewhere(&mut self, outstanding: Outstanding) -> bool {
        let proof = outstanding.proof().and(Proof::LENIENT.with(Proof::FRESH));
        self.ask_again(outstanding, None, proof, Cause::NearMisses)
    }

    /// Ends an attempt for which there is no safe way to its backend: that it could not be asked is not its fault.
    fn give_up(&mut self, outstanding: Outstanding, is_out: bool) {
        if self.entry.is_fetching {
            return;
        }
        let attempt = outstanding.attempt();
        if let Some(asked) = self.entry.race.attempt(attempt).filter(|_| is_out) {
            self.pool.lost(asked.backend, self.now);
        }
        self.entry.race.on_unsent(attempt, Retry::Never, self.pool.shared.budget());
        self.drive(None);
    }

    /// Asks the backend of an attempt again. Returns whether that could be done; if not, it waits on as it did. `slot`: where it
    /// waits, unless it has lost its socket.
    fn ask_again(&mut self, outstanding: Outstanding, slot: Option<QuerySlot>, proof: Proof, cause: Cause) -> bool {
        let attempt = outstanding.attempt();
        if self.entry.is_fetching {
            return false;
        }
        let Some(asked) = self.entry.race.attempt(attempt) else { return false };
        if !self.entry.race.ask_again(attempt) {
            return false;
        }
        if let Some(slot) = slot {
            self.io.shun(slot);
        }
        let proof = proof.with(Proof::AGAIN);
        if self.send(attempt, asked.backend, asked.edns, proof).is_err() {
            return false;
        }
        if let Some(slot) = slot {
            self.io.withdraw(slot);
        }
        self.entry.asked_again(self.now, self.spills);
        self.pool.counters(asked.backend).again[cause as usize].increment();
        true
    }

    /// Asks the backend of an attempt by TCP: where replies by UDP are being forged, or a backend refuses the cookie that it has
    /// given. Nobody can join a connection who does not see it, and it needs no cookie. Returns whether that may be.
    fn ask_by_tcp(&mut self, outstanding: Outstanding, cause: Cause) -> bool {
        let Self { entry, pool, worker, io, now, .. } = self;
        if entry.is_fetching {
            return false;
        }
        let Some(asked) = entry.race.attempt(outstanding.attempt()).filter(|asked| asked.open) else { return false };
        if pool.is_by_stream(asked.backend) {
            return false;
        }
        let edns = asked.edns && !pool.is_without_opt(asked.backend, *now);
        let mut message = Vec::new();
        let opt_at = entry.write_query(edns, &mut message);
        if entry.needs_authentic() {
            wire::ask_authentic(&mut message);
        }
        if edns && !entry.is_signed() && pool.adds_opt(asked.backend) {
            wire::add_opt(&mut message, opt_at, worker.state.edns_udp_size);
        }
        let query = TcpQuery {
            address: pool.backend(asked.backend).address.socket,
            message,
            question: entry.question().to_vec(),
            patience: pool.shared.rules().attempt_timeout,
            deadline: entry.race.deadline(),
        };
        let asked_for = if pool.wants_header(asked.backend) { entry.asked_for() } else { AskedFor::Untold };
        let may = io.ask_by_tcp(outstanding, query, asked_for);
        if may {
            pool.counters(asked.backend).again[cause as usize].increment();
        }
        may
    }
}

impl Pool {
    /// Learns from the reply to an attempt that was asked leniently what its backend does not give.
    pub(super) fn learn_lacking(&mut self, backend: BackendIndex, lacking: Proof, rank: Rank, now: Instant) {
        if lacking.has(Proof::CASE) && self.remember_case_lost(backend, now) {
            let (pool, backend) = self.labels(backend);
            tracing::warn!(pool, backend, "does not keep the case of names: asked without DNS 0x20 for now");
        }
        // A failure may lack what all else has: who cannot read a query does not read its cookie either. So a client that asks in
        // some odd way does not rid the others of their proof.
        if lacking.has(Proof::COOKIE) && rank > Rank::Failure && self.remember_cookies_lost(backend, now) {
            let (pool, backend) = self.labels(backend);
            tracing::warn!(pool, backend, "does not return DNS cookies any more: asked without for now");
        }
    }
}

/// How often attempts of one race are asked again by UDP before TCP is tried. A forger who finds every port at once has so many
/// times the guesses that a socket takes before it is void.
const MAX_BY_UDP: u8 = 2;
