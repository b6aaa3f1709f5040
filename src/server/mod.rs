//! Assembling, reloading, draining: from a checked [`Setup`] to running threads and back.
//!
//! Everything that can fail does so before the first query is taken: zones are loaded, sockets bound, threads started. A
//! reload builds the new state whole and only then hands it to the workers. What it cannot change without losing queries,
//! listeners and the number of workers, it reports, as it does what it undoes of changes by hand, as [`Remark`]s.

mod changes;
mod confinement;
mod connections;
mod cookies;
mod holdings;
mod persist;
mod privileges;
mod remarks;
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
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval, timeout_at};

pub use self::confinement::{Confinement, Files, Outside};
use self::connections::Tables;
use self::cookies::OwnSecret;
pub use self::privileges::find_user;
pub use self::remarks::Remark;

use self::holdings::{Holding, News as ZoneNews};
use self::privileges::PrivilegeError;
use self::worker::{AuthorityParts, Command, ForwarderParts, Parts};
use crate::admin::{self, Change, Refused, Request, Socket, SocketError, Token};
use crate::announcer::Announcer;
use crate::authority::Notice;
use crate::cache::Flush;
use crate::config::{Config, PoolConfig};
use crate::forwarder::claims::{Claims, WorkerId};
use crate::forwarder::shortage::Shortage;
use crate::forwarder::{HAND_OVERS, Shared};
use crate::limit::{Clients, CookieSecrets, Cookies, OwnAddresses, Pacing};
use crate::metrics::{Counters, Limited, Summary};
use crate::net::bind::{self, BindError, Listeners};
use crate::net::clock::SleepMeter;
use crate::net::descriptors::{Demand, Shares};
use crate::net::tasks::{Tasks, panic_of, pass_on};
use crate::net::vigil::Vigil;
use crate::plan::{News, Plan, PoolState};
use crate::probe::Prober;
use crate::secondary::{Keeper, Post};
use crate::transfer::tsig::Keys;
use crate::wire::HashSeed;
use crate::zone::Catalog;

/// A config whose zones are loaded.
#[derive(Debug)]
pub struct Setup {
    /// The config.
    pub config: Config,
    /// For each authority of the config, what it answers from.
    pub catalogs: Vec<Arc<Catalog>>,
    /// The keys of the config, with their secrets.
    pub keys: Keys,
    /// The secrets of cookies that stand in files, by file.
    pub cookie_secrets: HashMap<PathBuf, CookieSecrets>,
    /// What changes by HTTP must bear.
    pub token: Option<Token>,
    /// The files of the config, to which the process confines itself when it has bound what it binds. None if it is not to
    /// give up anything, since it is not a server alone.
    pub files: Option<Files>,
}

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
    /// The plan in force.
    plan: Option<Arc<Plan>>,
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
    admin: JoinSet<io::Result<()>>,
    /// All other tasks of this thread.
    tasks: Tasks,
    /// Which workers have ended, and why.
    lost: UnboundedReceiver<String>,
    /// What the process may reach from now on.
    confinement: Confinement,
    /// When it started.
    started: std::time::Instant,
    /// The secret of cookies of those that have none in a file.
    own_secret: OwnSecret,
    /// The TCP connections of clients.
    connections: Tables,
    /// The authorities that run, by number.
    holdings: Vec<Holding>,
    /// Looks after the zones that come from other servers.
    keeper: Keeper,
    /// What has become of those.
    posts: UnboundedReceiver<Post>,
    /// NOTIFY that workers took.
    notices: UnboundedReceiver<Notice>,
    /// Tells other servers of changes.
    announcer: Announcer,
    /// Probes the backends.
    prober: Prober,
    /// What workers met.
    news: UnboundedReceiver<News>,
    /// The counters of all workers.
    summary: Summary,
}

/// A running worker.
struct Worker {
    /// The way to it.
    commands: UnboundedSender<Command>,
    /// Its thread.
    thread: JoinHandle<bool>,
}

