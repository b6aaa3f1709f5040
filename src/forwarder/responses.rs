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
use crate::limit::{Cookies, OnDenied};
use crate::metrics::{Counters, Dropped, Fetched, Limit, Limited, PoolCounters, Source, Transport};
use crate::net::batch::{BATCH, SendBatch, is_too_long};
use crate::net::clock;
use crate::net::udp::Socket;
use crate::policy::race::AttemptId;
use crate::policy::{Rules, Silence};
use crate::state::{ForwarderState, SharedPool};
use crate::wire::{self, ClientForm, Cookie, ExtendedError, Query, Rcode, Reply};

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
    /// What clients with EDNS are told besides, and text for people.
    error: Option<(ExtendedError, &'static str)>,
}

impl Word {
    /// All that came said nothing but that something had failed.
    pub(super) const FAILED: Self = Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: None };

    /// Some answer exists, but not one that can be given whole: no time to claim that the name does not exist.
    pub(super) const NOT_WHOLE: Self = Self::failure(ExtendedError::NETWORK_ERROR, "");

    /// Somebody who was to be asked could not be, for want of something of our own: no time to claim anything of the name.
    pub(super) const UNSENT: Self = Self::failure(ExtendedError::OTHER, "this server could not send the query on");

    /// The client has as many queries that wait as it may (`limits.waiting`).
    pub(super) const TOO_MANY: Self = Self::failure(ExtendedError::OTHER, "too many queries of this client wait");

    /// All clients together have (`limits.in_flight`).
    pub(super) const BUSY: Self = Self::failure(ExtendedError::OTHER, "too many queries wait");

    /// SERVFAIL, and why: a failure of our own, which is never kept.
    const fn failure(error: ExtendedError, text: &'static str) -> Self {
        Self { source: Source::Error, rcode: Some(Rcode::SERVFAIL), error: Some((error, text)) }
    }

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
        let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
        let (is_signed, is_truncated) = (entry.is_signed(), reply.is_truncated());
        let is_for_nobody = !entry.has_waiters();
        entry.retain_waiters(&self.shared.clients, |waiter| {
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
        let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
        entry.waiters().for_each(|waiter| out.relay(clock, &waiter, reply, entry.is_signed()));
    }

    /// Gives the TC reply to a client by UDP that asks while the whole answer is being fetched: it need not wait for what it
    /// could not take, nor depend on whether that can be had.
    pub(super) fn respond_meanwhile(&mut self, at: RaceRef, waiter: &Waiter, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        if let Ok(reply) = wire::read_reply(entry.kept()) {
            let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
            out.relay(clock, waiter, &reply, false);
        }
    }

    /// Gives a response without records to all who wait.
    pub(super) fn respond_word(&mut self, at: RaceRef, word: Word, now: Instant) {
        let Some(entry) = self.in_flight.get(at) else { return };
        let clock = Clock::of(&pool_at(&mut self.pools, entry.pool).shared, self.me, now);
        let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
        entry.waiters().for_each(|waiter| out.say(clock, &waiter, entry.question(), word));
    }

    /// Answers a message that cannot race.
    pub(super) fn refuse(
        &mut self,
        message: &[u8],
        rcode: Rcode,
        cookie: Option<&Cookie>,
        client: &Client,
        now: Instant,
    ) {
        let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
        out.reject(client, rcode, cookie, |own_udp_size, out| {
            wire::write_error(message, rcode, cookie, own_udp_size, out);
        });
    }

    /// Answers a message of a client that is not to be answered, if even that is said.
    pub(super) fn prohibit(
        &mut self,
        message: &[u8],
        query: Option<&Query<'_>>,
        cookie: Option<&Cookie>,
        client: &Client,
        now: Instant,
    ) {
        match self.state.access.on_denied() {
            OnDenied::Drop => {
                self.counters.dropped(Dropped::Denied);
                self.respond_nothing(client);
            }
            OnDenied::Refused => {
                let mut out = Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now);
                out.reject(client, Rcode::REFUSED, cookie, |own_udp_size, out| {
                    wire::write_prohibited(message, query, cookie, own_udp_size, out);
                });
            }
        }
    }

    /// Gives a response without records to one client that has not waited.
    pub(super) fn respond_at_once(&mut self, waiter: &Waiter, question: &[u8], word: Word, now: Instant) {
        Out::of(&mut self.way, &self.counters, &self.state, &self.shared, now).write(waiter, question, word);
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
    /// Gives cookies, if clients get any.
    cookies: Option<&'a Cookies>,
}

