//! Records on their way from one thread to another: a file is read on one, and its zone built on another.

use super::record::{Place, Record};
use crate::wire::RecordType;

/// Records and their places, one behind the other.
#[derive(Debug, Default)]
pub struct Batch {
    /// Of each record what is fixed, the owner name, the data.
    octets: Vec<u8>,
}

impl Batch {
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
        let mut batch = Batch::default();
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
