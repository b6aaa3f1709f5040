//! The store: every owner name of an authority and its records, compiled for answering.
//!
//! A [`Draft`] collects records, [`Draft::finish`] compiles them into a [`Store`], and that never
//! changes. All octets lie in one arena: of each owner its canonical name, then its RRsets, ready to
//! be copied into a response behind a question for that name. A hash table leads from a name to its
//! node, with one hash for one name. The names above an owner (empty non-terminals) have nodes
//! without RRsets, whose names lie in the arena as the tail of an owner's; so a store knows what is
//! below a name without walking, and has room for millions of names.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::hash_table::Entry;
use hashbrown::{HashMap, HashTable};

use crate::wire::{HEADER_LEN, Name, RecordClass, RecordType, fold, suffixes};

/// Owner names and their RRsets, immutable.
#[derive(Debug)]
pub(super) struct Store {
    /// Names and records.
    arena: Box<[u8]>,
    /// The RRsets of all nodes, those of one node side by side.
    rrsets: Box<[RrsetSpan]>,
    /// By canonical name.
    nodes: HashTable<NodeSpan>,
    /// Names are the operator's, so that nobody can choose them to collide: no secret seed is needed.
    hasher: FixedState,
    /// How many nodes own records.
    owners: usize,
}

/// Where a node's name and RRsets are.
#[derive(Debug)]
struct NodeSpan {
    /// Its name's first octet in the arena.
    name: usize,
    /// Its first RRset.
    rrsets: u32,
    /// How many RRsets it owns: none if it is only above an owner.
    rrset_count: u16,
    /// Octets of its name.
    name_len: u8,
}

/// Where an RRset's records are.
#[derive(Debug)]
struct RrsetSpan {
    /// Their first octet in the arena.
    records: usize,
    /// Their octets.
    len: u16,
    /// How many they are.
    count: u16,
    /// Their type.
    rtype: RecordType,
}

impl Store {
    /// The node of a name in wire form, in any case. `None` if the name neither owns records nor is
    /// above one that does.
    pub(super) fn find(&self, name: &[u8]) -> Option<Node<'_>> {
        let mut folded = [0; Name::MAX_LEN];
        let folded = folded.get_mut(..name.len())?;
        folded.copy_from_slice(name);
        fold(folded);
        let span = self.find_folded(folded)?;
        let first = span.rrsets as usize;
        Some(Node { arena: &self.arena, rrsets: &self.rrsets[first..first + usize::from(span.rrset_count)] })
    }

    /// How many names own records.
    pub(super) fn owners(&self) -> usize {
        self.owners
    }

    /// How many records there are.
    pub(super) fn records(&self) -> usize {
        self.rrsets.iter().map(|rrset| usize::from(rrset.count)).sum()
    }

    /// The node of a name in canonical form.
    fn find_folded(&self, name: &[u8]) -> Option<&NodeSpan> {
        let arena = &self.arena;
        self.nodes.find(self.hasher.hash_one(name), |node| node.name(arena) == name)
    }
}

impl NodeSpan {
    /// The node's name in the arena.
    fn name<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.name..self.name + usize::from(self.name_len)]
    }
}

/// What a store has at one name.
pub(super) struct Node<'a> {
    /// Where records are.
    arena: &'a [u8],
    /// The node's own.
    rrsets: &'a [RrsetSpan],
}

impl<'a> Node<'a> {
    /// Whether the name owns records, and is not only above one that does.
    pub(super) fn is_owner(&self) -> bool {
        !self.rrsets.is_empty()
    }

    /// All RRsets, in the order in which their types were first added.
    pub(super) fn rrsets(&self) -> impl Iterator<Item = Rrset<'a>> + use<'a> {
        let Self { arena, rrsets } = *self;
        rrsets.iter().map(|span| Rrset {
            rtype: span.rtype,
            count: span.count,
            octets: &arena[span.records..span.records + usize::from(span.len)],
        })
    }
}

/// Records of one owner and type, ready to be copied into a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rrset<'a> {
    /// Their type.
    pub(super) rtype: RecordType,
    /// How many they are.
    pub(super) count: u16,
    /// Their wire form. The owner is a pointer to the question's name.
    pub(super) octets: &'a [u8],
}

