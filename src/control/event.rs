//! Events of a running server for its owner, which decides about them.

use std::{fmt, io};

use net::tasks::LostTask;
use thiserror::Error;
use tokio::sync::oneshot;

use super::InterfaceError;
use super::pools::CarriedPools;
use super::process::{ListenError, PrivilegeError};
use crate::admin::{ChangeRefusal, ProcessChange, SocketError};
use crate::worker::LostWorker;

/// An event that the owner of a server must handle.
#[derive(Debug)]
pub enum ServerEvent {
    /// A task of the server was lost.
    Lost(Loss),
    /// A request to start or stop another process.
    Asked(ProcessChange, Answer),
    /// New operator changes or states of backends, sent only if there are other processes.
    Known(CarriedPools),
    /// The latency of backends and the history for a process after a crash, sent only if there are other
    /// processes.
    Latency(Vec<u8>),
    /// A new version of a secondary zone was saved; sent only if there are other processes.
    ZoneSaved,
    /// A reload has begun; [`Reloaded`](Self::Reloaded) follows.
    Reloading,
    /// A reload is over; the listening sockets may have changed.
    Reloaded {
        /// The current edition of the config.
        edition: u64,
        /// The reason why the reload failed, if it did.
        error: Option<String>,
    },
}

/// The reply channel of a requested change: the result, or the reason of a refusal. Dropped when the server
/// ends.
pub type Answer = oneshot::Sender<Result<String, ChangeRefusal>>;

/// An unexpected end of a task: some clients get no answer. The owner of the server decides what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The number of the worker, unless the control thread ran the task.
    pub worker: Option<u16>,
    /// The lost task.
    pub lost: LostTask,
}

impl Loss {
    /// Logs that the process ends because of the loss. A process that continued would leave clients
    /// unanswered forever; a standby or a service manager replaces it.
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

/// An error that prevents the start of a server.
#[derive(Debug, Error)]
pub enum StartError {
    /// A listen address could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin socket could not be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The process could not change to the configured user.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// An interface is not available.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The operating system refused a thread or descriptors.
    #[error("cannot start: {0}")]
    Resources(#[from] io::Error),
}
