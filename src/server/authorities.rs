//! What the authorities hold: from a config and what was loaded to their states, and from one state to the next.
//!
//! Zones change in two ways. A reload brings all zones of files anew; those of other servers stay as they are. A [`ZoneUpdate`]
//! brings one zone of another server; all else stays as it is. Either way the journal of a zone gets the step from the
//! version before, for IXFR, and whoever has a copy is to be told.
//!
//! To find that step takes as long as both versions are large, so a reload does it on its own thread ([`Comparison`]) and only
//! then changes what is held.

mod catalogs;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use self::catalogs::{Catalogs, transfers_of};
pub(super) use self::catalogs::{MemberChanges, Restored};
use super::ReloadNotice;
use crate::authority::{AuthorityState, ZoneTransfers};
use crate::config::{AuthorityConfig, SecondaryConfig, SharedZone, Sharing};
use crate::limit::{Access, Cookies, RateRules, ResponseRate};
use crate::secondary::{SecondaryZone, ZoneKind, ZoneUpdate};
use crate::transfer::tsig::{Key, Keys};
use crate::transfer::{Difference, Journal, Records, Serial};
use crate::wire::Name;
use crate::zone::{Zone, ZoneDb};

/// What one authority holds.
pub(super) struct ServedAuthority {
    /// Its number, which no other authority of this process ever has.
    number: usize,
    config: AuthorityConfig,
    /// What it answers from.
    state: Arc<AuthorityState>,
    /// The zones that come from other servers, by the word of the config or of catalogs.
    secondaries: HashMap<Name, Arc<SecondaryConfig>>,
    catalogs: Catalogs,
}

/// What has come of a version of a catalog that an operator takes.
pub(super) struct Accepted {
    /// In a sentence.
    pub(super) message: String,
    pub(super) changes: MemberChanges,
}

/// What has come of updates.
#[derive(Default)]
pub(super) struct Taken {
    /// The zones whose copies are out of date.
    pub(super) changes: Vec<ZoneChange>,
    /// What follows from those that are catalogs.
    pub(super) members: Vec<MemberChanges>,
}

/// What is exchanged of the zones of files with others, as it will be when they come into force.
pub(super) struct Comparison(HashMap<Name, Compared>);

/// One of these zones.
struct Compared {
    /// What is exchanged of it.
    transfers: ZoneTransfers,
    /// How it differs from the version before; none if there was none.
    change: Option<Change>,
}

impl Comparison {
    /// Compares the zones of files of a config with what an authority has answered from so far, if there is one. Takes as long
    /// as the zones are large.
    pub(super) fn of(config: &AuthorityConfig, loaded: &ZoneDb, earlier: Option<&AuthorityState>) -> Self {
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
            Some((shared.zone.clone(), Compared { transfers, change }))
        };
        Self(config.shared.iter().filter_map(compare).collect())
    }
}

/// A zone whose copies are out of date.
pub(super) struct ZoneChange {
    /// The number of its authority.
    pub(super) authority: usize,
    /// The new version.
    pub(super) zone: Arc<Zone>,
    /// Who has copies.
    pub(super) sharing: Sharing,
    /// The key that it is told with.
    pub(super) key: Option<Key>,
}

impl ServedAuthority {
    /// What an authority holds that begins; all that it shares has changed.
    pub(super) fn new(
        number: usize,
        config: AuthorityConfig,
        loaded: Arc<ZoneDb>,
        comparison: Comparison,
        keys: &Arc<Keys>,
        cookies: Option<Arc<Cookies>>,
        restored: Restored,
    ) -> (Self, MemberChanges) {
        let state = Arc::new(empty_state(&config, loaded, keys, cookies));
        let (secondaries, catalogs) = (HashMap::new(), Catalogs::default());
        let mut served = Self { number, config, state, secondaries, catalogs };
        let produced = restored.produced.clone();
        served.take_restored(restored);
        let (mut changes, _) = served.fill(comparison, None, &produced);
        let mut follows = MemberChanges::default();
        changes.extend(served.produce(&mut follows.disk));
        (served, MemberChanges { changes, ..follows })
    }

    /// Its name in the config.
    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// How it is configured.
    pub(super) fn config(&self) -> &AuthorityConfig {
        &self.config
    }

    /// What it answers from.
    pub(super) fn state(&self) -> &Arc<AuthorityState> {
        &self.state
    }

    /// The zones that come from other servers by the word of the config.
    pub(super) fn zones(&self) -> impl Iterator<Item = SecondaryZone> {
        secondary_zones_of(self.number, &self.config, &self.state.keys)
    }

    /// Whether it has a zone of this name from other servers.
    pub(super) fn has_secondary(&self, zone: &Name) -> bool {
        self.secondaries.contains_key(zone)
    }

