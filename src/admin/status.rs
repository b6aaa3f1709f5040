//! The JSON of `/api/v1/status`, of cache entries and of change responses. `hedgerow ctl` reads it.

mod backend;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// The origin of a pool's member.
use dns::Rcode;
use engine::cache::{ShownEntry, State};
use hedge::regret::{Regret, ReissueRule};
/// An order for a backend.
pub use metrics::BackendOrder;
/// The counters of the cache.
pub use metrics::CacheStats;
/// The state of a catalog zone of other servers.
pub use metrics::CatalogSnapshot as CatalogStatus;
use metrics::{
    CacheSnapshot, HistogramSnapshot, LastReload, PoolSnapshot, ProcessSnapshot, ProcessesSnapshot, RCODES,
    ReloadSnapshot, Snapshot, SourceSnapshot, SourceState, TuningSnapshot, ZonesSnapshot,
};
use serde::{Deserialize, Serialize};

pub use self::backend::{BackendStatus, MembershipStatus, TransportStatus, WorkStatus};
use crate::control::observe::sight::live::{PoolMinute, Verdict};
use crate::control::observe::sight::{History, Sight};
pub use metrics::MemberOrigin;

/// The status of the whole server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The overall verdict.
    #[serde(default)]
    pub verdict: Verdict,
    /// The program's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Data-plane threads.
    pub workers: usize,
    /// Pools in order of the config.
    pub pools: Vec<PoolStatus>,
    /// The cache; null if there is none.
    pub cache: Option<CacheStatus>,
    /// Zones and answers.
    #[serde(flatten)]
    pub service: ServiceStatus,
    /// The config and its reloads.
    #[serde(flatten)]
    pub reloads: ReloadsStatus,
    /// The supervisor and the processes.
    #[serde(flatten)]
    pub processes: ProcessesStatus,
}

/// The zones of the authorities, and the queries that the server has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceStatus {
    /// The zones of the authorities, those not served first; at most [`ZoneStatus::MAX`].
    pub zones: Vec<ZoneStatus>,
    /// The number of zones left out of `zones`.
    pub more_zones: usize,
    /// The number of zones in each state, of all authorities.
    pub zone_counts: ZoneCounts,
    /// Queries of clients since the start.
    pub queries: u64,
    /// Responses since the start, by rcode.
    pub rcodes: BTreeMap<String, u64>,
    /// The catalog zones of other servers.
    pub catalogs: Vec<CatalogStatus>,
}

/// The config and its reloads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReloadsStatus {
    /// The number of configs applied, the first included.
    pub edition: u64,
    /// The last finished reload; null if there was none.
    pub reload: Option<ReloadStatus>,
    /// The reload in progress; null if there is none.
    pub reloading: Option<ReloadingStatus>,
}

/// The processes of this hedgerow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessesStatus {
    /// The supervisor; null if there is none.
    pub supervisor: Option<SupervisorStatus>,
    /// All processes of this hedgerow.
    pub processes: Vec<ProcessStatus>,
}

/// A zone of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneStatus {
    /// The name of the authority in the config.
    pub authority: String,
    /// The apex of the zone.
    pub name: String,
    /// `primary` (from a file); of other servers `served`, `absent` (never received) or `expired`.
    pub state: String,
    /// The serial of the served version; null if there is none.
    pub serial: Option<u32>,
    /// The catalog zone that lists the zone, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<String>,
    /// The groups of the zone in the catalog.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// The number of zones in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneCounts {
    /// Zones from files.
    pub primary: u64,
    /// Zones of other servers that are served.
    pub served: u64,
    /// Zones of other servers that were never received.
    pub absent: u64,
    /// Zones of other servers that have expired.
    pub expired: u64,
}

/// The response of `/api/v1/zones`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesReport {
    /// The zones of all authorities.
    pub zones: Vec<ZoneStatus>,
    /// The catalog zones of other servers.
    pub catalogs: Vec<CatalogStatus>,
}

impl ZoneStatus {
    /// The largest number of zones in a status.
    pub const MAX: usize = 256;
}

