//! Starting: from a checked [`Setup`] to running threads.
//!
//! Everything that can fail does so before the first query is taken, in three steps: [`Listeners::open`] binds what was not passed
//! to us, [`confine`](super::confine) gives rights up, and only then does [`Server::start`] start threads, so that they have no
//! more rights than this one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::time::interval;

use super::authorities::{ServedAuthority, ZoneChange};
use super::carried::{Carried, CarriedCache, Learnt};
use super::connections::Tables;
use super::cookies::OwnSecret;
use super::listeners::{AdminListeners, Listeners};
use super::persist::Saves;
use super::privileges::PrivilegeError;
use super::recent_queries::RecentQueries;
use super::reload::{Read, Reloads};
use super::worker::{self, AuthorityParts, Command, ForwarderParts, LostWorker, Parts};
use super::{Server, Worker, forwarder_cookies, notify, persist};
use crate::admin::{self, SocketError};
use crate::authority::ReceivedNotify;
use crate::config::{Config, CookieConfig};
use crate::engine;
use crate::engine::shortage::Shortage;
use crate::engine::single_flight::{SingleFlight, WorkerId};
use crate::forwarder::{HAND_OVERS, HandOver, Shared};
use crate::health::Prober;
use crate::limit::{Clients, Cookies, OwnAddresses, Pacing};
use crate::load::{Confinement, Setup};
use crate::metrics::{Counters, Limited, Summary};
use crate::net::bind::BindError;
use crate::net::busy_poll::BusyPoll;
use crate::net::clock::SleepMeter;
use crate::net::descriptors::{Demand, Shares};
use crate::net::tasks::{Endless, TaskKind, Tasks};
use crate::notify::Notifier;
use crate::secondary::{Saved, Secondaries, ZoneUpdate};
use crate::state::{ForwarderState, HealthEvent};
use crate::transfer::tsig::Keys;
use crate::wire::{HashSeed, QuestionHasher};
use crate::zone::ZoneDb;

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

impl Server {
    /// Starts to serve what listens already, and takes queries from then on. The process has given up what it does not need
    /// ([`confine`](super::confine)), and threads have no more rights than it has. `carried` is what it takes over from another
    /// process, `read` reads the config again. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// If a thread or a descriptor cannot be had; then nothing runs.
    pub fn start(
        setup: Setup,
        listeners: Listeners,
        confinement: Confinement,
        carried: Carried,
        read: Read,
    ) -> Result<Self, StartError> {
        let Carried { known, learnt, cache, edition } = carried;
        let Setup { mut config, zone_dbs, keys, cookie_secrets, token, files: _ } = setup;
        let (keys, count) = (Arc::new(keys), listeners.workers());
        let shares = share_descriptors(&config, &listeners);
        let own_secret = OwnSecret::new(Instant::now())?;
        let cookies = forwarder_cookies(&config, &own_secret, &cookie_secrets);
        let configured = config.pools.clone();
        config.pools = known.changed(&configured);
        let sent = match &cache {
            CarriedCache::Sent(cache) => Some(Arc::clone(cache)),
            CarriedCache::Persisted | CarriedCache::Cold => None,
        };
        let state = ForwarderState::new(&config, None, sent, cookies, count).map(Arc::new);
        let mut recent_queries = RecentQueries::default();
        if let Some(state) = &state {
            known.set_standings(state);
            learnt.iter().for_each(|learnt| learnt.restore(state, &mut recent_queries));
        }
        let (hash_seed, hasher) = match &learnt {
            Some(learnt) => (learnt.seed, learnt.seed.carried_hasher()),
            None => {
                let seed = HashSeed(rand::random()).in_force();
                (seed, seed.question_hasher())
            }
        };
        let connections = Tables::new(&config, shares.connections, Instant::now());
        // At most one of each signal for each backend: see `SharedBackend::is_first`.
        let (health_event_sender, health_events) = unbounded_channel();
        let (shared, handed_over) = share(&config, &connections, hasher, health_event_sender, count);
        if let (Some(state), CarriedCache::Persisted) = (&state, &cache) {
            persist::load(state, &shared);
        }
        let tasks = Tasks::default();
        let mut zones =
            Zones::new(&config, zone_dbs, &keys, |config| own_secret.cookies(config, &cookie_secrets), &tasks);
        let changes = zones.take_saved();
        let reloads = Reloads::start(read, confinement, edition)?;
        // At most one for each worker.
        let (lost_sender, lost) = unbounded_channel();
        // At most one for each zone and primary: see `authority::PendingNotifies`.
        let (notify_sender, notifies) = unbounded_channel();
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        let for_workers = ForWorkers {
            learnt: learnt.as_ref(),
            config: &config,
            state: state.as_ref(),
            authorities: &zones.authorities,
            shared,
            connections: &connections,
            shares: &shares,
            own: Arc::new(OwnAddresses::new(listeners.for_queries())),
            listeners: &listeners,
            notifies: notify_sender,
            lost: lost_sender,
        };
        let mut workers = Vec::new();
        for (number, handed_over) in handed_over.into_iter().enumerate() {
            workers.push(for_workers.start(number, handed_over, Arc::clone(&counters[number]))?);
        }
        let known_changes: Rc<Notify> = Rc::default();
        let mut prober = Prober::new(tasks.clone(), refresh(&workers, Rc::clone(&known_changes)));
        if let Some(state) = &state {
            prober.set_state(state);
        }
        let (asks, requests) = channel(ADMIN_REQUESTS);
        let is_ready = Arc::new(AtomicBool::new(true));
        let mut admin = Endless::new(TaskKind::Admin);
        if let Some(AdminListeners { tcp, socket, .. }) = listeners.admin() {
            let is_ready = Arc::clone(&is_ready);
            let is_ready = move || is_ready.load(Relaxed);
            let socket =
                socket.as_ref().map(|socket| Ok::<_, io::Error>((socket.listener()?, socket.path().to_owned())));
            admin.start(admin::serve(tcp.try_clone()?, socket.transpose()?, shares.admin, token, asks, is_ready));
        }
        let mut notifier = Notifier::new(tasks.clone());
        changes.into_iter().for_each(|change| notify(&mut notifier, change));
        let pools = config.pools.clone();
        let carried_counters: Arc<Counters> = Arc::default();
        Ok(Self {
            configured,
            config,
            state,
            workers,
            listeners,
            pools,
            second: interval(Duration::from_secs(1)),
            recent_queries,
            saves: Saves::new(Instant::now()),
            sleep: SleepMeter::new(),
            requests,
            is_ready,
            admin,
            tasks,
            lost,
            tasks_lost: 0,
            worker_replacements: 0,
            processes: None,
            reloads,
            events: VecDeque::new(),
            is_ending: false,
            started: Instant::now(),
            started_at: SystemTime::now(),
            own_secret,
            connections,
            authorities: zones.authorities,
            secondaries: zones.secondaries,
            updates: zones.updates,
            notifies,
            notifier,
            prober,
            health_events,
            summary: Summary::of(counters.into_iter().chain([Arc::clone(&carried_counters)]).collect()),
            carried_counters,
            hash_seed,
            known_changes,
        })
    }
}

