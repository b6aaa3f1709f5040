//! Responses to clients: each in its own form, within the limits, sent at the end of the tick.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::{Asks, ClientForm, Name, Query, Question, Rcode};
use engine::state::ForwarderRules;
use engine::{ClientHandle as _, ResponseOrigin, ResponseSummary, Waiter};
use hedge::race::{AttemptKind, BackendIndex};
use limit::{OnDenied, RefusedSources};
use metrics::{Counters, DropReason, Limit, ResponseSource, is_failure};
use net::from_clients::tcp::{Cacheability, Responder};
use net::from_clients::udp::ListenerSocket;
use net::sys::batch::{BATCH, SendBatch, is_too_long};
use net::sys::clock;

use super::ReplyChannel;
use super::allowance::{Allowance, Receiver, ResponseFate};
use super::client::DatagramWay;
use super::derived::{FollowUp, deliver_derived};
use super::outside::WorkerIo;
use super::paced::{PacedResponse, PacedResponses};
use super::receive::ReceivedMessage;
use crate::control::observe::taps::{self, Side, TapOrigin, TapResponse, WorkerTaps};

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
        // RFC 9715 section 3.1 (R4): a response that the system refuses as too long is sent with TC.
        while too_long != 0 {
            let index = too_long.trailing_zeros() as usize;
            too_long &= too_long - 1;
            if self.responses.send_again(index, &*self.socket, dns::shorten).is_err() {
                counters.dropped(DropReason::Unsent);
            }
        }
    }
}

/// A time within which every delayed response is due.
const MAX_PACE: Duration = Duration::from_secs(3600);

// One bit for each response of a batch.
const _: () = assert!(BATCH <= u64::BITS as usize);

#[derive(Default)]
pub(super) struct ClientOutput {
    pub(super) listeners: Vec<Option<ResponseListener>>,
    pub(super) paced: PacedResponses,
    pub(super) is_draining: bool,
    /// Queries that hedgerow made in this tick.
    pub(super) follow_ups: Vec<FollowUp>,
}

impl ClientOutput {
    pub(super) fn asked_at(&self, way: DatagramWay) -> Option<SocketAddr> {
        let listener = self.listeners.get(usize::from(way.listener))?.as_ref()?;
        Some(listener.socket.asked_at(way.path))
    }

