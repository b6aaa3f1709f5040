//! Keyed hashing of names and questions: who chooses what is asked, or adds names to a zone, cannot choose what collides.
//!
//! The seeds come from whoever starts the process, who takes them from the operating system; foldhash's own random state is
//! made of addresses and the time.

use std::sync::OnceLock;

use foldhash::{SharedSeed, fast, quality};
use serde::{Deserialize, Serialize};

/// Hashes with all bits of equal worth.
pub type QuestionHasher = quality::SeedableRandomState;

/// Hashes faster; the high bits are the better ones.
pub type NameHasher = fast::SeedableRandomState;

/// The seed of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HashSeed(pub [u64; 2]);

impl HashSeed {
    /// A hasher of questions with this seed.
    pub fn question_hasher(self) -> QuestionHasher {
        QuestionHasher::with_seed(self.0[0], self.shared())
    }

    /// A hasher of names with this seed.
    pub fn name_hasher(self) -> NameHasher {
        NameHasher::with_seed(self.0[0], self.shared())
    }

    /// The seed with which another process makes the same hashes of questions, by [`HashSeed::carried_hasher`].
    pub fn in_force(self) -> Self {
        Self([self.0[0], self.first().0])
    }

    /// The hasher of questions of another process. It is never freed, so that a process may have one.
    pub fn carried_hasher(self) -> QuestionHasher {
        QuestionHasher::with_seed(self.0[0], Box::leak(Box::new(SharedSeed::from_u64(self.0[1]))))
    }

    /// The part of the seed that is costly to spread.
    fn shared(self) -> &'static SharedSeed {
        &self.first().1
    }

    /// That part, and what it was spread from: there is one in a process, the first.
    fn first(self) -> &'static (u64, SharedSeed) {
        static SHARED: OnceLock<(u64, SharedSeed)> = OnceLock::new();
        SHARED.get_or_init(|| (self.0[1], SharedSeed::from_u64(self.0[1])))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_successor_makes_the_same_hashes() {
        // Another one was the first, or this one.
        let seed = HashSeed([5, 7]);
        let hash = seed.question_hasher().hash_one(b"\x03www");
        assert_eq!(seed.in_force().carried_hasher().hash_one(b"\x03www"), hash);
        assert_ne!(HashSeed([5, seed.in_force().0[1] ^ 1]).carried_hasher().hash_one(b"\x03www"), hash);
    }

    #[test]
    fn another_seed_makes_other_hashes() {
        let hash = |seed: u64| HashSeed([seed, 7]).question_hasher().hash_one(b"\x03www");
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
        let hash = |seed: u64| HashSeed([seed, 7]).name_hasher().hash_one(b"\x03www");
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }
}
