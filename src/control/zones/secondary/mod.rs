//! Secondary zones: keeps zones from other servers up to date, on the control thread (like NSD's xfrd).
//!
//! Each zone has a task. It asks [`transfer::Secondary`](Secondary) for the next step, does it (`client.rs`),
//! makes a zone from the result (`version.rs`), saves it (`saved.rs`), and sends it as a [`ZoneUpdate`] to
//! the workers. Heavy work runs on other threads. Before the first version and after expiry the zone is an
//! unserved one. [`SavedZones`] loads the zones of an earlier process.
//!
//! Zones that catalogs list (RFC 9432) take turns (`turns.rs`). `server` selects them, and `members.rs` saves
//! them.

mod client;
pub mod members;
mod saved;
mod turns;
mod version;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{PrimaryConfig, SecondaryConfig};
use dns::Name;
use net::sys::clock::SleepMeter;
use net::tasks::{Task, TaskKind, Tasks, blocking};
use net::to_backends::server_client::ConnectError;
use net::to_backends::tls::{ClientTls, KnownRoots, TrustRules};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep_until, timeout};
use zone::Zone;
use zone::transfer::catalog::{Catalog, CatalogFault};
use zone::transfer::tsig::TsigKey;
use zone::transfer::{Difference, Secondary, SecondaryStep, SecondaryVersion, Serial, Soa, TransferError, ZoneService};

use self::client::Primary;
pub use self::saved::{SavedZone, SavedZones, load_zone, save as save_zone};
use self::turns::{Complaint, Complaints, SecondaryTurn, SecondaryTurns};
use self::version::FetchedZone;

/// A new state of a zone.
#[derive(Debug)]
pub struct ZoneUpdate {
    /// The number of its authority.
    pub authority: usize,
    /// The zone to answer from; unserved if there is no data.
    pub zone: Arc<Zone>,
    /// Bytes of its records, as [`Records::size`](zone::transfer::Records::size) counts.
    pub size: usize,
    /// The differences from the previous version; empty if unknown or not needed.
    pub steps: Vec<Difference>,
    /// True if the zone is unserved because it has expired.
    pub is_expired: bool,
    /// The new content as a catalog, if the zone is one.
    pub catalog: Option<Result<Catalog, CatalogFault>>,
}

/// The tasks of all secondary zones.
pub struct Secondaries {
    zones: HashMap<(usize, Name), SecondaryTask>,
    updates: UnboundedSender<ZoneUpdate>,
    tasks: Tasks,
    turns: MemberTurns,
    roots: Rc<RefCell<Arc<KnownRoots>>>,
}

/// The turns of all member zones of catalogs. There may be thousands, and each query takes a socket, a
/// transfer memory as well.
#[derive(Clone)]
struct MemberTurns {
    asks: SecondaryTurns,
    transfers: SecondaryTurns,
    complaints: Complaints,
}

struct SecondaryTask {
    secondary: Rc<SecondaryZone>,
    hints: Rc<Hints>,
    last: Rc<RefCell<Option<SavedZone>>>,
    _task: Task,
}

/// A zone and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryZone {
    /// The number of its authority.
    pub authority: usize,
    /// The config of the zone.
    pub config: Arc<SecondaryConfig>,
    /// The key that signs queries.
    pub key: Option<TsigKey>,
    /// The origin and the use of the zone.
    pub kind: ZoneKind,
}

/// The origin and the use of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneKind {
    /// The zone is in the config.
    Configured,
    /// The zone is in the config, and is a catalog.
    Catalog,
    /// A catalog lists the zone.
    Member,
}

