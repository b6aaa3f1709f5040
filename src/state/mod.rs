//! The run-time state of the LS that all workers share: routes, pools and backends, as the config has them now.
//!
//! [`ForwarderState`] is made whole at each reload and swapped. What changes by itself in between (health, the turn of
//! round-robin, the hedge budget, counters) are atomics in [`PoolState`] and [`SharedBackend`], which outlive a reload; workers
//! read them and never wait.

mod backend;
pub mod backend_cookies;
mod changes;
mod compared;
mod pool;
pub mod resolver_arpa;
mod routes;
mod serials;
mod snapshot;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

pub use self::backend::{HealthEvent, HealthSignal, ManualHealth, SharedBackend, Standing};
pub use self::changes::{Changes, Since};
pub use self::compared::{Compared, Suspect};
pub use self::pool::{PoolState, SharedPool, hash_identity};
pub use self::resolver_arpa::ResolverArpa;
pub use self::routes::{Routes, Target};
pub use self::serials::SharedSerials;
use crate::address::ListenUrl;
use crate::cache::{Cache, PoolId};
use crate::config::{CacheConfig, Config, PoolConfig};
use crate::limit::{Access, Cookies, RateRules, ResponseRate, WaitRules};
use crate::net::tls::KnownRoots;

/// The LS as configured.
#[derive(Debug)]
pub struct ForwarderState {
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
    /// What the LS answers itself.
    pub resolver_arpa: ResolverArpa,
    /// Pools in order of the config.
    pub pools: Vec<Arc<SharedPool>>,
    /// Replies that are kept, if there is a cache.
    pub cache: Option<Arc<Cache>>,
    /// How long they are kept, and how large that is.
    pub cache_config: Option<CacheConfig>,
    /// Gives cookies to clients, if they get any.
    pub cookies: Option<Arc<Cookies>>,
    /// Whose certificates are good, for backends that are asked by TLS, and which of ours they are shown.
    pub roots: ArcSwap<KnownRoots>,
}

impl ForwarderState {
    /// The state of a config with a forwarder, for so many workers. What `earlier` knows about pools and backends that stay
    /// is kept; a backend that is new in a pool that stays is not up before a probe has found it so.
    /// `new_cache` is taken if the cache has another size than that of `earlier`.
    pub fn new(
        config: &Config,
        earlier: Option<&Self>,
        new_cache: Option<Arc<Cache>>,
        cookies: Option<Arc<Cookies>>,
        roots: Arc<KnownRoots>,
        workers: usize,
    ) -> Option<Self> {
        let forwarder = config.forwarder.as_ref()?;
        Some(Self {
            edns_udp_size: forwarder.edns_udp_size,
            access: Arc::new(Access::new(&forwarder.access)),
            limits: forwarder.limits,
            rate: shared_rate(forwarder.rate_limit, earlier),
            routes: Arc::new(Routes::new(forwarder.routes.iter().map(|route| (&route.suffix, route.pool)))),
            resolver_arpa: ResolverArpa::default(),
            pools: shared_pools(&config.pools, earlier, &roots, workers),
            cache: config.cache.as_ref().map(|cache| shared_cache(cache, earlier, new_cache)),
            cache_config: config.cache.clone(),
            cookies,
            roots: roots.into(),
        })
    }

    /// This state of an LS that tells clients of its encrypted listeners: those among `listeners`, as they are bound.
    pub fn designating(self, config: &Config, listeners: &[ListenUrl]) -> Self {
        let name = config.forwarder.as_ref().and_then(|forwarder| forwarder.designated_resolver.as_ref());
        Self { resolver_arpa: ResolverArpa::new(name, listeners), ..self }
    }

    /// This state with its pools configured otherwise, in the same order.
    pub fn with_pools(&self, pools: &[PoolConfig], workers: usize) -> Self {
        Self {
            edns_udp_size: self.edns_udp_size,
            access: Arc::clone(&self.access),
            limits: self.limits,
            rate: self.rate.clone(),
            routes: Arc::clone(&self.routes),
            resolver_arpa: self.resolver_arpa.clone(),
            pools: shared_pools(pools, Some(self), &self.roots.load(), workers),
            cache: self.cache.clone(),
            cache_config: self.cache_config.clone(),
            cookies: self.cookies.clone(),
            roots: self.roots.load_full().into(),
        }
    }

