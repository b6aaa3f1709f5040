//! The IDs that were sent from one socket. An ICMP error names only the socket, so it concerns all messages
//! sent before it. Each attempt is reported once, however many errors arrive.

#[derive(Debug)]
pub(super) struct SentIds {
    ids: Vec<u16>,
    /// The number of leading IDs that were reported.
    reported: usize,
    /// The number of leading IDs that an error concerns.
    struck: usize,
}

impl SentIds {
    pub(super) fn new() -> Self {
        Self { ids: Vec::with_capacity(WARM), reported: 0, struck: 0 }
    }

    /// Adds an ID. When full, it removes the free IDs if at most half (`taken`) are still in use.
    pub(super) fn push(&mut self, id: u16, taken: u32, is_taken: impl Fn(u16) -> bool) {
        if self.ids.len() == self.ids.capacity() && taken as usize <= self.ids.len() / 2 {
            let count = |ids: &[u16]| ids.iter().filter(|id| is_taken(**id)).count();
            (self.reported, self.struck) = (count(&self.ids[..self.reported]), count(&self.ids[..self.struck]));
            self.ids.retain(|id| is_taken(*id));
        }
        self.ids.push(id);
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
        (self.reported, self.struck) = (0, 0);
    }

    pub(super) fn strike(&mut self, unsent: usize) {
        self.struck = self.struck.max(self.ids.len().saturating_sub(unsent));
    }

    /// Returns the IDs that an error concerns and that were not returned before.
    pub(super) fn take_struck(&mut self) -> &[u16] {
        let from = std::mem::replace(&mut self.reported, self.struck);
        self.ids.get(from..self.struck).unwrap_or_default()
    }

    pub(super) fn struck(&self) -> &[u16] {
        &self.ids[..self.struck]
    }

    pub(super) fn all(&self) -> &[u16] {
        &self.ids
    }
}

const WARM: usize = crate::net::sys::batch::BATCH;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once() {
        let mut sent = SentIds::new();
        (0..3).for_each(|id| sent.push(id, 0, |_| true));
        assert_eq!(sent.take_struck(), [0_u16; 0]);
        sent.strike(1);
        assert_eq!(sent.struck(), [0, 1]);
        assert_eq!(sent.take_struck(), [0, 1]);
        sent.push(3, 0, |_| true);
        sent.strike(0);
        assert_eq!(sent.take_struck(), [2, 3]);
        sent.strike(0);
        assert_eq!(sent.take_struck(), [0_u16; 0]);
        assert_eq!(sent.struck(), [0, 1, 2, 3]);
        sent.clear();
        sent.push(4, 0, |_| true);
        sent.strike(0);
        assert_eq!(sent.take_struck(), [4]);
    }

    #[test]
    fn what_is_free_again_takes_no_room_and_moves_nothing_else() {
        let mut sent = SentIds::new();
        let capacity = sent.ids.capacity() as u16;
        (0..capacity).for_each(|id| sent.push(id, id.into(), |_| true));
        sent.strike(usize::from(capacity / 2));
        sent.take_struck();
        sent.push(capacity, u32::from(capacity / 2), |id| id % 2 == 1);
        assert_eq!(sent.ids.capacity(), usize::from(capacity));
        assert!(sent.struck().iter().eq((0..capacity / 2).filter(|id| id % 2 == 1).collect::<Vec<_>>().iter()));
        sent.strike(1);
        assert!(
            sent.take_struck().iter().eq((capacity / 2..capacity).filter(|id| id % 2 == 1).collect::<Vec<_>>().iter())
        );
        (0..capacity).for_each(|id| sent.push(id, u32::from(capacity), |_| true));
        assert!(sent.all().len() > usize::from(capacity));
    }
}
