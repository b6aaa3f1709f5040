//! Transfers out: from records to full messages (RFC 5936 section 2.2, RFC 1995 section 4).
//!
//! [`whole`] and [`differences`] order the records. A [`TransferWriter`] packs them into messages.

use std::iter::Peekable;

use crate::Record;
use dns::{Flag, HEADER_LEN, Header, Question, RecordType, suffixes};

use super::difference::Difference;
use super::offer::append_record;

/// Maximum bytes of a message of a transfer: the maximum of TCP, less room for TSIG.
pub const MESSAGE_LIMIT: usize = u16::MAX as usize - super::tsig::ROOM;

/// Returns the records of AXFR: the SOA, all else, the SOA again (RFC 5936 section 2.2). `records` may hold
/// the SOA anywhere.
pub fn whole<'a>(soa: Record<'a>, records: impl IntoIterator<Item = Record<'a>>) -> impl Iterator<Item = Record<'a>> {
    let rest = records.into_iter().filter(|record| record.rtype != RecordType::SOA);
    std::iter::once(soa).chain(rest).chain(std::iter::once(soa))
}

/// Returns the records of IXFR: the new SOA, the removed and added records of each step, each side with its
/// SOA first, and the new SOA again (RFC 1995 section 4). `steps` may be condensed.
pub fn differences<'a>(
    soa: Record<'a>,
    steps: impl IntoIterator<Item = &'a Difference>,
) -> impl Iterator<Item = Record<'a>> {
    let sides = steps.into_iter().flat_map(|step| step.removed.iter().chain(step.added.iter()));
    std::iter::once(soa).chain(sides).chain(std::iter::once(soa))
}

/// Packs records into the messages of one response.
pub struct TransferWriter<I: Iterator> {
    records: Peekable<I>,
    header: Header,
    question: Vec<u8>,
    limit: usize,
    is_started: bool,
    names: CompressionNames,
    /// The OPT record of each message, or nothing.
    opt: Vec<u8>,
}

impl<'a, I: Iterator<Item = Record<'a>>> TransferWriter<I> {
    /// Makes a response to this query with these records in messages of at most `limit` bytes.
    pub fn new(query: Header, question: &Question<'_>, records: I, limit: usize) -> Self {
        // RFC 5936 section 2.2.1: AA is set; RD is copied, as in any response (RFC 1035 section 4.1.1); AD
        // and CD are clear.
        let header = query.to_response().with(Flag::CheckingDisabled, false).with(Flag::Authoritative, true);
        Self {
            records: records.peekable(),
            header,
            question: question.as_wire().to_vec(),
            limit,
            is_started: false,
            names: CompressionNames::new(),
            opt: Vec::new(),
        }
    }

    /// Adds this OPT record to each message, because the query has one (RFC 9103 section 6.3.4).
    pub fn with_opt(self, opt: Vec<u8>) -> Self {
        Self { limit: self.limit.saturating_sub(opt.len()), opt, ..self }
    }

    /// Writes the next message into `out`, or returns `false` if there is none. A record that is longer than
    /// the limit is alone in its message.
    pub fn next_message(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        if self.records.peek().is_none() {
            return false;
        }
        // RFC 5936 section 2.2.1: the first message has the question; the others may omit it.
        let qdcount = u16::from(!self.is_started);
        self.names.clear();
        out.extend_from_slice(&[0; HEADER_LEN]);
        if !self.is_started {
            self.names.append(self.question.split_last_chunk::<4>().map_or(&[], |(name, _)| name), out);
            out.extend_from_slice(self.question.last_chunk::<4>().map_or(&[], |fixed| fixed));
        }
        self.is_started = true;
        let mut ancount = 0;
        while let Some(record) = self.records.peek()
            && ancount < u16::MAX
        {
            let end = out.len();
            self.names.append(record.owner, out);
            append_record(&[], record, out);
            if out.len() > self.limit && ancount > 0 {
                out.truncate(end);
                break;
            }
            ancount += 1;
            self.records.next();
        }
        out.extend_from_slice(&self.opt);
        let header = self.header.with_counts([qdcount, ancount, 0, u16::from(!self.opt.is_empty())]);
        out[..HEADER_LEN].copy_from_slice(&header.to_wire());
        true
    }
}

