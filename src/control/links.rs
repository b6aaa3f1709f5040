//! The means that all parts of the server share.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use net::tasks::Tasks;
use tokio::sync::Notify;

use super::process::ReloadOrder;
use super::workers::WorkerChannels;
use crate::admin::HealthCondition;
use crate::worker::ForwarderCommand;

/// The means that all parts of the server share. Clones are the same means.
#[derive(Clone)]
pub(super) struct ServerLinks {
    /// The tasks of the control thread.
    pub(super) tasks: Tasks,
    pub(super) workers: WorkerChannels,
    pub(super) condition: Arc<HealthCondition>,
    /// Signaled when other processes must get the changes by operators and the states of backends again.
    pub(super) known_changes: Rc<Notify>,
    pub(super) reload_thread: Sender<ReloadOrder>,
}

impl ServerLinks {
    pub(super) fn new(workers: usize, reload_thread: Sender<ReloadOrder>) -> Self {
        Self {
            tasks: Tasks::default(),
            workers: WorkerChannels::new(workers),
            condition: Arc::default(),
            known_changes: Rc::default(),
            reload_thread,
        }
    }

    /// Makes the workers and other processes read the health of backends again.
    pub(super) fn refresh(&self) {
        self.known_changes.notify_one();
        self.workers.broadcast(|| ForwarderCommand::Refresh);
    }

    /// Sends replaced state to the reload thread, which frees it after its last use: that takes long.
    pub(super) fn free(&self, old: Arc<impl Any + Send + Sync>) {
        // A thread that has ended reports that itself.
        let _ = self.reload_thread.send(ReloadOrder::Free(old));
    }
}
