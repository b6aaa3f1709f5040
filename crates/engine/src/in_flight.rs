//! The queries that one worker has in flight, found by question.

use std::num::NonZeroU32;
use std::sync::Arc;

use limit::Clients;

use super::cached::HashedQuestion;
use super::compact_table::CompactTable;
use super::entry::{RaceEntry, Spills, Start};
use super::io::ClientHandle;
use super::pools::PoolSlot;
use super::slots::{RaceRef, Slots};
use super::subnet::SentSubnet;

pub(super) struct InFlight<C: ClientHandle> {
    slots: Slots<RaceEntry<C>>,
    /// The places of races. The hashes are beside them, because the races are far apart.
    by_question: CompactTable<u32>,
    spills: Spills<C>,
    scratch: Vec<u8>,
    clients: Arc<Clients>,
}

impl<C: ClientHandle> InFlight<C> {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self {
            slots: Slots::new(),
            by_question: CompactTable::new(),
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
        let is_equal = |index: &u32| {
            self.slots.at(*index).is_some_and(|(_, entry)| {
                entry.hash == hash
                    && entry.query.flags == flags
                    && entry.origin.pool == pool
                    && entry.subnet() == subnet
                    && dns::eq_ignore_case(entry.question(), octets)
            })
        };
        let index = self.by_question.find(mark(hash, subnet), is_equal)?;
        self.slots.at(index).map(|(at, _)| at)
    }

    /// Adds a race. `write_query` writes the query for backends and returns the offset of its OPT record.
    pub(super) fn insert(&mut self, start: Start<C>, write_query: impl FnOnce(&mut Vec<u8>) -> usize) -> RaceRef {
        let (hash, subnet, is_alone) = (start.hash, start.subnet, start.is_alone);
        let opt_at = write_query(&mut self.scratch);
        let at = self.slots.insert(RaceEntry::new(start, &self.scratch, opt_at, &mut self.spills));
        if !is_alone {
            self.by_question.insert(mark(hash, subnet.as_ref()), at.index());
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
        let mark = mark(entry.hash, entry.subnet());
        entry.give_back_spill(&mut self.spills);
        self.slots.remove(at);
        self.by_question.remove(mark, |index| *index == at.index());
    }
}

/// Returns the hash for the table of races.
fn mark(hash: u64, subnet: Option<&SentSubnet>) -> NonZeroU32 {
    NonZeroU32::new((hash ^ SentSubnet::mark(subnet)) as u32).unwrap_or(NonZeroU32::MIN)
}

impl<C: ClientHandle> Drop for InFlight<C> {
    fn drop(&mut self) {
        let clients = &self.clients;
        self.slots.entries_mut().for_each(|entry| entry.release_waiters(clients));
    }
}

const SCRATCH: usize = 512;

#[cfg(test)]
mod tests;
