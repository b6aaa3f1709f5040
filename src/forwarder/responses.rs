//! Responding: one response to each client that waits, in its own form, queued for the end of the turn.

use std::rc::Rc;
use std::time::Instant;

use super::allowance::{Allowance, Fate, Receiver};
use super::claims::WorkerId;
use super::client::Client;
use super::entry::Waiter;
use super::paced::{Later, Paced};
use super::pool::pool_at;
use super::slots::RaceRef;
use super::{Forwarder, Shared};
use crate::limit::OnDenied;
use crate::metrics::{Counters, Dropped, Fetched, Limit, Limited, PoolCounters, Source, Transport};
use crate::net::batch::SendBatch;
use crate::net::udp::Socket;
use crate::plan::{Plan, SharedPool};
use crate::policy::race::AttemptId;
use crate::policy::{Rules, Silence};
use crate::wire::{self, ClientForm, Explanation, ExtendedError, Query, Rcode, Reply};

/// A UDP socket to clients, with the responses that wait to leave.
pub(super) struct Listener {
    /// The socket; `serve` reads it.
    pub(super) socket: Rc<Socket>,
    /// Responses of this turn.
    pub(super) responses: SendBatch,
}

impl Listener {
    /// Sends what waits. Not by way of the runtime: responses do not wait for a socket to become writable.
    pub(super) fn flush(&mut self, counters: &Counters) {
        self.responses.flush(&*self.socket, |_, _| counters.dropped(Dropped::Unsent));
    }
}

/// The way out to all clients by UDP.
pub(super) struct Way {
    /// The sockets.
    pub(super) listeners: Vec<Listener>,
    /// Responses that leave later.
    pub(super) paced: Paced,
    /// Whether all leave at once from now on.
    pub(super) is_draining: bool,
}

impl Way {
    /// Sends what waits, and what leaves later if its time has come.
    pub(super) fn flush(&mut self, counters: &Counters, now: Instant) {
        let Self { listeners, paced, is_draining } = self;
        let until = if *is_draining { paced.last_due().max(Some(now)).unwrap_or(now) } else { now };
        while let Some(Later { listener, peer, local, message, .. }) = paced.pop_due(until) {
            let Some(listener) = listeners.get_mut(usize::from(listener)) else { continue };
            if listener.responses.is_full() {
                listener.flush(counters);
            }
            listener.responses.push_unless_empty(peer.address(), local, |out| out.extend_from_slice(&message));
        }
        for listener in listeners.iter_mut().filter(|listener| !listener.responses.is_empty()) {
            listener.flush(counters);
        }
    }
}

/// What is said where no reply can be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// Why.
    source: Source,
    /// The rcode; `None` is no response at all.
    pub(super) rcode: Option<Rcode>,
    /// What clients with EDNS are told besides.
    error: Option<Explanation>,
}

impl Word {
    /// All that came said nothing but that something had failed.
    pub(super) const FAILED: Self = Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: None };

    /// Some answer exists, but not one that can be given whole: no time to claim that the name does not exist.
    pub(super) const NOT_WHOLE: Self = Self::failure(Explanation::new(ExtendedError::NETWORK_ERROR, ""));

    /// The client has as many queries that wait as it may (`limits.waiting`).
    pub(super) const TOO_MANY: Self =
        Self::failure(Explanation::new(ExtendedError::OTHER, "too many queries of this client wait"));

    /// All clients together have (`limits.in_flight`).
    pub(super) const BUSY: Self = Self::failure(Explanation::new(ExtendedError::OTHER, "too many queries wait"));

    /// SERVFAIL, and why: a failure of our own, which is never kept.
    const fn failure(why: Explanation) -> Self {
        Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: Some(why) }
    }

    /// It could not be asked for, for want of our own.
    pub(super) const UNSENT: Self =
        Self::failure(Explanation::new(ExtendedError::OTHER, "too many answers are being fetched by TCP"));

    /// Nobody has replied.
    pub(super) fn of_silence(rules: &Rules, is_any_up: bool) -> Self {
        // RFC 8914 section 4.23 has the error for death. The one for silence was registered later (RFC 8914 section 5.2).
        let (word, error) = match is_any_up {
            true => (rules.on_timeout, ExtendedError::SYNTHESIZED),
            false => (rules.on_all_down, ExtendedError::NO_REACHABLE_AUTHORITY),
        };
        let rcode = match word {
            Silence::Nxdomain => Some(Rcode::NXDOMAIN),
            Silence::Servfail => Some(Rcode::SERVFAIL),
            Silence::Refused => Some(Rcode::REFUSED),
            Silence::Drop => None,
        };
        Self { source: Source::Synthesized, rcode, error: Some(error.into()) }
    }
}

