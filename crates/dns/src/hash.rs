//! Keyed hashing of names and questions: a client that chooses questions, or an operator that adds names to a
//! zone, cannot choose collisions. The process takes the seeds from the operating system at its start,
//! because the random state of foldhash is made of addresses and the time only.

use std::sync::OnceLock;

use foldhash::{SharedSeed, fast, quality};
use serde::{Deserialize, Serialize};

/// A hasher with all bits of equal quality.
pub type QuestionHasher = quality::SeedableRandomState;

/// A faster hasher with better quality in the high bits.
pub type NameHasher = fast::SeedableRandomState;

/// The seed of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HashSeed(pub [u64; 2]);

impl HashSeed {
    /// Returns a hasher of questions with this seed.
    pub fn question_hasher(self) -> QuestionHasher {
        QuestionHasher::with_seed(self.0[0], self.shared())
    }

    /// Returns a hasher of names with this seed.
    pub fn name_hasher(self) -> NameHasher {
        NameHasher::with_seed(self.0[0], self.shared())
    }

    /// Returns the seed with which another process makes the same hashes, by [`HashSeed::carried_hasher`].
    pub fn in_force(self) -> Self {
        Self([self.0[0], self.first().0])
    }

    /// Returns the question hasher of another process. It is never freed, so use at most one per process.
    pub fn carried_hasher(self) -> QuestionHasher {
        QuestionHasher::with_seed(self.0[0], Box::leak(Box::new(SharedSeed::from_u64(self.0[1]))))
    }

    fn shared(self) -> &'static SharedSeed {
        &self.first().1
    }

    /// Returns the shared part and its origin. The first call in a process decides both.
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
        // The first seed is another one, or this one.
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
