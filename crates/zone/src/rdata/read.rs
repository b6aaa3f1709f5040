//! Reads RDATA from text, field by field.

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE32HEX_NOPAD, BASE64, Encoding, HEXLOWER_PERMISSIVE};
use dns::{Field, Mnemonics, RdataForm, RecordType};

use super::{apl, bitmap, gateway, location, svcb, time, write};
use crate::load::master::{EntryError, EntryProblem, Words, ZoneFileWord, number, record_type, seconds, unescape};

/// Reads RDATA to the end of the entry and appends the wire form. The type is at `type_at`.
pub(crate) fn read(
    rtype: RecordType,
    type_at: usize,
    words: &mut Words<'_, '_>,
    out: &mut Vec<u8>,
) -> Result<(), EntryError> {
    // Type 0 is reserved (RFC 6895 section 3.1).
    if rtype.is_meta() || rtype == RecordType(0) {
        return Err(EntryError::new(type_at, EntryProblem::MetaType(rtype)));
    }
    match words.any()? {
        Some(word) if word.text == b"\\#" && !word.quoted => return read_generic(rtype, word.at, words, out),
        Some(word) => words.lexer.put_back(word),
        None => {}
    }
    let form = form_with_text(rtype).ok_or_else(|| EntryError::new(type_at, EntryProblem::NoTextForm(rtype)))?;
    for field in form.fields {
        read_field(*field, words, out)?;
    }
    words.end()?;
    if out.len() > usize::from(u16::MAX) {
        return Err(EntryError::new(type_at, EntryProblem::TooLong));
    }
    Ok(())
}

/// Reads generic data after `\#` (RFC 3597 section 5).
fn read_generic(rtype: RecordType, at: usize, words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let stated = usize::from(words.u16()?);
    if let Some((at, digits)) = words.joined()? {
        append_decoded(&HEXLOWER_PERMISSIVE, &digits, out)
            .ok_or_else(|| ZoneFileWord { text: &digits, at, quoted: false }.bad("data", HEX_FORM))?;
    }
    if out.len() != stated {
        return Err(EntryError::new(at, EntryProblem::GenericLength { stated, found: out.len() }));
    }
    // A server that knows the type parses its data, so the data must fit the type.
    if form_with_text(rtype).is_some() && !write::fits(rtype, out) {
        return Err(EntryError::new(at, EntryProblem::GenericForm(rtype)));
    }
    Ok(())
}

pub(super) fn form_with_text(rtype: RecordType) -> Option<&'static RdataForm> {
    RdataForm::of(rtype).filter(|form| form.has_text())
}

