//! Slow races as traces of OpenTelemetry, for a collector that takes OTLP over HTTP with JSON.
//!
//! ```text
//!   writer thread                      control thread
//!   SlowTap ───── names cut, Told ──▶ Courier: TraceQueue ── a batch ──▶ POST ──▶ collector
//!                 (try_send)                      ▲               │ 429, 502, 503, 504
//!                                                 └───── once ────┘
//! ```
//!
//! The writer thread has each race and each late reply as a value, and may wait for nobody; the control thread has the runtime that can
//! wait for a collector. So all that passes between them is a bounded channel, and the queue behind it joins late replies by itself:
//! what `ctl slow` keeps may be too little for that, and is settled when somebody looks. A race leaves when no late reply can come
//! any more, so a trace is whole and is sent once. What does not fit, or is not taken, is dropped and counted.

mod delivery;
mod otlp;
mod queue;

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout_at};

use self::delivery::{Undelivered, post};
pub(super) use self::otlp::Backends;
use self::queue::{MAX_QUEUED, TraceQueue, Waiting};
use super::privacy::cut_name_text;
use super::writer::host_name;
use crate::config::{NameDetail, TracesConfig};
use crate::metrics::{Counter, Counters, Tap, TapFate};
use crate::net::tasks::{TaskKind, Tasks};
use crate::sight::slow::{LateReply, ToldRace};

/// The traces of a server, as the control thread has them.
pub(super) struct Traces {
    tasks: Tasks,
    /// What the courier counts.
    counters: Arc<Counters>,
    /// Where they go, if they go anywhere.
    in_force: Option<InForce>,
    /// Tells couriers until when they may deliver, when the process ends.
    ending: watch::Sender<Option<Instant>>,
    /// Held by each courier while it works; nothing is sent.
    at_work: Option<mpsc::Sender<()>>,
    /// Ends when none works any more.
    all_ended: mpsc::Receiver<()>,
}

/// Traces that are told.
struct InForce {
    config: TracesConfig,
    sender: Arc<TraceSender>,
    /// Where the backends are, as the config in force has it.
    backends: Rc<RefCell<Backends>>,
}

impl Traces {
    /// None yet. Tasks are among these.
    pub(super) fn new(tasks: Tasks) -> Self {
        let (at_work, all_ended) = mpsc::channel(1);
        let (counters, ending) = (Arc::default(), watch::Sender::default());
        Self { tasks, counters, in_force: None, ending, at_work: Some(at_work), all_ended }
    }

    /// What is counted on this thread.
    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Puts a config in force. Returns the way of the writer thread, which counts `refused` what finds no room. What waits to go elsewhere
    /// still goes there.
    pub(super) fn apply(
        &mut self,
        config: Option<&TracesConfig>,
        backends: &Backends,
        refused: &Arc<Counters>,
    ) -> Option<Arc<TraceSender>> {
        if self.in_force.as_ref().map(|known| &known.config) != config {
            self.in_force = config.map(|config| self.start(config, refused));
        }
        let InForce { sender, backends: known, .. } = self.in_force.as_ref()?;
        known.borrow_mut().clone_from(backends);
        Some(Arc::clone(sender))
    }

    /// Starts a courier.
    fn start(&self, config: &TracesConfig, refused: &Arc<Counters>) -> InForce {
        let (sender, told) = mpsc::channel(MAX_ON_THE_WAY);
        let backends: Rc<RefCell<Backends>> = Rc::default();
        let no_room: Arc<Counter> = Arc::default();
        let mut courier = Courier {
            config: config.clone(),
            backends: Rc::clone(&backends),
            host: host_name(),
            told,
            queue: TraceQueue::default(),
            batch: Vec::new(),
            counters: Arc::clone(&self.counters),
            trouble: Trouble::new(Arc::clone(&no_room)),
        };
        let (ending, at_work) = (self.ending.subscribe(), self.at_work.clone());
        self.tasks.start_and_leave(TaskKind::Taps, async move {
            tokio::select! {
                () = courier.work() => {}
                () = is_past(ending) => courier.abandon(),
            }
            drop(at_work);
        });
        let sender = TraceSender { names: config.names, told: sender, counters: Arc::clone(refused), no_room };
        InForce { config: config.clone(), sender: Arc::new(sender), backends }
    }

    /// Ends, when nothing is told any more. What cannot be delivered until then is dropped.
    pub(super) async fn end(&mut self, until: Instant, patience: Duration) {
        self.in_force = None;
        self.ending.send_replace(Some(until));
        self.at_work = None;
        let _ = timeout_at((until + patience).into(), self.all_ended.recv()).await;
    }
}

/// The way of the writer thread to a courier.
#[derive(Debug)]
pub(super) struct TraceSender {
    names: NameDetail,
    told: mpsc::Sender<Told>,
    /// Those of the writer thread.
    counters: Arc<Counters>,
    /// The same for the log.
    no_room: Arc<Counter>,
}

/// What a courier is told.
#[derive(Debug)]
enum Told {
    Race(ToldRace),
    Late(LateReply),
}

