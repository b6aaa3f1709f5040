//! The IDs of the outstanding messages of one socket, in the order of sending. An ICMP error names only the
//! socket, so it concerns all messages sent before it. Each is reported once, however many errors arrive.

use engine::query_slots::QuerySlot;

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

    pub(super) fn push(&mut self, id: u16) {
        // Twice the capacity would often be nearly twice the memory.
        if self.ids.len() == self.ids.capacity() {
            self.ids.reserve_exact(WARM);
        }
        self.ids.push(id);
    }

    /// Removes an ID. Returns false if it is not outstanding.
    #[inline]
    pub(super) fn remove(&mut self, id: u16) -> bool {
        if self.ids[..] == [id] {
            self.clear();
            return true;
        }
        let Some(place) = self.ids.iter().position(|sent| *sent == id) else { return false };
        self.ids.remove(place);
        self.reported -= usize::from(place < self.reported);
        self.struck -= usize::from(place < self.struck);
        true
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
        (self.reported, self.struck) = (0, 0);
    }

    /// Notes an error that concerns all messages before those that have just left.
    pub(super) fn strike_before(&mut self, just_left: &[QuerySlot]) {
        let unsent = just_left.iter().filter(|slot| self.ids.contains(&slot.id())).count();
        self.struck = self.struck.max(self.ids.len() - unsent);
    }

    /// Returns the IDs that an error concerns and that were not returned before.
    pub(super) fn take_struck(&mut self) -> &[u16] {
        let from = std::mem::replace(&mut self.reported, self.struck);
        self.ids.get(from..self.struck).unwrap_or_default()
    }

    pub(super) fn all(&self) -> &[u16] {
        &self.ids
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

const WARM: usize = crate::sys::batch::BATCH;

#[cfg(test)]
mod tests {
    use engine::query_slots::SocketId;

    use super::*;

    fn slots(ids: &[u16]) -> Vec<QuerySlot> {
        ids.iter().filter_map(|id| QuerySlot::new(SocketId(7), *id)).collect()
    }

    #[test]
    fn each_is_reported_once() {
        let mut sent = SentIds::new();
        (0..3).for_each(|id| sent.push(id));
        assert_eq!(sent.take_struck(), [0_u16; 0]);
        sent.strike_before(&slots(&[2]));
        assert_eq!(sent.take_struck(), [0, 1]);
        sent.push(3);
        sent.strike_before(&[]);
        assert_eq!(sent.take_struck(), [2, 3]);
        sent.strike_before(&[]);
        assert_eq!(sent.take_struck(), [0_u16; 0]);
        sent.clear();
        sent.push(4);
        sent.strike_before(&[]);
        assert_eq!(sent.take_struck(), [4]);
    }

    #[test]
    fn removed_ids_move_nothing_else() {
        let mut sent = SentIds::new();
        (0..10).for_each(|id| sent.push(id));
        // The last ones have just left, and one of them is free again.
        assert!(sent.remove(8) && !sent.remove(8));
        sent.strike_before(&slots(&[7, 8, 9]));
        assert!(sent.remove(0) && sent.remove(6));
        assert_eq!(sent.take_struck(), [1, 2, 3, 4, 5]);
        assert!(sent.remove(3));
        sent.strike_before(&[]);
        assert_eq!(sent.take_struck(), [7, 9]);
        assert_eq!((sent.all(), sent.len()), (&[1, 2, 4, 5, 7, 9][..], 6));
        for id in [1, 2, 4, 5, 7, 9] {
            assert!(!sent.is_empty() && sent.remove(id));
        }
        sent.push(10);
        assert_eq!((sent.take_struck().len(), sent.all()), (0, &[10][..]));
    }
}
