//! The index of one shard: a table from the tag of a question to a place in a ring.
//!
//! Open addressing with linear probing, eight slots to a cache line, so that a look-up mostly touches one
//! line. A removal moves later slots up, so there are no tombstones. The table grows with its entries,
//! because a few names spread over many pages would each cost a TLB entry. The maximum size is fixed at the
//! start, so growing moves about a hundred kilobytes, and no other call takes longer than one cluster.

use super::ring::RingQueue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) queue: RingQueue,
    pub(super) at: usize,
}

/// Finds places by tag. The caller distinguishes entries of one tag.
pub(super) struct TagTable {
    /// A power of two of slots. High half: the tag. Low half: the place, or 0 for a free slot.
    slots: Box<[u64]>,
    most: usize,
    len: usize,
}

impl TagTable {
    pub(super) const SLOT_LEN: usize = size_of::<u64>();

    pub(super) fn new(most: usize) -> Self {
        Self { slots: free(most.min(MIN_SLOTS)), most, len: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= room_of(self.most)
    }

    /// Returns the slot of the place with this tag for which `is_it` returns true.
    pub(super) fn find(&self, tag: u32, mut is_it: impl FnMut(Location) -> bool) -> Option<usize> {
        let mut slot = self.home(tag);
        // The table is never full, so every cluster ends.
        loop {
            let content = self.slots[slot];
            if content == 0 {
                return None;
            }
            if tag_of(content) == tag && is_it(place_of(content)) {
                return Some(slot);
            }
            slot = self.after(slot);
        }
    }

    pub(super) fn first_slot(&self, tag: u32) -> u64 {
        self.slots[self.home(tag)]
    }

    pub(super) fn place(&self, slot: usize) -> Option<Location> {
        self.slots.get(slot).filter(|&&content| content != 0).map(|&content| place_of(content))
    }

    pub(super) fn insert(&mut self, tag: u32, place: Location) {
        if self.len >= room_of(self.slots.len()) && self.slots.len() < self.most {
            self.grow();
        }
        self.settle(content_of(tag, place));
        self.len += 1;
    }

    pub(super) fn move_to(&mut self, slot: usize, place: Location) {
        self.slots[slot] = content_of(tag_of(self.slots[slot]), place);
    }

    pub(super) fn remove(&mut self, slot: usize) {
        let mut free = slot;
        let mut next = self.after(free);
        while self.slots[next] != 0 {
            let home = self.home(tag_of(self.slots[next]));
            // The probe path from `home` to `next` leads through the free slot.
            if self.distance(home, next) >= self.distance(free, next) {
                self.slots[free] = self.slots[next];
                free = next;
            }
            next = self.after(next);
        }
        self.slots[free] = 0;
        self.len -= 1;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    /// Returns the end of a walk step that starts here: behind at least `steps` slots and a free one. Returns
    /// `None` behind the last slot. Clusters do not reach over a free slot, and nothing moves to before a
    /// free slot, not even when the table grows. The exception is a wrapped slot
    /// ([`is_wrapped`](Self::is_wrapped)): it stands in the first cluster, and a walk visits it at the end.
    /// So a walk sees every entry that exists all the time, some of them twice.
    pub(super) fn step_from(&self, slot: usize, steps: usize) -> Option<usize> {
        let from = slot.saturating_add(steps);
        let free = self.slots.get(from..)?.iter().position(|&content| content == 0)?;
        Some(from + free + 1).filter(|&end| end < self.slots.len())
    }

    /// Returns true if no slot was free between the home of this content and the end.
    pub(super) fn is_wrapped(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|&content| content != 0 && self.home(tag_of(content)) > slot)
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Doubles the slots. The tags determine the homes, so no entry has to be read.
    fn grow(&mut self) {
        let slots = free(self.slots.len() * 2);
        let old = std::mem::replace(&mut self.slots, slots);
        old.into_iter().filter(|&content| content != 0).for_each(|content| self.settle(content));
    }

    fn settle(&mut self, content: u64) {
        let mut slot = self.home(tag_of(content));
        while self.slots[slot] != 0 {
            slot = self.after(slot);
        }
        self.slots[slot] = content;
    }

    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

fn free(slots: usize) -> Box<[u64]> {
    vec![0; slots].into_boxed_slice()
}

/// The number of slots that may be in use: above seven of eight, clusters would grow long.
fn room_of(slots: usize) -> usize {
    slots / 8 * 7
}

/// Packs a slot. Places are multiples of 8, so three bits are free: the lowest marks a slot in use, the next
/// one the queue.
fn content_of(tag: u32, place: Location) -> u64 {
    let queue = match place.queue {
        RingQueue::Small => 0,
        RingQueue::Main => QUEUE_BIT,
    };
    u64::from(tag) << 32 | place.at as u64 | queue | IN_USE_BIT
}

fn place_of(content: u64) -> Location {
    let queue = if content & QUEUE_BIT == 0 { RingQueue::Small } else { RingQueue::Main };
    Location { queue, at: (content & u64::from(u32::MAX) & !7) as usize }
}

fn tag_of(content: u64) -> u32 {
    (content >> 32) as u32
}

const MIN_SLOTS: usize = 256;

const IN_USE_BIT: u64 = 1;

const QUEUE_BIT: u64 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(number: usize) -> Location {
        Location { queue: if number.is_multiple_of(2) { RingQueue::Main } else { RingQueue::Small }, at: number * 8 }
    }

    proptest! {
        /// Few slots and few tags, so that clusters meet, wrap and break up.
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0_u32..20, any::<bool>()), 0..200)) {
            let mut table = TagTable::new(16);
            let mut model: Vec<(u32, Location)> = Vec::new();
            for (number, (tag, adds)) in steps.into_iter().enumerate() {
                if adds && !table.is_full() {
                    table.insert(tag, place(number));
                    model.push((tag, place(number)));
                } else if let Some(found) = model.iter().position(|&(other, _)| other == tag) {
                    let (_, gone) = model.swap_remove(found);
                    let slot = table.find(tag, |place| place == gone);
                    table.remove(slot.expect("it was added"));
                }
                prop_assert_eq!(table.len, model.len());
                for &(tag, place) in &model {
                    prop_assert!(table.find(tag, |found| found == place).is_some());
                }
                prop_assert_eq!(walk(&table, 0).len(), model.len());
            }
        }

