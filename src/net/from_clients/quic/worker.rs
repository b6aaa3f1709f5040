//! The QUIC connections of one worker, the endpoint with their IDs, and the handshake steps at the gate.
//! `serve.rs` calls this in each turn.

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

use super::connection::QuicServerConnection;
use super::connection_id::DatagramDestination;
use super::listener::{MAX_WAITING, QuicListener};
use super::resumption;
use super::stream::{Code, ConnectionClose};
use crate::limit::TableFullness;
use crate::metrics::{ConnectionFate, Counters, DropReason};
use crate::net::from_clients::tcp::{ConnectionTable, Responder, ToListener, Wake};
use crate::net::from_clients::udp::ListenerSocket;
use crate::net::sys::batch::{BATCH, Datagram, LocalAddress, RecvBatch, ReplyPath, SendBatch};
use crate::wire::Transport;

pub(super) struct QuicWorker<A, H> {
    endpoint: Endpoint,
    listener: Arc<QuicListener>,
    worker: u16,
    address: SocketAddr,
    table: Arc<ConnectionTable>,
    pub(super) counters: Arc<Counters>,
    admits: A,
    handle: H,
    to_us: mpsc::UnboundedSender<ToListener>,
    orders: mpsc::UnboundedReceiver<ToListener>,
    slots: Vec<QuicSlot>,
    by_handle: Vec<u32>,
    free: Vec<u32>,
    shaking: usize,
    lingering: usize,
    steps: VecDeque<HandshakeStep>,
    alarms: BTreeSet<(Instant, u32)>,
    working: Vec<u32>,
    sending: Vec<u32>,
    with_parts: Vec<u32>,
    out: SendBatch,
    scratch: Vec<u8>,
    pub(super) pressure: TableFullness,
    pub(super) is_ending: bool,
    pub(super) reads: bool,
    pub(super) has_taken: bool,
}

#[derive(Default)]
struct QuicSlot {
    generation: u32,
    connection: Option<Box<QuicServerConnection>>,
}

enum HandshakeStep {
    /// The Initial of a client.
    Accept(Box<Incoming>, Option<LocalAddress>),
    /// A datagram of a handshake.
    Datagram(u64, Box<ConnectionEvent>),
}

pub(super) struct Tools<'t, H> {
    pub(super) endpoint: &'t mut Endpoint,
    pub(super) listener: &'t mpsc::UnboundedSender<ToListener>,
    pub(super) handle: &'t H,
    pub(super) address: SocketAddr,
    pub(super) counters: &'t Counters,
    pub(super) now: Instant,
}

impl<A: Fn(IpAddr) -> bool, H: Fn(&[u8], &Responder)> QuicWorker<A, H> {
    pub(super) fn new(
        (listener, worker, address): (Arc<QuicListener>, u16, SocketAddr),
        (table, counters): (Arc<ConnectionTable>, Arc<Counters>),
        pressure: TableFullness,
        admits: A,
        handle: H,
    ) -> Self {
        let (to_us, orders) = mpsc::unbounded_channel();
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
            orders,
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

    pub(super) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    pub(super) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    pub(super) fn poll_orders(&mut self, sockets: &[Rc<ListenerSocket>], cx: &mut Context<'_>) -> Poll<()> {
        let mut is_ready = false;
        // The remaining messages are taken when the connections work.
        if let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            self.take_order(order, Instant::now());
            is_ready = true;
        }
        if self.reads {
            // A socket that has left the runtime does not count; the loop then ends.
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

    pub(super) fn take_batch(&mut self, batch: &RecvBatch, now: Instant) {
        for datagram in (0..batch.len()).filter_map(|index| batch.datagram(index)) {
            match self.listener.destination(datagram.bytes) {
                DatagramDestination::Worker(worker) if worker != self.worker => {
                    // The number of a worker that does not exist comes from another process.
                    if !self.listener.pass_on(worker, datagram) {
                        self.counters.dropped(DropReason::Overload);
                    }
                }
                DatagramDestination::Worker(_) | DatagramDestination::Anybody => self.take(datagram, now),
                DatagramDestination::Foreign => {}
            }
        }
    }

    /// Handles datagrams that other workers passed on. Returns true if there may be more.
    pub(super) fn take_passed_on(&mut self, now: Instant) -> bool {
        let listener = Arc::clone(&self.listener);
        let Some(inbox) = listener.box_of(self.worker) else { return false };
        for _ in 0..BATCH {
            let Some(passed_on) = inbox.take() else { return false };
            let (bytes, peer, path) = (&*passed_on.octets, passed_on.peer, ReplyPath::by_socket(passed_on.local));
            self.take(Datagram { bytes, peer, path, is_truncated: false }, now);
        }
        true
    }

    fn take(&mut self, Datagram { bytes, peer, path, .. }: Datagram<'_>, now: Instant) {
        let local = path.local();
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
                let QuicSlot { generation, connection: Some(connection) } = &mut self.slots[slot as usize] else {
                    return;
                };
                connection.local = local;
                let is_shaking = connection.quic.is_handshaking();
                if is_shaking && (is_handshake || connection.steps > 0) {
                    // Above this limit the datagram is dropped, and QUIC resends it.
                    if self.steps.len() < MAX_STEPS {
                        connection.steps += 1;
                        self.steps.push_back(HandshakeStep::Datagram(number(*generation, slot), Box::new(event)));
                    }
                    return;
                }
                connection.quic.handle_event(event);
                self.list_working(slot);
            }
        }
    }