impl<'a> Out<'a> {
    /// Of one worker.
    pub(super) fn of(
        way: &'a mut Way,
        counters: &'a Counters,
        state: &'a ForwarderState,
        shared: &'a Shared,
        now: Instant,
    ) -> Self {
        let ForwarderState { edns_udp_size, rate, cookies, .. } = state;
        let (rate, is_draining) = (rate.as_deref(), way.is_draining);
        let allowance = Allowance { rate, pacing: &shared.pacing, is_draining, now };
        let (own_udp_size, cookies) = (*edns_udp_size, cookies.as_deref());
        Self { way, counters, own_udp_size, allowance, limited: &shared.limited, cookies }
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
        let receiver = Receiver::of(waiter, self.allowance.now);
        let (late, own_udp_size) = (self.late_form(waiter), self.own_udp_size);
        let form = late.as_ref().unwrap_or(&waiter.form);
        let limit = limit(client, form, own_udp_size);
        let sent = self.respond(client, receiver, |out| {
            // The backend was told the client's own size.
            if is_signed && reply.as_wire().len() <= self::limit(client, &waiter.form, u16::MAX) {
                wire::write_unchanged(reply, waiter.form.id, out);
            } else {
                wire::write_response(reply, form, own_udp_size, limit, out);
            }
        });
        self.count(sent, Source::Backend, reply.rcode(), *queries);
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
        let Waiter { client, queries, .. } = waiter;
        let Word { source, rcode, error } = word;
        let receiver = Receiver::of(waiter, self.allowance.now);
        let Some(rcode) = rcode else {
            (0..*queries).for_each(|_| self.counters.dropped(Dropped::Unanswered));
            self.respond(client, receiver, |_| {});
            return;
        };
        let (late, own_udp_size) = (self.late_form(waiter), self.own_udp_size);
        let form = late.as_ref().unwrap_or(&waiter.form);
        let write = |out: &mut Vec<u8>| wire::write_synthesized(question, form, rcode, error, true, own_udp_size, out);
        let sent = self.respond(client, receiver, write);
        self.count(sent, source, rcode, *queries);
    }

    /// Tells a client that its message is not taken.
    fn reject(&mut self, client: &Client, rcode: Rcode, cookie: Option<&Cookie>, fill: impl FnOnce(u16, &mut Vec<u8>)) {
        let own_udp_size = self.own_udp_size;
        let cookie = cookie.map(|cookie| cookie.state);
        let receiver = Receiver { client: client.ip(), cookie, has_waited: false };
        let sent = self.respond(client, receiver, |out| fill(own_udp_size, out));
        self.count(sent, Source::Error, rcode, 1);
    }

    /// Counts what has become of the response to so many queries.
    pub(super) fn count(&self, sent: Sent, source: Source, rcode: Rcode, queries: u32) {
        match sent {
            Sent::Nothing => {}
            Sent::Response => self.counters.responses(source, rcode.0, queries.into()),
            Sent::BadCookie => self.counters.responses(Source::Error, Rcode::BADCOOKIE.0, queries.into()),
        }
    }

    /// Sends one response, or queues it for the end of the turn, as far as limits let it. An empty one says that there is none.
    fn respond(&mut self, client: &Client, receiver: Receiver, fill: impl FnOnce(&mut Vec<u8>)) -> Sent {
        match client {
            Client::Tcp(responder) => {
                let mut is_empty = true;
                responder.respond(|out| {
                    fill(out);
                    is_empty = out.is_empty();
                });
                if is_empty { Sent::Nothing } else { Sent::Response }
            }
            Client::Udp { .. } => self.offer(client, receiver, fill),
        }
    }

    /// The same, but after an empty one the client waits on.
    pub(super) fn offer(&mut self, client: &Client, receiver: Receiver, fill: impl FnOnce(&mut Vec<u8>)) -> Sent {
        let mut sent = Sent::Nothing;
        match client {
            Client::Tcp(responder) => {
                let mut message = Vec::new();
                fill(&mut message);
                if !message.is_empty() {
                    sent = Sent::Response;
                    responder.respond(|out| *out = message);
                }
            }
            Client::Udp { listener: number, peer, local } => {
                let Way { listeners, paced, .. } = self.way;
                let Some(listener) = listeners.get_mut(usize::from(*number)) else { return sent };
                if listener.responses.is_full() {
                    listener.flush(self.counters);
                }
                listener.responses.push_unless_empty(peer.address(), *local, |out| {
                    fill(out);
                    let fate = self.allowance.apply(receiver, out);
                    let mut is_empty = out.is_empty();
                    let mut is_limited = matches!(fate, Fate::Limited | Fate::AsksForCookie);
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
                    sent = match (is_empty, fate) {
                        (true, _) => Sent::Nothing,
                        (false, Fate::AsksForCookie) => Sent::BadCookie,
                        (false, Fate::Leaves | Fate::Limited | Fate::Later { .. }) => Sent::Response,
                    };
                });
            }
        }
        sent
    }
}

/// What has become of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// There is none.
    Nothing,
    /// It leaves, perhaps cut.
    Response,
    /// BADCOOKIE leaves in its place.
    BadCookie,
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
