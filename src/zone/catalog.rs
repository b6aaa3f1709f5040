//! The catalog: all that one authority knows.
//!
//! A name is looked for in the deepest zone that encloses it, and only if there is none, in the tables. A catalog is
//! immutable; one with another version of a zone shares all else with the one before, so that a reload or a transfer costs
//! what it changes.

use std::sync::Arc;

use hashbrown::HashTable;

use super::error::ZoneErrors;
use super::identity::Identity;
use super::store::{hash, spread};
use super::tables::{Miss, Tables};
use super::zone::Zone;
use crate::wire::{Name, RecordType, suffixes};

/// What one authority answers from.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// All zones, in order of their addition.
    zones: Vec<Arc<Zone>>,
    /// Places in `zones` by apex.
    by_apex: HashTable<usize>,
    /// Which lengths apexes have, so that most suffixes of a name are never looked up.
    lengths: Lengths,
    /// What is asked if no zone encloses a name.
    tables: Arc<Tables>,
    /// What the server says of itself.
    identity: Identity,
}

impl Catalog {
    /// Builds a catalog from table files, each its name for messages and its octets. Records get this TTL, since tables
    /// have none.
    ///
    /// Every bad line of every file is reported.
    pub fn build(sources: &[(String, Vec<u8>)], ttl: u32, miss: Miss) -> Result<Self, ZoneErrors> {
        Tables::build(sources, ttl, miss).map(|tables| Self::new(Arc::new(tables)))
    }

    /// A catalog of tables, without zones.
    pub fn new(tables: Arc<Tables>) -> Self {
        let (by_apex, lengths) = (HashTable::new(), Lengths::default());
        Self { zones: Vec::new(), by_apex, lengths, tables, identity: Identity::default() }
    }

    /// This catalog with a zone more, or with this version of a zone that it has.
    pub fn with_zone(mut self, zone: Arc<Zone>) -> Self {
        let apex = zone.apex().as_wire();
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
        self
    }

    /// This catalog, whose server says this of itself.
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// The zones, in order of their addition.
    pub fn zones(&self) -> &[Arc<Zone>] {
        &self.zones
    }

    /// The zone of this name.
    pub fn zone(&self, apex: &Name) -> Option<&Arc<Zone>> {
        self.find_apex(apex.folded().as_wire()).map(|index| &self.zones[index])
    }

    /// The tables.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// How many hosts have addresses in tables, and names records in zones.
    pub fn hosts(&self) -> usize {
        self.tables.hosts() + self.zones.iter().map(|zone| zone.owners()).sum::<usize>()
    }

    /// How many addresses and records all of them have.
    pub fn records(&self) -> usize {
        self.tables.records() + self.zones.iter().map(|zone| zone.records()).sum::<usize>()
    }

    /// How many name servers the referral of the tables names; 0 if there is none.
    pub fn name_servers(&self) -> usize {
        self.tables.name_servers()
    }

    /// What the server says of itself.
    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The deepest zone that encloses a folded name, as far as it answers for this type.
    pub(super) fn zone_of(&self, name: &[u8], qtype: RecordType) -> Option<&Zone> {
        let mut child = None;
        for suffix in suffixes(name).filter(|suffix| self.lengths.has(suffix.len())) {
            let Some(index) = self.find_apex(suffix) else { continue };
            // RFC 4035 section 3.1.4.1: DS records are the business of the zone above, if that is here too.
            if qtype == RecordType::DS && suffix.len() == name.len() {
                child = Some(&*self.zones[index]);
                continue;
            }
            return Some(&self.zones[index]);
        }
        child
    }

    /// Whether names that no zone encloses are none of this authority's business: if there are zones and no table.
    pub(super) fn has_zones_only(&self) -> bool {
        !self.zones.is_empty() && self.tables.is_empty()
    }

    /// The place of the zone with this name in canonical form.
    fn find_apex(&self, apex: &[u8]) -> Option<usize> {
        self.by_apex.find(spread(hash(apex)), |index| self.zones[*index].apex().as_wire() == apex).copied()
    }
}

/// A set of lengths of names.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths([u64; 4]);

impl Lengths {
    /// Adds a length, which is at most 255.
    fn add(&mut self, len: usize) {
        self.0[len / 64 % 4] |= 1 << (len % 64);
    }

    /// Whether the length is in the set.
    fn has(&self, len: usize) -> bool {
        self.0[len / 64 % 4] >> (len % 64) & 1 == 1
    }
}
