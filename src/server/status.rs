//! Sums the counters of workers, and gives operators access to the cache.

use std::collections::HashSet;
use std::sync::Arc;

use super::authorities::ServedAuthority;
use super::{Server, Xdp};
use crate::admin::CacheAccess;
use crate::admin::status::{Status, ZoneStatus, ZonesReport};
use crate::cache::CacheStats;
use crate::metrics::{
    CacheSnapshot, ExpiredZone, PoolSnapshot, ProcessSnapshot, ProcessesSnapshot, Role, Snapshot, ZonesSnapshot,
};
use crate::state::ForwarderState;
use crate::zone::Zone;

impl Server {
    pub(super) fn snapshot(&self) -> Snapshot {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        let divergent = |pool| self.comparisons.count(pool) as u64;
        let mut pools: Vec<_> =
            pools.map(|pool| PoolSnapshot { divergent: divergent(pool), ..pool.snapshot() }).collect();
        self.show_members(&mut pools);
        let expired_zones = self.expired_zones();
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
            backend_series: self.backend_series,
            zones: self.zones_snapshot(&expired_zones),
            certificates: self.listeners.certificates().snapshot(),
            xdp: self.xdp.as_ref().map(Xdp::snapshot).unwrap_or_default(),
            catalogs: self.authorities.iter().flat_map(ServedAuthority::catalogs).collect(),
            expired_zones,
            ..self.summary.snapshot()
        }
    }

    pub(super) fn status(&self, snapshot: &Snapshot) -> Status {
        let expired = self.expired_names();
        let all = || self.authorities.iter().flat_map(|served| served.all_zones().map(move |zone| (served, zone)));
        let (unserved, served): (Vec<_>, Vec<_>) = all().partition(|(_, (_, zone, _))| !zone.is_served());
        let shown = unserved.iter().chain(&served).take(ZoneStatus::MAX);
        let shown = shown.map(|(served, (_, zone, is_ours))| zone_status(served, zone, *is_ours, &expired));
        let zones: Vec<_> = shown.collect();
        let more_zones = unserved.len() + served.len() - zones.len();
        Status { zones, more_zones, ..self.seen.status(snapshot) }
    }

    pub(super) fn zones_report(&self) -> ZonesReport {
        let expired = self.expired_names();
        let all = self.authorities.iter().flat_map(|served| served.all_zones().map(move |zone| (served, zone)));
        let zones = all.map(|(served, (_, zone, is_ours))| zone_status(served, zone, is_ours, &expired));
        let catalogs = self.authorities.iter().flat_map(ServedAuthority::catalogs);
        ZonesReport { zones: zones.collect(), catalogs: catalogs.collect() }
    }

    fn expired_names(&self) -> HashSet<(String, String)> {
        self.expired_zones().into_iter().map(|zone| (zone.authority, zone.zone)).collect()
    }

    fn zones_snapshot(&self, expired: &[ExpiredZone]) -> Vec<ZonesSnapshot> {
        let expired_of = |name: &str| expired.iter().filter(|zone| zone.authority == name).count() as u64;
        self.authorities.iter().map(|served| served.count_zones(expired_of(served.name()))).collect()
    }

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

    pub(super) fn cache_access(&self) -> Option<CacheAccess> {
        let ForwarderState { cache, cache_config, pools, .. } = &**self.state.as_ref()?;
        let kept = pools.iter().filter(|pool| pool.config.cache).map(|pool| (pool.id, pool.config.name.clone()));
        Some(CacheAccess {
            cache: Arc::clone(cache.as_ref()?),
            rules: cache_config.as_ref()?.rules.clone(),
            pools: kept.collect(),
        })
    }

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

fn zone_status(
    served: &ServedAuthority,
    zone: &Zone,
    is_ours: bool,
    expired: &HashSet<(String, String)>,
) -> ZoneStatus {
    let (authority, name) = (served.name().to_owned(), zone.apex().to_string());
    let place = (authority, name);
    let state = match (zone.is_served(), is_ours) {
        (_, true) => "primary",
        (true, false) => "served",
        (false, false) if expired.contains(&place) => "expired",
        (false, false) => "absent",
    };
    let serial = zone.is_served().then(|| zone.serial());
    let owned = served.catalog_of(zone.apex());
    let (authority, name) = place;
    ZoneStatus {
        authority,
        name,
        state: state.to_owned(),
        serial,
        catalog: owned.map(|owned| owned.catalog.to_string()),
        groups: owned.map(|owned| owned.member.groups.clone()).unwrap_or_default(),
    }
}
