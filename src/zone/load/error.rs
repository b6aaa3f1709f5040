//! Errors in zone files, each with its place and remedy.
//!
//! A [`FileProblem`] names the problem and the remedy. A [`LineError`] adds the column, a [`FileError`] the
//! file and line. An authority reports all problems of all files together.

use std::error::Error;
use std::fmt;

use super::master::EntryProblem;
use crate::wire::NameError;

/// All errors in the zone files of one authority, in reading order. Never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct FileErrors(Vec<FileError>);

impl FileErrors {
    pub(in crate::zone) fn check(errors: Vec<FileError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// Iterates over the errors.
    pub fn iter(&self) -> impl Iterator<Item = &FileError> {
        self.0.iter()
    }
}

/// The most errors listed per file, so that a file of another kind does not fill the screen or memory.
pub(in crate::zone) const MAX_ERRORS: usize = 1000;

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl Error for FileErrors {}

/// A problem and its place: `zones/ts1.txt:7:12: ...`.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file name as given by the caller.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The problem and its column.
    pub error: LineError,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, error } = self;
        write!(f, "{file}:{line}:{}: {}", error.column, error.problem)
    }
}

/// A problem and its column.
#[derive(Debug, PartialEq, Eq)]
pub struct LineError {
    /// The column in characters, from 1.
    pub column: usize,
    /// The problem in the line.
    pub problem: FileProblem,
}

/// A problem in a zone file. The `Display` form includes the remedy.
#[derive(Debug, PartialEq, Eq)]
pub enum FileProblem {
    /// A table contains a word of a master file.
    MasterFile(String),
    /// The line has only a host.
    NoAddress,
    /// The line has a host and a second field, but no type.
    NoType,
    /// The line has more than three fields.
    TooMany(String),
    /// The type and the address are swapped.
    Swapped,
    /// A host or name server is not a valid domain name.
    BadName(String, NameError),
    /// The host is the root.
    RootHost,
    /// The host has an asterisk label.
    Wildcard(String),
    /// The type exists, but tables do not support it.
    OtherType(String),
    /// The type does not exist.
    UnknownType(String),
    /// An A record has no IPv4 address.
    BadIpv4(String),
    /// An AAAA record has no IPv6 address.
    BadIpv6(String),
    /// An A record has an IPv6 address.
    Ipv6InA(String),
    /// An AAAA record has an IPv4 address.
    Ipv4InAaaa(String),
    /// The line is `HOST - A` or `HOST - AAAA`, with this type.
    NoAddressForType(&'static str),
    /// An NS line has something other than `-` in its second field.
    AddressWithNs(String),
    /// A host has more addresses of one type than one message can hold.
    TooManyAddresses {
        /// The maximum number of addresses of this type per host.
        limit: usize,
    },
    /// The NS lines exceed the size of one referral.
    TooManyNameServers,
    /// A problem in an entry of a master file, and the chain of its includes.
    Entry(EntryProblem, String),
    /// The number of further problems that are not listed.
    More(usize),
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MasterFile(word) => {
                write!(f, "{word:?} belongs in a master file, but lines of a table stand before: expected {GRAMMAR}")
            }
            Self::NoAddress => write!(f, "address and type are missing, expected {GRAMMAR}"),
            Self::NoType => write!(f, "type is missing, expected {GRAMMAR}"),
            Self::TooMany(field) => {
                write!(f, "unexpected {field:?} after the type, expected {GRAMMAR} (a comment begins with #)")
            }
            Self::Swapped => write!(f, "type stands before address, expected {GRAMMAR}"),
            Self::BadName(field, error) => write!(f, "bad name {field:?}: {error}"),
            Self::RootHost => f.write_str("the root is no host, expected a name such as www.example.org"),
            Self::Wildcard(field) => {
                write!(f, "{field:?} is a wildcard, which tables do not have, expected one line for each host")
            }
            Self::OtherType(field) => {
                write!(f, "type {field:?} has no place in a table, expected A, AAAA or NS")
            }
            Self::UnknownType(field) => {
                write!(f, "unknown type {field:?}, expected A, AAAA or NS")?;
                match nearest_type(field) {
                    Some(near) => write!(f, ", did you mean {near:?}?"),
                    None => Ok(()),
                }
            }
            Self::BadIpv4(field) => {
                write!(f, "bad IPv4 address {field:?}, expected four numbers of 0 to 255 such as 192.0.2.1")
            }
            Self::BadIpv6(field) => {
                write!(f, "bad IPv6 address {field:?}, expected one such as 2001:db8::1")
            }
            Self::Ipv6InA(field) => {
                write!(f, "{field:?} is an IPv6 address, type A takes IPv4: did you mean \"AAAA\"?")
            }
            Self::Ipv4InAaaa(field) => {
                write!(f, "{field:?} is an IPv4 address, type AAAA takes IPv6: did you mean \"A\"?")
            }
            Self::NoAddressForType(rtype) => {
                write!(f, "type {rtype} needs an address, expected {GRAMMAR} (HOST - NS is for name servers)")
            }
            Self::AddressWithNs(field) => {
                write!(f, "{field:?} in an NS line, expected HOST - NS (an address of HOST is a line of its own)")
            }
            Self::TooManyAddresses { limit } => {
                write!(f, "too many addresses: one message holds at most {limit} of this type for one host")
            }
            Self::TooManyNameServers => {
                f.write_str("too many NS lines: they no longer fit into one referral, expected fewer")
            }
            Self::Entry(problem, trail) => write!(f, "{problem}{trail}"),
            Self::More(1) => f.write_str("and 1 more error from here on"),
            Self::More(count) => write!(f, "and {count} more errors from here on"),
        }
    }
}

const GRAMMAR: &str = "HOST ADDRESS TYPE";

/// Returns the table type that `field` is probably a typo of.
fn nearest_type(field: &str) -> Option<&'static str> {
    let typed = field.to_ascii_uppercase();
    // Two edits are too many for such short types. NS comes before A, because N is near both.
    ["AAAA", "NS", "A"].into_iter().find(|rtype| strsim::damerau_levenshtein(&typed, rtype) == 1)
}
