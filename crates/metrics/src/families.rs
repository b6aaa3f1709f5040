//! The table of all metrics: name, kind, help, and the samples as read from a snapshot.
//!
//! A new metric is a row here, beside its place of counting.

use std::iter::zip;
use std::time::UNIX_EPOCH;

use FamilyKind::{Counter, CounterBesideGauge, Gauge, Histogram};
use dns::{Rcode, Transport};

use super::connections::{
    BackendConnectionCounts, CertificateSnapshot, ConnectionFate, ConnectionKind, HttpStatus, LostCause, ShakenBy,
};
use super::counters::{
    ATTEMPT_KINDS, Cause, CookieKind, DIVERGENCES, DropReason, FetchResult, ResponseSource, ServerCounts, Tap, TapFate,
    Want,
};
use super::discovery::{MembershipChange, SourceSnapshot, SourceState};
use super::exposition::SampleWriter;
use super::processes::{Role, Takeover, Usage};
use super::snapshot::{
    BackendSnapshot, BackendState, CacheSnapshot, CatalogSnapshot, PoolSnapshot, Snapshot, ZonesSnapshot,
};

/// The metrics with one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) kind: FamilyKind,
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) reader: Reader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// Its samples have the name of the family with `_total`.
    Counter,
    /// A counter named in full: without `_total`, its name is that of a gauge. So OpenMetrics has no type for
    /// it.
    CounterBesideGauge,
    Gauge,
    Histogram,
}

