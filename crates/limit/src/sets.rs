//! A table of words in sets.

use crate::sync::{AtomicU64, zeroed};

/// Sets of words, in cache lines of eight words.
#[derive(Debug)]
pub(super) struct WordSets<const WAYS: usize> {
    words: Box<[AtomicU64]>,
    /// The first word at the start of a cache line.
    first: usize,
}

impl<const WAYS: usize> WordSets<WAYS> {
    /// Creates this number of sets; every word is zero.
    pub(super) fn new(sets: usize) -> Self {
        let words = zeroed::<AtomicU64>(sets * WAYS + LINE - 1);
        let first = words.as_ptr().align_offset(LINE * size_of::<u64>()).min(LINE - 1);
        Self { words, first }
    }

    pub(super) fn get(&self, set: usize) -> Option<&[AtomicU64; WAYS]> {
        self.words().get(set * WAYS..)?.first_chunk()
    }

    pub(super) fn len(&self) -> usize {
        (self.words.len() + 1 - LINE) / WAYS
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        &self.words[self.first..]
    }
}

/// The words of a cache line.
const LINE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Ordering::Relaxed;

    #[test]
    fn sets_are_separate_and_in_whole_cache_lines() {
        let sets = WordSets::<8>::new(4);
        for (number, set) in (0..sets.len()).filter_map(|number| Some((number, sets.get(number)?))) {
            assert_eq!(set.as_ptr().addr() % 64, 0);
            assert!(set.iter().all(|word| word.swap(number as u64 + 1, Relaxed) == 0));
        }
        assert_eq!(sets.words().iter().map(|word| word.load(Relaxed)).sum::<u64>(), 8 * (1 + 2 + 3 + 4));
        assert!(sets.get(4).is_none());
    }
}
