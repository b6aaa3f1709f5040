//! The zones of the server: authorities, secondary zones, NOTIFY, catalogs, and the registrations of
//! authorities in etcd.
//!
//! The reload thread compares the new files with the current state ([`PreparedZones`]); the control thread
//! swaps the result in.

mod authorities;
mod failures;
mod registrations;
mod updates;

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub(super) use self::authorities::ServedAuthority;
use self::authorities::{
    AuthorityComparison, MemberChanges, RestoredCatalogs, UpdateOutcome, ZoneChange, secondary_zones_of,
};
use self::failures::ZoneFailures;
use self::registrations::Registrations;
pub(super) use self::registrations::{Lease, RegistrationsEnd};
use self::updates::Updates;
use super::links::ServerLinks;
use super::process::{Listeners, ReloadNotice};
use super::reload::Reload;
use super::worker::WorkerCommand;
use crate::admin::ChangeRefusal;
use crate::admin::status::{Status, ZoneStatus, ZonesReport};
use crate::authority::{AuthorityState, ReceivedNotify};
use crate::config::{AuthorityConfig, counted};
use crate::discoverer::EtcdAccess;
use crate::limit::Cookies;
use crate::load::Setup;
use crate::metrics::{CatalogSnapshot, ExpiredZone, Snapshot};
use crate::net::tasks::{TaskKind, blocking};
use crate::net::to_backends::tls::KnownRoots;
use crate::notify::Notifier;
use crate::secondary::{SavedZone, SavedZones, Secondaries, SecondaryZone, ZoneKind, ZoneUpdate};
use crate::transfer::catalog::CatalogAcceptError;
use crate::transfer::tsig::TsigKeys;
use crate::wire::Name;
use crate::zone::{Zone, ZoneDb};

/// The zones, on the control thread.
pub(super) struct ServerZones {
    authorities: Vec<ServedAuthority>,
    next_number: usize,
    secondaries: Secondaries,
    updates: Updates,
    notifies: UnboundedReceiver<ReceivedNotify>,
    notifier: Notifier,
    registrations: Registrations,
    failures: ZoneFailures,
    links: ServerLinks,
}

/// The current zones, for the comparison with those of another config.
#[derive(Default)]
pub(super) struct ZonesBase {
    authorities: Vec<(usize, String, Arc<AuthorityState>)>,
    zones: Vec<SecondaryZone>,
    next_number: usize,
}

/// The zones of a config, ready to be served.
pub(super) struct PreparedZones {
    authorities: Vec<PreparedAuthority>,
    keys: Arc<TsigKeys>,
    saved: Vec<(SecondaryZone, SavedZone)>,
}

/// An authority of a config, ready to be served.
pub(super) struct PreparedAuthority {
    config: AuthorityConfig,
    zone_db: Arc<ZoneDb>,
    comparison: AuthorityComparison,
    restored: RestoredCatalogs,
}

impl PreparedZones {
    /// Compares the zones of a config with the current ones, and loads saved secondary zones. Blocks on the
    /// disk, and is slow for large zones.
    pub(super) fn of(setup: &mut Setup, base: &ZonesBase, saved: SavedZones) -> Self {
        let (zone_dbs, keys) = (mem::take(&mut setup.zone_dbs), mem::take(&mut setup.keys));
        let (mut authorities, mut zones) = (Vec::new(), Vec::new());
        let mut next_number = base.next_number;
        for (config, zone_db) in setup.config.authorities.iter().zip(zone_dbs) {
            let known = base.find(&config.name);
            let comparison = AuthorityComparison::of(config, &zone_db, known.map(|(_, state)| &**state));
            let number = known.map_or(next_number, |(number, _)| number);
            next_number += usize::from(known.is_none());
            zones.extend(secondary_zones_of(number, config, &keys));
            // A running authority knows its catalog zones better than its files do.
            let restored = match known {
                Some(_) => RestoredCatalogs::produced(config),
                None => RestoredCatalogs::of(config, &zone_db),
            };
            zones.extend(restored.members(number, config, &keys));
            authorities.push(PreparedAuthority { config: config.clone(), zone_db, comparison, restored });
        }
        let known: HashMap<_, _> =
            base.zones.iter().map(|known| ((known.authority, &known.config.zone), known)).collect();
        let is_new =
            |zone: &SecondaryZone| known.get(&(zone.authority, &zone.config.zone)).is_none_or(|known| *known != zone);
        let saved = saved.load_all(zones.into_iter().filter(is_new));
        Self { authorities, keys: Arc::new(keys), saved }
    }

