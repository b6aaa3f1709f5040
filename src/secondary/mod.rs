//! Secondary zones: keeps the zones that come from other servers up to date, on the control thread (what NSD calls xfrd).
//!
//! Each zone has a task that asks [`transfer::Secondary`](Secondary) what to do, does it (`client.rs`), makes a zone of what
//! came (`version.rs`), saves it (`saved.rs`), and hands it over as a [`ZoneUpdate`]. What of that takes the processor for long
//! happens on a thread of its own. A zone that is handed over is what workers answer from; until the first one, and when the
//! last one has expired, that is an unserved zone. What an earlier process has saved is loaded by whoever has time for that
//! ([`SavedZones`]).
//!
//! Zones that catalogs list (RFC 9432) are looked after in the same way, a few at a time (`turns.rs`); which ones, `server` says, and
//! `members.rs` remembers.

mod client;
pub mod members;
mod saved;
mod turns;
mod version;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{sleep_until, timeout};

use self::client::Primary;
pub use self::saved::{Saved, SavedZones, load_zone, save as save_zone};
use self::turns::{Complaint, Complaints, Turn, Turns};
use self::version::Fetched;
use crate::config::{PrimaryConfig, SecondaryConfig, TrustConfig};
use crate::net::client::ConnectError;
use crate::net::clock::SleepMeter;
use crate::net::tasks::{Task, TaskKind, Tasks, blocking};
use crate::net::tls::{ClientTls, KnownRoots};
use crate::transfer::catalog::{Broken, Catalog};
use crate::transfer::tsig::Key;
use crate::transfer::{Difference, Secondary, SecondaryStep, Serial, Service, Soa, TransferError, Version};
use crate::wire::Name;
use crate::zone::Zone;

/// What has become of a zone.
#[derive(Debug)]
pub struct ZoneUpdate {
    /// The number of its authority.
    pub authority: usize,
    /// What is to be answered from; unserved if there is nothing.
    pub zone: Arc<Zone>,
    /// Octets of its records, as [`Records::size`](crate::transfer::Records::size) counts.
    pub size: usize,
    /// How it came to be, from the version before; empty if that is not known, or of no use to anybody.
    pub steps: Vec<Difference>,
    /// Whether there is nothing to answer from since it has expired.
    pub is_expired: bool,
    /// What it says as a catalog, if it is one and there is something new.
    pub catalog: Option<Result<Catalog, Broken>>,
}

/// Looks after all secondary zones.
pub struct Secondaries {
    /// One for each zone, by authority and name.
    watches: HashMap<(usize, Name), Watch>,
    /// Where zones go.
    updates: UnboundedSender<ZoneUpdate>,
    /// The tasks of this thread.
    tasks: Tasks,
    /// Turns of zones that catalogs list.
    turns: MemberTurns,
    /// By what primaries are judged that have to prove who they are.
    roots: Rc<RefCell<Arc<KnownRoots>>>,
}

/// The turns of all zones that catalogs list. There may be thousands, and each look takes a socket, a transfer memory as well.
#[derive(Clone)]
struct MemberTurns {
    asks: Turns,
    transfers: Turns,
    complaints: Complaints,
}

/// The task of one zone.
struct Watch {
    /// What it looks after.
    secondary: Rc<SecondaryZone>,
    /// Hints of primaries.
    hints: Rc<Hints>,
    /// The last version, and when it was confirmed.
    last: Rc<RefCell<Option<Saved>>>,
    /// Ends with this value.
    _task: Task,
}

/// A zone, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryZone {
    /// The number of its authority.
    pub authority: usize,
    /// The zone.
    pub config: Arc<SecondaryConfig>,
    /// Signs what is asked.
    pub key: Option<Key>,
    /// By whose word it is had, and what for.
    pub kind: ZoneKind,
}

/// By whose word a zone is had, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneKind {
    /// The config has it.
    Configured,
    /// The same, and it is a catalog.
    Catalog,
    /// A catalog lists it.
    Member,
}

