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

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

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
pub(in crate::net::from_clients) struct WayOut {
    pub(in crate::net::from_clients) section: String,
    pub(in crate::net::from_clients) to: UnboundedSender<MovedConnection>,
}

#[derive(Debug, Default)]
pub(in crate::net::from_clients) struct AdoptedConnections {
    waiting: Mutex<VecDeque<MovedConnection>>,
    come: Notify,
}

impl AdoptedConnections {
    pub(in crate::net::from_clients) fn push(&self, moved: MovedConnection) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(moved);
        self.come.notify_one();
    }

    /// Waits for the next connection. Waiting tasks are served in order. Cancel safe.
    pub(in crate::net::from_clients) async fn next(&self) -> MovedConnection {
        loop {
            if let Some(moved) = self.take() {
                return moved;
            }
            self.come.notified().await;
        }
    }

    fn take(&self) -> Option<MovedConnection> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = waiting.pop_front();
        if !waiting.is_empty() {
            // Several connections that arrive at once wake only one task.
            self.come.notify_one();
        }
        moved
    }
}
