//! Adding up what the workers count, for whoever scrapes, and giving operators the cache to look into.

use std::sync::Arc;

use super::Server;
use crate::admin::CacheAccess;
use crate::cache::CacheStats;
use crate::metrics::{CacheSnapshot, ProcessSnapshot, ProcessesSnapshot, Role, Snapshot};
use crate::state::ForwarderState;

impl Server {
    /// All counters of all workers, added up now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        Snapshot {
            uptime: self.started.elapsed(),
            workers: self.workers.len(),
            pools: pools.map(|pool| pool.snapshot()).collect(),
            cache: self.cache_snapshot(),
            limited: self.connections.limited(),
            reload: self.reloads.snapshot(),
            tasks_lost: self.tasks_lost,
            worker_replacements: self.workers.replaced(),
            processes: self.processes.clone().unwrap_or_else(|| self.alone()),
            verdict: self.seen.verdict_number(),
            expired_zones: self.expired_zones(),
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
