//! A listener's UDP socket under the runtime.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::batch::{self, BATCH, RecvBatch};

/// A listener's socket, which the runtime watches for what arrives and for nothing else.
///
/// The runtime's own type also watches for room to send, of which the kernel tells anew whenever a datagram has left: each
/// batch of responses would wake the worker once more, for nothing.
pub struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    /// Has this thread's runtime watch a non-blocking socket.
    ///
    /// # Errors
    /// If the runtime's own descriptors are exhausted.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        batch::watch(socket.into()).map(Self)
    }

    /// Waits until there may be something to receive.
    ///
    /// # Errors
    /// If the socket has left the runtime.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Receives a batch, after [`readable`](Self::readable), and returns how many datagrams that is.
    ///
    /// A short batch has emptied the socket, so the runtime is told at once that it would block, which saves the call that
    /// would find that out; what arrives in between is a new edge for the runtime.
    pub fn receive(&self, batch: &mut RecvBatch) -> usize {
        let mut received = 0;
        let _ = self.0.try_io(Interest::READABLE, |socket| {
            received = match batch.recv(socket) {
                // An error of an earlier response comes out here; what waits behind it is read next time.
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(()),
                result => result.unwrap_or(0),
            };
            if received < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        received
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Octets of the longest query that is read whole. A query is a question and an OPT record; what is longer than any EDNS
/// size in use is answered with FORMERR, since its end is missing.
pub const QUERY_MAX: usize = 4096;

/// Batches that are read at the end: more than a socket's buffer holds, and no more, for a flood never ends.
pub const LAST_BATCHES: usize = 256;
