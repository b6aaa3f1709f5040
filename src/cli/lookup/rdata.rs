//! Record data as master-file text. Each type known here is a list of fields; all else, and data that
//! does not fit its fields, is written as RFC 3597 section 5 says: `\# LENGTH HEX`. Works on the bytes of
//! the message because names in the data of the oldest types may be compressed (RFC 3597 section 4).

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::name::Absolute;
use super::rtype::Type;
use super::svcb;

/// Writes the data of one record: the `length` octets that `decoder` stands before.
pub(super) fn to_text(rtype: Type, decoder: &BinDecoder<'_>, length: usize) -> String {
    fields_to_text(rtype, decoder, length).unwrap_or_else(|| {
        let data = fork(decoder).and_then(|mut fork| take(&mut fork, length)).unwrap_or_default();
        match data {
            [] => r"\# 0".to_owned(),
            data => format!(r"\# {length} {}", hex(data)),
        }
    })
}

/// Writes a character string in quotes (RFC 1035 section 5.1).
pub(super) fn quoted(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() + 2);
    text.push('"');
    for &octet in octets {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(octet)]),
            b' '..=b'~' => text.push(char::from(octet)),
            _ => text.push_str(&format!("\\{octet:03}")),
        }
    }
    text.push('"');
    text
}

/// Base64 (RFC 4648 section 4).
pub(super) fn base64(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().div_ceil(3) * 4);
    for group in octets.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, &octet| bits << 8 | u32::from(octet)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) as u8 & 0x3f;
            text.push(match digit {
                _ if place > group.len() => '=',
                0..26 => char::from(b'A' + digit),
                26..52 => char::from(b'a' + digit - 26),
                52..62 => char::from(b'0' + digit - 52),
                62 => '+',
                _ => '/',
            });
        }
    }
    text
}

/// One field of a record's data.
#[derive(Clone, Copy)]
enum Field {
    /// One octet, decimal.
    U8,
    /// Two octets, decimal.
    U16,
    /// Four octets, decimal. Also the times of RRSIG: RFC 4034 section 3.2 allows seconds.
    U32,
    /// A domain name.
    Name,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A record type.
    Type,
    /// A character string in quotes.
    Text,
    /// One or more character strings to the end.
    Texts,
    /// A character string of letters and digits, bare: the tag of CAA (RFC 8659 section 4.1.1).
    Tag,
    /// The rest as one quoted string, longer than 255 octets if need be.
    Quoted,
    /// The rest in hexadecimal.
    Hex,
    /// The rest in base64.
    Base64,
    /// The rest as the type bitmap of NSEC (RFC 4034 section 4.1.2).
    Types,
    /// The rest as the parameters of SVCB (RFC 9460 section 2.1).
    Parameters,
}

/// The fields of a type's data; `None` for types that are written in hexadecimal.
fn layout(rtype: Type) -> Option<&'static [Field]> {
    use Field::{Base64, Hex, Ipv4, Ipv6, Name, Parameters, Quoted, Tag, Text, Texts, Type, Types, U8, U16, U32};
    Some(match rtype.0 {
        1 => &[Ipv4],
        2 | 5 | 12 | 39 => &[Name],
        6 => &[Name, Name, U32, U32, U32, U32, U32],
        13 => &[Text, Text],
        14 | 17 => &[Name, Name],
        15 | 18 | 36 | 107 => &[U16, Name],
        16 | 99 => &[Texts],
        28 => &[Ipv6],
        33 => &[U16, U16, U16, Name],
        35 => &[U16, U16, Text, Text, Text, Name],
        37 => &[U16, U16, U8, Base64],
        43 | 59 | 32769 => &[U16, U8, U8, Hex],
        44 => &[U8, U8, Hex],
        46 => &[Type, U8, U8, U32, U32, U32, U16, Name, Base64],
        47 => &[Name, Types],
        25 | 48 | 60 => &[U16, U8, U8, Base64],
        49 | 61 => &[Base64],
        52 | 53 => &[U8, U8, U8, Hex],
        63 => &[U32, U8, U8, Hex],
        64 | 65 => &[U16, Name, Parameters],
        256 => &[U16, U16, Quoted],
        257 => &[U8, Tag, Quoted],
        _ => return None,
    })
}