    fn take_new(&mut self, incoming: Incoming, local: Option<LocalAddress>) {
        // Sent without a reply, because the source address may be forged.
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
        self.steps.push_back(HandshakeStep::Accept(Box::new(incoming), local));
    }

    fn refuse(&mut self, incoming: Incoming, local: Option<LocalAddress>) {
        self.scratch.clear();
        let transmit = self.endpoint.refuse(incoming, &mut self.scratch);
        self.answer(&transmit, local);
        self.counters.connections.fate(Transport::Quic, ConnectionFate::Refused);
        if !self.is_ending {
            self.counters.dropped(DropReason::Overload);
        }
    }

    fn answer(&mut self, transmit: &Transmit, local: Option<LocalAddress>) {
        if !self.out.is_full() {
            let octets = self.scratch.get(..transmit.size).unwrap_or_default();
            self.out.push(Some(transmit.destination), local, |out| out.extend_from_slice(octets));
        }
    }

    pub(super) fn make_step(&mut self, now: Instant) {
        // A step of a closed connection costs nothing, so continue with the next.
        while let Some(step) = self.steps.pop_front() {
            let is_made = match step {
                HandshakeStep::Accept(incoming, local) => self.accept(*incoming, local, now),
                HandshakeStep::Datagram(number, event) => self.step_on(number, *event),
            };
            if is_made {
                return;
            }
        }
    }

