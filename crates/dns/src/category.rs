//! The category and name under which response rate limiting (RRL) counts a response.

use super::body::{labels_of_name, records};
use super::codes::{Rcode, RecordType};
use super::header::Header;
use super::name::{labels, suffixes};
use super::question::Question;

/// The category of a response. Each category has a separate rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCategory {
    /// Records, or NODATA. The name is the QNAME, or the wildcard (`*.example.org`) that it matched.
    Answer,
    /// A referral. The name is the zone cut.
    Referral,
    /// NXDOMAIN. The name is the apex of the zone.
    Nxdomain,
    /// REFUSED, FORMERR and similar errors. The name is the root for any question.
    Error,
}

/// The category and name of a response, as far as the response itself shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSubject<'a> {
    /// The category of the response.
    pub category: ResponseCategory,
    /// The name of the category, in any case. For an answer from a wildcard it is the QNAME.
    pub name: &'a [u8],
}

impl<'a> ResponseSubject<'a> {
    /// Returns the subject of a response that hedgerow has written. The zone of an NXDOMAIN is the ancestor
    /// of the QNAME with as many labels as the owner of the SOA record; a zone cut is found in the same way.
    pub fn of(response: &'a [u8]) -> Self {
        let error = Self { category: ResponseCategory::Error, name: ROOT };
        let Some(header) = Header::read(response) else { return error };
        let rcode = header.rcode();
        let question = Question::read(response).filter(|_| header.qdcount() == 1);
        let Some(question) = question.filter(|_| matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN)) else {
            return error;
        };
        let answer = Self { category: ResponseCategory::Answer, name: question.qname() };
        if rcode == Rcode::NOERROR && (header.ancount() > 0 || header.is_authoritative() || header.nscount() == 0) {
            return answer;
        }
        let authority = records(response, question.end()).nth(header.ancount().into());
        let authority = authority.filter(|_| header.nscount() > 0);
        let is_referral = rcode == Rcode::NOERROR && authority.is_some_and(|record| record.rtype == RecordType::NS);
        if rcode == Rcode::NOERROR && !is_referral {
            return answer;
        }
        let category = if is_referral { ResponseCategory::Referral } else { ResponseCategory::Nxdomain };
        let depth = authority.and_then(|record| labels_of_name(response, record.start)).unwrap_or(0);
        let above = labels(question.qname()).count().saturating_sub(depth);
        Self { category, name: suffixes(question.qname()).nth(above).unwrap_or(ROOT) }
    }
}

const ROOT: &[u8] = &[0];

#[cfg(test)]
mod tests {
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, a, message, opt, record};
    use super::ResponseCategory::{Answer, Error, Nxdomain, Referral};
    use super::*;

    #[test]
    fn responses_tell_what_they_are_about() {
        let check = |bits: u16, counts: [u16; 4], parts: &[&[u8]], category: ResponseCategory, name: &[u8]| {
            let octets = message(REPLY | bits, counts, &[&[QUESTION], parts].concat());
            let subject = ResponseSubject::of(&octets);
            assert_eq!((subject.category, subject.name), (category, name), "{octets:?}");
        };
        let qname = &QUESTION[..QUESTION.len() - 4];
        let zone = &qname[4..];
        let ns = &record(EXAMPLE, RecordType::NS, WWW)[..];
        let soa = &record(EXAMPLE, RecordType::SOA, &[0; 22])[..];
        check(0, [1, 1, 0, 0], &[&a(WWW)], Answer, qname);
        check(0, [1, 0, 1, 0], &[soa], Answer, qname);
        check(0, [1, 0, 0, 0], &[], Answer, qname);
        check(0x0400, [1, 0, 1, 0], &[ns], Answer, qname);
        check(0, [1, 0, 1, 0], &[ns], Referral, zone);
        check(3, [1, 0, 1, 0], &[soa], Nxdomain, zone);
        check(3, [1, 1, 1, 1], &[&a(WWW), soa, &opt(0, 0, b"")], Nxdomain, zone);
        check(3, [1, 0, 1, 0], &[&record(b"\0", RecordType::SOA, &[0; 22])], Nxdomain, ROOT);
        check(3, [1, 0, 0, 0], &[], Nxdomain, ROOT);
        check(2, [1, 0, 0, 0], &[], Error, ROOT);
        check(5, [1, 0, 1, 0], &[soa], Error, ROOT);
    }

    #[test]
    fn what_is_broken_is_about_nothing() {
        let error = ResponseSubject { category: Error, name: ROOT };
        assert_eq!(ResponseSubject::of(b""), error);
        assert_eq!(ResponseSubject::of(&message(REPLY | 1, [0; 4], &[])), error);
        assert_eq!(ResponseSubject::of(&message(REPLY | 3, [1, 0, 1, 0], &[QUESTION])).name, ROOT);
    }
}
