//! The state of authorities, built from a config and loaded zones, and updated from one version to the next.
//!
//! A reload replaces all zones from files; a [`ZoneUpdate`] replaces one secondary zone. Either way the
//! journal of the zone gets the difference for IXFR, and NOTIFY is due. Computing the difference of large
//! zones is slow, so a reload does it on its own thread ([`PreparedAuthority`]).

mod catalogs;

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use config::{AuthorityConfig, ProducedCatalog, SecondaryConfig, Sharing};
use dns::Name;
use limit::{Access, Cookies, ResponseRate};
use metrics::{ExpiredZone, ZonesSnapshot};
use zone::transfer::catalog::Consumer;
use zone::transfer::tsig::{TsigKey, TsigKeys};
use zone::transfer::{Difference, Journal, Records, Serial};
use zone::{Zone, ZoneDb};

use self::catalogs::{log_notes, reserved, transfers_of};
use super::failures::ZoneFailures;
use crate::control::process::SectionName;
use crate::control::zones::secondary::members::{self, OrderedSaves};
use crate::control::zones::secondary::{SecondaryZone, ZoneKind, ZoneUpdate, load_zone};
use crate::worker::authority::{AuthorityState, ZoneTransfers};

/// An authority that the workers serve.
pub(in crate::control) struct ServedAuthority {
    /// Never used again by another authority of this process.
    pub(in crate::control) number: usize,
    pub(super) config: Arc<AuthorityConfig>,
    pub(in crate::control) state: Arc<AuthorityState>,
    secondaries: HashMap<Name, Arc<SecondaryConfig>>,
    consumer: Consumer,
    saves: HashMap<Name, OrderedSaves>,
    pub(super) failures: ZoneFailures,
}

/// The effects of a change of an authority, which the server carries out.
#[derive(Default)]
pub(in crate::control) struct AuthorityChanges {
    pub(super) authority: usize,
    /// The zones that catalogs no longer list.
    pub(super) gone: Vec<Name>,
    /// The zones that catalogs list.
    pub(super) set: Vec<SecondaryZone>,
    /// Writes files, on a thread that may block.
    pub(super) disk: Vec<Box<dyn FnOnce() + Send>>,
    /// The zones with new versions.
    pub(super) zones: Vec<ZoneChange>,
}

/// A zone with outdated copies.
pub(in crate::control) struct ZoneChange {
    pub(super) zone: Arc<Zone>,
    pub(super) sharing: Sharing,
    pub(super) key: Option<TsigKey>,
}

/// An authority of a config, compared with the one that runs.
pub(in crate::control) struct PreparedAuthority {
    pub(super) config: Arc<AuthorityConfig>,
    /// The state with the zones from files alone.
    state: AuthorityState,
    /// The zones from files that are new or have changed, and their sharing.
    changed: Vec<(Arc<Zone>, Sharing)>,
    notices: Vec<String>,
    /// The catalogs as an earlier process knew them; empty if the authority runs.
    consumer: Consumer,
    /// Our own catalogs as they were saved.
    produced: HashMap<Name, Arc<Zone>>,
}

impl PreparedAuthority {
    /// Compares the zones from files with those of the running authority. Blocks on the disk, and is slow for
    /// large zones.
    pub(super) fn of(
        config: &AuthorityConfig,
        zone_db: Arc<ZoneDb>,
        keys: &Arc<TsigKeys>,
        running: Option<&AuthorityState>,
    ) -> Self {
        let consumer = match running {
            // A running authority knows its catalog zones better than its files do.
            Some(_) => Consumer::default(),
            None => restored(config, &zone_db),
        };
        let load = |catalog: &ProducedCatalog| Some((catalog.zone.clone(), load_zone(&catalog.file, &catalog.zone)?));
        let produced = config.zones.produced.iter().filter_map(load).collect();
        let (access, keys) = (Arc::new(Access::new(&config.access)), Arc::clone(keys));
        let state = AuthorityState { zone_db, keys, transfers: HashMap::new(), access, rate: None, cookies: None };
        let config = Arc::new(config.clone());
        let (changed, notices) = (Vec::new(), Vec::new());
        let mut this = Self { config, state, changed, notices, consumer, produced };
        this.compare(running);
        this
    }

