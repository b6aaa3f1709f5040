//! The builder of a zone: takes records in any order, reports errors, and compiles a valid zone.

use crate::zone::Zone;
use dns::{Name, RecordType, same_rdata, suffixes};

use super::checks;
use super::diagnostics::{Diagnostics, ZoneError, ZoneWarning};
use crate::store::names::{ASTERISK, NameBuf, is_at_or_below};
use crate::store::record::{FilePlace, Record, RecordBatch};
use crate::store::{AddOutcome, Full, NodeMark, Rrset, StoreBuilder, ZoneNode};

/// Collects the records of one zone.
#[derive(Debug)]
pub struct ZoneBuilder {
    apex: Name,
    store: StoreBuilder,
    diagnostics: Diagnostics,
}

impl ZoneBuilder {
    /// Returns a builder without records for the zone of this name.
    pub fn new(apex: &Name) -> Self {
        Self { apex: apex.folded(), store: StoreBuilder::default(), diagnostics: Diagnostics::default() }
    }

    /// Reserves memory for many records.
    pub(crate) fn expect_many(&mut self) {
        self.store.expect_many();
    }

    /// Adds a record and checks it against the other records of its name.
    pub fn add(&mut self, record: &Record<'_>, place: FilePlace) {
        let Record { rtype, ttl, rdata, .. } = *record;
        let owner = NameBuf::folded(record.owner);
        let owner = owner.as_wire();
        if !is_at_or_below(owner, self.apex.as_wire()) {
            let apex = Box::new(self.apex.clone());
            return self.diagnostics.errors.add(place, owner, ZoneError::OutOfZone { apex });
        }
        self.store.open(owner, place);
        if let Some(error) = self.conflict(record) {
            return self.diagnostics.errors.add(place, owner, error);
        }
        match self.store.add(rtype, ttl, rdata) {
            Ok(AddOutcome::New) => {}
            Ok(AddOutcome::Duplicate) => self.diagnostics.warnings.add(place, owner, ZoneWarning::Duplicate(rtype)),
            Ok(AddOutcome::OtherTtl) => self.diagnostics.warnings.add(place, owner, ZoneWarning::OtherTtl(rtype)),
            Err(Full { limit }) => self.diagnostics.errors.add(place, owner, ZoneError::RrsetTooLarge { rtype, limit }),
        }
    }

    /// Compiles and checks the zone. Returns it with its warnings, or all diagnostics after an error.
    pub fn finish(mut self) -> Result<(Zone, Diagnostics), Diagnostics> {
        let apex = self.apex.clone();
        self.store.fill_gaps(apex.as_wire().len());
        self.mark();
        let (store, places) = self.store.finish();
        let mut diagnostics = self.diagnostics;
        let apex_node = store.find(apex.as_wire());
        let place = apex_node.map(|node| places.of(node)).unwrap_or_default();
        if apex_node.and_then(|node| node.rrset(RecordType::NS)).is_none() {
            diagnostics.errors.add(place, apex.as_wire(), ZoneError::NoNs);
        }
        let Some(zone) = Zone::compile(apex, store) else {
            diagnostics.errors.add(place, self.apex.as_wire(), ZoneError::NoSoa);
            return Err(diagnostics);
        };
        checks::check(&zone, &places, &mut diagnostics);
        if diagnostics.errors.is_empty() { Ok((zone, diagnostics)) } else { Err(diagnostics) }
    }

    /// Returns the conflict of a record with others at its name, whose node is open.
    fn conflict(&self, record: &Record<'_>) -> Option<ZoneError> {
        let Record { rtype, rdata, .. } = *record;
        let node = self.store.last()?;
        if rtype == RecordType::SOA && node.name() != self.apex.as_wire() {
            return Some(ZoneError::SoaBelowApex);
        }
        let differs = |rrset: Rrset<'_>| rrset.rdata().any(|known| !same_rdata(rtype, known, rdata));
        if matches!(rtype, RecordType::SOA | RecordType::CNAME | RecordType::DNAME)
            && node.rrset(rtype).is_some_and(differs)
        {
            return Some(ZoneError::Second(rtype));
        }
        let beside = if rtype == RecordType::CNAME {
            node.rrsets().map(|rrset| rrset.rtype).find(|rtype| !may_be_beside_cname(*rtype))
        } else {
            (!may_be_beside_cname(rtype) && node.rrset(RecordType::CNAME).is_some()).then_some(rtype)
        };
        beside.map(ZoneError::BesideCname)
    }

    fn mark(&mut self) {
        let apex_len = self.apex.as_wire().len();
        let are_wildcards = self.store.nodes().any(|node| node.name().starts_with(ASTERISK));
        self.store.mark(|store, node| {
            let is_cut = node.name().len() > apex_len && node.rrset(RecordType::NS).is_some();
            let marks = [
                (is_cut, NodeMark::Cut),
                (node.rrset(RecordType::DNAME).is_some(), NodeMark::Dname),
                (is_hashed(node), NodeMark::Hashed),
                (are_wildcards && has_wildcard(store, node), NodeMark::Wildcard),
            ];
            marks.iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| *mark as u8).sum()
        });
        let is_border = |node: ZoneNode<'_>| node.has(NodeMark::Cut) || node.has(NodeMark::Dname);
        if !self.store.nodes().any(is_border) {
            return;
        }
        self.store.mark(|store, node| {
            let mut above = suffixes(node.name()).skip(1).take_while(|above| above.len() >= apex_len);
            let is_occluded =
                !node.has(NodeMark::Hashed) && above.any(|above| store.find(above).is_some_and(is_border));
            if is_occluded { NodeMark::Occluded as u8 } else { 0 }
        });
    }
}

