//! Detects workers that make no progress: the control thread pings each worker once a second.
//!
//! A worker that does not answer hangs, for instance in an endless loop. Its clients get no answers, and
//! other workers must not read its sockets because it may resume at any moment. So the server reports it to
//! whatever supervises the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Heartbeat {
    asked: u64,
    since: Instant,
    answered: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(crate) struct Ping {
    number: u64,
    answered: Arc<AtomicU64>,
}

impl Ping {
    pub(crate) fn answer(&self) {
        self.answered.store(self.number, Relaxed);
    }
}

impl Heartbeat {
    pub(crate) fn new(now: Instant) -> Self {
        Self { asked: 0, since: now, answered: Arc::default() }
    }

    /// Returns the next ping, unless the last one is still unanswered.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<Ping> {
        if self.is_waiting() {
            return None;
        }
        (self.asked, self.since) = (self.asked + 1, now);
        Some(Ping { number: self.asked, answered: Arc::clone(&self.answered) })
    }

    /// Returns the age of an unanswered ping if a busy worker would have answered by now.
    pub(crate) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.since);
        (self.is_waiting() && waited >= STALL).then_some(waited)
    }

    fn is_waiting(&self) -> bool {
        self.answered.load(Relaxed) != self.asked
    }
}

/// Far more than the longest tick of a worker on a busy machine.
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
