//! Catalog zones (RFC 9432): a zone that lists other zones, so that whoever has it knows which zones to have.
//!
//! ```text
//! a version ──▶ Catalog::read ──▶ Consumer::on_version ──▶ Changes: zones that go, zones that come or are set otherwise
//! the zones that are shared, the version before ──▶ produce ──▶ a version, if it differs
//! ```
//!
//! [`Catalog`] is what one version says. [`Consumer`] decides which of the zones of several catalogs are had, and by whose word.
//! [`produce`] writes a catalog of our own.

mod consumer;
mod producer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

pub use self::consumer::{Changes, Condition, Consumer, Note, Owned, Reserved, Rules, Unaccepted};
pub use self::producer::{Listed, MAX_CATALOG_NAME, label_of, produce};
use crate::wire::{Name, RecordType, eq_ignore_case, suffixes};
use crate::zone::Record;

/// What a version of a catalog zone says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The zones that it lists, by their names in lower case.
    pub members: HashMap<Name, Member>,
}

/// A zone that a catalog lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its label below `zones`, in lower case. Another one means another zone of the same name (RFC 9432 section 5.4).
    pub label: Box<[u8]>,
    /// Its groups, in order (RFC 9432 section 4.3.2).
    pub groups: Vec<String>,
    /// The catalog that it is about to move to (RFC 9432 section 4.3.1).
    pub coo: Option<Name>,
}

/// Why a catalog zone must not be processed (RFC 9432 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It has no `version`.
    NoVersion,
    /// It has more than one `version`.
    SeveralVersions,
    /// Its `version` is not "2".
    OtherVersion(String),
    /// A label lists more than one zone.
    SeveralZones {
        /// The label.
        label: String,
    },
    /// A zone is listed by more than one label.
    Twice {
        /// The zone.
        zone: Box<Name>,
    },
    /// A zone has more than one `coo`.
    SeveralOwners {
        /// Its label.
        label: String,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVersion => f.write_str("it has no version record (TXT \"2\")"),
            Self::SeveralVersions => f.write_str("it has more than one version record"),
            Self::OtherVersion(version) => write!(f, "its version is {version:?}, not \"2\""),
            Self::SeveralZones { label } => write!(f, "{label}.zones lists more than one zone"),
            Self::Twice { zone } => write!(f, "it lists {zone} more than once"),
            Self::SeveralOwners { label } => write!(f, "coo.{label}.zones has more than one record"),
        }
    }
}

impl Catalog {
    /// Reads a version of the catalog zone of this name. What is not known is ignored (RFC 9432 section 3).
    ///
    /// # Errors
    /// If it must not be processed.
    pub fn read<'a>(apex: &Name, records: impl IntoIterator<Item = Record<'a>>) -> Result<Self, Broken> {
        let mut version: Option<&[u8]> = None;
        let mut zones: HashMap<Box<[u8]>, Name> = HashMap::new();
        let mut groups: HashMap<Box<[u8]>, Vec<String>> = HashMap::new();
        let mut owners: HashMap<Box<[u8]>, Name> = HashMap::new();
        for Record { owner, rtype, rdata, .. } in records {
            let Some(labels) = Labels::of(owner, apex.as_wire()) else { continue };
            match (labels.as_slice(), rtype) {
                ([name], RecordType::TXT) if is(name, b"version") => {
                    let earlier = version.replace(rdata);
                    if earlier.is_some_and(|earlier| earlier != rdata) {
                        return Err(Broken::SeveralVersions);
                    }
                }
                ([label, below], RecordType::PTR) if is(below, b"zones") => {
                    let Ok(zone) = Name::from_wire(rdata) else { continue };
                    let zone = zone.folded();
                    let other = zones.insert(folded(label), zone.clone());
                    if other.is_some_and(|other| other != zone) {
                        return Err(Broken::SeveralZones { label: text(label) });
                    }
                }
                ([name, label, below], RecordType::TXT) if is(below, b"zones") && is(name, b"group") => {
                    groups.entry(folded(label)).or_default().push(text(&joined(rdata)));
                }
                ([name, label, below], RecordType::PTR) if is(below, b"zones") && is(name, b"coo") => {
                    let Ok(owner) = Name::from_wire(rdata) else { continue };
                    let owner = owner.folded();
                    let other = owners.insert(folded(label), owner.clone());
                    if other.is_some_and(|other| other != owner) {
                        return Err(Broken::SeveralOwners { label: text(label) });
                    }
                }
                _ => {}
            }
        }
        match version {
            None => return Err(Broken::NoVersion),
            Some(b"\x012") => {}
            Some(other) => return Err(Broken::OtherVersion(text(&joined(other)))),
        }
        let mut members = HashMap::with_capacity(zones.len());
        for (label, zone) in zones {
            let mut groups = groups.remove(&label).unwrap_or_default();
            groups.sort();
            let member = Member { groups, coo: owners.remove(&label), label };
            if members.insert(zone.clone(), member).is_some() {
                return Err(Broken::Twice { zone: Box::new(zone) });
            }
        }
        Ok(Self { members })
    }
}

/// The labels of an owner below an apex, three at most.
struct Labels<'a> {
    labels: [&'a [u8]; 3],
    count: usize,
}

impl<'a> Labels<'a> {
    /// `None` if the owner is not below the apex, or further below than anything of a catalog.
    fn of(owner: &'a [u8], apex: &[u8]) -> Option<Self> {
        let (mut labels, mut count) = ([&[][..]; 3], 0);
        for rest in suffixes(owner) {
            if rest.len() == apex.len() {
                return eq_ignore_case(rest, apex).then_some(Self { labels, count });
            }
            let len = usize::from(*rest.first()?);
            *labels.get_mut(count)? = rest.get(1..=len)?;
            count += 1;
        }
        None
    }

    fn as_slice(&self) -> &[&'a [u8]] {
        &self.labels[..self.count]
    }
}

fn is(label: &[u8], word: &[u8]) -> bool {
    eq_ignore_case(label, word)
}

fn folded(label: &[u8]) -> Box<[u8]> {
    label.to_ascii_lowercase().into()
}

/// Octets for people and for comparison with the config.
fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// The strings of a TXT record, as one.
fn joined(mut rdata: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(rdata.len());
    while let Some((&len, rest)) = rdata.split_first() {
        let (string, rest) = rest.split_at(rest.len().min(len.into()));
        joined.extend_from_slice(string);
        rdata = rest;
    }
    joined
}
