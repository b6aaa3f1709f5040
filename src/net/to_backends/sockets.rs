//! The sockets to the backends: a set of connected UDP sockets per backend, and the outstanding queries by
//! socket and message ID, their [slot](QuerySlot). Backends that are asked by stream have `connections/`
//! instead. The caller checks the replies. `room.rs` divides the permitted sockets fairly.
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

pub use self::connections::{ConnectionEnd, EndedConnection, StreamWay, TlsSource};
use self::connections::{ConnectionPool, StreamSet};
use self::filling::{Filling, Spare};
use self::room::Room;
use self::sent::SentIds;
use self::socket::{BackendSocket, Renewals};
pub use self::void::MAX_NEAR_MISSES;
use self::void::{ReturnedIds, VoidedSockets};
use crate::net::proxy_protocol::ClientHeader;
use crate::net::refusal::{SendRefusal, is_unreachable};
use crate::net::sys::batch::{BATCH, RecvBatch};
use crate::net::{Bypass, BypassPorts};
use crate::policy::query_slots::{PROLONGED, QUARANTINE, QuerySlot, QuerySlots, SlotState, SocketId, SocketSetId};

/// The sockets of one worker to all its backends. `T` is the caller's data for a query in flight, `L` for one
/// in quarantine.
pub struct BackendSockets<T, L> {
    epoll: OwnedFd,
    alarm: OwnedFd,
    alarm_at: Option<Instant>,
    asked_at: Instant,
    /// Before the sockets, whose ports it releases.
    held_ports: BypassPorts,
    sets: Vec<Option<SocketSet>>,
    free_sets: Vec<SocketSetId>,
    ports: HashMap<u16, usize>,
    sockets: Vec<Option<BackendSocket>>,
    free_numbers: Vec<SocketId>,
    /// Numbers that become free once no caller can hold a reply that was received under them.
    closed_numbers: Vec<SocketId>,
    connections: ConnectionPool<T, L>,
    slots: QuerySlots<T, L>,
    closing: Vec<UdpSocket>,
    returned: ReturnedIds,
    /// Sockets whose replies are ignored.
    voided: VoidedSockets,
    room: Room,
    spare: Vec<SentIds>,
    spare_batches: Spare,
    /// When idle sockets are closed, in the order of opening. It may contain sockets that are closed already.
    ages: VecDeque<(Instant, SocketId)>,
    struck: Vec<SocketId>,
    dirty: Vec<SocketSetId>,
    renewals: Renewals,
    rng: StdRng,
}

/// An event that [`BackendSockets::ready`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A socket or a connection has replies, or an error.
    Socket(SocketId),
    /// The time given to [`BackendSockets::wake_at`] has come.
    Alarm,
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

struct SocketSet {
    address: SocketAddr,
    live: Vec<SocketId>,
    open: usize,
    filling: Option<Box<Filling>>,
    /// How many more sockets are opened with GRO, because coalesced replies came.
    gro_sockets_left: u32,
    /// The time when the next socket leaves its datagrams to the kernel, if the bypass reaches the backend.
    by_kernel_at: Option<Instant>,
    stream: Option<Box<StreamSet>>,
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Creates an empty collection with room for this many sockets. Each backend gets its first socket
    /// regardless of room. `message_size` is the usual size of a message in bytes. Datagrams use the bypass
    /// where possible.
    pub fn new(room: usize, message_size: usize, bypass: Rc<Bypass>) -> io::Result<Self> {
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
            connections: ConnectionPool::new(),
            slots: QuerySlots::new(),
            returned: ReturnedIds::new(),
            voided: VoidedSockets::new(),
            spare: Vec::with_capacity(WARM_SOCKETS),
            spare_batches: Spare::new(message_size),
            ages: VecDeque::with_capacity(4 * WARM_SOCKETS),
            struck: Vec::new(),
            dirty: Vec::with_capacity(16),
            closing: Vec::with_capacity(WARM_SOCKETS),
            room: Room::new(room),
            renewals: Renewals::new(),
            held_ports: BypassPorts::new(bypass),
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    /// Returns the way of datagrams past the kernel.
    pub fn bypass(&self) -> &Bypass {
        self.held_ports.bypass()
    }

    /// Returns the socket for a datagram from `remote` to `local` that bypassed the kernel.
    pub fn socket_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        self.held_ports.socket_between(local, remote)
    }

