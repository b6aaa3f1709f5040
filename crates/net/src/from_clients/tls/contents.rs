//! Validity and subject of a certificate (RFC 5280 section 4.1), by a small DER reader.
//!
//! ```text
//!   Certificate { TBSCertificate { [0] version, serial, algorithm, issuer,
//!       Validity { from, until }, subject, key, .. [3] extensions } .. }
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

/// The period of validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second, since 1970.
    pub not_before: i64,
    /// The last second, since 1970.
    pub not_after: i64,
}

impl Validity {
    /// Returns true if the certificate has expired.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.not_after < seconds(now)
    }

    /// Returns true if the certificate is not valid yet.
    pub fn is_to_come(&self, now: SystemTime) -> bool {
        self.not_before > seconds(now)
    }
}

/// The fields of a certificate that hedgerow uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateContents {
    /// The period of validity.
    pub validity: Validity,
    /// DNS names (RFC 5280 section 4.2.1.6), in lower case; `*.x` too. The CN does not count (RFC 6125).
    pub names: Vec<String>,
    /// The addresses in subjectAltName.
    pub addresses: Vec<IpAddr>,
}

impl CertificateContents {
    /// Reads a certificate in DER; `None` if it is malformed.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let certificate = Elements(der).next_of(SEQUENCE)?;
        let mut fields = Elements(Elements(certificate).next_of(SEQUENCE)?);
        if fields.tag() == Some(VERSION) {
            fields.next()?;
        }
        let [_serial, _algorithm, _issuer] = [fields.next()?, fields.next()?, fields.next()?];
        let mut times = Elements(fields.next_of(SEQUENCE)?);
        let validity = Validity { not_before: time(times.next()?)?, not_after: time(times.next()?)? };
        let extensions =
            fields.find(|(tag, _)| *tag == EXTENSIONS).and_then(|(_, all)| Elements(all).next_of(SEQUENCE));
        let mut contents = Self { validity, names: Vec::new(), addresses: Vec::new() };
        for (_, extension) in Elements(extensions.unwrap_or_default()) {
            let mut parts = Elements(extension);
            if parts.next_of(OBJECT_IDENTIFIER) == Some(SUBJECT_ALT_NAME) {
                let value = parts.find(|(tag, _)| *tag == OCTET_STRING).map(|(_, value)| value)?;
                contents.take_names(Elements(value).next_of(SEQUENCE)?);
            }
        }
        Some(contents)
    }

    fn take_names(&mut self, general_names: &[u8]) {
        for (tag, value) in Elements(general_names) {
            match tag {
                DNS_NAME => self.names.extend(std::str::from_utf8(value).map(str::to_ascii_lowercase)),
                IP_ADDRESS => {
                    let ipv4 = <[u8; 4]>::try_from(value).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
                    let ipv6 = <[u8; 16]>::try_from(value).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
                    self.addresses.extend(ipv4.or(ipv6));
                }
                _ => {}
            }
        }
    }
}

/// Iterates over DER elements with their tags; ends at malformed data.
struct Elements<'d>(&'d [u8]);

impl<'d> Elements<'d> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next_of(&mut self, tag: u8) -> Option<&'d [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}

impl<'d> Iterator for Elements<'d> {
    type Item = (u8, &'d [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        // X.690 section 8.1.3: one byte up to 127, else the number of length bytes that follow.
        let (length, rest) = match first.checked_sub(0x80) {
            None => (usize::from(first), rest),
            Some(octets @ 1..=4) => {
                let (length, rest) = rest.split_at_checked(octets.into())?;
                (length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
            }
            Some(_) => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }
}

/// Reads a time (RFC 5280 section 4.1.2.5): `YYMMDDHHMMSSZ`, or with a four-digit year.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| -> Option<i64> {
        digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
    };
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            (year + if year < 50 { 2000 } else { 1900 }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let (fields, []) = rest.as_chunks::<2>() else { return None };
    let [month, day, hour, minute, second] = *fields else { return None };
    let [month, day] = [number(&month)?, number(&day)?];
    let [hour, minute, second] = [number(&hour)?, number(&minute)?, number(&second)?];
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01 in the Gregorian calendar. Years count from March, so that February is last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

pub(super) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
/// OID 2.5.29.17 in DER.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];

#[cfg(test)]
mod tests {
    use rcgen::{PKCS_ECDSA_P256_SHA256, date_time_ymd};
    use testkit::Leaf;

    use super::*;

    #[test]
    fn what_a_certificate_says_is_read() {
        for (from, until, validity) in [
            ((1970, 1, 1), (2049, 12, 31), (0, 2_524_521_600)),
            ((2000, 2, 29), (2050, 1, 1), (951_782_400, 2_524_608_000)),
            ((1999, 12, 31), (2100, 3, 1), (946_598_400, 4_107_542_400)),
        ] {
            let names = ["DNS.example", "*.example", "127.0.0.1"];
            let made = Leaf::self_signed_with(&names, &PKCS_ECDSA_P256_SHA256, |params| {
                params.not_before = date_time_ymd(from.0, from.1, from.2);
                params.not_after = date_time_ymd(until.0, until.1, until.2);
            });
            let contents = CertificateContents::read(made.der()).expect("a certificate");
            assert_eq!((contents.validity.not_before, contents.validity.not_after), validity);
            assert_eq!(contents.names, ["dns.example", "*.example"]);
            assert_eq!(contents.addresses, [IpAddr::from([127, 0, 0, 1])]);
            for length in 0..made.der().len() {
                assert_eq!(CertificateContents::read(&made.der()[..length]), None, "cut after {length} octets");
            }
        }
    }

    #[test]
    fn noise_is_no_certificate() {
        for noise in
            [&b""[..], b"\x30", b"\x30\x80", b"\x30\x84\xFF\xFF\xFF\xFF", b"\x30\x02\x30\x00", b"\x30\x85\0\0\0\0\0"]
        {
            assert_eq!(CertificateContents::read(noise), None, "{noise:?}");
        }
        for (tag, text) in [(UTC_TIME, &b"2601010000Z"[..]), (UTC_TIME, b"26010100000aZ"), (SEQUENCE, b"260101000000Z")]
        {
            assert_eq!(time((tag, text)), None, "{text:?}");
        }
    }
}