/// Hints of primaries at new versions: one for each primary, so a flood takes no memory.
#[derive(Default)]
struct Hints {
    waiting: RefCell<Vec<Hint>>,
    wake: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hint {
    primary: usize,
    /// The version, unless several were announced.
    serial: Option<Serial>,
}

impl Hints {
    /// Adds a hint. If one primary has announced two versions, one may be forged: then the version is
    /// unknown.
    fn add(&self, hint: Hint) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|known| known.primary == hint.primary) {
            Some(known) if known.serial == hint.serial => {}
            Some(known) => known.serial = None,
            None => waiting.push(hint),
        }
        self.wake.notify_one();
    }

    async fn next(&self) -> Vec<Hint> {
        self.wake.notified().await;
        self.waiting.take()
    }
}

impl Secondaries {
    /// Makes a value without zones. Must be used within a `LocalRuntime`.
    pub fn new(tasks: Tasks, updates: UnboundedSender<ZoneUpdate>, roots: Arc<KnownRoots>) -> Self {
        let turns = MemberTurns {
            asks: SecondaryTurns::new(MEMBER_ASKS),
            transfers: SecondaryTurns::new(MEMBER_TRANSFERS),
            complaints: Complaints::default(),
        };
        Self { zones: HashMap::new(), updates, tasks, turns, roots: Rc::new(RefCell::new(roots)) }
    }

    /// Replaces the trust anchors for TLS primaries.
    pub fn trust(&self, roots: Arc<KnownRoots>) {
        self.roots.replace(roots);
    }

    /// Sets the zones of the config, like [`set_members`](Self::set_members), and removes all others but
    /// members.
    pub fn set_zones(&mut self, zones: Vec<SecondaryZone>, saved: &mut HashMap<PathBuf, SavedZone>) {
        let places: HashSet<_> = zones.iter().map(place_of).collect();
        self.zones.retain(|place, task| task.secondary.kind == ZoneKind::Member || places.contains(place));
        self.set_members(zones, saved);
    }

    /// Adds member zones of catalogs. An unchanged zone keeps its task. A changed one keeps its version,
    /// unless its file has changed, which makes it another zone. For a new zone, the data of its file in
    /// `saved` is sent before this returns.
    pub fn set_members(&mut self, zones: Vec<SecondaryZone>, saved: &mut HashMap<PathBuf, SavedZone>) {
        for zone in zones {
            let place = place_of(&zone);
            if self.zones.get(&place).is_some_and(|task| *task.secondary == zone) {
                continue;
            }
            let earlier = self.zones.remove(&place).filter(|task| task.secondary.config.file == zone.config.file);
            let last = earlier.and_then(|task| task.last.borrow().clone());
            let last = last.or_else(|| saved.remove(&zone.config.file));
            self.zones.insert(place, self.start(zone, last));
        }
    }

    /// Removes member zones of an authority.
    pub fn remove_members<'a>(&mut self, authority: usize, zones: impl IntoIterator<Item = &'a Name>) {
        for zone in zones {
            let place = (authority, zone.clone());
            if self.zones.get(&place).is_some_and(|task| task.secondary.kind == ZoneKind::Member) {
                self.zones.remove(&place);
            }
        }
    }

    /// Removes all zones of an authority.
    pub fn forget(&mut self, authority: usize) {
        self.zones.retain(|(of, _), _| *of != authority);
    }

    /// Passes on a NOTIFY: the primary of this index may have a new version of the zone.
    pub fn on_notify(&self, authority: usize, zone: &Name, primary: usize, serial: Option<Serial>) {
        if let Some(task) = self.zones.get(&(authority, zone.clone())) {
            task.hints.add(Hint { primary, serial });
        }
    }

    fn start(&self, secondary: SecondaryZone, saved: Option<SavedZone>) -> SecondaryTask {
        let hints: Rc<Hints> = Rc::default();
        let secondary = Rc::new(secondary);
        let mut zone_task = ZoneTask::begin(Rc::clone(&secondary), saved, self);
        let last = Rc::clone(&zone_task.last);
        let now = zone_task.now();
        zone_task.report_service(now);
        let task = self.tasks.start(TaskKind::Secondary, zone_task.run(Rc::clone(&hints)));
        SecondaryTask { secondary, hints, last, _task: task }
    }
}

