//! Reloading: the config and all that it names are read on a thread of their own, and put in force on the control thread.
//!
//! ```text
//!              control thread                               reload thread
//!   SIGHUP ─┐
//!   HTTP ───┴▶ Reloads ── Order: what is in force ──▶ read, parse, build; compare zones with those in force;
//!              │   ▲                                   load what was saved of other servers' zones
//!    one waits │   └────── Prepared, or what is wrong ◀──┘
//!              ▼
//!            commit: every part is there already and is only swapped
//! ```
//!
//! A disk may stall, and zones may be large: the control thread goes on all the while, and takes signals, probes and requests. One
//! reload runs at a time. Who asks for one meanwhile gets the next one, since files may have changed after they were read: whoever
//! asks until that begins gets the same. Nobody waits for the thread when the process ends.
//!
//! What is no longer in force goes back to the reload thread, which frees it when the last worker has let it go: to give
//! back the memory of a large zone takes longer than a query may wait.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem, thread};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::admin_tasks::{Doors, admin_settings};
use super::authorities::{Comparison, Restored, ServedAuthority, secondary_zones_of};
use super::listeners::{Listeners, SectionName};
use super::members::{own_forwarder, with_members};
use super::recent_queries::RecentQueries;
use super::reload_notice::{ReloadNotice, needs_restart};
use super::sections::{Dealt, Move, owed_for};
use super::worker::Command;
use super::{Server, ServerEvent, StartError, changes, forwarder_cookies};
use crate::admin::Refused;
use crate::authority::AuthorityState;
use crate::cache::Cache;
use crate::config::Config;
use crate::limit::OwnAddresses;
use crate::load::{Confinement, LoadError, Setup};
use crate::metrics::{LastReload, ReloadSnapshot};
use crate::net::tasks::{Lost, TaskKind, blocking};
use crate::secondary::{Saved, SavedZones, SecondaryZone, ZoneKind};
use crate::state::ForwarderState;
use crate::taps::TapsConfig;
use crate::transfer::tsig::Keys;

/// How the config is read again: on the reload thread, by a process that may reach only so much. It may take for ever.
pub type Read = Box<dyn FnMut(&Confinement) -> Result<Setup, LoadError> + Send>;

/// The way back to whoever has asked for a reload.
type Answer = oneshot::Sender<Result<String, Refused>>;

/// The reloads of a server: which runs, which is next, what came of the last one.
pub(super) struct Reloads {
    /// The way to the reload thread.
    orders: Sender<Order>,
    /// The way back.
    prepared: UnboundedReceiver<Result<Loaded, Lost>>,
    /// The one that runs.
    running: Option<Running>,
    /// Who has asked for the next one, if anybody has.
    next: Option<Vec<Answer>>,
    /// What there is to see of them, but for the one that runs.
    seen: ReloadSnapshot,
}

/// A reload that runs.
struct Running {
    /// When it began.
    since: Instant,
    /// Who wants to know what comes of it.
    answers: Vec<Answer>,
    /// Whether the log has told that it takes long.
    is_told: bool,
}

/// What the reload thread is to do.
enum Order {
    /// Read everything again, and compare it with what is in force.
    Load(Base),
    /// Free what was in force, when nobody uses it any more.
    Free(Old),
}

/// What was in force, and takes long to free.
enum Old {
    /// Of an authority.
    AuthorityState(Arc<AuthorityState>),
    /// Of the forwarder.
    Cache(Arc<Cache>),
}

impl Old {
    /// Whether anybody else still uses it.
    fn is_used(&self) -> bool {
        match self {
            Self::AuthorityState(state) => Arc::strong_count(state) > 1,
            Self::Cache(cache) => Arc::strong_count(cache) > 1,
        }
    }
}

/// What a reload starts from. None of it changes but by a reload.
struct Base {
    /// What each authority answers from.
    authorities: Vec<(usize, String, Arc<AuthorityState>)>,
    /// The zones of other servers that are looked after.
    zones: Vec<SecondaryZone>,
    /// The number of the next authority that comes.
    next_authority: usize,
    /// How large the cache is, if there is one.
    cache_size: Option<usize>,
}

