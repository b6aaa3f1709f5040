//! Parameters of SVCB and HTTPS records (RFC 9460): `alpn="h2,h3" port=8443`.

use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::BASE64;

use super::read::append_decoded;
use super::write::{RdataOctets, push, push_quoted};
use crate::load::master::{EntryError, EntryProblem, Words, ZoneFileWord, number, unescape};

pub(super) fn read(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let mut parameters: Vec<(u16, Vec<u8>)> = Vec::new();
    while let Some(word) = words.any()? {
        let parameter = read_parameter(word)?;
        if parameters.iter().any(|(key, _)| *key == parameter.0) {
            return Err(word.bad("parameter", "each key once"));
        }
        parameters.push(parameter);
    }
    // RFC 9460 section 2.2: parameters are in order of their keys.
    parameters.sort_unstable();
    if !are_consistent(&parameters) {
        let problem = EntryProblem::Missing { thing: "parameter", expected: CONSISTENT };
        return Err(EntryError::new(words.lexer.behind(), problem));
    }
    for (key, value) in &parameters {
        out.extend(key.to_be_bytes());
        // A longer value makes the record too long, which the caller detects for the whole record.
        out.extend((value.len() as u16).to_be_bytes());
        out.extend_from_slice(value);
    }
    Ok(())
}

/// Writes all parameters. Returns `None` if they break a rule of RFC 9460.
pub(super) fn write(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    let mut parameters: Vec<(u16, Vec<u8>)> = Vec::new();
    while !octets.0.is_empty() {
        let (key, len) = (octets.u16()?, octets.u16()?);
        let value = octets.take(usize::from(len))?;
        // RFC 9460 section 2.2: strictly ascending. Section 14.3.2: the last key is reserved.
        if key == u16::MAX || parameters.last().is_some_and(|(last, _)| *last >= key) {
            return None;
        }
        if !parameters.is_empty() {
            text.push(' ');
        }
        write_parameter(key, value, text)?;
        parameters.push((key, value.to_vec()));
    }
    are_consistent(&parameters).then_some(())
}

fn are_consistent(parameters: &[(u16, Vec<u8>)]) -> bool {
    let has = |wanted: u16| parameters.iter().any(|(key, _)| *key == wanted);
    // RFC 9460 section 8: every mandatory key is present.
    let mandatory = parameters.iter().find(|(key, _)| *key == MANDATORY).map_or(&[][..], |(_, value)| value);
    let mandatory = mandatory.as_chunks().0.iter().all(|key| has(u16::from_be_bytes(*key)));
    // RFC 9460 section 7.1.1: no-default-alpn requires alpn, because otherwise no protocol is left.
    mandatory && (!has(NO_DEFAULT_ALPN) || has(ALPN))
}

fn read_parameter(word: ZoneFileWord<'_>) -> Result<(u16, Vec<u8>), EntryError> {
    let bad = || word.bad("parameter", PARAMETER_FORM);
    let (name, value) = match word.text.iter().position(|octet| *octet == b'=') {
        Some(sign) => (word.text.get(..sign).unwrap_or_default(), word.text.get(sign + 1..).unwrap_or_default()),
        None => (word.text, &[][..]),
    };
    let key = key_number(name).filter(|_| !word.quoted).ok_or_else(bad)?;
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    };
    let mut octets = Vec::new();
    unescape(ZoneFileWord { text: value, ..word }, &mut octets)?;
    Ok((key, value_to_wire(key, &octets).ok_or_else(bad)?))
}

fn value_to_wire(key: u16, value: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let mut wire = Vec::new();
    match key {
        MANDATORY => {
            let mut keys: Vec<u16> = value.split(|octet| *octet == b',').map(key_number).collect::<Option<_>>()?;
            keys.sort_unstable();
            // RFC 9460 section 8: no key appears twice, and "mandatory" does not list itself.
            if keys.contains(&MANDATORY) || !keys.is_sorted_by(|a, b| a < b) {
                return None;
            }
            wire.extend(keys.into_iter().flat_map(u16::to_be_bytes));
        }
        ALPN => {
            for protocol in split_list(value)? {
                wire.push(u8::try_from(protocol.len()).ok().filter(|len| *len > 0)?);
                wire.extend(protocol);
            }
        }
        NO_DEFAULT_ALPN | OHTTP if !value.is_empty() => return None,
        NO_DEFAULT_ALPN | OHTTP => {}
        PORT => wire.extend(u16::try_from(number(value)?).ok()?.to_be_bytes()),
        IPV4_HINT => {
            for address in text.split(',') {
                wire.extend(address.parse::<Ipv4Addr>().ok()?.octets());
            }
        }
        IPV6_HINT => {
            for address in text.split(',') {
                wire.extend(address.parse::<Ipv6Addr>().ok()?.octets());
            }
        }
        ECH => drop(append_decoded(&BASE64, value, &mut wire).filter(|len| *len > 0)?),
        _ => wire.extend_from_slice(value),
    }
    u16::try_from(wire.len()).ok()?;
    Some(wire)
}

