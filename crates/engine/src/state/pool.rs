//! A pool as all workers share it: its config, its backends, and the state that survives a config change.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use config::{BackendConfig, ClientSubnetRule, PassingRules, PoolConfig, PoolRules};
use dns::address::{BackendAddress, Scheme};
use foldhash::fast::FixedState;
use hedge::BackendIndex;
use hedge::affinity::Affinity;
use hedge::balance::{Balance, Balancer, Crowd, FEW, TierTurns, TurnEntry};
use hedge::budget::Budget;
use hedge::health::HealthState;
use metrics::{PoolCounters, TuningSnapshot};

use super::backend::SharedBackend;
use super::changes::PoolChanges;
use super::compared::ComparisonQuestions;
use super::serials::SharedSerials;
use super::tail::PoolRegret;
use crate::cache::PoolId;
use crate::subnet::SubnetScopes;

/// A pool shared by all workers, with the config of one state.
#[derive(Debug)]
pub struct SharedPool {
    /// The configuration of the pool.
    pub config: PoolConfig,
    /// The ID of the pool in the cache.
    pub id: PoolId,
    /// The backends in order of the config.
    pub backends: Vec<Arc<SharedBackend>>,
    /// The backend of each remembered name (`balance = "sticky"`); kept for as long as the pool is `sticky`.
    pub affinity: Arc<Affinity>,
    /// The state that survives a change of the configuration.
    pub state: Arc<PoolState>,
    /// True if a backend learns the client address. Each query then has a separate race.
    pub names_clients: bool,
    /// The difference to the previous configuration.
    pub edition: PoolEdition,
    by_index: Box<[Option<PoolSeat>]>,
    has_tiers: bool,
    by_affinity: Box<[(u32, BackendIndex)]>,
    /// By [`BackendIndex`]; empty if no backend has a `server` or `site`.
    domains: Box<[BackendDomain]>,
    crowd: Option<CrowdCell>,
}

/// The turns of a large pool, and the epoch of the pool for which they were checked.
#[derive(Debug)]
struct CrowdCell {
    turns: ArcSwap<TierTurns<Crowd>>,
    checked: AtomicU64,
}

/// The numbers of what a backend shares with others; 0 for what it shares with none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BackendDomain {
    pub(crate) machine: u16,
    pub(crate) site: u16,
}

/// One of the configurations of a pool, which follow each other.
#[derive(Debug)]
pub struct PoolEdition {
    /// The number of the configuration.
    pub number: u64,
    /// The members that joined with it.
    pub joined: Vec<BackendIndex>,
    /// The members that left with it.
    pub left: Vec<BackendIndex>,
}

/// A member with the settings of its place in the pool.
#[derive(Clone, Debug)]
struct PoolSeat {
    backend: Arc<SharedBackend>,
    weight: u16,
    tier: u8,
}

impl PoolSeat {
    fn of(backend: Arc<SharedBackend>, config: &BackendConfig) -> Self {
        Self { backend, weight: config.weight, tier: config.tier }
    }
}

impl SharedPool {
    /// Returns the hosts of the backends that use datagrams.
    pub fn datagram_backends(&self) -> impl Iterator<Item = IpAddr> {
        let by_datagram = self.backends.iter().filter(|backend| backend.address.scheme == Scheme::Plain);
        by_datagram.map(|backend| backend.address.socket.ip())
    }