impl Server {
    /// Binds, starts, and takes queries from then on. Must be called within a `LocalSet`.
    ///
    /// # Errors
    /// If an address, a thread or a descriptor cannot be had; then nothing runs.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        let Setup { config, catalogs, keys, cookie_secrets, token, files } = setup;
        let keys = Arc::new(keys);
        let count = worker_count(&config);
        let shares = share_descriptors(&config, count);
        // At most one of each sign for each backend: see `SharedBackend::is_to_be_told`.
        let (news_sender, news) = unbounded_channel();
        let own_secret = OwnSecret::new(std::time::Instant::now())?;
        let cookies = forwarder_cookies(&config, &own_secret, &cookie_secrets);
        let plan = Plan::new(&config, None, cookies, count).map(Arc::new);
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
            news: news_sender,
        });
        if let Some(plan) = &plan {
            persist::load(plan, &shared);
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
            Holding::new(number, config.clone(), catalog, &keys, cookies)
        });
        let (mut holdings, first_news): (Vec<_>, Vec<_>) = held.unzip();
        // As many as transfers have ended, of which there are no more at a time than zones; this thread sends and takes them.
        let (sender, mut posts) = unbounded_channel();
        let tasks = Tasks::default();
        let mut keeper = Keeper::new(tasks.clone(), sender);
        keeper.set_subjects(holdings.iter().flat_map(Holding::subjects).collect());
        // What was saved is answered from with the first query.
        let mut announcements: Vec<ZoneNews> = first_news.into_iter().flatten().collect();
        while let Ok(post) = posts.try_recv() {
            announcements.extend(holdings.get_mut(post.authority).and_then(|holding| holding.take(post)));
        }
        // At most one for each zone and primary: see `authority::Places`.
        let (notice_sender, notices) = unbounded_channel();
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        // From here on nothing is bound, and no thread runs yet: those to come have no more rights than this one.
        let confinement = match files {
            Some(files) => {
                let path = socket.as_ref().map(Socket::path);
                privileges::give_up(config.user.as_ref(), &files, path).map_err(StartError::Privileges)?
            }
            None => Confinement::default(),
        };
        let mut workers = Vec::new();
        // At most one for each worker.
        let (lost_sender, lost) = unbounded_channel();
        // From the last to the first, so that each takes its sockets off the end.
        for number in (0..count).rev() {
            // This thread alone sends, at the pace of operators, probes and transfers, and must not wait for a worker.
            let (commands, received) = unbounded_channel();
            let handed_over = handed_over.pop().expect("there is one for each worker");
            let table = connections.forwarder.clone();
            let forwarder = plan.as_ref().zip(table).map(|(plan, table)| ForwarderParts {
                shared: Arc::clone(&shared),
                plan: Arc::clone(plan),
                own: Arc::clone(&own),
                handed_over,
                sockets: forwarder_sockets.pop().unwrap_or_default(),
                backend_sockets: shares.backend_sockets,
                connections: table,
                fetches: shares.fetches,
            });
            let sites = authority_sockets.iter_mut().zip(&holdings).enumerate();
            let authorities = sites.map(|(number, (sockets, holding))| AuthorityParts {
                number,
                edition: Arc::clone(holding.edition()),
                own: Arc::clone(&own),
                limited: connections.authorities[number].limited(),
                notices: notice_sender.clone(),
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
        if let Some(plan) = &plan {
            prober.set_plan(plan);
        }
        let summary = Summary::of(counters);
        let (asks, requests) = channel(ADMIN_REQUESTS);
        let is_ready = Arc::new(AtomicBool::new(true));
        let mut admin = JoinSet::new();
        if let Some(listener) = admin_listener {
            let is_ready = Arc::clone(&is_ready);
            let is_ready = move || is_ready.load(Relaxed);
            admin.spawn_local(admin::serve(listener, socket, shares.admin, token, asks, is_ready));
        }
        let (configured, pools) = (config.pools.clone(), config.pools.clone());
        let started = std::time::Instant::now();
        let mut announcer = Announcer::new(tasks.clone());
        announcements.into_iter().for_each(|news| announce(&mut announcer, news));
        Ok(Self {
            config,
            plan,
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
            confinement,
            started,
            own_secret,
            connections,
            holdings,
            keeper,
            posts,
            notices,
            announcer,
            prober,
            news,
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

    /// What the process may reach: a reload that names another file would fail half-way.
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Takes care of the running server: probes, the size of hedge buckets, what the admin server asks. Returns when there is
    /// something to do that is not its own to do.
    pub async fn supervise(&mut self) -> Call {
        loop {
            tokio::select! {
                Some(why) = self.lost.recv() => return Call::Lost(why),
                why = self.tasks.lost() => return Call::Lost(format!("the control thread panicked: {why}")),
                Some(ended) = self.admin.join_next() => return Call::Lost(match ended {
                    Ok(Ok(())) => "the admin server has ended".to_owned(),
                    Ok(Err(error)) => format!("the admin server has ended: {error}"),
                    Err(error) => format!("the admin server panicked: {}", panic_of(error).unwrap_or_default()),
                }),
                Some(news) = self.news.recv() => self.prober.hear(&news),
                Some(post) = self.posts.recv() => self.take_post(post),
                Some(notice) = self.notices.recv() => {
                    self.keeper.hear(notice.authority, &notice.zone, notice.primary, notice.take_serial());
                }
                _ = self.second.tick() => self.on_second(),
                Some(request) = self.requests.recv() => match request {
                    Request::Snapshot(answer) => drop(answer.send(self.snapshot())),
                    Request::Cache(answer) => drop(answer.send(self.cache_access())),
                    Request::Change(Change::Reload, answer) => return Call::Reload(answer),
                    Request::Change(change, answer) => drop(answer.send(self.change(change))),
                },
            }
        }
    }

    /// Does what is due each second.
    fn on_second(&mut self) {
        self.own_secret.tick(std::time::Instant::now());
        let slept = self.sleep.take();
        if let Some(plan) = &self.plan {
            self.minutes.count(plan);
            if let Some(cache) = &plan.cache {
                cache.add_sleep(slept);
            }
        }
    }

    /// Puts another config in force, as far as that can be done while running, and returns what an operator may not expect.
    pub fn reload(&mut self, setup: Setup) -> Vec<Remark> {
        let Setup { config, catalogs, keys, cookie_secrets, .. } = setup;
        let mut remarks = remarks::needs_restart(&self.config, &config);
        let cookies = forwarder_cookies(&config, &self.own_secret, &cookie_secrets);
        self.connections.reload(&config);
        if self.plan.is_some()
            && let Some(plan) = Plan::new(&config, self.plan.as_deref(), cookies, self.workers.len()).map(Arc::new)
        {
            remarks.extend(self.is_cache_replaced(&plan).then_some(Remark::CacheEmptied));
            self.set_plan(plan);
            remarks.extend(changes::undone(&self.configured, &self.pools, &config.pools));
            self.configured.clone_from(&config.pools);
            self.pools = config.pools;
        }
        let keys = Arc::new(keys);
        for (config, catalog) in config.authorities.into_iter().zip(catalogs) {
            // One that is gone keeps its zones until the restart, and a new one waits for that.
            let Some(number) = self.holdings.iter().position(|holding| holding.name() == config.name) else { continue };
            let cookies = self.own_secret.cookies(&config.cookies, &cookie_secrets);
            let (news, odd) = self.holdings[number].reload(config, catalog, &keys, cookies);
            remarks.extend(odd);
            self.publish(number);
            news.into_iter().for_each(|news| announce(&mut self.announcer, news));
        }
        self.keeper.set_subjects(self.holdings.iter().flat_map(Holding::subjects).collect());
        remarks
    }

    /// Puts a plan in force everywhere.
    fn set_plan(&mut self, plan: Arc<Plan>) {
        self.prober.set_plan(&plan);
        self.tell(|| Command::SetPlan(Arc::clone(&plan)));
        self.forget_pools(&plan);
        self.plan = Some(plan);
    }

    /// Whether another plan has another cache than the one in force.
    fn is_cache_replaced(&self, plan: &Plan) -> bool {
        let cache = self.plan.as_ref().and_then(|plan| plan.cache.as_ref());
        cache.zip(plan.cache.as_ref()).is_some_and(|(old, new)| !Arc::ptr_eq(old, new))
    }

    /// Takes out of the cache what pools have said that another plan does not have as they are. Nobody would find it there;
    /// but if such a pool came back, it would not be expected to remember.
    fn forget_pools(&self, plan: &Plan) {
        let (Some(earlier), Some(cache)) = (&self.plan, &plan.cache) else { return };
        let stay = plan.cached_pools();
        for pool in earlier.cached_pools().into_iter().filter(|pool| !stay.contains(pool)) {
            let cache = Arc::clone(cache);
            // A large cache takes seconds to go through, in which there are probes to send.
            self.tasks.start_and_leave(async move {
                let answers = tokio::task::spawn_blocking(move || cache.flush(Flush::Pool(pool))).await;
                pass_on(answers.map(|answers| {
                    tracing::info!("cache: {answers} answers of a pool that has changed are gone");
                }));
            });
        }
    }

    /// Takes what has become of a zone of another server.
    fn take_post(&mut self, post: Post) {
        let number = post.authority;
        let Some(holding) = self.holdings.get_mut(number) else { return };
        let news = holding.take(post);
        self.publish(number);
        news.into_iter().for_each(|news| announce(&mut self.announcer, news));
    }

    /// Has all workers answer from what an authority holds now.
    fn publish(&self, number: usize) {
        if let Some(holding) = self.holdings.get(number) {
            self.tell(|| Command::SetEdition(number, Arc::clone(holding.edition())));
        }
    }

    /// Ends: the LS takes no more queries and finishes those in flight, while our own TS go on; then those end too.
    /// Returns whether every query got its response within the longest timeout of a pool.
    pub async fn drain(mut self) -> (Drained, Summary) {
        let timeouts = self.plan.iter().flat_map(|plan| &plan.pools).map(|pool| pool.rules().timeout);
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
            why = self.supervise_to_the_end() => return (Drained::Lost(why), self.summary),
        };
        self.tell(|| Command::Stop);
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        if timeout_at(deadline + DRAIN_MARGIN, joined).await.is_err() {
            drained = Drained::Late;
        }
        if let Ok(why) = self.lost.try_recv() {
            drained = Drained::Lost(why);
        }
        if let Some(plan) = self.plan {
            let _ = tokio::task::spawn_blocking(move || persist::save(&plan)).await;
        }
        // Its socket goes with it.
        self.admin.shutdown().await;
        (drained, self.summary)
    }

    /// Takes care of a server that drains, and is not reloaded any more. Returns what is lost, if something is.
    async fn supervise_to_the_end(&mut self) -> String {
        loop {
            match self.supervise().await {
                Call::Reload(answer) => {
                    let _ = answer.send(Err(Refused::Conflict("the server is ending".to_owned())));
                }
                Call::Lost(why) => return why,
            }
        }
    }

    /// Tells all workers.
    fn tell(&self, command: impl Fn() -> Command) {
        // A worker that is gone has logged why.
        self.workers.iter().for_each(|worker| drop(worker.commands.send(command())));
    }
}

/// What [`Server::supervise`] cannot do itself.
#[derive(Debug)]
pub enum Call {
    /// An operator asks for a reload, and wants to know what came of it.
    Reload(oneshot::Sender<Result<String, Refused>>),
    /// Something has ended that should not have, for this reason. What it did is not done any more: some clients get no answer.
    Lost(String),
}

/// How a drain has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every query got its response.
    Whole,
    /// Some did not in time.
    Late,
    /// Something has ended before, for this reason.
    Lost(String),
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
    fn count(&mut self, plan: &Plan) {
        self.0.retain(|(known, _)| plan.pools.iter().any(|pool| Arc::ptr_eq(&pool.state, known)));
        for pool in &plan.pools {
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
fn announce(announcer: &mut Announcer, news: ZoneNews) {
    announcer.announce(news.authority, &news.zone, &news.sharing, news.key);
}

/// Requests of the admin server that wait for the control thread. Those beyond wait for a place.
const ADMIN_REQUESTS: usize = 16;

/// What a drain may take beyond the longest timeout of a pool.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);
