//! Taking queries in: each is read once, and what the engine needs to know of it is made for a few at a time.
//!
//! ```text
//!   first pass    every message: read it, look at its cookie, fold its question, hash that, find its pool
//!   between       the cache fetches what it will look at for all of them (cache/memory_prefetch.rs)
//!   second pass   every message, in the order in which they came: refuse it, or hand it to the engine with what was made
//! ```
//!
//! Queries by datagram come in batches; one by TCP, or one that another worker hands over, is a batch of one. Nothing is decided
//! about a query that depends on the others of its batch.

use std::cell::LazyCell;
use std::iter;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::client::{DatagramWay, ProxiedClient};
use super::{Client, Forwarder, HandOver};
use crate::config::PoolIndex;
use crate::engine::{self, Client as _, HashedQuestion, Reason, ValidQuery, prefetch_memory};
use crate::limit::{Access, Cookies, OwnAddresses};
use crate::metrics::Dropped;
use crate::net::batch::{Datagram, RecvBatch};
use crate::net::clock;
use crate::net::tcp::Responder;
use crate::net::udp::Socket;
use crate::net::xdp::LinkId;
use crate::state::{ForwarderState, Routes, Target};
use crate::taps::{Side, Taken};
use crate::wire::{self, Cookie, MalformedCookie, Query, QuestionFlags, Rcode, RecordType, Rejected};

impl Forwarder {
    /// Takes the datagrams that a listener has received.
    pub fn take_batch(&mut self, listener: u16, batch: &RecvBatch, now: Instant) {
        let datagrams = (0..batch.len()).filter_map(|index| batch.datagram(index));
        self.take_datagrams(listener, datagrams.map(|datagram| (datagram, None)), now);
    }

    /// Takes datagrams for a listener, each with how it came by AF_XDP, if it did.
    pub fn take_datagrams<'d>(
        &mut self,
        listener: u16,
        datagrams: impl Iterator<Item = (Datagram<'d>, Option<LinkId>)>,
        now: Instant,
    ) {
        let listening = self.outside.way.listeners.get(usize::from(listener)).and_then(Option::as_ref);
        if let Some(listening) = listening.filter(|listening| listening.socket.proxies().are_any()) {
            let socket = Rc::clone(&listening.socket);
            return self.take_proxied(listener, &socket, datagrams, now);
        }
        let messages = datagrams.map(|(Datagram { bytes, peer, local, .. }, link)| {
            let client = Client::Udp { listener, peer: peer.into(), local, link };
            (bytes, client)
        });
        self.take(messages, Reason::Query, now);
    }

    /// Takes datagrams of which some come from proxies, with a header that tells whose they are.
    #[cold]
    fn take_proxied<'d>(
        &mut self,
        listener: u16,
        socket: &Socket,
        datagrams: impl Iterator<Item = (Datagram<'d>, Option<LinkId>)>,
        now: Instant,
    ) {
        let counters = Arc::clone(&self.outside.counters);
        let messages = datagrams.filter_map(|(Datagram { bytes, peer, local, .. }, link)| {
            let Some((client, message)) = socket.proxies().unwrap(peer, bytes) else {
                counters.dropped(Dropped::Proxy);
                return None;
            };
            let way = DatagramWay { listener, peer: peer.into(), local, link };
            let client = match client == peer {
                true => Client::Udp { listener, peer: way.peer, local, link },
                false => Client::Proxied(Arc::new(ProxiedClient { client, way })),
            };
            Some((message, client))
        });
        self.take(messages, Reason::Query, now);
    }

    /// Counts queries that were dropped unread, because more came than could be answered.
    pub fn count_overload(&self, queries: u64) {
        self.outside.counters.dropped_many(Dropped::Overload, queries);
    }

    /// Takes a query that came by TCP.
    pub fn take_stream_query(&mut self, message: &[u8], responder: &Responder, now: Instant) {
        let client = Client::Tcp(Arc::new(responder.clone()));
        self.take(iter::once((message, client)), Reason::Query, now);
    }

    /// Takes a query that another worker has handed over.
    pub fn take_handed_over(&mut self, query: &HandOver, now: Instant) {
        self.outside.shared.on_the_way[usize::from(self.outside.me.0)].fetch_sub(1, Relaxed);
        self.take(iter::once((&query.message[..], query.client.clone())), Reason::HandedOver, now);
    }

