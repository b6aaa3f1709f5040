//! Places for races: found by number, never moved, reused.
//!
//! Places come in chunks, because one long array would be copied when it grows: 100,000 races at once while
//! clients wait, with twice the memory. The lowest chunk fills first, so that the upper ones become empty
//! after a peak and return their memory, except for a few.

/// A race's place and generation. Stored as bytes, so that an [`Outstanding`](super::Outstanding), a
/// `RaceRef` with an attempt, has no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RaceRef {
    index: [u8; 4],
    /// The count of races at this place. It wraps after 16 million, longer than any reference lives.
    generation: [u8; 3],
}

impl RaceRef {
    fn new(index: u32, generation: u32) -> Self {
        let [a, b, c, _] = generation.to_le_bytes();
        Self { index: index.to_le_bytes(), generation: [a, b, c] }
    }

    /// Returns the number of the place, which is unique among present races.
    pub(crate) fn index(self) -> u32 {
        u32::from_le_bytes(self.index)
    }
}

pub(super) struct Slots<E> {
    chunks: Vec<Chunk<E>>,
    roomy: Vec<u64>,
    first_roomy: usize,
    empty: usize,
    len: usize,
}

struct Chunk<E> {
    entries: Vec<Option<E>>,
    /// One for each entry. Beside them, because padding would double the size of a mark.
    marks: Vec<Mark>,
    free: u16,
    used: u16,
    generation: u32,
}

/// The generation of a place, shifted by 8 bits. Below it the next free place of the chunk, or the place
/// itself if it is the last one. Undefined in a used place.
#[derive(Clone, Copy)]
struct Mark(u32);

impl Mark {
    fn new(generation: u32, next_free: u8) -> Self {
        Self(generation << 8 | u32::from(next_free))
    }

    fn generation(self) -> u32 {
        self.0 >> 8
    }

    fn next_free(self) -> u8 {
        self.0 as u8
    }
}

impl<E> Slots<E> {
    pub(super) fn new() -> Self {
        let (chunks, roomy) = (Vec::with_capacity(WARM_CHUNKS), Vec::with_capacity(WARM_CHUNKS / 64));
        Self { chunks, roomy, first_roomy: 0, empty: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, entry: E) -> RaceRef {
        let number = self.roomy_chunk();
        let chunk = &mut self.chunks[number];
        if chunk.used == 0 && chunk.entries.capacity() > 0 {
            self.empty -= 1;
        }
        let (at, generation) = chunk.insert(entry);
        if usize::from(chunk.used) == CHUNK {
            self.roomy[number / 64] &= !(1 << (number % 64));
        }
        self.len += 1;
        RaceRef::new((number * CHUNK + usize::from(at)) as u32, generation)
    }

    pub(super) fn get(&self, at: RaceRef) -> Option<&E> {
        self.at(at.index()).filter(|(found, _)| *found == at).map(|(_, entry)| entry)
    }

    pub(super) fn get_mut(&mut self, at: RaceRef) -> Option<&mut E> {
        let index = at.index() as usize;
        let chunk = self.chunks.get_mut(index / CHUNK)?;
        let generation = chunk.marks.get(index % CHUNK)?.generation();
        let entry = chunk.entries.get_mut(index % CHUNK)?.as_mut();
        entry.filter(|_| RaceRef::new(at.index(), generation) == at)
    }

    pub(super) fn at(&self, index: u32) -> Option<(RaceRef, &E)> {
        let place = index as usize % CHUNK;
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        Some((RaceRef::new(index, chunk.marks.get(place)?.generation()), chunk.entries.get(place)?.as_ref()?))
    }

    pub(super) fn remove(&mut self, at: RaceRef) {
        if self.get(at).is_none() {
            return;
        }
        let index = at.index() as usize;
        let number = index / CHUNK;
        let Some(chunk) = self.chunks.get_mut(number) else { return };
        chunk.remove((index % CHUNK) as u16);
        self.len -= 1;
        self.roomy[number / 64] |= 1 << (number % 64);
        self.first_roomy = self.first_roomy.min(number / 64);
        if chunk.used == 0 {
            if self.empty < EMPTY_KEPT {
                self.empty += 1;
            } else {
                chunk.give_back();
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RaceRef, &E)> + Clone {
        let places = self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let indexes = (number * CHUNK) as u32..;
            indexes.zip(chunk.marks.iter().zip(&chunk.entries))
        });
        places.filter_map(|(index, (mark, entry))| Some((RaceRef::new(index, mark.generation()), entry.as_ref()?)))
    }

    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = &mut E> {
        self.chunks.iter_mut().flat_map(|chunk| &mut chunk.entries).flatten()
    }

    fn roomy_chunk(&mut self) -> usize {
        while let Some(word) = self.roomy.get(self.first_roomy) {
            if *word != 0 {
                return self.first_roomy * 64 + word.trailing_zeros() as usize;
            }
            self.first_roomy += 1;
        }
        let number = self.chunks.len();
        self.chunks.push(Chunk { entries: Vec::new(), marks: Vec::new(), free: NONE, used: 0, generation: 0 });
        self.first_roomy = number / 64;
        match self.roomy.get_mut(self.first_roomy) {
            Some(word) => *word |= 1 << (number % 64),
            None => self.roomy.push(1),
        }
        number
    }
}

impl<E> Chunk<E> {
    /// Puts an entry at a free place, which must exist. Returns the place and its generation.
    fn insert(&mut self, entry: E) -> (u16, u32) {
        self.used += 1;
        if let Some(mark) = self.marks.get(usize::from(self.free)) {
            let (at, next) = (self.free, u16::from(mark.next_free()));
            self.free = if next == at { NONE } else { next };
            self.entries[usize::from(at)] = Some(entry);
            return (at, mark.generation());
        }
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(CHUNK);
            self.marks.reserve_exact(CHUNK);
        }
        self.entries.push(Some(entry));
        self.marks.push(Mark::new(self.generation, 0));
        ((self.entries.len() - 1) as u16, self.generation)
    }

