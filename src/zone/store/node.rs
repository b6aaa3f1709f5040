//! A node: one name of a store and its RRsets, as octets that lie side by side.
//!
//! ```text
//!   node   marks:1  length of name:1  number of RRsets:2  name  RRset...
//!   RRset  type:2  type covered:2  number of records:2  octets of records:2  record...
//!   record as in a message, its owner a pointer to the question's name
//! ```
//!
//! So a look-up touches one stretch of memory, and the records of an RRset are copied as they lie.

use crate::wire::{HEADER_LEN, Name, RecordType};

/// Where in an arena a node starts, in units of [`GRAIN`] octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::zone) struct At(u32);

impl At {
    /// The place that is so many octets from the start, which are a multiple of [`GRAIN`].
    pub(super) fn from_octets(octets: usize) -> Self {
        Self(u32::try_from(octets / GRAIN).expect("16 GiB hold 200 million names, and no more are taken"))
    }

    /// Octets from the start of the arena.
    pub(super) fn octets(self) -> usize {
        self.0 as usize * GRAIN
    }
}

/// Nodes start at multiples of this, so that 32 bits reach 16 GiB.
pub(super) const GRAIN: usize = 4;

/// What there is to know of a node at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::zone) enum Mark {
    /// The zone is cut here: NS records below the apex (RFC 1034 section 4.2.1).
    Cut = 1,
    /// A DNAME record: names below are others.
    Dname = 2,
    /// Below a cut or a DNAME record: at best glue.
    Occluded = 4,
    /// An asterisk label is right below.
    Wildcard = 8,
    /// Owns NSEC3 records alone: in the zone, but none of its names (RFC 5155 section 7.2.8).
    Hashed = 16,
    /// No longer in use, while a store is built.
    Moved = 32,
}

/// One name of a store.
#[derive(Clone, Copy)]
pub(in crate::zone) struct Node<'a> {
    at: At,
    /// The arena from the node on.
    octets: &'a [u8],
}

impl<'a> Node<'a> {
    /// The node at a place.
    pub(super) fn new(arena: &'a [u8], at: At) -> Self {
        Self { at, octets: &arena[at.octets()..] }
    }

    /// Where it is: what tells two nodes of one store apart.
    pub(in crate::zone) fn at(&self) -> At {
        self.at
    }

    /// Its name in canonical form.
    pub(in crate::zone) fn name(&self) -> &'a [u8] {
        &self.octets[NODE_LEN..NODE_LEN + usize::from(self.octets[1])]
    }

    /// Whether it bears a mark.
    pub(in crate::zone) fn has(&self, mark: Mark) -> bool {
        self.octets[0] & mark as u8 != 0
    }

    /// Whether the name owns records, and is not only above one that does (RFC 4592 section 2.2.2).
    pub(in crate::zone) fn is_owner(&self) -> bool {
        self.octets[2..NODE_LEN] != [0, 0]
    }

    /// All RRsets, in the order in which their types were first added. The signatures of each type are one.
    pub(in crate::zone) fn rrsets(&self) -> Rrsets<'a> {
        let octets = self.octets;
        Rrsets { rest: &octets[NODE_LEN + usize::from(octets[1])..], left: u16::from_be_bytes([octets[2], octets[3]]) }
    }

    /// The first RRset of a type.
    pub(in crate::zone) fn rrset(&self, rtype: RecordType) -> Option<Rrset<'a>> {
        self.rrsets().find(|rrset| rrset.rtype == rtype)
    }

    /// The signatures of an RRset here.
    pub(in crate::zone) fn signatures(&self, covered: RecordType) -> Option<Rrset<'a>> {
        self.rrsets().find(|rrset| rrset.rtype == RecordType::RRSIG && rrset.covered == covered)
    }

    /// Octets of the node.
    pub(super) fn len(&self) -> usize {
        let name_len = usize::from(self.octets[1]);
        let rrsets = self.rrsets().map(|rrset| RRSET_LEN + rrset.octets.len());
        NODE_LEN + name_len + rrsets.sum::<usize>()
    }
}

/// Goes through the RRsets of a node.
#[derive(Clone)]
pub(in crate::zone) struct Rrsets<'a> {
    /// What has not been read, and more behind it.
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for Rrsets<'a> {
    type Item = Rrset<'a>;

    fn next(&mut self) -> Option<Rrset<'a>> {
        self.left = self.left.checked_sub(1)?;
        let (&[t0, t1, s0, s1, n0, n1, l0, l1], rest) = self.rest.split_first_chunk()?;
        let (octets, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        self.rest = rest;
        Some(Rrset {
            rtype: RecordType(u16::from_be_bytes([t0, t1])),
            covered: RecordType(u16::from_be_bytes([s0, s1])),
            count: u16::from_be_bytes([n0, n1]),
            octets,
        })
    }
}

/// Records of one owner and type, ready to be copied into a response.
#[derive(Clone, Copy, Debug)]
pub(in crate::zone) struct Rrset<'a> {
    pub(in crate::zone) rtype: RecordType,
    /// Of signatures the type that they sign; otherwise 0.
    pub(in crate::zone) covered: RecordType,
    pub(in crate::zone) count: u16,
    /// Their wire form. The owner is a pointer to the question's name.
    pub(in crate::zone) octets: &'a [u8],
}

impl<'a> Rrset<'a> {
    /// The records one by one, each from behind its owner on: type, class, TTL, RDLENGTH, RDATA.
    pub(in crate::zone) fn tails(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        split_records(self.octets).map(|record| &record[QNAME_POINTER.len()..])
    }

    pub(in crate::zone) fn rdata(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        split_records(self.octets).map(|record| &record[RECORD_LEN..])
    }

    /// The TTL, which all records share.
    pub(in crate::zone) fn ttl(&self) -> u32 {
        self.octets.get(TTL_AT..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_be_bytes)
    }
}

/// The signed type that an RRSIG record begins with (RFC 4034 section 3.1); 0 for all other types.
pub(super) fn covered_type(rtype: RecordType, rdata: &[u8]) -> RecordType {
    match rdata.first_chunk() {
        Some(&covered) if rtype == RecordType::RRSIG => RecordType(u16::from_be_bytes(covered)),
        _ => RecordType(0),
    }
}

/// Splits records whose owners are pointers to the question's name.
fn split_records(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let rdlength = octets.get(RECORD_LEN - 2..)?.first_chunk().copied()?;
        let len = RECORD_LEN + usize::from(u16::from_be_bytes(rdlength));
        let (record, rest) = octets.split_at_checked(len)?;
        octets = rest;
        Some(record)
    })
}

/// A compression pointer to the name of the question, which is always behind the header (RFC 1035 section 4.1.4).
pub(in crate::zone) const QNAME_POINTER: [u8; 2] = (0xC000 | HEADER_LEN as u16).to_be_bytes();

/// Octets of a node up to its name.
pub(super) const NODE_LEN: usize = 4;

/// Octets of an RRset up to its records.
pub(super) const RRSET_LEN: usize = 8;

/// Octets of a record up to its RDATA: the pointer, type, class, TTL, RDLENGTH.
pub(super) const RECORD_LEN: usize = QNAME_POINTER.len() + 10;

/// Where in a record its TTL is.
pub(super) const TTL_AT: usize = QNAME_POINTER.len() + 4;

/// Octets that the records of one response may have in all: what a message over TCP (RFC 1035 section 4.2.2) has beside
/// its header, the longest question and an OPT record without options. So whatever is in a store can be sent.
pub(in crate::zone) const MAX_RECORDS_LEN: usize = u16::MAX as usize - HEADER_LEN - (Name::MAX_LEN + 4) - 11;
