//! The inputs and outputs of the tree.

use std::fmt;
use std::time::Duration;

use config::limits;
use metrics::Takeover;
use serde::{Deserialize, Serialize};

pub(in crate::supervisor) type Pid = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct TreeRules {
    pub(in crate::supervisor) standbys: usize,
    pub(in crate::supervisor) watchdog: Option<Duration>,
}

impl TreeRules {
    /// Applies the limits of the config, because another process sent the rules.
    pub(in crate::supervisor) fn clamped(self) -> Self {
        let watchdog = self.watchdog.map(|watchdog| watchdog.clamp(limits::WATCHDOG.min, limits::WATCHDOG.max));
        Self { standbys: self.standbys.min(limits::STANDBYS.max), watchdog }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Purpose {
    First,
    Stand,
    Newcomer(ChangeKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) enum ChangeKind {
    /// Replacement by a process of the same program.
    Restart,
    /// Replacement by the program at the path of the first start.
    Upgrade,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) enum ProcessOrder {
    End,
    /// Take no more queries, finish pending ones and end without a successor.
    Drain,
    /// Take no more queries, finish pending ones and end, while a standby takes over.
    HandOver,
    Ping,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum TreeStep {
    Start(Purpose),
    Kill(Pid),
    Send(Pid, ProcessOrder),
    TookOver {
        pid: Pid,
        after: Option<Pid>,
        reason: Takeover,
        took: Duration,
    },
    Delayed {
        problem: String,
        delay: Duration,
    },
    Changed(ChangeKind, Result<(), String>),
    /// An upgrade has passed its probation, so its config stays.
    Proven,
    /// The new server has died too soon after an upgrade.
    RolledBack(String),
    ExecInPlace,
    Exit(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum ProcessEnd {
    Status(i32),
    Signal(i32),
    Unknown,
}

impl ChangeKind {
    pub(in crate::supervisor) fn label(self) -> &'static str {
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
pub(in crate::supervisor) const SETTLE: Duration = Duration::from_millis(100);

pub(in crate::supervisor) const END_WITHIN: Duration = Duration::from_millis(100);

/// The time that a server with a signal to end waits for a successor.
pub(in crate::supervisor) const PATIENCE: Duration = Duration::from_secs(5);

/// The time that a new program must serve before the old one ends.
pub(in crate::supervisor) const PROBATION: Duration = Duration::from_secs(10);

pub(in crate::supervisor) const NEWCOMER_PATIENCE: Duration = Duration::from_secs(30);

/// The number of unanswered pings that means that the server makes no progress.
pub(in crate::supervisor) const PINGS: u32 = 3;
