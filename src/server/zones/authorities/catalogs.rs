//! The catalogs of an authority (RFC 9432): consumed ones, which list its member zones, and its own.
//!
//! The server applies the decisions ([`MemberChanges`]): it starts and ends tasks of zones, and writes files
//! on a thread that may block.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::{AcceptOutcome, AuthorityState, ServedAuthority, ZoneChange, empty_journal, journal_of};
use crate::authority::{SecondarySource, ZoneTransfers};
use crate::config::{AuthorityConfig, PrimaryConfig, ProducedCatalog, SecondaryConfig};
use crate::metrics::{CatalogSnapshot, ExpiredZone, ZonesSnapshot};
use crate::net::sys::clock::unix_now_serial;
use crate::secondary::members::{self, OrderedSaves};
use crate::secondary::{SecondaryZone, ZoneKind, load_zone, save_zone};
use crate::transfer::catalog::{
    Catalog, CatalogAcceptError, CatalogChanges, CatalogCondition, CatalogFault, Consumer, ListedZone, MemberZone,
    Note, ReservedNames, produce,
};
use crate::transfer::{Records, Serial};
use crate::wire::Name;
use crate::zone::{Zone, ZoneDb};

pub(in crate::server) struct RestoredCatalogs {
    pub(in crate::server) consumer: Consumer,
    notes: Vec<Note>,
    pub(in crate::server) produced: HashMap<Name, Arc<Zone>>,
}

impl RestoredCatalogs {
    /// Reads the saved state, and removes unused files. Blocks on the disk.
    pub(in crate::server) fn of(config: &AuthorityConfig, loaded: &ZoneDb) -> Self {
        let mut consumer = members::restore(config);
        let notes = consumer.set_rules(members::rules(config), reserved(config, loaded)).notes;
        members::sweep(config, &consumer);
        Self { consumer, notes, ..Self::produced(config) }
    }

    pub(in crate::server) fn produced(config: &AuthorityConfig) -> Self {
        let load = |catalog: &ProducedCatalog| Some((catalog.zone.clone(), load_zone(&catalog.file, &catalog.zone)?));
        let produced = config.produced.iter().filter_map(load).collect();
        Self { consumer: Consumer::default(), notes: Vec::new(), produced }
    }

    pub(in crate::server) fn members(
        &self,
        number: usize,
        config: &AuthorityConfig,
        keys: &crate::transfer::tsig::TsigKeys,
    ) -> Vec<SecondaryZone> {
        let zones = members::secondaries(config, &self.consumer);
        zones.map(|config| super::secondary_zone(number, Arc::new(config), ZoneKind::Member, keys)).collect()
    }
}

#[derive(Default)]
pub(in crate::server) struct Catalogs {
    pub(in crate::server) consumer: Consumer,
    saves: HashMap<Name, OrderedSaves>,
}

#[derive(Default)]
pub(in crate::server) struct MemberChanges {
    pub(in crate::server) gone: Vec<Name>,
    pub(in crate::server) set: Vec<SecondaryZone>,
    pub(in crate::server) disk: Vec<Box<dyn FnOnce() + Send>>,
    pub(in crate::server) changes: Vec<ZoneChange>,
}

impl ServedAuthority {
    pub(in crate::server) fn take_restored(&mut self, restored: RestoredCatalogs) {
        self.log_notes(restored.notes);
        self.catalogs.consumer = restored.consumer;
    }

    pub(in crate::server) fn on_catalog(
        &mut self,
        catalog: &Name,
        version: Result<Catalog, CatalogFault>,
    ) -> MemberChanges {
        let changes = self.catalogs.consumer.on_version(catalog, version);
        let condition = self.catalogs.consumer.catalogs().find(|(name, _)| *name == catalog);
        match condition.map(|(_, condition)| condition) {
            Some(CatalogCondition::Broken(broken)) => {
                tracing::error!(authority = self.name(), %catalog, "the catalog is invalid, so the previous zones stay: {broken}");
            }
            Some(CatalogCondition::Doubted { lost, of }) => tracing::error!(
                authority = self.name(),
                %catalog,
                "the catalog no longer lists {lost} of {of} zones, or lists them with other labels. All zones stay until its \
                 next version; if the change is intended, run hedgerow ctl accept {catalog}"
            ),
            Some(CatalogCondition::Good | CatalogCondition::Waiting) | None => self.log_changes(catalog, &changes),
        }
        self.follow(changes)
    }

