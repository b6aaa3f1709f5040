//! The order of records, the view of their SOA, and its serial number (RFC 1982).

use std::cmp::Ordering;
use std::fmt;

use crate::Record;
use dns::{Message, Name, Rcode, RecordType, Section, SectionRecord, eq_ignore_case, suffixes};

/// A serial number. There is no total order, so there is no `Ord`: only [`Serial::is_newer_than`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial(pub u32);

impl Serial {
    /// Returns true if this version follows the other one. RFC 1982 section 3.2 leaves the order of two
    /// serials that differ by 2^31 open. Here neither is newer, so that no two servers each take the other's
    /// version for the newer one.
    pub fn is_newer_than(self, other: Self) -> bool {
        (1..HALF).contains(&self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const HALF: u32 = 1 << 31;

/// Orders records by owner ignoring case (RFC 4343 section 3), type, RDATA, TTL. RFC 1995 section 2 deletes
/// and adds whole records, so a record with another TTL is another one.
pub(super) fn compare(a: &Record<'_>, b: &Record<'_>) -> Ordering {
    let owners = a.owner.iter().map(u8::to_ascii_lowercase).cmp(b.owner.iter().map(u8::to_ascii_lowercase));
    owners.then(a.rtype.cmp(&b.rtype)).then_with(|| a.rdata.cmp(b.rdata)).then(a.ttl.cmp(&b.ttl))
}

/// The fields of an SOA record that a transfer uses (RFC 1035 section 3.3.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soa<'a> {
    /// MNAME, the primary, in wire form.
    pub mname: &'a [u8],
    /// The serial of the version.
    pub serial: Serial,
    /// Seconds between two SOA queries.
    pub refresh: u32,
    /// Seconds to the next SOA query after a failure.
    pub retry: u32,
    /// Seconds after the last confirmation until the zone is no longer served.
    pub expire: u32,
}

impl<'a> Soa<'a> {
    /// Reads whole RDATA; `None` if it is not that of an SOA record.
    pub(crate) fn read(rdata: &'a [u8]) -> Option<Self> {
        let (mname, rest) = split_name(rdata)?;
        let (_rname, rest) = split_name(rest)?;
        let fields: &[u8; 20] = rest.try_into().ok()?;
        let [serial, refresh, retry, expire, _minimum] =
            [0, 4, 8, 12, 16].map(|at| u32::from_be_bytes([0, 1, 2, 3].map(|octet| fields[at + octet])));
        Some(Self { mname, serial: Serial(serial), refresh, retry, expire })
    }

    /// Reads a record; `None` if it is no SOA.
    pub fn of(record: &Record<'a>) -> Option<Self> {
        (record.rtype == RecordType::SOA).then(|| Self::read(record.rdata)).flatten()
    }

    /// Returns the SOA of a record in a message, if it is one.
    pub(super) fn in_message(record: &'a SectionRecord) -> Option<Self> {
        (record.rtype == RecordType::SOA).then(|| Self::read(&record.rdata)).flatten()
    }

    /// Returns the serial of the zone's first SOA record in a section; FORMERR if any record is malformed.
    pub(super) fn serial_in(message: &Message<'_>, section: Section, zone: &[u8]) -> Result<Option<Serial>, Rcode> {
        let mut serial = None;
        for record in message.records() {
            let record = record.map_err(|_| Rcode::FORMERR)?;
            if record.section == section && eq_ignore_case(record.owner.as_wire(), zone) {
                serial = serial.or_else(|| Soa::in_message(&record).map(|soa| soa.serial));
            }
        }
        Ok(serial)
    }
}

pub(super) fn split_name(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = suffixes(octets).find(|suffix| suffix.first() == Some(&0))?;
    let (name, rest) = octets.split_at_checked(octets.len() - rest.len() + 1)?;
    Name::from_wire(name).ok()?;
    Some((name, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_soa_is_read_to_its_last_octet() {
        let rdata = [&b"\x02ns\0\x01h\0"[..], &[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]].concat();
        let soa = Soa { mname: b"\x02ns\0", serial: Serial(7), refresh: 1, retry: 2, expire: 3 };
        assert_eq!(Soa::read(&rdata), Some(soa));
        for len in 0..rdata.len() {
            assert_eq!(Soa::read(&rdata[..len]), None, "{len}");
        }
        assert_eq!(Soa::read(&[&rdata[..], b"x"].concat()), None);
    }

    #[test]
    fn records_differ_in_all_but_the_case_of_the_owner() {
        let record = |owner, ttl, rdata| Record { owner, rtype: RecordType::TXT, ttl, rdata };
        let check = |a: Record<'_>, b: Record<'_>, expected: Ordering| {
            assert_eq!((compare(&a, &b), compare(&b, &a)), (expected, expected.reverse()), "{a:?} {b:?}");
        };
        let base = record(&b"\x01a\0"[..], 5, &b"\x01x"[..]);
        check(base, record(b"\x01A\0", 5, b"\x01x"), Ordering::Equal);
        check(base, record(b"\x01b\0", 5, b"\x01x"), Ordering::Less);
        check(base, record(b"\x01a\0", 6, b"\x01x"), Ordering::Less);
        check(base, record(b"\x01a\0", 5, b"\x01X"), Ordering::Greater);
        check(base, record(b"\0", 5, b"\x01x"), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn any_octets_are_an_soa_or_not(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            Soa::read(&octets);
        }
    }
}