    /// Takes messages, which ends a tick.
    fn take<'m>(&mut self, mut messages: impl Iterator<Item = (&'m [u8], Client)>, reason: Reason, now: Instant) {
        let mut folded = std::mem::take(&mut self.folded);
        // The time of day, for cookies: few clients have any.
        let today = LazyCell::new(clock::unix_now_serial as fn() -> u32);
        while self.take_some(&mut messages, &mut folded, reason, &today, now) {}
        self.folded = folded;
        self.end_tick(now);
    }

    /// Takes the next few messages, and says whether there may be more. Their questions are folded into `folded`.
    fn take_some<'m>(
        &mut self,
        messages: &mut impl Iterator<Item = (&'m [u8], Client)>,
        folded: &mut Vec<u8>,
        reason: Reason,
        today: &LazyCell<u32>,
        now: Instant,
    ) -> bool {
        let mut arrivals = [const { None }; TOGETHER];
        folded.clear();
        let ForwarderState { routes, access, cookies, .. } = &*self.outside.state;
        let cookies = cookies.as_deref();
        let reader = Reader { shared: &self.outside.shared.engines, own: &self.own, access, routes, cookies, today };
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

    /// Takes one message that has been read: answers it at once if there is something wrong with it, else hands it to the engine.
    fn take_one(&mut self, arrival: &Arrival<'_>, folded: &[u8], reason: Reason, now: Instant) {
        let Arrival { message, client, cookie, content } = arrival;
        #[cfg(feature = "faults")]
        crate::faults::on_message(message);
        // What was handed over was counted by who did that.
        if reason == Reason::Query && !matches!(content, Content::Nothing(_)) {
            self.outside.counters.query(client.transport());
            self.outside.counters.cookie(cookie);
            if self.outside.taps.are_on() {
                self.tell_taken(arrival, folded, now);
            }
        }
        let cookie = cookie.ok().flatten();
        match content {
            Content::Nothing(reason) => {
                self.outside.counters.dropped(*reason);
                client.respond_nothing();
            }
            Content::Refused(rcode) => self.outside.refuse(message, *rcode, cookie.as_ref(), client, now),
            Content::Prohibited(query) => self.outside.prohibit(message, query.as_ref(), cookie.as_ref(), client, now),
            Content::Own(query) => self.outside.answer_own((message, query), cookie.as_ref(), client, now),
            Content::Query { query, pool, question } => {
                let state = &self.outside.state;
                if query.is_signed && message.len() > usize::from(state.edns_udp_size) {
                    // Nothing of it can be left out, and it does not fit into a datagram.
                    return self.outside.refuse(message, Rcode::FORMERR, cookie.as_ref(), client, now);
                }
                let question = question.hashed(folded);
                let valid = ValidQuery { message, query, cookie, question, pool: *pool };
                self.engine.on_query(&mut self.outside, valid, client.clone(), reason, now);
            }
        }
    }

    /// Tells who observes of a query.
    fn tell_taken(&self, arrival: &Arrival<'_>, folded: &[u8], now: Instant) {
        let Arrival { message, client, .. } = arrival;
        let local = match client {
            Client::Udp { .. } | Client::Proxied(_) => client.datagram().and_then(|way| self.outside.way.asked_at(way)),
            Client::Tcp(_) | Client::Admin(_) => client.connected_to(),
        };
        let hash = arrival.asked(folded).map(|(_, question)| question.hash);
        let (client, transport) = (client.peer(), client.transport());
        self.outside.taps.taken(&Taken { side: Side::Forwarder, client, local, transport, now, hash, message });
    }
}

/// A message that has come, read.
struct Arrival<'m> {
    /// Its octets.
    message: &'m [u8],
    /// Who sent it.
    client: Client,
    /// What it gets for its COOKIE option.
    cookie: Result<Option<Cookie>, MalformedCookie>,
    content: Content<'m>,
}

impl Arrival<'_> {
    /// The pool that it is for and what it asks, if it asks anything.
    fn asked<'f>(&self, folded: &'f [u8]) -> Option<(PoolIndex, HashedQuestion<'f>)> {
        match &self.content {
            Content::Query { pool, question, query: _ } => Some((*pool, question.hashed(folded))),
            Content::Nothing(_) | Content::Refused(_) | Content::Prohibited(_) | Content::Own(_) => None,
        }
    }
}

