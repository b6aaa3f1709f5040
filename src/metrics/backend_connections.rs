//! Counters of stream connections to a backend.

use serde::{Deserialize, Serialize};

use super::aggregate::{Aggregate, Gauge};
use super::histogram::HistogramSnapshot;

counters! {
    /// The stream connections to one backend.
    pub struct BackendConnectionCounts, counted in BackendConnectionCounters {
        /// The open connections.
        pub open: Gauge,
        /// Connection attempts by [`ConnectionKind`].
        pub made: [u64; ConnectionKind::ALL.len()],
        /// Connections that ended with pending queries, by [`LostCause`].
        pub lost: [u64; LostCause::ALL.len()],
        /// The time from the first segment to the open connection.
        pub handshakes: HistogramSnapshot,
    }
}

labels! {
    /// The result of a connect.
    pub enum ConnectionKind {
        /// Open, after a full handshake.
        Full = "full",
        /// Open, resumed from an earlier connection.
        Resumed = "resumed",
        /// Open, with queries in the first flight.
        Early = "early",
        /// The connect failed.
        Failed = "failed",
    }
}

labels! {
    /// The reason why a connection ended with pending queries.
    pub enum LostCause {
        /// The backend closed it.
        Closed = "closed",
        /// The backend or a middlebox reset it.
        Reset = "reset",
        /// The backend announced the end.
        Goaway = "goaway",
        /// No data was acknowledged.
        Stalled = "stalled",
        /// The ping went unanswered.
        Timeout = "timeout",
        /// A violation of TLS.
        Tls = "tls",
        /// A response that no query asked for.
        Protocol = "protocol",
    }
}

impl BackendConnectionCounters {
    /// Counts the result of a connect.
    pub fn made(&self, kind: ConnectionKind) {
        self.made[kind as usize].increment();
    }

    /// Counts a lost connection.
    pub fn lost(&self, cause: LostCause) {
        self.lost[cause as usize].increment();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_another_process_counted_is_added_but_for_what_it_had_open() {
        let counters = BackendConnectionCounters::default();
        counters.open.add(2);
        counters.made(ConnectionKind::Resumed);
        counters.lost(LostCause::Stalled);
        counters.handshakes.record(Duration::from_millis(3));
        let mut before = BackendConnectionCounts::default();
        before.collect(&counters);
        assert_eq!((before.open, before.made, before.lost[LostCause::Stalled as usize]), (Gauge(2), [0, 1, 0, 0], 1));
        let other = BackendConnectionCounters::default();
        before.carry(&other);
        other.made(ConnectionKind::Full);
        let mut sum = BackendConnectionCounts::default();
        sum.collect(&other);
        assert_eq!((sum.open, sum.made), (Gauge(0), [1, 1, 0, 0]));
        sum.subtract(&before);
        assert_eq!((sum.made, sum.lost), ([1, 0, 0, 0], [0; 7]));
        assert_eq!(sum.handshakes, HistogramSnapshot::default());
    }
}
