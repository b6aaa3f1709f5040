//! The latency of one backend for several workers. Each adds its replies in batches, and reads only the
//! quantiles that it uses.
//!
//! ```text
//! record ──▶ pending ──┐ lock                              ┌──▶ quantiles of this worker
//!                      ├──────▶ Samples ──▶ announced: n ──┤
//! record ──▶ pending ──┘                                   └──▶ quantiles of another worker
//! ```
//!
//! A worker publishes after [`BATCH`] replies, with the first reply [`PUBLISH_AFTER`] the previous
//! publication, and at once while fewer than [`MIN_SAMPLES`] replies are known. When it uses a quantile, it
//! compares one number, and reads again if that has changed. If another worker holds the lock, a worker goes
//! on with the values that it knows.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::window::{SampleSpan, Window};
use super::{LatencyImage, MIN_SAMPLES, REFRESH_EVERY, Samples, TimeBucket};
use crate::rules::AttemptTimeout;
use crate::survival::SurvivalCurve;
use crate::tuning::{BackendSample, HedgeRoom, LoadSlope, TunedHedge};

/// The recent latency of one backend for several workers, each with a
/// [`Latency::of_shared`](super::Latency::of_shared).
#[derive(Debug)]
pub struct SharedLatency {
    pub(super) began: Instant,
    history: Mutex<SharedHistory>,
    /// The number of the latest announcement; 0 before the first reply.
    announced: AtomicU64,
    tuned: TunedBits,
}

#[derive(Debug)]
struct SharedHistory {
    samples: Option<Box<Samples>>,
    announced: Option<Instant>,
    profile: Option<Box<LatencyProfile>>,
}

/// The measurements for a [tuning](crate::tuning), since the first one. They do not start anew when the
/// latency changes, because a queue that fills is such a change.
#[derive(Debug)]
struct LatencyProfile {
    window: Window,
    slope: LoadSlope,
}

/// A [`TunedHedge`], or zeros for none. The parts may for a moment be those of two tunings.
#[derive(Debug, Default)]
struct TunedBits {
    hedge: AtomicU64,
    room: AtomicU64,
}

impl TunedBits {
    fn set(&self, hedge: Option<TunedHedge>) {
        let Some(TunedHedge { medians, probability, room }) = hedge else { return self.hedge.store(0, Relaxed) };
        let HedgeRoom { most, slope, idle_micros } = room;
        self.room.store(u64::from(idle_micros) << 32 | u64::from(slope) << 16 | u64::from(most), Relaxed);
        self.hedge.store(u64::from(medians.to_bits()) << 32 | u64::from(probability.to_bits()) | IS_SET, Relaxed);
    }

    fn get(&self) -> Option<TunedHedge> {
        let (hedge, room) = (self.hedge.load(Relaxed), self.room.load(Relaxed));
        (hedge & IS_SET != 0).then(|| TunedHedge {
            medians: f32::from_bits((hedge >> 32) as u32),
            probability: f32::from_bits((hedge & !IS_SET) as u32),
            room: HedgeRoom { most: room as u16, slope: (room >> 16) as u16, idle_micros: (room >> 32) as u32 },
        })
    }
}

/// The sign of the probability.
const IS_SET: u64 = 1 << 31;

/// The shared latency as one worker uses it.
#[derive(Debug)]
pub(super) struct LatencyView {
    shared: Arc<SharedLatency>,
    own: OnceCell<Box<WorkerLatency>>,
}

#[derive(Debug, Default)]
struct WorkerLatency {
    pending: Vec<PendingReply>,
    unanswered: i32,
    /// The time from which a reply is published at once.
    due: Option<Instant>,
    known: KnownLatency,
}

#[derive(Clone, Copy, Debug)]
struct PendingReply {
    latency: Duration,
    bucket: TimeBucket,
    ahead: Option<u32>,
    at: Instant,
}

#[derive(Debug)]
struct KnownLatency {
    number: Cell<u64>,
    is_enough: Cell<bool>,
    retransmission_timeout: Cell<Duration>,
    quantiles: [Cell<Option<KnownQuantile>>; QUANTILES],
    /// The place of the next new quantile.
    next: Cell<usize>,
}

#[derive(Clone, Copy, Debug)]
struct KnownQuantile {
    part: f64,
    latency: Option<Duration>,
}

impl SharedLatency {
    /// Creates an empty history.
    pub fn new(now: Instant) -> Self {
        let history = Mutex::new(SharedHistory { samples: None, announced: None, profile: None });
        Self { began: now, history, announced: AtomicU64::new(0), tuned: TunedBits::default() }
    }

