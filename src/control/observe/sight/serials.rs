//! Serials of the zones in pools of replicas, as JSON.

use serde::{Deserialize, Serialize};

/// All known serials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Serials {
    /// The zones by pool and name.
    pub zones: Vec<PoolZone>,
    /// The pools whose backends are no replicas.
    pub no_replicas: Vec<String>,
}

/// A zone with its serials in a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolZone {
    /// The pool.
    pub pool: String,
    /// The name of the zone.
    pub zone: String,
    /// The newest serial among backends that take queries; null if there is none.
    pub newest: Option<u32>,
    /// True if a client has asked for a name in it within the last minute.
    pub in_use: bool,
    /// The serials by member.
    pub members: Vec<MemberSerial>,
}

/// The serial of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberSerial {
    /// The member.
    pub backend: String,
    /// The last serial that it sent.
    pub serial: u32,
    /// The Unix time of that serial, or of the last query for it.
    pub heard: f64,
    /// The Unix time since which another member has a newer serial; null if none has.
    pub older_since: Option<f64>,
    /// True if the member is behind in any zone, so that it gets queries last.
    pub behind: bool,
}
