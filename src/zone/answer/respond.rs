//! The response of an authority: the whole story of one query, octets to octets.
//!
//! The zone database says who answers: a zone, the tables, or the server itself. What they say goes into the buffer of the caller,
//! header last, since only then it is known what fitted. Nothing here allocates but that buffer.

use super::builder;
use super::identity::{OPTION_LEN, Text, append_option, append_text};
use super::writer::Writer;
use super::zone_version::{VersionAsked, ZoneVersion};
use crate::wire::{
    Cookie, Flag, HEADER_LEN, Header, Opcode, OptRecord, OptionCode, Query, Rcode, RecordClass, RecordType, Rejected,
    Transport, read_query, write_error,
};
use crate::zone::store::names::NameBuf;
use crate::zone::tables::Answer;
use crate::zone::zone::Zone;
use crate::zone::zone_db::ZoneDb;

/// What becomes of a message that reached an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The response is in the buffer; it bears this rcode.
    Respond(Rcode),
    /// No response: a miss, and misses are silent here.
    Silent,
    /// No response: shorter than a header, or itself a response.
    Malformed,
}

/// Reacts to a message. `out` is cleared, and has the response if there is one. `own_udp_size` is the largest UDP message
/// that we send and take.
pub fn respond(
    zone_db: &ZoneDb,
    message: &[u8],
    transport: Transport,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) -> Reaction {
    respond_to(zone_db, &read_query(message), None, message, transport, own_udp_size, out)
}

/// The same for a message that has been read as a query, and which gets this for its cookie.
pub fn respond_to(
    zone_db: &ZoneDb,
    read: &Result<Query<'_>, Rejected>,
    cookie: Option<&Cookie>,
    message: &[u8],
    transport: Transport,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) -> Reaction {
    out.clear();
    let query = match read {
        Ok(query) => query,
        Err(Rejected::Short | Rejected::NotAQuery) => return Reaction::Malformed,
        Err(Rejected::Answer(rcode)) => {
            // RFC 1996 section 3.10 has a secondary ignore NOTIFY from strangers. This is no secondary at all, and
            // REFUSED tells the sender at once.
            let is_notify = Header::read(message).is_some_and(|header| header.opcode() == Opcode::NOTIFY);
            let rcode = if is_notify { Rcode::REFUSED } else { *rcode };
            write_error(message, rcode, cookie, own_udp_size, out);
            return Reaction::Respond(rcode);
        }
    };
    let version_asked = VersionAsked::by(query);
    if version_asked == VersionAsked::Malformed {
        write_error(message, Rcode::FORMERR, cookie, own_udp_size, out);
        return Reaction::Respond(Rcode::FORMERR);
    }
    let mut qname = NameBuf::root();
    qname.fold_from(query.question.qname());
    let zone = zone_asked(zone_db, query, qname.as_wire());
    let limit = if transport.is_stream() { usize::from(u16::MAX) } else { query.udp_limit(own_udp_size) };
    let mut tail = Tail::of(zone_db, query, cookie, own_udp_size);
    // RFC 9660 section 3.2: whatever the answer is, by the zone of the name that was asked for. One that is not served has no version.
    tail.version = zone.filter(|zone| version_asked == VersionAsked::Yes && zone.is_served()).map(ZoneVersion::of);
    out.resize(HEADER_LEN, 0);
    out.extend_from_slice(query.question.as_wire());
    let Some(body) = write_body(zone_db, zone, query, qname.as_wire(), limit - tail.len(), out) else {
        out.clear();
        return Reaction::Silent;
    };
    let [ancount, nscount, arcount] = body.counts;
    // RFC 4035 section 3.1.6: AD and CD are clear in a response of an authority. RA is, since there is no recursion.
    let header = query
        .header
        .to_response()
        .with(Flag::CheckingDisabled, false)
        .with(Flag::Authoritative, body.authoritative)
        .with(Flag::Truncated, body.truncated)
        .with_rcode(body.rcode)
        .with_counts([1, ancount, nscount, arcount + u16::from(tail.opt.is_some())]);
    out[..HEADER_LEN].copy_from_slice(&header.to_wire());
    tail.append(out);
    Reaction::Respond(body.rcode)
}

/// What the header says of the records that were written.
#[derive(Clone, Copy)]
struct Body {
    /// How the query went.
    rcode: Rcode,
    /// AA.
    authoritative: bool,
    /// TC.
    truncated: bool,
    /// Answer, authority and additional records.
    counts: [u16; 3],
}

impl Body {
    /// A response without records.
    fn empty(rcode: Rcode, authoritative: bool) -> Self {
        Self { rcode, authoritative, truncated: false, counts: [0; 3] }
    }
}

/// Whether a question is about data, which zones and tables have. Zone transfers and other operations are not; ANY is.
#[inline]
fn is_about_data(query: &Query<'_>) -> bool {
    let question = query.question;
    let is_operation = question.qtype().is_meta() && question.qtype() != RecordType::ANY;
    question.qclass() == RecordClass::IN && !is_operation
}

