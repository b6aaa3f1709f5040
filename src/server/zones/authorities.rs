//! The state of authorities, built from a config and loaded zones, and updated from one version to the next.
//!
//! A reload replaces all zones from files; a [`ZoneUpdate`] replaces one secondary zone. Either way the
//! journal of the zone gets the difference for IXFR, and NOTIFY is due. Computing the difference of large
//! zones is slow, so a reload does it on its own thread ([`AuthorityComparison`]).

mod catalogs;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use self::catalogs::{Catalogs, transfers_of};
pub(super) use self::catalogs::{MemberChanges, RestoredCatalogs};
use super::PreparedAuthority;
use crate::authority::{AuthorityState, ZoneTransfers};
use crate::config::{AuthorityConfig, SecondaryConfig, SharedZone, Sharing};
use crate::limit::{Access, Cookies, RateRules, ResponseRate};
use crate::metrics::ExpiredZone;
use crate::secondary::{SecondaryZone, ZoneKind, ZoneUpdate};
use crate::server::process::{ReloadNotice, SectionName};
use crate::transfer::tsig::{TsigKey, TsigKeys};
use crate::transfer::{Difference, Journal, Records, Serial};
use crate::wire::Name;
use crate::zone::{Zone, ZoneDb};

pub(in crate::server) struct ServedAuthority {
    /// Never used again by another authority of this process.
    number: usize,
    config: AuthorityConfig,
    state: Arc<AuthorityState>,
    secondaries: HashMap<Name, Arc<SecondaryConfig>>,
    catalogs: Catalogs,
}

pub(in crate::server) struct AcceptOutcome {
    pub(in crate::server) message: String,
    pub(in crate::server) changes: MemberChanges,
}

#[derive(Default)]
pub(in crate::server) struct UpdateOutcome {
    pub(in crate::server) changes: Vec<ZoneChange>,
    pub(in crate::server) members: Vec<MemberChanges>,
}

pub(in crate::server) struct AuthorityComparison(HashMap<Name, ZoneComparison>);

struct ZoneComparison {
    transfers: ZoneTransfers,
    change: Option<SerialChange>,
}

impl AuthorityComparison {
    /// Compares the zones from files with the current state of the authority. Slow for large zones.
    pub(in crate::server) fn of(config: &AuthorityConfig, loaded: &ZoneDb, earlier: Option<&AuthorityState>) -> Self {
        let compare = |shared: &SharedZone| {
            let zone = loaded.zone(&shared.zone)?;
            let size = Records::size_of(zone.iter());
            let known = earlier.and_then(|state| Some((state.zone_db.zone(&shared.zone)?, state)));
            let (journal, change) = match known {
                None => (empty_journal(), None),
                Some((old, state)) => {
                    let journal = state.transfers.get(&shared.zone).map(|transfers| transfers.journal.clone());
                    let (journal, change) = journal_of(old, zone, journal.unwrap_or_else(empty_journal));
                    (journal, Some(change))
                }
            };
            let transfers =
                ZoneTransfers { transfer_to: shared.sharing.transfer_to.clone(), journal, size, source: None };
            Some((shared.zone.clone(), ZoneComparison { transfers, change }))
        };
        Self(config.shared.iter().filter_map(compare).collect())
    }
}

/// A zone with outdated copies.
pub(in crate::server) struct ZoneChange {
    pub(in crate::server) authority: usize,
    pub(in crate::server) zone: Arc<Zone>,
    pub(in crate::server) sharing: Sharing,
    pub(in crate::server) key: Option<TsigKey>,
}

impl ServedAuthority {
    pub(in crate::server) fn new(
        number: usize,
        PreparedAuthority { config, zone_db, comparison, restored }: PreparedAuthority,
        keys: &Arc<TsigKeys>,
        cookies: Option<Arc<Cookies>>,
    ) -> (Self, MemberChanges) {
        let state = Arc::new(empty_state(&config, zone_db, keys, cookies));
        let (secondaries, catalogs) = (HashMap::new(), Catalogs::default());
        let mut served = Self { number, config, state, secondaries, catalogs };
        let produced = restored.produced.clone();
        served.take_restored(restored);
        let (mut changes, _) = served.fill(comparison, None, &produced);
        let mut follows = MemberChanges::default();
        changes.extend(served.produce(&mut follows.disk));
        let set = served.members().collect();
        (served, MemberChanges { changes, set, ..follows })
    }

    pub(in crate::server) fn name(&self) -> &str {
        &self.config.name
    }

    pub(in crate::server) fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    pub(in crate::server) fn state(&self) -> &Arc<AuthorityState> {
        &self.state
    }

