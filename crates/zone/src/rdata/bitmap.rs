//! Sets of record types as bitmaps (RFC 4034 section 4.1.2).

use dns::RecordType;

use super::write::{RdataOctets, push};
use crate::load::master::{EntryError, Words, record_type};

pub(super) fn read(words: &mut Words<'_, '_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let mut types = Vec::new();
    while let Some(word) = words.any()? {
        types.push(record_type(word)?.0.to_be_bytes());
    }
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a[0] == b[0]) {
        let mut bits = [0_u8; 32];
        let mut len = 0;
        for &[_, bit] in window {
            bits[usize::from(bit / 8)] |= 0x80 >> (bit % 8);
            len = bit / 8 + 1;
        }
        out.extend(window.first().map(|[number, _]| *number));
        out.push(len);
        out.extend_from_slice(&bits[..usize::from(len)]);
    }
    Ok(())
}

pub(super) fn write(octets: &mut RdataOctets<'_>, text: &mut String) -> Option<()> {
    let mut last = None;
    let mut separator = "";
    while !octets.0.is_empty() {
        let window = octets.u8()?;
        let bits = octets.counted()?;
        // The canonical form has no trailing zeros and no empty windows, and the windows are in order.
        if last.is_some_and(|last| last >= window) || bits.len() > 32 || bits.last().is_none_or(|octet| *octet == 0) {
            return None;
        }
        last = Some(window);
        for bit in 0..=u8::MAX {
            if bits.get(usize::from(bit / 8)).is_some_and(|octet| octet & (0x80 >> (bit % 8)) != 0) {
                text.push_str(separator);
                push(text, RecordType(u16::from_be_bytes([window, bit])));
                separator = " ";
            }
        }
    }
    Some(())
}
