//! What a response is about, as far as limits of the rate of responses go: under which name whoever asks for it again is to
//! be found, however the question is varied.

use super::catalog::Catalog;
use super::lookup::Match;
use super::names::{NameBuf, suffix_of_len};
use crate::wire::{Header, Message, Name, Rcode, RecordClass};

/// What kind of response it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records, or none of that type.
    Answer,
    /// The servers of a zone below.
    Referral,
    /// There is no such name.
    Nxdomain,
    /// Everything else.
    Error,
}

/// What a response is about.
#[derive(Clone)]
pub struct Topic {
    /// What it says.
    pub kind: Kind,
    /// Of what.
    name: NameBuf,
}

impl Topic {
    /// What a response of this catalog is about. It is looked up once more, since a response does not say which wildcard it
    /// came from: who asks for random names below one would otherwise have another topic each time.
    pub fn of(catalog: &Catalog, response: &[u8]) -> Self {
        let root = || NameBuf::new(Name::root().as_wire());
        let error = || Self { kind: Kind::Error, name: root() };
        let Ok(Message { header, question: Some(question), .. }) = Message::read(response) else {
            return error();
        };
        if !matches!(header.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
            return error();
        }
        let name = NameBuf::folded(question.qname());
        let zone = catalog.zone_of(name.as_wire(), question.qtype());
        let Some(zone) = zone.filter(|_| question.qclass() == RecordClass::IN) else {
            return Self::of_tables(header, name);
        };
        match zone.find(name.as_wire(), question.qtype()) {
            Match::Exact(_) => Self { kind: Kind::Answer, name },
            Match::Wildcard { encloser_len, .. } => {
                let encloser = suffix_of_len(name.as_wire(), encloser_len);
                let wildcard = encloser.and_then(NameBuf::wildcard_below).unwrap_or_else(|| name.clone());
                Self { kind: Kind::Answer, name: wildcard }
            }
            Match::Cut(node) => Self { kind: Kind::Referral, name: NameBuf::new(node.name()) },
            Match::Dname(node) => Self { kind: Kind::Answer, name: NameBuf::new(node.name()) },
            Match::Missing { .. } => Self { kind: Kind::Nxdomain, name: NameBuf::new(zone.apex().as_wire()) },
        }
    }

    /// What a response from tables is about: they have no zones, and all their referrals are one.
    fn of_tables(header: Header, name: NameBuf) -> Self {
        let root = NameBuf::new(Name::root().as_wire());
        if header.rcode() == Rcode::NXDOMAIN {
            Self { kind: Kind::Nxdomain, name: root }
        } else if header.is_authoritative() {
            Self { kind: Kind::Answer, name }
        } else {
            Self { kind: Kind::Referral, name: root }
        }
    }

    /// The name, in wire form.
    pub fn name(&self) -> &[u8] {
        self.name.as_wire()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::wire::{RecordType, write_plain_query};
    use crate::zone::{Place, Record, Tables, Transport, ZoneBuilder, respond};

    /// A catalog of one zone.
    fn catalog() -> Catalog {
        let apex: Name = "example".parse().expect("a name");
        let mut builder = ZoneBuilder::new(&apex);
        let ns = b"\x02ns\x07example\0";
        let mut add = |owner: &str, rtype, rdata: &[u8]| {
            let owner: Name = owner.parse().expect("a name");
            builder.add(&Record { owner: owner.as_wire(), rtype, ttl: 300, rdata }, Place::default());
        };
        add("example", RecordType::SOA, &[&[0, 0][..], &[0; 20]].concat());
        add("example", RecordType::NS, ns);
        add("ns.example", RecordType::A, &[192, 0, 2, 1]);
        add("*.wild.example", RecordType::A, &[192, 0, 2, 2]);
        add("cut.example", RecordType::NS, b"\x02ns\0");
        add("away.example", RecordType::DNAME, b"\x05there\0");
        let Ok((zone, _)) = builder.finish() else { panic!("a zone") };
        Catalog::new(Arc::new(Tables::none())).with_zone(Arc::new(zone))
    }

    #[test]
    fn questions_that_vary_have_one_topic() {
        let catalog = catalog();
        let check = |name: &str, kind: Kind, about: &str| {
            let (mut query, mut response) = (Vec::new(), Vec::new());
            write_plain_query(7, &name.parse().expect("a name"), RecordType::A, &mut query);
            respond(&catalog, &query, Transport::Udp, 1232, &mut response);
            let topic = Topic::of(&catalog, &response);
            let about: Name = about.parse().expect("a name");
            assert_eq!((topic.kind, topic.name()), (kind, about.as_wire()), "{name}");
        };
        check("NS.example", Kind::Answer, "ns.example");
        check("example", Kind::Answer, "example");
        check("a.wild.example", Kind::Answer, "*.wild.example");
        check("b.c.wild.example", Kind::Answer, "*.wild.example");
        check("a.cut.example", Kind::Referral, "cut.example");
        check("a.away.example", Kind::Answer, "away.example");
        check("a.b.example", Kind::Nxdomain, "example");
        check("elsewhere", Kind::Error, ".");
    }
}
