//! The sockets to the backends: a set of connected UDP sockets for each, and the outstanding queries by socket and message ID. Those that
//! are asked by stream have connections in place of sockets (`connections/`).
//!
//! One worker owns all of its own. A caller queues a query for a set, with data of its own to be kept with it; the socket is
//! picked and the message ID drawn here, which together are the query's [slot](QuerySlot). Queries leave in batches, and for a
//! reply the caller gets back what it has kept in the slot. Nothing here looks behind the ID: whether a reply is the right one,
//! the caller decides, and either releases the slot, leaves it taken, or puts it into quarantine.
//!
//! The sockets stand in an epoll set of their own, which the runtime watches as one descriptor, with a timer in it: up to 500 of
//! them are opened in a second, and to register each with the runtime would allocate, and wake a task for each that has
//! something, where one call here tells of all.
//!
//! What makes replies hard to forge (RFC 5452 section 9.2): sockets are connected, so the kernel drops what comes from
//! elsewhere; they are bound to random ports over the whole unprivileged range and renewed all the time; IDs are drawn
//! uniformly for each message. All of it comes from a CSPRNG seeded by the operating system.
//!
//! No more sockets are open than there is room for, divided fairly (`room.rs`); beyond that, messages share those that there are.
//! The last socket of a backend is given up only when its successor is open, so that a shortage never leaves it without.
//!
//! ```text
//!            flush                 reply, release               no slot is taken, and retired
//!   queue ──────────▶ in flight ──────────▶ slot free ──────────▶ socket closed
//!                          │ quarantine
//!                          ▼
//!                     quarantined: the ID stays taken ──────────▶ slot free
//!                                               reply, or QUARANTINE over
//! ```

mod by_xdp;
mod connections;
mod filling;
mod opening;
mod room;
mod sent;
mod socket;
mod void;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use self::by_xdp::ByXdp;
use self::connections::{Connections, StreamSet};
pub use self::connections::{End, Ended, StreamWay, TlsSource};
use self::filling::{Filling, Spare};
use self::room::Room;
use self::sent::SentIds;
use self::socket::{BackendSocket, Renewals};
pub use self::void::MAX_NEAR_MISSES;
use self::void::{Returned, Voided};
use super::batch::{BATCH, RecvBatch};
use super::proxy_protocol::ClientHeader;
use super::refusal::{Refusal, is_unreachable};
use super::xdp::WorkerSockets;
use crate::policy::query_slots::{PROLONGED, QUARANTINE, QuerySlot, QuerySlots, SlotState, SocketId, SocketSetId};

/// The sockets of one worker to all its backends. `T` is what the caller keeps with a query in flight, and `L` with one in
/// quarantine.
pub struct BackendSockets<T, L> {
    /// Watches all sockets and the alarm; itself watched by the runtime.
    epoll: OwnedFd,
    /// Fires at the time given to [`wake_at`](Self::wake_at).
    alarm: OwnedFd,
    /// When the alarm is set to fire.
    alarm_at: Option<Instant>,
    /// When somebody asked for it last.
    asked_at: Instant,
    /// By [`SocketSetId`]; `None` is free.
    sets: Vec<Option<SocketSet>>,
    /// Free places in `sets`.
    free_sets: Vec<SocketSetId>,
    /// The ports of the backends, and how many have each.
    ports: HashMap<u16, usize>,
    /// Sockets by number; `None` is free.
    sockets: Vec<Option<BackendSocket>>,
    /// Free numbers in `ports`.
    free_numbers: Vec<SocketId>,
    /// Numbers that will be free once nobody can still hold a reply that was received under them.
    closed_numbers: Vec<SocketId>,
    /// The connections, to backends that are asked by stream.
    connections: Connections<T, L>,
    /// Outstanding queries, by socket and ID.
    slots: QuerySlots<T, L>,
    /// Sockets that nobody uses any more, to be closed when there is time.
    closing: Vec<UdpSocket>,
    /// IDs that were in use not long ago.
    returned: Returned,
    /// Sockets that nothing is believed of any more.
    voided: Voided,
    /// For how many sockets there is room.
    room: Room,
    /// Room for IDs, of sockets that are closed.
    spare: Vec<SentIds>,
    /// Batches that nobody fills.
    spare_batches: Spare,
    /// When idle sockets are closed, in the order of opening; those that were closed before are left out when they are met.
    ages: VecDeque<(Instant, SocketId)>,
    /// Sockets to which ICMP errors came when something was sent from them.
    struck: Vec<SocketId>,
    /// Sets with something to flush.
    dirty: Vec<SocketSetId>,
    /// When sockets were last renewed for their own sake.
    renewals: Renewals,
    /// What goes by AF_XDP.
    by_xdp: ByXdp,
    /// Source of ports, IDs and choices.
    rng: StdRng,
}

