//! Comparison of replicas: for a share of the questions, each reply of a race is compared with the first one,
//! late replies too. A backend that differs is suspected, and `replicas/` asks all members again.
//!
//! No race depends on this. Not compared: truncated replies, replies without a question, and replies to a
//! query with a TSIG record, because only the client can send that again.

use super::Engine;
use super::active_race::ActiveRace;
use super::attempt::QuarantinedAttempt;
use super::cached::HashedQuestion;
use super::io::Io;
use crate::policy::BackendIndex;
use crate::wire::{Reply, ReplyDigest};

impl<I: Io> ActiveRace<'_, I> {
    pub(super) fn compare(&mut self, backend: BackendIndex, reply: &Reply<'_>) {
        let Self { entry, spills, pool, .. } = self;
        let Some(digest) = ReplyDigest::of(reply).filter(|_| !entry.is_signed()) else { return };
        if entry.differs(digest, spills) {
            pool.plan.shared.state.compared.suspect(entry.question(), entry.flags, backend);
        }
    }
}

impl<I: Io> Engine<I> {
    pub(super) fn compare_late(&self, late: &QuarantinedAttempt, question: HashedQuestion<'_>, reply: &Reply<'_>) {
        let Some(first) = late.digest else { return };
        if ReplyDigest::of(reply).is_none_or(|digest| digest == first) {
            return;
        }
        let pool = self.pools.get(late.pool).and_then(|pool| pool.shared_of(late.plan, late.backend));
        if let Some(pool) = pool {
            pool.state.compared.suspect(question.octets, late.flags, late.backend);
        }
    }
}