/// A zone builder that can find the zone name in the records.
#[derive(Debug)]
pub struct DeferredZoneBuilder {
    builder: Option<ZoneBuilder>,
    is_large: bool,
    early: RecordBatch,
}

impl DeferredZoneBuilder {
    /// Returns a builder for the zone of this name, or of the owner of the first SOA record.
    pub fn new(origin: Option<&Name>) -> Self {
        Self { builder: origin.map(ZoneBuilder::new), is_large: false, early: RecordBatch::default() }
    }

    /// Reserves memory for many records.
    pub fn expect_many(&mut self) {
        self.is_large = true;
        self.builder.iter_mut().for_each(ZoneBuilder::expect_many);
    }

    /// Adds a record, or keeps it until the zone name is known.
    pub fn add(&mut self, record: &Record<'_>, place: FilePlace) {
        if let Some(builder) = &mut self.builder {
            return builder.add(record, place);
        }
        match Name::from_wire(record.owner) {
            Ok(apex) if record.rtype == RecordType::SOA => {
                let mut builder = ZoneBuilder::new(&apex);
                if self.is_large {
                    builder.expect_many();
                }
                self.early.iter().for_each(|(record, place)| builder.add(&record, place));
                self.early = RecordBatch::default();
                builder.add(record, place);
                self.builder = Some(builder);
            }
            Ok(_) | Err(_) => self.early.push(record, place),
        }
    }

    /// Compiles and checks the zone. Returns it with its warnings, or all diagnostics after an error.
    pub fn finish(self) -> Result<(Zone, Diagnostics), Diagnostics> {
        match self.builder {
            Some(builder) => builder.finish(),
            None => {
                let mut diagnostics = Diagnostics::default();
                diagnostics.errors.add(FilePlace::default(), &[0], ZoneError::NoSoa);
                Err(diagnostics)
            }
        }
    }
}

/// Returns true if the type may coexist with a CNAME record (RFC 2181 section 10.1, RFC 4035 section 2.5).
fn may_be_beside_cname(rtype: RecordType) -> bool {
    matches!(
        rtype,
        RecordType::CNAME | RecordType::RRSIG | RecordType::NSEC | RecordType::KEY | RecordType::SIG | RecordType::NXT
    )
}

fn is_hashed(node: ZoneNode<'_>) -> bool {
    let mut rrsets = node.rrsets();
    node.rrset(RecordType::NSEC3).is_some()
        && rrsets.all(|rrset| {
            RecordType::NSEC3 == if rrset.rtype == RecordType::RRSIG { rrset.covered } else { rrset.rtype }
        })
}

fn has_wildcard(store: &StoreBuilder, node: ZoneNode<'_>) -> bool {
    NameBuf::wildcard_below(node.name()).is_some_and(|name| store.find(name.as_wire()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a zone from these owners and types. Returns the apex and the number of records, or the errors.
    fn assembled(origin: Option<&str>, records: &[(&[u8], RecordType)]) -> Result<(String, usize), Vec<String>> {
        let origin = origin.map(|text| text.parse::<Name>().expect("a name"));
        let mut builder = DeferredZoneBuilder::new(origin.as_ref());
        let soa = [0; 22];
        for (owner, rtype) in records {
            let rdata: &[u8] = if *rtype == RecordType::SOA { &soa } else { &[0] };
            builder.add(&Record { owner, rtype: *rtype, ttl: 1, rdata }, FilePlace::default());
        }
        match builder.finish() {
            Ok((zone, _)) => Ok((zone.apex().to_string(), zone.records())),
            Err(diagnostics) => Err(diagnostics.errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn the_first_soa_record_names_a_zone_that_has_no_name_yet() {
        let (soa, ns) = (RecordType::SOA, RecordType::NS);
        let a: &[u8] = b"\x01a\0";
        assert_eq!(assembled(None, &[(a, soa), (a, ns)]), Ok(("a.".to_owned(), 2)));
        assert_eq!(assembled(None, &[(b"\x01b\x01A\0", ns), (a, ns), (b"\x01A\0", soa)]), Ok(("a.".to_owned(), 3)));
        assert_eq!(assembled(Some("a"), &[(a, soa), (a, ns)]), Ok(("a.".to_owned(), 2)));
        let no_soa = ".: no SOA record: a zone has exactly one, at its apex".to_owned();
        assert_eq!(assembled(None, &[(a, ns)]), Err(vec![no_soa]));
        assert!(assembled(Some("b"), &[(a, soa), (a, ns)]).is_err());
    }
}
