//! The catalogs of an authority (RFC 9432): zones that it has by the word of others, and what it tells others of its own.
//!
//! What is decided here is put in force by the server: tasks of zones begin and end, files are written and removed on a thread that
//! may wait ([`MemberChanges`]).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Accepted, AuthorityState, ServedAuthority, ZoneChange, empty_journal, journal_of};
use crate::authority::{Source, ZoneTransfers};
use crate::config::{AuthorityConfig, PrimaryConfig, ProducedCatalog, SecondaryConfig};
use crate::metrics::{CatalogSnapshot, ExpiredZone, ZonesSnapshot};
use crate::net::clock::unix_now_serial;
use crate::secondary::members::{self, OrderedSaves};
use crate::secondary::{SecondaryZone, ZoneKind, load_zone, save_zone};
use crate::transfer::catalog::{
    Broken, Catalog, Changes, Condition, Consumer, Listed, Note, Owned, Reserved, Unaccepted, produce,
};
use crate::transfer::{Records, Serial};
use crate::wire::Name;
use crate::zone::{Zone, ZoneDb};

/// What an earlier process has left of the catalogs of an authority.
pub(in crate::server) struct Restored {
    pub(super) consumer: Consumer,
    /// What was odd about what it had.
    notes: Vec<Note>,
    /// Catalogs of our own.
    pub(super) produced: HashMap<Name, Arc<Zone>>,
}

impl Restored {
    /// Reads it, and removes what nobody needs of it: takes as long as the disk does.
    pub(in crate::server) fn of(config: &AuthorityConfig, loaded: &ZoneDb) -> Self {
        let mut consumer = members::restore(config);
        let notes = consumer.set_rules(members::rules(config), reserved(config, loaded)).notes;
        members::sweep(config, &consumer);
        Self { consumer, notes, ..Self::produced(config) }
    }

    /// The catalogs of our own alone: of an authority that runs already.
    pub(in crate::server) fn produced(config: &AuthorityConfig) -> Self {
        let load = |catalog: &ProducedCatalog| Some((catalog.zone.clone(), load_zone(&catalog.file, &catalog.zone)?));
        let produced = config.produced.iter().filter_map(load).collect();
        Self { consumer: Consumer::default(), notes: Vec::new(), produced }
    }

    /// The zones that it has by the word of catalogs, for an authority of this number.
    pub(in crate::server) fn members(
        &self,
        number: usize,
        config: &AuthorityConfig,
        keys: &crate::transfer::tsig::Keys,
    ) -> Vec<SecondaryZone> {
        let zones = members::secondaries(config, &self.consumer);
        zones.map(|config| super::secondary_zone(number, Arc::new(config), ZoneKind::Member, keys)).collect()
    }
}

/// What of an authority concerns catalogs.
#[derive(Default)]
pub(super) struct Catalogs {
    pub(super) consumer: Consumer,
    /// The saves of what each catalog lists, and of each that is our own.
    saves: HashMap<Name, OrderedSaves>,
}

/// Zones that come and go by the word of catalogs.
#[derive(Default)]
pub(in crate::server) struct MemberChanges {
    /// Those that go.
    pub(in crate::server) gone: Vec<Name>,
    /// Those that come, or are had otherwise.
    pub(in crate::server) set: Vec<SecondaryZone>,
    /// What is to be written and removed, in this order.
    pub(in crate::server) disk: Vec<Box<dyn FnOnce() + Send>>,
    /// Zones of ours that have changed by that.
    pub(in crate::server) changes: Vec<ZoneChange>,
}

impl ServedAuthority {
    /// All that is said of what an earlier process has left.
    pub(super) fn take_restored(&mut self, restored: Restored) {
        self.tell_notes(restored.notes);
        self.catalogs.consumer = restored.consumer;
    }

    /// A version of a catalog has come.
    pub(super) fn on_catalog(&mut self, catalog: &Name, version: Result<Catalog, Broken>) -> MemberChanges {
        let changes = self.catalogs.consumer.on_version(catalog, version);
        let condition = self.catalogs.consumer.catalogs().find(|(name, _)| *name == catalog);
        match condition.map(|(_, condition)| condition) {
            Some(Condition::Broken(broken)) => {
                tracing::error!(authority = self.name(), %catalog, "the catalog is broken, the zones of before stay: {broken}");
            }
            Some(Condition::Doubted { lost, of }) => tracing::error!(
                authority = self.name(),
                %catalog,
                "the catalog lists {lost} of {of} zones no more or by other labels, which is doubted: all stay until its \
                 next version, or hedgerow ctl accept {catalog}"
            ),
            Some(Condition::Good | Condition::Waiting) | None => self.tell_changes(catalog, &changes),
        }
        self.follow(changes)
    }

