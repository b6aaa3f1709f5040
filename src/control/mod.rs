//! The running server, as the control thread sees it: four parts that own their state, and the workers.
//!
//! ```text
//!   pools     backends, members, health probes, replicas, the cache
//!   zones     authorities, secondary zones, NOTIFY, catalogs, registrations
//!   observe   history, verdict, query log, dnstap, traces, counters
//!   process   listeners, connections, reload thread, certificates, admin server, drain
//! ```
//!
//! [`Server`] passes events on, and does what concerns several parts. A part starts completely before the
//! first query is read. At a reload (`reload.rs`), each part first prepares what may fail, and changes
//! nothing; then all commit. The workers (`src/worker`) get the new state by commands.

mod carried;
mod event;
mod links;
pub mod observe;
pub mod pools;
pub(crate) mod process;
mod reload;
mod replacement;
mod view;
mod workers;
#[cfg(feature = "xdp")]
mod xdp;
#[cfg(not(feature = "xdp"))]
#[path = "xdp/absent.rs"]
mod xdp;
pub mod zones;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{Config, CookieConfig, PoolConfig};
use metrics::{Counters, Snapshot};
use net::sys::descriptors::{Demand, Shares};
use rustix::process::{Resource, getrlimit};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Interval, interval};

pub use self::carried::{CarriedCache, CarriedState};
pub use self::event::{Answer, Loss, ServerEvent, StartError};
use self::links::ServerLinks;
use self::observe::ServerObservers;
use self::observe::sight::SavedHistory;
pub use self::pools::{CarriedPools, Learnt, SavedLatency, ServerPools};
use self::process::{AddressChanges, ProcessEvent, Reloads};
pub use self::process::{
    DrainResult, Listeners, Read, ServerProcess, confine, give_up_early, harden, raise_descriptor_limit, warn_of_root,
    worker_count,
};
use self::reload::Reload;
use self::workers::{WorkerEvent, WorkerStart, Workers};
pub(crate) use self::xdp::{FrameCommand, FrameDatagrams, FrameListener, FrameReaders};
pub use self::xdp::{InterfaceError, Interfaces, check_interfaces};
use self::zones::{PreparedZones, ServerZones, ZonesBase};
use crate::admin::{AdminEnding, AdminRequest, ChangeRefusal, ServerChange};
pub use crate::control::zones::secondary::SavedZones;
use crate::load::{Confinement, Setup};

/// A running server, held by the control thread.
pub struct Server {
    /// Backends and their members.
    pub pools: ServerPools,
    /// Listening sockets, reloads, and the end.
    pub process: ServerProcess,
    zones: ServerZones,
    observe: ServerObservers,
    workers: Workers,
    interfaces: Interfaces,
    requests: Receiver<AdminRequest>,
    events: VecDeque<ServerEvent>,
    second: Interval,
    links: ServerLinks,
}

impl Server {
    /// Starts to serve on the open listeners. Call [`confine`] before, because threads inherit the privileges
    /// of the process. `carried` is the state of a previous process, and `read` reads the config again. Must
    /// be called within a `LocalRuntime`.
    ///
    /// # Errors
    /// If a thread or a descriptor is not available; then nothing runs.
    pub fn start(
        mut setup: Setup,
        listeners: Listeners,
        interfaces: Interfaces,
        confinement: Confinement,
        mut carried: CarriedState,
        read: Read,
    ) -> Result<Self, StartError> {
        let shares = share_descriptors(&setup.config, &listeners);
        let reloads = Reloads::start(read, confinement, carried.edition, Arc::new(setup.config.clone()))?;
        let links = ServerLinks::new(listeners.workers, reloads.orders.clone());
        let (requests, requested) = channel(ADMIN_REQUESTS);
        let process = ServerProcess::start(&mut setup, listeners, reloads, &shares, requests, links.clone())?;
        let (seed, hasher) = carried.hash();
        carried.read_file(&setup.config);
        let catching_up_until = carried.takes_over.then(|| Instant::now() + CATCHING_UP);
        let tls = Arc::clone(&process.certificates.tls);
        let (mut workers, signals) =
            Workers::new(links.workers.clone(), shares, hasher.clone(), tls, catching_up_until);
        let zones = PreparedZones::of(&mut setup, &ZonesBase::default(), mem::take(&mut carried.saved));
        let secrets = mem::take(&mut setup.cookie_secrets);
        let cookies = |config: &CookieConfig| process.own_secret.cookies(config, &secrets);
        let mut reload = Reload {
            workers: &mut workers,
            listening: &process.listening,
            addresses: AddressChanges::default(),
            cookies: &cookies,
            roots: Arc::clone(&setup.roots),
        };
        let pools = ServerPools::start(&mut setup, &carried, &mut reload, seed, signals.health, links.clone());
        let zones = ServerZones::start(zones, &mut reload, signals.notifies, links.clone());
        let counters: Vec<Arc<Counters>> = (0..links.workers.count()).map(|_| Arc::default()).collect();
        let observe = ServerObservers::start(&setup.config, &counters, hasher, &mut carried, &links.tasks)?;
        let parts =
            WorkerStart { pools: &pools, zones: &zones, observe: &observe, process: &process, interfaces: &interfaces };
        let learnt = |number| match &carried.learnt {
            Some(learnt) => learnt.of_worker(number),
            None => Some(carried.latency.clone()),
        };
        workers.start(&parts, counters, learnt)?;
        links.condition.set_ready(true);
        let (events, second) = (VecDeque::new(), interval(Duration::from_secs(1)));
        let mut server =
            Self { pools, process, zones, observe, workers, interfaces, requests: requested, events, second, links };
        server.zones.register(
            &server.process.listening.listeners,
            server.pools.membership.discoverer.access(),
            &carried.known.leases,
        );
        if server.interfaces.begin() {
            server.follow_interfaces()?;
        }
        Ok(server)
    }

