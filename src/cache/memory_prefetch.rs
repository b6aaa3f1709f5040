//! Looking ahead: what the look-ups of a few queries will read is fetched for all of them at once.
//!
//! In a large cache a look-up is little but waiting, for a slot of the table and then for the entry: the system's own work
//! between two queries leaves neither in the processor's cache. One after another, a processor waits for each; here it asks for
//! the slots of all queries in one short loop, then for all entries, and so waits for many at the same time. Nothing is decided:
//! what was fetched is near, and is looked up again.
//!
//! Shards are behind locks, and to take one or give it back ends all waiting that is under way. So the locks are taken first, a
//! handful, none that has to be waited for, and given back when all is fetched.
//!
//! Ten thousand hot names, 128 queries outstanding from dnsperf, one core, in turns, medians, with questions hashed ahead: 4.63 s
//! of CPU time for a million queries without and 4.45 s with on a busy machine, 3.81 s and 3.75 s on a quiet one.

use std::hint::black_box;
use std::sync::MutexGuard;

use super::key::Key;
use super::shard::Shard;
use super::store::Cache;

impl Cache {
    /// Fetches what the look-ups of these keys, of the first `MAX_KEYS`, will read, if there are enough of both keys and entries
    /// for that to pay.
    pub fn prefetch_memory<'k>(&self, keys: impl Iterator<Item = Key<'k>> + Clone) {
        if keys.clone().nth(MIN_KEYS - 1).is_none() {
            return;
        }
        let mut ahead: [Option<Prefetch<'_>>; MAX_KEYS] = [const { None }; MAX_KEYS];
        for (place, key) in ahead.iter_mut().zip(keys) {
            // A shard that somebody holds, be it for a key before this one, is left out.
            let Some(shard) = self.try_shard(&key) else { continue };
            // Questions are spread evenly, so one shard speaks for all.
            if !self.is_large(&shard) {
                return;
            }
            *place = Some(Prefetch { shard, tag: key.tag() });
        }
        for Prefetch { shard, tag } in ahead.iter().flatten() {
            black_box(shard.first_slot(*tag));
        }
        for Prefetch { shard, tag } in ahead.iter().flatten() {
            let octets = shard.prefetched(*tag).unwrap_or_default();
            black_box((octets.first().copied(), octets.get(LINE).copied()));
        }
    }

    /// Whether there are so many entries that look-ups wait for memory, as far as one shard tells.
    fn is_large(&self, shard: &Shard) -> bool {
        shard.stats.entries * self.shards().len() as u64 >= LARGE
    }
}

/// A look-up that will be made.
struct Prefetch<'c> {
    shard: MutexGuard<'c, Shard>,
    /// By what its slot is found.
    tag: u32,
}

/// Fewer look-ups than this wait as long for each other as for the memory.
const MIN_KEYS: usize = 4;

/// As many shards as are held at a time.
const MAX_KEYS: usize = 8;

/// Fewer entries than this stay near by themselves. Reckoned, not measured: an entry and its slot take four lines or so, and so
/// many of them a megabyte, which is what the second cache of a core holds.
const LARGE: u64 = 4096;

/// Octets of a line of the processor's cache. An entry mostly begins in one and ends in the next.
const LINE: usize = 64;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::entry::{Head, State};
    use super::super::key::PoolId;
    use super::super::maintain::Flush;
    use super::super::rules::Rules;
    use super::*;
    use crate::wire::{HEADER_LEN, QuestionFlags};

    /// A folded question, and its hash.
    fn question(number: u64) -> (Vec<u8>, u64) {
        let question = [&[16], format!("{number:016x}").as_bytes(), b"\0\0\x01\0\x01"].concat();
        let hash = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (question, hash ^ hash >> 29)
    }

    /// A cache of 16 shards with so many entries.
    fn cache(entries: u64) -> Cache {
        let now = Instant::now();
        let cache = Cache::new(16 * Cache::MIN_SIZE, now);
        for number in 0..entries {
            let (question, hash) = question(number);
            let key = Key::new(PoolId(1), &question, QuestionFlags::default(), hash);
            let reply = [&[0; HEADER_LEN][..], &question].concat();
            let now = cache.now(&Rules::default(), now);
            let head = Head { state: State::Answer, lifetime: 300, kept_at: now.millis, ..Head::default() };
            cache.shard(&key).insert(&key, head, &reply, now);
        }
        cache
    }

    #[test]
    fn what_is_foreseen_is_what_will_be_found() {
        let cache = cache(20_000);
        for number in (0..20_000).step_by(701) {
            let (question, hash) = question(number);
            let key = Key::new(PoolId(1), &question, QuestionFlags::default(), hash);
            let shard = cache.shard(&key);
            let slot = shard.find(&key).expect("it was put in");
            let (_, reply) = shard.entry(slot).expect("what is found is there");
            let foreseen = shard.prefetched(key.tag()).expect("it is there");
            assert_eq!(foreseen[Head::LEN..].as_ptr(), reply.as_ptr(), "{number}");
        }
        let (question, hash) = question(20_000);
        let key = Key::new(PoolId(1), &question, QuestionFlags::default(), hash);
        assert!(cache.shard(&key).prefetched(key.tag()).is_none());
    }

    #[test]
    fn nobody_is_waited_for_and_all_is_given_back() {
        let cache = cache(20_000);
        let questions: Vec<_> = (0..40).map(question).collect();
        let keys =
            questions.iter().map(|(question, hash)| Key::new(PoolId(1), question, QuestionFlags::default(), *hash));
        // More keys than shards, the same twice, none at all, and a shard that somebody holds.
        let held = cache.shard(&keys.clone().next().expect("there are forty"));
        cache.prefetch_memory(keys.clone());
        cache.prefetch_memory(keys.clone().take(1).cycle().take(8));
        cache.prefetch_memory(keys.clone().take(0));
        drop(held);
        assert!(keys.clone().all(|key| cache.try_shard(&key).is_some()));
        assert_eq!(cache.stats().hits + cache.stats().misses, 0);
    }

    #[test]
    fn small_caches_are_left_alone() {
        let is_large = |cache: &Cache| {
            let large =
                cache.shards().iter().filter_map(|shard| shard.try_lock().ok()).filter(|shard| cache.is_large(shard));
            large.count()
        };
        assert_eq!(is_large(&cache(1000)), 0);
        let cache = cache(20_000);
        assert_eq!(is_large(&cache), 16);
        cache.flush(Flush::All);
        assert_eq!(is_large(&cache), 0);
    }
}
