//! Observers of the server: history and verdict for the admin server, query log, dnstap, traces, slow races,
//! and the counters, those of previous processes too.
//!
//! No other part depends on this one. Without an admin server there is no history.

pub mod sight;
pub mod taps;

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use config::Config;
use dns::QuestionHasher;
use metrics::{Aggregate, Counters, CountersSummary, RunSnapshot, Snapshot};
use net::tasks::Tasks;
use tokio::sync::{mpsc, oneshot};

use crate::admin::LiveSubscriber;
use crate::admin::status::Status;
use crate::control::carried::CarriedState;
use crate::control::observe::sight::live::{Verdict, VerdictState};
use crate::control::observe::sight::{Event, SavedHistory, Sight};
use crate::control::observe::taps::Taps;
use crate::control::pools::{SavedLatency, wall_clock};

/// The observers, on the control thread.
pub(super) struct ServerObservers {
    pub(super) taps: Taps,
    pub(super) summary: CountersSummary,
    /// The counters of previous processes. Only this thread adds to them.
    carried: Arc<Counters>,
    /// The final counters, reported after another process has taken over counting.
    frozen: Option<Snapshot>,
    /// Requests that wait for the counters of the previous process; `None` once they have arrived or if none
    /// will.
    uncounted: Option<Vec<oneshot::Sender<Snapshot>>>,
    pub(super) sight: Option<Sight>,
    /// The text with the history of a previous process, until the first sample.
    saved: Vec<u8>,
    subscribers: Vec<mpsc::Sender<Event>>,
    backend_series: Option<u16>,
    pub(super) tasks_lost: u64,
    started: Instant,
}

impl ServerObservers {
    /// Starts the observers of a config. They take the history of a previous process.
    pub(super) fn start(
        config: &Config,
        workers: &[Arc<Counters>],
        hasher: QuestionHasher,
        previous: &mut CarriedState,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let taps = Taps::new(workers.len(), hasher, rand::random(), tasks.clone());
        let carried: Arc<Counters> = Arc::default();
        let counters = workers.iter().chain([&carried]).chain(taps.counters()).map(Arc::clone);
        let mut this = Self {
            summary: CountersSummary::of(counters.collect()),
            taps,
            carried,
            frozen: None,
            // A predecessor that sends learned state also sends its counters when it stops.
            uncounted: previous.learnt.is_some().then(Vec::new),
            sight: None,
            saved: mem::take(&mut previous.history),
            subscribers: Vec::new(),
            backend_series: None,
            tasks_lost: 0,
            started: Instant::now(),
        };
        this.apply(config)?;
        Ok(this)
    }

    /// Applies a config, or changes nothing if the system provides no thread. The caller must pass the new
    /// taps to the workers.
    pub(super) fn apply(&mut self, config: &Config) -> io::Result<()> {
        self.taps.apply(config)?;
        self.backend_series = config.admin.as_ref().map(|admin| admin.backend_series);
        Ok(())
    }

    /// Takes the sample of a second; without an admin server there is none.
    pub(super) fn on_second(&mut self, now: Instant, snapshot: Option<&Snapshot>) {
        let Some(snapshot) = snapshot else {
            (self.sight, self.saved, self.subscribers) = (None, Vec::new(), Vec::new());
            return;
        };
        let at = wall_clock();
        let Some(sight) = &mut self.sight else {
            self.sight = Some(Sight::new(now, at, snapshot));
            let text = mem::take(&mut self.saved);
            if !text.is_empty()
                && let Some(saved) = SavedLatency::history(&text)
            {
                self.take_history(&saved, snapshot);
            }
            return;
        };
        let before = sight.verdict().state;
        if let Some(event) = sight.take(now, at, snapshot) {
            log_verdict(before, sight.verdict());
            // A subscriber with a full queue is disconnected, and gets the missed seconds when it reconnects.
            self.subscribers.retain(|subscriber| subscriber.try_send(event.clone()).is_ok());
        }
    }

    /// Returns the history for another process; `None` without one.
    pub(super) fn history(&self, snapshot: impl FnOnce() -> Snapshot) -> Option<SavedHistory> {
        Some(self.sight.as_ref()?.history().save(&snapshot()))
    }

    /// Continues the history of a previous process.
    pub(super) fn take_history(&mut self, saved: &SavedHistory, snapshot: &Snapshot) {
        if let Some(sight) = &mut self.sight {
            sight.restore(Instant::now(), wall_clock(), snapshot, saved);
        }
    }

    /// Returns the part of a snapshot that the observers determine.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            run: RunSnapshot {
                uptime: self.started.elapsed(),
                tasks_lost: self.tasks_lost,
                backend_series: self.backend_series,
                ..RunSnapshot::default()
            },
            verdict: self.sight.as_ref().map(Sight::verdict_number),
            counts: self.summary.counts(),
            ..Snapshot::default()
        }
    }

    pub(super) fn status(&self, snapshot: &Snapshot) -> Status {
        Status::of(snapshot, self.sight.as_ref(), SystemTime::now())
    }

    pub(super) fn subscribe(&mut self, LiveSubscriber { last, missed, seconds }: LiveSubscriber) {
        let Some(sight) = &self.sight else { return };
        // A new subscriber gets only the current second.
        let last = last.unwrap_or_else(|| sight.latest_id().saturating_sub(1));
        if missed.send(sight.missed(last)).is_ok() {
            self.subscribers.retain(|subscriber| !subscriber.is_closed());
            self.subscribers.push(seconds);
        }
    }

    /// Returns the request for all counters if the current ones answer it. Otherwise the answer is final, or
    /// comes once the previous process has sent its own.
    pub(super) fn hold(&mut self, answer: oneshot::Sender<Snapshot>) -> Option<oneshot::Sender<Snapshot>> {
        match (&self.frozen, &mut self.uncounted) {
            (Some(frozen), _) => drop(answer.send(frozen.clone())),
            (None, Some(waiting)) => waiting.push(answer),
            (None, None) => return Some(answer),
        }
        None
    }

    /// Returns the requests that wait for the counters of the previous process, if the wait is over.
    pub(super) fn end_hold(&mut self, is_over: bool) -> Vec<oneshot::Sender<Snapshot>> {
        let is_over = is_over || self.started.elapsed() >= COUNTED_PATIENCE;
        self.uncounted.take_if(|_| is_over).unwrap_or_default()
    }

    /// Keeps the counters that another process continues. Later requests to this process get the same
    /// numbers, because counters would appear to fall when the next process is asked.
    pub(super) fn freeze(&mut self, counted: &Snapshot) {
        self.frozen = Some(counted.clone());
    }

    /// Adds the counters of a previous process.
    pub(super) fn add_counted(&mut self, counted: &Snapshot) {
        counted.counts.carry(&self.carried);
        self.tasks_lost += counted.run.tasks_lost;
        if let Some(sight) = &mut self.sight {
            sight.carry(counted);
        }
    }
}

/// Logs a verdict that is worse than before, or OK again.
fn log_verdict(before: VerdictState, verdict: &Verdict) {
    if verdict.state > before {
        let reasons = verdict.reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.text));
        let reasons: Vec<_> = reasons.collect();
        tracing::warn!("verdict: {}: {}", verdict.state.label(), reasons.join("; "));
    } else if verdict.state < before && verdict.state == VerdictState::Well {
        tracing::info!("verdict: OK again");
    }
}

/// The longest wait of a request for the counters of the previous process, which sends them when it stops
/// serving.
const COUNTED_PATIENCE: Duration = Duration::from_secs(1);
