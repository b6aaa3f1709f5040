//! Near misses: replies from the right address to the right socket that match no query and no recent ID
//! (networks duplicate and delay datagrams). The sender may be a forger who knows the port.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::engine::query_slots::{QuerySlot, SocketId};

/// By ID: the socket that released it last.
pub(super) struct ReturnedIds(Box<[u16]>);

impl ReturnedIds {
    pub(super) fn new() -> Self {
        Self(vec![0; 1 << u16::BITS].into_boxed_slice())
    }

    pub(super) fn note(&mut self, slot: QuerySlot) {
        self.0[usize::from(slot.id())] = slot.socket_tag();
    }

    /// Returns true if this socket was the last to release the ID.
    pub(super) fn holds(&self, slot: QuerySlot) -> bool {
        self.0[usize::from(slot.id())] == slot.socket_tag()
    }
}

pub(super) struct VoidedSockets(VecDeque<(Instant, SocketId)>);

impl VoidedSockets {
    pub(super) fn new() -> Self {
        Self(VecDeque::with_capacity(MAX_VOID))
    }

    /// Keeps a socket open if there is room. Returns false if it must be closed at once.
    pub(super) fn add(&mut self, number: SocketId, now: Instant) -> bool {
        let has_room = self.0.len() < MAX_VOID;
        if has_room {
            self.0.push_back((now + COUNTED, number));
        }
        has_room
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketId> {
        let &(at, number) = self.0.front()?;
        (at <= now).then(|| self.0.pop_front())?;
        Some(number)
    }

    pub(super) fn forget(&mut self, number: SocketId) {
        self.0.retain(|(_, voided)| *voided != number);
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|&(at, _)| at)
    }
}

/// Near misses that make a socket void. A forger who knows the port has this many guesses at an ID: one in
/// four thousand succeeds. By chance near misses hardly occur.
pub const MAX_NEAR_MISSES: u8 = 16;

/// Time for which input of a void socket is counted.
const COUNTED: Duration = Duration::from_secs(2);

const MAX_VOID: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_on_the_socket_that_had_them_last() {
        let slot = |socket, id| QuerySlot::new(SocketId(socket), id).expect("a socket that may be open");
        let mut returned = ReturnedIds::new();
        assert!(!returned.holds(slot(0, 0)) && !returned.holds(slot(7, 0)));
        returned.note(slot(7, 0));
        returned.note(slot(7, u16::MAX));
        assert!(returned.holds(slot(7, 0)) && returned.holds(slot(7, u16::MAX)));
        assert!(!returned.holds(slot(8, 0)) && !returned.holds(slot(7, 1)));
        returned.note(slot(8, 0));
        assert!(!returned.holds(slot(7, 0)) && returned.holds(slot(8, 0)));
    }

    #[test]
    fn void_sockets_are_few_and_closed_in_time() {
        let (mut voided, now) = (VoidedSockets::new(), Instant::now());
        let taken = (0..100).filter(|number| voided.add(SocketId(*number), now)).count();
        assert_eq!((taken, voided.next_due()), (MAX_VOID, Some(now + COUNTED)));
        assert_eq!(voided.pop_due(now), None);
        voided.forget(SocketId(0));
        assert_eq!(voided.pop_due(now + COUNTED), Some(SocketId(1)));
        assert!(voided.add(SocketId(100), now));
    }
}
