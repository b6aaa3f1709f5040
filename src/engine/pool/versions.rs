//! What replies of replicas say of the versions of their zones (RFC 9660): told to all workers, but not the same again for a while.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use super::Pool;
use crate::policy::race::BackendIndex;
use crate::policy::serials::Source;
use crate::wire::{QuestionHasher, Reply};

/// What this worker has told of late. A slot is used again by what has the same place; then the other is told once more.
pub(in crate::engine) struct Told(Box<[Slot; SLOTS]>);

/// One version that was told.
#[derive(Clone, Copy)]
struct Slot {
    /// The hash of zone, member and serial.
    hash: u64,
    at: Instant,
    /// How many verdicts there were by then: see [`SharedSerials`](crate::state::SharedSerials).
    verdicts: u64,
    /// Whether another member had a newer one.
    is_older: bool,
}

impl Told {
    /// Nothing was told.
    pub(super) fn new(now: Instant) -> Self {
        Self(Box::new([Slot { hash: 0, at: now, verdicts: u64::MAX, is_older: false }; SLOTS]))
    }
}

impl Pool {
    /// Whether its backends are replicas, who are asked which version of a zone they have.
    pub(in crate::engine) fn asks_versions(&self) -> bool {
        self.told.is_some()
    }

    /// Takes note of the version that a reply of a backend tells. If the reply is negative and another member has a newer one: who that
    /// is, if the present plan may ask it.
    pub(in crate::engine) fn hear_version(
        &mut self,
        backend: BackendIndex,
        reply: &Reply<'_>,
        hasher: &QuestionHasher,
        now: Instant,
    ) -> Option<BackendIndex> {
        let told = self.told.as_mut()?;
        let serial = reply.told_serial()?;
        let hash = hasher.hash_one((serial, backend.0));
        let slot = &mut told.0[hash as usize % SLOTS];
        let serials = &self.shared.state.serials;
        let verdicts = serials.verdicts();
        let is_told = slot.hash == hash && slot.verdicts == verdicts && now.saturating_duration_since(slot.at) < AGAIN;
        let is_negative = reply.is_negative();
        // Who has the newest is asked for each time: it may be down by now.
        if is_told && !(slot.is_older && is_negative) {
            return None;
        }
        let newer = serials.hear(&serial.to_serial()?, backend, Source::Reply, now);
        *slot = Slot { hash, at: now, verdicts: serials.verdicts(), is_older: newer.is_some() };
        newer.filter(|newer| is_negative && self.shared.find(*newer).is_some_and(|newer| newer.takes_queries()))
    }

    /// Whether a reply that was fetched whole is negative, and of an older version than a member has.
    pub(in crate::engine) fn is_outdated(&self, reply: &Reply<'_>) -> bool {
        let is_told = self.asks_versions() && reply.is_negative();
        is_told && reply.zone_serial().is_some_and(|serial| self.shared.state.serials.is_outdated(&serial))
    }
}

/// How many versions a worker remembers that it has told, of each pool: 40 KiB.
const SLOTS: usize = 1024;

/// What was told is told again after this time, so that it is known of who answers queries that it need not be asked.
const AGAIN: Duration = Duration::from_secs(1);
