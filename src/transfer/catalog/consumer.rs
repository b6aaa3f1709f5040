//! Which zones are had by the word of catalogs, and by whose word each.
//!
//! The algorithm, in plain lines:
//!
//! 1. A version that is broken changes nothing: what the last good one said stays (RFC 9432 section 5.1).
//! 2. A version without more than half of the zones that its catalog has, if those are eight or more, is *doubted* and changes
//!    nothing either, until the next version, or until an operator accepts it. A zone by another label counts as lost.
//! 3. Of the zones listed, those are had that `allow` lets the catalog list and that the config does not have itself. What would
//!    take names out of a zone or a table of the config is had only if `allow` names it. So is the root, which takes all names.
//!    Of more than `max_members`, the catalog gives those that it has already, and then the first in order of their names.
//! 4. A zone that several catalogs list belongs to the one that had it first; of new ones to the first in the config. It moves
//!    when the catalog that has it names the other one as its `coo`, and that one lists it (RFC 9432 section 4.3.1).
//! 5. Another label is another zone of the same name: what was had of the former is gone (RFC 9432 section 5.4). A zone that
//!    moves by `coo` and keeps its label keeps all else.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::{Broken, Catalog, Member};
use crate::wire::Name;
use crate::zone::Tables;

/// The zones of all catalogs that one authority consumes.
#[derive(Clone, Debug, Default)]
pub struct Consumer {
    /// In order of the config.
    catalogs: Vec<Consumed>,
    /// What the config has itself.
    reserved: Reserved,
    /// Zones that are had.
    members: HashMap<Name, Owned>,
    /// What was said of those that are not.
    notes: BTreeSet<Note>,
}

/// What the config says of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Its name, in lower case.
    pub catalog: Name,
    /// What it may list: these names and all below; any, if there are none.
    pub allow: Vec<Name>,
    /// The number of zones that it gives at most.
    pub max_members: usize,
}

impl Rules {
    /// The default of `max_members`.
    pub const MAX_MEMBERS: usize = 10_000;
}

/// What a config has itself.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    /// The apexes of its zones, in lower case.
    pub zones: HashSet<Name>,
    /// Its tables.
    pub tables: Option<Arc<Tables>>,
}

impl Reserved {
    /// The reason to leave out a zone that a catalog of these rules lists, as a note; `None` if there is none.
    fn refuse(&self, rules: &Rules, zone: &Name) -> Option<Note> {
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
            // A name above the zone of the config does not speak of that zone.
            let is_named = rules.allow.iter().any(|top| zone.is_at_or_below(top) && top.is_at_or_below(&apex));
            let (catalog, zone) = names();
            return (!is_named).then(|| Note::Enclosed { catalog, zone, apex: apex.to_string() });
        }
        let encloses = zone.is_root() || self.tables.as_ref().is_some_and(|tables| tables.has_at_or_below(zone));
        let (catalog, name) = names();
        (encloses && !rules.allow.contains(zone)).then_some(Note::Encloses { catalog, zone: name })
    }
}

/// One catalog.
#[derive(Clone, Debug)]
struct Consumed {
    rules: Rules,
    /// The zones that its last good version lists.
    listed: HashMap<Name, Member>,
    condition: Condition,
    /// The version that is doubted.
    doubted: Option<Catalog>,
}

/// How a catalog stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No version has come since the start; an earlier process may have saved what it listed.
    Waiting,
    /// Its last version is in force.
    Good,
    /// Its last version must not be processed.
    Broken(Broken),
    /// Its last version would take away so many of so many zones, or begin them anew.
    Doubted {
        /// How many.
        lost: usize,
        /// Of how many.
        of: usize,
    },
}

/// A zone that is had by the word of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The catalog.
    pub catalog: Name,
    /// What that says of it.
    pub member: Member,
}