/// A function that reads the samples, and writes their own labels.
#[derive(Debug)]
pub(super) enum Reader {
    Server(fn(&Snapshot, &mut SampleWriter<'_>)),
    /// Of each pool, with its label.
    Pool(fn(&PoolSnapshot, &mut SampleWriter<'_>)),
    /// Of each backend, with the labels of the pool and the of.
    Backend(fn(&BackendSnapshot, &mut SampleWriter<'_>)),
    /// Of each source of a pool's members, with the labels of both.
    Source(fn(&SourceSnapshot, &mut SampleWriter<'_>)),
    /// Of the process.
    Process(fn(&Usage, &mut SampleWriter<'_>)),
    /// Of the cache, if there is one.
    Cache(fn(&CacheSnapshot) -> u64),
}

type Name = &'static str;
type Help = &'static str;

const fn server(kind: FamilyKind, name: Name, help: Help, read: fn(&Snapshot, &mut SampleWriter<'_>)) -> Family {
    Family { kind, name, help, reader: Reader::Server(read) }
}

const fn pool(kind: FamilyKind, name: Name, help: Help, read: fn(&PoolSnapshot, &mut SampleWriter<'_>)) -> Family {
    Family { kind, name, help, reader: Reader::Pool(read) }
}

const fn backend(
    kind: FamilyKind,
    name: Name,
    help: Help,
    read: fn(&BackendSnapshot, &mut SampleWriter<'_>),
) -> Family {
    Family { kind, name, help, reader: Reader::Backend(read) }
}

const fn source(kind: FamilyKind, name: Name, help: Help, read: fn(&SourceSnapshot, &mut SampleWriter<'_>)) -> Family {
    Family { kind, name, help, reader: Reader::Source(read) }
}

const fn process(kind: FamilyKind, name: Name, help: Help, read: fn(&Usage, &mut SampleWriter<'_>)) -> Family {
    Family { kind, name, help, reader: Reader::Process(read) }
}

const fn cache(kind: FamilyKind, name: Name, help: Help, read: fn(&CacheSnapshot) -> u64) -> Family {
    Family { kind, name, help, reader: Reader::Cache(read) }
}

/// The condition for a group of families.
type IsShown = fn(&Snapshot) -> bool;

/// All families in order of the text, each group with the condition for it.
pub(super) const FAMILIES: &[(IsShown, &[Family])] = &[
    (|_| true, QUERIES),
    (|_| true, RACES),
    (|snapshot| snapshot.cache.is_some(), CACHE),
    (|_| true, SERVER),
    (|snapshot| !snapshot.frames.is_empty(), FRAMES),
    (|snapshot| snapshot.verdict.is_some(), VERDICT),
    (|_| true, PROCESSES),
    (|_| true, DISCOVERY),
    (|_| true, USAGE),
];

const QUERIES: &[Family] = &[
    server(Counter, "hedgerow_queries", "Client queries", |server, to| {
        let ServerCounts { queries, explained, .. } = &server.counts;
        let transports = zip(Transport::ALL.map(Transport::label), *queries);
        to.each("transport", transports.chain([("admin", *explained)]));
    }),
    server(Counter, "hedgerow_responses", "Responses to clients", |server, to| {
        for (source, counts) in zip(ResponseSource::ALL, &server.counts.responses) {
            for (rcode, count) in zip(0.., counts).filter(|(_, count)| **count > 0) {
                to.with("rcode", &Rcode(rcode).to_string(), |to| to.each("source", [(source.label(), *count)]));
            }
        }
    }),
    server(Counter, "hedgerow_dropped", "Messages and queries dropped", |server, to| {
        to.each("reason", zip(DropReason::ALL.map(DropReason::label), server.counts.dropped));
    }),
    server(Counter, "hedgerow_cookies", "Client queries with a DNS cookie", |server, to| {
        to.each("cookie", zip(CookieKind::ALL.map(CookieKind::label), server.counts.cookies));
    }),
    server(
        Counter,
        "hedgerow_rule_matches",
        "Client queries for which the rule was the first that matched",
        |server, to| {
            to.each("rule", server.rules.iter().map(|(name, count)| (&**name, *count)));
        },
    ),
    server(Counter, "hedgerow_tap_records", "Records of the query log and of other taps, by result", |server, to| {
        for (tap, counts) in zip(Tap::ALL, server.counts.taps) {
            to.with("tap", tap.label(), |to| to.each("fate", zip(TapFate::ALL.map(TapFate::label), counts)));
        }
    }),
    server(Counter, "hedgerow_limited", "Client messages or connections affected by a limit", |server, to| {
        for (listener, limit, count) in &server.limited {
            to.with("listener", listener, |to| to.each("limit", [(limit.label(), *count)]));
        }
    }),
];

const RACES: &[Family] = &[
    backend(Counter, "hedgerow_attempts", "Queries to backends", |of, to| {
        to.each("kind", zip(ATTEMPT_KINDS, of.counts.attempts).chain([("probe", of.probes)]));
    }),
    backend(
        Counter,
        "hedgerow_asked_again",
        "Attempts repeated from another socket, because replies may be forged or a cookie was refused",
        |of, to| to.each("cause", zip(Cause::ALL.map(Cause::label), of.counts.again)),
    ),
    backend(Counter, "hedgerow_wins", "Attempts whose answer went to the client", |of, to| {
        to.each("kind", zip(ATTEMPT_KINDS, of.counts.wins));
    }),
    backend(Counter, "hedgerow_unreachable", "ICMP errors received for queries to the backend", |of, to| {
        to.value(of.counts.unreachable);
    }),
    backend(
        Counter,
        "hedgerow_failed_attempts",
        "Attempts that ended with a failure reply or a closed port",
        |of, to| to.value(of.counts.errors),
    ),
    backend(Counter, "hedgerow_backend_lost_attempts", "Attempts lost with their connection", |of, to| {
        to.value(of.counts.lost_attempts);
    }),
    backend(Counter, "hedgerow_decisions", "Replies believed because of their extended error", |of, to| {
        to.value(of.counts.decisions);
    }),
    pool(Counter, "hedgerow_hedges_denied", "Hedges delayed or not sent because the budget was spent", |of, to| {
        to.value(of.counts.hedges_denied);
    }),
    pool(
        Counter,
        "hedgerow_slow_races",
        "Races that were slow, or ended in SERVFAIL or without an answer from a backend",
        |of, to| to.value(of.counts.slow_races),
    ),
    pool(Counter, "hedgerow_hedges_wasted", "Hedges whose reply did not go to the client", |of, to| {
        to.value(of.counts.hedges_wasted);
    }),
    pool(
        Counter,
        "hedgerow_stale_replies",
        "Negative replies ignored because another backend has a newer version of the zone",
        |of, to| to.value(of.counts.stale_replies),
    ),
    backend(
        Counter,
        "hedgerow_unsent_attempts",
        "Attempts that could not be sent because of a local limit or error",
        |of, to| to.each("cause", zip(Want::ALL.map(Want::label), of.counts.unsent)),
    ),
    pool(Counter, "hedgerow_fetches", "Truncated answers to fetch by TCP, by result", |of, to| {
        to.each("result", zip(FetchResult::ALL.map(FetchResult::label), of.counts.fetches));
    }),
    pool(
        Counter,
        "hedgerow_divergence",
        "Questions that replicas answered differently, by kind of difference",
        |of, to| to.each("kind", zip(DIVERGENCES, of.counts.divergences)),
    ),
    pool(Gauge, "hedgerow_tail_regret_ratio", "The p99.9 of races divided by the best possible one", |of, to| {
        of.regret.iter().for_each(|regret| to.float(regret.ratio()));
    }),
    pool(Gauge, "hedgerow_in_flight", "Races in progress; equal queries share one", |of, to| {
        to.value(of.counts.in_flight.0)
    }),
    backend(
        Gauge,
        "hedgerow_backend_up",
        "1 while the backend is up or draining, 0 while it is down or new",
        |of, to| to.flag(of.state.is_up()),
    ),
    pool(Gauge, "hedgerow_pool_backends", "Backends of the pool, by state", |of, to| {
        let count = |state| of.backends.iter().filter(|backend| backend.state == state).count() as u64;
        to.each("state", BackendState::ALL.map(|state| (state.label(), count(state))));
    }),
    backend(Histogram, "hedgerow_backend_latency_seconds", "Time to a reply from a backend", |of, to| {
        to.histogram(&of.counts.latency);
    }),
    backend(Gauge, "hedgerow_backend_connections", "Open connections to the backend", |of, to| {
        connections(of).for_each(|connections| to.value(connections.open.0));
    }),
    backend(
        CounterBesideGauge,
        "hedgerow_backend_connections_total",
        "Connection attempts to the backend, by result",
        |of, to| {
            let kinds = ConnectionKind::ALL.map(ConnectionKind::label);
            connections(of).for_each(|connections| to.each("kind", zip(kinds, connections.made)));
        },
    ),
    backend(Counter, "hedgerow_backend_connections_lost", "Connections that ended with queries pending", |of, to| {
        let causes = LostCause::ALL.map(LostCause::label);
        connections(of).for_each(|connections| to.each("cause", zip(causes, connections.lost)));
    }),
    backend(Histogram, "hedgerow_backend_handshake_seconds", "Time to open a connection to the backend", |of, to| {
        connections(of).for_each(|connections| to.histogram(&connections.handshakes));
    }),
    pool(Histogram, "hedgerow_query_duration_seconds", "Time from a client's query to its response", |of, to| {
        to.histogram(&of.counts.duration);
    }),
];

const CACHE: &[Family] = &[
    cache(Gauge, "hedgerow_cache_size_bytes", "Maximum size of the cache in bytes", |cache| cache.size),
    cache(Gauge, "hedgerow_cache_entries", "Entries of the cache", |cache| cache.stats.entries),
    cache(Gauge, "hedgerow_cache_bytes", "Bytes used by cache entries", |cache| cache.stats.bytes),
    cache(Counter, "hedgerow_cache_hits", "Lookups that found a fresh answer or a failure", |cache| cache.stats.hits),
    cache(Counter, "hedgerow_cache_stale_hits", "Lookups that found a stale answer", |cache| cache.stats.stale_hits),
    cache(Counter, "hedgerow_cache_failure_hits", "Cache hits that found a failure", |cache| cache.stats.failure_hits),
    cache(Counter, "hedgerow_cache_misses", "Lookups that found nothing", |cache| cache.stats.misses),
    cache(Counter, "hedgerow_cache_insertions", "Entries added or renewed", |cache| cache.stats.insertions),
    cache(Counter, "hedgerow_cache_evictions", "Entries removed to make room", |cache| cache.stats.evictions),
    pool(Counter, "hedgerow_cache_prefetches", "Races started to refresh an entry before it expires", |of, to| {
        to.value(of.counts.prefetches)
    }),
];

const SERVER: &[Family] = &[
    server(Gauge, "hedgerow_config_edition", "Configs applied, the first included", |server, to| {
        to.value(server.reload.edition);
    }),
    server(
        Gauge,
        "hedgerow_config_last_reload_successful",
        "1 if the last reload succeeded or there was none, 0 if it failed",
        |server, to| to.flag(server.reload.last.as_ref().is_none_or(|last| last.error.is_none())),
    ),
    server(
        Gauge,
        "hedgerow_config_last_reload_success_timestamp_seconds",
        "Unix time at which the current config was applied",
        |server, to| {
            to.value(server.reload.in_force_since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        },
    ),
    server(Gauge, "hedgerow_reload_in_progress", "1 while a reload runs", |server, to| {
        to.flag(server.reload.running.is_some());
    }),
    server(Counter, "hedgerow_reloads", "Finished reloads", |server, to| {
        to.each("result", [("ok", server.reload.succeeded), ("failed", server.reload.failed)]);
    }),
    server(Counter, "hedgerow_tasks_lost", "Tasks that panicked or ended early", |server, to| {
        to.value(server.run.tasks_lost);
    }),
    server(Counter, "hedgerow_worker_replacements", "Workers replaced after the loss of a task", |server, to| {
        to.value(server.run.worker_replacements);
    }),
    server(
        Gauge,
        "hedgerow_expired_zones",
        "Secondary zones that have expired, answered with SERVFAIL",
        |server, to| to.value(server.authorities.expired_zones.len()),
    ),
    server(Gauge, "hedgerow_zones", "Zones, by authority and state", |server, to| {
        for ZonesSnapshot { authority, primary, served, absent, expired } in &server.authorities.zones {
            let states = [("primary", *primary), ("served", *served), ("absent", *absent), ("expired", *expired)];
            to.with("authority", authority, |to| to.each("state", states));
        }
    }),
    server(Gauge, "hedgerow_catalog_members", "Zones configured by a catalog zone", |server, to| {
        catalogs(server, to, |catalog, to| to.value(catalog.members));
    }),
    server(
        Gauge,
        "hedgerow_catalog_broken",
        "1 while the last version of a catalog zone is broken or doubted, and so not applied",
        |server, to| catalogs(server, to, |catalog, to| to.flag(catalog.is_broken())),
    ),
    server(Gauge, "hedgerow_connections", "Open client connections", |server, to| {
        let open = zip(Transport::ALL, server.counts.connections.open).filter(|(by, _)| by.is_stream());
        to.each("transport", open.map(|(by, open)| (by.label(), open.0)));
    }),
    server(CounterBesideGauge, "hedgerow_connections_total", "Client connections, by result", |server, to| {
        for (by, fates) in zip(Transport::ALL, server.counts.connections.fates).filter(|(by, _)| by.is_stream()) {
            let fates = zip(ConnectionFate::ALL.map(ConnectionFate::label), fates);
            to.with("transport", by.label(), |to| to.each("result", fates));
        }
    }),
    server(Counter, "hedgerow_handshakes", "Complete client handshakes", |server, to| {
        for (by, kinds) in zip(Transport::ALL, server.counts.connections.handshakes).filter(|(by, _)| by.is_encrypted())
        {
            to.with("transport", by.label(), |to| to.each("kind", zip(ShakenBy::ALL.map(ShakenBy::label), kinds)));
        }
    }),
    server(Counter, "hedgerow_http_responses", "HTTP responses, by status", |server, to| {
        to.each("status", zip(HttpStatus::ALL.map(HttpStatus::label), server.counts.connections.http));
    }),
    server(
        Gauge,
        "hedgerow_certificate_not_after_seconds",
        "Expiry of the certificate in use, as Unix time",
        |server, to| {
            let expiry = |known: &CertificateSnapshot| known.not_after.max(0).unsigned_abs();
            to.each("certificate", server.certificates.iter().map(|known| (&*known.name, expiry(known))));
        },
    ),
    server(Counter, "hedgerow_certificate_loads", "Certificate reads, by result", |server, to| {
        for CertificateSnapshot { name, loads, refusals, .. } in &server.certificates {
            to.with("certificate", name, |to| to.each("result", [("loaded", *loads), ("refused", *refusals)]));
        }
    }),
];

const FRAMES: &[Family] =
    &[server(Counter, "hedgerow_xdp_frames", "Frames on interfaces with AF_XDP, by result", |server, to| {
        for interface in &server.frames {
            for (direction, fate, count) in interface.counts() {
                to.with("interface", &interface.interface, |to| {
                    to.with("direction", direction, |to| to.each("fate", [(fate, count)]));
                });
            }
        }
    })];

const VERDICT: &[Family] =
    &[server(Gauge, "hedgerow_verdict", "The verdict: 0 OK, 1 watch, 2 trouble", |server, to| {
        to.value(server.verdict.unwrap_or_default());
    })];

const PROCESSES: &[Family] = &[
    server(Counter, "hedgerow_takeovers", "Processes that took over serving, by reason", |server, to| {
        to.each("reason", zip(Takeover::ALL.map(Takeover::label), server.processes.takeovers));
    }),
    server(Counter, "hedgerow_successions", "Standbys that replaced a dead supervisor", |server, to| {
        to.value(server.processes.supervisor.as_ref().map_or(0, |supervisor| supervisor.successions));
    }),
    server(Gauge, "hedgerow_processes", "Processes, by role", |server, to| {
        to.each("role", Role::ALL.map(|role| (role.label(), server.processes.count(role))));
    }),
];

const DISCOVERY: &[Family] = &[
    source(Gauge, "hedgerow_discovery_members", "Members that a source lists", |of, to| {
        to.value(of.members);
    }),
    source(Gauge, "hedgerow_discovery_fresh", "Whether a source can be asked and is believed", |of, to| {
        to.flag(of.state == SourceState::Fresh);
    }),
    source(Gauge, "hedgerow_discovery_age_seconds", "Time since a source last confirmed its list", |of, to| {
        of.age.iter().for_each(|age| to.float(age.as_secs_f64()));
    }),
    source(Gauge, "hedgerow_discovery_refused", "Entries of a source that are wrong", |of, to| {
        to.value(of.refused_count);
    }),
    source(Counter, "hedgerow_discovery_changes", "What has become of members", |of, to| {
        to.each("change", zip(MembershipChange::ALL.map(MembershipChange::label), of.changes));
    }),
    server(Gauge, "hedgerow_registered", "Whether an authority is listed in etcd", |server, to| {
        to.each(
            "authority",
            server.authorities.registered.iter().map(|(authority, is)| (&**authority, u64::from(*is))),
        );
    }),
];

/// The resource usage, under the standard names of Prometheus client libraries.
const USAGE: &[Family] = &[
    process(Gauge, "hedgerow_build_info", "The version of this program, with the value 1", |_, to| {
        to.each("version", [(env!("CARGO_PKG_VERSION"), 1)]);
    }),
    process(Counter, "hedgerow_worker_cpu_seconds", "CPU time of a worker", |of, to| {
        for (number, cpu) in &of.workers {
            to.with("worker", &number.to_string(), |to| to.float(cpu.as_secs_f64()));
        }
    }),
    process(Counter, "process_cpu_seconds", "CPU time of the process", |of, to| to.float(of.cpu.as_secs_f64())),
    process(Gauge, "process_resident_memory_bytes", "Memory of the process that is in RAM", |of, to| {
        to.float(of.resident as f64);
    }),
    process(Gauge, "process_open_fds", "Open descriptors", |of, to| to.float(of.open_fds as f64)),
    process(Gauge, "process_max_fds", "Descriptors that may be open", |of, to| {
        to.float(of.max_fds.unwrap_or(u64::MAX) as f64);
    }),
    process(Gauge, "process_start_time_seconds", "When the process began, as Unix time", |of, to| {
        to.float(of.began);
    }),
];

fn connections(backend: &BackendSnapshot) -> impl Iterator<Item = &BackendConnectionCounts> {
    backend.counts.connections.as_deref().into_iter()
}

fn catalogs(server: &Snapshot, to: &mut SampleWriter<'_>, write: fn(&CatalogSnapshot, &mut SampleWriter<'_>)) {
    for catalog in &server.authorities.catalogs {
        to.with("authority", &catalog.authority, |to| to.with("catalog", &catalog.catalog, |to| write(catalog, to)));
    }
}
