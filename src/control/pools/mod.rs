//! The pools of the server: backends, members that sources list, health probes, the comparison of replicas,
//! the cache, and all that the next process continues of them.
//!
//! The state that workers share is replaced as a whole: by a reload, by a change of an operator
//! (`changes.rs`), or when members join or leave (`members.rs`). Running races finish with the earlier one.

mod changes;
pub mod discover;
pub mod discoverer;
pub mod health;
mod known;
mod learnt;
mod members;
mod minutes;
mod persist;
mod probes;
pub mod replicas;
mod saved_latency;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::{Config, PoolConfig};
use dns::HashSeed;
use engine::cache::{Cache, Flush};
use engine::state::{ForwarderState, HealthEvent, LocalNames, NameSets, SharedPool};
use metrics::{Aggregate, CacheSnapshot, PoolSnapshot, Snapshot};
use net::tasks::{LostTask, TaskKind, blocking, blocking_task};
use tokio::sync::mpsc::{UnboundedReceiver, WeakSender};
use tokio::time::{Interval, interval};

pub use self::known::CarriedPools;
use self::known::{KnownPool, PoolEdits};
pub use self::learnt::Learnt;
use self::members::{Membership, own_forwarder, read_saved};
use self::minutes::LastMinutes;
use self::persist::CacheSaves;
pub(super) use self::persist::wall_clock;
use self::probes::BackendProbes;
use self::saved_latency::LatencySaves;
pub use self::saved_latency::SavedLatency;
pub(super) use self::saved_latency::read_file as read_saved_latency;
use super::carried::{CarriedCache, CarriedState};
use super::links::ServerLinks;
use super::process::SectionName;
use super::reload::Reload;
use super::zones::Lease;
use crate::admin::{CacheAccess, ChangeRefusal};
use crate::control::observe::sight::SavedHistory;
use crate::control::observe::sight::divergence::Divergences;
use crate::control::observe::sight::serials::Serials;
use crate::load::{ForwarderFiles, Setup};
use crate::worker::forwarder::RecordRequest;
use crate::worker::{ForwarderCommand, WorkerCommand};

/// The pools, on the control thread.
pub struct ServerPools {
    /// The state that the workers share; `None` without a forwarder.
    pub(super) state: Option<Arc<ForwarderState>>,
    configs: PoolConfigs,
    pub(super) membership: Membership,
    probes: BackendProbes,
    minutes: LastMinutes,
    cache_saves: CacheSaves,
    latency_saves: LatencySaves,
    hash_seed: HashSeed,
    /// The interval at which hedges are tuned, and large pools choose which members get queries.
    choices: Interval,
    /// The end of the recording of races, and its reader.
    recording: Option<(Instant, WeakSender<String>)>,
    links: ServerLinks,
}

/// The pools without the members that sources list.
#[derive(Default)]
struct PoolConfigs {
    /// The pools as the config file had them at the last reload.
    file: Vec<PoolConfig>,
    /// The changes by operators since then, by the name of the pool.
    edits: HashMap<String, PoolEdits>,
}

/// The pools of a config, ready to be used.
pub(super) struct PreparedPools {
    /// The new cache, if its size changes.
    cache: Option<Arc<Cache>>,
    files: ForwarderFiles,
}

impl PreparedPools {
    /// Makes the cache of a config, if its size differs from the current one. Slow for a large cache.
    pub(super) fn of(setup: &mut Setup, current_size: Option<usize>) -> Self {
        let files = mem::take(&mut setup.forwarder);
        let size = setup.config.cache.as_ref().map(|cache| cache.size);
        let size = size.filter(|_| current_size.is_some() && current_size != size);
        Self { cache: size.map(|size| Arc::new(Cache::new(size, Instant::now()))), files }
    }
}