    /// Returns true if all workers make progress.
    pub fn makes_progress(&self) -> bool {
        self.workers.stall(Instant::now()).is_none()
    }

    /// Runs the server until an event that the caller must decide on, and returns that event; call it again
    /// to continue. The server survives the loss of a task.
    pub async fn supervise(&mut self) -> ServerEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let lost = tokio::select! {
                event = self.workers.next_event() => {
                    self.on_worker(event);
                    continue;
                }
                lost = self.links.tasks.lost() => lost,
                lost = self.observe.taps.lost() => lost,
                event = self.process.next_event() => match event {
                    ProcessEvent::Loaded(loaded) => {
                        self.finish_reload(loaded);
                        continue;
                    }
                    ProcessEvent::Changed => {
                        self.reload(None);
                        continue;
                    }
                    ProcessEvent::Lost(lost) => lost,
                },
                saved = self.pools.on_event() => match saved {
                    Some(saved) => return ServerEvent::Latency(saved),
                    None => continue,
                },
                is_saved = self.zones.on_event() => {
                    if is_saved && self.process.is_supervised() {
                        self.events.push_back(ServerEvent::ZoneSaved);
                    }
                    continue;
                }
                () = self.interfaces.due() => {
                    // A missing interface has logged a warning; the server keeps running.
                    let _ = self.follow_interfaces();
                    continue;
                }
                () = self.links.known_changes.notified(), if self.process.is_supervised() => {
                    return ServerEvent::Known(self.known());
                }
                _ = self.second.tick() => {
                    self.on_second();
                    continue;
                }
                Some(request) = self.requests.recv() => match self.answer(request) {
                    Some(event) => return event,
                    None => continue,
                },
            };
            self.observe.tasks_lost += 1;
            return ServerEvent::Lost(Loss { worker: None, lost });
        }
    }

    /// Replaces a dead worker, except during a drain: a new worker would take queries.
    fn on_worker(&mut self, event: WorkerEvent) {
        let now = Instant::now();
        match event {
            WorkerEvent::Ended(lost) => {
                self.observe.tasks_lost += 1;
                if self.process.draining.is_ending {
                    self.process.draining.lost_worker = Some(lost.into());
                } else {
                    self.workers.on_end(lost, self.pools.state.as_ref(), now);
                }
            }
            WorkerEvent::Due(id) => {
                let Self { pools, zones, observe, process, interfaces, .. } = self;
                let in_force = WorkerStart { pools, zones, observe, process, interfaces };
                self.workers.replace(id, &in_force, now);
            }
        }
    }

    /// Answers a request of the admin server, or returns an event if the supervisor must decide.
    fn answer(&mut self, request: AdminRequest) -> Option<ServerEvent> {
        if self.observe.sight.is_none() {
            // A request may arrive before the first one-second sample.
            self.see(Instant::now());
        }
        match request {
            AdminRequest::Snapshot(answer) => {
                if let Some(answer) = self.observe.hold(answer) {
                    let _ = answer.send(self.snapshot());
                }
            }
            AdminRequest::Read(read) => read(self),
            AdminRequest::Record(request, lasts, answer) => {
                drop(answer.send(self.pools.record(request, Instant::now() + lasts)));
            }
            AdminRequest::Seconds(subscriber) => self.observe.subscribe(subscriber),
            AdminRequest::Explain(question, answer) => drop(answer.send(self.pools.explain(*question))),
            AdminRequest::Change(ServerChange::Reload, answer) => self.reload(Some(answer)),
            AdminRequest::Change(ServerChange::Processes(change), answer) => {
                return Some(ServerEvent::Asked(change, answer));
            }
            AdminRequest::Change(ServerChange::Order(order), answer) => self.pools.order(*order, answer),
            AdminRequest::Change(ServerChange::Accept { name }, answer) => drop(answer.send(self.accept(&name))),
            AdminRequest::Change(change, answer) => drop(answer.send(self.pools.change(change))),
        }
        None
    }

    /// Accepts the doubtful list of a pool, or of a catalog.
    fn accept(&mut self, name: &str) -> Result<String, ChangeRefusal> {
        self.pools.accept(name).or_else(|| self.zones.accept(name)).unwrap_or_else(|| {
            let catalogs: Vec<_> = self.zones.catalogs().map(|known| known.catalog).collect();
            let known = self.pools.with_sources().chain(catalogs.iter().map(String::as_str));
            Err(ChangeRefusal::no_such("pool with sources, or catalog,", name, known))
        })
    }

    fn on_second(&mut self) {
        let now = Instant::now();
        let roots = self.process.on_second(now);
        self.end_hold(false);
        self.pools.on_second(now);
        self.save_latency(now);
        self.zones.note_served();
        if !self.interfaces.follows(self.pools.state.as_deref()) {
            let _ = self.follow_interfaces();
        }
        self.workers.ping(now);
        self.links.condition.set_stall(self.workers.stall(now));
        self.see(now);
        if let Some(roots) = roots {
            self.zones.secondaries.trust(roots);
            self.pools.renew_tls();
        }
    }

    /// Saves the latency of backends, and the history, if that is due.
    pub fn save_latency(&mut self, now: Instant) {
        if self.pools.is_save_due(self.process.is_supervised(), now) {
            let history = self.history();
            self.pools.save_latency(self.process.is_supervised(), history, now);
        }
    }

    /// Takes the sample of a second, if there is an admin server.
    fn see(&mut self, now: Instant) {
        let snapshot = self.process.has_admin().then(|| {
            self.zones.note_unserved(now);
            self.snapshot()
        });
        self.observe.on_second(now, snapshot.as_ref());
    }

    /// Returns all current counters. [`Snapshot::since`] gives later changes.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.observe.snapshot();
        self.pools.add_to(&mut snapshot);
        self.zones.add_to(&mut snapshot);
        self.process.add_to(&mut snapshot);
        snapshot.run.workers = self.links.workers.count();
        snapshot.run.worker_replacements = self.workers.replaced();
        snapshot.frames = self.interfaces.snapshot();
        snapshot
    }

    /// Returns the current changes by operators and states of backends.
    pub fn known(&self) -> CarriedPools {
        self.pools.known(self.zones.registrations.leases())
    }

    /// Returns all current counters for the next process, which continues them.
    pub fn hand_over_counted(&mut self) -> Snapshot {
        let counted = self.snapshot();
        self.process.admin.end(AdminEnding::PassedOn);
        self.observe.freeze(&counted);
        counted
    }

    /// Returns the history for the next process, which continues it; `None` without an admin server.
    pub fn history(&self) -> Option<SavedHistory> {
        self.observe.history(|| self.snapshot())
    }

    /// Continues the history of the previous process.
    pub fn take_history(&mut self, history: &SavedHistory) {
        if self.observe.sight.is_none() {
            self.see(Instant::now());
        }
        let snapshot = self.snapshot();
        self.observe.take_history(history, &snapshot);
    }

    /// Adds counters of the previous process: all of them first, then the difference at the end of its drain.
    pub fn add_counted(&mut self, counted: &Snapshot) {
        self.observe.add_counted(counted);
        self.process.add_counted(counted);
        self.pools.add_counted(counted);
        self.workers.add_replaced(counted.run.worker_replacements);
        self.interfaces.add_counted(&counted.frames);
        self.end_hold(true);
    }

    fn end_hold(&mut self, is_over: bool) {
        for answer in self.observe.end_hold(is_over) {
            let _ = answer.send(self.snapshot());
        }
    }

    /// Checks and repairs the interfaces, and informs the workers.
    fn follow_interfaces(&mut self) -> Result<(), InterfaceError> {
        let state = self.pools.state.as_deref();
        self.interfaces.follow(&self.process.listening.listeners, state, &self.links.workers)
    }
}

