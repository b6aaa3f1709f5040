//! Writes RDATA as text, field by field, in a form that reads back identically.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use data_encoding::{BASE32HEX_NOPAD, BASE64, HEXLOWER, HEXUPPER};
use dns::{Field, RecordType, display_name, suffixes};

use super::read::form_with_text;
use super::{apl, bitmap, gateway, location, svcb, time};

/// Formats RDATA as master-file text. Unknown types and data that do not fit their type use the generic form
/// of RFC 3597 section 5.
pub fn rdata_to_text(rtype: RecordType, rdata: &[u8]) -> String {
    fields_to_text(rtype, rdata).filter(|text| !text.is_empty()).unwrap_or_else(|| match rdata {
        [] => r"\# 0".to_owned(),
        octets => format!(r"\# {} {}", octets.len(), HEXLOWER.encode(octets)),
    })
}

pub(super) fn fits(rtype: RecordType, rdata: &[u8]) -> bool {
    fields_to_text(rtype, rdata).is_some()
}

/// Formats the data in the form of their type. Returns `None` if they do not fit exactly.
fn fields_to_text(rtype: RecordType, rdata: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut octets = RdataOctets(rdata);
    for field in form_with_text(rtype)?.fields {
        let start = text.len();
        write_field(*field, &mut octets, &mut text)?;
        if start > 0 && text.len() > start {
            text.insert(start, ' ');
        }
    }
    octets.0.is_empty().then_some(text)
}

pub(super) struct RdataOctets<'a>(pub(super) &'a [u8]);

impl<'a> RdataOctets<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn counted(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    pub(super) fn name(&mut self) -> Option<&'a [u8]> {
        let root = suffixes(self.0).find(|rest| rest.first() == Some(&0))?;
        let len = self.0.len() - root.len() + 1;
        dns::Name::from_wire(self.0.get(..len)?).ok()?;
        self.take(len)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

fn write_field(field: Field, octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    match field {
        Field::U8 | Field::Code8(_) => push(text, octets.u8()?),
        Field::U16 | Field::Code16(_) => push(text, octets.u16()?),
        Field::U32 | Field::Period => push(text, octets.u32()?),
        Field::U64 => push(text, u64::from_be_bytes(octets.array()?)),
        Field::Time => push(text, time::text(octets.u32()?)),
        Field::Type => push(text, RecordType(octets.u16()?)),
        Field::Ipv4 => push(text, Ipv4Addr::from(octets.array::<4>()?)),
        Field::Ipv6 => push(text, Ipv6Addr::from(octets.array::<16>()?)),
        Field::Name => push(text, display_name(octets.name()?)),
        Field::Names => {
            let mut separator = "";
            while !octets.0.is_empty() {
                text.push_str(separator);
                push(text, display_name(octets.name()?));
                separator = " ";
            }
        }
        Field::Text => push_quoted(text, octets.counted()?),
        Field::OptionalText if octets.0.is_empty() => {}
        Field::OptionalText => push_quoted(text, octets.counted()?),
        Field::Texts => {
            push_quoted(text, octets.counted()?);
            while !octets.0.is_empty() {
                text.push(' ');
                push_quoted(text, octets.counted()?);
            }
        }
        Field::Tag => {
            let tag = octets.counted()?;
            if tag.is_empty() || !tag.iter().all(u8::is_ascii_alphanumeric) {
                return None;
            }
            text.extend(tag.iter().map(|octet| char::from(*octet)));
        }
        Field::Rest => push_quoted(text, octets.rest()),
        Field::Hex => text.push_str(&HEXUPPER.encode(some(octets.rest())?)),
        Field::Base64 => text.push_str(&BASE64.encode(some(octets.rest())?)),
        Field::OptionalBase64 => text.push_str(&BASE64.encode(octets.rest())),
        Field::DashBase64 if octets.0.is_empty() => text.push('-'),
        Field::DashBase64 => text.push_str(&BASE64.encode(octets.rest())),
        Field::Salt | Field::Hash | Field::Groups { .. } | Field::Nsap => write_digits(field, octets, text)?,
        Field::Types => bitmap::write(octets, text)?,
        Field::Prefixes => apl::write(octets, text)?,
        Field::Location => location::write(octets, text)?,
        Field::IpsecGateway => gateway::write_ipsec(octets, text)?,
        Field::Relay => gateway::write_relay(octets, text)?,
        Field::HostIdentity => gateway::write_host_identity(octets, text)?,
        Field::Parameters => svcb::write(octets, text)?,
        Field::Opaque => return None,
    }
    Some(())
}

/// Writes a field of digits in one word.
fn write_digits(field: Field, octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    match field {
        Field::Salt => match octets.counted()? {
            [] => text.push('-'),
            salt => text.push_str(&HEXUPPER.encode(salt)),
        },
        Field::Hash => text.push_str(&BASE32HEX_NOPAD.encode(some(octets.counted()?)?)),
        Field::Groups { count, octets: len, separator } => {
            for index in 0..count {
                if index > 0 {
                    text.push(separator);
                }
                text.push_str(&HEXLOWER.encode(octets.take(len)?));
            }
        }
        _ => push(text, format_args!("0x{}", HEXUPPER.encode(some(octets.rest())?))),
    }
    Some(())
}

fn some(octets: &[u8]) -> Option<&[u8]> {
    (!octets.is_empty()).then_some(octets)
}

pub(super) fn push(text: &mut String, value: impl std::fmt::Display) {
    write!(text, "{value}").expect("a String takes all that is written");
}

/// Appends a string in quotes (RFC 1035 section 5.1).
pub(super) fn push_quoted(text: &mut String, octets: &[u8]) {
    text.push('"');
    for &octet in octets {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(octet)]),
            b' '..=b'~' => text.push(char::from(octet)),
            _ => push(text, format_args!("\\{octet:03}")),
        }
    }
    text.push('"');
}
