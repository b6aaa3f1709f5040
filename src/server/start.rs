//! Starts a server: from a checked [`Setup`] to running threads.
//!
//! Everything that can fail does so before the first query is read. [`Listeners::open`] binds the addresses,
//! [`confine`](super::confine) drops privileges, and then [`Server::start`] starts threads, which inherit the
//! reduced privileges.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, getrlimit};
use tokio::sync::mpsc::{channel, unbounded_channel};
use tokio::sync::{Notify, Semaphore};
use tokio::time::interval;

use super::admin_tasks::{AdminTasks, Doors, admin_settings};
use super::authorities::{AuthorityComparison, MemberChanges, RestoredCatalogs, ServedAuthority, ZoneChange};
use super::carried::{CarriedCache, CarriedState};
use super::certificates::CertificateLooks;
use super::connections::ConnectionTables;
use super::cookies::OwnSecret;
use super::listeners::{ListenError, Listeners};
use super::members::{self, Membership};
use super::persist::Saves;
use super::privileges::PrivilegeError;
use super::recent_queries::RecentQueries;
use super::reload::{Read, Reloads};
use super::retired::RetiredPools;
use super::seen::ServerObserver;
use super::slow_threshold::SlowThresholds;
use super::updates::Updates;
use super::watch::Watching;
use super::workers::{WorkerLinks, WorkerStart, Workers};
use super::xdp::{Xdp, XdpError};
use super::{CROWDS, Server, forwarder_cookies, notify, persist, write_to_disk};
use crate::admin::{HealthCondition, SocketError};
use crate::config::{Config, CookieConfig, PoolConfig};
use crate::health::HealthProber;
use crate::limit::{Cookies, OwnAddresses};
use crate::load::{Confinement, Setup};
use crate::metrics::{Counters, CountersSummary};
use crate::net::sys::clock::SleepMeter;
use crate::net::sys::descriptors::{Demand, Shares};
use crate::net::tasks::Tasks;
use crate::net::to_backends::tls::KnownRoots;
use crate::notify::Notifier;
use crate::replicas::{Comparisons, ReplicaLinks, SoaProbes};
use crate::secondary::{SavedZones, Secondaries, ZoneKind, ZoneUpdate};
use crate::state::ForwarderState;
use crate::taps::{Taps, TapsConfig};
use crate::transfer::tsig::TsigKeys;
use crate::wire::HashSeed;
use crate::zone::ZoneDb;