        /// Tags whose homes are the last slots, so that clusters wrap before and after the table has grown.
        #[test]
        fn a_walk_misses_nothing_when_the_table_grows(first in 0_usize..224, more in 200_usize..600, last in 0_u32..64) {
            let mut table = TagTable::new(1024);
            let insert = |table: &mut TagTable, number: usize| {
                let tag = (number as u32).wrapping_mul(0x9E37_79B1) >> 8;
                table.insert(if number.is_multiple_of(3) { u32::MAX - tag % (last + 1) } else { tag }, place(number));
            };
            (0..first).for_each(|number| insert(&mut table, number));
            let mut grown = TagTable::new(1024);
            (0..first + more).for_each(|number| insert(&mut grown, number));
            for steps in [1, 50] {
                // The first steps see the small table, the later ones the large table.
                let mut seen = Vec::new();
                let middle = (0..steps).try_fold(0, |from, _| {
                    let end = table.step_from(from, 2)?;
                    seen.extend((from..end).filter(|&slot| !table.is_wrapped(slot)).filter_map(|slot| table.place(slot)));
                    Some(end)
                });
                if let Some(from) = middle {
                    seen.extend(walk(&grown, from));
                    for number in 0..first {
                        prop_assert!(seen.contains(&place(number)), "{}", number);
                    }
                }
            }
        }
    }

    fn walk(table: &TagTable, from: usize) -> Vec<Location> {
        let mut seen = Vec::new();
        let mut from = Some(from);
        while let Some(start) = from {
            from = table.step_from(start, 2);
            let end = from.unwrap_or_else(|| table.slots());
            seen.extend((start..end).filter(|&slot| !table.is_wrapped(slot)).filter_map(|slot| table.place(slot)));
        }
        let first = (0..).take_while(|&slot| table.place(slot).is_some());
        seen.extend(first.filter(|&slot| table.is_wrapped(slot)).filter_map(|slot| table.place(slot)));
        seen
    }
}
