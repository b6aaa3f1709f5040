//! What a response is about, as far as it says so itself: under which name whoever asks for it again is to be found, however the
//! question is varied.

use super::body::{Record, labels_of_name};
use super::codes::{Rcode, RecordType};
use super::header::{HEADER_LEN, Header};
use super::name::{labels, suffixes};
use super::question::Question;

/// What a response is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What it says, without the bits of an OPT record.
    pub rcode: Rcode,
    /// It names the servers of a zone below.
    pub is_referral: bool,
    /// The name that was asked for, in any case; of NXDOMAIN the zone, of a referral the zone cut. The root of all else.
    pub name: &'a [u8],
}

impl<'a> Subject<'a> {
    /// What a response that we have written is about.
    ///
    /// The zone of an NXDOMAIN is that of its SOA record, and one above the name that was asked for has as many labels as its
    /// owner has; the same holds of a zone cut.
    pub fn of(response: &'a [u8]) -> Self {
        let of_root = |rcode| Self { rcode, is_referral: false, name: ROOT };
        let Some(header) = Header::read(response) else { return of_root(Rcode::SERVFAIL) };
        let rcode = header.rcode();
        let question = Question::read(response).filter(|_| header.qdcount() == 1);
        let Some(question) = question.filter(|_| matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)) else {
            return of_root(rcode);
        };
        if rcode == Rcode::NOERROR && (header.ancount() > 0 || header.is_authoritative() || header.nscount() == 0) {
            return Self { rcode, is_referral: false, name: question.qname() };
        }
        let authority = authority_record(response, header, question.end().max(HEADER_LEN));
        let is_referral = rcode == Rcode::NOERROR && authority.is_some_and(|record| record.rtype == RecordType::NS);
        if rcode == Rcode::NOERROR && !is_referral {
            return Self { rcode, is_referral, name: question.qname() };
        }
        let depth = authority.and_then(|record| labels_of_name(response, record.start)).unwrap_or(0);
        let above = labels(question.qname()).count().saturating_sub(depth);
        Self { rcode, is_referral, name: suffixes(question.qname()).nth(above).unwrap_or(ROOT) }
    }
}

/// The first record of the authority section.
fn authority_record(response: &[u8], header: Header, records: usize) -> Option<Record> {
    let mut at = records;
    for _ in 0..header.ancount() {
        at = Record::read(response, at)?.end;
    }
    Record::read(response, at).filter(|_| header.nscount() > 0)
}

/// The root in wire form.
const ROOT: &[u8] = &[0];

#[cfg(test)]
mod tests {
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, a, message, opt, record};
    use super::*;

    #[test]
    fn responses_tell_what_they_are_about() {
        let check = |bits: u16, counts: [u16; 4], parts: &[&[u8]], is_referral: bool, name: &[u8]| {
            let octets = message(REPLY | bits, counts, &[&[QUESTION], parts].concat());
            let subject = Subject::of(&octets);
            assert_eq!((subject.is_referral, subject.name), (is_referral, name), "{octets:?}");
        };
        let qname = &QUESTION[..QUESTION.len() - 4];
        let zone = &qname[4..];
        let ns = &record(EXAMPLE, RecordType::NS, WWW)[..];
        let soa = &record(EXAMPLE, RecordType::SOA, &[0; 22])[..];
        check(0, [1, 1, 0, 0], &[&a(WWW)], false, qname);
        check(0, [1, 0, 1, 0], &[soa], false, qname);
        check(0, [1, 0, 0, 0], &[], false, qname);
        check(0x0400, [1, 0, 1, 0], &[ns], false, qname);
        check(0, [1, 0, 1, 0], &[ns], true, zone);
        check(3, [1, 0, 1, 0], &[soa], false, zone);
        check(3, [1, 1, 1, 1], &[&a(WWW), soa, &opt(0, 0, b"")], false, zone);
        check(3, [1, 0, 1, 0], &[&record(b"\0", RecordType::SOA, &[0; 22])], false, ROOT);
        check(3, [1, 0, 0, 0], &[], false, ROOT);
        check(2, [1, 0, 0, 0], &[], false, ROOT);
        check(5, [1, 0, 1, 0], &[soa], false, ROOT);
    }

    #[test]
    fn what_is_broken_is_about_nothing() {
        let root = |rcode| Subject { rcode, is_referral: false, name: ROOT };
        assert_eq!(Subject::of(b""), root(Rcode::SERVFAIL));
        assert_eq!(Subject::of(&message(REPLY | 1, [0; 4], &[])), root(Rcode::FORMERR));
        assert_eq!(Subject::of(&message(REPLY | 3, [1, 0, 1, 0], &[QUESTION])).name, ROOT);
    }
}
