//! Responses to clients: each in its own form, within the limits, sent at the end of the tick.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::ReplyChannel;
use super::allowance::{Allowance, Receiver, ResponseFate};
use super::client::DatagramWay;
use super::outside::WorkerIo;
use super::paced::{Later, PacedResponses};
use crate::engine::{ClientHandle as _, ResponseOrigin, ResponseSummary, Waiter};
use crate::limit::{OnDenied, RefusedSources};
use crate::metrics::{Counters, DropReason, Limit, ResponseSource, is_failure};
use crate::net::from_clients::tcp::Cacheability;
use crate::net::from_clients::udp::ListenerSocket;
use crate::net::sys::batch::{BATCH, SendBatch, is_too_long};
use crate::net::sys::clock;
use crate::policy::race::{AttemptKind, BackendIndex};
use crate::taps::{self, Side, TapResponse, WorkerTaps};
use crate::wire::{self, Asks, ClientForm, Cookie, Query, Rcode};

pub(super) struct ResponseListener {
    pub(super) socket: Rc<ListenerSocket>,
    pub(super) responses: SendBatch,
}

/// The clients that the log has named, for all workers.
static DENIED: RefusedSources = RefusedSources::empty();

impl ResponseListener {
    /// Queues the response that `fill` writes for the origin of its query, unless it is empty.
    fn push(&mut self, way: DatagramWay, fill: impl FnOnce(&mut Vec<u8>)) {
        self.socket.queue(&mut self.responses, way.peer.address(), way.path, fill);
    }

    /// Sends the queued responses. Bypasses the runtime, because responses do not wait for a writable socket.
    pub(super) fn flush(&mut self, counters: &Counters) {
        let mut too_long = 0_u64;
        self.responses.flush(&*self.socket, |index, error| match is_too_long(error) {
            true => too_long |= 1 << index,
            false => counters.dropped(DropReason::Unsent),
        });
        // RFC 9715 section 3.1 (R5): a response that is too large is sent with TC.
        while too_long != 0 {
            let index = too_long.trailing_zeros() as usize;
            too_long &= too_long - 1;
            if self.responses.send_again(index, &*self.socket, wire::shorten).is_err() {
                counters.dropped(DropReason::Unsent);
            }
        }
    }
}

// One bit for each response of a batch.
const _: () = assert!(BATCH <= u64::BITS as usize);

pub(super) struct ClientOutput {
    pub(super) listeners: Vec<Option<ResponseListener>>,
    pub(super) paced: PacedResponses,
    pub(super) is_draining: bool,
}

impl ClientOutput {
    pub(super) fn asked_at(&self, way: DatagramWay) -> Option<SocketAddr> {
        let listener = self.listeners.get(usize::from(way.listener))?.as_ref()?;
        Some(listener.socket.asked_at(way.path))
    }

    pub(super) fn flush(&mut self, counters: &Counters, now: Instant) {
        let Self { listeners, paced, is_draining } = self;
        let until = if *is_draining { paced.last_due().max(Some(now)).unwrap_or(now) } else { now };
        while let Some(Later { way, message, .. }) = paced.pop_due(until) {
            let Some(Some(listener)) = listeners.get_mut(usize::from(way.listener)) else { continue };
            if listener.responses.is_full() {
                listener.flush(counters);
            }
            listener.push(way, |out| out.extend_from_slice(&message));
        }
        for listener in listeners.iter_mut().flatten().filter(|listener| !listener.responses.is_empty()) {
            listener.flush(counters);
        }
    }
}

impl WorkerIo {
    pub(super) fn refuse(
        &mut self,
        message: &[u8],
        rcode: Rcode,
        cookie: Option<&Cookie>,
        client: &ReplyChannel,
        now: Instant,
    ) {
        self.reject((client, message), rcode, cookie, now, |own_udp_size, out| {
            wire::write_error(message, rcode, cookie, own_udp_size, out);
        });
    }

