//! All metrics of a running server at one moment, added up from the workers on request.

use std::time::{Duration, SystemTime};

use dns::address::BackendAddress;
use hedge::regret::Regret;
use serde::{Deserialize, Serialize};

use super::connections::{CertificateSnapshot, Limit};
use super::counters::{BackendCounts, PoolCounts, ServerCounts};
use super::discovery::{BackendOrder, MemberOrigin, SourceSnapshot};
use super::frames::FrameSnapshot;
use super::processes::ProcessesSnapshot;

/// The metrics of the whole server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The process and its threads.
    #[serde(flatten)]
    pub run: RunSnapshot,
    /// The sums of the workers' counters.
    pub counts: ServerCounts,
    /// The number of times that each limit of each listener applied.
    pub limited: Vec<(String, Limit, u64)>,
    /// The cache, if there is one.
    pub cache: Option<CacheSnapshot>,
    /// Pools in order of the config.
    pub pools: Vec<PoolSnapshot>,
    /// The state and results of reloads.
    pub reload: ReloadSnapshot,
    /// The processes of this hedgerow.
    pub processes: ProcessesSnapshot,
    /// The verdict: 0 OK, 1 watch, 2 trouble; `None` if there is no verdict.
    pub verdict: Option<u64>,
    /// The authorities and their zones.
    pub authorities: AuthoritiesSnapshot,
    /// The rules in order, with the number of queries for which each was the first match.
    pub rules: Vec<(String, u64)>,
    /// The certificates of encrypted listeners.
    pub certificates: Vec<CertificateSnapshot>,
    /// Frames by interface.
    #[serde(rename = "xdp")]
    pub frames: Vec<FrameSnapshot>,
}

/// The process that serves, and its threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSnapshot {
    /// The time since the start.
    pub uptime: Duration,
    /// Data-plane threads.
    pub workers: usize,
    /// Tasks that panicked or ended early.
    pub tasks_lost: u64,
    /// Workers replaced after the loss of a task.
    pub worker_replacements: u64,
    /// Pools with more backends have no series per backend; `None` means no limit.
    pub backend_series: Option<u16>,
}

/// The authorities and their zones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthoritiesSnapshot {
    /// The number of zones of each authority.
    pub zones: Vec<ZonesSnapshot>,
    /// The catalogs of other servers.
    pub catalogs: Vec<CatalogSnapshot>,
    /// Expired zones of other servers.
    pub expired_zones: Vec<ExpiredZone>,
    /// Zones of other servers that have not arrived within a minute.
    pub absent_zones: Vec<ExpiredZone>,
    /// Authorities that register in etcd, and true if registered.
    pub registered: Vec<(String, bool)>,
}

/// The numbers of zones of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesSnapshot {
    /// The authority's name in the config.
    pub authority: String,
    /// Zones from files.
    pub primary: u64,
    /// Zones of other servers that are served.
    pub served: u64,
    /// Zones that have never been received.
    pub absent: u64,
    /// Zones that have expired.
    pub expired: u64,
}

/// A catalog of other servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogSnapshot {
    /// The authority's name in the config.
    pub authority: String,
    /// The name of the catalog.
    pub catalog: String,
    /// Zones configured by the catalog.
    pub members: u64,
    /// `waiting` (no version since the start), `good`, `broken` or `doubted`.
    pub state: String,
    /// The reason for `broken` or `doubted`.
    pub reason: Option<String>,
}

impl CatalogSnapshot {
    /// Returns true if the last version is not applied.
    pub(crate) fn is_broken(&self) -> bool {
        self.reason.is_some()
    }
}

/// A zone that is not served: no primary has confirmed it for too long, or ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExpiredZone {
    /// The authority's name in the config.
    pub authority: String,
    /// The apex of the zone.
    pub zone: String,
}

/// The state and results of reloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSnapshot {
    /// The number of configs applied, the first included.
    pub edition: u64,
    /// The time when the current config was applied.
    pub in_force_since: SystemTime,
    /// The number of successful reloads.
    pub succeeded: u64,
    /// The number of failed reloads.
    pub failed: u64,
    /// The duration so far of the reload in progress; `None` if there is none.
    pub running: Option<Duration>,
    /// True if another reload waits for it.
    pub is_next_waiting: bool,
    /// The last finished reload.
    pub last: Option<LastReload>,
}

impl Default for ReloadSnapshot {
    fn default() -> Self {
        Self {
            edition: 1,
            in_force_since: SystemTime::UNIX_EPOCH,
            succeeded: 0,
            failed: 0,
            running: None,
            is_next_waiting: false,
            last: None,
        }
    }
}

/// A finished reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// The time of the reload.
    pub at: SystemTime,
    /// The error; `None` if the config was applied.
    pub error: Option<String>,
}

/// The metrics of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSnapshot {
    /// The size limit in bytes.
    pub size: u64,
    /// Counters and sizes.
    pub stats: CacheStats,
}

