//! The admin server: HTTP access to the state of a running server, and the entry point for changes.
//!
//! It runs on the control thread and knows nothing of workers. It turns HTTP into [`AdminRequest`]s, and the
//! answers of the control thread into text and JSON. A TCP listener serves everything; a unix socket takes
//! changes. [`status`] is the JSON that `hedgerow ctl` reads too.
//!
//! `/healthz` reports that the process runs, `/readyz` that it takes queries. Backends that are down do not
//! make the server unready: all forwarders of a site mostly share them, so a load balancer would remove every
//! forwarder and turn error responses into silence. Use `/readyz?pool=NAME` where another site remains.

mod authorization;
mod cache;
mod condition;
mod connections;
mod deadline;
mod explain;
mod listeners;
mod live;
pub(crate) mod naming;
mod page;
mod record;
mod reports;
mod routes;
mod socket;
pub mod status;
mod token;
mod usage;

use std::cell::RefCell;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use authorization::is_private;
pub use cache::CacheAccess;
pub use condition::HealthCondition;
use config::remedy;
use dns::address::BackendAddress;
use engine::slow::SlowRaces;
pub use explain::ExplainQuestion;
use metrics::Snapshot;
pub use socket::{AdminUnixSocket, SocketError, SocketOwner, usual_folders, usual_places};
pub use token::{Token, TokenError};

use self::authorization::Guard;
use self::connections::ConnectionParts;
use self::listeners::Door;
use self::status::{Status, ZonesReport};
use crate::control::observe::sight::Event;
use crate::control::observe::sight::divergence::Divergences;
use crate::control::observe::sight::live::{HistoryFigures, Second, Span};
use crate::control::observe::sight::names::TopNames;
use crate::control::observe::sight::serials::Serials;
use crate::worker::forwarder::RecordRequest;
pub use engine::state::ManualHealth;
pub use metrics::{CertificateSnapshot, OrderWord};

/// The settings that a reload can change.
#[derive(Debug)]
pub struct Settings {
    /// The token for changes; `None` if none is configured.
    pub token: Option<Token>,
    /// True if `/` serves the web page.
    pub has_page: bool,
}

/// The state that the server shows to operators.
pub trait ServerView {
    /// Returns the status for these metrics, with the verdict and the last minute.
    fn status(&self, snapshot: &Snapshot) -> Status;
    /// Returns the last second; `None` before the first.
    fn second(&self) -> Option<Second>;
    /// Returns the history of a time span; `None` before the first second.
    fn history(&self, span: Span) -> Option<HistoryFigures>;
    /// Returns access to the cache, if there is one.
    fn cache(&self) -> Option<CacheAccess>;
    /// Returns the slow races, if they are recorded.
    fn slow_races(&self) -> Option<Arc<Mutex<SlowRaces>>>;
    /// Returns the name counters, if names are counted.
    fn top_names(&self) -> Option<Arc<Mutex<TopNames>>>;
    /// Returns the zone versions of the members of this pool, or of all pools.
    fn serials(&self, pool: Option<&str>) -> Result<Serials, ChangeRefusal>;
    /// Returns the divergent answers of this pool, or of all pools.
    fn divergences(&self, pool: Option<&str>) -> Result<Divergences, ChangeRefusal>;
    /// Returns all zones and catalogs.
    fn zones(&self) -> ZonesReport;
    /// Returns the certificates of encrypted listeners.
    fn certificates(&self) -> Vec<CertificateSnapshot>;
}

/// A function that reads the state and sends what it has read.
pub type ServerReading = Box<dyn FnOnce(&dyn ServerView) + Send>;

/// A request to the control thread. A dropped reply channel means that the server is shutting down.
pub enum AdminRequest {
    /// Returns all current metrics.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Reads the state and sends it.
    Read(ServerReading),
    /// Records races for so long.
    Record(RecordRequest, Duration, oneshot::Sender<Result<(), ChangeRefusal>>),
    /// Subscribes to each new second.
    Seconds(LiveSubscriber),
    /// Runs a question for an operator and reports its events.
    Explain(Box<ExplainQuestion>, oneshot::Sender<Result<(), ChangeRefusal>>),
    /// Carries out a change and returns a sentence about it.
    Change(ServerChange, oneshot::Sender<Result<String, ChangeRefusal>>),
}

/// A subscriber to the seconds.
#[derive(Debug)]
pub struct LiveSubscriber {
    /// The last second that the client has received. Later ones are sent first, as far as they are kept.
    pub last: Option<u64>,
    /// The channel for missed seconds.
    pub missed: oneshot::Sender<Vec<Event>>,
    /// The channel for new seconds. The sender drops it when it is full.
    pub seconds: mpsc::Sender<Event>,
}