fn place_of(secondary: &SecondaryZone) -> (usize, Name) {
    (secondary.authority, secondary.config.zone.clone())
}

struct ZoneTask {
    secondary: Rc<SecondaryZone>,
    machine: Secondary,
    last: Rc<RefCell<Option<SavedZone>>>,
    /// The catalog content that is not sent yet.
    catalog: Option<Result<Catalog, CatalogFault>>,
    turn: ZoneTurn,
    roots: Rc<RefCell<Arc<KnownRoots>>>,
    service: Option<ZoneService>,
    updates: UnboundedSender<ZoneUpdate>,
    tasks: Tasks,
    rng: SmallRng,
    clock: ZoneClock,
}

/// The turns of one zone.
struct ZoneTurn {
    /// `None` if the zone does not wait for others.
    turns: Option<MemberTurns>,
    is_waiting: Rc<Cell<bool>>,
    heard: Rc<Notify>,
    /// True if the current query follows a hint.
    is_urgent: bool,
}

/// The clock of a zone, which also counts time asleep: the zone ages then as well (RFC 1034 section 4.3.5).
struct ZoneClock {
    sleep: SleepMeter,
    asleep: Duration,
}

impl ZoneTurn {
    /// Waits for a turn of the kind that is selected.
    fn wait(&self, kind: fn(&MemberTurns) -> &SecondaryTurns) -> impl Future<Output = Option<SecondaryTurn>> + use<> {
        let (turns, is_urgent) = (self.turns.as_ref().map(kind).cloned(), self.is_urgent);
        let (is_waiting, heard) = (Rc::clone(&self.is_waiting), Rc::clone(&self.heard));
        is_waiting.set(turns.is_some());
        async move {
            let turn = match &turns {
                Some(turns) => Some(turns.take(is_urgent, &heard).await),
                None => None,
            };
            is_waiting.set(false);
            turn
        }
    }
}

enum PrimaryAnswer {
    Soa(Serial),
    UpToDate,
    Fetched(FetchedZone),
}

type PrimaryQuery = Pin<Box<dyn Future<Output = Result<PrimaryAnswer, PrimaryError>>>>;

impl ZoneTask {
    /// Begins with the zone of an earlier run, if it is still usable.
    fn begin(secondary: Rc<SecondaryZone>, saved: Option<SavedZone>, around: &Secondaries) -> Self {
        let (now, config) = (Instant::now(), &secondary.config);
        let primaries = config.primaries.len();
        let saved = saved.and_then(|saved| Some((version_of(&saved.zone)?, saved)));
        let machine = match &saved {
            Some((version, saved)) => {
                let (zone, serial, file) = (&config.zone, version.serial.0, config.file.display());
                match secondary.kind {
                    ZoneKind::Configured | ZoneKind::Catalog => {
                        tracing::info!(%zone, serial, %file, "loaded from its file");
                    }
                    // At debug level, because there may be thousands.
                    ZoneKind::Member => tracing::debug!(%zone, serial, %file, "loaded from its file"),
                }
                Secondary::from_saved(primaries, *version, saved.age(), now)
            }
            None => Secondary::new(primaries, now),
        };
        let saved = saved.map(|(_, saved)| saved);
        let catalog = saved.as_ref().and_then(|saved| catalog_of(secondary.kind, &saved.zone));
        let turns = (secondary.kind == ZoneKind::Member).then(|| around.turns.clone());
        Self {
            secondary,
            machine,
            last: Rc::new(RefCell::new(saved)),
            catalog,
            turn: ZoneTurn { turns, is_waiting: Rc::default(), heard: Rc::default(), is_urgent: false },
            roots: Rc::clone(&around.roots),
            service: None,
            updates: around.updates.clone(),
            tasks: around.tasks.clone(),
            rng: SmallRng::from_rng(&mut rand::rng()),
            clock: ZoneClock { sleep: SleepMeter::new(), asleep: Duration::ZERO },
        }
    }

