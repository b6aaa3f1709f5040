//! What can be wrong in a zone file, said so that it can be put right at once.
//!
//! A [`FileProblem`] knows what is wrong and what would be right; a [`LineError`] adds its column, a
//! [`FileError`] its file and line. All problems of all files of an authority are reported together.

use std::error::Error;
use std::fmt;

use super::master::EntryProblem;
use crate::wire::NameError;

/// Everything that is wrong in the zone files of one authority, in reading order; never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct FileErrors(Vec<FileError>);

impl FileErrors {
    /// `Err` with the errors, if there are any.
    pub(in crate::zone) fn check(errors: Vec<FileError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// The errors one by one.
    pub fn iter(&self) -> impl Iterator<Item = &FileError> {
        self.0.iter()
    }
}

/// Errors of one file that are listed, and counted beyond: so many that nobody misses any, so few that a file which is
/// none at all fills no screen for minutes, and no memory.
pub(in crate::zone) const MAX_ERRORS: usize = 1000;

impl fmt::Display for FileErrors {
    /// One error a line, without a newline at the end.
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
    /// The file, as the caller calls it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and where in the line.
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
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: FileProblem,
}

/// What is wrong. Its `Display` also says what would be right.
#[derive(Debug, PartialEq, Eq)]
pub enum FileProblem {
    /// A word of a master file in a table.
    MasterFile(String),
    /// Only the host is there.
    NoAddress,
    /// Host and a second field are there, but no type.
    NoType,
    /// A field after the third.
    TooMany(String),
    /// The second field is a type and the third an address.
    Swapped,
    /// A host or name server that is no domain name.
    BadName(String, NameError),
    /// The root stands where a host should.
    RootHost,
    /// A host with an asterisk label.
    Wildcard(String),
    /// A type that exists, but not in tables.
    OtherType(String),
    /// A type that does not exist.
    UnknownType(String),
    /// An A record without an IPv4 address.
    BadIpv4(String),
    /// An AAAA record without an IPv6 address.
    BadIpv6(String),
    /// An A record with an IPv6 address.
    Ipv6InA(String),
    /// An AAAA record with an IPv4 address.
    Ipv4InAaaa(String),
    /// `HOST - A` or `HOST - AAAA`, with the type.
    NoAddressForType(&'static str),
    /// An NS line with something other than `-` in its second field.
    AddressWithNs(String),
    /// More addresses of one type than one message can hold.
    TooManyAddresses {
        /// How many one host may have of this type.
        limit: usize,
    },
    /// More NS lines than one referral can hold.
    TooManyNameServers,
    /// An entry of a master file, and from where its file was included.
    Entry(EntryProblem, String),
    /// There are so many more problems.
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

/// What a line of a table is.
const GRAMMAR: &str = "HOST ADDRESS TYPE";

/// The type of a table that `field` may be a slip of the keyboard for.
fn nearest_type(field: &str) -> Option<&'static str> {
    let typed = field.to_ascii_uppercase();
    // Among types of one to four letters more than one edit is no likeness. NS comes before A, since
    // N alone is one edit from both.
    ["AAAA", "NS", "A"].into_iter().find(|rtype| strsim::damerau_levenshtein(&typed, rtype) == 1)
}
