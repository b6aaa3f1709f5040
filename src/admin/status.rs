//! The JSON of `/api/v1/status`, of the cache's entries, and of what a change is answered: written here, read by `hedgerow ctl`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::address::BackendAddress;
use crate::cache::{Shown, State};
/// How a catalog zone of other servers stands.
pub use crate::metrics::CatalogSnapshot as CatalogStatus;
/// An order that a backend is under.
pub use crate::metrics::Order;
use crate::metrics::{
    BackendSnapshot, BackendState, CacheSnapshot, HistogramSnapshot, LastReload, Origin, PoolSnapshot, ProcessSnapshot,
    ReloadSnapshot, Snapshot, Source, SourceSnapshot, SourceState, SupervisorSnapshot, ZonesSnapshot,
};
use crate::sight::live::{BackendMinute, PoolMinute, Verdict};
use crate::sight::{History, Sight};
use crate::wire::Rcode;

/// The whole server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether all is well.
    #[serde(default)]
    pub verdict: Verdict,
    /// Of this program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Data-plane threads.
    pub workers: usize,
    /// Pools in order of the config.
    pub pools: Vec<PoolStatus>,
    /// The cache; null if there is none.
    pub cache: Option<CacheStatus>,
    /// The zones of the authorities, those first that are not answered from; at most [`ZoneStatus::MAX`].
    #[serde(default)]
    pub zones: Vec<ZoneStatus>,
    /// How many zones more there are.
    #[serde(default)]
    pub more_zones: usize,
    /// The number of zones in each state, of all authorities.
    #[serde(default)]
    pub zone_counts: ZoneCounts,
    /// Queries of clients since the start.
    #[serde(default)]
    pub queries: u64,
    /// Responses since the start, by rcode.
    #[serde(default)]
    pub rcodes: BTreeMap<String, u64>,
    /// The catalog zones of other servers.
    #[serde(default)]
    pub catalogs: Vec<CatalogStatus>,
    /// How many configs have been in force, that of the start included.
    #[serde(default)]
    pub edition: u64,
    /// The last reload that is over; null if there was none.
    #[serde(default)]
    pub reload: Option<ReloadStatus>,
    /// The reload that runs; null if there is none.
    #[serde(default)]
    pub reloading: Option<ReloadingStatus>,
    /// The supervisor; null if there is none.
    #[serde(default)]
    pub supervisor: Option<SupervisorStatus>,
    /// All processes.
    #[serde(default)]
    pub processes: Vec<ProcessStatus>,
}

/// A zone of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneStatus {
    /// The name of the authority in the config.
    pub authority: String,
    /// Its apex.
    pub name: String,
    /// primary (from a file); or, of another server's, served, absent (it has never come) or expired.
    pub state: String,
    /// Of the version that is answered from; null if there is none.
    pub serial: Option<u32>,
    /// The catalog zone that lists it, if it is had by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// Its groups there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// The number of zones in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneCounts {
    /// Zones from files.
    pub primary: u64,
    /// Zones of other servers that are answered from.
    pub served: u64,
    /// Zones of other servers that have never come.
    pub absent: u64,
    /// Zones of other servers that have expired.
    pub expired: u64,
}

/// All zones, of `/api/v1/zones`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesReport {
    /// The zones of all authorities.
    pub zones: Vec<ZoneStatus>,
    /// The catalog zones of other servers.
    pub catalogs: Vec<CatalogStatus>,
}

impl ZoneStatus {
    /// How many are told.
    pub const MAX: usize = 256;
}

/// The process that starts and watches the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// Its process ID.
    pub pid: u32,
    /// Since when it is the supervisor (RFC 3339).
    pub since: String,
    /// How often a standby has succeeded a supervisor that died.
    pub successions: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its process ID.
    pub pid: u32,
    /// supervisor, server, standby, starting, draining or failed.
    pub role: String,
    /// Of the program that it runs.
    pub version: String,
    /// The edition of the config that it has.
    pub edition: u64,
    /// When it came to this role (RFC 3339).
    pub since: String,
    /// How long ago that was.
    pub since_seconds: u64,
    /// What keeps it from its work; null if nothing does.
    pub problem: Option<String>,
}

