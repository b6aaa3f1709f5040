//! What can be wrong with a zone as a whole: errors, with which it is not loaded, and warnings, with which it is.
//!
//! What is wrong within one line is for `error.rs`.

use std::fmt;

use super::error::MAX_ERRORS;
use super::master::Files;
use crate::wire::{Name, RecordType, display_name};
use crate::zone::store::record::Place;

/// Something found in a zone, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic<T> {
    /// Where it stands: that record, or the first one of its owner.
    pub place: Place,
    /// Whose records it is about.
    pub owner: Box<Name>,
    /// What was found.
    pub what: T,
}

impl<T: fmt::Display> Diagnostic<T> {
    /// The diagnostic in a line, with its place in one of the files that were read: `z.zone:7:1: www.z.: ...`.
    pub fn in_files(&self, files: &Files) -> String {
        let file = files.names().nth(self.place.file.into()).unwrap_or_default();
        match self.place {
            // Of what is missing there is no place.
            Place { line: 0, .. } => format!("{file}: {self}"),
            Place { line, column, .. } => format!("{file}:{line}:{column}: {self}"),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Diagnostic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.owner, self.what)
    }
}

/// Why a zone cannot be loaded. Its `Display` also says what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneError {
    /// The owner is not below the apex.
    OutOfZone {
        /// The zone's own name.
        apex: Box<Name>,
    },
    /// The zone has no SOA record (RFC 1035 section 5.2).
    NoSoa,
    /// The apex has no NS record (RFC 1034 section 4.2.1).
    NoNs,
    /// An SOA record below the apex.
    SoaBelowApex,
    /// Two different records of a type that may have one (RFC 1035 section 5.2, RFC 2181 section 10.1,
    /// RFC 6672 section 2.4).
    Second(RecordType),
    /// A CNAME record and this type at one name (RFC 2181 section 10.1).
    BesideCname(RecordType),
    /// A name below one that has a DNAME record (RFC 6672 section 2.4).
    BelowDname,
    /// Too many records of a type at one name.
    RrsetTooLarge {
        /// Their type.
        rtype: RecordType,
        /// How many there may be of this length.
        limit: usize,
    },
    /// More NSEC3 iterations than answers can be had for (RFC 9276 section 3.1, RFC 5155 section 10.3).
    Iterations {
        /// How many the zone has.
        count: u16,
        /// How many it may have.
        limit: u16,
    },
}

impl ZoneError {
    /// Whether something is missing, which may be only because its line could not be read.
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

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfZone { apex } => {
                write!(f, "not in zone {apex}: remove the record, or write a name that ends in the zone's")
            }
            Self::NoSoa => f.write_str("no SOA record: a zone has exactly one, at its apex"),
            Self::NoNs => f.write_str("no NS record: a zone names its servers at its apex"),
            Self::SoaBelowApex => f.write_str("SOA record below the apex: a zone has exactly one, at its apex"),
            Self::Second(rtype) => write!(f, "a second {rtype} record that differs from the first, expected one"),
            Self::BesideCname(rtype) => {
                write!(f, "CNAME and {rtype} records at one name: a name with a CNAME record has no other data")
            }
            Self::BelowDname => {
                f.write_str("records below a name with a DNAME record, which gives all names below it away")
            }
            Self::RrsetTooLarge { rtype, limit } => {
                write!(f, "too many {rtype} records: one message holds at most {limit} of this length")
            }
            Self::Iterations { count, limit } => {
                write!(f, "NSEC3 with {count} iterations, expected at most {limit}: sign the zone with 0 (RFC 9276)")
            }
        }
    }
}

/// What is odd in a zone, or was put right. Its `Display` also says what is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneWarning {
    /// A record that is there twice counts once (RFC 2181 section 5).
    Duplicate(RecordType),
    /// Records of one RRset with different TTLs get the lowest one (RFC 2181 section 5.2).
    OtherTtl(RecordType),
    /// A name server in this zone without an address (RFC 1912 section 2.3): of a delegation, missing glue.
    NoAddress(Box<[u8]>),
    /// An NS or MX record that points at a CNAME record (RFC 2181 section 10.3).
    Alias(RecordType, Box<[u8]>),
    /// Data below a zone cut that is no glue is never seen (RFC 1034 section 4.2.1).
    Occluded(RecordType),
    /// NS records at a wildcard (RFC 4592 section 4.2).
    WildcardCut,
    /// More hashing than validators put up with (RFC 9276 section 3.2).
    Iterations(u16),
}

impl fmt::Display for ZoneWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(rtype) => write!(f, "this {rtype} record is there already, it counts once"),
            Self::OtherTtl(rtype) => write!(f, "{rtype} records differ in their TTLs, all get the lowest"),
            Self::NoAddress(server) => write!(f, "name server {} has no address in this zone", display_name(server)),
            Self::Alias(rtype, target) => {
                write!(f, "{rtype} record points at {}, which is an alias, expected a host", display_name(target))
            }
            Self::Occluded(rtype) => write!(f, "{rtype} records below a zone cut are never answered"),
            Self::WildcardCut => f.write_str("NS records at a wildcard: servers differ in what they make of them"),
            Self::Iterations(count) => {
                write!(f, "NSEC3 with {count} iterations: validators give up on many, expected 0")
            }
        }
    }
}

/// What was found in a zone, in the order in which it was found.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// Why it cannot be loaded; if there are none, it can.
    pub errors: DiagnosticList<ZoneError>,
    /// What its operator may want to know.
    pub warnings: DiagnosticList<ZoneWarning>,
}

/// Diagnostics of one kind: the first ones, and how many there are.
#[derive(Debug)]
pub struct DiagnosticList<T> {
    /// The first ones.
    first: Vec<Diagnostic<T>>,
    /// How many were found in all.
    count: usize,
}

impl<T> DiagnosticList<T> {
    /// The first ones, as many as anybody would read.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic<T>> {
        self.first.iter()
    }

    /// How many were found, listed or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Leaves out what is not wanted of those that are listed.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        let listed = self.first.len();
        self.first.retain(|diagnostic| is_wanted(&diagnostic.what));
        self.count -= listed - self.first.len();
    }

    /// Adds a diagnostic about a name in wire form.
    pub(in crate::zone) fn add(&mut self, place: Place, owner: &[u8], what: T) {
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

/// How many diagnostics of a kind are listed. More of them are one error many times over.
const LISTED: usize = MAX_ERRORS;
