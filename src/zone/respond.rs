//! The response of an authority: the whole story of one query, octets to octets.
//!
//! Sizes are known before anything is written, so a response is either copied whole or, too large for
//! the client, goes out as TC=1 without records. Nothing here allocates but the caller's buffer.

use super::catalog::{Answer, Catalog};
use crate::wire::{
    ClientForm, Flag, HEADER_LEN, Header, Opcode, OptRecord, Query, Rcode, RecordClass, RecordType,
    Rejected, read_query, write_error,
};

/// How a query came and its response goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram: the response is as long as the client's EDNS allows.
    Udp,
    /// In a stream: the response is at most 65535 octets long (RFC 1035 section 4.2.2).
    Tcp,
}

/// What becomes of a message that reached an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The response is in the buffer.
    Respond,
    /// No response: a miss, and misses are silent here.
    Silent,
    /// No response: shorter than a header, or itself a response.
    Malformed,
}

/// Reacts to a message. `out` is cleared, and has the response if there is one. `own_udp_size` is the largest UDP message
/// that we send and take.
pub fn respond(
    catalog: &Catalog,
    message: &[u8],
    transport: Transport,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) -> Reaction {
    out.clear();
    let query = match read_query(message) {
        Ok(query) => query,
        Err(Rejected::Short | Rejected::NotAQuery) => return Reaction::Malformed,
        Err(Rejected::Answer(rcode)) => {
            // RFC 1996 section 3.10 has a secondary ignore NOTIFY from strangers. This is no secondary at all, and
            // REFUSED tells the sender at once.
            let is_notify =
                Header::read(message).is_some_and(|header| header.opcode() == Opcode::NOTIFY);
            let rcode = if is_notify { Rcode::REFUSED } else { rcode };
            write_error(message, rcode, own_udp_size, out);
            return Reaction::Respond;
        }
    };
    let answer = answer(catalog, &query);
    let Some((rcode, authoritative)) = verdict(answer) else {
        return Reaction::Silent;
    };
    // RFC 4035 section 3.1.6: AD and CD are clear in a response of an authority. RA is, since there is no recursion.
    let header = query
        .header
        .to_response()
        .with(Flag::CheckingDisabled, false)
        .with(Flag::Authoritative, authoritative)
        .with_rcode(rcode);
    let limit = match transport {
        Transport::Udp => ClientForm::of(&query).udp_limit(own_udp_size),
        Transport::Tcp => usize::from(u16::MAX),
    };
    write_response(&query, header, answer, own_udp_size, limit, out);
    Reaction::Respond
}

/// What the catalog, or the question itself, says.
fn answer<'a>(catalog: &'a Catalog, query: &Query<'_>) -> Answer<'a> {
    let question = query.question;
    if question.qclass() != RecordClass::IN || is_meta(question.qtype()) {
        return Answer::Refused;
    }
    catalog.look_up(question.qname(), question.qtype())
}

/// Whether a type names no data but an operation: zone transfers above all (RFC 6895 section 3.1). ANY is left out, which is
/// about data.
fn is_meta(qtype: RecordType) -> bool {
    qtype == RecordType::OPT || (qtype != RecordType::ANY && (128..=255).contains(&qtype.0))
}

/// The rcode and AA of a response; `None` where there is none.
fn verdict(answer: Answer<'_>) -> Option<(Rcode, bool)> {
    match answer {
        Answer::Records(_) => Some((Rcode::NOERROR, true)),
        Answer::Nodata { authoritative } => Some((Rcode::NOERROR, authoritative)),
        // Without SOA, as all negatives here: a table is no zone, and so nobody caches them (RFC 2308 section 5).
        Answer::Nxdomain => Some((Rcode::NXDOMAIN, true)),
        // RFC 1034 section 4.3.2, step 3b: what is delegated is not ours to speak of with authority.
        Answer::Referral(_) => Some((Rcode::NOERROR, false)),
        Answer::Refused => Some((Rcode::REFUSED, false)),
        Answer::Silence => None,
    }
}

/// Writes a response of at most `limit` octets, which are at least 512. `header` lacks the counts and TC.
fn write_response(
    query: &Query<'_>,
    header: Header,
    answer: Answer<'_>,
    own_udp_size: u16,
    limit: usize,
    out: &mut Vec<u8>,
) {
    // RFC 6891 section 6.1.1: OPT is answered with OPT. RFC 3225 section 3: DO is copied.
    let opt = query
        .edns
        .map(|edns| OptRecord::new(own_udp_size, edns.dnssec_ok));
    let question = query.question.as_wire();
    let (records_len, [ancount, nscount, glue]) = match answer {
        Answer::Records(rrset) => (rrset.octets.len(), [rrset.count, 0, 0]),
        Answer::Referral(referral) => (
            referral.wire_len(),
            [0, referral.servers(), referral.glue()],
        ),
        Answer::Nodata { .. } | Answer::Nxdomain | Answer::Refused | Answer::Silence => (0, [0; 3]),
    };
    let opt_len = opt.map_or(0, |opt| opt.wire_len());
    let fits = HEADER_LEN + question.len() + records_len + opt_len <= limit;
    let arcount = u16::from(opt.is_some());
    let counts = if fits {
        [1, ancount, nscount, glue + arcount]
    } else {
        // RFC 2181 section 9: an RRset goes whole or not at all. RFC 9471 section 3.1: glue belongs to its referral.
        [1, 0, 0, arcount]
    };

    let header = header.with(Flag::Truncated, !fits).with_counts(counts);
    out.extend_from_slice(&header.to_wire());
    out.extend_from_slice(question);
    if fits {
        match answer {
            Answer::Records(rrset) => out.extend_from_slice(rrset.octets),
            Answer::Referral(referral) => referral.append(out),
            Answer::Nodata { .. } | Answer::Nxdomain | Answer::Refused | Answer::Silence => {}
        }
    }
    if let Some(opt) = opt {
        opt.append(out);
    }
}
