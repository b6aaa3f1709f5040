//! DNS64 (RFC 6147) for the queries to a pool with `dns64`.
//!
//! ```text
//!   AAAA ──▶ query for AAAA ──▶ addresses, or no such name ──▶ the response
//!                          └──▶ none ──▶ query for A ──▶ addresses made of its records
//!   PTR of the prefix ──▶ query for the name of the IPv4 address ──▶ a CNAME record and its answer
//!   ipv4only.arpa ──▶ the response (RFC 8880)
//! ```
//!
//! The queries that hedgerow makes go to the pool of the client's query, which a rule may have chosen.

use std::time::Instant;

use config::PoolIndex;
use dns::{ClientForm, Dns64Prefix, Name, Query, RecordClass, RecordType};
use engine::state::{find_ipv4only, respond_ipv4only};
use engine::{ClientHandle as _, ResponseSummary};
use metrics::ResponseSource;

use super::derived::{Derivation, derive};
use super::outside::WorkerIo;
use super::receive::ReceivedMessage;

/// Takes a query for this folded name to a pool with this prefix. Returns false if the query goes to backends
/// as it is.
#[cold]
#[inline(never)]
pub(super) fn take(
    outside: &mut WorkerIo,
    asked: &ReceivedMessage<'_>,
    (query, qname): (&Query<'_>, &[u8]),
    (pool, prefix): (PoolIndex, Dns64Prefix),
    now: Instant,
) -> bool {
    let ReceivedMessage { message, client, .. } = asked;
    let (qtype, cookie) = (query.question.qtype(), asked.cookie());
    if query.question.qclass() != RecordClass::IN || query.is_signed || client.pinned_pool().is_some() {
        return false;
    }
    if let Some(apex) = find_ipv4only(qname, qtype, &outside.state.own, &outside.state.routes) {
        let form = ClientForm::of(query).with_cookie(cookie);
        outside.respond_alone(asked, now, |own_udp_size, out| {
            let limit = form.limit(client.transport(), own_udp_size);
            let question = query.question.as_wire();
            let rcode = respond_ipv4only((qname, qtype), apex, &prefix, |response, answers| {
                dns::write_local(question, &form, response, answers, (own_udp_size, limit), out);
                response.rcode
            });
            Some(ResponseSummary { source: ResponseSource::Authority, rcode })
        });
        return true;
    }
    let pool = outside.state.pools[pool.0].id;
    let (derivation, target) = match qtype {
        // RFC 6147 section 5.5: a client with DO and CD validates, and makes the addresses itself.
        RecordType::AAAA if query.dnssec_ok() && query.header.checking_disabled() => return false,
        RecordType::AAAA => {
            let target = Name::from_wire(query.question.qname()).ok();
            (Derivation::Dns64 { pool, prefix, max_ttl: None }, target)
        }
        RecordType::PTR => (Derivation::Reverse { pool }, prefix.reverse(qname)),
        _ => return false,
    };
    let Some(target) = target else { return false };
    derive(outside, (message, query), (client, cookie), derivation, (&target, qtype), now);
    true
}
