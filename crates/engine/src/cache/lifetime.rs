//! Selects the replies to cache and their lifetimes.
//!
//! The whole message is one entry, fresh until its first record expires. No record is returned for another
//! question, so records that a backend adds unasked cannot poison the cache.

use std::time::Duration;

use config::CacheRules;
use dns::{Conclusion, HEADER_LEN, Header, Rcode, RecordType, Reply, TtlBounds, clamp_ttls, write_cacheable};

use super::entry::State;

/// Writes the entry for a reply to `question` into `out`, and returns its state and lifetime in seconds.
/// Returns `None` if the reply must not be cached.
pub(super) fn write_entry(
    reply: &Reply<'_>,
    question: &[u8],
    rules: &CacheRules,
    out: &mut Vec<u8>,
) -> Option<(State, u32)> {
    // RFC 2181 section 9: a truncated reply is not the answer.
    if reply.is_truncated() || !reply.answers_question(question) || is_of_one_exchange(reply) {
        return None;
    }
    let max_negative = match reply.conclusion() {
        Conclusion::Data => None,
        // RFC 2308 section 5: without an SOA the lifetime is unknown, so the reply is not cached.
        Conclusion::Negative { has_soa: true } => Some(seconds(rules.max_negative_ttl)),
        Conclusion::Negative { has_soa: false } => return None,
        // RFC 2181 section 5.4.1: NS records and glue of a referral are the least trusted data and no answer.
        // In a pool that splits the names, a cached "not here" of one server would hide the data of another.
        Conclusion::Referral => return None,
        Conclusion::Failure(Rcode::SERVFAIL) => {
            write_cacheable(reply, out);
            truncate_records(reply, out);
            return Some((State::Failure, seconds(rules.failure_ttl)));
        }
        // Deviation: RFC 9520 section 2.2 and RFC 9520 section 2.7 require caching REFUSED and FORMERR too.
        // But these, NOTIMP and others are about the query or the client, not about the name, and cost the
        // backend next to nothing to repeat.
        Conclusion::Failure(_) => return None,
    };
    write_cacheable(reply, out);
    let bounds = TtlBounds { min: seconds(rules.min_ttl), max: seconds(rules.max_ttl), max_negative };
    let lifetime = clamp_ttls(out, bounds)?;
    // RFC 1035 section 3.2.1: a TTL of zero is for the current exchange only.
    (lifetime > 0).then_some((State::Answer, lifetime))
}

pub(super) fn write_silence(question: &[u8], rules: &CacheRules, out: &mut Vec<u8>) -> (State, u32) {
    out.clear();
    out.extend_from_slice(&Header::new(0).to_response().with_counts([1, 0, 0, 0]).to_wire());
    out.extend_from_slice(question);
    (State::Silence, seconds(rules.failure_ttl))
}

/// Returns true if the question has a meaning in one exchange only: zone transfers, TKEY, message signatures.
fn is_of_one_exchange(reply: &Reply<'_>) -> bool {
    let qtype = reply.question().map(|question| question.qtype());
    qtype.is_none_or(|qtype| {
        matches!(
            qtype,
            RecordType::AXFR
                | RecordType::IXFR
                | RecordType::TSIG
                | RecordType::TKEY
                | RecordType::SIG
                | RecordType::OPT
        )
    })
}

fn truncate_records(reply: &Reply<'_>, out: &mut Vec<u8>) {
    let Some(header) = Header::read(out) else { return };
    // The OPT record behind the reply's records carries the errors.
    let errors = out.len() - error_len(out);
    let has_errors = errors < out.len();
    out.drain(reply.answers_start().min(errors)..errors);
    let counts = [header.qdcount(), 0, 0, u16::from(has_errors)];
    if let Some(octets) = out.first_chunk_mut::<HEADER_LEN>() {
        *octets = header.with_counts(counts).to_wire();
    }
}

fn error_len(kept: &[u8]) -> usize {
    dns::read_reply(kept).ok().and_then(|reply| reply.edns()).map_or(0, |edns| OPT_LEN + edns.options.len())
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Length of an OPT record without options (RFC 6891 section 6.1.2).
const OPT_LEN: usize = 11;
