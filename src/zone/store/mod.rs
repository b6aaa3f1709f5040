//! The store: every owner name of a zone or of all tables, and its records, compiled for answering.
//!
//! A [`StoreBuilder`] collects records, [`StoreBuilder::finish`] compiles them into a [`Store`], and that never changes. All octets lie in
//! one arena, name and records of each node side by side, ready to be copied into a response behind a question for that
//! name. A hash table leads from a name to its node, with one hash for one name: three cache misses for an exact match,
//! whether there are ten names or ten million. The names above an owner (empty non-terminals) have nodes without RRsets,
//! so that a store knows what is below a name without walking.

mod builder;
mod index;
pub(super) mod names;
mod node;
pub(super) mod record;
pub(super) mod target;

pub(super) use builder::{Added, Full, StoreBuilder};
pub use index::seed_hashes;
pub(super) use index::{hash, spread};
pub(super) use node::{At, MAX_RECORDS_LEN, Mark, Node, QNAME_POINTER, Rrset};

use index::Index;

use record::Place;

/// Owner names and their RRsets, immutable.
#[derive(Debug)]
pub(super) struct Store {
    /// Names and records.
    arena: Box<[u8]>,
    /// By canonical name.
    index: Index,
    /// How many names own records.
    owners: usize,
    records: usize,
}

impl Store {
    /// The node of a name in canonical form. `None` if the name neither owns records nor is above one that does.
    pub(super) fn find(&self, name: &[u8]) -> Option<Node<'_>> {
        self.index.find(&self.arena, name).map(|at| Node::new(&self.arena, at))
    }

    /// The node at a place.
    pub(super) fn node(&self, at: At) -> Node<'_> {
        Node::new(&self.arena, at)
    }

    /// All nodes, in the order in which their first records came.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        let mut next = 0;
        std::iter::from_fn(move || {
            if next >= self.arena.len() {
                return None;
            }
            let node = Node::new(&self.arena, At::from_octets(next));
            next = (next + node.len()).next_multiple_of(node::GRAIN);
            Some(node)
        })
    }

    /// How many names own records.
    pub(super) fn owners(&self) -> usize {
        self.owners
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Whether the store is more than a processor's cache holds.
    pub(super) fn is_large(&self) -> bool {
        self.arena.len() >= LARGE
    }

    /// Where the node of a name with this hash probably is: by the index alone, without a look at the node.
    pub(super) fn guess(&self, hash: u32) -> Option<At> {
        self.index.guess(hash)
    }

    /// Reads something of both cache lines that a node takes, typically, so that they are at hand.
    pub(super) fn touch(&self, at: At) -> (Option<u8>, Option<u8>) {
        let start = at.octets();
        (self.arena.get(start).copied(), self.arena.get(start + TYPICAL_LEN).copied())
    }

    /// Octets that the store takes.
    #[cfg(test)]
    fn octets(&self) -> usize {
        self.arena.len() + self.index.octets()
    }
}

/// Where the nodes of a store were read.
#[derive(Debug)]
pub(super) struct Places(Vec<(At, Place)>);

impl Places {
    /// Where the first record of a node stood.
    pub(super) fn of(&self, node: Node<'_>) -> Place {
        let found = self.0.binary_search_by_key(&node.at(), |(at, _)| *at);
        found.ok().and_then(|index| self.0.get(index)).map(|(_, place)| *place).unwrap_or_default()
    }
}

/// Octets of names and records that fit into no cache of a core.
const LARGE: usize = 1 << 21;

/// Octets of a node with one address, up to the last ones.
const TYPICAL_LEN: usize = 48;

#[cfg(test)]
mod tests;
