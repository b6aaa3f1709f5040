//! Assembling, reloading, draining: from a checked [`Setup`] to running threads and back.
//!
//! Everything that can fail does so before the first query is taken: zones are loaded, sockets bound, threads started. A
//! reload builds the new state whole and only then hands it to the workers. What it cannot change without losing queries,
//! listeners and the number of workers, it reports, as it does what it undoes of changes by hand, as [`ReloadNotice`]s.

mod authorities;
mod changes;
mod connections;
mod cookies;
mod persist;
mod privileges;
mod reload;
mod reload_notice;
mod status;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, interval, timeout_at};

use self::connections::Tables;
use self::cookies::OwnSecret;
pub use self::reload::Read;
pub use self::reload_notice::ReloadNotice;

use self::authorities::{ServedAuthority, ZoneChange};
use self::privileges::PrivilegeError;
use self::reload::Reloads;
use self::worker::{AuthorityParts, Command, ForwarderParts, LostWorker, Parts};
use crate::admin::{self, Change, Request, Socket, SocketError};
use crate::authority::ReceivedNotify;
use crate::cache::Flush;
use crate::config::{Config, PoolConfig};
use crate::forwarder::claims::{Claims, WorkerId};
use crate::forwarder::shortage::Shortage;
use crate::forwarder::{HAND_OVERS, Shared};
use crate::health::Prober;
use crate::limit::{Clients, CookieSecrets, Cookies, OwnAddresses, Pacing};
use crate::load::{Confinement, Setup};
use crate::metrics::{Counters, Limited, Summary};
use crate::net::bind::{self, BindError, Listeners};
use crate::net::clock::SleepMeter;
use crate::net::descriptors::{Demand, Shares};
use crate::net::tasks::{Endless, Lost, TaskKind, Tasks, blocking, blocking_task};
use crate::net::vigil::Vigil;
use crate::notify::Notifier;
use crate::secondary::{Saved, Secondaries, ZoneUpdate};
use crate::state::{ForwarderState, HealthEvent, PoolState};
use crate::wire::HashSeed;

/// A server could not start.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound.
    Bind(BindError),
    /// The socket for changes could not be bound.
    Socket(SocketError),
    /// It could not become the user that it is to be.
    Privileges(PrivilegeError),
    /// The operating system gave no thread or no descriptors.
    Resources(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::Privileges(error) => error.fmt(f),
            Self::Resources(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self::Bind(error)
    }
}

impl From<SocketError> for StartError {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Resources(error)
    }
}

/// A running server, held by the control thread.
pub struct Server {
    /// The config of the start: what is bound.
    config: Config,
    /// The state in force.
    state: Option<Arc<ForwarderState>>,
    /// The workers.
    workers: Vec<Worker>,
    /// What is bound, by name, for the `ready` line.
    bound: Vec<(String, Vec<SocketAddr>)>,
    /// The pools as the config had them when it was last read.
    configured: Vec<PoolConfig>,
    /// The pools as they are configured now, by the file and by hand.
    pools: Vec<PoolConfig>,
    /// Ticks once a second.
    second: Interval,
    /// Counts the queries of the last minute.
    minutes: Minutes,
    /// Counts time asleep, for the cache.
    sleep: SleepMeter,
    /// What the admin server asks.
    requests: Receiver<Request>,
    /// Whether queries are taken.
    is_ready: Arc<AtomicBool>,
    /// The admin server; it ends with this value.
    admin: Endless,
    /// All other tasks of this thread.
    tasks: Tasks,
    /// Which workers have ended, and why.
    lost: UnboundedReceiver<LostWorker>,
    /// Tasks that were lost so far.
    tasks_lost: u64,
    /// Reads the config again.
    reloads: Reloads,
    /// Whether it drains.
    is_ending: bool,
    /// When it started.
    started: std::time::Instant,
    /// The secret of cookies of those that have none in a file.
    own_secret: OwnSecret,
    /// The TCP connections of clients.
    connections: Tables,
    /// The authorities that run, by number.
    authorities: Vec<ServedAuthority>,
    /// Looks after the zones that come from other servers.
    secondaries: Secondaries,
    /// What has become of those.
    updates: UnboundedReceiver<ZoneUpdate>,
    /// NOTIFY that workers took.
    notifies: UnboundedReceiver<ReceivedNotify>,
    /// Tells other servers of changes.
    notifier: Notifier,
    /// Probes the backends.
    prober: Prober,
    /// What workers met.
    health_events: UnboundedReceiver<HealthEvent>,
    /// The counters of all workers.
    summary: Summary,
}