/// What came of reading.
pub(super) type Loaded = Result<Box<Prepared>, LoadError>;

/// All that is to come into force.
pub(super) struct Prepared {
    /// What was read.
    setup: Setup,
    keys: Arc<Keys>,
    /// How its authorities differ from those that run, if they do.
    comparisons: Vec<Comparison>,
    /// What earlier processes have left of their catalogs.
    restored: Vec<Restored>,
    /// What was saved of zones of other servers that are new.
    saved: Vec<(SecondaryZone, Saved)>,
    /// The cache, if it is to have another size.
    new_cache: Option<Arc<Cache>>,
}

impl Prepared {
    /// Compares what was read with what is in force.
    fn of(mut setup: Setup, base: &Base) -> Self {
        let keys = Arc::new(mem::take(&mut setup.keys));
        let (mut comparisons, mut all_restored, mut zones) = (Vec::new(), Vec::new(), Vec::new());
        let mut next_authority = base.next_authority;
        for (config, zone_db) in setup.config.authorities.iter().zip(&setup.zone_dbs) {
            let known = base.authorities.iter().find(|(_, name, _)| *name == config.name);
            comparisons.push(Comparison::of(config, zone_db, known.map(|(_, _, state)| &**state)));
            let number = known.map_or(next_authority, |(number, _, _)| *number);
            next_authority += usize::from(known.is_none());
            zones.extend(secondary_zones_of(number, config, &keys));
            // One that runs knows what it has by the word of catalogs, better than its files do.
            let restored = match known {
                Some(_) => Restored::produced(config),
                None => Restored::of(config, zone_db),
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
        Self { setup, keys, comparisons, restored: all_restored, saved, new_cache }
    }
}

impl Reloads {
    /// Starts the reload thread, which has no more rights than this one has by now.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub(super) fn start(read: Read, confinement: Confinement, edition: Option<u64>) -> io::Result<Self> {
        let (orders, received) = channel();
        // At most one for each order.
        let (done, prepared) = unbounded_channel();
        // Nobody waits for its end: it may hang in a disk.
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let work = || obey(read, &confinement, &received, &done);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = done.send(Err(TaskKind::Reload.panicked(&*panic)));
            }
        })?;
        let fresh = ReloadSnapshot::default();
        let edition = edition.unwrap_or(fresh.edition);
        let seen = ReloadSnapshot { edition, in_force_since: SystemTime::now(), ..fresh };
        Ok(Self { orders, prepared, running: None, next: None, seen })
    }

    /// Waits until the one that runs has read everything.
    pub(super) async fn loaded(&mut self) -> Result<Loaded, Lost> {
        match self.prepared.recv().await {
            Some(loaded) => loaded,
            None => Err(TaskKind::Reload.ended(Ok(()))),
        }
    }

    /// Adds what another process has counted.
    pub(super) fn add_counted(&mut self, counted: &ReloadSnapshot) {
        self.seen.succeeded += counted.succeeded;
        self.seen.failed += counted.failed;
        if self.seen.last.is_none() {
            self.seen.last.clone_from(&counted.last);
        }
    }

    /// What there is to see of them.
    pub(super) fn snapshot(&self) -> ReloadSnapshot {
        let running = self.running.as_ref().map(|running| running.since.elapsed());
        ReloadSnapshot { running, is_next_waiting: self.next.is_some(), ..self.seen.clone() }
    }

    /// Says so once if the one that runs takes long. Called once a second.
    pub(super) fn tick(&mut self) {
        if let Some(running) = &mut self.running
            && !running.is_told
            && running.since.elapsed() >= LONG
        {
            running.is_told = true;
            tracing::warn!(
                "reload: still reading after {} s; what was in force stays until all of it is read",
                LONG.as_secs()
            );
        }
    }

    /// Tells everybody who waits that there will be no reload any more.
    fn refuse_all(&mut self) {
        let running = self.running.take().map(|running| running.answers);
        for answer in running.into_iter().chain(self.next.take()).flatten() {
            let _ = answer.send(Err(ending()));
        }
    }
}

