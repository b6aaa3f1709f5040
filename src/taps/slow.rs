//! Slow races on their way from the workers to whoever asks for them: a worker writes each as JSON into a buffer, and the writer
//! thread keeps it, with the late replies that follow.

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
    /// The second that is counted, and the races that were told in it.
    second: Option<(Instant, u32)>,
}

impl SlowAppender {
    /// That of the worker of this number.
    pub(super) fn new(tap: &SlowTap, worker: usize) -> Self {
        Self { appender: Appender::new(Arc::clone(&tap.exchange), worker), second: None }
    }

    /// Tells of a race, unless there were too many in this second. Returns whether it is told.
    pub(super) fn race(&mut self, told: &impl Serialize, now: Instant) -> bool {
        let (began, races) = match self.second {
            Some((began, races)) if now.saturating_duration_since(began) < SECOND => (began, races),
            Some(_) | None => (now, 0),
        };
        if races >= A_SECOND {
            return false;
        }
        self.second = Some((began, races + 1));
        self.append(RACE, told)
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

/// Races that a worker tells of in a second; those beyond are counted.
const A_SECOND: u32 = 100;

const SECOND: Duration = Duration::from_secs(1);

/// Octets of the longest record: a name of 255 octets, each escaped, and eight attempts with long labels.
const LONGEST: usize = 8 << 10;

/// A record of a race.
const RACE: u8 = 0;
/// A record of a late reply.
const LATE: u8 = 1;