    /// Returns the measurements for a [tuning](crate::tuning), which begin with the first call; `None` with
    /// fewer than [`MIN_SAMPLES`] replies.
    pub fn sample(&self, site: u16, now: Instant) -> Option<BackendSample> {
        let mut history = self.lock();
        let SharedHistory { samples, profile, .. } = &mut *history;
        let begin = || LatencyProfile { window: Window::new(PROFILE, now), slope: LoadSlope::default() };
        let LatencyProfile { window, slope } = &mut **profile.get_or_insert_with(|| Box::new(begin()));
        let samples = samples.as_ref()?;
        let median = samples.quantile(0.5)?;
        let (replied, beaten) = window.counts();
        let (rate, load) = (window.rate(now), slope.load());
        drop(history);
        let replies = replied.iter().sum::<u64>();
        let curve = SurvivalCurve::of(&replied, &beaten);
        let sample = BackendSample { curve, replies, rate, median, load, site };
        (replies >= MIN_SAMPLES.into()).then_some(sample)
    }

    /// Sets the hedge of all workers; `None` for that of the budget.
    pub fn set_tuned(&self, hedge: Option<TunedHedge>) {
        self.tuned.set(hedge);
    }

    fn lock(&self) -> MutexGuard<'_, SharedHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, SharedHistory>> {
        match self.history.try_lock() {
            Ok(history) => Some(history),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Announces refreshed samples, seldom enough that workers use each announcement for many queries.
    fn announce(&self, history: &mut SharedHistory) {
        let SharedHistory { samples: Some(samples), announced, .. } = history else { return };
        let is_due = |at: Instant| samples.refreshed.saturating_duration_since(at) >= ANNOUNCE_AFTER;
        if samples.is_refreshed && (samples.short.replies() < FEW || announced.is_none_or(is_due)) {
            samples.is_refreshed = false;
            *announced = Some(samples.refreshed);
            self.announced.fetch_add(1, Relaxed);
        }
    }
}

impl LatencyProfile {
    fn add(&mut self, unanswered: i32, replies: &[PendingReply]) {
        match unanswered {
            0.. => (0..unanswered).for_each(|_| self.window.add_unanswered()),
            _ => (unanswered..0).for_each(|_| self.window.take_unanswered()),
        }
        for PendingReply { latency, bucket: TimeBucket(bucket), ahead, at } in replies {
            self.window.add(*bucket, *at);
            ahead.iter().for_each(|ahead| self.slope.add(*ahead, *latency));
        }
    }
}

impl LatencyView {
    pub(super) fn new(shared: &Arc<SharedLatency>) -> Self {
        Self { shared: Arc::clone(shared), own: OnceCell::new() }
    }

    #[inline(never)]
    pub(super) fn record(&mut self, latency: Duration, ahead: Option<u32>, now: Instant) -> TimeBucket {
        let (own, shared) = self.own_mut();
        let bucket = TimeBucket::of(latency);
        own.pending.push(PendingReply { latency, bucket, ahead, at: now });
        if own.pending.len() >= BATCH || !own.known.is_enough.get() || own.due.is_none_or(|due| now >= due) {
            let history = if own.pending.len() < MAX_PENDING { shared.try_lock() } else { Some(shared.lock()) };
            history.into_iter().for_each(|mut history| own.publish(shared, &mut history));
        }
        bucket
    }

    /// Adds to the number of abandoned attempts.
    #[inline(never)]
    pub(super) fn add_unanswered(&mut self, change: i32) {
        let (own, _) = self.own_mut();
        own.unanswered = own.unanswered.saturating_add(change);
    }

    /// Publishes all that is pending.
    pub(super) fn publish(&mut self) {
        if let Some(own) = self.own.get_mut() {
            own.publish(&self.shared, &mut self.shared.lock());
        }
    }

    #[inline(never)]
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        let known = self.known()?;
        let found = known.quantiles.iter().filter_map(Cell::get).find(|quantile| quantile.part == part);
        found.map_or_else(|| self.read_new(known, part), |quantile| quantile.latency)
    }

    #[inline(never)]
    pub(super) fn retransmission_timeout(&self) -> Duration {
        self.known().map_or(AttemptTimeout::LONGEST, |known| known.retransmission_timeout.get())
    }

    pub(super) fn tuned(&self) -> Option<TunedHedge> {
        self.shared.tuned.get()
    }

    #[inline(never)]
    pub(super) fn take_early_attempt(&self, least: f64) -> bool {
        self.shared.lock().samples.as_ref().is_some_and(|samples| samples.take_early_attempt(least))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.shared.announced.load(Relaxed) == 0
    }

    pub(super) fn image(&self, now: Instant) -> LatencyImage {
        Samples::image(self.shared.lock().samples.as_deref(), now)
    }

    pub(super) fn learn(&self, image: &LatencyImage, now: Instant) {
        let mut history = self.shared.lock();
        Samples::adopt(&mut history.samples, image, now);
        self.shared.announce(&mut history);
    }

