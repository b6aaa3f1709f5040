//! A store of equal places for several parties, of which no party may hold more than are free.
//!
//! This is the dynamic threshold of Choudhury and Hahne (1998). One party alone gets half of the places, two
//! a third each, and a new party always finds some, without reserved places.

use std::collections::BTreeMap;

/// The places and their holders.
#[derive(Debug)]
pub struct DynamicThreshold<K> {
    places: usize,
    held: usize,
    holders: BTreeMap<K, usize>,
}

impl<K: Ord> DynamicThreshold<K> {
    /// Creates free places.
    pub fn new(places: usize) -> Self {
        Self { places, held: 0, holders: BTreeMap::new() }
    }

    /// Changes the number of places. Held ones stay.
    pub fn set_places(&mut self, places: usize) {
        self.places = places;
    }

    /// Returns true if a party may take one more: it holds fewer than are free.
    pub fn fits(&self, party: &K) -> bool {
        self.of(party) < self.free()
    }

    /// Returns the number of free places.
    pub fn free(&self) -> usize {
        self.places.saturating_sub(self.held)
    }

    /// Gives a party a place, without a check.
    pub fn take(&mut self, party: K) {
        self.held += 1;
        *self.holders.entry(party).or_default() += 1;
    }

    /// Takes a place back from a party.
    pub fn give_back(&mut self, party: &K) {
        let Some(holds) = self.holders.get_mut(party) else { return };
        self.held -= 1;
        *holds -= 1;
        if *holds == 0 {
            self.holders.remove(party);
        }
    }

    /// Returns the number of a party's places.
    pub fn of(&self, party: &K) -> usize {
        self.holders.get(party).copied().unwrap_or_default()
    }

    /// Returns the number of held places.
    pub fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills the store in turns and returns the places of each party.
    fn fill(places: usize, parties: u8) -> Vec<usize> {
        let mut threshold = DynamicThreshold::new(places);
        while (0..parties).fold(false, |took, party| {
            let fits = threshold.fits(&party);
            if fits {
                threshold.take(party);
            }
            took || fits
        }) {}
        (0..parties).map(|party| threshold.of(&party)).collect()
    }

    #[test]
    fn so_many_parties_leave_as_much_as_one_of_them_has() {
        assert_eq!(fill(128, 1), [64]);
        assert_eq!(fill(99, 2), [33, 33]);
        assert_eq!(fill(1, 1), [1]);
        assert_eq!(fill(0, 1), [0]);
    }

    #[test]
    fn a_place_that_was_given_back_may_be_taken_by_another() {
        let mut threshold = DynamicThreshold::new(2);
        threshold.take('a');
        assert!(!threshold.fits(&'a'));
        threshold.take('b');
        assert!(!threshold.fits(&'b') && !threshold.fits(&'c'));
        threshold.give_back(&'a');
        assert!(threshold.fits(&'c'));
        assert_eq!((threshold.held(), threshold.of(&'a'), threshold.holders.len()), (1, 0, 1));
        threshold.give_back(&'a');
        assert_eq!(threshold.held(), 1);
    }

    #[test]
    fn who_takes_all_it_may_leaves_half_of_what_was_free() {
        let mut threshold = DynamicThreshold::new(1024);
        let greedy = (0..6).map(|party| {
            while threshold.fits(&party) {
                threshold.take(party);
            }
            threshold.of(&party)
        });
        assert_eq!(greedy.collect::<Vec<_>>(), [512, 256, 128, 64, 32, 16]);
        assert!(threshold.fits(&6));
    }
}