/// The life of the reload thread.
fn obey(
    mut read: Read,
    confinement: &Confinement,
    orders: &Receiver<Order>,
    done: &UnboundedSender<Result<Loaded, Lost>>,
) {
    let mut unused: Vec<Old> = Vec::new();
    loop {
        let order = match unused.is_empty() {
            true => orders.recv().map_err(RecvTimeoutError::from),
            false => orders.recv_timeout(LEAVE),
        };
        match order {
            Ok(Order::Load(base)) => {
                TaskKind::Reload.begin();
                let loaded = read(confinement).map(|setup| Box::new(Prepared::of(setup, &base)));
                if done.send(Ok(loaded)).is_err() {
                    return;
                }
            }
            Ok(Order::Free(old)) => {
                // They may come one upon another for a while, when thousands of zones are transferred.
                unused.retain(Old::is_used);
                unused.push(old);
            }
            Err(RecvTimeoutError::Timeout) => unused.retain(Old::is_used),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Server {
    /// Has config and zones read again: now, or after the reload that runs. `answer` is told what came of it.
    pub fn reload(&mut self, answer: Option<Answer>) {
        if self.is_ending {
            answer.into_iter().for_each(|answer| drop(answer.send(Err(ending()))));
        } else if self.reloads.running.is_some() {
            let next = self.reloads.next.get_or_insert_default();
            // Who has gone away since does not count: a client that asks again and again takes no room.
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
        let base = Base { authorities, zones, next_authority, cache_size: cache.map(|cache| cache.size) };
        // A thread that has ended says so by itself.
        let _ = self.reloads.orders.send(Order::Load(base));
        self.events.push_back(ServerEvent::Reloading);
        self.reloads.running = Some(Running { since: Instant::now(), answers, is_told: false });
    }

    /// Puts what was read in force, or keeps what is; tells whoever has asked, and goes on to the next.
    pub(super) fn finish_reload(&mut self, loaded: Loaded) {
        let Some(running) = self.reloads.running.take() else { return };
        // The status needs no token: it shows no lines of the config.
        let headlines = loaded.as_ref().err().map(LoadError::headlines);
        let loaded = loaded.map_err(|problems| problems.to_string());
        let result = loaded.and_then(|prepared| self.commit_and_tell(*prepared).map_err(|error| error.to_string()));
        if let Err(problems) = &result {
            tracing::error!("reload failed, what was in force stays:\n{problems}");
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
            tracing::info!(edition, "reloaded: edition {edition}");
        }
        let error = result.clone().err();
        self.events.push_back(ServerEvent::Reloaded { edition: self.reloads.seen.edition, error });
        for answer in running.answers {
            let _ = answer.send(result.clone().map_err(Refused::Invalid));
        }
        if let Some(answers) = self.reloads.next.take() {
            self.begin_reload(answers);
        }
    }

    /// No reload comes into force any more.
    pub(super) fn end_reloads(&mut self) {
        self.is_ending = true;
        self.reloads.refuse_all();
    }

    /// Puts what was prepared in force. Says what an operator may not expect of it.
    fn commit_and_tell(&mut self, prepared: Prepared) -> Result<String, StartError> {
        let mut said = "reloaded".to_owned();
        for notice in self.commit(prepared)? {
            tracing::warn!("reload: {notice}");
            said.push_str(&format!("; {notice}"));
        }
        Ok(said)
    }

    /// Swaps what is in force. What can fail comes first: to bind, to duplicate for the workers what is bound, and to start the thread
    /// of taps, which is the last since it changes the taps.
    ///
    /// # Errors
    /// If an address, a descriptor or a thread cannot be had; then nothing has changed.
    fn commit(&mut self, prepared: Prepared) -> Result<Vec<ReloadNotice>, StartError> {
        let Prepared { setup, keys, comparisons, restored, saved, new_cache } = prepared;
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
        self.secondaries.trust(Arc::clone(&roots));
        let settings = admin_settings(&config, token);
        self.slow = config.slow_threshold();
        self.tell(|| Command::SetTaps(self.taps.set().clone()));
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
        let state = ForwarderState::new(&config, self.state.as_deref(), new_cache, cookies, roots, self.workers.len());
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
                        .tell_each(moved.change(&name), |change| Command::SetAuthorityAddresses(number, change));
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
            self.workers.tell_each(moved.change(&name), |change| Command::EndAuthority(number, change));
            self.notifier.forget(number);
            self.secondaries.forget(number);
            self.free(Some(Old::AuthorityState(Arc::clone(gone.state()))));
        }
        let (saved_members, saved): (Vec<_>, Vec<_>) =
            saved.into_iter().partition(|(zone, _)| zone.kind == ZoneKind::Member);
        // A zone that a catalog has listed may be one of the config now.
        for (number, follow) in &mut follows {
            // One that has gone may be set anew below.
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

    /// Takes queries elsewhere, as far as that is done here: addresses that leave are passed by.
    fn take_listeners(&mut self, listeners: Arc<Listeners>, dealt: Dealt) -> Move {
        let earlier = Arc::clone(&self.listeners);
        let listeners = if listeners.is_same(&earlier) { Arc::clone(&earlier) } else { listeners };
        if !Arc::ptr_eq(&earlier, &listeners) {
            self.listeners = Arc::clone(&listeners);
            earlier.all().filter(|address| !listeners.has(address)).for_each(|address| address.divert());
            let own = Arc::new(OwnAddresses::new(listeners.for_queries()));
            self.own = Arc::clone(&own);
            self.tell(|| Command::SetOwnAddresses(Arc::clone(&own)));
        }
        Move { earlier: Some(earlier), listeners, dealt, owed_for: owed_for(self.state.as_deref()) }
    }

    /// Has the LS follow a config, begin with it, or end. `state` is what it has then.
    fn reload_forwarder(
        &mut self,
        config: &Config,
        state: Option<Arc<ForwarderState>>,
        moved: &mut Move,
    ) -> Vec<ReloadNotice> {
        let mut notices = Vec::new();
        match (self.state.clone(), state) {
            (None, None) => {}
            (Some(earlier), Some(state)) => {
                notices.extend(self.is_cache_replaced(&state).then_some(ReloadNotice::CacheEmptied));
                let is_kept = |old: &Arc<Cache>| state.cache.as_ref().is_some_and(|new| Arc::ptr_eq(old, new));
                self.free(earlier.cache.clone().filter(|old| !is_kept(old)).map(Old::Cache));
                self.set_state(state);
                self.workers.tell_each(moved.change(&SectionName::Forwarder), Command::SetForwarderAddresses);
                notices.extend(changes::undone(&self.configured, &self.pools, &config.pools));
            }
            (None, Some(state)) => {
                if let Some((forwarder, table)) = config.forwarder.as_ref().zip(self.connections.forwarder()) {
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
                self.workers.tell_each(moved.change(&SectionName::Forwarder), Command::EndForwarder);
                self.workers.forget_forwarder();
                self.prober.stop();
                self.comparisons.stop();
                self.soa_probes.stop();
                self.recent_queries = RecentQueries::default();
                // What is known may be wanted when it comes back.
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

    /// Has a state of an authority freed once nobody uses it any more.
    pub(super) fn free_state(&self, old: Arc<AuthorityState>) {
        self.free(Some(Old::AuthorityState(old)));
    }

    /// Has something freed once nobody uses it any more.
    fn free(&self, old: Option<Old>) {
        old.into_iter().for_each(|old| drop(self.reloads.orders.send(Order::Free(old))));
    }
}

/// What is said to whoever asks for a reload of a server that ends.
pub(super) fn ending() -> Refused {
    Refused::Conflict("the server is ending".to_owned())
}

/// After so long the log tells that a reload is still reading: far longer than most zones take, and before an operator gives up.
const LONG: Duration = Duration::from_secs(10);

/// How long workers are given to let go of what was in force, before it is looked whether they have.
const LEAVE: Duration = Duration::from_millis(100);
