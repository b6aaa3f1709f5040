//! A zone in the making whose name may be known from the start, or only when its SOA record comes.

use super::batch::Batch;
use super::flaw::{Findings, Flaw};
use super::record::{Place, Record};
use super::zone::{Zone, ZoneBuilder};
use crate::wire::{Name, RecordType};

/// Takes the records of a zone as they are read.
#[derive(Debug)]
pub struct Assembly {
    /// Takes them once the name is known.
    builder: Option<ZoneBuilder>,
    /// Whether many records will come.
    is_large: bool,
    /// What came before: nothing in nearly every file, since the SOA record is the first one.
    early: Batch,
}

impl Assembly {
    /// A zone of this name, or else of the name that owns the first SOA record.
    pub fn new(origin: Option<&Name>) -> Self {
        Self { builder: origin.map(ZoneBuilder::new), is_large: false, early: Batch::default() }
    }

    /// Gets ready for many records.
    pub fn expect_many(&mut self) {
        self.is_large = true;
        self.builder.iter_mut().for_each(ZoneBuilder::expect_many);
    }

    /// Adds a record.
    pub fn add(&mut self, record: &Record<'_>, place: Place) {
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
                self.early = Batch::default();
                builder.add(record, place);
                self.builder = Some(builder);
            }
            Ok(_) | Err(_) => self.early.push(record, place),
        }
    }

    /// Compiles the zone, and checks it as a whole: with its cautions if it is right, otherwise with all that is wrong.
    pub fn finish(self) -> Result<(Zone, Findings), Findings> {
        match self.builder {
            Some(builder) => builder.finish(),
            None => {
                let mut findings = Findings::default();
                findings.flaws.add(Place::default(), &[0], Flaw::NoSoa);
                Err(findings)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of records of these owners and types: the apex and the number of records, or the flaws.
    fn assembled(origin: Option<&str>, records: &[(&[u8], RecordType)]) -> Result<(String, usize), Vec<String>> {
        let origin = origin.map(|text| text.parse::<Name>().expect("a name"));
        let mut assembly = Assembly::new(origin.as_ref());
        let soa = [0; 22];
        for (owner, rtype) in records {
            let rdata: &[u8] = if *rtype == RecordType::SOA { &soa } else { &[0] };
            assembly.add(&Record { owner, rtype: *rtype, ttl: 1, rdata }, Place::default());
        }
        match assembly.finish() {
            Ok((zone, _)) => Ok((zone.apex().to_string(), zone.records())),
            Err(findings) => Err(findings.flaws.iter().map(ToString::to_string).collect()),
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
