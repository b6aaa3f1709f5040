//! The sockets to the backends: a set of connected UDP sockets per backend, and the outstanding queries by
//! socket and message ID, their [slot](QuerySlot). Backends that are asked by stream have `connections/`
//! instead. The caller checks the replies.
//!
//! The sockets have their own epoll set, which the runtime watches as one descriptor: a worker opens up to
//! 500 sockets per second, and to register each with the runtime would allocate, and wake a task per readable
//! socket.
//!
//! Protection against forged replies (RFC 5452 section 9.2): sockets are connected, so that the kernel drops
//! datagrams from other addresses; their ports are random and renewed all the time; IDs are uniformly random.
//! A CSPRNG, seeded by the operating system, provides all of it.
//!
//! ```text
//!            flush                 reply, release               no slot is taken, and retired
//!   queue ──────────▶ in flight ──────────▶ slot free ──────────▶ socket closed
//!                          │ quarantine
//!                          ▼
//!                     quarantined: the ID stays taken ──────────▶ slot free
//!                                               reply, or QUARANTINE over
//! ```

mod batches;
mod connections;
mod poller;
mod room;
mod sent;
mod socket;
#[cfg(test)]
mod tests;
mod udp;
mod void;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use metrics::Want;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::connections::PoolEnd;
pub use self::connections::{ConnectionEnd, ConnectionPool, StreamWay, TlsSource};
pub use self::poller::{Event, Poller};
use self::sent::SentIds;
pub use self::udp::UdpSockets;
pub use self::void::MAX_NEAR_MISSES;
use self::void::ReturnedIds;
use crate::engine::query_slots::{PROLONGED, QUARANTINE, QuerySlot, QuerySlots, SlotState, SocketId, SocketSetId};
use crate::net::Bypass;
use crate::net::proxy_protocol::ClientHeader;
use crate::net::refusal::SendRefusal;

/// The sockets of one worker to all its backends, and the outstanding queries. `T` is the caller's data for a
/// query in flight, `L` for one in quarantine.
pub struct BackendSockets<T, L> {
    /// The poller of all sockets.
    pub poller: Poller,
    /// The UDP sockets to the other backends.
    pub udp: UdpSockets,
    /// The connections to backends that are asked by stream.
    pub connections: ConnectionPool,
    set_count: u32,
    free_sets: Vec<SocketSetId>,
    slots: QuerySlots<T, L>,
    returned: ReturnedIds,
    struck: Vec<SocketId>,
    rng: StdRng,
}

/// The error of a receive call, such as an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The backend cannot be reached.
    Unreachable,
    /// Another error, which the next send may clarify.
    Other,
}

/// A message that could not be sent.
#[derive(Debug)]
pub struct UnsentMessage<T, L> {
    /// The state of its slot.
    pub state: SlotState<T, L>,
    /// The backend's set that the message was for.
    pub socket_set: SocketSetId,
    /// The reason for the failure.
    pub why: SendRefusal,
}

