//! Queries and replies of a look-up, as messages.

use dns::{
    Edns, ExtendedError, Header, Message, Name, OptRecord, OptionCode, Rcode, RecordType, Section, SectionRecord,
    is_reply_to, write_recursive_query,
};
use zone::rdata_to_text;

pub(super) fn write_query(id: u16, name: &Name, rtype: RecordType, with_opt: bool) -> Vec<u8> {
    let mut query = Vec::new();
    let opt = with_opt.then(|| OptRecord::new(UDP_SIZE, false));
    write_recursive_query(id, name, rtype, opt.as_ref(), &mut query);
    query
}

/// A reply that matches its query.
#[derive(Debug)]
pub(in crate::cli) struct LookupReply {
    pub(in crate::cli) header: Header,
    pub(in crate::cli) rcode: Rcode,
    /// True if the reply repeats the question; failures may omit it.
    pub(super) has_question: bool,
    /// The records of all sections but OPT.
    pub(in crate::cli) records: Vec<SectionRecord>,
    pub(in crate::cli) opt: Option<LookupOpt>,
    pub(in crate::cli) size: usize,
}

impl LookupReply {
    /// Parses the reply to a query. `None` if it does not match or is malformed.
    ///
    /// A truncated reply is parsed only up to the question: it may end in the middle of a record, and the
    /// client retries by TCP.
    pub(super) fn read(octets: &[u8], query: &[u8]) -> Option<Self> {
        Self::of(octets).filter(|_| is_reply_to(octets, query))
    }

    pub(in crate::cli) fn of(octets: &[u8]) -> Option<Self> {
        let message = Message::read(octets).ok()?;
        let header = message.header;
        let mut reply = Self {
            header,
            rcode: header.rcode(),
            has_question: message.question.is_some(),
            records: Vec::new(),
            opt: None,
            size: octets.len(),
        };
        if !header.is_truncated() {
            let count = [header.ancount(), header.nscount(), header.arcount()].into_iter().map(usize::from).sum();
            for record in message.records().lenient().take(count) {
                reply.take_record(record.ok()?)?;
            }
        }
        Some(reply)
    }

    fn take_record(&mut self, record: SectionRecord) -> Option<()> {
        if record.rtype != RecordType::OPT {
            self.records.push(record);
            return Some(());
        }
        let edns = record.edns()?;
        // RFC 6891 section 6.1.3: the OPT record holds the upper 8 bits.
        self.rcode = Rcode(self.header.rcode().0 | u16::from(edns.extended_rcode) << 4);
        self.opt = Some(LookupOpt::of(edns));
        Some(())
    }

    pub(in crate::cli) fn section(&self, section: Section) -> impl Iterator<Item = &SectionRecord> {
        self.records.iter().filter(move |record| record.section == section)
    }
}

/// Returns the data of a record as in a master file.
pub(in crate::cli) fn data_of(record: &SectionRecord) -> String {
    rdata_to_text(record.rtype, &record.rdata)
}

/// The contents of an OPT record (RFC 6891 section 6.1).
#[derive(Debug)]
pub(in crate::cli) struct LookupOpt {
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
    pub(super) udp_size: u16,
    pub(in crate::cli) errors: Vec<(ExtendedError, String)>,
    /// Zone versions: the number of labels of the zone, and its serial (RFC 9660 section 2.1).
    pub(super) zone_versions: Vec<(u8, u32)>,
    pub(super) options: Vec<(OptionCode, Vec<u8>)>,
}

impl LookupOpt {
    fn of(edns: Edns<'_>) -> Self {
        let (mut errors, mut zone_versions, mut options) = (Vec::new(), Vec::new(), Vec::new());
        for (code, data) in edns.iter_options() {
            match (code, read_error(data), data) {
                (OptionCode::EXTENDED_ERROR, Some(error), _) => errors.push(error),
                (OptionCode::ZONEVERSION, _, &[labels, 0, s0, s1, s2, s3]) => {
                    zone_versions.push((labels, u32::from_be_bytes([s0, s1, s2, s3])));
                }
                _ => options.push((code, data.to_vec())),
            }
        }
        let Edns { version, dnssec_ok, udp_size, .. } = edns;
        Self { version, dnssec_ok, udp_size, errors, zone_versions, options }
    }
}

/// Parses an Extended DNS Error (RFC 8914 section 2); `None` if the data is too short for a code. Control
/// characters of the text are replaced, because it may be shown on a terminal.
fn read_error(data: &[u8]) -> Option<(ExtendedError, String)> {
    let (code, text) = data.split_first_chunk()?;
    // RFC 8914 section 2: the text may end with a NUL byte.
    let text = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text));
    let text = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    Some((ExtendedError(u16::from_be_bytes(*code)), text))
}

