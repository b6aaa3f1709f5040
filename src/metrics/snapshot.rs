//! All numbers of a running server at one moment: plain data, added up from the workers when somebody asks.

use std::time::{Duration, SystemTime};

use super::discovery::{Order, Origin, SourceSnapshot};
use serde::{Deserialize, Serialize};

use super::backend_connections::BackendConnectionsSnapshot;
use super::connections::{CertificateSnapshot, ConnectionsSnapshot};
use super::counters::{Cause, CookieKind, Dropped, Source, Tap, TapFate, Want};
use super::histogram::HistogramSnapshot;
use super::limited::Limit;
use super::processes::ProcessesSnapshot;
use super::xdp::XdpSnapshot;
use crate::address::BackendAddress;
use crate::wire::Transport;

/// The numbers of the whole server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Time since the start.
    pub uptime: Duration,
    /// Data-plane threads.
    pub workers: usize,
    /// Client queries taken.
    pub queries: Vec<(Transport, u64)>,
    /// Questions that an operator had explained: queries of transport `admin`, which no other figure counts.
    pub explained: u64,
    /// Responses, by source and rcode (with the bits of the OPT record).
    pub responses: Vec<(Source, u16, u64)>,
    /// Queries whose response reports a failure.
    #[serde(default)]
    pub failures: u64,
    /// What was dropped.
    pub dropped: Vec<(Dropped, u64)>,
    /// Queries with a cookie.
    pub cookies: Vec<(CookieKind, u64)>,
    /// Records of taps.
    pub taps: Vec<((Tap, TapFate), u64)>,
    /// How often which limit of which listener was met.
    pub limited: Vec<(String, Limit, u64)>,
    /// The cache, if there is one.
    pub cache: Option<CacheSnapshot>,
    /// Pools in order of the config.
    pub pools: Vec<PoolSnapshot>,
    /// What came of reading the config again.
    pub reload: ReloadSnapshot,
    /// Tasks that have panicked, or ended too early.
    pub tasks_lost: u64,
    /// Workers that were replaced since one of their tasks was lost.
    pub worker_replacements: u64,
    /// The processes of which this server is one.
    pub processes: ProcessesSnapshot,
    /// Whether all is well: 0 well, 1 watch, 2 trouble; none where nobody judges.
    #[serde(default)]
    pub verdict: Option<u64>,
    /// The zones of other servers that have expired.
    #[serde(default)]
    pub expired_zones: Vec<ExpiredZone>,
    /// The zones of other servers that have never come, in a minute or more.
    #[serde(default)]
    pub absent_zones: Vec<ExpiredZone>,
    /// Which authorities are to be listed in etcd, and whether they are.
    #[serde(default)]
    pub registered: Vec<(String, bool)>,
    /// Pools with more backends have no series for each of them in `/metrics`; none: all have.
    #[serde(default)]
    pub backend_series: Option<u16>,
    /// How many zones each authority has.
    #[serde(default)]
    pub zones: Vec<ZonesSnapshot>,
    /// The catalogs of other servers.
    #[serde(default)]
    pub catalogs: Vec<CatalogSnapshot>,
    /// The connections of clients.
    #[serde(default)]
    pub connections: ConnectionsSnapshot,
    /// The certificates that clients are shown.
    #[serde(default)]
    pub certificates: Vec<CertificateSnapshot>,
    /// Frames by AF_XDP, of each interface.
    #[serde(default)]
    pub xdp: Vec<XdpSnapshot>,
}

/// How many zones an authority has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonesSnapshot {
    /// Its name in the config.
    pub authority: String,
    /// Zones of its own.
    pub primary: u64,
    /// Zones of other servers that it answers from.
    pub served: u64,
    /// Those that have never come.
    pub absent: u64,
    /// Those that have expired.
    pub expired: u64,
}

/// A catalog of other servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogSnapshot {
    /// The name of its authority in the config.
    pub authority: String,
    /// Its name.
    pub catalog: String,
    /// Zones that are had by its word.
    pub members: u64,
    /// waiting (no version has come since the start), good, broken or doubted.
    pub state: String,
    /// Why, if it is broken or doubted.
    pub reason: Option<String>,
}

impl CatalogSnapshot {
    /// Whether its last version is not in force.
    pub fn is_broken(&self) -> bool {
        self.reason.is_some()
    }
}

/// A zone that is not served: no primary has confirmed it for too long, or ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExpiredZone {
    /// The name of its authority in the config.
    pub authority: String,
    /// Its apex.
    pub zone: String,
}

/// What came of reading the config again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSnapshot {
    /// How many configs have been in force, that of the start included.
    pub edition: u64,
    /// Since when the one in force is.
    pub in_force_since: SystemTime,
    /// Reloads that came into force.
    pub succeeded: u64,
    /// Reloads that failed.
    pub failed: u64,
    /// How long the reload that runs has taken so far; none if there is none.
    pub running: Option<Duration>,
    /// Whether another one waits for that.
    pub is_next_waiting: bool,
    /// The last one that is over.
    pub last: Option<LastReload>,
}

