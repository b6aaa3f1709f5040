//! Words one by one, read as what a record or directive wants them to be: names, numbers, strings.

use super::problem::{EntryError, EntryProblem, shown};
use super::token::{Lexer, Word};
use crate::wire::{Name, NameError, RecordType};

/// The rest of an entry, and what its relative names are relative to.
pub(in crate::zone) struct Words<'w, 'a> {
    /// Gives the words.
    pub(in crate::zone) lexer: &'w mut Lexer<'a>,
    /// Ends relative names.
    pub(in crate::zone) origin: Option<&'w Name>,
}

impl<'a> Words<'_, 'a> {
    /// The next word, if there is one.
    pub(in crate::zone) fn any(&mut self) -> Result<Option<Word<'a>>, EntryError> {
        self.lexer.next()
    }

    /// The next word, which is to be this thing.
    pub(in crate::zone) fn next(
        &mut self,
        thing: &'static str,
        expected: &'static str,
    ) -> Result<Word<'a>, EntryError> {
        self.lexer
            .next()?
            .ok_or_else(|| EntryError::new(self.lexer.behind(), EntryProblem::Missing { thing, expected }))
    }

    /// Nothing must be left.
    pub(in crate::zone) fn end(&mut self) -> Result<(), EntryError> {
        match self.lexer.next()? {
            None => Ok(()),
            Some(word) => Err(word.error(EntryProblem::Extra)),
        }
    }

    /// A number up to a limit.
    pub(in crate::zone) fn number(&mut self, max: u64, expected: &'static str) -> Result<u64, EntryError> {
        let word = self.next("number", expected)?;
        number(word.text).filter(|number| *number <= max).ok_or_else(|| word.bad("number", expected))
    }

    /// An octet.
    pub(in crate::zone) fn u8(&mut self) -> Result<u8, EntryError> {
        self.number(0xFF, "0 to 255").map(|number| number as u8)
    }

    /// Two octets.
    pub(in crate::zone) fn u16(&mut self) -> Result<u16, EntryError> {
        self.number(0xFFFF, "0 to 65535").map(|number| number as u16)
    }

    /// Appends a name in wire form.
    pub(in crate::zone) fn name(&mut self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        let word = self.next("name", "a domain name")?;
        let mut wire = [0; Name::MAX_LEN];
        let len = read_name(word, self.origin, &mut wire)?;
        out.extend_from_slice(&wire[..len]);
        Ok(())
    }

    /// All that is left, its blanks taken out: data in hexadecimal or base64 may be split anywhere.
    pub(in crate::zone) fn joined(&mut self) -> Result<Option<(usize, Vec<u8>)>, EntryError> {
        let Some(first) = self.any()? else {
            return Ok(None);
        };
        let mut joined = first.text.to_vec();
        while let Some(word) = self.any()? {
            joined.extend_from_slice(word.text);
        }
        Ok(Some((first.at, joined)))
    }
}

/// Reads a name into a buffer and returns its length.
pub(in crate::zone) fn read_name(
    word: Word<'_>,
    origin: Option<&Name>,
    wire: &mut [u8; Name::MAX_LEN],
) -> Result<usize, EntryError> {
    let end = match word.text {
        b"@" if !word.quoted => End::Relative(0),
        b"." => {
            wire[0] = 0;
            return Ok(1);
        }
        text => read_labels(text, wire).map_err(|error| word.error(|found| EntryProblem::BadName(found, error)))?,
    };
    let at = match end {
        End::Absolute(len) => return Ok(len),
        End::Relative(at) => at,
    };
    let origin = origin.ok_or_else(|| word.error(EntryProblem::NoOrigin))?.as_wire();
    let rest = wire.get_mut(at..at + origin.len());
    rest.ok_or_else(|| word.error(|found| EntryProblem::BadName(found, NameError::TooLong)))?.copy_from_slice(origin);
    Ok(at + origin.len())
}

/// How the text of a name ended.
enum End {
    /// With a dot: the name has so many octets.
    Absolute(usize),
    /// Without: the origin comes behind so many octets.
    Relative(usize),
}