impl Forwarder {
    /// Gives the winning reply to all who wait. A TC reply is all that a UDP client needs, for it comes back; whoever came
    /// by TCP gets the whole answer, fetched by TCP. So does the cache, if nobody waits and it is all for the cache.
    pub(super) fn respond_with(&mut self, at: RaceRef, winner: AttemptId, reply: &Reply<'_>, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        let mut out = Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now);
        let is_truncated = reply.is_truncated();
        let is_for_nobody = !entry.has_waiters();
        entry.retain_waiters(&self.shared.clients, |waiter| {
            let needs_more = is_truncated && waiter.client.transport() == Transport::Tcp;
            if !needs_more {
                out.relay(clock, waiter, reply);
            }
            needs_more
        });
        if is_truncated
            && (is_for_nobody || entry.has_waiters())
            && let Some(entry) = self.in_flight.with_aside(at)
        {
            entry.is_fetching = true;
            // For clients by UDP that ask meanwhile.
            entry.keep(reply.as_wire());
            if self.fetch(at, winner, now) {
                self.drive(at, None, now);
            } else {
                self.fail_fetch(at, Fetched::Unsent, now);
            }
        }
    }

    /// Gives a whole answer that was fetched to all who wait.
    pub(super) fn respond_whole(&mut self, at: RaceRef, reply: &Reply<'_>, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        let mut out = Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now);
        entry.waiters().for_each(|waiter| out.relay(clock, &waiter, reply));
    }

    /// Gives the TC reply to a client by UDP that asks while the whole answer is being fetched: it need not wait for what it
    /// could not take, nor depend on whether that can be had.
    pub(super) fn respond_meanwhile(&mut self, at: RaceRef, waiter: &Waiter, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        if let Ok(reply) = wire::read_reply(entry.kept()) {
            Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now).relay(clock, waiter, &reply);
        }
    }

    /// Gives a response without records to all who wait.
    pub(super) fn respond_word(&mut self, at: RaceRef, word: Word, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        let mut out = Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now);
        entry.waiters().for_each(|waiter| out.say(clock, &waiter, entry.question(), word));
    }

    /// Answers a message that cannot race.
    pub(super) fn refuse(&mut self, message: &[u8], rcode: Rcode, client: &Client, now: Instant) {
        let mut out = Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now);
        out.reject(client, rcode, |own_udp_size, out| wire::write_error(message, rcode, own_udp_size, out));
    }

    /// Answers a message of a client that is not to be answered, if even that is said.
    pub(super) fn prohibit(&mut self, message: &[u8], query: Option<&Query<'_>>, client: &Client, now: Instant) {
        match self.plan.access.on_denied() {
            OnDenied::Drop => {
                self.counters.dropped(Dropped::Denied);
                self.respond_nothing(client);
            }
            OnDenied::Refused => {
                let mut out = Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now);
                out.reject(client, Rcode::REFUSED, |own_udp_size, out| {
                    wire::write_prohibited(message, query, own_udp_size, out);
                });
            }
        }
    }

    /// Gives a response without records to one client that has not waited.
    pub(super) fn respond_at_once(&mut self, waiter: &Waiter, question: &[u8], word: Word, now: Instant) {
        Out::of(&mut self.way, &self.counters, &self.plan, &self.shared, now).write(waiter, question, word);
    }

    /// Says nothing, which a connection has to be told.
    pub(super) fn respond_nothing(&self, client: &Client) {
        match client {
            Client::Udp { .. } => {}
            Client::Tcp(responder) => responder.respond(|_| {}),
        }
    }
}

/// The way out to clients.
pub(super) struct Out<'a> {
    /// Their sockets, and what leaves later.
    way: &'a mut Way,
    /// What is counted.
    pub(super) counters: &'a Counters,
    /// The UDP size that we offer.
    pub(super) own_udp_size: u16,
    /// What limits them.
    allowance: Allowance<'a>,
    /// How often it did.
    limited: &'a Limited,
}

impl<'a> Out<'a> {
    /// Of one worker.
    pub(super) fn of(
        way: &'a mut Way,
        counters: &'a Counters,
        plan: &'a Plan,
        shared: &'a Shared,
        now: Instant,
    ) -> Self {
        let (rate, is_draining) = (plan.rate.as_deref(), way.is_draining);
        let allowance = Allowance { rate, pacing: &shared.pacing, is_draining, now };
        Self { way, counters, own_udp_size: plan.edns_udp_size, allowance, limited: &shared.limited }
    }

