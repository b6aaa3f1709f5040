//! Continues the counters of the previous process beside those of the workers.

use std::collections::HashMap;
use tokio::sync::oneshot;

use super::super::Server;
use crate::cache::CacheStats;
use crate::metrics::{AttemptCounts, BackendSnapshot, CacheSnapshot, PoolSnapshot, Snapshot};
use crate::state::SharedPool;

type Answer = oneshot::Sender<Snapshot>;

impl Server {
    /// Returns all current counters. [`Snapshot::since`] gives later changes.
    pub fn counted(&self) -> Snapshot {
        self.snapshot()
    }

    /// Returns all current counters for the next process. Later requests to this process get the same
    /// numbers, because counters would appear to fall when the next process is asked.
    pub fn hand_over_counted(&mut self) -> Snapshot {
        let counted = self.snapshot();
        self.admin.pass_on(&self.tasks);
        self.frozen = Some(counted.clone());
        counted
    }

    /// Answers a request for all counters, once the previous process has sent its own.
    pub(in crate::server) fn answer_snapshot(&mut self, answer: Answer) {
        match (&self.frozen, &mut self.uncounted) {
            (Some(frozen), _) => drop(answer.send(frozen.clone())),
            (None, Some(waiting)) => waiting.push(answer),
            (None, None) => drop(answer.send(self.snapshot())),
        }
    }

    pub(in crate::server) fn end_wait_for_counted(&mut self) {
        for answer in self.uncounted.take().into_iter().flatten() {
            let _ = answer.send(self.snapshot());
        }
    }

    /// Adds counters of the previous process: all of them first, then the difference at the end of its drain.
    pub fn add_counted(&mut self, counted: &Snapshot) {
        self.carried_counters.add(counted);
        for (listener, limit, times) in &counted.limited {
            self.connections.add_limited(listener, *limit, *times);
        }
        self.listeners.certificates().add_counted(&counted.certificates);
        if let Some(xdp) = &mut self.xdp {
            xdp.add_counted(&counted.xdp);
        }
        self.membership.add_counted(&counted.pools);
        self.reloads.add_counted(&counted.reload);
        self.tasks_lost += counted.tasks_lost;
        self.workers.add_replaced(counted.worker_replacements);
        self.add_to_state(counted);
        self.seen.carry(counted);
        self.end_wait_for_counted();
    }

    fn add_to_state(&self, counted: &Snapshot) {
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

fn add_to_pool(pool: &SharedPool, counted: &PoolSnapshot) {
    pool.state.carried.add(counted);
    let known: HashMap<_, _> =
        pool.backends.iter().map(|backend| ((&*backend.name, backend.address), backend)).collect();
    for counted in &counted.backends {
        let BackendSnapshot { name, address, attempts: AttemptCounts { probe, .. }, .. } = counted;
        if let Some(backend) = known.get(&(&**name, *address)) {
            backend.carry_to().add(counted);
            // Only this thread counts probes.
            backend.probes.add(*probe);
        }
    }
}
