//! How long one backend takes to reply, lately, as one worker sees it.
//!
//! A worker owns its own of each backend, so nothing here is locked or atomic. Replies are counted in log-linear buckets,
//! in two windows of different length: a common percentile is read from the short one, which soon notices a change; a rare
//! one from the long one, which has seen enough to know it. If most of the latest replies took a time that was unusual
//! before, both windows start anew with those: a backend that goes from 1 ms to 20 ms or back is known by its new latency
//! after some fifty replies.
//!
//! An attempt that was given up without a reply, beaten or timed out, took "at least so long". It counts as later than
//! every reply, until its reply comes after all. So the share of attempts that are late at a percentile is what it says,
//! with lost datagrams too. But such attempts never lift a percentile far (see [`Latency::quantile`]): one backend that
//! loses half of what it gets, or is silent on a miss, would lift its delay until no hedge ever fires. What a backend
//! leaves unanswered while nothing at all is heard of it, the caller keeps out of here: that is the backend's silence,
//! not its latency.

mod attempts;
mod image;
mod recent;
mod window;

use std::cell::Cell;
use std::time::{Duration, Instant};

pub use self::attempts::{charge, ended};
pub use self::image::LatencyImage;
use self::recent::Recent;
use self::window::{Span, Window, bucket};
use super::rules::{Hedge, HedgeDelay};

/// The recent latency of one backend.
///
/// It takes 10 KiB from the first sample on. Of thousands of backends most may never be asked by a worker, so that what they would take is
/// not there before.
#[derive(Clone, Debug)]
pub struct Latency {
    /// When it was looked at first.
    began: Instant,
    /// What there is to know; `None`: nothing yet.
    samples: Option<Box<Samples>>,
}

/// What is known of a backend that was asked.
#[derive(Clone, Debug)]
struct Samples {
    /// What common percentiles are read from.
    short: Window,
    /// What rare percentiles are read from.
    long: Window,
    /// The latest replies.
    recent: Recent,
    /// How many samples came since the last refresh.
    stale: u32,
    refreshed: Instant,
    /// The latest answer: between two refreshes the same is asked again and again.
    told: Cell<Option<Told>>,
}

/// An answer that holds until the next refresh.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// The part of the attempts that was asked about.
    part: f64,
    /// How many attempts were given up in the window that it was read from.
    unanswered: u32,
    /// The latency that they keep.
    latency: Duration,
}

impl Latency {
    /// No samples yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, samples: None }
    }

    /// A reply took so long.
    pub fn record(&mut self, latency: Duration, now: Instant) {
        self.samples_mut().record(latency, now);
    }

    /// An attempt was given up without a reply, while others are answered.
    pub fn give_up(&mut self) {
        self.samples_mut().windows().into_iter().for_each(Window::add_unanswered);
    }

    /// The reply to an attempt that was given up has come after all, and took so long.
    pub fn correct(&mut self, latency: Duration, now: Instant) {
        self.forgive();
        self.record(latency, now);
    }

    /// An attempt that was given up tells nothing: its backend was found down.
    pub fn forgive(&mut self) {
        if let Some(samples) = &mut self.samples {
            samples.windows().into_iter().for_each(Window::take_unanswered);
        }
    }

    /// The latency that this part (0.0 to 1.0) of the attempts keeps, at most 5 % off; `None` before [`MIN_SAMPLES`]
    /// replies are in. It costs a search among some hundred sums, whatever was recorded; asked again, less.
    ///
    /// Attempts that were given up count as late, but never to the effect that more than half of the replies that are
    /// late by rights come in time: p95 is never above the p97.5 of the replies.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        self.samples.as_ref()?.quantile(part)
    }

    /// How long to wait for this backend before another is asked besides.
    pub fn hedge_delay(&self, hedge: &Hedge) -> Duration {
        let part = match hedge.delay {
            HedgeDelay::Fixed(delay) => return delay,
            HedgeDelay::Percentile(part) => part,
            HedgeDelay::Auto => 1.0 - hedge.budget * SPENT,
        };
        let delay = self.quantile(part).unwrap_or(hedge.max_delay);
        delay.max(hedge.min_delay).min(hedge.max_delay)
    }

    /// What is known, which there is from now on.
    fn samples_mut(&mut self) -> &mut Samples {
        self.samples.get_or_insert_with(|| Box::new(Samples::new(self.began)))
    }
}

