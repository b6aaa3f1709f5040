//! Comparing what replicas say: for a share of the questions each reply of a race with the first one, late ones too. Who has said
//! something else is suspected, and all members are asked again by somebody with more time (`replicas/`).
//!
//! No race depends on it. What is said in truncated replies and in those without a question is not compared, nor what answers a query
//! with a TSIG record, which nobody else may send.

use super::Engine;
use super::active_race::ActiveRace;
use super::attempt::Quarantined;
use super::cached::HashedQuestion;
use super::io::{Client, Io};
use crate::policy::BackendIndex;
use crate::wire::{Reply, ReplyDigest};

impl<I: Io> ActiveRace<'_, I> {
    /// Compares a reply to an attempt with the first one of the race.
    pub(super) fn compare(&mut self, backend: BackendIndex, reply: &Reply<'_>) {
        let Self { entry, spills, pool, .. } = self;
        let Some(digest) = ReplyDigest::of(reply).filter(|_| !entry.is_signed()) else { return };
        if entry.differs(digest, spills) {
            pool.shared.state.compared.suspect(entry.question(), entry.flags, backend);
        }
    }
}

impl<C: Client> Engine<C> {
    /// Compares a reply that has come after its race with the first one of that.
    pub(super) fn compare_late(&self, late: &Quarantined, question: HashedQuestion<'_>, reply: &Reply<'_>) {
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
