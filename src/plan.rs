//! What all workers share about the LS: routes, pools and the state of backends, as the config has it now.
//!
//! A plan is immutable and swapped whole on reload. The few values in it that change by themselves (up or down, whose turn
//! it is, the hedge budget) are atomics, written rarely; workers look at them, and never wait.

pub mod cookies;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant, SystemTime};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use self::cookies::BackendCookies;
use crate::cache::{Cache, PoolId};
use crate::config::{BackendConfig, CacheConfig, Config, PoolConfig};
use crate::limit::{Access, Cookies, RateRules, ResponseRate, WaitRules};
use crate::metrics::{BackendCounters, Counter, PoolCounters};
use crate::policy::Rules;
use crate::policy::balance::Balance;
use crate::policy::budget::Budget;
use crate::policy::memory::Memory;
use crate::wire::Name;

/// The LS as configured.
#[derive(Debug)]
pub struct Plan {
    /// Largest UDP message sent or asked for, octets.
    pub edns_udp_size: u16,
    /// Who is answered.
    pub access: Arc<Access>,
    /// How many queries may wait.
    pub limits: WaitRules,
    /// Who got how many responses, if that is limited.
    pub rate: Option<Arc<ResponseRate>>,
    /// Which pool answers for which name.
    pub routes: Arc<Routes>,
    /// Pools in order of the config.
    pub pools: Vec<Arc<SharedPool>>,
    /// Replies that are kept, if there is a cache.
    pub cache: Option<Arc<Cache>>,
    /// How long they are kept, and how large that is.
    pub cache_config: Option<CacheConfig>,
    /// Gives cookies to clients, if they get any.
    pub cookies: Option<Arc<Cookies>>,
}

impl Plan {
    /// The plan of a config with a forwarder, for so many workers. What `earlier` knows about pools and backends that stay
    /// is kept; a backend that is new in a pool that stays is not up before a probe has found it so.
    /// `new_cache` is taken if the cache has another size than that of `earlier`.
    pub fn new(
        config: &Config,
        earlier: Option<&Self>,
        new_cache: Option<Arc<Cache>>,
        cookies: Option<Arc<Cookies>>,
        workers: usize,
    ) -> Option<Self> {
        let forwarder = config.forwarder.as_ref()?;
        Some(Self {
            edns_udp_size: forwarder.edns_udp_size,
            access: Arc::new(Access::new(&forwarder.access)),
            limits: forwarder.limits,
            rate: shared_rate(forwarder.rate_limit, earlier),
            routes: Arc::new(Routes::new(forwarder.routes.iter().map(|route| (&route.suffix, route.pool)))),
            pools: shared_pools(&config.pools, earlier, workers),
            cache: config.cache.as_ref().map(|cache| shared_cache(cache, earlier, new_cache)),
            cache_config: config.cache.clone(),
            cookies,
        })
    }

    /// This plan with its pools configured otherwise, in the same order.
    pub fn with_pools(&self, pools: &[PoolConfig], workers: usize) -> Self {
        Self {
            edns_udp_size: self.edns_udp_size,
            access: Arc::clone(&self.access),
            limits: self.limits,
            rate: self.rate.clone(),
            routes: Arc::clone(&self.routes),
            pools: shared_pools(pools, Some(self), workers),
            cache: self.cache.clone(),
            cache_config: self.cache_config.clone(),
            cookies: self.cookies.clone(),
        }
    }

