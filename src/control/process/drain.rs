//! Drains the server: it finishes pending queries, and ends.

use std::time::Duration;

use metrics::{CountersSummary, Snapshot};
use net::tasks::blocking;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::{SectionName, ServerProcess, ending};
use crate::admin::ProcessChange;
use crate::control::{Loss, Server, ServerEvent};
use crate::worker::{ForwarderCommand, QueuedQueryFate, WorkerCommand};

/// The result of a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DrainResult {
    /// Every query got its response.
    Whole,
    /// Some queries got no response in time.
    Late,
    /// A task was lost before.
    Lost(Loss),
}

impl DrainResult {
    /// Logs the result, and returns the exit status for it.
    pub fn report(&self, summary: &CountersSummary) -> i32 {
        tracing::info!("{summary}");
        match self {
            Self::Whole => tracing::info!("drained"),
            // Not an error: a TCP client that does not read its responses may exceed the drain timeout.
            Self::Late => tracing::warn!("the drain timed out: some clients did not get their responses"),
            Self::Lost(loss) => {
                loss.report();
                return 1;
            }
        }
        0
    }
}

/// The end of the process.
#[derive(Default)]
pub(in crate::control) struct DrainState {
    /// The time for which a server that is not ready any more still serves.
    pub(super) delay: Duration,
    pub(in crate::control) is_ending: bool,
    /// The loss of a worker, which is not replaced any more.
    pub(in crate::control) lost_worker: Option<Loss>,
}

impl ServerProcess {
    /// Returns the message for an operator who stops the server.
    pub fn stopping(&self) -> String {
        match self.draining.delay.is_zero() {
            true => STOPPING.to_owned(),
            false => format!("not ready any more; after {:?} {STOPPING}", self.draining.delay),
        }
    }
}

impl Server {
    /// Stops reading datagrams, so that only another process reads them. The wait for a hanging worker is
    /// short.
    pub async fn stop_reading(&mut self) {
        self.interfaces.end(&self.links.workers);
        let stopped = self.links.workers.ask(WorkerCommand::StopReading);
        let _ = timeout(READING_PATIENCE, all(stopped)).await;
    }

    /// Drains the server and ends it.
    ///
    /// Everything but `/readyz` continues for `drain_delay`. Then the forwarder finishes its queries while
    /// our authorities still answer, and then the authorities end. Sockets refuse later queries at once. If
    /// another process takes over (`rest`), there is no delay and no refusal. Returns the result within the
    /// longest timeout of a pool, with all final numbers.
    pub async fn drain(mut self, rest: QueuedQueryFate) -> (DrainResult, CountersSummary, Snapshot) {
        if rest != QueuedQueryFate::PassedOn
            && let Err(loss) = self.announce_end().await
        {
            return self.end_lost(loss);
        }
        self.process.draining.is_ending = true;
        self.process.reloads.refuse_all();
        let deadline = Instant::now() + self.pools.owed_for();
        self.interfaces.end(&self.links.workers);
        self.process.listening.divert(rest, |name| *name == SectionName::Forwarder);
        let workers = self.links.workers.clone();
        let history = self.history();
        let saved = self.pools.save_last_latency(history);
        let rounds = async {
            // Twice: the first round ends the intake, the second finishes queries that workers handed over
            // meanwhile.
            for _ in 0..2 {
                all(workers.ask(|done| ForwarderCommand::Drain(rest, done))).await;
            }
        };
        // A stalled disk must not look like unanswered queries.
        let drained = async { tokio::join!(timeout_at(deadline, rounds), timeout_at(deadline, saved)).0 };
        let mut drained = tokio::select! {
            result = drained => if result.is_ok() { DrainResult::Whole } else { DrainResult::Late },
            lost = self.supervise_while_draining() => return self.end_lost(lost),
        };
        self.process.listening.divert(rest, |name| *name != SectionName::Forwarder);
        workers.broadcast(|| WorkerCommand::Stop(rest));
        let (join, mut lost) = self.workers.join();
        if timeout_at(deadline + DRAIN_MARGIN, blocking(join)).await.is_err() {
            drained = DrainResult::Late;
        }
        self.observe.taps.end().await;
        if let Some(loss) = self.process.draining.lost_worker.take().or_else(|| lost.try_recv().ok().map(Loss::from)) {
            drained = DrainResult::Lost(loss);
        }
        let counted = self.snapshot();
        if let Err(lost) = self.pools.save_last().await {
            drained = DrainResult::Lost(Loss { worker: None, lost });
        }
        self.process.admin.stop().await;
        (drained, self.observe.summary, counted)
    }

    /// Reports that the server is not ready any more, and waits until clients have noticed.
    async fn announce_end(&mut self) -> Result<(), Loss> {
        self.links.condition.set_ready(false);
        let (registrations, delay) = (self.zones.registrations.take(), self.process.draining.delay);
        let waiting = async {
            // Clients that use the registration must switch before the server stops.
            let seen = registrations.drain().await;
            sleep_until(Instant::now() + delay.max(seen)).await;
            registrations.end().await;
        };
        tokio::select! {
            () = waiting => Ok(()),
            lost = self.supervise_while_draining() => Err(lost),
        }
    }

    fn end_lost(self, loss: Loss) -> (DrainResult, CountersSummary, Snapshot) {
        let counted = self.snapshot();
        (DrainResult::Lost(loss), self.observe.summary, counted)
    }

    /// Runs the server while it drains, until a task is lost. Rejects requests for another process.
    async fn supervise_while_draining(&mut self) -> Loss {
        loop {
            match self.supervise().await {
                ServerEvent::Lost(loss) => return loss,
                // The next process already has the state that counts.
                ServerEvent::Known(_) | ServerEvent::ZoneSaved | ServerEvent::Latency(_) => {}
                ServerEvent::Asked(ProcessChange::Stop, answer) => drop(answer.send(Ok(self.process.stopping()))),
                ServerEvent::Asked(ProcessChange::Restart { .. } | ProcessChange::Upgrade { .. }, answer) => {
                    drop(answer.send(Err(ending())));
                }
                // The reload is over, or was refused.
                ServerEvent::Reloading | ServerEvent::Reloaded { .. } => {}
            }
        }
    }
}

/// Waits until all workers have replied or died.
async fn all(replies: Vec<oneshot::Receiver<()>>) {
    for reply in replies {
        let _ = reply.await;
    }
}

/// The longest wait for workers to stop reading: the next process waits for it to serve.
const READING_PATIENCE: Duration = Duration::from_millis(100);

const DRAIN_MARGIN: Duration = Duration::from_secs(1);

const STOPPING: &str = "taking no more queries, finishing those in flight";