    pub(super) fn new(config: PoolConfig, earlier: Option<&Self>, workers: usize, now: Instant) -> Self {
        let is_sticky = |config: &PoolConfig| config.rules.race.balance == Balance::Sticky;
        let affinity = match earlier.filter(|earlier| is_sticky(&earlier.config) == is_sticky(&config)) {
            Some(earlier) => Arc::clone(&earlier.affinity),
            None => Arc::new(Affinity::new(if is_sticky(&config) { REMEMBERED_NAMES } else { 0 })),
        };
        let state = earlier.map_or_else(|| Arc::new(PoolState::new(&config, workers)), |pool| Arc::clone(&pool.state));
        state.budget.set_rate(config.rules.race.first_budget());
        let changes = state.epoch();
        let (members, joined) = members(&config, earlier, &state, &affinity, workers, now);
        let mut by_index = vec![None; places(&members)];
        members.iter().for_each(|member| by_index[member.backend.index.get()] = Some(member.clone()));
        let has = |member: &SharedBackend| {
            let same = by_index.get(member.index.get()).and_then(Option::as_ref);
            same.is_some_and(|same| std::ptr::eq(&*same.backend, member))
        };
        let before = earlier.iter().flat_map(|pool| &pool.backends);
        let left = before.filter(|member| !has(member)).map(|member| member.index).collect();
        let mut by_affinity: Box<[_]> = match is_sticky(&config) {
            true => members.iter().map(|seat| (seat.backend.affinity_number, seat.backend.index)).collect(),
            false => Box::default(),
        };
        by_affinity.sort_unstable();
        let domains = domains(&config, &members);
        let mut pool = Self {
            id: cache_identity(&config),
            names_clients: config.backends.iter().any(|backend| backend.proxy_protocol),
            config,
            has_tiers: members.iter().any(|member| member.tier > 0),
            backends: members.into_iter().map(|member| member.backend).collect(),
            affinity,
            state,
            edition: PoolEdition { number: earlier.map_or(0, |pool| pool.edition.number + 1), joined, left },
            by_index: by_index.into(),
            by_affinity,
            domains,
            crowd: None,
        };
        if earlier.is_some_and(|earlier| earlier.id != pool.id) {
            pool.state.scopes.renew();
        }
        if pool.backends.len() > FEW {
            let turns = ArcSwap::from_pointee(pool.new_crowd());
            pool.crowd = Some(CrowdCell { turns, checked: AtomicU64::new(changes) });
        }
        pool
    }

    /// Returns true if queries to backends carry no client subnet.
    #[inline]
    pub(crate) fn sends_no_subnet(&self) -> bool {
        self.config.rules.passing.client_subnet == ClientSubnetRule::Strip
    }

    /// Returns the member at this place. A race only asks members of the state in which it began.
    #[inline]
    pub fn backend(&self, index: BackendIndex) -> &Arc<SharedBackend> {
        self.find(index).expect("a race asks members of its pool")
    }

    /// Returns the member at this place, if there is one.
    #[inline]
    pub fn find(&self, index: BackendIndex) -> Option<&Arc<SharedBackend>> {
        self.by_index.get(index.get())?.as_ref().map(|seat| &seat.backend)
    }

    /// Returns the load share of the member at this place.
    #[inline]
    pub(crate) fn weight(&self, index: BackendIndex) -> u16 {
        self.by_index.get(index.get()).and_then(Option::as_ref).map_or(1, |seat| seat.weight)
    }

    /// Returns the tier of the member at this place.
    pub(crate) fn tier(&self, index: BackendIndex) -> u8 {
        self.by_index.get(index.get()).and_then(Option::as_ref).map_or(0, |seat| seat.tier)
    }

    /// Returns true if a member is a spare for others.
    #[inline]
    pub(crate) fn has_tiers(&self) -> bool {
        self.has_tiers
    }

    /// Returns the machine and the site of the member at this place.
    #[inline]
    pub(crate) fn domain(&self, index: BackendIndex) -> BackendDomain {
        self.domains.get(index.get()).copied().unwrap_or_default()
    }

    /// Returns true if several members may belong to one machine or site.
    #[inline]
    pub(crate) fn has_domains(&self) -> bool {
        !self.domains.is_empty()
    }

