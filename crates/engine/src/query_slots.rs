//! Outstanding queries by socket and message ID: in flight, or in quarantine after they were abandoned.
//!
//! ```text
//!   draw ──▶ in flight ── release, or take back if the query was lost ──▶ free
//!                │ quarantine
//!                ▼
//!           quarantined: the ID stays taken ── reply, or QUARANTINE over ──▶ free
//! ```
//!
//! IDs are uniformly random against forged replies (RFC 5452 section 4.3). The table remembers the IDs that
//! it released last, because networks duplicate and delay datagrams: such a reply is no forgery.
//!
//! Queries in flight have a compact table, because there may be a hundred thousand.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::compact_table::CompactTable;

/// The number of a socket to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId(pub u32);

impl SocketId {
    /// Returns the number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The set of sockets that are connected to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketSetId(pub u32);

/// The slot of an outstanding query: a socket and a message ID on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuerySlot(NonZeroU32);

impl QuerySlot {
    /// The maximum number of sockets. No host can bind more to its ports.
    pub const MAX_SOCKETS: usize = u16::MAX as usize;

    /// Returns the slot of `id` on a socket, or `None` if the socket number is too large.
    pub fn new(socket: SocketId, id: u16) -> Option<Self> {
        let socket = u16::try_from(socket.0).ok()?.checked_add(1)?;
        NonZeroU32::new(u32::from(socket) << 16 | u32::from(id)).map(Self)
    }

    /// Returns the socket.
    pub fn socket(self) -> SocketId {
        SocketId((self.0.get() >> 16) - 1)
    }

    /// Returns the socket's number plus one, in two bytes.
    fn socket_tag(self) -> u16 {
        (self.0.get() >> 16) as u16
    }

    /// Returns socket tag and ID in one number.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }

    /// Returns a hash that no other slot has. The uniformly random ID decides most of it.
    fn hash(self) -> NonZeroU32 {
        NonZeroU32::new(self.0.get().wrapping_mul(0x9E37_79B1)).unwrap_or(self.0)
    }

    /// Returns the message ID.
    pub fn id(self) -> u16 {
        self.0.get() as u16
    }
}

/// The state of a used slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState<T, L> {
    /// The query is in flight, with the data of the caller.
    InFlight(T),
    /// The query was abandoned, but its ID stays reserved. The note is for a late reply.
    Quarantined(L),
}

/// The table of used query slots.
pub struct QuerySlots<T, L> {
    in_flight: CompactTable<T>,
    quarantined: HashMap<QuerySlot, QuarantineEntry<L>, RandomState>,
    ends: VecDeque<QuarantineEnd>,
    prolonged: VecDeque<QuarantineEnd>,
    serial: u32,
    /// By ID: the tag of the socket that released it last.
    released: Box<[u16]>,
    rng: StdRng,
}

struct QuarantineEntry<L> {
    note: L,
    serial: u32,
}

struct QuarantineEnd {
    at: Instant,
    slot: QuerySlot,
    serial: u32,
}

