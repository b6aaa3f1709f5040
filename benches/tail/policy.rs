//! The policies to compare: each a config of the release binary, which is equal for all faults.

use clap::ValueEnum;
use serde::Serialize;

use crate::common::forwarder;

/// A policy of the LS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Policy {
    /// One backend and no other: what the rest is measured by.
    First,
    /// One after the other, by turns.
    Sequential,
    /// Both at once.
    Race,
    /// A hedge after the p95 of the asked backend, 5 % at most.
    HedgeP95,
    /// A hedge after what a budget of 5 % pays for.
    #[value(name = "hedge-5")]
    #[serde(rename = "hedge-5")]
    Hedge5,
    /// The hedges that `dispatch = "auto"` chooses within a budget of 5 %.
    #[value(name = "auto-5")]
    #[serde(rename = "auto-5")]
    Auto5,
    /// A hedge after what a budget of 2 % pays for.
    #[value(name = "hedge-2")]
    #[serde(rename = "hedge-2")]
    Hedge2,
    /// A hedge after what a budget of 10 % pays for, and a silent backend is asked twice.
    #[value(name = "hedge-10")]
    #[serde(rename = "hedge-10")]
    Hedge10,
}

impl Policy {
    /// The name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first backend only",
            Self::Sequential => "sequential",
            Self::Race => "race",
            Self::HedgeP95 => "hedge p95, 5 %",
            Self::Hedge5 => "hedge auto, 5 %",
            Self::Auto5 => "auto, 5 %",
            Self::Hedge2 => "hedge auto, 2 %",
            Self::Hedge10 => "hedge auto, 10 %, tries 2",
        }
    }

    /// The config of the LS before these backends.
    pub(crate) fn config(self, workers: u32, backends: &[String]) -> String {
        let backends = match self {
            Self::First => &backends[..1],
            Self::Sequential
            | Self::Race
            | Self::HedgeP95
            | Self::Hedge5
            | Self::Auto5
            | Self::Hedge2
            | Self::Hedge10 => backends,
        };
        let hedge = |delay: &str, budget: f64, tries: u32| {
            format!(
                "dispatch = \"hedge\"\ntries = {tries}\n[pools.bench.hedge]\ndelay = \"{delay}\"\nbudget = {budget}"
            )
        };
        let rules = match self {
            Self::First => "dispatch = \"sequential\"\nbalance = \"ordered\"".to_owned(),
            Self::Sequential => "dispatch = \"sequential\"".to_owned(),
            Self::Race => "dispatch = \"race\"".to_owned(),
            Self::HedgeP95 => hedge("p95", 0.05, 1),
            Self::Hedge5 => hedge("auto", 0.05, 1),
            Self::Auto5 => "dispatch = \"auto\"\n[pools.bench.hedge]\nbudget = 0.05".to_owned(),
            Self::Hedge2 => hedge("auto", 0.02, 1),
            Self::Hedge10 => hedge("auto", 0.1, 2),
        };
        // The backends hold the same names; a client of the bench waits as long as the LS.
        let rules = format!("accept = \"conclusive\"\nattempt_timeout = \"auto\"\ntimeout = \"{TIMEOUT}s\"\n{rules}");
        forwarder::config_of(workers, forwarder::ANY_PORT, backends, &rules)
    }
}

/// Silence after which a query is lost, in seconds. Stub resolvers commonly give a query up then.
pub(crate) const TIMEOUT: u32 = 5;