    /// Returns all members with their load shares, in order of the config.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Arc<SharedBackend>, u16)> + Clone {
        self.backends.iter().map(|backend| (backend, self.weight(backend.index)))
    }

    /// Returns all members as the balancers take them: with the load share, the identity for `hash`, and true
    /// if the member takes turns.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (BackendIndex, u16, u64, bool)> + Clone {
        let is_anybody_ahead = self.is_anybody_ahead();
        self.members().map(move |(backend, weight)| {
            (backend.index, weight, hash_identity(backend.address), backend.takes_turns(is_anybody_ahead))
        })
    }

    /// Returns the size of tables by [`BackendIndex`].
    pub(crate) fn places(&self) -> usize {
        self.by_index.len()
    }

    /// Returns the member with this affinity number.
    pub(crate) fn by_affinity(&self, number: u32) -> Option<BackendIndex> {
        let place = self.by_affinity.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.by_affinity[place].1)
    }

    /// Returns the crowd if the pool is so large that queries do not check all members.
    pub(crate) fn crowd(&self) -> Option<Arc<TierTurns<Crowd>>> {
        self.crowd.as_ref().map(|crowd| crowd.turns.load_full())
    }

    /// Returns the turns of a pool that is checked for each query.
    pub(crate) fn balancer(&self) -> TierTurns<Balancer> {
        if !self.has_tiers {
            return TierTurns::without_spares(Balancer::new(self.turns()));
        }
        let build = |entries: &[_]| Balancer::new(entries.iter().copied());
        TierTurns::new(self.rules().min_up, self.turns(), |index| self.tier(index), build)
    }

    fn new_crowd(&self) -> TierTurns<Crowd> {
        let build = |entries: &[_]| Crowd::new(self.rules().race.balance, entries.iter().copied());
        TierTurns::new(self.rules().min_up, self.turns(), |index| self.tier(index), build)
    }

    /// Returns true if a member takes queries and is not behind.
    fn is_anybody_ahead(&self) -> bool {
        self.config.replicas.enabled
            && self.backends.iter().any(|backend| backend.takes_queries() && !backend.is_behind())
    }

    /// Returns true if the pool is large enough for a crowd.
    pub fn is_crowd(&self) -> bool {
        self.crowd.is_some()
    }

    pub(super) fn renew_crowd(&self) -> bool {
        let Some(CrowdCell { turns, checked }) = &self.crowd else { return false };
        let changes = self.state.epoch();
        if checked.swap(changes, Relaxed) == changes {
            return false;
        }
        let is_of = |crowd: &Crowd, entries: &[TurnEntry]| {
            crowd.is_of(entries.iter().filter(|(.., takes_turns)| *takes_turns).map(|(index, ..)| *index))
        };
        if turns.load().is_of(self.rules().min_up, self.turns(), |index| self.tier(index), is_of) {
            return false;
        }
        turns.store(Arc::new(self.new_crowd()));
        self.state.changes.note(Some(NOBODY));
        checked.store(changes + 1, Relaxed);
        true
    }

    /// Returns true if replies to a question with this hash are compared, by all workers alike.
    #[inline]
    pub(crate) fn compares(&self, hash: u64) -> bool {
        let share = self.config.replicas.compare;
        share > 0.0 && ((hash >> 11) as f64) < share * 2_f64.powi(53)
    }

    /// Returns the rules of races.
    pub fn rules(&self) -> &PoolRules {
        &self.config.rules
    }

    /// Returns the budget that all attempts of races use.
    pub fn budget(&self) -> &Budget {
        &self.state.budget
    }
}

/// Returns the members of a pool, and the places of those that join it. Known backends keep their state.
fn members(
    config: &PoolConfig,
    earlier: Option<&SharedPool>,
    state: &PoolState,
    affinity: &Affinity,
    workers: usize,
    now: Instant,
) -> (Vec<PoolSeat>, Vec<BackendIndex>) {
    let known: HashMap<(BackendAddress, &str), &Arc<SharedBackend>> = earlier
        .iter()
        .flat_map(|pool| &pool.backends)
        .map(|backend| ((backend.address, &*backend.name), backend))
        .collect();
    let known = |backend: &BackendConfig| {
        let known = known.get(&(backend.address, &*backend.name)).copied();
        known.filter(|known| known.wants_header == backend.proxy_protocol)
    };
    // A new label makes a new backend for metrics, but not for probes.
    let renamed: HashMap<BackendAddress, HealthState> =
        earlier.iter().flat_map(|pool| &pool.backends).map(|backend| (backend.address, backend.health())).collect();
    let taken: HashSet<u32> = config.backends.iter().filter_map(known).map(|known| known.affinity_number).collect();
    let health = if earlier.is_some() { HealthState::New } else { HealthState::Up };
    let mut joined = Vec::new();
    let mut members: Vec<PoolSeat> = Vec::with_capacity(config.backends.len());
    let mut places = state.places.lock().unwrap_or_else(PoisonError::into_inner);
    let mut free = places.free();
    for backend in &config.backends {
        if let Some(known) = known(backend) {
            known.set_config(backend, config);
            members.push(PoolSeat::of(Arc::clone(known), backend));
            continue;
        }
        // There are six times as many places as members allowed, so that departed members can finish.
        let Some(index) = free.next() else {
            tracing::error!(pool = config.name, backend = backend.name, "too many backends: this one is skipped");
            continue;
        };
        let number = affinity.number(|number| taken.contains(&number));
        let health = renamed.get(&backend.address).copied().unwrap_or(health);
        let new = Arc::new(SharedBackend::new(backend, index, number, health, workers, now));
        new.set_config(backend, config);
        places.take(index, &new);
        joined.push(index);
        members.push(PoolSeat::of(new, backend));
    }
    (members, joined)
}

