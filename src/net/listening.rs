//! Listening sockets as values that go from process to process: what each listens on, by what name it goes, and whether one that
//! another process has bound can be used.
//!
//! A name is the section with the place of the address in its `listen`: `forwarder.0`, `ts1.1`, `admin.0`. All sockets of an
//! address have the same name. What is passed is known by kind and address, and by its name only where the config leaves the
//! port to the kernel.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::sockopt::{ipv6_v6only, socket_acceptconn, socket_protocol, socket_type};
use rustix::net::{AddressFamily, SocketType, getsockname, ipproto};
use socket2::SockRef;

/// Kind and address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Datagrams.
    Udp(SocketAddr),
    /// Connections.
    Tcp(SocketAddr),
    /// Connections from this host alone.
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

/// A listening socket that can be passed on, or was passed to us.
#[derive(Debug)]
pub struct ListeningSocket {
    /// As we have named it, or whoever has passed it; empty if nobody has.
    pub name: String,
    /// Whether a service manager keeps it, so that it goes on when this process ends.
    pub is_kept: bool,
    endpoint: Endpoint,
    fd: OwnedFd,
}

impl ListeningSocket {
    /// One of our own.
    pub fn new(name: String, is_kept: bool, endpoint: Endpoint, fd: OwnedFd) -> Self {
        Self { name, is_kept, endpoint, fd }
    }

    /// One that another process has passed as its descriptor of this number; `name` is empty if it has none.
    ///
    /// # Errors
    /// If it is none that can be listened on.
    pub fn inherited(fd: OwnedFd, name: String, number: i32) -> Result<Self, PassedSocketError> {
        match endpoint_of(fd.as_fd()) {
            Ok(endpoint) => Ok(Self { name, is_kept: false, endpoint, fd }),
            Err(what) => Err(PassedSocketError { number, name, what }),
        }
    }

    /// What it listens on.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The socket alone.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What a socket listens on, if it does.
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

/// A socket that was passed to us cannot be used.
#[derive(Debug)]
pub struct PassedSocketError {
    /// The number of its descriptor.
    number: i32,
    /// Its name; empty if it has none.
    name: String,
    what: Unusable,
}

impl PassedSocketError {
    /// There is nothing open of this number.
    pub fn closed(number: i32, name: String) -> Self {
        Self { number, name, what: Unusable::Closed }
    }

    /// What is open of this number is no socket.
    pub fn no_socket(number: i32, name: String) -> Self {
        Self { number, name, what: Unusable::NoSocket }
    }
}

/// What is wrong with a socket.
#[derive(Debug)]
enum Unusable {
    Closed,
    NoSocket,
    /// Of this family, or of a kind that nobody listens on.
    Kind(u16),
    NotBound,
    NotListening,
    /// It takes IPv4 by an address of IPv6.
    DualStack,
    System(io::Error),
}

impl fmt::Display for PassedSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, name, what } = self;
        write!(f, "passed socket {number}")?;
        if !name.is_empty() {
            write!(f, " ({name})")?;
        }
        f.write_str(": ")?;
        match what {
            Unusable::Closed => f.write_str("it is closed; LISTEN_FDS must count open sockets only"),
            Unusable::NoSocket => f.write_str("it is no socket; pass what is listened on, and nothing else"),
            Unusable::Kind(family) => write!(
                f,
                "it is of address family {family} or of a type that is not listened on; pass UDP and TCP sockets of IPv4 or \
                 IPv6 (ListenDatagram=, ListenStream=), or a stream socket of the file system for the admin server"
            ),
            Unusable::NotBound => f.write_str("it is not bound to an address; bind it before it is passed"),
            Unusable::NotListening => {
                f.write_str("it does not listen; call listen() before it is passed (a socket unit needs Accept=no)")
            }
            Unusable::DualStack => f.write_str(
                "on [::] it takes IPv4 too; set BindIPv6Only=ipv6-only in its socket unit, and 0.0.0.0 besides",
            ),
            Unusable::System(error) => write!(f, "{error}; pass another one"),
        }
    }
}

impl std::error::Error for PassedSocketError {}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use socket2::{Domain, Socket, Type};

    use super::*;

    /// What comes of a socket that is passed as number 3.
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
        for (socket, told) in [
            (OwnedFd::from(file), "no socket; pass"),
            (socket(Domain::IPV4, Type::DGRAM).into(), "not bound to an address; bind it"),
            (bound.into(), "does not listen; call listen()"),
            (both.into(), "takes IPv4 too; set BindIPv6Only=ipv6-only"),
            (UnixDatagram::unbound().expect("a socket").into(), "address family 1 "),
        ] {
            let error = pass(socket).expect_err(told);
            assert!(error.starts_with("passed socket 3 (ts1.0): ") && error.contains(told), "{error}");
        }
        let closed = PassedSocketError::closed(4, String::new()).to_string();
        assert_eq!(closed, "passed socket 4: it is closed; LISTEN_FDS must count open sockets only");
    }
}
