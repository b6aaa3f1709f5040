//! Sockets that another process has passed to us, and which of them serve what.

use std::mem;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use crate::net::bind::Kinds;
use crate::net::listening::{Endpoint, ListeningSocket};

/// Sockets that were passed to us, as far as nobody has taken them.
pub(super) struct Inherited(pub(super) Vec<ListeningSocket>);

impl Inherited {
    /// Takes the first that is meant.
    pub(super) fn take(&mut self, is_meant: impl Fn(&ListeningSocket) -> bool) -> Option<ListeningSocket> {
        let place = self.0.iter().position(is_meant)?;
        Some(self.0.remove(place))
    }

    /// Takes all that listen on a configured address, and says whether they are kept, and which address that really is. Port 0 stands for
    /// the port that the sockets of this name have.
    pub(super) fn take_group(
        &mut self,
        name: &str,
        configured: SocketAddr,
        kinds: Kinds,
    ) -> (Vec<UdpSocket>, Vec<TcpListener>, bool, SocketAddr) {
        let (has_udp, has_tcp) = (kinds.has_datagrams(), kinds.has_streams());
        let is_named = |socket: &&ListeningSocket| configured.port() != 0 || socket.name == name;
        let found = self.0.iter().filter(is_named).find_map(|socket| match socket.endpoint() {
            // Of an address with one kind alone, the other is somebody else's.
            Endpoint::Udp(_) if !has_udp => None,
            Endpoint::Tcp(_) if !has_tcp => None,
            Endpoint::Udp(bound) | Endpoint::Tcp(bound) => is_meant(configured, *bound).then_some(*bound),
            Endpoint::Unix(_) => None,
        });
        let (mut udp, mut tcp, mut is_kept) = (Vec::new(), Vec::new(), false);
        if let Some(bound) = found {
            for socket in mem::take(&mut self.0) {
                let kept = socket.is_kept;
                match socket.endpoint() {
                    Endpoint::Udp(address) if *address == bound && has_udp => udp.push(socket.into_fd().into()),
                    Endpoint::Tcp(address) if *address == bound && has_tcp => tcp.push(socket.into_fd().into()),
                    Endpoint::Udp(_) | Endpoint::Tcp(_) | Endpoint::Unix(_) => {
                        self.0.push(socket);
                        continue;
                    }
                }
                is_kept |= kept;
            }
        }
        (udp, tcp, is_kept, found.unwrap_or(configured))
    }
}

/// Whether a socket that is bound to an address serves the one of the config.
pub(super) fn is_meant(configured: SocketAddr, bound: SocketAddr) -> bool {
    bound.ip() == configured.ip() && (configured.port() == 0 || bound.port() == configured.port())
}