    fn own_mut(&mut self) -> (&mut WorkerLatency, &SharedLatency) {
        self.own.get_or_init(WorkerLatency::new);
        (self.own.get_mut().expect("it was just created"), &self.shared)
    }

    /// Returns the latest announced values; `None` before the first reply to any worker.
    #[inline]
    fn known(&self) -> Option<&KnownLatency> {
        let announced = self.shared.announced.load(Relaxed);
        if announced == 0 {
            return None;
        }
        let known = &self.own.get_or_init(WorkerLatency::new).known;
        if known.number.get() != announced {
            self.read_again(known);
        }
        Some(known)
    }

    #[cold]
    #[inline(never)]
    fn read_again(&self, known: &KnownLatency) {
        if let Some(history) = self.shared.try_lock() {
            known.read(&self.shared, &history);
        }
    }

    /// Reads a quantile that is used for the first time, and keeps it in place of another.
    #[cold]
    #[inline(never)]
    fn read_new(&self, known: &KnownLatency, part: f64) -> Option<Duration> {
        let latency = self.shared.lock().samples.as_ref()?.quantile(part);
        known.quantiles[known.next.get()].set(Some(KnownQuantile { part, latency }));
        known.next.set((known.next.get() + 1) % QUANTILES);
        latency
    }
}

impl Clone for LatencyView {
    /// Returns the view of another worker: the pending replies are published once.
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl WorkerLatency {
    /// Creates a view with room for all pending replies, so that a reply allocates nothing.
    fn new() -> Box<Self> {
        Box::new(Self { pending: Vec::with_capacity(MAX_PENDING), ..Self::default() })
    }

    fn publish(&mut self, shared: &SharedLatency, history: &mut SharedHistory) {
        if self.pending.is_empty() && self.unanswered == 0 {
            return;
        }
        let samples = history.samples.get_or_insert_with(|| Box::new(Samples::new(shared.began)));
        let unanswered = std::mem::take(&mut self.unanswered);
        match unanswered {
            0.. => (0..unanswered).for_each(|_| samples.give_up()),
            _ => (unanswered..0).for_each(|_| samples.forgive()),
        }
        for reply in &self.pending {
            samples.record(reply.latency, reply.bucket, reply.at);
        }
        if let Some(profile) = &mut history.profile {
            profile.add(unanswered, &self.pending);
        }
        self.due = self.pending.last().map(|reply| reply.at + PUBLISH_AFTER).or(self.due);
        self.pending.clear();
        shared.announce(history);
        if self.known.number.get() != shared.announced.load(Relaxed) {
            self.known.read(shared, history);
        }
    }
}

impl KnownLatency {
    /// Reads the history again, whose lock the caller holds.
    fn read(&self, shared: &SharedLatency, history: &SharedHistory) {
        let Some(samples) = &history.samples else { return };
        self.number.set(shared.announced.load(Relaxed));
        self.is_enough.set(samples.short.replies() >= MIN_SAMPLES);
        self.retransmission_timeout.set(samples.retransmission.timeout());
        for place in &self.quantiles {
            let part = place.get().map(|known| known.part);
            place.set(part.map(|part| KnownQuantile { part, latency: samples.quantile(part) }));
        }
    }
}

impl Default for KnownLatency {
    fn default() -> Self {
        Self {
            number: Cell::new(0),
            is_enough: Cell::new(false),
            retransmission_timeout: Cell::new(AttemptTimeout::LONGEST),
            quantiles: [const { Cell::new(None) }; QUANTILES],
            next: Cell::new(0),
        }
    }
}

/// Replies in a publication: a change of latency is found at most so many replies later.
const BATCH: usize = 16;

/// The number of pending replies with which a worker waits for the lock.
const MAX_PENDING: usize = 2 * BATCH;

/// With a queue of tens of milliseconds, a later publication is too late: the delays are too short, and each
/// needless hedge makes the queue longer.
const PUBLISH_AFTER: Duration = Duration::from_millis(2);

/// With 16 workers at 10,000 replies/s each, the samples are refreshed 2,500 times a second.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(10);

/// With fewer replies, at the start or after a change, each refresh is announced.
const FEW: u32 = 2 * REFRESH_EVERY;

/// For p99.9: 16 to 32 replies above it, or a minute.
const PROFILE: SampleSpan = SampleSpan {
    enough: 16_384,
    shortest: Duration::from_secs(5),
    few: 1_024,
    usual: Duration::from_secs(60),
    longest: Duration::from_secs(600),
};

/// The quantiles that a worker keeps: of the hedge delay, of `grace`, of stalls, and one for `ctl explain`.
const QUANTILES: usize = 4;

#[cfg(test)]
mod tests;
