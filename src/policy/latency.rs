//! stub
use super::rules::Hedge;
use std::time::{Duration, Instant};
/// The recent latency of one backend, as one worker sees it.
#[derive(Clone, Debug)]
pub struct Latency {}
impl Latency {
    /// No samples yet.
    pub fn new(_now: Instant) -> Self {
        todo!()
    }
    /// Adds a sample.
    pub fn record(&mut self, _latency: Duration, _now: Instant) {
        todo!()
    }
    /// Replaces a sample that was only known to be at least so long by what it really was.
    pub fn correct(&mut self, _recorded: Duration, _latency: Duration, _now: Instant) {
        todo!()
    }
    /// The latency that this part (0.0 to 1.0) of the replies keeps; `None` until enough samples are in.
    pub fn quantile(&self, _part: f64) -> Option<Duration> {
        todo!()
    }
    /// How long to wait for this backend before another is asked besides.
    pub fn hedge_delay(&self, _hedge: &Hedge) -> Duration {
        todo!()
    }
}
