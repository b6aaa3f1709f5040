//! The thread that watches the files of the config, and asks for a reload when they say something else (`watch = true`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::load::Watch;
use crate::net::tasks::{Lost, TaskKind};

/// Whether files are watched, and what has come of it.
pub(super) struct Watching {
    /// Tells the thread; none where there are no files.
    watch: Option<Watch>,
    /// The way back. One thing is told a few times a second at most, and taken by this thread at once.
    changes: UnboundedReceiver<Result<Vec<PathBuf>, Lost>>,
    /// For the thread, until it is started.
    tell: Option<UnboundedSender<Result<Vec<PathBuf>, Lost>>>,
}

impl Watching {
    /// Nothing is watched yet.
    pub(super) fn new(watch: Option<Watch>) -> Self {
        let (tell, changes) = unbounded_channel();
        Self { watch, changes, tell: Some(tell) }
    }

    /// Watches the files, or does not, from now on.
    pub(super) fn set_on(&mut self, is_on: bool) {
        let Some(watch) = &self.watch else { return };
        watch.set_on(is_on);
        let Some(tell) = self.tell.take_if(|_| is_on) else { return };
        let mut watcher = watch.watcher();
        // Nobody waits for its end: it may hang in a disk.
        let started = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let work = || {
                TaskKind::Watch.begin();
                while tell.send(Ok(watcher.wait())).is_ok() {}
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = tell.send(Err(TaskKind::Watch.panicked(&*panic)));
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "watch: there is no thread for it, files are read when somebody says so");
        }
    }

    /// Waits until files say something else than when they were read.
    pub(super) async fn changed(&mut self) -> Result<Vec<PathBuf>, Lost> {
        match self.changes.recv().await {
            Some(changed) => changed,
            // There was no thread to be had, which was told.
            None => std::future::pending().await,
        }
    }
}