impl<'a> Rrset<'a> {
    /// The records one by one, each from behind its owner on: type, class, TTL, RDLENGTH, RDATA.
    pub(super) fn tails(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        split_records(self.octets).map(|record| &record[QNAME_POINTER.len()..])
    }
}

/// Records on their way into a store.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// By canonical name in wire form, the RRsets in the order in which their types came.
    owners: HashMap<Vec<u8>, Vec<RrsetDraft>, FixedState>,
}

impl Draft {
    /// Adds a record of class IN to the owner, which is in canonical form.
    ///
    /// A record that is there already is not added again (RFC 2181 section 5).
    pub(super) fn add(&mut self, owner: &Name, rtype: RecordType, ttl: u32, rdata: &[u8]) -> Result<(), Full> {
        let rdlength = u16::try_from(rdata.len()).map_err(|_| Full { limit: 0 })?;
        let record = [
            &QNAME_POINTER[..],
            &rtype.0.to_be_bytes(),
            &RecordClass::IN.0.to_be_bytes(),
            &ttl.to_be_bytes(),
            &rdlength.to_be_bytes(),
            rdata,
        ]
        .concat();
        let rrsets = self.owners.entry_ref(owner.as_wire()).or_default();
        let index = rrsets.iter().position(|rrset| rrset.rtype == rtype).unwrap_or_else(|| {
            rrsets.push(RrsetDraft::new(rtype));
            rrsets.len() - 1
        });
        rrsets[index].add(&record)
    }

    /// Compiles what was added.
    pub(super) fn finish(self) -> Store {
        let mut arena = Vec::new();
        let mut rrsets = Vec::new();
        let mut owners = Vec::with_capacity(self.owners.len());
        for (name, drafts) in self.owners {
            owners.push(NodeSpan {
                name: arena.len(),
                rrsets: u32::try_from(rrsets.len()).expect("memory ends before 2^32 RRsets do"),
                rrset_count: u16::try_from(drafts.len()).expect("there are 2^16 types"),
                name_len: name_len(&name),
            });
            arena.extend_from_slice(&name);
            for draft in drafts {
                rrsets.push(RrsetSpan {
                    records: arena.len(),
                    len: u16::try_from(draft.octets.len()).expect("bounded by MAX_RECORDS_LEN"),
                    count: draft.count,
                    rtype: draft.rtype,
                });
                arena.extend_from_slice(&draft.octets);
            }
        }
        let hasher = FixedState::default();
        Store {
            owners: owners.len(),
            nodes: index(owners, &arena, &hasher),
            arena: arena.into(),
            rrsets: rrsets.into(),
            hasher,
        }
    }
}

/// The records of one type at one name, on their way.
#[derive(Debug)]
struct RrsetDraft {
    /// Their type.
    rtype: RecordType,
    /// How many they are.
    count: u16,
    /// Their wire form, as in [`Rrset::octets`].
    octets: Vec<u8>,
}

impl RrsetDraft {
    /// No records yet.
    fn new(rtype: RecordType) -> Self {
        Self { rtype, count: 0, octets: Vec::new() }
    }

    /// Adds a record in wire form unless it is there already.
    fn add(&mut self, record: &[u8]) -> Result<(), Full> {
        if split_records(&self.octets).any(|known| known == record) {
            return Ok(());
        }
        if self.octets.len() + record.len() > MAX_RECORDS_LEN {
            let limit = MAX_RECORDS_LEN / record.len();
            return Err(Full { limit });
        }
        self.count += 1;
        self.octets.extend_from_slice(record);
        Ok(())
    }
}

/// An RRset has no room for one more record: one message could not hold it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// How many records of this length there is room for.
    pub(super) limit: usize,
}

/// A hash table of the owners and of all that is above them.
fn index(owners: Vec<NodeSpan>, arena: &[u8], hasher: &FixedState) -> HashTable<NodeSpan> {
    let hash = |node: &NodeSpan| hasher.hash_one(node.name(arena));
    let names: Vec<_> = owners.iter().map(|owner| (owner.name, owner.name(arena))).collect();
    let mut nodes = HashTable::with_capacity(owners.len());
    for owner in owners {
        nodes.insert_unique(hash(&owner), owner, hash);
    }
    for (start, name) in names {
        for above in suffixes(name).skip(1) {
            let node = NodeSpan {
                name: start + name.len() - above.len(),
                rrsets: 0,
                rrset_count: 0,
                name_len: name_len(above),
            };
            match nodes.entry(hash(&node), |known| known.name(arena) == above, hash) {
                // What is above a known name is known too, or that name is an owner and has its own turn.
                Entry::Occupied(_) => break,
                Entry::Vacant(vacant) => vacant.insert(node),
            };
        }
    }
    nodes
}

