//! The outputs of a race: steps, the outcome, and the effect of an input.

use std::time::Instant;

use super::attempts::{AttemptId, AttemptKind};
use crate::candidates::BackendIndex;

/// The next action of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaceStep {
    /// Send the request to this backend.
    Ask {
        /// The number of the new attempt.
        attempt: AttemptId,
        /// The backend to ask.
        backend: BackendIndex,
        /// The reason of the attempt.
        kind: AttemptKind,
        /// False: send without the extension, because this backend refused it in this race.
        extended: bool,
    },
    /// Wait until this time or the next input. Later than `now`, and no later than the deadline.
    WaitUntil(Instant),
    /// The race is over. Later calls return the same.
    Finished(RaceEnd),
}

/// The end of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaceEnd {
    /// The reply to this attempt goes to the client: the accepted one, or the best kept one.
    Reply(AttemptId),
    /// There were only bare failures.
    Failed,
    /// No reply in time, or every attempt failed.
    Nothing,
    /// A backend could not be asked because a local resource was missing: silence proves nothing.
    Unsent,
}

/// The value of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyValue {
    /// It wins: the race is finished.
    Accepted,
    /// It is the best so far: the caller stores it in place of the kept reply.
    Kept,
    /// It is not needed: a kept reply is as good, or the race was finished before.
    NotNeeded,
}

/// Defines if an unsent message is tried once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another socket may have the missing resource.
    Once,
    /// No socket would help.
    Never,
}

/// The effect of a refusal of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionRefusal {
    /// The backend is asked once more without the extension; the reply is discarded.
    AskedAgain,
    /// It is a normal failure: the caller passes it to [`on_reply`](super::Race::on_reply).
    IsFailure,
}
