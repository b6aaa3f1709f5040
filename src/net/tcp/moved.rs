//! Connections on their way from one process to another: an old server gives them up, each as it falls idle, and its successor
//! adopts them.
//!
//! ```text
//!   old process                                                         its successor
//!   Connections::move_out ──▶ each connection: hand nothing over,        Connections::adopt ──▶ queue ──▶ a listener's task:
//!                             read nothing, answer what is in flight,                           limits and place anew, serve
//!                             write it, give the socket up ──▶ MovedConnection ──▶ (sent) ──▶   what was read, and go on
//! ```
//!
//! What was read and not handled goes along, so that no octet is lost and none is read twice.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

/// A client's connection that no process serves at the moment.
#[derive(Debug)]
pub struct MovedConnection {
    /// The section that it belongs to, as its process has named it to [`Connections::move_out`](super::Connections::move_out).
    pub section: String,
    /// Octets that were read and not handled.
    pub input: Vec<u8>,
    /// Its socket.
    pub socket: OwnedFd,
}

/// Where connections that are to leave go.
#[derive(Clone, Debug)]
pub(super) struct WayOut {
    /// What their section is called.
    pub(super) section: String,
    /// The way.
    pub(super) to: UnboundedSender<MovedConnection>,
}

/// Connections that have come and that no worker has taken yet.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// As many as the process before had at most.
    waiting: Mutex<VecDeque<MovedConnection>>,
    /// Wakes one who takes them.
    come: Notify,
}

impl Adopted {
    /// Another one has come.
    pub(super) fn push(&self, moved: MovedConnection) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(moved);
        self.come.notify_one();
    }

    /// Waits for the next. Those who wait get them in turn. Loses nothing if it is dropped.
    pub(super) async fn next(&self) -> MovedConnection {
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
            // Several that came at once have woken one.
            self.come.notify_one();
        }
        moved
    }
}