    /// The time for the machine, which includes time asleep.
    fn now(&mut self) -> Instant {
        self.clock.asleep += self.clock.sleep.take();
        Instant::now() + self.clock.asleep
    }

    async fn run(mut self, hints: Rc<Hints>) {
        let mut query: Option<(usize, PrimaryQuery)> = None;
        let progress = Rc::new(Cell::new(false));
        loop {
            let now = self.now();
            if progress.take() {
                self.machine.on_progress(now);
            }
            if self.turn.is_waiting.get() {
                self.machine.on_waiting(now);
            }
            self.report_service(now);
            let until = match self.machine.next_step(now, &mut self.rng) {
                SecondaryStep::AskSoa { primary } => {
                    query = Some((primary, self.ask_soa(primary)));
                    continue;
                }
                SecondaryStep::Transfer { primary, incremental } => {
                    query = Some((primary, self.transfer(primary, incremental, &progress)));
                    continue;
                }
                // A wait for a turn still wakes up to check for progress and expiry.
                SecondaryStep::WaitUntil(at) if self.turn.is_waiting.get() => at.min(now + WAITING_GLANCE),
                SecondaryStep::WaitUntil(at) if query.is_some() => at.min(now + GLANCE),
                // Timers do not run while the machine sleeps.
                SecondaryStep::WaitUntil(at) => at.min(now + MAX_WAIT),
            };
            tokio::select! {
                (primary, outcome) = finished(&mut query) => {
                    query = None;
                    self.turn.is_waiting.set(false);
                    self.take(primary, outcome);
                }
                hints = hints.next() => {
                    hints.iter().for_each(|hint| self.machine.on_notify(hint.primary, hint.serial, now));
                    self.turn.is_urgent = true;
                    if self.turn.is_waiting.get() {
                        self.turn.heard.notify_one();
                    }
                }
                () = sleep_until(tokio::time::Instant::now() + until.saturating_duration_since(now)) => {}
            }
        }
    }

    fn primary(&self, index: usize) -> Primary {
        let SecondaryZone { config, key, .. } = &*self.secondary;
        let primary = config.primaries.get(index).or_else(|| config.primaries.first());
        let primary = primary.expect("the config holds no secondary without a primary");
        let PrimaryConfig { address, trust } = primary;
        let is_encrypted = address.scheme.is_encrypted();
        // RFC 9103 section 7.2.
        let rules = || TrustRules { needs_tls_1_3: true, ..self.roots.borrow().rules(*address, trust) };
        let tls = is_encrypted.then(|| ClientTls::new(&rules()));
        Primary { address: *address, tls, zone: config.zone.clone(), key: key.clone() }
    }

    fn ask_soa(&self, primary: usize) -> PrimaryQuery {
        let primary = self.primary(primary);
        let turn = self.turn.wait(|turns| &turns.asks);
        Box::pin(async move {
            let _turn = turn.await;
            primary.ask_serial().await.map(PrimaryAnswer::Soa)
        })
    }

    fn transfer(&self, primary: usize, incremental: bool, progress: &Rc<Cell<bool>>) -> PrimaryQuery {
        let primary = self.primary(primary);
        let progress = Rc::clone(progress);
        let old = self.last.borrow().as_ref().map(|last| Arc::clone(&last.zone));
        let SecondaryConfig { max_size, sharing, file, .. } = &*self.secondary.config;
        let kind = self.secondary.kind;
        let turn = self.turn.wait(|turns| &turns.transfers);
        let (limit, is_shared, file) = (*max_size, !sharing.transfer_to.is_empty(), file.clone());
        Box::pin(async move {
            let _turn = turn.await;
            let known = old.clone().filter(|_| incremental);
            let received = primary.transfer(known.as_deref(), limit, || progress.set(true)).await?;
            let zone = primary.zone.clone();
            let mut loaded = pin!(blocking(move || {
                let mut loaded = version::load(&zone, received, old.as_deref(), is_shared)?;
                if let Some(fetched) = &mut loaded {
                    fetched.catalog = catalog_of(kind, &fetched.zone);
                }
                if let Some(fetched) = &loaded
                    && let Err(error) = saved::save(&file, &fetched.zone)
                {
                    // The zone is served anyway: only a restart would need a primary.
                    tracing::warn!(%zone, file = %file.display(), %error, "cannot be saved");
                }
                Ok::<_, PrimaryError>(loaded)
            }));
            let loaded = loop {
                // Loading and saving may take longer than a primary's timeout, and are not its fault.
                match timeout(GLANCE, &mut loaded).await {
                    Ok(loaded) => break loaded,
                    Err(_) => progress.set(true),
                }
            };
            Ok(loaded?.map_or(PrimaryAnswer::UpToDate, PrimaryAnswer::Fetched))
        })
    }