/// The process that starts and watches the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStatus {
    /// The supervisor's process ID.
    pub pid: u32,
    /// The time since which it is the supervisor (RFC 3339).
    pub since: String,
    /// The number of standbys that succeeded a dead supervisor.
    pub successions: u64,
}

/// A process of this hedgerow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The process ID.
    pub pid: u32,
    /// `supervisor`, `server`, `standby`, `starting`, `draining` or `failed`.
    pub role: String,
    /// The version of its program.
    pub version: String,
    /// The edition of its config.
    pub edition: u64,
    /// The time since which it has this role (RFC 3339).
    pub since: String,
    /// The seconds since then.
    pub since_seconds: u64,
    /// The problem that keeps the process from its work; null if there is none.
    pub problem: Option<String>,
}

/// A finished reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// The time of the reload (RFC 3339).
    pub at: String,
    /// True if the config was applied.
    pub ok: bool,
    /// All errors; null if the config was applied.
    pub error: Option<String>,
}

/// A reload in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadingStatus {
    /// The seconds since its start.
    pub for_seconds: u64,
    /// True if another reload waits for it.
    pub next_waits: bool,
}

/// The status of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The pool's name in the config.
    pub name: String,
    /// Client queries without a response yet.
    pub in_flight: u64,
    /// The time from query to response that clients saw since the start.
    pub duration_ms: Percentiles,
    /// Hedges not sent because the budget was spent, or with `auto` because the backends were busy.
    pub hedges_denied: u64,
    /// Hedges whose reply did not go to the client.
    pub hedges_wasted: u64,
    /// The last minute; null if there are too many pools to record.
    #[serde(default)]
    pub last_minute: Option<PoolMinute>,
    /// The tail beside the best possible one; null without enough races.
    #[serde(default)]
    pub regret: Option<RegretStatus>,
    /// The hedges that `dispatch = "auto"` has chosen; null for another dispatch, or if too little is known.
    #[serde(default)]
    pub tuning: Option<TuningSnapshot>,
    /// The backends of lower tiers that must be up, so that a spare gets no turns.
    #[serde(default)]
    pub min_up: u16,
    /// The pool's backends.
    pub backends: Vec<BackendStatus>,
    /// The sources of discovered members.
    #[serde(default)]
    pub sources: Vec<SourceStatus>,
}

/// The tail of a pool in the last 10 minutes, beside that of the best fixed hedge rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegretStatus {
    /// `achieved_ms` divided by `best_ms`; 1.0 is optimal.
    pub ratio: f64,
    /// The compared percentile, such as 99.9.
    pub percentile: f64,
    /// The percentile of the races.
    pub achieved_ms: f64,
    /// The lowest percentile that a fixed rule could have reached.
    pub best_ms: f64,
    /// Second attempts per race of that rule, at most.
    pub budget: f64,
    /// The delay of its second attempt.
    pub delay_ms: f64,
    /// The part of the races, of those without a reply by then, that make it.
    pub probability: f64,
}

/// A source of the members of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// `etcd`, `dns` or `file`.
    pub kind: MemberOrigin,
    /// The source as written in the config.
    pub source: String,
    /// `fresh`, `stale` (unreachable), `doubted` (no backend that is up follows it) or `never` (no list yet).
    pub state: SourceState,
    /// The reason why the source is unreachable; null if it is reachable.
    pub failure: Option<String>,
    /// Seconds since the last confirmed list; null if there was none.
    pub age_seconds: Option<f64>,
    /// The number of members that it lists.
    pub members: u64,
    /// The first thousand invalid entries.
    pub refused: Vec<RefusedEntry>,
    /// The number of all invalid entries.
    pub refused_count: u64,
}

/// An invalid entry of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEntry {
    /// The position of the entry in the source.
    pub entry: String,
    /// The reason and a hint.
    pub reason: String,
}

/// The cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStatus {
    /// The size limit in bytes, the lookup table included.
    pub size_bytes: u64,
    /// Counters and sizes.
    #[serde(flatten)]
    pub stats: CacheStats,
    /// Races that refresh an entry before it expires.
    pub prefetches: u64,
}

