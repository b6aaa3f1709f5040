//! A pool as all workers share it: its config, its backends, and what outlives a change of the config.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use super::backend::SharedBackend;
use crate::cache::PoolId;
use crate::config::{BackendConfig, PoolConfig};
use crate::metrics::PoolCounters;
use crate::policy::Rules;
use crate::policy::affinity::Affinity;
use crate::policy::balance::Balance;
use crate::policy::budget::Budget;
use crate::policy::health::HealthState;

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
}

impl SharedPool {
    /// A pool with what `earlier` knew of it.
    pub(super) fn new(config: PoolConfig, earlier: Option<&Self>, workers: usize) -> Self {
        let is_same = |known: &SharedBackend, backend: &BackendConfig| {
            known.address == backend.address && known.name == backend.name
        };
        let is_sticky = |config: &PoolConfig| config.rules.balance == Balance::Sticky;
        let affinity = match earlier.filter(|earlier| is_sticky(&earlier.config) == is_sticky(&config)) {
            Some(earlier) => Arc::clone(&earlier.affinity),
            // Only `sticky` pays for the table.
            None => Arc::new(Affinity::new(if is_sticky(&config) { REMEMBERED_NAMES } else { 0 })),
        };
        let known = |backend: &BackendConfig| earlier?.backends.iter().find(|known| is_same(known, backend));
        let mut numbers: Vec<u16> =
            config.backends.iter().filter_map(known).map(|known| known.affinity_number).collect();
        let health = if earlier.is_some() { HealthState::New } else { HealthState::Up };
        let backends = config.backends.iter().map(|backend| match known(backend) {
            Some(known) => Arc::clone(known),
            None => {
                let number = affinity.number(&numbers);
                numbers.push(number);
                Arc::new(SharedBackend::new(backend, number, health, workers))
            }
        });
        let backends = backends.collect();
        let state = earlier.map_or_else(|| Arc::new(PoolState::new(&config, workers)), |pool| Arc::clone(&pool.state));
        state.budget.set_rate(config.rules.hedge.budget);
        Self { id: cache_identity(&config), config, backends, affinity, state }
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
pub(super) fn cache_identity(config: &PoolConfig) -> PoolId {
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
    /// What earlier processes have counted.
    pub carried: Box<PoolCounters>,
    /// Counts the queries for which a turn was taken.
    turn: AtomicU64,
    /// Queries taken, for `every_queries` and the size of the hedge bucket.
    queries: AtomicU64,
    /// Grows with every change of a backend's health or cookies, so that workers see that there was one.
    epoch: AtomicU64,
    /// Nanoseconds above which a query is slow.
    slow_threshold: AtomicU64,
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
            epoch: AtomicU64::new(0),
            // As long as nothing is known of what is usual: what made a race move on is slow by any measure.
            slow_threshold: AtomicU64::new(config.rules.attempt_timeout.as_nanos() as u64),
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
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
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

    /// Lets all workers know that the health of some backend has changed, or what is known of its cookies.
    pub fn announce(&self) {
        self.epoch.fetch_add(1, Release);
    }
}

/// Names that a `sticky` pool remembers: half a megabyte.
const REMEMBERED_NAMES: usize = 1 << 16;
