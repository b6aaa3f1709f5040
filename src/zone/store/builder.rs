//! A store in the making.
//!
//! A node is written where it will stay, at the end of the arena, and grows there while records of one owner come one
//! after another, as they do in nearly every file. An owner that comes again later moves to the end; what it leaves behind
//! is taken out when that is more than what is in use. So building costs one hash for each run of records with one owner,
//! and no allocation for any of them.

use super::index::Index;
use super::node::{
    At, GRAIN, MAX_RECORDS_LEN, Mark, NODE_LEN, Node, QNAME_POINTER, RECORD_LEN, RRSET_LEN, Rrset, TTL_AT, covered_type,
};
use super::{Places, Store};
use crate::wire::{RecordClass, RecordType, same_rdata, suffixes};
use crate::zone::store::names::NameBuf;
use crate::zone::store::record::Place;

/// Records on their way into a store.
#[derive(Debug, Default)]
pub(in crate::zone) struct StoreBuilder {
    /// Nodes, one behind the other.
    arena: Vec<u8>,
    index: Index,
    /// Every node in the arena, and where the first of its records was read. In order.
    places: Vec<(At, Place)>,
    /// Octets of nodes that have moved.
    garbage: usize,
    records: usize,
}

/// What became of a record that has its place in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) enum Added {
    /// It is in.
    New,
    /// It was there already, and is not added again (RFC 2181 section 5).
    Duplicate,
    /// It is in, and its TTL differed: all of the RRset have the lower one now (RFC 2181 section 5.2).
    OtherTtl,
}

/// An RRset has no room for one more record: one message could not hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) struct Full {
    /// How many records of this length there is room for.
    pub(in crate::zone) limit: usize,
}

impl StoreBuilder {
    /// Gets ready for a large store: what is taken for its sake in between can then be given back.
    ///
    /// Allocators keep freed memory for the next one who asks, but for blocks beyond some size, which come from the system
    /// and go back to it: for glibc above 32 MiB at most. Memory that is reserved and not written to costs nothing.
    pub(in crate::zone) fn expect_many(&mut self) {
        self.arena.reserve(WHOLE_BLOCK);
        self.places.reserve(WHOLE_BLOCK / size_of::<(At, Place)>());
    }

    /// Makes the node of a name in canonical form the one to which records are added.
    pub(in crate::zone) fn open(&mut self, owner: &[u8], place: Place) {
        if self.last().is_some_and(|node| node.name() == owner) {
            return;
        }
        let end = At::from_octets(self.arena.len().next_multiple_of(GRAIN));
        let at = self.index.find_or_insert(&self.arena, owner, end);
        if at == end {
            self.append_node(owner, place);
        } else {
            self.move_to_end(at);
        }
    }

