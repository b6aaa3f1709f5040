//! The key of response rate limiting (RRL). Questions that lead to the same response must share a key, even
//! if a client varies the name.

use dns::{Header, Message, Name, Rcode, RecordClass, ResponseCategory};

use super::lookup::NameMatch;
use crate::store::names::{NameBuf, suffix_of_len};
use crate::zone_db::ZoneDb;

/// The category of a response and the name that RRL counts it under.
#[derive(Clone)]
pub struct RateKey {
    /// The category of the response.
    pub category: ResponseCategory,
    name: NameBuf,
}

impl RateKey {
    /// Returns the key of a response. It repeats the lookup, because a response does not show its wildcard.
    pub fn of(zone_db: &ZoneDb, response: &[u8]) -> Self {
        let root = || NameBuf::new(Name::root().as_wire());
        let error = || Self { category: ResponseCategory::Error, name: root() };
        let Ok(Message { header, question: Some(question), .. }) = Message::read(response) else {
            return error();
        };
        if !matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
            return error();
        }
        let name = NameBuf::folded(question.qname());
        let zone = zone_db.zone_of(name.as_wire(), question.qtype());
        let Some(zone) = zone.filter(|_| question.qclass() == RecordClass::IN) else {
            return Self::of_tables(header, name);
        };
        match zone.find(name.as_wire(), question.qtype()) {
            NameMatch::Exact(_) => Self { category: ResponseCategory::Answer, name },
            NameMatch::Wildcard { encloser_len, .. } => {
                let encloser = suffix_of_len(name.as_wire(), encloser_len);
                let wildcard = encloser.and_then(NameBuf::wildcard_below).unwrap_or_else(|| name.clone());
                Self { category: ResponseCategory::Answer, name: wildcard }
            }
            NameMatch::Cut(node) => Self { category: ResponseCategory::Referral, name: NameBuf::new(node.name()) },
            NameMatch::Dname(node) => Self { category: ResponseCategory::Answer, name: NameBuf::new(node.name()) },
            NameMatch::Missing { .. } => {
                Self { category: ResponseCategory::Nxdomain, name: NameBuf::new(zone.apex().as_wire()) }
            }
        }
    }

    /// The key of a response from tables, which have no zones. All their referrals share one key.
    fn of_tables(header: Header, name: NameBuf) -> Self {
        let root = NameBuf::new(Name::root().as_wire());
        if header.rcode() == Rcode::NXDOMAIN {
            Self { category: ResponseCategory::Nxdomain, name: root }
        } else if header.is_authoritative() {
            Self { category: ResponseCategory::Answer, name }
        } else {
            Self { category: ResponseCategory::Referral, name: root }
        }
    }

    /// The name in wire form.
    pub fn name(&self) -> &[u8] {
        self.name.as_wire()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dns::{RecordType, Transport, write_plain_query};

    use super::*;
    use crate::{FilePlace, Record, Tables, ZoneBuilder, respond};

    /// Builds a zone database with one zone.
    fn zone_db() -> ZoneDb {
        let apex: Name = "example".parse().expect("a name");
        let mut builder = ZoneBuilder::new(&apex);
        let ns = b"\x02ns\x07example\0";
        let mut add = |owner: &str, rtype, rdata: &[u8]| {
            let owner: Name = owner.parse().expect("a name");
            builder.add(&Record { owner: owner.as_wire(), rtype, ttl: 300, rdata }, FilePlace::default());
        };
        add("example", RecordType::SOA, &[&[0, 0][..], &[0; 20]].concat());
        add("example", RecordType::NS, ns);
        add("ns.example", RecordType::A, &[192, 0, 2, 1]);
        add("*.wild.example", RecordType::A, &[192, 0, 2, 2]);
        add("cut.example", RecordType::NS, b"\x02ns\0");
        add("away.example", RecordType::DNAME, b"\x05there\0");
        let Ok((zone, _)) = builder.finish() else { panic!("a zone") };
        ZoneDb::new(Arc::new(Tables::none())).with_zone(Arc::new(zone))
    }

    #[test]
    fn questions_that_vary_have_one_topic() {
        let zone_db = zone_db();
        let check = |name: &str, category: ResponseCategory, about: &str| {
            let (mut query, mut response) = (Vec::new(), Vec::new());
            write_plain_query(7, &name.parse().expect("a name"), RecordType::A, &mut query);
            respond(&zone_db, &query, Transport::Udp, 1232, &mut response);
            let rate_key = RateKey::of(&zone_db, &response);
            let about: Name = about.parse().expect("a name");
            assert_eq!((rate_key.category, rate_key.name()), (category, about.as_wire()), "{name}");
        };
        check("NS.example", ResponseCategory::Answer, "ns.example");
        check("example", ResponseCategory::Answer, "example");
        check("a.wild.example", ResponseCategory::Answer, "*.wild.example");
        check("b.c.wild.example", ResponseCategory::Answer, "*.wild.example");
        check("a.cut.example", ResponseCategory::Referral, "cut.example");
        check("a.away.example", ResponseCategory::Answer, "away.example");
        check("a.b.example", ResponseCategory::Nxdomain, "example");
        check("elsewhere", ResponseCategory::Error, ".");
    }
}
