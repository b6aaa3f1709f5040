//! Asking again: the attempt is made once more, at the same backend but from another socket and with another ID, because what
//! came to the first one may be forged.
//!
//! The race does not see that: it is the same attempt, which goes on waiting. It is no failure of the backend either, which may
//! have said nothing at all.

use std::time::Instant;

use super::pool::pool_at;
use super::proof::Proof;
use super::{Forwarder, Ticket};
use crate::metrics::Cause;
use crate::net::exchange::TicketKey;
use crate::policy::race::BackendIndex;

impl Forwarder {
    /// A reply that is right in all else lacks some of what it must bear: it is ignored, and the backend is asked once more, to
    /// find out whether it is the one that does not give that.
    pub(super) fn doubt(&mut self, ticket: Ticket, key: TicketKey, now: Instant) {
        // If that may not be, the wait goes on.
        self.ask_again(ticket, key, Proof::LENIENT, Cause::Case, now);
    }

    /// Asks the backend of an attempt again. Returns whether that could be done; if not, it waits on as it did.
    fn ask_again(&mut self, ticket: Ticket, key: TicketKey, proof: Proof, cause: Cause, now: Instant) -> bool {
        let (at, attempt) = (ticket.race, ticket.attempt());
        let Some(entry) = self.in_flight.get_mut(at).filter(|entry| !entry.is_fetching) else { return false };
        let place = entry.pool;
        let Some(asked) = entry.race.attempt(attempt) else { return false };
        if !entry.race.ask_again(attempt) {
            return false;
        }
        self.exchange.shun(key, &mut self.refused);
        let proof = proof.with(Proof::AGAIN);
        if self.send(at, attempt, asked.backend, asked.edns, proof, now).is_err() {
            return false;
        }
        self.exchange.withdraw(key);
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
