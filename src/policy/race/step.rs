//! What a race says: its steps, its outcome, and what became of an input.

use std::time::Instant;

use super::attempts::{AttemptId, Kind};
use crate::policy::candidates::BackendIndex;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the query to this backend.
    Ask {
        /// The new attempt.
        attempt: AttemptId,
        /// Whom to ask.
        backend: BackendIndex,
        /// Why.
        kind: Kind,
        /// False: without OPT, since this backend refused it in this race.
        edns: bool,
    },
    /// Nothing before this time, unless there is input. Later than `now`, and no later than the deadline.
    WaitUntil(Instant),
    /// The race is over. Asked again, it says the same.
    Finished(Outcome),
}

/// How a race ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply to this attempt goes to the client: the accepted one, or the best kept one.
    Reply(AttemptId),
    /// There were only bare failures: SERVFAIL.
    Failed,
    /// Nobody replied in time, or every attempt failed.
    Nothing,
    /// The same, but somebody who was to be asked could not be, for want of something of our own: what silence means cannot be
    /// told.
    Unsent,
}

/// What a reply is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It wins: the race is finished.
    Accepted,
    /// It is the best so far: the caller stores its bytes in place of those kept before.
    Kept,
    /// It is of no use: one that is no worse is kept, or the race was finished before.
    NotNeeded,
}

/// Whether a message that could not be sent is tried once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another socket may have what this one lacked.
    Once,
    /// It would be the same with any socket.
    Never,
}

/// What becomes of a refusal of OPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptRefusal {
    /// The backend is asked once more without OPT; the reply is spent.
    AskedAgain,
    /// It is a failure like any other: the caller hands it to [`on_reply`](super::Race::on_reply).
    IsFailure,
}
