//! The signals of a server. A separate thread handles them, so that a second signal ends the process even
//! while the control thread is busy.
//!
//! Signals are blocked before the process binds anything. The signal thread starts after rights are given up.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, exit};
use std::sync::mpsc::channel;
use std::time::Duration;
use std::{io, thread};

use net::tasks::{LostTask, TaskKind};
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{WaitOptions, wait};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

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
        let (sender, requests) = unbounded_channel();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut is_ending = false;
            let lost = match catch_unwind(AssertUnwindSafe(|| take(&self.0, &sender, &mut is_ending))) {
                Ok(error) => TaskKind::Signals.ended(Err(error)),
                Err(panic) => TaskKind::Signals.panicked(&*panic),
            };
            if is_ending {
                // No second signal could end the process any more.
                end_at_once(format!("{lost}; ending at once"));
            }
            let _ = sender.send(Err(lost));
        })?;
        Ok(Signals(requests))
    }
}

/// The requests of signals.
pub struct Signals(UnboundedReceiver<Result<SignalRequest, LostTask>>);

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
        match self.0.recv().await {
            Some(request) => request,
            // The loss has been reported.
            None => pending().await,
        }
    }
}

fn take(
    signals: &SigSet,
    sender: &UnboundedSender<Result<SignalRequest, LostTask>>,
    is_ending: &mut bool,
) -> io::Error {
    TaskKind::Signals.begin();
    if is_init() {
        reap();
    }
    loop {
        let request = match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                reap();
                continue;
            }
            Ok(Signal::SIGHUP) => SignalRequest::Reload,
            Ok(Signal::SIGUSR2) => SignalRequest::Upgrade,
            Ok(signal) if *is_ending => end_at_once(format!("{} again: ending at once", signal.as_str())),
            Ok(signal) => {
                *is_ending = true;
                SignalRequest::End(signal.as_str())
            }
            Err(error) => return error.into(),
        };
        let _ = sender.send(Ok(request));
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
