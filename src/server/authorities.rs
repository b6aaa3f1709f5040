//! What the authorities hold: from a config and what was loaded to their states, and from one state to the next.
//!
//! Zones change in two ways. A reload brings all zones of files anew; those of other servers stay as they are. A [`ZoneUpdate`]
//! brings one zone of another server; all else stays as it is. Either way the journal of a zone gets the step from the
//! version before, for IXFR, and whoever has a copy is to be told.
//!
//! To find that step takes as long as both versions are large, so a reload does it on its own thread ([`Comparison`]) and only
//! then changes what is held.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::ReloadNotice;
use crate::authority::{AuthorityState, Source, ZoneTransfers};
use crate::config::{AuthorityConfig, SharedZone, Sharing};
use crate::limit::{Access, Cookies, RateRules, ResponseRate};
use crate::secondary::{SecondaryZone, ZoneUpdate};
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
    ) -> (Self, Vec<ZoneChange>) {
        let state = empty_state(&config, loaded, keys, cookies);
        let mut served = Self { number, config, state: Arc::new(state) };
        let (changes, _) = served.fill(comparison, None);
        (served, changes)
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

    /// The zones that come from other servers.
    pub(super) fn zones(&self) -> impl Iterator<Item = SecondaryZone> {
        secondary_zones_of(self.number, &self.config, &self.state.keys)
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
    ) -> (Vec<ZoneChange>, Vec<ReloadNotice>) {
        let earlier = Arc::clone(&self.state);
        let earlier_rules = self.config.rate_limit;
        let state = empty_state(&config, loaded, keys, cookies);
        (self.config, self.state) = (config, Arc::new(state));
        self.fill(comparison, Some((&earlier, earlier_rules)))
    }

    /// Takes a new version of a zone of another server. A zone that the config no longer has is none of ours.
    pub(super) fn take(&mut self, update: ZoneUpdate) -> Option<ZoneChange> {
        let ZoneUpdate { zone, size, steps, .. } = update;
        let sharing = &self.config.secondaries.iter().find(|config| config.zone == *zone.apex())?.sharing;
        let transfers = self.state.transfers.get(zone.apex())?;
        let mut journal = transfers.journal.clone();
        steps.into_iter().for_each(|step| journal.push(step));
        let (transfer_to, source) = (sharing.transfer_to.clone(), transfers.source.clone());
        let of_zone = ZoneTransfers { transfer_to, journal, size, source };
        let mut transfers = self.state.transfers.clone();
        transfers.insert(zone.apex().clone(), Arc::new(of_zone));
        let changes = zone.is_served().then(|| self.change_of(&zone, sharing));
        self.state = Arc::new(AuthorityState {
            zone_db: Arc::new(ZoneDb::clone(&self.state.zone_db).with_zone(zone)),
            keys: Arc::clone(&self.state.keys),
            transfers,
            access: Arc::clone(&self.state.access),
            rate: self.state.rate.clone(),
            cookies: self.state.cookies.clone(),
        });
        changes
    }

    /// Completes a state of what was loaded by what it has from an earlier one, and from other servers.
    fn fill(
        &mut self,
        mut comparison: Comparison,
        earlier: Option<(&AuthorityState, Option<RateRules>)>,
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
        for secondary in &self.config.secondaries {
            // Only what came from other servers goes on; a file of that name is no version of theirs.
            let known = earlier.and_then(|(state, _)| {
                let transfers = state.transfers.get(&secondary.zone).filter(|transfers| transfers.source.is_some())?;
                Some((Arc::clone(state.zone_db.zone(&secondary.zone)?), transfers.journal.clone(), transfers.size))
            });
            let none = || (Arc::new(Zone::unserved(&secondary.zone)), empty_journal(), 0);
            let (zone, journal, size) = known.unwrap_or_else(none);
            let source = Source {
                primaries: secondary.primaries.clone(),
                notify_from: secondary.notify_from.clone(),
                tsig: secondary.sharing.tsig.as_ref().map(Name::folded),
                places: Arc::default(),
            };
            let transfer_to = secondary.sharing.transfer_to.clone();
            let transfers = ZoneTransfers { transfer_to, journal, size, source: Some(source) };
            all_transfers.insert(secondary.zone.clone(), Arc::new(transfers));
            zone_db = zone_db.with_zone(zone);
        }
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
    config.secondaries.iter().map(move |config| {
        let key = config.sharing.tsig.as_ref().and_then(|name| keys.by_name(name)).cloned();
        SecondaryZone { authority: number, config: config.clone(), key }
    })
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
