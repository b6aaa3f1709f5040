//! Input of a scenario: pools of modelled backends and the queries to them.

use std::sync::Arc;
use std::time::Duration;

use config::{PoolRules, Rank};

use super::delay::Delay;
use super::names::NameDistribution;
use super::replay::ReplayedTrace;
use super::spells::{Course, When};

/// Pools, and the queries that they get.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The pools, at least one. They get queries in turn.
    pub pools: Vec<PoolModel>,
    /// The number of queries.
    pub queries: usize,
    /// The names of the queries.
    pub names: NameDistribution,
    /// The time to live of all answers, which are cached. `None`: there is no cache.
    pub ttl: Option<Duration>,
    /// The mean time between two queries, which arrive at random.
    pub gap: Duration,
    /// The time after which a client retransmits, if it does.
    pub resend: Option<Duration>,
    /// The factor by which all backends are slower, as when they share a busy resource.
    pub slow: Course<f64>,
    /// True if backends are probed, and so found to be down or up again. Otherwise each keeps its initial
    /// state, until a reply shows that it is up.
    pub is_probed: bool,
    /// The times of config reloads, and the rules that each pool has then.
    pub reloads: Vec<(Duration, Vec<PoolRules>)>,
    /// True if the invariants of the engine are checked after each event.
    pub is_audited: bool,
    /// The latencies of all attempts by UDP, in place of those of the backends.
    pub replay: Option<Arc<ReplayedTrace>>,
    /// The number of workers, among which the clients are spread by chance.
    pub workers: u16,
}

/// A pool of modelled backends.
#[derive(Clone, Debug)]
pub struct PoolModel {
    /// The rules of the pool.
    pub rules: PoolRules,
    /// The backends of the pool.
    pub backends: Vec<BackendModel>,
}

impl Scenario {
    /// Creates a scenario with one pool and 1,000 queries a second for a second, each for a unique name.
    pub fn of_pool(rules: PoolRules, backends: Vec<BackendModel>) -> Self {
        Self {
            pools: vec![PoolModel { rules, backends }],
            queries: 1_000,
            names: NameDistribution::Unique,
            ttl: None,
            gap: Duration::from_millis(1),
            resend: None,
            slow: Course::always(1.0),
            is_probed: false,
            replay: None,
            reloads: Vec::new(),
            is_audited: false,
            workers: 1,
        }
    }
}

/// The behavior of a backend. The default knows every name and replies after a millisecond.
#[derive(Clone, Debug)]
pub struct BackendModel {
    /// The place in the pool.
    pub seat: SeatModel,
    /// True if the pool takes the backend for up at the start.
    pub up: bool,
    /// The time to a reply, without the wait in the queue.
    pub delay: Course<Delay>,
    /// The capacity for concurrent attempts; `None` for any number.
    pub capacity: Option<Capacity>,
    /// The chance that a datagram of an attempt is lost.
    pub loss: Course<f64>,
    /// The times at which the backend stalls, as after SIGSTOP: datagrams wait meanwhile.
    pub stalls: Vec<When>,
    /// The connections to the backend; `None` for UDP.
    pub connections: Option<ModelConnections>,
    /// The times at which the backend is gone: ICMP reports it, and pending replies are lost.
    pub crashes: Vec<When>,
    /// The chance that the backend knows a name; it knows it in each attempt or in none.
    pub knows: f64,
    /// The reply to an unknown name; `None` for silence.
    pub miss: Option<Rank>,
    /// Rare faults; none by default.
    pub faults: FaultModel,
    /// The site of the backend.
    pub site: SiteModel,
}

/// The place of a backend in its pool.
#[derive(Clone, Copy, Debug)]
pub struct SeatModel {
    /// The share of the load.
    pub weight: u16,
    /// The tier: 0, or higher for a spare.
    pub tier: u8,
}

/// A site, whose backends slow down at the same times.
#[derive(Clone, Debug)]
pub struct SiteModel {
    /// The name of the site; `None` if the backend shares none.
    pub name: Option<String>,
    /// The factor by which the backend is slower. Its times are drawn once per site.
    pub slow: Course<f64>,
}

/// Rare faults of a backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultModel {
    /// The chance that an attempt gets a failure as its reply.
    pub failure: f64,
    /// The chance that a bare failure arrives before the reply.
    pub bare: f64,
    /// The chance that an attempt gets an ICMP error and no reply.
    pub unreachable: f64,
    /// True if the backend refuses OPT.
    pub refuses_opt: bool,
}

/// The connections to a backend that gets queries over streams. They lose nothing while they last, but data
/// after a loss waits for the retransmission. When a connection ends, all pending queries on it are lost.
#[derive(Clone, Debug, Default)]
pub struct ModelConnections {
    /// The number of connections.
    pub max: u16,
    /// The stalls, drawn separately for each connection.
    pub stalls: Vec<When>,
    /// The ends, drawn separately for each connection: it ends when such a time begins.
    pub ends: Vec<When>,
}

/// A limit that makes load cost time: servers process attempts in the order of their arrival.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// The number of attempts that are processed at the same time, at least 1.
    pub servers: u16,
    /// The time that one attempt takes.
    pub service: Delay,
}

impl Default for BackendModel {
    fn default() -> Self {
        Self {
            seat: SeatModel { weight: 1, tier: 0 },
            up: true,
            delay: Course::always(Delay::Constant(Duration::from_millis(1))),
            capacity: None,
            loss: Course::always(0.0),
            stalls: Vec::new(),
            connections: None,
            crashes: Vec::new(),
            knows: 1.0,
            miss: Some(Rank::Nxdomain),
            faults: FaultModel::default(),
            site: SiteModel { name: None, slow: Course::always(1.0) },
        }
    }
}