    fn compare(&mut self, running: Option<&AuthorityState>) {
        for shared in &self.config.zones.shared {
            let Some(zone) = self.state.zone_db.zone(&shared.zone) else { continue };
            let known = running.and_then(|state| Some((state.zone_db.zone(&shared.zone)?, state)));
            let (journal, change) = match known {
                None => (empty_journal(), SerialChange::Newer),
                Some((old, state)) => {
                    let journal = state.transfers.get(&shared.zone).map(|transfers| transfers.journal.clone());
                    journal_of(old, zone, journal.unwrap_or_else(empty_journal))
                }
            };
            let (name, serial) = (zone.apex(), zone.serial());
            match change {
                SerialChange::None | SerialChange::Newer => {}
                SerialChange::SameSerial => self.notices.push(format!(
                    "zone {name} has changed but not its serial {serial}, so no secondary will notice; raise it"
                )),
                SerialChange::Older => self.notices.push(format!(
                    "zone {name} has gone back to serial {serial}, so no secondary will take it; raise it"
                )),
            }
            if change != SerialChange::None {
                self.changed.push((Arc::clone(zone), shared.sharing.clone()));
            }
            let (transfer_to, size) = (shared.sharing.transfer_to.clone(), Records::size_of(zone.iter()));
            let transfers = ZoneTransfers { transfer_to, journal, size, source: None };
            self.state.transfers.insert(shared.zone.clone(), Arc::new(transfers));
        }
    }

    /// Returns the secondary zones that the running authority with this config does not have.
    pub(super) fn new_secondaries(&self, running: Option<&AuthorityConfig>) -> Vec<SecondaryConfig> {
        let known = running.into_iter().flat_map(|config| &config.zones.secondaries);
        let known: HashSet<_> = known.map(|known| (&known.zone, &known.file)).collect();
        let new = self.config.zones.secondaries.iter().filter(|zone| !known.contains(&(&zone.zone, &zone.file)));
        new.cloned().chain(members::secondaries(&self.config, &self.consumer)).collect()
    }

    /// Returns the number of zones and tables from files that differ from those of the running authority.
    pub(super) fn count_changes(&self, running: &AuthorityState) -> usize {
        let (earlier, zone_db) = (&running.zone_db, &self.state.zone_db);
        let is_new = |zone: &&Arc<Zone>| earlier.zone(zone.apex()).is_some_and(|earlier| !Arc::ptr_eq(earlier, zone));
        let tables = !Arc::ptr_eq(zone_db.tables(), earlier.tables());
        zone_db.zones().iter().filter(is_new).count() + usize::from(tables)
    }
}

/// Reads the saved members of catalogs, and removes unused files.
fn restored(config: &AuthorityConfig, loaded: &ZoneDb) -> Consumer {
    let mut consumer = members::restore(config);
    log_notes(&config.name, &consumer.set_rules(members::rules(config), reserved(config, loaded)).notes);
    members::sweep(config, &consumer);
    consumer
}

impl ServedAuthority {
    /// Makes an authority, which must be [reloaded](Self::reload) with the same config.
    pub(super) fn new(number: usize, prepared: &mut PreparedAuthority) -> Self {
        Self {
            number,
            config: Arc::clone(&prepared.config),
            state: Arc::new(prepared.state.clone()),
            secondaries: HashMap::new(),
            consumer: mem::take(&mut prepared.consumer),
            saves: HashMap::new(),
            failures: ZoneFailures::default(),
        }
    }

    pub(in crate::control) fn name(&self) -> &str {
        &self.config.name
    }

    pub(in crate::control) fn section(&self) -> SectionName {
        SectionName::Authority(self.name().to_owned())
    }

