//! The running server: what the control thread looks after until it drains.
//!
//! It is made whole before the first query is taken (`start.rs`). A reload (`reload.rs`) builds the new state whole and only then
//! hands it to the workers (`worker.rs`); a change by hand (`changes.rs`) is a small one. It ends by a drain (`drain.rs`).

mod admin_tasks;
mod authorities;
mod carried;
mod certificates;
mod changes;
mod connections;
mod cookies;
mod divergence;
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
mod serials;
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
pub use self::carried::{Carried, CarriedCache, Known, Learnt, SavedZones};
use self::certificates::CertificateLooks;
use self::connections::Tables;
use self::cookies::OwnSecret;
pub use self::drain::Drained;
pub use self::event::{Answer, Loss, ServerEvent};
pub use self::listeners::{Listeners, raise_descriptor_limit};
use self::members::Membership;
use self::persist::Saves;
pub use self::privileges::{confine, give_up_early, harden};
use self::recent_queries::RecentQueries;
pub use self::reload::Read;
use self::reload::Reloads;
pub use self::reload_notice::ReloadNotice;
use self::retired::Retired;
use self::seen::Seen;
use self::slow_threshold::SlowThresholds;
pub use self::start::StartError;
use self::updates::Updates;
use self::watch::Watching;
use self::worker::Command;
pub use self::worker::Rest;
use self::workers::{InForce, WorkerEvent, Workers};
pub use self::xdp::Xdp;
use crate::address::ListenAddress;
use crate::admin::{Change, Condition, Refused, Request};
use crate::authority::ReceivedNotify;
use crate::cache::Flush;
use crate::config::{Config, PoolConfig, SlowThreshold, SupervisorConfig};
use crate::health::Prober;
use crate::limit::{CookieSecrets, Cookies, OwnAddresses};
use crate::load::ConfigText;
use crate::metrics::{Counters, ProcessesSnapshot, Snapshot, Summary};
use crate::net::clock::SleepMeter;
use crate::net::tasks::{TaskKind, Tasks, blocking};
use crate::net::tcp::MovedConnection;
use crate::notify::Notifier;
use crate::replicas::{Comparisons, SoaProbes};
use crate::secondary::{Secondaries, ZoneUpdate};
use crate::state::{ForwarderState, HealthEvent};
use crate::taps::Taps;
use crate::transfer::catalog::Unaccepted;
use crate::wire::{HashSeed, Name};

