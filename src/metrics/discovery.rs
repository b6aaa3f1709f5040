//! What there is to see of members that come by themselves: where they come from, and how the sources stand.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};

/// Where a member of a pool comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The config.
    Config,
    /// An operator, by hand.
    Hand,
    /// etcd.
    Etcd,
    /// A DNS name.
    Dns,
    /// A file.
    File,
}

impl Origin {
    /// All of them, the most binding first.
    pub const ALL: [Self; 5] = [Self::Config, Self::Hand, Self::Etcd, Self::Dns, Self::File];

    /// The word for people and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Hand => "hand",
            Self::Etcd => "etcd",
            Self::Dns => "dns",
            Self::File => "file",
        }
    }

    /// Whether that is a source, which lists members.
    pub fn is_source(self) -> bool {
        match self {
            Self::Config | Self::Hand => false,
            Self::Etcd | Self::Dns | Self::File => true,
        }
    }
}

/// What has become of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// It is one now.
    Joined,
    /// It is none any more.
    Left,
    /// It is listed no more and stays for now.
    Held,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Joined, Self::Left, Self::Held];

    /// The word for people and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Held => "held",
        }
    }
}

/// How a source stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// What it said last holds.
    Fresh,
    /// It cannot be asked.
    Stale,
    /// Nobody who is up goes by what it says.
    Doubted,
    /// It has never said anything.
    Never,
}

impl SourceState {
    /// The word for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Doubted => "doubted",
            Self::Never => "never",
        }
    }
}

/// What an order has done with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderWord {
    /// It finishes what it has, and gets no more queries.
    Drain,
    /// It is down, whatever probes find.
    Down,
    /// It is up, whatever probes find.
    Up,
}

impl OrderWord {
    /// The word for people and for etcd.
    pub fn label(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

/// A source of the members of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSnapshot {
    /// Its kind.
    pub origin: Origin,
    /// What it is, as the config names it.
    pub source: String,
    /// How it stands.
    pub state: SourceState,
    /// Why it cannot be asked, if it cannot.
    pub failure: Option<String>,
    /// Since when it has not confirmed its list; none: it never has.
    pub age: Option<Duration>,
    /// Members that it lists.
    pub members: u64,
    /// Entries that are wrong, each with the reason; not all of them, if there are very many.
    pub refused: Vec<(String, String)>,
    /// How many are wrong in all.
    pub refused_count: u64,
    /// How often what has become of members, in order of [`Change::ALL`].
    pub changes: [u64; 3],
}

/// An order for a backend, as it stands in etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What is to be done.
    pub order: OrderWord,
    /// Who gave it.
    #[serde(default)]
    pub by: String,
    /// When (RFC 3339).
    #[serde(default)]
    pub at: String,
    /// When it ends by itself (RFC 3339); none: when somebody takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Of each pool the sources, and of each authority whether it is registered.
#[derive(Debug)]
pub(super) struct DiscoveryExposition {
    pub(super) pools: Vec<(String, Vec<SourceSnapshot>)>,
    pub(super) registered: Vec<(String, bool)>,
}

impl Collector for DiscoveryExposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let sources =
            || self.pools.iter().flat_map(|(pool, all)| all.iter().map(move |source| (pool.as_str(), source)));
        let members = sources().map(|(pool, source)| (pool, source.origin, source.members));
        gauge(encoder, "hedgerow_discovery_members", "Members that a source lists", members)?;
        let is_fresh = |state| u64::from(state == SourceState::Fresh);
        let fresh = sources().map(|(pool, source)| (pool, source.origin, is_fresh(source.state)));
        gauge(encoder, "hedgerow_discovery_fresh", "Whether a source can be asked and is believed", fresh)?;
        let age = sources().filter_map(|(pool, source)| Some((pool, source.origin, source.age?.as_secs_f64())));
        gauge(encoder, "hedgerow_discovery_age_seconds", "Time since a source last confirmed its list", age)?;
        let refused = sources().map(|(pool, source)| (pool, source.origin, source.refused_count));
        gauge(encoder, "hedgerow_discovery_refused", "Entries of a source that are wrong", refused)?;
        let help = "What has become of members";
        let mut family = encoder.encode_descriptor(DISCOVERY_COUNTERS[0], help, None, MetricType::Counter)?;
        for (pool, source) in sources() {
            for (change, count) in Change::ALL.iter().zip(source.changes) {
                let labels = [("pool", pool), ("source", source.origin.label()), ("change", change.label())];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&count, None)?;
            }
        }
        let help = "Whether an authority is listed in etcd";
        let mut family = encoder.encode_descriptor("hedgerow_registered", help, None, MetricType::Gauge)?;
        for (authority, is_registered) in &self.registered {
            family.encode_family(&[("authority", authority.as_str())])?.encode_gauge(&u64::from(*is_registered))?;
        }
        Ok(())
    }
}

/// Writes a gauge of each source.
fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (&'a str, Origin, impl EncodeGaugeValue)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (pool, origin, value) in samples {
        family.encode_family(&[("pool", pool), ("source", origin.label())])?.encode_gauge(&value)?;
    }
    Ok(())
}

/// The families here whose samples end in `_total`, without that.
pub(super) const DISCOVERY_COUNTERS: [&str; 1] = ["hedgerow_discovery_changes"];
