//! The admin server: what there is to see of a running server by HTTP, and the way in for changes.
//!
//! It runs on the control thread and knows nothing of workers: it turns HTTP into [`Request`]s, which the control thread
//! answers, and answers back into text and JSON. `guard` says who may, `routes` what there is, `cache` looks into the cache,
//! [`status`] is the shape of the JSON that `hedgerow ctl` reads too. `/healthz` says that the process runs; `/readyz` says whether it takes queries, and
//! only that: backends that are down do not make it unready. They are mostly the same for all forwarders of a site, so that
//! a balancer in front, which asks `/readyz`, would take all of them out at once and turn an answer that says what is
//! wrong into silence.

mod cache;
mod guard;
mod routes;
pub mod status;
mod token;

use std::future;
use std::net::SocketAddr;
use std::time::Duration;
use std::{fmt, io};

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use cache::CacheAccess;
pub use token::{Token, TokenError};

use self::guard::{Guard, Peer};
use crate::config::nearest;
use crate::metrics::Snapshot;
pub use crate::plan::Manual;

/// What the admin server asks of the control thread. A way back that is dropped says that the server ends.
#[derive(Debug)]
pub enum Request {
    /// All numbers as of now.
    Snapshot(oneshot::Sender<Snapshot>),
    /// The cache, if there is one.
    Cache(oneshot::Sender<Option<CacheAccess>>),
    /// Carry out a change; says what was done in a sentence for people.
    Change(Change, oneshot::Sender<Result<String, Refused>>),
}

/// A change to the running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Read config and zones again.
    Reload,
    /// A new backend, probed before it gets queries.
    Add {
        /// Name of the pool.
        pool: String,
        /// Where the backend is asked; also its name.
        address: SocketAddr,
        /// Share of the load, within the limits of the config.
        weight: u16,
    },
    /// Ask a backend no more, and let it finish what is in flight.
    Drain {
        /// Name of the pool.
        pool: String,
        /// Name or address of the backend.
        backend: String,
    },
    /// Take a backend out.
    Remove {
        /// Name of the pool.
        pool: String,
        /// Name or address of the backend.
        backend: String,
    },
    /// Set a backend's state by hand, or leave it to the probes again.
    Set {
        /// Name of the pool.
        pool: String,
        /// Name or address of the backend.
        backend: String,
        /// The state.
        to: Manual,
    },
}

/// Why a change was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is nothing of that name.
    NotFound(String),
    /// It does not go with what there is.
    Conflict(String),
    /// It would be wrong whatever there is, such as a config that is.
    Invalid(String),
}

impl Refused {
    /// There is no `what` (pool, backend) of this name among the known ones; says which was perhaps meant.
    pub fn no_such<'n>(what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let remedy = match nearest(name, known.iter().copied()) {
            Some(known) => format!(", did you mean {known:?}?"),
            None if known.is_empty() => String::new(),
            None => format!(", expected one of {}", known.join(", ")),
        };
        Self::NotFound(format!("there is no {what} {name:?}{remedy}"))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(message) | Self::Conflict(message) | Self::Invalid(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Refused {}

/// Serves until dropped; dropping it ends its connections. `is_ready` tells whether queries are taken. Must be called within
/// a `LocalSet`.
///
/// # Errors
/// If the runtime cannot watch the listener.
pub async fn serve(
    listener: std::net::TcpListener,
    token: Option<Token>,
    requests: mpsc::UnboundedSender<Request>,
    is_ready: impl Fn() -> bool + Send + Sync + 'static,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    if token.is_none() && !address.ip().is_loopback() {
        tracing::info!(
            "admin: whoever reaches {address} can read; changes are taken from this host only (no token_file)"
        );
    }
    let router = routes::router(Guard::new(token, address.ip()), requests, is_ready);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer.ip()))));
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    connections.spawn_local(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%peer, %error, "an admin connection broke off");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin: a connection was not accepted");
                    // Out of descriptors, most likely, and nothing tells when there is one again: do not spin.
                    let _ = timeout(PAUSE, future::pending::<()>()).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How long a client may take for the head of a request, and stay connected without asking: longer than the usual time
/// between scrapes.
const PATIENCE: Duration = Duration::from_secs(75);
/// How long to leave the listener alone when it gives no connections.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections at once. Each costs a descriptor that a backend socket could need.
const MAX_CONNECTIONS: usize = 64;
