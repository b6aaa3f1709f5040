//! The state of discovered members and their sources.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use serde::{Deserialize, Serialize};

/// The origin of a pool's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberOrigin {
    /// The config file.
    Config,
    /// An operator's command.
    Hand,
    /// The etcd cluster.
    Etcd,
    /// A DNS name.
    Dns,
    /// A member file.
    File,
}

impl MemberOrigin {
    /// All origins, the highest priority first.
    pub const ALL: [Self; 5] = [Self::Config, Self::Hand, Self::Etcd, Self::Dns, Self::File];

    /// Returns the word for people and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Hand => "hand",
            Self::Etcd => "etcd",
            Self::Dns => "dns",
            Self::File => "file",
        }
    }

    /// Returns true for sources that list members.
    pub fn is_source(self) -> bool {
        match self {
            Self::Config | Self::Hand => false,
            Self::Etcd | Self::Dns | Self::File => true,
        }
    }
}

/// A change of membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MembershipChange {
    /// The member was added.
    Joined,
    /// The member was removed.
    Left,
    /// The member is no longer listed and stays for now.
    Held,
}

impl MembershipChange {
    /// All changes, by discriminant.
    pub const ALL: [Self; 3] = [Self::Joined, Self::Left, Self::Held];

    /// Returns the word for people and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Held => "held",
        }
    }
}

/// The state of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// The last list is current.
    Fresh,
    /// The source is unreachable.
    Stale,
    /// No backend that is up follows the list.
    Doubted,
    /// The source has never returned a list.
    Never,
}

impl SourceState {
    /// Returns the word for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Doubted => "doubted",
            Self::Never => "never",
        }
    }
}

/// The action of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderWord {
    /// Finishes its attempts in flight and gets no new ones.
    Drain,
    /// Down, regardless of probes.
    Down,
    /// Up, regardless of probes.
    Up,
}

impl OrderWord {
    /// Returns the word for people and for etcd.
    pub fn label(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

/// A source of a pool's members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceSnapshot {
    /// The kind of source.
    pub origin: MemberOrigin,
    /// The source as written in the config.
    pub source: String,
    /// The current state.
    pub state: SourceState,
    /// The reason why it is unreachable, if it is.
    pub failure: Option<String>,
    /// The time since the last confirmed list; `None` if there was none.
    pub age: Option<Duration>,
    /// The number of members that it lists.
    pub members: u64,
    /// Invalid entries with their reason; not all of them if there are very many.
    pub refused: Vec<(String, String)>,
    /// The number of all invalid entries.
    pub refused_count: u64,
    /// The number of each kind of change, in order of [`MembershipChange::ALL`].
    pub changes: [u64; 3],
}

/// An order for a backend, as stored in etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendOrder {
    /// The action to apply.
    pub order: OrderWord,
    /// The operator's name.
    #[serde(default)]
    pub by: String,
    /// The time of the order (RFC 3339).
    #[serde(default)]
    pub at: String,
    /// The expiry (RFC 3339); `None` means until revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

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
            for (change, count) in MembershipChange::ALL.iter().zip(source.changes) {
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

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (&'a str, MemberOrigin, impl EncodeGaugeValue)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (pool, origin, value) in samples {
        family.encode_family(&[("pool", pool), ("source", origin.label())])?.encode_gauge(&value)?;
    }
    Ok(())
}

pub(super) const DISCOVERY_COUNTERS: [&str; 1] = ["hedgerow_discovery_changes"];
