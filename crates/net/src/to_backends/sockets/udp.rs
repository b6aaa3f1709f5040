//! The UDP sockets to the backends: their choice, opening and closing, a fresh one while there are few, and
//! none for long. Messages to one backend leave in batches. `room.rs` divides the permitted sockets fairly.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::event::epoll;

use super::batches::{Filling, SpareBuffers};
use super::connections::FIRST as FIRST_CONNECTION;
use super::room::Room;
use super::socket::{self, BackendSocket, Renewals};
use super::void::VoidedSockets;
use super::{RecvError, UnsentMessage};
use crate::refusal::{SendRefusal, is_unreachable};
use crate::sys::batch::RecvBatch;
use crate::sys::options::enable_gro;
use crate::{Bypass, BypassPorts};

/// The UDP sockets of one worker to its backends.
pub struct UdpSockets {
    epoll: Rc<OwnedFd>,
    /// Before the sockets, whose ports it releases.
    held_ports: BypassPorts,
    pub(super) sets: Vec<Option<SocketSet>>,
    /// The ports of backends, with the number of backends.
    ports: HashMap<u16, usize>,
    pub(super) sockets: Vec<Option<BackendSocket>>,
    numbers: SocketNumbers,
    pub(super) room: Room,
    /// Sockets whose replies are ignored.
    voided: VoidedSockets,
    pub(super) spare: SpareBuffers,
    /// When idle sockets are closed, in the order of opening. It may contain sockets that are closed already.
    ages: VecDeque<(Instant, SocketId)>,
    pub(super) dirty: Vec<SocketSetId>,
    pub(super) renewals: Renewals,
}

/// The numbers of closed sockets.
struct SocketNumbers {
    free: Vec<SocketId>,
    /// Numbers that become free once no caller can hold a reply that was received under them.
    closed: Vec<SocketId>,
    /// Sockets that are closed at the end of the turn.
    closing: Vec<UdpSocket>,
}

/// The sockets to one backend.
pub(super) struct SocketSet {
    address: SocketAddr,
    pub(super) live: Vec<SocketId>,
    open: usize,
    pub(super) filling: Option<Box<Filling>>,
    /// How many more sockets are opened with GRO, because coalesced replies came.
    pub(super) gro_sockets_left: u32,
    /// The time when the next socket leaves its datagrams to the kernel, if the bypass reaches the backend.
    by_kernel_at: Option<Instant>,
}

impl SocketSet {
    fn fills(&self, number: SocketId) -> bool {
        self.filling.as_ref().is_some_and(|filling| filling.socket == number)
    }
}

impl UdpSockets {
    pub(super) fn new(epoll: Rc<OwnedFd>, room: usize, message_size: usize, bypass: Rc<Bypass>) -> Self {
        Self {
            epoll,
            held_ports: BypassPorts::new(bypass),
            sets: Vec::new(),
            ports: HashMap::new(),
            sockets: Vec::with_capacity(WARM_SOCKETS),
            numbers: SocketNumbers {
                free: Vec::with_capacity(WARM_SOCKETS),
                closed: Vec::with_capacity(WARM_SOCKETS),
                closing: Vec::with_capacity(WARM_SOCKETS),
            },
            room: Room::new(room),
            voided: VoidedSockets::new(),
            spare: SpareBuffers::new(message_size, WARM_SOCKETS),
            ages: VecDeque::with_capacity(4 * WARM_SOCKETS),
            dirty: Vec::with_capacity(16),
            renewals: Renewals::new(),
        }
    }

    /// Returns the way of datagrams past the kernel.
    pub fn bypass(&self) -> &Bypass {
        self.held_ports.bypass()
    }

    /// Returns the socket for a datagram from `remote` to `local` that bypassed the kernel.
    pub fn socket_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<SocketId> {
        self.held_ports.socket_between(local, remote)
    }

    pub(super) fn add(&mut self, set_id: SocketSetId, address: SocketAddr) {
        let place = set_id.0 as usize;
        if self.sets.len() <= place {
            self.sets.resize_with(place + 1, || None);
        }
        self.sets[place] = Some(SocketSet {
            address,
            live: Vec::with_capacity(SOCKETS_PER_BACKEND + 1),
            open: 0,
            filling: None,
            gro_sockets_left: 0,
            by_kernel_at: None,
        });
        self.reserve_port(address);
        self.divide_room();
    }

