//! Targets of records: hosts whose addresses belong in the additional section.
//!
//! The data come from a checked zone. RDATA that does not fit its type has no target.

use dns::{RdataForm, RecordType};

use super::names::leading_name;

/// The target host (RFC 1035 section 3.3, RFC 2782). An SVCB `.` is `owner` (RFC 9460 section 2.5.2).
pub(crate) fn target<'a>(rtype: RecordType, owner: &'a [u8], rdata: &'a [u8]) -> Option<&'a [u8]> {
    let has_target = matches!(
        rtype,
        RecordType::NS
            | RecordType::MX
            | RecordType::AFSDB
            | RecordType::KX
            | RecordType::SRV
            | RecordType::SVCB
            | RecordType::HTTPS
    );
    let form = RdataForm::of(rtype).filter(|_| has_target)?;
    let name = leading_name(rdata.get(form.octets..)?);
    match (name, rtype) {
        // Priority 0 with target `.` means that the service is not available.
        ([0], RecordType::SVCB | RecordType::HTTPS) => (rdata.get(..2) != Some(&[0, 0])).then_some(owner),
        // RFC 7505 section 3, RFC 2782: `.` means no host.
        ([0], _) => None,
        (name, _) => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
