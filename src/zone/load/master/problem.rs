//! What can be wrong with an entry of a master file, and where in the text it is.

use std::fmt;

use crate::wire::{NameError, RecordType};

/// What is wrong with an entry. Its `Display` also says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryProblem {
    /// A word that is not what stands at its place.
    Bad {
        /// What stands there.
        thing: &'static str,
        /// The word.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The entry ends too early.
    Missing {
        /// What would come next.
        thing: &'static str,
        /// What that looks like.
        expected: &'static str,
    },
    /// The entry should have ended before this word.
    Extra(String),
    /// A name that is none.
    BadName(String, NameError),
    /// A relative name where there is no origin.
    NoOrigin(String),
    /// A `(` without its `)`.
    UnclosedParenthesis,
    /// A `)` without its `(`.
    StrayParenthesis,
    /// A quote that is not closed on its line.
    UnclosedQuote,
    /// The first record has no owner name.
    NoOwner,
    /// A record without a TTL before any other had one.
    NoTtl,
    /// A class other than IN.
    OtherClass(String),
    /// A type that does not exist.
    UnknownType(String),
    /// A type that asks for data and is none.
    MetaType(RecordType),
    /// A type whose data have no text form but that of RFC 3597.
    NoTextForm(RecordType),
    /// A `$` word that is no directive.
    UnknownDirective(String),
    /// The hexadecimal data of RFC 3597 are not as long as they say.
    GenericLength {
        /// What is said.
        stated: usize,
        /// What is there.
        found: usize,
    },
    /// The hexadecimal data of RFC 3597 are not what the type wants.
    GenericForm(RecordType),
    /// Data of over 65,535 octets.
    TooLong,
    /// A file that could not be read, and the caller's reason.
    Include(String, String),
    /// A file outside the folder of the zone file.
    IncludeOutside(String),
    /// A file that is being read already.
    IncludeLoop(String),
    /// Files within files within files.
    IncludeTooDeep,
    /// More files than any zone has.
    TooManyFiles,
    /// A range of `$GENERATE` whose last number comes before its first.
    RangeBackwards {
        /// The first number.
        start: u32,
        /// The last one.
        stop: u32,
    },
    /// A number in a range of `$GENERATE` that is too large.
    RangeNumber(u64),
    /// A range of `$GENERATE` that is too long.
    RangeTooLong(u64),
    /// A value that cannot be written as the pattern of `$GENERATE` wants it.
    Negative(i64),
    /// A line that `$GENERATE` made is wrong.
    Generated(String, Box<Self>),
}

impl fmt::Display for EntryProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad { thing, found, expected } => write!(f, "bad {thing} {found:?}, expected {expected}"),
            Self::Missing { thing, expected } => write!(f, "{thing} is missing, expected {expected}"),
            Self::Extra(word) => {
                write!(f, "unexpected {word:?}, expected the end of the entry (comments begin with ;)")
            }
            Self::BadName(word, error) => write!(f, "bad name {word:?}: {error}"),
            Self::NoOrigin(word) => {
                write!(
                    f,
                    "name {word:?} is relative and there is no origin: end it with a dot, or put $ORIGIN in front"
                )
            }
            Self::UnclosedParenthesis => f.write_str("parenthesis is never closed, expected ) at the end of the entry"),
            Self::StrayParenthesis => f.write_str("unexpected \")\", expected ( in front of it"),
            Self::UnclosedQuote => f.write_str("quote is not closed on its line, expected \" (a newline is \\010)"),
            Self::NoOwner => {
                f.write_str("no owner name to repeat, expected one at the start of the first record's line")
            }
            Self::NoTtl => f.write_str("TTL is missing, expected one here or in a $TTL above"),
            Self::OtherClass(word) => write!(f, "class {word:?} is not served, expected IN"),
            Self::UnknownType(word) => {
                write!(f, "unknown type {word:?}, expected one such as A or MX, or TYPE and its number")?;
                match nearest_type(word) {
                    Some(near) => write!(f, ", did you mean {near:?}?"),
                    None => Ok(()),
                }
            }
            Self::MetaType(rtype) => write!(f, "type {rtype} holds no data, expected one such as A or MX"),
            Self::NoTextForm(rtype) => {
                write!(f, "data of type {rtype} have no text form, expected \\# LENGTH HEX")
            }
            Self::UnknownDirective(word) => {
                write!(f, "unknown directive {word:?}, expected $ORIGIN, $TTL, $INCLUDE or $GENERATE")
            }
            Self::GenericLength { stated, found } => {
                write!(f, "data are {found} octets long, expected {stated} as stated behind \\#")
            }
            Self::GenericForm(rtype) => write!(f, "data are not in the form of type {rtype}, expected its wire form"),
            Self::TooLong => f.write_str("data are too long, expected at most 65535 octets"),
            Self::Include(name, reason) => write!(f, "cannot read {name:?}: {reason}"),
            Self::IncludeOutside(name) => {
                write!(f, "{name:?} is outside the folder of the zone file, expected a file in it or below it")
            }
            Self::IncludeLoop(name) => write!(f, "{name:?} is being read already, expected no file to include itself"),
            Self::IncludeTooDeep => f.write_str("files are included too deeply, expected at most 16 within each other"),
            Self::TooManyFiles => f.write_str("too many files are included, expected at most 10000"),
            Self::RangeBackwards { start, stop } => {
                write!(f, "range {start}-{stop} runs backwards, expected {stop}-{start}")
            }
            Self::RangeNumber(u64::MAX) => {
                f.write_str("a number in the range is too large, expected at most 2147483647")
            }
            Self::RangeNumber(number) => write!(f, "{number} in the range is too large, expected at most 2147483647"),
            Self::RangeTooLong(count) => write!(f, "range of {count} values is too long, expected at most 1048576"),
            Self::Negative(value) => write!(f, "value {value} is negative, expected an offset that keeps it above"),
            Self::Generated(line, problem) => write!(f, "in the generated line {line:?}: {problem}"),
        }
    }
}

/// A problem and the octet of the text that it is about.
#[derive(Debug)]
pub(in crate::zone) struct EntryError {
    /// From the start of the text.
    pub(in crate::zone) at: usize,
    /// In a box, since there is hardly ever one and results are passed around a lot.
    pub(in crate::zone) problem: Box<EntryProblem>,
}

impl EntryError {
    /// A problem at a place.
    #[cold]
    pub(in crate::zone) fn new(at: usize, problem: EntryProblem) -> Self {
        Self { at, problem: Box::new(problem) }
    }
}

/// Octets of the file as they are shown in a message: not too many of them.
#[cold]
pub(in crate::zone) fn shown(text: &[u8]) -> String {
    let mut shown = String::from_utf8_lossy(text.get(..SHOWN_LEN).unwrap_or(text)).into_owned();
    if text.len() > SHOWN_LEN {
        shown.push_str("...");
    }
    shown
}

/// Octets of a word that a message shows.
const SHOWN_LEN: usize = 60;

/// The type that a word may be a slip of the keyboard for.
fn nearest_type(word: &str) -> Option<&'static str> {
    let typed = word.to_ascii_uppercase();
    // Among short mnemonics more than one edit is no likeness, and A is one edit from every other letter.
    let named = RecordType::NAMED.iter().map(|(name, _)| *name).filter(|name| name.len() > 1);
    named.into_iter().find(|name| strsim::damerau_levenshtein(&typed, name) == 1)
}
