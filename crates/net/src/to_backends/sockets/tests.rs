//! Backend sockets over loopback: IDs, errors and the alarm.

#[cfg(feature = "xdp")]
mod bypass;

use std::collections::HashSet;
use std::net::UdpSocket;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use engine::query_slots::{QUARANTINE, QuerySlots, SlotState};
use metrics::Want;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::room::Room;
use super::socket::{BackendSocket, Renewals, UNPRIVILEGED, connected};
use super::udp::{BATCHES_PER_SOCKET, GRO_SOCKETS, GRO_TRIAL, SLOTS_PER_SOCKET, SOCKET_LIFETIME, SOCKETS_PER_BACKEND};
use super::*;
use crate::sys::batch::{BATCH, RecvBatch, SendBatch};

/// Backend sockets with the slots of their queries, as a worker has them.
pub(super) struct WorkerSockets {
    sockets: BackendSockets,
    slots: QuerySlots<u32, u32>,
}

impl Deref for WorkerSockets {
    type Target = BackendSockets;

    fn deref(&self) -> &BackendSockets {
        &self.sockets
    }
}

impl DerefMut for WorkerSockets {
    fn deref_mut(&mut self) -> &mut BackendSockets {
        &mut self.sockets
    }
}

impl WorkerSockets {
    pub(super) fn new(room: usize, message_size: usize, bypass: Rc<Bypass>) -> Self {
        let sockets = BackendSockets::new(room, message_size, bypass).unwrap();
        Self { sockets, slots: QuerySlots::new(rand::random()) }
    }

    /// Queues a message in a free slot, which holds this user data.
    pub(super) fn queue(
        &mut self,
        set_id: SocketSetId,
        user_data: u32,
        (avoid, header): (Option<SocketId>, Option<&ClientHeader>),
        now: Instant,
        fill: impl FnOnce(&mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
        let Self { sockets, slots } = self;
        let socket = sockets.choose(set_id, avoid, header, now)?;
        let slot = slots.draw(socket, user_data, |slot| sockets.connections.permits(slot));
        sockets.queue(slot, header, fill).map(|()| slot).inspect_err(|_| assert!(slots.release(slot)))
    }

    pub(super) fn find(&self, number: SocketId, id: u16) -> Option<(QuerySlot, SlotState<u32, u32>)> {
        let slot = QuerySlot::new(number, id)?;
        self.slots.find(slot).map(|state| (slot, state))
    }

    pub(super) fn release(&mut self, slot: QuerySlot, now: Instant) {
        assert!(self.slots.release(slot));
        self.sockets.free(slot, now);
    }

    pub(super) fn quarantine(&mut self, slot: QuerySlot, now: Instant) {
        self.slots.quarantine(slot, now, |user_data| user_data);
    }

    /// Takes back the slots of lost queries.
    pub(super) fn take(&mut self, lost: &[QuerySlot]) -> Vec<SlotState<u32, u32>> {
        lost.iter().filter_map(|slot| self.slots.take_back(*slot)).collect()
    }

    pub(super) fn take_waiting(&mut self, set_id: SocketSetId) -> Vec<SlotState<u32, u32>> {
        let mut lost = Vec::new();
        self.sockets.take_back(set_id, &mut lost);
        self.take(&lost)
    }

    /// Removes a backend. Returns the number of its queries.
    pub(super) fn remove(&mut self, set_id: SocketSetId) -> usize {
        let mut lost = Vec::new();
        self.sockets.remove(set_id, &mut lost);
        self.take(&lost).len()
    }

    /// Ends quarantines and closes sockets.
    pub(super) fn tidy(&mut self, now: Instant) {
        while let Some((slot, _)) = self.slots.pop_ended(now) {
            self.sockets.free(slot, now);
        }
        self.sockets.udp.tidy(now);
    }

    pub(super) fn has_queries(&self) -> bool {
        !self.slots.is_empty()
    }
}

/// The sockets to one backend, with the backend's socket.
struct Fixture {
    sockets: WorkerSockets,
    set_id: SocketSetId,
    backend: UdpSocket,
    /// The time, which only the test advances.
    now: Instant,
}

impl Fixture {
    /// Creates a fixture that has sent nothing.
    fn new() -> Self {
        Self::beside(Bypass::default())
    }

