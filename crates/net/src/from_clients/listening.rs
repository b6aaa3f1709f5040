//! Listening sockets that move between processes: their endpoint, their name, and the checks of sockets from
//! another process.
//!
//! A name is the section with the position of the address in its `listen`: `forwarder.0`, `ts1.1`, `admin.0`.
//! All sockets of an address have the same name. A socket is identified by kind and address, and by its name
//! only if the config leaves the port to the kernel.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::sockopt::{ipv6_v6only, socket_acceptconn, socket_protocol, socket_type};
use rustix::net::{AddressFamily, SocketType, getsockname, ipproto};
use socket2::SockRef;

/// The kind and address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A UDP socket.
    Udp(SocketAddr),
    /// A TCP listener.
    Tcp(SocketAddr),
    /// A unix socket for connections from this host.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "{address} (UDP)"),
            Self::Tcp(address) => write!(f, "{address} (TCP)"),
            Self::Unix(path) => write!(f, "{} (unix)", path.display()),
        }
    }
}

/// A listening socket to pass on, or one from another process.
#[derive(Debug)]
pub struct ListeningSocket {
    /// The name, given by us or by the process that passed the socket; empty if it has none.
    pub name: String,
    /// True if a service manager keeps the socket open when this process ends.
    pub is_kept: bool,
    endpoint: Endpoint,
    fd: OwnedFd,
}

impl ListeningSocket {
    /// Creates a value for one of our own sockets.
    pub fn new(name: String, is_kept: bool, endpoint: Endpoint, fd: OwnedFd) -> Self {
        Self { name, is_kept, endpoint, fd }
    }

    /// Checks a socket that another process passed as descriptor `number`; `name` is empty if it has none.
    pub fn inherited(fd: OwnedFd, name: String, number: i32) -> Result<Self, PassedSocketError> {
        match endpoint_of(fd.as_fd()) {
            Ok(endpoint) => Ok(Self { name, is_kept: false, endpoint, fd }),
            Err(what) => Err(PassedSocketError { number, name, what }),
        }
    }

    /// Returns the kind and address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns only the socket.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn endpoint_of(fd: BorrowedFd<'_>) -> Result<Endpoint, Unusable> {
    let of_system = |error: Errno| match error {
        Errno::BADF => Unusable::Closed,
        Errno::NOTSOCK => Unusable::NoSocket,
        error => Unusable::System(error.into()),
    };
    let protocol = socket_protocol(fd).map_err(of_system)?;
    let address = getsockname(fd).map_err(of_system)?;
    let family = address.address_family();
    let is_unix_stream = family == AddressFamily::UNIX && socket_type(fd).is_ok_and(|kind| kind == SocketType::STREAM);
    let endpoint = match (SocketAddr::try_from(address), protocol) {
        (Ok(address), Some(ipproto::UDP)) => Endpoint::Udp(address),
        (Ok(address), Some(ipproto::TCP)) => Endpoint::Tcp(address),
        (Err(_), _) if is_unix_stream => {
            let path = SockRef::from(&fd).local_addr().ok();
            let path = path.and_then(|address| address.as_pathname().map(PathBuf::from));
            Endpoint::Unix(path.ok_or(Unusable::NotBound)?)
        }
        (Ok(_) | Err(_), _) => return Err(Unusable::Kind(family.as_raw())),
    };
    if let Endpoint::Udp(address) | Endpoint::Tcp(address) = &endpoint {
        if address.port() == 0 {
            return Err(Unusable::NotBound);
        }
        if address.is_ipv6() && address.ip().is_unspecified() && !ipv6_v6only(fd).map_err(of_system)? {
            return Err(Unusable::DualStack);
        }
    }
    if !matches!(endpoint, Endpoint::Udp(_)) && !socket_acceptconn(fd).map_err(of_system)? {
        return Err(Unusable::NotListening);
    }
    Ok(endpoint)
}

/// The error of a passed socket that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("passed socket {number}{}: {what}", if .name.is_empty() { String::new() } else { format!(" ({name})") })]
pub struct PassedSocketError {
    number: i32,
    name: String,
    what: Unusable,
}

impl PassedSocketError {
    /// Creates the error of a descriptor that is not open.
    pub fn closed(number: i32, name: String) -> Self {
        Self { number, name, what: Unusable::Closed }
    }

    /// Creates the error of a descriptor that is no socket.
    pub fn no_socket(number: i32, name: String) -> Self {
        Self { number, name, what: Unusable::NoSocket }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it is closed; LISTEN_FDS must count open sockets only")]
    Closed,
    #[error("it is not a socket; pass only listening sockets")]
    NoSocket,
    #[error(
        "it is of address family {0} or of a type that is not listened on; pass UDP and TCP sockets of IPv4 or \
         IPv6 (ListenDatagram=, ListenStream=), or a stream socket of the file system for the admin server"
    )]
    Kind(u16),
    #[error("it is not bound to an address; bind it before it is passed")]
    NotBound,
    #[error("it does not listen; call listen() before it is passed (a socket unit needs Accept=no)")]
    NotListening,
    #[error("on [::] it takes IPv4 too; set BindIPv6Only=ipv6-only in its socket unit, and 0.0.0.0 besides")]
    DualStack,
    #[error("{0}; pass another one")]
    System(io::Error),
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// Returns the result for a socket that is passed as number 3.
    fn pass(socket: impl Into<OwnedFd>) -> Result<Endpoint, String> {
        let passed = ListeningSocket::inherited(socket.into(), "ts1.0".to_owned(), 3);
        passed.map(|socket| socket.endpoint).map_err(|error| error.to_string())
    }

    #[test]
    fn a_listening_socket_tells_where_it_listens() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let address = udp.local_addr().expect("it is bound");
        assert_eq!(pass(udp), Ok(Endpoint::Udp(address)));
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = tcp.local_addr().expect("it is bound");
        assert_eq!(pass(tcp), Ok(Endpoint::Tcp(address)));
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("admin.sock");
        assert_eq!(pass(UnixListener::bind(&path).expect("a free path")), Ok(Endpoint::Unix(path)));
    }

    #[test]
    fn what_cannot_be_listened_on_is_told_with_number_name_and_remedy() {
        let socket = |domain, kind| Socket::new(domain, kind, None).expect("a socket");
        let file = tempfile::tempfile().expect("a file");
        let bound = socket(Domain::IPV4, Type::STREAM);
        bound.bind(&"127.0.0.1:0".parse::<SocketAddr>().expect("an address").into()).expect("loopback");
        let both = socket(Domain::IPV6, Type::DGRAM);
        both.set_only_v6(false).expect("both families");
        both.bind(&"[::]:0".parse::<SocketAddr>().expect("an address").into()).expect("a free port");
        for (socket, reported) in [
            (OwnedFd::from(file), "is not a socket; pass"),
            (socket(Domain::IPV4, Type::DGRAM).into(), "not bound to an address; bind it"),
            (bound.into(), "does not listen; call listen()"),
            (both.into(), "takes IPv4 too; set BindIPv6Only=ipv6-only"),
            (UnixDatagram::unbound().expect("a socket").into(), "address family 1 "),
        ] {
            let error = pass(socket).expect_err(reported);
            assert!(error.starts_with("passed socket 3 (ts1.0): ") && error.contains(reported), "{error}");
        }
        let closed = PassedSocketError::closed(4, String::new()).to_string();
        assert_eq!(closed, "passed socket 4: it is closed; LISTEN_FDS must count open sockets only");
    }
}
