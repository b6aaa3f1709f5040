//! The thread that watches the files of the config and requests a reload when they change (`watch = true`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::load::FileWatch;
use crate::net::tasks::{LostTask, TaskKind};

pub(in crate::server) struct Watching {
    watch: Option<FileWatch>,
    /// Unbounded: the thread sends a few times a second at most, and this thread receives at once.
    changes: UnboundedReceiver<Result<Vec<PathBuf>, LostTask>>,
    sender: Option<UnboundedSender<Result<Vec<PathBuf>, LostTask>>>,
}

impl Watching {
    pub(in crate::server) fn new(watch: Option<FileWatch>) -> Self {
        let (sender, changes) = unbounded_channel();
        Self { watch, changes, sender: Some(sender) }
    }

    pub(in crate::server) fn set_on(&mut self, is_on: bool) {
        let Some(watch) = &self.watch else { return };
        watch.set_on(is_on);
        let Some(sender) = self.sender.take_if(|_| is_on) else { return };
        let mut watcher = watch.watcher();
        // Never joined: it may hang on a disk.
        let started = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let work = || {
                TaskKind::Watch.begin();
                while sender.send(Ok(watcher.wait())).is_ok() {}
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = sender.send(Err(TaskKind::Watch.panicked(&*panic)));
            }
        });
        if let Err(error) = started {
            tracing::error!(%error, "watch: the thread cannot start, so changed files are read only on reload");
        }
    }

    pub(in crate::server) async fn changed(&mut self) -> Result<Vec<PathBuf>, LostTask> {
        match self.changes.recv().await {
            Some(changed) => changed,
            // The thread could not start, which was logged.
            None => std::future::pending().await,
        }
    }
}
