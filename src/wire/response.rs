//! Responses: a backend's reply in the form of one client, or a message of our own without records.
//!
//! Relaying changes the ID, the case of the question's name and the OPT record. Whatever does not fit is left out in an order
//! that costs the client least: errors for people (EDE), then additional records that are optional, then, with TC, all.

use super::body::{Opt, Record, read_name};
use super::codes::{ExtendedError, Opcode, Rcode, RecordType};
use super::edns::{OptRecord, Passing, extended_error_option};
use super::expand;
use super::form::ClientForm;
use super::header::{Flag, HEADER_LEN, Header};
use super::question::{Question, qname};
use super::reply::Reply;

/// Writes a backend's reply into `out` as a response for one client, of at most `limit` octets, which are at least 512.
///
/// The reply must be to the client's question.
pub fn write_response(
    reply: &Reply<'_>,
    form: &ClientForm,
    own_udp_size: u16,
    limit: usize,
    out: &mut Vec<u8>,
) {
    let rcode = reply.rcode();
    let mut opt = form.edns.map(|edns| {
        let options = reply.edns().map_or(&[][..], |edns| edns.options);
        OptRecord::new(own_udp_size, edns.dnssec_ok)
            .with_rcode(rcode)
            .with_options(options, Passing::BeyondHop)
    });
    let records = reply.header().arcount() - u16::from(reply.opt().is_some());
    let mut header = reply
        .header()
        .with_id(form.id)
        .with_rcode(header_rcode(rcode, opt.is_some()));
    let mut counts = [
        header.qdcount(),
        header.ancount(),
        header.nscount(),
        records,
    ];

    out.clear();
    append_without_opt(reply, limit, out);
    // RFC 8914 section 3: EDE options go before other data does.
    if over(limit, out, opt) {
        opt = opt.map(|opt| opt.with_passing(Passing::BeyondHopWithoutErrors));
    }
    // RFC 2181 section 9: information that is only extra is left out without TC. RFC 9471 section 3.1: the glue of a
    // referral is not extra.
    if over(limit, out, opt) && !reply.is_referral() {
        let room = limit.saturating_sub(opt_len(opt));
        counts[3] = drop_additional(out, reply.additional_start(), room);
    }
    if over(limit, out, opt) {
        out.truncate(reply.answers_start());
        header = header.with(Flag::Truncated, true);
        counts = [header.qdcount(), 0, 0, 0];
        opt = opt.map(|opt| opt.with_passing(Passing::BeyondHop));
    }
    if over(limit, out, opt) {
        opt = opt.map(|opt| opt.with_passing(Passing::Nothing));
    }

    if let Some(opt) = opt {
        opt.append(out);
        counts[3] += 1;
    }
    header.with_counts(counts).overwrite(out);
    if let Some(question) = reply.question() {
        respell_question(form, question.qname().len(), out);
    }
}

/// Writes a response without records into `out`: QR and RA as told, AA clear, the question as the client spelled it, and
/// an OPT record if the client sent one, with the Extended DNS Error.
///
/// `question_wire` is the client's question in any case.
pub fn write_synthesized(
    question_wire: &[u8],
    form: &ClientForm,
    rcode: Rcode,
    error: Option<ExtendedError>,
    recursion_available: bool,
    own_udp_size: u16,
    out: &mut Vec<u8>,
) {
    let header = form
        .response_header()
        .with(Flag::RecursionAvailable, recursion_available)
        .with_rcode(header_rcode(rcode, form.edns.is_some()))
        .with_counts([1, 0, 0, u16::from(form.edns.is_some())]);
    out.clear();
    out.extend_from_slice(&header.to_wire());
    out.extend_from_slice(question_wire);
    respell_question(form, qname(question_wire).len(), out);
    if let Some(edns) = form.edns {
        let option = error.map(extended_error_option);
        let options = option.as_ref().map_or(&[][..], |option| option);
        OptRecord::new(own_udp_size, edns.dnssec_ok)
            .with_rcode(rcode)
            .with_options(options, Passing::All)
            .append(out);
    }
}

