//! Records on their way from a file or transfer into a zone, one by one or in batches. Batches let one thread
//! read a file while another builds the zone.

use dns::RecordType;

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

/// Any number of records, in the order of insertion.
#[derive(Clone, Debug, Default)]
pub struct Records {
    octets: Vec<u8>,
    entries: Vec<RecordAt>,
}

#[derive(Clone, Copy, Debug)]
struct RecordAt {
    start: usize,
    owner_len: u8,
    rdata_len: u16,
    rtype: RecordType,
    ttl: u32,
}

impl Records {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record. Ignores an owner or RDATA longer than the wire form allows.
    pub fn push(&mut self, record: Record<'_>) {
        let (Ok(owner_len), Ok(rdata_len)) = (u8::try_from(record.owner.len()), u16::try_from(record.rdata.len()))
        else {
            debug_assert!(false, "a record that no message can hold");
            return;
        };
        let entry = RecordAt { start: self.octets.len(), owner_len, rdata_len, rtype: record.rtype, ttl: record.ttl };
        self.octets.extend_from_slice(record.owner);
        self.octets.extend_from_slice(record.rdata);
        self.entries.push(entry);
    }

    /// Returns the records in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Record<'_>> + ExactSizeIterator + Clone {
        self.entries.iter().map(|entry| self.record(entry))
    }

    /// Returns the first record.
    pub fn first(&self) -> Option<Record<'_>> {
        self.entries.first().map(|entry| self.record(entry))
    }

    pub(crate) fn clear(&mut self) {
        self.octets.clear();
        self.entries.clear();
    }

    /// Returns the approximate bytes of memory that these records would use.
    pub fn size_of<'a>(records: impl IntoIterator<Item = Record<'a>>) -> usize {
        let octets = |record: Record<'_>| record.owner.len() + record.rdata.len() + size_of::<RecordAt>();
        records.into_iter().map(octets).sum()
    }

    /// Returns the approximate bytes of memory.
    pub(crate) fn size(&self) -> usize {
        self.octets.len() + self.entries.len() * size_of::<RecordAt>()
    }

    fn record(&self, entry: &RecordAt) -> Record<'_> {
        let owner_end = entry.start + usize::from(entry.owner_len);
        Record {
            owner: &self.octets[entry.start..owner_end],
            rtype: entry.rtype,
            ttl: entry.ttl,
            rdata: &self.octets[owner_end..owner_end + usize::from(entry.rdata_len)],
        }
    }
}

impl<'a> FromIterator<Record<'a>> for Records {
    fn from_iter<I: IntoIterator<Item = Record<'a>>>(records: I) -> Self {
        let mut all = Self::new();
        records.into_iter().for_each(|record| all.push(record));
        all
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Records {}

/// A batch of records with their places.
#[derive(Debug, Default)]
pub struct RecordBatch {
    records: Records,
    places: Vec<FilePlace>,
}

impl RecordBatch {
    /// Adds a record and its place.
    pub fn push(&mut self, record: &Record<'_>, place: FilePlace) {
        self.records.push(*record);
        self.places.push(place);
    }

    /// Returns true if the batch is large enough to hand over.
    pub fn is_full(&self) -> bool {
        self.records.size() >= FULL_LEN
    }

    /// Removes all records.
    pub fn clear(&mut self) {
        self.records.clear();
        self.places.clear();
    }

    /// Returns the records and their places in order.
    pub fn iter(&self) -> impl Iterator<Item = (Record<'_>, FilePlace)> {
        self.records.iter().zip(self.places.iter().copied())
    }
}

/// Bytes of a full batch: enough to make the handover cheap, few enough for a cache.
const FULL_LEN: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert!(!batch.is_full());
        for (record, place) in records.iter().zip(places) {
            batch.push(record, place);
        }
        assert!(batch.is_full());
        assert_eq!(batch.iter().collect::<Vec<_>>(), records.into_iter().zip(places).collect::<Vec<_>>());
        batch.clear();
        assert!(batch.iter().next().is_none());
    }

    proptest! {
        #[test]
        fn what_is_pushed_comes_back(parts in prop::collection::vec((any::<[u8; 3]>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let wanted: Vec<_> = parts
                .iter()
                .map(|(owner, ttl, rdata)| Record { owner, rtype: RecordType::A, ttl: *ttl, rdata })
                .collect();
            let records: Records = wanted.iter().copied().collect();
            prop_assert!(records.iter().eq(wanted));
        }
    }
}
