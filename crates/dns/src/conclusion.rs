//! The conclusion of a reply: data, no data, a referral, or a failure.

use super::codes::{Rcode, RecordType};
use super::reply::Reply;

/// The conclusion of a reply about its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The answer section has records of the QTYPE, or aliases without a proof that they end in NODATA.
    Data,
    /// The name, or the target of its alias chain, does not exist or has no such data.
    Negative {
        /// True if an SOA record limits how long the reply may be cached (RFC 2308 section 5).
        has_soa: bool,
    },
    /// The reply names other servers.
    Referral,
    /// The query failed with this rcode.
    Failure(Rcode),
}

impl Reply<'_> {
    /// Returns the conclusion of this reply about its question.
    pub fn conclusion(&self) -> Conclusion {
        let has_soa = self.has_authority_soa();
        match self.rcode() {
            // RFC 6604 section 3: with aliases, the rcode is about the last name of the chain.
            Rcode::NXDOMAIN => Conclusion::Negative { has_soa },
            // RFC 2308 section 2.2: a chain of aliases that ends in NODATA has answer records and an SOA
            // record.
            Rcode::NOERROR if self.has_answers() && (!has_soa || self.answers_type()) => Conclusion::Data,
            Rcode::NOERROR if self.is_referral() => Conclusion::Referral,
            Rcode::NOERROR => Conclusion::Negative { has_soa },
            other => Conclusion::Failure(other),
        }
    }

    fn answers_type(&self) -> bool {
        let Some(qtype) = self.question().map(|question| question.qtype()) else {
            return false;
        };
        self.answers().any(|record| record.rtype == qtype || qtype == RecordType::ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reply::read_reply;
    use super::super::sample::{EXAMPLE, QUESTION, REPLY, WWW, a, message, record};
    use super::*;

    #[test]
    fn replies_conclude() {
        let check = |bits: u16, counts: [u16; 4], parts: &[&[u8]], expected: Conclusion| {
            let octets = message(REPLY | bits, counts, &[&[QUESTION], parts].concat());
            assert_eq!(read_reply(&octets).expect("a reply").conclusion(), expected, "{octets:?}");
        };
        let a = &a(WWW)[..];
        let alias = &record(WWW, RecordType::CNAME, EXAMPLE)[..];
        let soa = &record(EXAMPLE, RecordType::SOA, &[0; 22])[..];
        let ns = &record(EXAMPLE, RecordType::NS, WWW)[..];
        let (with_soa, without) = (Conclusion::Negative { has_soa: true }, Conclusion::Negative { has_soa: false });
        check(0, [1, 1, 0, 0], &[a], Conclusion::Data);
        check(0, [1, 2, 1, 0], &[alias, a, soa], Conclusion::Data);
        check(0, [1, 1, 0, 0], &[alias], Conclusion::Data);
        check(0, [1, 1, 1, 0], &[alias, soa], with_soa);
        check(0, [1, 0, 1, 0], &[soa], with_soa);
        check(0, [1, 0, 0, 0], &[], without);
        check(0, [1, 0, 1, 0], &[ns], Conclusion::Referral);
        check(0x0400, [1, 0, 1, 0], &[ns], without);
        check(3, [1, 0, 1, 0], &[soa], with_soa);
        check(3, [1, 1, 1, 0], &[alias, soa], with_soa);
        check(3, [1, 1, 0, 0], &[alias], without);
        check(2, [1, 0, 0, 0], &[], Conclusion::Failure(Rcode::SERVFAIL));
        check(5, [1, 0, 1, 0], &[soa], Conclusion::Failure(Rcode::REFUSED));
    }
}
