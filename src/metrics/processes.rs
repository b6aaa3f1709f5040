//! The processes that one hedgerow consists of: who is what, since when, and how often somebody has taken over.
//!
//! Plain data. Who knows the processes fills it: the supervisor tells the server, and a server without one lists itself.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// All processes at one moment, and what has become of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessesSnapshot {
    /// The supervisor, if there is one.
    pub supervisor: Option<SupervisorSnapshot>,
    /// All processes, the supervisor included.
    pub processes: Vec<ProcessSnapshot>,
    /// How often a process has begun to serve in the place of another, in order of [`Takeover::ALL`].
    pub takeovers: [u64; Takeover::ALL.len()],
    /// The moment of the last takeover after a crash or a hang, since 1970.
    #[serde(default)]
    pub crashed_at: Option<Duration>,
}

/// The process that starts and watches the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorSnapshot {
    /// Its process ID.
    pub pid: u32,
    /// Since when it is the supervisor.
    pub since: SystemTime,
    /// How often a standby has succeeded a supervisor that died.
    pub successions: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSnapshot {
    /// Its process ID.
    pub pid: u32,
    /// What it is to the others.
    pub role: Role,
    /// Of the program that it runs.
    pub version: String,
    /// The edition of the config that it has.
    pub edition: u64,
    /// Since when it has this role.
    pub since: SystemTime,
    /// What keeps it from its work.
    pub problem: Option<String>,
}

/// What a process is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Starts and watches the others; has no part in any query.
    Supervisor,
    /// Reads the sockets.
    Server,
    /// Waits to serve, with config and zones loaded.
    Standby,
    /// Is not ready for any of these yet.
    Starting,
    /// Has served, and finishes what it has in flight.
    Draining,
    /// Could not be started; it is tried again.
    Failed,
}

impl Role {
    /// All, in order of their number.
    pub const ALL: [Self; 6] =
        [Self::Supervisor, Self::Server, Self::Standby, Self::Starting, Self::Draining, Self::Failed];

    /// The word for people and scripts, and the label in metrics.
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

/// Why a process serves in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takeover {
    /// The other has ended by itself.
    Crash,
    /// The other made no progress, and was killed for that.
    Hang,
    /// A restart was asked for, or the other alone was told to drain.
    Restart,
    /// An upgrade was asked for.
    Upgrade,
    /// The other, of a new version, died on its probation.
    Rollback,
}

impl Takeover {
    /// All, in order of their number.
    pub const ALL: [Self; 5] = [Self::Crash, Self::Hang, Self::Restart, Self::Upgrade, Self::Rollback];

    /// The label in metrics, and the word in the log.
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
    /// How many have a role.
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