/// The zone that answers for the name of a query, here in canonical form.
#[inline]
fn zone_asked<'c>(zone_db: &'c ZoneDb, query: &Query<'_>, qname: &[u8]) -> Option<&'c Zone> {
    if is_about_data(query) { zone_db.zone_of(qname, query.question.qtype()) } else { None }
}

/// Writes records behind the question, those of the zone if there is one. `None` if there is to be no response.
fn write_body(
    zone_db: &ZoneDb,
    zone: Option<&Zone>,
    query: &Query<'_>,
    qname: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Option<Body> {
    if let Some(text) = zone_db.identity().text(query) {
        append_text(text, out);
        return Some(Body { counts: [1, 0, 0], ..Body::empty(Rcode::NOERROR, true) });
    }
    if !is_about_data(query) {
        return Some(Body::empty(Rcode::REFUSED, false));
    }
    if let Some(zone) = zone {
        if !zone.is_served() {
            return Some(Body::empty(Rcode::SERVFAIL, false));
        }
        let mut writer = Writer::new(out, limit);
        let verdict = builder::answer(zone_db, zone, query, qname, &mut writer);
        let builder::Verdict { rcode, authoritative, truncated } = verdict;
        return Some(Body { rcode, authoritative, truncated, counts: writer.counts() });
    }
    if zone_db.has_zones_only() {
        return Some(Body::empty(Rcode::REFUSED, false));
    }
    write_table_answer(zone_db.tables().look_up(qname, query.question.qtype()), limit, out)
}

/// Writes what tables say.
fn write_table_answer(answer: Answer<'_>, limit: usize, out: &mut Vec<u8>) -> Option<Body> {
    let (len, body) = match answer {
        Answer::Records(rrset) => {
            (rrset.octets.len(), Body { counts: [rrset.count, 0, 0], ..Body::empty(Rcode::NOERROR, true) })
        }
        // RFC 1034 section 4.3.2, step 3b: what is delegated is not ours to speak of with authority.
        Answer::Referral(referral) => {
            let counts = [0, referral.servers(), referral.glue()];
            (referral.wire_len(), Body { counts, ..Body::empty(Rcode::NOERROR, false) })
        }
        // Without SOA, as all negatives here: a table is no zone, and so nobody caches them (RFC 2308 section 5).
        Answer::Nodata { authoritative } => (0, Body::empty(Rcode::NOERROR, authoritative)),
        Answer::Nxdomain => (0, Body::empty(Rcode::NXDOMAIN, true)),
        Answer::Refused => (0, Body::empty(Rcode::REFUSED, false)),
        Answer::Silence => return None,
    };
    if out.len() + len > limit {
        // RFC 2181 section 9: an RRset goes whole or not at all. RFC 9471 section 3.1: glue belongs to its referral.
        return Some(Body { truncated: true, counts: [0; 3], ..body });
    }
    match answer {
        Answer::Records(rrset) => out.extend_from_slice(rrset.octets),
        Answer::Referral(referral) => referral.append(out),
        Answer::Nodata { .. } | Answer::Nxdomain | Answer::Refused | Answer::Silence => {}
    }
    Some(body)
}

/// What a response ends with.
struct Tail<'a> {
    /// RFC 6891 section 6.1.1: OPT is answered with OPT. RFC 3225 section 3: DO is copied.
    opt: Option<OptRecord<'a>>,
    nsid: Option<&'a Text>,
    /// The version of the zone, for who has asked for it.
    version: Option<ZoneVersion>,
}

impl<'a> Tail<'a> {
    /// What the response to this query ends with.
    fn of(zone_db: &'a ZoneDb, query: &Query<'_>, cookie: Option<&'a Cookie>, own_udp_size: u16) -> Self {
        Self {
            opt: query.edns.map(|edns| OptRecord::new(own_udp_size, edns.dnssec_ok).with_cookie(cookie)),
            nsid: zone_db.identity().nsid(query),
            version: None,
        }
    }

    /// Octets of it.
    fn len(&self) -> usize {
        let nsid = self.nsid.map_or(0, |nsid| OPTION_LEN + nsid.as_octets().len());
        let version = self.version.map_or(0, |_| OPTION_LEN + ZoneVersion::LEN);
        self.opt.map_or(0, |opt| opt.wire_len() + nsid + version)
    }

    fn append(&self, out: &mut Vec<u8>) {
        let Some(opt) = self.opt else { return };
        let start = out.len();
        opt.append(out);
        if let Some(nsid) = self.nsid {
            append_option(OptionCode::NSID, nsid.as_octets(), out.len() - start, out);
        }
        if let Some(version) = self.version {
            append_option(OptionCode::ZONEVERSION, version.as_octets(), out.len() - start, out);
        }
    }
}

#[cfg(test)]
mod tests;