    /// The pools whose replies are kept, as the cache knows them.
    pub fn cached_pools(&self) -> Vec<PoolId> {
        let cached = self.pools.iter().filter(|pool| self.cache.is_some() && pool.config.cache);
        cached.map(|pool| pool.id).collect()
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Arc<SharedPool>> {
        self.pools.iter().find(|pool| pool.config.name == name)
    }
}

/// Who got how many responses, as `earlier` knows it if the rules are the same.
fn shared_rate(rules: Option<RateRules>, earlier: Option<&Plan>) -> Option<Arc<ResponseRate>> {
    let rules = rules?;
    let known = earlier.and_then(|plan| plan.rate.as_ref()).filter(|rate| rate.rules() == rules).cloned();
    Some(known.unwrap_or_else(|| Arc::new(ResponseRate::new(rules, ACCOUNTS, rand::random(), Instant::now()))))
}

/// The cache of `earlier`, unless that has another size; then the new one, if it was made already.
fn shared_cache(config: &CacheConfig, earlier: Option<&Plan>, new: Option<Arc<Cache>>) -> Arc<Cache> {
    let same = earlier.filter(|plan| plan.cache_config.as_ref().is_some_and(|known| known.size == config.size));
    let same = same.and_then(|plan| plan.cache.clone());
    same.or(new).unwrap_or_else(|| Arc::new(Cache::new(config.size, Instant::now())))
}

/// Pools with what `earlier` knows of them. One that has not changed is the same as before.
fn shared_pools(configs: &[PoolConfig], earlier: Option<&Plan>, workers: usize) -> Vec<Arc<SharedPool>> {
    let shared = configs.iter().map(|pool| match earlier.and_then(|plan| plan.pool(&pool.name)) {
        Some(known) if known.config == *pool => Arc::clone(known),
        known => Arc::new(SharedPool::new(pool.clone(), known.map(|known| &**known), workers)),
    });
    shared.collect()
}

/// Routes by suffix; the longest wins.
#[derive(Debug)]
pub struct Routes {
    /// Pools by folded suffix.
    by_suffix: HashMap<Box<[u8]>, usize, RandomState>,
    /// The pool of ".", and all there is in most configs.
    root: Option<usize>,
}

impl Routes {
    /// From pairs of suffix and pool.
    fn new<'a>(routes: impl Iterator<Item = (&'a Name, usize)>) -> Self {
        let mut by_suffix = HashMap::default();
        let mut root = None;
        for (suffix, pool) in routes {
            if suffix.is_root() {
                root = Some(pool);
            } else {
                by_suffix.insert(suffix.folded().as_wire().into(), pool);
            }
        }
        Self { by_suffix, root }
    }

    /// The pool for a folded name in wire form.
    pub fn find(&self, qname: &[u8]) -> Option<usize> {
        let mut rest = if self.by_suffix.is_empty() { &[] } else { qname };
        while let Some((&length, below)) = rest.split_first()
            && length > 0
        {
            if let Some(pool) = self.by_suffix.get(rest) {
                return Some(*pool);
            }
            rest = below.get(usize::from(length)..)?;
        }
        self.root
    }
}

/// A pool as all workers see it, with the config of one plan.
#[derive(Debug)]
pub struct SharedPool {
    /// Its configuration.
    pub config: PoolConfig,
    /// What the cache knows it by.
    pub id: PoolId,
    /// Its backends, in order of the config.
    pub backends: Vec<Arc<SharedBackend>>,
    /// Which backend a name lives at (`balance = "sticky"`); kept for as long as the pool is `sticky`.
    pub memory: Arc<Memory>,
    /// What outlives a change of its configuration.
    pub state: Arc<PoolState>,
}

