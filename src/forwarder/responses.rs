//! Responding: one response to each client that waits, in its own form, queued for the end of the turn.

use std::rc::Rc;
use std::time::Instant;

use super::Forwarder;
use super::claims::WorkerId;
use super::client::Client;
use super::entry::Waiter;
use super::pool::pool_at;
use super::slots::RaceRef;
use crate::limit::Cookies;
use crate::metrics::{Counters, Dropped, Fetched, PoolCounters, Source, Transport};
use crate::net::batch::{BATCH, SendBatch, is_too_long};
use crate::net::clock;
use crate::net::udp::Socket;
use crate::plan::{Plan, SharedPool};
use crate::policy::race::AttemptId;
use crate::policy::{Rules, Silence};
use crate::wire::{self, ClientForm, Cookie, ExtendedError, Rcode, Reply};

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
        let mut too_long = 0_u64;
        self.responses.flush(&*self.socket, |index, error| match is_too_long(error) {
            true => too_long |= 1 << index,
            false => counters.dropped(Dropped::Unsent),
        });
        // RFC 9715 section 3.1 (R5): what does not leave whole leaves with TC. The client comes back by TCP.
        while too_long != 0 {
            let index = too_long.trailing_zeros() as usize;
            too_long &= too_long - 1;
            if self.responses.send_again(index, &*self.socket, wire::shorten).is_err() {
                counters.dropped(Dropped::Unsent);
            }
        }
    }
}

// A bit for each response of a batch.
const _: () = assert!(BATCH <= u64::BITS as usize);

/// What is said where no reply can be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    /// Why.
    source: Source,
    /// The rcode; `None` is no response at all.
    pub(super) rcode: Option<Rcode>,
    /// What clients with EDNS are told besides, and text for people.
    error: Option<(ExtendedError, &'static str)>,
}

impl Word {
    /// All that came said nothing but that something had failed.
    pub(super) const FAILED: Self = Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: None };

    /// Some answer exists, but not one that can be given whole: no time to claim that the name does not exist.
    pub(super) const NOT_WHOLE: Self =
        Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: Some((ExtendedError::NETWORK_ERROR, "")) };

    /// Somebody who was to be asked could not be, for want of something of our own: no time to claim anything of the name.
    pub(super) const UNSENT: Self = Self {
        source: Source::Error,
        rcode: Some(Rcode::SERVFAIL),
        error: Some((ExtendedError::OTHER, "this server could not send the query on")),
    };

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
        Self { source: Source::Synthesized, rcode, error: Some((error, "")) }
    }
}

