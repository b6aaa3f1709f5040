//! A snapshot as text for Prometheus, with the names and labels of docs/src/contract.md, Metrics.
//!
//! `prometheus-client` writes OpenMetrics, where the family of a counter has no `_total` but its samples do. Samples so have
//! the contract's names in either form, and who asks for OpenMetrics gets that. Everybody else gets the Prometheus text
//! format, in which `HELP` and `TYPE` must name the sample itself: the same text with those two lines corrected.

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

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What every Prometheus has read since 2014.
    Prometheus,
    /// Its successor.
    OpenMetrics,
}

impl Format {
    /// The one that suits an `Accept` header.
    pub fn accepted_by(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes a snapshot down, and what the process takes of the machine.
pub fn write(snapshot: Snapshot, usage: Usage, format: Format) -> String {
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
        Format::OpenMetrics => encode_eof(&mut text).expect("a string takes everything"),
        Format::Prometheus => {
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

/// A metric with all its label sets.
#[derive(Debug)]
pub(super) struct Family {
    /// Without the `_total` of counters.
    pub(super) name: &'static str,
    /// For people.
    pub(super) help: &'static str,
}

/// `hedgerow_queries_total`.
const QUERIES: Family = Family { name: "hedgerow_queries", help: "Client queries taken" };
/// `hedgerow_responses_total`.
const RESPONSES: Family = Family { name: "hedgerow_responses", help: "Responses to clients" };
/// `hedgerow_dropped_total`.
const DROPPED: Family = Family { name: "hedgerow_dropped", help: "Messages and queries dropped" };
/// `hedgerow_cookies_total`.
const COOKIES: Family = Family { name: "hedgerow_cookies", help: "Client queries with a DNS cookie" };
/// `hedgerow_tap_records_total`.
const TAP_RECORDS: Family =
    Family { name: "hedgerow_tap_records", help: "Records of the query log and of other taps, by what became of them" };
/// `hedgerow_limited_total`.
const LIMITED: Family = Family { name: "hedgerow_limited", help: "What clients were not given because of a limit" };
/// `hedgerow_attempts_total`.
const ATTEMPTS: Family = Family { name: "hedgerow_attempts", help: "Queries to backends" };
/// `hedgerow_asked_again_total`.
const ASKED_AGAIN: Family = Family {
    name: "hedgerow_asked_again",
    help: "Attempts that were asked again, from another socket, since replies may have been forged or cookies were refused",
};
/// `hedgerow_wins_total`.
const WINS: Family = Family { name: "hedgerow_wins", help: "Attempts whose answer went to the client" };
/// `hedgerow_unreachable_total`.
const UNREACHABLE: Family =
    Family { name: "hedgerow_unreachable", help: "ICMP errors heard from the way to the backend" };
/// `hedgerow_failed_attempts_total`.
const FAILED_ATTEMPTS: Family =
    Family { name: "hedgerow_failed_attempts", help: "Attempts that ended by a failure reply or a closed port" };
/// `hedgerow_backend_lost_attempts_total`.
const LOST_ATTEMPTS: Family =
    Family { name: "hedgerow_backend_lost_attempts", help: "Attempts that were lost with their connection" };
/// `hedgerow_decisions_total`.
const DECISIONS: Family =
    Family { name: "hedgerow_decisions", help: "Replies that were believed by their extended error" };
/// `hedgerow_hedges_denied_total`.
const HEDGES_DENIED: Family =
    Family { name: "hedgerow_hedges_denied", help: "Hedges not made because the budget was spent" };
/// `hedgerow_slow_races_total`.
const SLOW_RACES: Family =
    Family { name: "hedgerow_slow_races", help: "Races that were slow or came to no answer of a backend" };
/// `hedgerow_stale_replies_total`.
const STALE_REPLIES: Family = Family {
    name: "hedgerow_stale_replies",
    help: "Negative replies that were not believed, since another backend had a newer version of the zone",
};

/// `hedgerow_hedges_wasted_total`.
const HEDGES_WASTED: Family =
    Family { name: "hedgerow_hedges_wasted", help: "Hedges made whose reply did not go to the client" };
/// `hedgerow_fetches_total`.
const FETCHES: Family =
    Family { name: "hedgerow_fetches", help: "Whole answers that were to be fetched by TCP, by what became of that" };
/// `hedgerow_divergence_total`.
const DIVERGENCE: Family =
    Family { name: "hedgerow_divergence", help: "Questions that members were found to answer differently, by how" };
const IN_FLIGHT: Family = Family { name: "hedgerow_in_flight", help: "Client queries that wait for their response" };
const BACKEND_UP: Family = Family { name: "hedgerow_backend_up", help: "Whether the backend is up" };
/// `hedgerow_pool_backends`.
const POOL_BACKENDS: Family = Family { name: "hedgerow_pool_backends", help: "Backends of the pool, by state" };
const LATENCY: Family = Family { name: "hedgerow_backend_latency_seconds", help: "Time to a backend's reply" };
/// `hedgerow_query_duration_seconds`.
const DURATION: Family =
    Family { name: "hedgerow_query_duration_seconds", help: "Time from a client's query to its response" };

const CACHE_SIZE: Family = Family { name: "hedgerow_cache_size_bytes", help: "Octets that the cache may take" };
const CACHE_ENTRIES: Family = Family { name: "hedgerow_cache_entries", help: "Entries of the cache" };
const CACHE_BYTES: Family = Family { name: "hedgerow_cache_bytes", help: "Octets that the entries take" };
/// `hedgerow_cache_hits_total`.
const CACHE_HITS: Family =
    Family { name: "hedgerow_cache_hits", help: "Look-ups that found a fresh answer or a failure" };
/// `hedgerow_cache_stale_hits_total`.
const CACHE_STALE_HITS: Family =
    Family { name: "hedgerow_cache_stale_hits", help: "Look-ups that found a stale answer" };
/// `hedgerow_cache_failure_hits_total`.
const CACHE_FAILURE_HITS: Family =
    Family { name: "hedgerow_cache_failure_hits", help: "Hits that found a failure, a part of all hits" };
/// `hedgerow_cache_misses_total`.
const CACHE_MISSES: Family = Family { name: "hedgerow_cache_misses", help: "Look-ups that found nothing" };
/// `hedgerow_cache_insertions_total`.
const CACHE_INSERTIONS: Family =
    Family { name: "hedgerow_cache_insertions", help: "Entries that were made or renewed" };
/// `hedgerow_cache_evictions_total`.
const CACHE_EVICTIONS: Family =
    Family { name: "hedgerow_cache_evictions", help: "Entries that had to go to make room" };
/// `hedgerow_cache_prefetches_total`.
const CACHE_PREFETCHES: Family =
    Family { name: "hedgerow_cache_prefetches", help: "Races started to refresh an entry before it ran out" };

/// `hedgerow_unsent_attempts_total`.
const UNSENT: Family = Family {
    name: "hedgerow_unsent_attempts",
    help: "Attempts that could not leave for want of something of our own, or because too many were out",
};

/// `hedgerow_config_edition`.
const EDITION: Family =
    Family { name: "hedgerow_config_edition", help: "Configs that have been in force, that of the start included" };
/// `hedgerow_config_last_reload_successful`.
const RELOAD_SUCCESSFUL: Family = Family {
    name: "hedgerow_config_last_reload_successful",
    help: "Whether the last reload is in force; 1 if there was none",
};
/// `hedgerow_config_last_reload_success_timestamp_seconds`.
const RELOAD_SUCCESS: Family = Family {
    name: "hedgerow_config_last_reload_success_timestamp_seconds",
    help: "When the config in force was read, by a reload or at the start",
};
const RELOADING: Family = Family { name: "hedgerow_reload_in_progress", help: "Whether a reload runs" };
/// `hedgerow_reloads_total`.
const RELOADS: Family = Family { name: "hedgerow_reloads", help: "Reloads that are over" };
/// `hedgerow_tasks_lost_total`.
const TASKS_LOST: Family = Family { name: "hedgerow_tasks_lost", help: "Tasks that have panicked or ended too early" };
/// `hedgerow_worker_replacements_total`.
const WORKER_REPLACEMENTS: Family = Family {
    name: "hedgerow_worker_replacements",
    help: "Workers that were replaced since one of their tasks was lost",
};
/// `hedgerow_takeovers_total`.
const TAKEOVERS: Family =
    Family { name: "hedgerow_takeovers", help: "Processes that have begun to serve in the place of another" };
/// `hedgerow_successions_total`.
const SUCCESSIONS: Family =
    Family { name: "hedgerow_successions", help: "Standbys that have succeeded a supervisor that died" };
/// `hedgerow_expired_zones`.
const EXPIRED_ZONES: Family = Family {
    name: "hedgerow_expired_zones",
    help: "Zones of other servers that could not be confirmed for too long, and are answered with SERVFAIL",
};
/// `hedgerow_zones`.
const ZONES: Family = Family { name: "hedgerow_zones", help: "Zones, by authority and what they are" };
/// `hedgerow_catalog_members`.
const CATALOG_MEMBERS: Family =
    Family { name: "hedgerow_catalog_members", help: "Zones that are had by the word of a catalog zone" };
/// `hedgerow_catalog_broken`.
const CATALOG_BROKEN: Family = Family {
    name: "hedgerow_catalog_broken",
    help: "Whether the last version of a catalog zone is broken or doubted, and so not in force",
};
/// `hedgerow_verdict`.
const VERDICT: Family = Family { name: "hedgerow_verdict", help: "Whether all is well: 0 well, 1 watch, 2 trouble" };
const PROCESSES: Family = Family { name: "hedgerow_processes", help: "Processes, by what they are" };

/// The families whose samples end in `_total`.
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

/// The snapshot as a source of metrics.
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

/// Writes which zones there are, and how catalogs stand.
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

/// The labels of a catalog.
fn by_catalog(known: &CatalogSnapshot) -> [(&'static str, &str); 2] {
    [("authority", &known.authority), ("catalog", &known.catalog)]
}

/// Writes which processes there are, and how often one has taken over from another.
fn write_processes(encoder: &mut DescriptorEncoder<'_>, processes: &ProcessesSnapshot) -> fmt::Result {
    let takeovers = Takeover::ALL.iter().zip(processes.takeovers);
    counter(encoder, &TAKEOVERS, takeovers.map(|(reason, n)| ([("reason", reason.label())], n)))?;
    let successions = processes.supervisor.as_ref().map_or(0, |supervisor| supervisor.successions);
    plain_counter(encoder, &SUCCESSIONS, successions)?;
    gauge(encoder, &PROCESSES, Role::ALL.iter().map(|role| ([("role", role.label())], processes.count(*role))))
}

/// Writes what came of reading the config again.
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

/// Writes what is known of the cache.
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

/// The backends of pools that have no more than so many.
fn backends(pools: &[PoolSnapshot], most: usize) -> impl Iterator<Item = (&PoolSnapshot, &BackendSnapshot)> {
    let pools = pools.iter().filter(move |pool| pool.backends.len() <= most);
    pools.flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
}

/// So many labels and their values.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// The labels of what a pool has.
fn by_pool(pool: &PoolSnapshot) -> Labels<'_, 1> {
    [("pool", &pool.name)]
}

/// The labels of what a backend has.
fn by_backend<'a>(pool: &'a PoolSnapshot, backend: &'a BackendSnapshot) -> Labels<'a, 2> {
    [("pool", &pool.name), ("backend", &backend.name)]
}

/// The labels of what a backend has by kind of attempt.
fn by_kind<'a>(pool: &'a PoolSnapshot, backend: &'a BackendSnapshot, kind: &'static str) -> Labels<'a, 3> {
    [("pool", &pool.name), ("backend", &backend.name), ("kind", kind)]
}

/// Writes a counter without labels.
fn plain_counter(encoder: &mut DescriptorEncoder<'_>, family: &Family, value: u64) -> fmt::Result {
    let mut encoder = encoder.encode_descriptor(family.name, family.help, None, MetricType::Counter)?;
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

/// Writes a counter.
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

/// Writes a gauge.
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

/// Writes a histogram, by the bounds of [`BOUNDS`].
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

/// Upper bounds of what Prometheus sees, in µs: 100 µs to 10 s in steps of 1, 2, 5. Fixed, because series whose bounds differ
/// cannot be added up. How they are counted: [`HistogramSnapshot::at_most`].
const BOUNDS: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];

#[cfg(test)]
mod tests;