/// A running server, held by the control thread.
pub struct Server {
    /// The config of the start: what needs a restart to change.
    config: Config,
    /// The text of the config in force.
    source: Option<ConfigText>,
    /// The state in force.
    state: Option<Arc<ForwarderState>>,
    /// Pools of those before.
    retired: Retired,
    workers: Workers,
    /// What observes queries.
    taps: Taps,
    /// What it listens on.
    listeners: Arc<Listeners>,
    /// The interfaces by which datagrams come past the kernel's stack, if there are any.
    xdp: Option<Xdp>,
    /// The pools as the config had them when it was last read.
    configured: Vec<PoolConfig>,
    /// The pools as they are configured now, by the file and by hand.
    pools: Vec<PoolConfig>,
    /// Who is a member of them besides.
    membership: Membership,
    /// Where the forwarder listens.
    own_forwarder: Rc<RefCell<Vec<SocketAddr>>>,
    /// Ticks once a second.
    second: Interval,
    /// Ticks when it is looked at who of thousands takes queries.
    crowds: Interval,
    /// From when on races are slow.
    slow_thresholds: SlowThresholds,
    /// Which races are slow, as the config in force says.
    slow: SlowThreshold,
    /// For the size of the hedge buckets.
    recent_queries: RecentQueries,
    /// Saves the cache.
    saves: Saves,
    /// Counts time asleep, for the cache.
    sleep: SleepMeter,
    /// What the admin server asks.
    requests: Receiver<Request>,
    /// What health checks are told.
    condition: Arc<Condition>,
    /// The admin server.
    admin: AdminTasks,
    /// All other tasks of this thread.
    tasks: Tasks,
    /// A worker that has ended during the drain.
    lost_worker: Option<Loss>,
    /// Tasks that were lost so far.
    tasks_lost: u64,
    /// Where no client is.
    own: Arc<OwnAddresses>,
    /// The processes of which this is one, as the owner knows them; none if this one is all there is.
    processes: Option<ProcessesSnapshot>,
    /// Whether the config in force says something that only another process can put in force.
    is_restart_due: bool,
    /// Reads the config again.
    reloads: Reloads,
    /// Looks at certificates.
    certificates: CertificateLooks,
    /// Notices when its files change.
    watching: Watching,
    /// What the owner has not been told yet.
    events: VecDeque<ServerEvent>,
    /// Pools with more backends have no series for each of them.
    backend_series: Option<u16>,
    /// How long all goes on when it is told to end.
    drain_delay: Duration,
    /// Whether it drains.
    is_ending: bool,
    started: std::time::Instant,
    /// The same by the wall clock.
    started_at: SystemTime,
    /// The secret of cookies of those that have none in a file.
    own_secret: OwnSecret,
    /// The TCP connections of clients.
    connections: Tables,
    /// The authorities that run, in order of the config.
    authorities: Vec<ServedAuthority>,
    /// The number of the next one that comes.
    next_authority: usize,
    /// Looks after the zones that come from other servers.
    secondaries: Secondaries,
    /// What has become of those.
    updates: Updates,
    /// NOTIFY that workers took.
    notifies: UnboundedReceiver<ReceivedNotify>,
    /// Tells other servers of changes.
    notifier: Notifier,
    /// Probes the backends.
    prober: Prober,
    /// Compares what they say.
    comparisons: Comparisons,
    /// Asks replicas which versions of zones they have.
    soa_probes: SoaProbes,
    /// What workers met.
    health_events: UnboundedReceiver<HealthEvent>,
    /// The counters of all workers, and of the processes before.
    summary: Summary,
    /// Those of the processes before, which this thread alone adds to.
    carried_counters: Arc<Counters>,
    /// What is told of all numbers, once another process counts on from there.
    frozen: Option<Snapshot>,
    /// Who has asked for numbers while the process before is to tell its own; none if it has, or is not to.
    uncounted: Option<Vec<oneshot::Sender<Snapshot>>>,
    /// How questions are hashed.
    hash_seed: HashSeed,
    /// Something of [`Known`] may have changed.
    known_changes: Rc<Notify>,
    /// What the admin server shows at a glance.
    seen: Seen,
}

impl Server {
    /// What is bound: `forwarder=127.0.0.1:5300 ts1=127.0.0.1:5301`.
    pub fn bound(&self) -> String {
        let mut line = String::new();
        for (name, addresses) in self.listeners.addresses() {
            let addresses: Vec<String> = addresses.iter().map(ListenAddress::to_string).collect();
            let separator = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{separator}{name}={}", addresses.join(","));
        }
        line
    }

    /// Tells the server which processes there are, for whoever asks its admin server.
    pub fn set_processes(&mut self, processes: ProcessesSnapshot) {
        self.processes = Some(processes);
    }

    /// Whether the config in force says something that only another process can put in force: how many workers there are, or how
    /// they wait.
    pub fn is_restart_due(&self) -> bool {
        self.is_restart_due
    }

    /// Another process has the socket for changes from now on: its file stays when this one ends.
    pub fn leave_socket(&self) {
        self.listeners.leave();
    }

    /// Has the TCP connections of clients leave for another process, which serves by now: each comes as it falls idle between two
    /// messages. What is still under way when the server has drained ends with it.
    pub fn move_connections(&self) -> UnboundedReceiver<MovedConnection> {
        self.connections.move_out()
    }

    /// Serves a connection that another process has given up. It counts as one that is made now.
    pub fn adopt(&self, moved: MovedConnection) {
        self.connections.adopt(moved);
    }

    /// What the config in force says of other processes.
    pub fn supervisor(&self) -> Option<&SupervisorConfig> {
        self.config.supervisor.as_ref()
    }