/// An entry of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryStatus {
    /// The pool that gave the answer; null if the pool has changed since and the entry is not used.
    pub pool: Option<String>,
    /// The queried type.
    #[serde(rename = "type")]
    pub qtype: String,
    /// The queried class.
    pub class: String,
    /// True if the entry is for clients that set DO.
    #[serde(rename = "do")]
    pub dnssec_ok: bool,
    /// True if the entry is for clients that set CD.
    #[serde(rename = "cd")]
    pub checking_disabled: bool,
    /// `fresh`, `stale`, `failure` (from a backend) or `silence` (no reply).
    pub state: String,
    /// The rcode's mnemonic; null for silence.
    pub rcode: Option<String>,
    /// The TTL in responses; 0 if the entry is stale.
    pub ttl_seconds: u64,
    /// The seconds for which the stale entry may be used after its expiry.
    pub stale_seconds: u64,
    /// The message length in bytes.
    pub bytes: usize,
    /// Hits since the entry was stored, up to [`EntryStatus::MAX_HITS`].
    pub hits: u8,
}

/// Attempts, or wins, by the kind of the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByKind {
    /// Sent when the race began.
    pub first: u64,
    /// Sent because another attempt was late.
    pub hedge: u64,
    /// Sent because another attempt had failed.
    pub failover: u64,
    /// Sent by the prober; null for wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<u64>,
}

/// Percentiles in milliseconds; null without measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<f64>,
    /// The 95th percentile.
    pub p95: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
}

/// The number of attempts that took at least `from_us` and less than `to_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// The lower bound in µs.
    pub from_us: u64,
    /// The upper bound in µs.
    pub to_us: u64,
    /// The number of attempts.
    pub count: u64,
}

/// The response to a successful change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeResponse {
    /// A sentence about the change.
    pub message: String,
}

/// The response to a flush of the cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FlushResponse {
    /// A sentence about the flush.
    pub message: String,
    /// The number of removed entries.
    pub flushed: u64,
}

/// The response to a failed request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// The error and a hint.
    pub error: String,
}