    pub(super) fn prohibit(
        &mut self,
        message: &[u8],
        query: Option<&Query<'_>>,
        cookie: Option<&Cookie>,
        client: &ReplyChannel,
        now: Instant,
    ) {
        if DENIED.is_due(client.peer().ip(), clock::unix_now()) {
            tracing::warn!(client = %client.peer().ip(), "a client is refused: allow and deny of the forwarder do not admit it");
        }
        match self.state.access.on_denied() {
            OnDenied::Drop => {
                self.counters.dropped(DropReason::Denied);
                client.respond_nothing();
            }
            OnDenied::Refused => self.reject((client, message), Rcode::REFUSED, cookie, now, |own_udp_size, out| {
                wire::write_prohibited(message, query, cookie, own_udp_size, out);
            }),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn answer_own(
        &mut self,
        (message, query): (&[u8], &Query<'_>),
        cookie: Option<&Cookie>,
        client: &ReplyChannel,
        now: Instant,
    ) {
        let (zone, transport) = (self.state.resolver_arpa.clone(), client.transport());
        self.respond_alone((client, message), cookie, now, |own_udp_size, out| {
            let rcode = zone.respond((message, query), cookie, transport, own_udp_size, out)?;
            Some(ResponseSummary { source: ResponseSource::Authority, rcode })
        });
    }

    fn reject(
        &mut self,
        asked: (&ReplyChannel, &[u8]),
        rcode: Rcode,
        cookie: Option<&Cookie>,
        now: Instant,
        write: impl FnOnce(u16, &mut Vec<u8>),
    ) {
        self.respond_alone(asked, cookie, now, |own_udp_size, out| {
            write(own_udp_size, out);
            Some(ResponseSummary { source: ResponseSource::Error, rcode })
        });
    }

    fn respond_alone(
        &mut self,
        (client, message): (&ReplyChannel, &[u8]),
        cookie: Option<&Cookie>,
        now: Instant,
        write: impl FnOnce(u16, &mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        let own_udp_size = self.state.edns_udp_size;
        let receiver = Receiver { client: client.ip(), cookie: cookie.map(|cookie| cookie.state), has_waited: false };
        let asked = OptionsSource::Message(message);
        let delivery = Delivery { client, asked, receiver, queries: 1, since: now, now, resolution: None };
        self.deliver(&delivery, |out| write(own_udp_size, out));
    }

    /// Sends or queues one response within the limits and counts the result; none if `fill` returns `None`.
    pub(super) fn deliver(
        &mut self,
        delivery: &Delivery<'_>,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        let &Delivery { client, receiver, now, .. } = delivery;
        let Self { way, counters, state, shared, taps, .. } = self;
        match (client, client.datagram()) {
            (ReplyChannel::Tcp(responder), _) => {
                let mut message = Vec::new();
                if let Some(said) = fill(&mut message) {
                    responder.add_hop_options(delivery.asked.asks(), &mut message);
                    responder.respond_with(content_of(said), |out| {
                        delivery.end(counters, taps, responder.asked(), (said, SendOutcome::Response), &message);
                        *out = message;
                    });
                }
            }
            (_, Some(to)) => {
                let ClientOutput { listeners, paced, is_draining } = way;
                let (rate, is_draining) = (state.rate.as_deref(), *is_draining);
                let allowance = Allowance { rate, pacing: &shared.pacing, is_draining, now };
                let Some(Some(listener)) = listeners.get_mut(usize::from(to.listener)) else {
                    counters.dropped(DropReason::Unsent);
                    return;
                };
                if listener.responses.is_full() {
                    listener.flush(counters);
                }
                let at = listener.socket.asked_at(to.path);
                listener.push(to, |out| {
                    let Some(said) = fill(out) else { return out.clear() };
                    if taps.are_on() {
                        taps.note_question(out);
                    }
                    let fate = allowance.apply(receiver, out);
                    let is_paced = match fate {
                        ResponseFate::Later { due, .. } => Some(paced.push(due, to, out)),
                        ResponseFate::Leaves | ResponseFate::Limited | ResponseFate::AsksForCookie => None,
                    };
                    let is_empty = is_paced.map_or(out.is_empty(), |has_room| !has_room);
                    let sent = match (is_empty, fate) {
                        (true, _) => SendOutcome::Nothing,
                        (false, ResponseFate::AsksForCookie) => SendOutcome::BadCookie,
                        (false, ResponseFate::Leaves | ResponseFate::Limited | ResponseFate::Later { .. }) => {
                            SendOutcome::Response
                        }
                    };
                    let is_limited = match fate {
                        ResponseFate::Leaves => false,
                        ResponseFate::Limited | ResponseFate::AsksForCookie => true,
                        ResponseFate::Later { is_cut, .. } => is_cut || is_empty,
                    };
                    if is_limited {
                        shared.engines.limited.count(Limit::Rate);
                        if is_empty {
                            counters.dropped(DropReason::Limited);
                        }
                    }
                    delivery.end(counters, taps, Some(at), (said, sent), out);
                    if is_paced.is_some() {
                        out.clear();
                    }
                });
            }
            // For an operator the report is the only answer.
            (_, None) => client.respond_nothing(),
        }
    }
}

fn content_of(said: ResponseSummary) -> Cacheability {
    match said.source {
        ResponseSource::Backend | ResponseSource::Cache | ResponseSource::Stale | ResponseSource::Authority => {
            Cacheability::Answer
        }
        ResponseSource::Synthesized | ResponseSource::Error => Cacheability::MadeUp,
    }
}

/// A response in delivery: its destination, and the data for taps.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    client: &'a ReplyChannel,
    asked: OptionsSource<'a>,
    receiver: Receiver,
    queries: u32,
    since: Instant,
    now: Instant,
    /// The history of the race; `None` if no pool was involved.
    resolution: Option<&'a ResponseOrigin<'a>>,
}

impl<'a> Delivery<'a> {
    pub(super) fn of(waiter: &'a Waiter<ReplyChannel>, resolution: &'a ResponseOrigin<'a>, now: Instant) -> Self {
        let Waiter { client, form, queries, since, .. } = waiter;
        let receiver = Receiver::of(waiter, now);
        let asked = OptionsSource::Form(form);
        Self { client, asked, receiver, queries: *queries, since: *since, now, resolution: Some(resolution) }
    }

    fn end(
        &self,
        counters: &Counters,
        taps: &WorkerTaps,
        local: Option<SocketAddr>,
        (said, sent): (ResponseSummary, SendOutcome),
        message: &[u8],
    ) {
        let said = match sent {
            SendOutcome::Nothing => None,
            SendOutcome::Response => Some((said.source, said.rcode)),
            SendOutcome::BadCookie => Some((ResponseSource::Error, Rcode::BADCOOKIE)),
        };
        if let Some((source, rcode)) = said {
            counters.responses(source, rcode.0, self.queries.into());
            // A response without a pool, or because of a limit, is the operator's intent.
            if matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED)
                && self.resolution.is_some_and(|resolution| !resolution.is_limited)
                && is_failure(source, rcode, wire::extended_errors(message))
            {
                counters.failures.add(self.queries.into());
            }
        }
        if taps.are_on() {
            let message = if said.is_some() { message } else { &[] };
            taps.response(&TapResponse { local, ..self.tapped(None, message, said) });
        }
    }

    /// Returns the report for taps. Without `question`, that of the message counts, or the recorded one.
    pub(super) fn tapped(
        &self,
        question: Option<&'a [u8]>,
        message: &'a [u8],
        said: Option<(ResponseSource, Rcode)>,
    ) -> TapResponse<'a> {
        let resolution = self.resolution.map(|resolution| {
            let pool = resolution.pool;
            let backend = |(backend, kind): (BackendIndex, AttemptKind)| (&*pool.backend(backend).name, kind);
            taps::TapResolution {
                pool: &pool.config.name,
                slow_threshold: pool.state.slow_threshold(),
                winner: resolution.winner.map(backend),
                attempts: resolution.attempts,
                is_hedged: resolution.is_hedged,
            }
        });
        TapResponse {
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

/// The source of a client's connection options.
#[derive(Clone, Copy)]
enum OptionsSource<'a> {
    Form(&'a ClientForm),
    Message(&'a [u8]),
}

impl OptionsSource<'_> {
    fn asks(self) -> Asks {
        match self {
            Self::Form(form) => form.edns.map(|edns| edns.asks).unwrap_or_default(),
            Self::Message(message) => wire::edns_of_rejected(message).map(|edns| Asks::of(&edns)).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendOutcome {
    Nothing,
    Response,
    /// BADCOOKIE was sent instead.
    BadCookie,
}
