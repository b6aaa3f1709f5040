//! `$GENERATE`: one record for each number of a range, as BIND has it.
//!
//! `$GENERATE 1-10/2 host-$ A 192.0.2.$` makes five lines. `$` is the number, `${OFFSET,WIDTH,BASE}` the number plus the
//! offset, padded with zeros, in base `d`, `o`, `x` or `X`, or as nibbles in reverse (`n`, `N`) for `ip6.arpa`; `$$` and
//! `\$` are a dollar sign.

use super::problem::{EntryError, EntryProblem};
use super::token::{Lexer, Word};
use super::words::{Words, number};

/// A range and the line that its numbers are put into.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The first number.
    start: u32,
    /// The last one, or the one before which there is none.
    stop: u32,
    /// From one to the next.
    step: u32,
    /// What a line is made of.
    pieces: Vec<Piece>,
    /// For messages about numbers.
    at: usize,
}

/// A part of the line.
#[derive(Debug)]
enum Piece {
    /// As it stands.
    Text(Vec<u8>),
    /// The number.
    Value {
        /// Is added to it.
        offset: i64,
        /// So many characters at least.
        width: usize,
        /// How it is written.
        base: Base,
    },
}

/// How a number is written.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// Decimal.
    Decimal,
    /// Octal.
    Octal,
    /// Hexadecimal.
    Hex {
        /// With capitals.
        upper: bool,
    },
    /// Hexadecimal digits, the last one first, with dots between; the width counts dots too.
    Nibbles {
        /// With capitals.
        upper: bool,
    },
}

impl Pattern {
    /// Reads what stands behind `$GENERATE`.
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
            // The entry has ended, so this is an error.
            words.next("pattern", "RANGE OWNER TTL CLASS TYPE DATA")?;
        }
        Ok(Self { start, stop, step, pieces, at: range.at })
    }

    /// The numbers.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> + use<> {
        (self.start..=self.stop).step_by(self.step as usize)
    }

    /// Writes the line of a number.
    pub(super) fn write(&self, value: u32, line: &mut Vec<u8>) -> Result<(), EntryError> {
        line.clear();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.extend_from_slice(text),
                Piece::Value { offset, width, base } => {
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

impl Base {
    /// Writes a number.
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

/// Hexadecimal digits in reverse, with dots.
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

/// Reads `START-STOP` or `START-STOP/STEP`, whose step is not 0. What does not fit into 64 bits is as large as these can tell.
fn read_range(text: &[u8]) -> Option<(u64, u64, u64)> {
    let (range, step) = match text.iter().position(|octet| *octet == b'/') {
        Some(slash) => (text.get(..slash)?, saturating(text.get(slash + 1..)?)?),
        None => (text, 1),
    };
    let dash = range.iter().position(|octet| *octet == b'-')?;
    let (start, stop) = (saturating(range.get(..dash)?)?, saturating(range.get(dash + 1..)?)?);
    (step > 0).then_some((start, stop, step))
}

/// A number, or the largest one if it is too large.
fn saturating(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| number(text).unwrap_or(u64::MAX))
}

/// Takes a word apart, quotes and all, and puts a blank behind it.
fn read_word(word: Word<'_>, pieces: &mut Vec<Piece>) -> Result<(), EntryError> {
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
                    _ => (Piece::Value { offset: 0, width: 0, base: Base::Decimal }, behind),
                };
                pieces.extend([Piece::Text(std::mem::take(&mut text)), value]);
                rest = behind;
            }
            _ => text.push(octet),
        }
    }
    if word.quoted {
        text.push(b'"');
    }
    text.push(b' ');
    pieces.push(Piece::Text(text));
    Ok(())
}

/// Reads `{OFFSET,WIDTH,BASE}`, of which the last two may be left out; returns what stands behind it.
fn read_value(text: &[u8]) -> Option<(Piece, &[u8])> {
    let close = text.iter().position(|octet| *octet == b'}')?;
    let inner = std::str::from_utf8(text.get(1..close)?).ok()?;
    let mut parts = inner.split(',');
    let offset = parts.next()?.parse::<i32>().ok()?.into();
    let width = match parts.next() {
        Some(width) => width.parse().ok().filter(|width| *width <= MAX_WIDTH)?,
        None => 0,
    };
    let base = match parts.next() {
        None | Some("d") => Base::Decimal,
        Some("o") => Base::Octal,
        Some("x") => Base::Hex { upper: false },
        Some("X") => Base::Hex { upper: true },
        Some("n") => Base::Nibbles { upper: false },
        Some("N") => Base::Nibbles { upper: true },
        Some(_) => return None,
    };
    if parts.next().is_some() {
        return None;
    }
    Some((Piece::Value { offset, width, base }, text.get(close + 1..)?))
}

/// What a range looks like.
const RANGE_FORM: &str = "START-STOP or START-STOP/STEP, such as 1-254";
/// What a number in the line looks like.
const PATTERN_FORM: &str = "$, or ${OFFSET,WIDTH,BASE} with base d, o, x, X, n or N";
/// The largest number of a range, as in BIND.
const MAX_NUMBER: u32 = i32::MAX as u32;
/// Records that one directive may make.
const MAX_COUNT: u64 = 1 << 20;
/// Characters of a number: no name is longer.
const MAX_WIDTH: usize = 255;
