//! One worker's part of a QUIC listener: the endpoint, its connections, and the handshake steps at the gate.
//! `serve.rs` calls this in each turn.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use dns::Transport;
use limit::TableFullness;
use metrics::{ConnectionFate, Counters, DropReason};
use quinn_proto::{ConnectionEvent, DatagramEvent, Endpoint, EndpointEvent, Incoming, Transmit};
use tokio::sync::mpsc;

use super::connection::QuicServerConnection;
use super::connection_id::DatagramDestination;
use super::connections::QuicConnections;
use super::listener::{MAX_WAITING, QuicListener};
use super::resumption;
use super::streams::{Code, ConnectionClose};
use crate::from_clients::service::ConnectionService;
use crate::from_clients::tcp::{Responder, ToListener, Wake};
use crate::from_clients::udp::ListenerSocket;
use crate::sys::batch::{BATCH, Datagram, LocalAddress, RecvBatch, ReplyPath, SendBatch};
use crate::sys::busy_poll::BusyPoll;

pub(super) struct QuicWorker {
    endpoint: Endpoint,
    service: ConnectionService,
    listener: Arc<QuicListener>,
    /// The number of the worker.
    worker: u16,
    to_us: mpsc::UnboundedSender<ToListener>,
    orders: mpsc::UnboundedReceiver<ToListener>,
    pub(super) connections: QuicConnections,
    steps: VecDeque<HandshakeStep>,
    out: SendBatch,
    scratch: Vec<u8>,
    pressure: TableFullness,
    pub(super) intake: Intake,
}

/// The datagrams that a worker's part takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intake {
    All,
    /// Those of open connections; no new client and no further query.
    Known,
    Nothing,
}

enum HandshakeStep {
    /// The Initial of a client.
    Accept(Box<Incoming>, Option<LocalAddress>),
    /// A datagram of a handshake.
    Datagram(u64, Box<ConnectionEvent>),
}

pub(super) struct Tools<'t> {
    pub(super) endpoint: &'t mut Endpoint,
    pub(super) listener: &'t mpsc::UnboundedSender<ToListener>,
    pub(super) handle: &'t dyn Fn(&[u8], &Responder),
    /// The address that the client has sent to.
    pub(super) address: SocketAddr,
    pub(super) counters: &'t Counters,
    pub(super) now: Instant,
}

impl QuicWorker {
    pub(super) fn new(service: ConnectionService, listener: Arc<QuicListener>, worker: u16) -> Self {
        let (to_us, orders) = mpsc::unbounded_channel();
        Self {
            endpoint: listener.endpoint(worker),
            service,
            listener,
            worker,
            to_us,
            orders,
            connections: QuicConnections::default(),
            steps: VecDeque::new(),
            out: SendBatch::new(BATCH, DATAGRAM),
            scratch: Vec::new(),
            pressure: TableFullness::default(),
            intake: Intake::All,
        }
    }

    pub(super) fn set_pressure(&mut self, pressure: TableFullness) {
        if self.pressure != pressure {
            self.pressure = pressure;
            self.connections.set_all_alarms(pressure);
        }
    }

    pub(super) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    pub(super) fn poll_orders(&mut self, sockets: &[Rc<ListenerSocket>], cx: &mut Context<'_>) -> Poll<()> {
        let mut is_ready = false;
        // The remaining messages are taken when the connections work.
        if let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            self.take_order(order, Instant::now());
            is_ready = true;
        }
        if self.intake != Intake::Nothing {
            // A socket that has left the runtime does not count; the loop then ends.
            is_ready |= sockets.iter().any(|socket| matches!(socket.poll_readable(cx), Poll::Ready(Ok(()))));
        }
        is_ready |= self.connections.poll_parts(&mut self.scratch, cx).is_ready();
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Runs a step at the gate if it is our turn, then alarms, connections and output. Returns true if there
    /// is more to do.
    pub(super) fn turn(&mut self, sockets: &[Rc<ListenerSocket>], is_our_turn: bool, now: Instant) -> bool {
        if is_our_turn {
            self.make_step(now);
        }
        self.fire(now);
        let has_more = self.settle(now);
        self.send(sockets, now) | has_more
    }

    /// Takes the received datagrams while this part reads. Returns true if there may be more.
    pub(super) fn receive(
        &mut self,
        sockets: &[Rc<ListenerSocket>],
        batch: &mut RecvBatch,
        busy_poll: &mut BusyPoll,
        now: Instant,
    ) -> bool {
        let mut has_more = false;
        if self.intake == Intake::Nothing {
            return false;
        }
        for socket in sockets {
            has_more |= socket.receive(batch, |batch| {
                busy_poll.renew();
                self.take_batch(batch, now);
            });
            self.service.counters.dropped_many(DropReason::Overload, socket.take_dropped());
        }
        has_more | self.take_passed_on(now)
    }

