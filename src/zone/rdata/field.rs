//! The table: which fields the data of each type have.

use crate::wire::RecordType;

/// A field of a record's data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// One octet.
    U8,
    /// Two octets.
    U16,
    /// Four octets.
    U32,
    /// Eight octets.
    U64,
    /// Four octets of seconds, with units if one likes.
    Period,
    /// Four octets of seconds since 1970, as a date (RFC 4034 section 3.2).
    Time,
    /// One octet with mnemonics for some values, written as a number.
    Code8(Mnemonics),
    /// Two octets with mnemonics for some values.
    Code16(Mnemonics),
    /// A record type.
    Type,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A domain name.
    Name,
    /// Domain names to the end, at least none.
    Names,
    /// A character string (RFC 1035 section 3.3).
    Text,
    /// A character string that may be missing.
    OptionalText,
    /// Character strings to the end, at least one.
    Texts,
    /// A character string of letters and digits, bare (RFC 8659 section 4.1.1).
    Tag,
    /// One string to the end, without a length.
    Rest,
    /// The rest in hexadecimal, at least one octet.
    Hex,
    /// The rest in base64, at least one octet.
    Base64,
    /// The rest in base64, which may be nothing.
    OptionalBase64,
    /// The rest in base64, with `-` for nothing (DOA).
    DashBase64,
    /// Octets with their number in front, in hexadecimal, `-` for none: the salt of RFC 5155 section 3.3.
    Salt,
    /// Octets with their number in front, in base32hex: the hash of RFC 5155 section 3.3.
    Hash,
    /// Groups of octets in hexadecimal.
    Groups {
        /// How many.
        count: usize,
        /// Octets of each.
        octets: usize,
        /// What stands between them.
        separator: char,
    },
    /// `0x` and hexadecimal digits with dots where one likes (RFC 1706 section 6).
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
}

/// Words for values.
pub(super) type Mnemonics = &'static [(&'static str, u16)];

/// The fields of a type's data in order; `None` for a type that has no text form but that of RFC 3597.
pub(super) fn fields(rtype: RecordType) -> Option<&'static [Field]> {
    use Field::*;
    Some(match rtype {
        RecordType::A => &[Ipv4],
        RecordType::AAAA => &[Ipv6],
        RecordType::NS
        | RecordType::MD
        | RecordType::MF
        | RecordType::CNAME
        | RecordType::MB
        | RecordType::MG
        | RecordType::MR
        | RecordType::PTR
        | RecordType::DNAME => &[Name],
        RecordType::SOA => &[Name, Name, U32, Period, Period, Period, Period],
        RecordType::HINFO => &[Text, Text],
        RecordType::MINFO | RecordType::RP | RecordType::TALINK => &[Name, Name],
        RecordType::MX | RecordType::AFSDB | RecordType::RT | RecordType::KX | RecordType::LP => &[U16, Name],
        RecordType::TXT
        | RecordType::SPF
        | RecordType::NINFO
        | RecordType::AVC
        | RecordType::RESINFO
        | RecordType::WALLET
        | RecordType::CLA => &[Texts],
        RecordType::X25 => &[Text],
        RecordType::ISDN => &[Text, OptionalText],
        RecordType::NSAP => &[Nsap],
        RecordType::PX => &[U16, Name, Name],
        RecordType::GPOS => &[Text, Text, Text],
        RecordType::LOC => &[Location],
        RecordType::EID | RecordType::NIMLOC => &[Hex],
        RecordType::SRV => &[U16, U16, U16, Name],
        RecordType::NAPTR => &[U16, U16, Text, Text, Text, Name],
        RecordType::CERT => &[Code16(CERTIFICATES), U16, Code8(ALGORITHMS), Base64],
        RecordType::APL => &[Prefixes],
        RecordType::DS | RecordType::CDS | RecordType::DLV | RecordType::TA => &[U16, Code8(ALGORITHMS), U8, Hex],
        RecordType::SSHFP => &[U8, U8, Hex],
        RecordType::IPSECKEY => &[U8, IpsecGateway, OptionalBase64],
        RecordType::RRSIG | RecordType::SIG => &[Type, Code8(ALGORITHMS), U8, Period, Time, Time, U16, Name, Base64],
        RecordType::NSEC => &[Name, Types],
        // A KEY may say that there is none (RFC 2535 section 3.1.2).
        RecordType::KEY => &[U16, U8, Code8(ALGORITHMS), OptionalBase64],
        RecordType::DNSKEY | RecordType::CDNSKEY | RecordType::RKEY => &[U16, U8, Code8(ALGORITHMS), Base64],
        RecordType::DHCID | RecordType::OPENPGPKEY | RecordType::HHIT | RecordType::BRID => &[Base64],
        RecordType::NSEC3 => &[U8, U8, U16, Salt, Hash, Types],
        RecordType::NSEC3PARAM => &[U8, U8, U16, Salt],
        RecordType::TLSA | RecordType::SMIMEA => &[U8, U8, U8, Hex],
        RecordType::HIP => &[HostIdentity, Names],
        RecordType::CSYNC => &[U32, U16, Types],
        RecordType::ZONEMD => &[U32, U8, U8, Hex],
        RecordType::SVCB | RecordType::HTTPS => &[U16, Name, Parameters],
        RecordType::DSYNC => &[Type, Code8(SCHEMES), U16, Name],
        RecordType::NID | RecordType::L64 => &[U16, Groups { count: 4, octets: 2, separator: ':' }],
        RecordType::L32 => &[U16, Ipv4],
        RecordType::EUI48 => &[Groups { count: 6, octets: 1, separator: '-' }],
        RecordType::EUI64 => &[Groups { count: 8, octets: 1, separator: '-' }],
        RecordType::URI => &[U16, U16, Rest],
        RecordType::CAA => &[U8, Tag, Rest],
        RecordType::DOA => &[U32, U32, U8, Text, DashBase64],
        RecordType::AMTRELAY => &[U8, Relay],
        RecordType::IPN => &[U64],
        _ => return None,
    })
}

/// Whether a type asks for data or belongs to a message, and so is in no zone (RFC 6895 section 3.1).
pub(super) fn is_meta(rtype: RecordType) -> bool {
    matches!(rtype, RecordType(0) | RecordType::OPT | RecordType(128..=255))
}

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

/// Ways to be told of changes (RFC 9859 section 2.2).
const SCHEMES: Mnemonics = &[("NOTIFY", 1)];
