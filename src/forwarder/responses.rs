//! Responses to clients: each in its own form, queued for the end of the tick, as far as limits let it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::Client;
use super::allowance::{Allowance, Fate, Receiver};
use super::client::DatagramWay;
use super::outside::Outside;
use super::paced::{Later, Paced};
use crate::cache::ResponseFor;
use crate::engine::{Client as _, Resolution, Said, Waiter, response_limit};
use crate::limit::{OnDenied, RefusedSources};
use crate::metrics::{Counters, Dropped, Limit, Source, is_failure};
use crate::net::batch::{BATCH, LocalAddress, SendBatch, is_too_long};
use crate::net::clock;
use crate::net::tcp::Content;
use crate::net::udp::Socket;
use crate::net::xdp::WorkerSockets;
use crate::policy::race::{BackendIndex, Kind};
use crate::taps::{self, Side, Told, WorkerTaps};
use crate::wire::{self, Asks, ClientForm, Cookie, Query, Rcode};

/// A UDP socket to clients, with the responses that wait to leave.
pub(super) struct Listener {
    /// The socket; `serve` reads it.
    pub(super) socket: Rc<Socket>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Responses of this tick.
    pub(super) responses: SendBatch,
}

/// The clients that the log has named, for all workers.
static DENIED: RefusedSources = RefusedSources::empty();

impl Listener {
    /// The address that a client has asked.
    pub(super) fn asked_at(&self, local: Option<LocalAddress>) -> SocketAddr {
        local.map_or(self.address, |local| SocketAddr::new(local.ip(), self.address.port()))
    }

    /// Queues a response, written by `fill`, the way that its query came. If nothing is written, there is none.
    fn push(&mut self, xsks: &WorkerSockets, way: DatagramWay, fill: impl FnOnce(&mut Vec<u8>)) {
        let DatagramWay { peer, local, link, .. } = way;
        match link {
            None => self.responses.push_unless_empty(peer.address(), local, fill),
            Some(link) => {
                let (from, to) = (self.asked_at(local), peer.address());
                let responses = &mut self.responses;
                xsks.push(link, (from, to), fill, |message| {
                    responses.push_unless_empty(to, local, |out| out.extend_from_slice(message));
                });
            }
        }
    }

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
    /// The sockets, by the number of the listener.
    pub(super) listeners: Vec<Option<Listener>>,
    /// The worker's sockets of AF_XDP.
    pub(super) xsks: Rc<WorkerSockets>,
    /// Responses that leave later.
    pub(super) paced: Paced,
    /// Whether all leave at once from now on.
    pub(super) is_draining: bool,
}

impl Way {
    /// The address that a client by datagram has asked.
    pub(super) fn asked_at(&self, way: DatagramWay) -> Option<SocketAddr> {
        let listener = self.listeners.get(usize::from(way.listener))?.as_ref()?;
        Some(listener.asked_at(way.local))
    }

    /// Sends what waits, and what leaves later if its time has come.
    pub(super) fn flush(&mut self, counters: &Counters, now: Instant) {
        let Self { listeners, xsks, paced, is_draining } = self;
        let until = if *is_draining { paced.last_due().max(Some(now)).unwrap_or(now) } else { now };
        while let Some(Later { listener, peer, local, message, .. }) = paced.pop_due(until) {
            let Some(Some(listener)) = listeners.get_mut(usize::from(listener)) else { continue };
            if listener.responses.is_full() {
                listener.flush(counters);
            }
            listener.responses.push_unless_empty(peer.address(), local, |out| out.extend_from_slice(&message));
        }
        for listener in listeners.iter_mut().flatten().filter(|listener| !listener.responses.is_empty()) {
            listener.flush(counters);
        }
        xsks.flush();
    }
}