    /// Describes the zones that differ from the current ones, such as "1 zone reloaded".
    pub(super) fn changes_since(&self, base: &ZonesBase) -> Option<String> {
        let changes = self.authorities.iter().map(|PreparedAuthority { config, zone_db, .. }| {
            base.find(&config.name).map_or(0, |(_, state)| {
                let earlier = &state.zone_db;
                let is_new =
                    |zone: &&Arc<Zone>| earlier.zone(zone.apex()).is_some_and(|earlier| !Arc::ptr_eq(earlier, zone));
                let tables = !Arc::ptr_eq(zone_db.tables(), earlier.tables());
                zone_db.zones().iter().filter(is_new).count() + usize::from(tables)
            })
        });
        let changes: usize = changes.sum();
        (changes > 0).then(|| format!("{} reloaded", counted(changes, "zone")))
    }
}

impl ZonesBase {
    fn find(&self, name: &str) -> Option<(usize, &Arc<AuthorityState>)> {
        let known = self.authorities.iter().find(|(_, known, _)| known == name);
        known.map(|(number, _, state)| (*number, state))
    }
}

impl ServerZones {
    /// Starts the zones of a config. Zones from primaries are answered from saved data at once; `leases` are
    /// those of a previous process. Must be used within a `LocalSet`.
    pub(super) fn start(
        prepared: PreparedZones,
        reload: &mut Reload<'_>,
        notifies: UnboundedReceiver<ReceivedNotify>,
        links: ServerLinks,
    ) -> Self {
        // At most one per ended transfer, and one transfer runs per zone; this thread sends and receives.
        let (sender, updates) = unbounded_channel();
        let mut this = Self {
            authorities: Vec::new(),
            next_number: 0,
            secondaries: Secondaries::new(links.tasks.clone(), sender, Arc::clone(&reload.roots)),
            updates: Updates::new(updates),
            notifies,
            notifier: Notifier::new(links.tasks.clone()),
            registrations: Registrations::new(links.tasks.clone()),
            failures: ZoneFailures::default(),
            links,
        };
        this.commit(prepared, reload);
        loop {
            // A saved catalog may add or remove zones, which must be reported at once.
            let updates = this.updates.take_waiting();
            if updates.is_empty() {
                return this;
            }
            this.take(updates);
        }
    }

    pub(super) fn base(&self) -> ZonesBase {
        let known = |served: &ServedAuthority| (served.number(), served.name().to_owned(), Arc::clone(served.state()));
        ZonesBase {
            authorities: self.authorities.iter().map(known).collect(),
            zones: self.authorities.iter().flat_map(ServedAuthority::zones).collect(),
            next_number: self.next_number,
        }
    }

    /// Swaps the zones of a config in.
    pub(super) fn commit(&mut self, prepared: PreparedZones, reload: &mut Reload<'_>) -> Vec<ReloadNotice> {
        let PreparedZones { authorities, keys, saved } = prepared;
        let mut earlier = mem::take(&mut self.authorities);
        let (mut follows, mut notices) = (Vec::new(), Vec::new());
        self.trust(Arc::clone(&reload.roots));
        for prepared in authorities {
            let cookies = (reload.cookies)(&prepared.config.cookies);
            let known = earlier.iter().position(|served| served.name() == prepared.config.name);
            let (served, follow) = match known.map(|place| earlier.swap_remove(place)) {
                Some(mut served) => {
                    self.links.free(Arc::clone(served.state()));
                    let (follow, odd) = served.reload(prepared, &keys, cookies);
                    notices.extend(odd);
                    self.publish(&served);
                    let changes = reload.moved.change(&served.section());
                    let number = served.number();
                    self.links
                        .workers
                        .send_each(changes, |change| WorkerCommand::SetAuthorityAddresses(number, change));
                    (served, follow)
                }
                None => self.begin_authority(prepared, &keys, cookies, reload),
            };
            follows.push((served.number(), follow));
            self.authorities.push(served);
        }
        for gone in earlier {
            let (changes, number) = (reload.moved.change(&gone.section()), gone.number());
            self.links.workers.send_each(changes, |change| WorkerCommand::EndAuthority(number, change));
            self.notifier.forget(number);
            self.secondaries.forget(number);
            self.links.free(Arc::clone(gone.state()));
        }
        self.set_secondaries(follows, saved);
        notices
    }

    fn begin_authority(
        &mut self,
        prepared: PreparedAuthority,
        keys: &Arc<TsigKeys>,
        cookies: Option<Arc<Cookies>>,
        reload: &mut Reload<'_>,
    ) -> (ServedAuthority, MemberChanges) {
        let number = self.next_number;
        self.next_number += 1;
        let (served, follow) = ServedAuthority::new(number, prepared, keys, cookies);
        let changes = reload.moved.change(&served.section());
        reload.workers.begin_authority(&served, reload.listening, changes);
        (served, follow)
    }

