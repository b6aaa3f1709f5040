//! Responding: one response to each client that waits, in its own form, queued for the end of the turn.

use std::rc::Rc;
use std::time::Instant;

use tokio::net::UdpSocket;

use super::Forwarder;
use super::claims::WorkerId;
use super::in_flight::{Client, RaceRef, Waiter};
use super::pool::{Pool, pool_at};
use crate::metrics::{Counters, Dropped, PoolCounters, Source, Transport};
use crate::net::batch::SendBatch;
use crate::policy::race::AttemptId;
use crate::wire::{self, ClientForm, ExtendedError, Rcode, Reply};

/// A UDP socket to clients, with the responses that wait to leave.
pub(super) struct Listener {
    /// The socket; `serve` reads it.
    pub(super) socket: Rc<UdpSocket>,
    /// Responses of this turn.
    pub(super) responses: SendBatch,
}

impl Listener {
    /// Sends what waits. Not by way of the runtime: responses do not wait for a socket to become writable.
    pub(super) fn flush(&mut self, counters: &Counters) {
        self.responses.flush(&*self.socket, |_, _| counters.dropped(Dropped::Unsent));
    }
}

impl Forwarder {
    /// Gives the winning reply to all who wait. A TC reply is all that a UDP client needs, for it comes back; whoever came
    /// by TCP gets the whole answer, fetched by TCP.
    pub(super) fn respond_with(&mut self, at: RaceRef, winner: AttemptId, reply: &Reply<'_>, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let clock = Clock::of(pool_at(&mut self.pools, entry.pool), self.me, now);
        let is_truncated = reply.is_truncated();
        let mut waiters = std::mem::take(&mut entry.waiters);
        waiters.retain(|waiter| {
            let needs_more = is_truncated && waiter.client.transport() == Transport::Tcp;
            if !needs_more {
                relay(&mut self.listeners, &self.counters, self.plan.edns_udp_size, clock, waiter, reply);
            }
            needs_more
        });
        let must_fetch = !waiters.is_empty();
        entry.waiters = waiters;
        if must_fetch {
            entry.is_fetching = true;
            // For clients by UDP that ask meanwhile.
            entry.kept.clear();
            entry.kept.extend_from_slice(reply.as_wire());
            self.fetch(at, winner, now);
        }
    }

    /// Gives a whole answer that was fetched to all who wait.
    pub(super) fn respond_whole(&mut self, at: RaceRef, reply: &Reply<'_>, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(pool_at(&mut self.pools, entry.pool), self.me, now);
        for waiter in &entry.waiters {
            relay(&mut self.listeners, &self.counters, self.plan.edns_udp_size, clock, waiter, reply);
        }
    }

    /// Gives the TC reply to a client by UDP that asks while the whole answer is being fetched: it need not wait for what it
    /// could not take, nor depend on whether that can be had.
    pub(super) fn respond_meanwhile(&mut self, at: RaceRef, waiter: &Waiter, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(pool_at(&mut self.pools, entry.pool), self.me, now);
        if let Ok(reply) = wire::read_reply(&entry.kept) {
            relay(&mut self.listeners, &self.counters, self.plan.edns_udp_size, clock, waiter, &reply);
        }
    }

    /// Gives a response without records to all who wait; `None` is no response at all.
    pub(super) fn respond_synthesized(
        &mut self,
        at: RaceRef,
        source: Source,
        rcode: Option<Rcode>,
        ede: Option<ExtendedError>,
        now: Instant,
    ) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let clock = Clock::of(pool_at(&mut self.pools, entry.pool), self.me, now);
        let own_udp_size = self.plan.edns_udp_size;
        for waiter in &entry.waiters {
            let Some(rcode) = rcode else {
                (0..waiter.queries).for_each(|_| self.counters.dropped(Dropped::Unanswered));
                respond(&mut self.listeners, &self.counters, &waiter.client, |_| {});
                continue;
            };
            clock.stop(waiter);
            self.counters.responses(source, rcode.0, waiter.queries.into());
            respond(&mut self.listeners, &self.counters, &waiter.client, |out| {
                wire::write_synthesized(entry.question(), &waiter.form, rcode, ede, true, own_udp_size, out);
            });
        }
    }

    /// Answers a message that cannot race.
    pub(super) fn refuse(&mut self, message: &[u8], rcode: Rcode, client: &Client) {
        self.counters.responses(Source::Error, rcode.0, 1);
        let own_udp_size = self.plan.edns_udp_size;
        respond(&mut self.listeners, &self.counters, client, |out| {
            wire::write_error(message, rcode, own_udp_size, out);
        });
    }

    /// Says nothing, which a connection has to be told.
    pub(super) fn respond_nothing(&self, client: &Client) {
        match client {
            Client::Udp { .. } => {}
            Client::Tcp(responder) => responder.respond(|_| {}),
        }
    }
}

/// Gives a reply to one client.
fn relay(
    listeners: &mut [Listener],
    counters: &Counters,
    own_udp_size: u16,
    clock: Clock<'_>,
    waiter: &Waiter,
    reply: &Reply<'_>,
) {
    clock.stop(waiter);
    counters.responses(Source::Backend, reply.rcode().0, waiter.queries.into());
    let limit = limit(&waiter.client, &waiter.form, own_udp_size);
    respond(listeners, counters, &waiter.client, |out| {
        wire::write_response(reply, &waiter.form, own_udp_size, limit, out);
    });
}

/// Times what clients wait for.
#[derive(Clone, Copy)]
struct Clock<'a> {
    /// What this worker counts of the pool.
    counters: &'a PoolCounters,
    /// Now.
    now: Instant,
}

impl<'a> Clock<'a> {
    /// Of a pool's clients.
    fn of(pool: &'a Pool, me: WorkerId, now: Instant) -> Self {
        Self { counters: &pool.shared.state.counters[usize::from(me.0)], now }
    }

    /// A client gets its response.
    fn stop(self, waiter: &Waiter) {
        self.counters.duration.record(self.now.saturating_duration_since(waiter.since));
    }
}

/// Sends one response, or queues it for the end of the turn.
fn respond(listeners: &mut [Listener], counters: &Counters, client: &Client, fill: impl FnOnce(&mut Vec<u8>)) {
    match client {
        Client::Tcp(responder) => responder.respond(fill),
        Client::Udp { listener, peer, local } => {
            let Some(listener) = listeners.get_mut(usize::from(*listener)) else { return };
            if listener.responses.is_full() {
                listener.flush(counters);
            }
            listener.responses.push_unless_empty(*peer, *local, fill);
        }
    }
}

/// How long a response may be, octets.
fn limit(client: &Client, form: &ClientForm, own_udp_size: u16) -> usize {
    match client {
        Client::Udp { .. } => form.udp_limit(own_udp_size),
        Client::Tcp(_) => usize::from(u16::MAX),
    }
}
