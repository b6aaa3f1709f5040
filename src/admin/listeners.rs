//! The two listeners: TCP for hosts, and a unix socket for the server's own user and root.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::authorization::RequestOrigin;
use super::socket;

pub(super) trait AdminStream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> AdminStream for S {}

pub(super) type Accepted = (Box<dyn AdminStream>, RequestOrigin);

pub(super) enum Door {
    Hosts(TcpListener),
    Owner(UnixListener),
}

impl Door {
    pub(super) fn hosts(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Hosts)
    }

    pub(super) fn owner(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        UnixListener::from_std(listener).map(Self::Owner)
    }

    /// Accepts the next connection; `None` if it is refused. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Option<Accepted>> {
        match self {
            Self::Hosts(listener) => listener.accept().await.map(|(stream, peer)| Some(of_host(stream, peer))),
            Self::Owner(listener) => of_owner(listener.accept().await?.0),
        }
    }

    /// Accepts a pending connection, directly: the runtime may not have seen it yet.
    pub(super) fn accept_pending(&self) -> io::Result<Option<Accepted>> {
        let (socket, peer) = match self {
            Self::Hosts(listener) => SockRef::from(listener).accept()?,
            Self::Owner(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        match peer.as_socket() {
            Some(peer) => Ok(Some(of_host(TcpStream::from_std(socket.into())?, peer))),
            None => of_owner(UnixStream::from_std(socket.into())?),
        }
    }
}

fn of_host(stream: TcpStream, peer: SocketAddr) -> Accepted {
    (Box::new(stream), RequestOrigin::Host(peer.ip().to_canonical()))
}

fn of_owner(stream: UnixStream) -> io::Result<Option<Accepted>> {
    // The mode of the file already keeps others out, but the mode can be changed.
    let uid = stream.peer_cred()?.uid();
    if socket::may_change(uid) {
        return Ok(Some((Box::new(stream), RequestOrigin::Owner(uid))));
    }
    tracing::warn!(uid, "admin: a connection is rejected: only root and the user of the server may use the socket");
    Ok(None)
}
