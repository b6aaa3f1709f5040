//! The index of a store: from a name to the place of its node.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::node::{At, Node};
use crate::wire::{HashSeed, NameHasher};

/// Nodes by canonical name. Eight octets a name, beside what the table leaves free.
#[derive(Debug, Default)]
pub(super) struct Index(HashTable<Slot>);

/// One name.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The name's hash: a table that grows moves its slots without a look at the names, and a look-up compares
    /// the one name that it wants.
    hash: u32,
    /// Where the node is.
    at: At,
}

impl Slot {
    /// The hash as the table wants it, which takes a slot's place from its low bits and a tag from its high ones.
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

impl Index {
    /// Where the node of a name in canonical form is.
    pub(super) fn find(&self, arena: &[u8], name: &[u8]) -> Option<At> {
        let hash = hash(name);
        self.0.find(spread(hash), |slot| slot.is(hash, name, arena)).map(|slot| slot.at)
    }

    /// Where the node of a name with this hash is, or of another name that shares it.
    pub(super) fn guess(&self, hash: u32) -> Option<At> {
        self.0.find(spread(hash), |slot| slot.hash == hash).map(|slot| slot.at)
    }

    /// Notes that the node of a name is `at`, unless the name is known. Returns where it is by now.
    pub(super) fn find_or_insert(&mut self, arena: &[u8], name: &[u8], at: At) -> At {
        let hash = hash(name);
        match self.0.entry(spread(hash), |slot| slot.is(hash, name, arena), Slot::spread) {
            Entry::Occupied(known) => known.get().at,
            Entry::Vacant(vacant) => vacant.insert(Slot { hash, at }).get().at,
        }
    }

    /// Notes that the node of a known name has moved.
    pub(super) fn relocate(&mut self, arena: &[u8], name: &[u8], at: At) {
        let hash = hash(name);
        if let Some(slot) = self.0.find_mut(spread(hash), |slot| slot.is(hash, name, arena)) {
            slot.at = at;
        }
    }

    /// Makes room for so many names.
    pub(super) fn reserve(&mut self, names: usize) {
        self.0.reserve(names, Slot::spread);
    }

    /// Octets that the index takes.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.0.allocation_size()
    }
}

impl Slot {
    /// Whether this is the slot of a name.
    fn is(&self, hash: u32, name: &[u8], arena: &[u8]) -> bool {
        self.hash == hash && Node::new(arena, self.at).name() == name
    }
}

/// The hash of a name in canonical form, with the seed of the process. Who may add names to a zone that is hosted here, or
/// transferred from elsewhere, would otherwise choose them to fall into one chain.
#[inline]
pub(in crate::zone) fn hash(name: &[u8]) -> u32 {
    hasher().hash_one(name) as u32
}

/// Has all stores of this process hash with this seed. To be called before the first zone is read: a store that is there
/// would not find its names any more, so later calls change nothing.
pub fn seed_hashes(seed: HashSeed) {
    HASHER.get_or_init(|| seed.name_hasher());
}

/// Hashes the names of all stores, for one query may be looked up in several.
fn hasher() -> &'static NameHasher {
    // Without a seed, as in tests, any will do.
    HASHER.get_or_init(|| HashSeed([0; 2]).name_hasher())
}

/// See [`seed_hashes`].
static HASHER: OnceLock<NameHasher> = OnceLock::new();

/// Spreads a hash over all bits.
pub(in crate::zone) fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