fn places(members: &[PoolSeat]) -> usize {
    members.iter().map(|member| member.backend.index.get() + 1).max().unwrap_or(0)
}

fn domains(config: &PoolConfig, members: &[PoolSeat]) -> Box<[BackendDomain]> {
    if config.backends.iter().all(|backend| backend.server.is_none() && backend.site.is_none()) {
        return Box::default();
    }
    let (mut servers, mut sites) = (HashMap::new(), HashMap::new());
    let of_backends: HashMap<(BackendAddress, &str), BackendDomain> = config
        .backends
        .iter()
        .map(|backend| {
            let (machine, site) = (number(&mut servers, &backend.server), number(&mut sites, &backend.site));
            ((backend.address, &*backend.name), BackendDomain { machine, site })
        })
        .collect();
    let mut domains = vec![BackendDomain::default(); places(members)];
    for PoolSeat { backend: member, .. } in members {
        domains[member.index.get()] = of_backends.get(&(member.address, &*member.name)).copied().unwrap_or_default();
    }
    domains.into()
}

/// Returns the number of a name, from 1; 0 for none.
fn number<'n>(numbers: &mut HashMap<&'n str, u16>, name: &'n Option<String>) -> u16 {
    let next = u16::try_from(numbers.len() + 1).unwrap_or(0);
    name.as_deref().map_or(0, |name| *numbers.entry(name).or_insert(next))
}

/// Returns the identity for `balance = "hash"`: the address, so that names stay put after a restart.
fn hash_identity(address: BackendAddress) -> u64 {
    match address.scheme {
        // The scheme is left out, as in all versions, so that names stay at their backends.
        Scheme::Plain => FixedState::default().hash_one(address.socket),
        Scheme::Tcp | Scheme::Tls | Scheme::Https | Scheme::Http | Scheme::Quic => {
            FixedState::default().hash_one(address)
        }
    }
}

/// Returns the identity of a pool for the cache: its name, `accept`, the trust in AD, the addresses of its
/// backends, and the content that passes. Replicas have the same data, so their addresses are left out.
pub(super) fn cache_identity(config: &PoolConfig) -> PoolId {
    // Records with AD from a backend that is no longer trusted must not be reused.
    let trust_ad = |own: Option<bool>| own.map_or("", |is_trusted| if is_trusted { " with AD" } else { " without AD" });
    let passing = &config.rules.passing;
    let passing = if *passing == PassingRules::default() { String::new() } else { format!("\n{passing:?}") };
    if config.replicas.enabled {
        let trust_ad = trust_ad(config.trust_ad);
        return PoolId::of(&format!("{}\n{:?}\nreplicas{trust_ad}{passing}", config.name, config.rules.accept));
    }
    let address =
        |backend: &BackendConfig| format!("{}{}", backend.address, trust_ad(backend.trust_ad.or(config.trust_ad)));
    let mut addresses: Vec<String> = config.backends.iter().map(address).collect();
    addresses.sort_unstable();
    PoolId::of(&format!("{}\n{:?}\n{}{passing}", config.name, config.rules.accept, addresses.join(" ")))
}

/// The state of a pool apart from its configuration, kept while a pool of this name exists.
#[derive(Debug)]
pub struct PoolState {
    /// The budget for hedges.
    pub budget: Budget,
    /// The counters of each worker.
    pub counters: Box<[PoolCounters]>,
    /// The counters of earlier processes.
    pub carried: Box<PoolCounters>,
    progress: PoolProgress,
    /// The scopes of replies, with `client_subnet`.
    pub(crate) scopes: SubnetScopes,
    changes: PoolChanges,
    /// The zone versions of the members, if they are replicas.
    pub serials: SharedSerials,
    places: Mutex<BackendTable>,
    slow_threshold: AtomicU64,
    /// The questions for the comparison of members.
    pub compared: ComparisonQuestions,
    /// The times of attempts and races, beside the best that was possible.
    pub(crate) regret: PoolRegret,
    /// The hedges of `dispatch = "auto"`.
    pub(super) tuning: Mutex<Option<TuningSnapshot>>,
}

