//! The run-time state of the forwarder that all workers share: routes, pools and backends.
//!
//! Each reload replaces [`ForwarderState`]; [`PoolState`] and [`SharedBackend`] outlive it.

mod backend;
pub mod backend_cookies;
mod changes;
mod compared;
mod ipv4only;
mod local_names;
mod own_names;
mod pool;
pub mod resolver_arpa;
mod routes;
mod rules;
pub mod serial_table;
mod serials;
mod snapshot;
mod special_names;
mod tail;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use config::{CacheConfig, Config, PoolConfig};
use dns::address::ListenUrl;
use limit::{Access, Cookies, RateRules, ResponseRate, WaitRules};

pub use self::backend::{HealthEvent, HealthSignal, ManualHealth, SharedBackend, Standing};
pub use self::changes::PoolChanges;
pub use self::compared::{ComparisonQuestions, Suspect};
pub use self::ipv4only::{find_ipv4only, respond_ipv4only};
pub use self::local_names::{LocalNames, LocalNamesFull};
pub use self::own_names::{OwnNames, Target};
pub(crate) use self::pool::BackendDomain;
pub use self::pool::{PoolState, SharedPool};
pub(crate) use self::resolver_arpa::ResolverArpa;
pub use self::routes::Routes;
pub use self::rules::{
    Arrival, BoundListener, ForwarderRule, ForwarderRules, NameSets, RuleRecord, carries, compile as compile_rule,
};
pub use self::serials::SharedSerials;
use self::special_names::SpecialZones;
pub use self::special_names::is_beside_special;
use crate::cache::{Cache, PoolId};

/// The state of a configured forwarder.
#[derive(Clone, Debug)]
pub struct ForwarderState {
    /// The largest UDP message sent or requested, bytes.
    pub edns_udp_size: u16,
    /// The clients that get answers.
    pub access: Arc<Access>,
    /// The limits of pending queries.
    pub limits: WaitRules,
    /// The response rate limiter, if enabled.
    pub rate: Option<Arc<ResponseRate>>,
    /// The rules; `None` if there are none.
    pub rules: Option<Arc<ForwarderRules>>,
    /// The routes from names to pools.
    pub routes: Arc<Routes>,
    /// The names that the forwarder answers itself.
    pub own: OwnNames,
    /// The pools in order of the config.
    pub pools: Vec<Arc<SharedPool>>,
    /// The cache, if enabled.
    pub cache: Option<Arc<Cache>>,
    /// The settings of the cache.
    pub cache_config: Option<CacheConfig>,
    /// The client cookies, if enabled.
    pub cookies: Option<Arc<Cookies>>,
}

impl ForwarderState {
    /// Creates the state of a config. Pools and backends that stay keep their state of `earlier`.
    pub fn new(
        config: &Config,
        earlier: Option<&Self>,
        new_cache: Option<Arc<Cache>>,
        cookies: Option<Arc<Cookies>>,
        workers: usize,
        now: Instant,
    ) -> Option<Self> {
        let forwarder = config.forwarder.as_ref()?;
        let routes = Routes::new(&forwarder.routes);
        let special = SpecialZones::new(forwarder.names.special, &routes, &config.pools);
        Some(Self {
            edns_udp_size: forwarder.edns_udp_size,
            access: Arc::new(Access::new(&forwarder.access)),
            limits: forwarder.limits,
            rate: shared_rate(forwarder.rate_limit, earlier, now),
            rules: None,
            routes: Arc::new(routes),
            own: OwnNames { special, ..OwnNames::default() },
            pools: shared_pools(&config.pools, earlier, workers, now),
            cache: config.cache.as_ref().map(|cache| shared_cache(cache, earlier, new_cache, now)),
            cache_config: config.cache.clone(),
            cookies,
        })
    }

    /// Adds the rules of the config, with the names from files and the listeners in order of the config.
    pub fn ruled(
        self,
        config: &Config,
        names: &NameSets,
        listeners: Vec<BoundListener>,
        earlier: Option<&Self>,
        workers: usize,
    ) -> Self {
        let configs = config.forwarder.as_ref().map_or(&[][..], |forwarder| &forwarder.rules);
        let earlier = earlier.and_then(|earlier| earlier.rules.as_deref());
        let new = || Arc::new(ForwarderRules::new(configs, names, listeners, earlier, workers));
        Self { rules: (!configs.is_empty()).then(new), ..self }
    }