impl ServerPools {
    /// Starts the pools of a config with what a previous process knows of them. The config then has the pools
    /// with their members. Must be used within a `LocalRuntime`.
    pub(super) fn start(
        setup: &mut Setup,
        carried: &CarriedState,
        reload: &mut Reload<'_>,
        hash_seed: HashSeed,
        health_events: UnboundedReceiver<HealthEvent>,
        links: ServerLinks,
    ) -> Self {
        let CarriedState { known, learnt, cache, .. } = carried;
        let ForwarderFiles { local_names, names, etcd } = mem::take(&mut setup.forwarder);
        let config = &mut setup.config;
        let membership = Membership::new(&links.tasks, own_forwarder(&reload.listening.listeners));
        let mut this = Self {
            state: None,
            configs: PoolConfigs { file: config.pools.clone(), edits: known.edits() },
            probes: BackendProbes::new(reload.workers.links(), health_events, Rc::clone(&membership.wake), &links),
            membership,
            minutes: LastMinutes::new(config.slow_threshold()),
            cache_saves: CacheSaves::new(Instant::now()),
            latency_saves: LatencySaves::new(config.process.state_dir.clone(), Instant::now()),
            hash_seed,
            choices: interval(SharedPool::TUNE_EVERY),
            recording: None,
            links,
        };
        let saved = known.members.clone().or_else(|| read_saved(config.process.state_dir.as_ref()?));
        this.membership.set_config(config, etcd, saved.as_ref());
        this.membership.restore_members(&this.configs);
        config.pools = this.membership.with_members(&this.configs.running());
        let sent = match cache {
            CarriedCache::Sent(cache) => Some(Arc::clone(cache)),
            CarriedCache::Persisted | CarriedCache::Cold => None,
        };
        if let Some(state) = this.new_state(config, sent, (local_names, &names.sets), reload) {
            known.set_standings(&state);
            learnt.iter().for_each(|learnt| learnt.restore(&state, &mut this.minutes));
            this.begin(config, Arc::clone(&state), reload);
            if let (CarriedCache::Persisted, Some(engines)) = (cache, reload.workers.engines()) {
                persist::load(&state, engines);
            }
        }
        this
    }

    /// Makes the state of a config, whose pools have their members.
    fn new_state(
        &self,
        config: &Config,
        cache: Option<Arc<Cache>>,
        (local_names, names): (Arc<LocalNames>, &NameSets),
        reload: &Reload<'_>,
    ) -> Option<Arc<ForwarderState>> {
        let cookies = (reload.cookies)(&config.forwarder.as_ref()?.cookies);
        let (earlier, workers) = (self.state.as_deref(), self.links.workers.count());
        let state = ForwarderState::new(config, earlier, cache, cookies, workers, Instant::now())?;
        let listeners = &reload.listening.listeners;
        let state = state.ruled(config, names, listeners.numbered(), earlier, workers);
        let state = state.with_local_names(local_names);
        Some(Arc::new(state.designating(config, &listeners.forwarder())))
    }

    pub(super) fn cache_size(&self) -> Option<usize> {
        Some(self.state.as_ref()?.cache_config.as_ref()?.size)
    }

    /// Swaps the pools of a config in.
    pub(super) fn commit(
        &mut self,
        PreparedPools { cache, files: ForwarderFiles { local_names, names, etcd } }: PreparedPools,
        config: &mut Config,
        reload: &mut Reload<'_>,
    ) -> Vec<String> {
        self.minutes.threshold = config.slow_threshold();
        self.membership.own.replace(own_forwarder(&reload.listening.listeners));
        self.membership.set_config(config, etcd, None);
        self.latency_saves.folder.clone_from(&config.process.state_dir);
        let members = self.membership.with_members(&config.pools);
        let file = mem::replace(&mut config.pools, members);
        let state = self.new_state(config, cache, (local_names, &names.sets), reload);
        config.pools.clone_from(&file);
        let mut notices = Vec::new();
        match (self.state.clone(), state) {
            (None, None) => {}
            (Some(earlier), Some(state)) => {
                let is_kept = |old: &&Arc<Cache>| state.cache.as_ref().is_some_and(|new| Arc::ptr_eq(old, new));
                if let Some(old) = earlier.cache.as_ref().filter(|old| !is_kept(old)) {
                    let is_emptied = state.cache.is_some();
                    notices.extend(is_emptied.then(|| "cache.size has changed, so the cache starts empty".to_owned()));
                    self.links.free(Arc::clone(old));
                }
                self.set_state(state);
                let changes = reload.addresses.take(&SectionName::Forwarder);
                self.links.workers.send_each(changes, ForwarderCommand::SetAddresses);
                notices.extend(self.configs.undone_by(&file));
            }
            (None, Some(state)) => self.begin(config, state, reload),
            (Some(earlier), None) => self.end(&earlier, reload),
        }
        self.configs = PoolConfigs { file, edits: HashMap::new() };
        self.obey();
        notices
    }