/// Writes a whole response for UDP: all the records, or only the SOA if they do not fit (RFC 1995 section 2),
/// so that the client repeats by TCP.
pub fn write_datagram<'a>(
    query: Header,
    question: &Question<'_>,
    opt: &[u8],
    soa: Record<'a>,
    records: impl Iterator<Item = Record<'a>>,
    limit: usize,
    out: &mut Vec<u8>,
) {
    let mut writer = TransferWriter::new(query, question, records, limit).with_opt(opt.to_vec());
    writer.next_message(out);
    if writer.records.peek().is_some() || out.len() > limit {
        TransferWriter::new(query, question, std::iter::once(soa), limit).with_opt(opt.to_vec()).next_message(out);
    }
}

/// The offsets of names in one message, for compression pointers (RFC 1035 section 4.1.4). The table has a
/// fixed size, and a new name replaces an old one with the same hash, which costs only some bytes. Names must
/// match with case, because a pointer would change the case.
struct CompressionNames {
    places: Box<[u16; PLACES]>,
}

impl CompressionNames {
    fn new() -> Self {
        Self { places: Box::new([0; PLACES]) }
    }

    fn clear(&mut self) {
        self.places.fill(0);
    }

    fn append(&mut self, name: &[u8], out: &mut Vec<u8>) {
        for suffix in suffixes(name) {
            let Some((&len, rest)) = suffix.split_first() else {
                return;
            };
            if len == 0 {
                break;
            }
            let place = &mut self.places[place_of(suffix)];
            if *place != 0 && is_at(suffix, usize::from(*place), out) {
                out.extend_from_slice(&(POINTER | *place).to_be_bytes());
                return;
            }
            // A pointer has 14 bits.
            if let Ok(here @ ..POINTER_END) = u16::try_from(out.len()) {
                *place = here;
            }
            out.push(len);
            out.extend_from_slice(rest.get(..usize::from(len)).unwrap_or_default());
        }
        out.push(0);
    }
}

/// Returns true if this name is at that offset of the message. The pointers there lead backwards.
fn is_at(name: &[u8], mut at: usize, message: &[u8]) -> bool {
    let mut rest = name;
    loop {
        let Some(&len) = message.get(at) else {
            return false;
        };
        if len >= 0xC0 {
            let low = message.get(at + 1).copied().unwrap_or_default();
            at = usize::from(u16::from_be_bytes([len, low]) & !POINTER);
            continue;
        }
        let label = 1 + usize::from(len);
        match (message.get(at..at + label), rest.split_at_checked(label)) {
            (Some(there), Some((wanted, behind))) if there == wanted => rest = behind,
            _ => return false,
        }
        if len == 0 {
            return true;
        }
        at += label;
    }
}

/// Returns the place of a name by FNV-1a. Colliding names only make the messages of their own zone longer.
fn place_of(name: &[u8]) -> usize {
    let mix = |hash: u32, octet: &u8| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193);
    let hash = name.iter().fold(0x811C_9DC5, mix);
    (hash ^ hash >> 16) as usize % PLACES
}

/// 16 KiB hold hardly more names than this.
const PLACES: usize = 2048;

const POINTER: u16 = 0xC000;

const POINTER_END: u16 = 0x4000;

#[cfg(test)]
mod tests {
    use crate::Records;
    use dns::Message;
    use proptest::prelude::*;

    use super::super::sample::{ZONE, a, soa, version};
    use super::*;

    fn query() -> Vec<u8> {
        [&Header::new(7).with_counts([1, 0, 0, 0]).to_wire()[..], ZONE, b"\0\xFC\0\x01"].concat()
    }

    fn messages(records: &Records, limit: usize) -> Vec<Vec<u8>> {
        let query = query();
        let query = Message::read(&query).unwrap();
        let mut writer = TransferWriter::new(query.header, &query.question.unwrap(), records.iter(), limit);
        let mut all = Vec::new();
        let mut out = Vec::new();
        while writer.next_message(&mut out) {
            all.push(out.clone());
        }
        all
    }