/// What follows from an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Zones that go, with all that was kept of them. One may be set again at once: then it begins anew.
    pub gone: Vec<(Name, Owned)>,
    /// Zones that come, or of which something else is said.
    pub set: Vec<(Name, Owned)>,
    /// What an operator is to know, once.
    pub notes: Vec<Note>,
}

impl Changes {
    /// Whether no zone comes, goes or changes.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.set.is_empty()
    }
}

/// A zone is listed, but not had by that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Note {
    /// `allow` does not let the catalog list it.
    NotAllowed {
        /// The catalog.
        catalog: String,
        /// The zone.
        zone: String,
    },
    /// The config has it.
    Configured {
        /// The catalog.
        catalog: String,
        /// The zone.
        zone: String,
    },
    /// It would take names out of a zone of the config.
    Enclosed {
        /// The catalog.
        catalog: String,
        /// The zone.
        zone: String,
        /// The zone of the config.
        apex: String,
    },
    /// It would take names out of the tables of the config, or it is the root.
    Encloses {
        /// The catalog.
        catalog: String,
        /// The zone.
        zone: String,
    },
    /// There are more than `max_members`.
    TooMany {
        /// The catalog.
        catalog: String,
        /// The number of zones that it may give.
        max: usize,
        /// The number of zones that are left out.
        more: usize,
    },
    /// Another catalog has it.
    Taken {
        /// The catalog.
        catalog: String,
        /// The zone.
        zone: String,
        /// The other one.
        owner: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed { catalog, zone } => {
                write!(f, "catalog {catalog} lists {zone}, which its allow does not have: left out")
            }
            Self::Configured { catalog, zone } => {
                write!(f, "catalog {catalog} lists {zone}, which the config has: the config wins")
            }
            Self::Enclosed { catalog, zone, apex } => {
                write!(
                    f,
                    "catalog {catalog} lists {zone}, which is below {apex} of the config: left out unless allow names it"
                )
            }
            Self::Encloses { catalog, zone } => {
                write!(
                    f,
                    "catalog {catalog} lists {zone}, which covers names of a table of the config or is the root: left \
                     out unless allow names it"
                )
            }
            Self::TooMany { catalog, max, more } => {
                write!(f, "catalog {catalog} lists {more} zones more than its max_members of {max}: left out")
            }
            Self::Taken { catalog, zone, owner } => {
                write!(f, "catalog {catalog} lists {zone}, which catalog {owner} has: it stays there")
            }
        }
    }
}

/// Why nothing was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unaccepted {
    /// There is no such catalog.
    Unknown,
    /// Its last version is in force, or none has come.
    NotDoubted,
    /// Its last version must not be processed.
    Broken(Broken),
}

impl Consumer {
    /// Takes what an earlier process had by the word of a catalog. To be called before [`Consumer::set_rules`].
    pub fn restore(&mut self, catalog: &Name, listed: HashMap<Name, Member>) {
        let rules = Rules { catalog: catalog.clone(), allow: Vec::new(), max_members: Rules::MAX_MEMBERS };
        self.catalogs.push(Consumed { rules, listed, condition: Condition::Waiting, doubted: None });
    }

    /// Takes the catalogs of a config, in its order, and the zones and tables that it has itself.
    pub fn set_rules(&mut self, rules: Vec<Rules>, reserved: Reserved) -> Changes {
        let mut earlier = std::mem::take(&mut self.catalogs);
        self.reserved = reserved;
        for rules in rules {
            let known = earlier.iter().position(|consumed| consumed.rules.catalog == rules.catalog);
            self.catalogs.push(match known {
                Some(place) => Consumed { rules, ..earlier.swap_remove(place) },
                None => Consumed { rules, listed: HashMap::new(), condition: Condition::Waiting, doubted: None },
            });
        }
        self.settle()
    }

