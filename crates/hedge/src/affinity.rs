//! Session affinity of names for `balance = "sticky"`: a map from each name to the backend that answered it.
//!
//! All workers share it without locks: an array of atomic words in sets of eight, one cache line each.
//!
//! ```text
//!     bits 63..40   tag: of the other half of the hash, never 0
//!     bits 39..32   stamp: the higher the younger, counted within the set
//!     bits 31..0    number of the backend
//! ```
//!
//! A new entry replaces the oldest one of a full set. Two workers that write to one set at the same time may
//! lose a name, which costs a request a detour, never its answer.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A bounded map from names to backends.
#[derive(Debug)]
pub struct Affinity {
    sets: Box<[AffinitySet]>,
    given: AtomicU64,
}

impl Affinity {
    /// Creates an empty map for at least `entries` names. Each name takes 8 bytes.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| AffinitySet::default()).collect(), given: AtomicU64::new(0) }
    }

    /// Returns an unused number for a new backend, and removes old entries with that number.
    pub fn number(&self, is_taken: impl Fn(u32) -> bool) -> u32 {
        loop {
            let given = self.given.fetch_add(1, Relaxed);
            let number = given as u32;
            if given > u64::from(u32::MAX) {
                if is_taken(number) {
                    continue;
                }
                self.forget(number);
            }
            return number;
        }
    }

    fn forget(&self, number: u32) {
        for word in self.sets.iter().flat_map(|set| &set.0) {
            let content = word.load(Relaxed);
            if content != 0 && AffinityWord::read(content).backend == number {
                let _ = word.compare_exchange(content, 0, Relaxed, Relaxed);
            }
        }
    }

    /// Returns the backend that answered this name before. `name` is its hash.
    pub fn get(&self, name: u64) -> Option<u32> {
        let words = self.set(name).iter().map(|word| AffinityWord::read(word.load(Relaxed)));
        let known = words.filter(|word| word.tag == tag(name));
        known.max_by_key(|word| word.stamp).map(|word| word.backend)
    }

    /// Stores the backend of a name. An unchanged entry is not written.
    pub fn insert(&self, name: u64, backend: u32) {
        let (set, tag) = (self.set(name), tag(name));
        let words = set.each_ref().map(|word| AffinityWord::read(word.load(Relaxed)));
        let youngest = words.iter().map(|word| word.stamp).max().unwrap_or(0);
        let place =
            words.iter().position(|word| word.tag == tag).or_else(|| words.iter().position(|word| word.tag == 0));
        let oldest = || (0..WAYS).min_by_key(|&place| words[place].stamp).unwrap_or(0);
        let place = place.unwrap_or_else(oldest);
        if words[place] == (AffinityWord { tag, stamp: youngest, backend }) {
            return;
        }
        let stamp = youngest.checked_add(1).unwrap_or_else(|| {
            // The stamps are exhausted, as happens after some 250 writes: renumber them in the same order.
            let age = |stamp: u8| words.iter().filter(|other| other.tag != 0 && other.stamp < stamp).count() as u8;
            for (word, known) in set.iter().zip(words).filter(|(_, known)| known.tag != 0) {
                word.store(AffinityWord { stamp: age(known.stamp), ..known }.write(), Relaxed);
            }
            WAYS as u8
        });
        set[place].store(AffinityWord { tag, stamp, backend }.write(), Relaxed);
    }

    /// Removes the entry of this name.
    pub fn remove(&self, name: u64) {
        for word in self.set(name) {
            if AffinityWord::read(word.load(Relaxed)).tag == tag(name) {
                word.store(0, Relaxed);
            }
        }
    }

    /// Returns all words for a successor process that hashes names the same way.
    pub fn words(&self) -> Vec<u64> {
        self.sets.iter().flat_map(|set| &set.0).map(|word| word.load(Relaxed)).collect()
    }

    /// Loads the words of another process. `number` maps its backend numbers to the local ones.
    pub fn set_words(&self, words: &[u64], number: impl Fn(u32) -> Option<u32>) {
        let own = self.sets.iter().flat_map(|set| &set.0);
        if words.len() != self.sets.len() * WAYS {
            return;
        }
        for (own, &content) in own.zip(words) {
            let word = AffinityWord::read(content);
            let known = number(word.backend).filter(|_| content != 0);
            own.store(known.map_or(0, |backend| AffinityWord { backend, ..word }.write()), Relaxed);
        }
    }

    fn set(&self, name: u64) -> &[AtomicU64; WAYS] {
        &self.sets[name as usize & (self.sets.len() - 1)].0
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct AffinitySet([AtomicU64; WAYS]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AffinityWord {
    tag: u32,
    stamp: u8,
    backend: u32,
}

impl AffinityWord {
    fn read(word: u64) -> Self {
        Self { tag: (word >> 40) as u32, stamp: (word >> 32) as u8, backend: word as u32 }
    }

    fn write(self) -> u64 {
        u64::from(self.tag) << 40 | u64::from(self.stamp) << 32 | u64::from(self.backend)
    }
}

fn tag(name: u64) -> u32 {
    ((name >> 32) as u32 & TAG_MASK).max(1)
}

const TAG_MASK: u32 = (1 << 24) - 1;

const WAYS: usize = if cfg!(loom) { 2 } else { 8 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a hash that falls into the first set.
    fn name(number: u32) -> u64 {
        u64::from(number + 1) << 32
    }

    #[test]
    fn remembers_corrects_and_forgets() {
        let memory = Affinity::new(1_000);
        assert_eq!(memory.get(name(1)), None);
        memory.insert(name(1), 0);
        assert_eq!(memory.get(name(1)), Some(0));
        memory.insert(name(1), u32::MAX);
        assert_eq!(memory.get(name(1)), Some(u32::MAX));
        memory.remove(name(1));
        memory.remove(name(2));
        assert_eq!(memory.get(name(1)), None);
    }

    #[test]
    fn a_number_that_goes_round_brings_no_name_of_its_earlier_backend() {
        let affinity = Affinity::new(8);
        assert_eq!([affinity.number(|_| false), affinity.number(|_| false)], [0, 1]);
        for number in 2..100_000 {
            assert_eq!(affinity.number(|_| false), number, "one that was used is used last");
        }
        affinity.insert(name(0), 0);
        affinity.insert(name(1), 1);
        affinity.given.store(u64::from(u32::MAX) + 1, Relaxed);
        assert_eq!(affinity.number(|number| number == 1), 0);
        assert_eq!((affinity.get(name(0)), affinity.get(name(1))), (None, Some(1)));
        assert_eq!(affinity.number(|number| number == 1), 2);
    }

    #[test]
    fn has_room_for_what_was_asked_for_and_no_more() {
        for (entries, sets) in [(0, 1), (1, 1), (8, 1), (9, 2), (65_536, 8_192), (65_537, 16_384)] {
            assert_eq!(Affinity::new(entries).sets.len(), sets, "{entries} entries");
        }
        assert_eq!(size_of::<AffinitySet>(), 64);
    }

    #[test]
    fn keeps_most_of_what_fits() {
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32) ^ number << 20;
        let memory = Affinity::new(65_536);
        for number in 0..40_000 {
            memory.insert(hash(number), (number % 7) as u32);
        }
        let known = (0..40_000).filter(|&number| memory.get(hash(number)) == Some((number % 7) as u32)).count();
        assert!(known > 39_000, "{known} of 40000");
    }

    #[test]
    fn what_is_no_news_is_not_written() {
        let memory = Affinity::new(8);
        memory.insert(name(1), 3);
        let before = memory.set(name(1))[0].load(Relaxed);
        memory.insert(name(1), 3);
        assert_eq!(memory.set(name(1))[0].load(Relaxed), before);
    }

    #[test]
    fn survives_the_end_of_its_stamps() {
        let memory = Affinity::new(8);
        for write in 0..200_000_u32 {
            memory.insert(name(write % 8), write % 1_000);
        }
        for last in 199_992..200_000_u32 {
            assert_eq!(memory.get(name(last % 8)), Some(last % 1_000));
        }
    }

    #[test]
    fn a_successor_remembers_names_by_its_own_numbers() {
        let (memory, successor) = (Affinity::new(64), Affinity::new(64));
        (0..40).for_each(|number| memory.insert(name(number) | u64::from(number % 8), number % 3));
        successor.set_words(&memory.words(), |number| [Some(7), None, Some(0)][number as usize]);
        for number in 0..40 {
            let hash = name(number) | u64::from(number % 8);
            let expected = memory.get(hash).and_then(|backend| [Some(7), None, Some(0)][backend as usize]);
            assert_eq!(successor.get(hash), expected, "{number}");
        }
        assert!((0..40).any(|number| successor.get(name(number) | u64::from(number % 8)) == Some(7)));
        Affinity::new(8).set_words(&memory.words(), Some);
    }

    #[test]
    fn threads_never_make_up_an_answer() {
        let memory = Affinity::new(64);
        let worker = |seed: u32| {
            for step in 0..20_000_u32 {
                let number = (step.wrapping_mul(seed) >> 3) % 100;
                let hash = name(number) | u64::from(number % 8);
                // The name maps to one of two backends that no other name uses.
                if let Some(backend) = memory.get(hash) {
                    assert_eq!(backend / 2, number);
                }
                memory.insert(hash, number * 2 + step % 2);
            }
        };
        std::thread::scope(|scope| {
            for seed in [2_654_435_761, 2_246_822_519, 3_266_489_917] {
                scope.spawn(move || worker(seed));
            }
        });
    }

    proptest! {
        #[test]
        fn the_oldest_of_a_set_is_forgotten(steps in prop::collection::vec((0..12_u32, 0..3_u32, prop::bool::weighted(0.1)), 1..900)) {
            let memory = Affinity::new(WAYS);
            // The expected content of the set, oldest entry first.
            let mut expected: Vec<(u32, u32)> = Vec::new();
            for (number, backend, is_forgotten) in steps {
                expected.retain(|(known, _)| *known != number);
                if is_forgotten {
                    memory.remove(name(number));
                } else {
                    memory.insert(name(number), backend);
                    if expected.len() == WAYS {
                        expected.remove(0);
                    }
                    expected.push((number, backend));
                }
                for number in 0..12 {
                    let known = expected.iter().find(|(known, _)| *known == number).map(|(_, backend)| *backend);
                    prop_assert_eq!(memory.get(name(number)), known, "{}", number);
                }
            }
        }
    }
}
