//! A held local port: replies from its backend arrive by AF_XDP.

use std::net::SocketAddr;
use std::sync::Arc;

use super::filter::XdpFilter;

/// A local port of a socket that is connected to a backend. While this exists, the program redirects the
/// replies. Drop it before the socket is closed, because another socket may get the port then.
pub struct HeldPort {
    filter: Arc<XdpFilter>,
    local: SocketAddr,
    remote: SocketAddr,
}

impl HeldPort {
    pub(super) fn new(filter: Arc<XdpFilter>, worker: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        filter.hold(worker, local, remote);
        Self { filter, local, remote }
    }

    /// The local address and port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The backend's address and port.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(super) fn is_in(&self, filter: &Arc<XdpFilter>) -> bool {
        Arc::ptr_eq(&self.filter, filter)
    }

    /// Returns true for a datagram from this backend to this port (RFC 5452 section 9.1).
    #[inline]
    pub fn is_between(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let is = |ours: SocketAddr, other: SocketAddr| ours.ip() == other.ip() && ours.port() == other.port();
        is(self.local, local) && is(self.remote, remote)
    }
}

impl Drop for HeldPort {
    fn drop(&mut self) {
        self.filter.release(self.local);
    }
}