/// A reload that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When that was (RFC 3339).
    pub at: String,
    /// Whether it is in force.
    pub ok: bool,
    /// All that was wrong; null if it is in force.
    pub error: Option<String>,
}

/// A reload that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadingStatus {
    /// For how long so far.
    pub for_seconds: u64,
    /// Whether another one waits for it.
    pub next_waits: bool,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name in the config.
    pub name: String,
    /// Client queries that wait for their response.
    pub in_flight: u64,
    /// From a query to its response, as the client sees it, since the start.
    pub duration_ms: Percentiles,
    /// Hedges not made because the budget was spent.
    pub hedges_denied: u64,
    /// Hedges made whose reply did not go to the client.
    pub hedges_wasted: u64,
    /// The last minute; null if there are too many pools for each to be kept.
    #[serde(default)]
    pub last_minute: Option<PoolMinute>,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
    /// Where members come from, if any come by themselves.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
}

/// A source of the members of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// etcd, dns or file.
    pub kind: Origin,
    /// What it is, as the config names it.
    pub source: String,
    /// fresh, stale (it cannot be asked), doubted (nobody who is up goes by it) or never (it has not said anything yet).
    pub state: SourceState,
    /// Why it cannot be asked; null if it can.
    pub failure: Option<String>,
    /// Since when it has not confirmed its list; null if it never has.
    pub age_seconds: Option<f64>,
    /// Members that it lists.
    pub members: u64,
    /// Entries that are wrong, the first thousand.
    pub refused: Vec<RefusedEntry>,
    /// How many are wrong in all.
    pub refused_count: u64,
}

/// An entry of a source that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEntry {
    /// Where it stands in the source.
    pub entry: String,
    /// Why, and what would be right.
    pub reason: String,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its label.
    pub name: String,
    /// Where it is asked.
    pub address: BackendAddress,
    /// How it is asked: udp, tcp or tls.
    #[serde(default = "udp")]
    pub transport: String,
    /// Connections to it that are open; null if it is asked by UDP.
    #[serde(default)]
    pub open_connections: Option<u64>,
    /// Why the last connection to it did not come to be; null if it did, and if it is asked by UDP.
    #[serde(default)]
    pub connection_problem: Option<String>,
    /// Share of the load.
    pub weight: u16,
    /// up, down, new (not asked before it has replied to a probe) or draining.
    pub state: String,
    /// Somebody has set the state; probes do not change it.
    pub by_hand: bool,
    /// When it came into this state (RFC 3339).
    pub since: String,
    /// How long ago that was.
    pub since_seconds: u64,
    /// Attempts that wait for their reply.
    pub in_flight: u64,
    /// Time to reply, probes left out, since the start.
    pub latency_ms: Percentiles,
    /// The same in full, in the order of time: `hedgerow simulate` plays it back.
    #[serde(default)]
    pub latency_histogram: Vec<Bucket>,
    /// What it was asked.
    pub attempts: ByKind,
    /// How often its answer went to the client.
    pub wins: ByKind,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: u64,
    /// Attempts that were silent for `attempt_timeout`.
    pub timeouts: u64,
    /// The last minute; null if there are too many backends for each to be kept.
    #[serde(default)]
    pub last_minute: Option<BackendMinute>,
    /// Who says that it is a member: config, hand, etcd, dns, file.
    #[serde(default)]
    pub origin: Vec<Origin>,
    /// Whether a source lists it now.
    #[serde(default)]
    pub listed: bool,
    /// It has had an older version of a zone than others for too long.
    #[serde(default)]
    pub behind: bool,
    /// The order that it is under; null if there is none.
    #[serde(default)]
    pub order: Option<Order>,
}

