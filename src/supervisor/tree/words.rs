//! The inputs and outputs of the tree, and what it knows of a process.

use std::fmt;
use std::time::{Duration, Instant};

use config::limits;
use metrics::{Role, Takeover};
use serde::{Deserialize, Serialize};

/// The number of a process.
pub type Pid = u32;

/// The settings of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRules {
    /// The number of processes that stand by.
    pub standbys: usize,
    /// The time without progress after which a process is killed; `None` disables this.
    pub watchdog: Option<Duration>,
}

impl TreeRules {
    /// Applies the limits of the config, because another process sent the rules.
    pub fn clamped(self) -> Self {
        let watchdog = self.watchdog.map(|watchdog| watchdog.clamp(limits::WATCHDOG.min, limits::WATCHDOG.max));
        Self { standbys: self.standbys.min(limits::STANDBYS.max), watchdog }
    }
}

/// The purpose of a process that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The first process, which serves.
    First,
    /// A standby.
    Stand,
    /// The successor of the server in a change.
    Newcomer(ChangeKind),
}

/// The kind of a change of the server process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// Replacement by a process of the same program.
    Restart,
    /// Replacement by the program at the path of the first start.
    Upgrade,
}

/// An order to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessOrder {
    /// End without serving.
    End,
    /// Take no more queries, finish pending ones and end without a successor.
    Drain,
    /// Take no more queries, finish pending ones and end, while a standby takes over.
    HandOver,
    /// Show progress.
    Ping,
}

/// A step that the supervisor carries out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeStep {
    /// Start a process, then call [`Tree::started`](super::Tree::started) or `not_started`.
    Start(Purpose),
    /// Kill a process.
    Kill(Pid),
    /// Send an order to a process.
    Send(Pid, ProcessOrder),
    /// Report a takeover.
    TookOver {
        /// The process that serves now.
        pid: Pid,
        /// The process that served before.
        after: Option<Pid>,
        /// The cause of the takeover.
        reason: Takeover,
        /// The time between getting the lock and serving.
        took: Duration,
    },
    /// Report that the next start waits.
    Delayed {
        /// The cause of the wait.
        problem: String,
        /// The length of the wait.
        delay: Duration,
    },
    /// Report that a change waits until the process before has ended.
    Waits(ChangeKind),
    /// Report the result of a change.
    Changed(ChangeKind, Result<(), String>),
    /// An upgrade has passed its probation, so its config stays.
    Proven,
    /// The new server has died too soon after an upgrade.
    RolledBack(String),
    /// Replace the program of the supervisor by the new one.
    ExecInPlace,
    /// End with this status.
    Exit(u8),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) role: Role,
    pub(super) generation: u8,
    /// True if this supervisor has caused the end of the process.
    pub(super) is_leaving: bool,
    pub(super) since: Instant,
    pub(super) heard: Instant,
}

impl Process {
    /// Returns true if the process can serve when no other is left.
    pub(super) fn counts(&self) -> bool {
        !self.is_leaving && self.role != Role::Draining
    }

    pub(super) fn serves_or_drains(&self) -> bool {
        matches!(self.role, Role::Server | Role::Draining)
    }
}

/// The way in which a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// It exited with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// The way is unknown, because an earlier supervisor started the process.
    Unknown,
}

impl ChangeKind {
    /// Returns the word for logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
        }
    }
}

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("status unknown, since an earlier supervisor started it"),
        }
    }
}

/// Enough for introductions, because processes send them as soon as their channels have closed.
pub(super) const SETTLE: Duration = Duration::from_millis(100);

pub(super) const END_WITHIN: Duration = Duration::from_millis(100);

/// The time that a server with a signal to end waits for a successor.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The time that a new program must serve before the old one ends.
pub(super) const PROBATION: Duration = Duration::from_secs(10);

pub(super) const NEWCOMER_PATIENCE: Duration = Duration::from_secs(30);

/// The number of unanswered pings that means that the server makes no progress.
pub(super) const PINGS: u32 = 3;