    fn take_batch(&mut self, batch: &RecvBatch, now: Instant) {
        for datagram in (0..batch.len()).filter_map(|index| batch.datagram(index)) {
            match self.listener.destination(datagram.bytes) {
                DatagramDestination::Worker(worker) if worker != self.worker => {
                    // The number of a worker that does not exist comes from another process.
                    if !self.listener.pass_on(worker, datagram) {
                        self.service.counters.dropped(DropReason::Overload);
                    }
                }
                DatagramDestination::Worker(_) | DatagramDestination::Anybody => self.take(datagram, now),
                DatagramDestination::Foreign => {}
            }
        }
    }

    /// Handles datagrams that other workers passed on. Returns true if there may be more.
    fn take_passed_on(&mut self, now: Instant) -> bool {
        let listener = Arc::clone(&self.listener);
        let Some(inbox) = listener.box_of(self.worker) else { return false };
        for _ in 0..BATCH {
            let Some(passed_on) = inbox.waiting.pop() else { return false };
            let (bytes, peer, path) = (&*passed_on.octets, passed_on.peer, ReplyPath::by_socket(passed_on.local));
            self.take(Datagram { bytes, peer, path, is_truncated: false }, now);
        }
        true
    }

    fn take(&mut self, Datagram { bytes, peer, path, .. }: Datagram<'_>, now: Instant) {
        let local = path.local();
        let is_handshake = is_handshake(bytes);
        self.scratch.clear();
        let local_ip = local.map(|local| local.ip());
        let event = self.endpoint.handle(now, peer, local_ip, None, BytesMut::from(bytes), &mut self.scratch);
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, local),
            Some(DatagramEvent::NewConnection(incoming)) => self.take_new(incoming, local),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some((number, connection)) = self.connections.of_handle(handle) else { return };
                connection.local = local;
                let is_shaking = connection.quic.is_handshaking();
                if is_shaking && (is_handshake || connection.steps > 0) {
                    // Above this limit the datagram is dropped, and QUIC resends it.
                    if self.steps.len() < MAX_STEPS {
                        connection.steps += 1;
                        self.steps.push_back(HandshakeStep::Datagram(number, Box::new(event)));
                    }
                    return;
                }
                connection.quic.handle_event(event);
                self.connections.list_working(number as u32);
            }
        }
    }

    fn take_new(&mut self, incoming: Incoming, local: Option<LocalAddress>) {
        // Sent without a reply, because the source address may be forged.
        if !(self.service.admits)(incoming.remote_address().ip()) {
            return self.endpoint.ignore(incoming);
        }
        let waiting = self.steps.len() + self.connections.shaking;
        if self.intake != Intake::All || waiting >= MAX_WAITING {
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
        self.service.counters.connections.fate(Transport::Quic, ConnectionFate::Refused);
        if self.intake == Intake::All {
            self.service.counters.dropped(DropReason::Overload);
        }
    }

    fn answer(&mut self, transmit: &Transmit, local: Option<LocalAddress>) {
        if !self.out.is_full() {
            let octets = self.scratch.get(..transmit.size).unwrap_or_default();
            self.out.push(Some(transmit.destination), local, |out| out.extend_from_slice(octets));
        }
    }

    fn make_step(&mut self, now: Instant) {
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
        let number = self.connections.next_number();
        let may_shake = self.intake == Intake::All && self.service.table.admits_handshake(peer.ip(), now);
        let wake = Wake::Listener(self.to_us.clone(), number);
        let Some(place) = may_shake.then(|| self.service.table.enter_as(peer.ip(), wake, now)).flatten() else {
            self.refuse(incoming, local);
            return false;
        };
        self.service.counters.connections.fate(Transport::Quic, ConnectionFate::Accepted);
        let config = self.listener.config(&place.rules);
        self.scratch.clear();
        resumption::take();
        match self.endpoint.accept(incoming, now, &mut self.scratch, Some(config)) {
            Ok(made) => {
                let counters = &self.service.counters;
                let mut connection = QuicServerConnection::new(made, number, place, counters, local, now);
                connection.is_resumed = resumption::take();
                self.connections.insert(number, connection);
            }
            Err(error) => {
                tracing::trace!(error = %error.cause, "a handshake failed");
                self.service.counters.connections.fate(Transport::Quic, ConnectionFate::HandshakeFailed);
                if let Some(transmit) = error.response {
                    self.answer(&transmit, local);
                }
            }
        }
        true
    }

    fn step_on(&mut self, number: u64, event: ConnectionEvent) -> bool {
        let Some((slot, connection)) = self.connections.find(number) else { return false };
        connection.steps -= 1;
        resumption::take();
        connection.quic.handle_event(event);
        connection.is_resumed |= resumption::take();
        self.connections.list_working(slot);
        true
    }

    fn take_order(&mut self, order: ToListener, now: Instant) {
        match order {
            ToListener::Respond { connection, stream, response } => {
                if let Some((slot, connection)) = self.connections.find(connection) {
                    if let Some(open) = &mut connection.open {
                        open.respond(&mut connection.quic, stream, response, &mut self.scratch, now);
                    }
                    self.connections.list_working(slot);
                }
            }
            ToListener::Close(connection) => {
                if let Some((slot, connection)) = self.connections.find(connection) {
                    let closed = connection.pushed_out();
                    self.connections.close(slot, closed, now);
                }
            }
        }
    }

    fn fire(&mut self, now: Instant) {
        while let Some((slot, connection)) = self.connections.next_due(now) {
            let result = connection.on_alarm(self.pressure, now);
            self.connections.list_working(slot);
            if let Err(closed) = result {
                self.connections.close(slot, closed, now);
            }
        }
    }

    /// Lets all connections work and writes responses. Returns true if there is more to do.
    fn settle(&mut self, now: Instant) -> bool {
        for _ in 0..ROUNDS {
            while let Ok(order) = self.orders.try_recv() {
                self.take_order(order, now);
            }
            if self.connections.working.is_empty() {
                return false;
            }
            for _ in 0..self.connections.working.len() {
                let Some(slot) = self.connections.working.pop_front() else { break };
                self.work_on(slot, now);
            }
        }
        !self.connections.working.is_empty() || !self.orders.is_empty()
    }

    fn work_on(&mut self, slot: u32, now: Instant) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        connection.has_work = false;
        let mut address = self.service.address.socket;
        if let Some(local) = connection.local {
            address.set_ip(local.ip());
        }
        let mut tools = Tools {
            endpoint: &mut self.endpoint,
            listener: &self.to_us,
            handle: &*self.service.handle,
            address,
            counters: &self.service.counters,
            now,
        };
        let (is_drained, result) = connection.work(&mut tools);
        if let Err(closed) = result {
            connection.close(closed, now);
        }
        self.connections.count(slot);
        if is_drained {
            return self.connections.remove(slot);
        }
        self.connections.list_sending(slot);
    }

    fn send(&mut self, sockets: &[Rc<ListenerSocket>], now: Instant) -> bool {
        let Some(socket) = sockets.first() else { return false };
        for _ in 0..self.connections.sending.len() {
            let Some(slot) = self.connections.sending.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(slot) else { continue };
            connection.is_sending = false;
            let (handle, local) = (connection.handle, connection.local);
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
                self.connections.list_sending(slot);
            } else if self.connections.is_surplus(slot) {
                // Deviation: RFC 9000 section 10.2 says that a server should keep closed connections for
                // three probe timeouts. This bounds their memory; later datagrams get a stateless reset.
                self.endpoint.handle_event(handle, EndpointEvent::drained());
                self.connections.remove(slot);
                continue;
            }
            self.connections.set_alarm(slot, self.pressure);
        }
        self.out.flush(socket, |_, _| {});
        !self.connections.sending.is_empty()
    }

    /// Answers what has arrived by now, and takes no more clients and queries. Does so once.
    pub(super) fn end(&mut self, sockets: &[Rc<ListenerSocket>], now: Instant) {
        if self.intake != Intake::All {
            return;
        }
        // Datagrams that have arrived by now can only be read here.
        for socket in sockets {
            socket.receive_last(|batch| self.take_batch(batch, now));
        }
        self.take_passed_on(now);
        self.settle(now);
        self.intake = Intake::Known;
        for step in mem::take(&mut self.steps) {
            match step {
                HandshakeStep::Accept(incoming, local) => self.refuse(*incoming, local),
                HandshakeStep::Datagram(..) => {}
            }
        }
        for slot in self.connections.all() {
            if let Some(open) = self.connections.get_mut(slot).and_then(|connection| connection.open.as_mut()) {
                open.account.end_queries(now);
                self.connections.list_working(slot);
            }
        }
        self.settle(now);
    }

    /// Closes finished connections. Returns true if none is open any more.
    pub(super) fn close_finished(&mut self, sockets: &[Rc<ListenerSocket>], now: Instant) -> bool {
        for slot in self.connections.all() {
            if self
                .connections
                .get_mut(slot)
                .is_some_and(|connection| connection.is_closable(self.intake != Intake::Nothing, now))
            {
                let closed = ConnectionClose { code: Code::NoError, reason: "this server ends" };
                self.connections.close(slot, closed, now);
            }
        }
        self.send(sockets, now);
        self.connections.has_none_open()
    }
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

const ROUNDS: u32 = 4;

const MAX_BURST: usize = 64;

const DATAGRAM: usize = 1452;