/// Counters and sizes of a cache. Every look-up is one of `hits`, `stale_hits` and `misses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheStats {
    /// Bytes of the entries.
    pub bytes: u64,
    /// Entries: fresh, stale, and expired ones that are not removed yet.
    pub entries: u64,
    /// Look-ups that found a fresh answer or a failure.
    pub hits: u64,
    /// Look-ups that found a stale answer.
    pub stale_hits: u64,
    /// The part of `hits` that found a failure.
    pub failure_hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Entries inserted or renewed.
    pub insertions: u64,
    /// Entries evicted to make room.
    pub evictions: u64,
}

impl CacheStats {
    /// Returns the sums of both.
    pub fn plus(self, other: Self) -> Self {
        let (entries, bytes) = (self.entries + other.entries, self.bytes + other.bytes);
        Self { entries, bytes, ..self.with(other, u64::wrapping_add) }
    }

    /// Returns the growth of the counters. The sizes are the current ones.
    pub(crate) fn since(self, earlier: Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    fn with(self, other: Self, join: fn(u64, u64) -> u64) -> Self {
        Self {
            hits: join(self.hits, other.hits),
            stale_hits: join(self.stale_hits, other.stale_hits),
            failure_hits: join(self.failure_hits, other.failure_hits),
            misses: join(self.misses, other.misses),
            insertions: join(self.insertions, other.insertions),
            evictions: join(self.evictions, other.evictions),
            ..self
        }
    }
}

/// The metrics of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolSnapshot {
    /// The pool's name in the config.
    pub name: String,
    /// The sums of the workers' counters.
    pub counts: PoolCounts,
    /// Hedges that the budget permits now.
    pub tokens: u64,
    /// Questions with divergent answers now.
    pub divergent: u64,
    /// The tail of the last minutes beside the best possible one; `None` without enough races.
    pub regret: Option<Regret>,
    /// The hedges of `dispatch = "auto"`; `None` for another dispatch, or if too little is known.
    pub tuning: Option<TuningSnapshot>,
    /// The backends of lower tiers that must be up, so that a spare gets no turns.
    #[serde(default)]
    pub min_up: u16,
    /// The pool's backends in order of use.
    pub backends: Vec<BackendSnapshot>,
    /// The sources of discovered members.
    pub sources: Vec<SourceSnapshot>,
}

/// The hedges that `dispatch = "auto"` has chosen, as in the status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TuningSnapshot {
    /// The percentile of the response time that shall be least, such as 99.9.
    pub percentile: f64,
    /// The expected percentile in milliseconds; `None` if no hedges are known to reach the target.
    pub expected_ms: Option<f64>,
    /// The expected number of hedges per race.
    pub extra_load: f64,
    /// The hedge after a first attempt at each backend.
    pub hedges: Vec<HedgeSnapshot>,
}

/// The hedge after a first attempt at a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HedgeSnapshot {
    /// The label of the backend.
    pub backend: String,
    /// The silence in milliseconds after which the hedge is due.
    pub delay_ms: f64,
    /// The part of the races that may make it.
    pub probability: f64,
}

/// The metrics of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendSnapshot {
    /// The backend's label.
    pub name: String,
    /// The backend's address.
    pub address: BackendAddress,
    /// The backend's share of the load.
    pub weight: u16,
    /// The backend's state.
    pub state: BackendState,
    /// True if an operator has set the state; probes do not change it.
    pub by_hand: bool,
    /// The end of the operator's setting, if it ends by itself.
    #[serde(default)]
    pub by_hand_until: Option<SystemTime>,
    /// The time of the last state change.
    pub since: SystemTime,
    /// Probes, sent without a client query.
    pub probes: u64,
    /// The sums of the workers' counters. `unreachable` includes probes.
    pub counts: BackendCounts,
    /// The error of the last connect, if it failed.
    pub connection_problem: Option<String>,
    /// The reason why the last probe failed, if it did.
    #[serde(default)]
    pub probe_problem: Option<String>,
    /// The backend's membership in its pool.
    #[serde(default)]
    pub membership: MembershipSnapshot,
}

/// The membership of a backend in its pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MembershipSnapshot {
    /// The tier: 0, or higher for a spare.
    #[serde(default)]
    pub tier: u8,
    /// The sources of the membership, the highest priority first.
    pub origin: Vec<MemberOrigin>,
    /// True if a source lists it now.
    pub is_listed: bool,
    /// The order for the backend.
    pub order: Option<BackendOrder>,
}

dns::labels! {
    /// The state of a backend, which determines its use.
    #[derive(Serialize, Deserialize)]
    pub enum BackendState {
        /// Gets queries.
        Up = "up",
        /// Gets no queries while another backend is up.
        Down = "down",
        /// Newly added; gets no queries before it has answered a probe.
        New = "new",
        /// Finishes its attempts in flight and gets no new ones.
        Draining = "draining",
        /// Up, but its zones are older than those of other replicas, which are preferred.
        Behind = "behind",
    }
}

impl BackendState {
    /// Returns true if the backend is expected to reply. Draining is no fault and must not raise an alarm.
    pub fn is_up(self) -> bool {
        match self {
            Self::Up | Self::Draining | Self::Behind => true,
            Self::Down | Self::New => false,
        }
    }
}
