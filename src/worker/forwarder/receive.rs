//! Receives queries: reads each message once, and prepares the engine's input for a few at a time.
//!
//! ```text
//!   first pass    every message: read it, look at its cookie, fold its question, hash that, find its pool
//!   between       the CPU prefetches the cache memory for all of them (engine/cache/memory_prefetch.rs)
//!   second pass   every message, in the order in which they came: refuse it, or pass it to the engine
//! ```
//!
//! Datagrams come in batches; other queries are batches of one. No decision depends on the rest of a batch.

use std::cell::LazyCell;
use std::iter;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use config::PoolIndex;
use dns::{Cookie, MalformedCookie, Query, QueryRejection, QuestionFlags, Rcode, RecordType, Transport};
use engine::explanation::{Event, Plan};
use engine::state::{ForwarderState, Target};
use engine::{
    ClientHandle as _, HashedQuestion, LookupReason, QueryPath, ResponseSummary, ValidQuery, prefetch_memory,
};
use limit::{Cookies, OwnAddresses};
use metrics::{DropReason, ResponseSource};
use net::from_clients::tcp::Responder;
use net::from_clients::udp::ListenerSocket;
use net::sys::batch::Datagram;
use net::sys::clock;

use super::client::{DatagramWay, ProxiedClient};
use super::derived::FollowUp;
use super::dns64;
use super::explain::{ExplainRequest, ExplainedRace, Operator, explained_query};
use super::rules::{RuleReader, RuleResult, answer_by_rule, explained_rule};
use super::{Forwarder, HandOver, ReplyChannel};
use crate::control::observe::taps::{Side, TapQuery};

