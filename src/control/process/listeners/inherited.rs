//! Sockets inherited from another process, and their assignment to addresses.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use net::from_clients::listening::{Endpoint, ListeningSocket};
use net::sys::bind::Kinds;

pub(in crate::control) struct InheritedSockets(pub(in crate::control) Vec<ListeningSocket>);

impl InheritedSockets {
    pub(in crate::control) fn take(&mut self, is_meant: impl Fn(&ListeningSocket) -> bool) -> Option<ListeningSocket> {
        let place = self.0.iter().position(is_meant)?;
        Some(self.0.remove(place))
    }

    /// Takes all sockets of a configured address. Returns also if a service manager keeps them, and the bound
    /// address. Port 0 matches the port of the sockets of this name.
    pub(in crate::control) fn take_group(
        &mut self,
        name: &str,
        configured: SocketAddr,
        kinds: Kinds,
    ) -> (Vec<UdpSocket>, Vec<TcpListener>, bool, SocketAddr) {
        let (has_udp, has_tcp) = (kinds.has_datagrams(), kinds.has_streams());
        let is_named = |socket: &&ListeningSocket| configured.port() != 0 || socket.name == name;
        let found = self.0.iter().filter(is_named).find_map(|socket| match socket.endpoint() {
            // The address has one kind only; another address owns the other kind.
            Endpoint::Udp(_) if !has_udp => None,
            Endpoint::Tcp(_) if !has_tcp => None,
            Endpoint::Udp(bound) | Endpoint::Tcp(bound) => is_meant(configured, *bound).then_some(*bound),
            Endpoint::Unix(_) => None,
        });
        let (mut udp, mut tcp, mut is_kept) = (Vec::new(), Vec::new(), false);
        let is_meant = |socket: &mut ListeningSocket| match socket.endpoint() {
            Endpoint::Udp(address) => has_udp && Some(*address) == found,
            Endpoint::Tcp(address) => has_tcp && Some(*address) == found,
            Endpoint::Unix(_) => false,
        };
        for socket in self.0.extract_if(.., is_meant) {
            is_kept |= socket.is_kept;
            match socket.endpoint() {
                Endpoint::Udp(_) => udp.push(socket.into_fd().into()),
                Endpoint::Tcp(_) | Endpoint::Unix(_) => tcp.push(socket.into_fd().into()),
            }
        }
        (udp, tcp, is_kept, found.unwrap_or(configured))
    }
}

pub(in crate::control) fn is_meant(configured: SocketAddr, bound: SocketAddr) -> bool {
    bound.ip() == configured.ip() && (configured.port() == 0 || bound.port() == configured.port())
}
