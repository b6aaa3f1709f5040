//! Builds a store from records.
//!
//! The builder writes each node at the end of the arena, where it grows while records of one owner follow
//! each other. If an owner comes again later, its node moves to the end. The builder removes the old copies
//! when they exceed both `MAX_GARBAGE` and the bytes in use.

use dns::{RecordClass, RecordType, same_rdata, suffixes};

use super::index::Index;
use super::node::{
    At, GRAIN, MAX_RECORDS_LEN, NODE_LEN, NodeMark, QNAME_POINTER, RECORD_LEN, RRSET_LEN, Rrset, TTL_AT, ZoneNode,
    covered_type,
};
use super::{NodePlaces, ZoneStore};
use crate::store::names::NameBuf;
use crate::store::record::FilePlace;

#[derive(Debug, Default)]
pub(crate) struct StoreBuilder {
    arena: Vec<u8>,
    index: Index,
    places: Vec<(At, FilePlace)>,
    garbage: usize,
    records: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddOutcome {
    New,
    /// The store already has the record (RFC 2181 section 5).
    Duplicate,
    /// The record is added. Its TTL differed, so the whole RRset gets the lower TTL (RFC 2181 section 5.2).
    OtherTtl,
}

/// The RRset is full: one more record would not fit into one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: usize,
}

impl StoreBuilder {
    /// Reserves memory for a large store, so that all temporary memory returns to the system afterwards.
    ///
    /// Allocators keep freed memory for reuse. Only large blocks return to the system (for glibc, blocks
    /// above 32 MiB at most). Reserved memory that is never written costs nothing.
    pub(crate) fn expect_many(&mut self) {
        self.arena.reserve(WHOLE_BLOCK);
        self.places.reserve(WHOLE_BLOCK / size_of::<(At, FilePlace)>());
    }

    /// Selects the node of a name in canonical form for the next records.
    pub(crate) fn open(&mut self, owner: &[u8], place: FilePlace) {
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

    pub(crate) fn last(&self) -> Option<ZoneNode<'_>> {
        self.places.last().map(|(at, _)| ZoneNode::new(&self.arena, *at))
    }

    pub(crate) fn add(&mut self, rtype: RecordType, ttl: u32, rdata: &[u8]) -> Result<AddOutcome, Full> {
        let rdlength = u16::try_from(rdata.len()).map_err(|_| Full { limit: 0 })?;
        let covered = covered_type(rtype, rdata);
        let RecordSpot { header, end, found } = self.find_spot(rtype, covered, rdata);
        if found == AddOutcome::Duplicate {
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
        // The record goes to the end of its RRset, which is the last one unless types alternate.
        if end + record_len < self.arena.len() {
            self.arena[end..].rotate_right(record_len);
        }
        self.records += 1;
        Ok(self.level_ttl(header, ttl))
    }

    pub(crate) fn fill_gaps(&mut self, top_len: usize) {
        let mut last_parent = NameBuf::new(&[0]);
        for index in 0..self.places.len() {
            let node = ZoneNode::new(&self.arena, self.places[index].0);
            if suffixes(node.name()).nth(1) == Some(last_parent.as_wire()) {
                continue;
            }
            let name = NameBuf::new(node.name());
            for above in suffixes(name.as_wire()).skip(1).take_while(|above| above.len() >= top_len) {
                let end = At::from_octets(self.arena.len().next_multiple_of(GRAIN));
                if self.index.find_or_insert(&self.arena, above, end) != end {
                    // Names above a known name are known too, or that name is an owner and gets its own turn.
                    break;
                }
                self.append_node(above, FilePlace::default());
            }
            last_parent = NameBuf::new(suffixes(name.as_wire()).nth(1).unwrap_or(&[0]));
        }
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = ZoneNode<'_>> {
        self.places.iter().map(|(at, _)| ZoneNode::new(&self.arena, *at)).filter(|node| !node.has(NodeMark::Moved))
    }

    pub(crate) fn find(&self, name: &[u8]) -> Option<ZoneNode<'_>> {
        self.index.find(&self.arena, name).map(|at| ZoneNode::new(&self.arena, at))
    }