impl Forwarder {
    /// Handles datagrams of a listener.
    pub fn take_datagrams<'d>(&mut self, listener: u16, datagrams: impl Iterator<Item = Datagram<'d>>, now: Instant) {
        let listening = self.outside.way.listeners.get(usize::from(listener)).and_then(Option::as_ref);
        if let Some(listening) = listening.filter(|listening| listening.socket.proxies().are_any()) {
            let socket = Rc::clone(&listening.socket);
            return self.take_proxied(listener, &socket, datagrams, now);
        }
        let messages = datagrams.map(|Datagram { bytes, peer, path, .. }| {
            (bytes, ReplyChannel::Udp(DatagramWay { listener, peer: peer.into(), path }))
        });
        self.take(messages, LookupReason::Query, now);
    }

    #[cold]
    fn take_proxied<'d>(
        &mut self,
        listener: u16,
        socket: &ListenerSocket,
        datagrams: impl Iterator<Item = Datagram<'d>>,
        now: Instant,
    ) {
        let counters = Arc::clone(&self.outside.counters);
        let messages = datagrams.filter_map(|Datagram { bytes, peer, path, .. }| {
            let Some((client, message)) = socket.proxies().unwrap(peer, bytes) else {
                counters.dropped(DropReason::Proxy);
                return None;
            };
            let way = DatagramWay { listener, peer: peer.into(), path };
            let client = match client == peer {
                true => ReplyChannel::Udp(way),
                false => ReplyChannel::Proxied(Arc::new(ProxiedClient { client, way })),
            };
            Some((message, client))
        });
        self.take(messages, LookupReason::Query, now);
    }

    /// Handles a query that came by TCP.
    pub fn take_stream_query(&mut self, message: &[u8], responder: &Responder, now: Instant) {
        let client = ReplyChannel::Tcp(Arc::new(responder.clone()));
        self.take(iter::once((message, client)), LookupReason::Query, now);
    }

    /// Handles a query from another worker.
    pub fn take_handed_over(&mut self, query: &HandOver, now: Instant) {
        self.outside.shared.on_the_way[usize::from(self.outside.me.0)].fetch_sub(1, Relaxed);
        self.take(iter::once((&query.message[..], query.client.clone())), LookupReason::HandedOver, now);
    }

    /// Runs a question for an operator and reports its events. One question runs at a time.
    pub fn explain(&mut self, asked: ExplainRequest, now: Instant) {
        let ExplainRequest { name, qtype, client, is_fresh, is_handed_over, events } = asked;
        let operator = Operator(events);
        let udp_size = self.outside.state.edns_udp_size;
        let message = explained_query(&name, qtype, udp_size);
        let Ok(query) = dns::read_query(&message) else { return operator.send(Event::NoResponse) };
        let mut folded = Vec::new();
        let flags = query.fold_question(&mut folded);
        let hash = self.outside.shared.engines.hash(&folded);
        let question = HashedQuestion { octets: &folded, flags, hash };
        let state = Arc::clone(&self.outside.state);
        let by_rule = match &state.rules {
            Some(rules) => explained_rule(rules, &client, (question.qname(), qtype), &operator),
            None => RuleResult::None,
        };
        if let RuleResult::Made(rule) = by_rule {
            let client = ReplyChannel::Admin(operator);
            let made = ReceivedContent::Ruled { query, rule };
            let asked = ReceivedMessage { message: &message, client, cookie: Ok(None), content: made };
            answer_by_rule(&mut self.outside, &asked, &query, rule, now);
            return self.end_tick(now);
        }
        if matches!(by_rule, RuleResult::None) && state.resolve(question.qname(), qtype) == Target::Own {
            operator.send(Event::Own(state.own_source(question.qname(), qtype)));
            let mut response = Vec::new();
            if let Some(rcode) = state.respond_own((&message, &query), None, Transport::Tcp, &mut response) {
                let summary = ResponseSummary { source: ResponseSource::Authority, rcode };
                operator.take_response(now, now, summary, &response);
            }
            return;
        }
        let (route, pool) = match (by_rule, state.routes.route(question.qname())) {
            (RuleResult::Pool(pool), _) => (Plan::BY_RULE.to_owned(), pool),
            (_, Some((suffix, pool))) => (dns::display_name(suffix).to_string(), pool),
            (_, None) => return operator.send(Event::NoRoute),
        };
        let pool_name = self.outside.state.pools[pool.0].config.name.clone();
        self.outside.explained = Some(ExplainedRace { hash, operator: operator.clone() });
        let reason = if is_fresh { LookupReason::Ignore } else { LookupReason::HandedOver };
        let (message, query) = (&message[..], &query);
        let valid = ValidQuery { message, query, cookie: None, question, pool, reason, subnet: None, is_handed_over };
        let client = ReplyChannel::Admin(operator.clone());
        match self.tick(now).explain(valid, client) {
            Ok(mut plan) => {
                self.outside.counters.explained.increment();
                plan.route = route;
                operator.send(Event::Planned { pool: pool_name, plan: Box::new(plan) });
            }
            Err(owner) => operator.send(Event::Elsewhere(owner.0)),
        }
        self.end_tick(now);
    }

    fn take<'m>(
        &mut self,
        messages: impl Iterator<Item = (&'m [u8], ReplyChannel)>,
        reason: LookupReason,
        now: Instant,
    ) {
        self.take_in_tick(messages, reason, now);
        self.end_tick(now);
    }

    /// Takes a query that hedgerow made in this tick, if there is one.
    pub(super) fn take_follow_up(&mut self, now: Instant) -> bool {
        let Some(FollowUp { message, client }) = self.outside.way.follow_ups.pop() else { return false };
        self.take_in_tick(iter::once((&message[..], client)), LookupReason::Query, now);
        true
    }

    /// Handles messages within a tick, which the caller ends.
    fn take_in_tick<'m>(
        &mut self,
        mut messages: impl Iterator<Item = (&'m [u8], ReplyChannel)>,
        reason: LookupReason,
        now: Instant,
    ) {
        let mut folded = std::mem::take(&mut self.folded);
        // The time of day, needed only for cookies, which few clients have.
        let today = LazyCell::new(clock::unix_now_serial as fn() -> u32);
        while self.take_some(&mut messages, &mut folded, reason, &today, now) {}
        self.folded = folded;
    }

    /// Handles the next few messages. Returns true if there may be more. `folded` gets their questions.
    fn take_some<'m>(
        &mut self,
        messages: &mut impl Iterator<Item = (&'m [u8], ReplyChannel)>,
        folded: &mut Vec<u8>,
        reason: LookupReason,
        today: &LazyCell<u32>,
        now: Instant,
    ) -> bool {
        let mut arrivals = [const { None }; TOGETHER];
        folded.clear();
        let (state, shared) = (&*self.outside.state, &*self.outside.shared.engines);
        let is_counted = reason == LookupReason::Query;
        let rules = state.rules.as_deref().map(|rules| RuleReader { rules, worker: self.outside.me, is_counted });
        let reader = MessageReader { shared, own: &self.own, state, rules, today };
        for (arrival, (message, client)) in arrivals.iter_mut().zip(messages) {
            *arrival = Some(reader.read(message, client, folded));
        }
        let questions = arrivals.iter().flatten().filter_map(|arrival| arrival.asked(folded));
        prefetch_memory(&self.outside.state, questions);
        for arrival in arrivals.iter().flatten() {
            self.take_one(arrival, folded, reason, now);
        }
        arrivals[TOGETHER - 1].is_some()
    }

    /// Handles one message: rejects it, answers it, or passes it to the engine.
    fn take_one(&mut self, arrival: &ReceivedMessage<'_>, folded: &[u8], reason: LookupReason, now: Instant) {
        let ReceivedMessage { message, client, cookie, content } = arrival;
        #[cfg(feature = "faults")]
        net::faults::on_message(message);
        // The other worker has already counted the query; one that hedgerow made is none of a client.
        let is_new = reason == LookupReason::Query && !client.is_derived();
        if is_new && !matches!(content, ReceivedContent::Nothing(_)) {
            self.outside.counters.query(client.transport());
            self.outside.counters.cookie(cookie);
            if self.outside.taps.take_messages() {
                self.report_received(arrival, folded, now);
            }
        }
        match content {
            ReceivedContent::Nothing(reason) => {
                self.outside.counters.dropped(*reason);
                client.respond_nothing();
            }
            ReceivedContent::Refused(rcode) => self.outside.refuse(arrival, *rcode, now),
            ReceivedContent::Prohibited(query) => self.outside.prohibit(arrival, query.as_ref(), now),
            ReceivedContent::Own(query) => self.outside.answer_own(arrival, query, now),
            ReceivedContent::Ruled { query, rule } => answer_by_rule(&mut self.outside, arrival, query, *rule, now),
            ReceivedContent::Query { query, pool, question } => {
                let state = &self.outside.state;
                if query.is_signed && message.len() > usize::from(state.edns_udp_size) {
                    // No part of the query can be left out, and it does not fit into a datagram.
                    return self.outside.refuse(arrival, Rcode::FORMERR, now);
                }
                let question = question.hashed(folded);
                if let Some(prefix) = state.pools[pool.0].config.rules.passing.dns64
                    && dns64::take(&mut self.outside, arrival, (query, question.qname()), (*pool, prefix), now)
                {
                    return;
                }
                let (pool, cookie, is_handed_over) = (*pool, arrival.cookie(), reason == LookupReason::HandedOver);
                let valid = ValidQuery { message, query, cookie, question, pool, reason, subnet: None, is_handed_over };
                if let QueryPath::Elsewhere(owner, client) = self.tick(now).on_query(valid, client.clone()) {
                    self.outside.hand_over(owner, message, client);
                }
            }
        }
    }

    fn report_received(&self, arrival: &ReceivedMessage<'_>, folded: &[u8], now: Instant) {
        let ReceivedMessage { message, client, .. } = arrival;
        let local = match client {
            ReplyChannel::Udp(_) | ReplyChannel::Proxied(_) => {
                client.datagram().and_then(|way| self.outside.way.asked_at(way))
            }
            ReplyChannel::Tcp(_) | ReplyChannel::Derived(_) | ReplyChannel::Admin(_) => client.connected_to(),
        };
        let hash = arrival.asked(folded).map(|(_, question)| question.hash);
        let (client, transport) = (client.peer(), client.transport());
        self.outside.taps.taken(&TapQuery { side: Side::Forwarder, client, local, transport, now, hash, message });
    }
}

