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

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Starts and watches the others; handles no queries.
    Supervisor,
    /// Reads the sockets.
    Server,
    /// Ready to serve, with config and zones loaded.
    Standby,
    /// Not ready yet.
    Starting,
    /// Finishes its queries in flight after it has served.
    Draining,
    /// Could not be started; the supervisor retries.
    Failed,
}

impl Role {
    /// All roles, by discriminant.
    pub const ALL: [Self; 6] =
        [Self::Supervisor, Self::Server, Self::Standby, Self::Starting, Self::Draining, Self::Failed];

    /// Returns the word for people and scripts, also the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Server => "server",
            Self::Standby => "standby",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Failed => "failed",
        }
    }
}

/// The reason why a process replaced another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takeover {
    /// The other process ended by itself.
    Crash,
    /// The other process made no progress and was killed.
    Hang,
    /// An operator asked for a restart, or only the other process was signaled to drain.
    Restart,
    /// An operator asked for an upgrade.
    Upgrade,
    /// The other process, of a new version, died on probation.
    Rollback,
}

impl Takeover {
    /// All reasons, by discriminant.
    pub const ALL: [Self; 5] = [Self::Crash, Self::Hang, Self::Restart, Self::Upgrade, Self::Rollback];

    /// Returns the metrics label, also used in the log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Hang => "hang",
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
            Self::Rollback => "rollback",
        }
    }
}

impl ProcessesSnapshot {
    /// Returns the number of processes with a role.
    pub fn count(&self, role: Role) -> u64 {
        self.processes.iter().filter(|process| process.role == role).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_and_reasons_stand_at_their_numbers() {
        assert!(Role::ALL.iter().enumerate().all(|(number, role)| *role as usize == number));
        assert!(Takeover::ALL.iter().enumerate().all(|(number, reason)| *reason as usize == number));
    }
}
