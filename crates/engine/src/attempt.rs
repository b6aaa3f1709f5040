//! The state of an attempt in its query slot, while it waits for a reply and in quarantine.

use std::time::Instant;

use config::Rank;
use dns::{QuestionFlags, ReplyDigest};
use hedge::race::{AttemptId, BackendIndex, MAX_ATTEMPTS};
use hedge::regret::BeatenAttempt;

use super::pool::PlanNumber;
use super::pools::PoolSlot;
use super::proof::ReplyProof;
use super::query_slots::{QuerySlots, SlotState};
use super::slots::RaceRef;

/// An attempt whose race runs: the race, the attempt's number and its proof.
#[derive(Clone, Copy, Debug)]
pub struct Outstanding {
    pub(super) race: RaceRef,
    /// The attempt's number in the lowest bits and the proof above, one byte because there may be 100,000.
    tag: u8,
}

impl Outstanding {
    pub(super) fn new(race: RaceRef, attempt: AttemptId, proof: ReplyProof) -> Self {
        Self { race, tag: attempt.0 | proof.bits() << Self::ATTEMPT_BITS }
    }

    /// Returns the race of this attempt.
    pub fn race(self) -> RaceRef {
        self.race
    }

    /// Returns the attempt's number in its race.
    pub(crate) fn attempt(self) -> AttemptId {
        AttemptId(self.tag & ((1 << Self::ATTEMPT_BITS) - 1))
    }

    pub(super) fn proof(self) -> ReplyProof {
        ReplyProof::of_bits(self.tag >> Self::ATTEMPT_BITS)
    }

    const ATTEMPT_BITS: u32 = MAX_ATTEMPTS.trailing_zeros();
}

/// An attempt whose race was over before its reply came.
#[derive(Clone, Copy, Debug)]
pub struct QuarantinedAttempt {
    pub(super) sent: Instant,
    pub(super) hash: u64,
    pub(super) pool: PoolSlot,
    pub(super) plan: PlanNumber,
    pub(super) backend: BackendIndex,
    pub(super) beaten: BeatenAttempt,
    /// True if the latency was charged for the time so far; `None` if the attempt counts as silence already.
    pub(super) is_charged: Option<bool>,
    pub(super) flags: QuestionFlags,
    pub(super) proof: ReplyProof,
    pub(super) above: Option<Rank>,
    pub(super) is_reported: bool,
    pub(super) digest: Option<ReplyDigest>,
}

/// The query slots of attempts.
pub type AttemptSlots = QuerySlots<Outstanding, QuarantinedAttempt>;

/// The state of a taken query slot.
pub(super) type TakenSlot = SlotState<Outstanding, QuarantinedAttempt>;