    /// Adds the encrypted listeners among `listeners`, as they are bound, to the zone for clients.
    pub fn designating(self, config: &Config, listeners: &[ListenUrl]) -> Self {
        let name = config.forwarder.as_ref().and_then(|forwarder| forwarder.designated_resolver.as_ref());
        let own = OwnNames { resolver_arpa: ResolverArpa::new(name, listeners), ..self.own };
        Self { own, ..self }
    }

    /// Adds local names.
    pub fn with_local_names(self, local: Arc<LocalNames>) -> Self {
        Self { own: OwnNames { local, ..self.own }, ..self }
    }

    /// Returns this state with pools of a different config, in the same order.
    pub fn with_pools(&self, pools: &[PoolConfig], workers: usize, now: Instant) -> Self {
        let own = OwnNames { special: self.own.special.with_pools(&self.routes, pools), ..self.own.clone() };
        Self { pools: shared_pools(pools, Some(self), workers, now), own, ..self.clone() }
    }

    /// Returns the cache IDs of the pools that the cache serves.
    pub fn cached_pools(&self) -> Vec<PoolId> {
        let cached = self.pools.iter().filter(|pool| self.cache.is_some() && pool.config.cache);
        cached.map(|pool| pool.id).collect()
    }

    /// Returns the cache IDs of configured pools, before a state exists.
    pub fn cached_pools_of(pools: &[PoolConfig]) -> Vec<PoolId> {
        pools.iter().filter(|pool| pool.cache).map(pool::cache_identity).collect()
    }

    /// Resets the in-flight counters of a worker that has ended.
    pub fn forget_in_flight(&self, worker: usize) {
        for pool in &self.pools {
            pool.state.counters[worker].in_flight.clear();
            for counters in pool.backends.iter().filter_map(|backend| backend.counted_by(worker)) {
                counters.pending.in_flight.clear();
                counters.pending.waited_for.clear();
                if let Some(connections) = counters.connections.get() {
                    connections.open.clear();
                }
            }
        }
    }

    /// Updates the crowds of large pools. Returns true if the workers must be notified.
    pub fn renew_crowds(&self) -> bool {
        let mut is_news = false;
        for pool in &self.pools {
            is_news |= pool.renew_crowd();
        }
        is_news
    }

    /// Returns the pool with this name.
    pub fn pool(&self, name: &str) -> Option<&Arc<SharedPool>> {
        self.pools.iter().find(|pool| pool.config.name == name)
    }
}

fn shared_rate(rules: Option<RateRules>, earlier: Option<&ForwarderState>, now: Instant) -> Option<Arc<ResponseRate>> {
    let rules = rules?;
    let known = earlier.and_then(|state| state.rate.as_ref()).filter(|rate| rate.rules() == rules).cloned();
    Some(known.unwrap_or_else(|| Arc::new(ResponseRate::new(rules, ACCOUNTS, rand::random(), now))))
}

fn shared_cache(
    config: &CacheConfig,
    earlier: Option<&ForwarderState>,
    new: Option<Arc<Cache>>,
    now: Instant,
) -> Arc<Cache> {
    let same = earlier.filter(|state| state.cache_config.as_ref().is_some_and(|known| known.size == config.size));
    let same = same.and_then(|state| state.cache.clone());
    same.or(new).unwrap_or_else(|| Arc::new(Cache::new(config.size, now)))
}

fn shared_pools(
    configs: &[PoolConfig],
    earlier: Option<&ForwarderState>,
    workers: usize,
    now: Instant,
) -> Vec<Arc<SharedPool>> {
    let earlier = earlier.map_or(&[][..], |state| &state.pools);
    let known: HashMap<&str, &Arc<SharedPool>> = earlier.iter().map(|pool| (&*pool.config.name, pool)).collect();
    let shared = configs.iter().map(|pool| match known.get(&*pool.name) {
        Some(known) if known.config == *pool => Arc::clone(known),
        known => Arc::new(SharedPool::new(pool.clone(), known.map(|known| &***known), workers, now)),
    });
    shared.collect()
}

const ACCOUNTS: usize = 128 << 10;