/// Divides the descriptor limit among the parts of the process, and logs the result.
fn share_descriptors(config: &Config, listeners: &Listeners) -> Shares {
    let discovered = |pool: &PoolConfig| pool.discover.as_ref().map_or(0, |discover| discover.max.min(USUAL_MEMBERS));
    let backends = config.pools.iter().map(|pool| pool.backends.len() + discovered(pool)).sum();
    // No limit means unlimited.
    let limit = getrlimit(Resource::Nofile).current;
    let shares = Shares::of(Demand {
        limit: limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        workers: listeners.workers,
        listeners: listeners.descriptors(),
        backends: if config.forwarder.is_some() { backends } else { 0 },
        has_admin: config.admin.is_some(),
    });
    if shares.is_enough() {
        tracing::debug!("{shares}");
    } else {
        let Shares { limit, least, .. } = shares;
        tracing::warn!(
            "the limit of {limit} file descriptors is too low, raise it (LimitNOFILE, ulimit -n) to at least {least}: {shares}"
        );
    }
    shares
}

/// The assumed size of a pool with no known members. In a larger pool each member has fewer sockets.
const USUAL_MEMBERS: usize = 64;

/// The queue of admin requests. Further requests wait for a place.
const ADMIN_REQUESTS: usize = 16;

/// The time in which a process that takes over answers a backlog beyond `limits.waiting`.
const CATCHING_UP: Duration = Duration::from_secs(1);
