//! Secondary zones: keeps the zones that come from other servers up to date, on the control thread (what NSD calls xfrd).
//!
//! Each zone has a task that asks [`transfer::Secondary`](Secondary) what to do, does it (`client.rs`), makes a zone of what
//! came (`version.rs`), saves it (`saved.rs`), and hands it over as a [`ZoneUpdate`]. What of that takes the processor for long
//! happens on a thread of its own. A zone that is handed over is what workers answer from; until the first one, and when the
//! last one has expired, that is an unserved zone. What an earlier process has saved is loaded by whoever has time for that
//! ([`SavedZones`]).

mod client;
mod saved;
mod version;

use std::cell::{Cell, RefCell};
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
pub use self::saved::{Saved, SavedZones};
use self::version::Fetched;
use crate::config::SecondaryConfig;
use crate::net::clock::SleepMeter;
use crate::net::tasks::{Task, TaskKind, Tasks, blocking};
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
}

/// Looks after all secondary zones.
pub struct Secondaries {
    /// One for each zone.
    watches: Vec<Watch>,
    /// Where zones go.
    updates: UnboundedSender<ZoneUpdate>,
    /// The tasks of this thread.
    tasks: Tasks,
}

/// The task of one zone.
struct Watch {
    /// What it looks after.
    secondary: Rc<SecondaryZone>,
    /// Hints of primaries.
    hints: Rc<Hints>,
    /// Ends with this value.
    _task: Task,
}

/// A zone, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondaryZone {
    /// The number of its authority.
    pub authority: usize,
    /// The zone.
    pub config: SecondaryConfig,
    /// Signs what is asked.
    pub key: Option<Key>,
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
    /// Looks after no zone yet; its tasks are among these. Must be used within a `LocalSet`.
    pub fn new(tasks: Tasks, updates: UnboundedSender<ZoneUpdate>) -> Self {
        Self { watches: Vec::new(), updates, tasks }
    }

    /// Looks after these zones and no others. Those that have not changed go on as if nothing had happened; for the others,
    /// what was saved is handed over before this returns, if it is among these.
    pub fn set_zones(&mut self, zones: Vec<SecondaryZone>, mut saved: Vec<(SecondaryZone, Saved)>) {
        let mut earlier = std::mem::take(&mut self.watches);
        for secondary in zones {
            let watch = match earlier.iter().position(|watch| *watch.secondary == secondary) {
                Some(index) => earlier.swap_remove(index),
                None => {
                    let found = saved.iter().position(|(of, _)| *of == secondary);
                    self.watch(secondary, found.map(|index| saved.swap_remove(index).1))
                }
            };
            self.watches.push(watch);
        }
    }

    /// Passes a NOTIFY on: the primary of this index may have that version of a zone.
    pub fn on_notify(&self, authority: usize, zone: &Name, primary: usize, serial: Option<Serial>) {
        let is_meant = |watch: &&Watch| watch.secondary.authority == authority && watch.secondary.config.zone == *zone;
        if let Some(watch) = self.watches.iter().find(is_meant) {
            watch.hints.add(Hint { primary, serial });
        }
    }

    /// Starts the task of a zone.
    fn watch(&self, secondary: SecondaryZone, saved: Option<Saved>) -> Watch {
        let hints: Rc<Hints> = Rc::default();
        let secondary = Rc::new(secondary);
        let mut zone_task = ZoneTask::begin(Rc::clone(&secondary), saved, self.updates.clone(), self.tasks.clone());
        let now = zone_task.now();
        zone_task.tell_service(now);
        let task = self.tasks.start(TaskKind::Secondary, zone_task.run(Rc::clone(&hints)));
        Watch { secondary, hints, _task: task }
    }
}

