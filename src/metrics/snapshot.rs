//! All metrics of a running server at one moment, added up from the workers on request.

use std::time::{Duration, SystemTime};

use super::discovery::{BackendOrder, MemberOrigin, SourceSnapshot};
use serde::{Deserialize, Serialize};

use super::backend_connections::BackendConnectionsSnapshot;
use super::connections::{CertificateSnapshot, ConnectionsSnapshot};
use super::counters::{Cause, CookieKind, DropReason, ResponseSource, Tap, TapFate, Want};
use super::histogram::HistogramSnapshot;
use super::limited::Limit;
use super::processes::ProcessesSnapshot;
use super::xdp::XdpSnapshot;
use crate::address::BackendAddress;
use crate::wire::Transport;

/// The metrics of the whole server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The time since the start.
    pub uptime: Duration,
    /// Data-plane threads.
    pub workers: usize,
    /// Client queries by transport.
    pub queries: Vec<(Transport, u64)>,
    /// Questions that operators had explained: queries of transport `admin`, in no other counter.
    pub explained: u64,
    /// Responses by source and rcode (with the bits of the OPT record).
    pub responses: Vec<(ResponseSource, u16, u64)>,
    /// Queries with a response that reports a failure.
    #[serde(default)]
    pub failures: u64,
    /// Dropped messages by reason.
    pub dropped: Vec<(DropReason, u64)>,
    /// Queries with a cookie, by kind.
    pub cookies: Vec<(CookieKind, u64)>,
    /// Records of taps by result.
    pub taps: Vec<((Tap, TapFate), u64)>,
    /// The number of times that each limit of each listener applied.
    pub limited: Vec<(String, Limit, u64)>,
    /// The cache, if there is one.
    pub cache: Option<CacheSnapshot>,
    /// Pools in order of the config.
    pub pools: Vec<PoolSnapshot>,
    /// The state and results of reloads.
    pub reload: ReloadSnapshot,
    /// Tasks that panicked or ended early.
    pub tasks_lost: u64,
    /// Workers replaced after the loss of a task.
    pub worker_replacements: u64,
    /// The processes of this hedgerow.
    pub processes: ProcessesSnapshot,
    /// The verdict: 0 OK, 1 watch, 2 trouble; `None` if there is no verdict.
    #[serde(default)]
    pub verdict: Option<u64>,
    /// Expired zones of other servers.
    #[serde(default)]
    pub expired_zones: Vec<ExpiredZone>,
    /// Zones of other servers that have not arrived within a minute.
    #[serde(default)]
    pub absent_zones: Vec<ExpiredZone>,
    /// Authorities that register in etcd, and true if registered.
    #[serde(default)]
    pub registered: Vec<(String, bool)>,
    /// Pools with more backends have no series per backend; `None` means no limit.
    #[serde(default)]
    pub backend_series: Option<u16>,
    /// The number of zones of each authority.
    #[serde(default)]
    pub zones: Vec<ZonesSnapshot>,
    /// The catalogs of other servers.
    #[serde(default)]
    pub catalogs: Vec<CatalogSnapshot>,
    /// The connections of clients.
    #[serde(default)]
    pub connections: ConnectionsSnapshot,
    /// The certificates of encrypted listeners.
    #[serde(default)]
    pub certificates: Vec<CertificateSnapshot>,
    /// Frames by AF_XDP interface.
    #[serde(default)]
    pub xdp: Vec<XdpSnapshot>,
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
    pub fn is_broken(&self) -> bool {
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

/// The metrics of the cache. Every lookup is one of `hits`, `stale_hits` and `misses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSnapshot {
    /// The size limit in bytes.
    pub size: u64,
    /// Entries, including expired ones that no query has touched since.
    pub entries: u64,
    /// Bytes of the entries.
    pub bytes: u64,
    /// Lookups that found a fresh answer or a failure.
    pub hits: u64,
    /// Lookups that found a stale answer.
    pub stale_hits: u64,
    /// The part of `hits` that found a failure.
    pub failure_hits: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Entries added or renewed.
    pub insertions: u64,
    /// Entries removed to make room.
    pub evictions: u64,
}

