//! Queries and replies as messages. hickory-proto builds the query and reads header and names; records
//! are walked here, because hickory allocates what a hostile count claims, fails the whole message for
//! one legal empty record, and keeps no octets to write data from.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::codes::{ExtendedError, Rcode};
use super::rdata;
use super::rtype::Type;

/// What a query asks, on the wire.
pub(super) struct Asked<'a> {
    /// The message ID.
    pub(super) id: u16,
    /// The name.
    pub(super) name: &'a Name,
    /// The type; the class is always IN.
    pub(super) rtype: Type,
}

impl Asked<'_> {
    /// The query in wire form, recursion desired, with an OPT record or without.
    pub(super) fn to_bytes(&self, with_opt: bool) -> Vec<u8> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), RecordType::from(self.rtype.0)));
        if with_opt {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_SIZE);
            message.set_edns(edns);
        }
        message.to_vec().expect("a question with a valid name always encodes")
    }
}

/// A reply that belongs to the query.
#[derive(Debug)]
pub(super) struct Reply {
    /// ID, opcode and flags.
    pub(super) metadata: Metadata,
    /// The response code, all 12 bits of it.
    pub(super) rcode: Rcode,
    /// Whether the question was echoed; failures may come without.
    pub(super) has_question: bool,
    /// The answer section.
    pub(super) answers: Vec<Record>,
    /// The authority section.
    pub(super) authorities: Vec<Record>,
    /// The additional section without OPT.
    pub(super) additionals: Vec<Record>,
    /// The OPT record.
    pub(super) opt: Option<Opt>,
    /// Octets of the message.
    pub(super) size: usize,
}

impl Reply {
    /// Reads a reply to `asked`. `None`: not a reply to it, or broken.
    ///
    /// A truncated reply is read only as far as the question: it may end in the middle of a record, and the
    /// client comes back by TCP.
    pub(super) fn read(bytes: &[u8], asked: &Asked<'_>) -> Option<Self> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).ok()?;
        let mut reply = Self {
            metadata: header.metadata,
            rcode: Rcode(u16::from(header.metadata.response_code)),
            has_question: false,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            opt: None,
            size: bytes.len(),
        };
        reply.has_question = reply.question_matches(&mut decoder, header.counts.queries, asked)?;
        if header.metadata.truncation {
            return Some(reply);
        }
        reply.answers = reply.read_section(&mut decoder, header.counts.answers)?;
        reply.authorities = reply.read_section(&mut decoder, header.counts.authorities)?;
        reply.additionals = reply.read_section(&mut decoder, header.counts.additionals)?;
        Some(reply)
    }

    /// Whether the reply echoes the question; `None` if it is not for `asked`.
    fn question_matches(&self, decoder: &mut BinDecoder<'_>, questions: u16, asked: &Asked<'_>) -> Option<bool> {
        let metadata = &self.metadata;
        if metadata.id != asked.id
            || metadata.message_type != MessageType::Response
            || metadata.op_code != OpCode::Query
        {
            return None;
        }
        match questions {
            // RFC 5452 section 9.1: ID, addresses and question must all agree. But servers that cannot read
            // a query leave the question out, so a failure may come without.
            0 => (!self.rcode.is_conclusive()).then_some(false),
            1 => {
                let name = Name::read(decoder).ok()?;
                let rtype = decoder.read_u16().ok()?.unverified();
                let class = decoder.read_u16().ok()?.unverified();
                (name == *asked.name && rtype == asked.rtype.0 && class == IN).then_some(true)
            }
            _ => None,
        }
    }

    /// The records of one section; takes OPT out. `None` if one is broken.
    fn read_section(&mut self, decoder: &mut BinDecoder<'_>, count: u16) -> Option<Vec<Record>> {
        // Not `with_capacity`: the count is the sender's word only, the octets are what bounds the work.
        let mut records = Vec::new();
        for _ in 0..count {
            let owner = Name::read(decoder).ok()?;
            let rtype = Type(decoder.read_u16().ok()?.unverified());
            let class = decoder.read_u16().ok()?.unverified();
            let ttl = decoder.read_u32().ok()?.unverified();
            let length = usize::from(decoder.read_u16().ok()?.unverified());
            let start = decoder.clone(index(decoder)?);
            let data = decoder.read_slice(length).ok()?.unverified();
            if rtype == Type::OPT {
                let opt = Opt::read(class, ttl, data)?;
                // RFC 6891 section 6.1.3: the OPT record holds the upper 8 bits.
                self.rcode = Rcode(self.rcode.0 & 0xf | u16::from(opt.rcode_high) << 4);
                self.opt = Some(opt);
                continue;
            }
            let target = if rtype == Type::CNAME { Name::read(&mut start.clone(index(&start)?)).ok() } else { None };
            let data = rdata::to_text(rtype, &start, length);
            records.push(Record { owner, rtype, class, ttl, data, target });
        }
        Some(records)
    }
}

/// A resource record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// The owner name.
    pub(super) owner: Name,
    /// The type.
    pub(super) rtype: Type,
    /// The class.
    pub(super) class: u16,
    /// The time to live, in seconds.
    pub(super) ttl: u32,
    /// The data in master-file form.
    pub(super) data: String,
    /// Where a CNAME leads.
    pub(super) target: Option<Name>,
}

