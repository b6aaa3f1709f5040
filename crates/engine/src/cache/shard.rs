//! One shard of the cache, behind its own lock: a table and two rings.
//!
//! S3-FIFO decides which entries are evicted ("FIFO queues are all you need for cache eviction", SOSP 2023):
//!
//! ```text
//!   new ──▶ small ring ──▶ hit meanwhile? ─ yes ─▶ main ring ──▶ hit meanwhile? ─ yes ─▶ main, frequency-1
//!           (a tenth)           │ no                                 │ no
//!                               ▼                                    ▼
//!                     ghost: its tag is noted                      gone
//!   new, and its tag is a ghost's ──────────────▶ main ring
//! ```
//!
//! While the main ring has room, entries that leave the small ring move there, hit or not. So a flood of
//! one-time names passes through the small ring and leaves the main ring alone. A hit writes one byte and
//! relinks nothing.

use std::time::Duration;

use config::limits::CACHE_SIZE;
use dns::HEADER_LEN;
use metrics::CacheStats;

use super::entry::{EntryHead, State};
use super::key::CacheKey;
use super::ring::{CacheRing, RingQueue};
use super::table::{Location, TagTable};

pub(super) struct Shard {
    table: TagTable,
    /// Tags of entries that left the small ring without a hit, each at the index that the tag determines.
    ghosts: Box<[u32]>,
    small: CacheRing,
    main: CacheRing,
    pub(super) stats: CacheStats,
}

#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) millis: u64,
    pub(super) stale: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retain {
    Keep,
    Remove,
}

impl Shard {
    /// Makes a shard of this many bytes in all, at least [`Shard::MIN_SIZE`].
    pub(super) fn new(octets: usize) -> Self {
        // With the mean entry of a resolver, some 150 bytes, a little less than half of the slots are used.
        let slots = (octets / OCTETS_PER_SLOT).next_power_of_two();
        let ghosts = slots / 2;
        let rings = octets.saturating_sub(slots * TagTable::SLOT_LEN + ghosts * size_of::<u32>());
        let small = (rings / SMALL_SHARE).max(MAX_EXTENT);
        Self {
            table: TagTable::new(slots),
            ghosts: vec![0; ghosts].into_boxed_slice(),
            small: CacheRing::new(small),
            main: CacheRing::new(rings.saturating_sub(small)),
            stats: CacheStats::default(),
        }
    }

    /// The smallest shard: either ring has room for the longest reply.
    pub(super) const MIN_SIZE: usize = CACHE_SIZE.min;

    pub(super) fn find(&self, key: &CacheKey<'_>) -> Option<usize> {
        self.table.find(key.tag(), |place| {
            let octets = self.ring(place.queue).at(place.at);
            let head = EntryHead::read(octets);
            let question = octets.get(QUESTION_AT..QUESTION_AT + key.question.len());
            head.pool == key.pool.0
                && head.flags == key.flags
                && usize::from(head.len) >= HEADER_LEN + key.question.len()
                && question == Some(key.question)
        })
    }

    pub(super) fn first_slot(&self, tag: u32) -> u64 {
        self.table.first_slot(tag)
    }

    /// Returns the bytes that a look-up with this tag will most likely read.
    pub(super) fn prefetched(&self, tag: u32) -> Option<&[u8]> {
        let place = self.table.place(self.table.find(tag, |_| true)?)?;
        Some(self.ring(place.queue).at(place.at))
    }

    #[inline]
    pub(super) fn entry(&self, slot: usize) -> Option<(EntryHead, &[u8])> {
        let place = self.table.place(slot)?;
        let octets = self.ring(place.queue).at(place.at);
        let head = EntryHead::read(octets);
        Some((head, octets.get(EntryHead::LEN..EntryHead::entry_len(usize::from(head.len)))?))
    }

    /// Changes the head of the entry in a slot; its length and state must stay.
    pub(super) fn write_head(&mut self, slot: usize, head: &EntryHead) {
        if let Some(place) = self.table.place(slot) {
            head.write(self.ring_mut(place.queue).at_mut(place.at));
        }
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let Some(place) = self.table.place(slot) else { return };
        let octets = self.ring_mut(place.queue).at_mut(place.at);
        let head = EntryHead::read(octets);
        EntryHead { state: State::Dead, ..head }.write(octets);
        self.table.remove(slot);
        self.stats.entries -= 1;
        self.stats.bytes -= head.extent() as u64;
    }

