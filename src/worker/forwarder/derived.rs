//! Queries that hedgerow makes in place of a client's query, and the responses that it composes from theirs.
//!
//! ```text
//!   client's query ──▶ DerivedQuery::start ──▶ query for another name or type ──▶ engine
//!                                                                                   │ response, whole
//!   client ◀── limits, truncation, cookie, hop options ◀── compose ◀── deliver ◀────┘
//! ```
//!
//! The engine sees the made query as that of a stream client, which gets the whole answer. Joins, timeouts,
//! stale answers and hand-overs are those of any query. A derived query may be the client of another one.

use std::sync::Arc;
use std::time::Instant;

use dns::{ClientForm, Cookie, Dns64Prefix, Ipv6Answer, Name, Query, RecordType, Reply};
use engine::cache::PoolId;
use engine::{ClientHandle as _, ResponseSummary};
use limit::Pacing;
use metrics::ResponseSource;

use super::ReplyChannel;
use super::allowance::Receiver;
use super::outside::WorkerIo;
use super::responses::{Delivery, OptionsSource};

/// A client's query that waits for the response to a query of hedgerow.
#[derive(Debug)]
pub struct DerivedQuery {
    client: ReplyChannel,
    message: Box<[u8]>,
    cookie: Option<Cookie>,
    since: Instant,
    derivation: Derivation,
}

/// The way in which the response to a client comes from that to the made query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// A CNAME record with this TTL in seconds to the name of the made query, then the records of its
    /// response.
    Cname {
        /// The TTL of the record.
        ttl: u32,
        /// The source of the whole response.
        source: ResponseSource,
    },
    /// The response to a query for AAAA records, or made of that for A records (RFC 6147).
    Dns64 {
        /// The pool that is asked.
        pool: PoolId,
        /// The prefix of the addresses.
        prefix: Dns64Prefix,
        /// The longest TTL of the addresses in seconds, once there are no AAAA records.
        max_ttl: Option<u32>,
    },
    /// A CNAME record to the reverse name of an IPv4 address, then its answer (RFC 6147 section 5.3.1).
    Reverse {
        /// The pool that is asked.
        pool: PoolId,
    },
}

/// The TTL of an alias for a reverse name, which changes only with the config, seconds.
const REVERSE_TTL: u32 = 600;

/// A query that hedgerow made, to be taken at the end of the tick.
#[derive(Debug)]
pub(super) struct FollowUp {
    pub(super) message: Vec<u8>,
    pub(super) client: ReplyChannel,
}

impl DerivedQuery {
    pub(super) fn client(&self) -> &ReplyChannel {
        &self.client
    }

    /// Returns the pool that answers the made query, whatever names and routes say.
    pub(super) fn pool(&self) -> Option<PoolId> {
        match self.derivation {
            Derivation::Cname { .. } => None,
            Derivation::Dns64 { pool, .. } | Derivation::Reverse { pool } => Some(pool),
        }
    }

    /// Returns the question of the client's query, in wire form.
    pub(super) fn question(&self) -> &[u8] {
        dns::read_query(&self.message).map_or(&[], |query| query.question.as_wire())
    }

    /// Returns true if both are one query of one client for the same purpose. A retransmission with another
    /// spelling is a separate query, because its response is composed from the message.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.derivation == other.derivation
            && self.message == other.message
            && self.client.is_same_socket(&other.client)
    }

    pub(super) fn for_another_worker(&self) -> Self {
        let (client, message) = (self.client.clone().for_another_worker(), self.message.clone());
        Self { client, message, ..*self }
    }

    /// Writes the whole response into `out`, without the form of the client. Returns its source.
    fn compose(
        &self,
        query: &Query<'_>,
        reply: &Reply<'_>,
        of_reply: ResponseSource,
        out: &mut Vec<u8>,
    ) -> ResponseSource {
        let question = query.question.as_wire();
        match self.derivation {
            Derivation::Cname { ttl, source } => {
                dns::write_behind_cname(question, ttl, reply, out);
                return source;
            }
            Derivation::Dns64 { prefix, max_ttl: Some(max_ttl), .. } => {
                dns::write_dns64(question, reply, &prefix, max_ttl, out);
            }
            Derivation::Dns64 { max_ttl: None, .. } if Ipv6Answer::of(reply) == Ipv6Answer::Mixed => {
                dns::write_without_mapped(reply, out);
            }
            Derivation::Dns64 { max_ttl: None, .. } => reply.append_to(out),
            Derivation::Reverse { .. } => dns::write_behind_cname(question, REVERSE_TTL, reply, out),
        }
        of_reply
    }

    /// Returns the derivation from a second query, for A records, if this reply has no IPv6 address.
    fn second(&self, reply: &Reply<'_>) -> Option<Derivation> {
        let Derivation::Dns64 { pool, prefix, max_ttl: None } = self.derivation else { return None };
        match Ipv6Answer::of(reply) {
            Ipv6Answer::None { ttl } => Some(Derivation::Dns64 { pool, prefix, max_ttl: Some(ttl) }),
            Ipv6Answer::Whole | Ipv6Answer::Mixed => None,
        }
    }
}

/// Makes a query for another name or type in place of the query of a client, who gets the response that
/// `derivation` composes.
pub(super) fn derive(
    io: &mut WorkerIo,
    (message, query): (&[u8], &Query<'_>),
    (client, cookie): (&ReplyChannel, Option<Cookie>),
    derivation: Derivation,
    (qname, qtype): (&Name, RecordType),
    now: Instant,
) {
    let (client, message) = (client.clone(), message.into());
    let derived = DerivedQuery { client, message, cookie, since: now, derivation };
    let mut message = Vec::new();
    dns::write_query_instead(query, qname, qtype, io.state.edns_udp_size, &mut message);
    io.way.follow_ups.push(FollowUp { message, client: ReplyChannel::Derived(Arc::new(derived)) });
}

/// Responds to the client of a derived query, whose response this is.
#[cold]
#[inline(never)]
pub(super) fn deliver_derived(
    io: &mut WorkerIo,
    derived: &DerivedQuery,
    delivery: &Delivery<'_>,
    summary: ResponseSummary,
    message: &[u8],
) {
    let DerivedQuery { client, cookie, since, .. } = derived;
    let (Ok(query), Ok(reply)) = (dns::read_query(&derived.message), dns::read_reply(message)) else {
        return client.respond_nothing();
    };
    if let Some(derivation) = derived.second(&reply)
        && let Ok(qname) = Name::from_wire(query.question.qname())
    {
        let asked = (&*derived.message, &query);
        return derive(io, asked, (client, *cookie), derivation, (&qname, RecordType::A), *since);
    }
    let mut whole = Vec::new();
    let source = derived.compose(&query, &reply, summary.source, &mut whole);
    let Ok(reply) = dns::read_reply(&whole) else { return client.respond_nothing() };
    let form = ClientForm::of(&query).with_cookie(*cookie);
    let own_udp_size = io.state.edns_udp_size;
    let limit = if client.transport().is_stream() { u16::MAX.into() } else { form.udp_limit(own_udp_size) };
    let has_waited = Pacing::is_held(*since, delivery.now);
    let receiver = Receiver { client: client.ip(), cookie: cookie.map(|cookie| cookie.state), has_waited };
    let asked = OptionsSource::Form(&form);
    let delivery = Delivery { client, asked, receiver, since: *since, ..*delivery };
    io.deliver(&delivery, |out| {
        dns::write_response(&reply, &form, own_udp_size, limit, out);
        Some(ResponseSummary { source, ..summary })
    });
}
