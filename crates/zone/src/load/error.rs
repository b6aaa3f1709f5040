//! Errors in zone files, each with its place and remedy.
//!
//! A [`FileProblem`] names the problem and the remedy. A [`LineError`] adds the column, a [`FileError`] the
//! file and line. An authority reports all problems of all files together.

use dns::NameError;

use super::master::EntryProblem;

/// All errors in the zone files of one authority, in reading order. Never empty.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(FileError::to_string).collect::<Vec<_>>().join("\n"))]
pub struct FileErrors(Vec<FileError>);

impl FileErrors {
    pub(crate) fn check(errors: Vec<FileError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// Iterates over the errors.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &FileError> {
        self.0.iter()
    }
}

/// The most errors listed per file, so that a file of another kind does not fill the screen or memory.
pub(crate) const MAX_ERRORS: usize = 1000;

/// A problem and its place: `zones/ts1.txt:7:12: ...`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{}: {}", .error.column, .error.problem)]
pub struct FileError {
    /// The file name as given by the caller.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The problem and its column.
    pub error: LineError,
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
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileProblem {
    /// A table contains a word of a master file.
    #[error("{0:?} belongs in a master file, but lines of a table stand before: expected {GRAMMAR}")]
    MasterFile(String),
    /// The line has only a host.
    #[error("address and type are missing, expected {GRAMMAR}")]
    NoAddress,
    /// The line has a host and a second field, but no type.
    #[error("type is missing, expected {GRAMMAR}")]
    NoType,
    /// The line has more than three fields.
    #[error("unexpected {0:?} after the type, expected {GRAMMAR} (a comment begins with #)")]
    TooMany(String),
    /// The type and the address are swapped.
    #[error("type stands before address, expected {GRAMMAR}")]
    Swapped,
    /// A host or name server is not a valid domain name.
    #[error("bad name {0:?}: {1}")]
    BadName(String, NameError),
    /// The host is the root.
    #[error("the root is no host, expected a name such as www.example.org")]
    RootHost,
    /// The host has an asterisk label.
    #[error("{0:?} is a wildcard, which tables do not have, expected one line for each host")]
    Wildcard(String),
    /// The type exists, but tables do not support it.
    #[error("type {0:?} has no place in a table, expected A, AAAA or NS")]
    OtherType(String),
    /// The type does not exist.
    #[error("unknown type {0:?}, expected A, AAAA or NS{near}", near = did_you_mean(nearest_type(.0)))]
    UnknownType(String),
    /// An A record has no IPv4 address.
    #[error("bad IPv4 address {0:?}, expected four numbers of 0 to 255 such as 192.0.2.1")]
    BadIpv4(String),
    /// An AAAA record has no IPv6 address.
    #[error("bad IPv6 address {0:?}, expected one such as 2001:db8::1")]
    BadIpv6(String),
    /// An A record has an IPv6 address.
    #[error("{0:?} is an IPv6 address, type A takes IPv4: did you mean \"AAAA\"?")]
    Ipv6InA(String),
    /// An AAAA record has an IPv4 address.
    #[error("{0:?} is an IPv4 address, type AAAA takes IPv6: did you mean \"A\"?")]
    Ipv4InAaaa(String),
    /// The line is `HOST - A` or `HOST - AAAA`, with this type.
    #[error("type {0} needs an address, expected {GRAMMAR} (HOST - NS is for name servers)")]
    NoAddressForType(&'static str),
    /// An NS line has something other than `-` in its second field.
    #[error("{0:?} in an NS line, expected HOST - NS (an address of HOST is a line of its own)")]
    AddressWithNs(String),
    /// A line of a hosts file does not begin with an address.
    #[error("bad address {0:?}, expected {HOSTS_GRAMMAR}, as in 192.0.2.1 www.example.org")]
    BadAddress(String),
    /// A line of a hosts file has only an address.
    #[error("{0:?} has no name, expected {HOSTS_GRAMMAR}")]
    NoHostsName(String),
    /// A host has more addresses of one type than one message can hold.
    #[error("too many addresses: one message holds at most {limit} of this type for one host")]
    TooManyAddresses {
        /// The maximum number of addresses of this type per host.
        limit: usize,
    },
    /// The NS lines exceed the size of one referral.
    #[error("too many NS lines: they no longer fit into one referral, expected fewer")]
    TooManyNameServers,
    /// A problem in an entry of a master file, and the chain of its includes.
    #[error("{0}{1}")]
    Entry(EntryProblem, String),
    /// The number of further problems that are not listed.
    #[error("and {0} more error{plural} from here on", plural = if *.0 == 1 { "" } else { "s" })]
    More(usize),
}

/// The end of an error about an unknown type.
pub(crate) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |near| format!(", did you mean {near:?}?"))
}

const GRAMMAR: &str = "HOST ADDRESS TYPE";

const HOSTS_GRAMMAR: &str = "ADDRESS NAME [ALIAS ...]";

/// Returns the table type that `field` is probably a typo of.
fn nearest_type(field: &str) -> Option<&'static str> {
    let typed = field.to_ascii_uppercase();
    // Two edits are too many for such short types. NS comes before A, because N is near both.
    ["AAAA", "NS", "A"].into_iter().find(|rtype| strsim::damerau_levenshtein(&typed, rtype) == 1)
}
