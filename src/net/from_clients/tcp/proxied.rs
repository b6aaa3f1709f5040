//! Connections from proxies, which begin with a PROXY header that names the client.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::net::proxy_protocol::{Proxies, receive_header};
use crate::net::tasks::pass_on;

type PassedOn = (TcpStream, SocketAddr);

pub(crate) struct Headers {
    proxies: Arc<Proxies>,
    patience: Duration,
    awaited: JoinSet<Option<PassedOn>>,
}

pub(crate) enum HeaderOutcome {
    Client(PassedOn),
    Awaited,
    Refused,
}

impl Headers {
    pub(crate) fn new(proxies: Arc<Proxies>, patience: Duration) -> Self {
        Self { proxies, patience, awaited: JoinSet::new() }
    }

    pub(crate) fn take(&mut self, (mut stream, peer): PassedOn) -> HeaderOutcome {
        if !self.proxies.has(peer.ip()) {
            return HeaderOutcome::Client((stream, peer));
        }
        if self.awaited.len() >= MAX_AWAITED {
            return HeaderOutcome::Refused;
        }
        let (patience, proxies) = (self.patience, Arc::clone(&self.proxies));
        self.awaited.spawn_local(async move {
            let named = timeout(patience, receive_header(&mut stream)).await.ok()?.ok()?;
            Some((stream, proxies.client(named, peer)?))
        });
        HeaderOutcome::Awaited
    }

    /// Waits for the next connection with a header; `None` for one without a valid header in time, or one
    /// that names this host. Waits for ever if no header is pending. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<PassedOn> {
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

/// The limit of pending headers per listener and worker. Only configured proxies get here, and they send the
/// header first.
const MAX_AWAITED: usize = 256;
