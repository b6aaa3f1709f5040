//! One of the parts that the store is split into, each behind its own lock: a table and two rings.
//!
//! Which entries go when there is no room is decided by S3-FIFO ("FIFO queues are all you need for cache eviction", SOSP 2023):
//!
//! ```text
//!   new ──▶ small ring ──▶ hit meanwhile? ─ yes ─▶ main ring ──▶ hit meanwhile? ─ yes ─▶ main ring again, its frequency less one
//!           (a tenth)           │ no                                 │ no
//!                               ▼                                    ▼
//!                     ghost: its tag is noted                      gone
//!   new, and its tag is a ghost's ──────────────▶ main ring
//! ```
//!
//! While the main ring has room, nothing goes: what leaves the small ring moves there, hit or not. So a flood of names that nobody asks for twice passes through the small ring and leaves the main one alone. A hit writes one
//! octet; nothing is relinked.

use std::time::Duration;

use super::entry::{Head, State};
use super::key::Key;
use super::ring::{Queue, Ring};
use super::table::{Location, Table};
use crate::wire::HEADER_LEN;

/// A part of the store.
pub(super) struct Shard {
    /// Where entries are.
    table: Table,
    /// Tags of entries that left the small ring without a hit, each at the place that the tag gives it.
    ghosts: Box<[u32]>,
    /// The ring for what is new.
    small: Ring,
    /// The ring for what was asked for again.
    main: Ring,
    /// What happened here, and what is here.
    pub(super) stats: CacheStats,
}

/// What happened in a cache, and what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries: fresh, stale, and those that nobody has noticed to be gone.
    pub entries: u64,
    /// Octets that these take in the rings.
    pub bytes: u64,
    /// Look-ups that found a fresh answer or a failure.
    pub hits: u64,
    /// Those of `hits` that found a failure.
    pub failure_hits: u64,
    /// Look-ups that found a stale answer.
    pub stale_hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Entries that were made or renewed.
    pub insertions: u64,
    /// Entries that had to go to make room.
    pub evictions: u64,
}

/// The time, and for how long stale answers are of use.
#[derive(Clone, Copy)]
pub(super) struct Now {
    /// Milliseconds of the cache's own time.
    pub(super) millis: u64,
    /// From [`Rules`](super::Rules).
    pub(super) stale: Duration,
}

/// What a visitor wants done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retain {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
}

impl Shard {
    /// A shard that takes so many octets in all, at least [`Shard::MIN_SIZE`].
    pub(super) fn new(octets: usize) -> Self {
        // At the mean entry of a resolver, some 150 octets, not quite half of the slots come to be in use.
        let slots = (octets / OCTETS_PER_SLOT).next_power_of_two();
        let ghosts = slots / 2;
        let rings = octets.saturating_sub(slots * Table::SLOT_LEN + ghosts * size_of::<u32>());
        let small = (rings / SMALL_SHARE).max(MAX_EXTENT);
        Self {
            table: Table::new(slots),
            ghosts: vec![0; ghosts].into_boxed_slice(),
            small: Ring::new(small),
            main: Ring::new(rings.saturating_sub(small)),
            stats: CacheStats::default(),
        }
    }

    /// The least that a shard takes: the longest reply has room in either ring.
    pub(super) const MIN_SIZE: usize = 1 << 20;

    /// The slot of an entry.
    pub(super) fn find(&self, key: &Key<'_>) -> Option<usize> {
        self.table.find(key.tag(), |place| {
            let octets = self.ring(place.queue).at(place.at);
            let head = Head::read(octets);
            let question = octets.get(QUESTION_AT..QUESTION_AT + key.question.len());
            head.pool == key.pool.0
                && head.flags == key.flags
                && usize::from(head.len) >= HEADER_LEN + key.question.len()
                && question == Some(key.question)
        })
    }