    pub(crate) fn mark(&mut self, marks: impl Fn(&Self, ZoneNode<'_>) -> u8) {
        for index in 0..self.places.len() {
            let at = self.places[index].0;
            let found = marks(self, ZoneNode::new(&self.arena, at));
            self.arena[at.octets()] |= found;
        }
    }

    pub(crate) fn finish(mut self) -> (ZoneStore, NodePlaces) {
        if self.garbage > 0 {
            self.compact();
        }
        let owners = self.nodes().filter(ZoneNode::is_owner).count();
        self.arena.shrink_to_fit();
        let store = ZoneStore { arena: self.arena.into(), index: self.index, owners, records: self.records };
        (store, NodePlaces(self.places))
    }

    fn append_node(&mut self, name: &[u8], place: FilePlace) {
        self.arena.resize(self.arena.len().next_multiple_of(GRAIN), 0);
        self.places.push((At::from_octets(self.arena.len()), place));
        let name_len = u8::try_from(name.len()).expect("a name has at most 255 octets");
        self.arena.extend_from_slice(&[0, name_len, 0, 0]);
        self.arena.extend_from_slice(name);
    }

    fn move_to_end(&mut self, at: At) {
        let place = self.places.binary_search_by_key(&at, |(at, _)| *at).map(|index| self.places[index].1);
        let start = at.octets();
        let len = ZoneNode::new(&self.arena, at).len();
        self.arena.resize(self.arena.len().next_multiple_of(GRAIN), 0);
        let new = At::from_octets(self.arena.len());
        self.arena.extend_from_within(start..start + len);
        let name = NameBuf::new(ZoneNode::new(&self.arena, new).name());
        self.index.relocate(&self.arena, name.as_wire(), new);
        self.arena[start] |= NodeMark::Moved as u8;
        self.places.push((new, place.unwrap_or_default()));
        self.garbage += len.next_multiple_of(GRAIN);
        if self.garbage > MAX_GARBAGE && self.garbage > self.arena.len() / 2 {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let (mut arena, mut places) = (Vec::with_capacity(self.arena.len() - self.garbage), Vec::new());
        let mut index = Index::default();
        index.reserve(self.places.len());
        for (at, place) in &self.places {
            let node = ZoneNode::new(&self.arena, *at);
            if !node.has(NodeMark::Moved) {
                arena.resize(arena.len().next_multiple_of(GRAIN), 0);
                let new = At::from_octets(arena.len());
                arena.extend_from_slice(&self.arena[at.octets()..at.octets() + node.len()]);
                index.find_or_insert(&arena, node.name(), new);
                places.push((new, *place));
            }
        }
        (self.arena, self.places, self.index, self.garbage) = (arena, places, index, 0);
    }

    fn find_spot(&mut self, rtype: RecordType, covered: RecordType, rdata: &[u8]) -> RecordSpot {
        let start = self.places.last().map_or(0, |(at, _)| at.octets());
        let mut header = start + NODE_LEN + usize::from(self.arena[start + 1]);
        for rrset in ZoneNode::new(&self.arena, At::from_octets(start)).rrsets() {
            let end = header + RRSET_LEN + rrset.octets.len();
            if (rrset.rtype, rrset.covered) == (rtype, covered) {
                let is_known = rrset.rdata().any(|known| same_rdata(rtype, known, rdata));
                return RecordSpot {
                    header,
                    end,
                    found: if is_known { AddOutcome::Duplicate } else { AddOutcome::New },
                };
            }
            header = end;
        }
        let count = u16::from_be_bytes([self.arena[start + 2], self.arena[start + 3]]) + 1;
        self.arena[start + 2..start + NODE_LEN].copy_from_slice(&count.to_be_bytes());
        let ([t0, t1], [s0, s1]) = (rtype.0.to_be_bytes(), covered.0.to_be_bytes());
        self.arena.extend_from_slice(&[t0, t1, s0, s1, 0, 0, 0, 0]);
        RecordSpot { header, end: self.arena.len(), found: AddOutcome::New }
    }

    fn level_ttl(&mut self, header: usize, ttl: u32) -> AddOutcome {
        let len = usize::from(u16::from_be_bytes([self.arena[header + 6], self.arena[header + 7]]));
        let records = &mut self.arena[header + RRSET_LEN..header + RRSET_LEN + len];
        let rrset = Rrset { rtype: RecordType(0), covered: RecordType(0), count: 0, octets: records };
        let known = rrset.ttl();
        if known == ttl {
            return AddOutcome::New;
        }
        let lens: Vec<usize> = rrset.rdata().map(|rdata| RECORD_LEN + rdata.len()).collect();
        let mut at = 0;
        for record_len in lens {
            records[at + TTL_AT..at + TTL_AT + 4].copy_from_slice(&known.min(ttl).to_be_bytes());
            at += record_len;
        }
        AddOutcome::OtherTtl
    }
}

struct RecordSpot {
    header: usize,
    end: usize,
    found: AddOutcome,
}

/// A block size that allocators return to the system as soon as it is freed.
const WHOLE_BLOCK: usize = 33 << 20;

/// The bytes of moved nodes up to which a cleanup is not worth its cost.
const MAX_GARBAGE: usize = 1 << 20;