    /// Gives a reply to one client.
    fn relay(&mut self, clock: Clock<'_>, waiter: &Waiter, reply: &Reply<'_>) {
        let Waiter { client, form, queries, .. } = waiter;
        clock.stop(waiter);
        let own_udp_size = self.own_udp_size;
        let limit = limit(client, form, own_udp_size);
        let receiver = Receiver::of(waiter, self.allowance.now);
        if self.respond(client, receiver, |out| wire::write_response(reply, form, own_udp_size, limit, out)) {
            self.counters.responses(Source::Backend, reply.rcode().0, (*queries).into());
        }
    }

    /// Gives one client a response without records, or none at all.
    pub(super) fn say(&mut self, clock: Clock<'_>, waiter: &Waiter, question: &[u8], word: Word) {
        if word.rcode.is_some() {
            clock.stop(waiter);
        }
        self.write(waiter, question, word);
    }

    /// The same, for one that was not timed.
    fn write(&mut self, waiter: &Waiter, question: &[u8], word: Word) {
        let Waiter { client, form, queries, .. } = waiter;
        let Word { source, rcode, error } = word;
        let receiver = Receiver::of(waiter, self.allowance.now);
        let Some(rcode) = rcode else {
            (0..*queries).for_each(|_| self.counters.dropped(Dropped::Unanswered));
            self.respond(client, receiver, |_| {});
            return;
        };
        let own_udp_size = self.own_udp_size;
        let write = |out: &mut Vec<u8>| wire::write_synthesized(question, form, rcode, error, true, own_udp_size, out);
        if self.respond(client, receiver, write) {
            self.counters.responses(source, rcode.0, (*queries).into());
        }
    }

    /// Tells a client that its message is not taken.
    fn reject(&mut self, client: &Client, rcode: Rcode, fill: impl FnOnce(u16, &mut Vec<u8>)) {
        let own_udp_size = self.own_udp_size;
        let receiver = Receiver { client: client.ip(), is_exempt: false, has_waited: false };
        if self.respond(client, receiver, |out| fill(own_udp_size, out)) {
            self.counters.responses(Source::Error, rcode.0, 1);
        }
    }

    /// Sends one response, or queues it for the end of the turn, as far as limits let it. An empty one says that there is none.
    /// Returns whether there is one.
    fn respond(&mut self, client: &Client, receiver: Receiver, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
        match client {
            Client::Tcp(responder) => {
                let mut is_empty = true;
                responder.respond(|out| {
                    fill(out);
                    is_empty = out.is_empty();
                });
                !is_empty
            }
            Client::Udp { .. } => self.offer(client, receiver, fill),
        }
    }

    /// The same, but after an empty one the client waits on.
    pub(super) fn offer(&mut self, client: &Client, receiver: Receiver, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut is_empty = true;
        match client {
            Client::Tcp(responder) => {
                let mut message = Vec::new();
                fill(&mut message);
                is_empty = message.is_empty();
                if !is_empty {
                    responder.respond(|out| *out = message);
                }
            }
            Client::Udp { listener: number, peer, local } => {
                let Way { listeners, paced, .. } = self.way;
                let Some(listener) = listeners.get_mut(usize::from(*number)) else { return false };
                if listener.responses.is_full() {
                    listener.flush(self.counters);
                }
                listener.responses.push_unless_empty(peer.address(), *local, |out| {
                    fill(out);
                    let fate = self.allowance.apply(receiver, out);
                    is_empty = out.is_empty();
                    let mut is_limited = fate == Fate::Limited;
                    if let Fate::Later { due, is_cut } = fate {
                        is_empty = !paced.push(due, (*number, *peer, *local), out);
                        is_limited = is_cut || is_empty;
                        out.clear();
                    }
                    if is_limited {
                        self.limited.count(Limit::Rate);
                        if is_empty {
                            self.counters.dropped(Dropped::Limited);
                        }
                    }
                });
            }
        }
        !is_empty
    }
}

/// Times what clients wait for.
#[derive(Clone, Copy)]
pub(super) struct Clock<'a> {
    /// What this worker counts of the pool.
    counters: &'a PoolCounters,
    /// Now.
    now: Instant,
}

impl<'a> Clock<'a> {
    /// Of a pool's clients.
    pub(super) fn of(pool: &'a SharedPool, me: WorkerId, now: Instant) -> Self {
        Self { counters: &pool.state.counters[usize::from(me.0)], now }
    }

    /// A client gets its response.
    pub(super) fn stop(self, waiter: &Waiter) {
        self.counters.duration.record(self.now.saturating_duration_since(waiter.since));
    }
}

/// How long a response may be, octets.
pub(super) fn limit(client: &Client, form: &ClientForm, own_udp_size: u16) -> usize {
    match client {
        Client::Udp { .. } => form.udp_limit(own_udp_size),
        Client::Tcp(_) => usize::from(u16::MAX),
    }
}
