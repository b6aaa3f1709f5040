//! Builds the response of an authority to one query, in wire form.
//!
//! A zone, the tables or the server identity supplies the answer. The records go into the caller's buffer
//! first and the header last, because the header depends on what fits. Only that buffer allocates.

use crate::zone::Zone;
use dns::{
    Cookie, ExtendedError, Flag, HEADER_LEN, Header, Opcode, OptRecord, OptionCode, Query, QueryRejection, Rcode,
    RecordClass, RecordType, Transport, read_query, write_error,
};

use super::builder;
use super::identity::{IdentityText, OPTION_LEN, append_option, append_text};
use super::writer::ResponseWriter;
use super::zone_version::{VersionAsked, ZoneVersion};
use crate::store::names::NameBuf;
use crate::tables::TableAnswer;
use crate::zone_db::ZoneDb;

/// The outcome for a message that reached an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The buffer has a response with this rcode.
    Respond(Rcode),
    /// No response: the name is in no table, and the policy for misses is silence.
    Silent,
    /// No response: the message is shorter than a header or is itself a response.
    Malformed,
}

/// Handles a message. It clears `out` and writes the response into it, if there is one. `own_udp_size` is the
/// largest UDP message that the server sends and accepts.
pub fn respond(
    zone_db: &ZoneDb,
    message: &[u8],
    transport: Transport,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) -> Reaction {
    respond_to(zone_db, &read_query(message), None, message, transport, own_udp_size, out)
}