pub(super) struct ReceivedMessage<'m> {
    pub(super) message: &'m [u8],
    pub(super) client: ReplyChannel,
    cookie: Result<Option<Cookie>, MalformedCookie>,
    content: ReceivedContent<'m>,
}

impl ReceivedMessage<'_> {
    /// Returns the cookie of the response.
    pub(super) fn cookie(&self) -> Option<Cookie> {
        self.cookie.ok().flatten()
    }

    fn asked<'f>(&self, folded: &'f [u8]) -> Option<(PoolIndex, HashedQuestion<'f>)> {
        match &self.content {
            ReceivedContent::Query { pool, question, query: _ } => Some((*pool, question.hashed(folded))),
            ReceivedContent::Nothing(_)
            | ReceivedContent::Refused(_)
            | ReceivedContent::Prohibited(_)
            | ReceivedContent::Own(_)
            | ReceivedContent::Ruled { .. } => None,
        }
    }
}

enum ReceivedContent<'m> {
    Nothing(DropReason),
    Refused(Rcode),
    /// From a client without access; with its query, if it is one.
    Prohibited(Option<Query<'m>>),
    Own(Query<'m>),
    /// A query for which the rule with this index makes the response.
    Ruled {
        query: Query<'m>,
        rule: usize,
    },
    Query {
        query: Query<'m>,
        pool: PoolIndex,
        question: FoldedQuestion,
    },
}

struct FoldedQuestion {
    at: Range<usize>,
    flags: QuestionFlags,
    hash: u64,
}

impl FoldedQuestion {
    fn hashed<'f>(&self, folded: &'f [u8]) -> HashedQuestion<'f> {
        HashedQuestion { octets: folded.get(self.at.clone()).unwrap_or_default(), flags: self.flags, hash: self.hash }
    }
}

