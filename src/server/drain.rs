//! Draining: the server finishes what it has taken, and ends.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::reload::ending;
use super::worker::Command;
use super::{Loss, Server, ServerEvent};
use crate::admin::ProcessChange;
use crate::metrics::Summary;
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

impl Server {
    /// Ends: the LS takes no more queries and finishes those in flight, while our own TS go on; then those end too.
    /// Returns whether every query got its response within the longest timeout of a pool.
    pub async fn drain(mut self) -> (Drained, Summary) {
        self.end_reloads();
        let timeouts = self.state.iter().flat_map(|state| &state.pools).map(|pool| pool.rules().timeout);
        self.condition.set_ready(false);
        let deadline = Instant::now() + timeouts.max().unwrap_or_default() + DRAIN_MARGIN;
        let ways = self.workers.ways();
        let drained = async {
            // Twice: the first time ends the intake of all, the second what they handed over to each other meanwhile.
            for _ in 0..2 {
                let answers: Vec<_> = ways.iter().map(ask_to_drain).collect();
                for answer in answers {
                    let _ = answer.await;
                }
            }
        };
        let mut drained = tokio::select! {
            result = timeout_at(deadline, drained) => if result.is_ok() { Drained::Whole } else { Drained::Late },
            lost = self.supervise_while_draining() => return (Drained::Lost(lost), self.summary),
        };
        self.tell(|| Command::Stop);
        let (join, mut lost) = self.workers.join();
        if timeout_at(deadline + DRAIN_MARGIN, blocking(join)).await.is_err() {
            drained = Drained::Late;
        }
        if let Some(loss) = self.lost_worker.or_else(|| lost.try_recv().ok().map(Loss::from)) {
            drained = Drained::Lost(loss);
        }
        if let Some(state) = self.state.take() {
            let saved = blocking_task(TaskKind::Persist, self.saves.last_one(&state)).await;
            if let Err(lost) = saved {
                drained = Drained::Lost(Loss { worker: None, lost });
            }
        }
        self.admin.stop().await;
        (drained, self.summary)
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
                ServerEvent::Known(_) => {}
                ServerEvent::Asked(ProcessChange::Stop, answer) => drop(answer.send(Ok(STOPPING.to_owned()))),
                ServerEvent::Asked(ProcessChange::Restart { .. } | ProcessChange::Upgrade { .. }, answer) => {
                    drop(answer.send(Err(ending())));
                }
                // It is over, or has been refused.
                ServerEvent::Reloading | ServerEvent::Reloaded { .. } => {}
            }
        }
    }
}

/// Asks a worker to drain; what is returned ends when it has.
fn ask_to_drain(worker: &UnboundedSender<Command>) -> oneshot::Receiver<()> {
    let (done, drained) = oneshot::channel();
    let _ = worker.send(Command::Drain(done));
    drained
}

/// What a drain may take beyond the longest timeout of a pool.
const DRAIN_MARGIN: Duration = Duration::from_secs(1);

/// What is said to whoever asks the server to stop.
pub const STOPPING: &str = "taking no more queries, finishing those in flight";
