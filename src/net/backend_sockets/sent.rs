//! The IDs that were sent from one socket, so that an ICMP error to it finds the attempts that it is about.
//!
//! The kernel tells of the socket only, not of the message. So an error is about all that was sent from there before it; and of
//! those, each attempt is told of once, however many errors come.

/// The IDs on one socket that are taken, in the order of sending, and perhaps some that are free again.
#[derive(Debug)]
pub(super) struct SentIds {
    /// Message IDs.
    ids: Vec<u16>,
    /// Those before this place were told of.
    told: usize,
    /// An error has come that is about those before this place.
    struck: usize,
}

impl SentIds {
    /// None yet, and room for some.
    pub(super) fn new() -> Self {
        Self { ids: Vec::with_capacity(WARM), told: 0, struck: 0 }
    }

    /// One is sent. Of those that are here, `taken` are still taken, and `is_taken` knows which: when there is no more room,
    /// the others go, if they are as many.
    pub(super) fn push(&mut self, id: u16, taken: u32, is_taken: impl Fn(u16) -> bool) {
        if self.ids.len() == self.ids.capacity() && taken as usize <= self.ids.len() / 2 {
            let count = |ids: &[u16]| ids.iter().filter(|id| is_taken(**id)).count();
            (self.told, self.struck) = (count(&self.ids[..self.told]), count(&self.ids[..self.struck]));
            self.ids.retain(|id| is_taken(*id));
        }
        self.ids.push(id);
    }

    /// None of them is taken any more.
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        (self.told, self.struck) = (0, 0);
    }

    /// An ICMP error came, which is not about the last `unsent` of them.
    pub(super) fn strike(&mut self, unsent: usize) {
        self.struck = self.struck.max(self.ids.len().saturating_sub(unsent));
    }

    /// Those that an error is about, the untold only.
    pub(super) fn tell(&mut self) -> &[u16] {
        let from = std::mem::replace(&mut self.told, self.struck);
        self.ids.get(from..self.struck).unwrap_or_default()
    }

    /// Those that an error is about.
    pub(super) fn struck(&self) -> &[u16] {
        &self.ids[..self.struck]
    }

    pub(super) fn all(&self) -> &[u16] {
        &self.ids
    }
}

/// IDs for which there is room at once: a batch.
const WARM: usize = super::BATCH;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once() {
        let mut sent = SentIds::new();
        (0..3).for_each(|id| sent.push(id, 0, |_| true));
        assert_eq!(sent.tell(), [0_u16; 0]);
        sent.strike(1);
        assert_eq!(sent.struck(), [0, 1]);
        assert_eq!(sent.tell(), [0, 1]);
        sent.push(3, 0, |_| true);
        sent.strike(0);
        assert_eq!(sent.tell(), [2, 3]);
        sent.strike(0);
        assert_eq!(sent.tell(), [0_u16; 0]);
        assert_eq!(sent.struck(), [0, 1, 2, 3]);
        sent.clear();
        sent.push(4, 0, |_| true);
        sent.strike(0);
        assert_eq!(sent.tell(), [4]);
    }

    #[test]
    fn what_is_free_again_takes_no_room_and_moves_nothing_else() {
        let mut sent = SentIds::new();
        let capacity = sent.ids.capacity() as u16;
        (0..capacity).for_each(|id| sent.push(id, id.into(), |_| true));
        sent.strike(usize::from(capacity / 2));
        sent.tell();
        // The even ones are free.
        sent.push(capacity, u32::from(capacity / 2), |id| id % 2 == 1);
        assert_eq!(sent.ids.capacity(), usize::from(capacity));
        assert!(sent.struck().iter().eq((0..capacity / 2).filter(|id| id % 2 == 1).collect::<Vec<_>>().iter()));
        sent.strike(1);
        assert!(sent.tell().iter().eq((capacity / 2..capacity).filter(|id| id % 2 == 1).collect::<Vec<_>>().iter()));
        // With all of them taken it grows.
        (0..capacity).for_each(|id| sent.push(id, u32::from(capacity), |_| true));
        assert!(sent.all().len() > usize::from(capacity));
    }
}