    pub(in crate::server) fn accept(&mut self, catalog: &Name) -> Result<AcceptOutcome, CatalogAcceptError> {
        let changes = self.catalogs.consumer.accept(catalog)?;
        self.log_changes(catalog, &changes);
        let zones = self.catalogs.consumer.owned_by(catalog).count();
        let message = format!(
            "catalog {catalog} of {} is accepted: {} zones are removed, {zones} remain",
            self.name(),
            changes.gone.len()
        );
        Ok(AcceptOutcome { message, changes: self.follow(changes) })
    }

    pub(in crate::server) fn set_catalogs(&mut self, loaded: &ZoneDb) -> MemberChanges {
        let earlier: Vec<Name> = self.catalogs.consumer.catalogs().map(|(name, _)| name.clone()).collect();
        let rules = members::rules(&self.config);
        let changes = self.catalogs.consumer.set_rules(rules, reserved(&self.config, loaded));
        let has = |name: &Name| self.config.catalogs.iter().any(|catalog| catalog.rules.catalog == *name);
        let folder = &self.config.members_folder;
        let left: Vec<_> =
            earlier.iter().filter(|name| !has(name)).map(|name| members::listing_file(folder, name)).collect();
        self.log_notes(changes.notes.clone());
        let mut disk = self.saves(&changes);
        if !left.is_empty() {
            disk.push(Box::new(move || members::remove(&left)));
        }
        let gone = changes.gone.into_iter().map(|(zone, _)| zone).collect();
        MemberChanges { gone, set: Vec::new(), disk, changes: Vec::new() }
    }

    pub(in crate::server) fn members(&self) -> impl Iterator<Item = SecondaryZone> {
        self.catalogs.consumer.members().keys().filter_map(|zone| self.member(zone))
    }

    pub(in crate::server) fn catalog_of(&self, zone: &Name) -> Option<&MemberZone> {
        self.catalogs.consumer.members().get(zone)
    }

