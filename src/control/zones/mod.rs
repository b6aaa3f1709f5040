//! The zones of the server: authorities, secondary zones, NOTIFY, catalogs, and the registrations of
//! authorities in etcd.
//!
//! The reload thread compares the new files with the current state (`PreparedZones`); the control thread
//! swaps the result in.

mod authorities;
mod failures;
pub mod notify;
mod registrations;
pub mod secondary;
mod updates;

use std::collections::HashMap;
use std::mem;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use config::{AuthorityConfig, counted};
use dns::Name;
use metrics::{CatalogSnapshot, Snapshot};
use net::tasks::{TaskKind, blocking};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use zone::Zone;
use zone::transfer::catalog::CatalogAcceptError;

pub(super) use self::authorities::ServedAuthority;
use self::authorities::{AuthorityChanges, PreparedAuthority};
pub(super) use self::registrations::Lease;
use self::registrations::Registrations;
use self::updates::Updates;
use super::links::ServerLinks;
use super::process::Listeners;
use super::reload::Reload;
use crate::admin::ChangeRefusal;
use crate::admin::status::{Status, ZoneStatus, ZonesReport};
use crate::control::pools::discoverer::EtcdAccess;
use crate::control::zones::notify::Notifier;
use crate::control::zones::secondary::{SavedZone, SavedZones, Secondaries, ZoneUpdate};
use crate::load::Setup;
use crate::worker::WorkerCommand;
use crate::worker::authority::{AuthorityState, ReceivedNotify};

/// The zones, on the control thread.
pub(super) struct ServerZones {
    pub(super) authorities: Vec<ServedAuthority>,
    next_number: usize,
    pub(super) secondaries: Secondaries,
    updates: Updates,
    notifies: UnboundedReceiver<ReceivedNotify>,
    notifier: Notifier,
    pub(super) registrations: Registrations,
    links: ServerLinks,
}

/// The running authorities, for the comparison with those of another config.
#[derive(Default)]
pub(super) struct ZonesBase(Vec<(Arc<AuthorityConfig>, Arc<AuthorityState>)>);

/// The zones of a config, ready to be served.
pub(super) struct PreparedZones {
    authorities: Vec<PreparedAuthority>,
    /// The saved versions of new secondary zones, by file.
    saved: HashMap<PathBuf, SavedZone>,
    changes: usize,
}

impl PreparedZones {
    /// Compares the zones of a config with the current ones, and loads saved secondary zones. Blocks on the
    /// disk, and is slow for large zones.
    pub(super) fn of(setup: &mut Setup, base: &ZonesBase, saved: SavedZones) -> Self {
        let (zone_dbs, keys) = (mem::take(&mut setup.zone_dbs), Arc::new(mem::take(&mut setup.keys)));
        let (mut authorities, mut secondaries, mut changes) = (Vec::new(), Vec::new(), 0);
        for (config, zone_db) in setup.config.authorities.iter().zip(zone_dbs) {
            let running = base.0.iter().find(|(running, _)| running.name == config.name);
            let authority = PreparedAuthority::of(config, zone_db, &keys, running.map(|(_, state)| &**state));
            secondaries.extend(authority.new_secondaries(running.map(|(config, _)| &**config)));
            changes += running.map_or(0, |(_, state)| authority.count_changes(state));
            authorities.push(authority);
        }
        Self { authorities, saved: saved.load_all(&secondaries), changes }
    }

    /// Describes the zones that differ from the current ones, such as "1 zone reloaded".
    pub(super) fn changes(&self) -> Option<String> {
        (self.changes > 0).then(|| format!("{} reloaded", counted(self.changes, "zone")))
    }
}

