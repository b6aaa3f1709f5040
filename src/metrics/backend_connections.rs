//! What is counted of the connections to a backend that is asked by stream.

use serde::{Deserialize, Serialize};

use super::counters::Counter;
use super::histogram::{Histogram, HistogramSnapshot};

/// What a worker counts of its connections to one backend.
#[derive(Debug, Default)]
pub struct BackendConnectionCounters {
    /// Connections that are open.
    pub open: Counter,
    /// Connections that were made or not, by [`ConnectionKind`].
    pub made: [Counter; ConnectionKind::ALL.len()],
    /// Connections that ended while queries waited on them, by [`LostCause`].
    pub lost: [Counter; LostCause::ALL.len()],
    /// From the first segment until the connection was open.
    pub handshakes: Histogram,
}

/// What came of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Open, from the beginning.
    Full,
    /// Open, with what was known from an earlier one.
    Resumed,
    /// Open, and queries went with the first flight.
    Early,
    /// It did not come to be.
    Failed,
}

impl ConnectionKind {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Full, Self::Resumed, Self::Early, Self::Failed];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Early => "early",
            Self::Failed => "failed",
        }
    }
}

/// Why a connection ended on which queries waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCause {
    /// The backend has closed it.
    Closed,
    /// The backend or somebody on the way has reset it.
    Reset,
    /// The backend has said that it ends.
    Goaway,
    /// Nothing that was sent was acknowledged.
    Stalled,
    /// There was no sign of life.
    Timeout,
    /// What came was no TLS, or not by its rules.
    Tls,
    /// What came was nothing that was asked.
    Protocol,
}

impl LostCause {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Closed, Self::Reset, Self::Goaway, Self::Stalled, Self::Timeout, Self::Tls, Self::Protocol];

    /// The label in metrics.
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
    /// A dial has come to this.
    pub fn made(&self, kind: ConnectionKind) {
        self.made[kind as usize].increment();
    }

    /// A connection was lost for this.
    pub fn lost(&self, cause: LostCause) {
        self.lost[cause as usize].increment();
    }
}

/// The numbers of the connections to a backend that is asked by stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendConnectionsSnapshot {
    /// Connections that are open.
    pub open: u64,
    /// Connections that were made or not, in order of [`ConnectionKind::ALL`].
    pub made: [u64; ConnectionKind::ALL.len()],
    /// Connections that ended while queries waited on them, in order of [`LostCause::ALL`].
    pub lost: [u64; LostCause::ALL.len()],
    /// From the first segment until the connection was open.
    pub handshakes: HistogramSnapshot,
    /// Why the last one did not come to be, if that is so.
    #[serde(default)]
    pub problem: Option<String>,
}

impl BackendConnectionsSnapshot {
    /// Adds what a worker has counted.
    pub fn add(&mut self, counters: &BackendConnectionCounters) {
        let Self { open, made, lost, handshakes, problem: _ } = self;
        *open += counters.open.get();
        made.iter_mut().zip(&counters.made).for_each(|(sum, count)| *sum += count.get());
        lost.iter_mut().zip(&counters.lost).for_each(|(sum, count)| *sum += count.get());
        handshakes.add(&counters.handshakes);
    }

    /// What was counted since an earlier snapshot. What is open is so now.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counted = self.clone();
        counted.made.iter_mut().zip(earlier.made).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        counted.lost.iter_mut().zip(earlier.lost).for_each(|(count, earlier)| *count = count.saturating_sub(earlier));
        counted.handshakes = self.handshakes.since(&earlier.handshakes);
        counted
    }
}

impl BackendConnectionCounters {
    /// Adds what another process has counted. Its connections are not ours.
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