    fn take(&mut self, primary: usize, outcome: Result<PrimaryAnswer, PrimaryError>) {
        let now = self.now();
        let SecondaryConfig { zone: name, primaries, .. } = &*self.secondary.config;
        let primary = primaries.get(primary).map(ToString::to_string).unwrap_or_default();
        match outcome {
            Ok(PrimaryAnswer::Soa(serial)) => {
                match self.machine.version().map(|version| version.serial) {
                    Some(ours) if ours == serial => self.confirm_saved(),
                    Some(ours) if !serial.is_newer_than(ours) => {
                        let (serial, ours) = (serial.0, ours.0);
                        tracing::warn!(zone = %name, %primary, serial, ours, "the primary has an older serial than the local zone");
                    }
                    Some(_) | None => {}
                }
                self.machine.on_soa(serial, now, &mut self.rng);
            }
            Ok(PrimaryAnswer::UpToDate) => {
                self.confirm_saved();
                self.machine.on_up_to_date(now, &mut self.rng);
            }
            Err(error) => {
                let complaint = self.turn.turns.as_ref().map_or(Complaint::Logged, |turns| turns.complaints.add(now));
                match complaint {
                    Complaint::Logged => {
                        tracing::warn!(zone = %name, %primary, %error, "the transfer from the primary failed")
                    }
                    Complaint::FirstLeftOut => tracing::warn!(
                        "transfers of more catalog zones fail: for one minute they are logged only at level debug"
                    ),
                    Complaint::LeftOut => {
                        tracing::debug!(zone = %name, %primary, %error, "the transfer from the primary failed")
                    }
                }
                self.turn.is_urgent = false;
                self.machine.on_failure(now, &mut self.rng);
            }
            Ok(PrimaryAnswer::Fetched(FetchedZone { zone, size, steps, is_whole, catalog })) => {
                let Some(version) = version_of(&zone) else { return };
                let how = if is_whole { "AXFR" } else { "IXFR" };
                tracing::info!(zone = %name, serial = version.serial.0, %primary, how, "transferred");
                self.machine.on_transferred(version, now, &mut self.rng);
                self.service = Some(ZoneService::Served);
                self.turn.is_urgent = false;
                self.catalog = None;
                self.last.replace(Some(SavedZone::confirmed(Arc::clone(&zone), size)));
                let _ = self.updates.send(ZoneUpdate {
                    authority: self.secondary.authority,
                    zone,
                    size,
                    steps,
                    is_expired: false,
                    catalog,
                });
            }
        }
    }

    /// Sends the zone, or an unserved one, if that has changed.
    fn report_service(&mut self, now: Instant) {
        let (service, apex) = (self.machine.service(now), &self.secondary.config.zone);
        if self.service.replace(service) == Some(service) {
            return;
        }
        if service == ZoneService::Expired {
            tracing::warn!(zone = %apex, "the zone has expired: no primary has confirmed it in time, so queries get SERVFAIL");
        }
        let catalog = self.catalog.take();
        let (zone, size) = match (service, &*self.last.borrow()) {
            (ZoneService::Served, Some(last)) => (Arc::clone(&last.zone), last.size),
            (ZoneService::Served | ZoneService::Absent | ZoneService::Expired, _) => {
                (Arc::new(Zone::unserved(apex)), 0)
            }
        };
        let _ = self.updates.send(ZoneUpdate {
            authority: self.secondary.authority,
            zone,
            size,
            steps: Vec::new(),
            is_expired: service == ZoneService::Expired,
            catalog,
        });
    }

