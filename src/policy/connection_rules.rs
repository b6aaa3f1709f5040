//! How the connections to one backend are kept, with the defaults of the configuration.

use std::time::Duration;

/// Rules of the connections of one worker to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPoolRules {
    /// How many are open at the most; those that are given up presently do not count.
    pub max: u16,
    /// Queries that wait on one at the most.
    pub pipeline: u16,
    /// Whether one is kept open while there were queries within the last minute.
    pub warm: bool,
    /// How long one is kept on which nobody waits.
    pub idle: Duration,
    /// Time for TCP and the handshake together.
    pub connect_timeout: Duration,
    /// Whether queries are padded (RFC 8467).
    pub padding: bool,
    /// Whether queries go with the first flight of a resumed session.
    pub early_data: bool,
}

impl Default for ConnectionPoolRules {
    fn default() -> Self {
        Self {
            max: 2,
            pipeline: 100,
            warm: true,
            idle: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            padding: true,
            early_data: false,
        }
    }
}