impl SharedPool {
    /// A pool with what `earlier` knew of it.
    fn new(config: PoolConfig, earlier: Option<&Self>, workers: usize) -> Self {
        let is_same = |known: &SharedBackend, backend: &BackendConfig| {
            known.address == backend.address && known.name == backend.name
        };
        let backends = config.backends.iter().map(|backend| {
            let known = earlier.and_then(|pool| pool.backends.iter().find(|known| is_same(known, backend)));
            let standing = if earlier.is_some() { Standing::New } else { Standing::Up };
            known.cloned().unwrap_or_else(|| Arc::new(SharedBackend::new(backend, standing, workers)))
        });
        let backends = backends.collect();
        let state = earlier.map_or_else(|| Arc::new(PoolState::new(&config, workers)), |pool| Arc::clone(&pool.state));
        state.budget.set_rate(config.rules.hedge.budget);
        let is_sticky = |config: &PoolConfig| config.rules.balance == Balance::Sticky;
        let memory = match earlier.filter(|earlier| is_sticky(&earlier.config) == is_sticky(&config)) {
            Some(earlier) => Arc::clone(&earlier.memory),
            // Only `sticky` pays for a memory.
            None => Arc::new(Memory::new(if is_sticky(&config) { REMEMBERED_NAMES } else { 0 })),
        };
        Self { id: cache_identity(&config), config, backends, memory, state }
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

/// What a pool is to the cache: its name and what changes its answers, but nothing that only changes how quickly they come.
///
/// A backend more may have a name that the others deny, one less may take names along: neither pool speaks for the other.
fn cache_identity(config: &PoolConfig) -> PoolId {
    let mut addresses: Vec<String> = config.backends.iter().map(|backend| backend.address.to_string()).collect();
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
    /// Counts the queries for which a turn was taken.
    turn: AtomicU64,
    /// Queries taken, for `every_queries` and the size of the hedge bucket.
    queries: AtomicU64,
    /// Grows with every change of a backend's standing or cookies, so that workers see that there was one.
    epoch: AtomicU64,
}

impl PoolState {
    /// Nothing learnt, nothing counted.
    fn new(config: &PoolConfig, workers: usize) -> Self {
        Self {
            budget: Budget::new(config.rules.hedge.budget),
            counters: (0..workers).map(|_| PoolCounters::default()).collect(),
            turn: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
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

    /// Changes with every change of a backend's standing or cookies.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Lets all workers know that the standing of some backend has changed, or what is known of its cookies.
    pub fn announce(&self) {
        self.epoch.fetch_add(1, Release);
    }
}

/// A backend as all workers see it.
#[derive(Debug)]
pub struct SharedBackend {
    /// Where it is asked.
    pub address: SocketAddr,
    /// Its label.
    pub name: String,
    /// Tells it from all other backends that this process ever had.
    pub id: u16,
    /// What each worker counts.
    pub counters: Box<[BackendCounters]>,
    /// Probes sent.
    pub probes: Counter,
    /// ICMP errors that came to probes.
    pub unreachable_probes: Counter,
    /// What is known of its cookies; a change is announced by [`PoolState::announce`].
    pub cookies: BackendCookies,
    /// What probes and replies say: a [`Standing`].
    standing: AtomicU8,
    /// What the operator says: a [`Manual`].
    manual: AtomicU8,
    /// It gets no more queries, by the operator's wish.
    is_draining: AtomicBool,
    /// When any of these changed last, in milliseconds since the epoch of Unix.
    since: AtomicU64,
    /// The signs that were told and that nobody has acted on yet: a bit for each [`Sign`].
    told: AtomicU8,
}

/// What probes and replies say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// It replies, or nothing is known against it.
    Up,
    /// It does not.
    Down,
    /// It was added while the server runs, and no probe has found it up yet.
    New,
}

/// What the operator says of a backend, by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Manual {
    /// As the probes find it.
    Auto,
    /// It is up, whatever they find.
    Up,
    /// It is down, whatever they find.
    Down,
}

impl SharedBackend {
    /// A backend of this standing.
    fn new(config: &BackendConfig, standing: Standing, workers: usize) -> Self {
        static NEXT_ID: AtomicU16 = AtomicU16::new(0);
        Self {
            address: config.address,
            name: config.name.clone(),
            id: NEXT_ID.fetch_add(1, Relaxed),
            counters: (0..workers).map(|_| BackendCounters::default()).collect(),
            probes: Counter::default(),
            unreachable_probes: Counter::default(),
            cookies: BackendCookies::default(),
            standing: AtomicU8::new(standing as u8),
            manual: AtomicU8::new(Manual::Auto as u8),
            is_draining: AtomicBool::new(false),
            since: AtomicU64::new(unix_millis()),
            told: AtomicU8::new(0),
        }
    }

    /// Whether it is up, as far as the operator lets the probes decide.
    pub fn is_up(&self) -> bool {
        match self.manual() {
            Manual::Auto => self.standing() == Standing::Up,
            Manual::Up => true,
            Manual::Down => false,
        }
    }

    /// Whether it gets queries.
    pub fn takes_queries(&self) -> bool {
        self.is_up() && !self.is_draining()
    }

    /// What probes and replies say.
    pub fn standing(&self) -> Standing {
        match self.standing.load(Relaxed) {
            0 => Standing::Up,
            1 => Standing::Down,
            _ => Standing::New,
        }
    }

    /// What the operator says.
    pub fn manual(&self) -> Manual {
        match self.manual.load(Relaxed) {
            0 => Manual::Auto,
            1 => Manual::Up,
            _ => Manual::Down,
        }
    }

    /// Whether it is being drained.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    /// When its state changed last.
    pub fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.since.load(Relaxed))
    }