    /// What the first step of a look-up reads: the slot where the way of a tag begins.
    pub(super) fn first_slot(&self, tag: u32) -> u64 {
        self.table.first_slot(tag)
    }

    /// The octets from the entry on that a look-up with this tag looks at, most likely: another with the tag is rare.
    pub(super) fn prefetched(&self, tag: u32) -> Option<&[u8]> {
        let place = self.table.place(self.table.find(tag, |_| true)?)?;
        Some(self.ring(place.queue).at(place.at))
    }

    /// The entry in a slot: its head and its reply.
    #[inline]
    pub(super) fn entry(&self, slot: usize) -> Option<(Head, &[u8])> {
        let place = self.table.place(slot)?;
        let octets = self.ring(place.queue).at(place.at);
        let head = Head::read(octets);
        Some((head, octets.get(Head::LEN..Head::entry_len(usize::from(head.len)))?))
    }

    /// Changes the head of the entry in a slot; its length and state must stay.
    pub(super) fn write_head(&mut self, slot: usize, head: &Head) {
        if let Some(place) = self.table.place(slot) {
            head.write(self.ring_mut(place.queue).at_mut(place.at));
        }
    }

    /// Forgets the entry in a slot.
    pub(super) fn remove(&mut self, slot: usize) {
        let Some(place) = self.table.place(slot) else { return };
        let octets = self.ring_mut(place.queue).at_mut(place.at);
        let head = Head::read(octets);
        Head { state: State::Dead, ..head }.write(octets);
        self.table.remove(slot);
        self.stats.entries -= 1;
        self.stats.bytes -= head.extent() as u64;
    }

    /// Puts an entry in, in the place of one with this key if there is one. `head` needs no tag and no length.
    pub(super) fn insert(&mut self, key: &Key<'_>, head: Head, reply: &[u8], now: Now) {
        let mut queue = if self.is_ghost(key.tag()) { Queue::Main } else { Queue::Small };
        let mut head = Head { tag: key.tag(), pool: key.pool.0, flags: key.flags, ..head };
        if let Some(slot) = self.find(key) {
            if self.replace(slot, head, reply) {
                return;
            }
            // It is as much wanted as what it replaces.
            if let Some((old, _)) = self.entry(slot) {
                head.frequency = old.frequency;
                queue = self.table.place(slot).map_or(queue, |place| place.queue);
            }
            self.remove(slot);
        }
        self.append(queue, head, reply, now);
    }

    /// Puts an entry of an earlier run in. It has proved its worth, so it does not have to pass through the small ring.
    pub(super) fn restore(&mut self, key: &Key<'_>, head: Head, reply: &[u8], now: Now) {
        if let Some(slot) = self.find(key) {
            self.remove(slot);
        }
        let head = Head { tag: key.tag(), pool: key.pool.0, flags: key.flags, ..head };
        self.append(Queue::Main, head, reply, now);
    }

    /// Puts in an entry that is known not to be there.
    fn append(&mut self, queue: Queue, head: Head, reply: &[u8], now: Now) {
        let extent = Ring::padded(Head::entry_len(reply.len()));
        let Ok(len) = u16::try_from(reply.len()) else { return };
        while self.table.is_full() {
            if self.small.oldest().is_some() { self.shift_small(now) } else { self.shift_main(now, &mut 0) }
        }
        match queue {
            Queue::Small => {
                while !self.small.fits(extent) {
                    self.shift_small(now);
                }
            }
            Queue::Main => self.make_room_in_main(extent, now),
        }
        let ring = self.ring_mut(queue);
        let at = ring.push(extent);
        let octets = ring.at_mut(at);
        let head = Head { extent: (extent / super::ring::UNIT) as u16, len, ..head };
        head.write(octets);
        octets[Head::LEN..Head::LEN + reply.len()].copy_from_slice(reply);
        self.table.insert(head.tag, Location { queue, at });
        self.stats.entries += 1;
        self.stats.bytes += extent as u64;
        self.stats.insertions += 1;
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.table.clear();
        self.ghosts.fill(0);
        self.small.clear();
        self.main.clear();
        (self.stats.entries, self.stats.bytes) = (0, 0);
    }

