//! `[xdp]`: interfaces whose datagrams reach the workers by AF_XDP.
//!
//! The kernel's sockets stay bound and receive everything that AF_XDP does not. So a missing or busy
//! interface costs speed, but no query.
//!
//! ```text
//!                 rights are still there            the server takes queries
//!   unprepared ──────────────────────────▶ prepared ─────────────────────────▶ attached
//!       ▲   program and sockets are made              program hangs on the interface, sockets on its queues
//!       └─────────────────────────────────────────────────────┘
//!          the interface is gone, or is another
//! ```
//!
//! The control thread checks all interfaces after changes of the kernel, listeners or backends.

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

use self::interface::XdpDevice;
use super::Listeners;
use super::process::worker_count;
use super::worker::{WorkerCommand, XdpSocket};
use super::workers::WorkerChannels;
use crate::backoff::Backoff;
use crate::config::{Config, XdpConfig};
use crate::metrics::XdpSnapshot;
use crate::net::sys::batch;
use crate::net::xdp::netlink::{self, NetlinkChanges};
use crate::net::xdp::{EXPERIMENTAL, NextHop, NextHops};
use crate::state::ForwarderState;

/// The interfaces of `[xdp]`.
pub struct Xdp {
    interfaces: Vec<XdpDevice>,
    workers: u32,
    is_required: bool,
    /// `None` while not serving, or without support by the kernel.
    changes: Option<(NetlinkChanges, AsyncFd<OwnedFd>)>,
    looked: Option<Instant>,
    due: Option<Instant>,
    patience: Backoff,
    backends: HashSet<IpAddr>,
    next_hops: Arc<NextHops>,
}

/// A required interface of `[xdp]` is not available.
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
    /// Creates everything that needs privileges, before these are dropped. Failures are retried later.
    pub fn prepare(config: &Config) -> Option<Self> {
        let XdpConfig { interfaces, .. } = config.xdp.as_ref()?;
        allow_locked_memory();
        let workers = u32::try_from(worker_count(config)).unwrap_or(u32::MAX);
        let interfaces = interfaces.iter().map(|config| XdpDevice::prepare(config.clone(), workers));
        Some(Self {
            interfaces: interfaces.collect(),
            workers,
            is_required: false,
            changes: None,
            looked: None,
            due: None,
            patience: Backoff::new(2 * MIN_PATIENCE),
            backends: HashSet::new(),
            next_hops: Arc::default(),
        })
    }

    /// Fails if a required interface is not available, and warns that `[xdp]` is experimental.
    ///
    /// # Errors
    /// If a required interface is not available.
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

    /// Checks and repairs all interfaces. Returns true if workers need sockets again.
    fn look(&mut self, listening: &[SocketAddr], now: Instant) -> bool {
        if self.changes.is_none() {
            // Without change events, the checks below are periodic.
            self.changes = watch_changes();
        }
        let workers = self.workers;
        let mut has_changed = false;
        for interface in &mut self.interfaces {
            has_changed |= interface.look(listening, workers);
        }
        let is_wanting = self.interfaces.iter().any(|interface| interface.problem().is_some());
        let patience = if is_wanting {
            self.patience.wait(MAX_PATIENCE)
        } else {
            self.patience.reset();
            MIN_PATIENCE
        };
        self.looked = Some(now);
        self.due = (is_wanting || self.changes.is_none()).then(|| now + patience);
        has_changed
    }

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
                        // Changes come in bursts.
                        let calm = self.looked.map_or_else(Instant::now, |looked| looked + MIN_PAUSE);
                        self.due = Some(self.due.map_or(calm, |due| due.min(calm)));
                    }
                }
                () = sleep_until(self.due.unwrap_or_else(|| Instant::now() + FOREVER).into()) => return,
            }
        }
    }

    pub(super) fn of_worker(&self, worker: usize) -> Vec<XdpSocket> {
        self.interfaces.iter().flat_map(|interface| interface.of_worker(worker, self.workers)).collect()
    }

    pub(super) fn add_counted(&mut self, counted: &[XdpSnapshot]) {
        self.interfaces.iter_mut().for_each(|interface| interface.add_counted(counted));
    }

    pub(super) fn snapshot(&self) -> Vec<XdpSnapshot> {
        self.interfaces.iter().map(XdpDevice::snapshot).collect()
    }

    /// Updates the next hops of backends. Returns true if they changed.
    fn set_next_hops(&mut self, backends: HashSet<IpAddr>) -> bool {
        let attached: Vec<_> = self.interfaces.iter().filter_map(XdpDevice::attached).collect();
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
}

/// Waits until a check is due; forever without `[xdp]`.
pub(super) async fn due(xdp: &mut Option<Xdp>) {
    match xdp {
        Some(xdp) => xdp.due().await,
        None => std::future::pending().await,
    }
}

impl Xdp {
    /// Returns true if the interfaces are required, so that the first check must precede serving. Otherwise
    /// the check is due at once.
    pub(super) fn begin(&mut self) -> bool {
        self.due = (!self.is_required).then(Instant::now);
        self.is_required
    }

    /// Follows the kernel, the listeners and the backends, and informs the workers of changes.
    pub(super) fn follow(
        &mut self,
        listeners: &Listeners,
        state: Option<&ForwarderState>,
        workers: &WorkerChannels,
    ) -> Result<(), XdpError> {
        if self.look(&listening(listeners), Instant::now()) {
            for worker in 0..workers.count() {
                workers.send(worker, WorkerCommand::SetXdp(self.of_worker(worker)));
            }
        }
        if self.set_next_hops(backends(state)) {
            workers.broadcast(|| WorkerCommand::SetNextHops(Arc::clone(&self.next_hops)));
        }
        self.check()
    }

    /// Returns true if the backends are those of the last check.
    pub(super) fn follows(&self, state: Option<&ForwarderState>) -> bool {
        self.backends == backends(state)
    }

    /// Leaves all datagrams to the kernel. Workers still handle datagrams already received.
    pub(super) fn end(mut self, workers: &WorkerChannels) {
        self.interfaces.iter_mut().for_each(XdpDevice::forget);
        workers.broadcast(|| WorkerCommand::SetXdp(Vec::new()));
    }
}

fn backends(state: Option<&ForwarderState>) -> HashSet<IpAddr> {
    let pools = state.into_iter().flat_map(|state| &state.pools);
    pools.flat_map(|pool| pool.datagram_backends()).take(MAX_BACKENDS).collect()
}

fn listening(listeners: &Listeners) -> Vec<SocketAddr> {
    listeners.all().filter(|address| address.takes_datagrams()).map(|address| address.bound()).collect()
}

fn watch_changes() -> Option<(NetlinkChanges, AsyncFd<OwnedFd>)> {
    let changes = NetlinkChanges::open().ok()?;
    let watched = batch::watch(changes.as_fd().try_clone_to_owned().ok()?).ok()?;
    Some((changes, watched))
}

/// Raises the locked-memory limit: kernels before 5.11 count maps, and all count frame memory unless root.
fn allow_locked_memory() {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let limit = getrlimit(Resource::Memlock);
        let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit });
    }
}

/// First and maximum retry delay: a predecessor releases a queue within milliseconds.
const MIN_PATIENCE: Duration = Duration::from_millis(1);
const MAX_PATIENCE: Duration = Duration::from_secs(1);

/// Minimum time between checks: under a flood, neighbors change constantly.
const MIN_PAUSE: Duration = Duration::from_millis(10);

const FOREVER: Duration = Duration::from_secs(3600);

/// Each backend costs three kernel requests; further backends use ordinary sockets.
const MAX_BACKENDS: usize = 256;
