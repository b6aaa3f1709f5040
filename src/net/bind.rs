//! Binding listening sockets: for each configured address, one UDP and one TCP socket a worker, all on the same port, or those of
//! one kind alone: TCP where queries come by connections of it, UDP where they come by QUIC.
//!
//! The kernel spreads clients over the workers' sockets (`SO_REUSEPORT`). That option would also let a second hedgerow
//! share the port in silence, each answering half of the clients, so every address is first bound once without it.
//! Sockets that another process has bound are taken as they are, with the options that ours have.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use rustix::net::connect_unspec;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::options;

/// One address, bound by UDP and TCP, or by one of them alone.
#[derive(Debug)]
pub struct Group {
    /// The address really bound: port 0 has become a port.
    pub address: SocketAddr,
    kinds: Kinds,
    /// UDP sockets, non-blocking; none where there is TCP alone.
    pub udp: Vec<UdpSocket>,
    /// TCP listeners, non-blocking; none where there is UDP alone.
    pub tcp: Vec<TcpListener>,
}

/// What an address is bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    /// UDP and TCP.
    Both,
    /// TCP alone.
    Stream,
    /// UDP alone.
    Datagram,
}

impl Kinds {
    /// Whether there are UDP sockets.
    pub fn has_datagrams(self) -> bool {
        self != Self::Stream
    }

    /// Whether there are TCP listeners.
    pub fn has_streams(self) -> bool {
        self != Self::Datagram
    }

    /// How many UDP sockets there are where each of so many workers is to have one.
    fn datagrams(self, workers: usize) -> usize {
        if self.has_datagrams() { workers } else { 0 }
    }

    /// The same of TCP listeners.
    fn streams(self, workers: usize) -> usize {
        if self.has_streams() { workers } else { 0 }
    }
}

/// An address could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The address as configured.
    address: SocketAddr,
    /// Which of the two transports failed.
    transport: &'static str,
    /// What the kernel said.
    source: io::Error,
}

impl BindError {
    /// Whether the process may not have this port.
    pub fn is_denied(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, transport, source } = self;
        write!(f, "cannot listen on {address} ({transport}): ")?;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "port {} is in use; stop what listens there or choose another port", address.port())
            }
            io::ErrorKind::PermissionDenied => {
                write!(f, "{source}; ports below 1024 need root or CAP_NET_BIND_SERVICE")
            }
            io::ErrorKind::AddrNotAvailable => {
                write!(f, "no interface of this machine has the address {}", address.ip())
            }
            _ => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for BindError {}

impl Group {
    /// Binds `address` for so many workers.
    ///
    /// # Errors
    /// If the address cannot be had, by UDP or by TCP.
    pub fn bind(address: SocketAddr, kinds: Kinds, workers: usize) -> Result<Self, BindError> {
        let (bound, reserved) = reserve(address, kinds)?;
        // The reservation ends here; only a program that asks for this very port in this very moment could come between.
        drop(reserved);
        Self::bind_beside(bound, kinds, workers).map_err(|error| BindError { address, ..error })
    }

    /// Binds `address` beside sockets of ours at addresses that stand for the same, which are to close. They have the port, and nobody else
    /// has it.
    ///
    /// # Errors
    /// If the address cannot be had, by UDP or by TCP.
    pub fn bind_beside(address: SocketAddr, kinds: Kinds, workers: usize) -> Result<Self, BindError> {
        let fail = |transport| move |source| BindError { address, transport, source };
        let udp = (0..kinds.datagrams(workers))
            .map(|_| udp_listener(address))
            .collect::<io::Result<_>>()
            .map_err(fail("UDP"))?;
        let tcp = (0..kinds.streams(workers)).map(|_| tcp_listener(address)).collect::<io::Result<_>>();
        Ok(Self { address, kinds, udp, tcp: tcp.map_err(fail("TCP"))? })
    }