    /// Shows a visitor the entries of some slots from `slot` on, and says where to go on. A step is short, so that the lock is
    /// never held for long; between two steps entries may come and go.
    pub(super) fn visit(&mut self, slot: usize, mut visit: impl FnMut(&Head, &[u8]) -> Retain) -> Option<usize> {
        let end = self.table.step_from(slot, SLOTS_PER_STEP);
        let mut at = slot;
        let last = end.unwrap_or_else(|| self.table.slots());
        while at < last {
            let stays = self.table.is_wrapped(at) || self.show(at, &mut visit) == Retain::Keep;
            // What moves up into the slot of what goes is seen next.
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

    /// Shows a visitor what is in a slot, if it is in use, and does what it wants done with it.
    fn show(&mut self, slot: usize, visit: &mut impl FnMut(&Head, &[u8]) -> Retain) -> Retain {
        let verdict = self.entry(slot).map_or(Retain::Keep, |(head, reply)| visit(&head, reply));
        match verdict {
            Retain::Remove => self.remove(slot),
            Retain::Keep => {}
        }
        verdict
    }

    /// Writes over the entry in a slot, if the new one takes the same extent.
    fn replace(&mut self, slot: usize, head: Head, reply: &[u8]) -> bool {
        let Some(place) = self.table.place(slot) else { return false };
        let Ok(len) = u16::try_from(reply.len()) else { return false };
        let octets = self.ring_mut(place.queue).at_mut(place.at);
        let old = Head::read(octets);
        if old.extent() != Ring::padded(Head::entry_len(reply.len())) {
            return false;
        }
        Head { extent: old.extent, frequency: old.frequency, len, ..head }.write(octets);
        octets[Head::LEN..Head::LEN + reply.len()].copy_from_slice(reply);
        self.stats.insertions += 1;
        true
    }

    /// Takes the oldest entry out of the small ring: into the main ring if it was hit, else out of the cache.
    fn shift_small(&mut self, now: Now) {
        let Some((at, head)) = self.small.oldest() else { return };
        let place = Location { queue: Queue::Small, at };
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
            // The hits that brought it here have been paid for.
            Head { frequency: 0, ..head }.write(into);
            self.moved(place, &head, Location { queue: Queue::Main, at: to });
            self.small.free_oldest();
        }
    }

    /// Makes room in the main ring.
    fn make_room_in_main(&mut self, extent: usize, now: Now) {
        // However many of the oldest were hit, one call does not go through all of them.
        let mut renewals = MAX_RENEWALS;
        while !self.main.fits(extent) {
            self.shift_main(now, &mut renewals);
        }
    }

    /// Takes the oldest entry out of the main ring, or renews it if it was hit and there are renewals left.
    fn shift_main(&mut self, now: Now, renewals: &mut u32) {
        let Some((at, head)) = self.main.oldest() else { return };
        let place = Location { queue: Queue::Main, at };
        if head.state == State::Dead {
            self.main.free_oldest();
        } else if head.frequency == 0 || *renewals == 0 || head.is_gone(now.millis, now.stale) {
            self.evict(place, &head);
            self.main.free_oldest();
        } else {
            *renewals -= 1;
            let to = self.main.renew_oldest();
            Head { frequency: head.frequency - 1, ..head }.write(self.main.at_mut(to));
            self.moved(place, &head, Location { queue: Queue::Main, at: to });
        }
    }

    /// Drops an entry from the table to make room.
    fn evict(&mut self, place: Location, head: &Head) {
        if let Some(slot) = self.table.find(head.tag, |found| found == place) {
            self.table.remove(slot);
            self.stats.entries -= 1;
            self.stats.bytes -= head.extent() as u64;
            self.stats.evictions += 1;
        }
    }

    /// Tells the table that an entry has moved.
    fn moved(&mut self, from: Location, head: &Head, to: Location) {
        if let Some(slot) = self.table.find(head.tag, |found| found == from) {
            self.table.move_to(slot, to);
        }
    }

    /// Remembers that an entry left without a hit.
    fn note_ghost(&mut self, tag: u32) {
        let place = tag as usize & (self.ghosts.len() - 1);
        self.ghosts[place] = tag;
    }

    /// Whether an entry with this tag left not long ago. For other entries with the tag it is a gift.
    fn is_ghost(&self, tag: u32) -> bool {
        tag != 0 && self.ghosts[tag as usize & (self.ghosts.len() - 1)] == tag
    }

    fn ring(&self, queue: Queue) -> &Ring {
        match queue {
            Queue::Small => &self.small,
            Queue::Main => &self.main,
        }
    }

    /// One of the rings, to be changed.
    fn ring_mut(&mut self, queue: Queue) -> &mut Ring {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }
}

impl CacheStats {
    /// The sum of two.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
            hits: self.hits + other.hits,
            failure_hits: self.failure_hits + other.failure_hits,
            stale_hits: self.stale_hits + other.stale_hits,
            misses: self.misses + other.misses,
            insertions: self.insertions + other.insertions,
            evictions: self.evictions + other.evictions,
        }
    }
}

