//! Reloads: a separate thread reads the config and all its files, and the control thread applies the result.
//! Another thread watches the files and requests a reload when they change (`watch = true`).
//!
//! ```text
//!              control thread                               reload thread
//!   SIGHUP ─┐
//!   HTTP ───┴▶ Reloads ── ReloadOrder: the state ────▶ read, parse, build; compare zones with current ones;
//!              │   ▲                                   load saved secondary zones
//!    one waits │   └─── PreparedReload, or an error ◀────┘
//!              ▼
//!            commit: every part is there already and is only swapped
//! ```
//!
//! A disk may stall and zones may be large, so the control thread never waits for it. One reload runs at a
//! time. Requests meanwhile share the next one, because files may have changed after they were read. The end
//! of the process does not wait for the thread.
//!
//! Replaced state goes back to the reload thread, which frees it after the last worker has released it:
//! freeing a large zone takes longer than a query may wait.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use config::{Config, counted};
use metrics::{LastReload, ReloadSnapshot};
use net::sys::memory::release_unused;
use net::tasks::{LostTask, TaskKind};
use rustix::process::setpriority_process;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::admin::ChangeRefusal;
use crate::control::event::Answer;
use crate::control::pools::PreparedPools;
use crate::control::zones::secondary::SavedZones;
use crate::control::zones::{PreparedZones, ZonesBase};
use crate::load::{Confinement, FileWatch, LoadError, Setup};

/// Reads the config again on the reload thread, with the file access of `Confinement`. It may never return.
pub type Read = Box<dyn FnMut(&Confinement) -> Result<Setup, LoadError> + Send>;

/// The reloads of the config. One runs at a time, and at most one waits.
pub(in crate::control) struct Reloads {
    pub(in crate::control) orders: Sender<ReloadOrder>,
    loaded: UnboundedReceiver<Result<LoadedConfig, LostTask>>,
    pub(in crate::control) running: Option<RunningReload>,
    next: Option<Vec<Answer>>,
    seen: ReloadSnapshot,
    pub(in crate::control) config: Arc<Config>,
}

pub(in crate::control) struct RunningReload {
    since: Instant,
    answers: Vec<Answer>,
    is_reported: bool,
}

/// An order to the reload thread.
pub(in crate::control) enum ReloadOrder {
    Load(ReloadBase),
    /// Free this state when nothing else uses it: that takes long.
    Free(Arc<dyn Any + Send + Sync>),
}

/// The state that a reload starts from. Only a reload changes it.
pub(in crate::control) struct ReloadBase {
    zones: ZonesBase,
    cache_size: Option<usize>,
    config: Arc<Config>,
}

pub(in crate::control) type LoadedConfig = Result<Box<PreparedReload>, LoadError>;

/// A config with all its files, ready to be swapped in.
pub(in crate::control) struct PreparedReload {
    pub(in crate::control) setup: Setup,
    pub(in crate::control) pools: PreparedPools,
    pub(in crate::control) zones: PreparedZones,
    /// The differences, such as "1 pool changed, 1 zone reloaded".
    pub(in crate::control) changes: String,
}

impl PreparedReload {
    fn of(mut setup: Setup, base: &ReloadBase) -> Self {
        let zones = PreparedZones::of(&mut setup, &base.zones, SavedZones::default());
        let changed = setup.forwarder.names.changed;
        let pools = PreparedPools::of(&mut setup, base.cache_size);
        let mut changes = setup.config.changes_since(&base.config);
        changes.extend(zones.changes());
        changes.extend((changed > 0).then(|| format!("{} reloaded", counted(changed, "names file"))));
        let changes = if changes.is_empty() { "nothing changed".to_owned() } else { changes.join(", ") };
        Self { setup, pools, zones, changes }
    }
}