/// The cache. Every look-up is one of `hits`, `stale_hits` and `misses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// Octets that it may take in all; a part of them is for the table by which entries are found.
    pub size_bytes: u64,
    /// Octets that entries take.
    pub bytes: u64,
    /// Entries, those included that have run out and nobody has asked for since.
    pub entries: u64,
    /// Look-ups that found a fresh answer, or a failure.
    pub hits: u64,
    /// Look-ups that found a stale answer.
    pub stale_hits: u64,
    /// Those of `hits` that found a failure.
    pub failure_hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Entries that were made or renewed.
    pub insertions: u64,
    /// Entries that had to go to make room.
    pub evictions: u64,
    /// Races that were started to refresh an entry before it ran out.
    pub prefetches: u64,
}

/// An entry of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryStatus {
    /// The name of the pool that said it; null if the pool has changed since, so that nobody is given the entry.
    pub pool: Option<String>,
    /// What was asked for.
    #[serde(rename = "type")]
    pub qtype: String,
    /// In which class.
    pub class: String,
    /// Whether it is for clients that set DO.
    #[serde(rename = "do")]
    pub dnssec_ok: bool,
    /// Whether it is for clients that set CD.
    #[serde(rename = "cd")]
    pub checking_disabled: bool,
    /// fresh, stale, failure (a backend said so) or silence (none replied).
    pub state: String,
    /// The mnemonic; null for silence.
    pub rcode: Option<String>,
    /// The time to live that a client is told; 0 if it is stale.
    pub ttl_seconds: u64,
    /// For how long it may be given out stale, once it is.
    pub stale_seconds: u64,
    /// Octets of the message.
    pub bytes: usize,
    /// Hits since it was kept, up to [`EntryStatus::MAX_HITS`].
    pub hits: u8,
}

/// Attempts, or wins, by the kind of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByKind {
    /// Made when the race began.
    pub first: u64,
    /// Made because another was late.
    pub hedge: u64,
    /// Made because another had failed.
    pub failover: u64,
    /// Made by the prober, which wins nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<u64>,
}

/// Milliseconds that so many percent keep; null where nothing was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<f64>,
    /// One of 20 is slower.
    pub p95: Option<f64>,
    /// One of 100 is slower.
    pub p99: Option<f64>,
}

/// How many attempts took at least `from_us` and less than `to_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The lower border, in µs.
    pub from_us: u64,
    /// The upper border, in µs.
    pub to_us: u64,
    /// How many.
    pub count: u64,
}

/// What a change that was carried out is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// What was done.
    pub message: String,
}

/// What a flush of the cache is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flushed {
    /// The same for people.
    pub message: String,
    /// How many entries are gone.
    pub flushed: u64,
}

/// What everything else is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    /// What is wrong, and what would be right.
    pub error: String,
}

