//! Snapshots as text for Prometheus, with the names and labels of docs/src/contract.md, Metrics.
//!
//! `prometheus-client` writes OpenMetrics, where a counter's family lacks the `_total` of its samples. The
//! Prometheus text format is the same text, but its `HELP` and `TYPE` lines must name the sample.

mod backend_connections;

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use self::backend_connections::write_connections;
use super::connections;
use super::counters::{Cause, DIVERGENCES, FETCHED, Want};
use super::discovery::{DISCOVERY_COUNTERS, DiscoveryExposition};
use super::histogram::HistogramSnapshot;
use super::processes::{ProcessesSnapshot, Role, Takeover};
use super::snapshot::{
    BackendSnapshot, BackendState, CacheSnapshot, CatalogSnapshot, PoolSnapshot, ReloadSnapshot, Snapshot,
    ZonesSnapshot,
};
use super::usage::{USAGE_COUNTERS, Usage, UsageExposition};
use super::xdp;
use crate::wire::Rcode;

/// The text format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// The Prometheus text format of 2014.
    Prometheus,
    /// OpenMetrics, the successor.
    OpenMetrics,
}

impl ExpositionFormat {
    /// Returns the format for an `Accept` header.
    pub fn accepted_by(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Returns the media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes a snapshot and the resource usage of the process.
pub fn write(snapshot: Snapshot, usage: Usage, format: ExpositionFormat) -> String {
    let mut registry = Registry::default();
    let discovery = DiscoveryExposition {
        pools: snapshot.pools.iter().map(|pool| (pool.name.clone(), pool.sources.clone())).collect(),
        registered: snapshot.registered.clone(),
    };
    registry.register_collector(Box::new(Exposition(snapshot)));
    registry.register_collector(Box::new(discovery));
    registry.register_collector(Box::new(UsageExposition(usage)));
    let mut text = String::new();
    encode_registry(&mut text, &registry).expect("a string takes everything");
    match format {
        ExpositionFormat::OpenMetrics => encode_eof(&mut text).expect("a string takes everything"),
        ExpositionFormat::Prometheus => {
            for name in COUNTERS
                .iter()
                .map(|family| family.name)
                .chain(USAGE_COUNTERS)
                .chain(DISCOVERY_COUNTERS)
                .chain(connections::COUNTERS)
                .chain(backend_connections::COUNTERS)
                .chain(xdp::COUNTERS)
            {
                text = text.replacen(&format!("# HELP {name} "), &format!("# HELP {name}_total "), 1);
                text = text.replacen(&format!("# TYPE {name} "), &format!("# TYPE {name}_total "), 1);
            }
            text = text.replacen(connections::UNTYPED, connections::TYPED, 1);
            text = text.replacen(backend_connections::UNTYPED, backend_connections::TYPED, 1);
        }
    }
    text
}

#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

const QUERIES: Family = Family { name: "hedgerow_queries", help: "Client queries" };
const RESPONSES: Family = Family { name: "hedgerow_responses", help: "Responses to clients" };
const DROPPED: Family = Family { name: "hedgerow_dropped", help: "Messages and queries dropped" };
const COOKIES: Family = Family { name: "hedgerow_cookies", help: "Client queries with a DNS cookie" };
const TAP_RECORDS: Family =
    Family { name: "hedgerow_tap_records", help: "Records of the query log and of other taps, by result" };
const LIMITED: Family = Family { name: "hedgerow_limited", help: "Client messages or connections affected by a limit" };
const ATTEMPTS: Family = Family { name: "hedgerow_attempts", help: "Queries to backends" };
const ASKED_AGAIN: Family = Family {
    name: "hedgerow_asked_again",
    help: "Attempts repeated from another socket, because replies may be forged or a cookie was refused",
};
const WINS: Family = Family { name: "hedgerow_wins", help: "Attempts whose answer went to the client" };
const UNREACHABLE: Family =
    Family { name: "hedgerow_unreachable", help: "ICMP errors received for queries to the backend" };
const FAILED_ATTEMPTS: Family =
    Family { name: "hedgerow_failed_attempts", help: "Attempts that ended with a failure reply or a closed port" };
const LOST_ATTEMPTS: Family =
    Family { name: "hedgerow_backend_lost_attempts", help: "Attempts lost with their connection" };
const DECISIONS: Family =
    Family { name: "hedgerow_decisions", help: "Replies believed because of their extended error" };
const HEDGES_DENIED: Family =
    Family { name: "hedgerow_hedges_denied", help: "Hedges delayed or not sent because the budget was spent" };
const SLOW_RACES: Family = Family {
    name: "hedgerow_slow_races",
    help: "Races that were slow, or ended in SERVFAIL or without an answer from a backend",
};
const STALE_REPLIES: Family = Family {
    name: "hedgerow_stale_replies",
    help: "Negative replies ignored because another backend has a newer version of the zone",
};

const HEDGES_WASTED: Family =
    Family { name: "hedgerow_hedges_wasted", help: "Hedges whose reply did not go to the client" };
const FETCHES: Family = Family { name: "hedgerow_fetches", help: "Truncated answers to fetch by TCP, by result" };
const DIVERGENCE: Family =
    Family { name: "hedgerow_divergence", help: "Questions that replicas answered differently, by kind of difference" };
const IN_FLIGHT: Family = Family { name: "hedgerow_in_flight", help: "Pending client queries" };
const BACKEND_UP: Family =
    Family { name: "hedgerow_backend_up", help: "1 while the backend is up or draining, 0 while it is down or new" };
const POOL_BACKENDS: Family = Family { name: "hedgerow_pool_backends", help: "Backends of the pool, by state" };
const LATENCY: Family = Family { name: "hedgerow_backend_latency_seconds", help: "Time to a reply from a backend" };
const DURATION: Family =
    Family { name: "hedgerow_query_duration_seconds", help: "Time from a client's query to its response" };

const CACHE_SIZE: Family = Family { name: "hedgerow_cache_size_bytes", help: "Maximum size of the cache in bytes" };
const CACHE_ENTRIES: Family = Family { name: "hedgerow_cache_entries", help: "Entries of the cache" };
const CACHE_BYTES: Family = Family { name: "hedgerow_cache_bytes", help: "Bytes used by cache entries" };
const CACHE_HITS: Family =
    Family { name: "hedgerow_cache_hits", help: "Lookups that found a fresh answer or a failure" };
const CACHE_STALE_HITS: Family =
    Family { name: "hedgerow_cache_stale_hits", help: "Lookups that found a stale answer" };
const CACHE_FAILURE_HITS: Family =
    Family { name: "hedgerow_cache_failure_hits", help: "Cache hits that found a failure" };
const CACHE_MISSES: Family = Family { name: "hedgerow_cache_misses", help: "Lookups that found nothing" };
const CACHE_INSERTIONS: Family = Family { name: "hedgerow_cache_insertions", help: "Entries added or renewed" };
const CACHE_EVICTIONS: Family = Family { name: "hedgerow_cache_evictions", help: "Entries removed to make room" };
const CACHE_PREFETCHES: Family =
    Family { name: "hedgerow_cache_prefetches", help: "Races started to refresh an entry before it expires" };

const UNSENT: Family = Family {
    name: "hedgerow_unsent_attempts",
    help: "Attempts that could not be sent because of a local limit or error",
};

const EDITION: Family = Family { name: "hedgerow_config_edition", help: "Configs applied, the first included" };
const RELOAD_SUCCESSFUL: Family = Family {
    name: "hedgerow_config_last_reload_successful",
    help: "1 if the last reload succeeded or there was none, 0 if it failed",
};
const RELOAD_SUCCESS: Family = Family {
    name: "hedgerow_config_last_reload_success_timestamp_seconds",
    help: "Unix time at which the current config was applied",
};
const RELOADING: Family = Family { name: "hedgerow_reload_in_progress", help: "1 while a reload runs" };
const RELOADS: Family = Family { name: "hedgerow_reloads", help: "Finished reloads" };
const TASKS_LOST: Family = Family { name: "hedgerow_tasks_lost", help: "Tasks that panicked or ended early" };
const WORKER_REPLACEMENTS: Family =
    Family { name: "hedgerow_worker_replacements", help: "Workers replaced after the loss of a task" };
const TAKEOVERS: Family = Family { name: "hedgerow_takeovers", help: "Processes that took over serving, by reason" };
const SUCCESSIONS: Family = Family { name: "hedgerow_successions", help: "Standbys that replaced a dead supervisor" };
const EXPIRED_ZONES: Family =
    Family { name: "hedgerow_expired_zones", help: "Secondary zones that have expired, answered with SERVFAIL" };
const ZONES: Family = Family { name: "hedgerow_zones", help: "Zones, by authority and state" };
const CATALOG_MEMBERS: Family = Family { name: "hedgerow_catalog_members", help: "Zones configured by a catalog zone" };
const CATALOG_BROKEN: Family = Family {
    name: "hedgerow_catalog_broken",
    help: "1 while the last version of a catalog zone is broken or doubted, and so not applied",
};
const VERDICT: Family = Family { name: "hedgerow_verdict", help: "The verdict: 0 OK, 1 watch, 2 trouble" };
const PROCESSES: Family = Family { name: "hedgerow_processes", help: "Processes, by role" };

const COUNTERS: &[&Family] = &[
    &QUERIES,
    &RESPONSES,
    &DROPPED,
    &COOKIES,
    &TAP_RECORDS,
    &LIMITED,
    &ATTEMPTS,
    &ASKED_AGAIN,
    &WINS,
    &SLOW_RACES,
    &UNREACHABLE,
    &FAILED_ATTEMPTS,
    &LOST_ATTEMPTS,
    &DECISIONS,
    &HEDGES_DENIED,
    &HEDGES_WASTED,
    &STALE_REPLIES,
    &UNSENT,
    &FETCHES,
    &DIVERGENCE,
    &CACHE_HITS,
    &CACHE_STALE_HITS,
    &CACHE_FAILURE_HITS,
    &CACHE_MISSES,
    &CACHE_INSERTIONS,
    &CACHE_EVICTIONS,
    &CACHE_PREFETCHES,
    &RELOADS,
    &TASKS_LOST,
    &WORKER_REPLACEMENTS,
    &TAKEOVERS,
    &SUCCESSIONS,
];

#[derive(Debug)]
struct Exposition(Snapshot);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Snapshot {
            queries,
            explained,
            failures: _,
            absent_zones: _,
            responses,
            dropped,
            cookies,
            taps,
            limited,
            cache,
            pools,
            reload,
            tasks_lost,
            worker_replacements,
            processes,
            verdict,
            expired_zones,
            registered: _,
            backend_series,
            zones,
            catalogs,
            connections: of_clients,
            certificates,
            xdp: of_interfaces,
            uptime: _,
            workers: _,
        } = &self.0;
        let backends = |pools| backends(pools, backend_series.map_or(usize::MAX, usize::from));
        let encoder = &mut encoder;
        let queries = queries.iter().map(|&(by, n)| (by.label(), n)).chain([("admin", *explained)]);
        counter(encoder, &QUERIES, queries.map(|(by, n)| ([("transport", by)], n)))?;
        let rcodes: Vec<_> = responses.iter().map(|&(_, rcode, _)| Rcode(rcode).to_string()).collect();
        let responses = responses.iter().zip(&rcodes);
        counter(
            encoder,
            &RESPONSES,
            responses.map(|(&(source, _, n), rcode)| ([("rcode", rcode.as_str()), ("source", source.label())], n)),
        )?;
        counter(encoder, &DROPPED, dropped.iter().map(|&(reason, n)| ([("reason", reason.label())], n)))?;
        counter(encoder, &COOKIES, cookies.iter().map(|&(kind, n)| ([("cookie", kind.label())], n)))?;
        let records = taps.iter().map(|&((tap, fate), n)| ([("tap", tap.label()), ("fate", fate.label())], n));
        counter(encoder, &TAP_RECORDS, records)?;
        let limited = limited.iter().map(|(by, limit, n)| ([("listener", by.as_str()), ("limit", limit.label())], *n));
        counter(encoder, &LIMITED, limited)?;
        counter(
            encoder,
            &ATTEMPTS,
            backends(pools).flat_map(|(pool, backend)| {
                let n = backend.attempts;
                [("first", n.first), ("hedge", n.hedge), ("failover", n.failover), ("probe", n.probe)]
                    .map(|(kind, n)| (by_kind(pool, backend, kind), n))
            }),
        )?;
        counter(
            encoder,
            &ASKED_AGAIN,
            backends(pools).flat_map(|(pool, backend)| {
                let by_cause = |&(cause, n): &(Cause, u64)| {
                    ([("pool", pool.name.as_str()), ("backend", &backend.name), ("cause", cause.label())], n)
                };
                backend.again.iter().map(by_cause)
            }),
        )?;
        counter(
            encoder,
            &WINS,
            backends(pools).flat_map(|(pool, backend)| {
                let n = backend.wins;
                [("first", n.first), ("hedge", n.hedge), ("failover", n.failover)]
                    .map(|(kind, n)| (by_kind(pool, backend, kind), n))
            }),
        )?;
        let unreachable = backends(pools).map(|(pool, backend)| (by_backend(pool, backend), backend.unreachable));
        counter(encoder, &UNREACHABLE, unreachable)?;
        let failed = backends(pools).map(|(pool, backend)| (by_backend(pool, backend), backend.errors));
        counter(encoder, &FAILED_ATTEMPTS, failed)?;
        let lost = backends(pools).map(|(pool, backend)| (by_backend(pool, backend), backend.lost_attempts));
        counter(encoder, &LOST_ATTEMPTS, lost)?;
        let decisions = backends(pools).map(|(pool, backend)| (by_backend(pool, backend), backend.decisions));
        counter(encoder, &DECISIONS, decisions)?;
        counter(encoder, &HEDGES_DENIED, pools.iter().map(|pool| (by_pool(pool), pool.hedges_denied)))?;
        counter(encoder, &SLOW_RACES, pools.iter().map(|pool| (by_pool(pool), pool.slow_races)))?;
        counter(encoder, &HEDGES_WASTED, pools.iter().map(|pool| (by_pool(pool), pool.hedges_wasted)))?;
        counter(encoder, &STALE_REPLIES, pools.iter().map(|pool| (by_pool(pool), pool.stale_replies)))?;
        counter(
            encoder,
            &UNSENT,
            backends(pools).flat_map(|(pool, backend)| {
                let by_cause = |&(want, n): &(Want, u64)| {
                    ([("pool", pool.name.as_str()), ("backend", &backend.name), ("cause", want.label())], n)
                };
                backend.unsent.iter().map(by_cause)
            }),
        )?;
        let fetches = pools.iter().flat_map(|pool| {
            FETCHED
                .iter()
                .zip(pool.fetches)
                .map(|(result, count)| ([("pool", pool.name.as_str()), ("result", result.label())], count))
        });
        counter(encoder, &FETCHES, fetches)?;
        let divergences = pools.iter().flat_map(|pool| {
            let by_kind = |(kind, count)| ([("pool", pool.name.as_str()), ("kind", kind)], count);
            DIVERGENCES.into_iter().zip(pool.divergences).map(by_kind)
        });
        counter(encoder, &DIVERGENCE, divergences)?;
        gauge(encoder, &IN_FLIGHT, pools.iter().map(|pool| (by_pool(pool), pool.in_flight)))?;
        let states = backends(pools).map(|(pool, backend)| (by_backend(pool, backend), backend.state.is_up().into()));
        gauge(encoder, &BACKEND_UP, states)?;
        let by_state = pools.iter().flat_map(|pool| {
            BackendState::ALL.map(|state| {
                let count = pool.backends.iter().filter(|backend| backend.state == state).count();
                ([("pool", pool.name.as_str()), ("state", state.label())], count as u64)
            })
        });
        gauge(encoder, &POOL_BACKENDS, by_state)?;
        let latencies = backends(pools).map(|(pool, backend)| (by_backend(pool, backend), &backend.latency));
        histogram(encoder, &LATENCY, latencies)?;
        write_connections(encoder, pools, backend_series.map_or(usize::MAX, usize::from))?;
        histogram(encoder, &DURATION, pools.iter().map(|pool| (by_pool(pool), &pool.duration)))?;
        cache.iter().try_for_each(|cache| write_cache(encoder, cache, pools))?;
        write_reload(encoder, reload)?;
        plain_counter(encoder, &TASKS_LOST, *tasks_lost)?;
        plain_counter(encoder, &WORKER_REPLACEMENTS, *worker_replacements)?;
        encoder
            .encode_descriptor(EXPIRED_ZONES.name, EXPIRED_ZONES.help, None, MetricType::Gauge)?
            .encode_gauge(&(expired_zones.len() as u64))?;
        write_zones(encoder, zones, catalogs)?;
        connections::write(encoder, of_clients, certificates)?;
        xdp::write(encoder, of_interfaces)?;
        if let Some(verdict) = verdict {
            encoder.encode_descriptor(VERDICT.name, VERDICT.help, None, MetricType::Gauge)?.encode_gauge(verdict)?;
        }
        write_processes(encoder, processes)
    }
}