    /// The node to which records are added.
    pub(in crate::zone) fn last(&self) -> Option<Node<'_>> {
        self.places.last().map(|(at, _)| Node::new(&self.arena, *at))
    }

    /// Adds a record of class IN to the node that is open.
    pub(in crate::zone) fn add(&mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) -> Result<Added, Full> {
        let rdlength = u16::try_from(rdata.len()).map_err(|_| Full { limit: 0 })?;
        let covered = covered_type(rtype, rdata);
        let Spot { header, end, found } = self.find_spot(rtype, covered, rdata);
        if found == Added::Duplicate {
            return Ok(found);
        }
        let record_len = RECORD_LEN + rdata.len();
        let [_, _, _, _, n0, n1, l0, l1] = self.arena[header..header + RRSET_LEN].try_into().expect("of that length");
        let len = usize::from(u16::from_be_bytes([l0, l1])) + record_len;
        if len > MAX_RECORDS_LEN {
            return Err(Full { limit: MAX_RECORDS_LEN / record_len });
        }
        let count = u16::from_be_bytes([n0, n1]) + 1;
        self.arena[header + 4..header + 6].copy_from_slice(&count.to_be_bytes());
        self.arena[header + 6..header + 8].copy_from_slice(&(len as u16).to_be_bytes());

        let ([t0, t1], [c0, c1]) = (rtype.0.to_be_bytes(), RecordClass::IN.0.to_be_bytes());
        let ([p0, p1], [l0, l1, l2, l3], [r0, r1]) = (QNAME_POINTER, ttl.to_be_bytes(), rdlength.to_be_bytes());
        let fixed: [u8; RECORD_LEN] = [p0, p1, t0, t1, c0, c1, l0, l1, l2, l3, r0, r1];
        self.arena.extend_from_slice(&fixed);
        self.arena.extend_from_slice(rdata);
        // Behind the RRset, which is the last one but where types alternate.
        if end + record_len < self.arena.len() {
            self.arena[end..].rotate_right(record_len);
        }
        self.records += 1;
        Ok(self.level_ttl(header, ttl))
    }

    /// Where every name that is above an owner, but below a name of `top_len` octets, gets its node.
    pub(in crate::zone) fn fill_gaps(&mut self, top_len: usize) {
        let mut last_parent = NameBuf::new(&[0]);
        for index in 0..self.places.len() {
            let node = Node::new(&self.arena, self.places[index].0);
            if suffixes(node.name()).nth(1) == Some(last_parent.as_wire()) {
                continue;
            }
            let name = NameBuf::new(node.name());
            for above in suffixes(name.as_wire()).skip(1).take_while(|above| above.len() >= top_len) {
                let end = At::from_octets(self.arena.len().next_multiple_of(GRAIN));
                if self.index.find_or_insert(&self.arena, above, end) != end {
                    // What is above a known name is known too, or that name is an owner and has its own turn.
                    break;
                }
                self.append_node(above, Place::default());
            }
            last_parent = NameBuf::new(suffixes(name.as_wire()).nth(1).unwrap_or(&[0]));
        }
    }

    /// The nodes that are in use.
    pub(in crate::zone) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.places.iter().map(|(at, _)| Node::new(&self.arena, *at)).filter(|node| !node.has(Mark::Moved))
    }

    /// The node of a name in canonical form.
    pub(in crate::zone) fn find(&self, name: &[u8]) -> Option<Node<'_>> {
        self.index.find(&self.arena, name).map(|at| Node::new(&self.arena, at))
    }

    /// Marks every node with what `marks` finds for it.
    pub(in crate::zone) fn mark(&mut self, marks: impl Fn(&Self, Node<'_>) -> u8) {
        for index in 0..self.places.len() {
            let at = self.places[index].0;
            let found = marks(self, Node::new(&self.arena, at));
            self.arena[at.octets()] |= found;
        }
    }

    /// Compiles what was added.
    pub(in crate::zone) fn finish(mut self) -> (Store, Places) {
        if self.garbage > 0 {
            self.compact();
        }
        let owners = self.nodes().filter(Node::is_owner).count();
        self.arena.shrink_to_fit();
        let store = Store { arena: self.arena.into(), index: self.index, owners, records: self.records };
        (store, Places(self.places))
    }

    /// Adds a node without RRsets.
    fn append_node(&mut self, name: &[u8], place: Place) {
        self.arena.resize(self.arena.len().next_multiple_of(GRAIN), 0);
        self.places.push((At::from_octets(self.arena.len()), place));
        let name_len = u8::try_from(name.len()).expect("a name has at most 255 octets");
        self.arena.extend_from_slice(&[0, name_len, 0, 0]);
        self.arena.extend_from_slice(name);
    }

    /// Moves a node to the end.
    fn move_to_end(&mut self, at: At) {
        let place = self.places.binary_search_by_key(&at, |(at, _)| *at).map(|index| self.places[index].1);
        let start = at.octets();
        let len = Node::new(&self.arena, at).len();
        self.arena.resize(self.arena.len().next_multiple_of(GRAIN), 0);
        let new = At::from_octets(self.arena.len());
        self.arena.extend_from_within(start..start + len);
        let name = NameBuf::new(Node::new(&self.arena, new).name());
        self.index.relocate(&self.arena, name.as_wire(), new);
        self.arena[start] |= Mark::Moved as u8;
        self.places.push((new, place.unwrap_or_default()));
        self.garbage += len.next_multiple_of(GRAIN);
        if self.garbage > MAX_GARBAGE && self.garbage > self.arena.len() / 2 {
            self.compact();
        }
    }

    /// Takes out what is no longer in use.
    fn compact(&mut self) {
        let (mut arena, mut places) = (Vec::with_capacity(self.arena.len() - self.garbage), Vec::new());
        let mut index = Index::default();
        index.reserve(self.places.len());
        for (at, place) in &self.places {
            let node = Node::new(&self.arena, *at);
            if !node.has(Mark::Moved) {
                arena.resize(arena.len().next_multiple_of(GRAIN), 0);
                let new = At::from_octets(arena.len());
                arena.extend_from_slice(&self.arena[at.octets()..at.octets() + node.len()]);
                index.find_or_insert(&arena, node.name(), new);
                places.push((new, *place));
            }
        }
        (self.arena, self.places, self.index, self.garbage) = (arena, places, index, 0);
    }

    /// Where a record belongs, and whether it is there. Makes its RRset if need be.
    fn find_spot(&mut self, rtype: RecordType, covered: RecordType, rdata: &[u8]) -> Spot {
        let start = self.places.last().map_or(0, |(at, _)| at.octets());
        let mut header = start + NODE_LEN + usize::from(self.arena[start + 1]);
        for rrset in Node::new(&self.arena, At::from_octets(start)).rrsets() {
            let end = header + RRSET_LEN + rrset.octets.len();
            if (rrset.rtype, rrset.covered) == (rtype, covered) {
                let is_known = rrset.rdata().any(|known| same_rdata(rtype, known, rdata));
                return Spot { header, end, found: if is_known { Added::Duplicate } else { Added::New } };
            }
            header = end;
        }
        let count = u16::from_be_bytes([self.arena[start + 2], self.arena[start + 3]]) + 1;
        self.arena[start + 2..start + NODE_LEN].copy_from_slice(&count.to_be_bytes());
        let ([t0, t1], [s0, s1]) = (rtype.0.to_be_bytes(), covered.0.to_be_bytes());
        self.arena.extend_from_slice(&[t0, t1, s0, s1, 0, 0, 0, 0]);
        Spot { header, end: self.arena.len(), found: Added::New }
    }

    /// Gives all records of the RRset with this header the lowest TTL of any, where the last one has this.
    fn level_ttl(&mut self, header: usize, ttl: u32) -> Added {
        let len = usize::from(u16::from_be_bytes([self.arena[header + 6], self.arena[header + 7]]));
        let records = &mut self.arena[header + RRSET_LEN..header + RRSET_LEN + len];
        let rrset = Rrset { rtype: RecordType(0), covered: RecordType(0), count: 0, octets: records };
        let known = rrset.ttl();
        if known == ttl {
            return Added::New;
        }
        let lens: Vec<usize> = rrset.rdata().map(|rdata| RECORD_LEN + rdata.len()).collect();
        let mut at = 0;
        for record_len in lens {
            records[at + TTL_AT..at + TTL_AT + 4].copy_from_slice(&known.min(ttl).to_be_bytes());
            at += record_len;
        }
        Added::OtherTtl
    }
}

/// The place of a record in the arena.
struct Spot {
    /// Where its RRset starts.
    header: usize,
    /// Where its RRset ends.
    end: usize,
    /// [`Added::Duplicate`] if it is there already.
    found: Added,
}

/// Octets of a block that an allocator gives back as soon as it is freed.
const WHOLE_BLOCK: usize = 33 << 20;

/// Octets of moved nodes that are not worth a cleaning.
const MAX_GARBAGE: usize = 1 << 20;
