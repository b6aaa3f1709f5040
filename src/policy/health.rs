//! stub
use super::rules::HealthRules;
use rand::Rng;
use std::time::Instant;

/// A backend went down or came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is asked no more while another is up.
    WentDown,
    /// It is asked again.
    CameUp,
}
/// The health of one backend.
#[derive(Clone, Debug)]
pub struct Health {}
impl Health {
    /// Up, with its first probe due now.
    pub fn new(_rules: HealthRules, _now: Instant) -> Self {
        todo!()
    }
    /// Whether the backend is up.
    pub fn is_up(&self) -> bool {
        todo!()
    }
    /// When the next probe is due.
    pub fn next_probe(&self) -> Instant {
        todo!()
    }
    /// A probe goes out now: the next one is scheduled.
    pub fn on_probe_sent(&mut self, _now: Instant, _rng: &mut impl Rng) {
        todo!()
    }
    /// A probe was replied to.
    pub fn on_probe_reply(&mut self, _now: Instant) -> Option<Change> {
        todo!()
    }
    /// A probe was not replied to in time.
    pub fn on_probe_missed(&mut self, _now: Instant) -> Option<Change> {
        todo!()
    }
    /// ICMP says that nothing listens there.
    pub fn on_unreachable(&mut self, _now: Instant) -> Option<Change> {
        todo!()
    }
    /// A query was replied to.
    pub fn on_reply(&mut self, _now: Instant) -> Option<Change> {
        todo!()
    }
    /// A query was not replied to.
    pub fn on_silence(&mut self, _now: Instant) {
        todo!()
    }
    /// `every_queries` queries went to the pool.
    pub fn on_queries(&mut self, _now: Instant) {
        todo!()
    }
}
