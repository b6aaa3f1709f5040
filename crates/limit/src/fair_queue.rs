//! A fair queue: parties take turns (round-robin), however much one of them has queued.

use std::collections::VecDeque;

/// The queued items, by party.
#[derive(Debug)]
pub struct FairQueue<K, T> {
    parties: VecDeque<(K, VecDeque<T>)>,
}

impl<K: PartialEq + Copy, T> FairQueue<K, T> {
    /// Creates an empty queue.
    pub fn new() -> Self {
        Self { parties: VecDeque::new() }
    }

    /// Returns true if the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.parties.is_empty()
    }

    /// Returns the number of a party's items.
    pub fn len_of(&self, party: K) -> usize {
        self.parties.iter().find(|(known, _)| *known == party).map_or(0, |(_, items)| items.len())
    }

    /// Queues an item behind the others of its party.
    pub fn push(&mut self, party: K, item: T) {
        match self.parties.iter_mut().find(|(known, _)| *known == party) {
            Some((_, items)) => items.push_back(item),
            None => self.parties.push_back((party, VecDeque::from([item]))),
        }
    }

    /// Returns the first item of the next party that `may_have` admits.
    #[cfg(test)]
    pub(crate) fn peek(&self, may_have: impl Fn(K) -> bool) -> Option<&T> {
        self.parties.iter().find(|(party, _)| may_have(*party)).and_then(|(_, items)| items.front())
    }

    /// Removes and returns that item with its party.
    pub fn pop(&mut self, may_have: impl Fn(K) -> bool) -> Option<(K, T)> {
        let next = self.parties.iter().position(|(party, _)| may_have(*party))?;
        let (party, mut items) = self.parties.remove(next)?;
        let item = items.pop_front()?;
        if !items.is_empty() {
            self.parties.push_back((party, items));
        }
        Some((party, item))
    }

    /// Removes an item before its turn. Returns true if it was queued.
    pub fn remove(&mut self, party: K, is_meant: impl Fn(&T) -> bool) -> bool {
        let Some(place) = self.parties.iter().position(|(known, _)| *known == party) else { return false };
        let items = &mut self.parties[place].1;
        let Some(found) = items.iter().position(is_meant) else { return false };
        items.remove(found);
        if items.is_empty() {
            self.parties.remove(place);
        }
        true
    }
}

impl<K: PartialEq + Copy, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drains the queue in the order of turns.
    fn drain(turns: &mut FairQueue<char, u32>) -> Vec<(char, u32)> {
        std::iter::from_fn(|| turns.pop(|_| true)).collect()
    }

    #[test]
    fn parties_take_turns_whatever_one_has_queued() {
        let mut turns = FairQueue::new();
        (0..5).for_each(|item| turns.push('a', item));
        turns.push('b', 10);
        (20..22).for_each(|item| turns.push('c', item));
        assert_eq!([turns.len_of('a'), turns.len_of('b'), turns.len_of('d')], [5, 1, 0]);
        let order = [('a', 0), ('b', 10), ('c', 20), ('a', 1), ('c', 21), ('a', 2), ('a', 3), ('a', 4)];
        assert_eq!(drain(&mut turns), order);
        assert!(turns.is_empty());
    }

    #[test]
    fn who_may_not_have_a_turn_keeps_it() {
        let mut turns = FairQueue::new();
        for (party, item) in [('a', 1), ('b', 2), ('a', 3)] {
            turns.push(party, item);
        }
        assert_eq!(turns.peek(|party| party != 'a'), Some(&2));
        assert_eq!(turns.pop(|party| party != 'a'), Some(('b', 2)));
        assert_eq!(turns.pop(|party| party != 'a'), None);
        assert_eq!(drain(&mut turns), [('a', 1), ('a', 3)]);
    }

    #[test]
    fn what_is_taken_out_has_no_turn() {
        let mut turns = FairQueue::new();
        (0..3).for_each(|item| turns.push('a', item));
        assert!(turns.remove('a', |item| *item == 1) && !turns.remove('a', |item| *item == 1));
        assert!(!turns.remove('b', |item| *item == 0));
        assert_eq!(drain(&mut turns), [('a', 0), ('a', 2)]);
        turns.push('a', 7);
        assert!(turns.remove('a', |item| *item == 7) && turns.is_empty());
    }
}
