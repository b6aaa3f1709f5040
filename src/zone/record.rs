//! One record on its way from a file or a transfer into a zone.

use crate::wire::RecordType;

/// A record of class IN, borrowed from wherever it was read.
///
/// Names, the owner as well as those in the RDATA, are whole: wire form without compression, in the case in which they
/// were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The owner name in wire form.
    pub owner: &'a [u8],
    /// The type.
    pub rtype: RecordType,
    /// The TTL in seconds, at most 2^31 - 1 (RFC 2181 section 8).
    pub ttl: u32,
    /// The RDATA in wire form.
    pub rdata: &'a [u8],
}

/// Where in a zone's files something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which of the files that were read, in the order in which they were opened; 0 is the zone's own.
    pub file: u16,
    /// Line, from 1; 0 if it came from no file.
    pub line: u32,
    /// Column, from 1, in octets.
    pub column: u32,
}
