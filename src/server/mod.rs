//! The running server, as the control thread sees it.
//!
//! `start.rs` builds it completely before the first query is read. A reload (`reload.rs`) builds the complete
//! new state and then hands it to the workers (`worker.rs`); `changes.rs` applies small changes by an
//! operator. A drain (`drain.rs`) ends it.

mod admin_tasks;
mod authorities;
mod carried;
mod certificates;
mod changes;
mod connections;
mod cookies;
mod drain;
mod event;
mod heartbeat;
mod listeners;
mod members;
mod persist;
mod privileges;
mod recent_queries;
mod reload;
mod reload_notice;
mod replacement;
mod retired;
mod sections;
mod seen;
mod slow_threshold;
mod start;
mod status;
mod updates;
mod watch;
mod worker;
mod workers;
mod xdp;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{Notify, oneshot};
use tokio::time::Interval;

use self::admin_tasks::AdminTasks;
use self::authorities::{MemberChanges, ServedAuthority, ZoneChange};
pub use self::carried::{CarriedCache, CarriedPools, CarriedState, Learnt, SavedZones};
use self::certificates::CertificateLooks;
use self::connections::ConnectionTables;
use self::cookies::OwnSecret;
pub use self::drain::DrainResult;
pub use self::event::{Answer, Loss, ServerEvent};
pub use self::listeners::{Listeners, raise_descriptor_limit};
use self::members::Membership;
use self::persist::Saves;
pub use self::privileges::{confine, give_up_early, harden, warn_of_root};
use self::recent_queries::RecentQueries;
pub use self::reload::Read;
use self::reload::Reloads;
pub use self::reload_notice::ReloadNotice;
use self::retired::RetiredPools;
use self::seen::ServerObserver;
use self::slow_threshold::SlowThresholds;
pub use self::start::StartError;
use self::updates::Updates;
use self::watch::Watching;
pub use self::worker::QueuedQueryFate;
use self::worker::WorkerCommand;
use self::workers::{WorkerEvent, WorkerStart, Workers};
pub use self::xdp::Xdp;
use crate::address::ListenAddress;
use crate::admin::{AdminRequest, ChangeRefusal, HealthCondition, ServerChange};
use crate::authority::ReceivedNotify;
use crate::cache::Flush;
use crate::config::{Config, PoolConfig, SlowThreshold, SupervisorConfig};
use crate::health::HealthProber;
use crate::limit::{CookieSecrets, Cookies, OwnAddresses};
use crate::load::ConfigText;
use crate::metrics::{Counters, CountersSummary, ProcessesSnapshot, Snapshot};
use crate::net::from_clients::tcp::MovedConnection;
use crate::net::sys::clock::SleepMeter;
use crate::net::tasks::{TaskKind, Tasks, blocking};
use crate::notify::Notifier;
use crate::replicas::{Comparisons, SoaProbes};
use crate::secondary::{Secondaries, ZoneUpdate};
use crate::state::{ForwarderState, HealthEvent};
use crate::taps::Taps;
use crate::transfer::catalog::CatalogAcceptError;
use crate::wire::{HashSeed, Name};

/// A running server, held by the control thread.
pub struct Server {
    /// The config at the start. A change of some of it needs a restart.
    config: Config,
    source: Option<ConfigText>,
    state: Option<Arc<ForwarderState>>,
    retired: RetiredPools,
    workers: Workers,
    taps: Taps,
    listeners: Arc<Listeners>,
    xdp: Option<Xdp>,
    /// The pools as the config file had them at the last reload.
    configured: Vec<PoolConfig>,
    /// The pools as configured now, by the file and by operators.
    pools: Vec<PoolConfig>,
    membership: Membership,
    own_forwarder: Rc<RefCell<Vec<SocketAddr>>>,
    second: Interval,
    crowds: Interval,
    slow_thresholds: SlowThresholds,
    slow: SlowThreshold,
    recent_queries: RecentQueries,
    saves: Saves,
    sleep: SleepMeter,
    requests: Receiver<AdminRequest>,
    condition: Arc<HealthCondition>,
    admin: AdminTasks,
    tasks: Tasks,
    lost_worker: Option<Loss>,
    tasks_lost: u64,
    /// Addresses of this server, from which no client sends.
    own: Arc<OwnAddresses>,
    processes: Option<ProcessesSnapshot>,
    is_restart_due: bool,
    reloads: Reloads,
    certificates: CertificateLooks,
    watching: Watching,
    events: VecDeque<ServerEvent>,
    backend_series: Option<u16>,
    drain_delay: Duration,
    is_ending: bool,
    started: std::time::Instant,
    started_at: SystemTime,
    own_secret: OwnSecret,
    connections: ConnectionTables,
    authorities: Vec<ServedAuthority>,
    next_authority: usize,
    secondaries: Secondaries,
    updates: Updates,
    notifies: UnboundedReceiver<ReceivedNotify>,
    notifier: Notifier,
    prober: HealthProber,
    comparisons: Comparisons,
    soa_probes: SoaProbes,
    health_events: UnboundedReceiver<HealthEvent>,
    summary: CountersSummary,
    /// The counters of previous processes. Only this thread adds to them.
    carried_counters: Arc<Counters>,
    /// The final counters, reported after another process has taken over counting.
    frozen: Option<Snapshot>,
    /// Requests that wait for the counters of the previous process; `None` once they have arrived or if none
    /// will.
    uncounted: Option<Vec<oneshot::Sender<Snapshot>>>,
    hash_seed: HashSeed,
    known_changes: Rc<Notify>,
    seen: ServerObserver,
}

