//! Draining: the server finishes what it has taken, and ends.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::listeners::SectionName;
use super::reload::ending;
use super::sections::owed_for;
use super::worker::{Command, Rest};
use super::{Loss, Server, ServerEvent};
use crate::admin::ProcessChange;
use crate::metrics::{Snapshot, Summary};
use crate::net::tasks::{TaskKind, blocking, blocking_task};

/// How a drain has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every query got its response.
    Whole,
    /// Some did not in time.
    Late,
    /// Something has ended before.
    Lost(Loss),
}

impl Drained {
    /// Tells how it has ended. Returns the exit status that goes with that.
    pub fn report(&self, summary: &Summary) -> i32 {
        tracing::info!("{summary}");
        match self {
            Self::Whole => tracing::info!("drained"),
            // No failure of ours: a client by TCP that does not take its responses can keep us for longer than is waited.
            Self::Late => tracing::warn!("not drained in time: some clients did not get their responses"),
            Self::Lost(loss) => {
                loss.report();
                return 1;
            }
        }
        0
    }
}

impl Server {
    /// What is said to whoever asks the server to stop.
    pub fn stopping(&self) -> String {
        match self.drain_delay.is_zero() {
            true => STOPPING.to_owned(),
            false => format!("not ready any more; after {:?} {STOPPING}", self.drain_delay),
        }
    }

    /// Reads no more datagrams, so that another process can, alone. A worker that hangs is not waited for long.
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

    /// Ends. At first all goes on for `drain_delay`, but for `/readyz`. Then the LS takes no more queries and finishes those in flight,
    /// while our own TS go on; then those end too. Clients hear at once where nobody takes queries any more. If another process takes
    /// over (`rest`), there is no delay, and nothing to hear. Returns whether every query got its response within the longest
    /// timeout of a pool, and all numbers at the end.
    pub async fn drain(mut self, rest: Rest) -> (Drained, Summary, Snapshot) {
        if rest != Rest::PassedOn {
            self.condition.set_ready(false);
            let (ending, delay) = (self.membership.registrations.take(), self.drain_delay);
            let told = async {
                // Who asks us by the register is to ask elsewhere before nobody is here.
                let seen = ending.drain().await;
                sleep_until(Instant::now() + delay.max(seen)).await;
                ending.end().await;
            };
            tokio::select! {
                () = told => {}
                lost = self.supervise_while_draining() => {
                    let counted = self.counted();
                    return (Drained::Lost(lost), self.summary, counted);
                }
            }
        }
        self.end_reloads();
        let deadline = Instant::now() + owed_for(self.state.as_deref());
        self.end_xdp();
        self.divert(rest, |name| *name == SectionName::Forwarder);
        let ways = self.workers.ways();
        let drained = async {
            // Twice: the first time ends the intake of all, the second what they handed over to each other meanwhile.
            for _ in 0..2 {
                let answers: Vec<_> = ways.iter().map(|worker| ask_to_drain(worker, rest)).collect();
                for answer in answers {
                    let _ = answer.await;
                }
            }
        };
        let mut drained = tokio::select! {
            result = timeout_at(deadline, drained) => if result.is_ok() { Drained::Whole } else { Drained::Late },
            lost = self.supervise_while_draining() => {
                let counted = self.counted();
                return (Drained::Lost(lost), self.summary, counted);
            }
        };
        self.divert(rest, |name| *name != SectionName::Forwarder);
        self.tell(|| Command::Stop(rest));
        let (join, mut lost) = self.workers.join();
        if timeout_at(deadline + DRAIN_MARGIN, blocking(join)).await.is_err() {
            drained = Drained::Late;
        }
        self.taps.end().await;
        if let Some(loss) = self.lost_worker.take().or_else(|| lost.try_recv().ok().map(Loss::from)) {
            drained = Drained::Lost(loss);
        }
        let counted = self.counted();
        if let Some(state) = self.state.take() {
            let saved = blocking_task(TaskKind::Persist, self.saves.last_one(&state)).await;
            if let Err(lost) = saved {
                drained = Drained::Lost(Loss { worker: None, lost });
            }
        }
        self.admin.stop().await;
        (drained, self.summary, counted)
    }

    /// Has datagrams pass by the sections that end now, so that their senders hear that nobody is there.
    fn divert(&self, rest: Rest, is_ending: impl Fn(&SectionName) -> bool) {
        if rest == Rest::Taken {
            let sections = self.listeners.sections().iter().filter(|section| is_ending(&section.name));
            sections.flat_map(|section| &section.addresses).for_each(|address| address.divert());
        }
    }
}

impl Server {
    /// Takes care of the server while it drains, until something is lost. Who asks for another process to serve is told that it is
    /// too late.
    async fn supervise_while_draining(&mut self) -> Loss {
        loop {
            match self.supervise().await {
                ServerEvent::Lost(loss) => return loss,
                // Who serves next was told what counts.
                ServerEvent::Known(_) | ServerEvent::ZoneSaved => {}
                ServerEvent::Asked(ProcessChange::Stop, answer) => drop(answer.send(Ok(self.stopping()))),
                ServerEvent::Asked(ProcessChange::Restart { .. } | ProcessChange::Upgrade { .. }, answer) => {
                    drop(answer.send(Err(ending())));
                }
                // It is over, or has been refused.
                ServerEvent::Reloading | ServerEvent::Reloaded { .. } => {}
            }
        }
    }
}

/// Asks a worker to read no more; what is returned ends when it does not.
fn ask_to_stop_reading(worker: &UnboundedSender<Command>) -> oneshot::Receiver<()> {
    let (done, stopped) = oneshot::channel();
    let _ = worker.send(Command::StopReading(done));
    stopped
}

/// How long workers that are to read no more are waited for: another process waits for that to serve.
const READING_PATIENCE: Duration = Duration::from_millis(100);

/// Asks a worker to drain; what is returned ends when it has.
fn ask_to_drain(worker: &UnboundedSender<Command>, rest: Rest) -> oneshot::Receiver<()> {
    let (done, drained) = oneshot::channel();
    let _ = worker.send(Command::Drain(rest, done));
    drained
}

/// What the end of the threads may take beyond that.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// What a server does that ends.
const STOPPING: &str = "taking no more queries, finishing those in flight";