    pub(super) fn flush(&mut self, counters: &Counters, now: Instant) {
        let Self { listeners, paced, is_draining, .. } = self;
        let until = if *is_draining { now + MAX_PACE } else { now };
        while let Some(PacedResponse { way, message }) = paced.pop_due(until) {
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
    pub(super) fn refuse(&mut self, asked: &ReceivedMessage<'_>, rcode: Rcode, now: Instant) {
        self.respond_alone(asked, now, |own_udp_size, out| {
            dns::write_error(asked.message, rcode, asked.cookie().as_ref(), own_udp_size, out);
            Some(ResponseSummary { source: ResponseSource::Error, rcode })
        });
    }

    pub(super) fn prohibit(&mut self, asked: &ReceivedMessage<'_>, query: Option<&Query<'_>>, now: Instant) {
        let client = &asked.client;
        if DENIED.is_due(client.peer().ip(), clock::unix_now()) {
            tracing::warn!(client = %client.peer().ip(), "a client is refused: allow and deny of the forwarder do not admit it");
        }
        match self.state.access.on_denied() {
            OnDenied::Drop => {
                self.counters.dropped(DropReason::Denied);
                client.respond_nothing();
            }
            OnDenied::Refused => self.respond_alone(asked, now, |own_udp_size, out| {
                dns::write_prohibited(asked.message, query, asked.cookie().as_ref(), own_udp_size, out);
                Some(ResponseSummary { source: ResponseSource::Error, rcode: Rcode::REFUSED })
            }),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn answer_own(&mut self, asked: &ReceivedMessage<'_>, query: &Query<'_>, now: Instant) {
        let (state, transport) = (Arc::clone(&self.state), asked.client.transport());
        self.respond_alone(asked, now, |_, out| {
            let rcode = state.respond_own((asked.message, query), asked.cookie().as_ref(), transport, out)?;
            Some(ResponseSummary { source: ResponseSource::Authority, rcode })
        });
    }

    pub(super) fn respond_alone(
        &mut self,
        asked: &ReceivedMessage<'_>,
        now: Instant,
        write: impl FnOnce(u16, &mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        let own_udp_size = self.state.edns_udp_size;
        let (client, cookie) = (&asked.client, asked.cookie().map(|cookie| cookie.state));
        let receiver = Receiver { client: client.ip(), cookie, has_waited: false };
        let asked = OptionsSource::Message(asked.message);
        let delivery = Delivery { client, asked, receiver, queries: 1, since: now, now, resolution: None };
        self.deliver(&delivery, |out| write(own_udp_size, out));
    }

    /// Sends or queues one response within the limits and counts the result; none if `fill` returns `None`.
    pub(super) fn deliver(
        &mut self,
        delivery: &Delivery<'_>,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        match delivery.client {
            ReplyChannel::Tcp(responder) => self.deliver_by_stream(responder, delivery, fill),
            ReplyChannel::Derived(derived) => {
                let mut message = Vec::new();
                match fill(&mut message) {
                    Some(summary) => deliver_derived(self, derived, delivery, summary, &message),
                    None => derived.client().respond_nothing(),
                }
            }
            ReplyChannel::Admin(operator) => {
                let mut message = Vec::new();
                if let Some(summary) = fill(&mut message) {
                    operator.take_response(delivery.since, delivery.now, summary, &message);
                }
            }
            ReplyChannel::Udp(to) => self.deliver_by_datagram(*to, delivery, fill),
            ReplyChannel::Proxied(proxied) => self.deliver_by_datagram(proxied.way, delivery, fill),
        }
    }

    fn deliver_by_stream(
        &mut self,
        responder: &Responder,
        delivery: &Delivery<'_>,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        let mut message = Vec::new();
        let Some(summary) = fill(&mut message) else { return };
        responder.add_hop_options(delivery.asked.asks(), &mut message);
        responder.respond_with(content_of(summary), |out| {
            let said = Some((summary.source, summary.rcode));
            delivery.end(&self.counters, (&self.taps, self.state.rules.as_deref()), responder.asked(), said, &message);
            *out = message;
        });
    }

    fn deliver_by_datagram(
        &mut self,
        to: DatagramWay,
        delivery: &Delivery<'_>,
        fill: impl FnOnce(&mut Vec<u8>) -> Option<ResponseSummary>,
    ) {
        let Self { way: ClientOutput { listeners, paced, is_draining, .. }, counters, state, shared, taps, .. } = self;
        let (rate, is_draining) = (state.rate.as_deref(), *is_draining);
        let allowance = Allowance { rate, pacing: &shared.pacing, is_draining, now: delivery.now };
        let Some(Some(listener)) = listeners.get_mut(usize::from(to.listener)) else {
            return counters.dropped(DropReason::Unsent);
        };
        if listener.responses.is_full() {
            listener.flush(counters);
        }
        let at = listener.socket.asked_at(to.path);
        listener.push(to, |out| {
            let Some(ResponseSummary { source, rcode }) = fill(out) else { return out.clear() };
            if taps.are_on() && (out.is_empty() || allowance.may_drop(delivery.receiver)) {
                taps.note_question(out);
            }
            let fate = allowance.apply(delivery.receiver, out);
            let (said, is_limited) = match fate {
                ResponseFate::Later { due, is_cut } if paced.push(due, to, out) => (Some((source, rcode)), is_cut),
                ResponseFate::Later { .. } => (None, true),
                ResponseFate::AsksForCookie => (Some((ResponseSource::Error, Rcode::BADCOOKIE)), true),
                ResponseFate::Leaves | ResponseFate::Limited => {
                    ((!out.is_empty()).then_some((source, rcode)), fate == ResponseFate::Limited)
                }
            };
            if is_limited {
                shared.engines.limited.count(Limit::Rate);
                if said.is_none() {
                    counters.dropped(DropReason::Limited);
                }
            }
            delivery.end(counters, (taps, state.rules.as_deref()), Some(at), said, out);
            if matches!(fate, ResponseFate::Later { .. }) {
                out.clear();
            }
        });
    }
}

fn content_of(said: ResponseSummary) -> Cacheability {
    match said.source {
        ResponseSource::Backend | ResponseSource::Cache | ResponseSource::Stale | ResponseSource::Authority => {
            Cacheability::Answer
        }
        // A rule may depend on the client.
        ResponseSource::Synthesized | ResponseSource::Error | ResponseSource::Rule => Cacheability::MadeUp,
    }
}

/// A response in delivery: its destination, and the data for taps.
#[derive(Clone, Copy)]
pub(super) struct Delivery<'a> {
    pub(super) client: &'a ReplyChannel,
    pub(super) asked: OptionsSource<'a>,
    pub(super) receiver: Receiver,
    pub(super) queries: u32,
    pub(super) since: Instant,
    pub(super) now: Instant,
    /// The history of the race; `None` if no pool was involved.
    pub(super) resolution: Option<&'a ResponseOrigin<'a>>,
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
        (taps, rules): (&WorkerTaps, Option<&ForwarderRules>),
        local: Option<SocketAddr>,
        said: Option<(ResponseSource, Rcode)>,
        message: &[u8],
    ) {
        if let Some((source, rcode)) = said {
            counters.responses(source, rcode.0, self.queries.into());
            // A response without a pool, or because of a limit, is the operator's intent.
            if matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED)
                && self.resolution.is_some_and(|resolution| !resolution.is_limited)
                && is_failure(source, rcode, dns::extended_errors(message))
            {
                counters.failures.add(self.queries.into());
            }
        }
        if taps.are_on() {
            let message = if said.is_some() { message } else { &[] };
            let tapped = self.tapped(None, message, said);
            let rule = rules.and_then(|rules| self.rule(rules, message));
            let origin = TapOrigin { rule, ..tapped.origin };
            taps.response(&TapResponse { local, origin, ..tapped });
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
            origin: TapOrigin { rule: None, resolution },
        }
    }

    /// Returns the rule that the query matched. It is looked up again, so that queries need not carry it: a
    /// reload meanwhile may have changed it.
    #[cold]
    fn rule<'r>(&self, rules: &'r ForwarderRules, response: &[u8]) -> Option<&'r str> {
        let question = Question::read(response)?;
        let mut folded = [0; Name::MAX_LEN];
        let qname = folded.get_mut(..question.qname().len())?;
        qname.copy_from_slice(question.qname());
        dns::fold(qname);
        let arrival = (self.client.arrival(), self.client.transport());
        let rule = rules.first_match(self.client.ip(), arrival, (qname, question.qtype()))?;
        rules.get(rule).map(|rule| &*rule.name)
    }
}

/// The source of a client's connection options.
#[derive(Clone, Copy)]
pub(super) enum OptionsSource<'a> {
    Form(&'a ClientForm),
    Message(&'a [u8]),
}

impl OptionsSource<'_> {
    fn asks(self) -> Asks {
        match self {
            Self::Form(form) => form.edns.map(|edns| edns.asks).unwrap_or_default(),
            Self::Message(message) => dns::edns_of_rejected(message).map(|edns| Asks::of(&edns)).unwrap_or_default(),
        }
    }
}
