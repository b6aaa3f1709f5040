//! Reloads: a separate thread reads the config and all its files, and the control thread applies the result.
//!
//! ```text
//!              control thread                               reload thread
//!   SIGHUP ─┐
//!   HTTP ───┴▶ Reloads ── ReloadOrder: the state ────▶ read, parse, build; compare zones with current ones;
//!              │   ▲                                   load saved secondary zones
//!    one waits │   └─── PreparedReload, or an error ◀────┘
//!              ▼
//!            commit: every part is there already and is only swapped
//! ```
//!
//! A disk may stall and zones may be large, so the control thread never waits for it. One reload runs at a
//! time. Requests meanwhile share the next one, because files may have changed after they were read. The end
//! of the process does not wait for the thread.
//!
//! Replaced state goes back to the reload thread, which frees it after the last worker has released it:
//! freeing a large zone takes longer than a query may wait.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::admin_tasks::{Doors, admin_settings};
use super::authorities::{AuthorityComparison, RestoredCatalogs, ServedAuthority, secondary_zones_of};
use super::listeners::{Listeners, SectionName};
use super::members::{own_forwarder, with_members};
use super::recent_queries::RecentQueries;
use super::reload_notice::{ReloadNotice, needs_restart};
use super::sections::{Dealt, ListenerMove, owed_for};
use super::worker::WorkerCommand;
use super::{Server, ServerEvent, StartError, changes, forwarder_cookies};
use crate::admin::ChangeRefusal;
use crate::authority::AuthorityState;
use crate::cache::Cache;
use crate::config::{Config, counted};
use crate::limit::OwnAddresses;
use crate::load::{Confinement, LoadError, Setup};
use crate::metrics::{LastReload, ReloadSnapshot};
use crate::net::tasks::{LostTask, TaskKind, blocking};
use crate::secondary::{SavedZone, SavedZones, SecondaryZone, ZoneKind};
use crate::state::ForwarderState;
use crate::taps::TapsConfig;
use crate::transfer::tsig::TsigKeys;
use crate::zone::Zone;

/// Reads the config again on the reload thread, with the file access of `Confinement`. It may never return.
pub type Read = Box<dyn FnMut(&Confinement) -> Result<Setup, LoadError> + Send>;

type Answer = oneshot::Sender<Result<String, ChangeRefusal>>;

pub(super) struct Reloads {
    orders: Sender<ReloadOrder>,
    prepared: UnboundedReceiver<Result<Loaded, LostTask>>,
    running: Option<Running>,
    next: Option<Vec<Answer>>,
    seen: ReloadSnapshot,
    config: Arc<Config>,
}

struct Running {
    since: Instant,
    answers: Vec<Answer>,
    is_reported: bool,
}

enum ReloadOrder {
    Load(ReloadBase),
    Free(Old),
}

/// Replaced state that takes long to free.
enum Old {
    AuthorityState(Arc<AuthorityState>),
    Cache(Arc<Cache>),
}

impl Old {
    fn is_used(&self) -> bool {
        match self {
            Self::AuthorityState(state) => Arc::strong_count(state) > 1,
            Self::Cache(cache) => Arc::strong_count(cache) > 1,
        }
    }
}

/// The state that a reload starts from. Only a reload changes it.
struct ReloadBase {
    authorities: Vec<(usize, String, Arc<AuthorityState>)>,
    zones: Vec<SecondaryZone>,
    next_authority: usize,
    cache_size: Option<usize>,
    config: Arc<Config>,
}

pub(super) type Loaded = Result<Box<PreparedReload>, LoadError>;

pub(super) struct PreparedReload {
    setup: Setup,
    keys: Arc<TsigKeys>,
    comparisons: Vec<AuthorityComparison>,
    restored: Vec<RestoredCatalogs>,
    saved: Vec<(SecondaryZone, SavedZone)>,
    new_cache: Option<Arc<Cache>>,
    config: Arc<Config>,
    changes: String,
}