/// The zones of the authorities, and who looks after those that come from other servers.
struct Zones {
    /// In order of the config.
    authorities: Vec<ServedAuthority>,
    /// The zones whose copies are out of date.
    changes: Vec<ZoneChange>,
    secondaries: Secondaries,
    /// What becomes of the zones of `secondaries`.
    updates: UnboundedReceiver<ZoneUpdate>,
}

impl Zones {
    /// The zones of a config, as they were loaded. `cookies`: what gives cookies to the clients of an authority.
    fn new(
        config: &Config,
        loaded: Vec<Arc<ZoneDb>>,
        keys: &Arc<Keys>,
        cookies: impl Fn(&CookieConfig) -> Option<Arc<Cookies>>,
        tasks: &Tasks,
    ) -> Self {
        let authorities = config.authorities.iter().zip(loaded).enumerate();
        let authorities = authorities.map(|(number, (config, loaded))| {
            ServedAuthority::new(number, config.clone(), loaded, keys, cookies(&config.cookies))
        });
        let (authorities, changes): (Vec<_>, Vec<_>) = authorities.unzip();
        // As many as transfers have ended, of which there are no more at a time than zones; this thread sends and takes them.
        let (sender, updates) = unbounded_channel();
        let secondaries = Secondaries::new(tasks.clone(), sender);
        Self { authorities, changes: changes.into_iter().flatten().collect(), secondaries, updates }
    }

    /// Takes what was saved of the zones of other servers, so that it is answered from with the first query. Returns all
    /// zones whose copies are out of date.
    fn take_saved(&mut self) -> Vec<ZoneChange> {
        let zones: Vec<_> = self.authorities.iter().flat_map(ServedAuthority::zones).collect();
        let saved = Saved::load_all(zones.iter().cloned());
        self.secondaries.set_zones(zones, saved);
        while let Ok(update) = self.updates.try_recv() {
            let served = self.authorities.get_mut(update.authority);
            self.changes.extend(served.and_then(|served| served.take(update)));
        }
        std::mem::take(&mut self.changes)
    }
}

