//! Messages as owned records: zone transfers, NOTIFY, and messages with TSIG.
//!
//! [`Message::read`] reads header and question; [`Message::records`] iterates over the sections.

use super::body::{RecordBounds, read_name};
use super::codes::{Rcode, RecordClass, RecordType};
use super::edns::Edns;
use super::expand::append_rdata;
use super::header::{HEADER_LEN, Header};
use super::name::Name;
use super::question::Question;

/// A message of at most one question, read up to its records.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The header.
    pub header: Header,
    /// The question; the later messages of a transfer may leave it out (RFC 5936 section 2.2.1).
    pub question: Option<Question<'a>>,
    octets: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads header and question. The records are not checked yet.
    pub fn read(octets: &'a [u8]) -> Result<Self, MalformedMessage> {
        let header = Header::read(octets).ok_or(MalformedMessage)?;
        let question = match header.qdcount() {
            0 => None,
            1 => Some(Question::read(octets).ok_or(MalformedMessage)?),
            _ => return Err(MalformedMessage),
        };
        Ok(Self { header, question, octets })
    }

    /// Returns the records of all sections in order.
    pub fn records(&self) -> SectionRecords<'a> {
        SectionRecords {
            octets: self.octets,
            at: self.question.map_or(HEADER_LEN, |question| question.end()),
            left: [self.header.ancount(), self.header.nscount(), self.header.arcount()],
            is_over: false,
            is_lenient: false,
        }
    }
}

/// Returns true if a message is a reply to this query: QR set, and equal ID, opcode and question, ignoring
/// case (RFC 5452 section 9.1). A failure may come without a question, because a server that cannot read a
/// query leaves it out.
pub fn is_reply_to(message: &[u8], query: &[u8]) -> bool {
    let (Ok(reply), Ok(query)) = (Message::read(message), Message::read(query)) else { return false };
    let (header, asked) = (reply.header, query.header);
    let has_question = match (reply.question, query.question) {
        (Some(question), Some(asked)) => question.is(asked.as_wire()),
        (Some(_), None) => false,
        (None, _) => !matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN),
    };
    header.is_response() && header.id() == asked.id() && header.opcode() == asked.opcode() && has_question
}

/// The error for a message that does not match its counts and lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedMessage;

/// The section of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The answer section.
    Answer,
    /// The authority section.
    Authority,
    /// The additional section.
    Additional,
}

/// One record, its names written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionRecord {
    /// The section of the record.
    pub section: Section,
    /// The start offset in the message.
    pub start: usize,
    /// The end offset in the message.
    pub end: usize,
    /// The owner.
    pub owner: Name,
    /// The type.
    pub rtype: RecordType,
    /// The class.
    pub class: RecordClass,
    /// The TTL as received.
    pub ttl: u32,
    /// The RDATA without compression.
    pub rdata: Vec<u8>,
}

impl SectionRecord {
    /// Returns the fields of an OPT record whose options fill it exactly.
    pub fn edns(&self) -> Option<Edns<'_>> {
        let [extended_rcode, version, flags, _] = self.ttl.to_be_bytes();
        let options = &self.rdata;
        let edns = Edns::new(self.class.0, [extended_rcode, version, flags], options);
        Some(edns).filter(|edns| self.rtype == RecordType::OPT && edns.is_sound())
    }
}

/// Iterates over the records of a message. The first broken record ends it with [`MalformedMessage`], and so
/// do bytes behind the last one.
#[derive(Clone, Debug)]
pub struct SectionRecords<'a> {
    octets: &'a [u8],
    at: usize,
    left: [u16; 3],
    is_over: bool,
    is_lenient: bool,
}

