//! The forms of RDATA: a table of the fields of each type, and of the operations that its names allow.

use super::codes::RecordType;
use super::name::{eq_ignore_case, wire_len};

/// A field of a record's data.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
    /// Four bytes of seconds, optionally with units in text.
    Period,
    /// Four bytes of seconds since 1970, as a date (RFC 4034 section 3.2).
    Time,
    /// One byte with mnemonics for some values, printed as a number.
    Code8(Mnemonics),
    /// Two bytes with mnemonics for some values.
    Code16(Mnemonics),
    /// A record type.
    Type,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A domain name.
    Name,
    /// Domain names to the end, or none.
    Names,
    /// A character string (RFC 1035 section 3.3).
    Text,
    /// A character string, or nothing.
    OptionalText,
    /// Character strings to the end, at least one.
    Texts,
    /// A character string of letters and digits, bare (RFC 8659 section 4.1.1).
    Tag,
    /// One string to the end, without a length.
    Rest,
    /// The rest in hexadecimal, at least one byte.
    Hex,
    /// The rest in base64, at least one byte.
    Base64,
    /// The rest in base64, possibly empty.
    OptionalBase64,
    /// The rest in base64, with `-` for nothing (DOA).
    DashBase64,
    /// A length byte and data in hexadecimal, `-` if empty: the salt of RFC 5155 section 3.3.
    Salt,
    /// A length byte and data in base32hex: the hash of RFC 5155 section 3.3.
    Hash,
    /// Groups of bytes in hexadecimal.
    Groups {
        /// The number of groups.
        count: usize,
        /// Bytes of each group.
        octets: usize,
        /// The character between groups.
        separator: char,
    },
    /// `0x` and hexadecimal digits with optional dots (RFC 1706 section 6).
    Nsap,
    /// Record types to the end, as a bitmap (RFC 4034 section 4.1.2).
    Types,
    /// Address prefixes to the end (RFC 3123).
    Prefixes,
    /// A position on Earth (RFC 1876).
    Location,
    /// Gateway type, algorithm and gateway (RFC 4025 section 2).
    IpsecGateway,
    /// Discovery flag, relay type and relay (RFC 8777 section 4).
    Relay,
    /// Lengths, algorithm, tag and key of RFC 8005 section 5.
    HostIdentity,
    /// Parameters to the end (RFC 9460 section 2).
    Parameters,
    /// The rest, which has no text form.
    Opaque,
}

impl Field {
    const fn fixed_len(self) -> Option<usize> {
        match self {
            Self::U8 | Self::Code8(_) => Some(1),
            Self::U16 | Self::Code16(_) | Self::Type => Some(2),
            Self::U32 | Self::Period | Self::Time | Self::Ipv4 => Some(4),
            Self::U64 => Some(8),
            Self::Ipv6 => Some(16),
            Self::Groups { count, octets, .. } => Some(count * octets),
            _ => None,
        }
    }
}

/// Mnemonics for values of a field.
pub type Mnemonics = &'static [(&'static str, u16)];

/// The operations that the names in the data of a type allow. Each rule includes the previous ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameRule {
    /// No operation: names are opaque (RFC 3597 section 4, RFC 9460 section 2.2), those of NSEC too (RFC 6840
    /// section 5.1).
    AsTheyAre,
    /// Names are compared without case (RFC 4034 section 6.2, item 3, and RFC 6840 section 5.1).
    AnyCase,
    /// Names may arrive compressed and are written out (RFC 3597 section 4). That section does not list KX
    /// and DNAME. They are included, because RFC 4034 section 6.2 lists both, and old software compressed
    /// DNAME (RFC 6672 section 2.5).
    MayComeCompressed,
    /// Names are compressed in output: only those of RFC 1035 (RFC 3597 section 4).
    Compressed,
}