/// A running worker.
struct Worker {
    /// The way to it.
    commands: UnboundedSender<Command>,
    /// Its thread.
    thread: JoinHandle<()>,
}

impl Server {
    /// Binds, starts, and takes queries from then on. `read` reads the config again. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// If an address, a thread or a descriptor cannot be had; then nothing runs.
    pub fn start(setup: Setup, read: Read) -> Result<Self, StartError> {
        let Setup { config, catalogs, keys, cookie_secrets, token, files } = setup;
        let keys = Arc::new(keys);
        let count = worker_count(&config);
        let shares = share_descriptors(&config, count);
        // At most one of each sign for each backend: see `SharedBackend::is_first`.
        let (health_events_sender, health_events) = unbounded_channel();
        let own_secret = OwnSecret::new(std::time::Instant::now())?;
        let cookies = forwarder_cookies(&config, &own_secret, &cookie_secrets);
        let state = ForwarderState::new(&config, None, None, cookies, count).map(Arc::new);
        let (hand_over, mut handed_over): (Vec<_>, Vec<_>) = (0..count).map(|_| channel(HAND_OVERS)).unzip();
        let connections = Tables::new(&config, shares.connections, std::time::Instant::now());
        let may_wait = config.forwarder.as_ref().map_or(0, |forwarder| forwarder.limits.in_flight as usize);
        let shared = Arc::new(Shared {
            claims: Claims::new(count),
            hasher: HashSeed(rand::random()).question_hasher(),
            workers: hand_over,
            on_the_way: (0..count).map(|_| AtomicUsize::new(0)).collect(),
            clients: Arc::new(Clients::new(may_wait, rand::random())),
            pacing: Pacing::new(rand::random(), std::time::Instant::now()),
            limited: connections.forwarder.as_ref().map_or_else(|| Arc::new(Limited::new("")), |table| table.limited()),
            shortage: Shortage::new(),
            health_events: health_events_sender,
        });
        if let Some(state) = &state {
            persist::load(state, &shared);
        }
        let mut bound: Vec<(String, Vec<SocketAddr>)> = Vec::new();
        let mut bind = |name: &str, addresses: &[SocketAddr]| -> Result<Vec<Sockets>, StartError> {
            let listeners = addresses.iter().map(|address| Listeners::bind(*address, count));
            let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
            bound.push((name.to_owned(), listeners.iter().map(|listeners| listeners.address).collect()));
            Ok(by_worker(listeners, count))
        };
        let mut forwarder_sockets = match &config.forwarder {
            Some(forwarder) => bind("forwarder", &forwarder.listen)?,
            None => Vec::new(),
        };
        let mut authority_sockets = config
            .authorities
            .iter()
            .map(|authority| bind(&authority.name, &authority.listen))
            .collect::<Result<Vec<_>, _>>()?;
        let admin_listener = config.admin.as_ref().map(|admin| bind::stream_alone(admin.listen)).transpose()?;
        let mut socket = None;
        if let Some((listener, admin)) = admin_listener.as_ref().zip(config.admin.as_ref()) {
            let address = listener.local_addr()?;
            socket = Socket::open(&admin.socket, address, privileges::owner(config.user.as_ref()))?;
            bound.push(("admin".to_owned(), vec![address]));
        }
        let own = bound.iter().filter(|(name, _)| name != "admin").flat_map(|(_, addresses)| addresses.iter().copied());
        let own = Arc::new(OwnAddresses::new(own));
        let held = config.authorities.iter().zip(catalogs).enumerate();
        let held = held.map(|(number, (config, catalog))| {
            let cookies = own_secret.cookies(&config.cookies, &cookie_secrets);
            ServedAuthority::new(number, config.clone(), catalog, &keys, cookies)
        });
        let (mut authorities, first_changes): (Vec<_>, Vec<_>) = held.unzip();
        // As many as transfers have ended, of which there are no more at a time than zones; this thread sends and takes them.
        let (sender, mut updates) = unbounded_channel();
        let tasks = Tasks::default();
        let mut secondaries = Secondaries::new(tasks.clone(), sender);
        let zones: Vec<_> = authorities.iter().flat_map(ServedAuthority::zones).collect();
        let saved = Saved::load_all(zones.iter().cloned());
        secondaries.set_zones(zones, saved);
        // What was saved is answered from with the first query.
        let mut announcements: Vec<ZoneChange> = first_changes.into_iter().flatten().collect();
        while let Ok(update) = updates.try_recv() {
            announcements.extend(authorities.get_mut(update.authority).and_then(|served| served.take(update)));
        }
        // At most one for each zone and primary: see `authority::PendingNotifies`.
        let (notify_sender, notifies) = unbounded_channel();
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        // From here on nothing is bound, and no thread runs yet: those to come have no more rights than this one.
        let confinement = match files {
            Some(files) => {
                let path = socket.as_ref().map(Socket::path);
                privileges::give_up(config.user.as_ref(), &files, path).map_err(StartError::Privileges)?
            }
            None => Confinement::default(),
        };
        let reloads = Reloads::start(read, confinement)?;
        let mut workers = Vec::new();
        // At most one for each worker.
        let (lost_sender, lost) = unbounded_channel();
        // From the last to the first, so that each takes its sockets off the end.
        for number in (0..count).rev() {
            // This thread alone sends, at the pace of operators, probes and transfers, and must not wait for a worker.
            let (commands, received) = unbounded_channel();
            let handed_over = handed_over.pop().expect("there is one for each worker");
            let table = connections.forwarder.clone();
            let forwarder = state.as_ref().zip(table).map(|(state, table)| ForwarderParts {
                shared: Arc::clone(&shared),
                state: Arc::clone(state),
                own: Arc::clone(&own),
                handed_over,
                sockets: forwarder_sockets.pop().unwrap_or_default(),
                backend_sockets: shares.backend_sockets,
                connections: table,
                fetches: shares.fetches,
            });
            let sites = authority_sockets.iter_mut().zip(&authorities).enumerate();
            let authorities = sites.map(|(number, (sockets, served))| AuthorityParts {
                number,
                state: Arc::clone(served.state()),
                own: Arc::clone(&own),
                limited: connections.authorities[number].limited(),
                notifies: notify_sender.clone(),
                sockets: sockets.pop().unwrap_or_default(),
                connections: Arc::clone(&connections.authorities[number]),
            });
            let parts = Parts {
                id: WorkerId(number as u16),
                commands: received,
                forwarder,
                authorities: authorities.collect(),
                counters: Arc::clone(&counters[number]),
                vigil: Vigil::new(config.busy_poll),
            };
            workers.push(Worker { commands, thread: worker::start(parts, lost_sender.clone())? });
        }
        let ways: Vec<_> = workers.iter().map(|worker: &Worker| worker.commands.clone()).collect();
        let mut prober = Prober::new(
            tasks.clone(),
            Rc::new(move || {
                ways.iter().for_each(|way| drop(way.send(Command::Refresh)));
            }),
        );
        if let Some(state) = &state {
            prober.set_state(state);
        }
        let summary = Summary::of(counters);
        let (asks, requests) = channel(ADMIN_REQUESTS);
        let is_ready = Arc::new(AtomicBool::new(true));
        let mut admin = Endless::new(TaskKind::Admin);
        if let Some(listener) = admin_listener {
            let is_ready = Arc::clone(&is_ready);
            let is_ready = move || is_ready.load(Relaxed);
            admin.start(admin::serve(listener, socket, shares.admin, token, asks, is_ready));
        }
        let (configured, pools) = (config.pools.clone(), config.pools.clone());
        let started = std::time::Instant::now();
        let mut notifier = Notifier::new(tasks.clone());
        announcements.into_iter().for_each(|health_events| notify(&mut notifier, health_events));
        Ok(Self {
            config,
            state,
            workers,
            bound,
            configured,
            pools,
            second: interval(Duration::from_secs(1)),
            minutes: Minutes::default(),
            sleep: SleepMeter::new(),
            requests,
            is_ready,
            admin,
            tasks,
            lost,
            tasks_lost: 0,
            reloads,
            is_ending: false,
            started,
            own_secret,
            connections,
            authorities,
            secondaries,
            updates,
            notifies,
            notifier,
            prober,
            health_events,
            summary,
        })
    }

