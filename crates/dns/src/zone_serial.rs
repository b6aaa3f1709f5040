//! The zone and version of a reply, from the ZONEVERSION option (RFC 9660) or the SOA record of a negative
//! reply (RFC 2308 section 3).

use std::hash::{Hash, Hasher};

use super::body::{hash_name, read_name, records, skip_name};
use super::codes::{OptionCode, Rcode, RecordType};
use super::edns::{OPT_FIXED_LEN, Options, empty_option, set_rest_length};
use super::header::HEADER_LEN;
use super::name::{Name, suffixes};
use super::query::MIN_LIMIT;
use super::reply::Reply;

/// The version of a zone, as stated by a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSerial {
    /// The name of the zone, folded.
    pub zone: Name,
    /// The serial number of the SOA record.
    pub serial: u32,
}

/// The version of a zone, borrowed from a reply.
#[derive(Clone, Copy, Debug)]
pub struct ReportedSerial<'a> {
    message: &'a [u8],
    /// The offset of the zone's name, which is valid but possibly compressed.
    zone_at: usize,
    serial: u32,
}

impl ReportedSerial<'_> {
    /// Copies the name.
    pub fn to_serial(self) -> Option<ZoneSerial> {
        let zone = read_name(self.message, self.zone_at)?.folded();
        Some(ZoneSerial { zone, serial: self.serial })
    }
}

/// The hash depends on zone and serial, not on the wire form of the name.
impl Hash for ReportedSerial<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_name(self.message, self.zone_at, state);
        state.write_u32(self.serial);
    }
}

impl<'a> Reply<'a> {
    /// Returns true if the reply is NXDOMAIN or NODATA.
    pub fn is_negative(&self) -> bool {
        match self.rcode() {
            Rcode::NXDOMAIN => true,
            Rcode::NOERROR => !self.has_answers() && !self.is_truncated() && !self.is_referral(),
            _ => false,
        }
    }

    /// Returns the version of the zone of the reply, if it states one. For a negative reply its SOA record
    /// counts, which is of the zone that lacks the name. The option is about the zone of the question, and an
    /// alias may lead elsewhere.
    pub fn reported_serial(&self) -> Option<ReportedSerial<'a>> {
        let authority = if self.is_negative() { self.authority_serial() } else { None };
        authority.or_else(|| self.option_serial())
    }

    /// Returns the version of the zone as an owned value.
    pub fn zone_serial(&self) -> Option<ZoneSerial> {
        self.reported_serial()?.to_serial()
    }

    /// Returns the version in the SOA record of the answer section, for an SOA query.
    pub fn answered_serial(&self) -> Option<ZoneSerial> {
        self.soa_serial(self.answers_start(), self.header().ancount())?.to_serial()
    }

    fn authority_serial(&self) -> Option<ReportedSerial<'a>> {
        if !self.has_authority_soa() {
            return None;
        }
        self.soa_serial(self.authority_start(), self.header().nscount())
    }

    fn soa_serial(&self, at: usize, count: u16) -> Option<ReportedSerial<'a>> {
        let message = self.as_wire();
        let record = records(message, at).take(count.into()).find(|record| record.rtype == RecordType::SOA)?;
        // RFC 1035 section 3.3.13: two names, and the serial number.
        let serial = skip_name(message, skip_name(message, record.rdata)?)?;
        let serial = message.get(serial..record.end)?.first_chunk()?;
        Some(ReportedSerial { message, zone_at: record.start, serial: u32::from_be_bytes(*serial) })
    }

    /// Returns the version in the ZONEVERSION option, which names the zone by a count of QNAME labels.
    fn option_serial(&self) -> Option<ReportedSerial<'a>> {
        let (_, data) = self.edns()?.iter_options().find(|(code, _)| *code == OptionCode::ZONEVERSION)?;
        // RFC 9660 section 2.1: other types of versions are not comparable numbers.
        let &[labels, SOA_SERIAL, s0, s1, s2, s3] = data else { return None };
        let qname = self.question()?.qname();
        // Plus one for the root, which has no label.
        let longer = suffixes(qname).count().checked_sub(usize::from(labels) + 1)?;
        let zone_at = HEADER_LEN + qname.len() - suffixes(qname).nth(longer)?.len();
        Some(ReportedSerial { message: self.as_wire(), zone_at, serial: u32::from_be_bytes([s0, s1, s2, s3]) })
    }
}