impl Reloads {
    pub(in crate::control) fn start(
        read: Read,
        confinement: Confinement,
        edition: Option<u64>,
        config: Arc<Config>,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        // At most one for each order.
        let (done, loaded) = unbounded_channel();
        // Never joined: it may hang on a disk.
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let work = || obey(read, &confinement, &received, &done);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = done.send(Err(TaskKind::Reload.panicked(&*panic)));
            }
        })?;
        let fresh = ReloadSnapshot::default();
        let edition = edition.unwrap_or(fresh.edition);
        let seen = ReloadSnapshot { edition, in_force_since: SystemTime::now(), ..fresh };
        Ok(Self { orders, loaded, running: None, next: None, seen, config })
    }

    pub(in crate::control) async fn loaded(&mut self) -> Result<LoadedConfig, LostTask> {
        match self.loaded.recv().await {
            Some(loaded) => loaded,
            None => Err(TaskKind::Reload.ended(Ok(()))),
        }
    }

    pub(in crate::control) fn add_counted(&mut self, counted: &ReloadSnapshot) {
        self.seen.succeeded += counted.succeeded;
        self.seen.failed += counted.failed;
        if self.seen.last.is_none() {
            self.seen.last.clone_from(&counted.last);
        }
    }

    pub(in crate::control) fn snapshot(&self) -> ReloadSnapshot {
        let running = self.running.as_ref().map(|running| running.since.elapsed());
        ReloadSnapshot { running, is_next_waiting: self.next.is_some(), ..self.seen.clone() }
    }

    /// Logs once if the running reload is slow. Called once a second.
    pub(in crate::control) fn tick(&mut self) {
        if let Some(running) = &mut self.running
            && !running.is_reported
            && running.since.elapsed() >= LONG
        {
            running.is_reported = true;
            tracing::warn!(
                "reload: still reading after {} s; the previous config stays until all files are read",
                LONG.as_secs()
            );
        }
    }

    /// Requests a reload, which begins after the running one, because files may have changed after they were
    /// read.
    pub(in crate::control) fn request(&mut self, answer: Option<Answer>) {
        let next = self.next.get_or_insert_default();
        // Disconnected requesters are dropped, so that a client that repeats its request uses no memory.
        next.retain(|answer| !answer.is_closed());
        next.extend(answer);
    }

    /// Begins the requested reload from the state in `base`, unless one is running. Returns true if it has
    /// begun.
    pub(in crate::control) fn begin(&mut self, base: impl FnOnce() -> (ZonesBase, Option<usize>)) -> bool {
        let Some(answers) = self.next.take_if(|_| self.running.is_none()) else { return false };
        let (zones, cache_size) = base();
        // A thread that has ended reports it separately.
        let _ = self.orders.send(ReloadOrder::Load(ReloadBase { zones, cache_size, config: Arc::clone(&self.config) }));
        self.running = Some(RunningReload { since: Instant::now(), answers, is_reported: false });
        true
    }

    /// Notes the result of the running reload: the new config and a message, or the problems with their
    /// headlines, which show no lines of the config. Returns the edition.
    pub(in crate::control) fn finish(&mut self, result: Result<(Config, String), (String, String)>) -> u64 {
        let (now, seen) = (SystemTime::now(), &mut self.seen);
        let (answer, error) = match result {
            Ok((config, message)) => {
                self.config = Arc::new(config);
                (seen.edition, seen.succeeded, seen.in_force_since) = (seen.edition + 1, seen.succeeded + 1, now);
                (Ok(message), None)
            }
            Err((problems, headlines)) => {
                seen.failed += 1;
                (Err(ChangeRefusal::Invalid(problems)), Some(headlines))
            }
        };
        seen.last = Some(LastReload { at: now, error });
        for waiting in self.running.take().into_iter().flat_map(|running| running.answers) {
            let _ = waiting.send(answer.clone());
        }
        self.seen.edition
    }

    pub(in crate::control) fn refuse_all(&mut self) {
        let running = self.running.take().map(|running| running.answers);
        for answer in running.into_iter().chain(self.next.take()).flatten() {
            let _ = answer.send(Err(ending()));
        }
    }
}

fn obey(
    mut read: Read,
    confinement: &Confinement,
    orders: &Receiver<ReloadOrder>,
    done: &UnboundedSender<Result<LoadedConfig, LostTask>>,
) {
    // Queries come first. A new thread has the nice value of the thread that starts it.
    let _ = setpriority_process(None, NICE);
    let mut unused: Vec<Arc<dyn Any + Send + Sync>> = Vec::new();
    let mut is_over = false;
    let is_used = |old: &Arc<_>| Arc::strong_count(old) > 1;
    loop {
        let order = match is_over {
            true => orders.recv().map_err(RecvTimeoutError::from),
            false => orders.recv_timeout(LEAVE),
        };
        is_over = false;
        match order {
            Ok(ReloadOrder::Load(base)) => {
                TaskKind::Reload.begin();
                let loaded = read(confinement).map(|setup| Box::new(PreparedReload::of(setup, &base)));
                if done.send(Ok(loaded)).is_err() {
                    return;
                }
            }
            Ok(ReloadOrder::Free(old)) => {
                // Many may arrive in a short time, when thousands of zones are transferred.
                unused.retain(is_used);
                unused.push(old);
            }
            Err(RecvTimeoutError::Timeout) => {
                unused.retain(is_used);
                is_over = unused.is_empty();
                if is_over {
                    release_unused();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The thread that watches the files of the config.
pub(in crate::control) struct Watching {
    watch: Option<FileWatch>,
    /// Unbounded: the thread sends a few times a second at most, and this thread receives at once.
    changes: UnboundedReceiver<Result<Vec<PathBuf>, LostTask>>,
    sender: Option<UnboundedSender<Result<Vec<PathBuf>, LostTask>>>,
}

impl Watching {
    pub(in crate::control) fn new(watch: Option<FileWatch>) -> Self {
        let (sender, changes) = unbounded_channel();
        Self { watch, changes, sender: Some(sender) }
    }

    pub(in crate::control) fn set_on(&mut self, is_on: bool) {
        let Some(watch) = &self.watch else { return };
        watch.set_on(is_on);
        let Some(sender) = self.sender.take_if(|_| is_on) else { return };
        let mut watcher = watch.watcher();
        // Never joined: it may hang on a disk.
        let started = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let work = || {
                TaskKind::Watch.begin();
                while sender.send(Ok(watcher.wait())).is_ok() {}
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = sender.send(Err(TaskKind::Watch.panicked(&*panic)));
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "watch: the thread cannot start, so changed files are read only on reload");
        }
    }

    pub(in crate::control) async fn changed(&mut self) -> Result<Vec<PathBuf>, LostTask> {
        match self.changes.recv().await {
            Some(changed) => changed,
            // The thread could not start, which was logged.
            None => std::future::pending().await,
        }
    }
}

pub(in crate::control) fn ending() -> ChangeRefusal {
    ChangeRefusal::Conflict("the server is ending".to_owned())
}

/// The time after which a reload is logged as slow: longer than most zones take, and before an operator gives
/// up.
const LONG: Duration = Duration::from_secs(10);

/// How often the thread looks for state that nothing uses any more.
const LEAVE: Duration = Duration::from_secs(1);

/// The lowest priority: a reload of a million names then hardly delays queries.
const NICE: i32 = 19;
