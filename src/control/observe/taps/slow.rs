//! The path of slow races from the workers: a worker writes each as JSON into a buffer, and the writer thread
//! keeps it, with the late replies that follow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::slow::{LateReply, ReportedRace, SlowRaces};
use metrics::Tap;
use serde::Serialize;

use super::buffers::{Appender, BufferExchange};
use super::sinks::Framing;
use super::traces::TraceSender;
use super::writer::RecordTap;

/// The buffers of the workers, and the kept slow races.
#[derive(Debug)]
pub(super) struct SlowTap {
    exchange: Arc<BufferExchange>,
    pub(super) races: Arc<Mutex<SlowRaces>>,
    pub(super) traces: Mutex<Option<Arc<TraceSender>>>,
}

impl SlowTap {
    pub(super) fn new(keep: usize, workers: usize) -> Self {
        // Two buffers for each worker: a record is handed over at once, and the races of a second fit into a
        // few.
        let exchange = Arc::new(BufferExchange::new(Framing::Frames, 0, workers));
        Self { exchange, races: Arc::new(Mutex::new(SlowRaces::new(keep))), traces: Mutex::default() }
    }
}

/// A worker's part, with a limit on its records.
#[derive(Debug)]
pub(super) struct SlowAppender {
    appender: Appender,
    second: Option<Instant>,
    reported: u32,
    /// The durations of its slowest races, the quickest on top. Allocated at the start.
    slowest: BinaryHeap<Reverse<Duration>>,
}

impl SlowAppender {
    pub(super) fn new(tap: &SlowTap, worker: usize) -> Self {
        Self {
            appender: Appender::new(Arc::clone(&tap.exchange), worker),
            second: None,
            reported: 0,
            slowest: BinaryHeap::with_capacity(SLOWEST),
        }
    }

    /// Appends a race if it is among the slowest of this second so far. Returns true if it is recorded.
    pub(super) fn race<T: Serialize>(&mut self, value: impl FnOnce() -> T, took: Duration, now: Instant) -> bool {
        self.is_among_slowest(took, now) && self.append(RACE, &value())
    }

    /// Returns true if a race is among the slowest of its second so far, and notes it. Later races are
    /// unknown: so races that slower ones push out are recorded too, which are few in random order.
    fn is_among_slowest(&mut self, took: Duration, now: Instant) -> bool {
        if self.second.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            (self.second, self.reported) = (Some(now), 0);
            self.slowest.clear();
        }
        if self.reported >= A_SECOND {
            return false;
        }
        if self.slowest.len() < SLOWEST {
            self.slowest.push(Reverse(took));
        } else {
            match self.slowest.peek_mut() {
                Some(mut quickest) if quickest.0 < took => *quickest = Reverse(took),
                Some(_) | None => return false,
            }
        }
        self.reported += 1;
        true
    }

    pub(super) fn late(&mut self, value: &impl Serialize) -> bool {
        self.append(LATE, value)
    }

    /// Appends a record, which is handed over at once because there are few.
    fn append(&mut self, kind: u8, value: &impl Serialize) -> bool {
        let mut is_whole = false;
        let is_appended = self.appender.append(LONGEST, |out| {
            out.push(kind);
            is_whole = serde_json::to_writer(out, value).is_ok();
        });
        self.appender.park();
        is_appended && is_whole
    }
}

impl RecordTap for SlowTap {
    fn tap(&self) -> Tap {
        Tap::Slow
    }

    fn exchange(&self) -> &Arc<BufferExchange> {
        &self.exchange
    }

    fn take(&self, record: &[u8]) {
        let traces = lock(&self.traces).clone();
        let mut races = lock(&self.races);
        match record.split_first() {
            Some((&RACE, json)) => {
                if let Ok(race) = serde_json::from_slice::<ReportedRace>(json) {
                    traces.iter().for_each(|traces| traces.race(&race));
                    races.insert(race);
                }
            }
            Some((_, json)) => {
                if let Ok(late) = serde_json::from_slice::<LateReply>(json) {
                    traces.iter().for_each(|traces| traces.late(&late));
                    races.join(&late);
                }
            }
            None => {}
        }
    }
}

/// Locks a mutex even if its last owner panicked.
pub fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The slowest races of a second that a worker records; the others are only counted.
const SLOWEST: usize = 100;

/// The limit of recorded races per second and worker, in any order.
const A_SECOND: u32 = 1_000;

const SECOND: Duration = Duration::from_secs(1);

/// The longest record: a name of 255 bytes, each escaped, and eight attempts with long labels.
const LONGEST: usize = 8 << 10;

const RACE: u8 = 0;
const LATE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a worker's part of a tap without a writer.
    fn appender() -> SlowAppender {
        SlowAppender::new(&SlowTap::new(10, 1), 0)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_slowest_of_a_second_are_told_and_not_the_first() {
        let (mut worker, now) = (appender(), Instant::now());
        let mut is_kept = |millis, at| worker.is_among_slowest(millis * MS, at);
        assert!((0..100).all(|_| is_kept(2, now)), "there is room");
        assert!(!is_kept(2, now) && !is_kept(1, now), "they are no slower than any");
        assert!((0..100).all(|number| is_kept(50 + number, now)), "each is slower than one of the first");
        assert!(!is_kept(50, now) && is_kept(51, now));
        assert!(is_kept(1, now + SECOND), "another second has room");
    }

    #[test]
    fn races_of_which_each_is_slower_have_a_bound() {
        let (mut worker, now) = (appender(), Instant::now());
        let reported = (0..5_000).filter(|number| worker.is_among_slowest(*number * MS, now)).count();
        assert_eq!(reported, 1_000);
        assert_eq!(worker.slowest.len(), SLOWEST);
        assert!(worker.slowest.capacity() < 2 * SLOWEST, "nothing is allocated");
    }
}