/// Writes the response to a message that could not be taken into `out`: ID, opcode, RD and CD, and of the rest what can be
/// read. `out` stays empty if there is nothing to respond to: less than a header, or QR set.
///
/// The question is echoed for QUERY and for NOTIFY, which has the same layout (RFC 1996 section 3), the OPT record if the
/// message has one that is sound. BADVERS is told in an OPT record or not at all, so it always has one.
pub fn write_error(message: &[u8], rcode: Rcode, own_udp_size: u16, out: &mut Vec<u8>) {
    out.clear();
    let Some(header) = Header::read(message).filter(|header| !header.is_response()) else {
        return;
    };
    let has_question =
        matches!(header.opcode(), Opcode::QUERY | Opcode::NOTIFY) && header.qdcount() == 1;
    let question = Question::read(message).filter(|_| has_question);
    let opt = question
        .and_then(|question| find_opt(message, header, question.end()))
        .filter(|opt| opt.edns.version > 0 || opt.edns.is_sound())
        .map(|opt| OptRecord::new(own_udp_size, opt.edns.dnssec_ok))
        .or_else(|| (rcode.0 > MAX_HEADER_RCODE).then(|| OptRecord::new(own_udp_size, false)))
        .map(|opt| opt.with_rcode(rcode));

    let counts = [
        u16::from(question.is_some()),
        0,
        0,
        u16::from(opt.is_some()),
    ];
    let header = header.to_response().with_rcode(rcode).with_counts(counts);
    out.extend_from_slice(&header.to_wire());
    if let Some(question) = question {
        out.extend_from_slice(question.as_wire());
    }
    if let Some(opt) = opt {
        opt.append(out);
    }
}

/// Copies a reply without its OPT record. May stop where `out` is longer than `limit`.
fn append_without_opt(reply: &Reply<'_>, limit: usize, out: &mut Vec<u8>) {
    let message = reply.as_wire();
    let Some(opt) = reply.opt() else {
        out.extend_from_slice(message);
        return;
    };
    out.extend_from_slice(message.get(..opt.start).unwrap_or_default());
    expand::append_records(message, opt.end, opt.start, limit, out);
}

/// Leaves additional records out from the end, until no more than `room` octets are left, and says how many remain.
///
/// RFC 2181 section 9: an RRset that does not fit goes as a whole, or the client would take the rest for all of it.
fn drop_additional(out: &mut Vec<u8>, additional: usize, room: usize) -> u16 {
    let mut kept = 0;
    let mut at = additional;
    let mut rrset = None;
    let mut rrset_start = (additional, 0);
    while let Some(record) = Record::read(out, at) {
        let key = Some((read_name(out, at).map(|owner| owner.folded()), record.rtype));
        if key != rrset {
            rrset = key;
            rrset_start = (at, kept);
        }
        if record.end > room {
            break;
        }
        kept += 1;
        at = record.end;
    }
    let (end, kept) = rrset_start;
    out.truncate(end);
    kept
}

/// The one OPT record of a message that need not be sound behind its question.
fn find_opt(message: &[u8], header: Header, records: usize) -> Option<Opt<'_>> {
    let before = usize::from(header.ancount()) + usize::from(header.nscount());
    let all = before + usize::from(header.arcount());
    let mut found = None;
    let mut at = records;
    for index in 0..all {
        let Some(record) = Record::read(message, at) else {
            break;
        };
        if record.rtype == RecordType::OPT {
            let opt = Opt::read(message, &record)?;
            if index < before || found.replace(opt).is_some() {
                return None;
            }
        }
        at = record.end;
    }
    found
}

/// Whether a message and the OPT record to come are longer than `limit`.
fn over(limit: usize, out: &[u8], opt: Option<OptRecord<'_>>) -> bool {
    out.len() + opt_len(opt) > limit
}

/// Octets that the OPT record takes, if there is to be one.
fn opt_len(opt: Option<OptRecord<'_>>) -> usize {
    opt.map_or(0, |opt| opt.wire_len())
}

/// The rcode that can be told to a client: without EDNS there are only 4 bits for it.
fn header_rcode(rcode: Rcode, has_edns: bool) -> Rcode {
    if rcode.0 > MAX_HEADER_RCODE && !has_edns {
        Rcode::SERVFAIL
    } else {
        rcode
    }
}

/// Spells the question's name as the client did.
fn respell_question(form: &ClientForm, qname_len: usize, out: &mut [u8]) {
    if let Some(qname) = out.get_mut(HEADER_LEN..HEADER_LEN + qname_len) {
        form.respell(qname);
    }
}

/// The largest rcode that the header holds.
const MAX_HEADER_RCODE: u16 = 0x0F;