/// Splits records whose owners are pointers to the question's name.
fn split_records(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let rdlength = octets.get(FIXED_LEN - 2..)?.first_chunk().copied()?;
        let len = FIXED_LEN + usize::from(u16::from_be_bytes(rdlength));
        let (record, rest) = octets.split_at_checked(len)?;
        octets = rest;
        Some(record)
    })
}

/// The length of a name, as a node keeps it.
fn name_len(name: &[u8]) -> u8 {
    u8::try_from(name.len()).expect("a name has at most 255 octets")
}

/// A compression pointer to the name of the question, which is always behind the header (RFC 1035 section 4.1.4).
const QNAME_POINTER: [u8; 2] = (0xC000 | HEADER_LEN as u16).to_be_bytes();

/// Octets of a record up to its RDATA: the pointer, type, class, TTL, RDLENGTH.
const FIXED_LEN: usize = QNAME_POINTER.len() + 10;

/// Octets that the records of one response may have in all: what a message over TCP (RFC 1035 section 4.2.2) has beside
/// its header, the longest question and an OPT record without options. So whatever is in a store can be sent.
pub(super) const MAX_RECORDS_LEN: usize = u16::MAX as usize - HEADER_LEN - (Name::MAX_LEN + 4) - 11;

#[cfg(test)]
mod tests {
    use super::*;

    /// A name from text that is one.
    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn records_are_ready_octets_in_the_order_they_came() {
        let mut draft = Draft::default();
        let www = name("www.example");
        draft.add(&www, RecordType::TXT, 1, b"\x01b").expect("room");
        draft.add(&www, RecordType::A, 0x0102_0304, &[192, 0, 2, 1]).expect("room");
        draft.add(&www, RecordType::TXT, 1, b"\x02aa").expect("room");
        draft.add(&www, RecordType::TXT, 1, b"\x01b").expect("room");
        let store = draft.finish();
        let node = store.find(name("WWW.example").as_wire()).expect("an owner");
        let found: Vec<_> = node.rrsets().map(|rrset| (rrset.rtype, rrset.count, rrset.octets.to_vec())).collect();
        let text = b"\xC0\x0C\0\x10\0\x01\0\0\0\x01\0\x02\x01b\xC0\x0C\0\x10\0\x01\0\0\0\x01\0\x03\x02aa";
        let address = b"\xC0\x0C\0\x01\0\x01\x01\x02\x03\x04\0\x04\xC0\0\x02\x01";
        assert_eq!(found, [(RecordType::TXT, 2, text.to_vec()), (RecordType::A, 1, address.to_vec())]);
        let tails: Vec<_> = node.rrsets().flat_map(|rrset| rrset.tails()).map(<[u8]>::len).collect();
        assert_eq!(tails, [12, 13, 14]);
        assert_eq!((store.owners(), store.records()), (1, 3));
    }

    #[test]
    fn what_is_above_an_owner_is_known_and_owns_nothing() {
        let mut draft = Draft::default();
        for owner in ["a.b.c.example", "c.example", "d.c.example", "other"] {
            draft.add(&name(owner), RecordType::A, 1, &[0; 4]).expect("room");
        }
        let store = draft.finish();
        let check = |text: &str, expected: Option<bool>| {
            assert_eq!(store.find(name(text).as_wire()).map(|node| node.is_owner()), expected, "{text}");
        };
        check("a.b.c.example", Some(true));
        check("b.c.example", Some(false));
        check("c.example", Some(true));
        check("example", Some(false));
        check(".", Some(false));
        check("b.example", None);
        check("x.other", None);
        check("xample", None);
        assert!(store.find(&[]).is_none());
        assert!(store.find(&[0; 256]).is_none());
    }
}
