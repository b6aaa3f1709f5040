//! The names of a file in little memory: one block of bytes, and one hash table of offsets into it.

use std::fmt;
use std::hash::BuildHasher;

use dns::suffixes;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::pattern::{AT, BELOW, NamePattern};

/// A set of names and of names with all names below them.
///
/// An entry is a byte of relations (`AT`, `BELOW`) and a folded name in wire form. A name of 20 octets
/// takes 23 bytes, and about 10 bytes of the hash table.
#[derive(Default)]
pub struct NameSet {
    entries: Vec<u8>,
    offsets: HashTable<u32>,
    hasher: RandomState,
    /// The relations to the root, which is not among the entries.
    root: u8,
    /// False while all entries are exact names, so that ancestors need no look-up.
    has_below: bool,
}

impl NameSet {
    /// Creates an empty set with memory for so many names, of so many octets in all.
    pub(crate) fn with_capacity(names: usize, octets: usize) -> Self {
        let entries = Vec::with_capacity(octets + 2 * names);
        Self { entries, offsets: HashTable::with_capacity(names), ..Self::default() }
    }

    /// Adds the names of a pattern.
    pub(crate) fn insert(&mut self, pattern: &NamePattern) {
        let (name, relations) = (pattern.name().folded(), pattern.relations());
        self.has_below |= relations & BELOW > 0;
        if name.is_root() {
            self.root |= relations;
            return;
        }
        let Self { entries, offsets, hasher, .. } = self;
        let wire = name.as_wire();
        let hash = hasher.hash_one(wire);
        if let Some(&at) = offsets.find(hash, |&at| has_entry(entries, at, wire)) {
            entries[at as usize] |= relations;
            return;
        }
        // So many octets are more than `MAX_NAMES` names, which is a problem of the file.
        let Ok(offset) = u32::try_from(entries.len()) else { return };
        offsets.insert_unique(hash, offset, |&at| hasher.hash_one(wire_at(entries, at)));
        entries.push(relations);
        entries.extend_from_slice(wire);
    }

    /// Gives back the memory that is not needed after the last name.
    pub(crate) fn shrink(&mut self) {
        let Self { entries, offsets, hasher, .. } = self;
        entries.shrink_to_fit();
        offsets.shrink_to_fit(|&at| hasher.hash_one(wire_at(entries, at)));
    }

    /// Returns the number of names.
    pub fn len(&self) -> usize {
        self.offsets.len() + usize::from(self.root > 0)
    }

    /// Returns true if the set has no names.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns true if the set has a folded name in wire form, itself or by a name that includes those below.
    pub fn contains(&self, qname: &[u8]) -> bool {
        self.covers(qname, AT)
    }

    /// Returns true if a name with this relation to `wire`, and to nothing below `wire`, is in the set.
    pub(crate) fn covers(&self, wire: &[u8], relation: u8) -> bool {
        let mut wanted = relation;
        let mut rest = wire;
        while let Some((&length, below)) = rest.split_first()
            && length > 0
        {
            if self.relations_to(rest) & wanted > 0 {
                return true;
            }
            if !self.has_below {
                return false;
            }
            wanted = BELOW;
            rest = below.get(usize::from(length)..).unwrap_or_default();
        }
        self.root & wanted > 0
    }

    /// Returns true if the set has an entry for a folded name in wire form other than the root.
    pub(crate) fn names(&self, wire: &[u8]) -> bool {
        self.relations_to(wire) > 0
    }

    /// Returns the entries other than the root, in order of insertion, each with its relations.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u8)> {
        let mut rest = &*self.entries;
        std::iter::from_fn(move || {
            let &relations = rest.first()?;
            let wire = wire_at(rest, 0);
            rest = &rest[1 + wire.len()..];
            Some((wire, relations))
        })
    }

    fn relations_to(&self, wire: &[u8]) -> u8 {
        let hash = self.hasher.hash_one(wire);
        let found = self.offsets.find(hash, |&at| has_entry(&self.entries, at, wire));
        found.map_or(0, |&at| self.entries[at as usize])
    }
}

/// Compares an entry with a name. A name in wire form is never the beginning of another one.
fn has_entry(entries: &[u8], offset: u32, wire: &[u8]) -> bool {
    entries.get(offset as usize + 1..).is_some_and(|entry| entry.starts_with(wire))
}

fn wire_at(entries: &[u8], offset: u32) -> &[u8] {
    let wire = entries.get(offset as usize + 1..).unwrap_or_default();
    let root = suffixes(wire).find(|rest| rest.first() == Some(&0));
    root.map_or(wire, |root| &wire[..wire.len() - root.len() + 1])
}

impl fmt::Debug for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NameSet({} names)", self.len())
    }
}
