//! Counters of the config's limits per listener. A limit applies rarely, so all threads share one counter.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

labels! {
    /// A limit that applied.
    #[derive(Serialize, Deserialize)]
    pub enum Limit {
        /// `limits.waiting`: SERVFAIL, because the client has too many pending queries.
        Waiting = "waiting",
        /// `limits.in_flight`: SERVFAIL, because all clients together have too many pending queries.
        InFlight = "in_flight",
        /// `rate_limit`, or too much at once for one client: the response was truncated (TC) or dropped.
        Rate = "rate",
        /// `connections.max` or `per_client`: a connection was refused, or closed to make room.
        Connections = "connections",
        /// `connections.unsent`: a connection was closed because its client left too much unread.
        Unsent = "unsent",
        /// `notify_from`: a NOTIFY was refused.
        Notify = "notify",
    }
}

/// The counters of one listener.
#[derive(Debug)]
pub struct LimitCounters {
    listener: String,
    counts: [AtomicU64; Limit::ALL.len()],
}

impl LimitCounters {
    /// Creates the counters of a listener.
    pub fn new(listener: &str) -> Self {
        Self { listener: listener.to_owned(), counts: [const { AtomicU64::new(0) }; Limit::ALL.len()] }
    }

    /// Returns the listener's section of the config.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Counts one use of a limit.
    pub fn count(&self, limit: Limit) {
        self.add(limit, 1);
    }

    /// Adds several uses of a limit.
    pub fn add(&self, limit: Limit, times: u64) {
        self.counts[limit as usize].fetch_add(times, Relaxed);
    }

    /// Returns each limit with its count.
    pub fn snapshot(&self) -> impl Iterator<Item = (String, Limit, u64)> {
        Limit::ALL.into_iter().map(|limit| (self.listener.clone(), limit, self.counts[limit as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_counted_by_itself() {
        for (number, limit) in Limit::ALL.into_iter().enumerate() {
            let limited = LimitCounters::new("ts1");
            limited.count(limit);
            limited.count(limit);
            let counted: Vec<_> = limited.snapshot().filter(|(_, _, count)| *count > 0).collect();
            assert_eq!((counted, limit as usize), (vec![("ts1".to_owned(), limit, 2)], number));
        }
    }
}
