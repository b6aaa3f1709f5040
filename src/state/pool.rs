//! A pool as all workers share it: its config, its backends, and what outlives a change of the config.
//!
//! Members come and go by the hundred a second, among thousands. Each has a number, [`SharedBackend::index`], by which workers keep what
//! they know of it from one state to the next, and which is used again only when nobody refers to it any more. What it takes to know
//! whose turn it is among so many, a [`Crowd`], is made here, on the control thread.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;

use super::backend::SharedBackend;
use super::changes::{Changes, Since};
use super::compared::Compared;
use super::serials::SharedSerials;
use crate::address::{BackendAddress, Scheme};
use crate::cache::PoolId;
use crate::config::{BackendConfig, PoolConfig, TrustConfig};
use crate::metrics::PoolCounters;
use crate::net::backend_connection::StreamProtocol;
use crate::net::tls::{KnownRoots, TrustRules};
use crate::policy::affinity::Affinity;
use crate::policy::balance::{Balance, Crowd, FEW};
use crate::policy::budget::Budget;
use crate::policy::health::HealthState;
use crate::policy::{BackendIndex, Rules};

/// A pool as all workers see it, with the config of one state.
#[derive(Debug)]
pub struct SharedPool {
    /// Its configuration.
    pub config: PoolConfig,
    /// What the cache knows it by.
    pub id: PoolId,
    /// Its backends, in order of the config.
    pub backends: Vec<Arc<SharedBackend>>,
    /// Which backend a name lives at (`balance = "sticky"`); kept for as long as the pool is `sticky`.
    pub affinity: Arc<Affinity>,
    /// What outlives a change of its configuration.
    pub state: Arc<PoolState>,
    /// Whether any backend of it is told who asks: then each query has a race of its own.
    pub names_clients: bool,
    /// Counts the configurations of the pool.
    pub edition: u64,
    /// The members that the edition before did not have.
    pub joined: Vec<BackendIndex>,
    /// The members that only the edition before had.
    pub left: Vec<BackendIndex>,
    /// The backends by their [`BackendIndex`], with their weights.
    by_index: Box<[Option<Weighted>]>,
    /// By what the names that live at them are remembered, in order of that.
    by_affinity: Box<[(u32, BackendIndex)]>,
    /// The machines that the members are ways to, by [`BackendIndex`]; 0: one of its own. Empty if all have their own.
    machines: Box<[u16]>,
    /// Whose turn it is, if they are many.
    crowd: Option<ArcSwap<Crowd>>,
    /// How many changes there were when `crowd` was looked at last.
    crowd_changes: AtomicU64,
}

/// A backend and its share of the load.
type Weighted = (Arc<SharedBackend>, u16);

impl SharedPool {
    /// The hosts of the backends that are asked by datagrams.
    pub fn datagram_backends(&self) -> impl Iterator<Item = IpAddr> {
        let by_datagram = self.backends.iter().filter(|backend| backend.address.scheme == Scheme::Plain);
        by_datagram.map(|backend| backend.address.socket.ip())
    }

