//! The connections of one worker by QUIC, with the endpoint that knows their IDs and what waits at the gate. What a turn consists of stands in
//! `serve.rs`, which calls this.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{ConnectionEvent, ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent, Incoming, Transmit};
use tokio::sync::mpsc;

use super::connection::Connection;
use super::connection_id::Destination;
use super::listener::{MAX_WAITING, QuicListener};
use super::resumption;
use super::stream::{Closed, Code};
use crate::limit::Pressure;
use crate::metrics::{ConnectionFate, Counters, Dropped};
use crate::net::batch::{BATCH, Datagram, LocalAddress, RecvBatch, SendBatch};
use crate::net::tcp::{Connections, Responder, ToListener, Wake};
use crate::net::udp::Socket;
use crate::wire::Transport;

/// The connections of one worker, and what is done with them.
pub(super) struct Work<A, H> {
    endpoint: Endpoint,
    listener: Arc<QuicListener>,
    worker: u16,
    /// Where it listens.
    address: SocketAddr,
    table: Arc<Connections>,
    pub(super) counters: Arc<Counters>,
    admits: A,
    handle: H,
    /// Where responses go.
    to_us: mpsc::UnboundedSender<ToListener>,
    told: mpsc::UnboundedReceiver<ToListener>,
    slots: Vec<Slot>,
    /// The slot of each connection, by QUIC's number for it.
    by_handle: Vec<u32>,
    /// Slots without a connection.
    free: Vec<u32>,
    /// Connections whose handshake is not complete.
    shaking: usize,
    /// Connections that are over, and that QUIC keeps for what is on its way.
    lingering: usize,
    /// What waits at the gate.
    steps: VecDeque<Step>,
    /// When each connection has to be looked at, or earlier.
    alarms: BTreeSet<(Instant, u32)>,
    /// Connections with work to do.
    working: Vec<u32>,
    /// Those that may have something to be sent.
    sending: Vec<u32>,
    /// Those with responses in parts.
    with_parts: Vec<u32>,
    out: SendBatch,
    /// Room for one message or datagram.
    scratch: Vec<u8>,
    pub(super) pressure: Pressure,
    /// No more queries are taken.
    pub(super) is_ending: bool,
    /// Whether the sockets are read.
    pub(super) reads: bool,
    /// Datagrams have come in this turn.
    pub(super) has_taken: bool,
}

/// A place for a connection.
#[derive(Default)]
struct Slot {
    /// How many it has had.
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// What waits at the gate.
enum Step {
    /// The Initial of a client.
    Accept(Box<Incoming>, Option<LocalAddress>),
    /// A datagram of one that shakes hands.
    Datagram(u64, Box<ConnectionEvent>),
}

/// What a connection works with.
pub(super) struct Tools<'t, H> {
    pub(super) endpoint: &'t mut Endpoint,
    pub(super) listener: &'t mpsc::UnboundedSender<ToListener>,
    pub(super) handle: &'t H,
    /// Where the listener listens.
    pub(super) address: SocketAddr,
    pub(super) counters: &'t Counters,
    pub(super) now: Instant,
}

impl<A: Fn(IpAddr) -> bool, H: Fn(&[u8], &Responder)> Work<A, H> {
    /// Without any connection, of the worker of this number.
    pub(super) fn new(
        (listener, worker, address): (Arc<QuicListener>, u16, SocketAddr),
        (table, counters): (Arc<Connections>, Arc<Counters>),
        pressure: Pressure,
        admits: A,
        handle: H,
    ) -> Self {
        let (to_us, told) = mpsc::unbounded_channel();
        Self {
            endpoint: listener.endpoint(worker),
            listener,
            worker,
            address,
            table,
            counters,
            admits,
            handle,
            to_us,
            told,
            slots: Vec::new(),
            by_handle: Vec::new(),
            free: Vec::new(),
            shaking: 0,
            lingering: 0,
            steps: VecDeque::new(),
            alarms: BTreeSet::new(),
            working: Vec::new(),
            sending: Vec::new(),
            with_parts: Vec::new(),
            out: SendBatch::new(BATCH, DATAGRAM),
            scratch: Vec::new(),
            pressure,
            is_ending: false,
            reads: true,
            has_taken: false,
        }
    }