    /// All its zones, each with the name of this authority and whether it is its own.
    pub(super) fn all_zones(&self) -> impl Iterator<Item = (&str, &Arc<Zone>, bool)> {
        let is_ours = |zone: &Zone| self.state.transfers.get(zone.apex()).is_none_or(|zone| zone.source.is_none());
        self.state.zone_db.zones().iter().map(move |zone| (self.name(), zone, is_ours(zone)))
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Takes a config and zones that were read again, and compared with what it holds. Says what is new, and what is odd about it.
    pub(super) fn reload(
        &mut self,
        config: AuthorityConfig,
        loaded: Arc<ZoneDb>,
        comparison: Comparison,
        keys: &Arc<Keys>,
        cookies: Option<Arc<Cookies>>,
        restored: &Restored,
    ) -> (MemberChanges, Vec<ReloadNotice>) {
        let earlier = Arc::clone(&self.state);
        let earlier_rules = self.config.rate_limit;
        let state = empty_state(&config, Arc::clone(&loaded), keys, cookies);
        (self.config, self.state) = (config, Arc::new(state));
        let mut follows = self.set_catalogs(&loaded);
        let (changes, notices) = self.fill(comparison, Some((&earlier, earlier_rules)), &restored.produced);
        follows.changes = changes;
        let produced = self.produce(&mut follows.disk);
        follows.changes.extend(produced);
        follows.set = self.members().collect();
        (follows, notices)
    }

    /// Takes new versions of zones of other servers. A zone that it no longer has is none of ours.
    pub(super) fn take(&mut self, updates: Vec<ZoneUpdate>) -> Taken {
        let mut taken = Taken::default();
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

    /// Completes a state of what was loaded by what it has from an earlier one, and from other servers.
    fn fill(
        &mut self,
        mut comparison: Comparison,
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
            if compared.change != Some(Change::None) {
                changes.push(self.change_of(zone, &shared.sharing));
            }
            all_transfers.insert(shared.zone.clone(), Arc::new(compared.transfers));
        }
        let configured = self.config.secondaries.iter().cloned();
        let members = crate::secondary::members::secondaries(&self.config, &self.catalogs.consumer);
        let secondaries: Vec<_> = configured.chain(members).map(Arc::new).collect();
        for config in &secondaries {
            let name = &config.zone;
            // Only what came from other servers goes on; a file of that name is no version of theirs.
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

    /// A zone and who is to know of it.
    fn change_of(&self, zone: &Arc<Zone>, sharing: &Sharing) -> ZoneChange {
        let key = sharing.tsig.as_ref().and_then(|name| self.state.keys.by_name(name)).cloned();
        ZoneChange { authority: self.number, zone: Arc::clone(zone), sharing: sharing.clone(), key }
    }
}

/// The state of a config and of zones that were loaded, before anything is exchanged or limited.
fn empty_state(
    config: &AuthorityConfig,
    loaded: Arc<ZoneDb>,
    keys: &Arc<Keys>,
    cookies: Option<Arc<Cookies>>,
) -> AuthorityState {
    let access = Arc::new(Access::new(&config.access));
    AuthorityState { zone_db: loaded, keys: Arc::clone(keys), transfers: HashMap::new(), access, rate: None, cookies }
}

/// How a zone differs from its version before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Not at all.
    None,
    /// It has a later serial, as it should.
    Newer,
    /// It differs, and has the serial that it had.
    SameSerial,
    /// It has a serial that was before.
    Older,
}

impl Change {
    /// What an operator should know of it.
    fn notice(self, zone: &Zone) -> Option<ReloadNotice> {
        let (zone, serial) = (zone.apex().to_string(), zone.serial());
        match self {
            Self::None | Self::Newer => None,
            Self::SameSerial => Some(ReloadNotice::SameSerial { zone, serial }),
            Self::Older => Some(ReloadNotice::OlderSerial { zone, serial }),
        }
    }
}

/// The journal of a zone after a reload, and what it was.
fn journal_of(old: &Arc<Zone>, new: &Arc<Zone>, mut journal: Journal) -> (Journal, Change) {
    if Arc::ptr_eq(old, new) {
        return (journal, Change::None);
    }
    let (before, after) = (Serial(old.serial()), Serial(new.serial()));
    let step = Difference::between(old.iter(), new.iter());
    if before == after {
        // Each side always has its SOA record.
        let is_same = step.as_ref().is_ok_and(|step| step.removed() == step.added() && step.added().len() == 1);
        return (journal, if is_same { Change::None } else { Change::SameSerial });
    }
    if !after.is_newer_than(before) {
        return (empty_journal(), Change::Older);
    }
    match step {
        Ok(step) => journal.push(step),
        Err(_) => journal = empty_journal(),
    }
    (journal, Change::Newer)
}

/// The zones that an authority of this number has from other servers, by its config.
pub(super) fn secondary_zones_of(
    number: usize,
    config: &AuthorityConfig,
    keys: &Keys,
) -> impl Iterator<Item = SecondaryZone> {
    config.secondaries.iter().map(move |secondary| {
        let is_catalog = config.catalogs.iter().any(|catalog| catalog.rules.catalog == secondary.zone);
        let kind = if is_catalog { ZoneKind::Catalog } else { ZoneKind::Configured };
        secondary_zone(number, Arc::new(secondary.clone()), kind, keys)
    })
}

/// A zone from other servers, with the key that it is asked for with.
fn secondary_zone(authority: usize, config: Arc<SecondaryConfig>, kind: ZoneKind, keys: &Keys) -> SecondaryZone {
    let key = config.sharing.tsig.as_ref().and_then(|name| keys.by_name(name)).cloned();
    SecondaryZone { authority, config, key, kind }
}

/// A journal without steps.
fn empty_journal() -> Journal {
    Journal::new(STEPS, STEP_OCTETS)
}

/// Versions that are kept of a zone, for IXFR: a secondary that has missed more takes the whole zone.
const STEPS: usize = 100;

/// Octets that they may take. More would be longer than most zones.
const STEP_OCTETS: usize = 64 << 20;

/// Clients, names and kinds of answers that the rate of responses is known of: 1 MiB.
const ACCOUNTS: usize = 128 << 10;
