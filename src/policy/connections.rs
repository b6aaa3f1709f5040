//! The rules for connections to the backends of a pool: how many, how full, and for how long.

use std::time::Duration;

/// `[pools.*.connections]`: what one worker may have with one backend that is asked by stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPoolRules {
    /// Connections that are open at once.
    pub max: u8,
    /// Queries that wait on one of them.
    pub pipeline: u16,
    /// Whether one is kept open while the pool has queries.
    pub warm: bool,
    /// How long one without queries stays open.
    pub idle: Duration,
    /// Until a connection is open, with its handshake.
    pub connect_timeout: Duration,
    /// Whether queries are padded where nobody reads along (RFC 8467).
    pub padding: bool,
    /// Whether queries may go with the first flight of a resumed session by QUIC (0-RTT).
    pub early_data: bool,
}

impl Default for ConnectionPoolRules {
    fn default() -> Self {
        Self {
            // One to ask by, and one for when that stalls.
            max: 2,
            pipeline: 100,
            warm: true,
            // Public servers close after 4 s to some minutes; what one of them does is learnt.
            idle: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(1),
            padding: true,
            // Whoever listens may send them again, and see by that who has asked before (RFC 9250 section 9.1).
            early_data: false,
        }
    }
}
