//! Responses that leave later, so that what has waited does not leave as a pulse (`limit/pacing.rs`): each at its time, and no
//! more of them than take [`MAX_OCTETS`].

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::client::Peer;
use crate::net::batch::LocalAddress;

/// The responses of one worker that leave later.
#[derive(Default)]
pub(super) struct Paced {
    /// The next to leave first.
    queue: BinaryHeap<Later>,
    octets: usize,
    /// Tells those of one time apart, in the order in which they came.
    serial: u64,
}

/// A response, and where it goes.
pub(super) struct Later {
    /// When it leaves.
    due: Instant,
    /// Which of those that leave then.
    serial: u64,
    pub(super) listener: u16,
    pub(super) peer: Peer,
    /// From which address of ours.
    pub(super) local: Option<LocalAddress>,
    /// The response.
    pub(super) message: Box<[u8]>,
}

impl Paced {
    /// Keeps a response until its time. Returns whether there is room for it.
    pub(super) fn push(
        &mut self,
        due: Instant,
        (listener, peer, local): (u16, Peer, Option<LocalAddress>),
        message: &[u8],
    ) -> bool {
        let octets = self.octets + message.len() + size_of::<Later>();
        if octets > MAX_OCTETS {
            return false;
        }
        self.octets = octets;
        self.serial += 1;
        self.queue.push(Later { due, serial: self.serial, listener, peer, local, message: message.into() });
        true
    }

    /// Takes out a response whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Later> {
        self.queue.peek().filter(|later| later.due <= now)?;
        let later = self.queue.pop()?;
        self.octets -= later.message.len() + size_of::<Later>();
        if self.queue.is_empty() {
            // What paced an attack is not kept for the next.
            self.queue = BinaryHeap::new();
        }
        Some(later)
    }

    /// When the last one leaves, or later.
    pub(super) fn last_due(&self) -> Option<Instant> {
        self.queue.iter().map(|later| later.due).max()
    }

    /// When the next one leaves.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.peek().map(|later| later.due)
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Ord for Later {
    /// A heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.serial).cmp(&(self.due, self.serial))
    }
}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Later {}

/// Octets that the responses of one worker may take which leave later. Where that is not enough, what is left is not sent.
const MAX_OCTETS: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;

    /// Where a response goes.
    fn way() -> (u16, Peer, Option<LocalAddress>) {
        (0, SocketAddr::from(([127, 0, 0, 1], 53)).into(), None)
    }

    #[test]
    fn each_leaves_at_its_time_and_in_order() {
        let now = Instant::now();
        let mut paced = Paced::default();
        for (number, millis) in [20, 10, 10, 0].into_iter().enumerate() {
            assert!(paced.push(now + Duration::from_millis(millis), way(), &[number as u8]));
        }
        let mut left = Vec::new();
        for millis in [0, 9, 10, 30] {
            while let Some(later) = paced.pop_due(now + Duration::from_millis(millis)) {
                left.push((millis, later.message[0]));
            }
        }
        assert_eq!(left, [(0, 3), (10, 1), (10, 2), (30, 0)]);
        assert!(paced.is_empty() && paced.next_due().is_none() && paced.octets == 0);
    }

    #[test]
    fn there_are_no_more_than_take_so_many_octets() {
        let now = Instant::now();
        let mut paced = Paced::default();
        let count = (0..MAX_OCTETS).take_while(|_| paced.push(now, way(), &[0; 1_000])).count();
        assert_eq!(count, MAX_OCTETS / (1_000 + size_of::<Later>()));
        assert!(paced.pop_due(now).is_some() && paced.push(now, way(), &[0; 1_000]));
    }
}
