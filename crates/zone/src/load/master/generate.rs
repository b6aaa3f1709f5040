//! `$GENERATE`: one record for each number of a range, compatible with BIND.
//!
//! `$GENERATE 1-10/2 host-$ A 192.0.2.$` creates five records. `$` is the number. `${OFFSET,WIDTH,BASE}` is
//! the number plus the offset, padded with zeros, in base `d`, `o`, `x` or `X`, or as reversed nibbles (`n`,
//! `N`) for `ip6.arpa`. `$$` and `\$` are a dollar sign.

use super::problem::{EntryError, EntryProblem};
use super::token::{Lexer, ZoneFileWord};
use super::words::{Words, number};

#[derive(Debug)]
pub(super) struct Pattern {
    start: u32,
    stop: u32,
    step: u32,
    pieces: Vec<TemplatePiece>,
    at: usize,
}

#[derive(Debug)]
enum TemplatePiece {
    Text(Vec<u8>),
    Value { offset: i64, width: usize, base: NumberBase },
}

#[derive(Clone, Copy, Debug)]
enum NumberBase {
    Decimal,
    Octal,
    Hex {
        upper: bool,
    },
    /// Hexadecimal digits in reverse order, separated by dots. The width includes the dots.
    Nibbles {
        upper: bool,
    },
}

impl Pattern {
    pub(super) fn read(lexer: &mut Lexer<'_>) -> Result<Self, EntryError> {
        let mut words = Words { lexer, origin: None };
        let range = words.next("range", RANGE_FORM)?;
        let (start, stop, step) = read_range(range.text).ok_or_else(|| range.bad("range", RANGE_FORM))?;
        let limited = |number: u64| match u32::try_from(number).ok().filter(|number| *number <= MAX_NUMBER) {
            Some(number) => Ok(number),
            None => Err(EntryError::new(range.at, EntryProblem::RangeNumber(number))),
        };
        let (start, stop, step) = (limited(start)?, limited(stop)?, limited(step)?);
        if start > stop {
            return Err(EntryError::new(range.at, EntryProblem::RangeBackwards { start, stop }));
        }
        let count = u64::from((stop - start) / step) + 1;
        if count > MAX_COUNT {
            return Err(EntryError::new(range.at, EntryProblem::RangeTooLong(count)));
        }
        let mut pieces = Vec::new();
        let mut count = 0;
        while let Some(word) = words.any()? {
            read_word(word, &mut pieces)?;
            count += 1;
        }
        if count < 3 {
            words.next("pattern", "RANGE OWNER TTL CLASS TYPE DATA")?;
        }
        Ok(Self { start, stop, step, pieces, at: range.at })
    }

    pub(super) fn values(&self) -> impl Iterator<Item = u32> + use<> {
        (self.start..=self.stop).step_by(self.step as usize)
    }

    pub(super) fn write(&self, value: u32, line: &mut Vec<u8>) -> Result<(), EntryError> {
        line.clear();
        for piece in &self.pieces {
            match piece {
                TemplatePiece::Text(text) => line.extend_from_slice(text),
                TemplatePiece::Value { offset, width, base } => {
                    let value = i64::from(value) + offset;
                    let value =
                        u64::try_from(value).map_err(|_| EntryError::new(self.at, EntryProblem::Negative(value)))?;
                    base.write(value, *width, line);
                }
            }
        }
        Ok(())
    }
}

impl NumberBase {
    fn write(self, value: u64, width: usize, line: &mut Vec<u8>) {
        let text = match self {
            Self::Decimal => format!("{value:0width$}"),
            Self::Octal => format!("{value:0width$o}"),
            Self::Hex { upper: false } => format!("{value:0width$x}"),
            Self::Hex { upper: true } => format!("{value:0width$X}"),
            Self::Nibbles { upper } => nibbles(value, width, upper),
        };
        line.extend_from_slice(text.as_bytes());
    }
}