    /// The pools whose replies are kept, as the cache knows them.
    pub fn cached_pools(&self) -> Vec<PoolId> {
        let cached = self.pools.iter().filter(|pool| self.cache.is_some() && pool.config.cache);
        cached.map(|pool| pool.id).collect()
    }

    /// The same for pools that are configured so, before there is a state of them.
    pub fn cached_pools_of(pools: &[PoolConfig]) -> Vec<PoolId> {
        pools.iter().filter(|pool| pool.cache).map(pool::cache_identity).collect()
    }

    /// Nothing is in flight at this worker any more: it has ended with all that it had.
    pub fn forget_in_flight(&self, worker: usize) {
        for pool in &self.pools {
            pool.state.counters[worker].in_flight.clear();
            for counters in pool.backends.iter().filter_map(|backend| backend.counted_by(worker)) {
                counters.in_flight.clear();
                counters.waited_for.clear();
                if let Some(connections) = counters.connections.get() {
                    connections.open.clear();
                }
            }
        }
    }

    /// Judges backends by these from now on, where they differ from what was known. Connections that are open stay.
    pub fn trust(&self, roots: &Arc<KnownRoots>) {
        if **self.roots.load() != **roots {
            self.pools.iter().for_each(|pool| pool.trust(roots));
            self.roots.store(Arc::clone(roots));
        }
    }

    /// Takes note of which backends take queries now, where there are so many that workers do not look at each. It is enough to do that
    /// a few times a second. Returns whether anything is new, which workers are to be told.
    pub fn renew_crowds(&self) -> bool {
        let mut is_news = false;
        for pool in &self.pools {
            is_news |= pool.renew_crowd();
        }
        is_news
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Arc<SharedPool>> {
        self.pools.iter().find(|pool| pool.config.name == name)
    }
}

/// Who got how many responses, as `earlier` knows it if the rules are the same.
fn shared_rate(rules: Option<RateRules>, earlier: Option<&ForwarderState>) -> Option<Arc<ResponseRate>> {
    let rules = rules?;
    let known = earlier.and_then(|state| state.rate.as_ref()).filter(|rate| rate.rules() == rules).cloned();
    Some(known.unwrap_or_else(|| Arc::new(ResponseRate::new(rules, ACCOUNTS, rand::random(), Instant::now()))))
}

/// The cache of `earlier`, unless that has another size; then the new one, if it was made already.
fn shared_cache(config: &CacheConfig, earlier: Option<&ForwarderState>, new: Option<Arc<Cache>>) -> Arc<Cache> {
    let same = earlier.filter(|state| state.cache_config.as_ref().is_some_and(|known| known.size == config.size));
    let same = same.and_then(|state| state.cache.clone());
    same.or(new).unwrap_or_else(|| Arc::new(Cache::new(config.size, Instant::now())))
}

/// Pools with what `earlier` knows of them. One that has not changed is the same as before.
fn shared_pools(
    configs: &[PoolConfig],
    earlier: Option<&ForwarderState>,
    roots: &KnownRoots,
    workers: usize,
) -> Vec<Arc<SharedPool>> {
    let earlier = earlier.map_or(&[][..], |state| &state.pools);
    let known: HashMap<&str, &Arc<SharedPool>> = earlier.iter().map(|pool| (&*pool.config.name, pool)).collect();
    let shared = configs.iter().map(|pool| match known.get(&*pool.name) {
        Some(known) if known.config == *pool => Arc::clone(known),
        known => Arc::new(SharedPool::new(pool.clone(), known.map(|known| &***known), workers)),
    });
    let shared: Vec<_> = shared.collect();
    shared.iter().for_each(|pool| pool.trust(roots));
    shared
}

/// Clients, names and kinds of responses that the rate of responses is known of: 1 MiB.
const ACCOUNTS: usize = 128 << 10;