impl PreparedReload {
    fn of(mut setup: Setup, base: &ReloadBase) -> Self {
        let keys = Arc::new(mem::take(&mut setup.keys));
        let (mut comparisons, mut all_restored, mut zones) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_authority = base.next_authority;
        for (config, zone_db) in setup.config.authorities.iter().zip(&setup.zone_dbs) {
            let known = base.authorities.iter().find(|(_, name, _)| *name == config.name);
            comparisons.push(AuthorityComparison::of(config, zone_db, known.map(|(_, _, state)| &**state)));
            let number = known.map_or(next_authority, |(number, _, _)| *number);
            next_authority += usize::from(known.is_none());
            zones.extend(secondary_zones_of(number, config, &keys));
            // A running authority knows its catalog zones better than its files do.
            let restored = match known {
                Some(_) => RestoredCatalogs::produced(config),
                None => RestoredCatalogs::of(config, zone_db),
            };
            zones.extend(restored.members(number, config, &keys));
            all_restored.push(restored);
        }
        let known: HashMap<_, _> =
            base.zones.iter().map(|known| ((known.authority, &known.config.zone), known)).collect();
        let is_new =
            |zone: &SecondaryZone| known.get(&(zone.authority, &zone.config.zone)).is_none_or(|known| *known != zone);
        let zones: Vec<_> = zones.into_iter().filter(is_new).collect();
        let saved = SavedZones::default().load_all(zones);
        let size = setup.config.cache.as_ref().map(|cache| cache.size);
        let size = size.filter(|_| base.cache_size.is_some() && base.cache_size != size);
        let new_cache = size.map(|size| Arc::new(Cache::new(size, Instant::now())));
        let config = Arc::new(setup.config.clone());
        let changes = changes_of(&setup, base);
        Self { setup, keys, comparisons, restored: all_restored, saved, new_cache, config, changes }
    }
}

/// Describes the differences, such as "1 pool changed, 1 zone reloaded".
fn changes_of(setup: &Setup, base: &ReloadBase) -> String {
    let mut changes = setup.config.changes_since(&base.config);
    let zones = setup.config.authorities.iter().zip(&setup.zone_dbs).map(|(config, loaded)| {
        let earlier = base.authorities.iter().find(|(_, name, _)| *name == config.name);
        earlier.map_or(0, |(_, _, state)| {
            let is_new =
                |zone: &&Arc<Zone>| state.zone_db.zone(zone.apex()).is_some_and(|earlier| !Arc::ptr_eq(earlier, zone));
            let tables = !Arc::ptr_eq(loaded.tables(), state.zone_db.tables());
            loaded.zones().iter().filter(is_new).count() + usize::from(tables)
        })
    });
    match zones.sum::<usize>() {
        0 => {}
        zones => changes.push(format!("{} reloaded", counted(zones, "zone"))),
    }
    match changes.is_empty() {
        true => "nothing changed".to_owned(),
        false => changes.join(", "),
    }
}

impl Reloads {
    pub(super) fn start(
        read: Read,
        confinement: Confinement,
        edition: Option<u64>,
        config: Arc<Config>,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        // At most one for each order.
        let (done, prepared) = unbounded_channel();
        // Never joined: it may hang on a disk.
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let work = || obey(read, &confinement, &received, &done);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = done.send(Err(TaskKind::Reload.panicked(&*panic)));
            }
        })?;
        let fresh = ReloadSnapshot::default();
        let edition = edition.unwrap_or(fresh.edition);
        let seen = ReloadSnapshot { edition, in_force_since: SystemTime::now(), ..fresh };
        Ok(Self { orders, prepared, running: None, next: None, seen, config })
    }

    pub(super) async fn loaded(&mut self) -> Result<Loaded, LostTask> {
        match self.prepared.recv().await {
            Some(loaded) => loaded,
            None => Err(TaskKind::Reload.ended(Ok(()))),
        }
    }

    pub(super) fn add_counted(&mut self, counted: &ReloadSnapshot) {
        self.seen.succeeded += counted.succeeded;
        self.seen.failed += counted.failed;
        if self.seen.last.is_none() {
            self.seen.last.clone_from(&counted.last);
        }
    }

    pub(super) fn snapshot(&self) -> ReloadSnapshot {
        let running = self.running.as_ref().map(|running| running.since.elapsed());
        ReloadSnapshot { running, is_next_waiting: self.next.is_some(), ..self.seen.clone() }
    }

    /// Logs once if the running reload is slow. Called once a second.
    pub(super) fn tick(&mut self) {
        if let Some(running) = &mut self.running
            && !running.is_reported
            && running.since.elapsed() >= LONG
        {
            running.is_reported = true;
            tracing::warn!(
                "reload: still reading after {} s; the previous config stays until all files are read",
                LONG.as_secs()
            );
        }
    }

    fn refuse_all(&mut self) {
        let running = self.running.take().map(|running| running.answers);
        for answer in running.into_iter().chain(self.next.take()).flatten() {
            let _ = answer.send(Err(ending()));
        }
    }
}