impl Status {
    /// Of a server with these numbers, and what was seen of it.
    pub fn of(snapshot: &Snapshot, sight: Option<&Sight>, now: SystemTime) -> Self {
        let history = sight.map(Sight::history);
        Self {
            verdict: sight.map(|sight| sight.verdict().clone()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: snapshot.uptime.as_secs(),
            workers: snapshot.workers,
            pools: snapshot.pools.iter().map(|pool| PoolStatus::of(pool, history, now)).collect(),
            cache: snapshot.cache.as_ref().map(|cache| CacheStatus::of(cache, &snapshot.pools)),
            zones: Vec::new(),
            more_zones: 0,
            zone_counts: ZoneCounts::of(&snapshot.zones),
            queries: snapshot.queries.iter().map(|(_, count)| count).sum(),
            rcodes: rcodes(&snapshot.responses),
            catalogs: snapshot.catalogs.clone(),
            edition: snapshot.reload.edition,
            reload: snapshot.reload.last.as_ref().map(ReloadStatus::of),
            reloading: ReloadingStatus::of(&snapshot.reload),
            supervisor: snapshot.processes.supervisor.as_ref().map(SupervisorStatus::of),
            processes: snapshot.processes.processes.iter().map(|process| ProcessStatus::of(process, now)).collect(),
        }
    }
}

impl ZoneCounts {
    /// Of all authorities together.
    fn of(zones: &[ZonesSnapshot]) -> Self {
        zones.iter().fold(Self::default(), |sum, zones| Self {
            primary: sum.primary + zones.primary,
            served: sum.served + zones.served,
            absent: sum.absent + zones.absent,
            expired: sum.expired + zones.expired,
        })
    }
}

/// The responses of all sources, by the mnemonic of their rcode.
fn rcodes(responses: &[(Source, u16, u64)]) -> BTreeMap<String, u64> {
    let mut rcodes = BTreeMap::new();
    for &(_, rcode, count) in responses {
        *rcodes.entry(Rcode(rcode).to_string()).or_default() += count;
    }
    rcodes
}

impl SupervisorStatus {
    fn of(supervisor: &SupervisorSnapshot) -> Self {
        let SupervisorSnapshot { pid, since, successions } = *supervisor;
        Self { pid, since: humantime::format_rfc3339_seconds(since).to_string(), successions }
    }
}

impl ProcessStatus {
    fn of(process: &ProcessSnapshot, now: SystemTime) -> Self {
        let ProcessSnapshot { pid, role, version, edition, since, problem } = process;
        Self {
            pid: *pid,
            role: role.label().to_owned(),
            version: version.clone(),
            edition: *edition,
            since: humantime::format_rfc3339_seconds(*since).to_string(),
            since_seconds: age(*since, now).as_secs(),
            problem: problem.clone(),
        }
    }
}

impl ReloadStatus {
    /// Of a reload that is over.
    fn of(last: &LastReload) -> Self {
        let at = humantime::format_rfc3339_seconds(last.at).to_string();
        Self { at, ok: last.error.is_none(), error: last.error.clone() }
    }
}

impl ReloadingStatus {
    /// Of the reload that runs, if there is one.
    fn of(reload: &ReloadSnapshot) -> Option<Self> {
        let running = reload.running?;
        Some(Self { for_seconds: running.as_secs(), next_waits: reload.is_next_waiting })
    }
}

impl PoolStatus {
    /// Of a pool with these numbers.
    fn of(pool: &PoolSnapshot, history: Option<&History>, now: SystemTime) -> Self {
        let backend = |backend| {
            let last_minute = history.and_then(|history| history.backend_minute(&pool.name, backend));
            BackendStatus { last_minute, ..BackendStatus::of(backend, now) }
        };
        Self {
            name: pool.name.clone(),
            in_flight: pool.in_flight,
            duration_ms: Percentiles::of(&pool.duration),
            hedges_denied: pool.hedges_denied,
            hedges_wasted: pool.hedges_wasted,
            last_minute: history.and_then(|history| history.pool_minute(pool)),
            backends: pool.backends.iter().map(backend).collect(),
            sources: pool.sources.iter().map(SourceStatus::of).collect(),
        }
    }
}

impl SourceStatus {
    /// Of a source.
    fn of(source: &SourceSnapshot) -> Self {
        let refused =
            |(entry, reason): &(String, String)| RefusedEntry { entry: entry.clone(), reason: reason.clone() };
        Self {
            kind: source.origin,
            source: source.source.clone(),
            state: source.state,
            failure: source.failure.clone(),
            age_seconds: source.age.map(|age| age.as_secs_f64()),
            members: source.members,
            refused: source.refused.iter().map(refused).collect(),
            refused_count: source.refused_count,
        }
    }
}

impl BackendStatus {
    /// Of a backend with these numbers.
    fn of(backend: &BackendSnapshot, now: SystemTime) -> Self {
        let BackendSnapshot { attempts, wins, .. } = backend;
        let connections = backend.connections.as_deref();
        Self {
            name: backend.name.clone(),
            address: backend.address,
            transport: backend.address.scheme.word().map_or_else(udp, str::to_owned),
            open_connections: connections.map(|connections| connections.open),
            connection_problem: connections.and_then(|connections| connections.problem.clone()),
            weight: backend.weight,
            state: backend.state.label().to_owned(),
            by_hand: backend.by_hand,
            since: humantime::format_rfc3339_seconds(backend.since).to_string(),
            since_seconds: age(backend.since, now).as_secs(),
            in_flight: backend.in_flight,
            latency_ms: Percentiles::of(&backend.latency),
            latency_histogram: backend.latency.buckets().map(Bucket::of).collect(),
            attempts: ByKind {
                first: attempts.first,
                hedge: attempts.hedge,
                failover: attempts.failover,
                probe: Some(attempts.probe),
            },
            wins: ByKind { first: wins.first, hedge: wins.hedge, failover: wins.failover, probe: None },
            errors: backend.errors,
            timeouts: backend.timeouts,
            last_minute: None,
            origin: backend.origin.clone(),
            listed: backend.is_listed,
            behind: backend.state == BackendState::Behind,
            order: backend.order.clone(),
        }
    }
}

impl CacheStatus {
    /// Of a cache with these numbers, and of these pools.
    fn of(cache: &CacheSnapshot, pools: &[PoolSnapshot]) -> Self {
        Self {
            size_bytes: cache.size,
            bytes: cache.bytes,
            entries: cache.entries,
            hits: cache.hits,
            stale_hits: cache.stale_hits,
            failure_hits: cache.failure_hits,
            misses: cache.misses,
            insertions: cache.insertions,
            evictions: cache.evictions,
            prefetches: pools.iter().map(|pool| pool.prefetches).sum(),
        }
    }
}

impl EntryStatus {
    /// As far as hits of an entry are counted.
    pub const MAX_HITS: u8 = u8::MAX;