/// What an OPT record says (RFC 6891 section 6.1).
#[derive(Debug)]
pub(super) struct Opt {
    /// Upper bits of the response code.
    rcode_high: u8,
    /// The EDNS version.
    pub(super) version: u8,
    /// The DO flag.
    pub(super) dnssec_ok: bool,
    /// The UDP size that the server takes.
    pub(super) udp_size: u16,
    /// Extended DNS Errors.
    pub(super) errors: Vec<ExtendedError>,
    /// All other options: number and data.
    pub(super) options: Vec<(u16, Vec<u8>)>,
}

impl Opt {
    /// Reads the fields that OPT has in the places of class, TTL and data.
    fn read(class: u16, ttl: u32, mut data: &[u8]) -> Option<Self> {
        let [rcode_high, version, flags, _] = ttl.to_be_bytes();
        let (mut errors, mut options) = (Vec::new(), Vec::new());
        while let Some((&[n1, n2, l1, l2], rest)) = data.split_first_chunk::<4>() {
            let (option, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l1, l2])))?;
            match (u16::from_be_bytes([n1, n2]), ExtendedError::read(option)) {
                (ExtendedError::OPTION, Some(error)) => errors.push(error),
                (number, _) => options.push((number, option.to_vec())),
            }
            data = rest;
        }
        let opt = Self { rcode_high, version, dnssec_ok: flags & 0x80 != 0, udp_size: class, errors, options };
        data.is_empty().then_some(opt)
    }
}

/// Where a decoder stands.
fn index(decoder: &BinDecoder<'_>) -> Option<u16> {
    u16::try_from(decoder.index()).ok()
}

/// The Internet class.
pub(super) const IN: u16 = 1;

/// The UDP size that we offer: what passes everywhere without fragments (as agreed on DNS flag day 2020).
const UDP_SIZE: u16 = 1232;

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::rr::{RData, Record as FullRecord};
    use proptest::prelude::*;

    use super::super::name;
    use super::*;

    /// The name that all these tests ask for.
    fn www() -> Name {
        name::parse("www.example").expect("valid")
    }

    /// A reply to an A query for `www.example` with ID 7, as changed by `edit`, read back.
    fn read(edit: impl FnOnce(&mut Message)) -> Option<Reply> {
        let www = www();
        let mut message = Message::response(7, OpCode::Query);
        message.add_query(Query::query(www.clone(), RecordType::A));
        edit(&mut message);
        let bytes = message.to_vec().expect("encodes");
        Reply::read(&bytes, &Asked { id: 7, name: &www, rtype: Type::A })
    }

    #[test]
    fn the_query_is_what_dig_sends() {
        let www = www();
        let asked = Asked { id: 7, name: &www, rtype: Type(65280) };
        assert_eq!(asked.to_bytes(false), b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\xff\0\0\x01");
        assert!(asked.to_bytes(true).ends_with(b"\xff\0\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0"));
    }

    #[test]
    fn records_are_read() {
        let reply = read(|message| {
            let alias = name::parse("alias.example").expect("valid");
            message.add_answer(FullRecord::from_rdata(www(), 60, RData::CNAME(CNAME(alias.clone()))));
            message.add_answer(FullRecord::from_rdata(alias, 30, RData::A(A::new(192, 0, 2, 1))));
        });
        let answers = reply.expect("valid").answers;
        let summary: Vec<_> = answers.iter().map(|record| (record.ttl, record.data.as_str())).collect();
        assert_eq!(summary, [(60, "alias.example."), (30, "192.0.2.1")]);
        assert_eq!(answers[0].target, Some(answers[1].owner.clone()));
    }

    #[test]
    fn what_does_not_match_is_no_reply() {
        /// The reply is taken or not after the change.
        fn check(taken: bool, edit: impl FnOnce(&mut Message)) {
            assert_eq!(read(edit).is_some(), taken);
        }
        check(true, |_| ());
        check(true, |message| {
            message.queries[0].set_name(name::parse("WWW.eXample").expect("valid"));
        });
        check(false, |message| message.metadata.id = 8);
        check(false, |message| message.metadata.message_type = MessageType::Query);
        check(false, |message| message.metadata.op_code = OpCode::Notify);
        check(false, |message| {
            message.queries[0].set_name(Name::root());
        });
        check(false, |message| {
            message.queries[0].set_query_type(RecordType::AAAA);
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
            message.set_edns(Edns::new());
            message.metadata.response_code = ResponseCode::BADCOOKIE;
        });
        assert_eq!(reply.expect("valid").rcode.to_string(), "BADCOOKIE");
    }

    #[test]
    fn truncated_replies_need_no_records() {
        let www = www();
        let asked = Asked { id: 7, name: &www, rtype: Type::A };
        let mut bytes = asked.to_bytes(false);
        bytes[2] = 0x82;
        bytes[7] = 9;
        let reply = Reply::read(&bytes, &asked).expect("valid");
        assert!(reply.metadata.truncation);
        bytes[2] = 0x80;
        assert!(Reply::read(&bytes, &asked).is_none());
    }

    proptest! {
        #[test]
        fn no_octets_can_do_harm(start in any::<bool>(), tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let www = www();
            let asked = Asked { id: 7, name: &www, rtype: Type::A };
            let mut bytes = if start { asked.to_bytes(false) } else { Vec::new() };
            if let Some(counts) = bytes.get_mut(2..12) {
                counts.copy_from_slice(&[0x80, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            }
            bytes.extend(tail);
            // Counts of 65,535 never fit into 200 octets.
            prop_assert!(!start || Reply::read(&bytes, &asked).is_none());
        }
    }
}
