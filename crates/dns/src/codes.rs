//! The numbers of the IANA DNS registries: opcodes, rcodes, types, classes, option codes, extended errors.
//!
//! Each is a transparent integer, because any value may arrive and must pass (RFC 3597).

use std::fmt;
use std::str::FromStr;

macro_rules! registry {
    ($(#[$about:meta])* $registry:ident($number:ty), $prefix:literal { $($name:ident = $value:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $registry(pub $number);

        impl $registry {
            $(
                #[doc = concat!("`", stringify!($name), "`, ", stringify!($value), ".")]
                pub const $name: Self = Self($value);
            )*

            /// All entries with a mnemonic, in numeric order.
            pub const NAMED: &[(&str, Self)] = &[$((stringify!($name), Self::$name)),*];

            /// Returns the mnemonic, if there is one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $registry {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, concat!($prefix, "{}"), self.0),
                }
            }
        }
    };
}

registry! {
    /// The operation that a message requests (RFC 1035 section 4.1.1).
    Opcode(u8), "OPCODE" {
        QUERY = 0, IQUERY = 1, STATUS = 2, NOTIFY = 4, UPDATE = 5, DSO = 6,
    }
}

registry! {
    /// The result of a query: 4 bits of the header, and 8 more of the OPT record (RFC 6891 section 6.1.3).
    Rcode(u16), "RCODE" {
        NOERROR = 0, FORMERR = 1, SERVFAIL = 2, NXDOMAIN = 3, NOTIMP = 4, REFUSED = 5, YXDOMAIN = 6, YXRRSET = 7,
        NXRRSET = 8, NOTAUTH = 9, NOTZONE = 10, DSOTYPENI = 11, BADVERS = 16, BADKEY = 17, BADTIME = 18, BADMODE = 19,
        BADNAME = 20, BADALG = 21, BADTRUNC = 22, BADCOOKIE = 23,
    }
}

registry! {
    /// The type of a record or question. NSAP-PTR has no constant: it is unused and no identifier.
    RecordType(u16), "TYPE" {
        A = 1, NS = 2, MD = 3, MF = 4, CNAME = 5, SOA = 6, MB = 7, MG = 8, MR = 9, NULL = 10, WKS = 11, PTR = 12,
        HINFO = 13, MINFO = 14, MX = 15, TXT = 16, RP = 17, AFSDB = 18, X25 = 19, ISDN = 20, RT = 21, NSAP = 22,
        SIG = 24, KEY = 25, PX = 26, GPOS = 27, AAAA = 28, LOC = 29, NXT = 30, EID = 31, NIMLOC = 32, SRV = 33,
        ATMA = 34, NAPTR = 35, KX = 36, CERT = 37, A6 = 38, DNAME = 39, SINK = 40, OPT = 41, APL = 42, DS = 43,
        SSHFP = 44, IPSECKEY = 45, RRSIG = 46, NSEC = 47, DNSKEY = 48, DHCID = 49, NSEC3 = 50, NSEC3PARAM = 51,
        TLSA = 52, SMIMEA = 53, HIP = 55, NINFO = 56, RKEY = 57, TALINK = 58, CDS = 59, CDNSKEY = 60,
        OPENPGPKEY = 61, CSYNC = 62, ZONEMD = 63, SVCB = 64, HTTPS = 65, DSYNC = 66, HHIT = 67, BRID = 68, SPF = 99,
        UINFO = 100, UID = 101, GID = 102, UNSPEC = 103, NID = 104, L32 = 105, L64 = 106, LP = 107, EUI48 = 108,
        EUI64 = 109, NXNAME = 128, TKEY = 249, TSIG = 250, IXFR = 251, AXFR = 252, MAILB = 253, MAILA = 254,
        ANY = 255, URI = 256, CAA = 257, AVC = 258, DOA = 259, AMTRELAY = 260, RESINFO = 261, WALLET = 262,
        CLA = 263, IPN = 264, TA = 32768, DLV = 32769,
    }
}

registry! {
    /// The class of a record or question.
    RecordClass(u16), "CLASS" {
        IN = 1, CH = 3, HS = 4, NONE = 254, ANY = 255,
    }
}

registry! {
    /// The code of an EDNS option (RFC 6891 section 6.1.2).
    OptionCode(u16), "OPTION" {
        NSID = 3, CLIENT_SUBNET = 8, EXPIRE = 9, COOKIE = 10, TCP_KEEPALIVE = 11, PADDING = 12,
        EXTENDED_ERROR = 15, ZONEVERSION = 19,
    }
}

registry! {
    /// The info code of an Extended DNS Error (RFC 8914 section 4).
    ExtendedError(u16), "EDE" {
        OTHER = 0, UNSUPPORTED_DNSKEY_ALGORITHM = 1, UNSUPPORTED_DS_DIGEST = 2, STALE = 3, FORGED = 4, INDETERMINATE = 5,
        BOGUS = 6, SIGNATURE_EXPIRED = 7, SIGNATURE_NOT_YET_VALID = 8, DNSKEY_MISSING = 9, RRSIGS_MISSING = 10,
        NO_ZONE_KEY_BIT = 11, NSEC_MISSING = 12, CACHED_ERROR = 13, NOT_READY = 14, BLOCKED = 15, CENSORED = 16,
        FILTERED = 17, PROHIBITED = 18, STALE_NXDOMAIN = 19, NOT_AUTHORITATIVE = 20, NOT_SUPPORTED = 21,
        NO_REACHABLE_AUTHORITY = 22, NETWORK_ERROR = 23, INVALID_DATA = 24, SIGNATURE_EXPIRED_BEFORE_VALID = 25,
        TOO_EARLY = 26, UNSUPPORTED_NSEC3_ITERATIONS = 27, UNABLE_TO_CONFORM = 28, SYNTHESIZED = 29,
        INVALID_QUERY_TYPE = 30,
    }
}

