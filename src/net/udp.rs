//! Receiving from a listener under the runtime.

use std::io;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::batch::{BATCH, RecvBatch};

/// Receives a batch, after the runtime has said that the socket is readable, and returns how many datagrams that is.
///
/// A short batch has emptied the socket, so the runtime is told at once that it would block, which saves the call that
/// would find that out; what arrives in between is a new edge for the runtime.
pub fn receive(socket: &UdpSocket, batch: &mut RecvBatch) -> usize {
    let mut received = 0;
    let _ = socket.try_io(Interest::READABLE, || {
        received = match batch.recv(socket) {
            // An error of an earlier response comes out here; what waits behind it is read next time.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Ok(()),
            result => result.unwrap_or(0),
        };
        if received < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    received
}

/// Octets of the longest query that is read whole. A query is a question and an OPT record; what is longer than any EDNS
/// size in use is answered with FORMERR, since its end is missing.
pub const QUERY_MAX: usize = 4096;

/// Batches that are read at the end: more than a socket's buffer holds, and no more, for a flood never ends.
pub const LAST_BATCHES: usize = 256;
