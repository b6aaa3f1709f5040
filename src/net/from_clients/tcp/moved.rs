//! Connections that move from one process to its successor as they become idle.
//!
//! ```text
//!   old process                              its successor
//!   Connections::move_out                    Connections::adopt
//!     ──▶ each connection: hand nothing        ──▶ queue ──▶ a listener's task: limits and place anew,
//!     over, read nothing, answer what is           serve what was read, and go on
//!     in flight, write it, give up the socket
//!     ──▶ MovedConnection ──▶ (sent) ──▶
//! ```
//!
//! Unhandled input moves along, so no byte is lost and none is read twice.

use std::future::pending;
use std::os::fd::OwnedFd;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A client's connection between two processes.
#[derive(Debug)]
pub struct MovedConnection {
    /// The section of the connection, as passed to
    /// [`ConnectionTable::move_out`](super::ConnectionTable::move_out).
    pub section: String,
    /// Unhandled input.
    pub input: Vec<u8>,
    /// The socket of the connection.
    pub socket: OwnedFd,
}

#[derive(Clone, Debug)]
pub(crate) struct WayOut {
    pub(crate) section: String,
    pub(crate) to: UnboundedSender<MovedConnection>,
}

#[derive(Debug)]
pub(crate) struct AdoptedConnections {
    to: UnboundedSender<MovedConnection>,
    waiting: Mutex<UnboundedReceiver<MovedConnection>>,
}

impl Default for AdoptedConnections {
    fn default() -> Self {
        let (to, waiting) = unbounded_channel();
        Self { to, waiting: Mutex::new(waiting) }
    }
}

impl AdoptedConnections {
    pub(crate) fn push(&self, moved: MovedConnection) {
        let _ = self.to.send(moved);
    }

    /// Waits for the next connection. Waiting tasks are served in order. Cancel safe.
    pub(crate) async fn next(&self) -> MovedConnection {
        match self.waiting.lock().await.recv().await {
            Some(moved) => moved,
            // The sender is in this value as well.
            None => pending().await,
        }
    }
}
