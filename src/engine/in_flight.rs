//! The queries that one worker has in flight: races at their places, found by question.

use std::sync::Arc;

use hashbrown::HashTable;

use super::entry::{Entry, Spills, Start};
use super::io::Client;
use super::slots::{RaceRef, Slots};
use crate::limit::Clients;
use crate::wire::{self, QuestionFlags};

/// The queries in flight of one worker.
pub(super) struct InFlight<C: Client> {
    slots: Slots<Entry<C>>,
    /// Places by the hash of their question.
    by_question: HashTable<Mark>,
    /// What was spilled by entries that are gone.
    spills: Spills<C>,
    /// Where queries are written before they find their place.
    scratch: Vec<u8>,
    /// Where those who wait count.
    clients: Arc<Clients>,
}

/// Where the race for a question is. With a part of its hash: neither to grow nor to pass over another question does the table
/// look at places, which are far apart.
struct Mark {
    /// The lower half of the hash.
    hash: u32,
    /// The number of the place.
    index: u32,
}

impl Mark {
    /// The hash that the table goes by: it takes the place from the lower bits and a tag from the upper ones.
    fn hash(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl<C: Client> InFlight<C> {
    /// Room for some, before anything has to grow.
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

    /// The race for a question that others may join: its folded wire form, and its flags.
    pub(super) fn find(&self, hash: u64, question: &[u8], flags: QuestionFlags) -> Option<RaceRef> {
        let sought = Mark { hash: hash as u32, index: 0 };
        let is_equal = |mark: &Mark| {
            let entry = || self.slots.at(mark.index).map(|(_, entry)| entry);
            mark.hash == sought.hash
                && entry().is_some_and(|entry| {
                    entry.hash == hash && entry.flags == flags && wire::eq_ignore_case(entry.question(), question)
                })
        };
        let mark = self.by_question.find(sought.hash(), is_equal)?;
        self.slots.at(mark.index).map(|(at, _)| at)
    }

    /// Adds a race; `write_query` writes the query for backends and returns where its OPT starts.
    pub(super) fn insert(&mut self, start: Start<C>, write_query: impl FnOnce(&mut Vec<u8>) -> usize) -> RaceRef {
        let (hash, is_alone) = (start.hash as u32, start.is_alone);
        let opt_at = write_query(&mut self.scratch);
        let at = self.slots.insert(Entry::new(start, &self.scratch, opt_at, &mut self.spills));
        if !is_alone {
            let mark = Mark { hash, index: at.index() };
            self.by_question.insert_unique(mark.hash(), mark, Mark::hash);
        }
        at
    }

    /// The race at `at`, unless it is over.
    pub(super) fn get(&self, at: RaceRef) -> Option<&Entry<C>> {
        self.slots.get(at)
    }

    /// Lends the race at `at`, unless it is over, and what it may spill into.
    pub(super) fn lend(&mut self, at: RaceRef) -> Option<(&mut Entry<C>, &mut Spills<C>)> {
        Some((self.slots.get_mut(at)?, &mut self.spills))
    }

    /// All races.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RaceRef, &Entry<C>)> + Clone {
        self.slots.iter()
    }

    /// Ends a race. Its place is free, its question may be raced anew, and who waited still does so no more.
    pub(super) fn remove(&mut self, at: RaceRef) {
        let Some(entry) = self.slots.get_mut(at) else { return };
        entry.release_waiters(&self.clients);
        let mark = Mark { hash: entry.hash as u32, index: at.index() };
        entry.give_back_spill(&mut self.spills);
        self.slots.remove(at);
        if let Ok(place) = self.by_question.find_entry(mark.hash(), |other| other.index == mark.index) {
            place.remove();
        }
        // After a peak. To go through what is left costs less than what it took to come to be so few.
        let (len, capacity) = (self.by_question.len(), self.by_question.capacity());
        if capacity > 8 * WARM && len < capacity / 8 {
            self.by_question.shrink_to(2 * len.max(WARM), Mark::hash);
        }
    }
}

impl<C: Client> Drop for InFlight<C> {
    /// A worker that ends with races in flight leaves nobody counted.
    fn drop(&mut self) {
        let clients = &self.clients;
        self.slots.entries_mut().for_each(|entry| entry.release_waiters(clients));
    }
}

/// Queries in flight for which there is room at once.
const WARM: usize = 1024;

/// Octets for which the place to write queries at has room at once.
const SCRATCH: usize = 512;

#[cfg(test)]
mod tests;
