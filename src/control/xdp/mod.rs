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

mod check;
mod device;
mod frames;

use std::collections::HashSet;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use af_xdp::frame::EthernetLink;
use af_xdp::{EXPERIMENTAL, NextHop, NextHops, netlink};
use config::Config;
use engine::state::ForwarderState;
use hedge::backoff::Backoff;
use metrics::FrameSnapshot;
use net::sys::batch;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;

pub use self::check::check_interfaces;
use self::device::XdpDevice;
pub(crate) use self::frames::{FrameCommand, FrameDatagrams, FrameListener, FrameReaders};
use super::workers::WorkerChannels;
use super::{Listeners, worker_count};
use crate::worker::WorkerCommand;

/// The interfaces of `[xdp]`; none without that section.
pub struct Interfaces {
    devices: Vec<XdpDevice>,
    workers: u32,
    is_required: bool,
    has_ended: bool,
    /// `None` while not serving, or without support by the kernel.
    changes: Option<AsyncFd<OwnedFd>>,
    looked: Option<Instant>,
    due: Option<Instant>,
    patience: Backoff,
    backends: HashSet<IpAddr>,
    next_hops: Arc<NextHops>,
}

/// A required interface of `[xdp]` is not available.
#[derive(Debug, Error)]
#[error("xdp: {interface}: {problem}; with fallback = true it is served by sockets")]
pub struct InterfaceError {
    interface: String,
    problem: String,
}

