//! The catalogs of an authority (RFC 9432): consumed ones, which list its member zones, and its own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use config::{AuthorityConfig, PrimaryConfig, ProducedCatalog, SecondaryConfig, Sharing};
use dns::Name;
use metrics::CatalogSnapshot;
use net::sys::clock::unix_now_serial;
use zone::transfer::catalog::{
    Catalog, CatalogAcceptError, CatalogChanges, CatalogCondition, CatalogFault, ListedZone, MemberZone, Note,
    ReservedNames, produce,
};
use zone::transfer::{Journal, Records, Serial};
use zone::{Zone, ZoneDb};

use super::{AuthorityChanges, AuthorityState, ServedAuthority, empty_journal, journal_of};
use crate::control::zones::secondary::members;
use crate::control::zones::secondary::{SecondaryZone, ZoneKind, save_zone};
use crate::worker::authority::{SecondarySource, ZoneTransfers};

impl ServedAuthority {
    pub(super) fn on_catalog(&mut self, catalog: &Name, version: Result<Catalog, CatalogFault>) -> AuthorityChanges {
        let changes = self.consumer.on_version(catalog, version);
        let condition = self.consumer.catalogs().find(|(name, _)| *name == catalog);
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

    /// Accepts the doubted version of a catalog. Returns the changes with a message for the operator.
    pub(in crate::control) fn accept(
        &mut self,
        catalog: &Name,
    ) -> Result<(AuthorityChanges, String), CatalogAcceptError> {
        let changes = self.consumer.accept(catalog)?;
        self.log_changes(catalog, &changes);
        let (zones, name, gone) = (self.consumer.owned_by(catalog).count(), self.name(), changes.gone.len());
        let message = format!("catalog {catalog} of {name} is accepted: {gone} zones are removed, {zones} remain");
        Ok((self.follow(changes), message))
    }

    /// Applies the catalogs of a new config. `loaded` has its zones and tables from files.
    pub(super) fn set_catalogs(&mut self, loaded: &ZoneDb) -> AuthorityChanges {
        let earlier: Vec<Name> = self.consumer.catalogs().map(|(name, _)| name.clone()).collect();
        let changes = self.consumer.set_rules(members::rules(&self.config), reserved(&self.config, loaded));
        log_notes(self.name(), &changes.notes);
        let mut disk = self.saves(&changes);
        let folder = &self.config.zones.members_folder;
        let left = earlier.iter().filter(|name| !self.has_catalog(name));
        let left: Vec<_> = left.map(|name| members::listing_file(folder, name)).collect();
        if !left.is_empty() {
            disk.push(Box::new(move || members::remove(&left)));
        }
        let gone = changes.gone.into_iter().map(|(zone, _)| zone).collect();
        AuthorityChanges { gone, disk, ..self.no_changes() }
    }

    fn has_catalog(&self, name: &Name) -> bool {
        self.config.zones.catalogs.iter().any(|catalog| catalog.rules.catalog == *name)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = SecondaryZone> {
        let configs = self.consumer.members().keys().filter_map(|zone| self.secondaries.get(zone));
        configs.map(|config| self.secondary_zone(Arc::clone(config), ZoneKind::Member))
    }

    pub(in crate::control) fn catalog_of(&self, zone: &Name) -> Option<&MemberZone> {
        self.consumer.members().get(zone)
    }

    pub(in crate::control) fn catalogs(&self) -> Vec<CatalogSnapshot> {
        let mut counts: HashMap<&Name, u64> = HashMap::new();
        for owned in self.consumer.members().values() {
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
        self.consumer.catalogs().map(snapshot).collect()
    }

    /// Makes a new version of our own catalogs if their lists have changed.
    pub(super) fn produce(&mut self, changes: &mut AuthorityChanges) {
        if self.config.zones.produced.is_empty() {
            return;
        }
        let (listed, config) = (self.listed(), Arc::clone(&self.config));
        let mut state = AuthorityState::clone(&self.state);
        for ProducedCatalog { zone: catalog, file, sharing } in &config.zones.produced {
            let earlier = state.zone_db.zone(catalog).cloned();
            let now = Serial(unix_now_serial());
            let Some(zone) = produce(catalog, listed.iter().cloned(), earlier.as_deref(), now) else { continue };
            let zone = Arc::new(zone);
            tracing::info!(authority = self.name(), %catalog, serial = zone.serial(), zones = listed.len(), "the catalog has changed");
            let known = state.transfers.get(catalog).map(|transfers| transfers.journal.clone());
            let mut journal = known.unwrap_or_else(empty_journal);
            if let Some(earlier) = &earlier {
                journal = journal_of(earlier, &zone, journal).0;
            }
            let (transfer_to, size) = (sharing.transfer_to.clone(), Records::size_of(zone.iter()));
            state.set_zone(Arc::clone(&zone), ZoneTransfers { transfer_to, journal, size, source: None });
            changes.zones.push(self.change_of(&zone, sharing));
            let file = file.clone();
            changes.disk.push(Box::new(self.saves.entry(catalog.clone()).or_default().next(move || {
                if let Err(error) = save_zone(&file, &zone) {
                    let catalog = zone.apex();
                    tracing::warn!(%catalog, file = %file.display(), %error, "the catalog cannot be saved");
                }
            })));
        }
        self.state = Arc::new(state);
    }

    /// Returns the zones for our own catalogs: all that may be transferred, except catalogs.
    fn listed(&self) -> Vec<ListedZone> {
        let files = self.config.zones.shared.iter().map(|shared| (&shared.zone, &shared.sharing));
        let others = self.secondaries.iter().map(|(zone, config)| (zone, &config.sharing));
        let others = others.filter(|(zone, _)| !self.has_catalog(zone));
        let is_listed = |sharing: &Sharing| !sharing.transfer_to.is_empty() && !sharing.is_unlisted;
        let listed = files.chain(others).filter(|(_, sharing)| is_listed(sharing));
        listed.map(|(zone, sharing)| ListedZone { zone: zone.clone(), group: sharing.group.clone() }).collect()
    }

    fn follow(&mut self, catalogs: CatalogChanges) -> AuthorityChanges {
        log_notes(self.name(), &catalogs.notes);
        let mut changes = self.no_changes();
        if catalogs.is_empty() {
            return changes;
        }
        changes.disk = self.saves(&catalogs);
        let gone: HashSet<Name> = catalogs.gone.into_iter().map(|(zone, _)| zone).collect();
        let mut state = AuthorityState::clone(&self.state);
        if !gone.is_empty() {
            state.zone_db = Arc::new(state.zone_db.without(&gone));
        }
        for zone in &gone {
            state.transfers.remove(zone);
            self.secondaries.remove(zone);
            self.failures.note(zone, false);
        }
        for (zone, owned) in catalogs.set {
            let Some(config) = members::member(&self.config, &zone, &owned.catalog, &owned.member) else { continue };
            let config = Arc::new(config);
            let known = state.transfers.get(&zone).filter(|known| known.source.is_some());
            let (journal, size) =
                known.map_or_else(|| (empty_journal(), 0), |known| (known.journal.clone(), known.size));
            let present = state.zone_db.zone(&zone).cloned();
            let present = present.unwrap_or_else(|| Arc::new(Zone::unserved(&zone)));
            state.set_zone(present, transfers_of(&config, journal, size));
            self.secondaries.insert(zone, Arc::clone(&config));
            changes.set.push(self.secondary_zone(config, ZoneKind::Member));
        }
        changes.gone = gone.into_iter().collect();
        self.state = Arc::new(state);
        self.produce(&mut changes);
        changes
    }

    fn saves(&mut self, changes: &CatalogChanges) -> Vec<Box<dyn FnOnce() + Send>> {
        let mut disk: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        if changes.is_empty() {
            return disk;
        }
        let folder = &self.config.zones.members_folder;
        // All of them, because for a zone that moves by `coo` only the new catalog is reported.
        for catalog in self.config.zones.catalogs.iter().map(|catalog| &catalog.rules.catalog) {
            let owned = self.consumer.owned_by(catalog).map(|(zone, owned)| (zone, &owned.member));
            let save = members::save_listing(folder, catalog, owned);
            disk.push(Box::new(self.saves.entry(catalog.clone()).or_default().next(save)));
        }
        let gone = changes.gone.iter();
        let files: Vec<PathBuf> =
            gone.map(|(zone, owned)| members::member_file(folder, zone, &owned.member.label)).collect();
        if !files.is_empty() {
            disk.push(Box::new(move || members::remove(&files)));
        }
        disk
    }

    fn log_changes(&self, catalog: &Name, changes: &CatalogChanges) {
        let (gone, set) = (changes.gone.len(), changes.set.len());
        let zones = self.consumer.owned_by(catalog).count();
        tracing::info!(authority = self.name(), %catalog, zones, set, gone, "the catalog is applied");
    }
}

/// Logs the zones that a catalog lists but that are not served from it.
pub(super) fn log_notes(authority: &str, notes: &[Note]) {
    for note in notes.iter().take(MAX_NOTES) {
        tracing::warn!(authority, "{note}");
    }
    if notes.len() > MAX_NOTES {
        tracing::warn!(authority, "{} more zones of catalogs are skipped", notes.len() - MAX_NOTES);
    }
}

pub(super) fn transfers_of(config: &SecondaryConfig, journal: Journal, size: usize) -> ZoneTransfers {
    let source = SecondarySource {
        primaries: config.primaries.iter().map(PrimaryConfig::ip).collect(),
        notify_from: config.notify_from.clone(),
        tsig: config.sharing.tsig.as_ref().map(Name::folded),
        places: Arc::default(),
    };
    ZoneTransfers { transfer_to: config.sharing.transfer_to.clone(), journal, size, source: Some(source) }
}

pub(super) fn reserved(config: &AuthorityConfig, loaded: &ZoneDb) -> ReservedNames {
    let files = loaded.zones().iter().map(|zone| zone.apex().clone());
    let secondaries = config.zones.secondaries.iter().map(|secondary| secondary.zone.clone());
    let zones = files.chain(secondaries).chain(config.zones.produced.iter().map(|catalog| catalog.zone.clone()));
    ReservedNames { zones: zones.collect(), tables: Some(Arc::clone(loaded.tables())) }
}

const MAX_NOTES: usize = 10;