/// The end of a connection, to be reported to the caller.
#[derive(Debug)]
pub struct EndedConnection<T, L> {
    /// The set of the backend.
    pub socket_set: SocketSetId,
    /// The state of the slots that were taken.
    pub taken: Vec<SlotState<T, L>>,
    /// The kind of the end.
    pub how: ConnectionEnd,
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Creates an empty collection with room for this many UDP sockets. Each backend gets its first socket
    /// regardless of room. `message_size` is the usual size of a message in bytes. Datagrams use the bypass
    /// where possible.
    pub fn new(room: usize, message_size: usize, bypass: Rc<Bypass>) -> io::Result<Self> {
        let poller = Poller::new()?;
        Ok(Self {
            udp: UdpSockets::new(Rc::clone(&poller.epoll), room, message_size, bypass),
            connections: ConnectionPool::new(Rc::clone(&poller.epoll))?,
            poller,
            set_count: 0,
            free_sets: Vec::new(),
            slots: QuerySlots::new(),
            returned: ReturnedIds::new(),
            struck: Vec::new(),
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Adds a set for a backend.
    pub fn add(&mut self, address: SocketAddr) -> SocketSetId {
        let set_id = self.next_set();
        self.udp.add(set_id, address);
        set_id
    }

    /// Adds a set for a backend that is asked by stream. Nothing is dialled yet.
    pub fn add_by_stream(&mut self, address: SocketAddr, way: StreamWay) -> SocketSetId {
        let set_id = self.next_set();
        self.connections.add(set_id, address, way);
        self.udp.reserve_port(address);
        set_id
    }

    fn next_set(&mut self) -> SocketSetId {
        self.free_sets.pop().unwrap_or_else(|| {
            self.set_count += 1;
            SocketSetId(self.set_count - 1)
        })
    }

    /// Removes a backend, its sockets and its outstanding queries. Returns the number of these queries.
    pub fn remove(&mut self, set_id: SocketSetId) -> usize {
        let mut forgotten = Vec::new();
        self.take_from_connections(set_id, &mut forgotten);
        for number in self.udp.numbers_of(set_id) {
            self.take_from(number, SentIds::all, &mut forgotten);
        }
        if let Some(address) = self.udp.remove(set_id).or_else(|| self.connections.remove(set_id)) {
            self.udp.release_port(address);
            self.free_sets.push(set_id);
        }
        forgotten.len()
    }

    /// Queues a message for the next [`flush`](Self::flush). `fill` gets the slot and writes the message; a
    /// fresh ID replaces its first two bytes. By stream, it uses another connection than `avoid`. A backend
    /// that requires a header gets it before each datagram and at the start of each connection, which carries
    /// the queries of one client only.
    ///
    /// # Errors
    /// If no socket is open and none can be opened, or half of the IDs of all sockets are taken.
    #[inline]
    pub fn queue(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        (avoid, header): (Option<SocketId>, Option<&ClientHeader>),
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
        let number = match self.udp.current(set_id, now, &mut self.rng) {
            Some(number) => number?,
            None => return self.queue_by_stream(set_id, user_data, (avoid, header), now, fill),
        };
        let slot = self.slots.draw(number, user_data, &mut self.rng);
        let slots = &self.slots;
        let socket = self.udp.socket(number);
        socket
            .sent
            .push(slot.id(), socket.taken_slots, |id| QuerySlot::new(number, id).is_some_and(|slot| slots.has(slot)));
        socket.taken_slots += 1;
        let filling = self.udp.set(set_id).filling.as_mut().expect("it has one by now");
        filling.batch.push(None, None, |out| {
            fill(slot, out);
            if let Some(id) = out.first_chunk_mut() {
                *id = slot.id().to_be_bytes();
            }
            if let Some(header) = header {
                out.splice(..0, header.octets.iter().copied());
            }
        });
        filling.slots.push(slot);
        Ok(slot)
    }

    #[cold]
    #[inline(never)]
    fn queue_by_stream(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        (avoid, header): (Option<SocketId>, Option<&ClientHeader>),
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
        let number = self.connections.choose(set_id, avoid, header, now)?;
        let slot = loop {
            let slot = self.slots.draw(number, user_data, &mut self.rng);
            if self.connections.take(slot) {
                break slot;
            }
            self.slots.remove(slot);
        };
        if self.connections.queue(set_id, slot, |out| fill(slot, out)).is_none() {
            self.withdraw(slot);
            return Err(SendRefusal::Unsent(Want::Size));
        }
        Ok(slot)
    }

    /// Sends all queued messages, with one call per backend. Messages that could not be sent go to `refused`.
    pub fn flush(&mut self, refused: &mut Vec<UnsentMessage<T, L>>) {
        self.connections.flush();
        let Self { udp, slots, struck, .. } = self;
        let refuse = |socket_set, slot, why| {
            let state = slots.remove(slot);
            refused.extend(state.map(|state| UnsentMessage { state, socket_set, why }));
            state.is_some()
        };
        udp.flush(refuse, struck);
    }

    /// Returns the descriptor that becomes readable when [`ready`](Self::ready) has events.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.poller.epoll.as_fd()
    }

    /// Collects events without waiting. Returns true if there may be more. Process earlier events before.
    pub fn ready(&mut self, events: &mut Vec<Event>) -> bool {
        self.udp.free_closed();
        self.connections.free_closed();
        self.poller.ready(events)
    }

    /// Returns a socket where sending returned an ICMP error, which concerns earlier messages.
    pub fn pop_struck(&mut self) -> Option<SocketId> {
        self.struck.pop()
    }

    /// Takes a reported end of a connection. Its queries no longer wait.
    pub fn pop_ended(&mut self, now: Instant) -> Option<EndedConnection<T, L>> {
        let PoolEnd { socket_set, slots, how } = self.connections.pop_ended()?;
        let take = |slot: QuerySlot| {
            let state = self.slots.remove(slot)?;
            self.connections.free_slot(slot, Some(now));
            Some(state)
        };
        Some(EndedConnection { socket_set, taken: slots.into_iter().filter_map(take).collect(), how })
    }

    /// Returns the set of a socket, if the socket is still open.
    pub fn set_of(&self, number: SocketId) -> Option<SocketSetId> {
        let socket = self.udp.find(number).map(|socket| socket.set_id);
        socket.or_else(|| self.connections.set_of(number))
    }

    /// Appends the pending queries of a socket that ICMP errors concern, each only once.
    pub fn report_struck(&mut self, number: SocketId, attempts: &mut Vec<T>) {
        let Some(socket) = self.udp.find_mut(number) else { return };
        let slots = socket.sent.take_struck().iter().filter_map(|id| QuerySlot::new(number, *id));
        attempts.extend(slots.filter_map(|slot| match self.slots.find(slot)? {
            SlotState::InFlight(user_data) => Some(user_data),
            SlotState::Quarantined(_) => None,
        }));
    }

    /// Takes back all queries of a socket that ICMP errors concern, the quarantined ones too.
    pub fn take_struck(&mut self, number: SocketId, taken: &mut Vec<SlotState<T, L>>) {
        self.take_from(number, SentIds::struck, taken);
        self.udp.close_if_done(number);
    }

    /// Returns the slot and state of the query with this ID on this socket.
    pub fn find(&self, number: SocketId, id: u16) -> Option<(QuerySlot, SlotState<T, L>)> {
        let slot = QuerySlot::new(number, id)?;
        self.slots.find(slot).map(|state| (slot, state))
    }

    /// Returns the address of a set's backend, for logs.
    pub fn address(&self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.udp.address(set_id).or_else(|| self.connections.address(set_id))
    }

    /// Frees the slot after its reply.
    pub fn release(&mut self, slot: QuerySlot, now: Instant) {
        if self.slots.remove(slot).is_some() {
            self.is_over(slot, now);
        }
    }

    fn is_over(&mut self, slot: QuerySlot, now: Instant) {
        self.returned.note(slot);
        if !self.udp.free_slot(slot.socket()) {
            self.connections.free_slot(slot, Some(now));
        }
    }

    /// Quarantines a query whose reply is no longer needed: its ID stays taken for some seconds, so that a
    /// late reply cannot match another query. `note` returns the data that the caller keeps for this.
    pub fn quarantine(&mut self, slot: QuerySlot, now: Instant, note: impl FnOnce(T) -> L) {
        self.slots.quarantine(slot, now + QUARANTINE, note);
    }

    /// Frees the slot of a query that was sent again from another socket; its reply is no longer needed.
    pub fn withdraw(&mut self, slot: QuerySlot) {
        if self.slots.remove(slot).is_none() {
            return;
        }
        self.returned.note(slot);
        match self.udp.find_mut(slot.socket()) {
            Some(socket) => {
                socket.free_one();
                self.udp.close_if_done(slot.socket());
            }
            None => self.connections.free_slot(slot, None),
        }
    }

    /// Flushes and then retires the slot's socket, if another can be opened: a forger may know its port.
    pub fn shun(&mut self, slot: QuerySlot, refused: &mut Vec<UnsentMessage<T, L>>) {
        self.flush(refused);
        self.udp.spend(slot.socket());
    }

    /// Counts a near miss. Returns true if the caller must call [`void`](Self::void).
    pub fn is_suspicious(&mut self, number: SocketId) -> bool {
        let Some(socket) = self.udp.find_mut(number) else { return false };
        socket.near_misses = socket.near_misses.saturating_add(1);
        socket.near_misses >= MAX_NEAR_MISSES && !socket.is_void
    }

    /// Returns true if the socket used this ID recently, so that the reply is a duplicate or late.
    pub fn was_in_use(&self, number: SocketId, id: u16) -> bool {
        QuerySlot::new(number, id).is_some_and(|slot| self.returned.holds(slot))
    }

    /// Makes a flushed socket void: it sends nothing, and its input is ignored. Takes back all its queries.
    pub fn void(&mut self, number: SocketId, now: Instant, taken: &mut Vec<SlotState<T, L>>) {
        let Some(socket) = self.udp.find_mut(number) else { return };
        socket.is_void = true;
        self.take_from(number, SentIds::all, taken);
        self.udp.void(number, now);
    }

    /// Takes back all outstanding and quarantined queries of a backend that is dead.
    pub fn take_waiting(&mut self, set_id: SocketSetId, taken: &mut Vec<SlotState<T, L>>) {
        self.take_from_connections(set_id, taken);
        for number in self.udp.numbers_of(set_id) {
            self.take_from(number, SentIds::all, taken);
            self.udp.spend(number);
            self.udp.close_if_done(number);
        }
    }

    fn take_from_connections(&mut self, set_id: SocketSetId, taken: &mut Vec<SlotState<T, L>>) {
        if self.connections.has(set_id) {
            let slots = self.connections.close_all(set_id).into_iter();
            taken.extend(slots.filter_map(|slot| self.slots.remove(slot)));
        }
    }

    fn take_from(&mut self, number: SocketId, which: impl Fn(&SentIds) -> &[u16], taken: &mut Vec<SlotState<T, L>>) {
        let Some(socket) = self.udp.find_mut(number) else { return };
        let before = taken.len();
        let slots = which(&socket.sent).iter().filter_map(|id| QuerySlot::new(number, *id));
        taken.extend(slots.filter_map(|slot| self.slots.remove(slot)));
        socket.taken_slots -= (taken.len() - before) as u32;
        if socket.taken_slots == 0 {
            socket.sent.clear();
        }
    }

    /// Ends quarantines and closes sockets; call it at the end of a turn. `ended` gets each query whose reply
    /// never came, and extends its quarantine by returning another note.
    pub fn tidy(&mut self, now: Instant, mut ended: impl FnMut(&L) -> Option<L>) {
        while let Some((slot, late)) = self.slots.pop_ended(now) {
            match ended(&late) {
                Some(note) => self.slots.prolong(slot, now + PROLONGED, note),
                None => self.is_over(slot, now),
            }
        }
        self.udp.tidy(now);
    }

    /// Returns the time when [`tidy`](Self::tidy) or the connections have work.
    pub fn next_tidy(&mut self) -> Option<Instant> {
        let ends = [self.slots.next_end(), self.udp.next_tidy(), self.connections.next_check()];
        ends.into_iter().flatten().min()
    }
}
