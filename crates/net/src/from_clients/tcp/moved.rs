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

use std::os::fd::OwnedFd;

use crossbeam_queue::SegQueue;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

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

#[derive(Debug, Default)]
pub(crate) struct AdoptedConnections {
    waiting: SegQueue<MovedConnection>,
    added: Notify,
}

impl AdoptedConnections {
    pub(crate) fn push(&self, moved: MovedConnection) {
        self.waiting.push(moved);
        self.added.notify_one();
    }

    /// Waits for the next connection. Waiting tasks are served in order. Cancel safe.
    pub(crate) async fn next(&self) -> MovedConnection {
        loop {
            if let Some(moved) = self.waiting.pop() {
                return moved;
            }
            self.added.notified().await;
        }
    }
}