    pub(in crate::server) fn catalogs(&self) -> Vec<CatalogSnapshot> {
        let mut counts: HashMap<&Name, u64> = HashMap::new();
        for owned in self.catalogs.consumer.members().values() {
            *counts.entry(&owned.catalog).or_default() += 1;
        }
        let snapshot = |(catalog, condition): (&Name, &CatalogCondition)| {
            let (state, reason) = match condition {
                CatalogCondition::Waiting => ("waiting", None),
                CatalogCondition::Good => ("good", None),
                CatalogCondition::Broken(broken) => ("broken", Some(broken.to_string())),
                CatalogCondition::Doubted { lost, of } => (
                    "doubted",
                    Some(format!(
                        "its last version no longer lists {lost} of {of} zones, or lists them with other labels"
                    )),
                ),
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

    pub(in crate::server) fn unserved(&self) -> impl Iterator<Item = ExpiredZone> {
        let unserved = self.state.zone_db.zones().iter().filter(|zone| !zone.is_served());
        let unserved = unserved.filter(|zone| self.has_secondary(zone.apex()));
        unserved.map(|zone| self.place_of(zone.apex()))
    }

    /// Updates our own catalogs if their lists have changed; adds the files to write to `disk`.
    pub(in crate::server) fn produce(&mut self, disk: &mut Vec<Box<dyn FnOnce() + Send>>) -> Vec<ZoneChange> {
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

    /// Returns the zones for our own catalogs: all that may be transferred, except catalogs.
    fn listed(&self) -> Vec<ListedZone> {
        let files = self.config.shared.iter().map(|shared| (&shared.zone, &shared.sharing));
        let is_catalog = |zone: &Name| self.config.catalogs.iter().any(|catalog| catalog.rules.catalog == *zone);
        let others = self.secondaries.iter().map(|(zone, config)| (zone, &config.sharing));
        let others = others.filter(|(zone, _)| !is_catalog(zone));
        let is_listed = |sharing: &crate::config::Sharing| !sharing.transfer_to.is_empty() && !sharing.is_unlisted;
        let listed = files.chain(others).filter(|(_, sharing)| is_listed(sharing));
        listed.map(|(zone, sharing)| ListedZone { zone: zone.clone(), group: sharing.group.clone() }).collect()
    }

    fn follow(&mut self, changes: CatalogChanges) -> MemberChanges {
        self.log_notes(changes.notes.clone());
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

    pub(in crate::server) fn set_state(&mut self, zone_db: ZoneDb, transfers: HashMap<Name, Arc<ZoneTransfers>>) {
        self.state = Arc::new(AuthorityState {
            zone_db: Arc::new(zone_db),
            keys: Arc::clone(&self.state.keys),
            transfers,
            access: Arc::clone(&self.state.access),
            rate: self.state.rate.clone(),
            cookies: self.state.cookies.clone(),
        });
    }

    fn member(&self, zone: &Name) -> Option<SecondaryZone> {
        let config = Arc::clone(self.secondaries.get(zone)?);
        Some(super::secondary_zone(self.number, config, ZoneKind::Member, &self.state.keys))
    }

    fn saves(&mut self, changes: &CatalogChanges) -> Vec<Box<dyn FnOnce() + Send>> {
        let touched = changes.gone.iter().chain(&changes.set).map(|(_, owned)| &owned.catalog);
        // For a zone that moves by `coo`, only the new catalog is reported.
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
            let listing = members::CatalogListing::of(&self.config.members_folder, catalog, owned);
            let saves = self.catalogs.saves.entry(catalog.clone()).or_default();
            disk.push(Box::new(saves.next(move || listing.save())));
        }
        let file = |(zone, owned): &(Name, MemberZone)| {
            members::member_file(&self.config.members_folder, zone, &owned.member.label)
        };
        let files: Vec<PathBuf> = changes.gone.iter().map(file).collect();
        if !files.is_empty() {
            disk.push(Box::new(move || members::remove(&files)));
        }
        disk
    }

    fn log_changes(&self, catalog: &Name, changes: &CatalogChanges) {
        let (gone, set) = (changes.gone.len(), changes.set.len());
        let zones = self.catalogs.consumer.owned_by(catalog).count();
        tracing::info!(authority = self.name(), %catalog, zones, set, gone, "the catalog is applied");
    }

    /// Logs the zones that a catalog lists but that are not served from it.
    fn log_notes(&self, notes: Vec<Note>) {
        let more = notes.len().saturating_sub(MAX_NOTES);
        for note in notes.into_iter().take(MAX_NOTES) {
            tracing::warn!(authority = self.name(), "{note}");
        }
        if more > 0 {
            tracing::warn!(authority = self.name(), "{more} more zones of catalogs are skipped");
        }
    }
}

pub(in crate::server) fn transfers_of(
    config: &SecondaryConfig,
    journal: crate::transfer::Journal,
    size: usize,
) -> ZoneTransfers {
    let source = SecondarySource {
        primaries: config.primaries.iter().map(PrimaryConfig::ip).collect(),
        notify_from: config.notify_from.clone(),
        tsig: config.sharing.tsig.as_ref().map(Name::folded),
        places: Arc::default(),
    };
    ZoneTransfers { transfer_to: config.sharing.transfer_to.clone(), journal, size, source: Some(source) }
}

fn reserved(config: &AuthorityConfig, loaded: &ZoneDb) -> ReservedNames {
    let files = loaded.zones().iter().map(|zone| zone.apex().clone());
    let secondaries = config.secondaries.iter().map(|secondary| secondary.zone.clone());
    let zones = files.chain(secondaries).chain(config.produced.iter().map(|catalog| catalog.zone.clone()));
    ReservedNames { zones: zones.collect(), tables: Some(Arc::clone(loaded.tables())) }
}

const MAX_NOTES: usize = 10;