    /// Of an entry of the pool with this name; `None` if it is none any more.
    pub(super) fn of(entry: &Shown, pool: Option<&str>) -> Option<Self> {
        let state = match entry.state {
            State::Dead => return None,
            State::Answer if entry.fresh_for.is_zero() => "stale",
            State::Answer => "fresh",
            State::Failure => "failure",
            State::Silence => "silence",
        };
        Some(Self {
            pool: pool.map(str::to_owned),
            qtype: entry.qtype.to_string(),
            class: entry.qclass.to_string(),
            dnssec_ok: entry.dnssec_ok,
            checking_disabled: entry.checking_disabled,
            state: state.to_owned(),
            rcode: (entry.state != State::Silence).then(|| entry.rcode.to_string()),
            ttl_seconds: whole_seconds(entry.fresh_for),
            stale_seconds: whole_seconds(entry.stale_for),
            bytes: entry.len,
            hits: entry.hits,
        })
    }
}

impl ByKind {
    /// All that came from clients' queries.
    pub fn queries(&self) -> u64 {
        self.first + self.hedge + self.failover
    }
}

impl Bucket {
    /// Of borders and a count.
    fn of((from, to, count): (Duration, Duration, u64)) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self { from_us: micros(from), to_us: micros(to), count }
    }
}

impl Percentiles {
    /// Of what was measured.
    fn of(histogram: &HistogramSnapshot) -> Self {
        let milliseconds = |duration: Duration| duration.as_micros() as f64 / 1e3;
        let part = |part| histogram.quantile(part).map(milliseconds);
        Self { p50: part(0.5), p95: part(0.95), p99: part(0.99) }
    }
}

/// What an address without a scheme is asked by.
fn udp() -> String {
    "udp".to_owned()
}

/// The time since then. A wall clock may have been set back since.
fn age(since: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(since).unwrap_or_default()
}

/// Seconds that have begun: clients are told the last second of a time to live as 1.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