    /// A pool with what `earlier` knew of it.
    pub(super) fn new(config: PoolConfig, earlier: Option<&Self>, workers: usize) -> Self {
        let is_sticky = |config: &PoolConfig| config.rules.balance == Balance::Sticky;
        let affinity = match earlier.filter(|earlier| is_sticky(&earlier.config) == is_sticky(&config)) {
            Some(earlier) => Arc::clone(&earlier.affinity),
            // Only `sticky` pays for the table.
            None => Arc::new(Affinity::new(if is_sticky(&config) { REMEMBERED_NAMES } else { 0 })),
        };
        let state = earlier.map_or_else(|| Arc::new(PoolState::new(&config, workers)), |pool| Arc::clone(&pool.state));
        state.budget.set_rate(config.rules.hedge.budget);
        // Whatever changes from here on is looked at again.
        let changes = state.epoch();
        let known: HashMap<(BackendAddress, &str), &Arc<SharedBackend>> = earlier
            .iter()
            .flat_map(|pool| &pool.backends)
            .map(|backend| ((backend.address, &*backend.name), backend))
            .collect();
        let known = |backend: &BackendConfig| {
            let known = known.get(&(backend.address, &*backend.name)).copied();
            // Its sockets and connections begin otherwise.
            known.filter(|known| known.wants_header == backend.proxy_protocol)
        };
        // Another label makes another backend of it for whoever counts, not for whoever probes.
        let renamed: HashMap<BackendAddress, HealthState> =
            earlier.iter().flat_map(|pool| &pool.backends).map(|backend| (backend.address, backend.health())).collect();
        let taken: HashSet<u32> = config.backends.iter().filter_map(known).map(|known| known.affinity_number).collect();
        let health = if earlier.is_some() { HealthState::New } else { HealthState::Up };
        let mut joined = Vec::new();
        let mut members: Vec<Weighted> = Vec::with_capacity(config.backends.len());
        let mut places = state.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = places.free();
        for backend in &config.backends {
            if let Some(known) = known(backend) {
                known.set_ad_trusted(backend.is_ad_trusted(config.trust_ad));
                members.push((Arc::clone(known), backend.weight));
                continue;
            }
            // There are six times as many as a pool may have members, for those that have left and are waited for still.
            let Some(index) = free.next() else {
                tracing::error!(pool = config.name, backend = backend.name, "too many backends: it is left out");
                continue;
            };
            let number = affinity.number(|number| taken.contains(&number));
            let health = renamed.get(&backend.address).copied().unwrap_or(health);
            let new = Arc::new(SharedBackend::new(backend, index, number, health, workers));
            new.set_ad_trusted(backend.is_ad_trusted(config.trust_ad));
            places.take(index, &new);
            joined.push(index);
            members.push((new, backend.weight));
        }
        drop(places);
        let mut by_index = Vec::new();
        by_index.resize(members.iter().map(|(member, _)| member.index.get() + 1).max().unwrap_or(0), None);
        members.iter().for_each(|member| by_index[member.0.index.get()] = Some(member.clone()));
        let has = |member: &SharedBackend| {
            let same = by_index.get(member.index.get()).and_then(Option::as_ref);
            same.is_some_and(|(same, _)| std::ptr::eq(&**same, member))
        };
        let before = earlier.iter().flat_map(|pool| &pool.backends);
        let left = before.filter(|member| !has(member)).map(|member| member.index).collect();
        let mut by_affinity: Box<[_]> = match is_sticky(&config) {
            true => members.iter().map(|(member, _)| (member.affinity_number, member.index)).collect(),
            false => Box::default(),
        };
        by_affinity.sort_unstable();
        let machines = machines(&config, &members);
        let crowd = (members.len() > FEW).then(|| ArcSwap::from_pointee(crowd(&config, &members)));
        Self {
            id: cache_identity(&config),
            names_clients: config.backends.iter().any(|backend| backend.proxy_protocol),
            config,
            backends: members.into_iter().map(|(member, _)| member).collect(),
            affinity,
            state,
            edition: earlier.map_or(0, |pool| pool.edition + 1),
            joined,
            left,
            by_index: by_index.into(),
            by_affinity,
            machines,
            crowd,
            crowd_changes: AtomicU64::new(changes),
        }
    }

    /// The member at this place. A race only asks members of the state that it has begun with.
    #[inline]
    pub fn backend(&self, index: BackendIndex) -> &Arc<SharedBackend> {
        self.find(index).expect("a race asks members of its pool")
    }

    /// The member at this place, if there is one.
    #[inline]
    pub fn find(&self, index: BackendIndex) -> Option<&Arc<SharedBackend>> {
        self.by_index.get(index.get())?.as_ref().map(|(backend, _)| backend)
    }

    /// The share of the load of the member at this place.
    #[inline]
    pub fn weight(&self, index: BackendIndex) -> u16 {
        self.by_index.get(index.get()).and_then(Option::as_ref).map_or(1, |(_, weight)| *weight)
    }