    /// Notes in the file that a primary has just confirmed its version.
    fn confirm_saved(&mut self) {
        self.turn.is_urgent = false;
        if let Some(last) = &mut *self.last.borrow_mut() {
            *last = SavedZone::confirmed(Arc::clone(&last.zone), last.size);
        }
        let (file, zone) = (self.secondary.config.file.clone(), self.secondary.config.zone.clone());
        let confirm = move || {
            if let Err(error) = saved::confirm(&file) {
                tracing::warn!(%zone, file = %file.display(), %error, "the file of the zone cannot be marked as up to date");
            }
        };
        self.tasks.start_and_leave(TaskKind::Secondary, blocking(confirm));
    }
}

async fn finished(query: &mut Option<(usize, PrimaryQuery)>) -> (usize, Result<PrimaryAnswer, PrimaryError>) {
    match query {
        Some((primary, query)) => (*primary, query.await),
        None => std::future::pending().await,
    }
}

fn catalog_of(kind: ZoneKind, zone: &Zone) -> Option<Result<Catalog, CatalogFault>> {
    (kind == ZoneKind::Catalog).then(|| Catalog::read(zone.apex(), zone.iter()))
}

fn version_of(zone: &Zone) -> Option<SecondaryVersion> {
    let soa = zone.soa()?;
    Soa::of(&soa).map(|soa| SecondaryVersion::of(&soa))
}

/// The reason why a query to a primary failed.
#[derive(Debug, Error)]
pub(crate) enum PrimaryError {
    /// The primary cannot be reached, or the connection broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The primary has not proved its identity.
    #[error("{0}")]
    Untrusted(String),
    #[error("no reply")]
    Silent,
    /// The reply has no SOA: the primary does not have the zone, or refuses this client.
    #[error("no SOA record in its reply, which is {0}")]
    NoSerial(dns::Rcode),
    /// The reply is not signed correctly.
    #[error("its reply is not to be trusted: {0}")]
    Unsigned(zone::transfer::tsig::TsigFailure),
    #[error("{0}")]
    Transfer(#[from] TransferError),
    /// The transferred records are not a valid zone.
    #[error("the transferred data is not a valid zone: {0}")]
    Flawed(String),
    /// The differences are not from the present version.
    #[error("differences from another version: {0}")]
    Inexact(zone::transfer::Inexact),
}

impl From<ConnectError> for PrimaryError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => Self::Io(error),
            ConnectError::Untrusted(problem) => Self::Untrusted(problem),
        }
    }
}

const GLANCE: Duration = Duration::from_secs(1);

/// The interval during a wait for a turn: well within a primary's timeout.
const WAITING_GLANCE: Duration = Duration::from_secs(5);

/// Member zones that ask for SOA records at a time.
const MEMBER_ASKS: usize = 32;

const MEMBER_TRANSFERS: usize = 8;

/// The longest timer, so that a machine that wakes up soon detects an expired zone.
const MAX_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_forged_hint_does_not_hide_a_true_one() {
        let hints = Hints::default();
        let hint = |primary, serial| Hint { primary, serial: Some(Serial(serial)) };
        for serial in [5, 5, 5] {
            hints.add(hint(0, serial));
        }
        hints.add(hint(1, 7));
        assert_eq!(hints.next().await, [hint(0, 5), hint(1, 7)]);
        hints.add(hint(0, 5));
        hints.add(hint(0, 8));
        hints.add(hint(0, 5));
        assert_eq!(hints.next().await, [Hint { primary: 0, serial: None }]);
    }
}