/// A change to the running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerChange {
    /// Reads the config and zones again.
    Reload,
    /// Starts a new process, or stops all.
    Processes(ProcessChange),
    /// Adds a backend, which is probed before it gets queries.
    Add {
        /// The name of the pool.
        pool: String,
        /// The backend's address, also its name.
        address: BackendAddress,
        /// The backend's share of the load, within the limits of the config.
        weight: u16,
    },
    /// Stops queries to a backend; attempts in flight finish.
    Drain {
        /// The name of the pool.
        pool: String,
        /// The backend's name or address.
        backend: String,
        /// The time until the drain ends by itself; `None` for never.
        lasts: Option<Duration>,
        /// True to proceed even if no other backend of the pool takes queries.
        is_forced: bool,
    },
    /// Gives or revokes an order to all forwarders of the fleet.
    Order(Box<FleetOrder>),
    /// Removes a backend.
    Remove {
        /// The name of the pool.
        pool: String,
        /// The backend's name or address.
        backend: String,
    },
    /// Sets a backend's state by hand, or returns it to the probes.
    Set {
        /// The name of the pool.
        pool: String,
        /// The backend's name or address.
        backend: String,
        /// The state to set.
        to: ManualHealth,
        /// The time until the probes decide again; `None` for never.
        lasts: Option<Duration>,
        /// True to set it down even if no other backend of the pool takes queries.
        is_forced: bool,
    },
    /// Accepts a doubted catalog.
    Accept {
        /// The name of the catalog zone.
        name: String,
    },
}

/// An order to all forwarders of a fleet, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetOrder {
    /// The name of the pool.
    pub pool: String,
    /// The backend's name or address.
    pub backend: String,
    /// The order; `None` revokes it.
    pub order: Option<OrderWord>,
    /// The operator's name.
    pub by: String,
    /// The lifetime; `None` means until revoked.
    pub lasts: Option<Duration>,
    /// True to proceed even if no backend of the pool would take queries.
    pub is_forced: bool,
}

/// A change of the serving process. The owner of the server carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// Starts a new process of the same program.
    Restart {
        /// True to start without the cache.
        is_cold: bool,
    },
    /// Starts a new process from the file that the supervisor was started from.
    Upgrade {
        /// True to start without the cache.
        is_cold: bool,
    },
    /// Drains and ends all processes.
    Stop,
}

impl ProcessChange {
    /// Returns the word for messages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Restart { .. } => "restart",
            Self::Upgrade { .. } => "upgrade",
            Self::Stop => "stop",
        }
    }
}

/// The way in which an admin server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminEnding {
    /// The server answers clients that are already connected, because no other process will.
    Closed,
    /// Another process accepts the pending connections.
    PassedOn,
}

/// The reason why a change was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// The name is unknown.
    #[error("{0}")]
    NotFound(String),
    /// The change conflicts with the current state.
    #[error("{0}")]
    Conflict(String),
    /// Always invalid, for instance a config with errors.
    #[error("{0}")]
    Invalid(String),
}

impl ChangeRefusal {
    /// Returns the error for an unknown `what` (pool, backend), with the most similar known name.
    pub fn no_such<'n>(what: &str, name: &str, known: impl IntoIterator<Item = &'n str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let remedy = match &*known {
            [] => String::new(),
            known => format!(", {}", remedy(name, known.iter().copied())),
        };
        Self::NotFound(format!("there is no {what} {name:?}{remedy}"))
    }
}

/// Serves until dropped; dropping it ends its connections. After `end` it accepts no more connections,
/// answers the pending requests and returns. `socket` is the listener for changes with its path. Call it
/// within a `LocalRuntime`.
///
/// # Errors
/// If the runtime cannot watch the listeners, or a connection task has panicked.
pub async fn serve(
    listener: std::net::TcpListener,
    socket: Option<(UnixListener, PathBuf)>,
    connections: usize,
    settings: Rc<RefCell<Settings>>,
    requests: mpsc::Sender<AdminRequest>,
    condition: Arc<HealthCondition>,
    end: watch::Receiver<Option<AdminEnding>>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (socket, path) = socket.unzip();
    match &path {
        Some(path) => tracing::info!(socket = %path.display(), "admin: changes over the socket need no token"),
        None if settings.borrow().token.is_none() => {
            tracing::info!("admin: changes are disabled: neither admin.socket nor admin.token_file is set")
        }
        None => {}
    }
    let guard = Rc::new(Guard::new(settings, address.ip(), path));
    // Streams have no known end, so they have a separate share of the connections.
    let streams = live::MAX_STREAMS.min(connections / 3);
    let connections = connections - streams;
    let router = routes::router(requests, condition, live::LiveStreams::new(streams, socket.is_some()));
    let owners = if socket.is_some() { connections / 4 } else { 0 };
    let hosts = ConnectionParts::new(Rc::clone(&guard), router.clone(), connections - owners);
    let hosts = hosts.serve(Door::hosts(listener)?, end.clone());
    let Some(socket) = socket else { return hosts.await };
    let owner = ConnectionParts::new(guard, router, owners).serve(Door::owner(socket)?, end);
    // Neither ends before `end`, unless it fails.
    tokio::try_join!(hosts, owner).map(|((), ())| ())
}
