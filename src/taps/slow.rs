//! Slow races on their way from the workers to whoever asks for them: a worker writes each as JSON into a buffer, and the writer
//! thread keeps it, with the late replies that follow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::buffers::{Appender, Exchange};
use super::in_memory::Keeper;
use super::traces::TraceSender;
use crate::metrics::Tap;
use crate::sight::slow::{LateReply, SlowRaces, ToldRace};

/// The slow races of a server: the way of the workers, and what is kept.
#[derive(Debug)]
pub(super) struct SlowTap {
    pub(super) exchange: Arc<Exchange>,
    races: Arc<Mutex<SlowRaces>>,
    /// Where they go besides, if there are traces.
    traces: Mutex<Option<Arc<TraceSender>>>,
}

impl SlowTap {
    /// The way from so many workers to what is kept.
    pub(super) fn new(races: Arc<Mutex<SlowRaces>>, workers: usize) -> Self {
        // Two buffers for each worker: they are handed over at once, and a second's races fit into a few.
        Self { exchange: Arc::new(Exchange::new(0, workers)), races, traces: Mutex::default() }
    }

    /// What is kept.
    pub(super) fn races(&self) -> &Arc<Mutex<SlowRaces>> {
        &self.races
    }

    /// Has races go there besides, from now on.
    pub(super) fn set_traces(&self, traces: Option<Arc<TraceSender>>) {
        *lock(&self.traces) = traces;
    }
}

/// A worker's part: what it tells, and how much of it.
#[derive(Debug)]
pub(super) struct SlowAppender {
    appender: Appender,
    /// When the present second began.
    second: Option<Instant>,
    /// The races that it has told of in that second.
    told: u32,
    /// How long the slowest of them took, the quickest of these on top. There is room for all from the start.
    slowest: BinaryHeap<Reverse<Duration>>,
}

impl SlowAppender {
    /// That of the worker of this number.
    pub(super) fn new(tap: &SlowTap, worker: usize) -> Self {
        Self {
            appender: Appender::new(Arc::clone(&tap.exchange), worker),
            second: None,
            told: 0,
            slowest: BinaryHeap::with_capacity(SLOWEST),
        }
    }

    /// Tells of a race that took so long, if it is among the slowest of this second so far. Returns whether it is told.
    pub(super) fn race(&mut self, told: &impl Serialize, took: Duration, now: Instant) -> bool {
        self.is_among_slowest(took, now) && self.append(RACE, told)
    }

    /// True if a race is among the slowest of its second so far, and notes it. It is not known yet which races follow: so those that
    /// slower ones push out are told too, and of races in any order these are few.
    fn is_among_slowest(&mut self, took: Duration, now: Instant) -> bool {
        if self.second.is_none_or(|began| now.saturating_duration_since(began) >= SECOND) {
            (self.second, self.told) = (Some(now), 0);
            self.slowest.clear();
        }
        if self.told >= A_SECOND {
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
        self.told += 1;
        true
    }

    /// Tells of a reply that came late to a race that was told.
    pub(super) fn late(&mut self, told: &impl Serialize) -> bool {
        self.append(LATE, told)
    }

    /// Appends a record, which may be written at once: there are few.
    fn append(&mut self, kind: u8, told: &impl Serialize) -> bool {
        let mut is_whole = false;
        let is_appended = self.appender.append(LONGEST, |out| {
            out.push(kind);
            is_whole = serde_json::to_writer(out, told).is_ok();
        });
        self.appender.park();
        is_appended && is_whole
    }
}

impl Keeper for SlowTap {
    const TAP: Tap = Tap::Slow;

    fn keep(&self, record: &[u8]) {
        let Some((kind, json)) = record.split_first() else { return };
        let traces = lock(&self.traces).clone();
        let mut races = lock(&self.races);
        match *kind {
            RACE => {
                if let Ok(told) = serde_json::from_slice::<ToldRace>(json) {
                    traces.iter().for_each(|traces| traces.race(&told));
                    races.insert(told);
                }
            }
            _ => {
                if let Ok(late) = serde_json::from_slice::<LateReply>(json) {
                    traces.iter().for_each(|traces| traces.late(&late));
                    races.join(&late);
                }
            }
        }
    }
}

/// What is kept, whatever has become of who held it.
pub fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The slowest races of a second that a worker tells of; the others are counted.
const SLOWEST: usize = 100;

/// Races that a worker tells of in a second at most, however they follow each other.
const A_SECOND: u32 = 1_000;

const SECOND: Duration = Duration::from_secs(1);

/// Octets of the longest record: a name of 255 octets, each escaped, and eight attempts with long labels.
const LONGEST: usize = 8 << 10;

/// A record of a race.
const RACE: u8 = 0;
/// A record of a late reply.
const LATE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker's part of a tap whose writer does not come.
    fn appender() -> SlowAppender {
        SlowAppender::new(&SlowTap::new(Arc::new(Mutex::new(SlowRaces::new(10))), 1), 0)
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_slowest_of_a_second_are_told_and_not_the_first() {
        let (mut worker, now) = (appender(), Instant::now());
        let mut tell = |millis, at| worker.is_among_slowest(millis * MS, at);
        assert!((0..100).all(|_| tell(2, now)), "there is room");
        assert!(!tell(2, now) && !tell(1, now), "they are no slower than any");
        assert!((0..100).all(|number| tell(50 + number, now)), "each is slower than one of the first");
        assert!(!tell(50, now) && tell(51, now));
        assert!(tell(1, now + SECOND), "another second has room");
    }

    #[test]
    fn races_of_which_each_is_slower_have_a_bound() {
        let (mut worker, now) = (appender(), Instant::now());
        let told = (0..5_000).filter(|number| worker.is_among_slowest(*number * MS, now)).count();
        assert_eq!(told, 1_000);
        assert_eq!(worker.slowest.len(), SLOWEST);
        assert!(worker.slowest.capacity() < 2 * SLOWEST, "nothing is allocated");
    }
}