    /// Whether something waits at the gate.
    pub(super) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// When a connection has to be looked at next.
    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Waits for datagrams and for what is told from outside.
    pub(super) fn poll_told(&mut self, sockets: &[Rc<Socket>], cx: &mut Context<'_>) -> Poll<()> {
        let mut is_ready = false;
        // The rest of what was told is taken when the connections work.
        if let Poll::Ready(Some(told)) = self.told.poll_recv(cx) {
            self.take_told(told, Instant::now());
            is_ready = true;
        }
        if self.reads {
            // One that has left the runtime is not waited for: then all of it ends.
            is_ready |= sockets.iter().any(|socket| matches!(socket.poll_readable(cx), Poll::Ready(Ok(()))));
        }
        let with_parts = mem::take(&mut self.with_parts);
        for slot in with_parts {
            let Some(connection) = self.slots[slot as usize].connection.as_mut() else { continue };
            if connection.poll_parts(&mut self.scratch, Instant::now(), cx) {
                is_ready = true;
                self.list_working(slot);
            }
            if self.slots[slot as usize].connection.as_ref().is_some_and(|connection| connection.has_parts()) {
                self.with_parts.push(slot);
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes what was received.
    pub(super) fn take_batch(&mut self, batch: &RecvBatch, now: Instant) {
        for datagram in (0..batch.len()).filter_map(|index| batch.datagram(index)) {
            match self.listener.destination(datagram.bytes) {
                Destination::Worker(worker) if worker != self.worker => {
                    // A number that no worker has is one of another process.
                    if !self.listener.pass_on(worker, datagram) {
                        self.counters.dropped(Dropped::Overload);
                    }
                }
                Destination::Worker(_) | Destination::Anybody => self.take(datagram, now),
                Destination::Foreign => {}
            }
        }
    }

    /// Takes what other workers have passed on; whether there may be more.
    pub(super) fn take_passed_on(&mut self, now: Instant) -> bool {
        let listener = Arc::clone(&self.listener);
        let Some(inbox) = listener.box_of(self.worker) else { return false };
        for _ in 0..BATCH {
            let Some(passed_on) = inbox.take() else { return false };
            let (bytes, peer, local) = (&*passed_on.octets, passed_on.peer, passed_on.local);
            self.take(Datagram { bytes, peer, local, is_truncated: false }, now);
        }
        true
    }

    /// Takes a datagram that is ours.
    fn take(&mut self, Datagram { bytes, peer, local, .. }: Datagram<'_>, now: Instant) {
        self.has_taken = true;
        let is_handshake = is_handshake(bytes);
        self.scratch.clear();
        let local_ip = local.map(|local| local.ip());
        let event = self.endpoint.handle(now, peer, local_ip, None, BytesMut::from(bytes), &mut self.scratch);
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, local),
            Some(DatagramEvent::NewConnection(incoming)) => self.take_new(incoming, local),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(&slot) = self.by_handle.get(handle.0) else { return };
                let Slot { generation, connection: Some(connection) } = &mut self.slots[slot as usize] else { return };
                connection.local = local;
                let is_shaking = connection.quic.is_handshaking();
                if is_shaking && (is_handshake || connection.steps > 0) {
                    // Beyond what so many clients send at once, it is lost, and sent again.
                    if self.steps.len() < MAX_STEPS {
                        connection.steps += 1;
                        self.steps.push_back(Step::Datagram(number(*generation, slot), Box::new(event)));
                    }
                    return;
                }
                connection.quic.handle_event(event);
                self.list_working(slot);
            }
        }
    }

    /// A client that wants to connect.
    fn take_new(&mut self, incoming: Incoming, local: Option<LocalAddress>) {
        // Anybody can send that from any address, so nobody is told.
        if !(self.admits)(incoming.remote_address().ip()) {
            return self.endpoint.ignore(incoming);
        }
        let waiting = self.steps.len() + self.shaking;
        if self.is_ending || waiting >= MAX_WAITING {
            return self.refuse(incoming, local);
        }
        if waiting >= RETRY_AT && !incoming.remote_address_validated() && incoming.may_retry() {
            self.scratch.clear();
            match self.endpoint.retry(incoming, &mut self.scratch) {
                Ok(transmit) => self.answer(&transmit, local),
                Err(error) => self.refuse(error.into_incoming(), local),
            }
            return;
        }
        self.steps.push_back(Step::Accept(Box::new(incoming), local));
    }

