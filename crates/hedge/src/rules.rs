//! The rules of a pool with their defaults, bounds and names. `config/` parses them; `race`, `balance` and
//! `health` apply them.

use std::time::Duration;

use super::balance::Balance;
use super::race::Accept;

/// The rules of one pool (docs/src/contract.md, Configuration). `config/` has checked all bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRules {
    /// The way to ask backends.
    pub dispatch: Dispatch,
    /// `race` only: number of backends asked at once; 0 means all.
    pub fanout: u16,
    /// The order of backends.
    pub balance: Balance,
    /// The replies that end a race at once.
    pub accept: Accept,
    /// True if a reply with a decision as extended error ends a race at once, whatever `accept`.
    pub believe_ede: bool,
    /// The client's deadline.
    pub timeout: Duration,
    /// The time that a kept negative reply waits for a better one.
    pub grace: Grace,
    /// Silence after which the next backend (or try) is due.
    pub attempt_timeout: Duration,
    /// The number of times one backend may be asked for one query.
    pub tries: u8,
    /// The answer if a backend is up, but none replied in time.
    pub on_timeout: Silence,
    /// The answer if no backend is up.
    pub on_all_down: Silence,
    /// The rules of hedges.
    pub hedge: Hedge,
    /// The rules of health checks.
    pub health: HealthRules,
}

/// `pools.*.serves`: the names that each backend knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Some of the names: another backend may have a name that one denies.
    Split,
    /// All names, as resolvers and replicas do.
    Same,
}

impl PoolRules {
    /// Returns the defaults of a pool of this kind.
    pub fn of(serves: Serves) -> Self {
        let split = Self {
            dispatch: Dispatch::Race,
            fanout: 0,
            balance: Balance::RoundRobin,
            accept: Accept::Positive,
            believe_ede: true,
            timeout: Duration::from_secs(3),
            grace: Grace::Off,
            attempt_timeout: Duration::from_secs(1),
            tries: 1,
            on_timeout: Silence::Nxdomain,
            on_all_down: Silence::Nxdomain,
            hedge: Hedge::default(),
            health: HealthRules::default(),
        };
        match serves {
            Serves::Split => split,
            // NXDOMAIN would deny existing names (RFC 2308 section 7 has SERVFAIL for unreachable servers).
            Serves::Same => Self {
                dispatch: Dispatch::Hedge,
                balance: Balance::Fastest,
                accept: Accept::Conclusive,
                on_timeout: Silence::Servfail,
                on_all_down: Silence::Servfail,
                health: HealthRules { expect: Expect::NoFailure, ..split.health },
                ..split
            },
        }
    }

    /// Returns true if a client gets NXDOMAIN for any name when no backend replies.
    pub fn denies_in_an_outage(&self) -> bool {
        [self.on_timeout, self.on_all_down].contains(&Silence::Nxdomain)
    }
}

impl Default for PoolRules {
    fn default() -> Self {
        Self::of(Serves::Split)
    }
}

/// The way to ask backends (docs/src/contract.md, Races).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// `fanout` backends at once.
    Race,
    /// One, and the next after the hedge delay, within the budget.
    Hedge,
    /// One, and the next after `attempt_timeout` or failure.
    Sequential,
}

/// The time that a kept negative reply waits for a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Until every backend has replied or the deadline has come.
    Off,
    /// Three times the p99 of the silent backends' latency, at least 5 ms, at most `attempt_timeout`.
    Auto,
    /// A fixed time.
    After(Duration),
}

/// The response to the client when no backend's reply is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// A synthesized NXDOMAIN.
    Nxdomain,
    /// SERVFAIL.
    Servfail,
    /// REFUSED.
    Refused,
    /// No response; counted as dropped.
    Drop,
}

/// `[pools.*.hedge]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// The time before a hedge.
    pub delay: HedgeDelay,
    /// Lower clamp of a percentile or automatic delay.
    pub min_delay: Duration,
    /// Upper clamp of a percentile or automatic delay, and the delay until enough samples are in.
    pub max_delay: Duration,
    /// Hedges per client query, over time, 0.0 to 1.0.
    pub budget: f64,
    /// Hedges per query.
    pub max: u8,
}

impl Default for Hedge {
    fn default() -> Self {
        Self {
            delay: HedgeDelay::Auto,
            min_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(250),
            budget: 0.05,
            max: 1,
        }
    }
}

/// The delay of a hedge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeDelay {
    /// The percentile that the budget can pay for, a little above `1 - budget` (see `latency`).
    Auto,
    /// A percentile of the asked backend's own latency, 0.5 to 0.999 (`"p50"` to `"p99.9"`).
    Percentile(f64),
    /// A fixed time, not clamped.
    Fixed(Duration),
}

/// `[pools.*.health]`: timing and thresholds of probes. `config` sets the probe question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthRules {
    /// Time between probes to one backend.
    pub interval: Duration,
    /// Also probe after so many queries to the pool; 0 disables this.
    pub every_queries: u32,
    /// The time that a probe waits for its reply.
    pub timeout: Duration,
    /// Consecutive missed probes before a backend is down.
    pub fall: u8,
    /// Consecutive good probes before a backend is up.
    pub rise: u8,
    /// The replies to a probe that count as good.
    pub expect: Expect,
}

/// `pools.*.health.expect`: the replies to a probe that count as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any reply.
    Reply,
    /// Any reply that is no failure.
    NoFailure,
}

impl Default for HealthRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            every_queries: 0,
            timeout: Duration::from_secs(1),
            fall: 2,
            rise: 2,
            expect: Expect::Reply,
        }
    }
}
