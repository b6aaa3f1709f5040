//! What the members of a pool of replicas have said of the versions of their zones, as all workers and the control thread share it.
//!
//! Workers tell what they hear, but not the same again for a second: until then [`SharedSerials::verdicts`] says whether what they were
//! told of it still holds, without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{SharedBackend, SharedPool};
use crate::policy::BackendIndex;
use crate::policy::serials::{MemberId, Serials, Source, Versions, is_newer};
use crate::wire::ZoneSerial;

/// The versions of zones at the members of a pool.
#[derive(Debug, Default)]
pub struct SharedSerials {
    known: Mutex<Known>,
    /// How often a member was found to be older than another. One that was not is not, until that has changed.
    verdicts: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    serials: Serials,
    /// Who the members are, so that another one at the same place is not taken for one that has gone.
    members: BTreeMap<BackendIndex, Arc<SharedBackend>>,
    /// Whose turn it is of those that have the newest version.
    turn: usize,
}

impl SharedSerials {
    /// How often a member was found to be older than another.
    #[inline]
    pub fn verdicts(&self) -> u64 {
        self.verdicts.load(Acquire)
    }

    /// A member has told a version. Returns who has a newer one, each of several in turn.
    pub fn hear(&self, told: &ZoneSerial, backend: BackendIndex, source: Source, now: Instant) -> Option<BackendIndex> {
        let (zone, member) = (told.zone.as_wire(), member_of(backend));
        let mut known = self.known();
        known.serials.hear(zone, member, told.serial, source, now);
        self.verdicts.store(known.serials.verdicts(), Release);
        if !known.serials.is_older(zone, member) {
            return None;
        }
        known.turn = known.turn.wrapping_add(1);
        known.serials.one_of_newest(zone, known.turn).map(backend_of)
    }

    /// Whether a member that is up has a newer version than this.
    pub fn is_outdated(&self, told: &ZoneSerial) -> bool {
        let known = self.known();
        known.serials.newest(told.zone.as_wire()).is_some_and(|(_, newest)| is_newer(newest, told.serial))
    }

    /// Takes note of who the members of the pool are now, and which of them take queries.
    pub fn set_members(&self, pool: &SharedPool, now: Instant) {
        let mut guard = self.known();
        let Known { serials, members, .. } = &mut *guard;
        members.retain(|index, known| {
            let is_member = pool.find(*index).is_some_and(|same| Arc::ptr_eq(same, known));
            if !is_member {
                serials.forget(member_of(*index), now);
            }
            is_member
        });
        for backend in &pool.backends {
            members.entry(backend.index).or_insert_with(|| Arc::clone(backend));
            serials.set_up(member_of(backend.index), backend.takes_queries(), now);
        }
        self.verdicts.store(serials.verdicts(), Release);
    }

    /// The members that have been older than the newest for longer than this.
    pub fn behind(&self, max_lag: Duration, now: Instant) -> Vec<BackendIndex> {
        self.known().serials.behind(max_lag, now).into_iter().map(backend_of).collect()
    }

    /// Whom to ask for the SOA record of which zone now.
    pub fn ask(&self, now: Instant) -> Vec<(Arc<SharedBackend>, Box<[u8]>)> {
        let mut guard = self.known();
        let Known { serials, members, .. } = &mut *guard;
        let asked = serials.ask(now).into_iter();
        asked.filter_map(|(member, zone)| Some((Arc::clone(members.get(&backend_of(member))?), zone))).collect()
    }

    /// What the members have said last of each zone.
    pub fn versions(&self, now: Instant) -> Vec<Versions> {
        self.known().serials.versions(now)
    }

    /// Forgets all: the members are no replicas any more.
    pub fn forget(&self) {
        let mut known = self.known();
        let verdicts = known.serials.verdicts();
        *known = Known::default();
        // It goes on from there, so that no worker takes an earlier verdict for one of now.
        known.serials.go_on_from(verdicts);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // There is nothing that a panic could leave half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pool's serials call a backend.
fn member_of(backend: BackendIndex) -> MemberId {
    MemberId(backend.0.into())
}

/// The backend that is called so.
fn backend_of(MemberId(number): MemberId) -> BackendIndex {
    BackendIndex(number as u16)
}
