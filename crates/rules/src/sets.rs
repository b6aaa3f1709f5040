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
