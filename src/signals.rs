//! The signals that a server obeys, taken by a thread of its own: whatever the control thread does or waits for, a second one ends
//! the process at once.
//!
//! Signals are blocked from before anything is bound, so that one that comes early does not end us half-way: it waits until
//! somebody takes it. All threads of the process inherit that. The thread that takes them starts when the process has given up
//! what it does not need, so that it has no more rights than the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, exit};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::{io, thread};

use nix::sys::signal::{SigSet, Signal};
use rustix::process::{WaitOptions, wait};
use tokio::sync::{Notify, oneshot};

use crate::net::tasks::{Lost, TaskKind};

/// Signals that wait until they are taken.
pub struct Blocked(SigSet);

impl Blocked {
    /// Blocks them, for this thread and those that it will start.
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

    /// Starts the thread that takes them.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn take(self) -> io::Result<Signals> {
        let (hang_up, upgrade) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, end) = oneshot::channel();
        let signals = Signals { hang_up: Arc::clone(&hang_up), upgrade: Arc::clone(&upgrade), end };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut told = Some(told);
            let taken = catch_unwind(AssertUnwindSafe(|| take(&self.0, &hang_up, &upgrade, &mut told)));
            let lost = match taken {
                Ok(error) => TaskKind::Signals.ended(Err(error)),
                Err(panic) => TaskKind::Signals.panicked(&*panic),
            };
            match told {
                Some(told) => drop(told.send(Err(lost))),
                // It drains, and nobody could end it any more.
                None => end_at_once(format!("{lost}; ending at once")),
            }
        })?;
        Ok(signals)
    }
}

/// What signals say.
pub struct Signals {
    /// SIGHUP: reload. Several that nobody has heard of yet are one.
    hang_up: Arc<Notify>,
    /// SIGUSR2: upgrade.
    upgrade: Arc<Notify>,
    /// The first SIGTERM or SIGINT, by its name: drain and end.
    end: oneshot::Receiver<Result<&'static str, Lost>>,
}

/// What a signal asks for.
pub enum SignalRequest {
    /// A reload.
    Reload,
    /// An upgrade.
    Upgrade,
    /// The end; the name of the signal.
    End(&'static str),
}

impl Signals {
    /// Waits for the next signal, or until the thread that would hear of it is lost. The end comes last.
    ///
    /// # Errors
    /// If that thread is lost.
    pub async fn next(&mut self) -> Result<SignalRequest, Lost> {
        tokio::select! {
            () = self.hang_up.notified() => Ok(SignalRequest::Reload),
            () = self.upgrade.notified() => Ok(SignalRequest::Upgrade),
            // It is told once; who goes on after it hears of the others.
            ended = &mut self.end, if !self.end.is_terminated() => {
                ended.unwrap_or_else(|_| Err(TaskKind::Signals.ended(Ok(())))).map(SignalRequest::End)
            }
        }
    }
}

/// Takes signals for ever; returns only an error.
fn take(
    signals: &SigSet,
    hang_up: &Notify,
    upgrade: &Notify,
    told: &mut Option<oneshot::Sender<Result<&'static str, Lost>>>,
) -> io::Error {
    TaskKind::Signals.begin();
    // Of those that have ended before nobody may be told any more.
    if is_init() {
        reap();
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(Signal::SIGHUP) => hang_up.notify_one(),
            Ok(Signal::SIGUSR2) => upgrade.notify_one(),
            Ok(signal) => match told.take() {
                Some(told) => drop(told.send(Ok(signal.as_str()))),
                None => end_at_once(format!("{} again: ending at once", signal.as_str())),
            },
            Err(error) => return error.into(),
        }
    }
}

/// Whether this is PID 1, as in a container: it inherits all whose parent has ended, and they stay as zombies until it waits for them.
fn is_init() -> bool {
    process::id() == 1
}

/// Waits for all that have ended. None of them were started here.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Ends the process with status 1. Who reads the log may not read any more, so that is not waited for.
fn end_at_once(why: String) -> ! {
    let (told, is_told) = channel();
    let _ = thread::Builder::new().spawn(move || {
        tracing::warn!("{why}");
        let _ = told.send(());
    });
    let _ = is_told.recv_timeout(Duration::from_millis(100));
    exit(1)
}
