//! Diagnostics of a zone as a whole. Errors prevent loading, warnings do not. `error.rs` has the errors
//! within one line.

use std::fmt;

use dns::{Name, RecordType, display_name};

use super::error::MAX_ERRORS;
use super::master::ZoneFiles;
use crate::store::record::FilePlace;

/// An error or warning about a zone, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic<T> {
    /// The place of the record, or of the first record of its owner.
    pub place: FilePlace,
    /// The owner of the records.
    pub owner: Box<Name>,
    /// The error or warning.
    pub what: T,
}

impl<T: fmt::Display> Diagnostic<T> {
    /// Formats the diagnostic as one line with its file: `z.zone:7:1: www.z.: ...`.
    pub fn in_files(&self, files: &ZoneFiles) -> String {
        let file = files.names().nth(self.place.file.into()).unwrap_or_default();
        match self.place {
            FilePlace { line: 0, .. } => format!("{file}: {self}"),
            FilePlace { line, column, .. } => format!("{file}:{line}:{column}: {self}"),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Diagnostic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.owner, self.what)
    }
}

/// The reason why a zone cannot be loaded. The `Display` form includes the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// The owner is not below the apex.
    #[error("not in zone {apex}: remove the record, or write a name that ends in the zone's")]
    OutOfZone {
        /// The name of the zone.
        apex: Box<Name>,
    },
    /// The zone has no SOA record (RFC 1035 section 5.2).
    #[error("no SOA record: a zone has exactly one, at its apex")]
    NoSoa,
    /// The apex has no NS record (RFC 1034 section 4.2.1).
    #[error("no NS record: a zone names its servers at its apex")]
    NoNs,
    /// An SOA record is below the apex.
    #[error("SOA record below the apex: a zone has exactly one, at its apex")]
    SoaBelowApex,
    /// Two different records have a type that allows one (RFC 1035 section 5.2, RFC 2181 section 10.1, RFC
    /// 6672 section 2.4).
    #[error("a second {0} record that differs from the first, expected one")]
    Second(RecordType),
    /// A CNAME record and this type share a name (RFC 2181 section 10.1).
    #[error("CNAME and {0} records at one name: a name with a CNAME record has no other data")]
    BesideCname(RecordType),
    /// The name is below a name with a DNAME record (RFC 6672 section 2.4).
    #[error("records below a name with a DNAME record, which gives all names below it away")]
    BelowDname,
    /// A name has too many records of one type.
    #[error("too many {rtype} records: one message holds at most {limit} of this length")]
    RrsetTooLarge {
        /// The type of the records.
        rtype: RecordType,
        /// The maximum number of records of this length.
        limit: usize,
    },
    /// The zone has more NSEC3 iterations than the server accepts (RFC 9276 section 3.1, RFC 5155 section
    /// 10.3).
    #[error("NSEC3 with {count} iterations, expected at most {limit}: sign the zone with 0 (RFC 9276)")]
    Iterations {
        /// The number of iterations in the zone.
        count: u16,
        /// The maximum number of iterations.
        limit: u16,
    },
}

impl ZoneError {
    /// Returns true if a record is missing, perhaps only because its line could not be read.
    pub fn is_of_absence(&self) -> bool {
        match self {
            Self::NoSoa | Self::NoNs => true,
            Self::OutOfZone { .. }
            | Self::SoaBelowApex
            | Self::Second(_)
            | Self::BesideCname(_)
            | Self::BelowDname
            | Self::RrsetTooLarge { .. }
            | Self::Iterations { .. } => false,
        }
    }
}

/// A flaw in a zone that does not prevent loading. The `Display` form includes the effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneWarning {
    /// A duplicate record counts once (RFC 2181 section 5).
    #[error("this {0} record is there already, it counts once")]
    Duplicate(RecordType),
    /// Records of one RRset with different TTLs get the lowest one (RFC 2181 section 5.2).
    #[error("{0} records differ in their TTLs, all get the lowest")]
    OtherTtl(RecordType),
    /// A name server in this zone has no address (RFC 1912 section 2.3). For a delegation, glue is missing.
    #[error("name server {} has no address in this zone", display_name(.0))]
    NoAddress(Box<[u8]>),
    /// An NS or MX record points at a CNAME record (RFC 2181 section 10.3).
    #[error("{0} record points at {target}, which is an alias, expected a host", target = display_name(.1))]
    Alias(RecordType, Box<[u8]>),
    /// Data below a zone cut other than glue are never sent (RFC 1034 section 4.2.1).
    #[error("{0} records below a zone cut are never answered")]
    Occluded(RecordType),
    /// A wildcard has NS or DNAME records (RFC 4592 section 4.2, RFC 6672 section 3.3).
    #[error("{0} records at a wildcard: servers differ in what they make of them")]
    AtWildcard(RecordType),
    /// A zone cut has a DNAME record (RFC 6672 section 2.3).
    #[error("a DNAME record at a zone cut is never answered, the names below belong to the child zone")]
    DnameAtCut,
    /// The zone has more NSEC3 iterations than validators accept (RFC 9276 section 3.2).
    #[error("NSEC3 with {0} iterations: validators give up on many, expected 0")]
    Iterations(u16),
}

/// The diagnostics of a zone in order of discovery.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// The errors. The zone loads only if there are none.
    pub errors: DiagnosticList<ZoneError>,
    /// The warnings for the operator.
    pub warnings: DiagnosticList<ZoneWarning>,
}

/// Diagnostics of one kind: the first ones and the total number.
#[derive(Debug)]
pub struct DiagnosticList<T> {
    first: Vec<Diagnostic<T>>,
    count: usize,
}

impl<T> DiagnosticList<T> {
    /// Iterates over the first diagnostics, up to a limit.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic<T>> {
        self.first.iter()
    }

    /// The total number of diagnostics, listed or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns true if there are no diagnostics.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps only those listed diagnostics for which `is_wanted` returns true.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        let listed = self.first.len();
        self.first.retain(|diagnostic| is_wanted(&diagnostic.what));
        self.count -= listed - self.first.len();
    }

    pub(crate) fn add(&mut self, place: FilePlace, owner: &[u8], what: T) {
        self.count += 1;
        if self.first.len() < LISTED {
            let owner = Box::new(Name::from_wire(owner).unwrap_or_else(|_| Name::root()));
            self.first.push(Diagnostic { place, owner, what });
        }
    }
}

impl<T> Default for DiagnosticList<T> {
    fn default() -> Self {
        Self { first: Vec::new(), count: 0 }
    }
}

/// The most diagnostics of a kind in the list. More usually repeat the same error.
const LISTED: usize = MAX_ERRORS;