    /// Inserts an entry, or replaces the one with this key. `head` needs no tag and no length.
    pub(super) fn insert(&mut self, key: &CacheKey<'_>, head: EntryHead, reply: &[u8], now: Now) {
        let mut queue = if self.is_ghost(key.tag()) { RingQueue::Main } else { RingQueue::Small };
        let mut head = EntryHead { tag: key.tag(), pool: key.pool.0, flags: key.flags, ..head };
        if let Some(slot) = self.find(key) {
            if self.replace(slot, head, reply) {
                return;
            }
            // The new entry inherits the popularity of the old one.
            if let Some((old, _)) = self.entry(slot) {
                head.frequency = old.frequency;
                queue = self.table.place(slot).map_or(queue, |place| place.queue);
            }
            self.remove(slot);
        }
        self.append(queue, head, reply, now);
    }

    /// Inserts an entry of an earlier run into the main ring: it has passed the small ring once.
    pub(super) fn restore(&mut self, key: &CacheKey<'_>, head: EntryHead, reply: &[u8], now: Now) {
        if let Some(slot) = self.find(key) {
            self.remove(slot);
        }
        let head = EntryHead { tag: key.tag(), pool: key.pool.0, flags: key.flags, ..head };
        self.append(RingQueue::Main, head, reply, now);
    }