impl Samples {
    /// None yet.
    fn new(began: Instant) -> Self {
        Self {
            short: Window::new(SHORT, began),
            long: Window::new(LONG, began),
            recent: Recent::new(),
            stale: 0,
            refreshed: began,
            told: Cell::new(None),
        }
    }

    /// A reply took so long.
    fn record(&mut self, latency: Duration, now: Instant) {
        let bucket = bucket(latency);
        let is_over = self.windows().map(|window| window.add(bucket, now)).contains(&true);
        self.stale += 1;
        if let Some(latest) = self.recent.note(bucket) {
            self.windows().into_iter().for_each(|window| window.start_anew(latest.clone(), now));
            self.refresh(now);
        } else if is_over
            || self.stale >= REFRESH_EVERY
            || now.saturating_duration_since(self.refreshed) >= REFRESH_AFTER
            || self.short.replies() < MIN_SAMPLES
        {
            self.refresh(now);
        }
    }

    /// See [`Latency::quantile`].
    fn quantile(&self, part: f64) -> Option<Duration> {
        let window = if part <= COMMON { &self.short } else { &self.long };
        if window.replies() < MIN_SAMPLES {
            return None;
        }
        let unanswered = window.unanswered();
        if let Some(told) = self.told.get().filter(|told| told.part == part && told.unanswered == unanswered) {
            return Some(told.latency);
        }
        let within = part.clamp(0.0, 1.0);
        let replies = f64::from(window.replies());
        let with_late = (within * (replies + f64::from(unanswered))).ceil();
        let most = ((1.0 - (1.0 - within) / 2.0) * replies).ceil();
        let latency = window.at_rank(with_late.min(most) as u32);
        self.told.set(Some(Told { part, unanswered, latency }));
        Some(latency)
    }

    /// Both windows.
    fn windows(&mut self) -> [&mut Window; 2] {
        [&mut self.short, &mut self.long]
    }

    /// Brings what is read up to date.
    fn refresh(&mut self, now: Instant) {
        self.windows().into_iter().for_each(Window::refresh);
        self.recent.set_usual(self.short.usual(MIN_SAMPLES));
        self.stale = 0;
        self.refreshed = now;
        self.told.set(None);
    }
}

/// So few samples say nothing: `max_delay` holds until then.
pub const MIN_SAMPLES: u32 = 50;

/// The part of the budget that `delay = "auto"` means to spend. A percentile is an estimate, and the sum of many comes out
/// a little above or below: with all of the budget planned for, the bucket would be empty as often as not, and who happens
/// to be late then gets no hedge, be it by a hair or by half a second.
const SPENT: f64 = 0.9;

/// Percentiles up to this are read from the short window, of which at least ten samples are above it.
const COMMON: f64 = 0.99;

/// For common percentiles: some 20 samples above p98, and a few tenths of a second at a thousand replies a second. At
/// higher rates not shorter than that: one pause of the machine should not fill it.
const SHORT: Span = Span {
    enough: 1_024,
    shortest: Duration::from_millis(250),
    few: MIN_SAMPLES,
    usual: Duration::from_secs(10),
    longest: Duration::from_secs(600),
};

/// For rare percentiles: some 16 samples above p99.9.
const LONG: Span = Span {
    enough: 16_384,
    shortest: Duration::from_secs(1),
    few: 1_024,
    usual: Duration::from_secs(60),
    longest: Duration::from_secs(600),
};

/// Samples after which what is read is brought up to date. That takes some 1,300 additions, about 4 ns for each sample.
const REFRESH_EVERY: u32 = 64;

/// Time after which one sample is enough for that.
const REFRESH_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