    /// The machine that the member at this place is a way to; 0: one of its own.
    #[inline]
    pub fn machine(&self, index: BackendIndex) -> u16 {
        self.machines.get(index.get()).copied().unwrap_or(0)
    }

    /// Whether several members may be ways to one machine.
    #[inline]
    pub fn has_machines(&self) -> bool {
        !self.machines.is_empty()
    }

    /// All members with their shares of the load, in order of the config.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<SharedBackend>, u16)> + Clone {
        self.backends.iter().map(|backend| (backend, self.weight(backend.index)))
    }

    /// Room for so many members, by [`BackendIndex`].
    pub fn places(&self) -> usize {
        self.by_index.len()
    }

    /// The member at which names live that this number is remembered of.
    pub fn by_affinity(&self, number: u32) -> Option<BackendIndex> {
        let place = self.by_affinity.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.by_affinity[place].1)
    }

    /// Whose turn it is, if there are so many members that a query does not look at all.
    pub fn crowd(&self) -> Option<Arc<Crowd>> {
        self.crowd.as_ref().map(ArcSwap::load_full)
    }

    /// Whether a member takes queries that is not behind.
    pub fn is_anybody_ahead(&self) -> bool {
        self.config.replicas && self.backends.iter().any(|backend| backend.takes_queries() && !backend.is_behind())
    }

    /// Whether there are so many.
    pub fn is_crowd(&self) -> bool {
        self.crowd.is_some()
    }

    /// Takes note of which members take queries now, if they are many. Returns whether others do than before.
    pub(super) fn renew_crowd(&self) -> bool {
        let Some(known) = &self.crowd else { return false };
        let changes = self.state.epoch();
        if self.crowd_changes.swap(changes, Relaxed) == changes {
            return false;
        }
        let is_anybody_ahead = self.is_anybody_ahead();
        let taking = self.backends.iter().filter(|backend| backend.takes_turns(is_anybody_ahead));
        let taking = taking.map(|backend| backend.index);
        if known.load().is_of(taking) {
            return false;
        }
        let members: Vec<_> = self.members().map(|(backend, weight)| (Arc::clone(backend), weight)).collect();
        let renewed = Arc::new(crowd(&self.config, &members));
        known.store(renewed);
        // Whoever looks at the changes takes the new one.
        self.state.changes.note(Some(NOBODY));
        self.crowd_changes.store(changes + 1, Relaxed);
        true
    }

    /// Whether the replies to a question of this hash are compared: the same for all workers.
    #[inline]
    pub fn compares(&self, hash: u64) -> bool {
        let share = self.config.compare;
        // As many bits as a float has; nothing is below 0, and all is below 1.
        share > 0.0 && ((hash >> 11) as f64) < share * 2_f64.powi(53)
    }

    /// The rules of its races.
    pub fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// What all attempts of its races look at.
    pub fn budget(&self) -> &Budget {
        &self.state.budget
    }
}

/// The machines that members are ways to, by [`BackendIndex`]: those with the same `server` have the same number.
fn machines(config: &PoolConfig, members: &[Weighted]) -> Box<[u16]> {
    let servers = config.backends.iter().filter_map(|backend| Some((backend, backend.server.as_deref()?)));
    let mut numbers: HashMap<&str, u16> = HashMap::new();
    let mut of_backends: HashMap<(BackendAddress, &str), u16> = HashMap::new();
    for (backend, server) in servers {
        let next = u16::try_from(numbers.len() + 1).unwrap_or(0);
        of_backends.insert((backend.address, &backend.name), *numbers.entry(server).or_insert(next));
    }
    if of_backends.is_empty() {
        return Box::default();
    }
    let mut machines = vec![0; members.iter().map(|(member, _)| member.index.get() + 1).max().unwrap_or(0)];
    for (member, _) in members {
        machines[member.index.get()] = of_backends.get(&(member.address, &*member.name)).copied().unwrap_or(0);
    }
    machines.into()
}