/// What primaries have said of other versions: one hint for each, so a flood takes no room.
#[derive(Default)]
struct Hints {
    /// Those that wait.
    waiting: RefCell<Vec<Hint>>,
    /// Wakes the zone's task.
    wake: Notify,
}

/// A primary has said that there is another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hint {
    primary: usize,
    /// Which version, if it said only one.
    serial: Option<Serial>,
}

impl Hints {
    /// Adds one. Of two versions that one primary is said to have, one may be forged: then only the primary can tell.
    fn add(&self, hint: Hint) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|known| known.primary == hint.primary) {
            Some(known) if known.serial == hint.serial => {}
            Some(known) => known.serial = None,
            None => waiting.push(hint),
        }
        self.wake.notify_one();
    }

    /// Waits for hints, and takes them.
    async fn next(&self) -> Vec<Hint> {
        self.wake.notified().await;
        self.waiting.take()
    }
}

impl Secondaries {
    /// Looks after no zone yet; its tasks are among these, and by these certificates primaries are judged. Must be used within a
    /// `LocalSet`.
    pub fn new(tasks: Tasks, updates: UnboundedSender<ZoneUpdate>, roots: Arc<KnownRoots>) -> Self {
        let turns = MemberTurns {
            asks: Turns::new(MEMBER_ASKS),
            transfers: Turns::new(MEMBER_TRANSFERS),
            complaints: Complaints::default(),
        };
        Self { watches: HashMap::new(), updates, tasks, turns, roots: Rc::new(RefCell::new(roots)) }
    }

    /// Judges primaries by these certificates from now on.
    pub fn trust(&self, roots: Arc<KnownRoots>) {
        self.roots.replace(roots);
    }

    /// Looks after these zones of the config and no others of it. Those that have not changed go on as if nothing had happened; for
    /// the others, what was saved is handed over before this returns, if it is among these.
    pub fn set_zones(&mut self, zones: Vec<SecondaryZone>, saved: Vec<(SecondaryZone, Saved)>) {
        let mut saved: HashMap<_, _> = saved.into_iter().map(|(of, saved)| (place_of(&of), (of, saved))).collect();
        let (members, mut earlier): (HashMap<_, _>, HashMap<_, _>) =
            self.watches.drain().partition(|(_, watch)| watch.secondary.kind == ZoneKind::Member);
        self.watches = members;
        for secondary in zones {
            let place = place_of(&secondary);
            let watch = match earlier.remove(&place).filter(|watch| *watch.secondary == secondary) {
                Some(watch) => watch,
                None => {
                    let found = saved.remove(&place).filter(|(of, _)| *of == secondary);
                    self.watch(secondary, found.map(|(_, saved)| saved))
                }
            };
            self.watches.insert(place, watch);
        }
    }

    /// Looks after these zones that catalogs list, too. One that was there goes on with the version that it has, unless it has
    /// another file, by which it is another zone. For one that was not there, what was saved is handed over before this returns.
    pub fn set_members(
        &mut self,
        members: impl IntoIterator<Item = SecondaryZone>,
        saved: Vec<(SecondaryZone, Saved)>,
    ) {
        let mut saved: HashMap<_, _> = saved.into_iter().map(|(of, saved)| (place_of(&of), (of, saved))).collect();
        for member in members {
            let place = place_of(&member);
            let earlier = match self.watches.remove(&place) {
                Some(watch) if *watch.secondary == member => {
                    self.watches.insert(place, watch);
                    continue;
                }
                earlier => earlier,
            };
            let last = earlier.filter(|watch| watch.secondary.config.file == member.config.file);
            let last = last.and_then(|watch| watch.last.borrow().clone());
            let found =
                last.or_else(|| Some(saved.remove(&place).filter(|(of, _)| of.config.file == member.config.file)?.1));
            let watch = self.watch(member, found);
            self.watches.insert(place, watch);
        }
    }

