//! A zone: from records to answers, checked as a whole.
//!
//! [`ZoneBuilder`] takes the records of a zone in any order and tells what is wrong with them; a [`Zone`] is right, compiled
//! and immutable. What it has to say of a name is for `lookup.rs`.

use super::checks;
use super::denial::Denial;
use super::flaw::{Caution, Findings, Flaw};
use super::layout::same_rdata;
use super::names::{ASTERISK, NameBuf, canonical_order, is_at_or_below};
use super::record::{Place, Record};
use super::store::{Added, Draft, Full, Mark, Node, Rrset, Store};
use crate::wire::{Name, RecordType, suffixes};

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
    /// How many.
    count: u16,
    /// As in [`Rrset::octets`].
    octets: Box<[u8]>,
}

impl Zone {
    /// A zone that is ours, but of which there is no version to answer from: it never came, or has expired. Whoever asks for
    /// a name in it gets SERVFAIL (RFC 1034 section 4.3.5).
    pub fn unserved(apex: &Name) -> Self {
        let (store, _) = Draft::default().finish();
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

/// The records of a node.
fn records_of(node: Node<'_>) -> impl Iterator<Item = Record<'_>> {
    node.rrsets().flat_map(move |rrset| {
        let ttl = rrset.ttl();
        rrset.rdata().map(move |rdata| Record { owner: node.name(), rtype: rrset.rtype, ttl, rdata })
    })
}

/// A zone whose records are being read.
#[derive(Debug)]
pub struct ZoneBuilder {
    /// Its name, in canonical form.
    apex: Name,
    /// What is in it so far.
    draft: Draft,
    /// What is wrong with it so far.
    findings: Findings,
}

impl ZoneBuilder {
    /// A zone of this name, without records.
    pub fn new(apex: &Name) -> Self {
        Self { apex: apex.folded(), draft: Draft::default(), findings: Findings::default() }
    }

    /// Gets ready for many records.
    pub fn expect_many(&mut self) {
        self.draft.expect_many();
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record<'_>, place: Place) {
        let Record { rtype, ttl, rdata, .. } = *record;
        let owner = NameBuf::folded(record.owner);
        let owner = owner.as_wire();
        if !is_at_or_below(owner, self.apex.as_wire()) {
            let apex = Box::new(self.apex.clone());
            return self.findings.flaws.add(place, owner, Flaw::OutOfZone { apex });
        }
        self.draft.open(owner, place);
        if let Some(flaw) = self.conflict(record) {
            return self.findings.flaws.add(place, owner, flaw);
        }
        match self.draft.add(rtype, ttl, rdata) {
            Ok(Added::New) => {}
            Ok(Added::Duplicate) => self.findings.cautions.add(place, owner, Caution::Duplicate(rtype)),
            Ok(Added::OtherTtl) => self.findings.cautions.add(place, owner, Caution::OtherTtl(rtype)),
            Err(Full { limit }) => self.findings.flaws.add(place, owner, Flaw::RrsetTooLarge { rtype, limit }),
        }
    }

    /// Compiles the zone, and checks it as a whole: with its cautions if it is right, otherwise with all that is wrong.
    pub fn finish(mut self) -> Result<(Zone, Findings), Findings> {
        let apex = self.apex.clone();
        self.draft.fill_gaps(apex.as_wire().len());
        self.mark();
        let (store, places) = self.draft.finish();
        let mut findings = self.findings;
        let apex_node = store.find(apex.as_wire());
        let place = apex_node.map(|node| places.of(node)).unwrap_or_default();
        if apex_node.and_then(|node| node.rrset(RecordType::NS)).is_none() {
            findings.flaws.add(place, apex.as_wire(), Flaw::NoNs);
        }
        let Some(soa) = apex_node.and_then(|node| node.rrset(RecordType::SOA)) else {
            findings.flaws.add(place, apex.as_wire(), Flaw::NoSoa);
            return Err(findings);
        };
        let times = soa.rdata().next().and_then(|rdata| rdata.last_chunk::<20>()).copied().unwrap_or_default();
        let [s0, s1, s2, s3, .., m0, m1, m2, m3] = times;
        // RFC 2308 section 3: the lesser of the record's own TTL and of MINIMUM.
        let ttl = soa.ttl().min(u32::from_be_bytes([m0, m1, m2, m3]));
        let signatures = apex_node.and_then(|node| node.signatures(RecordType::SOA));
        let negative = [Some(soa), signatures].map(|rrset| {
            rrset.map_or_else(Negative::default, |rrset| Negative { count: rrset.count, octets: with_ttl(rrset, ttl) })
        });
        let denial = Denial::of(&store, apex.as_wire());
        let zone =
            Zone { apex, negative, serial: u32::from_be_bytes([s0, s1, s2, s3]), denial, store, is_served: true };
        checks::check(&zone, &places, &mut findings);
        if findings.flaws.is_empty() { Ok((zone, findings)) } else { Err(findings) }
    }

    /// What a record is in conflict with at its name, whose node is open.
    fn conflict(&self, record: &Record<'_>) -> Option<Flaw> {
        let Record { rtype, rdata, .. } = *record;
        let node = self.draft.last()?;
        if rtype == RecordType::SOA && node.name() != self.apex.as_wire() {
            return Some(Flaw::SoaBelowApex);
        }
        let differs = |rrset: Rrset<'_>| rrset.rdata().any(|known| !same_rdata(rtype, known, rdata));
        if matches!(rtype, RecordType::SOA | RecordType::CNAME | RecordType::DNAME)
            && node.rrset(rtype).is_some_and(differs)
        {
            return Some(Flaw::Second(rtype));
        }
        let beside = if rtype == RecordType::CNAME {
            node.rrsets().map(|rrset| rrset.rtype).find(|rtype| !may_be_beside_cname(*rtype))
        } else {
            (!may_be_beside_cname(rtype) && node.rrset(RecordType::CNAME).is_some()).then_some(rtype)
        };
        beside.map(Flaw::BesideCname)
    }

    /// Marks what look-ups want to know of a node at a glance.
    fn mark(&mut self) {
        let apex_len = self.apex.as_wire().len();
        let are_wildcards = self.draft.nodes().any(|node| node.name().starts_with(ASTERISK));
        self.draft.mark(|draft, node| {
            let is_cut = node.name().len() > apex_len && node.rrset(RecordType::NS).is_some();
            let marks = [
                (is_cut, Mark::Cut),
                (node.rrset(RecordType::DNAME).is_some(), Mark::Dname),
                (is_hashed(node), Mark::Hashed),
                (are_wildcards && has_wildcard(draft, node), Mark::Wildcard),
            ];
            marks.iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| *mark as u8).sum()
        });
        let is_border = |node: Node<'_>| node.has(Mark::Cut) || node.has(Mark::Dname);
        if !self.draft.nodes().any(is_border) {
            return;
        }
        self.draft.mark(|draft, node| {
            let mut above = suffixes(node.name()).skip(1).take_while(|above| above.len() >= apex_len);
            let is_occluded = !node.has(Mark::Hashed) && above.any(|above| draft.find(above).is_some_and(is_border));
            if is_occluded { Mark::Occluded as u8 } else { 0 }
        });
    }
}

/// Whether a type may stand beside a CNAME record (RFC 2181 section 10.1, RFC 4035 section 2.5).
fn may_be_beside_cname(rtype: RecordType) -> bool {
    matches!(
        rtype,
        RecordType::CNAME | RecordType::RRSIG | RecordType::NSEC | RecordType::KEY | RecordType::SIG | RecordType::NXT
    )
}

/// Whether a node has NSEC3 records and nothing else but their signatures.
fn is_hashed(node: Node<'_>) -> bool {
    let mut rrsets = node.rrsets();
    node.rrset(RecordType::NSEC3).is_some()
        && rrsets.all(|rrset| {
            RecordType::NSEC3 == if rrset.rtype == RecordType::RRSIG { rrset.covered } else { rrset.rtype }
        })
}

/// Whether there is an asterisk label right below a node.
fn has_wildcard(draft: &Draft, node: Node<'_>) -> bool {
    NameBuf::wildcard_below(node.name()).is_some_and(|name| draft.find(name.as_wire()).is_some())
}

/// A copy of records with another TTL.
fn with_ttl(rrset: Rrset<'_>, ttl: u32) -> Box<[u8]> {
    let copy = |tail: &[u8]| [&super::store::QNAME_POINTER, &tail[..4], &ttl.to_be_bytes(), &tail[8..]].concat();
    rrset.tails().flat_map(copy).collect()
}
