//! The state of discovered members and their sources.

use std::time::Duration;

use serde::{Deserialize, Serialize};

dns::labels! {
    /// The origin of a pool's member.
    #[derive(PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum MemberOrigin {
        /// The config file.
        Config = "config",
        /// An operator's command.
        Hand = "hand",
        /// The etcd cluster.
        Etcd = "etcd",
        /// A DNS name.
        Dns = "dns",
        /// A member file.
        File = "file",
    }
}

impl MemberOrigin {
    /// Returns true for sources that list members.
    pub fn is_source(self) -> bool {
        match self {
            Self::Config | Self::Hand => false,
            Self::Etcd | Self::Dns | Self::File => true,
        }
    }
}

dns::labels! {
    /// A change of membership.
    #[derive(Hash)]
    pub enum MembershipChange {
        /// The member was added.
        Joined = "joined",
        /// The member was removed.
        Left = "left",
        /// The member is no longer listed and stays for now.
        Held = "held",
    }
}

dns::labels! {
    /// The state of a source.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum SourceState {
        /// The last list is current.
        Fresh = "fresh",
        /// The source is unreachable.
        Stale = "stale",
        /// No backend that is up follows the list.
        Doubted = "doubted",
        /// The source has never returned a list.
        Never = "never",
    }
}

dns::labels! {
    /// The action of an order.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum OrderWord {
        /// Finishes its attempts in flight and gets no new ones.
        Drain = "drain",
        /// Down, regardless of probes.
        Down = "down",
        /// Up, regardless of probes.
        Up = "up",
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
    pub changes: [u64; MembershipChange::ALL.len()],
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
