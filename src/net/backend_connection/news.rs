//! What comes on a connection besides messages.

use std::time::Duration;

/// What has come besides messages.
#[derive(Debug, Default)]
pub struct News {
    /// Queries that were answered by an error: no other answer comes.
    pub failed: Vec<FailedQuery>,
    /// The IDs of queries that were not looked at, since the backend ends the connection or has too many: no answer comes, and that says
    /// nothing of the backend.
    pub lost: Vec<u16>,
    /// For how long the backend wants no query at all.
    pub pause: Option<Duration>,
    /// The sign of life has come that was asked for.
    pub has_sign: bool,
}

/// A query that was answered by an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedQuery {
    /// Its ID.
    pub id: u16,
    /// By what, in plain words.
    pub problem: String,
}

impl News {
    /// The same, if it is anything at all.
    pub fn some(self) -> Option<Self> {
        let Self { failed, lost, pause, has_sign } = &self;
        let is_nothing = failed.is_empty() && lost.is_empty() && pause.is_none() && !has_sign;
        (!is_nothing).then_some(self)
    }
}
