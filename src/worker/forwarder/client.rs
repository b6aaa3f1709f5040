//! Clients and their reply channels. A client is kept small, because each query in flight has one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use dns::Transport;
use engine::cache::PoolId;
use engine::explanation::Event;
use engine::state::Arrival;
use net::from_clients::tcp::Responder;
use net::sys::batch::ReplyPath;

use super::derived::DerivedQuery;
use super::explain::Operator;

/// A client and its reply channel.
#[derive(Clone, Debug)]
pub enum ReplyChannel {
    /// A client of a UDP listener.
    Udp(DatagramWay),
    /// A client behind a proxy that sends datagrams.
    Proxied(Arc<ProxiedClient>),
    /// A client of a connection of any transport.
    Tcp(Arc<Responder>),
    /// A client that waits for the response to a query of hedgerow.
    Derived(Arc<DerivedQuery>),
    /// An operator with an explained question.
    Admin(Operator),
}

/// A client behind a proxy that sends datagrams.
#[derive(Debug, PartialEq, Eq)]
pub struct ProxiedClient {
    pub(super) client: SocketAddr,
    pub(super) way: DatagramWay,
}

/// The destination of a response by datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramWay {
    /// The listener's number, equal in all workers.
    pub(crate) listener: u16,
    pub(crate) peer: Peer,
    pub(crate) path: ReplyPath,
}

impl DatagramWay {
    pub(super) fn without_link(self) -> Self {
        Self { path: self.path.without_link(), ..self }
    }
}

impl ReplyChannel {
    pub(super) fn datagram(&self) -> Option<DatagramWay> {
        match self {
            Self::Udp(way) => Some(*way),
            Self::Proxied(proxied) => Some(proxied.way),
            Self::Derived(derived) => derived.client().datagram(),
            Self::Tcp(_) | Self::Admin(_) => None,
        }
    }

    pub(super) fn for_another_worker(self) -> Self {
        match self {
            Self::Udp(way) => Self::Udp(way.without_link()),
            Self::Proxied(proxied) => {
                let ProxiedClient { client, way } = *proxied;
                Self::Proxied(Arc::new(ProxiedClient { client, way: way.without_link() }))
            }
            Self::Derived(derived) => Self::Derived(Arc::new(derived.for_another_worker())),
            Self::Tcp(_) | Self::Admin(_) => self,
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        match self {
            Self::Udp(way) => way.peer.address(),
            Self::Proxied(proxied) => proxied.client,
            Self::Tcp(responder) => responder.peer(),
            Self::Derived(derived) => derived.client().peer(),
            Self::Admin(_) => (Ipv4Addr::LOCALHOST, 0).into(),
        }
    }

    pub(super) fn connected_to(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(responder) => responder.asked(),
            Self::Derived(derived) => derived.client().connected_to(),
            Self::Udp(_) | Self::Proxied(_) | Self::Admin(_) => None,
        }
    }

    /// Returns the way of the query to the forwarder.
    pub(super) fn arrival(&self) -> Arrival {
        match self {
            Self::Udp(way) => Arrival::Datagram(way.listener),
            Self::Proxied(proxied) => Arrival::Datagram(proxied.way.listener),
            Self::Tcp(responder) => Arrival::Connection(responder.asked()),
            Self::Derived(derived) => derived.client().arrival(),
            Self::Admin(_) => Arrival::Listener(None),
        }
    }

    /// Returns true for the client of a query that hedgerow made.
    pub(super) fn is_derived(&self) -> bool {
        matches!(self, Self::Derived(_))
    }

    /// Returns the pool that answers a query that hedgerow made, whatever names and routes say.
    pub(super) fn pinned_pool(&self) -> Option<PoolId> {
        match self {
            Self::Derived(derived) => derived.pool(),
            Self::Udp(_) | Self::Proxied(_) | Self::Tcp(_) | Self::Admin(_) => None,
        }
    }

    /// Returns the client behind queries that hedgerow made, and its question instead of the given one.
    pub(super) fn origin<'a>(&'a self, question: &'a [u8]) -> (&'a Self, &'a [u8]) {
        match self {
            Self::Derived(derived) => derived.client().origin(derived.question()),
            Self::Udp(_) | Self::Proxied(_) | Self::Tcp(_) | Self::Admin(_) => (self, question),
        }
    }

    /// Reports to the connection that there is no response.
    pub(super) fn respond_nothing(&self) {
        match self {
            Self::Udp(_) | Self::Proxied(_) => {}
            Self::Tcp(responder) => responder.respond(|_| {}),
            Self::Derived(derived) => derived.client().respond_nothing(),
            Self::Admin(operator) => operator.send(Event::NoResponse),
        }
    }
}

impl engine::ClientHandle for ReplyChannel {
    fn transport(&self) -> Transport {
        match self {
            Self::Udp(_) | Self::Proxied(_) => Transport::Udp,
            Self::Tcp(responder) => responder.transport(),
            // An operator wants the whole answer, and a response is composed from one.
            Self::Derived(_) | Self::Admin(_) => Transport::Tcp,
        }
    }

    fn is_admin(&self) -> bool {
        match self {
            Self::Udp(_) | Self::Proxied(_) | Self::Tcp(_) => false,
            Self::Derived(derived) => derived.client().is_admin(),
            Self::Admin(_) => true,
        }
    }

    fn ip(&self) -> IpAddr {
        match self {
            Self::Udp(way) => way.peer.ip,
            Self::Proxied(proxied) => proxied.client.ip(),
            Self::Tcp(responder) => responder.peer().ip(),
            Self::Derived(derived) => derived.client().ip(),
            Self::Admin(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn is_same_socket(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Udp(one), Self::Udp(other)) => one.without_link() == other.without_link(),
            (Self::Proxied(one), Self::Proxied(other)) => {
                let of = |proxied: &ProxiedClient| (proxied.client, proxied.way.without_link());
                of(one) == of(other)
            }
            (Self::Derived(one), Self::Derived(other)) => one.is_same(other),
            (Self::Udp(_) | Self::Proxied(_) | Self::Tcp(_) | Self::Derived(_) | Self::Admin(_), _) => false,
        }
    }
}

/// The address of a UDP client, smaller than a [`SocketAddr`]: without padding, and without the flow label,
/// which the kernel does not report by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    ip: IpAddr,
    port: [u8; 2],
    scope: [u8; 4],
}

impl Peer {
    pub(super) fn ip(self) -> IpAddr {
        self.ip
    }

    pub(super) fn port(self) -> u16 {
        u16::from_ne_bytes(self.port)
    }

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

/// Each query in flight holds a client: the engine's test of its memory counts on 48 bytes.
const _: () = assert!(size_of::<ReplyChannel>() <= 48);

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