/// The form of a type's data.
#[derive(Debug)]
pub struct RdataForm {
    /// The fields in order.
    pub fields: &'static [Field],
    /// The operations that the names allow.
    pub name_rule: NameRule,
    /// Bytes in front of the first names.
    pub octets: usize,
    /// Character strings behind those (RFC 1035 section 3.3).
    pub strings: usize,
    /// Consecutive names behind those; anything may follow.
    pub names: usize,
}

impl RdataForm {
    const fn new(name_rule: NameRule, fields: &'static [Field]) -> Self {
        let (mut octets, mut strings, mut names, mut at) = (0, 0, 0, 0);
        while at < fields.len() {
            match (fields[at], fields[at].fixed_len()) {
                (Field::Name, _) => names += 1,
                (Field::Text, _) if names == 0 => strings += 1,
                (_, Some(len)) if strings + names == 0 => octets += len,
                _ => break,
            }
            at += 1;
        }
        Self { fields, name_rule, octets, strings, names }
    }

    /// Returns the form of a type whose names hedgerow compresses. One bit decides for most types.
    #[inline]
    pub fn of_compressed(rtype: RecordType) -> Option<&'static Self> {
        let is_compressed = rtype.0 < 64 && COMPRESSED >> rtype.0 & 1 == 1;
        if is_compressed { Self::of(rtype) } else { None }
    }

    /// Returns true if the data has a text form besides that of RFC 3597.
    pub fn has_text(&self) -> bool {
        !matches!(self.fields.last(), Some(Field::Opaque))
    }

    pub(super) fn names_start(&self, rdata: &[u8]) -> Option<usize> {
        let mut at = self.octets;
        for _ in 0..self.strings {
            at += 1 + usize::from(*rdata.get(at)?);
        }
        rdata.get(..at).map(<[u8]>::len)
    }

    /// Compares two RDATA of this form: names without case if the rule allows it, all else by bytes.
    fn is_same(&self, a: &[u8], b: &[u8]) -> Option<bool> {
        let from = self.names_start(a).filter(|_| self.name_rule >= NameRule::AnyCase)?;
        let mut to = from;
        for _ in 0..self.names {
            to += wire_len(a.get(to..)?).ok()?;
        }
        let is_same = |range: std::ops::Range<usize>| a.get(range.clone()) == b.get(range);
        Some(is_same(0..from) && is_same(to..a.len()) && eq_ignore_case(a.get(from..to)?, b.get(from..to)?))
    }
}

/// Defines the form of each type from `TYPE | TYPE => rule of names: fields;` lines.
macro_rules! forms {
    ($($($rtype:ident)|+ => $rule:ident: $($field:expr),*;)*) => {
        impl RdataForm {
            /// Returns the form of a type; `None` if it is not known.
            pub const fn of(rtype: RecordType) -> Option<&'static Self> {
                use Field::*;
                use NameRule::{AnyCase, AsTheyAre, Compressed, MayComeCompressed};
                match rtype {
                    $($(RecordType::$rtype)|+ => Some(const { &Self::new($rule, &[$($field),*]) }),)*
                    _ => None,
                }
            }
        }
    };
}

