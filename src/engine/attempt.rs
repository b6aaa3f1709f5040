//! What is kept beside a query slot of an attempt: while its reply is waited for, and in quarantine.

use std::time::Instant;

use super::plan::PlanNumber;
use super::pools::PoolSlot;
use super::proof::Proof;
use super::slots::RaceRef;
use crate::policy::Rank;
use crate::policy::query_slots::SlotState;
use crate::policy::race::{AttemptId, BackendIndex, Kind, MAX_ATTEMPTS};
use crate::wire::{QuestionFlags, ReplyDigest};

/// An attempt whose race runs: which that is, and how it was sent. All else is there.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    pub(super) race: RaceRef,
    /// Its attempt, in the lowest bits, and what the reply must bear: one octet, for there may be a hundred thousand of these.
    tag: u8,
}

impl Outstanding {
    /// An attempt whose reply must bear this.
    pub(super) fn new(race: RaceRef, attempt: AttemptId, proof: Proof) -> Self {
        Self { race, tag: attempt.0 | proof.bits() << Self::ATTEMPT_BITS }
    }

    /// Its race.
    pub fn race(self) -> RaceRef {
        self.race
    }

    /// Which of the attempts of its race it is.
    pub fn attempt(self) -> AttemptId {
        AttemptId(self.tag & ((1 << Self::ATTEMPT_BITS) - 1))
    }

    /// What its reply must bear.
    pub(super) fn proof(self) -> Proof {
        Proof::of_bits(self.tag >> Self::ATTEMPT_BITS)
    }

    /// Bits that the number of an attempt takes.
    const ATTEMPT_BITS: u32 = MAX_ATTEMPTS.trailing_zeros();
}

/// An attempt whose race was over before its reply came.
#[derive(Clone, Copy, Debug)]
pub struct Quarantined {
    /// When it was made.
    pub(super) sent: Instant,
    /// The hash of the question that was asked.
    pub(super) hash: u64,
    /// Its pool, which outlives the race.
    pub(super) pool: PoolSlot,
    /// By which plan of that it was made.
    pub(super) plan: PlanNumber,
    /// Whom it went to.
    pub(super) backend: BackendIndex,
    /// Why.
    pub(super) kind: Kind,
    /// The latency of its backend has been charged with that.
    pub(super) is_charged: bool,
    /// RD, CD and DO of the query.
    pub(super) flags: QuestionFlags,
    /// What its reply must bear.
    pub(super) proof: Proof,
    /// A reply of a higher rank than this is better than what the race had come to.
    pub(super) above: Option<Rank>,
    /// Somebody wants to know of a reply.
    pub(super) is_told: bool,
    /// It counts as silent already: who wants to know of a reply is all that it is still waited for.
    pub(super) is_silent: bool,
    /// What the first reply of the race has said, if others are compared with that.
    pub(super) digest: Option<ReplyDigest>,
}

/// What takes a query slot.
pub type TakenSlot = SlotState<Outstanding, Quarantined>;