    fn append(&mut self, queue: RingQueue, head: EntryHead, reply: &[u8], now: Now) {
        let extent = CacheRing::padded(EntryHead::entry_len(reply.len()));
        let Ok(len) = u16::try_from(reply.len()) else { return };
        while self.table.is_full() {
            if self.small.oldest().is_some() { self.shift_small(now) } else { self.shift_main(now, &mut 0) }
        }
        match queue {
            RingQueue::Small => {
                while !self.small.fits(extent) {
                    self.shift_small(now);
                }
            }
            RingQueue::Main => self.make_room_in_main(extent, now),
        }
        let ring = self.ring_mut(queue);
        let at = ring.push(extent);
        let octets = ring.at_mut(at);
        let head = EntryHead { extent: (extent / super::ring::UNIT) as u16, len, ..head };
        head.write(octets);
        octets[EntryHead::LEN..EntryHead::LEN + reply.len()].copy_from_slice(reply);
        self.table.insert(head.tag, Location { queue, at });
        self.stats.entries += 1;
        self.stats.bytes += extent as u64;
        self.stats.insertions += 1;
    }

    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.ghosts.fill(0);
        self.small.clear();
        self.main.clear();
        (self.stats.entries, self.stats.bytes) = (0, 0);
    }

    /// Calls `visit` for the entries of some slots from `slot` on, and returns the next slot. A step is
    /// short, so that the lock is never held for long. Entries may come and go between two steps.
    pub(super) fn visit(&mut self, slot: usize, mut visit: impl FnMut(&EntryHead, &[u8]) -> Retain) -> Option<usize> {
        let end = self.table.step_from(slot, SLOTS_PER_STEP);
        let mut at = slot;
        let last = end.unwrap_or_else(|| self.table.slots());
        while at < last {
            let stays = self.table.is_wrapped(at) || self.show(at, &mut visit) == Retain::Keep;
            // After a removal, another entry has moved up into this slot.
            at += usize::from(stays);
        }
        if end.is_none() {
            at = 0;
            while self.table.place(at).is_some() {
                let stays = !self.table.is_wrapped(at) || self.show(at, &mut visit) == Retain::Keep;
                at += usize::from(stays);
            }
        }
        end
    }

    fn show(&mut self, slot: usize, visit: &mut impl FnMut(&EntryHead, &[u8]) -> Retain) -> Retain {
        let verdict = self.entry(slot).map_or(Retain::Keep, |(head, reply)| visit(&head, reply));
        match verdict {
            Retain::Remove => self.remove(slot),
            Retain::Keep => {}
        }
        verdict
    }

    fn replace(&mut self, slot: usize, head: EntryHead, reply: &[u8]) -> bool {
        let Some(place) = self.table.place(slot) else { return false };
        let Ok(len) = u16::try_from(reply.len()) else { return false };
        let octets = self.ring_mut(place.queue).at_mut(place.at);
        let old = EntryHead::read(octets);
        if old.extent() != CacheRing::padded(EntryHead::entry_len(reply.len())) {
            return false;
        }
        EntryHead { extent: old.extent, frequency: old.frequency, len, ..head }.write(octets);
        octets[EntryHead::LEN..EntryHead::LEN + reply.len()].copy_from_slice(reply);
        self.stats.insertions += 1;
        true
    }

    /// Moves the oldest entry of the small ring to the main ring if it was hit, otherwise evicts it.
    fn shift_small(&mut self, now: Now) {
        let Some((at, head)) = self.small.oldest() else { return };
        let place = Location { queue: RingQueue::Small, at };
        if head.state == State::Dead {
            self.small.free_oldest();
        } else if head.is_gone(now.millis, now.stale) || head.frequency == 0 && !self.main.fits(head.extent()) {
            self.evict(place, &head);
            self.note_ghost(head.tag);
            self.small.free_oldest();
        } else {
            self.make_room_in_main(head.extent(), now);
            let to = self.main.push(head.extent());
            let (from, into) = (self.small.at(at), self.main.at_mut(to));
            into[..head.extent()].copy_from_slice(&from[..head.extent()]);
            // In the main ring an entry starts again without hits.
            EntryHead { frequency: 0, ..head }.write(into);
            self.moved(place, &head, Location { queue: RingQueue::Main, at: to });
            self.small.free_oldest();
        }
    }

    fn make_room_in_main(&mut self, extent: usize, now: Now) {
        // A bound, so that one call does not renew a long row of popular entries.
        let mut renewals = MAX_RENEWALS;
        while !self.main.fits(extent) {
            self.shift_main(now, &mut renewals);
        }
    }

    /// Evicts the oldest entry of the main ring, or renews it if it was hit and renewals are left.
    fn shift_main(&mut self, now: Now, renewals: &mut u32) {
        let Some((at, head)) = self.main.oldest() else { return };
        let place = Location { queue: RingQueue::Main, at };
        if head.state == State::Dead {
            self.main.free_oldest();
        } else if head.frequency == 0 || *renewals == 0 || head.is_gone(now.millis, now.stale) {
            self.evict(place, &head);
            self.main.free_oldest();
        } else {
            *renewals -= 1;
            let to = self.main.renew_oldest();
            EntryHead { frequency: head.frequency - 1, ..head }.write(self.main.at_mut(to));
            self.moved(place, &head, Location { queue: RingQueue::Main, at: to });
        }
    }

    fn evict(&mut self, place: Location, head: &EntryHead) {
        if let Some(slot) = self.table.find(head.tag, |found| found == place) {
            self.table.remove(slot);
            self.stats.entries -= 1;
            self.stats.bytes -= head.extent() as u64;
            self.stats.evictions += 1;
        }
    }

    fn moved(&mut self, from: Location, head: &EntryHead, to: Location) {
        if let Some(slot) = self.table.find(head.tag, |found| found == from) {
            self.table.move_to(slot, to);
        }
    }

    fn note_ghost(&mut self, tag: u32) {
        let place = tag as usize & (self.ghosts.len() - 1);
        self.ghosts[place] = tag;
    }

    /// Returns true if an entry with this tag left recently. A false match only helps another entry.
    fn is_ghost(&self, tag: u32) -> bool {
        tag != 0 && self.ghosts[tag as usize & (self.ghosts.len() - 1)] == tag
    }

    fn ring(&self, queue: RingQueue) -> &CacheRing {
        match queue {
            RingQueue::Small => &self.small,
            RingQueue::Main => &self.main,
        }
    }

    fn ring_mut(&mut self, queue: RingQueue) -> &mut CacheRing {
        match queue {
            RingQueue::Small => &mut self.small,
            RingQueue::Main => &mut self.main,
        }
    }
}

const QUESTION_AT: usize = EntryHead::LEN + HEADER_LEN;

/// Bytes of a shard for each slot of its table. The smallest entry takes 64.
const OCTETS_PER_SLOT: usize = 96;

/// The small ring's share of both is a tenth: the best value of S3-FIFO's authors.
const SMALL_SHARE: usize = 10;

/// The longest entry: a whole message and a head. Either ring must be able to hold it.
const MAX_EXTENT: usize = (u16::MAX as usize + EntryHead::LEN).next_multiple_of(super::ring::UNIT);

