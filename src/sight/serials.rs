//! Which versions of zones the members of pools of replicas have, as JSON.

use serde::{Deserialize, Serialize};

/// All that is known of that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Serials {
    /// By pools, and the names of the zones.
    pub zones: Vec<Zone>,
    /// The pools whose backends are no replicas.
    pub no_replicas: Vec<String>,
}

/// A zone, as the members of a pool have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// The pool.
    pub pool: String,
    /// The name of the zone.
    pub zone: String,
    /// The newest serial among backends that take queries; null if there is none.
    pub newest: Option<u32>,
    /// Whether somebody has asked for a name in it within the last minute.
    pub in_use: bool,
    /// Who has which version.
    pub members: Vec<Member>,
}

/// The version that a member has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The member.
    pub backend: String,
    /// The serial that it has told last.
    pub serial: u32,
    /// When that was, or when it was asked last, Unix time.
    pub heard: f64,
    /// Since when another one has a newer version, Unix time; null if none has.
    pub older_since: Option<f64>,
    /// It is behind, in this zone or another: asked after the others.
    pub behind: bool,
}