fn nibbles(mut value: u64, width: usize, upper: bool) -> String {
    let mut text = String::new();
    loop {
        let digit = char::from_digit((value & 0xF) as u32, 16).unwrap_or('0');
        text.push(if upper { digit.to_ascii_uppercase() } else { digit });
        value >>= 4;
        if value == 0 && text.len() >= width {
            return text;
        }
        text.push('.');
        if value == 0 && text.len() >= width {
            return text;
        }
    }
}

/// Reads `START-STOP` or `START-STOP/STEP` with a nonzero step. Values beyond 64 bits become the maximum.
fn read_range(text: &[u8]) -> Option<(u64, u64, u64)> {
    let (range, step) = match text.iter().position(|octet| *octet == b'/') {
        Some(slash) => (text.get(..slash)?, saturating(text.get(slash + 1..)?)?),
        None => (text, 1),
    };
    let dash = range.iter().position(|octet| *octet == b'-')?;
    let (start, stop) = (saturating(range.get(..dash)?)?, saturating(range.get(dash + 1..)?)?);
    (step > 0).then_some((start, stop, step))
}

fn saturating(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| number(text).unwrap_or(u64::MAX))
}

/// Splits a word, with its quotes, into pieces and appends a space.
fn read_word(word: ZoneFileWord<'_>, pieces: &mut Vec<TemplatePiece>) -> Result<(), EntryError> {
    let mut text = Vec::new();
    if word.quoted {
        text.push(b'"');
    }
    let mut rest = word.text;
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        match (octet, behind.first()) {
            (b'\\', Some(&next)) => {
                text.extend_from_slice(&[octet, next]);
                rest = behind.get(1..).unwrap_or_default();
            }
            (b'$', Some(b'$')) => {
                text.push(b'$');
                rest = behind.get(1..).unwrap_or_default();
            }
            (b'$', next) => {
                let (value, behind) = match next {
                    Some(b'{') => read_value(behind).ok_or_else(|| word.bad("pattern", PATTERN_FORM))?,
                    _ => (TemplatePiece::Value { offset: 0, width: 0, base: NumberBase::Decimal }, behind),
                };
                pieces.extend([TemplatePiece::Text(std::mem::take(&mut text)), value]);
                rest = behind;
            }
            _ => text.push(octet),
        }
    }
    if word.quoted {
        text.push(b'"');
    }
    text.push(b' ');
    pieces.push(TemplatePiece::Text(text));
    Ok(())
}

/// Reads `{OFFSET,WIDTH,BASE}`, of which the last two are optional. Returns the rest of the text.
fn read_value(text: &[u8]) -> Option<(TemplatePiece, &[u8])> {
    let close = text.iter().position(|octet| *octet == b'}')?;
    let inner = std::str::from_utf8(text.get(1..close)?).ok()?;
    let mut parts = inner.split(',');
    let offset = parts.next()?.parse::<i32>().ok()?.into();
    let width = match parts.next() {
        Some(width) => width.parse().ok().filter(|width| *width <= MAX_WIDTH)?,
        None => 0,
    };
    let base = match parts.next() {
        None | Some("d") => NumberBase::Decimal,
        Some("o") => NumberBase::Octal,
        Some("x") => NumberBase::Hex { upper: false },
        Some("X") => NumberBase::Hex { upper: true },
        Some("n") => NumberBase::Nibbles { upper: false },
        Some("N") => NumberBase::Nibbles { upper: true },
        Some(_) => return None,
    };
    if parts.next().is_some() {
        return None;
    }
    Some((TemplatePiece::Value { offset, width, base }, text.get(close + 1..)?))
}

const RANGE_FORM: &str = "START-STOP or START-STOP/STEP, such as 1-254";
const PATTERN_FORM: &str = "$, or ${OFFSET,WIDTH,BASE} with base d, o, x, X, n or N";
/// The largest number of a range, as in BIND.
const MAX_NUMBER: u32 = i32::MAX as u32;
const MAX_COUNT: u64 = 1 << 20;
/// The largest width, because no name is longer.
const MAX_WIDTH: usize = 255;