    fn read(messages: &[Vec<u8>]) -> Records {
        let mut records = Records::new();
        for octets in messages {
            for record in Message::read(octets).unwrap().records() {
                let record = record.unwrap();
                let owner = record.owner.as_wire();
                records.push(Record { owner, rtype: record.rtype, ttl: record.ttl, rdata: &record.rdata });
            }
        }
        records
    }

    #[test]
    fn messages_are_as_full_as_they_may_be() {
        let records = version(1, 0..200);
        let all = messages(&records, 500);
        assert!(all.iter().all(|message| message.len() <= 500));
        // Each but the last has no room for one more: an owner by pointer, with label, has 6 bytes here, the
        // rest 14.
        assert!(all[..all.len() - 1].iter().all(|message| message.len() > 500 - 22), "{:?}", all.iter().map(Vec::len));
        let questions: Vec<_> = all.iter().map(|message| Header::read(message).unwrap().qdcount()).collect();
        assert!(questions[0] == 1 && questions[1..].iter().all(|&count| count == 0));
        assert!(all.iter().all(|message| Header::read(message).unwrap().is_authoritative()));
        assert_eq!(read(&all), records);
    }

    #[test]
    fn owners_are_compressed_to_what_stands_before() {
        let [first] = &messages(&version(1, [1]), MESSAGE_LIMIT)[..] else { panic!("one message") };
        let soa_owner = HEADER_LEN + ZONE.len() + 4;
        assert_eq!(first[soa_owner..soa_owner + 2], [0xC0, 12]);
        assert!(first.windows(5).any(|window| window == b"\x02h1\xC0\x0C"));
        // RFC 3597 section 4: names in RDATA are not compressed here.
        let rdata = soa(1);
        assert!(first.windows(rdata.as_record().rdata.len()).any(|window| window == rdata.as_record().rdata));
        // The same name in another case is another name.
        let shouted = Record { owner: b"\x07EXAMPLE\0", rtype: RecordType::A, ttl: 0, rdata: &[0; 4] };
        let [message] = &messages(&[shouted].into_iter().collect(), MESSAGE_LIMIT)[..] else { panic!("one message") };
        assert!(message.windows(9).any(|window| window == b"\x07EXAMPLE\0"));
    }

    #[test]
    fn a_datagram_has_all_or_the_soa() {
        let query = query();
        let query = Message::read(&query).unwrap();
        let records = version(1, 0..50);
        let mut out = Vec::new();
        let soa = records.first().unwrap();
        let count = |limit: usize, out: &mut Vec<u8>| {
            write_datagram(query.header, &query.question.unwrap(), b"", soa, records.iter(), limit, out);
            Header::read(out).unwrap().ancount()
        };
        assert_eq!(count(4096, &mut out), 51);
        assert_eq!(count(512, &mut out), 1);
        assert_eq!(read(&[out]), records.first().into_iter().collect());
    }

    #[test]
    fn transfers_begin_and_end_with_the_soa() {
        let zone = version(2, [1]);
        let soa = soa(2);
        let all: Records = whole(soa.as_record(), zone.iter()).collect();
        let types: Vec<_> = all.iter().map(|record| record.rtype).collect();
        assert_eq!(types, [RecordType::SOA, RecordType::A, RecordType::SOA]);
        let step = Difference::between(version(1, [3]).iter(), zone.iter()).unwrap();
        let all: Records = differences(soa.as_record(), [&step]).collect();
        let types: Vec<_> = all.iter().map(|record| record.rtype).collect();
        assert_eq!(types, [6, 6, 1, 6, 1, 6].map(RecordType));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            owners in prop::collection::vec(prop::collection::vec("[a-cA]{1,3}", 0..5), 1..80),
            limit in 60..2_000_usize,
        ) {
            let wire = |labels: &Vec<String>| {
                let labels = labels.iter().flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
                labels.chain([0]).collect::<Vec<u8>>()
            };
            let owners: Vec<_> = owners.iter().map(wire).collect();
            let host = a(1, 5);
            let records: Records = owners.iter().map(|owner| Record { owner, ..host.as_record() }).collect();
            prop_assert_eq!(read(&messages(&records, limit)), records);
        }
    }
}