/// What workers are made of.
struct ForWorkers<'a> {
    /// What they are to know from the beginning.
    learnt: Option<&'a Learnt>,
    config: &'a Config,
    state: Option<&'a Arc<ForwarderState>>,
    authorities: &'a [ServedAuthority],
    shared: Arc<Shared>,
    connections: &'a Tables,
    shares: &'a Shares,
    /// Where no client is.
    own: Arc<OwnAddresses>,
    listeners: &'a Listeners,
    notifies: UnboundedSender<ReceivedNotify>,
    /// Where a worker tells that it has ended.
    lost: UnboundedSender<LostWorker>,
}

impl ForWorkers<'_> {
    /// Starts the worker of this number.
    fn start(&self, number: usize, handed_over: Receiver<HandOver>, counters: Arc<Counters>) -> io::Result<Worker> {
        // The control thread alone sends, at the pace of operators, probes and transfers, and must not wait for a worker.
        let (commands, received) = unbounded_channel();
        if let Some(learnt) = self.learnt.and_then(|learnt| learnt.of_worker(number)) {
            let _ = commands.send(Command::Learn(learnt));
        }
        let table = self.connections.forwarder.as_ref();
        let forwarder = match self.state.zip(table) {
            Some((state, table)) => Some(ForwarderParts {
                shared: Arc::clone(&self.shared),
                state: Arc::clone(state),
                own: Arc::clone(&self.own),
                handed_over,
                sockets: self.listeners.of_forwarder(number)?,
                backend_sockets: self.shares.backend_sockets,
                connections: Arc::clone(table),
                fetches: self.shares.fetches,
            }),
            None => None,
        };
        let mut authorities = Vec::new();
        for (place, (served, table)) in self.authorities.iter().zip(&self.connections.authorities).enumerate() {
            authorities.push(AuthorityParts {
                number: place,
                state: Arc::clone(served.state()),
                own: Arc::clone(&self.own),
                limited: table.limited(),
                notifies: self.notifies.clone(),
                sockets: self.listeners.of_authority(place, number)?,
                connections: Arc::clone(table),
            });
        }
        let parts = Parts {
            id: WorkerId(number as u16),
            commands: received,
            forwarder,
            authorities,
            counters,
            busy_poll: BusyPoll::new(self.config.busy_poll),
        };
        Ok(Worker { commands, thread: worker::start(parts, self.lost.clone())? })
    }
}

/// What the workers of the LS share, and what each of them gets of the others.
fn share(
    config: &Config,
    connections: &Tables,
    hasher: QuestionHasher,
    health_events: UnboundedSender<HealthEvent>,
    workers: usize,
) -> (Arc<Shared>, Vec<Receiver<HandOver>>) {
    let (hand_over, handed_over) = (0..workers).map(|_| channel(HAND_OVERS)).unzip();
    let may_wait = config.forwarder.as_ref().map_or(0, |forwarder| forwarder.limits.in_flight as usize);
    let engines = engine::Shared {
        single_flight: SingleFlight::new(workers),
        hasher,
        clients: Arc::new(Clients::new(may_wait, rand::random())),
        limited: connections.forwarder.as_ref().map_or_else(|| Arc::new(Limited::new("")), |table| table.limited()),
        shortage: Shortage::new(Instant::now()),
    };
    let shared = Shared {
        engines: Arc::new(engines),
        workers: hand_over,
        on_the_way: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        pacing: Pacing::new(rand::random(), Instant::now()),
        health_events,
    };
    (Arc::new(shared), handed_over)
}

/// Has the workers look at the health of the backends again, and whoever tells other processes of it.
fn refresh(workers: &[Worker], known_changes: Rc<Notify>) -> Rc<dyn Fn()> {
    let commands: Vec<_> = workers.iter().map(|worker| worker.commands.clone()).collect();
    Rc::new(move || {
        known_changes.notify_one();
        commands.iter().for_each(|commands| drop(commands.send(Command::Refresh)));
    })
}

/// Divides the descriptors that the process may open among its parts, and tells the operator.
fn share_descriptors(config: &Config, listeners: &Listeners) -> Shares {
    let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
    let shares = Shares::of(Demand {
        limit: descriptor_limit(),
        workers: listeners.workers(),
        listeners: listeners.descriptors(),
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

/// How many descriptors the process may have open.
fn descriptor_limit() -> usize {
    // No limit at all is told as `None`.
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Requests of the admin server that wait for the control thread. Those beyond wait for a place.
const ADMIN_REQUESTS: usize = 16;