    /// Removes a backend whose queries have been taken back, with its sockets. Returns its address.
    pub(super) fn remove(&mut self, set_id: SocketSetId) -> Option<SocketAddr> {
        let set = self.sets.get_mut(set_id.0 as usize)?.take()?;
        self.dirty.retain(|dirty| *dirty != set_id);
        for number in self.numbers_of(set_id) {
            self.voided.forget(number);
            self.close(number);
        }
        self.divide_room();
        Some(set.address)
    }

    /// Keeps a backend's port from being used: on the same host, such a socket would receive its own messages
    /// instead of ICMP errors, and would block the backend's start.
    pub(super) fn reserve_port(&mut self, backend: SocketAddr) {
        *self.ports.entry(backend.port()).or_default() += 1;
    }

    pub(super) fn release_port(&mut self, backend: SocketAddr) {
        *self.ports.entry(backend.port()).or_default() -= 1;
        self.ports.retain(|_, count| *count > 0);
    }

    pub(super) fn divide_room(&mut self) {
        let open: Vec<_> = self.sets.iter().flatten().map(|set| set.open).collect();
        self.room.divide(open.into_iter());
    }

    pub(super) fn address(&self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.sets.get(set_id.0 as usize)?.as_ref().map(|set| set.address)
    }

    pub(super) fn find_set(&self, set_id: SocketSetId) -> Option<&SocketSet> {
        self.sets.get(set_id.0 as usize)?.as_ref()
    }

    pub(super) fn set(&mut self, set_id: SocketSetId) -> &mut SocketSet {
        self.sets[set_id.0 as usize].as_mut().expect("a set is removed only when no pool has it")
    }

    pub(super) fn find(&self, number: SocketId) -> Option<&BackendSocket> {
        self.sockets.get(number.index()).and_then(Option::as_ref)
    }

    pub(super) fn find_mut(&mut self, number: SocketId) -> Option<&mut BackendSocket> {
        self.sockets.get_mut(number.index()).and_then(Option::as_mut)
    }

    pub(super) fn socket(&mut self, number: SocketId) -> &mut BackendSocket {
        self.sockets[number.index()].as_mut().expect("a chosen socket is open")
    }

    /// Takes a slot of the current socket of a backend; `None` if it is a slot of a connection. The message
    /// goes into the returned batch.
    #[inline]
    pub(super) fn take_slot(&mut self, slot: QuerySlot) -> Option<&mut Filling> {
        let socket = self.find_mut(slot.socket())?;
        socket.sent.push(slot.id());
        let set_id = socket.set_id;
        let filling = self.set(set_id).filling.as_mut().expect("the socket was just chosen");
        filling.slots.push(slot);
        Some(filling)
    }

    pub(super) fn numbers_of(&self, set_id: SocketSetId) -> Vec<SocketId> {
        let sockets = (0..).map(SocketId).zip(&self.sockets);
        let is_its = |socket: &Option<BackendSocket>| socket.as_ref().is_some_and(|socket| socket.set_id == set_id);
        sockets.filter(|(_, socket)| is_its(socket)).map(|(number, _)| number).collect()
    }

    /// Makes the numbers of closed sockets free, because the caller has processed earlier replies.
    pub(super) fn free_closed(&mut self) {
        self.numbers.free.append(&mut self.numbers.closed);
    }