    /// The text of the config in force, if it was read from a file.
    pub fn source(&self) -> Option<&ConfigText> {
        self.source.as_ref()
    }

    /// What it listens on, to be passed to other processes.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Whether all workers make progress.
    pub fn makes_progress(&self) -> bool {
        self.workers.stall(std::time::Instant::now()).is_none()
    }

    /// Takes care of the running server: probes, the size of hedge buckets, reloads, what the admin server asks. Returns what is not
    /// its own to decide; who calls it again goes on. If something was lost, it goes on without that.
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
                    // What is wanting was told by a warning: it does not end a server that serves.
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
                        self.tell(|| Command::Refresh);
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

    /// Has a worker that has died replaced. One that dies while the server drains is not: it would take queries.
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
                let in_force = InForce {
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

    /// Answers what the admin server asks, unless that is not the server's own to decide.
    fn answer(&mut self, request: Request) -> Option<ServerEvent> {
        if self.seen.is_new() {
            // Somebody is quicker than the first second.
            self.see(std::time::Instant::now());
        }
        match request {
            Request::Snapshot(answer) => self.answer_snapshot(answer),
            Request::Status(snapshot, answer) => drop(answer.send(self.status(&snapshot))),
            Request::Second(answer) => self.seen.tell_second(answer),
            Request::Seconds(listener) => self.seen.listen(listener),
            Request::History(span, answer) => self.tell_history(span, answer),
            Request::Cache(answer) => drop(answer.send(self.cache_access())),
            Request::SlowRaces(answer) => drop(answer.send(self.taps.slow_races())),
            Request::TopNames(answer) => drop(answer.send(self.taps.top_names())),
            Request::Serials(pool, answer) => drop(answer.send(self.serials(pool.as_deref()))),
            Request::Divergences(pool, answer) => drop(answer.send(self.divergences(pool.as_deref()))),
            Request::Zones(answer) => drop(answer.send(self.zones_report())),
            Request::Explain(question, answer) => drop(answer.send(self.explain(*question))),
            Request::Change(Change::Reload, answer) => self.reload(Some(answer)),
            Request::Change(Change::Processes(change), answer) => return Some(ServerEvent::Asked(change, answer)),
            Request::Change(Change::Order(order), answer) => self.order(*order, answer),
            Request::Change(change, answer) => drop(answer.send(self.change(change))),
        }
        None
    }

    /// Does what is due each second.
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
            self.secondaries.trust(Arc::clone(&roots));
            if let Some(state) = &self.state {
                state.trust(&roots);
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

    /// Puts a state in force everywhere.
    fn set_state(&mut self, state: Arc<ForwarderState>) {
        self.prober.set_state(&state);
        self.comparisons.set_state(&state);
        self.soa_probes.set_state(&state);
        self.slow_thresholds.set(self.slow, &state);
        self.known_changes.notify_one();
        self.tell(|| Command::SetForwarderState(Arc::clone(&state)));
        self.forget_pools(&state);
        self.condition.set_pools(&state.pools);
        self.retired.free_unused();
        if let Some(earlier) = self.state.replace(state) {
            self.retired.keep(&earlier, self.state.as_deref());
        }
    }

    /// Whether another state has another cache than the one in force.
    fn is_cache_replaced(&self, state: &ForwarderState) -> bool {
        let cache = self.state.as_ref().and_then(|state| state.cache.as_ref());
        cache.zip(state.cache.as_ref()).is_some_and(|(old, new)| !Arc::ptr_eq(old, new))
    }

    /// Takes out of the cache what pools have said that another state does not have as they are. Nobody would find it there;
    /// but if such a pool came back, it would not be expected to remember.
    fn forget_pools(&self, state: &ForwarderState) {
        let (Some(earlier), Some(cache)) = (&self.state, &state.cache) else { return };
        let stay = state.cached_pools();
        for pool in earlier.cached_pools().into_iter().filter(|pool| !stay.contains(pool)) {
            let cache = Arc::clone(cache);
            // A large cache takes seconds to go through, in which there are probes to send.
            self.tasks.start_and_leave(TaskKind::CacheFlush, async move {
                let answers = blocking(move || cache.flush(Flush::Pool(pool))).await;
                tracing::info!(answers, "cache: answers of a pool that has changed are gone");
            });
        }
    }

    /// Takes what has become of zones of other servers.
    fn take_updates(&mut self, updates: Vec<ZoneUpdate>) {
        let began = std::time::Instant::now();
        let mut by_authority: HashMap<usize, Vec<ZoneUpdate>> = HashMap::new();
        for update in updates {
            by_authority.entry(update.authority).or_default().push(update);
        }
        for (number, updates) in by_authority {
            // One that has gone meanwhile wants nothing any more.
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

    /// Puts in force that zones come and go by the word of catalogs, but for the answers of an authority.
    fn follow(&mut self, number: usize, changes: MemberChanges) {
        let MemberChanges { gone, set, disk, changes } = changes;
        self.drop_members(number, &gone);
        self.secondaries.set_members(set, Vec::new());
        write_to_disk(disk, &self.tasks);
        changes.into_iter().for_each(|change| notify(&mut self.notifier, change));
    }

    /// Forgets zones of an authority that have gone by the word of catalogs.
    fn drop_members(&mut self, number: usize, gone: &[Name]) {
        if let Some(served) = self.authorities.iter().find(|served| served.number() == number) {
            gone.iter().for_each(|zone| self.seen.note_zone(served.name(), zone, false));
        }
        gone.iter().for_each(|zone| self.notifier.forget_zone(number, zone));
        self.secondaries.remove_members(number, gone);
    }

    /// An operator takes the version of a catalog that is doubted.
    fn accept_catalog(&mut self, name: &str) -> Option<Result<String, Refused>> {
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
                Err(Unaccepted::Unknown) => {}
                Err(Unaccepted::NotDoubted) => {
                    refused = Some(format!("catalog {catalog} is not doubted: what it lists is in force"));
                }
                Err(Unaccepted::Broken(broken)) => {
                    refused = Some(format!("catalog {catalog} is broken, which is for its producer to mend: {broken}"));
                }
            }
        }
        match refused {
            _ if !said.is_empty() => Some(Ok(said.join("; "))),
            Some(refused) => Some(Err(Refused::Conflict(refused))),
            None => None,
        }
    }

    /// Has the workers look at the health of the backends again.
    fn refresh(&self) {
        self.known_changes.notify_one();
        self.tell(|| Command::Refresh);
    }

    /// Has all workers answer from what an authority holds now.
    fn publish(&self, number: usize) {
        if let Some(served) = self.authorities.iter().find(|served| served.number() == number) {
            self.tell(|| Command::SetAuthorityState(number, Arc::clone(served.state())));
        }
    }

    /// Tells all workers.
    fn tell(&self, command: impl Fn() -> Command) {
        // A worker that is gone has logged why.
        self.workers.tell(command);
    }
}

/// What gives cookies to the clients of the forwarder, if they get any.
fn forwarder_cookies(
    config: &Config,
    own_secret: &OwnSecret,
    files: &HashMap<PathBuf, CookieSecrets>,
) -> Option<Arc<Cookies>> {
    config.forwarder.as_ref().and_then(|forwarder| own_secret.cookies(&forwarder.cookies, files))
}

/// Writes and removes files beside whatever else is done, in this order.
fn write_to_disk(disk: Vec<Box<dyn FnOnce() + Send>>, tasks: &Tasks) {
    if !disk.is_empty() {
        tasks.start_and_leave(TaskKind::Secondary, blocking(move || disk.into_iter().for_each(|work| work())));
    }
}

/// Has whoever is to know of a zone told.
fn notify(notifier: &mut Notifier, change: ZoneChange) {
    notifier.notify(change.authority, &change.zone, &change.sharing, change.key);
}

/// How often it is looked at who of thousands takes queries.
const CROWDS: Duration = Duration::from_millis(200);

/// How long whoever asks for numbers waits for those of the process before, which are sent when that stops to serve.
const COUNTED_PATIENCE: Duration = Duration::from_secs(1);