/// One zone's life.
struct ZoneTask {
    secondary: Rc<SecondaryZone>,
    /// When to do what.
    machine: Secondary,
    /// The version that we have, and the octets of its records.
    zone: Option<(Arc<Zone>, usize)>,
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
    fn begin(
        secondary: Rc<SecondaryZone>,
        saved: Option<Saved>,
        updates: UnboundedSender<ZoneUpdate>,
        tasks: Tasks,
    ) -> Self {
        let (now, config) = (Instant::now(), &secondary.config);
        let primaries = config.primaries.len();
        let saved = saved.and_then(|saved| {
            let (version, age) = (version_of(&saved.zone)?, saved.age());
            let (zone, serial, file) = (&config.zone, version.serial.0, config.file.display());
            tracing::info!(%zone, serial, %file, "loaded from its file");
            Some(((saved.zone, saved.size), Secondary::from_saved(primaries, version, age, now)))
        });
        let (zone, machine) = match saved {
            Some((zone, machine)) => (Some(zone), machine),
            None => (None, Secondary::new(primaries, now)),
        };
        let rng = SmallRng::from_rng(&mut rand::rng());
        Self {
            secondary,
            machine,
            zone,
            service: None,
            updates,
            tasks,
            rng,
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
                SecondaryStep::WaitUntil(at) if query.is_some() => at.min(now + GLANCE),
                // Timers do not run while the machine sleeps.
                SecondaryStep::WaitUntil(at) => at.min(now + MAX_WAIT),
            };
            tokio::select! {
                (primary, outcome) = finished(&mut query) => {
                    query = None;
                    self.take(primary, outcome);
                }
                hints = hints.next() => {
                    hints.iter().for_each(|hint| self.machine.on_notify(hint.primary, hint.serial));
                }
                () = sleep_until(tokio::time::Instant::now() + until.saturating_duration_since(now)) => {}
            }
        }
    }

    fn primary(&self, index: usize) -> Primary {
        let SecondaryZone { config, key, .. } = &*self.secondary;
        let address = config.primaries.get(index).or_else(|| config.primaries.first()).copied();
        let address = address.expect("the config holds no secondary without a primary");
        Primary { address, zone: config.zone.clone(), key: key.clone() }
    }

    /// Asks a primary which version it has.
    fn ask_soa(&self, primary: usize) -> PrimaryQuery {
        let primary = self.primary(primary);
        Box::pin(async move {
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
        let old = self.zone.as_ref().map(|(zone, _)| Arc::clone(zone));
        let SecondaryConfig { max_size, sharing, file, .. } = &self.secondary.config;
        let (limit, is_shared, file) = (*max_size, !sharing.transfer_to.is_empty(), file.clone());
        Box::pin(async move {
            let known = old.clone().filter(|_| incremental);
            let received = match primary.transfer(known.as_deref(), limit, || progress.set(true)).await {
                Ok(received) => received,
                Err(error) => return PrimaryAnswer::Failed(error),
            };
            let zone = primary.zone.clone();
            let mut loaded = pin!(blocking(move || {
                let loaded = version::load(&zone, received, old.as_deref(), is_shared)?;
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

    /// Takes what came of asking a primary.
    fn take(&mut self, primary: usize, outcome: PrimaryAnswer) {
        let now = self.now();
        let config = &self.secondary.config;
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
                tracing::warn!(zone = %config.zone, %primary, %error, "nothing from the primary");
                self.machine.on_failure(now, &mut self.rng);
            }
            PrimaryAnswer::Fetched(Fetched { zone, size, steps, is_whole }) => {
                let Some(version) = version_of(&zone) else { return };
                let how = if is_whole { "AXFR" } else { "IXFR" };
                let primary = config.primaries.get(primary).map(ToString::to_string).unwrap_or_default();
                tracing::info!(zone = %config.zone, serial = version.serial.0, %primary, how, "transferred");
                self.machine.on_transferred(version, now, &mut self.rng);
                self.service = Some(Service::Served);
                self.zone = Some((Arc::clone(&zone), size));
                let _ = self.updates.send(ZoneUpdate {
                    authority: self.secondary.authority,
                    zone,
                    size,
                    steps,
                    is_expired: false,
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
        let (zone, size) = match (service, &self.zone) {
            (Service::Served, Some((zone, size))) => (Arc::clone(zone), *size),
            (Service::Served | Service::Absent | Service::Expired, _) => (Arc::new(Zone::unserved(apex)), 0),
        };
        let _ = self.updates.send(ZoneUpdate {
            authority: self.secondary.authority,
            zone,
            size,
            steps: Vec::new(),
            is_expired: service == Service::Expired,
        });
    }

    /// Notes in the file that a primary has just confirmed the version in it.
    fn confirm_saved(&self) {
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

fn version_of(zone: &Zone) -> Option<Version> {
    let soa = zone.soa()?;
    Soa::of(&soa).map(|soa| Version::of(&soa))
}

/// Why a primary was asked in vain.
#[derive(Debug)]
pub(crate) enum PrimaryError {
    /// It cannot be reached, or the connection broke.
    Io(std::io::Error),
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

impl From<TransferError> for PrimaryError {
    fn from(failure: TransferError) -> Self {
        Self::Transfer(failure)
    }
}

/// How often a look that is under way is looked at.
const GLANCE: Duration = Duration::from_secs(1);

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
