//! Whether a worker makes progress: the control thread asks it each second, and whoever answers is well.
//!
//! A worker that is asked and says nothing hangs: in a loop without end, say. No client of its gets an answer, and no other
//! worker may read its sockets while it could go on at any moment. So that is shown, and left to whoever watches the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What one worker was asked, and has answered.
#[derive(Debug)]
pub(super) struct Heartbeat {
    /// The number of the last question.
    asked: u64,
    /// When that was.
    since: Instant,
    /// The number of the last answer.
    answered: Arc<AtomicU64>,
}

/// A question to a worker, whether it makes progress.
#[derive(Debug)]
pub(super) struct Ping {
    number: u64,
    answered: Arc<AtomicU64>,
}

impl Ping {
    /// It does.
    pub(super) fn answer(&self) {
        self.answered.store(self.number, Relaxed);
    }
}

impl Heartbeat {
    /// Of a worker that has just begun.
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: 0, since: now, answered: Arc::default() }
    }

    /// The next question, unless the last one waits for its answer still.
    pub(super) fn ask(&mut self, now: Instant) -> Option<Ping> {
        if self.is_waiting() {
            return None;
        }
        (self.asked, self.since) = (self.asked + 1, now);
        Some(Ping { number: self.asked, answered: Arc::clone(&self.answered) })
    }

    /// For how long the worker has owed an answer, if that is longer than a worker that is only busy takes.
    pub(super) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.since);
        (self.is_waiting() && waited >= STALL).then_some(waited)
    }

    fn is_waiting(&self) -> bool {
        self.answered.load(Relaxed) != self.asked
    }
}

/// Who says nothing for so long hangs. Far more than the longest tick of a worker, on a machine that is busy with other things.
const STALL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_owes_an_answer_for_long_hangs() {
        let (start, s) = (Instant::now(), Duration::from_secs);
        let mut heartbeat = Heartbeat::new(start);
        assert_eq!(heartbeat.stalled_for(start + s(60)), None, "it was not asked");
        let first = heartbeat.ask(start + s(60)).expect("nothing is owed");
        assert!(heartbeat.ask(start + s(61)).is_none(), "one question at a time");
        assert_eq!(heartbeat.stalled_for(start + s(69)), None);
        assert_eq!(heartbeat.stalled_for(start + s(70)), Some(s(10)));
        first.answer();
        assert_eq!(heartbeat.stalled_for(start + s(71)), None);
        assert!(heartbeat.ask(start + s(71)).is_some());
        assert_eq!(heartbeat.stalled_for(start + s(82)), Some(s(11)));
    }
}
