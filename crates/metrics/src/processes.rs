//! The processes of one hedgerow: roles, start times and takeovers, as reported by the supervisor.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// All processes at one moment, and the counts of takeovers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessesSnapshot {
    /// The supervisor, if there is one.
    pub supervisor: Option<SupervisorSnapshot>,
    /// All processes, the supervisor included.
    pub processes: Vec<ProcessSnapshot>,
    /// The number of takeovers, in order of [`Takeover::ALL`].
    pub takeovers: [u64; Takeover::ALL.len()],
    /// The Unix time of the last takeover after a crash or a hang.
    #[serde(default)]
    pub crashed_at: Option<Duration>,
}

/// The process that starts and watches the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorSnapshot {
    /// The process ID.
    pub pid: u32,
    /// The time since which it is the supervisor.
    pub since: SystemTime,
    /// The number of standbys that succeeded a dead supervisor.
    pub successions: u64,
}

/// A process of this hedgerow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSnapshot {
    /// The process ID.
    pub pid: u32,
    /// The current role.
    pub role: Role,
    /// The version of its program.
    pub version: String,
    /// The edition of its config.
    pub edition: u64,
    /// The time since which it has this role.
    pub since: SystemTime,
    /// The problem that keeps the process from its work.
    pub problem: Option<String>,
}

dns::labels! {
    /// The role of a process.
    #[derive(Serialize, Deserialize)]
    pub enum Role {
        /// Starts and watches the others; handles no queries.
        Supervisor = "supervisor",
        /// Reads the sockets.
        Server = "server",
        /// Ready to serve, with config and zones loaded.
        Standby = "standby",
        /// Not ready yet.
        Starting = "starting",
        /// Finishes its queries in flight after it has served.
        Draining = "draining",
        /// Could not be started; the supervisor retries.
        Failed = "failed",
    }
}

dns::labels! {
    /// The reason why a process replaced another.
    pub enum Takeover {
        /// The other process ended by itself.
        Crash = "crash",
        /// The other process made no progress and was killed.
        Hang = "hang",
        /// An operator asked for a restart, or only the other process was signaled to drain.
        Restart = "restart",
        /// An operator asked for an upgrade.
        Upgrade = "upgrade",
        /// The other process, of a new version, died on probation.
        Rollback = "rollback",
    }
}

impl ProcessesSnapshot {
    /// Returns the number of processes with a role.
    pub(crate) fn count(&self, role: Role) -> u64 {
        self.processes.iter().filter(|process| process.role == role).count() as u64
    }
}

/// The current resource usage of the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// The total CPU time.
    pub cpu: Duration,
    /// CPU time by worker number, as far as known.
    pub workers: Vec<(usize, Duration)>,
    /// Resident memory in bytes.
    pub resident: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The limit of open descriptors; `None` if there is no limit.
    pub max_fds: Option<u64>,
    /// The start of the process as Unix time.
    pub began: f64,
}
