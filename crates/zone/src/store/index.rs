//! The index of a store: maps a name to the place of its node.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use dns::{HashSeed, NameHasher};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::node::{At, ZoneNode};

/// A hash table of nodes by canonical name. It takes 8 bytes per name plus free slots.
#[derive(Debug, Default)]
pub(super) struct Index(HashTable<IndexSlot>);

#[derive(Clone, Copy, Debug)]
struct IndexSlot {
    /// Lets the table grow without reading names, and a lookup compare only one name.
    hash: u32,
    at: At,
}

impl IndexSlot {
    /// Spreads the hash for the table, which uses the low bits for the slot and the high bits for a tag.
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

impl Index {
    pub(super) fn find(&self, arena: &[u8], name: &[u8]) -> Option<At> {
        let hash = hash(name);
        self.0.find(spread(hash), |slot| slot.is(hash, name, arena)).map(|slot| slot.at)
    }

    /// Finds the node of a name with this hash, which may be another name with an equal hash.
    pub(super) fn guess(&self, hash: u32) -> Option<At> {
        self.0.find(spread(hash), |slot| slot.hash == hash).map(|slot| slot.at)
    }

    /// Records `at` as the node of the name unless the name is known. Returns the place of its node.
    pub(super) fn find_or_insert(&mut self, arena: &[u8], name: &[u8], at: At) -> At {
        let hash = hash(name);
        match self.0.entry(spread(hash), |slot| slot.is(hash, name, arena), IndexSlot::spread) {
            Entry::Occupied(known) => known.get().at,
            Entry::Vacant(vacant) => vacant.insert(IndexSlot { hash, at }).get().at,
        }
    }

    pub(super) fn relocate(&mut self, arena: &[u8], name: &[u8], at: At) {
        let hash = hash(name);
        if let Some(slot) = self.0.find_mut(spread(hash), |slot| slot.is(hash, name, arena)) {
            slot.at = at;
        }
    }

    pub(super) fn reserve(&mut self, names: usize) {
        self.0.reserve(names, IndexSlot::spread);
    }

    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.0.allocation_size()
    }
}

impl IndexSlot {
    fn is(&self, hash: u32, name: &[u8], arena: &[u8]) -> bool {
        self.hash == hash && ZoneNode::new(arena, self.at).name() == name
    }
}

/// The hash of a canonical name, seeded so that attackers cannot choose names that collide.
#[inline]
pub(crate) fn hash(name: &[u8]) -> u32 {
    hasher().hash_one(name) as u32
}

/// Sets the hash seed of all stores in this process. Call it before the first zone is read: an existing store
/// could no longer find its names, so later calls have no effect.
pub fn seed_hashes(seed: HashSeed) {
    HASHER.get_or_init(|| seed.name_hasher());
}

/// The hasher of all stores, because one query may search several.
fn hasher() -> &'static NameHasher {
    // Without a seed, as in tests, any value works.
    HASHER.get_or_init(|| HashSeed([0; 2]).name_hasher())
}

static HASHER: OnceLock<NameHasher> = OnceLock::new();

pub(crate) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
