//! What happens in a scenario: what is going to happen to the world, and what is told of it to whoever observes.

use std::sync::Arc;
use std::time::Duration;

use super::message::Answer;
use crate::engine::{Outstanding, RaceRef, RaceReport, Said};
use crate::metrics::Counters;
use crate::policy::Rank;
use crate::policy::query_slots::QuerySlot;
use crate::policy::race::AttemptId;
use crate::state::SharedPool;

/// Something that happens in a scenario.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A query comes.
    Came,
    /// A reply comes to an attempt.
    Replied {
        /// Of this race.
        race: RaceRef,
        /// The attempt.
        attempt: AttemptId,
        /// The rank of the reply.
        rank: Rank,
        /// The race was over before.
        is_late: bool,
    },
    /// A bare failure comes to an attempt.
    FailedBare {
        /// Of this race.
        race: RaceRef,
    },
    /// A race is over.
    RaceOver(RaceReport<'a>),
    /// The client of a query has its response.
    Responded {
        /// The number of the query.
        query: u32,
        /// How long the client has waited.
        waited: Duration,
        /// What it was told; `None`: nothing, which its pool answers silence with.
        said: Option<Said>,
    },
    /// A second has passed.
    Second {
        /// The pools, with all that was counted of them.
        pools: &'a [Arc<SharedPool>],
        /// What was counted besides.
        counters: &'a Arc<Counters>,
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
    Retransmission(u32),
    /// Something comes back to a query that a backend was sent.
    Back {
        /// Where it is waited for.
        slot: QuerySlot,
        /// What waited there when the query was sent.
        outstanding: Outstanding,
        /// The name that was asked for.
        name: u32,
        /// What it is.
        back: Back,
    },
    /// A connection that was dialled is open, or could not be opened.
    Dialled {
        /// Which.
        link: LinkId,
        /// What has come of it.
        is_open: bool,
        /// If it is not: whether it was refused.
        is_refused: bool,
    },
    /// A connection ends, whatever waits there; it may be another one by then.
    Ends {
        /// To this backend.
        backend: usize,
        /// At this place; none: all of them, for the backend goes away.
        place: Option<usize>,
    },
    /// A connection is to be looked at: it may be quiet.
    Look(LinkId),
    /// A connection gives a sign of life.
    Sign(LinkId),
    /// The prober of this backend wanted to be woken.
    Probe(usize),
    /// Something comes back to this probe of a backend.
    ProbeBack {
        /// The backend.
        backend: usize,
        /// The number of the probe.
        probe: u32,
        /// Whether it is a reply, and not ICMP.
        is_reply: bool,
    },
    /// The config is loaded again, as this entry of the scenario has it.
    Reload(usize),
}

/// A connection to a modelled backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkId {
    /// The backend.
    pub(super) backend: usize,
    /// Which of its places for connections.
    pub(super) place: usize,
    /// Which of the connections at that place.
    pub(super) generation: u32,
}

/// What comes back to an attempt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Back {
    /// A reply.
    Reply(Answer),
    /// ICMP.
    Unreachable,
}
