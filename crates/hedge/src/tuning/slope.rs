//! The dependence of a latency on the load of its backend.

use std::time::Duration;

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

    /// Returns the slope; 0.0 if it may be due to chance.
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
        if deviations < MIN_DEVIATIONS { 0.0 } else { xy / xx }
    }

    /// Returns the relative growth of the latency for one more attempt per query.
    pub fn crowding(&self) -> f64 {
        (1.0 + self.ahead / self.weight.max(1.0)).powf(self.slope()) - 1.0
    }
}

/// The part of a sum that remains with the next attempt: half after some 350.
const KEPT: f64 = 1.0 - 1.0 / 512.0;

const MIN_WEIGHT: f64 = 50.0;

/// The least ratio of the slope to its standard error.
const MIN_DEVIATIONS: f64 = 4.0;
