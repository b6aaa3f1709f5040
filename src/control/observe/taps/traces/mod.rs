//! Slow races as OpenTelemetry traces, for a collector that accepts OTLP over HTTP with JSON.
//!
//! ```text
//!   writer thread                      control thread
//!   SlowTap ───── names are cut ────▶ Courier: TraceQueue ── a batch ──▶ POST ──▶ collector
//!                 (try_send)                      ▲               │ 429, 502, 503, 504
//!                                                 └───── once ────┘
//! ```
//!
//! The writer thread must not wait; the control thread has the runtime that can wait for a collector. A
//! bounded channel connects them, and the queue behind it joins late replies itself: `ctl slow` may keep too
//! few races for that. A race leaves when no late reply can arrive any more, so a trace is complete and is
//! sent once. Races that do not fit or are not accepted are dropped and counted.

mod delivery;
mod otlp;
mod queue;

use std::cell::RefCell;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{BackendConfig, Config, NameDetail, TracesConfig};
use engine::slow::{LateReply, ReportedRace};
use metrics::{Counter, Counters, Tap, TapFate};
use net::tasks::{TaskKind, Tasks};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout_at};

use self::delivery::{DeliveryError, post};
use self::otlp::Backends;
use self::queue::{MAX_QUEUED, QueuedTrace, TraceQueue};
use super::privacy::cut_name_text;
use super::problems::TapProblems;
use super::writer::host_name;

pub(super) struct Traces {
    tasks: Tasks,
    counters: Arc<Counters>,
    in_force: Option<CurrentTraces>,
    /// The time at which all couriers must end. Each holds a receiver while it works.
    ending: watch::Sender<Option<Instant>>,
}

struct CurrentTraces {
    config: TracesConfig,
    sender: Arc<TraceSender>,
    backends: Rc<RefCell<Backends>>,
}

impl Traces {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { tasks, counters: Arc::default(), in_force: None, ending: watch::Sender::default() }
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Applies a config. Returns the sender for the writer thread, which counts records without room in
    /// `refused`. Earlier couriers still deliver their queues.
    pub(super) fn apply(&mut self, config: &Config, refused: &Arc<Counters>) -> Option<Arc<TraceSender>> {
        if self.in_force.as_ref().map(|known| &known.config) != config.taps.traces.as_ref() {
            self.in_force = config.taps.traces.as_ref().map(|config| self.start(config, refused));
        }
        let CurrentTraces { sender, backends, .. } = self.in_force.as_ref()?;
        let all = config.pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| (&pool.name, backend)));
        let address =
            |(pool, backend): (&String, &BackendConfig)| ((pool.clone(), backend.name.clone()), backend.address.socket);
        backends.replace(all.map(address).collect());
        Some(Arc::clone(sender))
    }

    fn start(&self, config: &TracesConfig, refused: &Arc<Counters>) -> CurrentTraces {
        let (sender, events) = mpsc::channel(MAX_ON_THE_WAY);
        let backends: Rc<RefCell<Backends>> = Rc::default();
        let no_room: Arc<Counter> = Arc::default();
        let mut courier = Courier {
            config: config.clone(),
            backends: Rc::clone(&backends),
            host: host_name(),
            events,
            queue: TraceQueue::default(),
            batch: Vec::new(),
            counters: Arc::clone(&self.counters),
            dropped: 0,
            no_room: Arc::clone(&no_room),
            problems: TapProblems::default(),
        };
        let mut ending = self.ending.subscribe();
        self.tasks.start_and_leave(TaskKind::Taps, async move {
            tokio::select! {
                () = courier.work() => {}
                () = is_past(&mut ending) => courier.abandon(),
            }
        });
        let sender = TraceSender { names: config.names, events: sender, counters: Arc::clone(refused), no_room };
        CurrentTraces { config: config.clone(), sender: Arc::new(sender), backends }
    }

    /// Ends the couriers after the last race. Undelivered races are dropped at `until`.
    pub(super) async fn end(&mut self, until: Instant, patience: Duration) {
        self.in_force = None;
        self.ending.send_replace(Some(until));
        let _ = timeout_at((until + patience).into(), self.ending.closed()).await;
    }
}

#[derive(Debug)]
pub(super) struct TraceSender {
    names: NameDetail,
    events: mpsc::Sender<TraceEvent>,
    counters: Arc<Counters>,
    /// The counter of records without room, for the log.
    no_room: Arc<Counter>,
}