    fn begin(&mut self, config: &Config, state: Arc<ForwarderState>, reload: &mut Reload<'_>) {
        let Some(forwarder) = &config.forwarder else { return };
        self.minutes.set_state(&state);
        self.probes.set_state(&state);
        let changes = reload.addresses.take(&SectionName::Forwarder);
        reload.workers.begin_forwarder(forwarder, &state, reload.listening, changes);
        self.links.condition.set_pools(&state.pools);
        self.state = Some(state);
    }

    fn end(&mut self, earlier: &Arc<ForwarderState>, reload: &mut Reload<'_>) {
        let changes = reload.addresses.take(&SectionName::Forwarder);
        self.links.workers.send_each(changes, WorkerCommand::EndForwarder);
        reload.workers.forget_forwarder();
        self.probes.stop();
        self.minutes.pools.clear();
        // The pools may return, so save the last cache.
        self.links.tasks.start_and_leave(TaskKind::Persist, blocking(self.cache_saves.last_one(earlier)));
        if let Some(cache) = &earlier.cache {
            self.links.free(Arc::clone(cache));
        }
        self.links.condition.set_pools(&[]);
        self.state = None;
        self.free_pools(earlier);
    }

    fn set_state(&mut self, state: Arc<ForwarderState>) {
        self.probes.set_state(&state);
        self.minutes.set_state(&state);
        self.links.known_changes.notify_one();
        self.links.workers.broadcast(|| ForwarderCommand::SetState(Arc::clone(&state)));
        self.forget_pools(&state);
        self.links.condition.set_pools(&state.pools);
        if let Some(earlier) = self.state.replace(state) {
            self.free_pools(&earlier);
        }
    }

    /// Leaves the replaced pools and local names to the reload thread, because freeing a pool with thousands
    /// of members is slow. A worker releases a pool when it takes the next one, or when the last race with it
    /// ends.
    fn free_pools(&self, earlier: &ForwarderState) {
        let stays = |pool: &Arc<SharedPool>| self.shared().iter().any(|other| Arc::ptr_eq(pool, other));
        earlier.pools.iter().filter(|pool| !stays(pool)).for_each(|pool| self.links.free(Arc::clone(pool)));
        let names = &earlier.own.local;
        if self.state.as_ref().is_none_or(|state| !Arc::ptr_eq(names, &state.own.local)) {
            self.links.free(Arc::clone(names));
        }
    }

    /// Removes cached answers of pools that `state` lacks or has changed. They could not be found, but a pool
    /// that returns must not find its old answers.
    fn forget_pools(&self, state: &ForwarderState) {
        let (Some(earlier), Some(cache)) = (&self.state, &state.cache) else { return };
        let stay = state.cached_pools();
        for pool in earlier.cached_pools().into_iter().filter(|pool| !stay.contains(pool)) {
            let cache = Arc::clone(cache);
            // A walk through a large cache takes seconds, and probes are due meanwhile.
            self.links.tasks.start_and_leave(TaskKind::CacheFlush, async move {
                let answers = blocking(move || cache.flush(Flush::Pool(pool))).await;
                tracing::info!(answers, "cache: answers of a changed pool are removed");
            });
        }
    }

    /// Prepares TLS to backends with new trust anchors.
    pub(super) fn renew_tls(&self) {
        if let Some(state) = &self.state {
            self.probes.prepare_tls(state);
        }
    }

    /// Waits for an event and handles it, or returns saved latency and history for the supervisor. Cancel
    /// safe.
    pub(super) async fn on_event(&mut self) -> Option<Vec<u8>> {
        tokio::select! {
            () = self.probes.on_event() => {}
            () = self.membership.due() => self.settle_members(),
            saved = self.latency_saves.next() => return Some(saved),
            now = self.choices.tick() => {
                self.shared().iter().for_each(|pool| pool.tune_hedges(now.into()));
                if self.state.as_ref().is_some_and(|state| state.renew_crowds()) {
                    self.links.workers.broadcast(|| ForwarderCommand::Refresh);
                }
            }
        }
        None
    }

    /// Returns true if it is time to save the latency of backends and the history.
    pub(super) fn is_save_due(&self, is_supervised: bool, now: Instant) -> bool {
        self.latency_saves.is_due(is_supervised, now)
    }

