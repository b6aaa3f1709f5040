//! Near misses: replies from the right address to the right socket that match no query and no recent ID
//! (networks duplicate and delay datagrams). The sender may be a forger who knows the port.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sent::SentIds;
use super::{BackendSockets, UnsentMessage};
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Counts a near miss. Returns true if the caller must call [`void`](Self::void).
    pub fn is_suspicious(&mut self, number: SocketId) -> bool {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return false };
        socket.near_misses = socket.near_misses.saturating_add(1);
        socket.near_misses >= MAX_NEAR_MISSES && !socket.is_void
    }

    /// Returns true if the socket used this ID recently, so that the reply is a duplicate or late.
    pub fn was_in_use(&self, number: SocketId, id: u16) -> bool {
        QuerySlot::new(number, id).is_some_and(|slot| self.returned.holds(slot))
    }

    /// Makes a flushed socket void: it sends nothing, and its input is ignored. Takes back all its queries.
    pub fn void(&mut self, number: SocketId, now: Instant, taken: &mut Vec<SlotState<T, L>>) {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return };
        socket.is_void = true;
        self.take_from(number, SentIds::all, taken);
        // Without the open socket, the kernel would answer each forgery with an ICMP error.
        let stays = self.voided.add(number, now);
        self.retire(number);
        if !stays {
            self.close(number);
        }
    }

    /// Frees the slot of a query that was sent again from another socket; its reply is no longer needed.
    pub fn withdraw(&mut self, slot: QuerySlot) {
        if self.slots.remove(slot).is_some() {
            self.returned.note(slot);
            if Self::is_connection(slot.socket()) {
                return self.free_on_connection(slot, None);
            }
            self.socket(slot.socket()).free_one();
            self.close_if_done(slot.socket());
        }
    }

    /// Flushes and then retires the slot's socket, if another can be opened: a forger may know its port.
    pub fn shun(&mut self, slot: QuerySlot, refused: &mut Vec<UnsentMessage<T, L>>) {
        self.flush(refused);
        self.spend(slot.socket());
    }
}

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