    /// A version of a catalog has come.
    pub fn on_version(&mut self, catalog: &Name, version: Result<Catalog, Broken>) -> Changes {
        let of = self.owned_by(catalog).count();
        // Another label begins the zone anew, and its primary need not give it again.
        let stays = |version: &Catalog, zone: &Name, owned: &Owned| {
            version.members.get(zone).is_some_and(|member| member.label == owned.member.label)
        };
        let lost = match &version {
            Ok(version) => self.owned_by(catalog).filter(|(zone, owned)| !stays(version, zone, owned)).count(),
            Err(_) => 0,
        };
        let Some(consumed) = self.catalogs.iter_mut().find(|consumed| consumed.rules.catalog == *catalog) else {
            return Changes::default();
        };
        consumed.doubted = None;
        match version {
            Err(broken) => {
                consumed.condition = Condition::Broken(broken);
                return Changes::default();
            }
            Ok(version) if of >= MIN_DOUBTED && lost * 2 > of => {
                (consumed.condition, consumed.doubted) = (Condition::Doubted { lost, of }, Some(version));
                return Changes::default();
            }
            Ok(version) => (consumed.condition, consumed.listed) = (Condition::Good, version.members),
        }
        self.settle()
    }

    /// An operator takes the version of a catalog that is doubted.
    ///
    /// # Errors
    /// If none is.
    pub fn accept(&mut self, catalog: &Name) -> Result<Changes, Unaccepted> {
        let consumed = self.catalogs.iter_mut().find(|consumed| consumed.rules.catalog == *catalog);
        let consumed = consumed.ok_or(Unaccepted::Unknown)?;
        let Some(version) = consumed.doubted.take() else {
            return Err(match &consumed.condition {
                Condition::Broken(broken) => Unaccepted::Broken(broken.clone()),
                Condition::Waiting | Condition::Good | Condition::Doubted { .. } => Unaccepted::NotDoubted,
            });
        };
        (consumed.condition, consumed.listed) = (Condition::Good, version.members);
        Ok(self.settle())
    }

    /// All zones that are had.
    pub fn members(&self) -> &HashMap<Name, Owned> {
        &self.members
    }

    /// The zones that are had by the word of one catalog.
    pub fn owned_by<'a>(&'a self, catalog: &'a Name) -> impl Iterator<Item = (&'a Name, &'a Owned)> {
        self.members.iter().filter(move |(_, owned)| owned.catalog == *catalog)
    }

    /// The catalogs, in order of the config, and how each stands.
    pub fn catalogs(&self) -> impl Iterator<Item = (&Name, &Condition)> {
        self.catalogs.iter().map(|consumed| (&consumed.rules.catalog, &consumed.condition))
    }

    /// Decides anew which zones are had.
    fn settle(&mut self) -> Changes {
        let (mut changes, mut notes) = (Changes::default(), BTreeSet::new());
        let mut listed: HashMap<&Name, Vec<usize>> = HashMap::new();
        for (place, Consumed { rules, listed: zones, .. }) in self.catalogs.iter().enumerate() {
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
            let owned = Owned { catalog: consumed.rules.catalog.clone(), member: member.clone() };
            for other in by.into_iter().filter(|other| *other != place) {
                let other = &self.catalogs[other];
                // One that gives the zone away says nothing wrong.
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

    /// The catalog that has a zone which `by` list, and whether it has come there by `coo`.
    fn owner(&self, zone: &Name, by: &[usize], known: Option<&Owned>) -> Option<(usize, bool)> {
        let of = |catalog: &Name| by.iter().copied().find(|place| self.catalogs[*place].rules.catalog == *catalog);
        let first = known.and_then(|known| of(&known.catalog)).or_else(|| by.first().copied())?;
        let (mut at, mut passed) = (first, vec![first]);
        while let Some(next) = self.catalogs[at].listed.get(zone).and_then(|member| of(member.coo.as_ref()?)) {
            if passed.contains(&next) {
                // Each gives it to the other: it stays where it was.
                return Some((first, false));
            }
            passed.push(next);
            at = next;
        }
        Some((at, at != first))
    }
}

/// Zones that a catalog has at least before the loss of most of them is doubted. Of fewer, an operator may well take away most.
const MIN_DOUBTED: usize = 8;