    /// Begins to save the latency of backends and the history.
    pub(super) fn save_latency(&mut self, is_supervised: bool, history: Option<SavedHistory>, now: Instant) {
        self.latency_saves.begin(is_supervised, history, &self.links, now);
    }

    /// Returns the final save of the latency and the history in `state_dir`.
    pub(super) fn save_last_latency(&mut self, history: Option<SavedHistory>) -> impl Future<Output = ()> + use<> {
        self.latency_saves.last_one(history, &self.links)
    }

    pub(super) fn on_second(&mut self, now: Instant) {
        if self.membership.end_orders(SystemTime::now()) {
            self.obey();
        }
        self.end_settings(SystemTime::now());
        self.membership.save(&self.links.tasks);
        self.end_recording(now);
        let slept = self.cache_saves.sleep.take();
        let Some(state) = &self.state else { return };
        self.minutes.on_second(state);
        state.pools.iter().for_each(|pool| _ = pool.measure_regret(now));
        self.cache_saves.tick(state, &self.links.tasks, now);
        if let Some(cache) = &state.cache {
            cache.add_sleep(slept);
        }
    }

    /// Has the workers record races until a time. There is one recording at most.
    pub(super) fn record(&mut self, request: RecordRequest, until: Instant) -> Result<(), ChangeRefusal> {
        self.pools_meant(request.pool.as_deref())?;
        let reader = self.recording.as_ref().and_then(|(_, reader)| reader.upgrade());
        if reader.is_some_and(|reader| !reader.is_closed()) {
            return Err(ChangeRefusal::Conflict("a recording is under way".to_owned()));
        }
        self.recording = Some((until, request.to.downgrade()));
        self.links.workers.broadcast(|| ForwarderCommand::Record(Some(request.clone())));
        Ok(())
    }

    fn end_recording(&mut self, now: Instant) {
        if self.recording.take_if(|(until, _)| now >= *until).is_some() {
            self.links.workers.broadcast(|| ForwarderCommand::Record(None));
        }
    }

    /// Returns how long a query may wait for its response.
    pub(super) fn owed_for(&self) -> Duration {
        let timeouts = self.shared().iter().map(|pool| pool.rules().race.timeout);
        timeouts.max().unwrap_or_default() + MARGIN
    }

    fn shared(&self) -> &[Arc<SharedPool>] {
        self.state.as_ref().map_or(&[], |state| &state.pools)
    }

    /// Adds the pools and the cache to a snapshot.
    pub(super) fn add_to(&self, snapshot: &mut Snapshot) {
        let divergent = |pool| self.probes.comparisons.count(pool) as u64;
        let pools = self.shared().iter().map(|pool| PoolSnapshot { divergent: divergent(pool), ..pool.snapshot() });
        snapshot.pools = pools.collect();
        let rules = self.state.iter().flat_map(|state| &state.rules).flat_map(|rules| rules.matches());
        snapshot.rules = rules.map(|(name, count)| (name.to_owned(), count)).collect();
        self.membership.show(&self.configs.file, &mut snapshot.pools);
        snapshot.cache = self.cache_snapshot();
    }

    fn cache_snapshot(&self) -> Option<CacheSnapshot> {
        let ForwarderState { cache, cache_config, .. } = &**self.state.as_ref()?;
        Some(CacheSnapshot { size: cache_config.as_ref()?.size as u64, stats: cache.as_ref()?.stats() })
    }

    pub(super) fn cache_access(&self) -> Option<CacheAccess> {
        let ForwarderState { cache, cache_config, pools, .. } = &**self.state.as_ref()?;
        let kept = pools.iter().filter(|pool| pool.config.cache).map(|pool| (pool.id, pool.config.name.clone()));
        Some(CacheAccess {
            cache: Arc::clone(cache.as_ref()?),
            rules: cache_config.as_ref()?.rules.clone(),
            pools: kept.collect(),
        })
    }

    /// Reports the zone versions of pool members.
    pub(super) fn serials(&self, pool: Option<&str>) -> Result<Serials, ChangeRefusal> {
        Ok(replicas::show_serials(self.pools_meant(pool)?.into_iter()))
    }

    /// Reports different answers of pool members.
    pub(super) fn divergences(&self, pool: Option<&str>) -> Result<Divergences, ChangeRefusal> {
        Ok(self.probes.comparisons.show(self.pools_meant(pool)?.into_iter()))
    }