/// The advertised UDP size, which passes everywhere without fragments (DNS flag day 2020).
const UDP_SIZE: u16 = 1232;

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns as FullEdns, Message as FullMessage, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::rr::{Name as FullName, RData, Record as FullRecord, RecordType as FullType};
    use proptest::prelude::*;

    use super::*;

    fn query_of(rtype: RecordType, with_opt: bool) -> Vec<u8> {
        write_query(7, &"www.example".parse().expect("valid"), rtype, with_opt)
    }

    fn full(text: &str) -> FullName {
        FullName::from_ascii(text).expect("valid")
    }

    /// Parses a reply to an A query for `www.example` with ID 7, changed by `edit`.
    fn read(edit: impl FnOnce(&mut FullMessage)) -> Option<LookupReply> {
        let mut message = FullMessage::response(7, OpCode::Query);
        message.add_query(Query::query(full("www.example."), FullType::A));
        edit(&mut message);
        let octets = message.to_vec().expect("encodes");
        LookupReply::read(&octets, &query_of(RecordType::A, false))
    }

    #[test]
    fn the_query_is_what_dig_sends() {
        assert_eq!(
            query_of(RecordType(65280), false),
            b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\xff\0\0\x01"
        );
        assert!(query_of(RecordType(65280), true).ends_with(b"\xff\0\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0"));
    }

    #[test]
    fn records_are_read() {
        let reply = read(|message| {
            let alias = full("alias.example.");
            message.add_answer(FullRecord::from_rdata(full("www.example."), 60, RData::CNAME(CNAME(alias.clone()))));
            message.add_answer(FullRecord::from_rdata(alias, 30, RData::A(A::new(192, 0, 2, 1))));
        });
        let reply = reply.expect("valid");
        let summary: Vec<_> = reply.section(Section::Answer).map(|record| (record.ttl, data_of(record))).collect();
        assert_eq!(summary, [(60, "alias.example.".to_owned()), (30, "192.0.2.1".to_owned())]);
    }

    #[test]
    fn what_does_not_match_is_no_reply() {
        fn check(taken: bool, edit: impl FnOnce(&mut FullMessage)) {
            assert_eq!(read(edit).is_some(), taken);
        }
        check(true, |_| ());
        check(true, |message| {
            message.queries[0].set_name(full("WWW.eXample."));
        });
        check(false, |message| message.metadata.id = 8);
        check(false, |message| message.metadata.message_type = MessageType::Query);
        check(false, |message| message.metadata.op_code = OpCode::Notify);
        check(false, |message| {
            message.queries[0].set_name(FullName::root());
        });
        check(false, |message| {
            message.queries[0].set_query_type(FullType::AAAA);
        });
        check(false, |message| message.queries.push(message.queries[0].clone()));
    }

    #[test]
    fn only_failures_may_lack_the_question() {
        for (rcode, taken) in [
            (ResponseCode::NoError, false),
            (ResponseCode::NXDomain, false),
            (ResponseCode::FormErr, true),
            (ResponseCode::Refused, true),
        ] {
            let reply = read(|message| {
                message.queries.clear();
                message.metadata.response_code = rcode;
            });
            assert_eq!(reply.is_some(), taken, "{rcode}");
        }
    }

    #[test]
    fn high_bits_of_the_rcode_come_from_opt() {
        let reply = read(|message| {
            message.set_edns(FullEdns::new());
            message.metadata.response_code = ResponseCode::BADCOOKIE;
        });
        assert_eq!(reply.expect("valid").rcode.to_string(), "BADCOOKIE");
    }

    #[test]
    fn truncated_replies_need_no_records() {
        let query = query_of(RecordType::A, false);
        let mut bytes = query.clone();
        bytes[2] = 0x82;
        bytes[7] = 9;
        let reply = LookupReply::read(&bytes, &query).expect("valid");
        assert!(reply.header.is_truncated());
        bytes[2] = 0x80;
        assert!(LookupReply::read(&bytes, &query).is_none());
    }

    #[test]
    fn data_that_do_not_fit_their_type_are_shown_as_octets() {
        let query = query_of(RecordType::A, false);
        let mut octets = query.clone();
        octets[2] = 0x80;
        octets[7] = 1;
        octets.extend(b"\xC0\x0C\0\x0F\0\x01\0\0\0\x3C\0\x01\x07");
        assert_eq!(data_of(&LookupReply::read(&octets, &query).expect("a reply").records[0]), r"\# 1 07");
    }

    #[test]
    fn extended_errors_are_read() {
        let check = |data: &[u8], expected: Option<(u16, &str)>| {
            let expected = expected.map(|(code, text)| (ExtendedError(code), text.to_owned()));
            assert_eq!(read_error(data), expected, "{data:?}");
        };
        check(b"", None);
        check(b"\0", None);
        check(b"\0\x16", Some((22, "")));
        check(b"\0\x1dno reply\0", Some((29, "no reply")));
        check(b"\0\0\x1b[31m\xff", Some((0, "\u{fffd}[31m\u{fffd}")));
    }

    proptest! {
        #[test]
        fn no_octets_can_do_harm(start in any::<bool>(), tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let query = query_of(RecordType::A, false);
            let mut bytes = if start { query.clone() } else { Vec::new() };
            if let Some(counts) = bytes.get_mut(2..12) {
                counts.copy_from_slice(&[0x80, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            }
            bytes.extend(tail);
            // 65,535 records never fit into 200 bytes.
            prop_assert!(!start || LookupReply::read(&bytes, &query).is_none());
        }
    }
}