fn write_parameter(key: u16, value: &[u8], text: &mut String) -> Option<()> {
    text.push_str(&key_name(key));
    let empty = match key {
        NO_DEFAULT_ALPN | OHTTP => true,
        MANDATORY | ALPN | PORT | IPV4_HINT | ECH | IPV6_HINT => false,
        _ => value.is_empty(),
    };
    if empty {
        return value.is_empty().then_some(());
    }
    text.push('=');
    match key {
        MANDATORY => {
            let keys = value.as_chunks().0.iter().map(|key| u16::from_be_bytes(*key));
            if !keys.clone().is_sorted_by(|a, b| a < b) || keys.clone().any(|key| key == MANDATORY) {
                return None;
            }
            write_list(value, text, |&octets: &[u8; 2]| key_name(u16::from_be_bytes(octets)))?;
        }
        ALPN => push_quoted(text, &join_list(value)?),
        PORT => push(text, u16::from_be_bytes(value.try_into().ok()?)),
        IPV4_HINT => write_list(value, text, |&octets: &[u8; 4]| Ipv4Addr::from(octets))?,
        IPV6_HINT => write_list(value, text, |&octets: &[u8; 16]| Ipv6Addr::from(octets))?,
        ECH if value.is_empty() => return None,
        ECH => text.push_str(&BASE64.encode(value)),
        _ => push_quoted(text, value),
    }
    Some(())
}

fn write_list<const N: usize, T: std::fmt::Display>(
    value: &[u8],
    text: &mut String,
    item: impl Fn(&[u8; N]) -> T,
) -> Option<()> {
    let (items, rest) = value.as_chunks();
    if items.is_empty() || !rest.is_empty() {
        return None;
    }
    for (index, octets) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(text, item(octets));
    }
    Some(())
}

/// Splits a list at commas that no backslash escapes (RFC 9460 appendix A.1).
fn split_list(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut items = vec![Vec::new()];
    let mut octets = value.iter();
    while let Some(&octet) = octets.next() {
        match octet {
            b',' => items.push(Vec::new()),
            b'\\' => items.last_mut()?.push(octets.next().copied().filter(|next| matches!(next, b',' | b'\\'))?),
            octet => items.last_mut()?.push(octet),
        }
    }
    Some(items)
}

fn join_list(value: &[u8]) -> Option<Vec<u8>> {
    let mut octets = RdataOctets(value);
    let mut list = Vec::new();
    loop {
        let item = octets.counted()?;
        if item.is_empty() {
            return None;
        }
        for &octet in item {
            if matches!(octet, b',' | b'\\') {
                list.push(b'\\');
            }
            list.push(octet);
        }
        if octets.0.is_empty() {
            return Some(list);
        }
        list.push(b',');
    }
}

fn key_number(text: &[u8]) -> Option<u16> {
    if let Some((_, number)) = KEYS.iter().find(|(name, _)| name.as_bytes() == text) {
        return Some(*number);
    }
    // RFC 9460 section 2.1: no leading zeros. The last key is reserved (RFC 9460 section 14.3.2).
    let digits = text.strip_prefix(b"key").filter(|digits| digits.len() == 1 || !digits.starts_with(b"0"))?;
    number(digits).and_then(|number| u16::try_from(number).ok()).filter(|number| *number < u16::MAX)
}

fn key_name(key: u16) -> String {
    let name = KEYS.iter().find(|(_, number)| *number == key).map(|(name, _)| (*name).to_owned());
    name.unwrap_or_else(|| format!("key{key}"))
}

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const NO_DEFAULT_ALPN: u16 = 2;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
/// Encrypted ClientHello configurations (RFC 9848).
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;
/// Oblivious HTTP support (RFC 9540 section 4).
const OHTTP: u16 = 8;
/// The keys by name. Keys without a rule in this file accept any bytes as their value.
const KEYS: &[(&str, u16)] = &[
    ("mandatory", MANDATORY),
    ("alpn", ALPN),
    ("no-default-alpn", NO_DEFAULT_ALPN),
    ("port", PORT),
    ("ipv4hint", IPV4_HINT),
    ("ech", ECH),
    ("ipv6hint", IPV6_HINT),
    ("dohpath", 7),
    ("ohttp", OHTTP),
];
const PARAMETER_FORM: &str = "KEY or KEY=VALUE such as port=8443 or alpn=h2,h3";
const CONSISTENT: &str = "every key that \"mandatory\" names, and alpn beside no-default-alpn";