    /// Tells a client that it may not connect.
    fn refuse(&mut self, incoming: Incoming, local: Option<LocalAddress>) {
        self.scratch.clear();
        let transmit = self.endpoint.refuse(incoming, &mut self.scratch);
        self.answer(&transmit, local);
        self.counters.connections.fate(Transport::Quic, ConnectionFate::Refused);
        if !self.is_ending {
            self.counters.dropped(Dropped::Overload);
        }
    }

    /// Queues what the endpoint itself answers; what does not fit into a batch is lost, as on any way.
    fn answer(&mut self, transmit: &Transmit, local: Option<LocalAddress>) {
        if !self.out.is_full() {
            let octets = self.scratch.get(..transmit.size).unwrap_or_default();
            self.out.push(Some(transmit.destination), local, |out| out.extend_from_slice(octets));
        }
    }

    /// Makes one step of a handshake, which costs crypto.
    pub(super) fn make_step(&mut self, now: Instant) {
        // One whose connection is over costs nothing.
        while let Some(step) = self.steps.pop_front() {
            let is_made = match step {
                Step::Accept(incoming, local) => self.accept(*incoming, local, now),
                Step::Datagram(number, event) => self.step_on(number, *event),
            };
            if is_made {
                return;
            }
        }
    }

    /// Lets a client in, if it may; whether that took a step.
    fn accept(&mut self, incoming: Incoming, local: Option<LocalAddress>, now: Instant) -> bool {
        let peer: SocketAddr = incoming.remote_address();
        let slot = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(slot as usize).map_or(0, |slot| slot.generation).wrapping_add(1);
        let number = number(generation, slot);
        let may_shake = !self.is_ending && self.table.admits_handshake(peer.ip(), now);
        let wake = Wake::Listener(self.to_us.clone(), number);
        let Some(place) = may_shake.then(|| self.table.enter_as(peer.ip(), wake, now)).flatten() else {
            self.refuse(incoming, local);
            return false;
        };
        self.counters.connections.fate(Transport::Quic, ConnectionFate::Accepted);
        let config = self.listener.config(&place.rules);
        self.scratch.clear();
        resumption::take();
        match self.endpoint.accept(incoming, now, &mut self.scratch, Some(config)) {
            Ok(made) => {
                let handle: ConnectionHandle = made.0;
                let mut connection = Connection::new(made, number, place, &self.counters, local, now);
                connection.is_resumed = resumption::take();
                match self.free.pop() {
                    Some(_) => {}
                    None => self.slots.push(Slot::default()),
                }
                self.slots[slot as usize] = Slot { generation, connection: Some(Box::new(connection)) };
                if self.by_handle.len() <= handle.0 {
                    self.by_handle.resize(handle.0 + 1, u32::MAX);
                }
                self.by_handle[handle.0] = slot;
                self.shaking += 1;
                self.list_working(slot);
            }
            Err(error) => {
                tracing::trace!(error = %error.cause, "a handshake came to nothing");
                self.counters.connections.fate(Transport::Quic, ConnectionFate::HandshakeFailed);
                if let Some(transmit) = error.response {
                    self.answer(&transmit, local);
                }
            }
        }
        true
    }

    /// Hands a datagram of a handshake to its connection; whether that is there still.
    fn step_on(&mut self, number: u64, event: ConnectionEvent) -> bool {
        let Some((slot, connection)) = self.find(number) else { return false };
        connection.steps -= 1;
        resumption::take();
        connection.quic.handle_event(event);
        connection.is_resumed |= resumption::take();
        self.list_working(slot);
        true
    }

    /// What was told from outside.
    fn take_told(&mut self, told: ToListener, now: Instant) {
        match told {
            ToListener::Respond { connection, stream, response } => {
                let mut scratch = mem::take(&mut self.scratch);
                if let Some((slot, connection)) = self.find(connection) {
                    connection.respond(stream, response, &mut scratch, now);
                    self.list_working(slot);
                }
                self.scratch = scratch;
            }
            ToListener::Close(connection) => {
                if let Some((slot, connection)) = self.find(connection) {
                    let closed = connection.pushed_out();
                    self.close(slot, closed, now);
                }
            }
        }
    }

