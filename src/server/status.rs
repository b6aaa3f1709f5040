//! Adding up what the workers count, for whoever scrapes, and giving operators the cache to look into.

use std::sync::Arc;

use super::Server;
use crate::admin::CacheAccess;
use crate::cache::CacheStats;
use crate::metrics::{
    Attempts, BackendCounters, BackendSnapshot, CacheSnapshot, Cause, Counter, FETCHED, HistogramSnapshot,
    PoolSnapshot, ProcessSnapshot, ProcessesSnapshot, Role, Snapshot, Want, Wins,
};
use crate::state::{ForwarderState, ManualHealth, SharedBackend, SharedPool};

impl Server {
    /// All counters of all workers, added up now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        Snapshot {
            uptime: self.started.elapsed(),
            workers: self.workers.len(),
            pools: pools.map(|pool| pool_snapshot(pool)).collect(),
            cache: self.cache_snapshot(),
            limited: self.connections.limited(),
            reload: self.reloads.snapshot(),
            tasks_lost: self.tasks_lost,
            worker_replacements: self.workers.replaced(),
            processes: self.processes.clone().unwrap_or_else(|| self.alone()),
            ..self.summary.snapshot()
        }
    }

    /// The processes, where this is all there are.
    fn alone(&self) -> ProcessesSnapshot {
        let process = ProcessSnapshot {
            pid: std::process::id(),
            role: if self.is_ending { Role::Draining } else { Role::Server },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            edition: self.reloads.snapshot().edition,
            since: self.started_at,
            problem: None,
        };
        ProcessesSnapshot { processes: vec![process], ..ProcessesSnapshot::default() }
    }

    /// The cache with what is needed to read its entries.
    pub(super) fn cache_access(&self) -> Option<CacheAccess> {
        let ForwarderState { cache, cache_config, pools, .. } = &**self.state.as_ref()?;
        let kept = pools.iter().filter(|pool| pool.config.cache).map(|pool| (pool.id, pool.config.name.clone()));
        Some(CacheAccess {
            cache: Arc::clone(cache.as_ref()?),
            rules: cache_config.as_ref()?.rules.clone(),
            pools: kept.collect(),
        })
    }

    /// What is known of the cache.
    fn cache_snapshot(&self) -> Option<CacheSnapshot> {
        let ForwarderState { cache, cache_config, .. } = &**self.state.as_ref()?;
        let CacheStats { entries, bytes, hits, stale_hits, failure_hits, misses, insertions, evictions } =
            cache.as_ref()?.stats();
        Some(CacheSnapshot {
            size: cache_config.as_ref()?.size as u64,
            entries,
            bytes,
            hits,
            stale_hits,
            failure_hits,
            misses,
            insertions,
            evictions,
        })
    }
}

/// What is known of a pool.
fn pool_snapshot(pool: &SharedPool) -> PoolSnapshot {
    let counters = || pool.state.counters.iter().chain([&*pool.state.carried]);
    let mut duration = HistogramSnapshot::default();
    counters().for_each(|worker| duration.add(&worker.duration));
    PoolSnapshot {
        name: pool.config.name.clone(),
        in_flight: counters().map(|worker| worker.in_flight.get()).sum(),
        duration,
        hedges_denied: counters().map(|worker| worker.hedges_denied.get()).sum(),
        fetches: FETCHED.map(|result| counters().map(|worker| worker.fetches[result as usize].get()).sum()),
        prefetches: counters().map(|worker| worker.prefetches.get()).sum(),
        hedges_wasted: counters().map(|worker| worker.hedges_wasted.get()).sum(),
        backends: pool
            .backends
            .iter()
            .zip(&pool.config.backends)
            .map(|(backend, config)| backend_snapshot(backend, config.weight))
            .collect(),
    }
}

/// What is known of a backend.
fn backend_snapshot(backend: &SharedBackend, weight: u16) -> BackendSnapshot {
    let counters = || backend.counters.iter().chain([&*backend.carried]);
    let sum =
        |counter: &dyn Fn(&BackendCounters) -> &Counter| counters().map(|worker| counter(worker).get()).sum::<u64>();
    let mut latency = HistogramSnapshot::default();
    counters().for_each(|worker| latency.add(&worker.latency));
    BackendSnapshot {
        name: backend.name.clone(),
        address: backend.address,
        weight,
        state: backend.state(),
        by_hand: backend.manual() != ManualHealth::Auto,
        since: backend.since(),
        in_flight: sum(&|worker| &worker.in_flight),
        attempts: Attempts {
            first: sum(&|worker| &worker.attempts[0]),
            hedge: sum(&|worker| &worker.attempts[1]),
            failover: sum(&|worker| &worker.attempts[2]),
            probe: backend.probes.get(),
        },
        wins: Wins {
            first: sum(&|worker| &worker.wins[0]),
            hedge: sum(&|worker| &worker.wins[1]),
            failover: sum(&|worker| &worker.wins[2]),
        },
        errors: sum(&|worker| &worker.errors),
        unreachable: sum(&|worker| &worker.unreachable) + backend.unreachable_probes.get(),
        again: Cause::ALL.map(|cause| (cause, sum(&|worker| &worker.again[cause as usize]))).to_vec(),
        timeouts: sum(&|worker| &worker.timeouts),
        unsent: Want::ALL.map(|want| (want, sum(&|worker| &worker.unsent[want as usize]))).to_vec(),
        latency,
    }
}
