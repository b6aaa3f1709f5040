//! What is counted of the connections to a backend that is asked by stream.

use super::counters::Counter;
use super::histogram::Histogram;

/// What a worker counts of its connections to one backend.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
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

impl ConnectionCounters {
    /// A dial has come to this.
    pub fn made(&self, kind: ConnectionKind) {
        self.made[kind as usize].increment();
    }

    /// A connection was lost for this.
    pub fn lost(&self, cause: LostCause) {
        self.lost[cause as usize].increment();
    }
}