forms! {
    A => AsTheyAre: Ipv4;
    AAAA => AsTheyAre: Ipv6;
    NS | MD | MF | CNAME | MB | MG | MR | PTR => Compressed: Name;
    DNAME => MayComeCompressed: Name;
    NXT => MayComeCompressed: Name, Opaque;
    SOA => Compressed: Name, Name, U32, Period, Period, Period, Period;
    HINFO => AsTheyAre: Text, Text;
    MINFO => Compressed: Name, Name;
    RP => MayComeCompressed: Name, Name;
    TALINK => AsTheyAre: Name, Name;
    MX => Compressed: U16, Name;
    AFSDB | RT | KX => MayComeCompressed: U16, Name;
    LP => AsTheyAre: U16, Name;
    TXT | SPF | NINFO | AVC | RESINFO | WALLET | CLA => AsTheyAre: Texts;
    X25 => AsTheyAre: Text;
    ISDN => AsTheyAre: Text, OptionalText;
    NSAP => AsTheyAre: Nsap;
    PX => MayComeCompressed: U16, Name, Name;
    GPOS => AsTheyAre: Text, Text, Text;
    LOC => AsTheyAre: Location;
    EID | NIMLOC => AsTheyAre: Hex;
    SRV => MayComeCompressed: U16, U16, U16, Name;
    NAPTR => MayComeCompressed: U16, U16, Text, Text, Text, Name;
    CERT => AsTheyAre: Code16(CERTIFICATES), U16, Code8(ALGORITHMS), Base64;
    APL => AsTheyAre: Prefixes;
    DS | CDS | DLV | TA => AsTheyAre: U16, Code8(ALGORITHMS), U8, Hex;
    SSHFP => AsTheyAre: U8, U8, Hex;
    IPSECKEY => AsTheyAre: U8, IpsecGateway, OptionalBase64;
    SIG => MayComeCompressed: Type, Code8(ALGORITHMS), U8, Period, Time, Time, U16, Name, Base64;
    RRSIG => AnyCase: Type, Code8(ALGORITHMS), U8, Period, Time, Time, U16, Name, Base64;
    NSEC => AsTheyAre: Name, Types;
    // A KEY may be empty (RFC 2535 section 3.1.2).
    KEY => AsTheyAre: U16, U8, Code8(ALGORITHMS), OptionalBase64;
    DNSKEY | CDNSKEY | RKEY => AsTheyAre: U16, U8, Code8(ALGORITHMS), Base64;
    DHCID | OPENPGPKEY | HHIT | BRID => AsTheyAre: Base64;
    NSEC3 => AsTheyAre: U8, U8, U16, Salt, Hash, Types;
    NSEC3PARAM => AsTheyAre: U8, U8, U16, Salt;
    TLSA | SMIMEA => AsTheyAre: U8, U8, U8, Hex;
    HIP => AsTheyAre: HostIdentity, Names;
    CSYNC => AsTheyAre: U32, U16, Types;
    ZONEMD => AsTheyAre: U32, U8, U8, Hex;
    SVCB | HTTPS => AsTheyAre: U16, Name, Parameters;
    DSYNC => AsTheyAre: Type, Code8(SCHEMES), U16, Name;
    NID | L64 => AsTheyAre: U16, Groups { count: 4, octets: 2, separator: ':' };
    L32 => AsTheyAre: U16, Ipv4;
    EUI48 => AsTheyAre: Groups { count: 6, octets: 1, separator: '-' };
    EUI64 => AsTheyAre: Groups { count: 8, octets: 1, separator: '-' };
    URI => AsTheyAre: U16, U16, Rest;
    CAA => AsTheyAre: U8, Tag, Rest;
    DOA => AsTheyAre: U32, U32, U8, Text, DashBase64;
    AMTRELAY => AsTheyAre: U8, Relay;
    IPN => AsTheyAre: U64;
}

/// Returns true if two RDATA of one type are equal, ignoring the case of names where it does not count.
pub fn same_rdata(rtype: RecordType, a: &[u8], b: &[u8]) -> bool {
    a == b || (a.len() == b.len() && RdataForm::of(rtype).and_then(|form| form.is_same(a, b)).unwrap_or(false))
}

/// One bit for each type whose names hedgerow compresses. All such types are of RFC 1035 and below 64.
const COMPRESSED: u64 = {
    let (mut bits, mut number) = (0, 0);
    while number < 64 {
        if let Some(RdataForm { name_rule: NameRule::Compressed, .. }) = RdataForm::of(RecordType(number)) {
            bits |= 1 << number;
        }
        number += 1;
    }
    bits
};

