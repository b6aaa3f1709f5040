//! The bytes of a queue of entries: a ring that is written at its head and freed at its tail.
//!
//! Each entry is one extent, which never moves to fill a hole. The ring needs no allocator, and its memory is
//! known in advance to the byte. A removed entry stays as a dead extent until the tail reaches it.

use super::entry::{EntryHead, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingQueue {
    Small,
    Main,
}

pub(super) struct CacheRing {
    octets: Box<[u8]>,
    head: usize,
    tail: usize,
    used: usize,
}

impl CacheRing {
    pub(super) fn new(capacity: usize) -> Self {
        Self { octets: vec![0; capacity / UNIT * UNIT].into_boxed_slice(), head: 0, tail: 0, used: 0 }
    }

    pub(super) fn capacity(&self) -> usize {
        self.octets.len()
    }

    pub(super) fn padded(len: usize) -> usize {
        len.next_multiple_of(UNIT)
    }

    pub(super) fn fits(&self, len: usize) -> bool {
        self.used + self.gap(len) + len <= self.capacity()
    }

    /// Takes the extent at the head, of a padded length that [`fits`](Self::fits), and returns its place.
    pub(super) fn push(&mut self, len: usize) -> usize {
        let gap = self.gap(len);
        if gap > 0 {
            EntryHead::filler(gap).write(self.at_mut(self.head));
            self.used += gap;
            self.head = 0;
        }
        let at = self.head;
        self.used += len;
        self.head = self.wrapped(at + len);
        at
    }

    pub(super) fn oldest(&self) -> Option<(usize, EntryHead)> {
        (self.used > 0).then(|| (self.tail, EntryHead::read(self.at(self.tail))))
    }

    /// Frees the oldest extent. Its bytes stay until they are overwritten.
    pub(super) fn free_oldest(&mut self) {
        if let Some((at, head)) = self.oldest() {
            self.used -= head.extent();
            self.tail = self.wrapped(at + head.extent());
        }
        // An empty ring starts again at 0 with all bytes in one piece: otherwise the longest entry might
        // never fit.
        if self.used == 0 {
            self.clear();
        }
    }

    /// Moves the oldest extent to the head, and returns its new place. It always fits there.
    pub(super) fn renew_oldest(&mut self) -> usize {
        let Some((from, head)) = self.oldest() else { return self.head };
        self.free_oldest();
        let to = self.push(head.extent());
        self.octets.copy_within(from..from + head.extent(), to);
        to
    }

    pub(super) fn clear(&mut self) {
        (self.head, self.tail, self.used) = (0, 0, 0);
    }

    pub(super) fn at(&self, at: usize) -> &[u8] {
        &self.octets[at..]
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut [u8] {
        &mut self.octets[at..]
    }

    fn gap(&self, len: usize) -> usize {
        let to_end = self.capacity() - self.head;
        if len > to_end { to_end } else { 0 }
    }

    fn wrapped(&self, end: usize) -> usize {
        if end == self.capacity() { 0 } else { end }
    }
}

impl EntryHead {
    /// A head that fills the end of the ring where no entry fits.
    fn filler(len: usize) -> Self {
        Self { extent: (len / UNIT) as u16, state: State::Dead, ..Self::default() }
    }

    pub(super) fn extent(&self) -> usize {
        usize::from(self.extent) * UNIT
    }
}

/// Extents are multiples of this length, so a filler has room for its length, and three bits of a place are
/// free.
pub(super) const UNIT: usize = 8;
