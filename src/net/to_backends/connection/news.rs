//! Events of a connection besides messages: failed and lost queries, pauses, pongs.

use std::time::Duration;

/// Events since the last call of `take_news`.
#[derive(Debug, Default)]
pub struct ConnectionEvents {
    /// Queries that were answered by an error; no other reply comes.
    pub failed: Vec<FailedQuery>,
    /// IDs of queries that the backend did not process and will not answer; it is not to blame.
    pub lost: Vec<u16>,
    /// The time for which the backend wants no queries.
    pub pause: Option<Duration>,
    /// True if the requested pong has arrived.
    pub has_sign: bool,
}

/// A query that was answered by an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedQuery {
    /// The message ID of the query.
    pub id: u16,
    /// A description of the error.
    pub problem: String,
}

impl ConnectionEvents {
    /// Returns `None` if there are no events.
    pub fn some(self) -> Option<Self> {
        let Self { failed, lost, pause, has_sign } = &self;
        let is_nothing = failed.is_empty() && lost.is_empty() && pause.is_none() && !has_sign;
        (!is_nothing).then_some(self)
    }
}
