//! Catalog zones (RFC 9432): zones that list the zones a server must serve.
//!
//! ```text
//! a version ──▶ Catalog::read ──▶ Consumer::on_version ──▶ CatalogChanges: zones to remove and to set
//! the shared zones, the previous version ──▶ produce ──▶ a version, if it differs
//! ```

mod consumer;
mod producer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::Record;
use dns::{Name, RecordType, eq_ignore_case, labels, suffixes};

pub use self::consumer::{
    CatalogAcceptError, CatalogChanges, CatalogCondition, CatalogRules, Consumer, MemberZone, Note, ReservedNames,
};
pub use self::producer::{ListedZone, MAX_CATALOG_NAME, produce};

/// The content of a version of a catalog zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// The listed zones, by their names in lower case.
    pub members: HashMap<Name, CatalogEntry>,
}

/// A zone that a catalog lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The label in lower case. Another label means another zone (RFC 9432 section 5.4).
    pub label: Box<[u8]>,
    /// The groups, in order (RFC 9432 section 4.3.2).
    pub groups: Vec<String>,
    /// The catalog that the zone may move to (RFC 9432 section 4.3.1).
    pub coo: Option<Name>,
}

/// The reason that a catalog zone must not be processed (RFC 9432 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogFault {
    /// There is no `version`.
    #[error("it has no version record (TXT \"2\")")]
    NoVersion,
    /// There is more than one `version`.
    #[error("it has more than one version record")]
    SeveralVersions,
    /// The `version` is not "2".
    #[error("its version is {0:?}, not \"2\"")]
    OtherVersion(String),
    /// A label lists more than one zone.
    #[error("{label}.zones lists more than one zone")]
    SeveralZones {
        /// The label in question.
        label: String,
    },
    /// A zone is listed by more than one label.
    #[error("it lists {zone} more than once")]
    Twice {
        /// The name of the zone.
        zone: Box<Name>,
    },
    /// A zone has more than one `coo`.
    #[error("coo.{label}.zones has more than one record")]
    SeveralOwners {
        /// The label of the zone.
        label: String,
    },
}

impl Catalog {
    /// Reads a version of the catalog zone of this name. Unknown records are ignored (RFC 9432 section 3).
    pub fn read<'a>(apex: &Name, records: impl IntoIterator<Item = Record<'a>>) -> Result<Self, CatalogFault> {
        let mut version: Option<&[u8]> = None;
        let mut zones: HashMap<Box<[u8]>, Name> = HashMap::new();
        let mut groups: HashMap<Box<[u8]>, Vec<String>> = HashMap::new();
        let mut owners: HashMap<Box<[u8]>, Name> = HashMap::new();
        for Record { owner, rtype, rdata, .. } in records {
            let Some(labels) = labels_below(owner, apex.as_wire()) else { continue };
            match (&labels[..], rtype) {
                ([name], RecordType::TXT) if eq_ignore_case(name, b"version") => {
                    let earlier = version.replace(rdata);
                    if earlier.is_some_and(|earlier| earlier != rdata) {
                        return Err(CatalogFault::SeveralVersions);
                    }
                }
                ([label, below], RecordType::PTR) if eq_ignore_case(below, b"zones") => {
                    note_name(&mut zones, label, rdata)
                        .ok_or_else(|| CatalogFault::SeveralZones { label: text(label) })?;
                }
                ([name, label, below], RecordType::TXT)
                    if eq_ignore_case(below, b"zones") && eq_ignore_case(name, b"group") =>
                {
                    groups.entry(folded(label)).or_default().push(text(&joined(rdata)));
                }
                ([name, label, below], RecordType::PTR)
                    if eq_ignore_case(below, b"zones") && eq_ignore_case(name, b"coo") =>
                {
                    note_name(&mut owners, label, rdata)
                        .ok_or_else(|| CatalogFault::SeveralOwners { label: text(label) })?;
                }
                _ => {}
            }
        }
        match version {
            None => return Err(CatalogFault::NoVersion),
            Some(b"\x012") => {}
            Some(other) => return Err(CatalogFault::OtherVersion(text(&joined(other)))),
        }
        let mut members = HashMap::with_capacity(zones.len());
        for (label, zone) in zones {
            let mut groups = groups.remove(&label).unwrap_or_default();
            groups.sort();
            let member = CatalogEntry { groups, coo: owners.remove(&label), label };
            if members.insert(zone.clone(), member).is_some() {
                return Err(CatalogFault::Twice { zone: Box::new(zone) });
            }
        }
        Ok(Self { members })
    }
}

/// Returns the labels of an owner below the apex; `None` if the owner is not at or below it.
fn labels_below<'a>(owner: &'a [u8], apex: &[u8]) -> Option<Vec<&'a [u8]>> {
    let depth = suffixes(owner).position(|rest| eq_ignore_case(rest, apex))?;
    Some(labels(owner).take(depth).collect())
}

/// Notes the name in RDATA under a label; `None` if the label has another one.
fn note_name(names: &mut HashMap<Box<[u8]>, Name>, label: &[u8], rdata: &[u8]) -> Option<()> {
    let Ok(name) = Name::from_wire(rdata).map(|name| name.folded()) else { return Some(()) };
    let earlier = names.insert(folded(label), name.clone());
    earlier.is_none_or(|earlier| earlier == name).then_some(())
}

fn folded(label: &[u8]) -> Box<[u8]> {
    label.to_ascii_lowercase().into()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn joined(mut rdata: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(rdata.len());
    while let Some((&len, rest)) = rdata.split_first() {
        let (string, rest) = rest.split_at(rest.len().min(len.into()));
        joined.extend_from_slice(string);
        rdata = rest;
    }
    joined
}
