//! The recent reply latency of one backend, for one worker or [shared](SharedLatency) by several.
//!
//! Common percentiles come from a short window, which reacts quickly; rare ones come from a long window with
//! enough samples. If most of the latest replies took an unusual time, both windows restart with those.
//!
//! An abandoned attempt counts as later than every reply until its reply arrives, but never lifts a
//! percentile far (see [`Latency::quantile`]), because a backend that loses half of its requests would never
//! be hedged.

mod recent;
mod retransmission;
mod shared;
mod window;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::recent::Recent;
use self::retransmission::Retransmission;
use self::shared::LatencyView;
use self::window::{SampleSpan, Window, WindowImage, bucket};
use super::backend_load::{AttemptEnd, BackendLoad};
use super::rules::{AttemptTimeout, Hedge, HedgeDelay};
use super::tuning::TunedHedge;

pub use self::shared::SharedLatency;
pub(crate) use self::window::{BUCKETS, Buckets};

/// The recent latency of one backend: 10 KiB, allocated with the first sample, or a view of
/// [`SharedLatency`].
#[derive(Clone, Debug)]
pub struct Latency {
    began: Instant,
    samples: Option<Box<Samples>>,
    shared: Option<LatencyView>,
}

#[derive(Clone, Debug)]
struct Samples {
    short: Window,
    long: Window,
    recent: Recent,
    stale: u32,
    refreshed: Instant,
    is_refreshed: bool,
    cached: Cell<Option<LatencyReport>>,
    retransmission: Retransmission,
}

#[derive(Clone, Copy, Debug)]
struct LatencyReport {
    part: f64,
    unanswered: u32,
    latency: Duration,
}

impl Latency {
    /// Creates an empty history.
    pub fn new(now: Instant) -> Self {
        Self { began: now, samples: None, shared: None }
    }

    /// Creates the view of one worker. It adds its replies and reads those of all workers.
    pub fn of_shared(shared: &Arc<SharedLatency>) -> Self {
        Self { began: shared.began, samples: None, shared: Some(LatencyView::new(shared)) }
    }

    /// Shares the latest replies with other workers now, instead of within some replies or 100 ms.
    pub fn publish(&mut self) {
        self.shared.iter_mut().for_each(LatencyView::publish);
    }

    /// Records the latency of a reply, and returns its bucket.
    pub fn record(&mut self, latency: Duration, now: Instant) -> TimeBucket {
        let samples = match (&mut self.samples, &mut self.shared) {
            (Some(samples), _) => samples,
            (None, Some(shared)) => return shared.record(latency, None, now),
            (None, None) => self.samples_mut(),
        };
        let bucket = TimeBucket::of(latency);
        samples.record(latency, bucket, now);
        bucket
    }

    /// Records the latency of a reply to an attempt that was made with so many others in flight, if known.
    fn record_after(&mut self, latency: Duration, ahead: Option<u32>, now: Instant) -> TimeBucket {
        match (&mut self.shared, ahead) {
            (Some(shared), Some(_)) => shared.record(latency, ahead, now),
            _ => self.record(latency, now),
        }
    }

    /// Records an attempt that was abandoned without a reply while others are answered.
    pub(crate) fn give_up(&mut self) {
        match &mut self.shared {
            Some(shared) => shared.add_unanswered(1),
            None => self.samples_mut().give_up(),
        }
    }

    /// Replaces an abandoned attempt by its late reply.
    pub(crate) fn correct(&mut self, latency: Duration, now: Instant) -> TimeBucket {
        self.forgive();
        self.record(latency, now)
    }

    /// Removes an abandoned attempt because its backend was found down.
    pub(crate) fn forgive(&mut self) {
        match &mut self.shared {
            Some(shared) => shared.add_unanswered(-1),
            None => self.samples.iter_mut().for_each(|samples| samples.forgive()),
        }
    }

