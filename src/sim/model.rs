//! What is played: pools of modelled backends, and the queries that come to them.

use std::time::Duration;

use super::delay::Delay;
use super::names::Names;
use super::spells::{Course, When};
use crate::policy::{Rank, Rules};

/// Pools, and the queries that come to them.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The pools, which get queries in turn; at least one.
    pub pools: Vec<PoolModel>,
    /// How many queries come.
    pub queries: usize,
    /// What they ask for.
    pub names: Names,
    /// The time to live of all answers, which are cached. `None`: there is no cache.
    pub ttl: Option<Duration>,
    /// The mean time between two queries, which come by chance.
    pub gap: Duration,
    /// How long a client waits before it asks again, if it does.
    pub resend: Option<Duration>,
    /// How many times longer than usual all backends take: what they share is busy.
    pub slow: Course<f64>,
    /// Whether backends are probed, and so found to be down or up again. Otherwise each stays what it was at the
    /// start, until a reply shows that it is up.
    pub is_probed: bool,
    /// When the config is loaded again, and the rules that each pool has then.
    pub reloads: Vec<(Duration, Vec<Rules>)>,
    /// Whether the invariants of the engine are checked after each event.
    pub is_audited: bool,
}

/// A pool of modelled backends.
#[derive(Clone, Debug)]
pub struct PoolModel {
    /// Its rules.
    pub rules: Rules,
    /// Its backends.
    pub backends: Vec<Model>,
}

impl Scenario {
    /// One pool, and 1,000 queries a second for a second, each for a name of its own.
    pub fn of_pool(rules: Rules, backends: Vec<Model>) -> Self {
        Self {
            pools: vec![PoolModel { rules, backends }],
            queries: 1_000,
            names: Names::Unique,
            ttl: None,
            gap: Duration::from_millis(1),
            resend: None,
            slow: Course::always(1.0),
            is_probed: false,
            reloads: Vec::new(),
            is_audited: false,
        }
    }
}

/// How a backend behaves. The default knows every name and replies after a millisecond.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its weight in the pool.
    pub weight: u16,
    /// Whether the pool takes it for up at the start.
    pub up: bool,
    /// How long it takes to reply, apart from its queue.
    pub delay: Course<Delay>,
    /// How many attempts it can deal with at a time; `None`: any number.
    pub capacity: Option<Capacity>,
    /// The chance that a datagram of an attempt is lost.
    pub loss: Course<f64>,
    /// When it stands still, as after SIGSTOP: what comes meanwhile waits.
    pub stalls: Vec<When>,
    /// The connections that it is asked by; `None`: it is asked by UDP.
    pub connections: Option<Connections>,
    /// When it is not there: ICMP says so, and what it had not replied to is lost.
    pub crashes: Vec<When>,
    /// The chance that it knows a name; it knows it in each attempt, or in none.
    pub knows: f64,
    /// Its reply to a name that it does not know; `None`: silence.
    pub miss: Option<Rank>,
    /// The chance that an attempt fails, with a reply that says so.
    pub failure: f64,
    /// The chance that a bare failure comes before the reply.
    pub bare: f64,
    /// The chance that an attempt meets an ICMP error, and no reply.
    pub unreachable: f64,
    /// Whether it refuses OPT.
    pub refuses_opt: bool,
}

/// The connections to a backend that is asked by stream. Nothing is lost on them while they last, but what follows a loss waits for that
/// to be sent again; and if one ends, all that waits there is lost.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    /// How many there are.
    pub max: u16,
    /// When all on one of them stands still; each has such times of its own.
    pub stalls: Vec<When>,
    /// At the beginnings of these one of them ends; each has such times of its own.
    pub ends: Vec<When>,
}

/// What makes further load cost something: attempts are dealt with in the order in which they come, by so many servers.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// How many attempts are dealt with at the same time, at least 1.
    pub servers: u16,
    /// How long one of them takes.
    pub service: Delay,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            weight: 1,
            up: true,
            delay: Course::always(Delay::Constant(Duration::from_millis(1))),
            capacity: None,
            loss: Course::always(0.0),
            stalls: Vec::new(),
            connections: None,
            crashes: Vec::new(),
            knows: 1.0,
            miss: Some(Rank::Nxdomain),
            failure: 0.0,
            bare: 0.0,
            unreachable: 0.0,
            refuses_opt: false,
        }
    }
}