impl Server {
    /// Returns the bound addresses, such as `forwarder=127.0.0.1:5300 ts1=127.0.0.1:5301`.
    pub fn bound(&self) -> String {
        let mut line = String::new();
        for (name, addresses) in self.listeners.addresses() {
            let addresses: Vec<String> = addresses.iter().map(ListenAddress::to_string).collect();
            let separator = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{separator}{name}={}", addresses.join(","));
        }
        line
    }

    /// Sets the list of processes that the admin server reports.
    pub fn set_processes(&mut self, processes: ProcessesSnapshot) {
        self.processes = Some(processes);
    }

    /// Returns true if the current config has a change that only another process can apply, such as the
    /// number of workers.
    pub fn is_restart_due(&self) -> bool {
        self.is_restart_due
    }

    /// Leaves the file of the admin socket to another process, so that this process does not remove it.
    pub fn leave_socket(&self) {
        self.listeners.leave();
    }

    /// Moves the TCP connections of clients to another process that already serves. Each connection moves
    /// when it is idle between two messages. The drain closes the rest.
    pub fn move_connections(&self) -> UnboundedReceiver<MovedConnection> {
        self.connections.move_out()
    }

    /// Serves a connection that another process has handed over. It counts as a new connection.
    pub fn adopt(&self, moved: MovedConnection) {
        self.connections.adopt(moved);
    }

    /// Returns the `supervisor` section of the current config.
    pub fn supervisor(&self) -> Option<&SupervisorConfig> {
        self.config.supervisor.as_ref()
    }

    /// Returns the text of the current config, if it was read from a file.
    pub fn source(&self) -> Option<&ConfigText> {
        self.source.as_ref()
    }

