//! The two ways in: a TCP listener for hosts, a unix socket for the server's own user and root.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::authorization::Origin;
use super::socket;

/// A connection, of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// What connections come in by.
pub(super) enum Door {
    /// For hosts.
    Hosts(TcpListener),
    /// For the server's own user and root.
    Owner(UnixListener),
}

impl Door {
    /// A TCP listener.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub(super) fn hosts(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::Hosts)
    }

    /// A unix socket.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub(super) fn owner(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        UnixListener::from_std(listener).map(Self::Owner)
    }

    /// Those that have connected already, before it closes. The kernel is asked itself, for the runtime may not have heard of them.
    pub(super) fn rest(self) -> Vec<(Box<dyn Stream>, Origin)> {
        let mut rest: Vec<(Box<dyn Stream>, Origin)> = Vec::new();
        match self {
            Self::Hosts(listener) => {
                let Ok(listener) = listener.into_std() else { return rest };
                while let Ok((stream, peer)) = listener.accept()
                    && stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(stream)
                {
                    rest.push((Box::new(stream), Origin::Host(peer.ip().to_canonical())));
                }
            }
            Self::Owner(listener) => {
                let Ok(listener) = listener.into_std() else { return rest };
                while let Ok((stream, _)) = listener.accept()
                    && stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = UnixStream::from_std(stream)
                {
                    if stream.peer_cred().is_ok_and(|peer| socket::may_change(peer.uid())) {
                        rest.push((Box::new(stream), Origin::Owner));
                    }
                }
            }
        }
        rest
    }

    /// The next connection; none if it is one that is not taken. Loses nothing if it is dropped.
    ///
    /// # Errors
    /// If the system has none to give, such as for want of descriptors.
    pub(super) async fn accept(&self) -> io::Result<Option<(Box<dyn Stream>, Origin)>> {
        match self {
            Self::Hosts(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Some((Box::new(stream), Origin::Host(peer.ip().to_canonical()))))
            }
            Self::Owner(listener) => {
                let (stream, _) = listener.accept().await?;
                // The mode of the file keeps others out already; but it is a file, and somebody may change that.
                let uid = stream.peer_cred()?.uid();
                if socket::may_change(uid) {
                    return Ok(Some((Box::new(stream), Origin::Owner)));
                }
                tracing::warn!(uid, "admin: the socket is for the user of the server and root; others are not heard");
                Ok(None)
            }
        }
    }
}
