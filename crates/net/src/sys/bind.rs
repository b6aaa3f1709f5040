//! Binds listening sockets: for each configured address one UDP and one TCP socket per worker on the same
//! port, or only one of the two (QUIC needs only UDP, HTTP only TCP).
//!
//! The kernel spreads clients over the workers' sockets (`SO_REUSEPORT`). That option would also let a second
//! hedgerow share the port silently, each answering half of the clients, so every address is first bound once
//! without it. Sockets from another process keep their binding and get our options.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use rustix::net::connect_unspec;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::options;

/// One address, bound by UDP, TCP or both.
#[derive(Debug)]
pub struct Group {
    /// The bound address, with the real port instead of 0.
    pub address: SocketAddr,
    kinds: Kinds,
    /// Non-blocking UDP sockets; empty for TCP only.
    pub udp: Vec<UdpSocket>,
    /// Non-blocking TCP listeners; empty for UDP only.
    pub tcp: Vec<TcpListener>,
}

/// The kinds of sockets at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// UDP and TCP.
    Both,
    /// Only TCP.
    Stream,
    /// Only UDP.
    Datagram,
}

impl Kinds {
    /// Returns true if there are UDP sockets.
    pub fn has_datagrams(self) -> bool {
        self != Self::Stream
    }

    /// Returns true if there are TCP listeners.
    pub fn has_streams(self) -> bool {
        self != Self::Datagram
    }

    fn datagrams(self, workers: usize) -> usize {
        if self.has_datagrams() { workers } else { 0 }
    }

    fn streams(self, workers: usize) -> usize {
        if self.has_streams() { workers } else { 0 }
    }
}

/// The error of an address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({transport}): {}", self.reason())]
pub struct BindError {
    address: SocketAddr,
    transport: &'static str,
    error: io::Error,
}

impl BindError {
    fn of(address: SocketAddr, transport: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self { address, transport, error }
    }

    /// Returns true if the process has no permission for this port.
    pub fn is_denied(&self) -> bool {
        self.error.kind() == io::ErrorKind::PermissionDenied
    }

    fn reason(&self) -> String {
        let Self { address, error, .. } = self;
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("port {} is in use; stop what listens there or choose another port", address.port())
            }
            io::ErrorKind::PermissionDenied => {
                format!("{error}; ports below 1024 need root or CAP_NET_BIND_SERVICE")
            }
            io::ErrorKind::AddrNotAvailable => format!("no interface of this machine has the address {}", address.ip()),
            _ => error.to_string(),
        }
    }
}

impl Group {
    /// Binds `address` for this number of workers.
    pub fn bind(address: SocketAddr, kinds: Kinds, workers: usize) -> Result<Self, BindError> {
        let (bound, reserved) = reserve(address, kinds)?;
        // The reservation ends here. Only a program that binds this port at this moment could take it.
        drop(reserved);
        Self::bind_beside(bound, kinds, workers).map_err(|error| BindError { address, ..error })
    }

    /// Binds `address` next to our own sockets of an overlapping address, which are about to close. They hold
    /// the port exclusively.
    pub fn bind_beside(address: SocketAddr, kinds: Kinds, workers: usize) -> Result<Self, BindError> {
        let udp = (0..kinds.datagrams(workers))
            .map(|_| udp_listener(address))
            .collect::<io::Result<_>>()
            .map_err(BindError::of(address, "UDP"))?;
        let tcp = (0..kinds.streams(workers)).map(|_| tcp_listener(address)).collect::<io::Result<_>>();
        Ok(Self { address, kinds, udp, tcp: tcp.map_err(BindError::of(address, "TCP"))? })
    }

    /// Adopts sockets that another process has bound to `address`, and binds a missing kind.
    pub fn complete(
        address: SocketAddr,
        kinds: Kinds,
        udp: Vec<UdpSocket>,
        tcp: Vec<TcpListener>,
    ) -> Result<Self, BindError> {
        for socket in &udp {
            set_udp_options(SockRef::from(socket), address).map_err(BindError::of(address, "UDP"))?;
            // The previous process may have ended after [`Group::divert`]. Disconnecting a socket that is not
            // connected could lose its port.
            if socket.peer_addr().is_ok() {
                let _ = connect_unspec(socket);
            }
        }
        for listener in &tcp {
            set_tcp_options(SockRef::from(listener)).map_err(BindError::of(address, "TCP"))?;
        }
        let lacking = match (udp.len() < kinds.datagrams(1), tcp.len() < kinds.streams(1)) {
            (false, false) => return Ok(Self { address, kinds, udp, tcp }),
            (true, true) => Kinds::Both,
            (true, false) => Kinds::Datagram,
            (false, true) => Kinds::Stream,
        };
        // New sockets need an exclusive port, as at startup.
        let new = Self::bind(address, lacking, 1)?;
        let (udp, tcp) = (udp.into_iter().chain(new.udp).collect(), tcp.into_iter().chain(new.tcp).collect());
        Ok(Self { address, kinds, udp, tcp })
    }

