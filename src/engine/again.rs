//! Asking again: an attempt is repeated at the same backend from another socket with another ID, because the
//! first reply may be forged.
//!
//! For the race it remains the same attempt. A suspect reply changes neither the latency nor the error share
//! of the backend, because the backend may not have sent it.

use super::Tick;
use super::active_race::ActiveRace;
use super::attempt::Outstanding;
use super::io::{AskedFor, Io, TcpQuery};
use super::proof::ReplyProof;
use crate::metrics::{Cause, DropReason};
use crate::policy::backend_load::AttemptEnd;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId};
use crate::policy::race::Retry;
use crate::state::backend_cookies::Urgency;
use crate::wire::{self, Reply};

impl<I: Io> Tick<'_, I> {
    /// Counts a datagram from a backend's address that answers no query of this socket. After too many of
    /// them the socket is void and its attempts are asked again (RFC 5452 section 9.3 leaves that open).
    pub(super) fn on_near_miss(&mut self, socket: SocketId) {
        self.engine.worker.counters.dropped(DropReason::Spoofed);
        if !self.io.is_suspicious(socket) {
            return;
        }
        let mut taken = std::mem::take(&mut self.engine.taken);
        self.io.void(socket, self.now, &mut taken);
        for slot in &taken {
            if let SlotState::Quarantined(late) = slot
                && let Some((pool, is_charged)) = self.engine.pools.get_mut(late.pool).zip(late.is_charged)
            {
                pool.ended(late.backend, AttemptEnd::Void, is_charged, self.now);
            }
        }
        self.for_races_of(taken, |race, outstanding| race.move_on(outstanding));
    }
}

impl<I: Io> ActiveRace<'_, I> {
    /// Ignores a correct reply that lacks part of its proof, and asks the backend once more.
    pub(super) fn doubt(&mut self, outstanding: Outstanding, slot: QuerySlot, lacking: ReplyProof) {
        let cause = if lacking.has(ReplyProof::COOKIE) { Cause::Cookie } else { Cause::Case };
        if self.ask_again(outstanding, Some(slot), ReplyProof::LENIENT, cause) || self.entry.is_fetching {
            return;
        }
        let Some(asked) = self.entry.race.attempt(outstanding.attempt()) else { return };
        // The attempt has used its share of datagrams: accept its reply by TCP.
        self.pool.set_doubted(asked.backend);
        if self.ask_by_tcp(outstanding, cause) {
            self.io.withdraw(slot);
            self.pool.lost(asked.backend, self.now);
            self.clear_slot(outstanding.attempt());
        }
    }

    /// Handles BADCOOKIE. If the reply proves its origin, the worker asks once more at once with the cookie
    /// that came with it, and after a second refusal by TCP (RFC 7873 section 5.3).
    pub(super) fn on_badcookie(
        &mut self,
        outstanding: Outstanding,
        slot: QuerySlot,
        lacking: ReplyProof,
        reply: &Reply<'_>,
    ) {
        let (proof, now) = (outstanding.proof(), self.now);
        let is_proved = proof.has(ReplyProof::COOKIE) && !lacking.has(ReplyProof::COOKIE);
        let Some(asked) = self.entry.race.attempt(outstanding.attempt()) else { return };
        let sent = self.entry.sent_at(&asked, proof);
        if is_proved && !proof.has(ReplyProof::FRESH) {
            self.pool.renew_cookies(asked.backend, reply, Urgency::AtOnce, now);
            if self.ask_again(outstanding, Some(slot), ReplyProof::FRESH, Cause::Badcookie) {
                return;
            }
        } else if is_proved && self.pool.remember_cookies_lost(asked.backend, now) {
            let (pool, backend) = self.pool.labels(asked.backend);
            tracing::warn!(
                pool,
                backend,
                "the backend rejects its own DNS cookies: queries go without cookies for now"
            );
        }
        self.settle(outstanding, slot, AttemptEnd::Reply(now.saturating_duration_since(sent)));
        if !self.ask_by_tcp(outstanding, Cause::Badcookie) {
            self.give_up(outstanding, false);
        }
    }

    /// Asks an attempt again after its socket was lost: a few times from other sockets, which an attacker
    /// must find first, then by TCP. With a cookie it keeps to UDP as long as it may, because finding a port
    /// is not enough then.
    fn move_on(&mut self, outstanding: Outstanding) {
        self.clear_slot(outstanding.attempt());
        let proof = outstanding.proof();
        let has_cookie = proof.has(ReplyProof::COOKIE) && !proof.has(ReplyProof::LENIENT);
        let is_by_udp = has_cookie || self.entry.race.times_asked_again() < MAX_BY_UDP;
        if is_by_udp && self.ask_elsewhere(outstanding) {
            return;
        }
        if self.ask_by_tcp(outstanding, Cause::NearMisses) {
            if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
                self.pool.lost(asked.backend, self.now);
            }
            return;
        }
        if !is_by_udp && self.ask_elsewhere(outstanding) {
            return;
        }
        self.give_up(outstanding, true);
    }

    /// Asks once more by UDP if TCP failed. If that is not allowed either, the attempt fails.
    pub(super) fn ask_elsewhere_or_fail(&mut self, outstanding: Outstanding) {
        if self.ask_elsewhere(outstanding) {
            if let Some(asked) = self.entry.race.attempt(outstanding.attempt()) {
                self.pool.asked(asked.backend, self.now);
            }
            return;
        }
        self.give_up(outstanding, false);
    }

    fn ask_elsewhere(&mut self, outstanding: Outstanding) -> bool {
        let proof = outstanding.proof().and(ReplyProof::LENIENT.with(ReplyProof::FRESH));
        self.ask_again(outstanding, None, proof, Cause::NearMisses)
    }

    fn give_up(&mut self, outstanding: Outstanding, is_out: bool) {
        if self.entry.is_fetching {
            return;
        }
        let attempt = outstanding.attempt();
        if let Some(asked) = self.entry.race.attempt(attempt).filter(|_| is_out) {
            self.pool.lost(asked.backend, self.now);
        }
        self.entry.race.on_unsent(attempt, Retry::Never, self.pool.plan.shared.budget());
        self.drive(None);
    }

    /// Asks the backend of an attempt again. Returns false if that was not possible; the attempt then waits
    /// on.
    fn ask_again(
        &mut self,
        outstanding: Outstanding,
        slot: Option<QuerySlot>,
        proof: ReplyProof,
        cause: Cause,
    ) -> bool {
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
        let proof = proof.with(ReplyProof::AGAIN);
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

    /// Asks the backend of an attempt by TCP, after forged replies by UDP or a refused cookie. An attacker
    /// cannot join a connection that it does not see, so TCP needs no cookie.
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
            patience: pool.plan.shared.rules().attempt_timeout,
            deadline: entry.race.deadline(),
        };
        let asked_for = if pool.wants_header(asked.backend) { entry.asked_for() } else { AskedFor::Hidden };
        let may = io.ask_by_tcp(outstanding, query, asked_for);
        if may {
            pool.counters(asked.backend).again[cause as usize].increment();
        }
        may
    }
}

/// The number of times that one race repeats attempts by UDP before it uses TCP. This limits an attacker that
/// finds every port at once to so many times the guesses that void a socket.
const MAX_BY_UDP: u8 = 2;