    fn remove(&mut self, at: u16) {
        let place = usize::from(at);
        let (Some(entry), Some(mark)) = (self.entries.get_mut(place), self.marks.get_mut(place)) else { return };
        *entry = None;
        let next = if self.free == NONE { at } else { self.free };
        *mark = Mark::new(mark.generation().wrapping_add(1), next as u8);
        self.free = at;
        self.used -= 1;
    }

    fn give_back(&mut self) {
        let latest = self.marks.iter().map(|mark| mark.generation()).max();
        self.generation = latest.unwrap_or(self.generation);
        (self.entries, self.marks) = (Vec::new(), Vec::new());
        self.free = NONE;
    }
}

#[cfg(test)]
pub(super) const fn place_size<E>() -> usize {
    size_of::<Option<E>>() + size_of::<Mark>()
}

/// The number of places in a chunk, each with a number of one byte: some 80 kB, which the allocator hands out
/// cheaply.
const CHUNK: usize = 256;

/// The initial capacity of the chunk list, for more than 100,000 places.
const WARM_CHUNKS: usize = 512;

/// The number of empty chunks that keep their memory, so that normal variation does not allocate.
const EMPTY_KEPT: usize = 8;

const NONE: u16 = u16::MAX;

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

    /// Counts the chunks that have memory.
    fn held<E>(slots: &Slots<E>) -> usize {
        slots.chunks.iter().filter(|chunk| chunk.entries.capacity() > 0).count()
    }

    #[test]
    fn memory_is_given_back_after_a_peak() {
        let mut slots = Slots::new();
        for peak in 0..3 {
            let refs: Vec<_> = (0..200 * CHUNK).map(|number| slots.insert(number)).collect();
            assert_eq!((slots.chunks.len(), held(&slots)), (200, 200), "{peak}");
            assert!(refs.iter().enumerate().all(|(number, at)| slots.get(*at) == Some(&number)));
            // The races that end last are at the top.
            refs.iter().for_each(|at| slots.remove(*at));
            assert_eq!((slots.len(), held(&slots), slots.empty), (0, EMPTY_KEPT, EMPTY_KEPT), "{peak}");
            assert!(refs.iter().all(|at| slots.get(*at).is_none()), "what ended is not what comes next");
            let again = slots.insert(0);
            assert!((again.index() as usize) < CHUNK, "the lowest first");
            assert!(refs.iter().all(|at| slots.get(*at).is_none()));
            slots.remove(again);
        }
    }

    #[test]
    fn ups_and_downs_ask_for_no_memory() {
        let mut slots = Slots::new();
        for _ in 0..100 {
            let refs: Vec<_> = (0..EMPTY_KEPT * CHUNK).map(|number| slots.insert(number)).collect();
            let before = held(&slots);
            refs.iter().for_each(|at| slots.remove(*at));
            assert_eq!((held(&slots), before), (EMPTY_KEPT, EMPTY_KEPT));
        }
    }
}