/// Adds a request for the version of the zone (RFC 9660 section 3.1) to a query to a backend, unless the
/// client sent one. The last record of the query is the OPT at `opt_at`. A query without OPT (`opt_at` is the
/// end) or without room stays unchanged.
pub fn ask_zone_version(query: &mut Vec<u8>, opt_at: usize, own_udp_size: u16) {
    let options_at = opt_at + OPT_FIXED_LEN;
    let Some(options) = query.get(options_at..) else { return };
    let is_asked = Options::of(options).any(|(code, _)| code == OptionCode::ZONEVERSION);
    let option = empty_option(OptionCode::ZONEVERSION);
    if is_asked || query.len() + option.len() > usize::from(own_udp_size).max(MIN_LIMIT) {
        return;
    }
    query.extend_from_slice(&option);
    set_rest_length(query, options_at);
}

/// TYPE: the version is the serial number of the SOA record (RFC 9660 section 2.1.1).
const SOA_SERIAL: u8 = 0;

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use foldhash::fast::FixedState;

    use super::super::reply::read_reply;
    use super::super::sample::{EXAMPLE, QUESTION, RECORDS, REPLY, WWW, a, message, opt, plain, record, with_edns};
    use super::*;

    /// The option of a reply: labels, type, serial 7.
    fn version_option(labels: u8, kind: u8) -> Vec<u8> {
        opt(0, 0, &[0, 19, 0, 6, labels, kind, 0, 0, 0, 7])
    }

    fn soa(owner: &[u8]) -> Vec<u8> {
        record(owner, RecordType::SOA, &[EXAMPLE, WWW, &[0, 0, 0, 9], &[0; 16]].concat())
    }

    #[test]
    fn replies_tell_versions() {
        let check = |bits: u16, counts: [u16; 4], parts: &[&[u8]], expected: Option<(&[u8], u32)>| {
            let octets = message(REPLY | bits, counts, &[&[QUESTION], parts].concat());
            let serial = read_reply(&octets).expect("a reply").zone_serial();
            let serial = serial.as_ref().map(|serial| (serial.zone.as_wire(), serial.serial));
            assert_eq!(serial, expected, "{octets:?}");
        };
        let (org, example): (&[u8], &[u8]) = (b"\x03org\0", b"\x07example\x03org\0");
        // The option counts, independent of the rest of the reply.
        check(0, [1, 1, 0, 1], &[&a(WWW), &version_option(2, 0)], Some((example, 7)));
        check(0, [1, 1, 0, 1], &[&a(WWW), &version_option(1, 0)], Some((org, 7)));
        check(0, [1, 1, 0, 1], &[&a(WWW), &version_option(0, 0)], Some((b"\0", 7)));
        check(0, [1, 1, 1, 1], &[&a(WWW), &soa(EXAMPLE), &version_option(2, 0)], Some((example, 7)));
        // More labels than the name has, another type, no data, no option.
        check(0, [1, 1, 0, 1], &[&a(WWW), &version_option(4, 0)], None);
        check(0, [1, 1, 0, 1], &[&a(WWW), &version_option(2, 1)], None);
        check(0, [1, 1, 0, 1], &[&a(WWW), &opt(0, 0, &[0, 19, 0, 0])], None);
        check(0, [1, 1, 0, 0], &[&a(WWW)], None);
        // The SOA record of a negative reply counts, NODATA or NXDOMAIN.
        check(0, [1, 0, 1, 0], &[&soa(EXAMPLE)], Some((example, 9)));
        check(3, [1, 0, 1, 1], &[&soa(EXAMPLE), &version_option(1, 0)], Some((example, 9)));
        check(3, [1, 1, 1, 0], &[&a(WWW), &soa(EXAMPLE)], Some((example, 9)));
        // For a truncated negative reply the option counts.
        check(0x203, [1, 0, 0, 1], &[&version_option(2, 0)], Some((example, 7)));
        // An SOA record that is too short, and failures.
        check(3, [1, 0, 1, 0], &[&record(EXAMPLE, RecordType::SOA, &[0, 0, 1, 2, 3])], None);
        check(2, [1, 0, 1, 0], &[&soa(EXAMPLE)], None);
    }

    #[test]
    fn a_version_has_one_hash_however_its_zone_is_written() {
        let hash = |bits, counts, parts: &[&[u8]]| {
            let octets = message(REPLY | bits, counts, parts);
            let serial = read_reply(&octets).expect("a reply").reported_serial().expect("a version");
            FixedState::default().hash_one(serial)
        };
        let asked = |name: &[u8]| [name, &[0, 1, 0, 1]].concat();
        let by_option = |name: &[u8], labels| hash(0, [1, 0, 0, 1], &[&asked(name), &version_option(labels, 0)]);
        let (lower, upper): (&[u8], &[u8]) = (b"\x03www\x07example\x03org\0", b"\x01a\x03www\x07eXampLe\x03ORG\0");
        assert_eq!(by_option(lower, 2), by_option(upper, 2));
        assert_ne!(by_option(lower, 2), by_option(lower, 1));
        assert_ne!(by_option(lower, 2), by_option(lower, 3));
        // An SOA record with another serial, its owner compressed or not.
        let by_soa = |owner: &[u8]| hash(3, [1, 0, 1, 0], &[&asked(lower), &soa(owner)]);
        assert_eq!(by_soa(b"\xC0\x10"), by_soa(b"\x07EXAMPLE\x03org\0"));
        assert_ne!(by_soa(b"\xC0\x10"), by_option(lower, 2));
    }

    #[test]
    fn an_soa_record_that_was_asked_for_tells_the_version() {
        let octets = message(REPLY, [1, 2, 0, 0], &[QUESTION, &a(WWW), &soa(EXAMPLE)]);
        let serial = read_reply(&octets).expect("a reply").answered_serial();
        assert_eq!(serial.map(|serial| serial.serial), Some(9));
    }

    #[test]
    fn a_query_asks_once_if_it_has_an_opt_record_and_room() {
        let check = |mut query: Vec<u8>, own_udp_size: u16, expected: &[u8]| {
            let before = query.clone();
            ask_zone_version(&mut query, RECORDS, own_udp_size);
            if expected.is_empty() {
                assert_eq!(query, before);
            } else {
                assert_eq!(&query[RECORDS + 9..], expected);
                assert_eq!(query[..RECORDS + 9], before[..RECORDS + 9]);
            }
        };
        let with = |options: &[u8]| message(0x0110, [1, 0, 0, 1], &[QUESTION, &opt(0, 0, options)]);
        check(with_edns(), 1232, &[0, 4, 0, 19, 0, 0]);
        check(with(&[0, 3, 0, 0]), 1232, &[0, 8, 0, 3, 0, 0, 0, 19, 0, 0]);
        check(with(&[0, 19, 0, 0]), 1232, &[]);
        check(plain(), 1232, &[]);
        // The question takes 33 bytes and OPT 11, so 464 bytes of options leave room for four more below 512.
        let long = |octets: u8| with(&[&[0, 3, 1, octets][..], &[0; 0x100], &vec![0; octets.into()]].concat());
        check(long(204), 512, &[&[1, 212, 0, 3, 1, 204][..], &[0; 0x100 + 204], &[0, 19, 0, 0]].concat());
        check(long(205), 512, &[]);
    }
}