    /// Creates a fixture that has these AF_XDP sockets.
    fn beside(bypass: Bypass) -> Self {
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        backend.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut sockets = WorkerSockets::new(PLENTY, 64, Rc::new(bypass));
        let set_id = sockets.add(backend.local_addr().unwrap());
        Self { sockets, set_id, backend, now: Instant::now() }
    }

    /// Creates a backend without a listener: its socket is connected elsewhere, which reserves the port.
    fn dead() -> Self {
        let fixture = Self::new();
        fixture.backend.connect("127.0.0.1:1").unwrap();
        fixture
    }

    /// Uses all credit for renewals.
    fn use_up_renewals(&mut self) {
        self.sockets.udp.renewals.credit = 0;
        self.sockets.udp.renewals.since = Some(self.now);
    }

    /// Queues a message with this user data.
    fn queue(&mut self, user_data: u32) -> QuerySlot {
        self.sockets
            .queue(self.set_id, user_data, (None, None), self.now, |out| out.extend_from_slice(MESSAGE))
            .unwrap()
    }

    /// Sends the queued messages; returns those that were refused.
    fn flush(&mut self) -> Vec<UnsentMessage> {
        let mut refused = Vec::new();
        self.sockets.flush(&mut refused);
        refused
    }

    /// Queues a message and sends it.
    fn send(&mut self, user_data: u32) -> QuerySlot {
        let slot = self.queue(user_data);
        assert!(self.flush().is_empty());
        slot
    }

    /// Receives a message as the backend; returns its ID and source address.
    fn receive(&self) -> (u16, SocketAddr) {
        let mut message = [0; 64];
        let (length, from) = self.backend.recv_from(&mut message).unwrap();
        assert_eq!(&message[2..length], &MESSAGE[2..]);
        (u16::from_be_bytes([message[0], message[1]]), from)
    }

    /// Waits for events of the fixture's sockets.
    fn wait(&mut self) -> Vec<Event> {
        wait(&mut self.sockets)
    }

    /// Sends a message, answers it, and releases its slot.
    fn round_trip(&mut self) -> SocketAddr {
        let slot = self.send(0);
        let (id, from) = self.receive();
        assert_eq!(id, slot.id());
        self.backend.send_to(&id.to_be_bytes(), from).unwrap();
        assert_eq!(self.wait(), [Event::Socket(slot.socket())]);
        let mut batch = RecvBatch::new(4, 64);
        assert_eq!(self.sockets.udp.recv(slot.socket(), &mut batch), Ok(false));
        assert_eq!(batch.len(), 1);
        assert_eq!(self.sockets.find(slot.socket(), id).map(|(found, _)| found), Some(slot));
        self.sockets.release(slot, self.now);
        from
    }

