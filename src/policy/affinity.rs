//! Session affinity of names: which backend each name lives at, for `balance = "sticky"`.
//!
//! All workers share it, and nobody waits. It is an array of atomic words in sets of eight, one cache line each.
//! The hash of a name picks the set; a word in it holds
//!
//! ```text
//!     bits 63..40   tag: of the other half of the hash, never 0
//!     bits 39..32   stamp: the higher the younger, counted within the set
//!     bits 31..0    which backend
//! ```
//!
//! and is 0 if it is free. What is remembered gets the highest stamp of its set; if no word is free, the one with the
//! lowest goes. So the size is fixed, and the oldest names are forgotten first, or nearly: age is compared within a
//! set only.
//!
//! Words are read and written one by one. Two workers that write to one set at the same time may forget a name too
//! many, or write one name twice, of which the younger is believed; and of 2^24 names of one set two share a tag. All of
//! that costs a query a detour, never its answer.
//!
//! Backends have numbers of 32 bits, which go round once in a year and a half where a hundred backends come each second. So what is
//! remembered of one that is gone is forgotten in its own time, and never taken for another's.

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// A bounded map from names to backends.
#[derive(Debug)]
pub struct Affinity {
    /// The sets, a power of two of them.
    sets: Box<[Set]>,
    /// Counts the numbers that [`Affinity::number`] has given.
    given: AtomicU64,
}

impl Affinity {
    /// An empty memory for at least so many names. It takes 8 octets for each.
    pub fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).next_power_of_two();
        Self { sets: (0..sets).map(|_| Set::default()).collect(), given: AtomicU64::new(0) }
    }

    /// A number for a new backend of the pool, which none of its other backends has, as `is_taken` says: no name lives at it.
    ///
    /// Numbers go round, so one is given again only after all others were; names that still live at it are forgotten first.
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

    /// No name lives at this backend any more.
    fn forget(&self, number: u32) {
        for word in self.sets.iter().flat_map(|set| &set.0) {
            let content = word.load(Relaxed);
            if content != 0 && Word::read(content).backend == number {
                // If a worker has just written another, that one stays.
                let _ = word.compare_exchange(content, 0, Relaxed, Relaxed);
            }
        }
    }

    /// The backend that this name lives at, if it is remembered. `name`: the hash of the folded name.
    pub fn get(&self, name: u64) -> Option<u32> {
        let words = self.set(name).iter().map(|word| Word::read(word.load(Relaxed)));
        let known = words.filter(|word| word.tag == tag(name));
        known.max_by_key(|word| word.stamp).map(|word| word.backend)
    }

    /// This name lives at this backend now. Where that is no news, nothing is written.
    pub fn insert(&self, name: u64, backend: u32) {
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
            // The stamps have run out, as they do after some 250 writes: they are counted anew, in the order that they had.
            let age = |stamp: u8| words.iter().filter(|other| other.tag != 0 && other.stamp < stamp).count() as u8;
            for (word, known) in set.iter().zip(words).filter(|(_, known)| known.tag != 0) {
                word.store(Word { stamp: age(known.stamp), ..known }.write(), Relaxed);
            }
            WAYS as u8
        });
        set[place].store(Word { tag, stamp, backend }.write(), Relaxed);
    }

    /// This name lives nowhere.
    pub fn remove(&self, name: u64) {
        for word in self.set(name) {
            if Word::read(word.load(Relaxed)).tag == tag(name) {
                word.store(0, Relaxed);
            }
        }
    }

    /// All words, for a successor that hashes names as we do.
    pub fn words(&self) -> Vec<u64> {
        self.sets.iter().flat_map(|set| &set.0).map(|word| word.load(Relaxed)).collect()
    }

    /// Remembers what another process did. `number` tells what a backend of that is called here; names that lived at another are
    /// forgotten. A memory of another size is left aside.
    pub fn set_words(&self, words: &[u64], number: impl Fn(u32) -> Option<u32>) {
        let own = self.sets.iter().flat_map(|set| &set.0);
        if words.len() != self.sets.len() * WAYS {
            return;
        }
        for (own, &content) in own.zip(words) {
            let word = Word::read(content);
            let known = number(word.backend).filter(|_| content != 0);
            own.store(known.map_or(0, |backend| Word { backend, ..word }.write()), Relaxed);
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
    /// Of the hash of the name, 24 bits; 0: the word is free.
    tag: u32,
    /// The higher, the younger.
    stamp: u8,
    /// Where the name lives.
    backend: u32,
}

impl Word {
    /// The parts of a word.
    fn read(word: u64) -> Self {
        Self { tag: (word >> 40) as u32, stamp: (word >> 32) as u8, backend: word as u32 }
    }

    /// The word of these parts.
    fn write(self) -> u64 {
        u64::from(self.tag) << 40 | u64::from(self.stamp) << 32 | u64::from(self.backend)
    }
}

/// The tag of a name: of the half of the hash that does not pick the set.
fn tag(name: u64) -> u32 {
    ((name >> 32) as u32 & TAG_MASK).max(1)
}

/// The bits that a tag has.
const TAG_MASK: u32 = (1 << 24) - 1;

/// Words in a set: what fits in a cache line.
const WAYS: usize = if cfg!(loom) { 2 } else { 8 };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The hash of a name that falls into the first set.
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
        // The backend of number 0 is gone, that of number 1 is not.
        assert_eq!(affinity.number(|number| number == 1), 0);
        assert_eq!((affinity.get(name(0)), affinity.get(name(1))), (None, Some(1)));
        assert_eq!(affinity.number(|number| number == 1), 2);
    }

    #[test]
    fn has_room_for_what_was_asked_for_and_no_more() {
        for (entries, sets) in [(0, 1), (1, 1), (8, 1), (9, 2), (65_536, 8_192), (65_537, 16_384)] {
            assert_eq!(Affinity::new(entries).sets.len(), sets, "{entries} entries");
        }
        assert_eq!(size_of::<Set>(), 64);
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
                // A name lives at one of two backends that no other name lives at.
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
            // What a set is to hold, the oldest first.
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
