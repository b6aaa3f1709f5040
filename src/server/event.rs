//! What a running server tells whoever owns it, and cannot decide by itself.

use std::fmt;

use tokio::sync::oneshot;

use super::carried::Known;
use super::worker::LostWorker;
use crate::admin::{ProcessChange, Refused};
use crate::net::tasks::Lost;

/// Something that the owner of a server has to do with.
#[derive(Debug)]
pub enum ServerEvent {
    /// A part of the server is gone.
    Lost(Loss),
    /// The admin server is asked to have another process serve, or none.
    Asked(ProcessChange, Answer),
    /// By-hand changes or states of backends are these from now on; told if there are other processes.
    Known(Known),
    /// A zone of another server has another version, which is saved; told if there are other processes.
    ZoneSaved,
    /// A reload has begun; [`Reloaded`](Self::Reloaded) follows.
    Reloading,
    /// A reload is over, and with it other sockets may be listened on.
    Reloaded {
        /// The edition that is in force now.
        edition: u64,
        /// Why it is the one of before, if it is.
        error: Option<String>,
    },
}

/// The way back to whoever has asked for a change: what was done, or why not. Dropped, it says that the server ends.
pub type Answer = oneshot::Sender<Result<String, Refused>>;

/// Something has ended that should not have. What it did is not done any more: some clients get no answer. Whoever owns the
/// server decides what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The number of the worker that has ended with it, if it was not on the control thread.
    pub worker: Option<u16>,
    /// What it was.
    pub lost: Lost,
}

impl Loss {
    /// Tells that the process ends for it. Going on would leave those clients without an answer for ever whom the kernel sends there;
    /// a standby serves, or whoever started us starts us anew.
    pub fn report(&self) {
        tracing::error!(task = self.lost.kind.label(), worker = self.worker, "{self}; the process ends");
    }
}

impl From<LostWorker> for Loss {
    fn from(LostWorker { id, lost }: LostWorker) -> Self {
        Self { worker: Some(id.0), lost }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            Some(worker) => write!(f, "worker {worker}: {}", self.lost),
            None => write!(f, "control thread: {}", self.lost),
        }
    }
}