impl<T: Copy, L: Copy> QuerySlots<T, L> {
    /// Creates an empty table with some capacity. The seed must be unpredictable.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            in_flight: CompactTable::new(),
            quarantined: HashMap::with_capacity_and_hasher(WARM, RandomState::default()),
            ends: VecDeque::with_capacity(WARM),
            prolonged: VecDeque::with_capacity(WARM),
            serial: 0,
            released: vec![0; 1 << u16::BITS].into_boxed_slice(),
            rng: StdRng::from_seed(seed),
        }
    }

    /// Takes a free ID of an open socket for a query, drawn uniformly from those that the socket `permits`.
    pub fn draw(&mut self, socket: SocketId, user_data: T, permits: impl Fn(QuerySlot) -> bool) -> QuerySlot {
        loop {
            let id = self.rng.random();
            let slot = QuerySlot::new(socket, id).expect("no more sockets are open than there are slots for");
            if permits(slot) && self.find(slot).is_none() {
                self.in_flight.insert(slot.hash(), user_data);
                return slot;
            }
        }
    }

    /// Returns a copy of the state of a slot.
    pub fn find(&self, slot: QuerySlot) -> Option<SlotState<T, L>> {
        let in_flight = self.in_flight.find(slot.hash(), |_| true).map(SlotState::InFlight);
        in_flight.or_else(|| self.quarantined.get(&slot).map(|quarantined| SlotState::Quarantined(quarantined.note)))
    }

    fn shrink(&mut self) {
        let is_sparse = |len: usize, capacity: usize| capacity > 8 * WARM && len < capacity / 8;
        if is_sparse(self.quarantined.len(), self.quarantined.capacity()) {
            self.quarantined.shrink_to(2 * self.quarantined.len().max(WARM));
        }
        for ends in [&mut self.ends, &mut self.prolonged] {
            if is_sparse(ends.len(), ends.capacity()) {
                ends.shrink_to(2 * ends.len().max(WARM));
            }
        }
    }

    /// Frees a slot whose reply came or is no longer needed. Returns false if it was free.
    pub fn release(&mut self, slot: QuerySlot) -> bool {
        let was_taken = self.take_back(slot).is_some();
        if was_taken {
            self.note_released(slot);
        }
        was_taken
    }

    fn note_released(&mut self, slot: QuerySlot) {
        self.released[usize::from(slot.id())] = slot.socket_tag();
    }

    /// Returns true if the slot's socket was the last to release its ID.
    pub(crate) fn was_released(&self, slot: QuerySlot) -> bool {
        self.released[usize::from(slot.id())] == slot.socket_tag()
    }

    /// Frees a slot whose query was lost, and returns its state.
    pub fn take_back(&mut self, slot: QuerySlot) -> Option<SlotState<T, L>> {
        let in_flight = self.in_flight.remove(slot.hash(), |_| true).map(SlotState::InFlight);
        in_flight.or_else(|| self.quarantined.remove(&slot).map(|quarantined| SlotState::Quarantined(quarantined.note)))
    }

    /// Quarantines a query in flight whose reply is not needed any more: its ID stays taken for some time, so
    /// that a late reply cannot match another query. `now` must not be earlier than in previous calls.
    pub fn quarantine(&mut self, slot: QuerySlot, now: Instant, note: impl FnOnce(T) -> L) {
        let Some(user_data) = self.in_flight.remove(slot.hash(), |_| true) else { return };
        if self.ends.len() == self.ends.capacity() {
            self.forget_ended();
        }
        self.serial = self.serial.wrapping_add(1);
        self.quarantined.insert(slot, QuarantineEntry { note: note(user_data), serial: self.serial });
        self.ends.push_back(QuarantineEnd { at: now + QUARANTINE, slot, serial: self.serial });
    }

    /// Quarantines an ended query again. `now` must not be earlier than in previous calls.
    pub(crate) fn prolong(&mut self, slot: QuerySlot, now: Instant, note: L) {
        self.serial = self.serial.wrapping_add(1);
        self.quarantined.insert(slot, QuarantineEntry { note, serial: self.serial });
        self.prolonged.push_back(QuarantineEnd { at: now + PROLONGED, slot, serial: self.serial });
    }

    /// Frees and returns a query whose quarantine is over.
    pub fn pop_ended(&mut self, now: Instant) -> Option<(QuerySlot, L)> {
        let Self { quarantined, ends, prolonged, .. } = self;
        let mut pop = |ends: &mut VecDeque<QuarantineEnd>| {
            while let Some(&QuarantineEnd { at, slot, serial }) = ends.front() {
                let is_held = is_held(quarantined, slot, serial);
                if is_held && at > now {
                    break;
                }
                ends.pop_front();
                if is_held {
                    return quarantined.remove(&slot).map(|quarantined| (slot, quarantined.note));
                }
            }
            None
        };
        let ended = pop(ends).or_else(|| pop(prolonged));
        self.shrink();
        if let Some((slot, _)) = ended {
            self.note_released(slot);
        }
        ended
    }

    /// Returns true if no slot is used.
    pub fn is_empty(&self) -> bool {
        self.in_flight.len() == 0 && self.quarantined.is_empty()
    }

    /// Returns the end of the next quarantine.
    pub fn next_end(&self) -> Option<Instant> {
        let fronts = [self.ends.front(), self.prolonged.front()];
        fronts.into_iter().flatten().map(|end| end.at).min()
    }

    fn forget_ended(&mut self) {
        let quarantined = &self.quarantined;
        self.ends.retain(|end| is_held(quarantined, end.slot, end.serial));
        if self.ends.len() > self.ends.capacity() / 2 {
            self.ends.reserve(self.ends.capacity());
        }
    }
}