    /// An operator takes the version of a catalog that is doubted; what was done, in a sentence.
    pub(in crate::server) fn accept(&mut self, catalog: &Name) -> Result<Accepted, Unaccepted> {
        let changes = self.catalogs.consumer.accept(catalog)?;
        self.tell_changes(catalog, &changes);
        let zones = self.catalogs.consumer.owned_by(catalog).count();
        let message = format!(
            "catalog {catalog} of {} is taken as it is: {} zones are gone, it has {zones}",
            self.name(),
            changes.gone.len()
        );
        Ok(Accepted { message, changes: self.follow(changes) })
    }

    /// Takes the catalogs of the config as it is now, which may have others, or other zones of its own.
    pub(super) fn set_catalogs(&mut self, loaded: &ZoneDb) -> MemberChanges {
        let earlier: Vec<Name> = self.catalogs.consumer.catalogs().map(|(name, _)| name.clone()).collect();
        let rules = members::rules(&self.config);
        let changes = self.catalogs.consumer.set_rules(rules, reserved(&self.config, loaded));
        let has = |name: &Name| self.config.catalogs.iter().any(|catalog| catalog.rules.catalog == *name);
        let folder = &self.config.members_folder;
        let left: Vec<_> =
            earlier.iter().filter(|name| !has(name)).map(|name| members::listing_file(folder, name)).collect();
        self.tell_notes(changes.notes.clone());
        let mut disk = self.saves(&changes);
        if !left.is_empty() {
            disk.push(Box::new(move || members::remove(&left)));
        }
        let gone = changes.gone.into_iter().map(|(zone, _)| zone).collect();
        MemberChanges { gone, set: Vec::new(), disk, changes: Vec::new() }
    }

    /// The zones that it has by the word of catalogs.
    pub(in crate::server) fn members(&self) -> impl Iterator<Item = SecondaryZone> {
        self.catalogs.consumer.members().keys().filter_map(|zone| self.member(zone))
    }

    /// The catalog that lists a zone which it has by that.
    pub(in crate::server) fn catalog_of(&self, zone: &Name) -> Option<&Owned> {
        self.catalogs.consumer.members().get(zone)
    }

    /// The catalogs that it consumes, as they stand.
    pub(in crate::server) fn catalogs(&self) -> Vec<CatalogSnapshot> {
        let mut counts: HashMap<&Name, u64> = HashMap::new();
        for owned in self.catalogs.consumer.members().values() {
            *counts.entry(&owned.catalog).or_default() += 1;
        }
        let snapshot = |(catalog, condition): (&Name, &Condition)| {
            let (state, reason) = match condition {
                Condition::Waiting => ("waiting", None),
                Condition::Good => ("good", None),
                Condition::Broken(broken) => ("broken", Some(broken.to_string())),
                Condition::Doubted { lost, of } => {
                    ("doubted", Some(format!("its last version lists {lost} of {of} zones no more or by other labels")))
                }
            };
            CatalogSnapshot {
                authority: self.name().to_owned(),
                catalog: catalog.to_string(),
                members: counts.get(catalog).copied().unwrap_or(0),
                state: state.to_owned(),
                reason,
            }
        };
        self.catalogs.consumer.catalogs().map(snapshot).collect()
    }

    /// How many zones it has of each state, where these have expired.
    pub(in crate::server) fn count_zones(&self, expired: u64) -> ZonesSnapshot {
        let (mut primary, mut served, mut unserved) = (0, 0, 0);
        for zone in self.state.zone_db.zones() {
            match (self.secondaries.contains_key(zone.apex()), zone.is_served()) {
                (false, _) => primary += 1,
                (true, true) => served += 1,
                (true, false) => unserved += 1,
            }
        }
        let expired = expired.min(unserved);
        ZonesSnapshot { authority: self.name().to_owned(), primary, served, absent: unserved - expired, expired }
    }

    /// The zones of other servers that it does not answer from.
    pub(in crate::server) fn unserved(&self) -> impl Iterator<Item = ExpiredZone> {
        let unserved = self.state.zone_db.zones().iter().filter(|zone| !zone.is_served());
        let unserved = unserved.filter(|zone| self.has_secondary(zone.apex()));
        unserved.map(|zone| ExpiredZone { authority: self.name().to_owned(), zone: zone.apex().to_string() })
    }

