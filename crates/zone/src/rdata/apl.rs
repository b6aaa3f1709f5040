//! Lists of address prefixes (RFC 3123): `1:192.168.32.0/21 !1:192.168.38.0/28`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::write::{RdataOctets, push};
use crate::load::master::{EntryError, Words, ZoneFileWord, number};

pub(super) fn read(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    while let Some(word) = words.any()? {
        read_item(word, out).ok_or_else(|| word.bad("address prefix", ITEM_FORM))?;
    }
    Ok(())
}

/// Reads one item of the form `[!]FAMILY:ADDRESS/PREFIX`.
fn read_item(word: ZoneFileWord<'_>, out: &mut Vec<u8>) -> Option<()> {
    let text = word.as_str();
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (NEGATED, rest),
        None => (0, text),
    };
    let (family, text) = text.split_once(':')?;
    let (address, prefix) = text.rsplit_once('/')?;
    let (family, octets) = match family {
        "1" => (IPV4, address.parse::<Ipv4Addr>().ok()?.octets().to_vec()),
        "2" => (IPV6, address.parse::<Ipv6Addr>().ok()?.octets().to_vec()),
        _ => return None,
    };
    let prefix = number(prefix.as_bytes()).filter(|prefix| *prefix <= octets.len() as u64 * 8)? as u8;
    // RFC 3123 section 4: trailing zeros are omitted.
    let len = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    out.extend(family.to_be_bytes());
    out.extend([prefix, negated | len as u8]);
    out.extend_from_slice(octets.get(..len)?);
    Some(())
}

pub(super) fn write(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    let mut separator = "";
    while !octets.0.is_empty() {
        let (family, prefix, len) = (octets.u16()?, octets.u8()?, octets.u8()?);
        let address = octets.take(usize::from(len & !NEGATED))?;
        if address.last() == Some(&0) {
            return None;
        }
        let mut whole = [0; 16];
        whole.get_mut(..address.len())?.copy_from_slice(address);
        text.push_str(separator);
        if len & NEGATED != 0 {
            text.push('!');
        }
        match family {
            IPV4 if address.len() <= 4 && prefix <= 32 => {
                let [a, b, c, d, ..] = whole;
                push(text, format_args!("1:{}/{prefix}", Ipv4Addr::new(a, b, c, d)));
            }
            IPV6 if prefix <= 128 => push(text, format_args!("2:{}/{prefix}", Ipv6Addr::from(whole))),
            _ => return None,
        }
        separator = " ";
    }
    Some(())
}

const IPV4: u16 = 1;
const IPV6: u16 = 2;
const NEGATED: u8 = 0x80;
const ITEM_FORM: &str = "1:192.0.2.0/24 or 2:2001:db8::/32, with ! in front if it is not meant";
