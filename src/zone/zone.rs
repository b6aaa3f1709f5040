//! A zone: right, compiled and immutable. [`ZoneBuilder`](super::ZoneBuilder) makes it of records; what it has to say of a name
//! is for `answer/`.

use super::answer::denial::Denial;
use super::store::names::canonical_order;
use super::store::record::Record;
use super::store::{Node, QNAME_POINTER, Rrset, Store, StoreBuilder};
use crate::wire::{Name, RecordType};

/// One zone, compiled.
#[derive(Debug)]
pub struct Zone {
    /// Its name, in canonical form.
    apex: Name,
    /// Its records.
    pub(super) store: Store,
    /// The SOA record and its signatures as negative answers have them.
    negative: [Negative; 2],
    /// From the SOA record.
    serial: u32,
    /// How it proves that something is not there.
    pub(super) denial: Denial,
    /// Whether it is answered from.
    is_served: bool,
}

/// Records of the apex with the TTL that negative answers have.
#[derive(Debug, Default)]
struct Negative {
    count: u16,
    /// As in [`Rrset::octets`].
    octets: Box<[u8]>,
}

impl Zone {
    /// The zone of these records, whose name is in canonical form; `None` if there is no SOA record at that.
    pub(super) fn compile(apex: Name, store: Store) -> Option<Self> {
        let node = store.find(apex.as_wire())?;
        let soa = node.rrset(RecordType::SOA)?;
        let times = soa.rdata().next().and_then(|rdata| rdata.last_chunk::<20>()).copied().unwrap_or_default();
        let [s0, s1, s2, s3, .., m0, m1, m2, m3] = times;
        // RFC 2308 section 3: the lesser of the record's own TTL and of MINIMUM.
        let ttl = soa.ttl().min(u32::from_be_bytes([m0, m1, m2, m3]));
        let negative = [Some(soa), node.signatures(RecordType::SOA)].map(|rrset| {
            rrset.map_or_else(Negative::default, |rrset| Negative { count: rrset.count, octets: with_ttl(rrset, ttl) })
        });
        let denial = Denial::of(&store, apex.as_wire());
        Some(Self { apex, negative, serial: u32::from_be_bytes([s0, s1, s2, s3]), denial, store, is_served: true })
    }

    /// A zone that is ours, but of which there is no version to answer from: it never came, or has expired. Whoever asks for
    /// a name in it gets SERVFAIL (RFC 1034 section 4.3.5).
    pub fn unserved(apex: &Name) -> Self {
        let (store, _) = StoreBuilder::default().finish();
        let negative = [Negative::default(), Negative::default()];
        Self { apex: apex.folded(), store, negative, serial: 0, denial: Denial::None, is_served: false }
    }

    /// Whether it is answered from.
    pub fn is_served(&self) -> bool {
        self.is_served
    }

    /// The name of the zone, in canonical form.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// The serial number of this version (RFC 1035 section 3.3.13).
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// How many names own records.
    pub fn owners(&self) -> usize {
        self.store.owners()
    }

    /// How many records there are.
    pub fn records(&self) -> usize {
        self.store.records()
    }

    /// The SOA record.
    pub fn soa(&self) -> Option<Record<'_>> {
        let node = self.store.find(self.apex.as_wire())?;
        records_of(node).find(|record| record.rtype == RecordType::SOA)
    }

    /// All records, owners in canonical form, in the order in which they came: as a transfer wants them (RFC 5936
    /// section 2.2), but for the SOA record at its start and end.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.store.nodes().flat_map(records_of)
    }

    /// All records, owners in canonical form and order (RFC 4034 section 6), the SOA record first.
    pub fn canonical(&self) -> impl Iterator<Item = Record<'_>> {
        let mut nodes: Vec<_> = self.store.nodes().filter(Node::is_owner).collect();
        nodes.sort_by(|a, b| canonical_order(a.name(), b.name()));
        nodes.into_iter().flat_map(|node| {
            let mut records: Vec<_> = records_of(node).collect();
            records.sort_by_key(|record| (record.rtype != RecordType::SOA, record.rtype, record.rdata));
            records
        })
    }

    /// The SOA record for negative answers.
    pub(super) fn negative(&self) -> Rrset<'_> {
        let [soa, _] = &self.negative;
        Rrset { rtype: RecordType::SOA, covered: RecordType(0), count: soa.count, octets: &soa.octets }
    }

    /// The signatures of the SOA record for negative answers.
    pub(super) fn negative_signatures(&self) -> Option<Rrset<'_>> {
        let [_, signatures] = &self.negative;
        let Negative { count, octets } = signatures;
        (*count > 0).then_some(Rrset { rtype: RecordType::RRSIG, covered: RecordType::SOA, count: *count, octets })
    }

    /// Whether the zone is signed: whether there is anything to prove things with.
    pub(super) fn is_signed(&self) -> bool {
        match self.denial {
            Denial::None => false,
            Denial::Nsec(_) | Denial::Nsec3(_) => true,
        }
    }
}

fn records_of(node: Node<'_>) -> impl Iterator<Item = Record<'_>> {
    node.rrsets().flat_map(move |rrset| {
        let ttl = rrset.ttl();
        rrset.rdata().map(move |rdata| Record { owner: node.name(), rtype: rrset.rtype, ttl, rdata })
    })
}

/// A copy of records with another TTL.
fn with_ttl(rrset: Rrset<'_>, ttl: u32) -> Box<[u8]> {
    let copy = |tail: &[u8]| [&QNAME_POINTER, &tail[..4], &ttl.to_be_bytes(), &tail[8..]].concat();
    rrset.tails().flat_map(copy).collect()
}