impl Interfaces {
    /// Creates everything that needs privileges, before these are dropped. The first process warns that
    /// `[xdp]` is experimental, and requires the interfaces if the config does. Other failures are retried
    /// later.
    ///
    /// # Errors
    /// If a required interface is not available.
    pub fn prepare(config: &Config, is_first: bool) -> Result<Self, InterfaceError> {
        let mut this = Self {
            devices: Vec::new(),
            workers: u32::try_from(worker_count(config)).unwrap_or(u32::MAX),
            is_required: false,
            has_ended: false,
            changes: None,
            looked: None,
            due: None,
            patience: Backoff::new(2 * MIN_PATIENCE),
            backends: HashSet::new(),
            next_hops: Arc::default(),
        };
        if let Some(config) = &config.xdp {
            allow_locked_memory();
            let devices = config.interfaces.iter().map(|config| XdpDevice::prepare(config.clone(), this.workers));
            this.devices = devices.collect();
            if is_first {
                tracing::warn!("{EXPERIMENTAL}");
                this.is_required = !config.fallback;
            }
        }
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<(), InterfaceError> {
        let lacking = self.devices.iter().find_map(|device| Some((device.name(), device.problem()?)));
        match lacking {
            Some((name, problem)) if self.is_required => {
                Err(InterfaceError { interface: name.to_owned(), problem: problem.to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks and repairs all interfaces. Returns true if workers need sockets again.
    fn look(&mut self, listening: &[SocketAddr], now: Instant) -> bool {
        if self.changes.is_none() {
            // Without change events, the checks below are periodic.
            self.changes = netlink::open_changes().and_then(batch::watch).ok();
        }
        let workers = self.workers;
        let mut has_changed = false;
        for device in &mut self.devices {
            has_changed |= device.look(listening, workers);
        }
        let is_wanting = self.devices.iter().any(|device| device.problem().is_some());
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

    /// Waits until a check is due; forever without `[xdp]`.
    pub(super) async fn due(&mut self) {
        loop {
            let due = self.due;
            let time = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => pending().await,
                }
            };
            let Some(changes) = &self.changes else { return time.await };
            tokio::select! {
                ready = changes.readable() => {
                    let Ok(mut ready) = ready else { return };
                    ready.clear_ready();
                    if netlink::drain_changes(changes) {
                        // Changes come in bursts.
                        let calm = self.looked.map_or_else(Instant::now, |looked| looked + MIN_PAUSE);
                        self.due = Some(self.due.map_or(calm, |due| due.min(calm)));
                    }
                }
                () = time => return,
            }
        }
    }

    /// Returns what a worker needs.
    pub(super) fn command(&self, worker: usize) -> Option<FrameCommand> {
        let sockets = self.devices.iter().flat_map(|device| device.of_worker(worker, self.workers)).collect();
        let command = FrameCommand { sockets, next_hops: Arc::clone(&self.next_hops) };
        (!self.devices.is_empty()).then_some(command)
    }

    pub(super) fn add_counted(&mut self, counted: &[FrameSnapshot]) {
        self.devices.iter_mut().for_each(|device| device.add_counted(counted));
    }

    pub(super) fn snapshot(&self) -> Vec<FrameSnapshot> {
        self.devices.iter().map(XdpDevice::snapshot).collect()
    }

    /// Updates the next hops of backends. Returns true if they changed.
    fn set_next_hops(&mut self, backends: HashSet<IpAddr>) -> bool {
        let attached: Vec<_> = self.devices.iter().filter_map(XdpDevice::attached).collect();
        let hops = backends.iter().filter(|_| !attached.is_empty()).filter_map(|backend| {
            let hop = netlink::next_hop(*backend).ok().flatten()?;
            let ours = attached.iter().find(|(index, _)| *index == hop.interface)?.1;
            let link = EthernetLink { ours, theirs: hop.mac? };
            Some((*backend, NextHop { interface: hop.interface, source: hop.source, link }))
        });
        let next_hops: NextHops = hops.collect();
        let has_changed = next_hops != *self.next_hops;
        self.backends = backends;
        if has_changed {
            self.next_hops = Arc::new(next_hops);
        }
        has_changed
    }

    /// Returns true if the interfaces are required, so that the first check must precede serving. Otherwise
    /// the check is due at once, but after serving begins, because queries already wait in sockets.
    pub(super) fn begin(&mut self) -> bool {
        self.due = (!self.is_required && !self.devices.is_empty()).then(Instant::now);
        self.is_required
    }

    /// Follows the kernel, the listeners and the backends, and informs the workers of changes.
    ///
    /// # Errors
    /// If a required interface is not available. It has logged a warning.
    pub(super) fn follow(
        &mut self,
        listeners: &Listeners,
        state: Option<&ForwarderState>,
        workers: &WorkerChannels,
    ) -> Result<(), InterfaceError> {
        let has_looked = self.look(&listening(listeners), Instant::now());
        if self.set_next_hops(backends(state)) || has_looked {
            self.inform(workers);
        }
        self.check()
    }

    fn inform(&self, workers: &WorkerChannels) {
        for worker in 0..workers.count() {
            if let Some(command) = self.command(worker) {
                workers.send(worker, WorkerCommand::Frames(command));
            }
        }
    }

    /// Returns true if the backends are those of the last check, or no check is needed.
    pub(super) fn follows(&self, state: Option<&ForwarderState>) -> bool {
        self.devices.is_empty() || self.has_ended || self.backends == backends(state)
    }

    /// Leaves all datagrams to the kernel, so that another process can take the interfaces. Workers still
    /// handle datagrams already received.
    pub(super) fn end(&mut self, workers: &WorkerChannels) {
        self.devices.iter_mut().for_each(XdpDevice::forget);
        (self.has_ended, self.due, self.changes) = (true, None, None);
        self.inform(workers);
    }
}

fn backends(state: Option<&ForwarderState>) -> HashSet<IpAddr> {
    let pools = state.into_iter().flat_map(|state| &state.pools);
    // Link-local addresses do not name their link (RFC 4007 section 6).
    let is_named = |host: &IpAddr| !matches!(host, IpAddr::V6(host) if host.is_unicast_link_local());
    pools.flat_map(|pool| pool.datagram_backends()).filter(is_named).take(MAX_BACKENDS).collect()
}

fn listening(listeners: &Listeners) -> Vec<SocketAddr> {
    listeners.all().filter(|address| address.takes_datagrams()).map(|address| address.bound()).collect()
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

/// Each backend costs three kernel requests; further backends use ordinary sockets.
const MAX_BACKENDS: usize = 256;