const MAX_RENEWALS: u32 = 16;

/// Slots in one step of a visit: some tens of microseconds.
const SLOTS_PER_STEP: usize = 256;

#[cfg(test)]
mod tests {
    use dns::QuestionFlags;

    use super::super::key::PoolId;
    use super::*;

    fn question(number: u32) -> Vec<u8> {
        let label = format!("{number:08x}");
        [&[8], label.as_bytes(), b"\0\0\x01\0\x01"].concat()
    }

    fn key(question: &[u8]) -> CacheKey<'_> {
        let hash =
            question.iter().fold(7_u64, |sum, &octet| (sum ^ u64::from(octet)).wrapping_mul(0x2545_F491_4F6C_DD1D));
        CacheKey::new(PoolId(1), question, QuestionFlags::default(), hash ^ hash >> 29)
    }

    fn insert(shard: &mut Shard, number: u32, more: usize) {
        let question = question(number);
        let reply = [&[0; HEADER_LEN][..], &question, &vec![number as u8; more]].concat();
        let head = EntryHead { state: State::Answer, lifetime: 300, ..EntryHead::default() };
        shard.insert(&key(&question), head, &reply, NOW);
    }

    /// Returns true if the entry exists and is sound, and marks it as hit.
    fn hit(shard: &mut Shard, number: u32) -> bool {
        let question = question(number);
        let Some(slot) = shard.find(&key(&question)) else { return false };
        let (head, reply) = shard.entry(slot).expect("what is found is there");
        assert!(reply[HEADER_LEN + question.len()..].iter().all(|&octet| octet == number as u8));
        shard.write_head(slot, &EntryHead { frequency: EntryHead::MAX_FREQUENCY, ..head });
        true
    }

    const NOW: Now = Now { millis: 0, stale: Duration::ZERO };

    #[test]
    fn entries_of_all_sizes_come_and_go() {
        let mut shard = Shard::new(Shard::MIN_SIZE);
        for number in 0..60_000_u32 {
            // Mostly small, now and then as long as a reply can be.
            let more = if number % 997 == 0 { 65_535 - 26 } else { number as usize * 7 % 400 };
            insert(&mut shard, number, more);
            assert!(hit(&mut shard, number), "{number}");
            hit(&mut shard, number / 2);
            if number % 11 == 0 {
                insert(&mut shard, number / 3, 3);
            }
        }
        let mut walked = CacheStats::default();
        let mut from = Some(0);
        while let Some(slot) = from {
            from = shard.visit(slot, |head, _| {
                walked.entries += 1;
                walked.bytes += head.extent() as u64;
                Retain::Keep
            });
        }
        assert_eq!((walked.entries, walked.bytes), (shard.stats.entries, shard.stats.bytes));
        assert!(shard.stats.evictions > 0 && shard.stats.bytes <= Shard::MIN_SIZE as u64);
    }

    #[test]
    fn a_flood_leaves_what_is_wanted() {
        let mut shard = Shard::new(Shard::MIN_SIZE);
        let wanted = 0..1000;
        // A few rounds pass before they are noted as ghosts, because other tags share their indexes.
        for round in 0..50 {
            let found = wanted.clone().filter(|&number| hit(&mut shard, number)).count();
            assert!(round < 12 || found == wanted.len(), "{found} in round {round}");
            for number in wanted.clone() {
                let question = question(number);
                if shard.find(&key(&question)).is_none() {
                    insert(&mut shard, number, 16);
                }
            }
            for number in 0..5000 {
                insert(&mut shard, 1_000_000 + round * 5000 + number, 16);
            }
        }
    }

    #[test]
    fn what_is_removed_is_gone_and_clearing_forgets_all() {
        let mut shard = Shard::new(Shard::MIN_SIZE);
        (0..100).for_each(|number| insert(&mut shard, number, 16));
        let slot = shard.find(&key(&question(7))).expect("it is there");
        shard.remove(slot);
        assert!(!hit(&mut shard, 7) && hit(&mut shard, 8));
        assert_eq!(shard.stats.entries, 99);
        shard.clear();
        assert!(!hit(&mut shard, 8));
        insert(&mut shard, 8, 16);
        assert!(hit(&mut shard, 8));
    }
}