    /// Accepts a client if the limits allow it. Returns true if that took a step.
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
                let mut connection = QuicServerConnection::new(made, number, place, &self.counters, local, now);
                connection.is_resumed = resumption::take();
                match self.free.pop() {
                    Some(_) => {}
                    None => self.slots.push(QuicSlot::default()),
                }
                self.slots[slot as usize] = QuicSlot { generation, connection: Some(Box::new(connection)) };
                if self.by_handle.len() <= handle.0 {
                    self.by_handle.resize(handle.0 + 1, u32::MAX);
                }
                self.by_handle[handle.0] = slot;
                self.shaking += 1;
                self.list_working(slot);
            }
            Err(error) => {
                tracing::trace!(error = %error.cause, "a handshake failed");
                self.counters.connections.fate(Transport::Quic, ConnectionFate::HandshakeFailed);
                if let Some(transmit) = error.response {
                    self.answer(&transmit, local);
                }
            }
        }
        true
    }

    fn step_on(&mut self, number: u64, event: ConnectionEvent) -> bool {
        let Some((slot, connection)) = self.find(number) else { return false };
        connection.steps -= 1;
        resumption::take();
        connection.quic.handle_event(event);
        connection.is_resumed |= resumption::take();
        self.list_working(slot);
        true
    }

    fn take_order(&mut self, order: ToListener, now: Instant) {
        match order {
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

    /// Lets all connections work and writes responses. Returns true if there is more to do.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        for _ in 0..ROUNDS {
            while let Ok(order) = self.orders.try_recv() {
                self.take_order(order, now);
            }
            if self.working.is_empty() {
                return false;
            }
            let mut working = mem::take(&mut self.working);
            for slot in working.drain(..) {
                self.work_on(slot, now);
            }
            if self.working.is_empty() {
                self.working = working;
            }
        }
        !self.working.is_empty() || !self.orders.is_empty()
    }

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

    fn count(&mut self, connection: &mut QuicServerConnection, was_open: bool) {
        if was_open && !connection.is_open() {
            self.lingering += 1;
        }
        if connection.is_shaking && !(connection.is_open() && connection.quic.is_handshaking()) {
            connection.is_shaking = false;
            self.shaking -= 1;
        }
    }

    fn close(&mut self, slot: u32, closed: ConnectionClose, now: Instant) {
        let Some(mut connection) = self.slots[slot as usize].connection.take() else { return };
        let was_open = connection.is_open();
        connection.close(closed, now);
        self.count(&mut connection, was_open);
        self.slots[slot as usize].connection = Some(connection);
        self.list_working(slot);
        self.list_sending(slot);
    }

    fn remove(&mut self, slot: u32) {
        let Some(mut connection) = self.slots[slot as usize].connection.take() else { return };
        // The drain alone may have freed its place.
        let was_open = connection.is_open();
        connection.give_up_place();
        self.count(&mut connection, was_open);
        self.lingering -= 1;
        if let Some(at) = connection.alarm {
            self.alarms.remove(&(at, slot));
        }
        self.free.push(slot);
    }

    pub(super) fn send(&mut self, sockets: &[Rc<ListenerSocket>], now: Instant) -> bool {
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
                    // QUIC resends what the kernel does not accept.
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
                // Deviation: RFC 9000 section 10.2 says that a server should keep closed connections for
                // three probe timeouts. This bounds their memory; later datagrams get a stateless reset.
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

    pub(super) fn end(&mut self, now: Instant) {
        self.is_ending = true;
        for step in mem::take(&mut self.steps) {
            match step {
                HandshakeStep::Accept(incoming, local) => self.refuse(*incoming, local),
                HandshakeStep::Datagram(..) => {}
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

    pub(super) fn close_finished(&mut self, now: Instant) {
        for slot in 0..self.slots.len() as u32 {
            let Some(connection) = &self.slots[slot as usize].connection else { continue };
            if connection.is_open() && (connection.quic.is_handshaking() || connection.is_finished(self.reads, now)) {
                self.close(slot, ConnectionClose { code: Code::NoError, reason: "this server ends" }, now);
            }
        }
    }

    pub(super) fn has_none_open(&self) -> bool {
        !self.slots.iter().flat_map(|slot| &slot.connection).any(|connection| connection.is_open())
    }

    pub(super) fn look_at_all(&mut self) {
        for slot in 0..self.slots.len() as u32 {
            self.set_alarm(slot);
        }
    }

    fn set_alarm(&mut self, slot: u32) {
        let Some(connection) = self.slots[slot as usize].connection.as_mut() else { return };
        let Some(due) = connection.due(self.pressure) else { return };
        match connection.alarm {
            // An early alarm is harmless: it only finds the next time.
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

    fn find(&mut self, number: u64) -> Option<(u32, &mut QuicServerConnection)> {
        let (slot, generation) = (number as u32, (number >> 32) as u32);
        let place = self.slots.get_mut(slot as usize).filter(|place| place.generation == generation)?;
        place.connection.as_deref_mut().map(|connection| (slot, connection))
    }
}

fn number(generation: u32, slot: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

/// Returns true if a datagram begins with an Initial or Handshake header (RFC 9000 section 17.2).
fn is_handshake(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| matches!(first & 0xb0, 0x80 | 0xa0))
}

/// The number of pending handshakes from which clients have to validate their address (RFC 9000 section
/// 8.1.2).
const RETRY_AT: usize = 32;

/// The limit of steps at the gate: the Initials of [`MAX_WAITING`] clients, and their further datagrams.
const MAX_STEPS: usize = 4 * MAX_WAITING;

/// The number of closed connections that may stay for three probe timeouts (RFC 9000 section 10.2).
const MAX_LINGERING: usize = 1024;

const ROUNDS: u32 = 4;

const MAX_BURST: usize = 64;

const DATAGRAM: usize = 1452;
