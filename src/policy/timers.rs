//! stub
use std::time::Instant;
/// Timers.
#[derive(Debug, Default)]
pub struct Timers<K> {
    keys: Vec<K>,
}
impl<K> Timers<K> {
    /// No timers.
    pub fn new() -> Self {
        todo!()
    }
    /// Sets a timer.
    pub fn push(&mut self, _at: Instant, _key: K) {
        todo!()
    }
    /// When the nearest is due.
    pub fn peek(&self) -> Option<Instant> {
        todo!()
    }
    /// Takes the nearest if it is due.
    pub fn pop_due(&mut self, _now: Instant) -> Option<(Instant, K)> {
        self.keys.pop();
        todo!()
    }
}
