//! The member zones of catalogs, and the catalog that owns each.
//!
//! The algorithm:
//!
//! 1. A broken version changes nothing: the last good one still applies (RFC 9432 section 5.1).
//! 2. A version without more than half of the zones of its catalog, if those are eight or more, is *doubted*.
//!    It changes nothing until the next version, or until an operator accepts it. A zone with another label
//!    counts as lost.
//! 3. Of the zones listed, those become members that `allow` admits and that the config does not have. A zone
//!    that would take names out of a zone or a table of the config, or the root, must be named by `allow`. If
//!    there are more than `max_members`, the catalog keeps its present members, then takes the first new ones
//!    by name.
//! 4. If several catalogs list a zone, its present owner keeps it; a new zone goes to the first catalog in
//!    the config. It moves when its owner names the other one as its `coo`, and that one lists it (RFC 9432
//!    section 4.3.1).
//! 5. Another label is another zone of the same name: the data of the former is deleted (RFC 9432 section
//!    5.4). A zone that moves by `coo` and keeps its label keeps its data.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::Tables;
use dns::Name;

use super::{Catalog, CatalogEntry, CatalogFault};

/// The zones of all catalogs that one authority consumes.
#[derive(Clone, Debug, Default)]
pub struct Consumer {
    catalogs: Vec<CatalogState>,
    reserved: ReservedNames,
    members: HashMap<Name, MemberZone>,
    notes: BTreeSet<Note>,
}

/// The config of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogRules {
    /// The name of the catalog, in lower case.
    pub catalog: Name,
    /// The catalog may list these names and all below; any name if empty.
    pub allow: Vec<Name>,
    /// The maximum number of zones of the catalog.
    pub max_members: usize,
}

impl CatalogRules {
    /// The default of `max_members`.
    pub const MAX_MEMBERS: usize = 10_000;
}

/// The zones and tables of the config, which catalogs must not take.
#[derive(Clone, Debug, Default)]
pub struct ReservedNames {
    /// The apexes of the zones, in lower case.
    pub zones: HashSet<Name>,
    /// The tables.
    pub tables: Option<Arc<Tables>>,
}

impl ReservedNames {
    /// Returns the reason to leave out a listed zone, as a note; `None` to accept it.
    fn refuse(&self, rules: &CatalogRules, zone: &Name) -> Option<Note> {
        let names = || (rules.catalog.to_string(), zone.to_string());
        if self.zones.contains(zone) {
            let (catalog, zone) = names();
            return Some(Note::Configured { catalog, zone });
        }
        if !rules.allow.is_empty() && !rules.allow.iter().any(|top| zone.is_at_or_below(top)) {
            let (catalog, zone) = names();
            return Some(Note::NotAllowed { catalog, zone });
        }
        let mut above = std::iter::successors(zone.parent(), Name::parent);
        if let Some(apex) = above.find(|name| self.zones.contains(name)) {
            // A name in `allow` above the zone of the config does not name that zone.
            let is_named = rules.allow.iter().any(|top| zone.is_at_or_below(top) && top.is_at_or_below(&apex));
            let (catalog, zone) = names();
            return (!is_named).then(|| Note::Enclosed { catalog, zone, apex: apex.to_string() });
        }
        let encloses = zone.is_root() || self.tables.as_ref().is_some_and(|tables| tables.has_at_or_below(zone));
        let (catalog, name) = names();
        (encloses && !rules.allow.contains(zone)).then_some(Note::Encloses { catalog, zone: name })
    }
}

#[derive(Clone, Debug)]
struct CatalogState {
    rules: CatalogRules,
    listed: HashMap<Name, CatalogEntry>,
    condition: CatalogCondition,
    doubted: Option<Catalog>,
}

/// The condition of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogCondition {
    /// No version since the start; the zones of an earlier process may be restored.
    Waiting,
    /// The last version applies.
    Good,
    /// The last version must not be processed.
    Broken(CatalogFault),
    /// The last version would remove or restart most zones.
    Doubted {
        /// The number of zones that would be lost.
        lost: usize,
        /// The number of zones before.
        of: usize,
    },
}

/// A member zone of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberZone {
    /// The catalog.
    pub catalog: Name,
    /// The entry of the zone in the catalog.
    pub member: CatalogEntry,
}

/// The effects of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogChanges {
    /// Zones to remove with all data. A zone that is also in `set` starts again without data.
    pub gone: Vec<(Name, MemberZone)>,
    /// Zones that are new or have another entry.
    pub set: Vec<(Name, MemberZone)>,
    /// New notes for the operator, each reported once.
    pub notes: Vec<Note>,
}

impl CatalogChanges {
    /// Returns true if no zone is removed, added or changed.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.set.is_empty()
    }
}

