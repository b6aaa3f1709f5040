//! The store: all owner names and records of a zone or of all tables, compiled for answering.
//!
//! One arena holds the name and records of each node side by side, ready to be copied into a response. A hash
//! table maps a name to its node: one hash and three cache misses, for ten names or ten million. Names above
//! an owner (empty non-terminals) have nodes without RRsets, so a lookup needs no walk.

mod builder;
mod index;
pub(super) mod names;
mod node;
pub(super) mod record;
pub(super) mod target;

pub(super) use builder::{AddOutcome, Full, StoreBuilder};
pub use index::seed_hashes;
pub(super) use index::{hash, spread};
pub(super) use node::{At, MAX_RECORDS_LEN, NodeMark, QNAME_POINTER, Rrset, ZoneNode};

use index::Index;

use record::FilePlace;

/// An immutable set of owner names and their RRsets.
#[derive(Debug)]
pub(super) struct ZoneStore {
    arena: Box<[u8]>,
    index: Index,
    owners: usize,
    records: usize,
}

impl ZoneStore {
    /// Finds a name in canonical form that owns records or is above an owner.
    pub(super) fn find(&self, name: &[u8]) -> Option<ZoneNode<'_>> {
        self.index.find(&self.arena, name).map(|at| ZoneNode::new(&self.arena, at))
    }

    pub(super) fn node(&self, at: At) -> ZoneNode<'_> {
        ZoneNode::new(&self.arena, at)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = ZoneNode<'_>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            if next >= self.arena.len() {
                return None;
            }
            let node = ZoneNode::new(&self.arena, At::from_octets(next));
            next = (next + node.len()).next_multiple_of(node::GRAIN);
            Some(node)
        })
    }

    pub(super) fn owners(&self) -> usize {
        self.owners
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }

    pub(super) fn is_large(&self) -> bool {
        self.arena.len() >= LARGE
    }

    /// Returns the probable node of a name with this hash. It reads only the index.
    pub(super) fn guess(&self, hash: u32) -> Option<At> {
        self.index.guess(hash)
    }

    /// Reads both cache lines of a typical node to load them.
    pub(super) fn touch(&self, at: At) -> (Option<u8>, Option<u8>) {
        let start = at.octets();
        (self.arena.get(start).copied(), self.arena.get(start + TYPICAL_LEN).copied())
    }

    #[cfg(test)]
    fn octets(&self) -> usize {
        self.arena.len() + self.index.octets()
    }
}

#[derive(Debug)]
pub(super) struct NodePlaces(Vec<(At, FilePlace)>);

impl NodePlaces {
    pub(super) fn of(&self, node: ZoneNode<'_>) -> FilePlace {
        let found = self.0.binary_search_by_key(&node.at(), |(at, _)| *at);
        found.ok().and_then(|index| self.0.get(index)).map(|(_, place)| *place).unwrap_or_default()
    }
}

/// A store size in bytes that exceeds any cache of a core.
const LARGE: usize = 1 << 21;

/// The offset of the last bytes in a node with one address.
const TYPICAL_LEN: usize = 48;

#[cfg(test)]
mod tests;