/// Handles a message that is already parsed as a query. `cookie` goes into the response.
pub fn respond_to(
    zone_db: &ZoneDb,
    read: &Result<Query<'_>, QueryRejection>,
    cookie: Option<&Cookie>,
    message: &[u8],
    transport: Transport,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) -> Reaction {
    out.clear();
    let query = match read {
        Ok(query) => query,
        Err(QueryRejection::Short | QueryRejection::NotAQuery) => return Reaction::Malformed,
        Err(QueryRejection::Answer(rcode)) => {
            // Unlike a secondary (RFC 1996 section 3.10), this server answers NOTIFY with REFUSED at once.
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
    let limit = query.limit(transport, own_udp_size);
    let mut tail = Tail::of(zone_db, query, cookie, own_udp_size);
    // RFC 9660 section 3.2: any answer has the version of the queried name's zone, if served.
    tail.version = zone.filter(|zone| version_asked == VersionAsked::Yes && zone.is_served()).map(ZoneVersion::of);
    out.resize(HEADER_LEN, 0);
    out.extend_from_slice(query.question.as_wire());
    let Some(body) = write_body(zone_db, zone, query, qname.as_wire(), limit - tail.len(), out) else {
        out.clear();
        return Reaction::Silent;
    };
    // RFC 8914 section 4.21.
    tail.is_not_ours = body.rcode == Rcode::REFUSED && is_about_data(query);
    let [ancount, nscount, arcount] = body.counts;
    // RFC 4035 section 3.1.6: an authority clears AD and CD. RA is clear because there is no recursion.
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

#[derive(Clone, Copy)]
struct ResponseBody {
    rcode: Rcode,
    authoritative: bool,
    truncated: bool,
    counts: [u16; 3],
}

impl ResponseBody {
    fn empty(rcode: Rcode, authoritative: bool) -> Self {
        Self { rcode, authoritative, truncated: false, counts: [0; 3] }
    }
}

/// Returns true for questions about data. ANY is one, zone transfers are not.
#[inline]
fn is_about_data(query: &Query<'_>) -> bool {
    let question = query.question;
    let is_operation = question.qtype().is_meta() && question.qtype() != RecordType::ANY;
    question.qclass() == RecordClass::IN && !is_operation
}

#[inline]
fn zone_asked<'c>(zone_db: &'c ZoneDb, query: &Query<'_>, qname: &[u8]) -> Option<&'c Zone> {
    if is_about_data(query) { zone_db.zone_of(qname, query.question.qtype()) } else { None }
}

/// Writes the records after the question, from the zone if there is one. Returns `None` for silence.
fn write_body(
    zone_db: &ZoneDb,
    zone: Option<&Zone>,
    query: &Query<'_>,
    qname: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Option<ResponseBody> {
    if let Some(text) = zone_db.identity().text(query) {
        append_text(text, out);
        return Some(ResponseBody { counts: [1, 0, 0], ..ResponseBody::empty(Rcode::NOERROR, true) });
    }
    if !is_about_data(query) {
        return Some(ResponseBody::empty(Rcode::REFUSED, false));
    }
    if let Some(zone) = zone {
        if !zone.is_served() {
            return Some(ResponseBody::empty(Rcode::SERVFAIL, false));
        }
        let mut writer = ResponseWriter::new(out, limit);
        let verdict = builder::answer(zone_db, zone, query, qname, &mut writer);
        let builder::AnswerVerdict { rcode, authoritative, truncated } = verdict;
        return Some(ResponseBody { rcode, authoritative, truncated, counts: writer.counts() });
    }
    if zone_db.has_zones_only() {
        return Some(ResponseBody::empty(Rcode::REFUSED, false));
    }
    write_table_answer(zone_db.tables().look_up(qname, query.question.qtype()), limit, out)
}

fn write_table_answer(answer: TableAnswer<'_>, limit: usize, out: &mut Vec<u8>) -> Option<ResponseBody> {
    let (len, body) = match answer {
        TableAnswer::Records(rrset) => (
            rrset.octets.len(),
            ResponseBody { counts: [rrset.count, 0, 0], ..ResponseBody::empty(Rcode::NOERROR, true) },
        ),
        // RFC 1034 section 4.3.2, step 3b: the authority is not authoritative for delegated names.
        TableAnswer::Referral(referral) => {
            let counts = [0, referral.servers(), referral.glue()];
            (referral.wire_len(), ResponseBody { counts, ..ResponseBody::empty(Rcode::NOERROR, false) })
        }
        // No SOA, because a table is no zone. So resolvers do not cache it (RFC 2308 section 5).
        TableAnswer::Nodata { authoritative } => (0, ResponseBody::empty(Rcode::NOERROR, authoritative)),
        TableAnswer::Nxdomain => (0, ResponseBody::empty(Rcode::NXDOMAIN, true)),
        TableAnswer::Refused => (0, ResponseBody::empty(Rcode::REFUSED, false)),
        TableAnswer::Silence => return None,
    };
    if out.len() + len > limit {
        // RFC 2181 section 9: RRsets are sent whole. RFC 9471 section 3.1: with their glue.
        return Some(ResponseBody { truncated: true, counts: [0; 3], ..body });
    }
    match answer {
        TableAnswer::Records(rrset) => out.extend_from_slice(rrset.octets),
        TableAnswer::Referral(referral) => referral.append(out),
        TableAnswer::Nodata { .. } | TableAnswer::Nxdomain | TableAnswer::Refused | TableAnswer::Silence => {}
    }
    Some(body)
}

struct Tail<'a> {
    /// RFC 6891 section 6.1.1: OPT is answered with OPT. RFC 3225 section 3: DO is copied.
    opt: Option<OptRecord<'a>>,
    nsid: Option<&'a IdentityText>,
    version: Option<ZoneVersion>,
    /// True if no zone or table covers the name. The response has no records, so there is room for the error.
    is_not_ours: bool,
}

impl<'a> Tail<'a> {
    fn of(zone_db: &'a ZoneDb, query: &Query<'_>, cookie: Option<&'a Cookie>, own_udp_size: u16) -> Self {
        Self {
            opt: query.edns.map(|edns| OptRecord::new(own_udp_size, edns.dnssec_ok).with_cookie(cookie)),
            nsid: zone_db.identity().nsid(query),
            version: None,
            is_not_ours: false,
        }
    }

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
        if self.is_not_ours {
            let error = ExtendedError::NOT_AUTHORITATIVE.0.to_be_bytes();
            append_option(OptionCode::EXTENDED_ERROR, &error, out.len() - start, out);
        }
    }
}

#[cfg(test)]
mod tests;
