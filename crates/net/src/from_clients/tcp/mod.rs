//! The server side of DNS over TCP (RFC 7766): listeners, connections, framing. It passes each message to a
//! handler and writes the responses in any order. Encrypted connections (RFC 7858) differ only by a handshake
//! ([`tls`](super::tls)); HTTP has requests instead of frames ([`http`](super::http)), chosen by ALPN or the
//! listener.
//!
//! A connection is one task of the worker that accepted it. It begins with a PROXY header, if a proxy passes
//! it on, and a handshake (`accepted.rs`); then it serves queries (`connection.rs`). All connections of a
//! section share [`ConnectionTable`] (`table.rs`): the count per client, making room, and the number of
//! unsent bytes. A [`Responder`] is the reply channel to one connection, usable from any thread
//! (`responder.rs`). `limit/` has the policies.

mod accepted;
mod connection;
pub(crate) mod exchange;
mod frames;
mod moved;
pub(crate) mod responder;
pub(crate) mod stream;
pub(crate) mod table;

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

pub use self::accepted::TcpProtocols;
use self::accepted::TcpService;
pub use self::moved::MovedConnection;
pub use self::responder::{Cacheability, QueryHandler, Responder};
pub(crate) use self::responder::{ResponseOutput, ToListener, WayBack};
pub use self::table::ConnectionTable;
pub(crate) use self::table::{ConnectionSlot, Wake};
use super::service::ConnectionService;
pub use super::tls::handshake::Gate;
pub use super::tls::protocols::Protocols;
use crate::tasks::pass_on;

/// Accepts connections while the address of the listener is served, then lets them finish. Connections to an
/// address that is no longer covered finish at once.
pub async fn serve(listener: TcpListener, service: ConnectionService, protocols: TcpProtocols) {
    let service = Rc::new(TcpService::new(service, protocols));
    let mut connections = JoinSet::new();
    accept_all(&listener, &service, &mut connections).await;
    // The runtime must stop watching the socket, even if other processes hold it.
    if let Ok(listener) = listener.into_std()
        && !service.is_passed_on()
    {
        // Clients in the kernel's queue connected before the end, so accept them. Ask the kernel directly,
        // because the runtime may not know about them yet.
        while let Ok((stream, peer)) = listener.accept().and_then(|(stream, peer)| Ok((watched(stream)?, peer))) {
            connections.spawn_local(Rc::clone(&service).take(stream, peer));
        }
        // A close would leave the socket listening in other processes that hold it. The shutdown ends
        // listening at once, and the accepted clients are served to the end.
        let _ = SockRef::from(&listener).shutdown(Shutdown::Read);
    }
    while let Some(ended) = connections.join_next().await {
        pass_on(ended);
    }
}

/// Accepts connections until the address is no longer served.
async fn accept_all(listener: &TcpListener, service: &Rc<TcpService>, connections: &mut JoinSet<()>) {
    let ConnectionService { address, table, served, .. } = &service.service;
    let mut left = served.clone();
    let mut logged_at: Option<Instant> = None;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn_local(Rc::clone(service).take(stream, peer));
                    // Accept once between two polls, so that datagrams do not wait for many new connections.
                    yield_now().await;
                }
                // The connection stays in the kernel's queue, so an immediate retry would spin. Open
                // connections are served meanwhile.
                Err(error) if is_exhausted(&error) => {
                    if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= SILENCE) {
                        logged_at = Some(Instant::now());
                        tracing::warn!(listener = table.name(), %error, "cannot accept connections, trying again");
                    }
                    let _ = timeout(BREATH, served.clone().wait_for(|served| !served.has(*address))).await;
                }
                Err(_) => {}
            },
            moved = table.adopted() => {
                connections.spawn_local(Rc::clone(service).adopt(moved));
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => pass_on(ended),
            _ = left.wait_for(|served| !served.has(*address)) => return,
        }
    }
}

fn watched(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// The pause of accepting after the process ran out of descriptors, and the time left for PROXY headers and
/// handshakes once the address is no longer served.
const BREATH: Duration = Duration::from_millis(100);

const SILENCE: Duration = Duration::from_secs(1);
