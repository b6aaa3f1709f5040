//! Connections that proxies pass on: what each is and whose, its header says, which is waited for before anything else.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::net::proxy_protocol::{Proxies, receive_header};
use crate::net::tasks::pass_on;

/// A connection with the address of its client.
type PassedOn = (TcpStream, SocketAddr);

/// The headers that one listener waits for.
pub(super) struct Headers {
    proxies: Arc<Proxies>,
    /// How long one is waited for.
    patience: Duration,
    awaited: JoinSet<Option<PassedOn>>,
}

/// What becomes of a connection that was just accepted.
pub(super) enum Taken {
    /// Its client has connected itself.
    Client(PassedOn),
    /// Its header is waited for.
    Awaited,
    /// Too many headers are waited for.
    Refused,
}

impl Headers {
    /// None are waited for yet.
    pub(super) fn new(proxies: Arc<Proxies>, patience: Duration) -> Self {
        Self { proxies, patience, awaited: JoinSet::new() }
    }

    /// Takes a connection that was accepted from this address.
    pub(super) fn take(&mut self, (mut stream, peer): PassedOn) -> Taken {
        if !self.proxies.has(peer.ip()) {
            return Taken::Client((stream, peer));
        }
        if self.awaited.len() >= MAX_AWAITED {
            return Taken::Refused;
        }
        let (patience, proxies) = (self.patience, Arc::clone(&self.proxies));
        self.awaited.spawn_local(async move {
            let named = timeout(patience, receive_header(&mut stream)).await.ok()?.ok()?;
            Some((stream, proxies.client(named, peer)?))
        });
        Taken::Awaited
    }

    /// The next connection that has its header; none for one that has no sound header in time, or one that names this
    /// host. Waits for ever if no header is waited for, and
    /// loses nothing if it is dropped.
    pub(super) async fn next(&mut self) -> Option<PassedOn> {
        match self.awaited.join_next().await {
            Some(Ok(header)) => header,
            Some(Err(error)) => {
                pass_on::<()>(Err(error));
                None
            }
            None => pending().await,
        }
    }
}

/// Headers that one listener of a worker waits for at a time. Only proxies that the config names are waited for, and what they send first is
/// the header.
const MAX_AWAITED: usize = 256;
