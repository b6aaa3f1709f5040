//! Sockets that are void after too many near misses, because a forger may know their port.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use engine::query_slots::SocketId;

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

/// Time for which input of a void socket is counted.
const COUNTED: Duration = Duration::from_secs(2);

const MAX_VOID: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

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
