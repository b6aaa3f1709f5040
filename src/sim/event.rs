//! What happens in a scenario: what is going to happen to the world, and what is told of a query to whoever observes.

use std::time::Duration;

use super::slab::Key;
use crate::policy::Rank;
use crate::policy::race::{AttemptId, BackendIndex, Heard, Kind, Outcome};

/// Something that happens to a query.
#[derive(Clone, Copy, Debug)]
pub enum Happening {
    /// It comes.
    Came {
        /// When its client must have the response, counted from now.
        deadline: Duration,
    },
    /// An attempt is made.
    Asked {
        /// Who is asked.
        backend: BackendIndex,
        /// Why.
        kind: Kind,
        /// Whether with OPT.
        edns: bool,
    },
    /// A reply comes, perhaps after the end.
    Replied {
        /// To which attempt.
        attempt: AttemptId,
        /// Its rank.
        rank: Rank,
        /// What the race made of it.
        heard: Heard,
    },
    /// A bare failure comes.
    FailedBare,
    /// Its race is over.
    Finished {
        /// How.
        outcome: Outcome,
        /// The kind of the attempt that won, if one did.
        winner: Option<Kind>,
        /// How often a hedge was due but denied.
        hedges_denied: u8,
    },
}

/// Something that is going to happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The next query comes.
    Query,
    /// A second has passed.
    Second,
    /// The client of this query asks again.
    Retransmission(Key),
    /// The race of this query wanted to be woken.
    Wake(Key),
    /// Something comes back to an attempt of this query.
    Back(Key, AttemptId, Back),
    /// Nobody waits any more for what has not come back to this query.
    Forget(Key),
    /// The prober of this backend wanted to be woken.
    Probe(BackendIndex),
    /// Something comes back to this probe of a backend.
    ProbeBack {
        /// The backend.
        backend: BackendIndex,
        /// The number of the probe.
        probe: u32,
        /// Whether it is a reply, and not ICMP.
        is_reply: bool,
    },
}

/// What comes back to an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Back {
    /// A reply.
    Reply(Rank),
    /// FORMERR, because of OPT.
    OptRefused,
    /// Twelve octets.
    Bare,
    /// ICMP.
    Unreachable,
}