impl SectionRecords<'_> {
    /// Accepts RDATA that does not match its type unchanged, to show a message.
    pub fn lenient(self) -> Self {
        Self { is_lenient: true, ..self }
    }

    fn next_section(&mut self) -> Option<Section> {
        let sections = [Section::Answer, Section::Authority, Section::Additional];
        let (left, section) = self.left.iter_mut().zip(sections).find(|(left, _)| **left > 0)?;
        *left -= 1;
        Some(section)
    }

    fn read(&mut self, section: Section) -> Option<SectionRecord> {
        let record = RecordBounds::read(self.octets, self.at)?;
        let owner = read_name(self.octets, record.start)?;
        let &[_, _, c0, c1, t0, t1, t2, t3] = self.octets.get(record.owner_end..)?.first_chunk()?;
        let mut rdata = Vec::with_capacity(record.end - record.rdata);
        if append_rdata(self.octets, &record, |_| None, &mut rdata).is_none() {
            rdata.clear();
            rdata.extend_from_slice(self.octets.get(record.rdata..record.end).filter(|_| self.is_lenient)?);
        }
        self.at = record.end;
        Some(SectionRecord {
            section,
            start: record.start,
            end: record.end,
            owner,
            rtype: record.rtype,
            class: RecordClass(u16::from_be_bytes([c0, c1])),
            ttl: u32::from_be_bytes([t0, t1, t2, t3]),
            rdata,
        })
    }
}

impl Iterator for SectionRecords<'_> {
    type Item = Result<SectionRecord, MalformedMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let Some(section) = self.next_section() else {
            self.is_over = true;
            return (self.at != self.octets.len()).then_some(Err(MalformedMessage));
        };
        let record = self.read(section).ok_or(MalformedMessage);
        self.is_over = record.is_err();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, a, message, opt, record};
    use super::*;

    fn read(octets: &[u8]) -> Result<Vec<(Section, Vec<u8>)>, MalformedMessage> {
        let records: Result<Vec<_>, _> = Message::read(octets)?.records().collect();
        Ok(records?.into_iter().map(|record| (record.section, record.rdata)).collect())
    }

    #[test]
    fn records_come_whole_from_their_sections() {
        let mx = record(EXAMPLE, RecordType::MX, &[&[0, 5][..], WWW].concat());
        let octets = message(REPLY, [1, 1, 1, 1], &[QUESTION, &mx, &a(WWW), &opt(0, 0, b"")]);
        let expected = vec![
            (Section::Answer, b"\0\x05\x03www\x07Example\x03org\0".to_vec()),
            (Section::Authority, vec![192, 0, 2, 1]),
            (Section::Additional, vec![]),
        ];
        assert_eq!(read(&octets), Ok(expected));
    }

    #[test]
    fn replies_belong_to_their_queries() {
        let query = message(0x0100, [1, 0, 0, 0], &[QUESTION]);
        let check = |octets: &[u8], expected: bool| assert_eq!(is_reply_to(octets, &query), expected, "{octets:?}");
        let reply = message(REPLY, [1, 1, 0, 0], &[QUESTION, &a(WWW)]);
        check(&reply, true);
        check(&message(REPLY, [1, 0, 0, 0], &[&QUESTION.to_ascii_uppercase()]), true);
        check(&query, false);
        check(&[&[reply[0] ^ 1], &reply[1..]].concat(), false);
        check(&message(REPLY | 0x2000, [1, 0, 0, 0], &[QUESTION]), false);
        check(&message(REPLY, [1, 0, 0, 0], &[&QUESTION[4..]]), false);
        check(&message(REPLY, [2, 0, 0, 0], &[QUESTION, QUESTION]), false);
        // Only a failure may lack the question.
        for (rcode, expected) in [(0, false), (3, false), (1, true), (5, true)] {
            check(&message(REPLY | rcode, [0; 4], &[]), expected);
        }
        check(b"", false);
    }

    #[test]
    fn what_does_not_add_up_is_broken() {
        let whole = message(REPLY, [1, 1, 0, 0], &[QUESTION, &a(WWW)]);
        assert!(read(&whole).is_ok());
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), Err(MalformedMessage), "{len}");
        }
        assert_eq!(read(&[&whole[..], b"x"].concat()), Err(MalformedMessage));
        assert_eq!(read(&message(REPLY, [2, 0, 0, 0], &[QUESTION, QUESTION])), Err(MalformedMessage));
        // An MX without its name.
        assert_eq!(
            read(&message(REPLY, [1, 1, 0, 0], &[QUESTION, &record(WWW, RecordType::MX, &[0])])),
            Err(MalformedMessage)
        );
        assert_eq!(read(&message(REPLY, [0; 4], &[])), Ok(vec![]));
    }
}
