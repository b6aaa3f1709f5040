//! Where each name lives: the memory of `balance = "sticky"`.
//!
//! All workers share it, and nobody waits. It is an array of atomic words in sets of eight, one cache line each.
//! The hash of a name picks the set; a word in it holds
//!
//! ```text
//!     bits 63..32   tag: the other half of the hash, never 0
//!     bits 31..16   stamp: the higher the younger, counted within the set
//!     bits 15..0    which backend
//! ```
//!
//! and is 0 if it is free. What is remembered gets the highest stamp of its set; if no word is free, the one with the
//! lowest goes. So the size is fixed, and the oldest names are forgotten first, or nearly: age is compared within a
//! set only.
//!
//! Words are read and written one by one. Two workers that write to one set at the same time may forget a name too
//! many, or write one name twice, of which the younger is believed; and of 2^32 names of one set two share a tag. All of
//! that costs a query a detour, never its answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A bounded map from names to backends.
#[derive(Debug)]
pub struct Memory {
    /// The sets, a power of two of them.
    sets: Box<[Set]>,
}

impl Memory {
    /// An empty memory for at least so many names. It takes 8 octets for each.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| Set::default()).collect() }
    }

    /// The backend that this name lives at, if it is remembered. `name`: the hash of the folded name.
    pub fn recall(&self, name: u64) -> Option<u16> {
        let words = self.set(name).iter().map(|word| Word::read(word.load(Relaxed)));
        let known = words.filter(|word| word.tag == tag(name));
        known.max_by_key(|word| word.stamp).map(|word| word.backend)
    }

    /// This name lives at this backend now. Where that is no news, nothing is written.
    pub fn remember(&self, name: u64, backend: u16) {
        let (set, tag) = (self.set(name), tag(name));
        let words = set.each_ref().map(|word| Word::read(word.load(Relaxed)));
        let youngest = words.iter().map(|word| word.stamp).max().unwrap_or(0);
        // A free word has the lowest stamp there is, but so may another.
        let place =
            words.iter().position(|word| word.tag == tag).or_else(|| words.iter().position(|word| word.tag == 0));
        let oldest = || (0..WAYS).min_by_key(|&place| words[place].stamp).unwrap_or(0);
        let place = place.unwrap_or_else(oldest);
        if words[place] == (Word { tag, stamp: youngest, backend }) {
            return;
        }
        let stamp = youngest.checked_add(1).unwrap_or_else(|| {
            // The stamps have run out, as they do after 65,535 writes: which of these names is older is forgotten.
            for (word, known) in set.iter().zip(words).filter(|(_, known)| known.tag != 0) {
                word.store(Word { stamp: 0, ..known }.write(), Relaxed);
            }
            1
        });
        set[place].store(Word { tag, stamp, backend }.write(), Relaxed);
    }

    /// This name lives nowhere.
    pub fn forget(&self, name: u64) {
        for word in self.set(name) {
            if Word::read(word.load(Relaxed)).tag == tag(name) {
                word.store(0, Relaxed);
            }
        }
    }

    /// The words among which a name is looked for.
    fn set(&self, name: u64) -> &[AtomicU64; WAYS] {
        &self.sets[name as usize & (self.sets.len() - 1)].0
    }
}

/// Eight words that share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// What a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Half of the hash of the name; 0: the word is free.
    tag: u32,
    /// The higher, the younger.
    stamp: u16,
    /// Where the name lives.
    backend: u16,
}

impl Word {
    /// The parts of a word.
    fn read(word: u64) -> Self {
        Self { tag: (word >> 32) as u32, stamp: (word >> 16) as u16, backend: word as u16 }
    }

    /// The word of these parts.
    fn write(self) -> u64 {
        u64::from(self.tag) << 32 | u64::from(self.stamp) << 16 | u64::from(self.backend)
    }
}

/// The tag of a name: of the half of the hash that does not pick the set.
fn tag(name: u64) -> u32 {
    ((name >> 32) as u32).max(1)
}

/// Words in a set: what fits in a cache line.
const WAYS: usize = 8;
