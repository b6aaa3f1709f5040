//! The rules of races and of probes, with their defaults.

use std::time::Duration;

use super::balance::Balance;
use super::latency::Latency;
use super::tuning::FIRST_STEP;

/// The rules of the races among the backends of a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct RaceRules {
    /// The way to ask backends.
    pub dispatch: Dispatch,
    /// [`Dispatch::Race`] only: number of backends asked at once; 0 means all.
    pub fanout: u16,
    /// The order of backends.
    pub balance: Balance,
    /// The client's deadline.
    pub timeout: Duration,
    /// The time that a kept weak reply waits for a better one.
    pub grace: Grace,
    /// Silence after which the next backend (or try) is due.
    pub attempt_timeout: AttemptTimeout,
    /// The number of times that one race may ask the same backend, without early attempts of
    /// [`AttemptTimeout::AUTO`].
    pub tries: u8,
    /// The rules of hedges.
    pub hedge: Hedge,
}

impl Default for RaceRules {
    fn default() -> Self {
        Self {
            dispatch: Dispatch::Hedge,
            fanout: 0,
            balance: Balance::RoundRobin,
            timeout: Duration::from_secs(3),
            grace: Grace::Off,
            attempt_timeout: AttemptTimeout::after(AttemptTimeout::LONGEST),
            tries: 1,
            hedge: Hedge::default(),
        }
    }
}

impl RaceRules {
    /// Returns the rules with another dispatch. [`Dispatch::Auto`] sets the attempt timeout, unless that is
    /// not the default.
    pub fn with_dispatch(self, dispatch: Dispatch) -> Self {
        let is_default = self.attempt_timeout == Self::default().attempt_timeout;
        let is_set = dispatch == Dispatch::Auto && is_default;
        let attempt_timeout = if is_set { AttemptTimeout::AUTO } else { self.attempt_timeout };
        Self { dispatch, attempt_timeout, ..self }
    }

    /// Returns the time to wait for a backend with this latency before a hedge.
    #[inline]
    pub fn hedge_delay(&self, latency: &Latency) -> Duration {
        if self.dispatch != Dispatch::Auto {
            return latency.hedge_delay(&self.hedge);
        }
        let untuned = || latency.hedge_delay(&Hedge { budget: self.first_budget(), ..self.hedge });
        latency.tuned_delay().unwrap_or_else(untuned)
    }

    /// Returns the hedges per race before the first tuning, if there is any.
    pub fn first_budget(&self) -> f64 {
        match self.dispatch {
            Dispatch::Auto => self.hedge.budget.min(FIRST_STEP),
            Dispatch::Race | Dispatch::Hedge | Dispatch::Sequential => self.hedge.budget,
        }
    }
}

/// The way to ask backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// `fanout` backends at once.
    Race,
    /// One, and the next after the hedge delay, within the budget.
    Hedge,
    /// One, and the next after `attempt_timeout` or failure.
    Sequential,
    /// As [`Hedge`](Self::Hedge), with the delay and the probability of [`tuning`](crate::tuning).
    Auto,
}

impl Dispatch {
    /// Returns true if a late reply may cause a hedge.
    #[inline]
    pub const fn is_hedging(self) -> bool {
        matches!(self, Self::Hedge | Self::Auto)
    }
}

/// The silence after which the next backend (or try) is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptTimeout {
    longest: Duration,
    is_auto: bool,
}

impl AttemptTimeout {
    /// The retransmission timeout of the silent backend, if its allowance for early attempts pays; otherwise,
    /// and for streams, [`AttemptTimeout::LONGEST`].
    pub const AUTO: Self = Self { longest: Self::LONGEST, is_auto: true };

    /// The longest silence with [`AttemptTimeout::AUTO`].
    pub const LONGEST: Duration = Duration::from_secs(1);

    /// Returns a fixed time.
    pub const fn after(time: Duration) -> Self {
        Self { longest: time, is_auto: false }
    }

    /// Returns true for [`AttemptTimeout::AUTO`].
    #[inline]
    pub const fn is_auto(self) -> bool {
        self.is_auto
    }

    /// Returns the silence after which the next backend is due at the latest.
    #[inline]
    pub const fn longest(self) -> Duration {
        self.longest
    }
}

/// The time that a kept weak reply waits for a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Until every backend has replied or the deadline has come.
    Off,
    /// Three times the p99 of the silent backends' latency, at least 5 ms, at most `attempt_timeout`.
    Auto,
    /// A fixed time.
    After(Duration),
}

/// The rules of hedges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedge {
    /// The time before a hedge.
    pub delay: HedgeDelay,
    /// Lower clamp of a percentile or automatic delay.
    pub min_delay: Duration,
    /// Upper clamp of a percentile or automatic delay, and the delay until enough samples are in.
    pub max_delay: Duration,
    /// Hedges per race, over time, 0.0 to 1.0.
    pub budget: f64,
    /// Hedges per race.
    pub max: u8,
    /// [`Dispatch::Auto`] only: the part of the races (0.0 to 1.0) whose longest time shall be least.
    pub target: f64,
}

impl Default for Hedge {
    fn default() -> Self {
        Self {
            delay: HedgeDelay::Auto,
            min_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(250),
            budget: 0.05,
            max: 1,
            target: 0.999,
        }
    }
}

/// The delay of a hedge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HedgeDelay {
    /// The percentile that the budget can pay for, a little above `1 - budget` (see `latency`).
    Auto,
    /// A percentile of the asked backend's own latency, 0.5 to 0.999.
    Percentile(f64),
    /// A fixed time, not clamped.
    Fixed(Duration),
}

/// The timing and thresholds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthRules {
    /// Time between probes to one backend.
    pub interval: Duration,
    /// Also probe after so many requests to the pool; 0 disables this.
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

/// The replies to a probe that count as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Any reply.
    Reply,
    /// Any reply that is no failure.
    NoFailure,
    /// A reply that the caller finds to be an answer. Replies to requests prove nothing.
    Match,
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