/// The data field by field; `None` if the type has no fields or the data does not fit them exactly.
fn fields_to_text(rtype: Type, decoder: &BinDecoder<'_>, length: usize) -> Option<String> {
    let mut decoder = fork(decoder)?;
    let end = decoder.index() + length;
    let mut text = String::new();
    for &field in layout(rtype)? {
        let left = end.checked_sub(decoder.index())?;
        let field = field_to_text(field, &mut decoder, left)?;
        if !text.is_empty() && !field.is_empty() {
            text.push(' ');
        }
        text.push_str(&field);
    }
    (decoder.index() == end).then_some(text)
}

/// One field; `left` octets remain of the data.
fn field_to_text(field: Field, decoder: &mut BinDecoder<'_>, left: usize) -> Option<String> {
    Some(match field {
        Field::U8 => decoder.read_u8().ok()?.unverified().to_string(),
        Field::U16 => decoder.read_u16().ok()?.unverified().to_string(),
        Field::U32 => decoder.read_u32().ok()?.unverified().to_string(),
        Field::Name => Absolute(&Name::read(decoder).ok()?).to_string(),
        Field::Ipv4 => Ipv4Addr::from(*take(decoder, 4)?.first_chunk::<4>()?).to_string(),
        Field::Ipv6 => Ipv6Addr::from(*take(decoder, 16)?.first_chunk::<16>()?).to_string(),
        Field::Type => Type(decoder.read_u16().ok()?.unverified()).to_string(),
        Field::Text => quoted(character_string(decoder)?),
        Field::Texts => texts(take(decoder, left)?)?,
        Field::Tag => tag(character_string(decoder)?)?,
        Field::Quoted => quoted(take(decoder, left)?),
        Field::Hex => hex(take(decoder, left)?),
        Field::Base64 => base64(take(decoder, left)?),
        Field::Types => type_bitmap(take(decoder, left)?)?,
        Field::Parameters => svcb::parameters_to_text(take(decoder, left)?)?,
    })
}

/// A second decoder at the same place of the same message.
fn fork<'a>(decoder: &BinDecoder<'a>) -> Option<BinDecoder<'a>> {
    // A message is at most 65,535 octets long, so its places fit.
    Some(decoder.clone(u16::try_from(decoder.index()).ok()?))
}

/// The next `length` octets.
fn take<'a>(decoder: &mut BinDecoder<'a>, length: usize) -> Option<&'a [u8]> {
    Some(decoder.read_slice(length).ok()?.unverified())
}

/// The next character string (RFC 1035 section 3.3), without its length.
fn character_string<'a>(decoder: &mut BinDecoder<'a>) -> Option<&'a [u8]> {
    let length = decoder.read_u8().ok()?.unverified();
    take(decoder, usize::from(length))
}

/// Character strings to the end, at least one (RFC 1035 section 3.3.14).
fn texts(mut data: &[u8]) -> Option<String> {
    let mut text = String::new();
    loop {
        let (&length, rest) = data.split_first()?;
        let (string, rest) = rest.split_at_checked(usize::from(length))?;
        text.push_str(&quoted(string));
        if rest.is_empty() {
            return Some(text);
        }
        text.push(' ');
        data = rest;
    }
}

/// A bare word; anything but letters and digits does not fit.
fn tag(octets: &[u8]) -> Option<String> {
    let fits = !octets.is_empty() && octets.iter().all(u8::is_ascii_alphanumeric);
    fits.then(|| octets.iter().map(|&octet| char::from(octet)).collect())
}

/// Lower-case hexadecimal without blanks.
fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(octets.len() * 2), |mut text, octet| {
        write!(text, "{octet:02x}").expect("a String takes all that is written");
        text
    })
}

