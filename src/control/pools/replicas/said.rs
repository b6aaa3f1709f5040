//! The content of a reply: short for a comparison, and readable for people.

use dns::{Message, Rcode, RecordType, ReplyDigest, Section, SectionRecord, read_reply};
use hedge::BackendIndex;
use zone::rdata_to_text;

use crate::control::pools::replicas::divergence::MemberAnswer;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReplicaAnswer {
    pub(super) rcode: Rcode,
    /// A digest of the rcode and the answer records.
    pub(super) digest: u32,
    pub(super) serial: Option<u32>,
    /// The first few answer records, sorted.
    pub(super) data: String,
}

impl ReplicaAnswer {
    /// Reads a reply; `None` if it is malformed or truncated.
    pub(super) fn of(octets: &[u8]) -> Option<Self> {
        let reply = read_reply(octets).ok()?;
        let digest = ReplyDigest::of(&reply)?.number();
        let records: Vec<_> = Message::read(octets).ok()?.records().lenient().map_while(Result::ok).collect();
        let serial = reply.zone_serial().or_else(|| reply.answered_serial()).map(|reported| reported.serial);
        Some(Self { rcode: reply.rcode(), digest, serial, data: data(&records) })
    }

    pub(super) fn by(&self, member: BackendIndex) -> MemberAnswer {
        MemberAnswer { member, rcode: self.rcode.0, digest: self.digest, serial: self.serial }
    }
}

/// The first few answer records as text, sorted because servers may send them in any order.
fn data(records: &[SectionRecord]) -> String {
    let is_meant = |record: &&SectionRecord| record.section == Section::Answer && record.rtype != RecordType::RRSIG;
    let mut texts: Vec<_> = records.iter().filter(is_meant).map(record_text).collect();
    texts.sort_unstable();
    texts.dedup();
    match texts.len() {
        0 => "no records".to_owned(),
        count if count <= SHOWN => texts.join(", "),
        count => format!("{} and {} more", texts[..SHOWN].join(", "), count - SHOWN),
    }
}

fn record_text(record: &SectionRecord) -> String {
    let SectionRecord { rtype, rdata, .. } = record;
    // Long data are shown by their beginning, which may not contain the difference.
    match rdata.get(..LONGEST) {
        Some(_) => format!("{rtype} of {} octets", rdata.len()),
        None => format!("{rtype} {}", rdata_to_text(*rtype, rdata)),
    }
}

const SHOWN: usize = 3;

const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use dns::{Flag, Header};

    use super::*;

    /// The question `www.` A IN.
    const QUESTION: &[u8] = b"\x03www\0\0\x01\0\x01";

    fn record(rtype: RecordType, rdata: &[u8]) -> Vec<u8> {
        let [t0, t1] = rtype.0.to_be_bytes();
        let [l0, l1] = (rdata.len() as u16).to_be_bytes();
        [&[0xC0, 12, t0, t1, 0, 1, 0, 0, 0, 9, l0, l1], rdata].concat()
    }

    /// Makes an OPT record with a ZONEVERSION option of this data.
    fn version(data: &[u8]) -> Vec<u8> {
        let length = data.len() as u8;
        [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4 + length, 0, 19, 0, length], data].concat()
    }

    /// Reads a reply with these records, answers before authority before additional.
    fn read(rcode: Rcode, counts: [u16; 3], records: &[Vec<u8>]) -> Option<ReplicaAnswer> {
        let [answers, authority, additional] = counts;
        let header = Header::new(7).with(Flag::Response, true).with_rcode(rcode);
        let header = header.with_counts([1, answers, authority, additional]);
        ReplicaAnswer::of(&[&header.to_wire()[..], QUESTION, &records.concat()].concat())
    }

    #[test]
    fn data_are_told_in_a_few_words() {
        let check = |answers: &[Vec<u8>], expected: &str| {
            let said = read(Rcode::NOERROR, [answers.len() as u16, 0, 0], answers).expect("a reply");
            assert_eq!(said.data, expected);
        };
        let a = |last| record(RecordType::A, &[192, 0, 2, last]);
        check(&[], "no records");
        check(&[a(2), a(1)], "A 192.0.2.1, A 192.0.2.2");
        check(&[a(1), record(RecordType::RRSIG, &[0; 20])], "A 192.0.2.1");
        check(&[a(1), a(2), a(3), a(4), a(5)], "A 192.0.2.1, A 192.0.2.2, A 192.0.2.3 and 2 more");
        check(&[record(RecordType::TXT, &[200; 128])], "TXT of 128 octets");
        assert_eq!(ReplicaAnswer::of(b"no reply"), None);
    }

    #[test]
    fn the_version_is_that_of_an_soa_record_or_of_the_option() {
        let check = |rcode, counts, records: &[Vec<u8>], expected: Option<u32>| {
            let said = read(rcode, counts, records).expect("a reply");
            assert_eq!((said.rcode, said.serial), (rcode, expected), "{records:?}");
        };
        let soa = record(RecordType::SOA, &[&[0, 0, 0, 0, 0, 9][..], &[1; 16]].concat());
        let a = record(RecordType::A, &[192, 0, 2, 1]);
        check(Rcode::NOERROR, [1, 0, 0], from_ref(&a), None);
        check(Rcode::NXDOMAIN, [0, 1, 0], from_ref(&soa), Some(9));
        check(Rcode::NOERROR, [1, 0, 0], from_ref(&soa), Some(9));
        check(Rcode::NOERROR, [1, 0, 1], &[a.clone(), version(&[0, 0, 0, 0, 1, 2])], Some(258));
        check(Rcode::NXDOMAIN, [0, 1, 1], &[soa, version(&[0, 0, 0, 0, 0, 7])], Some(9));
        // Another type of version, and no version.
        check(Rcode::NOERROR, [1, 0, 1], &[a.clone(), version(&[0, 1, 0, 0, 1, 2])], None);
        check(Rcode::NOERROR, [1, 0, 1], &[a, version(&[])], None);
    }
}
