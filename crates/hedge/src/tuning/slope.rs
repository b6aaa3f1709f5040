//! The dependence of a latency on the load of its backend.

use std::f64::consts::LN_2;
use std::time::{Duration, Instant};

use crate::backend_load::BackendLoad;

/// A fading regression of the logarithm of the latency on that of `1 + n`, for `n` attempts in flight when an
/// attempt was made. Its slope is 1 for a queue with one server, and 0 if load makes no difference.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadSlope {
    weight: f64,
    ahead: f64,
    /// The sums of both logarithms, of their squares and of their product.
    x: f64,
    y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

impl LoadSlope {
    /// Adds an attempt that was made with so many others in flight.
    pub fn add(&mut self, ahead: u32, latency: Duration) {
        let (x, y) = (f64::from(ahead).ln_1p(), latency.as_secs_f64().max(1e-6).ln());
        let Self { weight, ahead: sum, x: sum_x, y: sum_y, xx, yy, xy } = self;
        let new = [1.0, f64::from(ahead), x, y, x * x, y * y, x * y];
        for (sum, new) in [weight, sum, sum_x, sum_y, xx, yy, xy].into_iter().zip(new) {
            *sum = *sum * KEPT + new;
        }
    }

    /// Returns the slope, at most that of a queue with one server; 0.0 if it may be due to chance.
    pub fn slope(&self) -> f64 {
        let Self { weight, x, y, xx, yy, xy, .. } = *self;
        if weight < MIN_WEIGHT {
            return 0.0;
        }
        let (xx, yy, xy) = (
            xx / weight - (x / weight).powi(2),
            yy / weight - (y / weight).powi(2),
            xy / weight - x * y / weight / weight,
        );
        if xx <= 0.0 || yy <= 0.0 || xy <= 0.0 {
            return 0.0;
        }
        let explained = (xy * xy / xx / yy).min(1.0);
        let deviations = (explained * weight / (1.0 - explained).max(f64::MIN_POSITIVE)).sqrt();
        if deviations < MIN_DEVIATIONS { 0.0 } else { (xy / xx).min(1.0) }
    }

    /// Returns the usual load.
    pub fn load(&self) -> UsualLoad {
        let Self { weight, ahead, x, y, .. } = *self;
        let weight = weight.max(1.0);
        let (x, y) = (x / weight, y / weight);
        let spread = (self.xx / weight - x * x).max(0.0).sqrt();
        UsualLoad { ahead: ahead / weight, slope: self.slope(), x, y, least: (x - 2.0 * spread).max(0.0) }
    }
}

/// The usual load of a backend, and what it does to the latency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UsualLoad {
    /// The mean number of attempts in flight.
    pub ahead: f64,
    /// The power of `1 + n` by which the latency grows with `n` attempts in flight.
    pub slope: f64,
    /// The mean logarithms of `1 + n` and of the latency in seconds.
    pub(super) x: f64,
    pub(super) y: f64,
    /// The logarithm of `1 + n` two deviations below its mean: some attempts may be late without load.
    pub(super) least: f64,
}

impl UsualLoad {
    /// Returns the relative growth of the latency for one more attempt per query.
    pub(crate) fn crowding(self) -> f64 {
        (1.0 + self.ahead).powf(self.slope) - 1.0
    }

    pub(crate) fn room(self) -> HedgeRoom {
        let usual = self.ahead + 3.0 * self.ahead.sqrt() + 1.0;
        // When queries begin, late attempts that are no load add up, and the mean follows slowly.
        let usual = if self.slope == 0.0 { 2.0 * usual } else { usual };
        let doubled = (self.least + LN_2 / self.slope.max(0.01)).exp() - 1.0;
        HedgeRoom {
            most: usual.min(doubled) as u16,
            slope: (self.slope * SLOPE_STEPS) as u16,
            idle_micros: ((self.y - self.slope * self.x).exp() * 1e6) as u32,
        }
    }
}

/// The load up to which a backend gets hedges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgeRoom {
    /// Attempts in flight that are usual (three deviations above the mean if they arrive at random), and do
    /// not double the latency.
    pub(crate) most: u16,
    pub(crate) slope: u16,
    pub(crate) idle_micros: u32,
}

impl HedgeRoom {
    /// Returns true if so many attempts in flight are usual, and do not double the latency.
    pub(crate) fn is_usual(self, in_flight: u32) -> bool {
        in_flight <= self.most.into()
    }

    /// Returns true if a backend with this load may get a hedge for an attempt that is silent for `waited`:
    /// it is no busier than usual, or would reply in half of that time nevertheless, and its latest reply was
    /// not slow, or came sooner.
    pub(crate) fn is_for(self, load: &BackendLoad, waited: Duration, now: Instant) -> bool {
        let in_flight = load.in_flight_of_all(now);
        let slope = f64::from(self.slope) / SLOPE_STEPS;
        let expected = f64::from(self.idle_micros) / 1e6 * (1.0 + f64::from(in_flight)).powf(slope);
        let waited = waited.as_secs_f64();
        let latest = load.latest_latency(now).map_or(0.0, |latest| latest.as_secs_f64());
        (self.is_usual(in_flight) || waited >= 2.0 * expected) && (latest <= waited || latest <= 3.0 * expected)
    }
}

const SLOPE_STEPS: f64 = 10_000.0;

/// The part of a sum that remains with the next attempt: half after some 350.
const KEPT: f64 = 1.0 - 1.0 / 512.0;

const MIN_WEIGHT: f64 = 50.0;

/// The least ratio of the slope to its standard error.
const MIN_DEVIATIONS: f64 = 5.0;