/// Algorithms of DNSSEC (RFC 4034 appendix A.1 and later).
const ALGORITHMS: Mnemonics = &[
    ("RSAMD5", 1),
    ("DH", 2),
    ("DSA", 3),
    ("RSASHA1", 5),
    ("DSA-NSEC3-SHA1", 6),
    ("RSASHA1-NSEC3-SHA1", 7),
    ("NSEC3RSASHA1", 7),
    ("RSASHA256", 8),
    ("RSASHA512", 10),
    ("ECC-GOST", 12),
    ("ECDSAP256SHA256", 13),
    ("ECDSAP384SHA384", 14),
    ("ED25519", 15),
    ("ED448", 16),
    ("INDIRECT", 252),
    ("PRIVATEDNS", 253),
    ("PRIVATEOID", 254),
];

/// Kinds of certificates (RFC 4398 section 2.1).
const CERTIFICATES: Mnemonics = &[
    ("PKIX", 1),
    ("SPKI", 2),
    ("PGP", 3),
    ("IPKIX", 4),
    ("ISPKI", 5),
    ("IPGP", 6),
    ("ACPKIX", 7),
    ("IACPKIX", 8),
    ("URI", 253),
    ("OID", 254),
];

/// Schemes of notification (RFC 9859 section 2.2).
const SCHEMES: Mnemonics = &[("NOTIFY", 1)];

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
        // The flags of NAPTR are strings, its replacement is a name.
        check(RecordType::NAPTR, b"\0\0\0\0\x01u\0\0\x01r\0", b"\0\0\0\0\x01u\0\0\x01R\0", true);
        check(RecordType::NAPTR, b"\0\0\0\0\x01u\0\0\x01r\0", b"\0\0\0\0\x01U\0\0\x01r\0", false);
        // RFC 6840 section 5.1: the signer of RRSIG is folded, the next name of NSEC is not.
        check(RecordType::RRSIG, &[&[0; 18][..], b"\x01s\0A"].concat(), &[&[0; 18][..], b"\x01S\0A"].concat(), true);
        check(RecordType::NSEC, b"\x01n\0\0\x01\x40", b"\x01N\0\0\x01\x40", false);
        check(RecordType::SVCB, b"\0\x01\x01t\0", b"\0\x01\x01T\0", false);
        check(RecordType(65280), b"a", b"A", false);
    }

    #[test]
    fn names_stand_where_the_fields_say() {
        let check = |rtype, expected| {
            let form = RdataForm::of(rtype).expect("a form");
            assert_eq!((form.octets, form.strings, form.names), expected, "{rtype}");
        };
        check(RecordType::NS, (0, 0, 1));
        check(RecordType::SOA, (0, 0, 2));
        check(RecordType::PX, (2, 0, 2));
        check(RecordType::SRV, (6, 0, 1));
        check(RecordType::NAPTR, (4, 3, 1));
        check(RecordType::SIG, (18, 0, 1));
        check(RecordType::HTTPS, (2, 0, 1));
        check(RecordType::A, (4, 0, 0));
        check(RecordType::LOC, (0, 0, 0));
    }

    /// The lists of RFC 3597 section 4 and of RFC 4034 section 6.2, as amended by RFC 6840 section 5.1. A6 is
    /// left out, because its name has no fixed place.
    #[test]
    fn names_have_the_rules_of_their_types() {
        let allowed = |rule| {
            let named = RecordType::NAMED
                .iter()
                .filter(|(_, rtype)| RdataForm::of(*rtype).is_some_and(|form| form.name_rule >= rule));
            named.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
        };
        let compressed = "NS MD MF CNAME SOA MB MG MR PTR MINFO MX";
        assert_eq!(allowed(NameRule::Compressed), compressed);
        let reported = RecordType::NAMED.iter().filter(|(_, rtype)| RdataForm::of_compressed(*rtype).is_some());
        assert_eq!(reported.map(|(name, _)| *name).collect::<Vec<_>>().join(" "), compressed);
        let come = format!("{compressed} RP AFSDB RT SIG PX NXT SRV NAPTR KX DNAME");
        assert_eq!(allowed(NameRule::MayComeCompressed), come);
        assert_eq!(allowed(NameRule::AnyCase), format!("{come} RRSIG"));
    }
}
