//! What a reply says of its question: data, that there is none, where else to ask, or that something failed.

use super::body::Record;
use super::codes::{Rcode, RecordType};
use super::reply::Reply;

/// What a reply says of its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The answer section has records of the type asked for, or aliases and nothing that says that they end nowhere.
    Data,
    /// The name, or what it is an alias of, does not exist or has no such data.
    Negative {
        /// Whether an SOA record says for how long that may be believed (RFC 2308 section 5).
        has_soa: bool,
    },
    /// Other servers are to be asked.
    Referral,
    /// There was no answer to be had, and this is why.
    Failure(Rcode),
}

impl Reply<'_> {
    /// What this reply says of its question.
    pub fn conclusion(&self) -> Conclusion {
        let has_soa = self.has_authority_soa();
        match self.rcode() {
            // RFC 6604 section 3: with aliases, the rcode is about the last name of the chain.
            Rcode::NXDOMAIN => Conclusion::Negative { has_soa },
            // RFC 2308 section 2.2: a chain of aliases that ends in NODATA has answer records, and an SOA beside them.
            Rcode::NOERROR if self.has_answers() && (!has_soa || self.answers_type()) => Conclusion::Data,
            Rcode::NOERROR if self.is_referral() => Conclusion::Referral,
            Rcode::NOERROR => Conclusion::Negative { has_soa },
            other => Conclusion::Failure(other),
        }
    }

    /// Whether a record of the answer section is of the type asked for.
    fn answers_type(&self) -> bool {
        let Some(qtype) = self.question().map(|question| question.qtype()) else {
            return false;
        };
        let mut at = self.answers_start();
        while at < self.authority_start() {
            let Some(record) = Record::read(self.as_wire(), at) else {
                return false;
            };
            if record.rtype == qtype || qtype == RecordType::ANY {
                return true;
            }
            at = record.end;
        }
        false
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