    /// What is bound: `forwarder=127.0.0.1:5300 ts1=127.0.0.1:5301`.
    pub fn bound(&self) -> String {
        let mut line = String::new();
        for (name, addresses) in &self.bound {
            let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
            let separator = if line.is_empty() { "" } else { " " };
            let _ = write!(line, "{separator}{name}={}", addresses.join(","));
        }
        line
    }

    /// Takes care of the running server: probes, the size of hedge buckets, reloads, what the admin server asks. Returns only when
    /// something is lost; who goes on calling it goes on without that.
    pub async fn supervise(&mut self) -> Loss {
        loop {
            let (worker, lost) = tokio::select! {
                Some(LostWorker { id, lost }) = self.lost.recv() => (Some(id), lost),
                lost = self.tasks.lost() => (None, lost),
                lost = self.admin.lost() => (None, lost),
                loaded = self.reloads.loaded() => match loaded {
                    Ok(loaded) => {
                        self.finish_reload(loaded);
                        continue;
                    }
                    Err(lost) => (None, lost),
                },
                Some(health_events) = self.health_events.recv() => {
                    self.prober.on_event(&health_events);
                    continue;
                }
                Some(update) = self.updates.recv() => {
                    self.take_update(update);
                    continue;
                }
                Some(notify) = self.notifies.recv() => {
                    self.secondaries.on_notify(notify.authority, &notify.zone, notify.primary, notify.take_serial());
                    continue;
                }
                _ = self.second.tick() => {
                    self.on_second();
                    continue;
                }
                Some(request) = self.requests.recv() => {
                    self.answer(request);
                    continue;
                }
            };
            self.tasks_lost += 1;
            return Loss { worker: worker.map(|worker| worker.0), lost };
        }
    }

