//! The layout of a node: one name of a store and its RRsets, as adjacent bytes.
//!
//! ```text
//!   node   marks:1  length of name:1  number of RRsets:2  name  RRset...
//!   RRset  type:2  type covered:2  number of records:2  octets of records:2  record...
//!   record as in a message, its owner a pointer to the question's name
//! ```
//!
//! A lookup reads one stretch of memory, and a response copies the records of an RRset unchanged.

use dns::{HEADER_LEN, Name, RecordType};

/// The start of a node in an arena, in units of [`GRAIN`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(u32);

impl At {
    /// Converts a byte offset, which is a multiple of [`GRAIN`].
    pub(super) fn from_octets(octets: usize) -> Self {
        Self(u32::try_from(octets / GRAIN).expect("16 GiB hold 200 million names, and no more are taken"))
    }

    pub(super) fn octets(self) -> usize {
        self.0 as usize * GRAIN
    }
}

/// The alignment of nodes in bytes, so that 32 bits reach 16 GiB.
pub(super) const GRAIN: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum NodeMark {
    /// The node is a zone cut: it has NS records and is below the apex (RFC 1034 section 4.2.1).
    Cut = 1,
    /// The node has a DNAME record, which redirects the names below it.
    Dname = 2,
    /// The node is below a cut or a DNAME record, so it holds glue at most.
    Occluded = 4,
    Wildcard = 8,
    /// The node owns only NSEC3 records, so its name does not exist in the zone (RFC 5155 section 7.2.8).
    Hashed = 16,
    Moved = 32,
}

#[derive(Clone, Copy)]
pub(crate) struct ZoneNode<'a> {
    at: At,
    octets: &'a [u8],
}

impl<'a> ZoneNode<'a> {
    pub(super) fn new(arena: &'a [u8], at: At) -> Self {
        Self { at, octets: &arena[at.octets()..] }
    }

    /// The place of the node, which identifies it in its store.
    pub(crate) fn at(&self) -> At {
        self.at
    }

    pub(crate) fn name(&self) -> &'a [u8] {
        &self.octets[NODE_LEN..NODE_LEN + usize::from(self.octets[1])]
    }

    pub(crate) fn has(&self, mark: NodeMark) -> bool {
        self.octets[0] & mark as u8 != 0
    }

    /// Returns true if the name owns records. An empty non-terminal does not (RFC 4592 section 2.2.2).
    pub(crate) fn is_owner(&self) -> bool {
        self.octets[2..NODE_LEN] != [0, 0]
    }

    /// Iterates over all RRsets in order of addition. The signatures of each type are one RRset.
    pub(crate) fn rrsets(&self) -> Rrsets<'a> {
        let octets = self.octets;
        Rrsets { rest: &octets[NODE_LEN + usize::from(octets[1])..], left: u16::from_be_bytes([octets[2], octets[3]]) }
    }

    pub(crate) fn rrset(&self, rtype: RecordType) -> Option<Rrset<'a>> {
        self.rrsets().find(|rrset| rrset.rtype == rtype)
    }

    pub(crate) fn signatures(&self, covered: RecordType) -> Option<Rrset<'a>> {
        self.rrsets().find(|rrset| rrset.rtype == RecordType::RRSIG && rrset.covered == covered)
    }

    pub(super) fn len(&self) -> usize {
        let name_len = usize::from(self.octets[1]);
        let rrsets = self.rrsets().map(|rrset| RRSET_LEN + rrset.octets.len());
        NODE_LEN + name_len + rrsets.sum::<usize>()
    }
}

#[derive(Clone)]
pub(crate) struct Rrsets<'a> {
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
pub(crate) struct Rrset<'a> {
    pub(crate) rtype: RecordType,
    /// The signed type if the records are signatures, otherwise 0.
    pub(crate) covered: RecordType,
    pub(crate) count: u16,
    /// The records in wire form. Their owner is a pointer to the question's name.
    pub(crate) octets: &'a [u8],
}

impl<'a> Rrset<'a> {
    /// Iterates over the records without their owners: type, class, TTL, RDLENGTH, RDATA.
    pub(crate) fn tails(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        split_records(self.octets).map(|record| &record[QNAME_POINTER.len()..])
    }

    pub(crate) fn rdata(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        split_records(self.octets).map(|record| &record[RECORD_LEN..])
    }

    pub(crate) fn ttl(&self) -> u32 {
        self.octets.get(TTL_AT..).and_then(|rest| rest.first_chunk().copied()).map_or(0, u32::from_be_bytes)
    }
}

/// Returns the type that an RRSIG record covers (RFC 4034 section 3.1), or 0 for other types.
pub(super) fn covered_type(rtype: RecordType, rdata: &[u8]) -> RecordType {
    match rdata.first_chunk() {
        Some(&covered) if rtype == RecordType::RRSIG => RecordType(u16::from_be_bytes(covered)),
        _ => RecordType(0),
    }
}

fn split_records(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let rdlength = octets.get(RECORD_LEN - 2..)?.first_chunk().copied()?;
        let len = RECORD_LEN + usize::from(u16::from_be_bytes(rdlength));
        let (record, rest) = octets.split_at_checked(len)?;
        octets = rest;
        Some(record)
    })
}

/// A compression pointer to the question's name, which always follows the header (RFC 1035 section 4.1.4).
pub(crate) const QNAME_POINTER: [u8; 2] = (0xC000 | HEADER_LEN as u16).to_be_bytes();

pub(super) const NODE_LEN: usize = 4;

pub(super) const RRSET_LEN: usize = 8;

/// The length of a record before its RDATA: pointer, type, class, TTL and RDLENGTH.
pub(super) const RECORD_LEN: usize = QNAME_POINTER.len() + 10;

pub(super) const TTL_AT: usize = QNAME_POINTER.len() + 4;

/// The limit in bytes for all records of one response: a message over TCP (RFC 1035 section 4.2.2) less its
/// header, the longest question and an OPT record without options. So every RRset of a store can be sent.
pub(crate) const MAX_RECORDS_LEN: usize = u16::MAX as usize - HEADER_LEN - (Name::MAX_LEN + 4) - 11;
