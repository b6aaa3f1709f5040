//! `[xdp]`: interfaces whose datagrams reach the workers by AF_XDP.
//!
//! The kernel's sockets stay bound whatever happens, and hear all that no worker hears by AF_XDP. So an interface that is not there, is
//! taken away, or is another process's yet, costs speed and no query.
//!
//! ```text
//!                 rights are still there            the server takes queries
//!   unprepared ──────────────────────────▶ prepared ─────────────────────────▶ attached
//!       ▲   program and sockets are made              program hangs on the interface, sockets on its queues
//!       └─────────────────────────────────────────────────────┘
//!          the interface is gone, or is another
//! ```
//!
//! The control thread looks at all interfaces when the kernel tells that something has changed there, when listeners or backends
//! have changed, and again after a while as long as something is wanting. What it finds goes to the workers: their sockets, and the next
//! hops of backends.

mod interface;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

use self::interface::Interface;
use super::listeners::worker_count;
use super::worker::{Command, XdpSocket};
use super::{Listeners, Server};
use crate::config::{Config, XdpConfig};
use crate::metrics::XdpSnapshot;
use crate::net::batch;
use crate::net::xdp::netlink::{self, Changes};
use crate::net::xdp::{EXPERIMENTAL, NextHop, NextHops};
use crate::state::ForwarderState;

/// The interfaces of `[xdp]`.
pub struct Xdp {
    interfaces: Vec<Interface>,
    workers: u32,
    /// Whether the server is not to start without them.
    is_required: bool,
    /// Tells of changes; none while nothing is served, or where the kernel does not tell.
    changes: Option<(Changes, AsyncFd<OwnedFd>)>,
    /// When it was last looked.
    looked: Option<Instant>,
    /// When to look again.
    due: Option<Instant>,
    /// How long to wait for what is wanting.
    patience: Duration,
    /// The backends that there were at the last look.
    backends: HashSet<IpAddr>,
    /// What the workers know.
    next_hops: Arc<NextHops>,
}

/// An interface of `[xdp]` cannot be had, and nothing is to be had instead.
#[derive(Debug)]
pub struct XdpError {
    interface: String,
    problem: String,
}

impl fmt::Display for XdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, problem } = self;
        write!(f, "xdp: {interface}: {problem}; with fallback = true it is served by sockets")
    }
}

impl std::error::Error for XdpError {}

impl Xdp {
    /// Makes what takes rights that are given up later, for each interface of a config. What cannot be made now is tried again.
    pub fn prepare(config: &Config) -> Option<Self> {
        let XdpConfig { interfaces, .. } = config.xdp.as_ref()?;
        allow_locked_memory();
        let workers = u32::try_from(worker_count(config)).unwrap_or(u32::MAX);
        let interfaces = interfaces.iter().map(|config| Interface::prepare(config.clone(), workers));
        Some(Self {
            interfaces: interfaces.collect(),
            workers,
            is_required: false,
            changes: None,
            looked: None,
            due: None,
            patience: MIN_PATIENCE,
            backends: HashSet::new(),
            next_hops: Arc::default(),
        })
    }

    /// Fails if something is wanting that the config says not to do without, and warns that all this is experimental. For a process that nobody
    /// waits for.
    ///
    /// # Errors
    /// If something is wanting already.
    pub fn require(&mut self, config: &Config) -> Result<(), XdpError> {
        tracing::warn!("{EXPERIMENTAL}");
        self.is_required = config.xdp.as_ref().is_some_and(|xdp| !xdp.fallback);
        self.check()
    }