impl Default for ReloadSnapshot {
    /// Of a server that has just started.
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

/// A reload that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When that was.
    pub at: SystemTime,
    /// What was wrong; none if it is in force.
    pub error: Option<String>,
}

/// The numbers of the cache. Every look-up is one of `hits`, `stale_hits` and `misses`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSnapshot {
    /// Octets that it may take in all.
    pub size: u64,
    /// Entries, those included that have run out and nobody has asked for since.
    pub entries: u64,
    /// Octets that these take.
    pub bytes: u64,
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
}

/// The numbers of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// Its name in the config.
    pub name: String,
    /// Client queries that wait for their response.
    pub in_flight: u64,
    /// From a query to its response, as the client sees it.
    pub duration: HistogramSnapshot,
    /// Hedges not made because the budget was spent.
    pub hedges_denied: u64,
    /// Hedges that the budget pays for now.
    #[serde(default)]
    pub tokens: u64,
    /// Hedges made whose reply did not go to the client.
    pub hedges_wasted: u64,
    /// Negative replies that an older version of a zone made not final.
    #[serde(default)]
    pub stale_replies: u64,
    /// Races that were slow or failed, as `[slow]` has it.
    pub slow_races: u64,
    /// Races that were started to refresh an entry of the cache before it ran out.
    pub prefetches: u64,
    /// Whole answers that were to be fetched by TCP, in order of [`FETCHED`](super::FETCHED).
    pub fetches: [u64; 3],
    /// Questions that members were found to answer differently, in order of [`DIVERGENCES`](super::DIVERGENCES).
    #[serde(default)]
    pub divergences: [u64; 3],
    /// Questions that they answer differently now.
    #[serde(default)]
    pub divergent: u64,
    /// Its backends, in the order in which they are asked.
    pub backends: Vec<BackendSnapshot>,
    /// Where members come from, if any come by themselves.
    #[serde(default)]
    pub sources: Vec<SourceSnapshot>,
}

/// The numbers of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendSnapshot {
    /// Its label.
    pub name: String,
    /// Where it is asked.
    pub address: BackendAddress,
    /// Share of the load.
    pub weight: u16,
    /// Whether it is asked.
    pub state: BackendState,
    /// Somebody has set the state; probes do not change it.
    pub by_hand: bool,
    /// When it came into this state.
    pub since: SystemTime,
    /// Attempts that wait for their reply.
    pub in_flight: u64,
    /// What it was asked.
    pub attempts: Attempts,
    /// How often its answer went to the client.
    pub wins: Wins,
    /// Attempts that were asked again, from another socket, by cause.
    pub again: Vec<(Cause, u64)>,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: u64,
    /// ICMP errors heard, by attempts and probes.
    pub unreachable: u64,
    /// Attempts that were silent for `attempt_timeout`.
    pub timeouts: u64,
    /// Attempts that were lost with their connection.
    #[serde(default)]
    pub lost_attempts: u64,
    /// Replies that were believed by their extended error.
    #[serde(default)]
    pub decisions: u64,
    /// Attempts that could not leave, by what was wanting.
    pub unsent: Vec<(Want, u64)>,
    /// Its connections, if it is asked by stream.
    #[serde(default)]
    pub connections: Option<Box<BackendConnectionsSnapshot>>,
    /// Time to reply, probes left out.
    pub latency: HistogramSnapshot,
    /// Who says that it is a member; the most binding first.
    #[serde(default)]
    pub origin: Vec<Origin>,
    /// Whether a source lists it now.
    #[serde(default)]
    pub is_listed: bool,
    /// The order that it is under.
    #[serde(default)]
    pub order: Option<Order>,
}

/// Attempts by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Made when the race began.
    pub first: u64,
    /// Made because another was late.
    pub hedge: u64,
    /// Made because another had failed.
    pub failover: u64,
    /// Made by nobody's query: to see whether the backend replies.
    pub probe: u64,
}

/// Wins by the kind of the attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wins {
    /// Of first attempts.
    pub first: u64,
    /// Of hedges.
    pub hedge: u64,
    /// Of failovers.
    pub failover: u64,
}

/// Whether a backend is asked, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendState {
    /// It is asked.
    Up,
    /// It is up, but its zones are older than those of other replicas, which are asked first.
    Behind,
    /// It is not asked while another is up.
    Down,
    /// It was just added, and is not asked before it has replied to a probe.
    New,
    /// It finishes what is in flight and is not asked any more.
    Draining,
}

impl BackendState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Up, Self::Down, Self::New, Self::Draining, Self::Behind];

    /// Whether it is taken to reply. One that drains is: that it is not asked is no fault of its own, and nothing to be
    /// alarmed about.
    pub fn is_up(self) -> bool {
        match self {
            Self::Up | Self::Draining | Self::Behind => true,
            Self::Down | Self::New => false,
        }
    }

    /// The word for people and scripts.
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
