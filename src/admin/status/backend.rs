//! The status of a backend: its state, work and membership.

use std::time::{Duration, SystemTime};

use dns::address::BackendAddress;
use metrics::{BackendCounts, BackendOrder, BackendSnapshot, BackendState, MemberOrigin, MembershipSnapshot};
use serde::{Deserialize, Serialize};

use super::{ByKind, LatencyBucket, Percentiles, age, date};
use crate::control::observe::sight::live::BackendMinute;

/// The status of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// The backend's label.
    pub name: String,
    /// The backend's address.
    pub address: BackendAddress,
    /// The transport and its connections.
    #[serde(flatten)]
    pub transport: TransportStatus,
    /// The reason why the last probe failed; null after a good one.
    #[serde(default)]
    pub probe_problem: Option<String>,
    /// Share of the load.
    pub weight: u16,
    /// `up`, `down`, `new` (gets no queries before it has answered a probe) or `draining`.
    pub state: String,
    /// True if an operator has set the state; probes do not change it.
    pub by_hand: bool,
    /// The time at which the operator's setting or drain ends (RFC 3339); null if it does not end by itself.
    #[serde(default)]
    pub by_hand_until: Option<String>,
    /// The time of the last state change (RFC 3339).
    pub since: String,
    /// The seconds since then.
    pub since_seconds: u64,
    /// Attempts and replies since the start.
    #[serde(flatten)]
    pub work: WorkStatus,
    /// The membership in the pool.
    #[serde(flatten)]
    pub membership: MembershipStatus,
}

/// The transport to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportStatus {
    /// `udp`, `tcp` or `tls`.
    #[serde(default = "udp", rename = "transport")]
    pub word: String,
    /// Open connections; null for UDP.
    #[serde(default)]
    pub open_connections: Option<u64>,
    /// The error of the last failed connect; null after a success and for UDP.
    #[serde(default)]
    pub connection_problem: Option<String>,
}

/// The attempts at a backend, and its replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkStatus {
    /// Attempts without a reply yet.
    pub in_flight: u64,
    /// The time to reply without probes, since the start.
    pub latency_ms: Percentiles,
    /// The complete latency histogram, in ascending order. `hedgerow simulate` reads it.
    #[serde(default)]
    pub latency_histogram: Vec<LatencyBucket>,
    /// Attempts by kind.
    pub attempts: ByKind,
    /// Attempts whose answer went to the client, by kind.
    pub wins: ByKind,
    /// Attempts that failed: a failure reply, or a backend that is down and unreachable.
    pub errors: u64,
    /// Attempts without a reply for `attempt_timeout`.
    pub timeouts: u64,
    /// The last minute; null if there are too many backends to record.
    #[serde(default)]
    pub last_minute: Option<BackendMinute>,
}

/// The membership of a backend in its pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MembershipStatus {
    /// The tier: 0, or 1 to 3 for a spare.
    pub tier: u8,
    /// The sources of the membership: `config`, `hand`, `etcd`, `dns`, `file`.
    pub origin: Vec<MemberOrigin>,
    /// True if a source lists it now.
    pub listed: bool,
    /// True if it has had an older zone version than others for too long.
    pub behind: bool,
    /// The order for the backend; null if there is none.
    pub order: Option<BackendOrder>,
}

impl BackendStatus {
    pub(super) fn of(backend: &BackendSnapshot, last_minute: Option<BackendMinute>, now: SystemTime) -> Self {
        let BackendCounts { attempts, wins, pending, errors, timeouts, connections, latency, .. } = &backend.counts;
        let by_kind = |[first, hedge, failover]: [u64; 3], probe| ByKind { first, hedge, failover, probe };
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = |(from, to, count)| LatencyBucket { from_us: micros(from), to_us: micros(to), count };
        let work = WorkStatus {
            in_flight: pending.in_flight.0,
            latency_ms: Percentiles::of(latency),
            latency_histogram: latency.buckets().map(bucket).collect(),
            attempts: by_kind(*attempts, Some(backend.probes)),
            wins: by_kind(*wins, None),
            errors: *errors,
            timeouts: *timeouts,
            last_minute,
        };
        let MembershipSnapshot { tier, origin, is_listed, order } = &backend.membership;
        let membership = MembershipStatus {
            tier: *tier,
            origin: origin.clone(),
            listed: *is_listed,
            behind: backend.state == BackendState::Behind,
            order: order.clone(),
        };
        let transport = TransportStatus {
            word: backend.address.scheme.word().map_or_else(udp, str::to_owned),
            open_connections: connections.as_ref().map(|connections| connections.open.0),
            connection_problem: backend.connection_problem.clone(),
        };
        Self {
            name: backend.name.clone(),
            address: backend.address,
            transport,
            probe_problem: backend.probe_problem.clone(),
            weight: backend.weight,
            state: backend.state.label().to_owned(),
            by_hand: backend.by_hand,
            by_hand_until: backend.by_hand_until.map(date),
            since: date(backend.since),
            since_seconds: age(backend.since, now),
            work,
            membership,
        }
    }
}

fn udp() -> String {
    "udp".to_owned()
}