impl Status {
    /// Builds the status from a snapshot and the observed history.
    pub fn of(snapshot: &Snapshot, sight: Option<&Sight>, now: SystemTime) -> Self {
        let history = sight.map(Sight::history);
        let cache = |cache: &CacheSnapshot| CacheStatus {
            size_bytes: cache.size,
            stats: cache.stats,
            prefetches: snapshot.pools.iter().map(|pool| pool.counts.prefetches).sum(),
        };
        Self {
            verdict: sight.map(|sight| sight.verdict().clone()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: snapshot.run.uptime.as_secs(),
            workers: snapshot.run.workers,
            pools: snapshot.pools.iter().map(|pool| PoolStatus::of(pool, history, now)).collect(),
            cache: snapshot.cache.as_ref().map(cache),
            service: ServiceStatus::of(snapshot),
            reloads: ReloadsStatus::of(&snapshot.reload),
            processes: ProcessesStatus::of(&snapshot.processes, now),
        }
    }
}

impl ServiceStatus {
    fn of(snapshot: &Snapshot) -> Self {
        let zones = |of: fn(&ZonesSnapshot) -> u64| snapshot.authorities.zones.iter().map(of).sum();
        Self {
            zones: Vec::new(),
            more_zones: 0,
            zone_counts: ZoneCounts {
                primary: zones(|zones| zones.primary),
                served: zones(|zones| zones.served),
                absent: zones(|zones| zones.absent),
                expired: zones(|zones| zones.expired),
            },
            queries: snapshot.counts.queries.iter().sum(),
            rcodes: rcodes(&snapshot.counts.responses),
            catalogs: snapshot.authorities.catalogs.clone(),
        }
    }
}

fn rcodes(responses: &[[u64; RCODES]]) -> BTreeMap<String, u64> {
    let sum = |rcode: usize| responses.iter().map(|counts| counts[rcode]).sum();
    let sums = (0..RCODES).map(|rcode| (Rcode(rcode as u16).to_string(), sum(rcode)));
    sums.filter(|(_, count)| *count > 0).collect()
}

impl ReloadsStatus {
    fn of(snapshot: &ReloadSnapshot) -> Self {
        let ReloadSnapshot { edition, running, is_next_waiting: next_waits, last, .. } = snapshot;
        let reload = |LastReload { at, error }: &LastReload| ReloadStatus {
            at: date(*at),
            ok: error.is_none(),
            error: error.clone(),
        };
        let reloading =
            |running: &Duration| ReloadingStatus { for_seconds: running.as_secs(), next_waits: *next_waits };
        Self { edition: *edition, reload: last.as_ref().map(reload), reloading: running.as_ref().map(reloading) }
    }
}

impl ProcessesStatus {
    fn of(ProcessesSnapshot { supervisor, processes, .. }: &ProcessesSnapshot, now: SystemTime) -> Self {
        let supervisor = supervisor.as_ref().map(|supervisor| SupervisorStatus {
            pid: supervisor.pid,
            since: date(supervisor.since),
            successions: supervisor.successions,
        });
        let process = |process: &ProcessSnapshot| ProcessStatus {
            pid: process.pid,
            role: process.role.label().to_owned(),
            version: process.version.clone(),
            edition: process.edition,
            since: date(process.since),
            since_seconds: age(process.since, now),
            problem: process.problem.clone(),
        };
        Self { supervisor, processes: processes.iter().map(process).collect() }
    }
}

impl PoolStatus {
    fn of(pool: &PoolSnapshot, history: Option<&History>, now: SystemTime) -> Self {
        let backend = |backend| {
            let last_minute = history.and_then(|history| history.backend_minute(&pool.name, backend));
            BackendStatus::of(backend, last_minute, now)
        };
        Self {
            name: pool.name.clone(),
            in_flight: pool.counts.in_flight.0,
            duration_ms: Percentiles::of(&pool.counts.duration),
            hedges_denied: pool.counts.hedges_denied,
            hedges_wasted: pool.counts.hedges_wasted,
            last_minute: history.and_then(|history| history.pool_minute(pool)),
            regret: pool.regret.as_ref().map(RegretStatus::of),
            tuning: pool.tuning.clone(),
            min_up: pool.min_up,
            backends: pool.backends.iter().map(backend).collect(),
            sources: pool.sources.iter().map(SourceStatus::of).collect(),
        }
    }
}

impl RegretStatus {
    fn of(regret: &Regret) -> Self {
        let milliseconds = |duration: Duration| duration.as_micros() as f64 / 1e3;
        let ReissueRule { delay, probability, time } = regret.best;
        Self {
            ratio: regret.ratio(),
            percentile: percent(regret.target),
            achieved_ms: milliseconds(regret.achieved),
            best_ms: milliseconds(time),
            budget: regret.budget,
            delay_ms: milliseconds(delay),
            probability,
        }
    }
}

impl SourceStatus {
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

impl EntryStatus {
    /// The largest hit count of an entry.
    pub const MAX_HITS: u8 = u8::MAX;

    pub(super) fn of(entry: &ShownEntry, pool: Option<&str>) -> Option<Self> {
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
    /// Returns the number of attempts for client queries.
    pub fn queries(&self) -> u64 {
        self.first + self.hedge + self.failover
    }
}

impl Percentiles {
    fn of(histogram: &HistogramSnapshot) -> Self {
        let milliseconds = |duration: Duration| duration.as_micros() as f64 / 1e3;
        let part = |part| histogram.quantile(part).map(milliseconds);
        Self { p50: part(0.5), p95: part(0.95), p99: part(0.99) }
    }
}

/// Returns a part in percent, without the digits that a binary fraction adds.
pub(crate) fn percent(part: f64) -> f64 {
    (part * 1e6).round() / 1e4
}

fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Returns the seconds since a time. The wall clock may have been set back since.
fn age(since: SystemTime, now: SystemTime) -> u64 {
    now.duration_since(since).unwrap_or_default().as_secs()
}

/// Rounds up: the last second of a TTL is 1 in responses.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