    /// Returns the latency within which this part (0.0 to 1.0) of the attempts is answered, at most 5 % off;
    /// `None` before [`MIN_SAMPLES`] replies.
    ///
    /// Abandoned attempts count as late, but p95 is never above the p97.5 of the replies.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let Some(samples) = &self.samples else { return self.shared.as_ref()?.quantile(part) };
        samples.quantile(part)
    }

    /// Returns the time to wait for this backend before a hedge.
    pub fn hedge_delay(&self, hedge: &Hedge) -> Duration {
        let part = match hedge.delay {
            HedgeDelay::Fixed(delay) => return delay,
            HedgeDelay::Percentile(part) => part,
            HedgeDelay::Auto => 1.0 - hedge.budget * SPENT,
        };
        let delay = self.quantile(part).unwrap_or(hedge.max_delay);
        delay.max(hedge.min_delay).min(hedge.max_delay)
    }

    /// Returns the [tuned](crate::tuning) hedge, if there is one.
    pub fn tuned(&self) -> Option<TunedHedge> {
        self.shared.as_ref()?.tuned()
    }

    /// Returns the tuned delay of a hedge.
    pub(crate) fn tuned_delay(&self) -> Option<Duration> {
        Some(self.quantile(0.5)?.mul_f32(self.tuned()?.medians))
    }

    /// Returns true if other workers have or may have a part in this history.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Returns the silence after which a datagram to this backend is taken for lost: 20 ms to 1 s, and 1 s
    /// before the first reply.
    pub fn retransmission_timeout(&self) -> Duration {
        match (&self.samples, &self.shared) {
            (Some(samples), _) => samples.retransmission.timeout(),
            (None, Some(shared)) => shared.retransmission_timeout(),
            (None, None) => AttemptTimeout::LONGEST,
        }
    }

    /// Takes one early attempt from the allowance, which follows the share of attempts without a reply, if
    /// that is at least `least`.
    pub(crate) fn take_early_attempt(&self, least: f64) -> bool {
        match &self.shared {
            Some(shared) => shared.take_early_attempt(least),
            None => self.samples.as_ref().is_some_and(|samples| samples.take_early_attempt(least)),
        }
    }

    fn samples_mut(&mut self) -> &mut Samples {
        self.samples.get_or_insert_with(|| Box::new(Samples::new(self.began)))
    }
}

impl Samples {
    fn new(began: Instant) -> Self {
        Self {
            short: Window::new(SHORT, began),
            long: Window::new(LONG, began),
            recent: Recent::new(),
            retransmission: Retransmission::new(),
            stale: 0,
            refreshed: began,
            is_refreshed: false,
            cached: Cell::new(None),
        }
    }

    // Inlined for a worker alone, which was faster by 3 %; several workers call it for a batch.
    #[inline(always)]
    fn record(&mut self, latency: Duration, bucket: TimeBucket, now: Instant) {
        let TimeBucket(bucket) = bucket;
        let is_over = self.windows().map(|window| window.add(bucket, now)).contains(&true);
        self.stale += 1;
        if let Some(latest) = self.recent.note(bucket) {
            self.windows().into_iter().for_each(|window| window.start_anew(latest.clone(), now));
            self.sample(latency, now);
        } else if is_over
            || self.stale >= REFRESH_EVERY
            || now.saturating_duration_since(self.refreshed) >= REFRESH_AFTER
            || self.short.replies() < MIN_SAMPLES
        {
            self.sample(latency, now);
        }
    }

    // Several workers call it rarely.
    #[inline(always)]
    fn quantile(&self, part: f64) -> Option<Duration> {
        let window = if part <= COMMON { &self.short } else { &self.long };
        if window.replies() < MIN_SAMPLES {
            return None;
        }
        let unanswered = window.unanswered();
        if let Some(cached) = self.cached.get().filter(|cached| cached.part == part && cached.unanswered == unanswered)
        {
            return Some(cached.latency);
        }
        let within = part.clamp(0.0, 1.0);
        let replies = f64::from(window.replies());
        let with_late = (within * (replies + f64::from(unanswered))).ceil();
        let most = ((1.0 - (1.0 - within) / 2.0) * replies).ceil();
        let latency = window.at_rank(with_late.min(most) as u32);
        self.cached.set(Some(LatencyReport { part, unanswered, latency }));
        Some(latency)
    }

    fn give_up(&mut self) {
        self.windows().into_iter().for_each(Window::add_unanswered);
    }

    fn forgive(&mut self) {
        self.windows().into_iter().for_each(Window::take_unanswered);
    }

    fn take_early_attempt(&self, least: f64) -> bool {
        let lost = self.lost_per_reply();
        lost >= least && self.retransmission.take(lost)
    }

    fn lost_per_reply(&self) -> f64 {
        match self.short.replies() {
            ..MIN_SAMPLES => 0.0,
            replies => f64::from(self.short.unanswered()) / f64::from(replies),
        }
    }

    fn windows(&mut self) -> [&mut Window; 2] {
        [&mut self.short, &mut self.long]
    }

    /// Refreshes the windows, and takes one of the replies since the last time as the sample of the timer.
    fn sample(&mut self, latency: Duration, now: Instant) {
        self.retransmission.record(latency, self.stale);
        self.refresh(now);
    }

    fn refresh(&mut self, now: Instant) {
        self.windows().into_iter().for_each(Window::refresh);
        self.recent.set_usual(self.short.usual(MIN_SAMPLES));
        self.stale = 0;
        self.refreshed = now;
        self.is_refreshed = true;
        self.cached.set(None);
    }

    fn image(this: Option<&Self>, now: Instant) -> LatencyImage {
        this.map_or_else(LatencyImage::default, |samples| LatencyImage {
            short: samples.short.image(now),
            long: samples.long.image(now),
        })
    }

