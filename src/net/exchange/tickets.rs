//! Who waits for which reply: tickets by socket and message ID, and notes of those whose reply nobody needs any more.
//!
//! A ticket that waits is small and has a table of its own, for there may be a hundred thousand. One that is late is seldom
//! asked for, and only until its quarantine is over; notes of those may be longer.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Instant;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use rand::RngExt;
use rand::rngs::StdRng;

/// The place of a ticket: a socket and an ID on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TicketKey(NonZeroU32);

impl TicketKey {
    /// Sockets that can be told apart. No host can bind more to its ports.
    pub(super) const PORTS: usize = u16::MAX as usize;

    /// The key of `id` on socket number `port`, if there is such a socket.
    pub(crate) fn new(port: u32, id: u16) -> Option<Self> {
        // One more, for 0 is no key.
        let port = u16::try_from(port).ok()?.checked_add(1)?;
        NonZeroU32::new(u32::from(port) << 16 | u32::from(id)).map(Self)
    }

    /// The socket's number.
    pub(super) fn port(self) -> u32 {
        (self.0.get() >> 16) - 1
    }

    /// The socket's number and one, in two octets.
    pub(super) fn port_tag(self) -> u16 {
        (self.0.get() >> 16) as u16
    }

    /// Socket and ID in one.
    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }

    /// The message ID.
    pub(super) fn id(self) -> u16 {
        self.0.get() as u16
    }
}

/// What is known of a reply that may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<T, L> {
    /// Somebody waits for it, with this ticket.
    Waiting(T),
    /// Nobody needs it any more. The ID is in quarantine, and this is the note of its ticket.
    Late(L),
}

/// Tickets and notes.
pub(super) struct Tickets<T, L> {
    /// What is waited for.
    waiting: HashMap<TicketKey, T, RandomState>,
    /// What is late.
    late: HashMap<TicketKey, Late<L>, RandomState>,
    /// The ends of quarantines, in the order of time; those that ended early are left out when they are met.
    ends: VecDeque<End>,
    /// Tells an ID's present use from an earlier one.
    serial: u32,
}

/// What is late.
struct Late<L> {
    /// The caller's note.
    note: L,
    /// That of its [`End`].
    serial: u32,
}

/// The end of a quarantine.
struct End {
    /// When.
    at: Instant,
    /// Whose.
    key: TicketKey,
    /// Tells this use of the ID from others.
    serial: u32,
}

impl<T: Copy, L: Copy> Tickets<T, L> {
    /// None yet, and room for some.
    pub(super) fn new() -> Self {
        let hasher = RandomState::default();
        Self {
            waiting: HashMap::with_capacity_and_hasher(WARM, hasher.clone()),
            late: HashMap::with_capacity_and_hasher(WARM, hasher),
            ends: VecDeque::with_capacity(WARM),
            serial: 0,
        }
    }

    /// Puts a ticket at a free ID of an open socket, drawn uniformly (RFC 5452 section 4.3).
    pub(super) fn draw(&mut self, port: u32, ticket: T, rng: &mut StdRng) -> TicketKey {
        loop {
            let key = TicketKey::new(port, rng.random()).expect("no more sockets are open than there are keys for");
            if self.late.contains_key(&key) {
                continue;
            }
            if let hashbrown::hash_map::Entry::Vacant(place) = self.waiting.entry(key) {
                place.insert(ticket);
                return key;
            }
        }
    }

    /// What is held at this place.
    pub(super) fn find(&self, key: TicketKey) -> Option<Held<T, L>> {
        let waiting = self.waiting.get(&key).map(|ticket| Held::Waiting(*ticket));
        waiting.or_else(|| self.late.get(&key).map(|late| Held::Late(late.note)))
    }

    /// Takes out what is held at this place.
    pub(super) fn remove(&mut self, key: TicketKey) -> Option<Held<T, L>> {
        let waiting = self.waiting.remove(&key).map(Held::Waiting);
        waiting.or_else(|| self.late.remove(&key).map(|late| Held::Late(late.note)))
    }

    /// Makes a ticket that waits a late one until `end`, which never lies before that of an earlier one.
    pub(super) fn abandon(&mut self, key: TicketKey, end: Instant, note: impl FnOnce(T) -> L) {
        let Some(ticket) = self.waiting.remove(&key) else { return };
        if self.ends.len() == self.ends.capacity() {
            self.forget_ended();
        }
        self.serial = self.serial.wrapping_add(1);
        self.late.insert(key, Late { note: note(ticket), serial: self.serial });
        self.ends.push_back(End { at: end, key, serial: self.serial });
    }