fn read_field(field: Field, words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    match field {
        Field::U8 => out.push(words.u8()?),
        Field::U16 => out.extend(words.u16()?.to_be_bytes()),
        Field::U32 => out.extend((words.number(U32_MAX, "0 to 4294967295")? as u32).to_be_bytes()),
        Field::U64 => out.extend(words.number(u64::MAX, "0 to 18446744073709551615")?.to_be_bytes()),
        Field::Period => out.extend(parsed(words, "period", PERIOD_FORM, read_period)?.to_be_bytes()),
        Field::Time => out.extend(parsed(words, "time", TIME_FORM, |word| time::read(word.text))?.to_be_bytes()),
        Field::Code8(mnemonics) => {
            let read = |word| u8::try_from(read_code(word, mnemonics)?).ok();
            out.push(parsed(words, "code", CODE8_FORM, read)?);
        }
        Field::Code16(mnemonics) => {
            out.extend(parsed(words, "code", CODE16_FORM, |word| read_code(word, mnemonics))?.to_be_bytes());
        }
        Field::Type => out.extend(record_type(words.next("type", "a record type such as A")?)?.0.to_be_bytes()),
        Field::Ipv4 => read_ipv4(words, out)?,
        Field::Ipv6 => read_ipv6(words, out)?,
        Field::Name => words.name(out)?,
        Field::Names => {
            while words.has_more()? {
                words.name(out)?;
            }
        }
        Field::OptionalText | Field::OptionalBase64 if !words.has_more()? => {}
        Field::Text | Field::OptionalText => read_text(words.next("string", TEXT_FORM)?, out)?,
        Field::Texts => {
            read_text(words.next("string", TEXT_FORM)?, out)?;
            while let Some(word) = words.any()? {
                read_text(word, out)?;
            }
        }
        Field::Tag => {
            let is_tag = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_alphanumeric);
            read_text(parsed(words, "tag", TAG_FORM, |word| is_tag(word.text).then_some(word))?, out)?;
        }
        Field::Rest => unescape(words.next("string", "a string in quotes")?, out)?,
        Field::Hex => read_joined(words, &HEXLOWER_PERMISSIVE, HEX_FORM, out)?,
        Field::Base64 | Field::OptionalBase64 => read_joined(words, &BASE64, BASE64_FORM, out)?,
        Field::DashBase64 => match words.any()? {
            Some(word) if !word.is("-") => {
                words.lexer.put_back(word);
                read_joined(words, &BASE64, BASE64_FORM, out)?;
            }
            Some(_) | None => {}
        },
        Field::Salt | Field::Hash | Field::Groups { .. } | Field::Nsap => read_digits(field, words, out)?,
        Field::Types => bitmap::read(words, out)?,
        Field::Prefixes => apl::read(words, out)?,
        Field::Location => location::read(words, out)?,
        Field::IpsecGateway => gateway::read_ipsec(words, out)?,
        Field::Relay => gateway::read_relay(words, out)?,
        Field::HostIdentity => gateway::read_host_identity(words, out)?,
        Field::Parameters => svcb::read(words, out)?,
        // Types with such a field have no text form.
        Field::Opaque => {}
    }
    Ok(())
}

/// Reads a field of digits in one word.
fn read_digits(field: Field, words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    match field {
        Field::Salt => parsed(words, "salt", SALT_FORM, |word| {
            append_counted(&HEXLOWER_PERMISSIVE, if word.is("-") { &[] } else { word.text }, out).map(drop)
        }),
        Field::Hash => parsed(words, "hash", HASH_FORM, |word| {
            let len = append_counted(&BASE32HEX_NOPAD, &word.text.to_ascii_uppercase(), out);
            len.filter(|len| *len > 0).map(drop)
        }),
        Field::Groups { count, octets, separator } => parsed(words, "identifier", GROUPS_FORM, |word| {
            read_groups(word.text, (count, octets, separator as u8), out)
        }),
        _ => parsed(words, "NSAP address", NSAP_FORM, |word| read_nsap(word.text, out)),
    }
}

pub(super) fn read_ipv4(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let address = parsed(words, "IPv4 address", IPV4_FORM, |word| word.as_str().parse::<Ipv4Addr>().ok())?;
    out.extend(address.octets());
    Ok(())
}

pub(super) fn read_ipv6(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let address = parsed(words, "IPv6 address", IPV6_FORM, |word| word.as_str().parse::<Ipv6Addr>().ok())?;
    out.extend(address.octets());
    Ok(())
}

pub(super) fn parsed<'a, T>(
    words: &mut Words<'_, 'a>,
    thing: &'static str,
    expected: &'static str,
    parse: impl FnOnce(ZoneFileWord<'a>) -> Option<T>,
) -> Result<T, EntryError> {
    let word = words.next(thing, expected)?;
    parse(word).ok_or_else(|| word.bad(thing, expected))
}

fn read_period(word: ZoneFileWord<'_>) -> Option<u32> {
    seconds(word.text).and_then(|seconds| u32::try_from(seconds).ok())
}

fn read_code(word: ZoneFileWord<'_>, mnemonics: Mnemonics) -> Option<u16> {
    match mnemonics.iter().find(|(mnemonic, _)| word.is(mnemonic)) {
        Some((_, code)) => Some(*code),
        None => number(word.text).and_then(|code| u16::try_from(code).ok()),
    }
}

