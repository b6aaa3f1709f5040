//! A hash table that takes little memory, for an entry per query in flight.
//!
//! Entries are in the order of their hashes, each at the place of its hash or at the next one with room. A
//! larger table therefore gets its entries in one pass from front to back, so it can grow by an eighth. A
//! removal moves the entries behind it to the front. The table has 1.14 to 1.29 places for each entry.
//! A table of `hashbrown` doubles, also because of removed entries: with 100,000 queries that come and go, it
//! has 262,144 places.

use std::num::NonZeroU32;

pub(super) struct CompactTable<T> {
    /// At least one place for each home. Entries near the end can lie behind their homes.
    places: Vec<Option<(NonZeroU32, T)>>,
    homes: usize,
    len: usize,
}

impl<T: Copy> CompactTable<T> {
    pub(super) fn new() -> Self {
        let mut table = Self { places: Vec::new(), homes: 0, len: 0 };
        table.rebuild(WARM);
        table
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.places.capacity()
    }

    /// Returns the first entry with this hash that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: NonZeroU32, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let (_, found) = self.places[self.place(hash, is_it)?]?;
        Some(found)
    }

    #[inline]
    pub(super) fn insert(&mut self, hash: NonZeroU32, entry: T) {
        self.len += 1;
        if self.len > self.homes / 8 * 7 {
            self.rebuild(self.homes + self.homes / 8);
        }
        let is_before = |place: &Option<(NonZeroU32, T)>| place.is_some_and(|(other, _)| other <= hash);
        let mut at = home(hash, self.homes);
        while self.places.get(at).is_some_and(is_before) {
            at += 1;
        }
        let Some(room) = self.places[at..].iter().position(Option::is_none) else {
            self.places.reserve_exact(SLACK);
            return self.places.insert(at, Some((hash, entry)));
        };
        if room > 0 {
            self.places.copy_within(at..at + room, at + 1);
        }
        self.places[at] = Some((hash, entry));
    }

    /// Removes and returns the first entry with this hash that `is_it`.
    #[inline]
    pub(super) fn remove(&mut self, hash: NonZeroU32, is_it: impl FnMut(&T) -> bool) -> Option<T> {
        let at = self.place(hash, is_it)?;
        let (_, removed) = self.places[at]?;
        let mut end = at + 1;
        while let Some(&Some((other, _))) = self.places.get(end)
            && home(other, self.homes) < end
        {
            end += 1;
        }
        if end > at + 1 {
            self.places.copy_within(at + 1..end, at);
        }
        self.places[end - 1] = None;
        self.len -= 1;
        if self.homes > 8 * WARM && self.len < self.homes / 8 {
            self.rebuild(self.homes / 4);
        }
        Some(removed)
    }

    fn place(&self, hash: NonZeroU32, mut is_it: impl FnMut(&T) -> bool) -> Option<usize> {
        let mut at = home(hash, self.homes);
        while let Some((other, entry)) = self.places.get(at).copied().flatten()
            && other <= hash
        {
            if other == hash && is_it(&entry) {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    #[cold]
    fn rebuild(&mut self, homes: usize) {
        let mut places = Vec::with_capacity(homes + SLACK);
        for entry in self.places.iter().flatten() {
            places.resize(places.len().max(home(entry.0, homes)), None);
            places.push(Some(*entry));
        }
        places.resize(places.len().max(homes), None);
        (self.places, self.homes) = (places, homes);
    }
}

/// Returns the place of a hash in a table that no other entry uses.
fn home(hash: NonZeroU32, homes: usize) -> usize {
    ((u64::from(hash.get()) * homes as u64) >> u32::BITS) as usize
}

/// The homes of an empty table.
const WARM: usize = 1024;

/// Places behind the last home.
const SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn hash(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("not zero")
    }

    #[test]
    fn entries_with_equal_hashes_and_at_both_ends_are_found_until_removed() {
        let mut table = CompactTable::new();
        let hashes = [1, 2, u32::MAX, u32::MAX - 1, 1 << 31];
        for (hash, value) in hashes.into_iter().flat_map(|number| (0..200).map(move |value| (hash(number), value))) {
            table.insert(hash, value);
        }
        for (hash, value) in hashes.into_iter().flat_map(|number| (0..200).map(move |value| (hash(number), value))) {
            assert_eq!(table.find(hash, |other| *other == value), Some(value));
            assert_eq!(table.remove(hash, |other| *other == value), Some(value));
            assert_eq!(table.remove(hash, |other| *other == value), None);
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_hundred_thousand_entries_that_come_and_go_take_few_places() {
        let (mut table, mut rng) = (CompactTable::new(), SmallRng::seed_from_u64(1));
        let mut draw = || hash(rng.random_range(1..=u32::MAX));
        let mut present: Vec<_> = (0..100_000).map(|_| draw()).collect();
        present.iter().for_each(|hash| table.insert(*hash, hash.get()));
        for turn in 0..300_000 {
            let hash = &mut present[turn % 100_000];
            assert_eq!(table.remove(*hash, |value| *value == hash.get()), Some(hash.get()));
            *hash = draw();
            table.insert(*hash, hash.get());
        }
        assert_eq!(size_of_val(&table.places[0]), 8);
        assert!(table.capacity() <= 129_000, "{}", table.capacity());
        assert!(present.iter().all(|hash| table.find(*hash, |_| true) == Some(hash.get())));
        present.iter().for_each(|hash| assert!(table.remove(*hash, |_| true).is_some()));
        assert!(table.len() == 0 && table.capacity() <= 8 * WARM + SLACK, "{}", table.capacity());
    }
}