    /// Takes sockets that another process has bound to `address`, and binds one of a kind that is missing.
    ///
    /// # Errors
    /// If there is none of a kind, and none can be had; or if their options cannot be set.
    pub fn complete(
        address: SocketAddr,
        kinds: Kinds,
        udp: Vec<UdpSocket>,
        tcp: Vec<TcpListener>,
    ) -> Result<Self, BindError> {
        let fail = |transport| move |source| BindError { address, transport, source };
        for socket in &udp {
            set_udp_options(SockRef::from(socket), address).map_err(fail("UDP"))?;
            // Whoever had it may have ended while it left ([`Group::divert`]). One that is not connected could lose its port by this.
            if socket.peer_addr().is_ok() {
                let _ = connect_unspec(socket);
            }
        }
        for listener in &tcp {
            set_tcp_options(SockRef::from(listener)).map_err(fail("TCP"))?;
        }
        // As at a start: nobody else has what is bound anew.
        let lacks_udp = udp.len() < kinds.datagrams(1);
        if lacks_udp {
            drop(alone(address, Type::DGRAM, 0).map_err(fail("UDP"))?);
        }
        let lacks_tcp = tcp.len() < kinds.streams(1);
        if lacks_tcp {
            drop(alone(address, Type::STREAM, 1).map_err(fail("TCP"))?);
        }
        let mut group = Self { address, kinds, udp, tcp };
        if lacks_udp {
            group.udp.push(udp_listener(address).map_err(fail("UDP"))?);
        }
        if lacks_tcp {
            group.tcp.push(tcp_listener(address).map_err(fail("TCP"))?);
        }
        Ok(group)
    }

    /// Binds more sockets, until there is one of each kind a worker, if whoever has bound the others lets us join.
    pub fn fill(&mut self, workers: usize) {
        let address = self.address;
        fill(&mut self.udp, self.kinds.datagrams(workers), || udp_listener(address));
        fill(&mut self.tcp, self.kinds.streams(workers), || tcp_listener(address));
    }
}

impl Group {
    /// Has datagrams pass its UDP sockets by from now on: those of another address that stands for the same get them, or else their senders
    /// hear that nobody is there. What has come already can be read, and responses leave by them as before. This holds for every
    /// process that has them.
    pub fn divert(&self) {
        for socket in &self.udp {
            // A connected socket takes what comes from its peer only, which is itself: and from there no query is taken.
            let ip = match self.address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            if let Err(error) = socket.connect(SocketAddr::new(ip, self.address.port())) {
                tracing::warn!(address = %self.address, %error, "datagrams may be lost while this address closes");
            }
        }
    }
}

/// Adds sockets until there are `count`, or no more can be had: one will do then, which workers share. A group of
/// `SO_REUSEPORT` takes no sockets of another user, nor does an address that was bound without it.
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

/// A TCP listener, non-blocking: for what is not served by workers. `is_beside`: one of ours has the port, which is to close.
///
/// # Errors
/// If the address cannot be had.
pub fn stream(address: SocketAddr, is_beside: bool) -> Result<TcpListener, BindError> {
    let fail = |source| BindError { address, transport: "TCP", source };
    if is_beside {
        return tcp_listener(address).map_err(fail);
    }
    let reserved = alone(address, Type::STREAM, 1).map_err(fail)?;
    let bound = reserved.local_addr().ok().and_then(|bound| bound.as_socket()).unwrap_or(address);
    drop(reserved);
    tcp_listener(bound).map_err(fail)
}

/// The same, of a listener that another process has bound.
///
/// # Errors
/// If its options cannot be set.
pub fn adopt_stream(listener: TcpListener, address: SocketAddr) -> Result<TcpListener, BindError> {
    let fail = |source| BindError { address, transport: "TCP", source };
    set_tcp_options(SockRef::from(&listener)).map_err(fail)?;
    Ok(listener)
}

