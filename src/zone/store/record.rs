//! Records on their way from a file or a transfer into a zone: one by one, or many, since a file may be read on one thread
//! and its zone built on another.

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

/// Records and their places, one behind the other.
#[derive(Debug, Default)]
pub struct RecordBatch {
    /// Of each record what is fixed, the owner name, the data.
    octets: Vec<u8>,
}

impl RecordBatch {
    /// Adds a record.
    pub fn push(&mut self, record: &Record<'_>, place: Place) {
        let Record { owner, rtype, ttl, rdata } = *record;
        // A name has at most 255 octets and data have at most 65535, or no message could hold them; the rest is cut off.
        let (owner_len, rdata_len) = (owner.len() as u8, rdata.len() as u16);
        let mut fixed = [0; FIXED_LEN];
        fixed[..2].copy_from_slice(&place.file.to_be_bytes());
        fixed[2..6].copy_from_slice(&place.line.to_be_bytes());
        fixed[6..10].copy_from_slice(&place.column.to_be_bytes());
        fixed[10..12].copy_from_slice(&rtype.0.to_be_bytes());
        fixed[12..16].copy_from_slice(&ttl.to_be_bytes());
        fixed[16..18].copy_from_slice(&rdata_len.to_be_bytes());
        fixed[18] = owner_len;
        self.octets.extend_from_slice(&fixed);
        self.octets.extend_from_slice(&owner[..owner_len.into()]);
        self.octets.extend_from_slice(&rdata[..rdata_len.into()]);
    }

    /// Whether it is worth handing over.
    pub fn is_full(&self) -> bool {
        self.octets.len() >= FULL_LEN
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Takes everything out, and keeps the memory for the next records.
    pub fn clear(&mut self) {
        self.octets.clear();
    }

    /// The records and their places, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Record<'_>, Place)> {
        let mut rest = self.octets.as_slice();
        std::iter::from_fn(move || {
            let (fixed, behind) = rest.split_first_chunk::<FIXED_LEN>()?;
            let &[f0, f1, l0, l1, l2, l3, c0, c1, c2, c3, t0, t1, s0, s1, s2, s3, r0, r1, owner_len] = fixed;
            let (owner, behind) = behind.split_at_checked(owner_len.into())?;
            let (rdata, behind) = behind.split_at_checked(u16::from_be_bytes([r0, r1]).into())?;
            rest = behind;
            let (line, column) = (u32::from_be_bytes([l0, l1, l2, l3]), u32::from_be_bytes([c0, c1, c2, c3]));
            let (rtype, ttl) = (RecordType(u16::from_be_bytes([t0, t1])), u32::from_be_bytes([s0, s1, s2, s3]));
            let place = Place { file: u16::from_be_bytes([f0, f1]), line, column };
            Some((Record { owner, rtype, ttl, rdata }, place))
        })
    }
}

/// Octets before the owner name: place, type, TTL and both lengths.
const FIXED_LEN: usize = 19;

/// Octets with which a batch is full: some thousand records, so that handing over costs next to nothing, and yet few
/// enough to stay in a cache.
const FULL_LEN: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let long = [7; 65_535];
        let records = [
            Record { owner: b"\0", rtype: RecordType::A, ttl: 0, rdata: &[] },
            Record { owner: b"\x01a\0", rtype: RecordType(65_280), ttl: 0x7FFF_FFFF, rdata: &[1, 2, 3] },
            Record { owner: &[1; 255], rtype: RecordType::TXT, ttl: 1, rdata: &long },
        ];
        let places = [(0, 0, 0), (1, 2, 3), (0xFFFF, u32::MAX, u32::MAX - 1)];
        let places = places.map(|(file, line, column)| Place { file, line, column });
        let mut batch = RecordBatch::default();
        assert!(batch.is_empty() && !batch.is_full());
        for (record, place) in records.iter().zip(places) {
            batch.push(record, place);
        }
        assert!(batch.is_full());
        assert_eq!(batch.iter().collect::<Vec<_>>(), records.into_iter().zip(places).collect::<Vec<_>>());
        batch.clear();
        assert!(batch.is_empty() && batch.iter().next().is_none());
    }
}
