//! Shortage: attempts that could not leave for want of something of our own. Each is counted, and the log is told once a second:
//! a shortage comes by the thousand.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::metrics::{BackendCounters, Want};
use crate::policy::race::{BackendIndex, Retry};
use crate::state::SharedPool;

/// What the workers have told the log of shortages.
#[derive(Debug)]
pub struct Shortage {
    /// When the server started.
    start: Instant,
    /// From when on the log is told again, milliseconds after the start.
    again: AtomicU64,
    /// How many attempts it was not told of.
    untold: AtomicU64,
}

impl Shortage {
    /// None yet.
    pub fn new(start: Instant) -> Self {
        Self { start, again: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    /// An attempt could not leave.
    pub(super) fn note(
        &self,
        want: Want,
        pool: &SharedPool,
        backend: BackendIndex,
        counters: &BackendCounters,
        now: Instant,
    ) {
        counters.unsent[want as usize].increment();
        let Some(untold) = self.is_told(now) else { return };
        let (pool, backend) = (&pool.config.name, &pool.backend(backend).name);
        let cause = want.label();
        tracing::warn!(pool, backend, cause, attempts = untold + 1, "could not be asked: {}", remedy(want));
    }

    /// Whether the log is told now; if so, of how many attempts it was not told before.
    fn is_told(&self, now: Instant) -> Option<u64> {
        let now = now.saturating_duration_since(self.start).as_millis() as u64;
        let told = self.again.fetch_update(Relaxed, Relaxed, |again| (again <= now).then_some(now + EVERY_MS));
        if told.is_err() {
            self.untold.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.untold.swap(0, Relaxed))
    }
}

/// Whether another socket may have what one was in want of.
pub(super) fn retry(want: Want) -> Retry {
    match want {
        Want::Descriptors | Want::Ports | Want::System => Retry::Once,
        Want::Size | Want::InFlight | Want::Connections => Retry::Never,
    }
}

/// What is wanting, and what an operator may do about it.
fn remedy(want: Want) -> &'static str {
    match want {
        Want::Descriptors => "out of descriptors, raise the limit (LimitNOFILE, ulimit -n)",
        Want::Ports => "out of ports or message IDs",
        Want::Size => "the query is too long for the way to it",
        Want::System => "the system does not send it: out of buffers, or a firewall",
        Want::Connections => "as many queries wait on each connection to it as may (connections.pipeline)",
        Want::InFlight => "max_in_flight queries are out to it",
    }
}

/// Between two lines of the log, milliseconds.
const EVERY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_log_is_told_once_a_second_and_of_all() {
        let shortage = Shortage::new(Instant::now());
        let after = |ms| shortage.is_told(shortage.start + Duration::from_millis(ms));
        assert_eq!([0, 1, 999].map(after), [Some(0), None, None]);
        assert_eq!([1000, 1001].map(after), [Some(2), None]);
        assert_eq!([5000, 5999, 6000].map(after), [Some(1), None, Some(1)]);
    }
}
