//! Local shortages that prevent attempts. Each attempt is counted, and the log gets one line a second,
//! because shortages come by the thousand.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use hedge::race::{BackendIndex, Retry};
use metrics::{BackendCounters, Want};

use crate::state::SharedPool;

/// The log state of shortages, shared by the workers.
#[derive(Debug)]
pub struct Shortage {
    start: Instant,
    again: AtomicU64,
    unreported: AtomicU64,
}

impl Shortage {
    /// Creates the state without shortages.
    pub fn new(start: Instant) -> Self {
        Self { start, again: AtomicU64::new(0), unreported: AtomicU64::new(0) }
    }

    pub(super) fn note(
        &self,
        want: Want,
        pool: &SharedPool,
        backend: BackendIndex,
        counters: &BackendCounters,
        now: Instant,
    ) {
        counters.unsent[want as usize].increment();
        let Some(unreported) = self.is_reported(now) else { return };
        let (pool, backend) = (&pool.config.name, &pool.backend(backend).name);
        let cause = want.label();
        tracing::warn!(
            pool,
            backend,
            cause,
            attempts = unreported + 1,
            "a query could not be sent to the backend: {}",
            remedy(want)
        );
    }

    fn is_reported(&self, now: Instant) -> Option<u64> {
        let now = now.saturating_duration_since(self.start).as_millis() as u64;
        let due = self.again.fetch_update(Relaxed, Relaxed, |again| (again <= now).then_some(now + EVERY_MS));
        if due.is_err() {
            self.unreported.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.unreported.swap(0, Relaxed))
    }
}

pub(super) fn retry(want: Want) -> Retry {
    match want {
        Want::Descriptors | Want::Ports | Want::System => Retry::Once,
        Want::Size | Want::InFlight | Want::Connections => Retry::Never,
    }
}

fn remedy(want: Want) -> &'static str {
    match want {
        Want::Descriptors => "out of file descriptors, raise the limit (LimitNOFILE, ulimit -n)",
        Want::Ports => "out of ports or message IDs",
        Want::Size => "the query is too long for this transport",
        Want::System => "the system does not send it: out of buffers, or a firewall",
        Want::Connections => "all connections have the maximum of waiting queries: raise connections.pipeline",
        Want::InFlight => "max_in_flight queries are already waiting: raise max_in_flight",
    }
}

const EVERY_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_log_is_told_once_a_second_and_of_all() {
        let shortage = Shortage::new(Instant::now());
        let after = |ms| shortage.is_reported(shortage.start + Duration::from_millis(ms));
        assert_eq!([0, 1, 999].map(after), [Some(0), None, None]);
        assert_eq!([1000, 1001].map(after), [Some(2), None]);
        assert_eq!([5000, 5999, 6000].map(after), [Some(1), None, Some(1)]);
    }
}
