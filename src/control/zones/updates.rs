//! Batches updates of secondary zones. Each batch makes a new state of its authority, which takes longer with
//! more zones.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep_until;

use crate::control::zones::secondary::ZoneUpdate;

pub(in crate::control) struct Updates {
    receiver: UnboundedReceiver<ZoneUpdate>,
    waiting: Vec<ZoneUpdate>,
    not_before: Instant,
}

impl Updates {
    pub(in crate::control) fn new(receiver: UnboundedReceiver<ZoneUpdate>) -> Self {
        Self { receiver, waiting: Vec::new(), not_before: Instant::now() }
    }

    /// Waits for updates. Cancel safe.
    pub(in crate::control) async fn next(&mut self) -> Vec<ZoneUpdate> {
        if self.waiting.is_empty() {
            match self.receiver.recv().await {
                Some(update) => self.waiting.push(update),
                // The senders live as long as the server.
                None => std::future::pending().await,
            }
        }
        sleep_until(self.not_before.into()).await;
        self.take_waiting()
    }

    pub(in crate::control) fn take_waiting(&mut self) -> Vec<ZoneUpdate> {
        while self.waiting.len() < MAX
            && let Ok(update) = self.receiver.try_recv()
        {
            self.waiting.push(update);
        }
        std::mem::take(&mut self.waiting)
    }

    /// Delays the next batch by ten times the duration of the last, so that updates never use most of the
    /// thread.
    pub(in crate::control) fn took(&mut self, time: Duration) {
        self.not_before = Instant::now() + (time * 10).min(MAX_WAIT);
    }
}

const MAX: usize = 4_096;

const MAX_WAIT: Duration = Duration::from_millis(200);