/// The reason that a listed zone is not a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Note {
    /// `allow` does not let the catalog list it.
    #[error("catalog {catalog} lists {zone}, which its allow does not name: left out")]
    NotAllowed {
        /// The name of the catalog.
        catalog: String,
        /// The name of the zone.
        zone: String,
    },
    /// The config has the zone.
    #[error("catalog {catalog} lists {zone}, which the config has: the config wins")]
    Configured {
        /// The name of the catalog.
        catalog: String,
        /// The name of the zone.
        zone: String,
    },
    /// The zone would take names out of a zone of the config.
    #[error("catalog {catalog} lists {zone}, which is below {apex} of the config: left out unless allow names it")]
    Enclosed {
        /// The name of the catalog.
        catalog: String,
        /// The name of the zone.
        zone: String,
        /// The zone of the config.
        apex: String,
    },
    /// The zone would take names out of the tables of the config, or it is the root.
    #[error(
        "catalog {catalog} lists {zone}, which covers names of a table of the config or is the root: left out unless \
         allow names it"
    )]
    Encloses {
        /// The name of the catalog.
        catalog: String,
        /// The name of the zone.
        zone: String,
    },
    /// There are more zones than `max_members`.
    #[error("catalog {catalog} lists {more} zones more than its max_members of {max}: left out")]
    TooMany {
        /// The name of the catalog.
        catalog: String,
        /// The maximum number of zones.
        max: usize,
        /// The number of zones that are left out.
        more: usize,
    },
    /// Another catalog owns the zone.
    #[error("catalog {catalog} lists {zone}, which catalog {owner} has: it stays there")]
    Taken {
        /// The name of the catalog.
        catalog: String,
        /// The name of the zone.
        zone: String,
        /// The catalog that owns the zone.
        owner: String,
    },
}

/// The reason that no version was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogAcceptError {
    /// There is no such catalog.
    Unknown,
    /// The last version already applies, or none has arrived.
    NotDoubted,
    /// The last version must not be processed.
    Broken(CatalogFault),
}

impl Consumer {
    /// Restores the zones of a catalog from an earlier process. Call it before [`Consumer::set_rules`].
    pub fn restore(&mut self, catalog: &Name, listed: HashMap<Name, CatalogEntry>) {
        let rules =
            CatalogRules { catalog: catalog.clone(), allow: Vec::new(), max_members: CatalogRules::MAX_MEMBERS };
        self.catalogs.push(CatalogState { rules, listed, condition: CatalogCondition::Waiting, doubted: None });
    }

    /// Sets the catalogs of a config, in its order, and the zones and tables of the config.
    pub fn set_rules(&mut self, rules: Vec<CatalogRules>, reserved: ReservedNames) -> CatalogChanges {
        let mut earlier = std::mem::take(&mut self.catalogs);
        self.reserved = reserved;
        for rules in rules {
            let known = earlier.iter().position(|consumed| consumed.rules.catalog == rules.catalog);
            self.catalogs.push(match known {
                Some(place) => CatalogState { rules, ..earlier.swap_remove(place) },
                None => {
                    CatalogState { rules, listed: HashMap::new(), condition: CatalogCondition::Waiting, doubted: None }
                }
            });
        }
        self.settle()
    }

    /// Processes a new version of a catalog.
    pub fn on_version(&mut self, catalog: &Name, version: Result<Catalog, CatalogFault>) -> CatalogChanges {
        let of = self.owned_by(catalog).count();
        // Another label starts the zone again, and its primary might not serve it again.
        let stays = |version: &Catalog, zone: &Name, owned: &MemberZone| {
            version.members.get(zone).is_some_and(|member| member.label == owned.member.label)
        };
        let lost = match &version {
            Ok(version) => self.owned_by(catalog).filter(|(zone, owned)| !stays(version, zone, owned)).count(),
            Err(_) => 0,
        };
        let Some(consumed) = self.catalogs.iter_mut().find(|consumed| consumed.rules.catalog == *catalog) else {
            return CatalogChanges::default();
        };
        consumed.doubted = None;
        match version {
            Err(broken) => {
                consumed.condition = CatalogCondition::Broken(broken);
                return CatalogChanges::default();
            }
            Ok(version) if of >= MIN_DOUBTED && lost * 2 > of => {
                (consumed.condition, consumed.doubted) = (CatalogCondition::Doubted { lost, of }, Some(version));
                return CatalogChanges::default();
            }
            Ok(version) => (consumed.condition, consumed.listed) = (CatalogCondition::Good, version.members),
        }
        self.settle()
    }

