//! The rules of a pool with their defaults. `hedge` applies those that are not of DNS.

use hedge::balance::Balance;
use hedge::{AttemptTimeout, Dispatch, Expect, HealthRules, RaceRules};

use super::{Accept, PassingRules};

/// The rules of one pool (docs/src/contract.md, Configuration). All bounds are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolRules {
    /// The rules of races.
    pub race: RaceRules,
    /// The replies that end a race at once.
    pub accept: Accept,
    /// True if a reply with a decision as extended error ends a race at once, whatever `accept`.
    pub believe_ede: bool,
    /// The answer if a backend is up, but none replied in time.
    pub on_timeout: Silence,
    /// The answer if no backend is up.
    pub on_all_down: Silence,
    /// The rules of health checks.
    pub health: HealthRules,
    /// The backends of lower tiers that must be up, so that a spare gets no turns.
    pub min_up: u16,
    /// The content that passes.
    pub passing: PassingRules,
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
            race: RaceRules { dispatch: Dispatch::Race, ..RaceRules::default() },
            accept: Accept::Positive,
            believe_ede: true,
            on_timeout: Silence::Nxdomain,
            on_all_down: Silence::Nxdomain,
            health: HealthRules::default(),
            // A spare costs more than a turn, so one backend that is up is enough.
            min_up: 1,
            passing: PassingRules::default(),
        };
        match serves {
            Serves::Split => split,
            // NXDOMAIN would deny existing names (RFC 2308 section 7 has SERVFAIL for unreachable servers).
            Serves::Same => Self {
                race: RaceRules {
                    dispatch: Dispatch::Hedge,
                    balance: Balance::Fastest,
                    // Tables may be silent on a miss, which looks like a loss.
                    attempt_timeout: AttemptTimeout::AUTO,
                    ..split.race
                },
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