    /// Binds more sockets until each worker has one of each kind, if the owner of the existing ones allows
    /// it.
    pub fn fill(&mut self, workers: usize) {
        let address = self.address;
        fill(&mut self.udp, self.kinds.datagrams(workers), || udp_listener(address));
        fill(&mut self.tcp, self.kinds.streams(workers), || tcp_listener(address));
    }
}

impl Group {
    /// Stops datagrams from arriving at these UDP sockets: sockets of another address that covers this one
    /// get them, or else the senders get an ICMP error. Datagrams that have arrived can still be read, and
    /// responses still leave here. This applies to every process that holds the sockets.
    pub fn divert(&self) {
        for socket in &self.udp {
            // A connected socket receives only from its peer. Here the peer is the socket itself, and no
            // query comes from there.
            let ip = match self.address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            if let Err(error) = socket.connect(SocketAddr::new(ip, self.address.port())) {
                tracing::warn!(address = %self.address, %error, "datagrams can be lost while this address closes");
            }
        }
    }
}

/// Adds sockets until there are `count`, or no more can be bound; workers then share one. A `SO_REUSEPORT`
/// group accepts no sockets of another user, nor does an address that was bound without the option.
fn fill<S>(sockets: &mut Vec<S>, count: usize, bind: impl Fn() -> io::Result<S>) {
    while sockets.len() < count {
        match bind() {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                tracing::debug!(%error, sockets = sockets.len(), workers = count, "workers share sockets of an address");
                break;
            }
        }
    }
}

/// Binds a non-blocking TCP listener that workers do not serve. `is_beside` is true if one of our own
/// sockets, about to close, holds the port.
pub fn stream(address: SocketAddr, is_beside: bool) -> Result<TcpListener, BindError> {
    let bound = if is_beside { address } else { reserve(address, Kinds::Stream)?.0 };
    tcp_listener(bound).map_err(BindError::of(address, "TCP"))
}

/// Adopts a TCP listener that another process has bound.
pub fn adopt_stream(listener: TcpListener, address: SocketAddr) -> Result<TcpListener, BindError> {
    set_tcp_options(SockRef::from(&listener)).map_err(BindError::of(address, "TCP"))?;
    Ok(listener)
}

/// Binds a UDP socket to a random port, for occasional queries to servers of one family.
pub(crate) fn asking(is_ipv6: bool) -> io::Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(on_random_port(is_ipv6)?.into())
}

