//! The zone database: all zones and tables of one authority.
//!
//! The deepest zone that encloses a name answers for it. If there is none, the tables answer. A new version
//! shares all unchanged zones with the previous one, so a reload or transfer costs only the changes.

use std::collections::HashSet;
use std::sync::Arc;

use dns::{Name, RecordType, suffixes};
use hashbrown::HashTable;

use super::answer::Identity;
use super::load::error::FileErrors;
use super::store::{hash, spread};
use super::tables::{Miss, Tables};
use super::zone::Zone;

/// All data that one authority answers from.
#[derive(Clone, Debug)]
pub struct ZoneDb {
    zones: Vec<Arc<Zone>>,
    by_apex: HashTable<usize>,
    lengths: Lengths,
    tables: Arc<Tables>,
    identity: Identity,
    is_large: bool,
}

impl ZoneDb {
    /// Builds a zone database from table files, each a name for messages and its contents. All records get
    /// this TTL, because tables have none.
    ///
    /// # Errors
    ///
    /// Every bad line of every file.
    pub fn build(sources: &[(String, Vec<u8>)], ttl: u32, miss: Miss) -> Result<Self, FileErrors> {
        Tables::build(sources, ttl, miss).map(|tables| Self::new(Arc::new(tables)))
    }

    /// Returns a zone database of tables, without zones.
    pub fn new(tables: Arc<Tables>) -> Self {
        let (by_apex, lengths, is_large) = (HashTable::new(), Lengths::default(), tables.store().is_large());
        Self { zones: Vec::new(), by_apex, lengths, tables, identity: Identity::default(), is_large }
    }

    /// Adds a zone, or replaces the version of a zone with the same name.
    pub fn with_zone(mut self, zone: Arc<Zone>) -> Self {
        self.set_zone(zone);
        self
    }

    /// Adds a zone, or replaces the version of a zone with the same name.
    pub fn set_zone(&mut self, zone: Arc<Zone>) {
        let apex = zone.apex().as_wire();
        self.is_large |= zone.store.is_large();
        match self.find_apex(apex) {
            Some(index) => self.zones[index] = zone,
            None => {
                self.lengths.add(apex.len());
                let index = self.zones.len();
                self.by_apex.insert_unique(spread(hash(apex)), index, |index| {
                    spread(hash(self.zones[*index].apex().as_wire()))
                });
                self.zones.push(zone);
            }
        }
    }

    /// Returns a zone database without these zones, whose names are in canonical form.
    pub fn without(&self, gone: &HashSet<Name>) -> Self {
        let rest = Self::new(Arc::clone(&self.tables)).with_identity(self.identity.clone());
        let zones = self.zones.iter().filter(|zone| !gone.contains(zone.apex()));
        zones.fold(rest, |rest, zone| rest.with_zone(Arc::clone(zone)))
    }

    /// Sets the identity of the server.
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// The zones in order of addition.
    pub fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// Finds the zone of this name.
    pub fn zone(&self, apex: &Name) -> Option<&Arc<Zone>> {
        self.find_apex(apex.folded().as_wire()).map(|index| &self.zones[index])
    }

    /// The tables for names outside the zones.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The number of hosts in tables plus the number of owner names in zones.
    pub fn hosts(&self) -> usize {
        self.tables.hosts() + self.zones.iter().map(|zone| zone.owners()).sum::<usize>()
    }

    /// The number of records in tables and zones.
    #[cfg(test)]
    pub(crate) fn records(&self) -> usize {
        self.tables.records() + self.zones.iter().map(|zone| zone.records()).sum::<usize>()
    }