impl ExtendedError {
    /// Returns the purpose in the registry of RFC 8914 section 5.2, if the code is registered.
    pub fn purpose(self) -> Option<&'static str> {
        PURPOSES.get(usize::from(self.0)).copied()
    }

    /// Returns true if a failure or negative reply with this error is a decision on the name, not a fault of
    /// the server: DNSSEC errors with SERVFAIL alone (RFC 8914 section 4.7 and following), filters with any
    /// rcode (sections 4.16 to 4.18).
    pub fn decides(self, rcode: Rcode) -> bool {
        matches!(self.0, 6..=12) && rcode == Rcode::SERVFAIL || matches!(self.0, 15..=17)
    }
}

const PURPOSES: [&str; ExtendedError::NAMED.len()] = [
    "Other",
    "Unsupported DNSKEY Algorithm",
    "Unsupported DS Digest Type",
    "Stale Answer",
    "Forged Answer",
    "DNSSEC Indeterminate",
    "DNSSEC Bogus",
    "Signature Expired",
    "Signature Not Yet Valid",
    "DNSKEY Missing",
    "RRSIGs Missing",
    "No Zone Key Bit Set",
    "NSEC Missing",
    "Cached Error",
    "Not Ready",
    "Blocked",
    "Censored",
    "Filtered",
    "Prohibited",
    "Stale NXDOMAIN Answer",
    "Not Authoritative",
    "Not Supported",
    "No Reachable Authority",
    "Network Error",
    "Invalid Data",
    "Signature Expired before Valid",
    "Too Early",
    "Unsupported NSEC3 Iterations Value",
    "Unable to conform to policy",
    "Synthesized",
    "Invalid Query Type",
];

impl RecordType {
    /// Returns true for meta-types and QTYPEs (RFC 6895 section 3.1), which no record of a zone can have.
    pub const fn is_meta(self) -> bool {
        matches!(self, Self::OPT | Self(128..=255))
    }
}

impl Rcode {
    /// The largest rcode in the header, and the mask of its bits (RFC 1035 section 4.1.1).
    pub(super) const MAX_IN_HEADER: u16 = 0x0F;
}

impl FromStr for RecordType {
    type Err = UnknownRecordType;

    /// Parses a mnemonic in any case, or `TYPEn` (RFC 3597 section 5).
    fn from_str(text: &str) -> Result<Self, UnknownRecordType> {
        if let Some((_, rtype)) = Self::NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            return Ok(*rtype);
        }
        let (prefix, digits) = text.split_at_checked(4).ok_or(UnknownRecordType)?;
        // `parse` alone would accept a plus sign.
        if !prefix.eq_ignore_ascii_case("TYPE") || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(UnknownRecordType);
        }
        digits.parse().map(Self).map_err(|_| UnknownRecordType)
    }
}

/// The error for a text that is no record type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown record type: write a mnemonic such as AAAA, or TYPE and its number")]
pub struct UnknownRecordType;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_print_as_mnemonics_or_numbers() {
        let check = |code: &dyn fmt::Display, expected: &str| assert_eq!(code.to_string(), expected);
        check(&Rcode::NXDOMAIN, "NXDOMAIN");
        check(&Rcode(24), "RCODE24");
        check(&Opcode(3), "OPCODE3");
        check(&RecordType::A, "A");
        check(&RecordType(65280), "TYPE65280");
        check(&RecordClass::CH, "CH");
        check(&RecordClass(4096), "CLASS4096");
        check(&OptionCode(65001), "OPTION65001");
        assert_eq!(format!("{:>9}", Rcode::NOERROR), "  NOERROR");
    }

    #[test]
    fn types_are_read_from_text() {
        let check = |text: &str, expected: Option<u16>| {
            assert_eq!(text.parse().ok(), expected.map(RecordType), "{text:?}");
        };
        check("A", Some(1));
        check("aaaa", Some(28));
        check("NSEC3PARAM", Some(51));
        check("TYPE1", Some(1));
        check("type65280", Some(65280));
        check("TYPE65536", None);
        check("TYPE", None);
        check("TYPE+1", None);
        check("TYPE 1", None);
        check("", None);
        check("AAA", None);
        check("üüü", None);
    }

    #[test]
    fn extended_errors_have_a_purpose() {
        assert!(ExtendedError::NAMED.iter().enumerate().all(|(code, (_, error))| usize::from(error.0) == code));
        assert_eq!(ExtendedError::SYNTHESIZED.purpose(), Some("Synthesized"));
        assert_eq!(ExtendedError::INVALID_QUERY_TYPE.purpose(), Some("Invalid Query Type"));
        assert_eq!(ExtendedError(31).purpose(), None);
    }

    #[test]
    fn extended_errors_of_dnssec_decide_with_servfail_and_those_of_filters_always() {
        let deciding =
            |rcode| (0..=u16::MAX).filter(move |code| ExtendedError(*code).decides(rcode)).collect::<Vec<_>>();
        assert_eq!(deciding(Rcode::SERVFAIL), [6, 7, 8, 9, 10, 11, 12, 15, 16, 17]);
        for rcode in [Rcode::NOERROR, Rcode::NXDOMAIN, Rcode::REFUSED] {
            assert_eq!(deciding(rcode), [15, 16, 17]);
        }
    }

    #[test]
    fn every_type_reads_back() {
        for rtype in (0..=u16::MAX).map(RecordType) {
            assert_eq!(rtype.to_string().parse(), Ok(rtype));
        }
    }
}
