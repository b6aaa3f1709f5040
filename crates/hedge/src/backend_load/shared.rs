//! The load of one backend for several workers.
//!
//! ```text
//! asked, ended ──▶ attempts of this worker ───┐
//! asked, ended ──▶ attempts of another one ───┼──▶ others, read again after READ_AFTER
//! ended ─────────▶ latency, errors, heard ────┴──▶ each worker, when it uses them
//! ```
//!
//! Each worker writes the number of its own attempts, without waiting for other workers. The other values
//! change seldom: the latency after [`TICK`] or by a new peak, the errors while there are any, and the time
//! of the last reply after [`HEARD_AFTER`]. If two workers write one of them at the same moment, one sample
//! is lost.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Errors, PeakEwma};

/// The load of one backend for several workers, each with a
/// [`BackendLoad::of_shared`](super::BackendLoad::of_shared).
#[derive(Debug)]
pub struct SharedLoad {
    began: Instant,
    /// The seconds of the [`PeakEwma`], packed with the time of their last change.
    latency: AtomicU64,
    /// The share of [`Errors`], packed in the same way.
    errors: AtomicU64,
    /// The time of the last reply in nanoseconds after `began`; 0 before the first one.
    heard: AtomicU64,
    /// The number of open attempts of each worker, packed with the time since which none was answered.
    open: Box<[AtomicU64]>,
}

/// The shared load as one worker uses it.
#[derive(Debug)]
pub(super) struct LoadView {
    shared: Arc<SharedLoad>,
    worker: usize,
    others: Cell<OpenAttempts>,
    /// The time at which `others` was read.
    read: Cell<Option<Instant>>,
    /// The values that the worker has read or written last.
    latency: u64,
    errors: u64,
}

/// The open attempts of one worker, or of several.
#[derive(Clone, Copy, Debug, Default)]
struct OpenAttempts {
    count: u32,
    /// The time since which none of them was answered.
    silent_since: Option<Instant>,
}

impl SharedLoad {
    /// Creates the load of an idle backend without history, for so many workers.
    pub fn new(workers: usize, now: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        let open = (0..workers).map(|_| zero()).collect();
        Self { began: now, latency: zero(), errors: zero(), heard: zero(), open }
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Packs a value with a time in ticks, which wrap.
    fn pack(&self, value: u32, at: Instant) -> u64 {
        let ticks = (self.nanos(at) + TICK / 2) / TICK;
        u64::from(value) << 32 | ticks & u64::from(u32::MAX)
    }

    /// Returns a packed value and its time, which is less than 26 days ago.
    fn unpack(&self, packed: u64, now: Instant) -> (u32, Instant) {
        let ticks = self.nanos(now) / TICK;
        let after = (packed as u32).wrapping_sub(ticks as u32).cast_signed();
        let at = ticks.saturating_add_signed(after.into());
        ((packed >> 32) as u32, self.began + Duration::from_nanos(at * TICK))
    }

    fn peak(&self, packed: u64, now: Instant) -> PeakEwma {
        let (seconds, updated) = self.unpack(packed, now);
        PeakEwma { seconds: f32::from_bits(seconds).into(), updated }
    }

    fn share(&self, packed: u64, now: Instant) -> Errors {
        let (part, updated) = self.unpack(packed, now);
        Errors { part: f32::from_bits(part).into(), updated }
    }

    /// Returns the time of the last reply to any worker.
    fn heard(&self) -> Option<Instant> {
        match self.heard.load(Relaxed) {
            0 => None,
            nanos => Some(self.began + Duration::from_nanos(nanos)),
        }
    }
}

impl LoadView {
    pub(super) fn new(shared: &Arc<SharedLoad>, worker: usize) -> Self {
        shared.open[worker].store(0, Relaxed);
        let (others, read) = (Cell::default(), Cell::new(None));
        Self { shared: Arc::clone(shared), worker, others, read, latency: 0, errors: 0 }
    }

    /// Publishes the open attempts of this worker.
    pub(super) fn publish_open(&self, count: u32, silent_since: Option<Instant>) {
        let open = silent_since.map_or(0, |since| self.shared.pack(count, since));
        self.shared.open[self.worker].store(open, Relaxed);
    }

    /// Publishes the time of a reply.
    pub(super) fn publish_heard(&self, now: Instant) {
        let nanos = self.shared.nanos(now);
        if nanos.saturating_sub(self.shared.heard.load(Relaxed)) >= HEARD_AFTER {
            self.shared.heard.store(nanos, Relaxed);
        }
    }

