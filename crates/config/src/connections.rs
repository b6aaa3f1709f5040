//! The rules for connections to the backends of a pool.

use std::time::Duration;

/// `[pools.*.connections]`: the connections of one worker to one backend by stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionPoolRules {
    /// Maximum number of open connections.
    pub max: u8,
    /// Maximum number of pending queries per connection.
    pub pipeline: u16,
    /// True if one connection stays open while the pool has queries.
    pub warm: bool,
    /// Time until a connection without queries is closed.
    pub idle: Duration,
    /// Time after which a connection gets no new query, once another one is open. `None`: no limit.
    pub max_age: Option<Duration>,
    /// Time limit to open a connection, including its handshake.
    pub connect_timeout: Duration,
    /// True if queries on encrypted connections are padded (RFC 8467).
    pub padding: bool,
    /// True if queries may use 0-RTT data of a resumed QUIC session.
    pub early_data: bool,
}

impl Default for ConnectionPoolRules {
    fn default() -> Self {
        Self {
            max: 2,
            pipeline: 100,
            warm: true,
            // Public servers close after 4 s to some minutes; hedgerow learns the actual time.
            idle: Duration::from_secs(30),
            // A handshake costs more than an old connection, unless a load balancer is before the backend.
            max_age: None,
            connect_timeout: Duration::from_secs(1),
            padding: true,
            // An eavesdropper may replay the queries and so link them to earlier ones (RFC 9250 section 9.1).
            early_data: false,
        }
    }
}
