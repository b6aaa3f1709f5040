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

use dns::{ClientForm, Cookie, Dns64Prefix, ExtendedError, Ipv6Answer, Name, Query, Rcode, RecordType, Reply};
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
}

impl Derivation {
    /// Writes the whole response into `out`, without the form of the client: SERVFAIL if none can be made of
    /// the reply.
    fn compose(
        self,
        query: &Query<'_>,
        reply: Option<&Reply<'_>>,
        of_reply: ResponseSummary,
        out: &mut Vec<u8>,
    ) -> ResponseSummary {
        let question = query.question.as_wire();
        if let Some(reply) = reply {
            match self {
                Self::Cname { ttl, .. } => dns::write_behind_cname(question, ttl, reply, out),
                Self::Dns64 { prefix, max_ttl: Some(max_ttl), .. } => {
                    dns::write_dns64(question, reply, &prefix, max_ttl, out);
                }
                Self::Dns64 { max_ttl: None, .. } if Ipv6Answer::of(reply) == Ipv6Answer::Mixed => {
                    dns::write_without_mapped(reply, out);
                }
                Self::Dns64 { max_ttl: None, .. } => reply.append_to(out),
                Self::Reverse { .. } => dns::write_behind_cname(question, REVERSE_TTL, reply, out),
            }
        }
        match self {
            _ if dns::read_reply(out).is_err() => {
                let (rcode, error) = (Rcode::SERVFAIL, (ExtendedError::OTHER, "no response can be made of the answer"));
                dns::write_synthesized(question, &ClientForm::of(query), rcode, Some(error), true, u16::MAX, out);
                ResponseSummary { source: ResponseSource::Error, rcode }
            }
            Self::Cname { source, .. } => ResponseSummary { source, ..of_reply },
            Self::Dns64 { .. } | Self::Reverse { .. } => of_reply,
        }
    }

    /// Returns the derivation from a second query, for A records, if this reply has no IPv6 address.
    fn second(self, reply: &Reply<'_>) -> Option<Self> {
        let Self::Dns64 { pool, prefix, max_ttl: None } = self else { return None };
        match Ipv6Answer::of(reply) {
            Ipv6Answer::None { ttl } => Some(Self::Dns64 { pool, prefix, max_ttl: Some(ttl) }),
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
    let Ok(query) = dns::read_query(&derived.message) else { return client.respond_nothing() };
    let reply = dns::read_reply(message).ok();
    if let Some(derivation) = reply.as_ref().and_then(|reply| derived.derivation.second(reply))
        && let Ok(qname) = Name::from_wire(query.question.qname())
    {
        let asked = (&*derived.message, &query);
        return derive(io, asked, (client, *cookie), derivation, (&qname, RecordType::A), *since);
    }
    let (form, own_udp_size) = (ClientForm::of(&query).with_cookie(*cookie), io.state.edns_udp_size);
    let mut whole = Vec::new();
    let summary = derived.derivation.compose(&query, reply.as_ref(), summary, &mut whole);
    let Ok(reply) = dns::read_reply(&whole) else { return client.respond_nothing() };
    let limit = form.limit(client.transport(), own_udp_size);
    let has_waited = Pacing::is_held(*since, delivery.now);
    let receiver = Receiver { client: client.ip(), cookie: cookie.map(|cookie| cookie.state), has_waited };
    let asked = OptionsSource::Form(&form);
    let delivery = Delivery { client, asked, receiver, since: *since, ..*delivery };
    io.deliver(&delivery, |out| {
        dns::write_response(&reply, &form, own_udp_size, limit, out);
        Some(summary)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_of_which_no_response_can_be_made_becomes_servfail() {
        let message = b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01\x03www\x04test\0\0\x1C\0\x01\0\0\x29\x04\xD0\0\0\0\0\0\0";
        let query = dns::read_query(message).expect("a query");
        // FORMERR without a question names no target.
        let bare = dns::read_reply(b"\0\x07\x81\x81\0\0\0\0\0\0\0\0").expect("a bare failure");
        let of_reply = ResponseSummary { source: ResponseSource::Backend, rcode: Rcode::FORMERR };
        for reply in [Some(&bare), None] {
            let mut out = Vec::new();
            let derivation = Derivation::Cname { ttl: 60, source: ResponseSource::Rule };
            let summary = derivation.compose(&query, reply, of_reply, &mut out);
            let composed = dns::read_reply(&out).expect("a reply");
            assert_eq!(summary, ResponseSummary { source: ResponseSource::Error, rcode: Rcode::SERVFAIL });
            assert_eq!((composed.rcode(), dns::extended_error(&out)), (Rcode::SERVFAIL, Some(0)));
        }
    }
}