    pub(in crate::server) fn zones(&self) -> impl Iterator<Item = SecondaryZone> {
        secondary_zones_of(self.number, &self.config, &self.state.keys)
    }

    pub(in crate::server) fn has_secondary(&self, zone: &Name) -> bool {
        self.secondaries.contains_key(zone)
    }

    /// Returns all zones, each with true if this authority is a primary of it.
    pub(super) fn all_zones(&self) -> impl Iterator<Item = (&Arc<Zone>, bool)> {
        let is_ours = |zone: &Zone| self.state.transfers.get(zone.apex()).is_none_or(|zone| zone.source.is_none());
        self.state.zone_db.zones().iter().map(move |zone| (zone, is_ours(zone)))
    }

    pub(super) fn place_of(&self, zone: &Name) -> ExpiredZone {
        ExpiredZone { authority: self.name().to_owned(), zone: zone.to_string() }
    }

    pub(in crate::server) fn section(&self) -> SectionName {
        SectionName::Authority(self.name().to_owned())
    }

    pub(in crate::server) fn number(&self) -> usize {
        self.number
    }

    pub(in crate::server) fn reload(
        &mut self,
        PreparedAuthority { config, zone_db, comparison, restored }: PreparedAuthority,
        keys: &Arc<TsigKeys>,
        cookies: Option<Arc<Cookies>>,
    ) -> (MemberChanges, Vec<ReloadNotice>) {
        let earlier = Arc::clone(&self.state);
        let earlier_rules = self.config.rate_limit;
        let state = empty_state(&config, Arc::clone(&zone_db), keys, cookies);
        (self.config, self.state) = (config, Arc::new(state));
        let mut follows = self.set_catalogs(&zone_db);
        let (changes, notices) = self.fill(comparison, Some((&earlier, earlier_rules)), &restored.produced);
        follows.changes = changes;
        let produced = self.produce(&mut follows.disk);
        follows.changes.extend(produced);
        follows.set = self.members().collect();
        (follows, notices)
    }

    /// Applies new versions of secondary zones. Updates of removed zones are ignored.
    pub(in crate::server) fn take(&mut self, updates: Vec<ZoneUpdate>) -> UpdateOutcome {
        let mut taken = UpdateOutcome::default();
        let mut transfers = self.state.transfers.clone();
        let mut zone_db = ZoneDb::clone(&self.state.zone_db);
        let mut versions = Vec::new();
        for ZoneUpdate { zone, size, steps, catalog, .. } in updates {
            let Some((config, of_zone)) = self.secondaries.get(zone.apex()).zip(transfers.get(zone.apex())) else {
                continue;
            };
            let mut journal = of_zone.journal.clone();
            steps.into_iter().for_each(|step| journal.push(step));
            let (transfer_to, source) = (config.sharing.transfer_to.clone(), of_zone.source.clone());
            if zone.is_served() {
                taken.changes.push(self.change_of(&zone, &config.sharing));
            }
            versions.extend(catalog.map(|version| (zone.apex().clone(), version)));
            transfers.insert(zone.apex().clone(), Arc::new(ZoneTransfers { transfer_to, journal, size, source }));
            zone_db = zone_db.with_zone(zone);
        }
        self.set_state(zone_db, transfers);
        taken.members = versions.into_iter().map(|(catalog, version)| self.on_catalog(&catalog, version)).collect();
        taken
    }