    /// The number of name servers in the referral of the tables, or 0 if there is none.
    pub fn name_servers(&self) -> usize {
        self.tables.name_servers()
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn is_large(&self) -> bool {
        self.is_large
    }

    /// Finds the deepest zone that encloses a folded name and answers for this type.
    pub(super) fn zone_of(&self, name: &[u8], qtype: RecordType) -> Option<&Zone> {
        if self.zones.is_empty() {
            return None;
        }
        let mut child = None;
        for suffix in suffixes(name).filter(|suffix| self.lengths.has(suffix.len())) {
            let Some(index) = self.find_apex(suffix) else { continue };
            // RFC 4035 section 3.1.4.1: DS records belong to the parent zone, if that is here too.
            if qtype == RecordType::DS && suffix.len() == name.len() {
                child = Some(&*self.zones[index]);
                continue;
            }
            return Some(&self.zones[index]);
        }
        child
    }

    /// Returns true if there are zones but no tables, so names outside the zones are refused.
    pub(super) fn has_zones_only(&self) -> bool {
        !self.zones.is_empty() && self.tables.is_empty()
    }

    fn find_apex(&self, apex: &[u8]) -> Option<usize> {
        self.by_apex.find(spread(hash(apex)), |index| self.zones[*index].apex().as_wire() == apex).copied()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Lengths([u64; 4]);

impl Lengths {
    fn add(&mut self, len: usize) {
        self.0[len / 64 % 4] |= 1 << (len % 64);
    }

    fn has(&self, len: usize) -> bool {
        self.0[len / 64 % 4] >> (len % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FilePlace, Record, ZoneBuilder};

    /// Returns a zone with this name and serial number.
    fn zone(apex: &str, serial: u8) -> Arc<Zone> {
        let apex: Name = apex.parse().expect("a name");
        let mut builder = ZoneBuilder::new(&apex);
        let soa = [b"\0\0\0\0\0", &[serial][..], &[0; 16]].concat();
        for (rtype, rdata) in [(RecordType::SOA, &soa[..]), (RecordType::NS, b"\x02ns\0")] {
            builder.add(&Record { owner: apex.as_wire(), rtype, ttl: 300, rdata }, FilePlace::default());
        }
        let Ok((zone, _)) = builder.finish() else { panic!("an SOA record and a server are a zone") };
        Arc::new(zone)
    }

    /// Finds the zone that answers for a name and type.
    fn found(zone_db: &ZoneDb, name: &str, qtype: RecordType) -> Option<(String, u32)> {
        let name: Name = name.parse().expect("a name");
        zone_db.zone_of(name.folded().as_wire(), qtype).map(|zone| (zone.apex().to_string(), zone.serial()))
    }

    #[test]
    fn the_deepest_zone_is_found() {
        let zone_db = ZoneDb::new(Arc::new(Tables::none()));
        let zones = ["example.", "a.example.", "x.y.a.example.", "Other."];
        let zone_db = zones.iter().fold(zone_db, |zone_db, apex| zone_db.with_zone(zone(apex, 1)));
        let check = |name, qtype, expected: Option<&str>| {
            let found = found(&zone_db, name, qtype).map(|(apex, _)| apex);
            assert_eq!(found.as_deref(), expected, "{name} {qtype}");
        };
        check("example", RecordType::A, Some("example."));
        check("b.example", RecordType::A, Some("example."));
        check("b.A.example", RecordType::A, Some("a.example."));
        check("y.a.example", RecordType::A, Some("a.example."));
        check("z.x.y.a.example", RecordType::A, Some("x.y.a.example."));
        check("other", RecordType::A, Some("other."));
        check("a", RecordType::A, None);
        check(".", RecordType::A, None);
        check("a.example", RecordType::DS, Some("example."));
        check("x.y.a.example", RecordType::DS, Some("a.example."));
        check("example", RecordType::DS, Some("example."));
        let with_root = zone_db.clone().with_zone(zone(".", 7));
        assert_eq!(found(&with_root, "nowhere", RecordType::A), Some((".".into(), 7)));
        assert_eq!(found(&with_root, ".", RecordType::NS), Some((".".into(), 7)));
    }

    #[test]
    fn another_version_of_a_zone_leaves_the_others_where_they_are() {
        let zone_db = ZoneDb::new(Arc::new(Tables::none())).with_zone(zone("a.", 1)).with_zone(zone("b.", 1));
        let next = zone_db.clone().with_zone(zone("A.", 2));
        assert_eq!(found(&zone_db, "x.a", RecordType::A), Some(("a.".into(), 1)));
        assert_eq!(found(&next, "x.a", RecordType::A), Some(("a.".into(), 2)));
        let b: Name = "b.".parse().expect("a name");
        assert!(Arc::ptr_eq(zone_db.zone(&b).expect("there"), next.zone(&b).expect("there")));
        assert_eq!((next.zones().len(), next.hosts(), next.records()), (2, 2, 4));
    }

    #[test]
    fn zones_that_go_leave_the_others_where_they_are() {
        let zone_db = ZoneDb::new(Arc::new(Tables::none()));
        let zone_db = ["a.", "x.a.", "b."].into_iter().fold(zone_db, |zone_db, apex| zone_db.with_zone(zone(apex, 1)));
        let rest = zone_db.without(&["x.a.", "b."].map(|apex| apex.parse().expect("a name")).into());
        assert_eq!(found(&rest, "x.a", RecordType::A), Some(("a.".into(), 1)));
        assert_eq!((found(&rest, "b", RecordType::A), rest.zones().len()), (None, 1));
        assert_eq!(found(&zone_db, "b", RecordType::A), Some(("b.".into(), 1)), "as it was");
    }
}