    /// Writes the catalogs of its own anew, as far as what they list has changed; what is to be written to disk goes to `disk`.
    pub(super) fn produce(&mut self, disk: &mut Vec<Box<dyn FnOnce() + Send>>) -> Vec<ZoneChange> {
        if self.config.produced.is_empty() {
            return Vec::new();
        }
        let listed = self.listed();
        let mut changes = Vec::new();
        for ProducedCatalog { zone: catalog, file, sharing } in self.config.produced.clone() {
            let earlier = self.state.zone_db.zone(&catalog).cloned();
            let now = Serial(unix_now_serial());
            let Some(zone) = produce(&catalog, listed.iter().cloned(), earlier.as_deref(), now) else { continue };
            let zone = Arc::new(zone);
            let known = self.state.transfers.get(&catalog).map(|transfers| transfers.journal.clone());
            let journal = known.unwrap_or_else(empty_journal);
            let journal = match &earlier {
                Some(earlier) => journal_of(earlier, &zone, journal).0,
                None => journal,
            };
            tracing::info!(authority = self.name(), %catalog, serial = zone.serial(), zones = listed.len(), "the catalog has changed");
            let size = Records::size_of(zone.iter());
            let transfers = ZoneTransfers { transfer_to: sharing.transfer_to.clone(), journal, size, source: None };
            let mut all = self.state.transfers.clone();
            all.insert(catalog.clone(), Arc::new(transfers));
            self.set_state(ZoneDb::clone(&self.state.zone_db).with_zone(Arc::clone(&zone)), all);
            let saved = Arc::clone(&zone);
            disk.push(Box::new(self.catalogs.saves.entry(catalog).or_default().next(move || {
                if let Err(error) = save_zone(&file, &saved) {
                    let catalog = saved.apex();
                    tracing::warn!(%catalog, file = %file.display(), %error, "the catalog cannot be saved");
                }
            })));
            changes.push(self.change_of(&zone, &sharing));
        }
        changes
    }

    /// The zones that its own catalogs list: all that others may have, but for catalogs.
    fn listed(&self) -> Vec<Listed> {
        let files = self.config.shared.iter().map(|shared| (&shared.zone, &shared.sharing));
        let is_catalog = |zone: &Name| self.config.catalogs.iter().any(|catalog| catalog.rules.catalog == *zone);
        let others = self.secondaries.iter().map(|(zone, config)| (zone, &config.sharing));
        let others = others.filter(|(zone, _)| !is_catalog(zone));
        let is_listed = |sharing: &crate::config::Sharing| !sharing.transfer_to.is_empty() && !sharing.is_unlisted;
        let listed = files.chain(others).filter(|(_, sharing)| is_listed(sharing));
        listed.map(|(zone, sharing)| Listed { zone: zone.clone(), group: sharing.group.clone() }).collect()
    }

    /// Puts what follows from a catalog in force, as far as answers go.
    fn follow(&mut self, changes: Changes) -> MemberChanges {
        self.tell_notes(changes.notes.clone());
        if changes.is_empty() {
            return MemberChanges::default();
        }
        let mut disk = self.saves(&changes);
        let gone: HashSet<Name> = changes.gone.into_iter().map(|(zone, _)| zone).collect();
        let mut transfers = self.state.transfers.clone();
        for zone in &gone {
            transfers.remove(zone);
            self.secondaries.remove(zone);
        }
        let mut zone_db =
            if gone.is_empty() { ZoneDb::clone(&self.state.zone_db) } else { self.state.zone_db.without(&gone) };
        let mut set = Vec::with_capacity(changes.set.len());
        for (zone, owned) in changes.set {
            let Some(config) = members::member(&self.config, &zone, &owned.catalog, &owned.member) else { continue };
            let config = Arc::new(config);
            let known = transfers.get(&zone).filter(|known| known.source.is_some());
            let (journal, size) =
                known.map_or_else(|| (empty_journal(), 0), |known| (known.journal.clone(), known.size));
            transfers.insert(zone.clone(), Arc::new(transfers_of(&config, journal, size)));
            if zone_db.zone(&zone).is_none() {
                zone_db = zone_db.with_zone(Arc::new(Zone::unserved(&zone)));
            }
            self.secondaries.insert(zone.clone(), Arc::clone(&config));
            set.push(super::secondary_zone(self.number, config, ZoneKind::Member, &self.state.keys));
        }
        self.set_state(zone_db, transfers);
        let changes = self.produce(&mut disk);
        MemberChanges { gone: gone.into_iter().collect(), set, disk, changes }
    }

