//! Updates of zones of other servers, taken together: each makes a new state of its authority, which takes the longer the more zones
//! that has. With thousands of zones, those that come while one state is made share the next.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep_until;

use crate::secondary::ZoneUpdate;

/// Updates that have come, and when the next are taken.
pub(super) struct Updates {
    receiver: UnboundedReceiver<ZoneUpdate>,
    /// Those that wait.
    waiting: Vec<ZoneUpdate>,
    /// Before this none are taken.
    not_before: Instant,
}

impl Updates {
    /// None yet.
    pub(super) fn new(receiver: UnboundedReceiver<ZoneUpdate>) -> Self {
        Self { receiver, waiting: Vec::new(), not_before: Instant::now() }
    }

    /// Waits for updates. Nothing is lost if nobody waits to the end.
    pub(super) async fn next(&mut self) -> Vec<ZoneUpdate> {
        if self.waiting.is_empty() {
            match self.receiver.recv().await {
                Some(update) => self.waiting.push(update),
                // Whoever sends them lives as long as the server.
                None => std::future::pending().await,
            }
        }
        sleep_until(self.not_before.into()).await;
        self.take_waiting()
    }

    /// Those that have come by now.
    pub(super) fn take_waiting(&mut self) -> Vec<ZoneUpdate> {
        while self.waiting.len() < MAX
            && let Ok(update) = self.receiver.try_recv()
        {
            self.waiting.push(update);
        }
        std::mem::take(&mut self.waiting)
    }

    /// The last ones took so long to put in force: the next wait ten times that, so that they never take most of the thread.
    pub(super) fn took(&mut self, time: Duration) {
        self.not_before = Instant::now() + (time * 10).min(MAX_WAIT);
    }
}

/// Updates that are taken at a time.
const MAX: usize = 4_096;

/// How long an update waits at most for others.
const MAX_WAIT: Duration = Duration::from_millis(200);
