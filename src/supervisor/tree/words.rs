//! What the tree is told, and what it says.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::limits;
use crate::metrics::Takeover;

/// A process, by the number that the system gives it.
pub(in crate::supervisor) type Pid = u32;

/// What the config says of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct Rules {
    /// How many stand by.
    pub(in crate::supervisor) standbys: usize,
    /// Who is not heard of for so long is killed.
    pub(in crate::supervisor) watchdog: Option<Duration>,
}

impl Rules {
    /// These rules within the limits of the config: another process sent them.
    pub(in crate::supervisor) fn clamped(self) -> Self {
        let watchdog = self.watchdog.map(|watchdog| watchdog.clamp(limits::WATCHDOG.min, limits::WATCHDOG.max));
        Self { standbys: self.standbys.min(limits::STANDBYS.max), watchdog }
    }
}

/// What a process is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Purpose {
    /// To be the first server: what it has to say of the config, the operator hears.
    First,
    /// To stand by, or to serve if nobody does.
    Stand,
    /// To take over from the server.
    Newcomer(ChangeKind),
}

/// A planned change of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) enum ChangeKind {
    /// To another process of the same program.
    Restart,
    /// To the program that lies where this one was started from.
    Upgrade,
}

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) enum Word {
    /// End at once: it does not serve.
    End,
    /// Take no more queries, finish those in flight, and end: nobody comes after.
    Drain,
    /// The same, while a standby takes over.
    HandOver,
    /// Say that you make progress.
    Ping,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Step {
    /// Start a process; `started` or `not_started` tells what came of it.
    Start(Purpose),
    /// SIGKILL.
    Kill(Pid),
    Tell(Pid, Word),
    /// Another process serves.
    TookOver {
        pid: Pid,
        after: Option<Pid>,
        reason: Takeover,
        took: Duration,
    },
    /// A place stays empty for so long.
    Delayed {
        problem: String,
        delay: Duration,
    },
    /// The change has come to its end; whoever has asked for it is told.
    Changed(ChangeKind, Result<(), String>),
    /// The new server of an upgrade has served for long enough: what it put in force stays.
    Proven,
    /// The new server has died too soon after an upgrade.
    RolledBack(String),
    /// All processes run the new program, but the supervisor.
    ExecInPlace,
    /// All is over; with this exit status.
    Exit(u8),
}

/// How a process has ended, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Ended {
    Status(i32),
    Signal(i32),
    /// It was no child of ours.
    Unknown,
}

impl ChangeKind {
    /// The word for people.
    pub(in crate::supervisor) fn label(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Upgrade => "upgrade",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("status unknown, since an earlier supervisor started it"),
        }
    }
}