    /// Sets what probes and replies say. Returns whether it was something else before; the caller announces that.
    pub fn set_standing(&self, standing: Standing) -> bool {
        let is_change = self.standing.swap(standing as u8, Relaxed) != standing as u8;
        // What the operator has set stays as it is, whatever the probes find.
        if is_change && self.manual() == Manual::Auto && !self.is_draining() {
            self.since.store(unix_millis(), Relaxed);
        }
        is_change
    }

    /// Sets what the operator says, which also ends a drain.
    pub fn set_manual(&self, manual: Manual) {
        self.manual.store(manual as u8, Relaxed);
        self.is_draining.store(false, Relaxed);
        self.since.store(unix_millis(), Relaxed);
    }

    /// Lets it finish what it has and gives it no more.
    pub fn drain(&self) {
        self.is_draining.store(true, Relaxed);
        self.since.store(unix_millis(), Relaxed);
    }

    /// Notes that a worker has met a sign; true if that is to be told, for nobody has told it since it was acted on. So no more
    /// than one of each is on its way to the prober, however many a stranger causes.
    pub fn is_to_be_told(&self, sign: Sign) -> bool {
        let bit = sign.bit();
        self.told.load(Relaxed) & bit == 0 && self.told.fetch_or(bit, Relaxed) & bit == 0
    }

    /// This sign is acted on.
    pub fn take_sign(&self, sign: Sign) {
        self.told.fetch_and(!sign.bit(), Relaxed);
    }

    /// A probe looks into whatever was told.
    pub fn take_signs(&self) {
        self.told.store(0, Relaxed);
    }
}

/// Now, in milliseconds since the epoch of Unix.
fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Clients, names and kinds of responses that the rate of responses is known of: 1 MiB.
const ACCOUNTS: usize = 128 << 10;

/// Names that a `sticky` pool remembers: half a megabyte.
const REMEMBERED_NAMES: usize = 1 << 16;

/// What a worker met and the prober should know.
#[derive(Debug)]
pub struct News {
    /// The backend.
    pub backend: Arc<SharedBackend>,
    /// What was met.
    pub what: Sign,
}

/// A sign of life or death, met by a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// ICMP said that it is unreachable, which may be forged.
    Unreachable,
    /// It was down and replied: proof of life.
    Replied,
    /// It let an attempt time out, which proves nothing.
    Silent,
    /// `every_queries` of them have come.
    ProbeDue,
}

impl Sign {
    /// Its place among those that were told.
    fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Whether it calls for a probe, and is looked into by no less; the others are acted on as they come.
    pub fn is_suspicion(self) -> bool {
        match self {
            Self::Unreachable | Self::Silent => true,
            Self::Replied | Self::ProbeDue => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_sign_one_is_on_its_way() {
        let address = SocketAddr::from(([127, 0, 0, 1], 53));
        let backend = SharedBackend::new(&BackendConfig { name: "ts".to_owned(), address, weight: 1 }, Standing::Up, 1);
        let signs = [Sign::Unreachable, Sign::Replied, Sign::Silent, Sign::ProbeDue];
        let told = || signs.map(|sign| backend.is_to_be_told(sign));
        assert_eq!(told(), [true; 4]);
        assert_eq!(told(), [false; 4], "they have not been acted on");
        backend.take_sign(Sign::Replied);
        assert_eq!(told(), [false, true, false, false]);
        backend.take_signs();
        assert_eq!(told(), [true; 4]);
    }

    #[test]
    fn the_longest_suffix_wins_and_labels_are_not_cut() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (root, org, example) = (name("."), name("ORG"), name("example.org"));
        let routes = Routes::new([(&root, 0), (&org, 1), (&example, 2)].into_iter());
        for (qname, pool) in [
            (".", 0),
            ("com", 0),
            ("org", 1),
            ("other.org", 1),
            ("badexample.org", 1),
            ("example.org", 2),
            ("www.example.org", 2),
            ("a.b.c.example.org", 2),
        ] {
            assert_eq!(routes.find(name(qname).as_wire()), Some(pool), "{qname}");
        }
        let without_root = Routes::new([(&org, 1)].into_iter());
        assert_eq!(without_root.find(name("example.com").as_wire()), None);
    }
}