#[derive(Debug)]
enum TraceEvent {
    Race(ReportedRace),
    Late(LateReply),
}

impl TraceSender {
    /// Sends a race, with its name cut for privacy.
    pub(super) fn race(&self, race: &ReportedRace) {
        let mut race = race.clone();
        race.race.name = cut_name_text(self.names, &race.race.name).to_owned();
        if self.events.try_send(TraceEvent::Race(race)).is_err() {
            self.counters.tapped(Tap::Traces, TapFate::Dropped, 1);
            self.no_room.increment();
        }
    }

    /// Sends a late reply to such a race. Without room for it, the trace lacks its delay.
    pub(super) fn late(&self, late: &LateReply) {
        let _ = self.events.try_send(TraceEvent::Late(late.clone()));
    }
}

struct Courier {
    config: TracesConfig,
    backends: Rc<RefCell<Backends>>,
    host: String,
    events: mpsc::Receiver<TraceEvent>,
    queue: TraceQueue,
    batch: Vec<QueuedTrace>,
    counters: Arc<Counters>,
    /// The number of undelivered races, and of those without room.
    dropped: u64,
    no_room: Arc<Counter>,
    problems: TapProblems,
}

impl Courier {
    /// Delivers until the channel closes, and then the rest.
    async fn work(&mut self) {
        loop {
            let due = self.queue.due(Instant::now());
            tokio::select! {
                biased;
                event = self.events.recv(), if self.queue.has_room() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
                () = alarm(due) => {
                    self.batch = self.queue.take_batch(Instant::now());
                    self.deliver(true).await;
                }
            }
            self.log();
        }
        // No late replies arrive any more.
        while !self.queue.is_empty() {
            self.batch = self.queue.take_oldest();
            self.deliver(false).await;
        }
        self.log();
    }

    fn take(&mut self, event: TraceEvent) {
        match event {
            TraceEvent::Race(race) => self.queue.insert(race, rand::random(), Instant::now()),
            TraceEvent::Late(late) => self.queue.join(&late, Instant::now()),
        }
    }

    /// Posts the batch. If the collector is overloaded, the batch goes again with the next one, if there is
    /// one, at most once.
    async fn deliver(&mut self, has_next: bool) {
        let traces = self.batch.iter().map(QueuedTrace::trace);
        let body = otlp::body(traces, &self.host, &self.backends.borrow());
        let result = post(&self.config.otlp, body).await;
        let batch = std::mem::take(&mut self.batch);
        let count = batch.len() as u64;
        match result {
            Ok(complaint) => {
                self.counters.tapped(Tap::Traces, TapFate::Written, count);
                self.problems.problem = complaint.or_else(|| self.problems.problem.take());
            }
            Err(DeliveryError::Later(problem)) if has_next => {
                let dropped = self.queue.put_back(batch, Instant::now());
                self.dropped(dropped, problem);
            }
            Err(DeliveryError::Later(problem) | DeliveryError::Never(problem)) => self.dropped(count, problem),
        }
    }

    fn dropped(&mut self, count: u64, problem: String) {
        self.counters.tapped(Tap::Traces, TapFate::Dropped, count);
        self.dropped += count;
        self.problems.problem = Some(problem);
    }

    fn log(&mut self) {
        self.problems.log(Tap::Traces, self.dropped + self.no_room.get(), "delivered", "", Instant::now());
    }

    fn abandon(&mut self) {
        self.events.close();
        let mut left = self.batch.len() as u64 + self.queue.len() as u64;
        while let Ok(event) = self.events.try_recv() {
            left += u64::from(matches!(event, TraceEvent::Race(_)));
        }
        self.counters.tapped(Tap::Traces, TapFate::Dropped, left);
        if left > 0 {
            tracing::warn!("{}: {left} records could not be delivered in time", Tap::Traces.label());
        }
    }
}

/// Waits until `at`; for ever if that is `None`.
async fn alarm(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

async fn is_past(ending: &mut watch::Receiver<Option<Instant>>) {
    let until = ending.wait_for(Option::is_some).await.ok().and_then(|until| *until);
    alarm(until).await;
}

/// The capacity of the channel. With the queue, at most 500 races wait.
const MAX_ON_THE_WAY: usize = 500 - MAX_QUEUED;