    fn open(&self) -> impl Iterator<Item = &BackendSocket> {
        self.sockets.udp.sockets.iter().flatten()
    }
}

/// Waits for events of these sockets.
fn wait(sockets: &mut BackendSockets) -> Vec<Event> {
    let mut events = Vec::new();
    let patience = Timespec { tv_sec: PATIENCE.as_secs() as _, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(sockets.watched(), PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ready, 1, "nothing has happened");
    assert!(!sockets.ready(&mut events));
    events
}

#[test]
fn with_time_to_spare_each_message_leaves_from_a_fresh_port() {
    let mut fixture = Fixture::new();
    let ports: HashSet<_> = (0..30).map(|_| fixture.round_trip().port()).collect();
    // A few ports may coincide by chance.
    assert!(ports.len() > 25, "{ports:?}");
    // The last socket stays until its successor is open.
    assert_eq!(fixture.open().count(), 1);
}

#[test]
fn last_socket_stays_where_no_other_can_be_opened() {
    let mut fixture = Fixture::new();
    let port = fixture.round_trip().port();
    // No room is left for another socket.
    fixture.sockets.udp.room = Room::new(0);
    fixture.sockets.udp.room.divide([1, 100].into_iter());
    for _ in 0..3 {
        assert_eq!(fixture.round_trip().port(), port);
    }
    fixture.sockets.udp.room = Room::new(PLENTY);
    fixture.sockets.udp.divide_room();
    assert_ne!(fixture.round_trip().port(), port);
    assert_eq!((fixture.open().count(), fixture.sockets.udp.set(fixture.set_id).live.len()), (1, 1));
}

#[test]
fn sockets_are_shared_where_there_is_room_for_few() {
    let mut fixture = Fixture::new();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = fixture.sockets.add(other.local_addr().unwrap());
    fixture.sockets.udp.room = Room::new(8);
    fixture.sockets.udp.divide_room();
    for user_data in 0..1000 {
        fixture.send(user_data);
    }
    // Two sockets are reserved for the other backend.
    assert_eq!(fixture.open().count(), 6);
    for user_data in 0..10 {
        fixture
            .sockets
            .queue(other, user_data, (None, None), fixture.now, |out| out.extend_from_slice(MESSAGE))
            .unwrap();
        assert!(fixture.flush().is_empty());
    }
    assert_eq!(fixture.open().count(), 8);
    // Closed sockets make room.
    fixture.sockets.remove(fixture.set_id);
    fixture.sockets.queue(other, 0, (None, None), fixture.now, |out| out.extend_from_slice(MESSAGE)).unwrap();
    assert_eq!(fixture.open().count(), 3);
}

#[test]
fn a_backend_that_sends_trains_gets_sockets_for_them() {
    let mut fixture = Fixture::new();
    let mut replies = SendBatch::new(2, 64);
    let mut batch = RecvBatch::for_gro(4, 64);
    let mut comes_whole = |fixture: &mut Fixture| {
        let slots = [fixture.queue(0), fixture.queue(1)];
        assert!(fixture.flush().is_empty());
        for _ in slots {
            let (id, from) = fixture.receive();
            replies.push(Some(from), None, |out| out.extend(id.to_be_bytes()));
        }
        replies.flush(&fixture.backend, |index, error| panic!("reply {index} refused: {error}"));
        assert_eq!(fixture.wait(), [Event::Socket(slots[0].socket())]);
        assert_eq!(fixture.sockets.udp.recv(slots[0].socket(), &mut batch), Ok(false));
        assert_eq!(batch.len(), 2);
        // The next messages leave from a fresh port.
        fixture.now += Renewals::EVERY;
        slots.iter().for_each(|slot| fixture.sockets.release(*slot, fixture.now));
        batch.has_coalesced()
    };
    // One of the first sockets is a trial.
    assert!((0..100 * GRO_TRIAL).any(|_| comes_whole(&mut fixture)));
    for number in 0..2 * GRO_SOCKETS {
        assert!(comes_whole(&mut fixture), "{number} after the first");
    }
    // After these sockets without coalesced replies, few are expected.
    for _ in 0..GRO_SOCKETS {
        fixture.now += Renewals::EVERY;
        fixture.round_trip();
    }
    assert_eq!(fixture.sockets.udp.set(fixture.set_id).gro_sockets_left, 0);
    // With AF_XDP there is no trial.
    #[cfg(feature = "xdp")]
    {
        let mut fixture = Fixture::beside(Bypass::new(0, true));
        assert!((0..20 * GRO_TRIAL).all(|_| !comes_whole(&mut fixture)));
    }
}

#[test]
fn socket_that_its_replies_have_closed_has_no_more() {
    let mut fixture = Fixture::new();
    let [slot, _] = [fixture.send(0), fixture.send(1)];
    let (id, from) = fixture.receive();
    fixture.backend.send_to(&id.to_be_bytes(), from).unwrap();
    assert_eq!(fixture.wait(), [Event::Socket(slot.socket())]);
    // The reply fills the batch, so there may be more.
    let mut batch = RecvBatch::new(1, 64);
    assert_eq!(fixture.sockets.udp.recv(slot.socket(), &mut batch), Ok(true));
    fixture.sockets.release(slot, fixture.now);
    assert!(fixture.sockets.udp.find(slot.socket()).is_none());
    assert_eq!(fixture.sockets.udp.recv(slot.socket(), &mut batch), Ok(false));
}

#[test]
fn without_time_to_spare_sockets_stay() {
    let mut fixture = Fixture::new();
    fixture.use_up_renewals();
    fixture.round_trip();
    assert_eq!(fixture.open().count(), 1);
}

#[test]
fn renewals_are_earned_by_time() {
    let now = Instant::now();
    let mut renewals = Renewals::new();
    let mut allowed = |after: Duration| (0..2 * Renewals::BURST).filter(|_| renewals.allow(now + after)).count();
    assert_eq!(allowed(Duration::ZERO), Renewals::BURST as usize);
    assert_eq!(allowed(Renewals::EVERY - Duration::from_nanos(1)), 0);
    assert_eq!(allowed(3 * Renewals::EVERY), 3);
    assert_eq!(allowed(Duration::from_secs(60)), Renewals::BURST as usize);
}

#[test]
fn without_credit_messages_of_one_turn_share_a_socket_and_no_id() {
    let mut fixture = Fixture::new();
    fixture.use_up_renewals();
    let slots: HashSet<_> = (0..BATCH as u32).map(|user_data| fixture.queue(user_data)).collect();
    assert_eq!(slots.len(), BATCH);
    assert!(fixture.sockets.udp.is_full(fixture.set_id));
    assert!(fixture.flush().is_empty());
    let received: HashSet<_> = (0..BATCH).map(|_| fixture.receive()).collect();
    let sources: HashSet<_> = received.iter().map(|(_, from)| from).collect();
    assert_eq!((received.len(), sources.len()), (BATCH, 1));
    assert!(!fixture.sockets.udp.is_full(fixture.set_id));
}

#[test]
fn with_credit_each_message_of_a_burst_leaves_from_a_port_of_its_own() {
    let mut fixture = Fixture::new();
    let count = 200;
    assert!(count > SOCKETS_PER_BACKEND as u32);
    let mut ports = HashSet::new();
    let mut slots = Vec::new();
    for user_data in 0..count {
        slots.push(fixture.queue(user_data));
        assert!(fixture.sockets.udp.is_full(fixture.set_id), "the next leaves from another socket");
        assert!(fixture.flush().is_empty());
        ports.insert(fixture.receive().1);
    }
    // Sockets that are open at the same time have different ports.
    assert_eq!(ports.len(), count as usize);
    assert_eq!(fixture.sockets.udp.set(fixture.set_id).live.len(), SOCKETS_PER_BACKEND);
    // Retired sockets keep their pending queries.
    assert!(slots.iter().all(|slot| fixture.sockets.find(slot.socket(), slot.id()).is_some()));
    for slot in slots {
        fixture.sockets.release(slot, fixture.now);
    }
    assert_eq!(fixture.open().count(), 1);
    assert_eq!(fixture.sockets.udp.renewals.credit, Renewals::BURST - count);
}

#[test]
fn socket_with_half_of_its_ids_taken_takes_no_more() {
    let mut fixture = Fixture::new();
    fixture.sockets.udp.room = Room::new(2);
    fixture.sockets.udp.divide_room();
    let slots = [fixture.send(0), fixture.send(1)];
    let fill = |fixture: &mut Fixture, slot: QuerySlot| {
        let sent = &mut fixture.sockets.udp.socket(slot.socket()).sent;
        (0..SLOTS_PER_SOCKET as u16).for_each(|id| sent.push(id));
    };
    fill(&mut fixture, slots[0]);
    for user_data in 2..12 {
        assert_eq!(fixture.send(user_data).socket(), slots[1].socket(), "another has some left");
    }
    fill(&mut fixture, slots[1]);
    let refused = fixture.sockets.queue(fixture.set_id, 12, (None, None), fixture.now, |_| {});
    assert_eq!(refused, Err(SendRefusal::Unsent(Want::Ports)));
}

#[test]
fn id_in_quarantine_stays_taken() {
    let mut fixture = Fixture::new();
    let slot = fixture.send(7);
    fixture.sockets.quarantine(slot, fixture.now);
    assert_eq!(fixture.sockets.find(slot.socket(), slot.id()), Some((slot, SlotState::Quarantined(7))));
    let end = fixture.now + QUARANTINE;
    assert_eq!(fixture.sockets.slots.next_end(), Some(end));
    fixture.sockets.tidy(end - Duration::from_nanos(1));
    assert!(fixture.sockets.find(slot.socket(), slot.id()).is_some());
    fixture.sockets.tidy(end);
    assert!(fixture.sockets.find(slot.socket(), slot.id()).is_none());
    assert_eq!((fixture.sockets.slots.next_end(), fixture.open().count()), (None, 1));
}

#[test]
fn silence_opens_so_many_sockets_and_no_more() {
    let mut fixture = Fixture::new();
    fixture.use_up_renewals();
    for user_data in 0..500 {
        fixture.send(user_data);
    }
    assert_eq!(fixture.sockets.udp.set(fixture.set_id).live.len(), SOCKETS_PER_BACKEND);
    assert!(fixture.open().count() < SOCKETS_PER_BACKEND + 500 / BATCHES_PER_SOCKET as usize);
}

#[test]
fn socket_is_replaced_after_its_batches() {
    let mut fixture = Fixture::new();
    for user_data in 0..2 * BATCHES_PER_SOCKET * SOCKETS_PER_BACKEND as u32 {
        fixture.send(user_data);
    }
    assert!(fixture.open().all(|socket| socket.batches <= BATCHES_PER_SOCKET));
    let retired = fixture.open().filter(|socket| socket.is_retired);
    assert!(retired.count() > 0, "a socket with taken slots is kept");
    assert_eq!(fixture.sockets.udp.set(fixture.set_id).live.len(), SOCKETS_PER_BACKEND);
}

#[test]
fn socket_is_replaced_after_its_time() {
    let mut fixture = Fixture::new();
    for user_data in 0..SOCKETS_PER_BACKEND as u32 {
        fixture.send(user_data);
    }
    fixture.now += SOCKET_LIFETIME;
    let slot = fixture.send(0);
    let (opened, now) = (fixture.sockets.udp.socket(slot.socket()).opened, fixture.now);
    assert_eq!(opened, now);
}

#[test]
fn number_of_a_closed_socket_is_not_given_away_in_the_same_turn() {
    let mut fixture = Fixture::new();
    let closed = fixture.send(0);
    fixture.sockets.release(closed, fixture.now);
    let next = fixture.send(1);
    assert_eq!(fixture.open().count(), 1);
    assert_ne!(next.socket(), closed.socket());
    // Remaining replies of the closed socket match no query.
    assert!(fixture.sockets.find(closed.socket(), next.id()).is_none());
    fixture.sockets.ready(&mut Vec::new());
    assert_eq!(fixture.send(2).socket(), closed.socket());
}

#[test]
fn no_socket_believes_what_is_said_of_the_path_mtu() {
    use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    let mut rng = StdRng::seed_from_u64(1);
    let mut connected = |address: &str| connected(address.parse().unwrap(), |_| false, &mut rng).unwrap();
    assert_eq!(sockopt::ip_mtu_discover(connected("127.0.0.1:53")), Ok(Ipv4PathMtuDiscovery::OMIT));
    assert_eq!(sockopt::ipv6_mtu_discover(connected("[::1]:53")), Ok(Ipv6PathMtuDiscovery::OMIT));
}

#[test]
fn ports_that_are_reserved_are_not_taken() {
    let backend = "127.0.0.1:53".parse().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let odd = |port| port % 2 == 1;
    for _ in 0..20 {
        let port = connected(backend, odd, &mut rng).unwrap().local_addr().unwrap().port();
        assert!(port >= UNPRIVILEGED && !odd(port), "{port}");
    }
    let none = connected(backend, |_| true, &mut rng);
    assert_eq!(none.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
}

#[test]
fn dead_backend_is_reported_by_its_socket() {
    let mut fixture = Fixture::dead();
    let slot = fixture.send(7);
    assert_eq!(fixture.wait(), [Event::Socket(slot.socket())]);
    assert_eq!(fixture.sockets.udp.recv(slot.socket(), &mut RecvBatch::new(4, 64)), Err(RecvError::Unreachable));
    let mut reported = Vec::new();
    // The query stays, and is reported once.
    for _ in 0..2 {
        assert_eq!(fixture.sockets.udp.report_struck(slot.socket(), &mut reported), Some(fixture.set_id));
    }
    assert_eq!(reported, [slot]);
    assert!(fixture.open().all(|socket| socket.is_spent && socket.sent.len() == 1));
    fixture.sockets.release(slot, fixture.now);
    assert!(fixture.open().all(|socket| socket.is_spent && socket.sent.is_empty()));
}

#[test]
fn backends_that_are_asked_by_turns_fill_the_same_batch() {
    let mut fixture = Fixture::new();
    let others: Vec<_> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for other in &others {
        let set_id = fixture.sockets.add(other.local_addr().unwrap());
        fixture.sockets.queue(set_id, 1, (None, None), fixture.now, |out| out.extend_from_slice(MESSAGE)).unwrap();
        assert!(fixture.flush().is_empty());
        let mut message = [0; 64];
        assert_eq!(other.recv(&mut message).unwrap(), MESSAGE.len());
        assert_eq!(message[2..MESSAGE.len()], MESSAGE[2..]);
    }
    assert_eq!(fixture.sockets.udp.spare.len(), 1);
}

#[test]
fn error_that_waits_on_a_socket_costs_no_message() {
    let mut fixture = Fixture::dead();
    let first = fixture.send(1);
    // The ICMP error is pending on that socket, and the next send returns it.
    let filling = fixture.sockets.udp.spare.take(first.socket());
    fixture.sockets.udp.set(fixture.set_id).filling = Some(filling);
    fixture.sockets.udp.dirty.push(fixture.set_id);
    let second = fixture.queue(2);
    assert!(fixture.flush().is_empty());
    assert_eq!(second.socket(), first.socket());
    assert_eq!(fixture.sockets.pop_struck(), Some(first.socket()));
    // The error concerns the first message.
    let mut reported = Vec::new();
    fixture.sockets.udp.report_struck(first.socket(), &mut reported);
    assert_eq!(reported, [first]);
    // The second message was sent, and causes another error.
    assert_eq!(fixture.wait(), [Event::Socket(second.socket())]);
    assert_eq!(fixture.sockets.udp.recv(second.socket(), &mut RecvBatch::new(4, 64)), Err(RecvError::Unreachable));
    fixture.sockets.udp.report_struck(second.socket(), &mut reported);
    assert_eq!((reported, fixture.sockets.pop_struck()), (vec![first, second], None));
}

#[test]
fn message_that_the_kernel_does_not_take_is_handed_back() {
    let mut fixture = Fixture::new();
    let waits = fixture.queue(1);
    let too_long = |out: &mut Vec<u8>| out.resize(70_000, 0);
    let refused = fixture.sockets.queue(fixture.set_id, 2, (None, None), fixture.now, too_long).unwrap();
    let handed_back = fixture.flush();
    let why = SendRefusal::Unsent(Want::Size);
    assert_eq!(handed_back, [UnsentMessage { slot: refused, socket_set: fixture.set_id, why }]);
    assert_eq!(refused.socket(), waits.socket());
    assert!(fixture.open().all(|socket| socket.is_spent && socket.sent.all() == [waits.id()]));
}

#[test]
fn idle_sockets_are_closed_after_their_time() {
    let mut fixture = Fixture::new();
    fixture.use_up_renewals();
    fixture.round_trip();
    let waits = fixture.send(1);
    assert_eq!(fixture.open().count(), 2);
    let end = fixture.now + SOCKET_LIFETIME;
    assert_eq!(fixture.sockets.next_tidy(), Some(end));
    fixture.sockets.tidy(end);
    assert_eq!(fixture.open().count(), 1, "something waits on the other");
    fixture.sockets.release(waits, end);
    let end = end + SOCKET_LIFETIME;
    fixture.sockets.tidy(end);
    assert_eq!((fixture.open().count(), fixture.sockets.next_tidy()), (0, None));
}

#[test]
fn last_socket_of_a_backend_that_is_asked_is_not_idle() {
    let mut fixture = Fixture::new();
    let port = fixture.round_trip().port();
    // No room is left for another socket.
    fixture.sockets.udp.room = Room::new(0);
    fixture.sockets.udp.room.divide([101].into_iter());
    for _ in 0..3 {
        fixture.now += SOCKET_LIFETIME;
        fixture.sockets.tidy(fixture.now);
        assert_eq!(fixture.round_trip().port(), port);
    }
    let asked_last = fixture.now;
    for _ in 0..2 {
        fixture.now += SOCKET_LIFETIME;
        fixture.sockets.tidy(fixture.now);
    }
    assert_eq!((fixture.open().count(), fixture.now - asked_last), (0, 2 * SOCKET_LIFETIME));
}

#[test]
fn taking_back_what_waits_leaves_other_backends_alone() {
    let mut fixture = Fixture::new();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = fixture.sockets.add(other.local_addr().unwrap());
    fixture.send(1);
    let late = fixture.send(2);
    fixture.sockets.quarantine(late, fixture.now);
    let kept =
        fixture.sockets.queue(other, 3, (None, None), fixture.now, |out| out.extend_from_slice(MESSAGE)).unwrap();
    assert!(fixture.flush().is_empty());
    // In a batch that has not left yet.
    fixture.queue(4);
    let mut taken = fixture.sockets.take_waiting(fixture.set_id);
    taken.sort_unstable_by_key(|state| match state {
        SlotState::InFlight(user_data) | SlotState::Quarantined(user_data) => *user_data,
    });
    assert_eq!(taken, [SlotState::InFlight(1), SlotState::Quarantined(2), SlotState::InFlight(4)]);
    assert!(fixture.sockets.find(kept.socket(), kept.id()).is_some());
    assert!(fixture.flush().is_empty());
    assert_eq!(fixture.open().filter(|socket| !socket.sent.is_empty()).count(), 1);
    fixture.sockets.tidy(fixture.now);
    assert_eq!(fixture.sockets.slots.next_end(), None);
}

#[test]
fn removed_backend_leaves_nothing_behind() {
    let mut fixture = Fixture::new();
    let slots = [fixture.send(1), fixture.send(2), fixture.queue(3)];
    fixture.sockets.quarantine(slots[0], fixture.now);
    assert_eq!(fixture.sockets.remove(fixture.set_id), slots.len());
    assert_eq!(fixture.open().count(), 0);
    assert!(!fixture.sockets.has_queries());
    assert!(fixture.flush().is_empty());
    fixture.sockets.tidy(fixture.now);
    assert_eq!(fixture.sockets.next_tidy(), None);
    assert_eq!(fixture.sockets.address(fixture.set_id), None);
    // The place can be reused.
    let address = fixture.backend.local_addr().unwrap();
    assert_eq!(fixture.sockets.add(address), fixture.set_id);
    fixture.backend.set_nonblocking(true).unwrap();
    while fixture.backend.recv(&mut [0; 64]).is_ok() {}
    fixture.backend.set_nonblocking(false).unwrap();
    fixture.round_trip();
}

#[test]
fn alarm_fires_at_the_earliest_time_that_was_asked_for() {
    let (soon, far) = (Duration::from_millis(5), Duration::from_secs(3600));
    for times in [vec![soon], vec![soon, far], vec![far, soon], vec![far, Duration::ZERO]] {
        let mut sockets = BackendSockets::new(PLENTY, 64, Rc::new(Bypass::default())).unwrap();
        let start = Instant::now();
        for time in &times {
            sockets.poller.wake_at(start + *time, start);
        }
        assert_eq!(wait(&mut sockets), [Event::Alarm], "{times:?}");
        assert!(start.elapsed() >= *times.iter().min().unwrap());
        // The alarm can be set again, and no earlier alarm remains.
        sockets.poller.wake_at(start, Instant::now());
        assert_eq!(wait(&mut sockets), [Event::Alarm], "{times:?}");
    }
}

#[test]
fn alarm_that_is_near_and_not_needed_any_more_is_put_off() {
    let millis = Duration::from_millis;
    for (first, looked_at, then, expected) in [
        // The alarm would fire before the next call, as estimated from the last pause.
        (millis(40), millis(50), millis(100), millis(50)),
        // The alarm is distant: the next call is soon enough.
        (millis(60), millis(10), millis(10_000), millis(60)),
        // An earlier time replaces the alarm.
        (millis(5_000), millis(35), millis(40), millis(5)),
    ] {
        let mut sockets = BackendSockets::new(PLENTY, 64, Rc::new(Bypass::default())).unwrap();
        let start = Instant::now();
        sockets.poller.wake_at(start + first, start);
        sockets.poller.wake_at(start + then, start + looked_at);
        assert_eq!(wait(&mut sockets), [Event::Alarm]);
        assert!(start.elapsed() >= expected && start.elapsed() < expected + millis(2_000), "{expected:?}");
    }
}

/// More sockets than any test opens.
const PLENTY: usize = 10_000;

/// The message; the ID replaces its first two bytes.
const MESSAGE: &[u8] = b"??message";

/// The maximum wait for an event that must occur.
const PATIENCE: Duration = Duration::from_secs(10);
