//! Drains the server: it finishes pending queries, and ends.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::listeners::SectionName;
use super::reload::ending;
use super::sections::owed_for;
use super::worker::{QueuedQueryFate, WorkerCommand};
use super::{Loss, Server, ServerEvent};
use crate::admin::ProcessChange;
use crate::metrics::{CountersSummary, Snapshot};
use crate::net::tasks::{TaskKind, blocking, blocking_task};

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

impl Server {
    /// Returns the message for an operator who stops the server.
    pub fn stopping(&self) -> String {
        match self.drain_delay.is_zero() {
            true => STOPPING.to_owned(),
            false => format!("not ready any more; after {:?} {STOPPING}", self.drain_delay),
        }
    }

    /// Stops reading datagrams, so that only another process reads them. The wait for a hanging worker is
    /// short.
    pub async fn stop_reading(&mut self) {
        self.end_xdp();
        let stopped: Vec<_> = self.workers.ways().iter().map(ask_to_stop_reading).collect();
        let all = async {
            for stopped in stopped {
                let _ = stopped.await;
            }
        };
        let _ = timeout(READING_PATIENCE, all).await;
    }

    /// Drains the server and ends it.
    ///
    /// Everything but `/readyz` continues for `drain_delay`. Then the forwarder finishes its queries while
    /// our authorities still answer, and then the authorities end. Sockets refuse later queries at once. If
    /// another process takes over (`rest`), there is no delay and no refusal. Returns the result within the
    /// longest timeout of a pool, with all final numbers.
    pub async fn drain(mut self, rest: QueuedQueryFate) -> (DrainResult, CountersSummary, Snapshot) {
        if rest != QueuedQueryFate::PassedOn {
            self.condition.set_ready(false);
            let (ending, delay) = (self.membership.registrations.take(), self.drain_delay);
            let waiting = async {
                // Clients that use the registration must switch before the server stops.
                let seen = ending.drain().await;
                sleep_until(Instant::now() + delay.max(seen)).await;
                ending.end().await;
            };
            tokio::select! {
                () = waiting => {}
                lost = self.supervise_while_draining() => {
                    let counted = self.counted();
                    return (DrainResult::Lost(lost), self.summary, counted);
                }
            }
        }
        self.end_reloads();
        let deadline = Instant::now() + owed_for(self.state.as_deref());
        self.end_xdp();
        self.divert(rest, |name| *name == SectionName::Forwarder);
        let ways = self.workers.ways();
        let drained = async {
            // Twice: the first round ends the intake, the second finishes queries that workers handed over
            // meanwhile.
            for _ in 0..2 {
                let answers: Vec<_> = ways.iter().map(|worker| ask_to_drain(worker, rest)).collect();
                for answer in answers {
                    let _ = answer.await;
                }
            }
        };
        let mut drained = tokio::select! {
            result = timeout_at(deadline, drained) => if result.is_ok() { DrainResult::Whole } else { DrainResult::Late },
            lost = self.supervise_while_draining() => {
                let counted = self.counted();
                return (DrainResult::Lost(lost), self.summary, counted);
            }
        };
        self.divert(rest, |name| *name != SectionName::Forwarder);
        self.broadcast(|| WorkerCommand::Stop(rest));
        let (join, mut lost) = self.workers.join();
        if timeout_at(deadline + DRAIN_MARGIN, blocking(join)).await.is_err() {
            drained = DrainResult::Late;
        }
        self.taps.end().await;
        if let Some(loss) = self.lost_worker.take().or_else(|| lost.try_recv().ok().map(Loss::from)) {
            drained = DrainResult::Lost(loss);
        }
        let counted = self.counted();
        if let Some(state) = self.state.take() {
            let saved = blocking_task(TaskKind::Persist, self.saves.last_one(&state)).await;
            if let Err(lost) = saved {
                drained = DrainResult::Lost(Loss { worker: None, lost });
            }
        }
        self.admin.stop().await;
        (drained, self.summary, counted)
    }

    /// Diverts datagrams from the ending sections, so that senders get an ICMP error.
    fn divert(&self, rest: QueuedQueryFate, is_ending: impl Fn(&SectionName) -> bool) {
        if rest == QueuedQueryFate::Taken {
            let sections = self.listeners.sections().iter().filter(|section| is_ending(&section.name));
            sections.flat_map(|section| &section.addresses).for_each(|address| address.divert());
        }
    }
}

impl Server {
    /// Runs the server while it drains, until a task is lost. Rejects requests for another process.
    async fn supervise_while_draining(&mut self) -> Loss {
        loop {
            match self.supervise().await {
                ServerEvent::Lost(loss) => return loss,
                // The next process already has the state that counts.
                ServerEvent::Known(_) | ServerEvent::ZoneSaved => {}
                ServerEvent::Asked(ProcessChange::Stop, answer) => drop(answer.send(Ok(self.stopping()))),
                ServerEvent::Asked(ProcessChange::Restart { .. } | ProcessChange::Upgrade { .. }, answer) => {
                    drop(answer.send(Err(ending())));
                }
                // The reload is over, or was refused.
                ServerEvent::Reloading | ServerEvent::Reloaded { .. } => {}
            }
        }
    }
}

/// Makes a worker stop reading. The receiver completes when it has.
fn ask_to_stop_reading(worker: &UnboundedSender<WorkerCommand>) -> oneshot::Receiver<()> {
    let (done, stopped) = oneshot::channel();
    let _ = worker.send(WorkerCommand::StopReading(done));
    stopped
}

/// The longest wait for workers to stop reading: the next process waits for it to serve.
const READING_PATIENCE: Duration = Duration::from_millis(100);

fn ask_to_drain(worker: &UnboundedSender<WorkerCommand>, rest: QueuedQueryFate) -> oneshot::Receiver<()> {
    let (done, drained) = oneshot::channel();
    let _ = worker.send(WorkerCommand::Drain(rest, done));
    drained
}

const DRAIN_MARGIN: Duration = Duration::from_secs(1);

const STOPPING: &str = "taking no more queries, finishing those in flight";