    /// Returns the secondary zones of the config.
    pub(super) fn configured(&self) -> impl Iterator<Item = SecondaryZone> {
        self.config.zones.secondaries.iter().map(|secondary| {
            let is_catalog = self.config.zones.catalogs.iter().any(|catalog| catalog.rules.catalog == secondary.zone);
            let kind = if is_catalog { ZoneKind::Catalog } else { ZoneKind::Configured };
            self.secondary_zone(Arc::new(secondary.clone()), kind)
        })
    }

    fn secondary_zone(&self, config: Arc<SecondaryConfig>, kind: ZoneKind) -> SecondaryZone {
        let key = config.sharing.tsig.as_ref().and_then(|name| self.state.keys.by_name(name)).cloned();
        SecondaryZone { authority: self.number, config, key, kind }
    }

    /// Returns true if this authority is a primary server of a zone.
    pub(super) fn is_primary(&self, zone: &Zone) -> bool {
        self.state.transfers.get(zone.apex()).is_none_or(|zone| zone.source.is_none())
    }

    pub(super) fn is_served(&self) -> bool {
        self.state.zone_db.zones().iter().all(|zone| zone.is_served())
    }

    /// Notes the zones that are unserved now.
    pub(super) fn note_unserved(&mut self, now: Instant) {
        let unserved = self.state.zone_db.zones().iter().filter(|zone| !zone.is_served()).map(|zone| zone.apex());
        let secondaries = &self.secondaries;
        self.failures.set_unserved(now, unserved.filter(|zone| secondaries.contains_key(zone)));
    }

