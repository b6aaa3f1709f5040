//! A local port that is held: what its backend sends there comes by AF_XDP.

use std::net::SocketAddr;
use std::sync::Arc;

use super::filter::Filter;

/// A local port of a socket that is connected to a backend. While this exists, the program takes what comes from there to here; whoever
/// has the socket lets go of this before the socket is closed, since then the port may be another's.
pub struct Held {
    filter: Arc<Filter>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Held {
    /// Holds a port for a worker. No system call is made.
    pub(super) fn new(filter: Arc<Filter>, worker: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        filter.hold(worker, local, remote);
        Self { filter, local, remote }
    }

    /// The address and port that are held.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The backend's.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether this program takes what comes.
    pub(super) fn is_in(&self, filter: &Arc<Filter>) -> bool {
        Arc::ptr_eq(&self.filter, filter)
    }

    /// Whether a datagram is one from the backend's address and port to ours. Nobody else's is believed to be its reply (RFC 5452
    /// section 9.1), whatever the program has let through.
    #[inline]
    pub fn is_between(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let is = |ours: SocketAddr, other: SocketAddr| ours.ip() == other.ip() && ours.port() == other.port();
        is(self.local, local) && is(self.remote, remote)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.filter.release(self.local);
    }
}