/// The types in a bitmap (RFC 4034 section 4.1.2).
fn type_bitmap(mut data: &[u8]) -> Option<String> {
    let mut types = Vec::new();
    while let Some((&[window, length], rest)) = data.split_first_chunk::<2>() {
        let (bitmap, rest) = rest.split_at_checked(usize::from(length))?;
        for bit in 0..bitmap.len().min(32) * 8 {
            if bitmap.get(bit / 8).is_some_and(|octet| octet & (0x80 >> (bit % 8)) != 0) {
                types.push(Type(u16::from(window) << 8 | u16::try_from(bit).ok()?).to_string());
            }
        }
        data = rest;
    }
    data.is_empty().then(|| types.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `data` of type `mnemonic` is written as `text`.
    fn check(mnemonic: &str, data: &[u8], text: &str) {
        let rtype = mnemonic.parse().expect(mnemonic);
        assert_eq!(to_text(rtype, &BinDecoder::new(data), data.len()), text, "{mnemonic}");
    }

    #[test]
    fn data_is_written_in_master_file_form() {
        check("A", &[128, 1, 1, 4], "128.1.1.4");
        check("AAAA", &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1");
        check("MX", b"\0\x0a\x02mx\x07example\0", "10 mx.example.");
        check("TXT", b"\x07a b;\"q\"\x01c", r#""a b;\"q\"" "c""#);
        check("TXT", b"\x03\\\xe9\n", r#""\\\233\010""#);
        check("TXT", b"\0", r#""""#);
        check(
            "SOA",
            b"\x01a\0\x01b\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\xff\xff\xff\xff",
            "a. b. 1 2 3 4 4294967295",
        );
        check("SRV", b"\0\x01\0\x02\0\x35\0", "1 2 53 .");
        check("CAA", b"\x80\x05issueca.example", r#"128 issue "ca.example""#);
        check("HINFO", b"\x03a b\0", r#""a b" """#);
        check("DS", b"\x30\x39\x0d\x02\xab\xcd", "12345 13 2 abcd");
        check("DNSKEY", b"\x01\x01\x03\x0d\x01\x02\x03\x04", "257 3 13 AQIDBA==");
        check("NSEC", b"\x01b\0\0\x02\x62\x01\x01\x01\x40", "b. A NS SOA MX CAA");
        check("RRSIG", b"\0\x01\x0d\x02\0\0\0\x3c\0\0\0\x02\0\0\0\x01\0\x07\0\xff\xff\xff", "A 13 2 60 2 1 7 . ////");
        check("URI", b"\0\x0a\0\x01https://x/", r#"10 1 "https://x/""#);
        check("TYPE65280", b"\xab\xcd", r"\# 2 abcd");
        check("APL", b"", r"\# 0");
    }

    #[test]
    fn data_that_does_not_fit_is_written_in_hexadecimal() {
        check("A", b"\x01\x02\x03", r"\# 3 010203");
        check("A", b"\x01\x02\x03\x04\x05", r"\# 5 0102030405");
        check("MX", b"\0\x0a\x02m", r"\# 4 000a026d");
        check("TXT", b"\x02a", r"\# 2 0261");
        check("TXT", b"", r"\# 0");
        check("CAA", b"\0\x01\x1bx", r"\# 4 00011b78");
        check("NSEC", b"\0\0\x02\x40", r"\# 4 00000240");
    }

    #[test]
    fn fields_end_where_the_data_ends() {
        let text = to_text("MX".parse().expect("known"), &BinDecoder::new(b"\0\x0a\x02mx\0"), 3);
        assert_eq!(text, r"\# 3 000a02");
    }

    #[test]
    fn base64_pads() {
        for (octets, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(octets.as_bytes()), text);
        }
    }

    proptest! {
        #[test]
        fn any_data_of_any_type_is_printable(
            number in 1_u16..300,
            data in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let text = to_text(Type(number), &BinDecoder::new(&data), data.len());
            prop_assert!(!text.is_empty() || data.is_empty());
            prop_assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{}", text);
        }
    }
}