impl SharedPool {
    /// Judges the backends that are asked by TLS by what the config says of them, and by these, and shows them what they may want to see.
    pub(super) fn trust(&self, roots: &KnownRoots) {
        let encrypted = |config: &&BackendConfig| config.address.scheme.is_encrypted();
        for config in self.config.backends.iter().filter(encrypted) {
            let is_meant =
                |backend: &&Arc<SharedBackend>| backend.address == config.address && backend.name == config.name;
            let Some(backend) = self.backends.iter().find(is_meant) else { continue };
            let name = config.trust.identity.name.as_deref();
            backend.set_protocol(StreamProtocol::of(config.address, name, &config.path));
            let TrustConfig { identity, ca, certificate } = &config.trust;
            let rules = TrustRules {
                // RFC 9250 section 4.5 says which queries may go so; RFC 7858 says nothing of it.
                early_data: config.address.scheme == Scheme::Quic && self.config.connections.early_data,
                ..roots.rules(config.address, identity, ca.as_deref(), certificate.as_deref())
            };
            if let Err(problem) = backend.set_trust(&rules) {
                tracing::error!(pool = self.config.name, backend = backend.name, problem, "cannot be asked by TLS");
            }
        }
    }
}

/// Whose turn it is among these, as they stand now.
fn crowd(config: &PoolConfig, members: &[Weighted]) -> Crowd {
    let is_ahead = |(backend, _): &Weighted| backend.takes_queries() && !backend.is_behind();
    let is_anybody_ahead = config.replicas && members.iter().any(is_ahead);
    let known = members.iter().map(|(backend, weight)| {
        (backend.index, *weight, hash_identity(backend.address), backend.takes_turns(is_anybody_ahead))
    });
    Crowd::new(config.rules.balance, known)
}

/// What `balance = "hash"` knows a backend by: its address, so that a name goes to the same one after a restart.
pub fn hash_identity(address: BackendAddress) -> u64 {
    match address.scheme {
        // Without the scheme, as it ever was: names stay where they are.
        Scheme::Plain => FixedState::default().hash_one(address.socket),
        Scheme::Tcp | Scheme::Tls | Scheme::Https | Scheme::Http | Scheme::Quic => {
            FixedState::default().hash_one(address)
        }
    }
}

/// What a pool is to the cache: its name and what changes its answers, but nothing that only changes how quickly they come.
///
/// A backend more may have a name that the others deny, one less may take names along: neither pool speaks for the other. Unless they
/// are replicas: then who they are makes no difference.
pub(super) fn cache_identity(config: &PoolConfig) -> PoolId {
    // What was kept with AD of a backend that is not trusted any more is kept no longer.
    let trust_ad = |own: Option<bool>| own.map_or("", |is_trusted| if is_trusted { " with AD" } else { " without AD" });
    if config.replicas {
        let trust_ad = trust_ad(config.trust_ad);
        return PoolId::of(&format!("{}\n{:?}\nreplicas{trust_ad}", config.name, config.rules.accept));
    }
    let address =
        |backend: &BackendConfig| format!("{}{}", backend.address, trust_ad(backend.trust_ad.or(config.trust_ad)));
    let mut addresses: Vec<String> = config.backends.iter().map(address).collect();
    addresses.sort_unstable();
    PoolId::of(&format!("{}\n{:?}\n{}", config.name, config.rules.accept, addresses.join(" ")))
}

/// What a pool is, apart from its configuration: kept for as long as there is a pool of its name.
#[derive(Debug)]
pub struct PoolState {
    /// What pays for hedges.
    pub budget: Budget,
    /// What each worker counts.
    pub counters: Box<[PoolCounters]>,
    /// What earlier processes have counted.
    pub carried: Box<PoolCounters>,
    /// Counts the queries for which a turn was taken.
    turn: AtomicU64,
    /// Queries taken, for `every_queries` and the size of the hedge bucket.
    queries: AtomicU64,
    /// The changes of backends' health or cookies, so that workers see that there was one.
    changes: Changes,
    /// Which versions of zones its members have, if they are replicas.
    pub serials: SharedSerials,
    /// Who has which [`BackendIndex`].
    places: Mutex<Places>,
    /// Nanoseconds above which a query is slow.
    slow_threshold: AtomicU64,
    /// Questions that members are to be asked, to compare what they say.
    pub compared: Compared,
}