impl TraceSender {
    /// Tells of a race, without what may not be told of its name.
    pub(super) fn race(&self, told: &ToldRace) {
        let mut told = told.clone();
        told.race.name = cut_name_text(self.names, &told.race.name).to_owned();
        if self.told.try_send(Told::Race(told)).is_err() {
            self.counters.tapped(Tap::Traces, TapFate::Dropped, 1);
            self.no_room.increment();
        }
    }

    /// Tells of a reply that came late to such a race. If there is no room for it, the trace does not say how late it was.
    pub(super) fn late(&self, late: &LateReply) {
        let _ = self.told.try_send(Told::Late(late.clone()));
    }
}

/// Takes races to one collector.
struct Courier {
    config: TracesConfig,
    backends: Rc<RefCell<Backends>>,
    /// The name of this host.
    host: String,
    told: mpsc::Receiver<Told>,
    queue: TraceQueue,
    /// What is on its way to the collector.
    batch: Vec<Waiting>,
    counters: Arc<Counters>,
    trouble: Trouble,
}

impl Courier {
    /// Delivers until nothing is told any more, and then what is left.
    async fn work(&mut self) {
        loop {
            let due = self.queue.due(Instant::now());
            tokio::select! {
                biased;
                told = self.told.recv(), if self.queue.has_room() => match told {
                    Some(told) => self.take(told),
                    None => break,
                },
                () = alarm(due) => {
                    self.batch = self.queue.take_batch(Instant::now());
                    self.deliver(true).await;
                }
            }
            self.trouble.tell(Instant::now());
        }
        // Nobody waits for late replies any more.
        while !self.queue.is_empty() {
            self.batch = self.queue.take_oldest();
            self.deliver(false).await;
        }
        self.trouble.tell(Instant::now());
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Race(told) => self.queue.insert(told, rand::random(), Instant::now()),
            Told::Late(late) => self.queue.join(&late, Instant::now()),
        }
    }

    /// Posts the batch. If the collector has no time for it, it goes again with the next one, should there be one, unless it has
    /// before.
    async fn deliver(&mut self, has_next: bool) {
        let traces = self.batch.iter().map(Waiting::trace);
        let body = otlp::body(traces, &self.host, &self.backends.borrow());
        let result = post(&self.config.otlp, body).await;
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        match result {
            Ok(complaint) => {
                self.counters.tapped(Tap::Traces, TapFate::Written, count);
                if complaint.is_some() {
                    self.trouble.problem = complaint;
                }
            }
            Err(Undelivered::Later(problem)) if has_next => {
                let dropped = self.queue.put_back(batch, Instant::now());
                self.dropped(dropped, problem);
            }
            Err(Undelivered::Later(problem) | Undelivered::Never(problem)) => self.dropped(count, problem),
        }
    }

    /// So many are dropped for this.
    fn dropped(&mut self, count: u64, problem: String) {
        self.counters.tapped(Tap::Traces, TapFate::Dropped, count);
        self.trouble.dropped += count;
        self.trouble.problem = Some(problem);
    }

    /// Counts what is left as dropped.
    fn abandon(&mut self) {
        self.told.close();
        let mut left = self.batch.len() as u64 + self.queue.len() as u64;
        while let Ok(told) = self.told.try_recv() {
            left += u64::from(matches!(told, Told::Race(_)));
        }
        self.counters.tapped(Tap::Traces, TapFate::Dropped, left);
        if left > 0 {
            tracing::warn!("{}: {left} records could not be delivered in time", Tap::Traces.label());
        }
    }
}

/// What went wrong, for the log, which is told once a minute.
struct Trouble {
    /// What was last, if it was not told yet.
    problem: Option<String>,
    /// How many were dropped since it was told.
    dropped: u64,
    /// How many found no room on the way here.
    no_room: Arc<Counter>,
    /// How many of those it was told of.
    told: u64,
    /// When it was told of something.
    told_at: Option<Instant>,
}

impl Trouble {
    fn new(no_room: Arc<Counter>) -> Self {
        Self { problem: None, dropped: 0, no_room, told: 0, told_at: None }
    }

    /// Tells the log, if there is something and it is time.
    fn tell(&mut self, now: Instant) {
        let no_room = self.no_room.get();
        let dropped = self.dropped + no_room - self.told;
        let is_due = self.told_at.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY);
        if !is_due || dropped == 0 && self.problem.is_none() {
            return;
        }
        (self.told_at, self.told, self.dropped) = (Some(now), no_room, 0);
        let tap = Tap::Traces.label();
        match self.problem.take() {
            Some(error) => tracing::warn!(%error, dropped, "{tap}: records cannot be delivered; {dropped} are dropped"),
            None => tracing::warn!(dropped, "{tap}: more records come than can be delivered; {dropped} are dropped"),
        }
    }
}

/// Waits until then; for ever, if that is never.
async fn alarm(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// Waits until the process is to end, and its couriers to have delivered.
async fn is_past(mut ending: watch::Receiver<Option<Instant>>) {
    let until = ending.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    alarm(until).await;
}

/// Races and late replies between the two threads. With those that are queued, no more than 500 races wait.
const MAX_ON_THE_WAY: usize = 500 - MAX_QUEUED;

/// How often the log is told that records are dropped.
const TOLD_EVERY: Duration = Duration::from_secs(60);