/// The numbers of turns and queries so far.
#[derive(Debug, Default)]
struct PoolProgress {
    turn: AtomicU64,
    queries: AtomicU64,
}

impl PoolState {
    pub(super) fn new(config: &PoolConfig, workers: usize) -> Self {
        Self {
            budget: Budget::new(config.rules.race.hedge.budget),
            counters: (0..workers).map(|_| PoolCounters::default()).collect(),
            carried: Box::default(),
            progress: PoolProgress::default(),
            scopes: SubnetScopes::new(),
            changes: PoolChanges::default(),
            serials: SharedSerials::default(),
            places: Mutex::default(),
            // Before the usual latency is known, an attempt that timed out counts as slow.
            slow_threshold: AtomicU64::new(config.rules.race.attempt_timeout.longest().as_nanos() as u64),
            compared: ComparisonQuestions::default(),
            regret: PoolRegret::new(workers),
            tuning: Mutex::default(),
        }
    }

    /// Takes the next turn. A single shared counter makes round-robin exact across workers.
    pub(crate) fn take_turn(&self) -> u64 {
        self.progress.turn.fetch_add(1, Relaxed)
    }

    /// Counts a query and returns the new number.
    pub(crate) fn count_query(&self) -> u64 {
        self.progress.queries.fetch_add(1, Relaxed) + 1
    }

    /// Returns the number of queries.
    pub fn queries(&self) -> u64 {
        self.progress.queries.load(Relaxed)
    }

    /// Returns the numbers of turns and queries, for another process.
    pub fn progress(&self) -> (u64, u64) {
        (self.progress.turn.load(Relaxed), self.queries())
    }

    /// Continues with the numbers of another process.
    pub fn set_progress(&self, (turn, queries): (u64, u64)) {
        self.progress.turn.store(turn, Relaxed);
        self.progress.queries.store(queries, Relaxed);
    }

    /// Returns a number that grows with every change of a backend's health or cookies.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.changes.count()
    }

    /// Returns the backends that changed since an epoch (`None` for any of them), and the current epoch.
    pub(crate) fn changed_since(&self, epoch: u64) -> (Option<Vec<BackendIndex>>, u64) {
        self.changes.since(epoch)
    }

    /// Returns the latency above which a query is slow; the maximum means that none is.
    pub fn slow_threshold(&self) -> Duration {
        match self.slow_threshold.load(Relaxed) {
            u64::MAX => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        }
    }

    /// Sets the latency above which a query is slow.
    pub fn set_slow_threshold(&self, threshold: Duration) {
        self.slow_threshold.store(u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Notifies all workers that a backend's health or cookies have changed.
    pub fn announce(&self, backend: &SharedBackend) {
        self.changes.note(Some(backend.index));
    }

    /// Notifies all workers that the health or cookies of any backends have changed.
    pub fn announce_all(&self) {
        self.changes.note(None);
    }
}

#[derive(Debug, Default)]
struct BackendTable {
    taken: Vec<Weak<SharedBackend>>,
    next: usize,
}

impl BackendTable {
    /// Returns the free places: first those without references, longest unused first, then new ones.
    fn free(&self) -> impl Iterator<Item = BackendIndex> + use<> {
        let places = self.taken.len();
        let next = self.next.min(places);
        let is_free = |place: &usize| self.taken[*place].strong_count() == 0;
        let free: Vec<usize> = (next..places).chain(0..next).filter(is_free).collect();
        free.into_iter().chain(places..=usize::from(MAX_PLACE)).map(|place| BackendIndex(place as u16))
    }

    fn take(&mut self, index: BackendIndex, backend: &Arc<SharedBackend>) {
        if self.taken.len() == index.get() {
            self.taken.push(Weak::new());
        }
        self.taken[index.get()] = Arc::downgrade(backend);
        self.next = index.get() + 1;
    }
}

const MAX_PLACE: u16 = u16::MAX - 1;

const NOBODY: BackendIndex = BackendIndex(u16::MAX);

/// Half a megabyte for the names of a `sticky` pool.
const REMEMBERED_NAMES: usize = 1 << 16;

#[cfg(test)]
mod tests;