    fn pools_meant(&self, name: Option<&str>) -> Result<Vec<&Arc<SharedPool>>, ChangeRefusal> {
        let pools = self.shared();
        let meant: Vec<_> = pools.iter().filter(|pool| name.is_none_or(|name| pool.config.name == name)).collect();
        match name {
            Some(name) if meant.is_empty() => {
                Err(ChangeRefusal::no_such("pool", name, pools.iter().map(|pool| &*pool.config.name)))
            }
            Some(_) | None => Ok(meant),
        }
    }

    /// Returns the current changes by operators and states of backends. `leases` are those of registered
    /// authorities.
    pub(super) fn known(&self, leases: Vec<Lease>) -> CarriedPools {
        let known = |pool: &Arc<SharedPool>| {
            let (name, backends) = (pool.config.name.clone(), pool.backends.iter());
            let edits = self.configs.edits.get(&name).cloned().unwrap_or_default();
            let backends = backends.map(|backend| (backend.name.clone(), backend.address, backend.standing()));
            KnownPool { name, edits, backends: backends.collect() }
        };
        let pools = self.shared().iter().map(known).collect();
        CarriedPools { pools, members: Some(self.membership.to_save()), leases }
    }

    /// Applies changes by operators and states of backends since this process first received them.
    pub fn take_known(&mut self, known: &CarriedPools) {
        self.configs.edits = known.edits();
        self.put_in_force();
        let Some(state) = &self.state else { return };
        let changed: HashSet<_> = known.set_standings(state).iter().map(Arc::as_ptr).collect();
        self.probes.prober.begin_anew(state, |backend| changed.contains(&std::ptr::from_ref(backend)));
        self.links.refresh();
    }

    /// Collects the learned state while the server continues: workers send it in small parts, and another
    /// thread encodes large parts.
    pub fn learnt(&self) -> impl Future<Output = Learnt> + use<> {
        let pools = self.shared().iter().map(|pool| (Arc::clone(pool), self.minutes.queries(&pool.state)));
        Learnt::collect(self.hash_seed, pools.collect(), self.links.workers.clone())
    }

    /// Returns a function that writes the cache for another process and returns the number of answers. It may
    /// block.
    pub fn save_cache(&self) -> Option<impl FnOnce(&mut dyn Write) -> io::Result<u64> + Send + use<>> {
        let CacheAccess { cache, rules, .. } = self.cache_access()?;
        Some(move |mut out: &mut dyn Write| cache.save(&rules, Instant::now(), wall_clock(), &mut out))
    }

    /// Stops saves of the cache and of latency, because another process has both.
    pub fn leave_files(&mut self) {
        self.cache_saves.is_left = true;
        self.latency_saves.is_left = true;
    }

    /// Saves the cache for the last time.
    pub(super) async fn save_last(self) -> Result<(), LostTask> {
        match self.state {
            Some(state) => blocking_task(TaskKind::Persist, self.cache_saves.last_one(&state)).await,
            None => Ok(()),
        }
    }

    /// Adds the counters of a previous process.
    pub(super) fn add_counted(&mut self, counted: &Snapshot) {
        self.membership.add_counted(&counted.pools);
        let Some(state) = &self.state else { return };
        if let (Some(cache), Some(counted)) = (&state.cache, &counted.cache) {
            cache.add_counts(counted.stats);
        }
        if let Some(rules) = &state.rules {
            rules.add_counted(&counted.rules);
        }
        for counted in &counted.pools {
            if let Some(pool) = state.pool(&counted.name) {
                add_to_pool(pool, counted);
            }
        }
    }
}

fn add_to_pool(pool: &SharedPool, counted: &PoolSnapshot) {
    counted.counts.carry(&pool.state.carried);
    let known: HashMap<_, _> =
        pool.backends.iter().map(|backend| ((&*backend.name, backend.address), backend)).collect();
    for counted in &counted.backends {
        if let Some(backend) = known.get(&(&*counted.name, counted.address)) {
            counted.counts.carry(backend.carry_to());
            // Only this thread counts probes.
            backend.probes.add(counted.probes);
        }
    }
}

/// The margin beyond the longest timeout of a pool.
const MARGIN: Duration = Duration::from_secs(1);