    /// Looks no more after zones of an authority that catalogs have listed.
    pub fn remove_members<'a>(&mut self, authority: usize, zones: impl IntoIterator<Item = &'a Name>) {
        for zone in zones {
            let place = (authority, zone.clone());
            if self.watches.get(&place).is_some_and(|watch| watch.secondary.kind == ZoneKind::Member) {
                self.watches.remove(&place);
            }
        }
    }

    /// Looks no more after anything of an authority that has ended.
    pub fn forget(&mut self, authority: usize) {
        self.watches.retain(|(of, _), _| *of != authority);
    }

    /// Passes a NOTIFY on: the primary of this index may have that version of a zone.
    pub fn on_notify(&self, authority: usize, zone: &Name, primary: usize, serial: Option<Serial>) {
        if let Some(watch) = self.watches.get(&(authority, zone.clone())) {
            watch.hints.add(Hint { primary, serial });
        }
    }

    /// Starts the task of a zone.
    fn watch(&self, secondary: SecondaryZone, saved: Option<Saved>) -> Watch {
        let hints: Rc<Hints> = Rc::default();
        let secondary = Rc::new(secondary);
        let mut zone_task = ZoneTask::begin(Rc::clone(&secondary), saved, self);
        let last = Rc::clone(&zone_task.last);
        let now = zone_task.now();
        zone_task.tell_service(now);
        let task = self.tasks.start(TaskKind::Secondary, zone_task.run(Rc::clone(&hints)));
        Watch { secondary, hints, last, _task: task }
    }
}

/// Where a zone is among all.
fn place_of(secondary: &SecondaryZone) -> (usize, Name) {
    (secondary.authority, secondary.config.zone.clone())
}

/// One zone's life.
struct ZoneTask {
    secondary: Rc<SecondaryZone>,
    /// When to do what.
    machine: Secondary,
    /// The version that we have, and when it was confirmed.
    last: Rc<RefCell<Option<Saved>>>,
    /// What that says as a catalog, until it is told.
    catalog: Option<Result<Catalog, Broken>>,
    /// The turns that it has to wait for, if it has to.
    turns: Option<MemberTurns>,
    /// By what primaries are judged that have to prove who they are.
    roots: Rc<RefCell<Arc<KnownRoots>>>,
    /// Whether it waits for one.
    is_waiting: Rc<Cell<bool>>,
    /// Told when a primary is heard meanwhile.
    heard: Rc<Notify>,
    /// Whether the look that is under way follows a hint.
    is_urgent: bool,
    /// Whether that is answered from, as far as others know; nobody does before the first update.
    service: Option<Service>,
    /// Where zones go.
    updates: UnboundedSender<ZoneUpdate>,
    /// The tasks of this thread.
    tasks: Tasks,
    /// Spreads looks in time.
    rng: SmallRng,
    /// Counts time asleep, in which a zone expires as well (RFC 1034 section 4.3.5).
    sleep: SleepMeter,
    /// How much that was in all.
    asleep: Duration,
}

/// What came of asking a primary.
enum PrimaryAnswer {
    /// It has this version.
    Soa(Serial),
    /// It has no newer version.
    UpToDate,
    /// A new version, loaded and saved.
    Fetched(Fetched),
    /// Nothing.
    Failed(PrimaryError),
}

/// What is under way.
type PrimaryQuery = Pin<Box<dyn Future<Output = PrimaryAnswer>>>;

