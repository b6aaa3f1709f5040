//! The zone versions of the members of a pool of replicas. The same one is reported once a second at most.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dns::ZoneSerial;
use hedge::BackendIndex;

use super::{SharedBackend, SharedPool};
use crate::state::serial_table::{SerialSource, SerialTable, Versions, is_newer};

/// The zone versions of the members of a pool.
#[derive(Debug, Default)]
pub struct SharedSerials {
    known: Mutex<PoolSerials>,
    verdicts: AtomicU64,
}

#[derive(Debug, Default)]
struct PoolSerials {
    serials: SerialTable,
    members: BTreeMap<BackendIndex, Arc<SharedBackend>>,
    turn: usize,
}

impl SharedSerials {
    /// Returns the number of times a member was found outdated.
    #[inline]
    pub(crate) fn verdicts(&self) -> u64 {
        self.verdicts.load(Acquire)
    }

    /// Records the version of a member. Returns a member with a newer version, in rotation.
    pub fn hear(
        &self,
        reported: &ZoneSerial,
        backend: BackendIndex,
        source: SerialSource,
        now: Instant,
    ) -> Option<BackendIndex> {
        let zone = reported.zone.as_wire();
        let mut known = self.known();
        known.serials.hear(zone, backend, reported.serial, source, now);
        self.verdicts.store(known.serials.verdicts(), Release);
        if !known.serials.is_older(zone, backend) {
            return None;
        }
        known.turn = known.turn.wrapping_add(1);
        known.serials.one_of_newest(zone, known.turn)
    }

    /// Returns true if a member that is up has a newer version.
    pub(crate) fn is_outdated(&self, reported: &ZoneSerial) -> bool {
        let known = self.known();
        known.serials.newest(reported.zone.as_wire()).is_some_and(|(_, newest)| is_newer(newest, reported.serial))
    }

    /// Updates the members of the pool, and which of them take queries.
    pub fn set_members(&self, pool: &SharedPool, now: Instant) {
        let mut guard = self.known();
        let PoolSerials { serials, members, .. } = &mut *guard;
        members.retain(|index, known| {
            let is_member = pool.find(*index).is_some_and(|same| Arc::ptr_eq(same, known));
            if !is_member {
                serials.forget(*index, now);
            }
            is_member
        });
        for backend in &pool.backends {
            members.entry(backend.index).or_insert_with(|| Arc::clone(backend));
            serials.set_up(backend.index, backend.takes_queries(), now);
        }
        self.verdicts.store(serials.verdicts(), Release);
    }

    /// Returns the members that have been outdated for longer than `max_lag`.
    pub fn behind(&self, max_lag: Duration, now: Instant) -> Vec<BackendIndex> {
        self.known().serials.behind(max_lag, now)
    }

    /// Returns the members and zones whose SOA record is due for a query.
    pub fn ask(&self, now: Instant) -> Vec<(Arc<SharedBackend>, Box<[u8]>)> {
        let mut guard = self.known();
        let PoolSerials { serials, members, .. } = &mut *guard;
        let asked = serials.ask(now).into_iter();
        asked.filter_map(|(member, zone)| Some((Arc::clone(members.get(&member)?), zone))).collect()
    }

    /// Returns the last reported versions of each zone.
    pub fn versions(&self, now: Instant) -> Vec<Versions> {
        self.known().serials.versions(now)
    }

    /// Drops all versions, because the members are no longer replicas.
    pub fn forget(&self) {
        let mut known = self.known();
        let verdicts = known.serials.verdicts();
        *known = PoolSerials::default();
        // The count continues, so that no worker takes an earlier verdict for a current one.
        known.serials.go_on_from(verdicts);
    }

    fn known(&self) -> MutexGuard<'_, PoolSerials> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
