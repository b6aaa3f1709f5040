//! Parsers of single words: names, numbers and strings.

use dns::{Name, NameError, RecordType};

use super::problem::{EntryError, EntryProblem, shown};
use super::token::{Lexer, ZoneFileWord};

pub(crate) struct Words<'w, 'a> {
    pub(crate) lexer: &'w mut Lexer<'a>,
    pub(crate) origin: Option<&'w Name>,
}

impl<'a> Words<'_, 'a> {
    pub(crate) fn any(&mut self) -> Result<Option<ZoneFileWord<'a>>, EntryError> {
        self.lexer.next()
    }

    pub(crate) fn has_more(&mut self) -> Result<bool, EntryError> {
        let word = self.lexer.next()?;
        if let Some(word) = word {
            self.lexer.put_back(word);
        }
        Ok(word.is_some())
    }

    pub(crate) fn next(&mut self, thing: &'static str, expected: &'static str) -> Result<ZoneFileWord<'a>, EntryError> {
        self.lexer
            .next()?
            .ok_or_else(|| EntryError::new(self.lexer.behind(), EntryProblem::Missing { thing, expected }))
    }

    pub(crate) fn end(&mut self) -> Result<(), EntryError> {
        match self.lexer.next()? {
            None => Ok(()),
            Some(word) => Err(word.error(EntryProblem::Extra)),
        }
    }

    pub(crate) fn number(&mut self, max: u64, expected: &'static str) -> Result<u64, EntryError> {
        let word = self.next("number", expected)?;
        number(word.text).filter(|number| *number <= max).ok_or_else(|| word.bad("number", expected))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EntryError> {
        self.number(0xFF, "0 to 255").map(|number| number as u8)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, EntryError> {
        self.number(0xFFFF, "0 to 65535").map(|number| number as u16)
    }

    pub(crate) fn name(&mut self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        let word = self.next("name", "a domain name")?;
        let mut wire = [0; Name::MAX_LEN];
        let len = read_name(word, self.origin, &mut wire)?;
        out.extend_from_slice(&wire[..len]);
        Ok(())
    }

    /// Joins all remaining words, because hexadecimal and base64 data may contain blanks anywhere.
    pub(crate) fn joined(&mut self) -> Result<Option<(usize, Vec<u8>)>, EntryError> {
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

pub(crate) fn read_name(
    word: ZoneFileWord<'_>,
    origin: Option<&Name>,
    wire: &mut [u8; Name::MAX_LEN],
) -> Result<usize, EntryError> {
    let end = match word.text {
        b"@" if !word.quoted => WordsEnd::Relative(0),
        b"." => {
            wire[0] = 0;
            return Ok(1);
        }
        text => read_labels(text, wire).map_err(|error| word.error(|found| EntryProblem::BadName(found, error)))?,
    };
    let at = match end {
        WordsEnd::Absolute(len) => return Ok(len),
        WordsEnd::Relative(at) => at,
    };
    let origin = origin.ok_or_else(|| word.error(EntryProblem::NoOrigin))?.as_wire();
    let rest = wire.get_mut(at..at + origin.len());
    rest.ok_or_else(|| word.error(|found| EntryProblem::BadName(found, NameError::TooLong)))?.copy_from_slice(origin);
    Ok(at + origin.len())
}

enum WordsEnd {
    Absolute(usize),
    /// The name ends without a dot. The origin follows after this length.
    Relative(usize),
}

fn read_labels(text: &[u8], wire: &mut [u8; Name::MAX_LEN]) -> Result<WordsEnd, NameError> {
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
        return Ok(WordsEnd::Relative(to));
    }
    match text {
        [] => Err(NameError::Empty),
        _ => {
            *wire.get_mut(length_at).ok_or(NameError::TooLong)? = 0;
            Ok(WordsEnd::Absolute(to))
        }
    }
}

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

#[cold]
fn no_letter(text: &[u8]) -> NameError {
    match shown(text).chars().next() {
        Some(character) if !character.is_ascii() => NameError::NotAscii(character),
        character => NameError::Unescaped(character.unwrap_or('\0')),
    }
}

/// Decodes an escape from the text after the `\`. Returns the byte and the length of the escape.
pub(crate) fn escaped(behind: &[u8]) -> Option<(u8, usize)> {
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

pub(crate) fn unescape(word: ZoneFileWord<'_>, out: &mut Vec<u8>) -> Result<(), EntryError> {
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

pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Parses a number of seconds, plain or with a unit after each number: `1w2d3h4m5s`.
pub(crate) fn seconds(text: &[u8]) -> Option<u64> {
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

pub(crate) fn record_type(word: ZoneFileWord<'_>) -> Result<RecordType, EntryError> {
    // A fast path for the most common types, because the list of all types is long.
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
