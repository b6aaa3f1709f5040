//! The names in RDATA, as far as answering needs them: which may be compressed, and which want addresses beside them.
//!
//! Only what a zone holds is looked at here, and that was checked when it was read: RDATA that is not as its type wants it
//! yields no names, and is copied as it is.

use super::names::leading_name;
use crate::wire::{RecordType, eq_ignore_case};

/// Where the names of a type's RDATA are: so many octets in front, then so many names in a row, then anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::zone) struct Layout {
    /// Octets in front.
    pub(in crate::zone) octets: usize,
    /// Names behind those.
    pub(in crate::zone) names: usize,
}

impl Layout {
    /// The layout of a type whose names may be compressed: those of RFC 1035 alone (RFC 3597 section 4).
    pub(in crate::zone) fn compressible(rtype: RecordType) -> Option<Self> {
        let (octets, names) = match rtype {
            RecordType::NS
            | RecordType::MD
            | RecordType::MF
            | RecordType::CNAME
            | RecordType::MB
            | RecordType::MG
            | RecordType::MR
            | RecordType::PTR => (0, 1),
            RecordType::SOA | RecordType::MINFO => (0, 2),
            RecordType::MX => (2, 1),
            _ => return None,
        };
        Some(Self { octets, names })
    }

    /// The layout of a type whose names are the same in any case (RFC 4034 section 6.2, item 3).
    fn folding(rtype: RecordType) -> Option<Self> {
        let (octets, names) = match rtype {
            RecordType::DNAME => (0, 1),
            RecordType::RP => (0, 2),
            RecordType::AFSDB | RecordType::RT | RecordType::KX => (2, 1),
            RecordType::PX => (2, 2),
            RecordType::SRV => (6, 1),
            _ => return Self::compressible(rtype),
        };
        Some(Self { octets, names })
    }
}

/// Whether two RDATA of one type are the same: names in any case, all else octet by octet.
pub(in crate::zone) fn same_rdata(rtype: RecordType, a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a == b {
        return true;
    }
    let Some(Layout { octets, names }) = Layout::folding(rtype) else {
        return false;
    };
    let mut from = octets;
    for _ in 0..names {
        from += a.get(from..).map_or(0, |rest| leading_name(rest).len());
    }
    let (Some((a_names, a_rest)), Some((b_names, b_rest))) = (a.split_at_checked(from), b.split_at_checked(from))
    else {
        return false;
    };
    a_rest == b_rest && a_names.get(..octets) == b_names.get(..octets) && eq_ignore_case(a_names, b_names)
}

/// The host that a record points at and whose addresses are welcome beside it (RFC 1035 section 3.3, RFC 2782,
/// RFC 9460 section 4.1). `owner` is meant where an SVCB record says `.` (RFC 9460 section 2.5.2).
pub(in crate::zone) fn target<'a>(rtype: RecordType, owner: &'a [u8], rdata: &'a [u8]) -> Option<&'a [u8]> {
    let octets = match rtype {
        RecordType::NS => 0,
        RecordType::MX | RecordType::AFSDB | RecordType::KX | RecordType::SVCB | RecordType::HTTPS => 2,
        RecordType::SRV => 6,
        _ => return None,
    };
    let name = leading_name(rdata.get(octets..)?);
    match (name, rtype) {
        // Priority 0 is an alias to nowhere.
        ([0], RecordType::SVCB | RecordType::HTTPS) => (rdata.get(..2) != Some(&[0, 0])).then_some(owner),
        // RFC 7505 section 3, RFC 2782: no host at all.
        ([0], _) => None,
        (name, _) => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rdata_is_the_same_whatever_the_case_of_its_names() {
        let check =
            |rtype, a: &[u8], b: &[u8], expected| assert_eq!(same_rdata(rtype, a, b), expected, "{rtype} {a:?}");
        check(RecordType::NS, b"\x01a\0", b"\x01A\0", true);
        check(RecordType::NS, b"\x01a\0", b"\x01b\0", false);
        check(RecordType::TXT, b"\x01a", b"\x01A", false);
        // A preference of `A` or `a` is a number.
        check(RecordType::MX, b"\0A\x01m\0", b"\0A\x01M\0", true);
        check(RecordType::MX, b"\0A\x01m\0", b"\0a\x01m\0", false);
        check(RecordType::SRV, b"\0\x01\0\x01\0\x50\x01S\0", b"\0\x01\0\x01\0\x50\x01s\0", true);
        check(RecordType::SOA, b"\x01m\0\x01r\0\0\0\0A", b"\x01M\0\x01R\0\0\0\0A", true);
        check(RecordType::SOA, b"\x01m\0\x01r\0\0\0\0A", b"\x01M\0\x01R\0\0\0\0a", false);
    }

    #[test]
    fn targets_are_hosts() {
        let check = |rtype, rdata: &[u8], expected: Option<&[u8]>| {
            assert_eq!(target(rtype, b"\x01o\0", rdata), expected, "{rtype} {rdata:?}");
        };
        check(RecordType::NS, b"\x01n\0", Some(b"\x01n\0"));
        check(RecordType::MX, b"\0\x0A\x01m\0", Some(b"\x01m\0"));
        check(RecordType::MX, b"\0\0\0", None);
        check(RecordType::SRV, b"\0\0\0\0\0\x50\x01s\0", Some(b"\x01s\0"));
        check(RecordType::SRV, b"\0\0\0\0\0\x50\0", None);
        check(RecordType::HTTPS, b"\0\x01\0\0\x03\0\x02\0\x50", Some(b"\x01o\0"));
        check(RecordType::HTTPS, b"\0\x01\x01t\0\0\x03\0\x02\0\x50", Some(b"\x01t\0"));
        check(RecordType::HTTPS, b"\0\0\0", None);
        check(RecordType::TXT, b"\x01t", None);
        check(RecordType::MX, b"\0", None);
    }
}