    /// Starts the tasks of the secondary zones of a new config, and ends those of removed ones.
    fn set_secondaries(&mut self, mut follows: Vec<(usize, MemberChanges)>, saved: Vec<(SecondaryZone, SavedZone)>) {
        let (saved_members, saved): (Vec<_>, Vec<_>) =
            saved.into_iter().partition(|(zone, _)| zone.kind == ZoneKind::Member);
        // A zone of a catalog may now be in the config.
        for (number, follow) in &mut follows {
            // A removed zone may be added again below.
            let gone = mem::take(&mut follow.gone);
            self.drop_members(*number, &gone);
        }
        self.secondaries.set_zones(self.authorities.iter().flat_map(ServedAuthority::zones).collect(), saved);
        let new = follows.iter_mut().flat_map(|(_, follow)| mem::take(&mut follow.set));
        self.secondaries.set_members(new, saved_members);
        follows.into_iter().for_each(|(number, follow)| self.follow(number, follow));
    }

    /// Waits for an event and handles it. Returns true if a version of a secondary zone was saved. Cancel
    /// safe.
    pub(super) async fn on_event(&mut self) -> bool {
        tokio::select! {
            updates = self.updates.next() => {
                let began = Instant::now();
                self.take(updates);
                self.updates.took(began.elapsed());
                true
            }
            Some(notify) = self.notifies.recv() => {
                self.secondaries.on_notify(notify.authority, &notify.zone, notify.primary, notify.take_serial());
                false
            }
        }
    }

    fn take(&mut self, updates: Vec<ZoneUpdate>) {
        let mut by_authority: HashMap<usize, Vec<ZoneUpdate>> = HashMap::new();
        updates.into_iter().for_each(|update| by_authority.entry(update.authority).or_default().push(update));
        for (number, updates) in by_authority {
            // The authority may have ended meanwhile.
            let Some(served) = self.authorities.iter_mut().find(|served| served.number() == number) else { continue };
            updates
                .iter()
                .for_each(|update| self.failures.note(served.place_of(update.zone.apex()), update.is_expired));
            let earlier = Arc::clone(served.state());
            let UpdateOutcome { changes, members } = served.take(updates);
            members.into_iter().for_each(|changes| self.follow(number, changes));
            self.replaced(number, earlier);
            changes.into_iter().for_each(|change| self.notify(change));
        }
    }

    fn follow(&mut self, number: usize, MemberChanges { gone, set, disk, changes }: MemberChanges) {
        self.drop_members(number, &gone);
        self.secondaries.set_members(set, Vec::new());
        if !disk.is_empty() {
            let write = blocking(move || disk.into_iter().for_each(|work| work()));
            self.links.tasks.start_and_leave(TaskKind::Secondary, write);
        }
        changes.into_iter().for_each(|change| self.notify(change));
    }

    fn drop_members(&mut self, number: usize, gone: &[Name]) {
        if let Some(served) = self.authorities.iter().find(|served| served.number() == number) {
            gone.iter().for_each(|zone| self.failures.note(served.place_of(zone), false));
        }
        gone.iter().for_each(|zone| self.notifier.forget_zone(number, zone));
        self.secondaries.remove_members(number, gone);
    }

    fn notify(&mut self, change: ZoneChange) {
        self.notifier.notify(change.authority, &change.zone, &change.sharing, change.key);
    }

    /// Publishes the new state of an authority, and frees the earlier one.
    fn replaced(&self, number: usize, earlier: Arc<AuthorityState>) {
        if let Some(served) = self.authorities.iter().find(|served| served.number() == number) {
            self.publish(served);
        }
        self.links.free(earlier);
    }

    fn publish(&self, served: &ServedAuthority) {
        self.links.workers.broadcast(|| WorkerCommand::SetAuthorityState(served.number(), Arc::clone(served.state())));
    }

    /// Replaces the trust anchors for TLS primaries.
    pub(super) fn trust(&self, roots: Arc<KnownRoots>) {
        self.secondaries.trust(roots);
    }

    /// Accepts the doubted version of a catalog; `None` if there is no such catalog.
    pub(super) fn accept(&mut self, name: &str) -> Option<Result<String, ChangeRefusal>> {
        let catalog = name.parse::<Name>().ok()?.folded();
        let (mut accepted, mut refused) = (Vec::new(), None);
        for place in 0..self.authorities.len() {
            let served = &mut self.authorities[place];
            let (number, earlier) = (served.number(), Arc::clone(served.state()));
            match served.accept(&catalog) {
                Ok(outcome) => {
                    accepted.push(outcome.message);
                    self.follow(number, outcome.changes);
                    self.replaced(number, earlier);
                }
                Err(CatalogAcceptError::Unknown) => {}
                Err(CatalogAcceptError::NotDoubted) => {
                    refused = Some(format!("catalog {catalog} is not doubted: all of its zones are applied"));
                }
                Err(CatalogAcceptError::Broken(broken)) => {
                    refused = Some(format!("catalog {catalog} is broken, so its producer must correct it: {broken}"));
                }
            }
        }
        match accepted.is_empty() {
            true => refused.map(|refused| Err(ChangeRefusal::Conflict(refused))),
            false => Some(Ok(accepted.join("; "))),
        }
    }