/// What a message is.
enum Content<'m> {
    /// Nothing that may be answered.
    Nothing(Dropped),
    /// A query that is answered with this rcode.
    Refused(Rcode),
    /// A message of a client that is not to be answered, and its query, if it is one.
    Prohibited(Option<Query<'m>>),
    /// A query that the LS answers itself.
    Own(Query<'m>),
    /// A query for the engine.
    Query {
        /// As it stands in its message.
        query: Query<'m>,
        /// The number of its pool in the state.
        pool: PoolIndex,
        question: Folded,
    },
}

/// Where a question stands among those that are folded, and what goes with it.
struct Folded {
    /// Its octets.
    at: Range<usize>,
    /// RD, CD and DO of its query.
    flags: QuestionFlags,
    hash: u64,
}

impl Folded {
    /// The question as it is looked for.
    fn hashed<'f>(&self, folded: &'f [u8]) -> HashedQuestion<'f> {
        HashedQuestion { octets: folded.get(self.at.clone()).unwrap_or_default(), flags: self.flags, hash: self.hash }
    }
}

/// What messages are read with.
struct Reader<'a> {
    /// Has the hash of questions.
    shared: &'a engine::Shared,
    /// Where no client is.
    own: &'a OwnAddresses,
    /// Who is answered.
    access: &'a Access,
    /// From names to pools.
    routes: &'a Routes,
    /// Gives cookies, if clients get any.
    cookies: Option<&'a Cookies>,
    /// Seconds since 1970.
    today: &'a LazyCell<u32>,
}

impl Reader<'_> {
    /// Reads one message, and folds its question behind those before.
    fn read<'m>(&self, message: &'m [u8], client: Client, folded: &mut Vec<u8>) -> Arrival<'m> {
        if let Some(DatagramWay { peer, local, .. }) = client.datagram()
            && self.own.are_source(peer.ip(), peer.port(), local.map(|local| local.ip()))
        {
            return Arrival { message, client, cookie: Ok(None), content: Content::Nothing(Dropped::Source) };
        }
        let read = wire::read_query(message);
        let answer = |cookies: &Cookies| cookies.answer(&read, message, client.ip(), || **self.today);
        let cookie = self.cookies.map_or(Ok(None), answer);
        let is_admitted = self.access.admits(client.ip());
        let content = match cookie {
            Ok(_) => self.content(read, is_admitted, folded),
            Err(MalformedCookie) if !is_admitted => Content::Prohibited(None),
            // RFC 7873 section 5.2.2.
            Err(MalformedCookie) => Content::Refused(Rcode::FORMERR),
        };
        Arrival { message, client, cookie, content }
    }

    /// What a message is that was read.
    fn content<'m>(&self, read: Result<Query<'m>, Rejected>, is_admitted: bool, folded: &mut Vec<u8>) -> Content<'m> {
        let query = match read {
            Ok(query) if !is_admitted => return Content::Prohibited(Some(query)),
            Ok(query) => query,
            // Nothing that answers these is safe: two servers could answer each other for ever.
            Err(Rejected::Short | Rejected::NotAQuery) => return Content::Nothing(Dropped::Malformed),
            Err(Rejected::Answer(_)) if !is_admitted => return Content::Prohibited(None),
            Err(Rejected::Answer(rcode)) => return Content::Refused(rcode),
        };
        // A zone transfer is between a secondary and its primary; through a balancer it would mix zones.
        if matches!(query.question.qtype(), RecordType::AXFR | RecordType::IXFR) {
            return Content::Refused(Rcode::REFUSED);
        }
        let start = folded.len();
        let flags = query.fold_question(folded);
        let at = start..folded.len();
        let octets = folded.get(at.clone()).unwrap_or_default();
        let question = Folded { flags, hash: self.shared.hash(octets), at };
        match self.routes.target(question.hashed(folded).qname()) {
            Target::Pool(pool) => Content::Query { query, pool, question },
            Target::Own => Content::Own(query),
            Target::Nobody => Content::Refused(Rcode::REFUSED),
        }
    }
}

/// Messages that are read before the first of them is admitted: as many reads of memory as a core has under way at a time, and
/// few enough that what was fetched for the first is still there for the last.
pub(super) const TOGETHER: usize = 8;