    /// Returns the socket of the batch that is being filled for a backend; `None` if the backend has no UDP.
    #[inline]
    pub(super) fn current(
        &mut self,
        set_id: SocketSetId,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<Result<SocketId, SendRefusal>> {
        match &self.find_set(set_id)?.filling {
            Some(filling) => Some(Ok(filling.socket)),
            None => Some(self.begin_batch(set_id, now, rng)),
        }
    }

    fn begin_batch(&mut self, set_id: SocketSetId, now: Instant, rng: &mut StdRng) -> Result<SocketId, SendRefusal> {
        let socket = self.choose(set_id, now, rng).map_err(|error| SendRefusal::of(&error))?;
        let BackendSocket { is_for_one, batches, .. } = *self.socket(socket);
        let mut filling = self.spare.take(socket);
        filling.is_for_one = is_for_one && batches == 0;
        self.set(set_id).filling = Some(filling);
        self.dirty.push(set_id);
        Ok(socket)
    }

    /// Returns true if the next message for this backend needs a flush before it.
    pub fn is_full(&self, set_id: SocketSetId) -> bool {
        let filling = self.find_set(set_id).and_then(|set| set.filling.as_ref());
        filling.is_some_and(|filling| filling.is_for_one || filling.batch.is_full())
    }

    /// Sends all batches. `refused` gets the messages that could not be sent, `struck` the sockets where an
    /// ICMP error concerns earlier messages.
    #[inline]
    pub(super) fn flush(&mut self, refused: &mut Vec<UnsentMessage>, struck: &mut Vec<SocketId>) {
        while let Some(set_id) = self.dirty.pop() {
            let Some(set) = &mut self.sets[set_id.0 as usize] else { continue };
            let Some(mut filling) = set.filling.take() else { continue };
            let Filling { socket: number, batch, slots, is_for_one: _ } = &mut *filling;
            let number = *number;
            let socket = self.sockets[number.index()].as_mut().expect("a current socket is open");
            socket.batches += 1;
            let mut is_refused = false;
            self.held_ports.divert(number, batch, slots);
            let waited = batch.flush(&socket.udp, |index, error| {
                let slot = slots[index];
                if socket.sent.remove(slot.id()) {
                    refused.push(UnsentMessage { slot, socket_set: set_id, why: SendRefusal::of(error) });
                    is_refused = true;
                }
            });
            let is_struck = waited.as_ref().is_some_and(|error| SendRefusal::of(error) == SendRefusal::Unreachable);
            if is_struck {
                // The error cannot concern the messages that have just left.
                socket.sent.strike_before(slots);
                struck.push(number);
            }
            slots.clear();
            self.spare.keep(filling);
            if is_refused || is_struck {
                self.spend(number);
            }
            self.close_if_done(number);
        }
    }

    /// Receives from a reported socket. Returns true if it may have more datagrams.
    ///
    /// # Errors
    /// An ICMP error, and if the backend is unreachable. It concerns earlier messages of the socket, which
    /// [`report_struck`](Self::report_struck) lists. The socket is not chosen again.
    pub fn recv(&mut self, number: SocketId, batch: &mut RecvBatch) -> Result<bool, RecvError> {
        // The replies of an earlier call may have closed it.
        let Some(socket) = self.find(number) else { return Ok(false) };
        match batch.recv(&socket.udp) {
            Ok(_) => {
                let set_id = socket.set_id;
                if batch.has_coalesced() {
                    self.set(set_id).gro_sockets_left = GRO_SOCKETS;
                }
                Ok(batch.is_full())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => {
                let is_unreachable = is_unreachable(&error);
                if is_unreachable {
                    self.socket(number).sent.strike_before(&[]);
                }
                self.spend(number);
                Err(if is_unreachable { RecvError::Unreachable } else { RecvError::Other })
            }
        }
    }

    /// Frees a slot of a socket, if the socket is open. A socket for a single message is not used again, so
    /// that the next query leaves from another port.
    #[inline]
    pub(super) fn free_slot(&mut self, slot: QuerySlot) -> bool {
        let number = slot.socket();
        let Some(socket) = self.find_mut(number) else { return false };
        socket.sent.remove(slot.id());
        if socket.sent.is_empty() && socket.is_for_one {
            self.spend(number);
        }
        self.close_if_done(number);
        true
    }

    /// Lists the outstanding messages of a socket that ICMP errors concern, each only once. Returns the set
    /// of the socket.
    pub fn report_struck(&mut self, number: SocketId, struck: &mut Vec<QuerySlot>) -> Option<SocketSetId> {
        let socket = self.find_mut(number)?;
        struck.extend(socket.sent.take_struck().iter().filter_map(|id| QuerySlot::new(number, *id)));
        Some(socket.set_id)
    }

    /// Frees and lists all outstanding messages to a backend, and retires its sockets.
    pub(super) fn take_back(&mut self, set_id: SocketSetId, lost: &mut Vec<QuerySlot>) {
        for number in self.numbers_of(set_id) {
            self.take_all(number, lost);
            self.spend(number);
            self.close_if_done(number);
        }
    }

    fn take_all(&mut self, number: SocketId, lost: &mut Vec<QuerySlot>) {
        let sent = &mut self.socket(number).sent;
        lost.extend(sent.all().iter().filter_map(|id| QuerySlot::new(number, *id)));
        sent.clear();
    }

    /// Counts a datagram that matches no message of this socket. Returns the number so far.
    pub fn count_near_miss(&mut self, number: SocketId) -> u8 {
        let Some(socket) = self.find_mut(number).filter(|socket| !socket.is_void) else { return 0 };
        socket.near_misses = socket.near_misses.saturating_add(1);
        socket.near_misses
    }

    /// Chooses the socket of a batch: a fresh one for a single message while there is credit for renewals, a
    /// fresh one while there are few, otherwise a random one. If none can be opened, an open one is reused.
    fn choose(&mut self, set_id: SocketSetId, now: Instant, rng: &mut StdRng) -> io::Result<SocketId> {
        let live = self.set(set_id).live.len();
        if self.renewals.allow(now)
            && let Ok(number) = self.open(set_id, now, rng)
        {
            self.socket(number).is_for_one = true;
            self.retire_spent(set_id);
            // The oldest socket makes room. Its pending queries still get their replies.
            if live >= SOCKETS_PER_BACKEND
                && let Some(&oldest) = self.set(set_id).live.first()
            {
                self.retire(oldest);
            }
            return Ok(number);
        }
        if live < SOCKETS_PER_BACKEND {
            match self.open(set_id, now, rng) {
                Ok(number) => {
                    self.retire_spent(set_id);
                    return Ok(number);
                }
                Err(error) if live == 0 => return Err(error),
                Err(_) => {}
            }
        }
        let index = rng.random_range(0..live);
        let number = self.set(set_id).live[index];
        let socket = self.socket(number);
        let has_ids = socket.sent.len() < SLOTS_PER_SOCKET;
        if has_ids && socket.batches < BATCHES_PER_SOCKET && now.duration_since(socket.opened) < SOCKET_LIFETIME {
            return Ok(number);
        }
        if let Ok(fresh) = self.open(set_id, now, rng) {
            self.retire(number);
            return Ok(fresh);
        }
        let mut live = self.set(set_id).live.clone().into_iter();
        let with_ids =
            if has_ids { Some(number) } else { live.find(|live| self.socket(*live).sent.len() < SLOTS_PER_SOCKET) };
        with_ids.ok_or_else(|| io::ErrorKind::ResourceBusy.into())
    }

    fn open(&mut self, set_id: SocketSetId, now: Instant, rng: &mut StdRng) -> io::Result<SocketId> {
        let SocketSet { address, open, .. } = *self.set(set_id);
        if !self.set(set_id).live.is_empty() && !self.room.has_place(open) {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let is_backends = |port| self.ports.contains_key(&port);
        let udp = socket::connected(address, is_backends, rng)?;
        let left = &mut self.set(set_id).gro_sockets_left;
        let is_expected = *left > 0;
        *left = left.saturating_sub(1);
        if (is_expected || rng.random_ratio(1, GRO_TRIAL)) && !self.held_ports.bypass().is_gro_off() {
            enable_gro(&udp);
        }
        let number = match self.numbers.free.pop() {
            Some(number) => number,
            None if self.sockets.len() < FIRST_CONNECTION as usize => {
                self.sockets.push(None);
                SocketId(self.sockets.len() as u32 - 1)
            }
            None => return Err(io::ErrorKind::ResourceBusy.into()),
        };
        if let Err(error) = epoll::add(&self.epoll, &udp, epoll::EventData::new_u64(number.0.into()), EDGE) {
            self.numbers.free.push(number);
            return Err(error.into());
        }
        let sent = self.spare.take_ids();
        let by_kernel_at = &mut self.sets[set_id.0 as usize].as_mut().expect("its socket opens").by_kernel_at;
        self.held_ports.hold(number, &udp, address, by_kernel_at, now);
        let socket = BackendSocket {
            udp,
            set_id,
            opened: now,
            batches: 0,
            batches_before: 0,
            sent,
            is_retired: false,
            is_spent: false,
            is_for_one: false,
            near_misses: 0,
            is_void: false,
        };
        self.ages.push_back((now + SOCKET_LIFETIME, number));
        self.sockets[number.index()] = Some(socket);
        let set = self.set(set_id);
        set.live.push(number);
        set.open += 1;
        self.room.add(open);
        Ok(number)
    }

    /// Retires a socket at once if its backend has another, else when that has been opened.
    pub(super) fn spend(&mut self, number: SocketId) {
        let Some(socket) = self.find_mut(number) else { return };
        let set_id = socket.set_id;
        socket.is_spent = true;
        if self.set(set_id).live.len() > 1 {
            self.retire(number);
        }
    }

    fn retire_spent(&mut self, set_id: SocketSetId) {
        if let [before, _] = self.set(set_id).live[..]
            && self.socket(before).is_spent
        {
            self.retire(before);
        }
    }

    fn retire(&mut self, number: SocketId) {
        let Some(socket) = self.find_mut(number) else { return };
        let (set_id, was_retired) = (socket.set_id, std::mem::replace(&mut socket.is_retired, true));
        if !was_retired {
            self.set(set_id).live.retain(|live| *live != number);
        }
        self.close_if_done(number);
    }

    /// Closes a retired socket that is idle and has no batch. The kernel removes it from the epoll set.
    pub(super) fn close_if_done(&mut self, number: SocketId) {
        let Some(socket) = self.find(number) else { return };
        let (is_idle, set_id) = (socket.is_retired && socket.sent.is_empty() && !socket.is_void, socket.set_id);
        if is_idle && !self.set(set_id).fills(number) {
            self.close(number);
        }
    }

    /// Closes a socket. Its number stays taken until [`free_closed`](Self::free_closed): the caller may be
    /// processing a batch of its replies, which must not match queries of another socket.
    fn close(&mut self, number: SocketId) {
        self.numbers.closed.push(number);
        let Some(BackendSocket { udp, set_id, sent, .. }) = self.sockets[number.index()].take() else {
            return;
        };
        self.held_ports.release(number);
        self.numbers.closing.push(udp);
        self.spare.keep_ids(sent);
        if let Some(set) = &mut self.sets[set_id.0 as usize] {
            self.room.remove(set.open);
            set.open -= 1;
        }
    }

    /// Makes a flushed socket void: it sends nothing, and its input is ignored. Frees and lists its
    /// outstanding messages.
    pub fn void(&mut self, number: SocketId, now: Instant, lost: &mut Vec<QuerySlot>) {
        let Some(socket) = self.find_mut(number) else { return };
        socket.is_void = true;
        self.take_all(number, lost);
        // Without the open socket, the kernel would answer each forgery with an ICMP error.
        let stays = self.voided.add(number, now);
        self.retire(number);
        if !stays {
            self.close(number);
        }
    }

    /// Closes the sockets whose time is over. Call it at the end of a turn.
    pub fn tidy(&mut self, now: Instant) {
        while let Some(number) = self.voided.pop_due(now) {
            self.close(number);
        }
        let is_crowded = self.room.is_crowded();
        while let Some((_, number)) = self.oldest().filter(|(end, _)| *end <= now) {
            self.ages.pop_front();
            let socket = self.socket(number);
            let was_used = std::mem::replace(&mut socket.batches_before, socket.batches) != socket.batches;
            let (is_idle, set_id) = (socket.sent.is_empty(), socket.set_id);
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
        self.numbers.closing.clear();
    }

    /// Returns the time when [`tidy`](Self::tidy) has work.
    pub(super) fn next_tidy(&mut self) -> Option<Instant> {
        let idle = self.oldest().map(|(end, _)| end);
        [self.voided.next_due(), idle].into_iter().flatten().min()
    }

    fn oldest(&mut self) -> Option<(Instant, SocketId)> {
        loop {
            let &(end, number) = self.ages.front()?;
            let socket = self.find(number);
            if socket.is_some_and(|socket| !socket.is_retired && socket.opened + SOCKET_LIFETIME <= end) {
                return Some((end, number));
            }
            // Most sockets were closed long before, and the number may be reused.
            self.ages.pop_front();
        }
    }
}

/// Open sockets per backend: 64 random ports add 6 bits to the 16 of the ID, and renewal adds more.
pub(super) const SOCKETS_PER_BACKEND: usize = 64;

/// One of this many sockets is opened with GRO to detect coalesced replies. Without such replies GRO costs:
/// the kernel searches for more with every datagram (a forwarder before backends without GSO: 2 % of its
/// time).
pub(super) const GRO_TRIAL: u32 = 16;

/// Sockets opened with GRO after a coalesced reply: enough for a trial to detect the next one.
pub(super) const GRO_SOCKETS: u32 = SOCKETS_PER_BACKEND as u32;

pub(super) const BATCHES_PER_SOCKET: u32 = 64;

/// Slots of one socket that may be taken, so that the second draw finds a free ID on average. Because of
/// [`BATCHES_PER_SOCKET`] this matters only if no other socket can be opened.
pub(super) const SLOTS_PER_SOCKET: usize = 1 << 15;

pub(super) const SOCKET_LIFETIME: Duration = Duration::from_secs(3);

const WARM_SOCKETS: usize = 1024;

/// Edge-triggered, because sockets are read until they are empty.
const EDGE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