impl Outside {
    /// Responds to a client in the form that it wants. See [`Io::respond`].
    pub(super) fn respond_in_form(
        &mut self,
        waiter: &Waiter<Client>,
        resolution: &Resolution<'_>,
        now: Instant,
        write: impl FnOnce(&ResponseFor<'_>, &mut Vec<u8>) -> Option<Said>,
    ) {
        let own_udp_size = self.state.edns_udp_size;
        let late = self.late_form(waiter);
        let form = late.as_ref().unwrap_or(&waiter.form);
        let limit = response_limit(waiter.client.transport(), form, own_udp_size);
        let receiver = ResponseFor { form, own_udp_size, limit };
        if let Client::Admin(operator) = &waiter.client {
            return operator.take_response(waiter.since, now, |out| write(&receiver, out));
        }
        let delivery = Delivery::of(waiter, resolution, now);
        self.deliver(&delivery, |out| write(&receiver, out));
    }

    /// The form of one client with what it gets for its cookie, if it has waited and so its form lacks that.
    fn late_form(&self, waiter: &Waiter<Client>) -> Option<ClientForm> {
        let Waiter { client, form, cookie, .. } = waiter;
        match (self.state.cookies.as_deref(), cookie) {
            (Some(cookies), Some(shown)) => {
                let cookie = cookies.answer_late(*shown, client.ip(), clock::unix_now_serial());
                Some(form.with_cookie(Some(cookie)))
            }
            (None, _) | (_, None) => None,
        }
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
        self.reject((client, message), rcode, cookie, now, |own_udp_size, out| {
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
        if DENIED.is_due(client.peer().ip(), clock::unix_now()) {
            tracing::warn!(client = %client.peer().ip(), "a client is refused: allow and deny of the forwarder do not admit it");
        }
        match self.state.access.on_denied() {
            OnDenied::Drop => {
                self.counters.dropped(Dropped::Denied);
                client.respond_nothing();
            }
            OnDenied::Refused => self.reject((client, message), Rcode::REFUSED, cookie, now, |own_udp_size, out| {
                wire::write_prohibited(message, query, cookie, own_udp_size, out);
            }),
        }
    }

    /// Answers a query for a name that the LS has itself.
    #[cold]
    #[inline(never)]
    pub(super) fn answer_own(
        &mut self,
        (message, query): (&[u8], &Query<'_>),
        cookie: Option<&Cookie>,
        client: &Client,
        now: Instant,
    ) {
        let (zone, transport) = (self.state.resolver_arpa.clone(), client.transport());
        self.respond_alone((client, message), cookie, now, |own_udp_size, out| {
            let rcode = zone.respond((message, query), cookie, transport, own_udp_size, out)?;
            Some(Said { source: Source::Authority, rcode })
        });
    }

    /// Tells a client that its message is not taken.
    fn reject(
        &mut self,
        asked: (&Client, &[u8]),
        rcode: Rcode,
        cookie: Option<&Cookie>,
        now: Instant,
        write: impl FnOnce(u16, &mut Vec<u8>),
    ) {
        self.respond_alone(asked, cookie, now, |own_udp_size, out| {
            write(own_udp_size, out);
            Some(Said { source: Source::Error, rcode })
        });
    }

    /// Responds to a message of a client at once, without the engine.
    fn respond_alone(
        &mut self,
        (client, message): (&Client, &[u8]),
        cookie: Option<&Cookie>,
        now: Instant,
        write: impl FnOnce(u16, &mut Vec<u8>) -> Option<Said>,
    ) {
        let own_udp_size = self.state.edns_udp_size;
        let receiver = Receiver { client: client.ip(), cookie: cookie.map(|cookie| cookie.state), has_waited: false };
        let asked = Asked::Message(message);
        let delivery = Delivery { client, asked, receiver, queries: 1, since: now, now, resolution: None };
        self.deliver(&delivery, |out| write(own_udp_size, out));
    }

    /// Sends one response, or queues it for the end of the tick, as far as limits let it, and counts what has become of it. If `fill`
    /// says that there is none, there is none.
    fn deliver(&mut self, delivery: &Delivery<'_>, fill: impl FnOnce(&mut Vec<u8>) -> Option<Said>) {
        let &Delivery { client, receiver, now, .. } = delivery;
        let Self { way, counters, state, shared, taps, .. } = self;
        match (client, client.datagram()) {
            (Client::Tcp(responder), _) => {
                let mut message = Vec::new();
                if let Some(said) = fill(&mut message) {
                    responder.add_hop_options(delivery.asked.asks(), &mut message);
                    responder.respond_with(content_of(said), |out| {
                        delivery.end(counters, taps, responder.asked(), (said, Sent::Response), &message);
                        *out = message;
                    });
                }
            }
            (_, Some(to @ DatagramWay { listener: number, peer, local, .. })) => {
                let Way { listeners, xsks, paced, is_draining } = way;
                let (rate, is_draining) = (state.rate.as_deref(), *is_draining);
                let allowance = Allowance { rate, pacing: &shared.pacing, is_draining, now };
                let Some(Some(listener)) = listeners.get_mut(usize::from(number)) else {
                    counters.dropped(Dropped::Unsent);
                    return;
                };
                if listener.responses.is_full() {
                    listener.flush(counters);
                }
                let at = listener.asked_at(local);
                listener.push(xsks, to, |out| {
                    let Some(said) = fill(out) else { return out.clear() };
                    if taps.are_on() {
                        taps.note_question(out);
                    }
                    let fate = allowance.apply(receiver, out);
                    let is_paced = match fate {
                        Fate::Later { due, .. } => Some(paced.push(due, (number, peer, local), out)),
                        Fate::Leaves | Fate::Limited | Fate::AsksForCookie => None,
                    };
                    let is_empty = is_paced.map_or(out.is_empty(), |has_room| !has_room);
                    let sent = match (is_empty, fate) {
                        (true, _) => Sent::Nothing,
                        (false, Fate::AsksForCookie) => Sent::BadCookie,
                        (false, Fate::Leaves | Fate::Limited | Fate::Later { .. }) => Sent::Response,
                    };
                    let is_limited = match fate {
                        Fate::Leaves => false,
                        Fate::Limited | Fate::AsksForCookie => true,
                        Fate::Later { is_cut, .. } => is_cut || is_empty,
                    };
                    if is_limited {
                        shared.engines.limited.count(Limit::Rate);
                        if is_empty {
                            counters.dropped(Dropped::Limited);
                        }
                    }
                    delivery.end(counters, taps, Some(at), (said, sent), out);
                    if is_paced.is_some() {
                        out.clear();
                    }
                });
            }
            // What an operator asks has no other answer than the report.
            (_, None) => client.respond_nothing(),
        }
    }
}

/// What a response is good for, for who would keep it.
fn content_of(said: Said) -> Content {
    match said.source {
        Source::Backend | Source::Cache | Source::Stale | Source::Authority => Content::Answer,
        Source::Synthesized | Source::Error => Content::MadeUp,
    }
}

/// A response on its way out: to whom it goes, and what is told of it.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    client: &'a Client,
    asked: Asked<'a>,
    receiver: Receiver,
    /// How many queries it answers.
    queries: u32,
    /// When the first of them came.
    since: Instant,
    now: Instant,
    /// How it has come about; none if no pool was to answer.
    resolution: Option<&'a Resolution<'a>>,
}

impl<'a> Delivery<'a> {
    /// To a client that waits.
    pub(super) fn of(waiter: &'a Waiter<Client>, resolution: &'a Resolution<'a>, now: Instant) -> Self {
        let Waiter { client, form, queries, since, .. } = waiter;
        let receiver = Receiver::of(waiter, now);
        let asked = Asked::Form(form);
        Self { client, asked, receiver, queries: *queries, since: *since, now, resolution: Some(resolution) }
    }

    /// Counts and tells what has become of it.
    fn end(
        &self,
        counters: &Counters,
        taps: &WorkerTaps,
        local: Option<SocketAddr>,
        (said, sent): (Said, Sent),
        message: &[u8],
    ) {
        let said = match sent {
            Sent::Nothing => None,
            Sent::Response => Some((said.source, said.rcode)),
            Sent::BadCookie => Some((Source::Error, Rcode::BADCOOKIE)),
        };
        if let Some((source, rcode)) = said {
            counters.responses(source, rcode.0, self.queries.into());
            // A response without a pool, or for a limit, is the will of the operator.
            if matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED)
                && self.resolution.is_some_and(|resolution| !resolution.is_limited)
                && is_failure(source, rcode.0, wire::extended_errors(message))
            {
                counters.failures.add(self.queries.into());
            }
        }
        if taps.are_on() {
            let message = if said.is_some() { message } else { &[] };
            taps.told(&Told { local, ..self.told(None, message, said) });
        }
    }

    /// What is told of it. Without a question, that of the message counts, or the one that was noted.
    pub(super) fn told(
        &self,
        question: Option<&'a [u8]>,
        message: &'a [u8],
        said: Option<(Source, Rcode)>,
    ) -> Told<'a> {
        let resolution = self.resolution.map(|resolution| {
            let pool = resolution.pool;
            let backend = |(backend, kind): (BackendIndex, Kind)| (&*pool.backend(backend).name, kind);
            taps::Resolution {
                pool: &pool.config.name,
                slow_threshold: pool.state.slow_threshold(),
                winner: resolution.winner.map(backend),
                attempts: resolution.attempts,
                is_hedged: resolution.is_hedged,
            }
        });
        Told {
            side: Side::Forwarder,
            client: self.client.peer(),
            local: None,
            transport: self.client.transport(),
            since: Some(self.since),
            now: self.now,
            hash: self.resolution.map(|resolution| resolution.hash),
            question,
            message,
            said,
            queries: self.queries,
            resolution,
        }
    }
}

/// Where it stands what a client asks of its connection.
#[derive(Clone, Copy)]
enum Asked<'a> {
    /// In the form that is kept of its query.
    Form(&'a ClientForm),
    /// In its message, which was not taken.
    Message(&'a [u8]),
}

impl Asked<'_> {
    fn asks(self) -> Asks {
        match self {
            Self::Form(form) => form.edns.map(|edns| edns.asks).unwrap_or_default(),
            Self::Message(message) => wire::edns_of_rejected(message).map(|edns| Asks::of(&edns)).unwrap_or_default(),
        }
    }
}

/// What has become of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// There is none.
    Nothing,
    /// It leaves, perhaps cut.
    Response,
    /// BADCOOKIE leaves in its place.
    BadCookie,
}