    /// Answers from these zones from now on.
    pub(super) fn set_state(&mut self, zone_db: ZoneDb, transfers: HashMap<Name, Arc<ZoneTransfers>>) {
        self.state = Arc::new(AuthorityState {
            zone_db: Arc::new(zone_db),
            keys: Arc::clone(&self.state.keys),
            transfers,
            access: Arc::clone(&self.state.access),
            rate: self.state.rate.clone(),
            cookies: self.state.cookies.clone(),
        });
    }

    /// One of the zones that it has by the word of catalogs.
    fn member(&self, zone: &Name) -> Option<SecondaryZone> {
        let config = Arc::clone(self.secondaries.get(zone)?);
        Some(super::secondary_zone(self.number, config, ZoneKind::Member, &self.state.keys))
    }

    /// What is to be written and removed after a change.
    fn saves(&mut self, changes: &Changes) -> Vec<Box<dyn FnOnce() + Send>> {
        let touched = changes.gone.iter().chain(&changes.set).map(|(_, owned)| &owned.catalog);
        // Of one that moves by `coo`, only the new one is told.
        let touched: HashSet<&Name> = if changes.is_empty() {
            HashSet::new()
        } else {
            touched.chain(self.config.catalogs.iter().map(|catalog| &catalog.rules.catalog)).collect()
        };
        let mut disk: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        for catalog in touched {
            if !self.config.catalogs.iter().any(|known| known.rules.catalog == *catalog) {
                continue;
            }
            let owned = self.catalogs.consumer.owned_by(catalog).map(|(zone, owned)| (zone, &owned.member));
            let listing = members::Listing::of(&self.config.members_folder, catalog, owned);
            let saves = self.catalogs.saves.entry(catalog.clone()).or_default();
            disk.push(Box::new(saves.next(move || listing.save())));
        }
        let file = |(zone, owned): &(Name, Owned)| {
            members::member_file(&self.config.members_folder, zone, &owned.member.label)
        };
        let files: Vec<PathBuf> = changes.gone.iter().map(file).collect();
        if !files.is_empty() {
            disk.push(Box::new(move || members::remove(&files)));
        }
        disk
    }

    /// Tells the log what a version of a catalog brings.
    fn tell_changes(&self, catalog: &Name, changes: &Changes) {
        let (gone, set) = (changes.gone.len(), changes.set.len());
        let zones = self.catalogs.consumer.owned_by(catalog).count();
        tracing::info!(authority = self.name(), %catalog, zones, set, gone, "the catalog is in force");
    }

    /// Tells the log of zones that are listed, but not had by that.
    fn tell_notes(&self, notes: Vec<Note>) {
        let more = notes.len().saturating_sub(MAX_NOTES);
        for note in notes.into_iter().take(MAX_NOTES) {
            tracing::warn!(authority = self.name(), "{note}");
        }
        if more > 0 {
            tracing::warn!(authority = self.name(), "and {more} more zones that catalogs list are left out");
        }
    }
}

/// What is exchanged of a zone of other servers.
pub(super) fn transfers_of(config: &SecondaryConfig, journal: crate::transfer::Journal, size: usize) -> ZoneTransfers {
    let source = Source {
        primaries: config.primaries.iter().map(PrimaryConfig::ip).collect(),
        notify_from: config.notify_from.clone(),
        tsig: config.sharing.tsig.as_ref().map(Name::folded),
        places: Arc::default(),
    };
    ZoneTransfers { transfer_to: config.sharing.transfer_to.clone(), journal, size, source: Some(source) }
}

/// The zones and tables that a config has itself.
fn reserved(config: &AuthorityConfig, loaded: &ZoneDb) -> Reserved {
    let files = loaded.zones().iter().map(|zone| zone.apex().clone());
    let secondaries = config.secondaries.iter().map(|secondary| secondary.zone.clone());
    let zones = files.chain(secondaries).chain(config.produced.iter().map(|catalog| catalog.zone.clone()));
    Reserved { zones: zones.collect(), tables: Some(Arc::clone(loaded.tables())) }
}

/// Lines of the log that a catalog may cause at a time by zones that are left out.
const MAX_NOTES: usize = 10;