/// Reads a character string (RFC 1035 section 3.3) and writes its length in front.
fn read_text(word: ZoneFileWord<'_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let start = out.len();
    out.push(0);
    unescape(word, out)?;
    let len = u8::try_from(out.len() - start - 1).map_err(|_| word.bad("string", TEXT_FORM))?;
    if let Some(length) = out.get_mut(start) {
        *length = len;
    }
    Ok(())
}

fn read_joined(
    words: &mut Words<'_, '_>,
    encoding: &Encoding,
    expected: &'static str,
    out: &mut Vec<u8>,
) -> Result<(), EntryError> {
    let first = words.next("data", expected)?;
    words.lexer.put_back(first);
    let (at, digits) = words.joined()?.unwrap_or_default();
    append_decoded(encoding, &digits, out)
        .filter(|len| *len > 0)
        .map(drop)
        .ok_or_else(|| ZoneFileWord { text: &digits, at, quoted: false }.bad("data", expected))
}

pub(super) fn append_decoded(encoding: &Encoding, digits: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.resize(start + encoding.decode_len(digits.len()).ok()?, 0);
    let len = encoding.decode_mut(digits, out.get_mut(start..)?).ok()?;
    out.truncate(start + len);
    Some(len)
}

fn append_counted(encoding: &Encoding, digits: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    out.push(0);
    let len = append_decoded(encoding, digits, out)?;
    *out.get_mut(start)? = u8::try_from(len).ok()?;
    Some(len)
}

fn read_groups(text: &[u8], (count, octets, separator): (usize, usize, u8), out: &mut Vec<u8>) -> Option<()> {
    let mut groups = 0;
    for group in text.split(|octet| *octet == separator) {
        if group.len() > octets * 2 || group.is_empty() {
            return None;
        }
        let mut value = 0_u16;
        for digit in group {
            value = value << 4 | char::from(*digit).to_digit(16)? as u16;
        }
        // RFC 7043 requires both digits. RFC 6742 allows leading zeros to be omitted.
        if octets == 1 && group.len() != 2 {
            return None;
        }
        out.extend_from_slice(value.to_be_bytes().get(2 - octets..)?);
        groups += 1;
    }
    (groups == count).then_some(())
}

fn read_nsap(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (prefix, digits) = text.split_at_checked(2)?;
    if !prefix.eq_ignore_ascii_case(b"0x") {
        return None;
    }
    let digits: Vec<u8> = digits.iter().copied().filter(|octet| *octet != b'.').collect();
    append_decoded(&HEXLOWER_PERMISSIVE, &digits, out).filter(|len| *len > 0).map(drop)
}

const U32_MAX: u64 = u32::MAX as u64;
const PERIOD_FORM: &str = "0 to 4294967295 seconds, or units such as 1h30m";
const TIME_FORM: &str = "YYYYMMDDHHmmSS in UTC, or seconds since 1970";
const CODE8_FORM: &str = "0 to 255, or a mnemonic of the registry";
const CODE16_FORM: &str = "0 to 65535, or a mnemonic of the registry";
const IPV4_FORM: &str = "four numbers of 0 to 255 such as 192.0.2.1";
const IPV6_FORM: &str = "one such as 2001:db8::1";
const TEXT_FORM: &str = "a string of at most 255 octets";
const TAG_FORM: &str = "1 to 255 letters and digits such as issue";
pub(super) const HEX_FORM: &str = "pairs of hexadecimal digits";
pub(super) const BASE64_FORM: &str = "base64 with its padding";
const SALT_FORM: &str = "pairs of hexadecimal digits without blanks, or -";
const HASH_FORM: &str = "base32hex digits without padding";
const GROUPS_FORM: &str =
    "hexadecimal groups such as 00-00-5e-00-53-2a (EUI48, EUI64) or 0014:4fff:ff20:ee64 (NID, L64)";
const NSAP_FORM: &str = "0x and pairs of hexadecimal digits";
