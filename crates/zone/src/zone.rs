//! A zone: checked, compiled and immutable. [`ZoneBuilder`](super::ZoneBuilder) creates it from records, and
//! `answer/` answers from it.

use dns::{Name, RecordType};

use super::answer::denial::Denial;
use super::store::names::canonical_order;
use super::store::record::Record;
use super::store::{QNAME_POINTER, Rrset, StoreBuilder, ZoneNode, ZoneStore};

/// One compiled zone.
#[derive(Debug)]
pub struct Zone {
    apex: Name,
    pub(super) store: ZoneStore,
    negative: [Negative; 2],
    serial: u32,
    pub(super) denial: Denial,
    is_served: bool,
}

#[derive(Debug, Default)]
struct Negative {
    count: u16,
    octets: Box<[u8]>,
}

impl Zone {
    /// Returns `None` if the apex, in canonical form, has no SOA record.
    pub(super) fn compile(apex: Name, store: ZoneStore) -> Option<Self> {
        let node = store.find(apex.as_wire())?;
        let soa = node.rrset(RecordType::SOA)?;
        let times = soa.rdata().next().and_then(|rdata| rdata.last_chunk::<20>()).copied().unwrap_or_default();
        let [s0, s1, s2, s3, .., m0, m1, m2, m3] = times;
        // RFC 2308 section 3: the TTL is the lesser of the SOA TTL and MINIMUM.
        let ttl = soa.ttl().min(u32::from_be_bytes([m0, m1, m2, m3]));
        let negative = [Some(soa), node.signatures(RecordType::SOA)].map(|rrset| {
            rrset.map_or_else(Negative::default, |rrset| Negative { count: rrset.count, octets: with_ttl(rrset, ttl) })
        });
        let denial = Denial::of(&store, apex.as_wire());
        Some(Self { apex, negative, serial: u32::from_be_bytes([s0, s1, s2, s3]), denial, store, is_served: true })
    }

    /// Returns a zone without data, because no version arrived or the last one expired. Queries for its names
    /// get SERVFAIL (RFC 1034 section 4.3.5).
    pub fn unserved(apex: &Name) -> Self {
        let (store, _) = StoreBuilder::default().finish();
        let negative = [Negative::default(), Negative::default()];
        Self { apex: apex.folded(), store, negative, serial: 0, denial: Denial::None, is_served: false }
    }

    /// Returns true if the zone has data to answer from.
    pub fn is_served(&self) -> bool {
        self.is_served
    }

    /// The name of the zone in canonical form.
    pub fn apex(&self) -> &Name {
        &self.apex
    }

    /// The serial number of this version (RFC 1035 section 3.3.13).
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The number of names that own records.
    pub fn owners(&self) -> usize {
        self.store.owners()
    }

    /// The number of records in the zone.
    pub fn records(&self) -> usize {
        self.store.records()
    }

    /// The SOA record of the zone.
    pub fn soa(&self) -> Option<Record<'_>> {
        let node = self.store.find(self.apex.as_wire())?;
        records_of(node).find(|record| record.rtype == RecordType::SOA)
    }

    /// Iterates over all records in order of arrival, with owners in canonical form. A transfer sends them in
    /// this order (RFC 5936 section 2.2), with the SOA record first and last.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.store.nodes().flat_map(records_of)
    }

    /// Iterates over all records in canonical order (RFC 4034 section 6), with owners in canonical form. The
    /// SOA record comes first.
    pub fn canonical(&self) -> impl Iterator<Item = Record<'_>> {
        let mut nodes: Vec<_> = self.store.nodes().filter(ZoneNode::is_owner).collect();
        nodes.sort_by(|a, b| canonical_order(a.name(), b.name()));
        nodes.into_iter().flat_map(|node| {
            let mut records: Vec<_> = records_of(node).collect();
            records.sort_by_key(|record| (record.rtype != RecordType::SOA, record.rtype, record.rdata));
            records
        })
    }

    pub(super) fn negative(&self) -> Rrset<'_> {
        let [soa, _] = &self.negative;
        Rrset { rtype: RecordType::SOA, covered: RecordType(0), count: soa.count, octets: &soa.octets }
    }

    pub(super) fn negative_signatures(&self) -> Option<Rrset<'_>> {
        let [_, signatures] = &self.negative;
        let Negative { count, octets } = signatures;
        (*count > 0).then_some(Rrset { rtype: RecordType::RRSIG, covered: RecordType::SOA, count: *count, octets })
    }

    pub(super) fn is_signed(&self) -> bool {
        match self.denial {
            Denial::None => false,
            Denial::Nsec(_) | Denial::Nsec3(_) => true,
        }
    }
}

fn records_of(node: ZoneNode<'_>) -> impl Iterator<Item = Record<'_>> {
    node.rrsets().flat_map(move |rrset| {
        let ttl = rrset.ttl();
        rrset.rdata().map(move |rdata| Record { owner: node.name(), rtype: rrset.rtype, ttl, rdata })
    })
}

fn with_ttl(rrset: Rrset<'_>, ttl: u32) -> Box<[u8]> {
    let copy = |tail: &[u8]| [&QNAME_POINTER, &tail[..4], &ttl.to_be_bytes(), &tail[8..]].concat();
    rrset.tails().flat_map(copy).collect()
}
