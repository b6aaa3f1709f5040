//! Counters of stream connections to a backend.

use serde::{Deserialize, Serialize};

use super::counters::Counter;
use super::histogram::{Histogram, HistogramSnapshot};

/// A worker's counters of its connections to one backend.
#[derive(Debug, Default)]
pub struct BackendConnectionCounters {
    /// The open connections.
    pub open: Counter,
    /// Connection attempts by [`ConnectionKind`].
    pub made: [Counter; ConnectionKind::ALL.len()],
    /// Connections that ended with pending queries, by [`LostCause`].
    pub lost: [Counter; LostCause::ALL.len()],
    /// The time from the first segment to the open connection.
    pub handshakes: Histogram,
}

/// The result of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Open, after a full handshake.
    Full,
    /// Open, resumed from an earlier connection.
    Resumed,
    /// Open, with queries in the first flight.
    Early,
    /// The connect failed.
    Failed,
}

impl ConnectionKind {
    /// All results, by discriminant.
    pub const ALL: [Self; 4] = [Self::Full, Self::Resumed, Self::Early, Self::Failed];

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Early => "early",
            Self::Failed => "failed",
        }
    }
}

/// The reason why a connection ended with pending queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCause {
    /// The backend closed it.
    Closed,
    /// The backend or a middlebox reset it.
    Reset,
    /// The backend announced the end.
    Goaway,
    /// No data was acknowledged.
    Stalled,
    /// The ping went unanswered.
    Timeout,
    /// A violation of TLS.
    Tls,
    /// A response that no query asked for.
    Protocol,
}

impl LostCause {
    /// All causes, by discriminant.
    pub const ALL: [Self; 7] =
        [Self::Closed, Self::Reset, Self::Goaway, Self::Stalled, Self::Timeout, Self::Tls, Self::Protocol];

    /// Returns the metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Goaway => "goaway",
            Self::Stalled => "stalled",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
        }
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

/// The metrics of the connections to one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendConnectionsSnapshot {
    /// The open connections.
    pub open: u64,
    /// Connection attempts, in order of [`ConnectionKind::ALL`].
    pub made: [u64; ConnectionKind::ALL.len()],
    /// Connections that ended with pending queries, in order of [`LostCause::ALL`].
    pub lost: [u64; LostCause::ALL.len()],
    /// The time from the first segment to the open connection.
    pub handshakes: HistogramSnapshot,
    /// The error of the last connect, if it failed.
    #[serde(default)]
    pub problem: Option<String>,
}

impl BackendConnectionsSnapshot {
    /// Adds a worker's counters.
    pub fn add(&mut self, counters: &BackendConnectionCounters) {
        let Self { open, made, lost, handshakes, problem: _ } = self;
        *open += counters.open.get();
        made.iter_mut().zip(&counters.made).for_each(|(sum, count)| *sum += count.get());
        lost.iter_mut().zip(&counters.lost).for_each(|(sum, count)| *sum += count.get());
        handshakes.add(&counters.handshakes);
    }

    /// Returns the difference to an earlier snapshot. Open connections keep the current value.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counted = self.clone();
        counted.made.iter_mut().zip(earlier.made).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        counted.lost.iter_mut().zip(earlier.lost).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        counted.handshakes = self.handshakes.since(&earlier.handshakes);
        counted
    }
}

impl BackendConnectionCounters {
    /// Adds the counters of another process, without its open connections.
    pub fn add(&self, counted: &BackendConnectionsSnapshot) {
        self.made.iter().zip(counted.made).for_each(|(counter, count)| counter.add(count));
        self.lost.iter().zip(counted.lost).for_each(|(counter, count)| counter.add(count));
        self.handshakes.add(&counted.handshakes);
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
        let mut before = BackendConnectionsSnapshot::default();
        before.add(&counters);
        assert_eq!((before.open, before.made, before.lost[LostCause::Stalled as usize]), (2, [0, 1, 0, 0], 1));
        let other = BackendConnectionCounters::default();
        other.add(&before);
        other.made(ConnectionKind::Full);
        let mut sum = BackendConnectionsSnapshot::default();
        sum.add(&other);
        assert_eq!((sum.open, sum.made), (0, [1, 1, 0, 0]));
        let since = sum.since(&before);
        assert_eq!((since.made, since.lost), ([1, 0, 0, 0], [0; 7]));
        assert_eq!(since.handshakes, HistogramSnapshot::default());
    }
}
