//! Adding up what the workers count, for whoever scrapes, and giving operators the cache to look into.

use std::sync::Arc;

use super::Server;
use super::authorities::ServedAuthority;
use crate::admin::CacheAccess;
use crate::admin::status::{Status, ZoneStatus};
use crate::cache::CacheStats;
use crate::metrics::{CacheSnapshot, ProcessSnapshot, ProcessesSnapshot, Role, Snapshot};
use crate::state::ForwarderState;

impl Server {
    /// All counters of all workers, added up now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        let mut pools: Vec<_> = pools.map(|pool| pool.snapshot()).collect();
        self.show_members(&mut pools);
        Snapshot {
            uptime: self.started.elapsed(),
            workers: self.workers.len(),
            pools,
            registered: self.membership.registrations.registered(),
            cache: self.cache_snapshot(),
            limited: self.connections.limited(),
            reload: self.reloads.snapshot(),
            tasks_lost: self.tasks_lost,
            worker_replacements: self.workers.replaced(),
            processes: self.processes.clone().unwrap_or_else(|| self.alone()),
            verdict: self.seen.verdict_number(),
            expired_zones: self.expired_zones(),
            backend_series: self.backend_series,
            ..self.summary.snapshot()
        }
    }

    /// The status that these numbers make, with the zones.
    pub(super) fn status(&self, snapshot: &Snapshot) -> Status {
        let expired = self.expired_zones();
        let all = || self.authorities.iter().flat_map(ServedAuthority::all_zones);
        let (unserved, served): (Vec<_>, Vec<_>) = all().partition(|(_, zone, _)| !zone.is_served());
        let told = unserved.iter().chain(&served).take(ZoneStatus::MAX).map(|(authority, zone, is_ours)| {
            let (authority, name) = ((*authority).to_owned(), zone.apex().to_string());
            let has_expired = || expired.iter().any(|other| other.authority == authority && other.zone == name);
            let state = match (zone.is_served(), is_ours) {
                (_, true) => "primary",
                (true, false) => "served",
                (false, false) if has_expired() => "expired",
                (false, false) => "absent",
            };
            let serial = zone.is_served().then(|| zone.serial());
            ZoneStatus { authority, name, state: state.to_owned(), serial }
        });
        let zones: Vec<_> = told.collect();
        let more_zones = unserved.len() + served.len() - zones.len();
        Status { zones, more_zones, ..self.seen.status(snapshot) }
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
