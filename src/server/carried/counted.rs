//! Counters that go on: those of the process before stand beside those of the workers.

use super::super::Server;
use crate::cache::CacheStats;
use crate::metrics::{Attempts, BackendSnapshot, CacheSnapshot, PoolSnapshot, Snapshot};
use crate::state::SharedPool;

impl Server {
    /// All counters as of now. What is counted later, by a drain say, is told by [`Snapshot::since`].
    pub fn counted(&self) -> Snapshot {
        self.snapshot()
    }

    /// Adds what the process before has counted: all of it first, then what it counts while it drains.
    pub fn add_counted(&mut self, counted: &Snapshot) {
        self.carried_counters.add(counted);
        for (listener, limit, times) in &counted.limited {
            self.connections.add_limited(listener, *limit, *times);
        }
        self.reloads.add_counted(&counted.reload);
        self.tasks_lost += counted.tasks_lost;
        self.workers.add_replaced(counted.worker_replacements);
        let Some(state) = &self.state else { return };
        if let (Some(cache), Some(counted)) = (&state.cache, &counted.cache) {
            let &CacheSnapshot { hits, stale_hits, failure_hits, misses, insertions, evictions, .. } = counted;
            let (entries, bytes) = (0, 0);
            let stats = CacheStats { entries, bytes, hits, failure_hits, stale_hits, misses, insertions, evictions };
            cache.add_counts(stats);
        }
        for counted in &counted.pools {
            if let Some(pool) = state.pool(&counted.name) {
                add_to_pool(pool, counted);
            }
        }
    }
}

/// Adds what was counted of a pool.
fn add_to_pool(pool: &SharedPool, counted: &PoolSnapshot) {
    pool.state.carried.add(counted);
    for counted in &counted.backends {
        let BackendSnapshot { name, address, attempts: Attempts { probe, .. }, .. } = counted;
        let backend = pool.backends.iter().find(|backend| backend.name == *name && backend.address == *address);
        if let Some(backend) = backend {
            backend.carried.add(counted);
            // This thread alone counts probes.
            backend.probes.add(*probe);
        }
    }
}
