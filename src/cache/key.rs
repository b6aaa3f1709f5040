//! By what an entry is found: the pool, the question, CD and DO. What one pool says never answers for another.

use crate::wire::QuestionFlags;

/// A pool, by all that makes it the one that it is. The same over reloads and restarts as long as that is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(pub u64);

impl PoolId {
    /// The pool with this identity: a text of its name, its backends, and whatever else changes what it answers.
    pub fn of(identity: &str) -> Self {
        Self(fingerprint(EMPTY_FINGERPRINT, identity.as_bytes()))
    }
}

/// What a look-up asks for.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The pool that would be asked.
    pub(super) pool: PoolId,
    /// Folded name, type and class.
    pub(super) question: &'a [u8],
    /// CD and DO.
    pub(super) flags: QuestionFlags,
    /// Of all of these.
    pub(super) hash: u64,
}

impl<'a> Key<'a> {
    /// A key of the parts of a [`QuestionKey`](crate::wire::QuestionKey): the question and its flags, of which RD does not matter
    /// here.
    ///
    /// `hash` is a seeded hash of the question, which a client must not be able to foresee. Pool and flags are mixed into it
    /// here, so that the one hash serves whoever mixes other flags into it elsewhere.
    pub fn new(pool: PoolId, question: &'a [u8], flags: QuestionFlags, hash: u64) -> Self {
        let flags = flags.without_recursion_desired();
        // Clients choose among four values only of what is mixed in, and the hash is secret: no way to make questions collide.
        let mixed = (pool.0 ^ u64::from(flags.octet())).wrapping_mul(ODD);
        Self { pool, question, flags, hash: hash ^ mixed ^ mixed >> 32 }
    }

    /// The part of the hash by which the shard is chosen.
    pub(super) fn shard(&self, shards: usize) -> usize {
        self.hash as usize & (shards - 1)
    }

    /// The part of the hash that is kept.
    pub(super) fn tag(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// Goes on with a fingerprint of octets (FNV-1a): the same for ever, and against accidents, not against malice.
pub(super) fn fingerprint(so_far: u64, octets: &[u8]) -> u64 {
    octets.iter().fold(so_far, |sum, &octet| (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01B3))
}

/// The fingerprint of nothing.
pub(super) const EMPTY_FINGERPRINT: u64 = 0xCBF2_9CE4_8422_2325;

/// Spreads a few bits over all 64: the golden ratio's.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_pool_question_cd_and_do() {
        let key = |pool, flags| Key::new(PoolId::of(pool), b"\0\0\x02\0\x01", QuestionFlags::of_octet(flags), 7).hash;
        assert_eq!(key("a", 0), key("a", 1), "RD does not matter");
        let hashes = [key("a", 0), key("a", 2), key("a", 4), key("a", 6), key("b", 0), key("b", 2)];
        for (place, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..place].contains(hash), "{hashes:?}");
        }
    }
}