    /// Answers what the admin server asks.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Snapshot(answer) => drop(answer.send(self.snapshot())),
            Request::Cache(answer) => drop(answer.send(self.cache_access())),
            Request::Change(Change::Reload, answer) => self.reload(Some(answer)),
            Request::Change(change, answer) => drop(answer.send(self.change(change))),
        }
    }

    /// Does what is due each second.
    fn on_second(&mut self) {
        self.reloads.tick();
        self.own_secret.tick(std::time::Instant::now());
        let slept = self.sleep.take();
        if let Some(state) = &self.state {
            self.minutes.count(state);
            if let Some(cache) = &state.cache {
                cache.add_sleep(slept);
            }
        }
    }

    /// Puts a state in force everywhere.
    fn set_state(&mut self, state: Arc<ForwarderState>) {
        self.prober.set_state(&state);
        self.tell(|| Command::SetForwarderState(Arc::clone(&state)));
        self.forget_pools(&state);
        self.state = Some(state);
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
                tracing::info!("cache: {answers} answers of a pool that has changed are gone");
            });
        }
    }

    /// Takes what has become of a zone of another server.
    fn take_update(&mut self, update: ZoneUpdate) {
        let number = update.authority;
        let Some(served) = self.authorities.get_mut(number) else { return };
        let health_events = served.take(update);
        self.publish(number);
        health_events.into_iter().for_each(|health_events| notify(&mut self.notifier, health_events));
    }

    /// Has all workers answer from what an authority holds now.
    fn publish(&self, number: usize) {
        if let Some(served) = self.authorities.get(number) {
            self.tell(|| Command::SetAuthorityState(number, Arc::clone(served.state())));
        }
    }

    /// Ends: the LS takes no more queries and finishes those in flight, while our own TS go on; then those end too.
    /// Returns whether every query got its response within the longest timeout of a pool.
    pub async fn drain(mut self) -> (Drained, Summary) {
        self.end_reloads();
        let timeouts = self.state.iter().flat_map(|state| &state.pools).map(|pool| pool.rules().timeout);
        self.is_ready.store(false, Relaxed);
        let deadline = Instant::now() + timeouts.max().unwrap_or_default() + DRAIN_MARGIN;
        let ways: Vec<_> = self.workers.iter().map(|worker| worker.commands.clone()).collect();
        let drained = async {
            // Twice: the first time ends the intake of all, the second what they handed over to each other meanwhile.
            for _ in 0..2 {
                let answers: Vec<_> = ways.iter().map(ask_to_drain).collect();
                for answer in answers {
                    let _ = answer.await;
                }
            }
        };
        let mut drained = tokio::select! {
            result = timeout_at(deadline, drained) => if result.is_ok() { Drained::Whole } else { Drained::Late },
            lost = self.supervise() => return (Drained::Lost(lost), self.summary),
        };
        self.tell(|| Command::Stop);
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        let joined = blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        if timeout_at(deadline + DRAIN_MARGIN, joined).await.is_err() {
            drained = Drained::Late;
        }
        if let Ok(LostWorker { id, lost }) = self.lost.try_recv() {
            drained = Drained::Lost(Loss { worker: Some(id.0), lost });
        }
        if let Some(state) = self.state.take() {
            let saved = blocking_task(TaskKind::Persist, move || persist::save(&state)).await;
            if let Err(lost) = saved {
                drained = Drained::Lost(Loss { worker: None, lost });
            }
        }
        // Its socket goes with it.
        self.admin.stop().await;
        (drained, self.summary)
    }

    /// Tells all workers.
    fn tell(&self, command: impl Fn() -> Command) {
        // A worker that is gone has logged why.
        self.workers.iter().for_each(|worker| drop(worker.commands.send(command())));
    }
}

