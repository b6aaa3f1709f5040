//! RDATA whose later fields depend on earlier ones: IPSECKEY gateways, AMTRELAY relays, and HIP.

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE, HEXUPPER};
use dns::display_name;

use super::read::{BASE64_FORM, HEX_FORM, append_decoded, parsed, read_ipv4, read_ipv6};
use super::write::{RdataOctets, push};
use crate::load::master::{EntryError, Words, ZoneFileWord};

/// Reads gateway type, algorithm and gateway (RFC 4025 section 3.1).
pub(super) fn read_ipsec(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let kind = words.number(3, KIND_FORM)? as u8;
    out.extend([kind, words.u8()?]);
    read_target(kind, words, out)
}

pub(super) fn write_ipsec(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    let (kind, algorithm) = (octets.u8()?, octets.u8()?);
    push(text, format_args!("{kind} {algorithm} "));
    write_target(kind, octets, text)
}

/// Reads the discovery flag, the relay type and the relay (RFC 8777 section 4.3).
pub(super) fn read_relay(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let discovery = words.number(1, "0 or 1")? as u8;
    let kind = words.number(3, KIND_FORM)? as u8;
    out.push(discovery << 7 | kind);
    read_target(kind, words, out)
}

pub(super) fn write_relay(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    let flags = octets.u8()?;
    let kind = flags & 0x7F;
    push(text, format_args!("{} {kind} ", flags >> 7));
    write_target(kind, octets, text)
}

fn read_target(kind: u8, words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    match kind {
        0 => parsed(words, "gateway", "a dot, since its type is 0", |word| (word.text == b".").then_some(())),
        1 => read_ipv4(words, out),
        2 => read_ipv6(words, out),
        _ => words.name(out),
    }
}

fn write_target(kind: u8, octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    match kind {
        0 => text.push('.'),
        1 => push(text, Ipv4Addr::from(octets.array::<4>()?)),
        2 => push(text, Ipv6Addr::from(octets.array::<16>()?)),
        3 => push(text, display_name(octets.name()?)),
        _ => return None,
    }
    Some(())
}

/// Reads algorithm, tag and key of a host identity (RFC 8005 section 6).
pub(super) fn read_host_identity(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let algorithm = words.u8()?;
    let start = out.len();
    out.extend([0, algorithm, 0, 0]);
    let tag = words.next("host identity tag", HEX_FORM)?;
    let tag_len = decoded(tag, &HEXLOWER_PERMISSIVE, u64::from(u8::MAX), out);
    let tag_len = tag_len.ok_or_else(|| tag.bad("host identity tag", HEX_FORM))?;
    let key = words.next("public key", BASE64_FORM)?;
    let key_len = decoded(key, &BASE64, u64::from(u16::MAX), out).ok_or_else(|| key.bad("public key", BASE64_FORM))?;
    let [high, low] = (key_len as u16).to_be_bytes();
    if let Some(lengths) = out.get_mut(start..start + 4) {
        lengths.copy_from_slice(&[tag_len as u8, algorithm, high, low]);
    }
    Ok(())
}

fn decoded(word: ZoneFileWord<'_>, encoding: &data_encoding::Encoding, max: u64, out: &mut Vec<u8>) -> Option<usize> {
    append_decoded(encoding, word.text, out).filter(|len| (1..=max).contains(&(*len as u64)))
}

pub(super) fn write_host_identity(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    let (tag_len, algorithm, key_len) = (octets.u8()?, octets.u8()?, octets.u16()?);
    let tag = octets.take(usize::from(tag_len))?;
    let key = octets.take(usize::from(key_len))?;
    if tag.is_empty() || key.is_empty() {
        return None;
    }
    push(text, format_args!("{algorithm} {} {}", HEXUPPER.encode(tag), BASE64.encode(key)));
    Some(())
}

const KIND_FORM: &str = "0 (none), 1 (IPv4), 2 (IPv6) or 3 (name)";
