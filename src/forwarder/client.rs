//! A client: who asked, and the way back. As small as can be, since each query in flight has one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use super::explain::Operator;
use crate::engine;
use crate::net::batch::LocalAddress;
use crate::net::tcp::Responder;
use crate::net::xdp::LinkId;
use crate::sight::explain::Event;
use crate::wire::Transport;

/// Who asked, and the way back.
#[derive(Clone, Debug)]
pub enum Client {
    /// By a datagram.
    Udp {
        /// The listener's number, the same in all workers.
        listener: u16,
        /// The client's address.
        peer: Peer,
        /// The address that it asked, on a wildcard listener or by AF_XDP.
        local: Option<LocalAddress>,
        /// How it came by AF_XDP, to the worker that has it.
        link: Option<LinkId>,
    },
    /// By a datagram that a proxy passed on.
    Proxied(Arc<ProxiedClient>),
    /// By a connection, of whatever transport.
    Tcp(Arc<Responder>),
    /// An operator who has a question explained.
    Admin(Operator),
}

/// A client whose datagrams a proxy passes on.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxiedClient {
    /// Its own address, as the proxy says.
    pub(super) client: SocketAddr,
    /// The way back.
    pub(super) way: DatagramWay,
}

/// Where the response to a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramWay {
    /// The listener's number, the same in all workers.
    pub(super) listener: u16,
    /// Who sent it.
    pub(super) peer: Peer,
    /// The address that was asked, on a wildcard listener or by AF_XDP.
    pub(super) local: Option<LocalAddress>,
    /// How it came by AF_XDP, to the worker that has it.
    pub(super) link: Option<LinkId>,
}

impl Client {
    /// The way back, if it came by a datagram.
    pub(super) fn datagram(&self) -> Option<DatagramWay> {
        match self {
            &Self::Udp { listener, peer, local, link } => Some(DatagramWay { listener, peer, local, link }),
            Self::Proxied(proxied) => Some(proxied.way),
            Self::Tcp(_) | Self::Admin(_) => None,
        }
    }

    /// The same for another worker, which knows nothing of links of this one.
    pub(super) fn for_another_worker(self) -> Self {
        match self {
            Self::Udp { listener, peer, local, link: _ } => Self::Udp { listener, peer, local, link: None },
            Self::Proxied(proxied) => {
                let ProxiedClient { client, way } = *proxied;
                Self::Proxied(Arc::new(ProxiedClient { client, way: DatagramWay { link: None, ..way } }))
            }
            Self::Tcp(_) | Self::Admin(_) => self,
        }
    }

    /// Its address and port.
    pub(super) fn peer(&self) -> SocketAddr {
        match self {
            Self::Udp { peer, .. } => peer.address(),
            Self::Proxied(proxied) => proxied.client,
            Self::Tcp(responder) => responder.peer(),
            Self::Admin(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    /// The address of ours that a connection was made to, if it came by one.
    pub(super) fn connected_to(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(responder) => responder.asked(),
            Self::Udp { .. } | Self::Proxied(_) | Self::Admin(_) => None,
        }
    }

    /// There is no response, which a connection has to be told.
    pub(super) fn respond_nothing(&self) {
        match self {
            Self::Udp { .. } | Self::Proxied(_) => {}
            Self::Tcp(responder) => responder.respond(|_| {}),
            Self::Admin(operator) => operator.tell(Event::NoResponse),
        }
    }
}

impl engine::Client for Client {
    fn transport(&self) -> Transport {
        match self {
            Self::Udp { .. } | Self::Proxied(_) => Transport::Udp,
            Self::Tcp(responder) => responder.transport(),
            // All of an answer is wanted.
            Self::Admin(_) => Transport::Tcp,
        }
    }

    fn is_admin(&self) -> bool {
        match self {
            Self::Udp { .. } | Self::Proxied(_) | Self::Tcp(_) => false,
            Self::Admin(_) => true,
        }
    }

    fn ip(&self) -> IpAddr {
        match self {
            Self::Udp { peer, .. } => peer.ip,
            Self::Proxied(proxied) => proxied.client.ip(),
            Self::Tcp(responder) => responder.peer().ip(),
            Self::Admin(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn is_same_socket(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Udp { listener, peer, local, .. }, Self::Udp { listener: to, peer: from, local: at, .. }) => {
                (listener, peer, local) == (to, from, at)
            }
            (Self::Proxied(one), Self::Proxied(other)) => {
                let of = |proxied: &ProxiedClient| (proxied.client, DatagramWay { link: None, ..proxied.way });
                of(one) == of(other)
            }
            (Self::Udp { .. } | Self::Proxied(_) | Self::Tcp(_) | Self::Admin(_), _) => false,
        }
    }
}

/// The address of a UDP client, in fewer octets than a [`SocketAddr`]: without a flow label, which the kernel tells nobody
/// who has not asked for it, and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address.
    ip: IpAddr,
    port: [u8; 2],
    /// The interface of a link-local address.
    scope: [u8; 4],
}

impl Peer {
    /// The host to send to.
    pub(super) fn ip(self) -> IpAddr {
        self.ip
    }

    /// The port to send to.
    pub(super) fn port(self) -> u16 {
        u16::from_ne_bytes(self.port)
    }

    /// The address to send to.
    pub(super) fn address(self) -> SocketAddr {
        let port = u16::from_ne_bytes(self.port);
        match self.ip {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(self.scope)).into(),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        Self { ip: address.ip(), port: address.port().to_ne_bytes(), scope: scope.to_ne_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_the_addresses_that_they_were() {
        for address in ["192.0.2.1:53", "[2001:db8::1]:65535", "[::ffff:192.0.2.1]:1", "[fe80::1%7]:5353"] {
            let address: SocketAddr = address.parse().expect("an address");
            assert_eq!(Peer::from(address).address(), address);
        }
    }
}
