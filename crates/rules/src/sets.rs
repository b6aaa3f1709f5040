//! Sets of rules as bits, each stored once.

use std::collections::HashMap;

/// The sets of rules that classes refer to, by number. Equal sets have one number.
#[derive(Debug)]
pub(crate) struct RuleSets {
    words: usize,
    bits: Vec<u64>,
    numbers: HashMap<Box<[u64]>, u32>,
}

impl RuleSets {
    /// Creates the store for sets of so many rules.
    pub(crate) fn new(rules: usize) -> Self {
        Self { words: rules.div_ceil(64), bits: Vec::new(), numbers: HashMap::new() }
    }

    /// Returns the set without rules.
    pub(crate) fn none(&self) -> Vec<u64> {
        vec![0; self.words]
    }

    /// Returns the number of a set, which is stored if it is new.
    pub(crate) fn number(&mut self, set: &[u64]) -> u32 {
        if let Some(&number) = self.numbers.get(set) {
            return number;
        }
        let number = self.numbers.len() as u32;
        self.bits.extend_from_slice(set);
        self.numbers.insert(set.into(), number);
        number
    }

    /// Returns the set with a number.
    pub(crate) fn get(&self, number: u32) -> &[u64] {
        &self.bits[number as usize * self.words..][..self.words]
    }

    /// Returns the sets by number, without the index for adding more.
    pub(crate) fn freeze(self) -> (usize, Box<[u64]>) {
        (self.words, self.bits.into())
    }
}

/// Adds a rule to a set.
pub(crate) fn insert(set: &mut [u64], rule: usize) {
    set[rule / 64] |= 1 << (rule % 64);
}

/// Returns true if a set has a rule.
pub(crate) fn has(set: &[u64], rule: usize) -> bool {
    set[rule / 64] >> (rule % 64) & 1 == 1
}

/// Adds the rules of another set.
pub(crate) fn unite(set: &mut [u64], other: &[u64]) {
    set.iter_mut().zip(other).for_each(|(word, other)| *word |= other);
}

/// Removes the rules that are not in another set.
pub(crate) fn intersect(set: &mut [u64], other: &[u64]) {
    set.iter_mut().zip(other).for_each(|(word, other)| *word &= other);
}

/// Returns true for a set without rules.
pub(crate) fn is_empty(set: &[u64]) -> bool {
    set.iter().all(|word| *word == 0)
}

/// Returns true if all rules of a set are in another one.
pub(crate) fn is_subset(set: &[u64], other: &[u64]) -> bool {
    set.iter().zip(other).all(|(word, other)| word & !other == 0)
}

/// Returns the rules of a set in ascending order.
pub(crate) fn members(set: &[u64]) -> impl Iterator<Item = usize> {
    set.iter().enumerate().flat_map(|(number, &word)| {
        let rest = std::iter::successors(Some(word), |rest| Some(rest & rest.wrapping_sub(1)));
        rest.take_while(|rest| *rest > 0).map(move |rest| number * 64 + rest.trailing_zeros() as usize)
    })
}