/// An error that prevents the start of a server.
#[derive(Debug)]
pub enum StartError {
    /// A listen address could not be opened.
    Listen(ListenError),
    /// The admin socket could not be bound.
    Socket(SocketError),
    /// The process could not change to the configured user.
    Privileges(PrivilegeError),
    /// An interface of `[xdp]` is not available.
    Xdp(XdpError),
    /// The operating system refused a thread or descriptors.
    Resources(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Socket(error) => error.fmt(f),
            Self::Privileges(error) => error.fmt(f),
            Self::Xdp(error) => error.fmt(f),
            Self::Resources(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ListenError> for StartError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<SocketError> for StartError {
    fn from(error: SocketError) -> Self {
        Self::Socket(error)
    }
}

impl From<XdpError> for StartError {
    fn from(error: XdpError) -> Self {
        Self::Xdp(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Resources(error)
    }
}

impl Server {
    /// Starts to serve on the open listeners. Call [`confine`](super::confine) before, because threads
    /// inherit the privileges of the process. `carried` is the state of a previous process, and `read` reads
    /// the config again. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// If a thread or a descriptor is not available; then nothing runs.
    pub fn start(
        setup: Setup,
        listeners: Listeners,
        xdp: Option<Xdp>,
        confinement: Confinement,
        carried: CarriedState,
        read: Read,
    ) -> Result<Self, StartError> {
        let CarriedState { known, learnt, cache, saved, edition, takes_over } = carried;
        // A predecessor that sends learned state also sends its counters when it stops.
        let uncounted = learnt.is_some().then(Vec::new);
        let Setup { mut config, zone_dbs, keys, cookie_secrets, certificates, certificate_files, token, .. } = setup;
        let Setup { etcd, roots, source, watch, .. } = setup;
        listeners.certificates().set(certificates, SystemTime::now());
        listeners.set_rules(&config);
        let certificate_sections = config.certificates.clone();
        let mut watching = Watching::new(watch);
        watching.set_on(config.watch);
        let (keys, count) = (Arc::new(keys), listeners.workers());
        let shares = share_descriptors(&config, &listeners);
        let own_secret = OwnSecret::new(Instant::now())?;
        let cookies = forwarder_cookies(&config, &own_secret, &cookie_secrets);
        let configured = config.pools.clone();
        let pools = known.changed(&configured);
        let tasks = Tasks::default();
        let own_forwarder: Rc<RefCell<Vec<SocketAddr>>> = Rc::new(RefCell::new(members::own_forwarder(&listeners)));
        let saved_members = known.members.clone().or_else(|| members::read_saved(config.state_dir.as_ref()?));
        let mut membership = Membership::new(&tasks, own_addresses(&own_forwarder));
        membership.set_config(&config, etcd, saved_members.as_ref());
        membership.restore_members(&pools, &configured);
        config.pools = members::with_members(&pools, &membership);
        let sent = match &cache {
            CarriedCache::Sent(cache) => Some(Arc::clone(cache)),
            CarriedCache::Persisted | CarriedCache::Cold => None,
        };
        let certificates =
            CertificateLooks::new(certificate_files, &certificate_sections, Arc::clone(&roots), Instant::now());
        let state = ForwarderState::new(&config, None, sent, cookies, count, Instant::now());
        let state = state.map(|state| Arc::new(state.designating(&config, &listeners.forwarder())));
        let mut recent_queries = RecentQueries::default();
        if let Some(state) = &state {
            certificates.prepare_tls(state);
            known.set_standings(state);
            learnt.iter().for_each(|learnt| learnt.restore(state, &mut recent_queries));
        }
        let (slow, mut slow_thresholds) = (config.slow_threshold(), SlowThresholds::default());
        state.iter().for_each(|state| slow_thresholds.set(slow, state));
        let (hash_seed, hasher) = match &learnt {
            Some(learnt) => (learnt.seed, learnt.seed.carried_hasher()),
            None => {
                let seed = HashSeed(rand::random()).in_force();
                (seed, seed.question_hasher())
            }
        };
        let connections = ConnectionTables::new(&config, shares.connections, Instant::now());
        // At most one of each signal for each backend: see `SharedBackend::is_first`.
        let (health_event_sender, health_events) = unbounded_channel();
        // At most one for each zone and primary: see `authority::PendingNotifies`.
        let (notify_sender, notifies) = unbounded_channel();
        let admin_share = shares.admin;
        let mut taps = Taps::new(count, hasher.clone(), rand::random(), tasks.clone());
        let catching_up_until = takes_over.then(|| Instant::now() + CATCHING_UP);
        let links = WorkerLinks {
            shares,
            hasher,
            health_events: health_event_sender,
            tls: Arc::clone(certificates.tls()),
            notifies: notify_sender,
            catching_up_until,
        };
        let mut workers = Workers::new(count, &config, &connections, links);
        if let (Some(state), Some(engines), CarriedCache::Persisted) = (&state, workers.engines(), &cache) {
            persist::load(state, engines);
        }
        let mut zones = Zones::new(
            &config,
            zone_dbs,
            &keys,
            |config| own_secret.cookies(config, &cookie_secrets),
            &tasks,
            Arc::clone(&roots),
        );
        let changes = zones.take_saved(saved, &tasks);
        let reloads = Reloads::start(read, confinement, edition, Arc::new(config.clone()))?;
        let own = Arc::new(OwnAddresses::new(listeners.for_queries()));
        taps.apply(&TapsConfig::of(&config))?;
        let in_force = WorkerStart {
            config: &config,
            state: state.as_ref(),
            authorities: &zones.authorities,
            connections: &connections,
            listeners: &listeners,
            own: &own,
            taps: taps.set(),
            xdp: None,
        };
        let counters = workers.start(&in_force, learnt.as_ref())?;
        let known_changes: Rc<Notify> = Rc::default();
        let refresh = workers.refresher(Rc::clone(&known_changes));
        let wake = membership.wake();
        let on_change = move || {
            wake.notify_one();
            refresh();
        };
        let mut prober = HealthProber::new(
            tasks.clone(),
            probes_at_a_time(&shares),
            Rc::new(on_change),
            Arc::clone(certificates.tls()),
        );
        // Separate from the prober's places: questions to silent members must not delay the probes that find
        // them down.
        let places = Arc::new(Semaphore::new(replicas_asked_at_a_time(&shares)));
        let links = ReplicaLinks { tasks: tasks.clone(), places, tls: Arc::clone(certificates.tls()) };
        let mut comparisons = Comparisons::new(links.clone());
        let mut soa_probes = SoaProbes::new(links);
        if let Some(state) = &state {
            prober.set_state(state);
            comparisons.set_state(state);
            soa_probes.set_state(state);
        }
        let (asks, requests) = channel(ADMIN_REQUESTS);
        let condition = Arc::new(HealthCondition::default());
        condition.set_ready(true);
        condition.set_pools(state.as_ref().map_or(&[], |state| &state.pools));
        let doors = listeners.admin().map(Doors::new).transpose()?;
        let admin = AdminTasks::start(doors, admin_share, admin_settings(&config, token), asks, Arc::clone(&condition));
        let mut notifier = Notifier::new(tasks.clone());
        changes.into_iter().for_each(|change| notify(&mut notifier, change));
        let drain_delay = config.drain_delay;
        let backend_series = config.admin.as_ref().map(|admin| admin.backend_series);
        let carried_counters: Arc<Counters> = Arc::default();
        let mut server = Self {
            configured,
            config,
            membership,
            own_forwarder,
            source,
            state,
            retired: RetiredPools::default(),
            workers,
            summary: CountersSummary::of(
                counters
                    .into_iter()
                    .chain([&carried_counters].into_iter().chain(taps.counters()).map(Arc::clone))
                    .collect(),
            ),
            taps,
            listeners: Arc::new(listeners),
            xdp,
            pools,
            second: interval(Duration::from_secs(1)),
            crowds: interval(CROWDS),
            backend_series,
            recent_queries,
            slow_thresholds,
            slow,
            saves: Saves::new(Instant::now()),
            sleep: SleepMeter::new(),
            requests,
            condition,
            admin,
            tasks,
            lost_worker: None,
            tasks_lost: 0,
            own,
            processes: None,
            is_restart_due: false,
            reloads,
            certificates,
            watching,
            events: VecDeque::new(),
            drain_delay,
            is_ending: false,
            started: Instant::now(),
            started_at: SystemTime::now(),
            own_secret,
            connections,
            next_authority: zones.authorities.len(),
            authorities: zones.authorities,
            secondaries: zones.secondaries,
            updates: zones.updates,
            notifies,
            notifier,
            prober,
            comparisons,
            soa_probes,
            health_events,
            carried_counters,
            frozen: None,
            uncounted,
            hash_seed,
            known_changes,
            seen: ServerObserver::default(),
        };
        server.obey();
        server.register_authorities(&known.leases);
        server.begin_xdp()?;
        Ok(server)
    }
}

fn own_addresses(own: &Rc<RefCell<Vec<SocketAddr>>>) -> Rc<dyn Fn() -> OwnAddresses> {
    let own = Rc::clone(own);
    Rc::new(move || OwnAddresses::new(own.borrow().iter().copied()))
}

struct Zones {
    authorities: Vec<ServedAuthority>,
    follows: Vec<(usize, MemberChanges)>,
    secondaries: Secondaries,
    updates: Updates,
}

impl Zones {
    fn new(
        config: &Config,
        loaded: Vec<Arc<ZoneDb>>,
        keys: &Arc<TsigKeys>,
        cookies: impl Fn(&CookieConfig) -> Option<Arc<Cookies>>,
        tasks: &Tasks,
        roots: Arc<KnownRoots>,
    ) -> Self {
        let authorities = config.authorities.iter().zip(loaded).enumerate();
        let authorities = authorities.map(|(number, (config, loaded))| {
            let comparison = AuthorityComparison::of(config, &loaded, None);
            let restored = RestoredCatalogs::of(config, &loaded);
            ServedAuthority::new(number, config.clone(), loaded, comparison, keys, cookies(&config.cookies), restored)
        });
        let (authorities, follows): (Vec<_>, Vec<_>) = authorities.unzip();
        let follows = follows.into_iter().enumerate().collect();
        // At most one per ended transfer, and one transfer runs per zone; this thread sends and receives.
        let (sender, updates) = unbounded_channel();
        let secondaries = Secondaries::new(tasks.clone(), sender, roots);
        Self { authorities, follows, secondaries, updates: Updates::new(updates) }
    }

    /// Adds saved zones from primaries, so that the first query can be answered from them. Zones known
    /// already are not read again. Returns all zones with outdated copies.
    fn take_saved(&mut self, saved: SavedZones, tasks: &Tasks) -> Vec<ZoneChange> {
        let zones: Vec<_> = self.authorities.iter().flat_map(ServedAuthority::zones).collect();
        let members: Vec<_> = self.authorities.iter().flat_map(ServedAuthority::members).collect();
        let saved = saved.load_all(zones.iter().chain(&members).cloned());
        let (saved_members, saved): (Vec<_>, Vec<_>) =
            saved.into_iter().partition(|(zone, _)| zone.kind == ZoneKind::Member);
        self.secondaries.set_zones(zones, saved);
        self.secondaries.set_members(members, saved_members);
        let mut changes = Vec::new();
        let mut follows = std::mem::take(&mut self.follows);
        loop {
            // A saved catalog may add or remove zones, which must be reported at once.
            for (number, MemberChanges { gone, set, disk, changes: produced }) in follows.drain(..) {
                self.secondaries.remove_members(number, &gone);
                self.secondaries.set_members(set, Vec::new());
                write_to_disk(disk, tasks);
                changes.extend(produced);
            }
            let updates = self.updates.take_waiting();
            if updates.is_empty() {
                return changes;
            }
            let mut by_authority: HashMap<usize, Vec<ZoneUpdate>> = HashMap::new();
            updates.into_iter().for_each(|update| by_authority.entry(update.authority).or_default().push(update));
            for (number, updates) in by_authority {
                let served = self.authorities.iter_mut().find(|served| served.number() == number);
                let Some(taken) = served.map(|served| served.take(updates)) else { continue };
                changes.extend(taken.changes);
                follows.extend(taken.members.into_iter().map(|member_changes| (number, member_changes)));
            }
        }
    }
}

/// Divides the descriptor limit among the parts of the process, and logs the result.
fn share_descriptors(config: &Config, listeners: &Listeners) -> Shares {
    let discovered = |pool: &PoolConfig| pool.discover.as_ref().map_or(0, |discover| discover.max.min(USUAL_MEMBERS));
    let backends = config.pools.iter().map(|pool| pool.backends.len() + discovered(pool)).sum();
    let shares = Shares::of(Demand {
        limit: descriptor_limit(),
        workers: listeners.workers(),
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

fn replicas_asked_at_a_time(shares: &Shares) -> usize {
    (shares.limit / 32).clamp(1, MAX_REPLICAS_ASKED)
}

/// Returns the limit of concurrent probes. Thousands of members may join while the server runs.
fn probes_at_a_time(shares: &Shares) -> usize {
    shares.probes.max((shares.limit / 16).min(MAX_PROBES))
}

/// The most concurrent probes: enough to probe each of thousands of silent members every few seconds.
const MAX_PROBES: usize = 4096;

const MAX_REPLICAS_ASKED: usize = 512;

fn descriptor_limit() -> usize {
    // `None` means unlimited.
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The assumed size of a pool with no known members. In a larger pool each member has fewer sockets.
const USUAL_MEMBERS: usize = 64;

/// The queue of admin requests. Further requests wait for a place.
const ADMIN_REQUESTS: usize = 16;

/// The time in which a process that takes over answers a backlog beyond `limits.waiting`.
const CATCHING_UP: Duration = Duration::from_secs(1);
