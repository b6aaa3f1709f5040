//! The admin server: what there is to see of a running server by HTTP, and the way in for changes.
//!
//! It runs on the control thread and knows nothing of workers: it turns HTTP into [`Request`]s, which the control thread
//! answers, and answers back into text and JSON. There are two ways in: a TCP listener, and a unix `socket` for changes
//! (`door`). `connections` looks after those who come by them, and `turn` after the time that each takes; `guard` says who
//! may, `routes` what there is, `live` tells each second to whoever listens, `page` is for browsers, `cache` looks into the cache, [`status`] is the shape of the JSON that `hedgerow ctl` reads too. `/healthz` says that the process runs; `/readyz` says whether it takes queries, and
//! only that unless it is asked about a pool: backends that are down do not make it unready. They are mostly the same for all
//! forwarders of a site, so that a balancer in front, which asks `/readyz`, would take all of them out at once and turn an answer
//! that says what is wrong into silence. `/readyz?pool=NAME` is for where another site stays.

mod authorization;
mod cache;
pub mod certificates;
mod condition;
mod connections;
mod deadline;
mod divergence;
mod explain;
mod listeners;
mod live;
mod names;
mod page;
mod routes;
mod slow;
mod socket;
pub mod status;
mod token;
mod usage;

use std::cell::RefCell;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use authorization::is_private;
pub use cache::CacheAccess;
pub use condition::Condition;
pub use explain::Question;
pub use socket::{Owner, Socket, SocketError, usual_folders, usual_places};
pub use token::{Token, TokenError};

use self::authorization::Guard;
use self::connections::{Bounds, Parts};
use self::listeners::Door;
use self::status::{Status, ZonesReport};
use crate::address::BackendAddress;
use crate::config::nearest;
pub use crate::metrics::OrderWord;
use crate::metrics::Snapshot;
use crate::sight::Event;
use crate::sight::divergence::Divergences;
use crate::sight::live::{History, Second, Span};
use crate::sight::names::TopNames;
use crate::sight::serials::Serials;
use crate::sight::slow::SlowRaces;
pub use crate::state::ManualHealth;

/// What of an admin server a reload changes while it serves.
#[derive(Debug)]
pub struct Settings {
    /// What lets anybody change something; none where there is no token.
    pub token: Option<Token>,
    /// Whether there is a page at `/`.
    pub has_page: bool,
}

/// What the admin server asks of the control thread. A way back that is dropped says that the server ends.
#[derive(Debug)]
pub enum Request {
    /// All numbers as of now.
    Snapshot(oneshot::Sender<Snapshot>),
    /// The status that these numbers make, with the verdict and the last minute.
    Status(Box<Snapshot>, oneshot::Sender<Status>),
    /// The last second.
    Second(oneshot::Sender<Second>),
    /// The seconds as they come.
    Seconds(Listener),
    /// What was.
    History(Span, oneshot::Sender<History>),
    /// The cache, if there is one.
    Cache(oneshot::Sender<Option<CacheAccess>>),
    /// The slow races, if any are kept.
    SlowRaces(oneshot::Sender<Option<Arc<Mutex<SlowRaces>>>>),
    /// The names that are counted, if any are.
    TopNames(oneshot::Sender<Option<Arc<Mutex<TopNames>>>>),
    /// Which versions of zones members of this pool, or of all, have.
    Serials(Option<String>, oneshot::Sender<Result<Serials, Refused>>),
    /// What members of this pool, or of all, answer differently.
    Divergences(Option<String>, oneshot::Sender<Result<Divergences, Refused>>),
    /// All zones and catalogs.
    Zones(oneshot::Sender<ZonesReport>),
    /// Ask a question for an operator, and tell what happens to it.
    Explain(Box<Question>, oneshot::Sender<Result<(), Refused>>),
    /// Carry out a change; says what was done in a sentence for people.
    Change(Change, oneshot::Sender<Result<String, Refused>>),
}

/// Who wants to be told each second.
#[derive(Debug)]
pub struct Listener {
    /// The last second that it was told; those after it come first, as far as they are kept.
    pub last: Option<u64>,
    /// Where those go that were missed.
    pub missed: oneshot::Sender<Vec<Event>>,
    /// Where the others go. It is dropped if there is no more room: who comes again gets what it has missed.
    pub seconds: mpsc::Sender<Event>,
}