    /// Adds a set for a backend.
    pub fn add(&mut self, address: SocketAddr) -> SocketSetId {
        self.add_set(address, None)
    }

    fn add_set(&mut self, address: SocketAddr, stream: Option<Box<StreamSet>>) -> SocketSetId {
        let set = SocketSet {
            address,
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

    fn divide_room(&mut self) {
        let open: Vec<_> = self.sets.iter().flatten().map(|set| set.open).collect();
        self.room.divide(open.into_iter());
    }

    /// Removes a backend, its sockets and its outstanding queries. Returns the number of these queries.
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

    /// Queues a message for the next [`flush`](Self::flush). `fill` gets the slot and writes the message; a
    /// fresh ID replaces its first two bytes.
    ///
    /// # Errors
    /// If no socket is open and none can be opened, or half of the IDs of all sockets are taken.
    pub fn queue(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
        self.queue_elsewhere(set_id, user_data, None, now, fill)
    }

    /// Queues a message like [`queue`](Self::queue), but by stream on another connection than `avoid`.
    #[inline]
    pub fn queue_elsewhere(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        avoid: Option<SocketId>,
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
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

    /// Queues a message like [`queue`](Self::queue) for a backend that requires a header before each datagram
    /// and at the start of each connection. Such a connection carries the queries of one client only.
    #[cold]
    pub fn queue_behind(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        (avoid, header): (Option<SocketId>, &ClientHeader),
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
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

    /// Returns true if the next [`queue`](Self::queue) for this backend needs a flush before it.
    pub fn is_full(&self, set_id: SocketSetId) -> bool {
        let filling = self.sets[set_id.0 as usize].as_ref().and_then(|set| set.filling.as_ref());
        filling.is_some_and(|filling| filling.is_for_one || filling.batch.is_full())
    }

    /// Sends all queued messages, with one call per backend. Messages that could not be sent go to `refused`.
    pub fn flush(&mut self, refused: &mut Vec<UnsentMessage<T, L>>) {
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
            self.held_ports.divert(number, batch, slots);
            let waited = batch.flush(&socket.udp, |index, error| {
                let slot = slots[index];
                if let Some(state) = self.slots.remove(slot) {
                    socket.taken_slots -= 1;
                    refused.push(UnsentMessage { state, socket_set: set_id, why: SendRefusal::of(error) });
                }
            });
            slots.clear();
            self.spare_batches.keep(filling);
            let is_struck = waited.as_ref().is_some_and(|error| SendRefusal::of(error) == SendRefusal::Unreachable);
            if is_struck {
                // The error cannot concern the messages that have just left.
                socket.sent.strike(sent);
                self.struck.push(number);
            }
            if refused.len() > first_refused || is_struck {
                self.spend(number);
            }
            self.close_if_done(number);
        }
    }

    /// Returns the descriptor that becomes readable when [`ready`](Self::ready) has events.
    pub fn watched(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Collects events without waiting. Returns true if there may be more. Process earlier events before.
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

    /// Receives from a reported socket. `Ok(0)` means that no datagram is available.
    ///
    /// # Errors
    /// An ICMP error, and if the backend is unreachable. The caller handles earlier messages of the socket by
    /// [`report_struck`](Self::report_struck) or [`take_struck`](Self::take_struck). The socket is not chosen
    /// again.
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

    /// Returns a socket where sending returned an ICMP error, which concerns earlier messages.
    pub fn pop_struck(&mut self) -> Option<SocketId> {
        self.struck.pop()
    }

    /// Returns the set of a socket, if the socket is still open.
    pub fn set_of(&self, number: SocketId) -> Option<SocketSetId> {
        match self.sockets.get(number.index()) {
            Some(socket) => socket.as_ref().map(|socket| socket.set_id),
            None => self.connections.set_of(number),
        }
    }

    /// Appends the pending queries of a socket that ICMP errors concern, each only once.
    pub fn report_struck(&mut self, number: SocketId, attempts: &mut Vec<T>) {
        let Some(socket) = self.sockets.get_mut(number.index()).and_then(Option::as_mut) else { return };
        let slots = socket.sent.take_struck().iter().filter_map(|id| QuerySlot::new(number, *id));
        attempts.extend(slots.filter_map(|slot| match self.slots.find(slot)? {
            SlotState::InFlight(user_data) => Some(user_data),
            SlotState::Quarantined(_) => None,
        }));
    }

    /// Takes back all queries of a socket that ICMP errors concern, the quarantined ones too.
    pub fn take_struck(&mut self, number: SocketId, taken: &mut Vec<SlotState<T, L>>) {
        if self.set_of(number).is_some() {
            self.take_from(number, SentIds::struck, taken);
            self.close_if_done(number);
        }
    }

    /// Returns the slot and state of the query with this ID on this socket.
    pub fn find(&self, number: SocketId, id: u16) -> Option<(QuerySlot, SlotState<T, L>)> {
        let slot = QuerySlot::new(number, id)?;
        self.slots.find(slot).map(|state| (slot, state))
    }

    /// Returns the address of a set's backend, for logs.
    pub fn address(&self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.sets.get(set_id.0 as usize)?.as_ref().map(|set| set.address)
    }

    /// Frees the slot after its reply. A socket for a single message is not used again, so that the next
    /// query leaves from another port.
    pub fn release(&mut self, slot: QuerySlot, now: Instant) {
        if self.slots.remove(slot).is_some() {
            self.is_over(slot, now);
        }
    }

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

    /// Quarantines a query whose reply is no longer needed: its ID stays taken for some seconds, so that a
    /// late reply cannot match another query. `note` returns the data that the caller keeps for this.
    pub fn quarantine(&mut self, slot: QuerySlot, now: Instant, note: impl FnOnce(T) -> L) {
        self.slots.quarantine(slot, now + QUARANTINE, note);
    }

    /// Takes back all outstanding and quarantined queries of a backend that is dead.
    pub fn take_waiting(&mut self, set_id: SocketSetId, taken: &mut Vec<SlotState<T, L>>) {
        self.take_from_connections(set_id, taken);
        for number in self.sockets_of(set_id) {
            self.take_from(number, SentIds::all, taken);
            self.spend(number);
            self.close_if_done(number);
        }
    }

    fn take_from(&mut self, number: SocketId, which: impl Fn(&SentIds) -> &[u16], taken: &mut Vec<SlotState<T, L>>) {
        let socket = self.sockets[number.index()].as_mut().expect("a socket that slots are taken from is open");
        let before = taken.len();
        let slots = which(&socket.sent).iter().filter_map(|id| QuerySlot::new(number, *id));
        taken.extend(slots.filter_map(|slot| self.slots.remove(slot)));
        socket.taken_slots -= (taken.len() - before) as u32;
        if socket.taken_slots == 0 {
            socket.sent.clear();
        }
    }

    fn sockets_of(&self, set_id: SocketSetId) -> Vec<SocketId> {
        let sockets = (0..).map(SocketId).zip(&self.sockets);
        let is_its = |socket: &Option<BackendSocket>| socket.as_ref().is_some_and(|socket| socket.set_id == set_id);
        sockets.filter(|(_, socket)| is_its(socket)).map(|(number, _)| number).collect()
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
        while let Some(number) = self.voided.pop_due(now) {
            self.close(number);
        }
        let is_crowded = self.room.is_crowded(self.sets.len() - self.free_sets.len());
        while let Some((_, number)) = self.oldest().filter(|(end, _)| *end <= now) {
            self.ages.pop_front();
            let socket = self.socket(number);
            let was_used = std::mem::replace(&mut socket.batches_before, socket.batches) != socket.batches;
            let (is_idle, set_id) = (socket.taken_slots == 0, socket.set_id);
            let set = self.set(set_id);
            // An active backend's last socket stays until its successor is open: opening may fail.
            let is_needed = was_used && set.live.len() == 1 && !is_crowded;
            if is_idle && !is_needed && !set.fills(number) {
                // A forger may find an open port.
                self.retire(number);
            } else {
                self.ages.push_back((now + SOCKET_LIFETIME, number));
            }
        }
        self.closing.clear();
    }

    /// Returns the time when [`tidy`](Self::tidy) has work.
    pub fn next_tidy(&mut self) -> Option<Instant> {
        let idle = self.oldest().map(|(end, _)| end);
        let connections = self.connections.next_check();
        [self.slots.next_end(), self.voided.next_due(), idle, connections].into_iter().flatten().min()
    }

    fn oldest(&mut self) -> Option<(Instant, SocketId)> {
        loop {
            let &(end, number) = self.ages.front()?;
            let socket = self.sockets.get(number.index()).and_then(Option::as_ref);
            if socket.is_some_and(|socket| !socket.is_retired && socket.opened + SOCKET_LIFETIME <= end) {
                return Some((end, number));
            }
            // Most sockets were closed long before, and the number may be reused.
            self.ages.pop_front();
        }
    }

    /// Requests an [`Event::Alarm`] at `at`. An earlier alarm, whose attempt is already answered, is
    /// postponed only if it would fire before the likely next call. A more distant one stays set.
    pub fn wake_at(&mut self, at: Instant, now: Instant) {
        let pause = now.saturating_duration_since(std::mem::replace(&mut self.asked_at, now));
        let near = now + pause.saturating_mul(PAUSES).min(NEAR);
        if self.alarm_at.is_some_and(|set| set == at || set < at && set > near) {
            return;
        }
        self.alarm_at = Some(at);
        // Zero would disable the timer.
        let wait = at.saturating_duration_since(now).max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos() as _ };
        let spec = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &spec)
            .expect("the timer is ours and the time is sound");
    }

    fn set(&mut self, set_id: SocketSetId) -> &mut SocketSet {
        self.sets[set_id.0 as usize].as_mut().expect("a set is removed only when no pool has it")
    }

    fn socket(&mut self, number: SocketId) -> &mut BackendSocket {
        self.sockets[number.index()].as_mut().expect("a socket with taken slots is open")
    }
}

/// An unneeded alarm is postponed if it fires within this many times the pause since the last call.
const PAUSES: u32 = 4;

/// Upper bound of that interval; otherwise each reply would postpone the alarm of a long timeout.
const NEAR: Duration = Duration::from_millis(10);

/// Open sockets per backend: 64 random ports add 6 bits to the 16 of the ID, and renewal adds more.
const SOCKETS_PER_BACKEND: usize = 64;

/// One of this many sockets is opened with GRO to detect coalesced replies. Without such replies GRO costs:
/// the kernel searches for more with every datagram (a forwarder before backends without GSO: 2 % of its
/// time).
const GRO_TRIAL: u32 = 16;

/// Sockets opened with GRO after a coalesced reply: enough for a trial to detect the next one.
const GRO_SOCKETS: u32 = SOCKETS_PER_BACKEND as u32;

const BATCHES_PER_SOCKET: u32 = 64;

/// Slots of one socket that may be taken, so that the second draw finds a free ID on average. Because of
/// [`BATCHES_PER_SOCKET`] this matters only if no other socket can be opened.
const SLOTS_PER_SOCKET: u32 = 1 << 15;

const SOCKET_LIFETIME: Duration = Duration::from_secs(3);

const WARM_SOCKETS: usize = 1024;

const ALARM: u64 = u64::MAX;

/// Edge-triggered, because sockets are read until they are empty.
const EDGE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

#[cfg(test)]
mod tests;
