//! Keyed hashing of names and questions: who chooses what is asked, or adds names to a zone, cannot choose what collides.
//!
//! The seeds come from whoever starts the process, who takes them from the operating system; foldhash's own random state is
//! made of addresses and the time.

use std::sync::OnceLock;

use foldhash::{SharedSeed, fast, quality};

/// Hashes with all bits of equal worth.
pub type QuestionHasher = quality::SeedableRandomState;

/// Hashes faster; the high bits are the better ones.
pub type NameHasher = fast::SeedableRandomState;

/// The seed of a process.
#[derive(Clone, Copy)]
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

    /// The part of the seed that is costly to spread: there is one in a process, the first.
    fn shared(self) -> &'static SharedSeed {
        static SHARED: OnceLock<SharedSeed> = OnceLock::new();
        SHARED.get_or_init(|| SharedSeed::from_u64(self.0[1]))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

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
