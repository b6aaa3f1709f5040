//! The IDs that were asked on a connection and that no reply has come to: a bit for each of them all.
//!
//! What waits for a reply is less: most queries whose race is over are forgotten after a while. But their replies may still come,
//! and an ID whose reply is due must not be given to another query (RFC 7766 section 6.2.1).

/// IDs that were asked and not replied to.
pub struct AskedIds {
    bits: Box<[u64; WORDS]>,
    count: u32,
}

impl AskedIds {
    /// None yet.
    pub fn new() -> Self {
        Self { bits: Box::new([0; WORDS]), count: 0 }
    }

    /// One is asked. Returns whether it was free.
    pub fn insert(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        let is_free = *word & bit == 0;
        *word |= bit;
        self.count += u32::from(is_free);
        is_free
    }

    /// A reply has come. Returns whether it was asked.
    pub fn remove(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        let was_asked = *word & bit != 0;
        *word &= !bit;
        self.count -= u32::from(was_asked);
        was_asked
    }

    /// Whether its reply is due.
    pub fn contains(&mut self, id: u16) -> bool {
        let (word, bit) = self.place(id);
        *word & bit != 0
    }

    /// Whether so many replies are due that the connection should get no further queries: the backend ignores most of them.
    pub fn are_too_many(&self) -> bool {
        self.count >= MAX_ASKED
    }

    /// Whether a reply is due.
    pub fn is_empty(&self) -> bool {
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

/// Words of 64 bits for all IDs.
const WORDS: usize = (1 << u16::BITS) / 64;

/// Half of all IDs, so that a free one is found by the second draw on average.
const MAX_ASKED: u32 = 1 << 15;