    /// Registers the authorities of the config in etcd.
    pub(super) fn register(&mut self, listeners: &Listeners, access: Option<&Rc<EtcdAccess>>, leases: &[Lease]) {
        self.registrations.set(self.authorities.iter().map(ServedAuthority::config), listeners, access, leases);
        self.note_served();
    }

    /// Notes which registered authorities have all their zones. Called once a second.
    pub(super) fn note_served(&self) {
        let is_served = |name: &str| {
            let served = self.authorities.iter().find(|served| served.name() == name);
            served.is_some_and(|served| served.all_zones().all(|(zone, _)| zone.is_served()))
        };
        self.registrations.note_served(is_served);
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.registrations.leases()
    }

    pub(super) fn end_registrations(&mut self) -> RegistrationsEnd {
        self.registrations.take()
    }

    pub(super) fn authorities(&self) -> &[ServedAuthority] {
        &self.authorities
    }

    pub(super) fn catalogs(&self) -> impl Iterator<Item = CatalogSnapshot> {
        self.authorities.iter().flat_map(ServedAuthority::catalogs)
    }

    /// Takes all zones that are unserved now. Called before each sample of a second.
    pub(super) fn note_absent(&mut self, now: Instant) {
        let expired: BTreeSet<_> = self.expired().into_iter().collect();
        let absent = self.authorities.iter().flat_map(ServedAuthority::unserved);
        self.failures.set_absent(now, absent.filter(|zone| !expired.contains(zone)));
    }

    /// Adds the zones to a snapshot.
    pub(super) fn add_to(&self, snapshot: &mut Snapshot) {
        snapshot.expired_zones = self.expired();
        snapshot.absent_zones = self.failures.absent(Instant::now());
        let expired_of = |name: &str| snapshot.expired_zones.iter().filter(|zone| zone.authority == name).count();
        snapshot.zones =
            self.authorities.iter().map(|served| served.count_zones(expired_of(served.name()) as u64)).collect();
        snapshot.catalogs = self.catalogs().collect();
        snapshot.registered = self.registrations.registered();
    }

    fn expired(&self) -> Vec<ExpiredZone> {
        let is_there = |expired: &&ExpiredZone| {
            let served = self.authorities.iter().find(|served| served.name() == expired.authority);
            served.is_some_and(|served| expired.zone.parse().is_ok_and(|zone| served.has_secondary(&zone)))
        };
        self.failures.expired().filter(is_there).cloned().collect()
    }

    /// Adds the first zones to the status, unserved ones before others.
    pub(super) fn show(&self, mut status: Status) -> Status {
        let (unserved, served): (Vec<_>, Vec<_>) = self.all_zones().partition(|(_, zone, _)| !zone.is_served());
        let shown = unserved.iter().chain(&served).take(ZoneStatus::MAX).copied();
        status.service.zones = self.statuses(shown);
        status.service.more_zones = unserved.len() + served.len() - status.service.zones.len();
        status
    }

    pub(super) fn report(&self) -> ZonesReport {
        ZonesReport { zones: self.statuses(self.all_zones()), catalogs: self.catalogs().collect() }
    }

    /// Returns all zones, each with its authority and true if that is a primary of it.
    fn all_zones(&self) -> impl Iterator<Item = (&ServedAuthority, &Arc<Zone>, bool)> {
        self.authorities
            .iter()
            .flat_map(|served| served.all_zones().map(move |(zone, is_ours)| (served, zone, is_ours)))
    }

    fn statuses<'a>(&self, zones: impl Iterator<Item = (&'a ServedAuthority, &'a Arc<Zone>, bool)>) -> Vec<ZoneStatus> {
        let expired: BTreeSet<_> = self.expired().into_iter().collect();
        zones.map(|(served, zone, is_ours)| zone_status(served, zone, is_ours, &expired)).collect()
    }
}

fn zone_status(served: &ServedAuthority, zone: &Zone, is_ours: bool, expired: &BTreeSet<ExpiredZone>) -> ZoneStatus {
    let place = served.place_of(zone.apex());
    let state = match (zone.is_served(), is_ours) {
        (_, true) => "primary",
        (true, false) => "served",
        (false, false) if expired.contains(&place) => "expired",
        (false, false) => "absent",
    };
    let owned = served.catalog_of(zone.apex());
    ZoneStatus {
        authority: place.authority,
        name: place.zone,
        state: state.to_owned(),
        serial: zone.is_served().then(|| zone.serial()),
        catalog: owned.map(|owned| owned.catalog.to_string()),
        groups: owned.map(|owned| owned.member.groups.clone()).unwrap_or_default(),
    }
}