    /// Whether something is held at this place.
    pub(super) fn has(&self, key: TicketKey) -> bool {
        self.waiting.contains_key(&key) || self.late.contains_key(&key)
    }

    /// Takes out a late one whose quarantine is over.
    pub(super) fn pop_ended(&mut self, now: Instant) -> Option<(TicketKey, L)> {
        loop {
            let &End { at, key, serial } = self.ends.front()?;
            let is_held = is_held(&self.late, key, serial);
            if is_held && at > now {
                return None;
            }
            self.ends.pop_front();
            if is_held {
                return self.late.remove(&key).map(|late| (key, late.note));
            }
        }
    }

    /// When the next quarantine is over.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.front().map(|end| end.at)
    }

    /// Makes room for ends: of those that were replied to behind one that was not, the ends are still there, and where one
    /// reply of a thousand is lost, they are nearly all.
    fn forget_ended(&mut self) {
        let late = &self.late;
        self.ends.retain(|end| is_held(late, end.key, end.serial));
        // Few went: the next time should not come soon.
        if self.ends.len() > self.ends.capacity() / 2 {
            self.ends.reserve(self.ends.capacity());
        }
    }
}

/// Whether there is a late one that ends with this serial, and not a later use of its ID.
fn is_held<L>(late: &HashMap<TicketKey, Late<L>, RandomState>, key: TicketKey, serial: u32) -> bool {
    late.get(&key).is_some_and(|late| late.serial == serial)
}

/// Tickets for which there is room before anything has to grow.
const WARM: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn keys_tell_sockets_and_ids_apart() {
        for (port, id) in [(0, 0), (0, u16::MAX), (1, 0), (TicketKey::PORTS as u32 - 1, u16::MAX)] {
            let key = TicketKey::new(port, id).expect("a socket that may be open");
            assert_eq!((key.port(), key.id()), (port, id));
        }
        assert_eq!(TicketKey::new(TicketKey::PORTS as u32, 0), None);
        assert_eq!(size_of::<Option<TicketKey>>(), 4);
    }

    #[test]
    fn quarantine_of_an_earlier_use_does_not_end_a_later_one() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut tickets: Tickets<u32, u32> = Tickets::new();
        let key = tickets.draw(0, 1, &mut StdRng::seed_from_u64(1));
        tickets.abandon(key, now, |ticket| ticket);
        // A late reply came, and then the same ID was drawn again and abandoned later.
        assert_eq!(tickets.remove(key), Some(Held::Late(1)));
        tickets.waiting.insert(key, 2);
        tickets.abandon(key, later, |ticket| ticket);
        assert_eq!(tickets.pop_ended(now), None);
        assert_eq!(tickets.find(key), Some(Held::Late(2)));
        assert_eq!(tickets.pop_ended(later), Some((key, 2)));
        assert_eq!((tickets.find(key), tickets.next_end()), (None, None));
    }

    #[test]
    fn id_that_is_taken_is_not_drawn() {
        let mut tickets: Tickets<u32, u32> = Tickets::new();
        let free = 0x5555;
        for key in (0..=u16::MAX).filter(|id| *id != free).filter_map(|id| TicketKey::new(7, id)) {
            tickets.waiting.insert(key, 0);
            if key.id() % 2 == 0 {
                tickets.abandon(key, Instant::now(), |ticket| ticket);
            }
        }
        assert_eq!(Some(tickets.draw(7, 1, &mut StdRng::seed_from_u64(1))), TicketKey::new(7, free));
    }

    #[test]
    fn ends_of_what_is_replied_to_take_no_room() {
        let mut tickets: Tickets<u32, u32> = Tickets::new();
        let (capacity, now, mut rng) = (tickets.ends.capacity(), Instant::now(), StdRng::seed_from_u64(1));
        let lost = tickets.draw(0, 0, &mut rng);
        tickets.abandon(lost, now, |ticket| ticket);
        for ticket in 0..3 * capacity as u32 {
            let key = tickets.draw(0, ticket, &mut rng);
            tickets.abandon(key, now, |ticket| ticket);
            assert!(tickets.remove(key).is_some());
        }
        assert_eq!(tickets.ends.capacity(), capacity);
        assert_eq!(tickets.find(lost), Some(Held::Late(0)));
    }
}
