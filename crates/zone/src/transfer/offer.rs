//! Queries for transfers, read and written, and the choice of a response by a primary.

use crate::Record;
use dns::{Header, Message, Name, Opcode, Question, Rcode, RecordClass, Section, rewrite_header, write_plain_query};

use super::difference::{Difference, Journal};
use super::reader::TransferKind;
use super::records::{Serial, Soa};

/// A client's query for a transfer.
#[derive(Clone, Copy, Debug)]
pub struct TransferQuery<'a> {
    /// The header.
    pub header: Header,
    /// The question with the name of the zone.
    pub question: Question<'a>,
    /// The kind of transfer.
    pub asked: TransferKind,
}

/// Reads a query of type AXFR or IXFR whose TSIG is verified, or returns the rcode of its error.
pub fn read_transfer_query(octets: &[u8]) -> Result<TransferQuery<'_>, Rcode> {
    let (message, question) = read_question(octets, Opcode::QUERY)?;
    if question.qclass() != RecordClass::IN {
        return Err(Rcode::REFUSED);
    }
    let serial = Soa::serial_in(&message, Section::Authority, question.qname())?;
    let asked = match question.qtype() {
        qtype if qtype == TransferKind::Axfr.qtype() => TransferKind::Axfr,
        // RFC 1995 section 3: the authority section has the client's SOA.
        _ => TransferKind::Ixfr { from: serial.ok_or(Rcode::FORMERR)? },
    };
    match question.qtype() == asked.qtype() {
        true => Ok(TransferQuery { header: message.header, question, asked }),
        false => Err(Rcode::FORMERR),
    }
}

/// Reads the question of a query with this opcode, or returns the rcode of its error.
pub(super) fn read_question(octets: &[u8], opcode: Opcode) -> Result<(Message<'_>, Question<'_>), Rcode> {
    let message = Message::read(octets).map_err(|_| Rcode::FORMERR)?;
    if message.header.opcode() != opcode {
        return Err(Rcode::NOTIMP);
    }
    let question = message.question.filter(|_| !message.header.is_response()).ok_or(Rcode::FORMERR)?;
    Ok((message, question))
}

/// Writes a query for a transfer into `out`: IXFR with `soa`, the present SOA record, or else AXFR.
pub fn write_transfer_query(id: u16, zone: &Name, soa: Option<Record<'_>>, out: &mut Vec<u8>) -> TransferKind {
    let known = soa.and_then(|record| Soa::of(&record).map(|soa| (record, soa.serial)));
    let asked = known.map_or(TransferKind::Axfr, |(_, from)| TransferKind::Ixfr { from });
    write_plain_query(id, zone, asked.qtype(), out);
    if let Some((record, _)) = known {
        append_record(zone.as_wire(), &record, out);
        rewrite_header(out, |header| header.with_counts([1, 0, 1, 0]));
    }
    asked
}

/// Returns the serial in a primary's reply to an SOA query; `None` if it has none.
pub fn read_soa_reply(octets: &[u8], id: u16, zone: &Name) -> Option<Serial> {
    let message = Message::read(octets).ok()?;
    let header = message.header;
    let is_ours = |qname: &[u8]| qname.eq_ignore_ascii_case(zone.as_wire());
    // A server that is not authoritative may have an old SOA in its cache.
    let is_reply = header.is_response() && header.id() == id && header.is_authoritative();
    if !is_reply
        || header.rcode() != Rcode::NOERROR
        || !message.question.is_some_and(|question| is_ours(question.qname()))
    {
        return None;
    }
    let answers = message.records().map_while(Result::ok).filter(|record| record.section == Section::Answer);
    let mut owned = answers.filter(|record| is_ours(record.owner.as_wire()));
    owned.find_map(|record| Soa::in_message(&record).map(|soa| soa.serial))
}

/// The response of a primary to a transfer query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferOffer<'a> {
    /// The SOA alone, because the client has this version or a later one.
    UpToDate,
    /// The differences since the client's version.
    Steps(Vec<&'a Difference>),
    /// The whole zone.
    Whole,
}

impl<'a> TransferOffer<'a> {
    /// Chooses by the query, the journal, the serial of the zone and its size in bytes.
    pub fn choose(asked: TransferKind, journal: &'a Journal, current: Serial, zone_size: usize) -> Self {
        let from = match asked {
            TransferKind::Axfr => return Self::Whole,
            TransferKind::Ixfr { from } => from,
        };
        // RFC 1995 section 2: a client with this version or a newer one gets the SOA alone.
        if !current.is_newer_than(from) {
            return Self::UpToDate;
        }
        let steps: Vec<_> = journal.since(from).into_iter().flatten().collect();
        let leads_here = steps.last().is_some_and(|last| last.to == current);
        // RFC 1995 section 5: differences longer than the zone are useless.
        let size: usize = steps.iter().map(|step| step.size()).sum();
        if leads_here && size < zone_size { Self::Steps(steps) } else { Self::Whole }
    }
}

/// Appends a record of class IN. `owner` is empty if it is already written.
pub(super) fn append_record(owner: &[u8], record: &Record<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(owner);
    out.extend_from_slice(&record.rtype.0.to_be_bytes());
    out.extend_from_slice(&RecordClass::IN.0.to_be_bytes());
    out.extend_from_slice(&record.ttl.to_be_bytes());
    out.extend_from_slice(&(record.rdata.len() as u16).to_be_bytes());
    out.extend_from_slice(record.rdata);
}