/// Where the question stands in an entry.
const QUESTION_AT: usize = Head::LEN + HEADER_LEN;

/// Octets of a shard for each slot of its table. The smallest entry takes 64.
const OCTETS_PER_SLOT: usize = 96;

/// The small ring is this part of both: what S3-FIFO's authors found best.
const SMALL_SHARE: usize = 10;

/// The longest entry: a whole message and a head. Either ring must be able to hold it.
const MAX_EXTENT: usize = (u16::MAX as usize + Head::LEN).next_multiple_of(super::ring::UNIT);

/// Entries of the main ring that one call renews at most.
const MAX_RENEWALS: u32 = 16;

/// Slots of a step of a visit: some tens of microseconds.
const SLOTS_PER_STEP: usize = 256;

#[cfg(test)]
mod tests {
    use super::super::key::PoolId;
    use super::*;
    use crate::wire::QuestionFlags;

    /// A question, folded: the number as a label.
    fn question(number: u32) -> Vec<u8> {
        let label = format!("{number:08x}");
        [&[8], label.as_bytes(), b"\0\0\x01\0\x01"].concat()
    }

    fn key(question: &[u8]) -> Key<'_> {
        let hash =
            question.iter().fold(7_u64, |sum, &octet| (sum ^ u64::from(octet)).wrapping_mul(0x2545_F491_4F6C_DD1D));
        Key::new(PoolId(1), question, QuestionFlags::default(), hash ^ hash >> 29)
    }

    /// Puts an entry for a question in whose reply has so many octets more.
    fn insert(shard: &mut Shard, number: u32, more: usize) {
        let question = question(number);
        let reply = [&[0; HEADER_LEN][..], &question, &vec![number as u8; more]].concat();
        let head = Head { state: State::Answer, lifetime: 300, ..Head::default() };
        shard.insert(&key(&question), head, &reply, NOW);
    }

    /// Whether an entry is there, sound, and marks it as hit.
    fn hit(shard: &mut Shard, number: u32) -> bool {
        let question = question(number);
        let Some(slot) = shard.find(&key(&question)) else { return false };
        let (head, reply) = shard.entry(slot).expect("what is found is there");
        assert!(reply[HEADER_LEN + question.len()..].iter().all(|&octet| octet == number as u8));
        shard.write_head(slot, &Head { frequency: Head::MAX_FREQUENCY, ..head });
        true
    }

    /// A time at which nothing has run out.
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
        // It takes them a few rounds to be known as ghosts: others are noted at the same places.
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