impl Forwarder {
    /// Gives the winning reply to all who wait. A TC reply is all that a UDP client needs, for it comes back; whoever came
    /// by TCP gets the whole answer, fetched by TCP. So does the cache, if nobody waits and it is all for the cache.
    pub(super) fn respond_with(&mut self, at: RaceRef, winner: AttemptId, reply: &Reply<'_>, now: Instant) {
        let Some(entry) = self.in_flight.get_mut(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        let mut out = Out::of(&mut self.listeners, &self.counters, &self.plan);
        let (is_signed, is_truncated) = (entry.is_signed(), reply.is_truncated());
        let is_for_nobody = !entry.has_waiters();
        entry.retain_waiters(|waiter| {
            let needs_more = is_truncated && waiter.client.transport() == Transport::Tcp;
            if !needs_more {
                out.relay(clock, waiter, reply, is_signed);
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
        let mut out = Out::of(&mut self.listeners, &self.counters, &self.plan);
        entry.waiters().for_each(|waiter| out.relay(clock, &waiter, reply, entry.is_signed()));
    }

    /// Gives the TC reply to a client by UDP that asks while the whole answer is being fetched: it need not wait for what it
    /// could not take, nor depend on whether that can be had.
    pub(super) fn respond_meanwhile(&mut self, at: RaceRef, waiter: &Waiter, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        if let Ok(reply) = wire::read_reply(entry.kept()) {
            Out::of(&mut self.listeners, &self.counters, &self.plan).relay(clock, waiter, &reply, false);
        }
    }

    /// Gives a response without records to all who wait.
    pub(super) fn respond_word(&mut self, at: RaceRef, word: Word, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        let mut out = Out::of(&mut self.listeners, &self.counters, &self.plan);
        entry.waiters().for_each(|waiter| out.say(clock, &waiter, entry.question(), word));
    }

    /// Answers a message that cannot race.
    pub(super) fn refuse(&mut self, message: &[u8], rcode: Rcode, cookie: Option<&Cookie>, client: &Client) {
        let mut out = Out::of(&mut self.listeners, &self.counters, &self.plan);
        out.counters.responses(Source::Error, rcode.0, 1);
        let own_udp_size = out.own_udp_size;
        out.respond(client, |out| wire::write_error(message, rcode, cookie, own_udp_size, out));
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
    /// Their sockets.
    listeners: &'a mut [Listener],
    /// What is counted.
    pub(super) counters: &'a Counters,
    /// The UDP size that we offer.
    pub(super) own_udp_size: u16,
    /// Gives cookies, if clients get any.
    cookies: Option<&'a Cookies>,
}

impl<'a> Out<'a> {
    /// Of one worker.
    pub(super) fn of(listeners: &'a mut [Listener], counters: &'a Counters, plan: &'a Plan) -> Self {
        Self { listeners, counters, own_udp_size: plan.edns_udp_size, cookies: plan.cookies.as_deref() }
    }

    /// The form of one client with what it gets for its cookie, if it has waited and so its form lacks that.
    pub(super) fn late_form(&self, waiter: &Waiter) -> Option<ClientForm> {
        let Waiter { client, form, cookie, .. } = waiter;
        match (self.cookies, cookie) {
            (Some(cookies), Some(shown)) => {
                let cookie = cookies.answer_late(*shown, client.ip(), clock::unix_now_serial());
                Some(form.with_cookie(Some(cookie)))
            }
            (None, _) | (_, None) => None,
        }
    }

    /// Gives a reply to one client; `is_signed`: whose query bears a TSIG record.
    fn relay(&mut self, clock: Clock<'_>, waiter: &Waiter, reply: &Reply<'_>, is_signed: bool) {
        let Waiter { client, queries, .. } = waiter;
        clock.stop(waiter);
        self.counters.responses(Source::Backend, reply.rcode().0, (*queries).into());
        // The backend was told the client's own size.
        if is_signed && reply.as_wire().len() <= limit(client, &waiter.form, u16::MAX) {
            return self.respond(client, |out| wire::write_unchanged(reply, waiter.form.id, out));
        }
        let (late, own_udp_size) = (self.late_form(waiter), self.own_udp_size);
        let form = late.as_ref().unwrap_or(&waiter.form);
        let limit = limit(client, form, own_udp_size);
        self.respond(client, |out| wire::write_response(reply, form, own_udp_size, limit, out));
    }

    /// Gives one client a response without records, or none at all.
    pub(super) fn say(&mut self, clock: Clock<'_>, waiter: &Waiter, question: &[u8], word: Word) {
        let Waiter { client, queries, .. } = waiter;
        let Word { source, rcode, error } = word;
        let Some(rcode) = rcode else {
            (0..*queries).for_each(|_| self.counters.dropped(Dropped::Unanswered));
            return self.respond(client, |_| {});
        };
        clock.stop(waiter);
        self.counters.responses(source, rcode.0, (*queries).into());
        let (late, own_udp_size) = (self.late_form(waiter), self.own_udp_size);
        let form = late.as_ref().unwrap_or(&waiter.form);
        self.respond(client, |out| wire::write_synthesized(question, form, rcode, error, true, own_udp_size, out));
    }

    /// Sends one response, or queues it for the end of the turn. An empty one says that there is none.
    fn respond(&mut self, client: &Client, fill: impl FnOnce(&mut Vec<u8>)) {
        match client {
            Client::Tcp(responder) => responder.respond(fill),
            Client::Udp { .. } => self.offer(client, fill),
        }
    }

    /// The same, but after an empty one the client waits on.
    pub(super) fn offer(&mut self, client: &Client, fill: impl FnOnce(&mut Vec<u8>)) {
        match client {
            Client::Tcp(responder) => {
                let mut message = Vec::new();
                fill(&mut message);
                if !message.is_empty() {
                    responder.respond(|out| *out = message);
                }
            }
            Client::Udp { listener, peer, local } => {
                let Some(listener) = self.listeners.get_mut(usize::from(*listener)) else { return };
                if listener.responses.is_full() {
                    listener.flush(self.counters);
                }
                listener.responses.push_unless_empty(peer.address(), *local, fill);
            }
        }
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