/// The metrics of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// The pool's name in the config.
    pub name: String,
    /// Client queries without a response yet.
    pub in_flight: u64,
    /// The time from query to response that clients see.
    pub duration: HistogramSnapshot,
    /// Hedges not sent because the budget was spent.
    pub hedges_denied: u64,
    /// Hedges that the budget permits now.
    #[serde(default)]
    pub tokens: u64,
    /// Hedges whose reply did not go to the client.
    pub hedges_wasted: u64,
    /// Negative replies that are not final because of an older zone version.
    #[serde(default)]
    pub stale_replies: u64,
    /// Slow or failed races by the definition of `[slow]`.
    pub slow_races: u64,
    /// Races that refresh a cache entry before it expires.
    pub prefetches: u64,
    /// Fetches of whole answers by TCP, in order of [`FETCHED`](super::FETCHED).
    pub fetches: [u64; 3],
    /// Divergent answers found, in order of [`DIVERGENCES`](super::DIVERGENCES).
    #[serde(default)]
    pub divergences: [u64; 3],
    /// Questions with divergent answers now.
    #[serde(default)]
    pub divergent: u64,
    /// The pool's backends in order of use.
    pub backends: Vec<BackendSnapshot>,
    /// The sources of discovered members.
    #[serde(default)]
    pub sources: Vec<SourceSnapshot>,
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
    /// The time of the last state change.
    pub since: SystemTime,
    /// Attempts without a reply yet.
    pub in_flight: u64,
    /// Attempts by kind.
    pub attempts: AttemptCounts,
    /// Attempts whose answer went to the client, by kind.
    pub wins: Wins,
    /// Attempts repeated from another socket, by cause.
    pub again: Vec<(Cause, u64)>,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: u64,
    /// ICMP errors for attempts and probes.
    pub unreachable: u64,
    /// Attempts without a reply for `attempt_timeout`.
    pub timeouts: u64,
    /// Attempts lost with their connection.
    #[serde(default)]
    pub lost_attempts: u64,
    /// Replies accepted as final because of their extended error.
    #[serde(default)]
    pub decisions: u64,
    /// Attempts that could not be sent, by missing resource.
    pub unsent: Vec<(Want, u64)>,
    /// Connections, if the backend uses a stream transport.
    #[serde(default)]
    pub connections: Option<Box<BackendConnectionsSnapshot>>,
    /// The time to reply, without probes.
    pub latency: HistogramSnapshot,
    /// The sources of the membership, the highest priority first.
    #[serde(default)]
    pub origin: Vec<MemberOrigin>,
    /// True if a source lists it now.
    #[serde(default)]
    pub is_listed: bool,
    /// The order for the backend.
    #[serde(default)]
    pub order: Option<BackendOrder>,
}

/// Attempts by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptCounts {
    /// Sent when the race began.
    pub first: u64,
    /// Sent because another attempt was late.
    pub hedge: u64,
    /// Sent because another attempt had failed.
    pub failover: u64,
    /// Sent by the prober, without a client query.
    pub probe: u64,
}

/// Wins by the kind of the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wins {
    /// Wins of first attempts.
    pub first: u64,
    /// Wins of hedges.
    pub hedge: u64,
    /// Wins of failovers.
    pub failover: u64,
}

/// The state of a backend, which determines its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendState {
    /// Gets queries.
    Up,
    /// Up, but its zones are older than those of other replicas, which are preferred.
    Behind,
    /// Gets no queries while another backend is up.
    Down,
    /// Newly added; gets no queries before it has answered a probe.
    New,
    /// Finishes its attempts in flight and gets no new ones.
    Draining,
}

impl BackendState {
    /// All states of a backend.
    pub const ALL: [Self; 5] = [Self::Up, Self::Down, Self::New, Self::Draining, Self::Behind];

    /// Returns true if the backend is expected to reply. Draining is no fault and must not raise an alarm.
    pub fn is_up(self) -> bool {
        match self {
            Self::Up | Self::Draining | Self::Behind => true,
            Self::Down | Self::New => false,
        }
    }

    /// Returns the word for people and scripts.
    pub fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::New => "new",
            Self::Draining => "draining",
            Self::Behind => "behind",
        }
    }
}