/// Binds a UDP socket to a random port and connects it to one server.
pub(crate) fn asking_one(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = on_random_port(server.is_ipv6())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

fn on_random_port(is_ipv6: bool) -> io::Result<Socket> {
    let any: IpAddr = if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let address = SocketAddr::new(any, 0);
    let socket = unbound(address, Type::DGRAM)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Binds an address exclusively, to check that it is free and, for port 0, to find a port that is free for
/// UDP and TCP.
fn reserve(address: SocketAddr, kinds: Kinds) -> Result<(SocketAddr, Vec<Socket>), BindError> {
    let mut attempts_left = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts_left -= 1;
        let udp = match kinds.has_datagrams() {
            true => Some(alone(address, Type::DGRAM, 0).map_err(BindError::of(address, "UDP"))?),
            false => None,
        };
        let bound_of = |socket: &Socket| socket.local_addr().ok().and_then(|bound| bound.as_socket());
        let wanted = udp.as_ref().and_then(bound_of).unwrap_or(address);
        if !kinds.has_streams() {
            return Ok((wanted, udp.into_iter().collect()));
        }
        match alone(wanted, Type::STREAM, 1) {
            Ok(tcp) => return Ok((bound_of(&tcp).unwrap_or(wanted), udp.into_iter().chain([tcp]).collect())),
            Err(error) if attempts_left == 0 => return Err(BindError::of(address, "TCP")(error)),
            Err(_) => {}
        }
    }
}

const PORT_ATTEMPTS: u32 = 16;

fn alone(address: SocketAddr, kind: Type, backlog: i32) -> io::Result<Socket> {
    let socket = unbound(address, kind)?;
    if kind == Type::STREAM {
        // Connections of an earlier run may still be in TIME-WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        // With SO_REUSEADDR only `listen` fails if another process listens.
        socket.listen(backlog)?;
    }
    Ok(socket)
}

fn udp_listener(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = unbound(address, Type::DGRAM)?;
    socket.set_reuse_port(true)?;
    set_udp_options(SockRef::from(&socket), address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn set_udp_options(socket: SockRef<'_>, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    options::ignore_path_mtu(&*socket, address.is_ipv6());
    // A burst of queries waits here while the worker is busy. The kernel grants what its limit allows.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    if address.ip().is_unspecified() {
        options::receive_local_address(&*socket, address.is_ipv6())?;
    }
    Ok(())
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = unbound(address, Type::STREAM)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    set_tcp_options(SockRef::from(&socket))?;
    Ok(socket.into())
}

fn set_tcp_options(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(TCP_BACKLOG)
}

/// Creates a non-blocking socket. IPv6 sockets are IPv6 only, so that `0.0.0.0` and `[::]` can both be bound,
/// and client addresses have one form.
fn unbound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::DGRAM {
        options::ignore_path_mtu(&socket, address.is_ipv6());
    }
    Ok(socket)
}

/// Returns true if this host has the address, by binding a socket to it.
pub fn is_of_this_host(ip: IpAddr) -> bool {
    let address = SocketAddr::new(ip, 0);
    unbound(address, Type::DGRAM).and_then(|socket| socket.bind(&address.into())).is_ok()
}

/// The requested socket buffer in bytes. Linux doubles it, and counts 832 bytes for a small datagram, so it
/// holds 10,082 queries, 100 ms at 100,000 a second. Where `net.core.rmem_max` is at its usual 208 KiB, 512
/// queries and 5 ms.
pub const SOCKET_BUFFER: usize = 4 << 20;

const TCP_BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use rustix::net::sockopt;

    use super::*;

    #[test]
    fn every_worker_gets_both_transports_on_one_port() {
        let listeners = Group::bind("127.0.0.1:0".parse().unwrap(), Kinds::Both, 3).unwrap();
        assert_ne!(listeners.address.port(), 0);
        assert_eq!((listeners.udp.len(), listeners.tcp.len()), (3, 3));
        for socket in &listeners.udp {
            assert_eq!(socket.local_addr().unwrap(), listeners.address);
        }
        for listener in &listeners.tcp {
            assert_eq!(listener.local_addr().unwrap(), listeners.address);
        }
    }

    #[test]
    fn no_socket_for_datagrams_believes_what_is_said_of_the_path_mtu() {
        for (address, is_ipv6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let address = address.parse().unwrap();
            let mut sockets = Group::bind(address, Kinds::Both, 1).unwrap().udp;
            sockets.push(unbound(address, Type::DGRAM).unwrap().into());
            for socket in sockets {
                match is_ipv6 {
                    false => {
                        assert_eq!(sockopt::ip_mtu_discover(&socket).unwrap(), sockopt::Ipv4PathMtuDiscovery::OMIT);
                    }
                    true => {
                        assert_eq!(sockopt::ipv6_mtu_discover(&socket).unwrap(), sockopt::Ipv6PathMtuDiscovery::OMIT);
                    }
                }
            }
        }
    }

    #[test]
    fn a_port_in_use_is_named_even_if_its_owner_would_share_it() {
        let first = Group::bind("127.0.0.1:0".parse().unwrap(), Kinds::Both, 1).unwrap();
        let error = Group::bind(first.address, Kinds::Both, 1).unwrap_err().to_string();
        assert!(error.contains(&format!("port {} is in use", first.address.port())), "{error}");
    }

    #[test]
    fn a_port_in_use_by_tcp_alone_is_found() {
        let owner = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Group::bind(owner.local_addr().unwrap(), Kinds::Both, 1).unwrap_err().to_string();
        assert!(error.contains("(TCP)"), "{error}");
    }
}
