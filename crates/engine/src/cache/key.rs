//! The key of an entry: pool, question, CD and DO. A reply from one pool never answers for another pool.

use dns::QuestionFlags;

/// The identity of a pool. It stays the same over reloads and restarts while the pool's settings stay the
/// same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(pub u64);

impl PoolId {
    /// Hashes a text of the pool's name, its backends, and all other settings that change its answers.
    pub fn of(identity: &str) -> Self {
        Self(fingerprint(EMPTY_FINGERPRINT, identity.as_bytes()))
    }
}

/// The key of a look-up.
#[derive(Clone, Copy, Debug)]
pub struct CacheKey<'a> {
    pub(super) pool: PoolId,
    pub(super) question: &'a [u8],
    pub(super) flags: QuestionFlags,
    pub(super) hash: u64,
}

impl<'a> CacheKey<'a> {
    /// Makes a key from the parts of a [`QuestionKey`](dns::QuestionKey). RD does not matter here.
    /// `hash` is a seeded hash of the question that clients cannot foresee, and is mixed with pool and flags.
    pub fn new(pool: PoolId, question: &'a [u8], flags: QuestionFlags, hash: u64) -> Self {
        let flags = flags.without_recursion_desired();
        // Clients choose only among four values of the mixed-in flags, and the hash is secret: they cannot
        // make questions collide.
        let mixed = (pool.0 ^ u64::from(flags.octet())).wrapping_mul(ODD);
        Self { pool, question, flags, hash: hash ^ mixed ^ mixed >> 32 }
    }

    pub(super) fn shard(&self, shards: usize) -> usize {
        self.hash as usize & (shards - 1)
    }

    pub(super) fn tag(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// Continues a fingerprint of bytes (FNV-1a). It never changes, and detects accidents, not malice.
pub(super) fn fingerprint(so_far: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(so_far, |sum, &octet| (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01B3))
}

pub(super) const EMPTY_FINGERPRINT: u64 = 0xCBF2_9CE4_8422_2325;

/// Spreads a few bits over all 64 (golden ratio).
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_pool_question_cd_and_do() {
        let key =
            |pool, flags| CacheKey::new(PoolId::of(pool), b"\0\0\x02\0\x01", QuestionFlags::of_octet(flags), 7).hash;
        assert_eq!(key("a", 0), key("a", 1), "RD does not matter");
        let hashes = [key("a", 0), key("a", 2), key("a", 4), key("a", 6), key("b", 0), key("b", 2)];
        for (place, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..place].contains(hash), "{hashes:?}");
        }
    }
}