fn is_held<L>(quarantined: &HashMap<QuerySlot, QuarantineEntry<L>, RandomState>, slot: QuerySlot, serial: u32) -> bool {
    quarantined.get(&slot).is_some_and(|quarantined| quarantined.serial == serial)
}

const WARM: usize = 4096;

/// The time for which an ID stays reserved after its attempt was abandoned.
pub const QUARANTINE: Duration = Duration::from_secs(2);

/// The additional time if the caller wants a late reply.
pub(crate) const PROLONGED: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn slots() -> QuerySlots<u32, u32> {
        QuerySlots::new([1; 32])
    }

    fn draw(slots: &mut QuerySlots<u32, u32>, socket: u32, user_data: u32) -> QuerySlot {
        slots.draw(SocketId(socket), user_data, |_| true)
    }

    #[test]
    fn keys_tell_sockets_and_ids_apart() {
        for (socket, id) in [(0, 0), (0, u16::MAX), (1, 0), (QuerySlot::MAX_SOCKETS as u32 - 1, u16::MAX)] {
            let slot = QuerySlot::new(SocketId(socket), id).expect("a socket that may be open");
            assert_eq!((slot.socket(), slot.id()), (SocketId(socket), id));
        }
        assert_eq!(QuerySlot::new(SocketId(QuerySlot::MAX_SOCKETS as u32), 0), None);
        assert_eq!(size_of::<Option<QuerySlot>>(), 4);
    }

    #[test]
    fn quarantine_of_an_earlier_use_does_not_end_a_later_one() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut slots = slots();
        let slot = draw(&mut slots, 0, 1);
        slots.quarantine(slot, now, |user_data| user_data);
        // A late reply came; then the same ID was drawn again and quarantined later.
        assert_eq!(slots.take_back(slot), Some(SlotState::Quarantined(1)));
        slots.in_flight.insert(slot.hash(), 2);
        slots.quarantine(slot, later, |user_data| user_data);
        assert_eq!(slots.pop_ended(now + QUARANTINE), None);
        assert_eq!(slots.find(slot), Some(SlotState::Quarantined(2)));
        assert_eq!(slots.pop_ended(later + QUARANTINE), Some((slot, 2)));
        assert_eq!((slots.find(slot), slots.next_end()), (None, None));
    }

    #[test]
    fn prolonged_quarantine_ends_later() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut slots = slots();
        let quarantined = |slots: &mut QuerySlots<u32, u32>, number| {
            let slot = draw(slots, 0, number);
            slots.quarantine(slot, now, |user_data| user_data);
            slot
        };
        let [prolonged, replied] = [1, 2].map(|number| quarantined(&mut slots, number));
        for slot in [prolonged, replied] {
            let (ended, note) = slots.pop_ended(at(2)).expect("its time is over");
            assert_eq!(ended, slot);
            slots.prolong(ended, at(2), note + 10);
        }
        let other = quarantined(&mut slots, 3);
        // Earlier ends come first from either queue.
        assert_eq!((slots.next_end(), slots.pop_ended(at(2))), (Some(at(2)), Some((other, 3))));
        assert_eq!(slots.find(prolonged), Some(SlotState::Quarantined(11)));
        assert_eq!(slots.take_back(replied), Some(SlotState::Quarantined(12)));
        assert_eq!((slots.next_end(), slots.pop_ended(at(4))), (Some(at(5)), None));
        assert_eq!(slots.pop_ended(at(5)), Some((prolonged, 11)));
        assert_eq!((slots.pop_ended(at(9)), slots.next_end()), (None, None));
        assert!(slots.is_empty());
    }

    #[test]
    fn id_that_is_taken_is_not_drawn() {
        let mut slots = slots();
        let free = 0x5555;
        for slot in (0..=u16::MAX).filter(|id| *id != free).filter_map(|id| QuerySlot::new(SocketId(7), id)) {
            slots.in_flight.insert(slot.hash(), 0);
            if slot.id() % 2 == 0 {
                slots.quarantine(slot, Instant::now(), |user_data| user_data);
            }
        }
        assert_eq!(draw(&mut slots, 7, 1).id(), free);
    }

    #[test]
    fn id_that_its_socket_does_not_permit_is_not_drawn() {
        let slot = slots().draw(SocketId(7), 1, |slot| slot.id() % 1024 == 5);
        assert_eq!(slot.id() % 1024, 5);
    }

    #[test]
    fn released_ids_are_known_on_the_socket_that_had_them_last() {
        let slot = |socket, id| QuerySlot::new(SocketId(socket), id).expect("a socket that may be open");
        let mut slots = slots();
        let mut release = |slot: QuerySlot| {
            slots.in_flight.insert(slot.hash(), 0);
            assert!(slots.release(slot) && !slots.release(slot));
        };
        release(slot(7, 0));
        release(slot(7, u16::MAX));
        release(slot(8, u16::MAX));
        slots.in_flight.insert(slot(7, 2).hash(), 0);
        assert!(slots.take_back(slot(7, 2)).is_some());
        let ended = draw(&mut slots, 9, 0);
        slots.quarantine(ended, Instant::now(), |user_data| user_data);
        assert!(!slots.was_released(ended));
        slots.pop_ended(Instant::now() + QUARANTINE);
        let known = [slot(7, 0), slot(7, u16::MAX), slot(8, u16::MAX), slot(8, 0), slot(7, 1), slot(7, 2), ended];
        let known = known.map(|slot| slots.was_released(slot));
        assert_eq!(known, [true, false, true, false, false, false, true]);
    }

    #[test]
    fn memory_is_given_back_after_a_peak() {
        let (mut slots, now) = (slots(), Instant::now());
        let sizes = |slots: &QuerySlots<u32, u32>| {
            [slots.in_flight.capacity(), slots.quarantined.capacity(), slots.ends.capacity()].into_iter().max()
        };
        let before = sizes(&slots);
        let drawn: Vec<_> = (0..100_000).map(|number| draw(&mut slots, number % 64, 0)).collect();
        drawn.iter().for_each(|slot| slots.quarantine(*slot, now, |user_data| user_data));
        assert!(sizes(&slots) >= Some(100_000));
        let mut ended = 0;
        while let Some((slot, _)) = slots.pop_ended(now + QUARANTINE) {
            assert_eq!(slot, drawn[ended]);
            ended += 1;
        }
        assert_eq!(ended, drawn.len());
        assert!(sizes(&slots) <= before.map(|before| 8 * before), "{:?} after {before:?}", sizes(&slots));
    }

    #[test]
    fn ends_of_what_is_replied_to_take_no_room() {
        let mut slots = slots();
        let (capacity, now) = (slots.ends.capacity(), Instant::now());
        let lost = draw(&mut slots, 0, 0);
        slots.quarantine(lost, now, |user_data| user_data);
        for user_data in 0..3 * capacity as u32 {
            let slot = draw(&mut slots, 0, user_data);
            slots.quarantine(slot, now, |user_data| user_data);
            assert!(slots.take_back(slot).is_some());
        }
        assert_eq!(slots.ends.capacity(), capacity);
        assert_eq!(slots.find(lost), Some(SlotState::Quarantined(0)));
    }
}
