//! The zone versions in replies of replicas (RFC 9660), reported to all workers, but not repeatedly.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use dns::{QuestionHasher, Reply};
use hedge::race::BackendIndex;

use crate::state::SharedPool;
use crate::state::serial_table::SerialSource;

/// The versions that this worker reported recently. A collision in a slot causes only a repeated report.
pub(crate) struct VersionReports(Box<[VersionSlot; SLOTS]>);

#[derive(Clone, Copy)]
struct VersionSlot {
    hash: u64,
    at: Instant,
    verdicts: u64,
    is_older: bool,
}

impl VersionReports {
    pub(super) fn new(now: Instant) -> Self {
        Self(Box::new([VersionSlot { hash: 0, at: now, verdicts: u64::MAX, is_older: false }; SLOTS]))
    }

    /// Notes the version in a reply. If the reply is negative and another member has a newer version, returns
    /// that member, if the plan may ask it.
    pub(super) fn hear(
        &mut self,
        shared: &SharedPool,
        backend: BackendIndex,
        reply: &Reply<'_>,
        hasher: &QuestionHasher,
        now: Instant,
    ) -> Option<BackendIndex> {
        let serial = reply.reported_serial()?;
        let hash = hasher.hash_one((serial, backend.0));
        let slot = &mut self.0[hash as usize % SLOTS];
        let serials = &shared.state.serials;
        let verdicts = serials.verdicts();
        let is_reported =
            slot.hash == hash && slot.verdicts == verdicts && now.saturating_duration_since(slot.at) < AGAIN;
        let is_negative = reply.is_negative();
        // The member with the newest version is looked up each time, because it may be down.
        if is_reported && !(slot.is_older && is_negative) {
            return None;
        }
        let newer = serials.hear(&serial.to_serial()?, backend, SerialSource::Reply, now);
        *slot = VersionSlot { hash, at: now, verdicts: serials.verdicts(), is_older: newer.is_some() };
        newer.filter(|newer| is_negative && shared.find(*newer).is_some_and(|newer| newer.takes_queries()))
    }
}

/// The number of versions remembered for each pool: 40 KiB.
const SLOTS: usize = 1024;

/// The interval after which a version is reported again, so that the members' versions stay known.
const AGAIN: Duration = Duration::from_secs(1);