struct MessageReader<'a> {
    shared: &'a engine::SharedEngineState,
    own: &'a OwnAddresses,
    state: &'a ForwarderState,
    rules: Option<RuleReader<'a>>,
    today: &'a LazyCell<u32>,
}

impl MessageReader<'_> {
    fn read<'m>(&self, message: &'m [u8], client: ReplyChannel, folded: &mut Vec<u8>) -> ReceivedMessage<'m> {
        if let Some(DatagramWay { peer, path, .. }) = client.datagram()
            && self.own.are_source(peer.ip(), peer.port(), path.local().map(|local| local.ip()))
        {
            return ReceivedMessage {
                message,
                client,
                cookie: Ok(None),
                content: ReceivedContent::Nothing(DropReason::Source),
            };
        }
        let read = dns::read_query(message);
        let answer = |cookies: &Cookies| cookies.answer(&read, message, client.ip(), || **self.today);
        let cookie = self.state.cookies.as_deref().map_or(Ok(None), answer);
        // The client of a derived query was admitted before.
        let is_admitted = client.is_derived() || self.state.access.admits(client.ip());
        let content = match cookie {
            Ok(_) => self.content(read, &client, is_admitted, folded),
            Err(MalformedCookie) if !is_admitted => ReceivedContent::Prohibited(None),
            // RFC 7873 section 5.2.2.
            Err(MalformedCookie) => ReceivedContent::Refused(Rcode::FORMERR),
        };
        ReceivedMessage { message, client, cookie, content }
    }

    fn content<'m>(
        &self,
        read: Result<Query<'m>, QueryRejection>,
        client: &ReplyChannel,
        is_admitted: bool,
        folded: &mut Vec<u8>,
    ) -> ReceivedContent<'m> {
        let query = match read {
            Ok(query) if !is_admitted => return ReceivedContent::Prohibited(Some(query)),
            Ok(query) => query,
            // No answer to these is safe: two servers could answer each other forever.
            Err(QueryRejection::Short | QueryRejection::NotAQuery) => {
                return ReceivedContent::Nothing(DropReason::Malformed);
            }
            Err(QueryRejection::Answer(_)) if !is_admitted => return ReceivedContent::Prohibited(None),
            Err(QueryRejection::Answer(rcode)) => return ReceivedContent::Refused(rcode),
        };
        // A zone transfer is between a secondary and its primary; through a balancer it would mix zones.
        if matches!(query.question.qtype(), RecordType::AXFR | RecordType::IXFR) {
            return ReceivedContent::Refused(Rcode::REFUSED);
        }
        let start = folded.len();
        let flags = query.fold_question(folded);
        let at = start..folded.len();
        let octets = folded.get(at.clone()).unwrap_or_default();
        let question = FoldedQuestion { flags, hash: self.shared.hash(octets), at };
        if let Some(pool) = client.pinned_pool()
            && let Some(pool) = self.state.pools.iter().position(|known| known.id == pool)
        {
            return ReceivedContent::Query { query, pool: PoolIndex(pool), question };
        }
        if let Some(rules) = &self.rules {
            match rules.result(client, &query, question.hashed(folded).qname()) {
                RuleResult::Made(rule) => return ReceivedContent::Ruled { query, rule },
                RuleResult::Pool(pool) => return ReceivedContent::Query { query, pool, question },
                RuleResult::None => {}
            }
        }
        match self.state.resolve(question.hashed(folded).qname(), query.question.qtype()) {
            Target::Pool(pool) => ReceivedContent::Query { query, pool, question },
            Target::Own => ReceivedContent::Own(query),
            Target::NoPool => ReceivedContent::Refused(Rcode::REFUSED),
        }
    }
}

/// Messages read before the first of them is handled: as many memory reads as a core has in progress at a
/// time, and few enough that the first prefetched data is still cached at the end.
pub(super) const TOGETHER: usize = 8;
