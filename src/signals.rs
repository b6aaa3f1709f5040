//! The signals of a server. A separate thread handles them, so that a second signal ends the process even
//! while the control thread is busy.
//!
//! Signals are blocked before the process binds anything. The signal thread starts after rights are given up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, exit};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::{io, thread};

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{WaitOptions, wait};
use tokio::sync::{Notify, oneshot};

use crate::net::tasks::{LostTask, TaskKind};

/// Signals that stay pending until [`take`](Self::take).
pub struct BlockedSignals(SigSet);

impl BlockedSignals {
    /// Blocks the signals for this thread and those that it starts.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new() -> io::Result<Self> {
        let mut signals: SigSet =
            [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2].into_iter().collect();
        if is_init() {
            signals.add(Signal::SIGCHLD);
        }
        signals.thread_block()?;
        Ok(Self(signals))
    }

    /// Starts the thread that handles the signals.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn take(self) -> io::Result<Signals> {
        let (hang_up, upgrade) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (sender, end) = oneshot::channel();
        let signals = Signals { hang_up: Arc::clone(&hang_up), upgrade: Arc::clone(&upgrade), end };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut sender = Some(sender);
            let taken = catch_unwind(AssertUnwindSafe(|| take(&self.0, &hang_up, &upgrade, &mut sender)));
            let lost = match taken {
                Ok(error) => TaskKind::Signals.ended(Err(error)),
                Err(panic) => TaskKind::Signals.panicked(&*panic),
            };
            match sender {
                Some(sender) => drop(sender.send(Err(lost))),
                // During a drain, no second signal could end the process any more.
                None => end_at_once(format!("{lost}; ending at once")),
            }
        })?;
        Ok(signals)
    }
}

/// The requests of signals.
pub struct Signals {
    hang_up: Arc<Notify>,
    upgrade: Arc<Notify>,
    end: oneshot::Receiver<Result<&'static str, LostTask>>,
}

/// The request of a signal.
pub enum SignalRequest {
    /// Reload the config.
    Reload,
    /// Upgrade the program.
    Upgrade,
    /// End; holds the name of the signal.
    End(&'static str),
}

impl Signals {
    /// Waits for the next request. [`SignalRequest::End`] comes last.
    ///
    /// # Errors
    /// If the signal thread is lost.
    pub async fn next(&mut self) -> Result<SignalRequest, LostTask> {
        tokio::select! {
            () = self.hang_up.notified() => Ok(SignalRequest::Reload),
            () = self.upgrade.notified() => Ok(SignalRequest::Upgrade),
            // The loss is reported once; later calls still return other requests.
            ended = &mut self.end, if !self.end.is_terminated() => {
                ended.unwrap_or_else(|_| Err(TaskKind::Signals.ended(Ok(())))).map(SignalRequest::End)
            }
        }
    }
}

fn take(
    signals: &SigSet,
    hang_up: &Notify,
    upgrade: &Notify,
    sender: &mut Option<oneshot::Sender<Result<&'static str, LostTask>>>,
) -> io::Error {
    TaskKind::Signals.begin();
    if is_init() {
        reap();
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(Signal::SIGHUP) => hang_up.notify_one(),
            Ok(Signal::SIGUSR2) => upgrade.notify_one(),
            Ok(signal) => match sender.take() {
                Some(sender) => drop(sender.send(Ok(signal.as_str()))),
                None => end_at_once(format!("{} again: ending at once", signal.as_str())),
            },
            Err(error) => return error.into(),
        }
    }
}

/// As in a container: PID 1 inherits all orphans and must reap them.
fn is_init() -> bool {
    process::id() == 1
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Does not wait for the log, whose reader may have stopped.
fn end_at_once(why: String) -> ! {
    let (sender, ended) = channel();
    let _ = thread::Builder::new().spawn(move || {
        tracing::warn!("{why}");
        let _ = sender.send(());
    });
    let _ = ended.recv_timeout(Duration::from_millis(100));
    exit(1)
}
