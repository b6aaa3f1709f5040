//! A 32-bit digest of a reply: its rcode and the set of its answer records. It serves to compare the replies
//! of several servers.
//!
//! The digest ignores order and TTLs of the records, case and compression of names, and RRSIG records, which
//! each server may make itself.

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;

use foldhash::fast::FixedState;

use super::body::{RecordBounds, hash_name, skip_name};
use super::codes::RecordType;
use super::rdata::{NameRule, RdataForm};
use super::reply::Reply;

/// The digest of a reply. Two different replies collide once in four billion pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyDigest(NonZeroU32);

impl ReplyDigest {
    /// Computes the digest of a reply; `None` if the reply is truncated.
    pub fn of(reply: &Reply<'_>) -> Option<Self> {
        if reply.is_truncated() {
            return None;
        }
        let message = reply.as_wire();
        let mut sum = u64::from(reply.rcode().0);
        for record in reply.answers().filter(|record| record.rtype != RecordType::RRSIG) {
            // A sum does not depend on the order. Unlike XOR, it does not cancel two equal records.
            sum = sum.wrapping_add(hash_record(message, &record));
        }
        let folded = (sum ^ sum >> 32) as u32;
        Some(Self(NonZeroU32::new(folded).unwrap_or(NonZeroU32::MIN)))
    }

    /// Returns the digest as a number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

fn hash_record(message: &[u8], record: &RecordBounds) -> u64 {
    // No secret seed is needed: an attacker who can make replicas differ unseen can write their data anyway.
    let mut hasher = FixedState::default().build_hasher();
    hash_name(message, record.start, &mut hasher);
    hasher.write(message.get(record.owner_end..record.owner_end + 4).unwrap_or_default());
    let rdata = message.get(..record.end).unwrap_or_default();
    if write_rdata(rdata, record, &mut hasher).is_none() {
        // RDATA that does not match its type is compared unchanged, apart from the partial hash.
        hasher.write_u8(0);
        hasher.write(rdata.get(record.rdata..).unwrap_or_default());
    }
    hasher.finish()
}

/// Hashes the RDATA at the end of `message`, names folded. Returns `None` if it does not match its type.
fn write_rdata(message: &[u8], record: &RecordBounds, hasher: &mut impl Hasher) -> Option<()> {
    let form = RdataForm::of(record.rtype).filter(|form| form.name_rule >= NameRule::AnyCase);
    let names = form.map_or(0, |form| form.names);
    let mut at = record.rdata + form.map_or(Some(0), |form| form.names_start(message.get(record.rdata..)?))?;
    hasher.write(message.get(record.rdata..at)?);
    for _ in 0..names {
        let end = skip_name(message, at)?;
        hash_name(message, at, hasher);
        at = end;
    }
    hasher.write(message.get(at..)?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::reply::read_reply;
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, message, opt, record};
    use super::*;

    fn digest(bits: u16, answers: &[&[u8]]) -> Option<ReplyDigest> {
        let opt = opt(0, 0, b"");
        let parts = [&[QUESTION], answers, &[&opt]].concat();
        let octets = message(REPLY | bits, [1, answers.len() as u16, 0, 1], &parts);
        ReplyDigest::of(&read_reply(&octets).expect("a reply"))
    }

    fn address(owner: &[u8], ttl: u8, last: u8) -> Vec<u8> {
        let mut octets = record(owner, RecordType::A, &[192, 0, 2, last]);
        octets[owner.len() + 7] = ttl;
        octets
    }

    #[test]
    fn what_does_not_count_makes_no_other_digest() {
        let check = |a: &[&[u8]], b: &[&[u8]]| assert_eq!(digest(0, a), digest(0, b), "{a:?} {b:?}");
        let (one, two) = (&address(WWW, 1, 1)[..], &address(WWW, 1, 2)[..]);
        check(&[one, two], &[two, one]);
        check(&[one], &[&address(WWW, 9, 1)]);
        check(&[one], &[&address(b"\x03wWw\x07eXample\x03ORG\0", 1, 1)]);
        check(&[one], &[one, &record(WWW, RecordType::RRSIG, &[7; 30])]);
        let mx = |name: &[u8]| record(WWW, RecordType::MX, &[&[0, b'A'][..], name].concat());
        check(&[&mx(EXAMPLE)], &[&mx(b"\x07EXAMPLE\x03oRg\0")]);
        let soa = |name: &[u8]| record(WWW, RecordType::SOA, &[name, EXAMPLE, &[1; 20]].concat());
        check(&[&soa(EXAMPLE)], &[&soa(b"\x07exAmple\x03org\0")]);
        // AA, RA and AD.
        assert_eq!(digest(0, &[one]), digest(0x04A0, &[one]));
    }

    #[test]
    fn what_counts_makes_another_digest() {
        let check = |a: &[&[u8]], b: &[&[u8]]| assert_ne!(digest(0, a), digest(0, b), "{a:?} {b:?}");
        let (one, two) = (&address(WWW, 1, 1)[..], &address(WWW, 1, 2)[..]);
        check(&[one], &[two]);
        check(&[one], &[]);
        check(&[one], &[one, two]);
        check(&[one], &[&address(EXAMPLE, 1, 1)]);
        check(&[one], &[&record(WWW, RecordType(65280), &[192, 0, 2, 1])]);
        check(&[&record(WWW, RecordType::TXT, b"\x01a")], &[&record(WWW, RecordType::TXT, b"\x01A")]);
        let mx = |preference, name: &[u8]| record(WWW, RecordType::MX, &[&[0, preference][..], name].concat());
        check(&[&mx(b'A', EXAMPLE)], &[&mx(b'a', EXAMPLE)]);
        check(&[&mx(1, EXAMPLE)], &[&mx(1, b"\x03org\0")]);
        // An MX without its name, and one with half of it.
        check(&[&record(WWW, RecordType::MX, &[0])], &[&record(WWW, RecordType::MX, &[0, 1, 1])]);
        for rcode in [2, 3, 5] {
            assert_ne!(digest(0, &[]), digest(rcode, &[]), "{rcode}");
        }
    }

    #[test]
    fn a_truncated_reply_has_none() {
        assert_eq!(digest(0x0200, &[&address(WWW, 1, 1)]), None);
        assert!(digest(0, &[&address(WWW, 1, 1)]).is_some());
    }
}
