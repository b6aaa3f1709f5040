//! Records on their way from a file or transfer into a zone, one by one or in batches. Batches let one thread
//! read a file while another builds the zone.

use crate::wire::RecordType;

/// A record of class IN, borrowed from its source.
///
/// The owner name and the names in RDATA are uncompressed and keep their original case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The owner name in wire form.
    pub owner: &'a [u8],
    /// The record type.
    pub rtype: RecordType,
    /// The TTL in seconds, at most 2^31 - 1 (RFC 2181 section 8).
    pub ttl: u32,
    /// The RDATA in wire form.
    pub rdata: &'a [u8],
}

/// A place in the files of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePlace {
    /// The index of the file in order of opening. 0 is the zone's main file.
    pub file: u16,
    /// The line, from 1, or 0 if the item came from no file.
    pub line: u32,
    /// The column in bytes, from 1.
    pub column: u32,
}

/// A batch of records with their places.
#[derive(Debug, Default)]
pub struct RecordBatch {
    octets: Vec<u8>,
}

impl RecordBatch {
    /// Adds a record and its place.
    pub fn push(&mut self, record: &Record<'_>, place: FilePlace) {
        let Record { owner, rtype, ttl, rdata } = *record;
        // No message holds a name over 255 bytes or data over 65,535 bytes, so longer ones are cut off.
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

    /// Returns true if the batch is large enough to hand over.
    pub fn is_full(&self) -> bool {
        self.octets.len() >= FULL_LEN
    }

    /// Returns true if the batch has no records.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        self.octets.clear();
    }

    /// Iterates over the records and their places in order.
    pub fn iter(&self) -> impl Iterator<Item = (Record<'_>, FilePlace)> {
        let mut rest = self.octets.as_slice();
        std::iter::from_fn(move || {
            let (fixed, behind) = rest.split_first_chunk::<FIXED_LEN>()?;
            let &[f0, f1, l0, l1, l2, l3, c0, c1, c2, c3, t0, t1, s0, s1, s2, s3, r0, r1, owner_len] = fixed;
            let (owner, behind) = behind.split_at_checked(owner_len.into())?;
            let (rdata, behind) = behind.split_at_checked(u16::from_be_bytes([r0, r1]).into())?;
            rest = behind;
            let (line, column) = (u32::from_be_bytes([l0, l1, l2, l3]), u32::from_be_bytes([c0, c1, c2, c3]));
            let (rtype, ttl) = (RecordType(u16::from_be_bytes([t0, t1])), u32::from_be_bytes([s0, s1, s2, s3]));
            let place = FilePlace { file: u16::from_be_bytes([f0, f1]), line, column };
            Some((Record { owner, rtype, ttl, rdata }, place))
        })
    }
}

const FIXED_LEN: usize = 19;

/// Bytes of a full batch: enough to make the handover cheap, few enough for a cache.
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
        let places = places.map(|(file, line, column)| FilePlace { file, line, column });
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
