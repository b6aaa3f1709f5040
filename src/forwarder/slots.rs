//! Places for races: found by number, never moved, used again.
//!
//! They come in chunks. One long array would be copied whenever it grows, a hundred thousand races at once while their clients
//! wait, and would take its memory twice meanwhile.

/// A race's place, and which of the races that have had it. Octets, so that a ticket, which is one of these and an attempt, has
/// no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RaceRef {
    /// The number of the place.
    index: [u8; 4],
    /// Counts the races at that place, and starts anew after 16 million: nothing that refers to one lasts for so many.
    generation: [u8; 3],
}

impl RaceRef {
    /// The race of this generation at a place.
    fn new(index: u32, generation: u32) -> Self {
        let [a, b, c, _] = generation.to_le_bytes();
        Self { index: index.to_le_bytes(), generation: [a, b, c] }
    }

    /// The number of the place, which no other race has while this one lasts.
    pub(super) fn index(self) -> u32 {
        u32::from_le_bytes(self.index)
    }
}

/// Places, each with an entry or free.
pub(super) struct Slots<E> {
    /// All places, [`CHUNK`] in each but the last.
    chunks: Vec<Vec<Slot<E>>>,
    /// The free place that is used next, or [`NONE`].
    free: u32,
    /// How many are used.
    len: usize,
}

/// One place.
struct Slot<E> {
    /// Counts the races that had this place.
    generation: u32,
    /// The free place that is used after this one, or [`NONE`]. Means nothing while this one is used.
    next_free: u32,
    /// The present race.
    entry: Option<E>,
}

impl<E> Slots<E> {
    /// Room for some, before anything has to grow.
    pub(super) fn new() -> Self {
        Self { chunks: Vec::with_capacity(WARM_CHUNKS), free: NONE, len: 0 }
    }

    /// How many are used.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts an entry at a free place.
    pub(super) fn insert(&mut self, entry: E) -> RaceRef {
        self.len += 1;
        if let Some(slot) = slot_mut(&mut self.chunks, self.free) {
            let at = RaceRef::new(self.free, slot.generation);
            self.free = slot.next_free;
            slot.entry = Some(entry);
            return at;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = self.chunks.len() - 1;
        let chunk = &mut self.chunks[before];
        chunk.push(Slot { generation: 0, next_free: NONE, entry: Some(entry) });
        RaceRef::new((before * CHUNK + chunk.len() - 1) as u32, 0)
    }

    /// The entry at `at`, unless it is gone.
    pub(super) fn get(&self, at: RaceRef) -> Option<&E> {
        let slot = self.slot(at.index())?;
        slot.entry.as_ref().filter(|_| RaceRef::new(at.index(), slot.generation) == at)
    }

    /// The entry at `at`, unless it is gone.
    pub(super) fn get_mut(&mut self, at: RaceRef) -> Option<&mut E> {
        let slot = slot_mut(&mut self.chunks, at.index())?;
        let generation = slot.generation;
        slot.entry.as_mut().filter(|_| RaceRef::new(at.index(), generation) == at)
    }

    /// The entry that is at a place now.
    pub(super) fn at(&self, index: u32) -> Option<(RaceRef, &E)> {
        let slot = self.slot(index)?;
        Some((RaceRef::new(index, slot.generation), slot.entry.as_ref()?))
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, at: RaceRef) {
        if self.get(at).is_none() {
            return;
        }
        if let Some(slot) = slot_mut(&mut self.chunks, at.index()) {
            slot.entry = None;
            slot.generation = slot.generation.wrapping_add(1);
            slot.next_free = self.free;
            self.free = at.index();
            self.len -= 1;
        }
    }

    /// All entries.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.chunks.iter_mut().flatten().filter_map(|slot| slot.entry.as_mut())
    }

    /// A place by its number.
    fn slot(&self, index: u32) -> Option<&Slot<E>> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }
}

/// A place by its number.
fn slot_mut<E>(chunks: &mut [Vec<Slot<E>>], index: u32) -> Option<&mut Slot<E>> {
    let index = index as usize;
    chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
}

/// Octets that one place takes.
#[cfg(test)]
pub(super) const fn place_size<E>() -> usize {
    size_of::<Slot<E>>()
}

/// Places that are asked of the allocator at once: some 80 kB, which it hands out without much ado.
const CHUNK: usize = 256;

/// Chunks that are known before their list has to grow: that many places are 100,000 and some.
const WARM_CHUNKS: usize = 512;

/// No place has this number.
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again_and_their_races_told_apart() {
        let mut slots = Slots::new();
        let refs: Vec<_> = (0..3 * CHUNK).map(|number| slots.insert(number)).collect();
        assert_eq!((slots.len(), slots.chunks.len()), (3 * CHUNK, 3));
        for (number, at) in refs.iter().enumerate() {
            assert_eq!((slots.get(*at), slots.at(at.index())), (Some(&number), Some((*at, &number))));
        }
        let gone = refs[CHUNK];
        slots.remove(gone);
        slots.remove(gone);
        assert_eq!((slots.get(gone), slots.at(gone.index()), slots.len()), (None, None, 3 * CHUNK - 1));
        let next = slots.insert(7);
        assert_eq!((next.index(), slots.get(gone), slots.get(next)), (gone.index(), None, Some(&7)));
        slots.remove(gone);
        assert_eq!(slots.get_mut(next), Some(&mut 7));
        assert_eq!((slots.len(), slots.chunks.len()), (3 * CHUNK, 3));
    }
}
