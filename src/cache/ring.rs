//! The octets of a queue of entries: a ring that is written at its head and freed at its tail.
//!
//! Each entry is one extent. It is never moved for want of a hole of its size, there is no allocator below, and what the ring
//! takes is known beforehand to the octet. An entry that is no longer wanted stays as a dead extent until the tail is there.

use super::entry::{Head, State};

/// Which of a shard's two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// For what is new.
    Small,
    /// For what was asked for again.
    Main,
}

/// A ring of extents.
pub(super) struct Ring {
    octets: Box<[u8]>,
    /// Where the next extent starts.
    head: usize,
    /// Where the oldest one starts.
    tail: usize,
    /// Octets from tail to head.
    used: usize,
}

impl Ring {
    /// A ring of so many octets, which are touched, and so taken from the system, as it fills.
    pub(super) fn new(capacity: usize) -> Self {
        Self { octets: vec![0; capacity / UNIT * UNIT].into_boxed_slice(), head: 0, tail: 0, used: 0 }
    }

    /// How many octets there are.
    pub(super) fn capacity(&self) -> usize {
        self.octets.len()
    }

    /// What an extent for so many octets takes.
    pub(super) fn padded(len: usize) -> usize {
        len.next_multiple_of(UNIT)
    }

    /// Whether an extent of this padded length has room now.
    pub(super) fn fits(&self, len: usize) -> bool {
        self.used + self.gap(len) + len <= self.capacity()
    }

    /// Takes the extent at the head, of a padded length that [`fits`](Self::fits), and says where it is.
    pub(super) fn push(&mut self, len: usize) -> usize {
        let gap = self.gap(len);
        if gap > 0 {
            Head::filler(gap).write(self.at_mut(self.head));
            self.used += gap;
            self.head = 0;
        }
        let at = self.head;
        self.used += len;
        self.head = self.wrapped(at + len);
        at
    }

    /// The head of the oldest extent and where it is.
    pub(super) fn oldest(&self) -> Option<(usize, Head)> {
        (self.used > 0).then(|| (self.tail, Head::read(self.at(self.tail))))
    }

    /// Frees the oldest extent. Its octets stay until something is written over them.
    pub(super) fn free_oldest(&mut self) {
        if let Some((at, head)) = self.oldest() {
            self.used -= head.extent();
            self.tail = self.wrapped(at + head.extent());
        }
        // Empty, it has all of its octets in one piece again: else the longest entry might never fit.
        if self.used == 0 {
            self.clear();
        }
    }

    /// Gives the oldest extent a second chance at the head, and says where it is now. It always fits there.
    pub(super) fn renew_oldest(&mut self) -> usize {
        let Some((from, head)) = self.oldest() else { return self.head };
        self.free_oldest();
        let to = self.push(head.extent());
        self.octets.copy_within(from..from + head.extent(), to);
        to
    }

    /// Frees all.
    pub(super) fn clear(&mut self) {
        (self.head, self.tail, self.used) = (0, 0, 0);
    }

    /// The octets from an extent's first on.
    pub(super) fn at(&self, at: usize) -> &[u8] {
        &self.octets[at..]
    }

    pub(super) fn at_mut(&mut self, at: usize) -> &mut [u8] {
        &mut self.octets[at..]
    }

    /// Octets that must be skipped at the end so that an extent of this length is in one piece.
    fn gap(&self, len: usize) -> usize {
        let to_end = self.capacity() - self.head;
        if len > to_end { to_end } else { 0 }
    }

    /// The place behind an extent, which may be the first.
    fn wrapped(&self, end: usize) -> usize {
        if end == self.capacity() { 0 } else { end }
    }
}

impl Head {
    /// What stands where no entry fits in one piece any more.
    fn filler(len: usize) -> Self {
        Self { extent: (len / UNIT) as u16, state: State::Dead, ..Self::default() }
    }

    /// Octets from this entry to the next.
    pub(super) fn extent(&self) -> usize {
        usize::from(self.extent) * UNIT
    }
}

/// Extents are multiples of this, so that a filler has room for its length and a place for three bits.
pub(super) const UNIT: usize = 8;