impl ServerZones {
    /// Starts the zones of a config. Zones from primaries are answered from saved data at once; `leases` are
    /// those of a previous process. Must be used within a `LocalRuntime`.
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
        let running = |served: &ServedAuthority| (Arc::clone(&served.config), Arc::clone(&served.state));
        ZonesBase(self.authorities.iter().map(running).collect())
    }

    /// Swaps the zones of a config in.
    pub(super) fn commit(&mut self, prepared: PreparedZones, reload: &mut Reload<'_>) -> Vec<String> {
        let PreparedZones { authorities, mut saved, .. } = prepared;
        let mut earlier = mem::take(&mut self.authorities);
        let (mut all_changes, mut notices) = (Vec::new(), Vec::new());
        self.secondaries.trust(Arc::clone(&reload.roots));
        for mut prepared in authorities {
            let cookies = (reload.cookies)(&prepared.config.cookies);
            let known = earlier.iter().position(|served| served.name() == prepared.config.name);
            let mut served = match known {
                Some(place) => earlier.swap_remove(place),
                None => {
                    self.next_number += 1;
                    ServedAuthority::new(self.next_number - 1, &mut prepared)
                }
            };
            let replaced = Arc::clone(&served.state);
            let (changes, odd) = served.reload(prepared, cookies);
            let (number, addresses) = (served.number, reload.addresses.take(&served.section()));
            if known.is_some() {
                self.replaced(&served, replaced);
                let set = |change| WorkerCommand::SetAuthorityAddresses(number, change);
                self.links.workers.send_each(addresses, set);
            } else {
                reload.workers.begin_authority(&served, reload.listening, addresses);
            }
            all_changes.push(changes);
            notices.extend(odd);
            self.authorities.push(served);
        }
        for gone in earlier {
            let (addresses, number) = (reload.addresses.take(&gone.section()), gone.number);
            self.links.workers.send_each(addresses, |change| WorkerCommand::EndAuthority(number, change));
            self.notifier.forget(number);
            self.secondaries.forget(number);
            self.links.free(Arc::clone(&gone.state));
        }
        // A zone of a catalog may now be in the config.
        all_changes.iter_mut().for_each(|changes| self.drop_members(changes));
        self.secondaries.set_zones(self.authorities.iter().flat_map(ServedAuthority::configured).collect(), &mut saved);
        all_changes.into_iter().for_each(|changes| self.follow(changes, &mut saved));
        notices
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
            let Some(place) = self.authorities.iter().position(|served| served.number == number) else { continue };
            let earlier = Arc::clone(&self.authorities[place].state);
            let changes = self.authorities[place].take(updates);
            changes.into_iter().for_each(|changes| self.follow(changes, &mut HashMap::new()));
            self.replaced(&self.authorities[place], earlier);
        }
    }

    /// Carries out the effects of a change of an authority. `saved` has the saved versions of new zones.
    fn follow(&mut self, mut changes: AuthorityChanges, saved: &mut HashMap<PathBuf, SavedZone>) {
        self.drop_members(&mut changes);
        let AuthorityChanges { authority, set, disk, zones, .. } = changes;
        self.secondaries.set_members(set, saved);
        if !disk.is_empty() {
            let write = blocking(move || disk.into_iter().for_each(|work| work()));
            self.links.tasks.start_and_leave(TaskKind::Secondary, write);
        }
        zones.into_iter().for_each(|change| self.notifier.notify(authority, &change.zone, &change.sharing, change.key));
    }

    fn drop_members(&mut self, changes: &mut AuthorityChanges) {
        let gone = mem::take(&mut changes.gone);
        gone.iter().for_each(|zone| self.notifier.forget_zone(changes.authority, zone));
        self.secondaries.remove_members(changes.authority, &gone);
    }

    /// Publishes the new state of an authority, and frees the earlier one.
    fn replaced(&self, served: &ServedAuthority, earlier: Arc<AuthorityState>) {
        self.links.workers.broadcast(|| WorkerCommand::SetAuthorityState(served.number, Arc::clone(&served.state)));
        self.links.free(earlier);
    }

    /// Accepts the doubted version of a catalog; `None` if there is no such catalog.
    pub(super) fn accept(&mut self, name: &str) -> Option<Result<String, ChangeRefusal>> {
        let catalog = name.parse::<Name>().ok()?.folded();
        let (mut accepted, mut refused) = (Vec::new(), None);
        for place in 0..self.authorities.len() {
            let earlier = Arc::clone(&self.authorities[place].state);
            match self.authorities[place].accept(&catalog) {
                Ok((changes, message)) => {
                    accepted.push(message);
                    self.follow(changes, &mut HashMap::new());
                    self.replaced(&self.authorities[place], earlier);
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
        let configs = self.authorities.iter().map(|served| &*served.config);
        self.registrations.set(configs, listeners, access, leases);
        self.note_served();
    }

    /// Notes which registered authorities have all their zones. Called once a second.
    pub(super) fn note_served(&self) {
        let is_served = |name: &str| {
            let served = self.authorities.iter().find(|served| served.name() == name);
            served.is_some_and(ServedAuthority::is_served)
        };
        self.registrations.note_served(is_served);
    }

    pub(super) fn catalogs(&self) -> impl Iterator<Item = CatalogSnapshot> {
        self.authorities.iter().flat_map(ServedAuthority::catalogs)
    }

    /// Notes all zones that are unserved now. Called before each sample of a second.
    pub(super) fn note_unserved(&mut self, now: Instant) {
        self.authorities.iter_mut().for_each(|served| served.note_unserved(now));
    }

    /// Adds the zones to a snapshot.
    pub(super) fn add_to(&self, snapshot: &mut Snapshot) {
        let now = Instant::now();
        for served in &self.authorities {
            snapshot.authorities.expired_zones.extend(served.place(&served.failures.expired));
            snapshot.authorities.absent_zones.extend(served.place(served.failures.absent(now)));
            snapshot.authorities.zones.push(served.count_zones());
        }
        snapshot.authorities.expired_zones.sort_unstable();
        snapshot.authorities.absent_zones.sort_unstable();
        snapshot.authorities.catalogs = self.catalogs().collect();
        snapshot.authorities.registered = self.registrations.registered();
    }

    /// Adds the first zones to the status, unserved ones before others.
    pub(super) fn show(&self, mut status: Status) -> Status {
        let (unserved, served): (Vec<_>, Vec<_>) = self.all_zones().partition(|(_, zone)| !zone.is_served());
        let all = unserved.len() + served.len();
        let shown = unserved.into_iter().chain(served).take(ZoneStatus::MAX);
        status.service.zones = shown.map(|(served, zone)| zone_status(served, zone)).collect();
        status.service.more_zones = all - status.service.zones.len();
        status
    }

    pub(super) fn report(&self) -> ZonesReport {
        let zones = self.all_zones().map(|(served, zone)| zone_status(served, zone));
        ZonesReport { zones: zones.collect(), catalogs: self.catalogs().collect() }
    }

    /// Returns all zones, each with its authority.
    fn all_zones(&self) -> impl Iterator<Item = (&ServedAuthority, &Arc<Zone>)> {
        self.authorities.iter().flat_map(|served| served.state.zone_db.zones().iter().map(move |zone| (served, zone)))
    }
}

fn zone_status(served: &ServedAuthority, zone: &Zone) -> ZoneStatus {
    let state = match (zone.is_served(), served.is_primary(zone)) {
        (_, true) => "primary",
        (true, false) => "served",
        (false, false) if served.failures.expired.contains(zone.apex()) => "expired",
        (false, false) => "absent",
    };
    let owned = served.catalog_of(zone.apex());
    ZoneStatus {
        authority: served.name().to_owned(),
        name: zone.apex().to_string(),
        state: state.to_owned(),
        serial: zone.is_served().then(|| zone.serial()),
        catalog: owned.map(|owned| owned.catalog.to_string()),
        groups: owned.map(|owned| owned.member.groups.clone()).unwrap_or_default(),
    }
}
