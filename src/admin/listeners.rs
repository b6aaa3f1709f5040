//! The two listeners: TCP for hosts, and a unix socket for the server's own user and root.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::authorization::RequestOrigin;
use super::socket;

pub(super) trait AdminStream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> AdminStream for S {}

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

    /// Accepts the pending connections before the close, directly: the runtime may not have seen them yet.
    pub(super) fn rest(self) -> Vec<(Box<dyn AdminStream>, RequestOrigin)> {
        let mut rest: Vec<(Box<dyn AdminStream>, RequestOrigin)> = Vec::new();
        match self {
            Self::Hosts(listener) => {
                let Ok(listener) = listener.into_std() else { return rest };
                while let Ok((stream, peer)) = listener.accept()
                    && stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(stream)
                {
                    rest.push((Box::new(stream), RequestOrigin::Host(peer.ip().to_canonical())));
                }
            }
            Self::Owner(listener) => {
                let Ok(listener) = listener.into_std() else { return rest };
                while let Ok((stream, _)) = listener.accept()
                    && stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = UnixStream::from_std(stream)
                {
                    if let Ok(uid) = stream.peer_cred().map(|peer| peer.uid())
                        && socket::may_change(uid)
                    {
                        rest.push((Box::new(stream), RequestOrigin::Owner(uid)));
                    }
                }
            }
        }
        rest
    }

    /// Accepts the next connection; `None` if it is refused. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<Option<(Box<dyn AdminStream>, RequestOrigin)>> {
        match self {
            Self::Hosts(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(Some((Box::new(stream), RequestOrigin::Host(peer.ip().to_canonical()))))
            }
            Self::Owner(listener) => {
                let (stream, _) = listener.accept().await?;
                // The mode of the file already keeps others out, but the mode can be changed.
                let uid = stream.peer_cred()?.uid();
                if socket::may_change(uid) {
                    return Ok(Some((Box::new(stream), RequestOrigin::Owner(uid))));
                }
                tracing::warn!(
                    uid,
                    "admin: a connection is rejected: only root and the user of the server may use the socket"
                );
                Ok(None)
            }
        }
    }
}
