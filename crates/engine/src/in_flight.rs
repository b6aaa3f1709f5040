//! The queries that one worker has in flight, found by question.

use std::sync::Arc;

use hashbrown::HashTable;
use limit::Clients;

use super::cached::HashedQuestion;
use super::entry::{RaceEntry, Spills, Start};
use super::io::ClientHandle;
use super::pools::PoolSlot;
use super::slots::{RaceRef, Slots};
use super::subnet::SentSubnet;

pub(super) struct InFlight<C: ClientHandle> {
    slots: Slots<RaceEntry<C>>,
    by_question: HashTable<FlightMark>,
    spills: Spills<C>,
    scratch: Vec<u8>,
    clients: Arc<Clients>,
}

/// The place of the race for a question, with part of the hash: the table can grow and skip other questions
/// without access to the places, which are far apart.
struct FlightMark {
    hash: u32,
    index: u32,
}

impl FlightMark {
    fn new(hash: u64, subnet: Option<&SentSubnet>, index: u32) -> Self {
        Self { hash: (hash ^ SentSubnet::mark(subnet)) as u32, index }
    }

    /// Returns the hash for the table, which uses the lower bits as place and the upper as tag.
    fn hash(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl<C: ClientHandle> InFlight<C> {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self {
            slots: Slots::new(),
            by_question: HashTable::with_capacity(WARM),
            spills: Spills::new(),
            scratch: Vec::with_capacity(SCRATCH),
            clients,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns the race for a question in a pool. Equal questions may go to several pools, by rules.
    pub(super) fn find(
        &self,
        pool: PoolSlot,
        question: &HashedQuestion<'_>,
        subnet: Option<&SentSubnet>,
    ) -> Option<RaceRef> {
        let HashedQuestion { octets, flags, hash } = *question;
        let sought = FlightMark::new(hash, subnet, 0);
        let is_equal = |mark: &FlightMark| {
            let entry = || self.slots.at(mark.index).map(|(_, entry)| entry);
            mark.hash == sought.hash
                && entry().is_some_and(|entry| {
                    entry.hash == hash
                        && entry.query.flags == flags
                        && entry.origin.pool == pool
                        && entry.subnet() == subnet
                        && dns::eq_ignore_case(entry.question(), octets)
                })
        };
        let mark = self.by_question.find(sought.hash(), is_equal)?;
        self.slots.at(mark.index).map(|(at, _)| at)
    }

    /// Adds a race. `write_query` writes the query for backends and returns the offset of its OPT record.
    pub(super) fn insert(&mut self, start: Start<C>, write_query: impl FnOnce(&mut Vec<u8>) -> usize) -> RaceRef {
        let (hash, subnet, is_alone) = (start.hash, start.subnet, start.is_alone);
        let opt_at = write_query(&mut self.scratch);
        let at = self.slots.insert(RaceEntry::new(start, &self.scratch, opt_at, &mut self.spills));
        if !is_alone {
            let mark = FlightMark::new(hash, subnet.as_ref(), at.index());
            self.by_question.insert_unique(mark.hash(), mark, FlightMark::hash);
        }
        at
    }

    pub(super) fn get(&self, at: RaceRef) -> Option<&RaceEntry<C>> {
        self.slots.get(at)
    }

    pub(super) fn lend(&mut self, at: RaceRef) -> Option<(&mut RaceEntry<C>, &mut Spills<C>)> {
        Some((self.slots.get_mut(at)?, &mut self.spills))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RaceRef, &RaceEntry<C>)> + Clone {
        self.slots.iter()
    }

    pub(super) fn remove(&mut self, at: RaceRef) {
        let Some(entry) = self.slots.get_mut(at) else { return };
        entry.release_waiters(&self.clients);
        let mark = FlightMark::new(entry.hash, entry.subnet(), at.index());
        entry.give_back_spill(&mut self.spills);
        self.slots.remove(at);
        if let Ok(place) = self.by_question.find_entry(mark.hash(), |other| other.index == mark.index) {
            place.remove();
        }
        // Shrinks after a peak. This costs less than the removals since the peak.
        let (len, capacity) = (self.by_question.len(), self.by_question.capacity());
        if capacity > 8 * WARM && len < capacity / 8 {
            self.by_question.shrink_to(2 * len.max(WARM), FlightMark::hash);
        }
    }
}

impl<C: ClientHandle> Drop for InFlight<C> {
    fn drop(&mut self) {
        let clients = &self.clients;
        self.slots.entries_mut().for_each(|entry| entry.release_waiters(clients));
    }
}

const WARM: usize = 1024;

const SCRATCH: usize = 512;

#[cfg(test)]
mod tests;