    fn check(&self) -> Result<(), XdpError> {
        let wanting = self.interfaces.iter().find_map(|interface| Some((interface, interface.problem()?)));
        match wanting {
            Some((interface, problem)) if self.is_required => {
                Err(XdpError { interface: interface.name().to_owned(), problem: problem.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Looks at all interfaces, and puts right what can be. Returns whether workers have to be given their sockets anew.
    fn look(&mut self, listening: &[SocketAddr], now: Instant) -> bool {
        if self.changes.is_none() {
            // A kernel that tells nothing is asked all the time, below.
            self.changes = watch_changes();
        }
        let workers = self.workers;
        let mut has_changed = false;
        for interface in &mut self.interfaces {
            has_changed |= interface.look(listening, workers);
        }
        let is_wanting = self.interfaces.iter().any(|interface| interface.problem().is_some());
        self.patience = if is_wanting { (self.patience * 2).min(MAX_PATIENCE) } else { MIN_PATIENCE };
        self.looked = Some(now);
        self.due = (is_wanting || self.changes.is_none()).then(|| now + self.patience);
        has_changed
    }

    /// Waits until there is something to look at.
    async fn due(&mut self) {
        let Some((changes, watched)) = &self.changes else {
            return match self.due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            };
        };
        loop {
            tokio::select! {
                ready = watched.readable() => {
                    let Ok(mut ready) = ready else { return };
                    ready.clear_ready();
                    if changes.drain() {
                        // What changes once often changes several times.
                        let calm = self.looked.map_or_else(Instant::now, |looked| looked + MIN_PAUSE);
                        self.due = Some(self.due.map_or(calm, |due| due.min(calm)));
                    }
                }
                () = sleep_until(self.due.unwrap_or_else(|| Instant::now() + FOREVER).into()) => return,
            }
        }
    }

    /// The sockets of a worker that are not in its hands.
    pub(super) fn of_worker(&self, worker: usize) -> Vec<XdpSocket> {
        self.interfaces.iter().flat_map(|interface| interface.of_worker(worker, self.workers)).collect()
    }

    /// Adds the frames that another process has counted.
    pub(super) fn add_counted(&mut self, counted: &[XdpSnapshot]) {
        self.interfaces.iter_mut().for_each(|interface| interface.add_counted(counted));
    }

    /// What has become of frames.
    pub(super) fn snapshot(&self) -> Vec<XdpSnapshot> {
        self.interfaces.iter().map(Interface::snapshot).collect()
    }

    /// The next hops of backends that are reached by one of the interfaces, and known to the kernel by now. Returns whether they are others
    /// than before.
    fn set_next_hops(&mut self, backends: HashSet<IpAddr>) -> bool {
        let attached: Vec<_> = self.interfaces.iter().filter_map(Interface::attached).collect();
        let hops = backends.iter().filter(|_| !attached.is_empty()).filter_map(|backend| {
            let hop = netlink::next_hop(*backend).ok().flatten()?;
            let ours = attached.iter().find(|(index, _)| *index == hop.interface)?.1;
            Some((*backend, NextHop::new(hop.interface, hop.source, ours, hop.mac?)))
        });
        let next_hops = hops.collect();
        let has_changed = next_hops != *self.next_hops;
        self.backends = backends;
        if has_changed {
            self.next_hops = Arc::new(next_hops);
        }
        has_changed
    }

    /// Hears nothing any more: from now on all is the kernel's. What has come is still taken by the workers, until they are told.
    fn end(&mut self) {
        self.interfaces.iter_mut().for_each(Interface::forget);
        self.changes = None;
        self.due = None;
    }
}

/// Waits until there is something to look at; for ever without `[xdp]`.
pub(super) async fn due(xdp: &mut Option<Xdp>) {
    match xdp {
        Some(xdp) => xdp.due().await,
        None => std::future::pending().await,
    }
}

impl Server {
    /// Begins to look at the interfaces of `[xdp]`: at once if it is not to start without them, else when it serves, for queries that wait in
    /// sockets come first.
    ///
    /// # Errors
    /// If something is wanting that must not be.
    pub(super) fn begin_xdp(&mut self) -> Result<(), XdpError> {
        match &mut self.xdp {
            Some(xdp) if xdp.is_required => self.look_at_interfaces(),
            Some(xdp) => {
                xdp.due = Some(Instant::now());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Looks at the interfaces of `[xdp]`, and tells the workers what is new.
    ///
    /// # Errors
    /// If something is wanting that must not be.
    pub(super) fn look_at_interfaces(&mut self) -> Result<(), XdpError> {
        let Some(xdp) = &mut self.xdp else { return Ok(()) };
        let listening = listening(&self.listeners);
        if xdp.look(&listening, Instant::now()) {
            for (worker, way) in self.workers.ways().iter().enumerate() {
                let _ = way.send(Command::SetXdp(xdp.of_worker(worker)));
            }
        }
        let has_changed = xdp.set_next_hops(backends(self.state.as_deref()));
        let (next_hops, outcome) = (Arc::clone(&xdp.next_hops), xdp.check());
        if has_changed {
            self.tell(|| Command::SetNextHops(Arc::clone(&next_hops)));
        }
        outcome
    }

    /// Looks at the interfaces if the backends are others than before.
    pub(super) fn follow_backends(&mut self) {
        if self.xdp.as_ref().is_some_and(|xdp| xdp.backends != backends(self.state.as_deref())) {
            let _ = self.look_at_interfaces();
        }
    }

    /// Has the kernel's sockets hear everything from now on, so that another process can have the interfaces, or nobody.
    pub(super) fn end_xdp(&mut self) {
        if let Some(mut xdp) = self.xdp.take() {
            xdp.end();
            self.tell(|| Command::SetXdp(Vec::new()));
        }
    }
}

/// The hosts that are asked by datagrams, of many only some.
fn backends(state: Option<&ForwarderState>) -> HashSet<IpAddr> {
    let pools = state.into_iter().flat_map(|state| &state.pools);
    pools.flat_map(|pool| pool.datagram_backends()).take(MAX_BACKENDS).collect()
}

/// Where datagrams of DNS are listened for.
fn listening(listeners: &Listeners) -> Vec<SocketAddr> {
    listeners.all().filter(|address| address.takes_datagrams()).map(|address| address.bound()).collect()
}

/// Watches what the kernel tells.
fn watch_changes() -> Option<(Changes, AsyncFd<OwnedFd>)> {
    let changes = Changes::open().ok()?;
    let watched = batch::watch(changes.as_fd().try_clone_to_owned().ok()?).ok()?;
    Some((changes, watched))
}

/// Lets the process lock memory, as far as it may: kernels before 5.11 count maps by it, and all count the frames of who is not root.
fn allow_locked_memory() {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let limit = getrlimit(Resource::Memlock);
        let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit });
    }
}

/// How long to wait at first, and at most, for what is wanting: who served before lets go of a queue within milliseconds.
const MIN_PATIENCE: Duration = Duration::from_millis(1);
const MAX_PATIENCE: Duration = Duration::from_secs(1);

/// Between two looks for which the kernel gives cause: a host that is flooded learns of neighbors all the time.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// Where nothing is to be waited for.
const FOREVER: Duration = Duration::from_secs(3600);

/// Backends whose next hops are followed; to others queries leave by sockets. For each the kernel is asked three times.
const MAX_BACKENDS: usize = 256;