    /// Looks at those connections whose time has come.
    pub(super) fn fire(&mut self, now: Instant) {
        while let Some(&(at, slot)) = self.alarms.first() {
            if at > now {
                break;
            }
            self.alarms.pop_first();
            let Some(connection) = self.slots[slot as usize].connection.as_mut() else { continue };
            connection.alarm = None;
            let result = connection.on_alarm(self.pressure, &self.counters, now);
            self.list_working(slot);
            if let Err(closed) = result {
                self.close(slot, closed, now);
            }
        }
    }

    /// All connections do what there is to do, and responses that have come are written; whether there is more.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        for _ in 0..ROUNDS {
            while let Ok(told) = self.told.try_recv() {
                self.take_told(told, now);
            }
            if self.working.is_empty() {
                return false;
            }
            let mut working = mem::take(&mut self.working);
            for slot in working.drain(..) {
                self.work_on(slot, now);
            }
            // Its room is used again.
            if self.working.is_empty() {
                self.working = working;
            }
        }
        !self.working.is_empty() || !self.told.is_empty()
    }

    /// One connection does what there is to do.
    fn work_on(&mut self, slot: u32, now: Instant) {
        let Some(mut connection) = self.slots[slot as usize].connection.take() else { return };
        connection.has_work = false;
        let was_open = connection.is_open();
        let mut tools = Tools {
            endpoint: &mut self.endpoint,
            listener: &self.to_us,
            handle: &self.handle,
            address: self.address,
            counters: &self.counters,
            now,
        };
        let (is_drained, result) = connection.work(&mut tools);
        if let Err(closed) = result {
            connection.close(closed, now);
        }
        self.count(&mut connection, was_open);
        if connection.has_parts() && !self.with_parts.contains(&slot) {
            self.with_parts.push(slot);
        }
        self.slots[slot as usize].connection = Some(connection);
        if is_drained {
            return self.remove(slot);
        }
        self.list_sending(slot);
    }

    /// Counts a connection that may be over since, or whose handshake may be complete.
    fn count(&mut self, connection: &mut Connection, was_open: bool) {
        if was_open && !connection.is_open() {
            self.lingering += 1;
        }
        if connection.is_shaking && !(connection.is_open() && connection.quic.is_handshaking()) {
            connection.is_shaking = false;
            self.shaking -= 1;
        }
    }

    /// Closes a connection.
    fn close(&mut self, slot: u32, closed: Closed, now: Instant) {
        let Some(mut connection) = self.slots[slot as usize].connection.take() else { return };
        let was_open = connection.is_open();
        connection.close(closed, now);
        self.count(&mut connection, was_open);
        self.slots[slot as usize].connection = Some(connection);
        self.list_working(slot);
        self.list_sending(slot);
    }

    /// Forgets a connection that QUIC has done with.
    fn remove(&mut self, slot: u32) {
        let Some(mut connection) = self.slots[slot as usize].connection.take() else { return };
        // It may have lost its place by that alone.
        let was_open = connection.is_open();
        connection.give_up_place();
        self.count(&mut connection, was_open);
        self.lingering -= 1;
        if let Some(at) = connection.alarm {
            self.alarms.remove(&(at, slot));
        }
        self.free.push(slot);
    }

    /// Sends what connections have to say; whether there is more.
    pub(super) fn send(&mut self, sockets: &[Rc<Socket>], now: Instant) -> bool {
        let Some(socket) = sockets.first() else { return false };
        let mut sending = mem::take(&mut self.sending);
        let mut unfinished = Vec::new();
        for slot in sending.drain(..) {
            let Some(connection) = self.slots[slot as usize].connection.as_mut() else { continue };
            connection.is_sending = false;
            let local = connection.local;
            let mut has_more = true;
            for _ in 0..MAX_BURST {
                if self.out.is_full() {
                    // What the kernel does not take is lost, as on any way, and sent again by QUIC.
                    self.out.flush(socket, |_, _| {});
                }
                let quic = &mut connection.quic;
                let to_send =
                    |out: &mut Vec<u8>| quic.poll_transmit(now, 1, out).map(|transmit| (transmit.destination, local));
                if !self.out.push_addressed(to_send) {
                    has_more = false;
                    break;
                }
            }
            if has_more {
                unfinished.push(slot);
            } else if !connection.is_open() && self.lingering > MAX_LINGERING {
                // It is told; what comes of it yet is answered by a stateless reset (RFC 9000 section 10.2.1 lets us).
                self.endpoint.handle_event(connection.handle, EndpointEvent::drained());
                self.remove(slot);
                continue;
            }
            self.set_alarm(slot);
        }
        self.sending = sending;
        let has_more = !unfinished.is_empty();
        unfinished.into_iter().for_each(|slot| self.list_sending(slot));
        self.out.flush(socket, |_, _| {});
        has_more
    }

    /// No more queries are taken, and nobody is let in.
    pub(super) fn end(&mut self, now: Instant) {
        self.is_ending = true;
        for step in mem::take(&mut self.steps) {
            match step {
                Step::Accept(incoming, local) => self.refuse(*incoming, local),
                // Handshakes that are under way end.
                Step::Datagram(..) => {}
            }
        }
        for slot in 0..self.slots.len() as u32 {
            if let Some(connection) = self.slots[slot as usize].connection.as_mut() {
                connection.end_queries();
                self.list_working(slot);
            }
        }
        self.settle(now);
    }

    /// Closes the connections that have nothing left to do.
    pub(super) fn close_finished(&mut self, now: Instant) {
        for slot in 0..self.slots.len() as u32 {
            let Some(connection) = &self.slots[slot as usize].connection else { continue };
            if connection.is_open() && (connection.quic.is_handshaking() || connection.is_finished(self.reads, now)) {
                self.close(slot, Closed { code: Code::NoError, reason: "this server ends" }, now);
            }
        }
    }

    /// Whether no connection has its place still.
    pub(super) fn has_none_open(&self) -> bool {
        !self.slots.iter().flat_map(|slot| &slot.connection).any(|connection| connection.is_open())
    }

    /// The table is fuller or emptier, and idle times are others.
    pub(super) fn look_at_all(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            self.set_alarm(slot);
        }
    }

    /// Has a connection looked at when it is due.
    fn set_alarm(&mut self, slot: u32) {
        let Some(connection) = self.slots[slot as usize].connection.as_mut() else { return };
        let Some(due) = connection.due(self.pressure) else { return };
        match connection.alarm {
            // Too early is no harm: then it is looked at for nothing, and its next time is found.
            Some(at) if at <= due => return,
            Some(at) => drop(self.alarms.remove(&(at, slot))),
            None => {}
        }
        self.alarms.insert((due, slot));
        connection.alarm = Some(due);
    }

    fn list_working(&mut self, slot: u32) {
        if let Some(connection) = self.slots[slot as usize].connection.as_mut()
            && !mem::replace(&mut connection.has_work, true)
        {
            self.working.push(slot);
        }
    }

    fn list_sending(&mut self, slot: u32) {
        if let Some(connection) = self.slots[slot as usize].connection.as_mut()
            && !mem::replace(&mut connection.is_sending, true)
        {
            self.sending.push(slot);
        }
    }

    /// The connection of this number, if it is there still, and its slot.
    fn find(&mut self, number: u64) -> Option<(u32, &mut Connection)> {
        let (slot, generation) = (number as u32, (number >> 32) as u32);
        let place = self.slots.get_mut(slot as usize).filter(|place| place.generation == generation)?;
        place.connection.as_deref_mut().map(|connection| (slot, connection))
    }
}

/// The number that leads back to a connection.
fn number(generation: u32, slot: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// Whether a datagram begins with a part of a handshake: Initial or Handshake (RFC 9000 section 17.2).
fn is_handshake(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| matches!(first & 0xb0, 0x80 | 0xa0))
}

/// Handshakes that wait, from which on clients have to show that their address is theirs (RFC 9000 section 8.1.2).
const RETRY_AT: usize = 32;

/// What waits at the gate at most: the Initials of [`MAX_WAITING`] clients, and what these send.
const MAX_STEPS: usize = 4 * MAX_WAITING;

/// Connections that are over, and that QUIC keeps for three times its patience with what is lost, so that it can repeat why.
const MAX_LINGERING: usize = 1024;

/// Rounds in which connections work that one turn has at most.
const ROUNDS: u32 = 4;

/// Datagrams of one connection that leave in one turn at most.
const MAX_BURST: usize = 64;

/// Octets of a datagram, for which there is room from the begin.
const DATAGRAM: usize = 1452;