/// Something has ended that should not have. What it did is not done any more: some clients get no answer. Whoever owns the
/// server decides what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The number of the worker that has ended with it, if it was not on the control thread.
    pub worker: Option<u16>,
    /// What it was.
    pub lost: Lost,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            Some(worker) => write!(f, "worker {worker}: {}", self.lost),
            None => write!(f, "control thread: {}", self.lost),
        }
    }
}

/// How a drain has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every query got its response.
    Whole,
    /// Some did not in time.
    Late,
    /// Something has ended before.
    Lost(Loss),
}

/// Sockets of one worker for the addresses of one listener.
type Sockets = Vec<(std::net::UdpSocket, std::net::TcpListener)>;

/// Deals the sockets of all addresses out to the workers.
fn by_worker(listeners: Vec<Listeners>, workers: usize) -> Vec<Sockets> {
    let mut dealt: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
    for listener in listeners {
        let pairs = listener.udp.into_iter().zip(listener.tcp);
        dealt.iter_mut().zip(pairs).for_each(|(worker, pair)| worker.push(pair));
    }
    dealt
}

/// What gives cookies to the clients of the forwarder, if they get any.
fn forwarder_cookies(
    config: &Config,
    own_secret: &OwnSecret,
    files: &HashMap<PathBuf, CookieSecrets>,
) -> Option<Arc<Cookies>> {
    config.forwarder.as_ref().and_then(|forwarder| own_secret.cookies(&forwarder.cookies, files))
}

/// How many workers a config asks for.
fn worker_count(config: &Config) -> usize {
    config.workers.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get)
}

/// Divides the descriptors that the process may open among its parts, and tells the operator.
fn share_descriptors(config: &Config, workers: usize) -> Shares {
    let listen = config.forwarder.iter().flat_map(|forwarder| &forwarder.listen);
    let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
    let shares = Shares::of(Demand {
        limit: raise_descriptor_limit(),
        workers,
        addresses: listen.chain(config.authorities.iter().flat_map(|authority| &authority.listen)).count(),
        backends: if config.forwarder.is_some() { backends } else { 0 },
        has_admin: config.admin.is_some(),
    });
    if shares.is_enough() {
        tracing::info!("{shares}");
    } else {
        let Shares { limit, least, .. } = shares;
        tracing::warn!(
            "{limit} descriptors are too few, raise the limit (LimitNOFILE, ulimit -n) to {least} at least: {shares}"
        );
    }
    shares
}

/// Lets the process open as many descriptors as it is allowed to, and says how many that is.
fn raise_descriptor_limit() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    // No limit at all is told as `None`.
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Queries of each pool, second by second, for the size of its hedge bucket.
#[derive(Default)]
struct Minutes(Vec<(Arc<PoolState>, VecDeque<u64>)>);

impl Minutes {
    /// Called once a second.
    fn count(&mut self, state: &ForwarderState) {
        self.0.retain(|(known, _)| state.pools.iter().any(|pool| Arc::ptr_eq(&pool.state, known)));
        for pool in &state.pools {
            let known = self.0.iter().position(|(known, _)| Arc::ptr_eq(known, &pool.state));
            let index = known.unwrap_or_else(|| {
                self.0.push((Arc::clone(&pool.state), VecDeque::with_capacity(61)));
                self.0.len() - 1
            });
            let totals = &mut self.0[index].1;
            let total = pool.state.queries();
            totals.push_back(total);
            if totals.len() > 60 {
                totals.pop_front();
            }
            pool.budget().set_recent_queries(total - totals.front().copied().unwrap_or(0));
        }
    }
}

/// Asks a worker to drain; what is returned ends when it has.
fn ask_to_drain(worker: &UnboundedSender<Command>) -> oneshot::Receiver<()> {
    let (done, drained) = oneshot::channel();
    let _ = worker.send(Command::Drain(done));
    drained
}

/// Has whoever is to know of a zone told.
fn notify(notifier: &mut Notifier, change: ZoneChange) {
    notifier.notify(change.authority, &change.zone, &change.sharing, change.key);
}

/// Requests of the admin server that wait for the control thread. Those beyond wait for a place.
const ADMIN_REQUESTS: usize = 16;

/// What a drain may take beyond the longest timeout of a pool.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);
