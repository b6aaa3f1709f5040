//! The state that operators see: sums the counters of workers, and reports zones, replicas and the cache.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::authorities::ServedAuthority;
use super::{Server, Xdp};
use crate::admin::status::{Status, ZoneStatus, ZonesReport};
use crate::admin::{CacheAccess, CertificateSnapshot, ChangeRefusal, ServerView};
use crate::cache::CacheStats;
use crate::metrics::{
    CacheSnapshot, ExpiredZone, PoolSnapshot, ProcessSnapshot, ProcessesSnapshot, Role, Snapshot, ZonesSnapshot,
};
use crate::replicas;
use crate::sight::divergence::Divergences;
use crate::sight::live::{HistoryFigures, Second, Span};
use crate::sight::names::TopNames;
use crate::sight::serials::Serials;
use crate::sight::slow::SlowRaces;
use crate::state::{ForwarderState, SharedPool};
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

    fn pools_meant(&self, name: Option<&str>) -> Result<Vec<&Arc<SharedPool>>, ChangeRefusal> {
        let pools = self.state.as_ref().map_or(&[][..], |state| &state.pools);
        let meant: Vec<_> = pools.iter().filter(|pool| name.is_none_or(|name| pool.config.name == name)).collect();
        match name {
            Some(name) if meant.is_empty() => {
                Err(ChangeRefusal::no_such("pool", name, pools.iter().map(|pool| &*pool.config.name)))
            }
            Some(_) | None => Ok(meant),
        }
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

impl ServerView for Server {
    fn status(&self, snapshot: &Snapshot) -> Status {
        let expired = self.expired_names();
        let all = || self.authorities.iter().flat_map(|served| served.all_zones().map(move |zone| (served, zone)));
        let (unserved, served): (Vec<_>, Vec<_>) = all().partition(|(_, (_, zone, _))| !zone.is_served());
        let shown = unserved.iter().chain(&served).take(ZoneStatus::MAX);
        let shown = shown.map(|(served, (_, zone, is_ours))| zone_status(served, zone, *is_ours, &expired));
        let zones: Vec<_> = shown.collect();
        let more_zones = unserved.len() + served.len() - zones.len();
        Status { zones, more_zones, ..self.seen.status(snapshot) }
    }

    fn zones(&self) -> ZonesReport {
        let expired = self.expired_names();
        let all = self.authorities.iter().flat_map(|served| served.all_zones().map(move |zone| (served, zone)));
        let zones = all.map(|(served, (_, zone, is_ours))| zone_status(served, zone, is_ours, &expired));
        let catalogs = self.authorities.iter().flat_map(ServedAuthority::catalogs);
        ZonesReport { zones: zones.collect(), catalogs: catalogs.collect() }
    }

    fn cache(&self) -> Option<CacheAccess> {
        let ForwarderState { cache, cache_config, pools, .. } = &**self.state.as_ref()?;
        let kept = pools.iter().filter(|pool| pool.config.cache).map(|pool| (pool.id, pool.config.name.clone()));
        Some(CacheAccess {
            cache: Arc::clone(cache.as_ref()?),
            rules: cache_config.as_ref()?.rules.clone(),
            pools: kept.collect(),
        })
    }

    fn second(&self) -> Option<Second> {
        self.seen.sight().map(|sight| sight.latest().clone())
    }

    fn history(&self, span: Span) -> Option<HistoryFigures> {
        self.seen.sight().map(|sight| sight.history().show(span, &self.snapshot()))
    }

    fn slow_races(&self) -> Option<Arc<Mutex<SlowRaces>>> {
        self.taps.slow_races()
    }

    fn top_names(&self) -> Option<Arc<Mutex<TopNames>>> {
        self.taps.top_names()
    }

    fn serials(&self, pool: Option<&str>) -> Result<Serials, ChangeRefusal> {
        Ok(replicas::show_serials(self.pools_meant(pool)?.into_iter()))
    }

    fn divergences(&self, pool: Option<&str>) -> Result<Divergences, ChangeRefusal> {
        Ok(self.comparisons.show(self.pools_meant(pool)?.into_iter()))
    }

    fn certificates(&self) -> Vec<CertificateSnapshot> {
        self.listeners.certificates().snapshot()
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
