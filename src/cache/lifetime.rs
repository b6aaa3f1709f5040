//! Which replies are kept, and for how long.
//!
//! The whole message is one entry, good until the first of its records runs out. No record of it is ever given out for another
//! question, so nothing that a backend adds unasked can poison anything.

use std::time::Duration;

use super::entry::State;
use super::rules::Rules;
use crate::wire::{Conclusion, HEADER_LEN, Header, Rcode, RecordType, Reply, TtlBounds, clamp_ttls, write_cacheable};

/// Writes what is kept of a reply to `question` into `out`, and says as what and for how many seconds. `None` if it is not kept.
pub(super) fn write_entry(
    reply: &Reply<'_>,
    question: &[u8],
    rules: &Rules,
    out: &mut Vec<u8>,
) -> Option<(State, u32)> {
    // RFC 2181 section 9: a truncated reply is not the answer.
    if reply.is_truncated() || !reply.answers_question(question) || is_of_one_exchange(reply) {
        return None;
    }
    let max_negative = match reply.conclusion() {
        Conclusion::Data => None,
        // RFC 2308 section 5: without an SOA nobody says for how long, so it is not kept.
        Conclusion::Negative { has_soa: true } => Some(seconds(rules.max_negative_ttl)),
        Conclusion::Negative { has_soa: false } => return None,
        // RFC 2181 section 5.4.1: NS records and glue of a referral are the least trusted of all data and no answer. In a pool that
        // splits the names, one server's "not here" would go on to hide what another has.
        Conclusion::Referral => return None,
        Conclusion::Failure(Rcode::SERVFAIL) => {
            write_cacheable(reply, out);
            truncate_records(reply, out);
            return Some((State::Failure, seconds(rules.failure_ttl)));
        }
        // Deviation: RFC 9520 section 2.2 and section 2.7 have REFUSED and FORMERR remembered as well. But these, NOTIMP and the
        // rest are about the query or the one who asks, not about the name, and cost the backend next to nothing to repeat.
        Conclusion::Failure(_) => return None,
    };
    write_cacheable(reply, out);
    let bounds = TtlBounds { min: seconds(rules.min_ttl), max: seconds(rules.max_ttl), max_negative };
    let lifetime = clamp_ttls(out, bounds)?;
    // RFC 1035 section 3.2.1: a time to live of zero is for the exchange at hand only.
    (lifetime > 0).then_some((State::Answer, lifetime))
}

/// Writes an entry that says only that no reply to `question` came into `out`.
pub(super) fn write_silence(question: &[u8], rules: &Rules, out: &mut Vec<u8>) -> (State, u32) {
    out.clear();
    out.extend_from_slice(&Header::new(0).to_response().with_counts([1, 0, 0, 0]).to_wire());
    out.extend_from_slice(question);
    (State::Silence, seconds(rules.failure_ttl))
}

/// Whether what was asked for has a meaning in the one exchange only: zone transfers, keys, signatures of messages.
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

/// Leaves of a failure that is kept the question and the errors: the records of one have no say.
fn truncate_records(reply: &Reply<'_>, out: &mut Vec<u8>) {
    let Some(header) = Header::read(out) else { return };
    // What follows the records of the reply is the OPT record that was put there for its errors.
    let errors = out.len() - error_len(out);
    let has_errors = errors < out.len();
    out.drain(reply.answers_start().min(errors)..errors);
    let counts = [header.qdcount(), 0, 0, u16::from(has_errors)];
    if let Some(octets) = out.first_chunk_mut::<HEADER_LEN>() {
        *octets = header.with_counts(counts).to_wire();
    }
}

/// Octets of the OPT record that ends a kept reply.
fn error_len(kept: &[u8]) -> usize {
    crate::wire::read_reply(kept).ok().and_then(|reply| reply.edns()).map_or(0, |edns| OPT_LEN + edns.options.len())
}

/// Whole seconds of a duration of a rule, which is below the 31 bits of a time to live.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Octets of an OPT record without options (RFC 6891 section 6.1.2).
const OPT_LEN: usize = 11;