fn obey(
    mut read: Read,
    confinement: &Confinement,
    orders: &Receiver<ReloadOrder>,
    done: &UnboundedSender<Result<Loaded, LostTask>>,
) {
    let mut unused: Vec<Old> = Vec::new();
    loop {
        let order = match unused.is_empty() {
            true => orders.recv().map_err(RecvTimeoutError::from),
            false => orders.recv_timeout(LEAVE),
        };
        match order {
            Ok(ReloadOrder::Load(base)) => {
                TaskKind::Reload.begin();
                let loaded = read(confinement).map(|setup| Box::new(PreparedReload::of(setup, &base)));
                if done.send(Ok(loaded)).is_err() {
                    return;
                }
            }
            Ok(ReloadOrder::Free(old)) => {
                // Many may arrive in a short time, when thousands of zones are transferred.
                unused.retain(Old::is_used);
                unused.push(old);
            }
            Err(RecvTimeoutError::Timeout) => unused.retain(Old::is_used),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Server {
    /// Reads config and zones again: now, or after the running reload. `answer` receives the result.
    pub fn reload(&mut self, answer: Option<Answer>) {
        if self.is_ending {
            answer.into_iter().for_each(|answer| drop(answer.send(Err(ending()))));
        } else if self.reloads.running.is_some() {
            let next = self.reloads.next.get_or_insert_default();
            // Disconnected requesters are dropped, so that a client that repeats its request uses no memory.
            next.retain(|answer| !answer.is_closed());
            next.extend(answer);
        } else {
            self.begin_reload(answer.into_iter().collect());
        }
    }

    fn begin_reload(&mut self, answers: Vec<Answer>) {
        let authority =
            |served: &ServedAuthority| (served.number(), served.name().to_owned(), Arc::clone(served.state()));
        let authorities = self.authorities.iter().map(authority).collect();
        let zones = self.authorities.iter().flat_map(ServedAuthority::zones).collect();
        let cache = self.state.as_ref().and_then(|state| state.cache_config.as_ref());
        let next_authority = self.next_authority;
        let config = Arc::clone(&self.reloads.config);
        let base = ReloadBase { authorities, zones, next_authority, cache_size: cache.map(|cache| cache.size), config };
        // A thread that has ended reports it separately.
        let _ = self.reloads.orders.send(ReloadOrder::Load(base));
        self.events.push_back(ServerEvent::Reloading);
        self.reloads.running = Some(Running { since: Instant::now(), answers, is_reported: false });
    }

    /// Applies the result or keeps the current state, reports to the requesters, and starts the next reload.
    pub(super) fn finish_reload(&mut self, loaded: Loaded) {
        let Some(running) = self.reloads.running.take() else { return };
        // The status page needs no token, so it shows no lines of the config.
        let headlines = loaded.as_ref().err().map(LoadError::headlines);
        let loaded = loaded.map_err(|problems| problems.to_string());
        let mut changes = String::new();
        let result = loaded.and_then(|mut prepared| {
            let config = Arc::clone(&prepared.config);
            changes = mem::take(&mut prepared.changes);
            let message = self.commit_and_log(*prepared).map_err(|error| error.to_string())?;
            self.reloads.config = config;
            Ok(message)
        });
        if let Err(problems) = &result {
            tracing::error!("reload failed, the previous config stays:\n{problems}");
            self.certificates.hurry(Instant::now());
        }
        let (now, seen) = (SystemTime::now(), &mut self.reloads.seen);
        match &result {
            Ok(_) => (seen.edition, seen.succeeded, seen.in_force_since) = (seen.edition + 1, seen.succeeded + 1, now),
            Err(_) => seen.failed += 1,
        }
        seen.last = Some(LastReload { at: now, error: headlines.or_else(|| result.clone().err()) });
        if result.is_ok() {
            let edition = self.reloads.seen.edition;
            tracing::info!("reloaded: edition {edition}: {changes}");
        }
        let error = result.clone().err();
        self.events.push_back(ServerEvent::Reloaded { edition: self.reloads.seen.edition, error });
        for answer in running.answers {
            let _ = answer.send(result.clone().map_err(ChangeRefusal::Invalid));
        }
        if let Some(answers) = self.reloads.next.take() {
            self.begin_reload(answers);
        }
    }

    pub(super) fn end_reloads(&mut self) {
        self.is_ending = true;
        self.reloads.refuse_all();
    }

    /// Applies the prepared state. Returns a message with the notices for the operator.
    fn commit_and_log(&mut self, prepared: PreparedReload) -> Result<String, StartError> {
        let mut said = "reloaded".to_owned();
        for notice in self.commit(prepared)? {
            tracing::warn!("reload: {notice}");
            said.push_str(&format!("; {notice}"));
        }
        Ok(said)
    }

    /// Swaps the current state. Steps that can fail come first: binding, duplicating for the workers, and
    /// starting the thread of taps, which is the last because it changes the taps.
    fn commit(&mut self, prepared: PreparedReload) -> Result<Vec<ReloadNotice>, StartError> {
        let PreparedReload { setup, keys, comparisons, restored, saved, new_cache, .. } = prepared;
        let Setup { mut config, zone_dbs, cookie_secrets, certificates, token, etcd, roots, source, .. } = setup;
        let listeners = Arc::new(self.listeners.reload(&config)?);
        let dealt = Dealt::new(&listeners, Some(&self.listeners))?;
        let doors = match (self.listeners.admin(), listeners.admin()) {
            (Some(old), Some(new)) if old.is_same(new) => None,
            (None, None) => None,
            (_, new) => Some(new.map(Doors::new).transpose()?),
        };
        self.taps.apply(&TapsConfig::of(&config))?;
        listeners.certificates().set(certificates, SystemTime::now());
        listeners.set_rules(&config);
        self.certificates.set(&config.certificates, Arc::clone(&roots), Instant::now());
        self.secondaries.trust(roots);
        let settings = admin_settings(&config, token);
        self.slow = config.slow_threshold();
        self.broadcast(|| WorkerCommand::SetTaps(self.taps.set().clone()));
        self.source = source;
        self.config.supervisor.clone_from(&config.supervisor);
        let mut notices = needs_restart(&self.config, &config, self.processes.is_some());
        self.is_restart_due = notices.iter().any(|notice| matches!(notice, ReloadNotice::Restarts(_)));
        self.drain_delay = config.drain_delay;
        self.backend_series = config.admin.as_ref().map(|admin| admin.backend_series);
        self.watching.set_on(config.watch);
        self.connections.reload(&config, Instant::now());
        let mut moved = self.take_listeners(listeners, dealt);
        let cookies = forwarder_cookies(&config, &self.own_secret, &cookie_secrets);
        *self.own_forwarder.borrow_mut() = own_forwarder(&self.listeners);
        self.membership.set_config(&config, etcd, None);
        let configured = config.pools.clone();
        config.pools = with_members(&configured, &self.membership);
        let state =
            ForwarderState::new(&config, self.state.as_deref(), new_cache, cookies, self.workers.len(), Instant::now());
        config.pools = configured;
        let state = state.map(|state| Arc::new(state.designating(&config, &self.listeners.forwarder())));
        notices.extend(self.reload_forwarder(&config, state, &mut moved));
        let mut earlier = mem::take(&mut self.authorities);
        let mut follows = Vec::new();
        let parts = config.authorities.into_iter().zip(zone_dbs).zip(comparisons).zip(restored);
        for (((config, zone_db), comparison), restored) in parts {
            let cookies = self.own_secret.cookies(&config.cookies, &cookie_secrets);
            let follow = match earlier.iter().position(|served| served.name() == config.name) {
                Some(place) => {
                    let mut served = earlier.swap_remove(place);
                    self.free(Some(Old::AuthorityState(Arc::clone(served.state()))));
                    let (follow, odd) = served.reload(config, zone_db, comparison, &keys, cookies, &restored);
                    notices.extend(odd);
                    let (name, number) = (SectionName::Authority(served.name().to_owned()), served.number());
                    self.authorities.push(served);
                    self.publish(number);
                    self.workers
                        .send_each(moved.change(&name), |change| WorkerCommand::SetAuthorityAddresses(number, change));
                    (number, follow)
                }
                None => {
                    let number = self.next_authority;
                    self.next_authority += 1;
                    let (served, mut follow) =
                        ServedAuthority::new(number, config, zone_db, comparison, &keys, cookies, restored);
                    follow.set = served.members().collect();
                    let name = SectionName::Authority(served.name().to_owned());
                    if let Some(table) = self.connections.authority(served.name()) {
                        self.workers.begin_authority(&served, table, &self.own, moved.change(&name));
                    }
                    self.authorities.push(served);
                    (number, follow)
                }
            };
            follows.push(follow);
        }
        for gone in earlier {
            let (name, number) = (SectionName::Authority(gone.name().to_owned()), gone.number());
            self.workers.send_each(moved.change(&name), |change| WorkerCommand::EndAuthority(number, change));
            self.notifier.forget(number);
            self.secondaries.forget(number);
            self.free(Some(Old::AuthorityState(Arc::clone(gone.state()))));
        }
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
        for (number, follow) in follows {
            self.follow(number, follow);
        }
        self.obey();
        self.register_authorities(&[]);
        self.admin.set(settings);
        if let Some(doors) = doors {
            self.admin.change_doors(doors, &self.tasks);
        }
        let _ = self.look_at_interfaces();
        Ok(notices)
    }

    fn take_listeners(&mut self, listeners: Arc<Listeners>, dealt: Dealt) -> ListenerMove {
        let earlier = Arc::clone(&self.listeners);
        let listeners = if listeners.is_same(&earlier) { Arc::clone(&earlier) } else { listeners };
        if !Arc::ptr_eq(&earlier, &listeners) {
            self.listeners = Arc::clone(&listeners);
            earlier.all().filter(|address| !listeners.has(address)).for_each(|address| address.divert());
            let own = Arc::new(OwnAddresses::new(listeners.for_queries()));
            self.own = Arc::clone(&own);
            self.broadcast(|| WorkerCommand::SetOwnAddresses(Arc::clone(&own)));
        }
        ListenerMove { earlier: Some(earlier), listeners, dealt, owed_for: owed_for(self.state.as_deref()) }
    }

    fn reload_forwarder(
        &mut self,
        config: &Config,
        state: Option<Arc<ForwarderState>>,
        moved: &mut ListenerMove,
    ) -> Vec<ReloadNotice> {
        let mut notices = Vec::new();
        match (self.state.clone(), state) {
            (None, None) => {}
            (Some(earlier), Some(state)) => {
                notices.extend(self.is_cache_replaced(&state).then_some(ReloadNotice::CacheEmptied));
                let is_kept = |old: &Arc<Cache>| state.cache.as_ref().is_some_and(|new| Arc::ptr_eq(old, new));
                self.free(earlier.cache.clone().filter(|old| !is_kept(old)).map(Old::Cache));
                self.set_state(state);
                self.workers.send_each(moved.change(&SectionName::Forwarder), WorkerCommand::SetForwarderAddresses);
                notices.extend(changes::undone(&self.configured, &self.pools, &config.pools));
            }
            (None, Some(state)) => {
                if let Some((forwarder, table)) = config.forwarder.as_ref().zip(self.connections.forwarder()) {
                    self.certificates.prepare_tls(&state);
                    self.slow_thresholds.set(self.slow, &state);
                    let changes = moved.change(&SectionName::Forwarder);
                    self.workers.begin_forwarder(forwarder, (&state, table, &self.own), changes);
                    self.prober.set_state(&state);
                    self.comparisons.set_state(&state);
                    self.soa_probes.set_state(&state);
                    self.condition.set_pools(&state.pools);
                    self.state = Some(state);
                }
            }
            (Some(earlier), None) => {
                self.workers.send_each(moved.change(&SectionName::Forwarder), WorkerCommand::EndForwarder);
                self.workers.forget_forwarder();
                self.prober.stop();
                self.comparisons.stop();
                self.soa_probes.stop();
                self.recent_queries = RecentQueries::default();
                // The pools may return, so save the last cache.
                self.tasks.start_and_leave(TaskKind::Persist, blocking(self.saves.last_one(&earlier)));
                self.free(earlier.cache.clone().map(Old::Cache));
                self.condition.set_pools(&[]);
                self.retired.keep(&earlier, None);
                self.state = None;
            }
        }
        self.configured.clone_from(&config.pools);
        self.pools.clone_from(&config.pools);
        notices
    }

    pub(super) fn free_state(&self, old: Arc<AuthorityState>) {
        self.free(Some(Old::AuthorityState(old)));
    }

    /// Sends replaced state to the reload thread, which frees it after its last use.
    fn free(&self, old: Option<Old>) {
        old.into_iter().for_each(|old| drop(self.reloads.orders.send(ReloadOrder::Free(old))));
    }
}

pub(super) fn ending() -> ChangeRefusal {
    ChangeRefusal::Conflict("the server is ending".to_owned())
}

/// The time after which a reload is logged as slow: longer than most zones take, and before an operator gives
/// up.
const LONG: Duration = Duration::from_secs(10);

const LEAVE: Duration = Duration::from_millis(100);
