//! Where the entries of one shard are: a table from the tag of a question to a place in a ring.
//!
//! Open addressing with linear probing, eight slots to a cache line, so that a look-up mostly touches one line. A slot that is
//! freed is filled from behind: there are no tombstones to clean up. The table grows with what is in it, for a few names spread
//! over many pages would each cost a page of the processor's address cache; but only as far as it is told at first, so that
//! growing moves a hundred kilobytes or so, and no other call takes longer than the cluster that it falls into.

use super::ring::Queue;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// In which ring.
    pub(super) queue: Queue,
    /// Its first octet there.
    pub(super) at: usize,
}

/// Finds places by tag. Entries of one tag are told apart by whoever can see them.
pub(super) struct Table {
    /// The tag in the high half; in the low half the place, or 0 for a free slot. A power of two of them.
    slots: Box<[u64]>,
    /// As many slots as there may be: a power of two as well.
    most: usize,
    /// Slots in use.
    len: usize,
}

impl Table {
    /// Octets that a slot takes.
    pub(super) const SLOT_LEN: usize = size_of::<u64>();

    /// A table of so many slots at most, a power of two.
    pub(super) fn new(most: usize) -> Self {
        Self { slots: free(most.min(MIN_SLOTS)), most, len: 0 }
    }

    /// Whether it is as full as it may be and does not grow any more.
    pub(super) fn is_full(&self) -> bool {
        self.len >= room_of(self.most)
    }

    /// The slot of a place with this tag that `is_it`.
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

    /// The content of the slot where the way of a tag begins, whatever that is.
    pub(super) fn first_slot(&self, tag: u32) -> u64 {
        self.slots[self.home(tag)]
    }

    /// The place in a slot, if it is in use.
    pub(super) fn place(&self, slot: usize) -> Option<Location> {
        self.slots.get(slot).filter(|&&content| content != 0).map(|&content| place_of(content))
    }

    /// Adds a place. The table must not be full.
    pub(super) fn insert(&mut self, tag: u32, place: Location) {
        if self.len >= room_of(self.slots.len()) && self.slots.len() < self.most {
            self.grow();
        }
        self.settle(content_of(tag, place));
        self.len += 1;
    }

    /// Tells that what is in this slot has moved.
    pub(super) fn move_to(&mut self, slot: usize, place: Location) {
        self.slots[slot] = content_of(tag_of(self.slots[slot]), place);
    }

    /// Frees a slot, and moves up what had to give way to it.
    pub(super) fn remove(&mut self, slot: usize) {
        let mut free = slot;
        let mut next = self.after(free);
        while self.slots[next] != 0 {
            let home = self.home(tag_of(self.slots[next]));
            // Its way from home to here leads through the free slot.
            if self.distance(home, next) >= self.distance(free, next) {
                self.slots[free] = self.slots[next];
                free = next;
            }
            next = self.after(next);
        }
        self.slots[free] = 0;
        self.len -= 1;
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most);
    }

    /// Where a step of a walk over all slots that starts here ends: behind at least `steps` slots and a free one. `None` behind
    /// the last.
    ///
    /// Clusters do not reach over a free slot, and nothing that stands behind it moves before it, not even when the table grows;
    /// but for what [`is_wrapped`](Self::is_wrapped): that stands in the first cluster, and a walk leaves it for its end. So
    /// whatever comes and goes between two steps, the walk misses nothing that was there all the time, but for what it may see
    /// twice.
    pub(super) fn step_from(&self, slot: usize, steps: usize) -> Option<usize> {
        let from = slot.saturating_add(steps);
        let free = self.slots.get(from..)?.iter().position(|&content| content == 0)?;
        Some(from + free + 1).filter(|&end| end < self.slots.len())
    }

    /// Whether what is in a slot stands there because there was no free one between its home and the end.
    pub(super) fn is_wrapped(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|&content| content != 0 && self.home(tag_of(content)) > slot)
    }

    /// Number of slots.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Doubles the slots. Tags tell where each is at home, so no entry has to be looked at.
    fn grow(&mut self) {
        let slots = free(self.slots.len() * 2);
        let old = std::mem::replace(&mut self.slots, slots);
        old.into_iter().filter(|&content| content != 0).for_each(|content| self.settle(content));
    }

    /// Puts something into the first free slot on its way.
    fn settle(&mut self, content: u64) {
        let mut slot = self.home(tag_of(content));
        while self.slots[slot] != 0 {
            slot = self.after(slot);
        }
        self.slots[slot] = content;
    }

    /// Where the way of a tag begins.
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.slots.len() - 1)
    }

    /// The slot behind another, the first behind the last.
    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// Steps from one slot to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

fn free(slots: usize) -> Box<[u64]> {
    vec![0; slots].into_boxed_slice()
}

/// How many of so many slots may be in use: with more than seven of eight, clusters would grow long.
fn room_of(slots: usize) -> usize {
    slots / 8 * 7
}

/// The content of a slot. Places are multiples of 8, so three bits are free: the lowest says that the slot is in use, the next
/// in which queue.
fn content_of(tag: u32, place: Location) -> u64 {
    let queue = match place.queue {
        Queue::Small => 0,
        Queue::Main => QUEUE_BIT,
    };
    u64::from(tag) << 32 | place.at as u64 | queue | IN_USE_BIT
}

/// The place in a slot.
fn place_of(content: u64) -> Location {
    let queue = if content & QUEUE_BIT == 0 { Queue::Small } else { Queue::Main };
    Location { queue, at: (content & u64::from(u32::MAX) & !7) as usize }
}

/// The tag in a slot.
fn tag_of(content: u64) -> u32 {
    (content >> 32) as u32
}

/// Slots at first: as many as half a page holds.
const MIN_SLOTS: usize = 256;

/// Marks a slot that is in use.
const IN_USE_BIT: u64 = 1;

/// Marks a place in the main queue.
const QUEUE_BIT: u64 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(number: usize) -> Location {
        Location { queue: if number.is_multiple_of(2) { Queue::Main } else { Queue::Small }, at: number * 8 }
    }

    proptest! {
        /// Few slots and few tags, so that clusters meet, wrap and break up.
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0_u32..20, any::<bool>()), 0..200)) {
            let mut table = Table::new(16);
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

        /// Tags that are at home in the last slots, so that clusters wrap before and after the table has grown.
        #[test]
        fn a_walk_misses_nothing_when_the_table_grows(first in 0_usize..224, more in 200_usize..600, last in 0_u32..64) {
            let mut table = Table::new(1024);
            let insert = |table: &mut Table, number: usize| {
                let tag = (number as u32).wrapping_mul(0x9E37_79B1) >> 8;
                table.insert(if number.is_multiple_of(3) { u32::MAX - tag % (last + 1) } else { tag }, place(number));
            };
            (0..first).for_each(|number| insert(&mut table, number));
            let mut grown = Table::new(1024);
            (0..first + more).for_each(|number| insert(&mut grown, number));
            for steps in [1, 50] {
                // The first steps see the small table, all others the large one.
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

    /// Walks over a table from a slot on, and returns what it has seen.
    fn walk(table: &Table, from: usize) -> Vec<Location> {
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