    /// Returns the listening sockets, to pass to other processes.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Returns true if all workers make progress.
    pub fn makes_progress(&self) -> bool {
        self.workers.stall(std::time::Instant::now()).is_none()
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
                lost = self.tasks.lost() => lost,
                lost = self.admin.lost() => lost,
                lost = self.taps.lost() => lost,
                loaded = self.reloads.loaded() => match loaded {
                    Ok(loaded) => {
                        self.finish_reload(loaded);
                        continue;
                    }
                    Err(lost) => lost,
                },
                changed = self.watching.changed() => match changed {
                    Ok(files) => {
                        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
                        tracing::info!("watch: {} changed, reading again", files.join(", "));
                        self.reload(None);
                        continue;
                    }
                    Err(lost) => lost,
                },
                Some(health_events) = self.health_events.recv() => {
                    self.prober.on_event(&health_events);
                    continue;
                }
                updates = self.updates.next() => {
                    self.take_updates(updates);
                    continue;
                }
                Some(notify) = self.notifies.recv() => {
                    self.secondaries.on_notify(notify.authority, &notify.zone, notify.primary, notify.take_serial());
                    continue;
                }
                () = xdp::due(&mut self.xdp) => {
                    // A missing interface has logged a warning; the server keeps running.
                    let _ = self.look_at_interfaces();
                    continue;
                }
                () = self.membership.due() => {
                    self.settle_members();
                    continue;
                }
                () = self.known_changes.notified(), if self.processes.is_some() => {
                    return ServerEvent::Known(self.known());
                }
                _ = self.crowds.tick() => {
                    self.retired.free_unused();
                    if self.state.as_ref().is_some_and(|state| state.renew_crowds()) {
                        self.broadcast(|| WorkerCommand::Refresh);
                    }
                    continue;
                }
                _ = self.second.tick() => {
                    self.on_second();
                    continue;
                }
                Some(request) = self.requests.recv() => {
                    match self.answer(request) {
                        Some(event) => return event,
                        None => continue,
                    }
                }
            };
            self.tasks_lost += 1;
            return ServerEvent::Lost(Loss { worker: None, lost });
        }
    }

    /// Replaces a dead worker, except during a drain: a new worker would take queries.
    fn on_worker(&mut self, event: WorkerEvent) {
        let now = std::time::Instant::now();
        match event {
            WorkerEvent::Ended(lost) => {
                self.tasks_lost += 1;
                if self.is_ending {
                    self.lost_worker = Some(lost.into());
                } else {
                    self.workers.on_end(lost, self.state.as_ref(), now);
                }
            }
            WorkerEvent::Due(id) => {
                let in_force = WorkerStart {
                    config: &self.config,
                    state: self.state.as_ref(),
                    authorities: &self.authorities,
                    connections: &self.connections,
                    listeners: &self.listeners,
                    own: &self.own,
                    taps: self.taps.set(),
                    xdp: self.xdp.as_ref(),
                };
                self.workers.replace(id, &in_force, now);
            }
        }
    }

    /// Answers a request of the admin server, or returns an event if the supervisor must decide.
    fn answer(&mut self, request: AdminRequest) -> Option<ServerEvent> {
        if self.seen.is_new() {
            // A request may arrive before the first one-second sample.
            self.see(std::time::Instant::now());
        }
        match request {
            AdminRequest::Snapshot(answer) => self.answer_snapshot(answer),
            AdminRequest::Read(read) => read(self),
            AdminRequest::Seconds(listener) => self.seen.listen(listener),
            AdminRequest::Explain(question, answer) => drop(answer.send(self.explain(*question))),
            AdminRequest::Change(ServerChange::Reload, answer) => self.reload(Some(answer)),
            AdminRequest::Change(ServerChange::Processes(change), answer) => {
                return Some(ServerEvent::Asked(change, answer));
            }
            AdminRequest::Change(ServerChange::Order(order), answer) => self.order(*order, answer),
            AdminRequest::Change(change, answer) => drop(answer.send(self.change(change))),
        }
        None
    }

    fn on_second(&mut self) {
        let now = std::time::Instant::now();
        self.reloads.tick();
        self.own_secret.tick(now);
        if self.started.elapsed() >= COUNTED_PATIENCE {
            self.end_wait_for_counted();
        }
        self.tick_members();
        self.follow_backends();
        self.workers.ping(now);
        self.condition.set_stall(self.workers.stall(now));
        self.log_pools();
        self.see(now);
        if let Some(roots) = self.certificates.tick(self.listeners.certificates(), &self.tasks, now) {
            self.secondaries.trust(roots);
            if let Some(state) = &self.state {
                self.certificates.prepare_tls(state);
            }
        }
        let slept = self.sleep.take();
        if let Some(state) = &self.state {
            self.recent_queries.count(state);
            self.slow_thresholds.on_second(self.slow, state);
            self.saves.tick(state, &self.tasks, std::time::Instant::now());
            if let Some(cache) = &state.cache {
                cache.add_sleep(slept);
            }
        }
    }

    fn set_state(&mut self, state: Arc<ForwarderState>) {
        self.certificates.prepare_tls(&state);
        self.prober.set_state(&state);
        self.comparisons.set_state(&state);
        self.soa_probes.set_state(&state);
        self.slow_thresholds.set(self.slow, &state);
        self.known_changes.notify_one();
        self.broadcast(|| WorkerCommand::SetForwarderState(Arc::clone(&state)));
        self.forget_pools(&state);
        self.condition.set_pools(&state.pools);
        self.retired.free_unused();
        if let Some(earlier) = self.state.replace(state) {
            self.retired.keep(&earlier, self.state.as_deref());
        }
    }

    fn is_cache_replaced(&self, state: &ForwarderState) -> bool {
        let cache = self.state.as_ref().and_then(|state| state.cache.as_ref());
        cache.zip(state.cache.as_ref()).is_some_and(|(old, new)| !Arc::ptr_eq(old, new))
    }

    /// Removes cached answers of pools that `state` lacks or has changed. They could not be found, but a pool
    /// that returns must not find its old answers.
    fn forget_pools(&self, state: &ForwarderState) {
        let (Some(earlier), Some(cache)) = (&self.state, &state.cache) else { return };
        let stay = state.cached_pools();
        for pool in earlier.cached_pools().into_iter().filter(|pool| !stay.contains(pool)) {
            let cache = Arc::clone(cache);
            // A walk through a large cache takes seconds, and probes are due meanwhile.
            self.tasks.start_and_leave(TaskKind::CacheFlush, async move {
                let answers = blocking(move || cache.flush(Flush::Pool(pool))).await;
                tracing::info!(answers, "cache: answers of a changed pool are removed");
            });
        }
    }

    fn take_updates(&mut self, updates: Vec<ZoneUpdate>) {
        let began = std::time::Instant::now();
        let mut by_authority: HashMap<usize, Vec<ZoneUpdate>> = HashMap::new();
        for update in updates {
            by_authority.entry(update.authority).or_default().push(update);
        }
        for (number, updates) in by_authority {
            // The authority may have ended meanwhile.
            let Some(served) = self.authorities.iter_mut().find(|served| served.number() == number) else { continue };
            for update in &updates {
                self.seen.note_zone(served.name(), update.zone.apex(), update.is_expired);
            }
            let earlier = Arc::clone(served.state());
            let taken = served.take(updates);
            taken.members.into_iter().for_each(|changes| self.follow(number, changes));
            self.publish(number);
            self.free_state(earlier);
            taken.changes.into_iter().for_each(|change| notify(&mut self.notifier, change));
            if self.processes.is_some() {
                self.events.push_back(ServerEvent::ZoneSaved);
            }
        }
        self.updates.took(began.elapsed());
    }

    fn follow(&mut self, number: usize, changes: MemberChanges) {
        let MemberChanges { gone, set, disk, changes } = changes;
        self.drop_members(number, &gone);
        self.secondaries.set_members(set, Vec::new());
        write_to_disk(disk, &self.tasks);
        changes.into_iter().for_each(|change| notify(&mut self.notifier, change));
    }

    fn drop_members(&mut self, number: usize, gone: &[Name]) {
        if let Some(served) = self.authorities.iter().find(|served| served.number() == number) {
            gone.iter().for_each(|zone| self.seen.note_zone(served.name(), zone, false));
        }
        gone.iter().for_each(|zone| self.notifier.forget_zone(number, zone));
        self.secondaries.remove_members(number, gone);
    }

    fn accept_catalog(&mut self, name: &str) -> Option<Result<String, ChangeRefusal>> {
        let catalog = name.parse::<Name>().ok()?.folded();
        let is_known =
            |served: &&mut ServedAuthority| served.catalogs().iter().any(|known| known.catalog == catalog.to_string());
        let mut said = Vec::new();
        let mut refused = None;
        let numbers: Vec<_> = self.authorities.iter_mut().filter(is_known).map(|served| served.number()).collect();
        for number in numbers {
            let Some(served) = self.authorities.iter_mut().find(|served| served.number() == number) else { continue };
            let earlier = Arc::clone(served.state());
            match served.accept(&catalog) {
                Ok(accepted) => {
                    said.push(accepted.message);
                    self.follow(number, accepted.changes);
                    self.publish(number);
                    self.free_state(earlier);
                }
                Err(CatalogAcceptError::Unknown) => {}
                Err(CatalogAcceptError::NotDoubted) => {
                    refused = Some(format!("catalog {catalog} is not doubted: all of its zones are applied"));
                }
                Err(CatalogAcceptError::Broken(broken)) => {
                    refused = Some(format!("catalog {catalog} is broken, so its producer must correct it: {broken}"));
                }
            }
        }
        match refused {
            _ if !said.is_empty() => Some(Ok(said.join("; "))),
            Some(refused) => Some(Err(ChangeRefusal::Conflict(refused))),
            None => None,
        }
    }

    fn refresh(&self) {
        self.known_changes.notify_one();
        self.broadcast(|| WorkerCommand::Refresh);
    }

    fn publish(&self, number: usize) {
        if let Some(served) = self.authorities.iter().find(|served| served.number() == number) {
            self.broadcast(|| WorkerCommand::SetAuthorityState(number, Arc::clone(served.state())));
        }
    }

    fn broadcast(&self, command: impl Fn() -> WorkerCommand) {
        // A dead worker has logged its reason.
        self.workers.broadcast(command);
    }
}

fn forwarder_cookies(
    config: &Config,
    own_secret: &OwnSecret,
    files: &HashMap<PathBuf, CookieSecrets>,
) -> Option<Arc<Cookies>> {
    config.forwarder.as_ref().and_then(|forwarder| own_secret.cookies(&forwarder.cookies, files))
}

fn write_to_disk(disk: Vec<Box<dyn FnOnce() + Send>>, tasks: &Tasks) {
    if !disk.is_empty() {
        tasks.start_and_leave(TaskKind::Secondary, blocking(move || disk.into_iter().for_each(|work| work())));
    }
}

fn notify(notifier: &mut Notifier, change: ZoneChange) {
    notifier.notify(change.authority, &change.zone, &change.sharing, change.key);
}

/// The interval at which large pools choose which members get queries.
const CROWDS: Duration = Duration::from_millis(200);

/// The longest wait of a request for the counters of the previous process, which sends them when it stops
/// serving.
const COUNTED_PATIENCE: Duration = Duration::from_secs(1);