impl ZoneTask {
    /// Begins with what an earlier run has saved, if that is still good for something.
    fn begin(secondary: Rc<SecondaryZone>, saved: Option<Saved>, around: &Secondaries) -> Self {
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
                    // There may be thousands.
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
            turns,
            roots: Rc::clone(&around.roots),
            is_waiting: Rc::default(),
            heard: Rc::default(),
            is_urgent: false,
            service: None,
            updates: around.updates.clone(),
            tasks: around.tasks.clone(),
            rng: SmallRng::from_rng(&mut rand::rng()),
            sleep: SleepMeter::new(),
            asleep: Duration::ZERO,
        }
    }

    /// Now, as the machine is told: time asleep counts.
    fn now(&mut self) -> Instant {
        self.asleep += self.sleep.take();
        Instant::now() + self.asleep
    }

    /// Keeps the zone up to date for ever.
    async fn run(mut self, hints: Rc<Hints>) {
        let mut query: Option<(usize, PrimaryQuery)> = None;
        let progress = Rc::new(Cell::new(false));
        loop {
            let now = self.now();
            if progress.take() {
                self.machine.on_progress(now);
            }
            if self.is_waiting.get() {
                self.machine.on_waiting(now);
            }
            self.tell_service(now);
            let until = match self.machine.next_step(now, &mut self.rng) {
                SecondaryStep::AskSoa { primary } => {
                    query = Some((primary, self.ask_soa(primary)));
                    continue;
                }
                SecondaryStep::Transfer { primary, incremental } => {
                    query = Some((primary, self.transfer(primary, incremental, &progress)));
                    continue;
                }
                // Now and then in any case: a transfer is seen to go on, and a zone expires meanwhile.
                SecondaryStep::WaitUntil(at) if self.is_waiting.get() => at.min(now + WAITING_GLANCE),
                SecondaryStep::WaitUntil(at) if query.is_some() => at.min(now + GLANCE),
                // Timers do not run while the machine sleeps.
                SecondaryStep::WaitUntil(at) => at.min(now + MAX_WAIT),
            };
            tokio::select! {
                (primary, outcome) = finished(&mut query) => {
                    query = None;
                    self.is_waiting.set(false);
                    self.take(primary, outcome);
                }
                hints = hints.next() => {
                    hints.iter().for_each(|hint| self.machine.on_notify(hint.primary, hint.serial));
                    self.is_urgent = true;
                    if self.is_waiting.get() {
                        self.heard.notify_one();
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
        let PrimaryConfig { address, trust: TrustConfig { identity, ca, certificate } } = primary;
        let is_encrypted = address.scheme.is_encrypted();
        let rules = || self.roots.borrow().rules(*address, identity, ca.as_deref(), certificate.as_deref());
        let tls = is_encrypted.then(|| ClientTls::new(&rules()));
        Primary { address: *address, tls, zone: config.zone.clone(), key: key.clone() }
    }

    /// Asks a primary which version it has.
    fn ask_soa(&self, primary: usize) -> PrimaryQuery {
        let primary = self.primary(primary);
        let turn = self.turn(self.turns.as_ref().map(|turns| &turns.asks));
        Box::pin(async move {
            let _turn = turn.await;
            match primary.ask_serial().await {
                Ok(serial) => PrimaryAnswer::Soa(serial),
                Err(error) => PrimaryAnswer::Failed(error),
            }
        })
    }

    /// Transfers the zone from a primary, loads it and saves it.
    fn transfer(&self, primary: usize, incremental: bool, progress: &Rc<Cell<bool>>) -> PrimaryQuery {
        let primary = self.primary(primary);
        let progress = Rc::clone(progress);
        let old = self.last.borrow().as_ref().map(|last| Arc::clone(&last.zone));
        let SecondaryConfig { max_size, sharing, file, .. } = &*self.secondary.config;
        let kind = self.secondary.kind;
        let turn = self.turn(self.turns.as_ref().map(|turns| &turns.transfers));
        let (limit, is_shared, file) = (*max_size, !sharing.transfer_to.is_empty(), file.clone());
        Box::pin(async move {
            let _turn = turn.await;
            let known = old.clone().filter(|_| incremental);
            let received = match primary.transfer(known.as_deref(), limit, || progress.set(true)).await {
                Ok(received) => received,
                Err(error) => return PrimaryAnswer::Failed(error),
            };
            let zone = primary.zone.clone();
            let mut loaded = pin!(blocking(move || {
                let mut loaded = version::load(&zone, received, old.as_deref(), is_shared)?;
                if let Some(fetched) = &mut loaded {
                    fetched.catalog = catalog_of(kind, &fetched.zone);
                }
                if let Some(fetched) = &loaded
                    && let Err(error) = saved::save(&file, &fetched.zone)
                {
                    // It is answered from all the same: that a restart would need a primary is no reason not to.
                    tracing::warn!(%zone, file = %file.display(), %error, "cannot be saved");
                }
                Ok(loaded)
            }));
            let loaded = loop {
                // Loading and saving may take longer than a primary may be silent, and is none of its doing.
                match timeout(GLANCE, &mut loaded).await {
                    Ok(loaded) => break loaded,
                    Err(_) => progress.set(true),
                }
            };
            match loaded {
                Ok(Some(fetched)) => PrimaryAnswer::Fetched(fetched),
                Ok(None) => PrimaryAnswer::UpToDate,
                Err(error) => PrimaryAnswer::Failed(error),
            }
        })
    }

    /// Waits for a turn, where there are turns.
    fn turn(&self, turns: Option<&Turns>) -> impl Future<Output = Option<Turn>> + 'static {
        let (turns, is_urgent) = (turns.cloned(), self.is_urgent);
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

    /// Takes what came of asking a primary.
    fn take(&mut self, primary: usize, outcome: PrimaryAnswer) {
        let now = self.now();
        let config = &*self.secondary.config;
        match outcome {
            PrimaryAnswer::Soa(serial) => {
                match self.machine.version().map(|version| version.serial) {
                    Some(ours) if ours == serial => self.confirm_saved(),
                    Some(ours) if !serial.is_newer_than(ours) => {
                        let primary = config.primaries.get(primary).map(ToString::to_string).unwrap_or_default();
                        let (zone, serial, ours) = (&config.zone, serial.0, ours.0);
                        tracing::warn!(%zone, %primary, serial, ours, "the primary has an older serial than we");
                    }
                    Some(_) | None => {}
                }
                self.machine.on_soa(serial, now, &mut self.rng);
            }
            PrimaryAnswer::UpToDate => {
                self.confirm_saved();
                self.machine.on_up_to_date(now, &mut self.rng);
            }
            PrimaryAnswer::Failed(error) => {
                let primary = config.primaries.get(primary).map(ToString::to_string).unwrap_or_default();
                let zone = &config.zone;
                let told = self.turns.as_ref().map_or(Complaint::Told, |turns| turns.complaints.add(now));
                match told {
                    Complaint::Told => tracing::warn!(%zone, %primary, %error, "nothing from the primary"),
                    Complaint::FirstLeftOut => tracing::warn!(
                        "nothing from primaries of more zones that catalogs list: each is told at level debug for a minute"
                    ),
                    Complaint::LeftOut => tracing::debug!(%zone, %primary, %error, "nothing from the primary"),
                }
                self.is_urgent = false;
                self.machine.on_failure(now, &mut self.rng);
            }
            PrimaryAnswer::Fetched(Fetched { zone, size, steps, is_whole, catalog }) => {
                let Some(version) = version_of(&zone) else { return };
                let how = if is_whole { "AXFR" } else { "IXFR" };
                let primary = config.primaries.get(primary).map(ToString::to_string).unwrap_or_default();
                tracing::info!(zone = %config.zone, serial = version.serial.0, %primary, how, "transferred");
                self.machine.on_transferred(version, now, &mut self.rng);
                self.service = Some(Service::Served);
                self.is_urgent = false;
                self.catalog = None;
                self.last.replace(Some(Saved::confirmed(Arc::clone(&zone), size)));
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

    /// Hands the zone over, or an unserved one, if that has changed.
    fn tell_service(&mut self, now: Instant) {
        let (service, apex) = (self.machine.service(now), &self.secondary.config.zone);
        if self.service.replace(service) == Some(service) {
            return;
        }
        if service == Service::Expired {
            tracing::warn!(zone = %apex, "expired: no primary has confirmed it for too long");
        }
        let catalog = self.catalog.take();
        let (zone, size) = match (service, &*self.last.borrow()) {
            (Service::Served, Some(last)) => (Arc::clone(&last.zone), last.size),
            (Service::Served | Service::Absent | Service::Expired, _) => (Arc::new(Zone::unserved(apex)), 0),
        };
        let _ = self.updates.send(ZoneUpdate {
            authority: self.secondary.authority,
            zone,
            size,
            steps: Vec::new(),
            is_expired: service == Service::Expired,
            catalog,
        });
    }

    /// Notes in the file that a primary has just confirmed the version in it.
    fn confirm_saved(&mut self) {
        self.is_urgent = false;
        if let Some(last) = &mut *self.last.borrow_mut() {
            *last = Saved::confirmed(Arc::clone(&last.zone), last.size);
        }
        let (file, zone) = (self.secondary.config.file.clone(), self.secondary.config.zone.clone());
        let confirm = move || {
            if let Err(error) = saved::confirm(&file) {
                tracing::warn!(%zone, file = %file.display(), %error, "cannot note in its file that it is up to date");
            }
        };
        self.tasks.start_and_leave(TaskKind::Secondary, blocking(confirm));
    }
}

/// Waits for what is under way; for ever, if that is nothing.
async fn finished(query: &mut Option<(usize, PrimaryQuery)>) -> (usize, PrimaryAnswer) {
    match query {
        Some((primary, query)) => (*primary, query.await),
        None => std::future::pending().await,
    }
}

/// What a zone says as a catalog, if it is one.
fn catalog_of(kind: ZoneKind, zone: &Zone) -> Option<Result<Catalog, Broken>> {
    (kind == ZoneKind::Catalog).then(|| Catalog::read(zone.apex(), zone.iter()))
}

fn version_of(zone: &Zone) -> Option<Version> {
    let soa = zone.soa()?;
    Soa::of(&soa).map(|soa| Version::of(&soa))
}

/// Why a primary was asked in vain.
#[derive(Debug)]
pub(crate) enum PrimaryError {
    /// It cannot be reached, or the connection broke.
    Io(std::io::Error),
    /// It has not proved who it is.
    Untrusted(String),
    /// It said nothing.
    Silent,
    /// It replied, but told no version: it does not have the zone, or does not believe that we may ask.
    NoSerial(crate::wire::Rcode),
    /// Its reply is not signed as it should be.
    Unsigned(crate::transfer::tsig::TsigFailure),
    /// The transfer failed.
    Transfer(TransferError),
    /// What it sent makes no zone.
    Flawed(String),
    /// The differences are not from the version that we have.
    Inexact(crate::transfer::Inexact),
}

impl fmt::Display for PrimaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Untrusted(problem) => f.write_str(problem),
            Self::Silent => f.write_str("no reply"),
            Self::NoSerial(rcode) => write!(f, "no SOA record in its reply, which is {rcode}"),
            Self::Unsigned(failure) => write!(f, "its reply is not to be trusted: {failure}"),
            Self::Transfer(failure) => failure.fmt(f),
            Self::Flawed(errors) => write!(f, "what it sent is no zone: {errors}"),
            Self::Inexact(inexact) => write!(f, "differences from another version: {inexact}"),
        }
    }
}

impl From<std::io::Error> for PrimaryError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ConnectError> for PrimaryError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => Self::Io(error),
            ConnectError::Untrusted(problem) => Self::Untrusted(problem),
        }
    }
}

impl From<TransferError> for PrimaryError {
    fn from(failure: TransferError) -> Self {
        Self::Transfer(failure)
    }
}

/// How often a look that is under way is looked at.
const GLANCE: Duration = Duration::from_secs(1);

/// The same while it waits for a turn: well within the time that a primary is given.
const WAITING_GLANCE: Duration = Duration::from_secs(5);

/// Zones that catalogs list and that are asked for their SOA records at a time.
const MEMBER_ASKS: usize = 32;

/// Those of them that are transferred at a time.
const MEMBER_TRANSFERS: usize = 8;

/// How long is waited at most before the time is looked at: so much later a machine that wakes up finds a zone expired.
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
