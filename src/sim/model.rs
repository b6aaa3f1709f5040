//! What is played: a pool of modelled backends, and the queries that come to it.

use std::time::Duration;

use super::delay::Delay;
use super::spells::{Course, When};
use crate::policy::{Rank, Rules};

/// A pool, and the queries that come to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The rules of the pool.
    pub rules: Rules,
    /// Its backends.
    pub backends: Vec<Model>,
    /// How many queries come, each for a name of its own.
    pub queries: usize,
    /// The mean time between two of them, which come by chance.
    pub gap: Duration,
    /// How long a client waits before it asks again, if it does.
    pub resend: Option<Duration>,
    /// How many times longer than usual all backends take: what they share is busy.
    pub slow: Course<f64>,
    /// Whether backends are probed, and so found to be down or up again. Otherwise each stays what it was at the start.
    pub is_probed: bool,
}

impl Default for Scenario {
    /// Two backends that always reply after a millisecond.
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            backends: vec![Model::default(); 2],
            queries: 1_000,
            gap: Duration::from_millis(1),
            resend: None,
            slow: Course::always(1.0),
            is_probed: false,
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