/// A UDP socket on a random port of the kernel's choice, for who asks servers of one family now and then.
///
/// # Errors
/// If there is no descriptor or port left, or no such family.
pub fn asking(is_ipv6: bool) -> io::Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(on_random_port(is_ipv6)?.into())
}

/// The same, for one server and nobody else.
///
/// # Errors
/// Also if no way leads to the server.
pub fn asking_one(server: SocketAddr) -> io::Result<UdpSocket> {
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

/// Binds an address alone, to see that nobody has it and, for port 0, to find a port that is free by UDP and by TCP.
fn reserve(address: SocketAddr, kinds: Kinds) -> Result<(SocketAddr, Vec<Socket>), BindError> {
    let fail = |transport| move |source| BindError { address, transport, source };
    let mut attempts_left = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts_left -= 1;
        let udp = match kinds.has_datagrams() {
            true => Some(alone(address, Type::DGRAM, 0).map_err(fail("UDP"))?),
            false => None,
        };
        let bound_of = |socket: &Socket| socket.local_addr().ok().and_then(|bound| bound.as_socket());
        let wanted = udp.as_ref().and_then(bound_of).unwrap_or(address);
        if !kinds.has_streams() {
            return Ok((wanted, udp.into_iter().collect()));
        }
        match alone(wanted, Type::STREAM, 1) {
            Ok(tcp) => return Ok((bound_of(&tcp).unwrap_or(wanted), udp.into_iter().chain([tcp]).collect())),
            Err(error) if attempts_left == 0 => return Err(fail("TCP")(error)),
            Err(_) => {}
        }
    }
}

/// How many ports of the kernel's choice are tried until one is free by TCP too.
const PORT_ATTEMPTS: u32 = 16;

/// A socket that shares its address with nobody; `backlog` is of connections, for TCP.
fn alone(address: SocketAddr, kind: Type, backlog: i32) -> io::Result<Socket> {
    let socket = unbound(address, kind)?;
    if kind == Type::STREAM {
        // Connections of an earlier run may still be in TIME-WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        // With SO_REUSEADDR it is `listen` that finds out whether somebody else listens.
        socket.listen(backlog)?;
    }
    Ok(socket)
}

/// A worker's UDP socket.
fn udp_listener(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = unbound(address, Type::DGRAM)?;
    socket.set_reuse_port(true)?;
    set_udp_options(SockRef::from(&socket), address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets what a UDP socket of ours has, whoever has made it.
fn set_udp_options(socket: SockRef<'_>, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    options::ignore_path_mtu(&*socket, address.is_ipv6());
    // A burst of queries waits here while the worker is busy. The kernel grants what its limit allows.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    if address.ip().is_unspecified() {
        options::tell_local_address(&*socket, address.is_ipv6())?;
    }
    Ok(())
}

/// A worker's TCP listener.
fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = unbound(address, Type::STREAM)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    set_tcp_options(SockRef::from(&socket))?;
    Ok(socket.into())
}

/// Has a TCP socket listen as ours do. One that does so already goes on, with our backlog.
fn set_tcp_options(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(TCP_BACKLOG)
}

/// A non-blocking socket of the address's family. IPv6 sockets take IPv6 only, so that `0.0.0.0` and `[::]` can both be
/// listened on, and clients have one form of address.
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

/// Whether this host has an address: then, and only then, a socket can be bound to it.
pub fn is_of_this_host(ip: IpAddr) -> bool {
    let address = SocketAddr::new(ip, 0);
    unbound(address, Type::DGRAM).and_then(|socket| socket.bind(&address.into())).is_ok()
}

/// Asked for as socket buffer, octets. Linux keeps books of twice that, and of 832 octets for a small datagram, so it holds
/// 10,082 queries, 100 ms at 100,000 a second. Where `net.core.rmem_max` is at its usual 208 KiB, 512 queries and 5 ms.
pub(super) const SOCKET_BUFFER: usize = 4 << 20;

/// Connections that wait to be accepted.
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