impl PoolState {
    /// Nothing learnt, nothing counted.
    pub(super) fn new(config: &PoolConfig, workers: usize) -> Self {
        Self {
            budget: Budget::new(config.rules.hedge.budget),
            counters: (0..workers).map(|_| PoolCounters::default()).collect(),
            carried: Box::default(),
            turn: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            changes: Changes::default(),
            serials: SharedSerials::default(),
            places: Mutex::default(),
            // As long as nothing is known of what is usual: what made a race move on is slow by any measure.
            slow_threshold: AtomicU64::new(config.rules.attempt_timeout.as_nanos() as u64),
            compared: Compared::default(),
        }
    }

    /// Takes the next turn. The one shared counter makes round-robin exact whichever worker a query comes to.
    pub fn take_turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// Counts a query; returns how many there are now.
    pub fn count_query(&self) -> u64 {
        self.queries.fetch_add(1, Relaxed) + 1
    }

    /// How many queries were counted.
    pub fn queries(&self) -> u64 {
        self.queries.load(Relaxed)
    }

    /// Turns taken and queries counted, for another process.
    pub fn progress(&self) -> (u64, u64) {
        (self.turn.load(Relaxed), self.queries())
    }

    /// Goes on from where another process was.
    pub fn set_progress(&self, (turn, queries): (u64, u64)) {
        self.turn.store(turn, Relaxed);
        self.queries.store(queries, Relaxed);
    }

    /// Changes with every change of a backend's health or cookies.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.changes.count()
    }

    /// What has changed since this epoch, and which epoch it is now.
    pub fn changed_since(&self, epoch: u64) -> (Since, u64) {
        self.changes.since(epoch)
    }

    /// How long a query takes at most that is not slow; the longest time of all: none is.
    pub fn slow_threshold(&self) -> Duration {
        match self.slow_threshold.load(Relaxed) {
            u64::MAX => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        }
    }

    /// A query that takes longer is slow from now on.
    pub fn set_slow_threshold(&self, threshold: Duration) {
        self.slow_threshold.store(u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Lets all workers know that the health of a backend has changed, or what is known of its cookies.
    pub fn announce(&self, backend: &SharedBackend) {
        self.changes.note(Some(backend.index));
    }

    /// The same of any number of backends.
    pub fn announce_all(&self) {
        self.changes.note(None);
    }
}

/// Which places are taken: those of which somebody still refers to the backend that has had them last.
#[derive(Debug, Default)]
struct Places {
    /// Who has had each last.
    taken: Vec<Weak<SharedBackend>>,
    /// The one after that which was taken last: they are taken round and round.
    next: usize,
}

impl Places {
    /// The places that nobody has: first those whose backend is gone, the one that has rested longest before the others, then new ones.
    fn free(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        let places = self.taken.len();
        let next = self.next.min(places);
        let is_free = |place: &usize| self.taken[*place].strong_count() == 0;
        let free: Vec<usize> = (next..places).chain(0..next).filter(is_free).collect();
        free.into_iter().chain(places..=usize::from(MAX_PLACE)).map(|place| BackendIndex(place as u16))
    }

    /// A backend has this place now.
    fn take(&mut self, index: BackendIndex, backend: &Arc<SharedBackend>) {
        if self.taken.len() == index.get() {
            self.taken.push(Weak::new());
        }
        self.taken[index.get()] = Arc::downgrade(backend);
        self.next = index.get() + 1;
    }
}

/// The last place that there is, but for [`NOBODY`].
const MAX_PLACE: u16 = u16::MAX - 1;

/// No backend has this place.
const NOBODY: BackendIndex = BackendIndex(u16::MAX);

/// Names that a `sticky` pool remembers: half a megabyte.
const REMEMBERED_NAMES: usize = 1 << 16;

#[cfg(test)]
mod tests;