/// Reads labels into a buffer.
fn read_labels(text: &[u8], wire: &mut [u8; Name::MAX_LEN]) -> Result<End, NameError> {
    let mut length_at = 0;
    let mut to = 1;
    let mut from = 0;
    while let Some(&octet) = text.get(from) {
        from += 1;
        let octet = match octet {
            b'.' => {
                close_label(wire, length_at, to)?;
                length_at = to;
                to += 1;
                continue;
            }
            b'\\' => {
                let (octet, len) = escaped(text.get(from..).unwrap_or_default()).ok_or(NameError::BadEscape)?;
                from += len;
                octet
            }
            b'"' => return Err(NameError::Unescaped('"')),
            b'!'..=b'~' => octet,
            _ => return Err(no_letter(text.get(from - 1..).unwrap_or_default())),
        };
        *wire.get_mut(to).ok_or(NameError::TooLong)? = octet;
        to += 1;
    }
    if to > length_at + 1 {
        close_label(wire, length_at, to)?;
        return Ok(End::Relative(to));
    }
    match text {
        [] => Err(NameError::Empty),
        _ => {
            *wire.get_mut(length_at).ok_or(NameError::TooLong)? = 0;
            Ok(End::Absolute(to))
        }
    }
}

/// Writes the length of a label that ends before `to` in front of it.
fn close_label(wire: &mut [u8; Name::MAX_LEN], length_at: usize, to: usize) -> Result<(), NameError> {
    match to - length_at - 1 {
        0 => Err(NameError::EmptyLabel),
        len if len > Name::MAX_LABEL_LEN => Err(NameError::LabelTooLong),
        len => {
            *wire.get_mut(length_at).ok_or(NameError::TooLong)? = len as u8;
            Ok(())
        }
    }
}

/// What is wrong with the first character of a text that cannot stand in a name.
#[cold]
fn no_letter(text: &[u8]) -> NameError {
    match shown(text).chars().next() {
        Some(character) if !character.is_ascii() => NameError::NotAscii(character),
        character => NameError::Unescaped(character.unwrap_or('\0')),
    }
}

/// The octet that an escape stands for, and the octets behind the `\` that it takes.
pub(in crate::zone) fn escaped(behind: &[u8]) -> Option<(u8, usize)> {
    match behind {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] => {
            let digit = |octet: u8| u32::from(octet - b'0');
            let value = digit(*a) * 100 + digit(*b) * 10 + digit(*c);
            Some((u8::try_from(value).ok()?, 3))
        }
        [b'0'..=b'9', ..] | [] => None,
        [octet, ..] => Some((*octet, 1)),
    }
}

/// Appends what a string stands for, its escapes resolved.
pub(in crate::zone) fn unescape(word: Word<'_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
    let mut rest = word.text;
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match octet {
            b'\\' => {
                let (octet, len) = escaped(behind)
                    .ok_or_else(|| word.bad("string", "behind \\ a character, or three digits up to 255"))?;
                out.push(octet);
                rest = behind.get(len..).unwrap_or_default();
            }
            b'"' => return Err(word.bad("string", "quotes around all of it, or \\\" for a quote within")),
            octet => out.push(octet),
        }
    }
    Ok(())
}

/// A decimal number without a sign.
pub(in crate::zone) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A number of seconds, plain or with units: `1w2d3h4m5s`, each number with its unit.
pub(in crate::zone) fn seconds(text: &[u8]) -> Option<u64> {
    if let Some(plain) = number(text) {
        return Some(plain);
    }
    let mut sum = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.iter().position(|octet| !octet.is_ascii_digit())?;
        let (count, unit) = rest.split_at_checked(digits)?;
        let (unit, behind) = unit.split_first()?;
        let unit = match unit.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        sum = sum.checked_add(number(count)?.checked_mul(unit)?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(sum)
}

/// A record type by its mnemonic or as `TYPEn`.
pub(in crate::zone) fn record_type(word: Word<'_>) -> Result<RecordType, EntryError> {
    // The list of all types is long; these are nearly all records of nearly all zones.
    match word.text {
        b"A" => Ok(RecordType::A),
        b"AAAA" => Ok(RecordType::AAAA),
        b"NS" => Ok(RecordType::NS),
        b"DS" => Ok(RecordType::DS),
        b"MX" => Ok(RecordType::MX),
        b"TXT" => Ok(RecordType::TXT),
        b"CNAME" => Ok(RecordType::CNAME),
        b"PTR" => Ok(RecordType::PTR),
        b"RRSIG" => Ok(RecordType::RRSIG),
        b"NSEC" => Ok(RecordType::NSEC),
        b"NSEC3" => Ok(RecordType::NSEC3),
        _ => word.as_str().parse().map_err(|_| word.error(EntryProblem::UnknownType)),
    }
}