    fn fill(
        &mut self,
        mut comparison: AuthorityComparison,
        earlier: Option<(&AuthorityState, Option<RateRules>)>,
        produced: &HashMap<Name, Arc<Zone>>,
    ) -> (Vec<ZoneChange>, Vec<ReloadNotice>) {
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        let mut all_transfers = HashMap::new();
        let mut zone_db = ZoneDb::clone(&self.state.zone_db);
        for shared in &self.config.shared {
            let (Some(zone), Some(compared)) = (zone_db.zone(&shared.zone), comparison.0.remove(&shared.zone)) else {
                continue;
            };
            notices.extend(compared.change.and_then(|change| change.notice(zone)));
            if compared.change != Some(SerialChange::None) {
                changes.push(self.change_of(zone, &shared.sharing));
            }
            all_transfers.insert(shared.zone.clone(), Arc::new(compared.transfers));
        }
        let configured = self.config.secondaries.iter().cloned();
        let members = crate::secondary::members::secondaries(&self.config, &self.catalogs.consumer);
        let secondaries: Vec<_> = configured.chain(members).map(Arc::new).collect();
        for config in &secondaries {
            let name = &config.zone;
            // Only a copy from a primary continues; a file of that name is not an earlier version of it.
            let known = earlier.and_then(|(state, _)| {
                let transfers = state.transfers.get(name).filter(|transfers| transfers.source.is_some())?;
                Some((Arc::clone(state.zone_db.zone(name)?), transfers.journal.clone(), transfers.size))
            });
            let none = || (Arc::new(Zone::unserved(name)), empty_journal(), 0);
            let (zone, journal, size) = known.unwrap_or_else(none);
            all_transfers.insert(name.clone(), Arc::new(transfers_of(config, journal, size)));
            zone_db = zone_db.with_zone(zone);
        }
        for catalog in &self.config.produced {
            let known = earlier.and_then(|(state, _)| {
                let transfers = state.transfers.get(&catalog.zone).filter(|transfers| transfers.source.is_none())?;
                Some((Arc::clone(state.zone_db.zone(&catalog.zone)?), transfers.journal.clone()))
            });
            let known = known.or_else(|| Some((Arc::clone(produced.get(&catalog.zone)?), empty_journal())));
            if let Some((zone, journal)) = known {
                let (transfer_to, size) = (catalog.sharing.transfer_to.clone(), Records::size_of(zone.iter()));
                let transfers = ZoneTransfers { transfer_to, journal, size, source: None };
                all_transfers.insert(catalog.zone.clone(), Arc::new(transfers));
                zone_db = zone_db.with_zone(zone);
            }
        }
        self.secondaries = secondaries.into_iter().map(|config| (config.zone.clone(), config)).collect();
        let rate = match (self.config.rate_limit, earlier) {
            (Some(rules), Some((state, Some(known)))) if rules == known => state.rate.clone(),
            (Some(rules), _) => Some(Arc::new(ResponseRate::new(rules, ACCOUNTS, rand::random(), Instant::now()))),
            (None, _) => None,
        };
        let keys = Arc::clone(&self.state.keys);
        let (access, cookies) = (Arc::clone(&self.state.access), self.state.cookies.clone());
        let zone_db = Arc::new(zone_db);
        self.state = Arc::new(AuthorityState { zone_db, keys, transfers: all_transfers, access, rate, cookies });
        (changes, notices)
    }

    fn change_of(&self, zone: &Arc<Zone>, sharing: &Sharing) -> ZoneChange {
        let key = sharing.tsig.as_ref().and_then(|name| self.state.keys.by_name(name)).cloned();
        ZoneChange { authority: self.number, zone: Arc::clone(zone), sharing: sharing.clone(), key }
    }
}

fn empty_state(
    config: &AuthorityConfig,
    loaded: Arc<ZoneDb>,
    keys: &Arc<TsigKeys>,
    cookies: Option<Arc<Cookies>>,
) -> AuthorityState {
    let access = Arc::new(Access::new(&config.access));
    AuthorityState { zone_db: loaded, keys: Arc::clone(keys), transfers: HashMap::new(), access, rate: None, cookies }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SerialChange {
    None,
    Newer,
    SameSerial,
    Older,
}

impl SerialChange {
    fn notice(self, zone: &Zone) -> Option<ReloadNotice> {
        let (zone, serial) = (zone.apex().to_string(), zone.serial());
        match self {
            Self::None | Self::Newer => None,
            Self::SameSerial => Some(ReloadNotice::SameSerial { zone, serial }),
            Self::Older => Some(ReloadNotice::OlderSerial { zone, serial }),
        }
    }
}

fn journal_of(old: &Arc<Zone>, new: &Arc<Zone>, mut journal: Journal) -> (Journal, SerialChange) {
    if Arc::ptr_eq(old, new) {
        return (journal, SerialChange::None);
    }
    let (before, after) = (Serial(old.serial()), Serial(new.serial()));
    let step = Difference::between(old.iter(), new.iter());
    if before == after {
        // Each side always has its SOA record.
        let is_same = step.as_ref().is_ok_and(|step| step.removed() == step.added() && step.added().len() == 1);
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

pub(in crate::server) fn secondary_zones_of(
    number: usize,
    config: &AuthorityConfig,
    keys: &TsigKeys,
) -> impl Iterator<Item = SecondaryZone> {
    config.secondaries.iter().map(move |secondary| {
        let is_catalog = config.catalogs.iter().any(|catalog| catalog.rules.catalog == secondary.zone);
        let kind = if is_catalog { ZoneKind::Catalog } else { ZoneKind::Configured };
        secondary_zone(number, Arc::new(secondary.clone()), kind, keys)
    })
}

fn secondary_zone(authority: usize, config: Arc<SecondaryConfig>, kind: ZoneKind, keys: &TsigKeys) -> SecondaryZone {
    let key = config.sharing.tsig.as_ref().and_then(|name| keys.by_name(name)).cloned();
    SecondaryZone { authority, config, key, kind }
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