    /// Reads the results that other workers have published.
    pub(super) fn read_results(&mut self, latency: &mut PeakEwma, errors: &mut Errors, now: Instant) {
        let shared = &self.shared;
        let packed = shared.latency.load(Relaxed);
        if packed != self.latency {
            (self.latency, *latency) = (packed, shared.peak(packed, now));
        }
        let packed = shared.errors.load(Relaxed);
        if packed != self.errors {
            (self.errors, *errors) = (packed, shared.share(packed, now));
        }
    }

    /// Publishes the results after those that were read, if they differ enough.
    pub(super) fn publish_results(&mut self, latency: &PeakEwma, errors: &Errors) {
        let shared = &self.shared;
        let packed = shared.pack((latency.seconds as f32).to_bits(), latency.updated);
        let is_due = packed as u32 != self.latency as u32 || packed > self.latency;
        if is_due && shared.latency.compare_exchange(self.latency, packed, Relaxed, Relaxed).is_ok() {
            self.latency = packed;
        }
        let part = if errors.part < NO_ERRORS { 0.0 } else { errors.part as f32 };
        let packed = if part > 0.0 { shared.pack(part.to_bits(), errors.updated) } else { 0 };
        if packed != self.errors && shared.errors.compare_exchange(self.errors, packed, Relaxed, Relaxed).is_ok() {
            self.errors = packed;
        }
    }

    #[inline(never)]
    pub(super) fn latency(&self, known: &PeakEwma, now: Instant) -> f64 {
        let packed = self.shared.latency.load(Relaxed);
        if packed == self.latency { known.cost(now) } else { self.shared.peak(packed, now).cost(now) }
    }

    #[inline(never)]
    pub(super) fn errors(&self, known: &Errors, now: Instant) -> f64 {
        let packed = self.shared.errors.load(Relaxed);
        if packed == self.errors { known.value(now) } else { self.shared.share(packed, now).value(now) }
    }

    /// Returns the number of open attempts of the other workers.
    #[inline(never)]
    pub(super) fn in_flight_of_others(&self, now: Instant) -> u32 {
        self.others(now).count
    }

    /// Returns the time since which no attempt of any worker was answered.
    #[inline(never)]
    pub(super) fn silent_since(&self, own: Option<Instant>, now: Instant) -> Option<Instant> {
        let since = own.into_iter().chain(self.others(now).silent_since).min()?;
        Some(self.shared.heard().map_or(since, |heard| since.max(heard)))
    }

    /// Returns true if a worker got a reply after this time.
    pub(super) fn was_heard_since(&self, asked: Instant) -> bool {
        self.shared.heard().is_some_and(|heard| heard > asked)
    }

    fn others(&self, now: Instant) -> OpenAttempts {
        let is_recent = |read| now.saturating_duration_since(read) < READ_AFTER;
        if !self.read.get().is_some_and(is_recent) {
            self.read.set(Some(now));
            self.others.set(self.read_others(now));
        }
        self.others.get()
    }

    #[cold]
    #[inline(never)]
    fn read_others(&self, now: Instant) -> OpenAttempts {
        let ticks = (self.shared.nanos(now) / TICK) as u32;
        let age = |open: u64| ticks.wrapping_sub(open as u32).cast_signed();
        let (before, own_and_after) = self.shared.open.split_at(self.worker);
        let others = before.iter().chain(&own_and_after[1..]).map(|open| open.load(Relaxed));
        let others = others.filter(|open| *open != 0);
        let (mut count, mut oldest) = (0, None);
        for open in others {
            count += (open >> 32) as u32;
            oldest = oldest.filter(|oldest| age(*oldest) >= age(open)).or(Some(open));
        }
        OpenAttempts { count, silent_since: oldest.map(|open| self.shared.unpack(open, now).1) }
    }
}

impl Drop for LoadView {
    /// Forgets the open attempts of a worker that ends.
    fn drop(&mut self) {
        self.shared.open[self.worker].store(0, Relaxed);
    }
}

/// At 50,000 queries a second, 16 workers that read after 4 ms send too many queries to a backend that was
/// idle: at 70 % of the capacity, the median rises by 8 %.
const READ_AFTER: Duration = Duration::from_millis(1);

/// The resolution of published times, in nanoseconds: about a millisecond.
const TICK: u64 = 1 << 20;

/// The least time between two published replies, in nanoseconds: so many that a cache line moves seldom.
const HEARD_AFTER: u64 = 1 << 18;

/// A share of errors that costs less than a microsecond.
const NO_ERRORS: f64 = 1e-5;

#[cfg(test)]
mod tests;