    /// Returns the names of zones for a snapshot.
    pub(super) fn place<'a>(&self, zones: impl IntoIterator<Item = &'a Name>) -> impl Iterator<Item = ExpiredZone> {
        zones.into_iter().map(|zone| ExpiredZone { authority: self.name().to_owned(), zone: zone.to_string() })
    }

    pub(super) fn count_zones(&self) -> ZonesSnapshot {
        let (mut primary, mut served, mut unserved) = (0, 0, 0);
        for zone in self.state.zone_db.zones() {
            match (self.secondaries.contains_key(zone.apex()), zone.is_served()) {
                (false, _) => primary += 1,
                (true, true) => served += 1,
                (true, false) => unserved += 1,
            }
        }
        let expired = unserved.min(self.failures.expired.len() as u64);
        ZonesSnapshot { authority: self.name().to_owned(), primary, served, absent: unserved - expired, expired }
    }

    /// Applies the config and the zones from files. Secondary zones, our own catalogs and the accounts of the
    /// rate limit continue.
    pub(super) fn reload(
        &mut self,
        prepared: PreparedAuthority,
        cookies: Option<Arc<Cookies>>,
    ) -> (AuthorityChanges, Vec<String>) {
        let PreparedAuthority { config, mut state, changed, notices, produced, .. } = prepared;
        let earlier_rules = mem::replace(&mut self.config, config).rate_limit;
        let mut changes = self.set_catalogs(&state.zone_db);
        let members = members::secondaries(&self.config, &self.consumer);
        let secondaries: Vec<_> = self.config.zones.secondaries.iter().cloned().chain(members).map(Arc::new).collect();
        for config in &secondaries {
            // Only a copy from a primary continues; a file of that name is not an earlier version of it.
            let known = self.state.known(&config.zone, true);
            let known = known.map(|(zone, known)| (Arc::clone(zone), known.journal.clone(), known.size));
            let none = || (Arc::new(Zone::unserved(&config.zone)), empty_journal(), 0);
            let (zone, journal, size) = known.unwrap_or_else(none);
            state.set_zone(zone, transfers_of(config, journal, size));
        }
        for catalog in &self.config.zones.produced {
            let known = self.state.known(&catalog.zone, false);
            let known = known.map(|(zone, known)| (zone, known.journal.clone()));
            if let Some((zone, journal)) = known.or_else(|| Some((produced.get(&catalog.zone)?, empty_journal()))) {
                let (transfer_to, size) = (catalog.sharing.transfer_to.clone(), Records::size_of(zone.iter()));
                state.set_zone(Arc::clone(zone), ZoneTransfers { transfer_to, journal, size, source: None });
            }
        }
        let rate = self.state.rate.clone().filter(|_| earlier_rules == self.config.rate_limit);
        let new_rate = |rules| Arc::new(ResponseRate::new(rules, ACCOUNTS, rand::random(), Instant::now()));
        (state.rate, state.cookies) = (rate.or_else(|| self.config.rate_limit.map(new_rate)), cookies);
        self.state = Arc::new(state);
        self.secondaries = secondaries.into_iter().map(|config| (config.zone.clone(), config)).collect();
        self.failures.expired.retain(|zone| self.secondaries.contains_key(zone));
        changes.zones.extend(changed.iter().map(|(zone, sharing)| self.change_of(zone, sharing)));
        self.produce(&mut changes);
        changes.set = self.members().collect();
        (changes, notices)
    }

    /// Applies new versions of secondary zones. Updates of removed zones are ignored.
    pub(super) fn take(&mut self, updates: Vec<ZoneUpdate>) -> Vec<AuthorityChanges> {
        let mut state = AuthorityState::clone(&self.state);
        let mut changes = self.no_changes();
        let mut versions = Vec::new();
        for ZoneUpdate { zone, size, steps, is_expired, catalog, .. } in updates {
            let name = zone.apex();
            let Some((config, known)) = self.secondaries.get(name).zip(state.transfers.get(name)) else { continue };
            self.failures.note(name, is_expired);
            let mut journal = known.journal.clone();
            steps.into_iter().for_each(|step| journal.push(step));
            let (transfer_to, source) = (config.sharing.transfer_to.clone(), known.source.clone());
            if zone.is_served() {
                changes.zones.push(self.change_of(&zone, &config.sharing));
            }
            versions.extend(catalog.map(|version| (name.clone(), version)));
            state.set_zone(zone, ZoneTransfers { transfer_to, journal, size, source });
        }
        self.state = Arc::new(state);
        let of_catalogs = versions.into_iter().map(|(catalog, version)| self.on_catalog(&catalog, version));
        [changes].into_iter().chain(of_catalogs).collect()
    }

    fn no_changes(&self) -> AuthorityChanges {
        AuthorityChanges { authority: self.number, ..AuthorityChanges::default() }
    }

    fn change_of(&self, zone: &Arc<Zone>, sharing: &Sharing) -> ZoneChange {
        let key = sharing.tsig.as_ref().and_then(|name| self.state.keys.by_name(name)).cloned();
        ZoneChange { zone: Arc::clone(zone), sharing: sharing.clone(), key }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SerialChange {
    None,
    Newer,
    SameSerial,
    Older,
}

fn journal_of(old: &Arc<Zone>, new: &Arc<Zone>, mut journal: Journal) -> (Journal, SerialChange) {
    if Arc::ptr_eq(old, new) {
        return (journal, SerialChange::None);
    }
    let (before, after) = (Serial(old.serial()), Serial(new.serial()));
    let step = Difference::between(old.iter(), new.iter());
    if before == after {
        // Each side always has its SOA record.
        let is_same = step.as_ref().is_ok_and(|step| step.removed == step.added && step.added.iter().len() == 1);
        return (journal, if is_same { SerialChange::None } else { SerialChange::SameSerial });
    }
    if !after.is_newer_than(before) {
        return (empty_journal(), SerialChange::Older);
    }
    match step {
        Ok(step) => journal.push(step),
        Err(_) => journal = empty_journal(),
    }
    (journal, SerialChange::Newer)
}

fn empty_journal() -> Journal {
    Journal::new(STEPS, STEP_OCTETS)
}

/// Versions in a journal for IXFR. A secondary that has missed more transfers the whole zone.
const STEPS: usize = 100;

/// The most bytes of a journal. More would exceed most zones.
const STEP_OCTETS: usize = 64 << 20;

/// Clients, names and kinds of answers tracked by the response rate limit: 1 MiB.
const ACCOUNTS: usize = 128 << 10;