/// A change to the running server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Read config and zones again.
    Reload,
    /// Have another process serve, or none.
    Processes(ProcessChange),
    /// A new backend, probed before it gets queries.
    Add {
        /// Name of the pool.
        pool: String,
        /// Where the backend is asked; also its name.
        address: BackendAddress,
        /// Share of the load, within the limits of the config.
        weight: u16,
    },
    /// Ask a backend no more, and let it finish what is in flight.
    Drain {
        /// Name of the pool.
        pool: String,
        /// Name or address of the backend.
        backend: String,
        /// Even if no other backend of the pool takes queries.
        is_forced: bool,
    },
    /// Have all LS of the fleet do something with a backend, or take that back.
    Order(Box<FleetOrder>),
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
        to: ManualHealth,
        /// Down even if no other backend of the pool takes queries.
        is_forced: bool,
    },
    /// Take what is doubted.
    Accept {
        /// The name of a catalog zone.
        name: String,
    },
}

/// An order for all LS of a fleet, or the end of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetOrder {
    /// Name of the pool.
    pub pool: String,
    /// Name or address of the backend.
    pub backend: String,
    /// What is to be done; none takes the order back.
    pub order: Option<OrderWord>,
    /// Who gives it.
    pub by: String,
    /// After how long it ends by itself; none: when it is taken back.
    pub lasts: Option<Duration>,
    /// Whether it is given though nobody of the pool would take queries.
    pub is_forced: bool,
}

/// A change of which process serves: carried out by whoever owns the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// Let a newcomer of the same program serve.
    Restart {
        /// Without the cache.
        is_cold: bool,
    },
    /// Let a newcomer serve that runs the file at the path that the supervisor was started from.
    Upgrade {
        /// Without the cache.
        is_cold: bool,
    },
    /// Drain and end, all processes.
    Stop,
}

impl ProcessChange {
    /// The word for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Restart { .. } => "restart",
            Self::Upgrade { .. } => "upgrade",
            Self::Stop => "stop",
        }
    }
}

/// How an admin server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Who has connected already is answered: nobody else would.
    Closed,
    /// Another process answers those who wait to be taken.
    PassedOn,
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

/// Serves until dropped; dropping it ends its connections. `socket` takes changes at the path beside it, `connections` is how many
/// there may be, `condition` what health checks are told. When there is an `end` it takes no more connections, and ends when it has
/// answered those that have asked. Must be called within a `LocalSet`.
///
/// # Errors
/// If the runtime cannot watch the listeners, or something that serves a connection has panicked.
pub async fn serve(
    listener: std::net::TcpListener,
    socket: Option<(UnixListener, PathBuf)>,
    connections: usize,
    settings: Rc<RefCell<Settings>>,
    requests: mpsc::Sender<Request>,
    condition: Arc<Condition>,
    end: watch::Receiver<Option<Ending>>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (socket, path) = socket.unzip();
    match &path {
        Some(path) => tracing::info!(socket = %path.display(), "admin: changes over the socket need no token"),
        None if settings.borrow().token.is_none() => {
            tracing::info!("admin: no changes are taken: there is neither socket nor token_file")
        }
        None => {}
    }
    let guard = Rc::new(Guard::new(settings, address.ip(), path));
    // Of a client that listens nobody knows when it ends: such connections have a part of their own.
    let streams = live::MAX_STREAMS.min(connections / 3);
    let connections = connections - streams;
    let router = routes::router(requests, condition, live::Streams::new(streams, socket.is_some()));
    // Whoever may use the socket always has a part.
    let owners = if socket.is_some() { connections / 4 } else { 0 };
    let bounds = Bounds::of(connections - owners);
    let hosts = Parts::new(Rc::clone(&guard), router.clone(), bounds).serve(Door::hosts(listener)?, end.clone());
    let Some(socket) = socket else { return hosts.await };
    let owner = Parts::new(guard, router, Bounds::of(owners)).serve(Door::owner(socket)?, end);
    // Neither ends before it is told to, unless it fails.
    tokio::try_join!(hosts, owner).map(|((), ())| ())
}
