//! Record types by number and mnemonic. hickory-proto knows fewer mnemonics, and no `TYPE65280`.

use std::fmt;
use std::str::FromStr;

/// A record type (or the query type ANY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Type(pub(super) u16);

impl Type {
    /// The canonical name.
    pub(super) const CNAME: Self = Self(5);
    /// The pseudo record of EDNS.
    pub(super) const OPT: Self = Self(41);
    /// Whatever there is.
    pub(super) const ANY: Self = Self(255);
}

/// What only tests ask for by name.
#[cfg(test)]
impl Type {
    /// An IPv4 address.
    pub(super) const A: Self = Self(1);
    /// An IPv6 address.
    pub(super) const AAAA: Self = Self(28);
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MNEMONICS.iter().find(|(number, _)| *number == self.0) {
            Some((_, mnemonic)) => f.write_str(mnemonic),
            // RFC 3597 section 5.
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let number = match MNEMONICS.iter().find(|(_, mnemonic)| *mnemonic == upper) {
            Some((number, _)) => Some(*number),
            None => {
                upper.strip_prefix("TYPE").filter(|digits| is_number(digits)).and_then(|digits| digits.parse().ok())
            }
        };
        match number {
            Some(251 | 252) => Err(format!("{upper} is a zone transfer, expected a record type such as A or SOA")),
            // RFC 6895 section 3.1: 0 is reserved; OPT, TKEY, TSIG, MAILB and MAILA name no data.
            Some(0 | 41 | 249 | 250 | 253 | 254) => {
                Err(format!("{upper} cannot be asked for, expected a record type such as A or MX"))
            }
            Some(number) => Ok(Self(number)),
            None => Err(format!("unknown type {text:?}, expected one such as A, AAAA, MX, ANY or TYPE65280")),
        }
    }
}

/// Whether a text is digits only: `u16::from_str` would also take a sign.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// The IANA registry "Resource Record (RR) TYPEs", without what has never been seen in use.
const MNEMONICS: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (11, "WKS"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (24, "SIG"),
    (25, "KEY"),
    (28, "AAAA"),
    (29, "LOC"),
    (33, "SRV"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (32769, "DLV"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_by_mnemonic_or_number() {
        let cases = [
            ("A", Type::A),
            ("aaaa", Type::AAAA),
            ("any", Type::ANY),
            ("TYPE28", Type::AAAA),
            ("type65280", Type(65280)),
        ];
        for (text, rtype) in cases {
            assert_eq!(text.parse(), Ok(rtype), "{text}");
        }
        assert_eq!(Type(65280).to_string(), "TYPE65280");
        assert_eq!(Type(65).to_string(), "HTTPS");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in ["", "AAA", "TYPE", "TYPE+1", "TYPE65536", "AXFR", "TYPE251", "OPT", "TYPE0", "1"] {
            assert!(text.parse::<Type>().is_err(), "{text}");
        }
    }
}