/// What [`BackendSockets::ready`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket or a connection has replies, or an error.
    Socket(SocketId),
    /// The time given to [`BackendSockets::wake_at`] has come.
    Alarm,
}

/// Why nothing could be received from a socket, as the kernel has learnt by ICMP or otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The backend cannot be reached.
    Unreachable,
    /// Something else, of which the next attempt to send may tell more.
    Other,
}

/// A message that could not be sent.
#[derive(Debug)]
pub struct Refused<T, L> {
    /// What had taken its slot.
    pub state: SlotState<T, L>,
    /// Whom the message was for.
    pub socket_set: SocketSetId,
    /// Why.
    pub why: Refusal,
}

/// The sockets to one backend.
struct SocketSet {
    address: SocketAddr,
    /// Numbers of the sockets that may be chosen.
    live: Vec<SocketId>,
    /// How many sockets are open, retired ones included.
    open: usize,
    /// The batch that is being filled.
    filling: Option<Box<Filling>>,
    /// How many sockets are still opened with GRO, since coalesced replies came.
    gro_sockets_left: u32,
    /// When the next socket is the kernel's alone, although the backend is reached by AF_XDP.
    by_kernel_at: Option<Instant>,
    /// How it is asked by stream, if it is.
    stream: Option<Box<StreamSet>>,
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// No set yet, seeded by the operating system, with room for so many sockets. To each backend a first one is opened, whether
    /// there is room or not. `message_size` is what a usual message takes, octets. Datagrams go by `xsks` where they can.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new(room: usize, message_size: usize, xsks: Rc<WorkerSockets>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let alarm = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), EDGE)?;
        Ok(Self {
            epoll,
            alarm,
            alarm_at: None,
            asked_at: Instant::now(),
            sets: Vec::new(),
            free_sets: Vec::new(),
            ports: HashMap::new(),
            sockets: Vec::with_capacity(WARM_SOCKETS),
            free_numbers: Vec::with_capacity(WARM_SOCKETS),
            closed_numbers: Vec::with_capacity(WARM_SOCKETS),
            connections: Connections::new(),
            slots: QuerySlots::new(),
            returned: Returned::new(),
            voided: Voided::new(),
            spare: Vec::with_capacity(WARM_SOCKETS),
            spare_batches: Spare::new(message_size),
            ages: VecDeque::with_capacity(4 * WARM_SOCKETS),
            struck: Vec::new(),
            dirty: Vec::with_capacity(16),
            closing: Vec::with_capacity(WARM_SOCKETS),
            room: Room::new(room),
            renewals: Renewals::new(),
            by_xdp: ByXdp::new(xsks),
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Adds a set for a backend.
    pub fn add(&mut self, address: SocketAddr) -> SocketSetId {
        self.add_set(address, None)
    }

    fn add_set(&mut self, address: SocketAddr, stream: Option<Box<StreamSet>>) -> SocketSetId {
        let set = SocketSet {
            address,
            // One more while a socket is being replaced.
            live: Vec::with_capacity(SOCKETS_PER_BACKEND + 1),
            open: 0,
            filling: None,
            gro_sockets_left: 0,
            by_kernel_at: None,
            stream,
        };
        *self.ports.entry(address.port()).or_default() += 1;
        let set_id = match self.free_sets.pop() {
            Some(free) => {
                self.sets[free.0 as usize] = Some(set);
                free
            }
            None => {
                self.sets.push(Some(set));
                SocketSetId(self.sets.len() as u32 - 1)
            }
        };
        self.divide_room();
        set_id
    }

    /// Divides the room for sockets among the backends that there are.
    fn divide_room(&mut self) {
        let open: Vec<_> = self.sets.iter().flatten().map(|set| set.open).collect();
        self.room.divide(open.into_iter());
    }

    /// Forgets a backend, its sockets and all its outstanding queries; returns how many those were.
    pub fn remove(&mut self, set_id: SocketSetId) -> usize {
        let mut forgotten = Vec::new();
        self.take_from_connections(set_id, &mut forgotten);
        if let Some(set) = self.sets[set_id.0 as usize].take() {
            self.free_sets.push(set_id);
            *self.ports.entry(set.address.port()).or_default() -= 1;
            self.ports.retain(|_, count| *count > 0);
        }
        self.dirty.retain(|dirty| *dirty != set_id);
        for number in self.sockets_of(set_id) {
            self.take_from(number, SentIds::all, &mut forgotten);
            self.voided.forget(number);
            self.close(number);
        }
        self.divide_room();
        forgotten.len()
    }

    /// Queues a message for the next [`flush`](Self::flush): `fill` is told its slot and writes it, and its first two octets
    /// become a fresh ID.
    ///
    /// # Errors
    /// If there is no socket to send from and none can be opened, or half of the IDs of all are taken.
    pub fn queue(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, Refusal> {
        self.queue_elsewhere(set_id, user_data, None, now, fill)
    }

    /// Does the same, by stream on another connection than `avoid`.
    ///
    /// # Errors
    /// Also if that cannot be had, or as many wait as may.
    #[inline]
    pub fn queue_elsewhere(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        avoid: Option<SocketId>,
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, Refusal> {
        let set = self.set(set_id);
        let number = match &set.filling {
            Some(filling) => filling.socket,
            None if set.stream.is_some() => return self.queue_by_stream(set_id, user_data, (avoid, None), now, fill),
            None => self.begin_batch(set_id, now)?,
        };
        let write = |slot: QuerySlot, out: &mut Vec<u8>| {
            fill(slot, out);
            if let Some(id) = out.first_chunk_mut() {
                *id = slot.id().to_be_bytes();
            }
        };
        Ok(self.queue_datagram((set_id, number), user_data, write))
    }

    /// Does the same for a backend that wants a header ahead of each datagram and of each connection, which then has queries of that
    /// client alone.
    ///
    /// # Errors
    /// Also if all connections have queries of other clients.
    #[cold]
    pub fn queue_behind(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        (avoid, header): (Option<SocketId>, &ClientHeader),
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, Refusal> {
        let set = self.set(set_id);
        let number = match &set.filling {
            Some(filling) => filling.socket,
            None if set.stream.is_some() => {
                return self.queue_by_stream(set_id, user_data, (avoid, Some(header)), now, fill);
            }
            None => self.begin_batch(set_id, now)?,
        };
        let write = |slot: QuerySlot, out: &mut Vec<u8>| {
            fill(slot, out);
            if let Some(id) = out.first_chunk_mut() {
                *id = slot.id().to_be_bytes();
            }
            out.splice(..0, header.octets.iter().copied());
        };
        Ok(self.queue_datagram((set_id, number), user_data, write))
    }

    /// Puts a datagram, which `write` writes whole, into the batch that leaves from a socket.
    #[inline]
    fn queue_datagram(
        &mut self,
        (set_id, number): (SocketSetId, SocketId),
        user_data: T,
        write: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> QuerySlot {
        let slot = self.slots.draw(number, user_data, &mut self.rng);
        let socket = self.sockets[number.index()].as_mut().expect("a current socket is open");
        let slots = &self.slots;
        socket
            .sent
            .push(slot.id(), socket.taken_slots, |id| QuerySlot::new(number, id).is_some_and(|slot| slots.has(slot)));
        socket.taken_slots += 1;
        let filling = self.set(set_id).filling.as_mut().expect("it has one by now");
        filling.batch.push(None, None, |out| write(slot, out));
        filling.slots.push(slot);
        slot
    }

    /// Whether the next [`queue`](Self::queue) for this backend needs a flush before it.
    pub fn is_full(&self, set_id: SocketSetId) -> bool {
        let filling = self.sets[set_id.0 as usize].as_ref().and_then(|set| set.filling.as_ref());
        filling.is_some_and(|filling| filling.is_for_one || filling.batch.is_full())
    }

    /// Sends all that is queued, one call for each backend. What could not be sent goes to `refused`.
    pub fn flush(&mut self, refused: &mut Vec<Refused<T, L>>) {
        if self.connections.has_queued() {
            self.flush_connections();
        }
        while let Some(set_id) = self.dirty.pop() {
            let Some(set) = &mut self.sets[set_id.0 as usize] else { continue };
            let Some(mut filling) = set.filling.take() else { continue };
            let Filling { socket: number, batch, slots, is_for_one: _ } = &mut *filling;
            let number = *number;
            let socket = self.sockets[number.index()].as_mut().expect("a current socket is open");
            socket.batches += 1;
            let (sent, first_refused) = (slots.len(), refused.len());
            if let Some(held) = &socket.held {
                self.by_xdp.divert(held, batch, slots);
            }
            let waited = batch.flush(&socket.udp, |index, error| {
                let slot = slots[index];
                if let Some(state) = self.slots.remove(slot) {
                    socket.taken_slots -= 1;
                    refused.push(Refused { state, socket_set: set_id, why: Refusal::of(error) });
                }
            });
            slots.clear();
            self.spare_batches.keep(filling);
            let is_struck = waited.as_ref().is_some_and(|error| Refusal::of(error) == Refusal::Unreachable);
            if is_struck {
                // What has just left is not what it is about.
                socket.sent.strike(sent);
                self.struck.push(number);
            }
            if refused.len() > first_refused || is_struck {
                self.spend(number);
            }
            self.close_if_done(number);
        }
    }

    /// The descriptor that becomes readable when [`ready`](Self::ready) has something to tell.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Collects what has happened, without waiting, and returns whether there may be more. What was reported or received
    /// before must have been dealt with.
    pub fn ready(&mut self, events: &mut Vec<Event>) -> bool {
        self.free_numbers.append(&mut self.closed_numbers);
        self.connections.free_closed();
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let Ok((found, _)) = epoll::wait(&self.epoll, &mut buffer, Some(&Timespec::default())) else { return false };
        for event in found.iter() {
            let data = event.data.u64();
            if data == ALARM {
                self.alarm_at = None;
                events.push(Event::Alarm);
            } else {
                events.push(Event::Socket(SocketId(data as u32)));
            }
        }
        found.len() == BATCH
    }

    /// Receives from a socket that was reported. `Ok(0)` means that nothing is there.
    ///
    /// # Errors
    /// An ICMP error, and whether that says that the backend is unreachable. What was sent from there before is then the business
    /// of [`tell_struck`](Self::tell_struck) or [`take_struck`](Self::take_struck). The socket is not chosen again.
    pub fn recv(&mut self, number: SocketId, batch: &mut RecvBatch) -> Result<usize, RecvError> {
        let Some(socket) = self.sockets.get(number.index()).and_then(Option::as_ref) else { return Ok(0) };
        match batch.recv(&socket.udp) {
            Ok(count) => {
                let set_id = socket.set_id;
                if batch.has_coalesced() {
                    self.set(set_id).gro_sockets_left = GRO_SOCKETS;
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => {
                let is_unreachable = is_unreachable(&error);
                if is_unreachable {
                    self.socket(number).sent.strike(0);
                }
                self.spend(number);
                Err(if is_unreachable { RecvError::Unreachable } else { RecvError::Other })
            }
        }
    }

    /// A socket to which an ICMP error came when something was to be sent from it, if there is another: it met what was sent
    /// before.
    pub fn pop_struck(&mut self) -> Option<SocketId> {
        self.struck.pop()
    }

    /// The set that a socket belongs to.
    pub fn set_of(&self, number: SocketId) -> Option<SocketSetId> {
        match self.sockets.get(number.index()) {
            Some(socket) => socket.as_ref().map(|socket| socket.set_id),
            None => self.connections.set_of(number),
        }
    }

    /// Tells of those that wait on a socket and that ICMP errors are about, of each once.
    pub fn tell_struck(&mut self, number: SocketId, told: &mut Vec<T>) {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return };
        let slots = socket.sent.tell().iter().filter_map(|id| QuerySlot::new(number, *id));
        told.extend(slots.filter_map(|slot| match self.slots.find(slot)? {
            SlotState::InFlight(user_data) => Some(user_data),
            SlotState::Quarantined(_) => None,
        }));
    }

    /// Takes back all outstanding queries on a socket that ICMP errors are about, with those in quarantine: their backend is known
    /// to be dead.
    pub fn take_struck(&mut self, number: SocketId, taken: &mut Vec<SlotState<T, L>>) {
        if self.set_of(number).is_some() {
            self.take_from(number, SentIds::struck, taken);
            self.close_if_done(number);
        }
    }

    /// Who waits for a reply with this ID on this socket.
    pub fn find(&self, number: SocketId, id: u16) -> Option<(QuerySlot, SlotState<T, L>)> {
        let slot = QuerySlot::new(number, id)?;
        self.slots.find(slot).map(|state| (slot, state))
    }

    /// The address of a set's backend, for logs.
    pub fn address(&self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.sets.get(set_id.0 as usize)?.as_ref().map(|set| set.address)
    }

    /// The reply came: the ID is free again. A socket for a single message is not used again, so that the next query leaves from
    /// another port.
    pub fn release(&mut self, slot: QuerySlot, now: Instant) {
        if self.slots.remove(slot).is_some() {
            self.is_over(slot, now);
        }
    }

    /// A slot is free again.
    fn is_over(&mut self, slot: QuerySlot, now: Instant) {
        self.returned.note(slot);
        let number = slot.socket();
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else {
            return self.free_on_connection(slot, Some(now));
        };
        socket.free_one();
        if socket.taken_slots == 0 && socket.is_for_one {
            self.spend(number);
        }
        self.close_if_done(number);
    }

    /// Nobody needs the reply any more. The ID stays taken for some seconds, so that a late reply cannot be taken for
    /// another's, and its sender's latency can be learnt: `note` says what the caller wants to know by then.
    pub fn quarantine(&mut self, slot: QuerySlot, now: Instant, note: impl FnOnce(T) -> L) {
        self.slots.quarantine(slot, now + QUARANTINE, note);
    }

    /// Takes back all outstanding queries to a backend that was found dead, with those in quarantine.
    pub fn take_waiting(&mut self, set_id: SocketSetId, taken: &mut Vec<SlotState<T, L>>) {
        self.take_from_connections(set_id, taken);
        for number in self.sockets_of(set_id) {
            self.take_from(number, SentIds::all, taken);
            self.spend(number);
            self.close_if_done(number);
        }
    }

    /// Takes back outstanding queries on a socket: of the IDs that `which` says, those that are taken.
    fn take_from(&mut self, number: SocketId, which: impl Fn(&SentIds) -> &[u16], taken: &mut Vec<SlotState<T, L>>) {
        let socket = self.sockets[number.index()].as_mut().expect("whoever takes from a socket has seen it open");
        let before = taken.len();
        let slots = which(&socket.sent).iter().filter_map(|id| QuerySlot::new(number, *id));
        taken.extend(slots.filter_map(|slot| self.slots.remove(slot)));
        socket.taken_slots -= (taken.len() - before) as u32;
        if socket.taken_slots == 0 {
            socket.sent.clear();
        }
    }

    /// The numbers of a backend's sockets.
    fn sockets_of(&self, set_id: SocketSetId) -> Vec<SocketId> {
        let sockets = (0..).map(SocketId).zip(&self.sockets);
        let is_its = |socket: &Option<BackendSocket>| socket.as_ref().is_some_and(|socket| socket.set_id == set_id);
        sockets.filter(|(_, socket)| is_its(socket)).map(|(number, _)| number).collect()
    }

    /// Ends quarantines, of which `ended` is told the replies that never came, and prolongs those for which it gives another note; closes
    /// sockets. For the end of a turn, when
    /// all that somebody waits for is on its way.
    pub fn tidy(&mut self, now: Instant, mut ended: impl FnMut(&L) -> Option<L>) {
        while let Some((slot, late)) = self.slots.pop_ended(now) {
            match ended(&late) {
                Some(note) => self.slots.prolong(slot, now + PROLONGED, note),
                None => self.is_over(slot, now),
            }
        }
        while let Some(number) = self.voided.pop_due(now) {
            self.close(number);
        }
        // With more backends than sockets those that are idle make room for others.
        let is_crowded = self.room.is_crowded(self.sets.len() - self.free_sets.len());
        while let Some((_, number)) = self.oldest().filter(|(end, _)| *end <= now) {
            self.ages.pop_front();
            let socket = self.socket(number);
            let was_used = std::mem::replace(&mut socket.batches_before, socket.batches) != socket.batches;
            let (is_idle, set_id) = (socket.taken_slots == 0, socket.set_id);
            let set = self.set(set_id);
            // The last one of a backend that is asked stays until its successor is open, which may not be had.
            let is_needed = was_used && set.live.len() == 1 && !is_crowded;
            if is_idle && !is_needed && !set.fills(number) {
                // An open port is one that a forger may find.
                self.retire(number);
            } else {
                self.ages.push_back((now + SOCKET_LIFETIME, number));
            }
        }
        self.closing.clear();
    }

    /// When [`tidy`](Self::tidy) has something to do next.
    pub fn next_tidy(&mut self) -> Option<Instant> {
        let idle = self.oldest().map(|(end, _)| end);
        let connections = self.connections.next_check();
        [self.slots.next_end(), self.voided.next_due(), idle, connections].into_iter().flatten().min()
    }

    /// The first of the sockets that may be chosen to be looked at, and when.
    fn oldest(&mut self) -> Option<(Instant, SocketId)> {
        loop {
            let &(end, number) = self.ages.front()?;
            let socket = self.sockets.get(number.index()).and_then(Option::as_ref);
            if socket.is_some_and(|socket| !socket.is_retired && socket.opened + SOCKET_LIFETIME <= end) {
                return Some((end, number));
            }
            // Most are closed long before, and the number may be another's.
            self.ages.pop_front();
        }
    }

    /// Asks for an [`Event::Alarm`] at `at` and not before, as far as that costs little. An earlier one, which was for an attempt that is
    /// replied to by now, is put off if it is likely to come before this is called again: that costs less than to be woken. One that is
    /// further away is left until it is near.
    pub fn wake_at(&mut self, at: Instant, now: Instant) {
        let pause = now.saturating_duration_since(std::mem::replace(&mut self.asked_at, now));
        let near = now + pause.saturating_mul(PAUSES).min(NEAR);
        if self.alarm_at.is_some_and(|set| set == at || set < at && set > near) {
            return;
        }
        self.alarm_at = Some(at);
        // Zero would switch the timer off.
        let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &spec)
            .expect("the timer is ours and the time is sound");
    }

    /// A set that is in use.
    fn set(&mut self, set_id: SocketSetId) -> &mut SocketSet {
        self.sets[set_id.0 as usize].as_mut().expect("a set is removed only when no pool has it")
    }

    /// An open socket.
    fn socket(&mut self, number: SocketId) -> &mut BackendSocket {
        self.sockets[number.index()].as_mut().expect("a socket with taken slots is open")
    }
}

/// An alarm that nobody needs is put off if it comes within so many times the pause since the last look.
const PAUSES: u32 = 4;

/// And within this time, or one for a timeout of seconds would be put off by each reply.
const NEAR: Duration = Duration::from_millis(10);

/// Sockets of one backend that are open for choice: with 16 random bits of ID, 64 ports at a time add 6 bits, and
/// their renewal the rest.
const SOCKETS_PER_BACKEND: usize = 64;

/// One of so many sockets is opened with GRO to find out whether coalesced replies come. On a socket to which none come it costs:
/// with every datagram the kernel looks for more (an LS before backends without GSO: 2 % of its time).
const GRO_TRIAL: u32 = 16;

/// Sockets that are opened with GRO after a coalesced reply came: the trials among as many find the next one if those are usual.
const GRO_SOCKETS: u32 = SOCKETS_PER_BACKEND as u32;

/// Batches after which a socket is replaced.
const BATCHES_PER_SOCKET: u32 = 64;

/// Query slots of one socket that may be taken, so that a free ID is found by the second draw on average. With
/// [`BATCHES_PER_SOCKET`] it never comes near that, but where no other socket can be opened.
const SLOTS_PER_SOCKET: u32 = 1 << 15;

/// Time after which a socket is replaced, or closed if nothing waits on it.
const SOCKET_LIFETIME: Duration = Duration::from_secs(3);

/// Sockets for which there is room before anything has to grow.
const WARM_SOCKETS: usize = 1024;

/// What epoll says of the alarm, where sockets have their number.
const ALARM: u64 = u64::MAX;

/// Sockets are read until they are empty, so it is enough to be told once when something arrives.
const EDGE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

#[cfg(test)]
mod tests;