    fn of_image(image: &LatencyImage, now: Instant) -> Self {
        let mut samples = Self::new(now);
        samples.short = Window::of_image(&image.short, SHORT, now);
        samples.long = Window::of_image(&image.long, LONG, now);
        samples.refresh(now);
        samples
    }

    /// Replaces a history by that of another process unless that has fewer replies.
    fn adopt(this: &mut Option<Box<Self>>, image: &LatencyImage, now: Instant) {
        let known = this.as_ref().map_or(0, |known| known.long.replies());
        if *image != LatencyImage::default() && image.long.replies() >= known {
            *this = Some(Box::new(Self::of_image(image, now)));
        }
    }
}

/// The recent latency of a backend in a form for another process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyImage {
    short: WindowImage,
    long: WindowImage,
}

impl LatencyImage {
    /// Merges the histories of the backends of a pool into one with which a new backend starts: few replies,
    /// so that its own soon count more.
    pub fn merged(histories: &[Self]) -> Self {
        Self {
            short: WindowImage::merged(histories.iter().map(|history| &history.short), SHORT.few),
            long: WindowImage::merged(histories.iter().map(|history| &history.long), LONG.few),
        }
    }

    /// Returns true if there are no replies.
    pub fn is_empty(&self) -> bool {
        self.long.replies() == 0
    }
}

impl Latency {
    /// Returns true before the first reply.
    pub fn is_empty(&self) -> bool {
        self.samples.is_none() && self.shared.as_ref().is_none_or(LatencyView::is_empty)
    }

    /// Exports the history for a successor process.
    pub fn image(&self, now: Instant) -> LatencyImage {
        let own = || Samples::image(self.samples.as_deref(), now);
        self.shared.as_ref().map_or_else(own, |shared| shared.image(now))
    }

    /// Imports the history of another process unless it has fewer replies than this one. The detection of
    /// changes starts anew with the next replies.
    pub fn learn(&mut self, image: &LatencyImage, now: Instant) {
        match &self.shared {
            Some(shared) => shared.learn(image, now),
            None => Samples::adopt(&mut self.samples, image, now),
        }
    }
}

/// A latency, rounded to its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBucket(pub(crate) u16);

impl TimeBucket {
    /// Returns the bucket of a time.
    #[inline]
    pub fn of(time: Duration) -> Self {
        Self(bucket(time))
    }
}

/// Records an attempt without a reply. Returns true if the latency was charged, which spares a backend that
/// was silent since the attempt, because it may be down.
pub fn charge(load: &BackendLoad, latency: &mut Latency, asked: Instant) -> bool {
    let is_late = load.was_heard_since(asked);
    if is_late {
        latency.give_up();
    }
    is_late
}

/// Records the end of an attempt, and returns the bucket of its latency. `is_charged` is the result of
/// [`charge`], or false.
pub fn ended(
    load: &mut BackendLoad,
    latency: &mut Latency,
    end: AttemptEnd,
    is_charged: bool,
    now: Instant,
) -> Option<TimeBucket> {
    if let AttemptEnd::Silence(waited) = end
        && !is_charged
        && let Some(asked) = now.checked_sub(waited)
    {
        charge(load, latency, asked);
    }
    let ahead = load.ended(end, now);
    match end {
        AttemptEnd::Reply(took) | AttemptEnd::Failure(took) if is_charged => return Some(latency.correct(took, now)),
        AttemptEnd::Reply(took) | AttemptEnd::Failure(took) => return Some(latency.record_after(took, ahead, now)),
        AttemptEnd::Unreachable | AttemptEnd::Unsent | AttemptEnd::Void if is_charged => latency.forgive(),
        AttemptEnd::Unreachable | AttemptEnd::Unsent | AttemptEnd::Void | AttemptEnd::Silence(_) => {}
    }
    None
}

/// The minimum number of replies for a percentile: `max_delay` applies before.
pub const MIN_SAMPLES: u32 = 50;

/// The part of the budget that `delay = "auto"` plans to spend. A percentile is an estimate, and the sum of
/// many is a little high or low. With the full budget planned, the bucket would often be empty, and an
/// attempt that is late by half a second would get no hedge.
pub(crate) const SPENT: f64 = 0.9;

const COMMON: f64 = 0.99;

/// Some 20 samples above p98. The minimum keeps one pause of the machine from filling it.
const SHORT: SampleSpan = SampleSpan {
    enough: 1_024,
    shortest: Duration::from_millis(250),
    few: MIN_SAMPLES,
    usual: Duration::from_secs(10),
    longest: Duration::from_secs(600),
};

/// For rare percentiles: some 16 samples above p99.9.
const LONG: SampleSpan = SampleSpan {
    enough: 16_384,
    shortest: Duration::from_secs(1),
    few: 1_024,
    usual: Duration::from_secs(60),
    longest: Duration::from_secs(600),
};

/// Samples between two refreshes. A refresh takes some 1,300 additions, about 4 ns for each sample.
const REFRESH_EVERY: u32 = 64;

const REFRESH_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
