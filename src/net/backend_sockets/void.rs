//! Near misses: replies from the right address to the right socket that answer nothing that was asked there. Who sends them may
//! know the port, and try one ID after the other.
//!
//! What is no near miss: a reply to an ID that was in use on the socket not long ago, for some servers and some networks send
//! things twice, and some replies are very late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::sent::SentIds;
use super::{BackendSockets, Refused};
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Counts a datagram on this socket that answers nothing that was asked there, and says whether that makes the socket
    /// suspicious: then the caller is to make it [`void`](Self::void).
    pub fn is_suspicious(&mut self, number: SocketId) -> bool {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return false };
        socket.near_misses = socket.near_misses.saturating_add(1);
        socket.near_misses >= MAX_NEAR_MISSES && !socket.is_void
    }

    /// Whether this ID was in use on this socket not long ago, so that what comes with it was sent twice or is very late.
    pub fn was_in_use(&self, number: SocketId, id: u16) -> bool {
        QuerySlot::new(number, id).is_some_and(|slot| self.returned.holds(slot))
    }

    /// Makes a socket void: nothing is sent from it and nothing believed that comes to it. What is queued must have been
    /// flushed. Takes back all outstanding queries on it, with those in quarantine.
    pub fn void(&mut self, number: SocketId, now: Instant, taken: &mut Vec<SlotState<T, L>>) {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return };
        socket.is_void = true;
        self.take_from(number, SentIds::all, taken);
        // It stays open for a while, or the kernel would tell the backend of each forgery that nobody is here.
        let stays = self.voided.add(number, now);
        self.retire(number);
        if !stays {
            self.close(number);
        }
    }

    /// Nobody waits for the reply any more, and nobody wants to know of it: the message was sent once more from another socket.
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

    /// Sends nothing more from the socket of a slot than what is queued there, unless no other can be had: somebody may know its
    /// port.
    pub fn shun(&mut self, slot: QuerySlot, refused: &mut Vec<Refused<T, L>>) {
        self.flush(refused);
        self.spend(slot.socket());
    }
}

/// For each ID, on which socket it was given back last.
pub(super) struct Returned(Box<[u16]>);

impl Returned {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(vec![0; 1 << u16::BITS].into_boxed_slice())
    }

    /// An ID is free again.
    pub(super) fn note(&mut self, slot: QuerySlot) {
        self.0[usize::from(slot.id())] = slot.socket_tag();
    }

    /// Whether an ID was given back on this socket, and on no other since.
    pub(super) fn holds(&self, slot: QuerySlot) -> bool {
        self.0[usize::from(slot.id())] == slot.socket_tag()
    }
}

/// Sockets that are void, for as long as it is counted what comes to them.
pub(super) struct Voided(VecDeque<(Instant, SocketId)>);

impl Voided {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(VecDeque::with_capacity(MAX_VOID))
    }

    /// Takes a socket up, if there is room; else it is closed at once.
    pub(super) fn add(&mut self, number: SocketId, now: Instant) -> bool {
        let has_room = self.0.len() < MAX_VOID;
        if has_room {
            self.0.push_back((now + COUNTED, number));
        }
        has_room
    }

    /// Takes out a socket that is to be closed now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<SocketId> {
        let &(at, number) = self.0.front()?;
        (at <= now).then(|| self.0.pop_front())?;
        Some(number)
    }

    /// Forgets a socket that is closed.
    pub(super) fn forget(&mut self, number: SocketId) {
        self.0.retain(|(_, voided)| *voided != number);
    }

    /// When the next one is to be closed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|&(at, _)| at)
    }
}

/// Near misses after which a socket is void. A forger who knows the port has so many guesses at an ID: one in four thousand
/// succeeds. By chance there is hardly one: the kernel lets through what the backend's address sends to the port, and nothing else.
pub const MAX_NEAR_MISSES: u8 = 16;

/// How long it is counted what comes to a socket that is void.
const COUNTED: Duration = Duration::from_secs(2);

/// How many sockets that are void stay open at once.
const MAX_VOID: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_on_the_socket_that_had_them_last() {
        let slot = |socket, id| QuerySlot::new(SocketId(socket), id).expect("a socket that may be open");
        let mut returned = Returned::new();
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
        let (mut voided, now) = (Voided::new(), Instant::now());
        let taken = (0..100).filter(|number| voided.add(SocketId(*number), now)).count();
        assert_eq!((taken, voided.next_due()), (MAX_VOID, Some(now + COUNTED)));
        assert_eq!(voided.pop_due(now), None);
        voided.forget(SocketId(0));
        assert_eq!(voided.pop_due(now + COUNTED), Some(SocketId(1)));
        assert!(voided.add(SocketId(100), now));
    }
}
