//! What clients were not given because of a limit of the config: counted for each listener, by whichever thread meets it.
//! That is rare by nature, so one counter for all threads is no burden.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// `limits.waiting`: a query was answered with SERVFAIL, for its client has enough that wait.
    Waiting,
    /// `limits.in_flight`: the same, for all clients together have.
    InFlight,
    /// `rate_limit`, or more at once than is sent to one client: a response went out cut (TC), or not at all.
    Rate,
    /// `connections.max` or `per_client`: a connection was refused, or closed to make room.
    Connections,
    /// `connections.unsent`: a connection was closed because too much waited for its client to read.
    Unsent,
    /// `notify_from`: a NOTIFY was refused.
    Notify,
}

impl Limit {
    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::InFlight => "in_flight",
            Self::Rate => "rate",
            Self::Connections => "connections",
            Self::Unsent => "unsent",
            Self::Notify => "notify",
        }
    }
}

/// All limits, in order of their number.
const LIMITS: [Limit; 6] =
    [Limit::Waiting, Limit::InFlight, Limit::Rate, Limit::Connections, Limit::Unsent, Limit::Notify];

/// How often each limit of one listener was met.
#[derive(Debug)]
pub struct Limited {
    /// The section of the config: `forwarder`, or the name of an authority.
    listener: String,
    counts: [AtomicU64; LIMITS.len()],
}

impl Limited {
    /// None was met yet.
    pub fn new(listener: &str) -> Self {
        Self { listener: listener.to_owned(), counts: [const { AtomicU64::new(0) }; LIMITS.len()] }
    }

    /// The listener.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// One was met.
    pub fn count(&self, limit: Limit) {
        self.add(limit, 1);
    }

    /// One was met so often.
    pub fn add(&self, limit: Limit, times: u64) {
        self.counts[limit as usize].fetch_add(times, Relaxed);
    }

    /// All limits, and how often each was met.
    pub fn snapshot(&self) -> impl Iterator<Item = (String, Limit, u64)> {
        LIMITS.iter().map(|&limit| (self.listener.clone(), limit, self.counts[limit as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_counted_by_itself() {
        for (number, limit) in LIMITS.into_iter().enumerate() {
            let limited = Limited::new("ts1");
            limited.count(limit);
            limited.count(limit);
            let counted: Vec<_> = limited.snapshot().filter(|(_, _, count)| *count > 0).collect();
            assert_eq!((counted, limit as usize), (vec![("ts1".to_owned(), limit, 2)], number));
        }
    }
}
