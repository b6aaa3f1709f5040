//! What all workers share about the LS: routes, pools and the state of backends, as the config has it now.
//!
//! A plan is immutable and swapped whole on reload. The few values in it that change by themselves (up or down, whose turn
//! it is, the hedge budget) are atomics, written rarely; workers look at them, and never wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::config::{BackendConfig, Config, PoolConfig};
use crate::policy::Rules;
use crate::policy::budget::Budget;
use crate::wire::Name;

/// The LS as configured.
#[derive(Debug)]
pub struct Plan {
    /// Largest UDP message sent or asked for, octets.
    pub edns_udp_size: u16,
    /// Which pool answers for which name.
    pub routes: Routes,
    /// Pools in order of the config.
    pub pools: Vec<Arc<SharedPool>>,
}

impl Plan {
    /// The plan of a config with a forwarder. What `earlier` knows about pools and backends that stay is kept.
    pub fn new(config: &Config, earlier: Option<&Self>) -> Option<Self> {
        let forwarder = config.forwarder.as_ref()?;
        let pools = config.pools.iter().map(|pool| {
            let earlier = earlier.and_then(|plan| plan.pools.iter().find(|known| known.config.name == pool.name));
            match earlier {
                Some(known) if known.config == *pool => Arc::clone(known),
                _ => Arc::new(SharedPool::new(pool.clone(), earlier.map(|known| &**known))),
            }
        });
        Some(Self {
            edns_udp_size: forwarder.edns_udp_size,
            routes: Routes::new(forwarder.routes.iter().map(|route| (&route.suffix, route.pool))),
            pools: pools.collect(),
        })
    }
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

/// A pool as all workers see it.
#[derive(Debug)]
pub struct SharedPool {
    /// Its configuration.
    pub config: PoolConfig,
    /// What pays for hedges.
    pub budget: Budget,
    /// Its backends, in order of the config.
    pub backends: Vec<Arc<SharedBackend>>,
    /// Counts the queries for which a turn was taken (`balance = "round-robin"`).
    turn: AtomicU64,
    /// Queries taken, for `every_queries` and the size of the hedge bucket.
    queries: AtomicU64,
    /// Grows with every change of a backend's state, so that workers see that there was one.
    epoch: AtomicU64,
}

impl SharedPool {
    /// A pool whose backends are up, but for those that `earlier` knew to be down.
    fn new(config: PoolConfig, earlier: Option<&Self>) -> Self {
        let backends = config.backends.iter().map(|backend| {
            let known = earlier.and_then(|pool| pool.backends.iter().find(|known| known.address == backend.address));
            let is_up = known.is_none_or(|known| known.is_up());
            Arc::new(SharedBackend::new(backend, is_up))
        });
        Self {
            budget: Budget::new(config.rules.hedge.budget),
            backends: backends.collect(),
            turn: AtomicU64::new(0),
            queries: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            config,
        }
    }

    /// The rules of its races.
    pub fn rules(&self) -> &Rules {
        &self.config.rules
    }

    /// Takes the next turn. The one shared counter makes round-robin exact whichever worker a query comes to.
    pub fn take_turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }

    /// Counts queries; returns how many there are now.
    pub fn count_queries(&self, n: u64) -> u64 {
        self.queries.fetch_add(n, Relaxed) + n
    }

    /// How many queries were counted.
    pub fn queries(&self) -> u64 {
        self.queries.load(Relaxed)
    }

    /// Changes with every change of a backend's state.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Acquire)
    }

    /// Sets a backend's state and lets all workers know. Returns whether it was another before.
    pub fn set_up(&self, backend: usize, is_up: bool) -> bool {
        let is_change = self.backends[backend].is_up.swap(is_up, Relaxed) != is_up;
        if is_change {
            self.epoch.fetch_add(1, Release);
        }
        is_change
    }
}

/// A backend as all workers see it.
#[derive(Debug)]
pub struct SharedBackend {
    /// Where it is asked.
    pub address: SocketAddr,
    /// Its label.
    pub name: String,
    /// Share of the load.
    pub weight: u16,
    /// Whether it is up.
    is_up: AtomicBool,
    /// Silence was reported and no probe has looked into it yet.
    is_suspected: AtomicBool,
}

impl SharedBackend {
    /// A backend in a known state.
    fn new(config: &BackendConfig, is_up: bool) -> Self {
        Self {
            address: config.address,
            name: config.name.clone(),
            weight: config.weight,
            is_up: AtomicBool::new(is_up),
            is_suspected: AtomicBool::new(false),
        }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }

    /// Notes that it was silent; true for the first to say so since the last probe.
    pub fn suspect(&self) -> bool {
        !self.is_suspected.load(Relaxed) && !self.is_suspected.swap(true, Relaxed)
    }

    /// A probe looks into it.
    pub fn clear_suspicion(&self) {
        self.is_suspected.store(false, Relaxed);
    }
}

/// What a worker met and the prober should know.
#[derive(Debug)]
pub struct News {
    /// The pool.
    pub pool: Arc<SharedPool>,
    /// The backend's index in the pool.
    pub backend: usize,
    /// What was met.
    pub what: Sign,
}

/// A sign of life or death, met by a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// ICMP said that it is unreachable: proof of death.
    Unreachable,
    /// It was down and replied: proof of life.
    Replied,
    /// It let an attempt time out, which proves nothing.
    Silent,
    /// `every_queries` of them have come.
    ProbeDue,
}

#[cfg(test)]
mod tests {
    use super::*;

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
