//! Events of a scenario: those scheduled for the world, and those reported to the observer.

use std::sync::Arc;
use std::time::Duration;

use config::Rank;
use hedge::race::AttemptId;
use metrics::Counters;

use super::message::ModelAnswer;
use crate::query_slots::QuerySlot;
use crate::state::SharedPool;
use crate::{LateReport, Outstanding, RaceRef, RaceReport, ResponseSummary};

/// An event that is reported to the observer.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A query arrives.
    Came,
    /// A reply to an attempt arrives.
    Replied {
        /// The race of the attempt.
        race: RaceRef,
        /// The attempt that gets the reply.
        attempt: AttemptId,
        /// The rank of the reply.
        rank: Rank,
        /// True if the race was over before.
        is_late: bool,
    },
    /// A bare failure (header only) arrives for an attempt.
    FailedBare {
        /// The race of the attempt.
        race: RaceRef,
    },
    /// A race is over.
    RaceOver(RaceReport<'a>),
    /// A reply arrives after its race is over.
    RepliedLate(LateReport<'a>),
    /// The client of a query has its response.
    Responded {
        /// The number of the query.
        query: u32,
        /// The time that the client has waited.
        waited: Duration,
        /// The summary of the response; `None` if there is none because the pool answers with silence.
        said: Option<ResponseSummary>,
    },
    /// A second has passed.
    Second {
        /// The pools with their counters.
        pools: &'a [Arc<SharedPool>],
        /// The counters outside of pools.
        counters: &'a Arc<Counters>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Query,
    Second,
    Tuning,
    Retransmission(u32),
    /// A reply or an error to a query that was sent to a backend arrives.
    Back {
        slot: QuerySlot,
        /// The content of the slot when the query was sent.
        outstanding: Outstanding,
        name: u32,
        back: Back,
    },
    Dialled {
        link: SimulatedLinkKey,
        is_open: bool,
        is_refused: bool,
    },
    /// A connection ends with everything that waits there. Another one may be at its place by then.
    Ends {
        backend: usize,
        /// The place of the connection; `None` for all, because the backend goes away.
        place: Option<usize>,
    },
    Look(SimulatedLinkKey),
    Sign(SimulatedLinkKey),
    Probe(usize),
    ProbeBack {
        backend: usize,
        probe: u32,
        is_reply: bool,
    },
    /// The config is reloaded, as this entry of the scenario defines.
    Reload(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SimulatedLinkKey {
    pub(super) backend: usize,
    pub(super) place: usize,
    pub(super) generation: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Back {
    Reply(ModelAnswer),
    Unreachable,
}