    /// Accepts the doubted version of a catalog. Fails if there is none.
    pub fn accept(&mut self, catalog: &Name) -> Result<CatalogChanges, CatalogAcceptError> {
        let consumed = self.catalogs.iter_mut().find(|consumed| consumed.rules.catalog == *catalog);
        let consumed = consumed.ok_or(CatalogAcceptError::Unknown)?;
        let Some(version) = consumed.doubted.take() else {
            return Err(match &consumed.condition {
                CatalogCondition::Broken(broken) => CatalogAcceptError::Broken(broken.clone()),
                CatalogCondition::Waiting | CatalogCondition::Good | CatalogCondition::Doubted { .. } => {
                    CatalogAcceptError::NotDoubted
                }
            });
        };
        (consumed.condition, consumed.listed) = (CatalogCondition::Good, version.members);
        Ok(self.settle())
    }

    /// Returns all member zones.
    pub fn members(&self) -> &HashMap<Name, MemberZone> {
        &self.members
    }

    /// Returns the member zones of one catalog.
    pub fn owned_by<'a>(&'a self, catalog: &'a Name) -> impl Iterator<Item = (&'a Name, &'a MemberZone)> {
        self.members.iter().filter(move |(_, owned)| owned.catalog == *catalog)
    }

    /// Returns the catalogs in order of the config, each with its condition.
    pub fn catalogs(&self) -> impl Iterator<Item = (&Name, &CatalogCondition)> {
        self.catalogs.iter().map(|consumed| (&consumed.rules.catalog, &consumed.condition))
    }

    fn settle(&mut self) -> CatalogChanges {
        let (mut changes, mut notes) = (CatalogChanges::default(), BTreeSet::new());
        let mut listed: HashMap<&Name, Vec<usize>> = HashMap::new();
        for (place, CatalogState { rules, listed: zones, .. }) in self.catalogs.iter().enumerate() {
            let mut given = Vec::new();
            for zone in zones.keys() {
                match self.reserved.refuse(rules, zone) {
                    Some(note) => drop(notes.insert(note)),
                    None => given.push(zone),
                }
            }
            if given.len() > rules.max_members {
                let has = |zone: &Name| self.members.get(zone).is_some_and(|owned| owned.catalog == rules.catalog);
                given.sort_unstable_by_key(|zone| (!has(zone), zone.as_wire()));
                let (catalog, max) = (rules.catalog.to_string(), rules.max_members);
                notes.insert(Note::TooMany { catalog, max, more: given.len() - max });
                given.truncate(max);
            }
            for zone in given {
                listed.entry(zone).or_default().push(place);
            }
        }
        let mut members = HashMap::with_capacity(listed.len());
        for (zone, by) in listed {
            let known = self.members.get(zone);
            let Some((place, has_moved)) = self.owner(zone, &by, known) else { continue };
            let consumed = &self.catalogs[place];
            let Some(member) = consumed.listed.get(zone) else { continue };
            let owned = MemberZone { catalog: consumed.rules.catalog.clone(), member: member.clone() };
            for other in by.into_iter().filter(|other| *other != place) {
                let other = &self.catalogs[other];
                // A catalog that gives the zone away is no conflict.
                if other.listed.get(zone).is_some_and(|member| member.coo.as_ref() == Some(&owned.catalog)) {
                    continue;
                }
                let (catalog, owner) = (other.rules.catalog.to_string(), owned.catalog.to_string());
                notes.insert(Note::Taken { catalog, zone: zone.to_string(), owner });
            }
            match known {
                Some(known) if *known == owned => {}
                Some(known) => {
                    let is_same_owner = known.catalog == owned.catalog || has_moved;
                    if !is_same_owner || known.member.label != owned.member.label {
                        changes.gone.push((zone.clone(), known.clone()));
                    }
                    changes.set.push((zone.clone(), owned.clone()));
                }
                None => changes.set.push((zone.clone(), owned.clone())),
            }
            members.insert(zone.clone(), owned);
        }
        let gone = self.members.iter().filter(|(zone, _)| !members.contains_key(zone));
        changes.gone.extend(gone.map(|(zone, owned)| (zone.clone(), owned.clone())));
        changes.notes = notes.difference(&self.notes).cloned().collect();
        (self.members, self.notes) = (members, notes);
        changes
    }

    /// Returns the catalog among `by` that owns a zone, and true if the zone moved there by `coo`.
    fn owner(&self, zone: &Name, by: &[usize], known: Option<&MemberZone>) -> Option<(usize, bool)> {
        let of = |catalog: &Name| by.iter().copied().find(|place| self.catalogs[*place].rules.catalog == *catalog);
        let first = known.and_then(|known| of(&known.catalog)).or_else(|| by.first().copied())?;
        let (mut at, mut passed) = (first, vec![first]);
        while let Some(next) = self.catalogs[at].listed.get(zone).and_then(|member| of(member.coo.as_ref()?)) {
            if passed.contains(&next) {
                // Each names the other as `coo`: the zone stays.
                return Some((first, false));
            }
            passed.push(next);
            at = next;
        }
        Some((at, at != first))
    }
}

/// Minimum of zones of a catalog for doubt. An operator may well remove most of fewer zones.
const MIN_DOUBTED: usize = 8;
