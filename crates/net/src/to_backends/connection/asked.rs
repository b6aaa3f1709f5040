//! The message IDs of a connection whose reply is due: one bit per ID. An ID stays here after its query is
//! forgotten, because it must not be given to another query (RFC 7766 section 6.2.1).

/// The set of message IDs whose reply is due.
pub struct AskedIds {
    bits: Box<[u64; WORDS]>,
    count: u32,
}

impl AskedIds {
    /// Returns an empty set.
    pub(crate) fn new() -> Self {
        Self { bits: Box::new([0; WORDS]), count: 0 }
    }

    /// Adds an ID. Returns true if it was free.
    pub(crate) fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        // Branches here and below, because rustc 1.95 loses an addition such as `count += u32::from(is_free)`
        // when the bool then decides (rust-lang/rust#158206).
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.count += 1;
        true
    }

    /// Removes an ID. Returns true if its reply was due.
    pub(crate) fn remove(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        if *word & bit == 0 {
            return false;
        }
        *word &= !bit;
        self.count -= 1;
        true
    }

    /// Returns true if the reply to this ID is due.
    pub(crate) fn contains(&self, id: u16) -> bool {
        self.bits[usize::from(id) / 64] & 1 << (id % 64) != 0
    }

    /// Returns true if the backend ignores so many queries that the connection should get no further ones.
    pub(crate) fn are_too_many(&self) -> bool {
        self.count >= MAX_ASKED
    }

    /// Returns true if no reply is due.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn place(&mut self, id: u16) -> (&mut u64, u64) {
        (&mut self.bits[usize::from(id) / 64], 1 << (id % 64))
    }
}

impl Default for AskedIds {
    fn default() -> Self {
        Self::new()
    }
}

const WORDS: usize = (1 << u16::BITS) / 64;

/// Half of all IDs, so that a free one is found by the second draw on average.
const MAX_ASKED: u32 = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_while_their_replies_are_due() {
        let mut asked = AskedIds::new();
        let mut drawn = (0..u16::MAX).map(|number| number / 2);
        for count in 1..=MAX_ASKED / 2 {
            let id = drawn.by_ref().find(|id| asked.insert(*id));
            assert_eq!((id.map(u32::from), asked.are_too_many()), (Some(count - 1), false));
        }
        assert!(asked.contains(7) && !asked.is_empty());
        assert!((0..1 << 14).all(|id| asked.remove(id)) && !(0..1 << 14).any(|id| asked.remove(id)));
        assert!(!asked.contains(7) && asked.is_empty());
        assert!((0..1 << 15).all(|id| asked.insert(id)) && asked.are_too_many());
        assert!(asked.remove(0) && !asked.are_too_many());
    }
}