fn write_zones(
    encoder: &mut DescriptorEncoder<'_>,
    zones: &[ZonesSnapshot],
    catalogs: &[CatalogSnapshot],
) -> fmt::Result {
    let by_state = |zones: &ZonesSnapshot| {
        let ZonesSnapshot { primary, served, absent, expired, .. } = *zones;
        [("primary", primary), ("served", served), ("absent", absent), ("expired", expired)]
    };
    gauge(
        encoder,
        &ZONES,
        zones.iter().flat_map(|zones| {
            let authority = zones.authority.as_str();
            by_state(zones).map(|(state, n)| ([("authority", authority), ("state", state)], n))
        }),
    )?;
    gauge(encoder, &CATALOG_MEMBERS, catalogs.iter().map(|known| (by_catalog(known), known.members)))?;
    gauge(encoder, &CATALOG_BROKEN, catalogs.iter().map(|known| (by_catalog(known), known.is_broken().into())))
}

fn by_catalog(known: &CatalogSnapshot) -> [(&'static str, &str); 2] {
    [("authority", &known.authority), ("catalog", &known.catalog)]
}

fn write_processes(encoder: &mut DescriptorEncoder<'_>, processes: &ProcessesSnapshot) -> fmt::Result {
    let takeovers = Takeover::ALL.iter().zip(processes.takeovers);
    counter(encoder, &TAKEOVERS, takeovers.map(|(reason, n)| ([("reason", reason.label())], n)))?;
    let successions = processes.supervisor.as_ref().map_or(0, |supervisor| supervisor.successions);
    plain_counter(encoder, &SUCCESSIONS, successions)?;
    gauge(encoder, &PROCESSES, Role::ALL.iter().map(|role| ([("role", role.label())], processes.count(*role))))
}

fn write_reload(encoder: &mut DescriptorEncoder<'_>, reload: &ReloadSnapshot) -> fmt::Result {
    let is_successful = reload.last.as_ref().is_none_or(|last| last.error.is_none());
    let since = reload.in_force_since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for (family, value) in [
        (&EDITION, reload.edition),
        (&RELOAD_SUCCESSFUL, is_successful.into()),
        (&RELOAD_SUCCESS, since.as_secs()),
        (&RELOADING, reload.running.is_some().into()),
    ] {
        encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    let results = [("ok", reload.succeeded), ("failed", reload.failed)];
    counter(encoder, &RELOADS, results.into_iter().map(|(result, n)| ([("result", result)], n)))
}

fn write_cache(encoder: &mut DescriptorEncoder<'_>, cache: &CacheSnapshot, pools: &[PoolSnapshot]) -> fmt::Result {
    let &CacheSnapshot { size, entries, bytes, hits, stale_hits, failure_hits, misses, insertions, evictions } = cache;
    for (family, value) in [(&CACHE_SIZE, size), (&CACHE_ENTRIES, entries), (&CACHE_BYTES, bytes)] {
        encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?.encode_gauge(&value)?;
    }
    for (family, value) in [
        (&CACHE_HITS, hits),
        (&CACHE_STALE_HITS, stale_hits),
        (&CACHE_FAILURE_HITS, failure_hits),
        (&CACHE_MISSES, misses),
        (&CACHE_INSERTIONS, insertions),
        (&CACHE_EVICTIONS, evictions),
    ] {
        plain_counter(encoder, family, value)?;
    }
    counter(encoder, &CACHE_PREFETCHES, pools.iter().map(|pool| (by_pool(pool), pool.prefetches)))
}

fn backends(pools: &[PoolSnapshot], most: usize) -> impl Iterator<Item = (&PoolSnapshot, &BackendSnapshot)> {
    let pools = pools.iter().filter(move |pool| pool.backends.len() <= most);
    pools.flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
}

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

fn by_pool(pool: &PoolSnapshot) -> Labels<'_, 1> {
    [("pool", &pool.name)]
}

fn by_backend<'a>(pool: &'a PoolSnapshot, backend: &'a BackendSnapshot) -> Labels<'a, 2> {
    [("pool", &pool.name), ("backend", &backend.name)]
}

fn by_kind<'a>(pool: &'a PoolSnapshot, backend: &'a BackendSnapshot, kind: &'static str) -> Labels<'a, 3> {
    [("pool", &pool.name), ("backend", &backend.name), ("kind", kind)]
}

fn plain_counter(encoder: &mut DescriptorEncoder<'_>, family: &Family, value: u64) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

pub(super) fn counter<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl Iterator<Item = (Labels<'a, N>, u64)>,
) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
    }
    Ok(())
}

pub(super) fn gauge<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl Iterator<Item = (Labels<'a, N>, u64)>,
) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        encoder.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

fn histogram<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    family: &Family,
    samples: impl Iterator<Item = (Labels<'a, N>, &'a HistogramSnapshot)>,
) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Histogram)?;
    for (labels, value) in samples {
        let mut below = 0;
        let mut buckets = BOUNDS.map(|micros| {
            let at_most = value.at_most(Duration::from_micros(micros));
            let between = at_most - below;
            below = at_most;
            (micros as f64 / 1e6, between)
        });
        let count = value.count();
        let buckets = [buckets.as_mut_slice(), &mut [(f64::INFINITY, count - below)]].concat();
        let sum = value.sum().as_secs_f64();
        encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

/// Upper bounds in µs, 100 µs to 10 s. Fixed, because series with different bounds cannot be added up.
const BOUNDS: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

#[cfg(test)]
mod tests;
