//! An engine with I/O that only records what the engine asks of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Config;
use dns::{HashSeed, Rcode, Transport};
use limit::Clients;
use metrics::{Counters, LimitCounters};

use crate::query_slots::{QuerySlot, SocketId, SocketSetId};
use crate::shortage::Shortage;
use crate::single_flight::{SingleFlight, WorkerId};
use crate::state::{ForwarderState, HealthSignal, SharedBackend};
use crate::{
    AskedFor, ClientHandle, Destination, Engine, FetchQuery, HashedQuestion, Io, LookupReason, NotSent, Outstanding,
    RaceRef, RaceReport, ResponseOrigin, ResponseSummary, Seeds, SentAttempt, SharedEngineState, TcpQuery, ValidQuery,
    Waiter,
};

/// A client, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker(u16, Transport);

impl ClientHandle for Asker {
    fn ip(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn transport(&self) -> Transport {
        self.1
    }

    fn is_admin(&self) -> bool {
        false
    }

    fn is_same_socket(&self, other: &Self) -> bool {
        self == other
    }
}

/// A query that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) set: SocketSetId,
    pub(super) socket: SocketId,
    pub(super) avoid: Option<SocketId>,
    /// As it was written, with its ID.
    pub(super) query: Vec<u8>,
    slot: QuerySlot,
}

/// The recorded requests of the engine to its I/O.
struct Wire {
    sets: Vec<Arc<SharedBackend>>,
    /// The socket that each set sends from.
    sockets: Vec<u32>,
    next_socket: u32,
    sent: Vec<Sent>,
    reported: HashMap<u16, Vec<u8>>,
    cold: Vec<SocketSetId>,
    refused: HashMap<u32, NotSent>,
    dialled: Vec<SocketSetId>,
    opened: HashMap<u32, Instant>,
    signals: Vec<HealthSignal>,
    fetched: Vec<FetchQuery>,
}

impl Wire {
    fn set(&self, socket: SocketId) -> Option<SocketSetId> {
        self.sent.iter().find(|sent| sent.socket == socket).map(|sent| sent.set)
    }
}

impl Io for Wire {
    type Client = Asker;

    fn add_backend(&mut self, backend: &Arc<SharedBackend>) -> SocketSetId {
        self.sets.push(Arc::clone(backend));
        self.sockets.push(self.next_socket);
        self.next_socket += 1;
        SocketSetId(self.sets.len() as u32 - 1)
    }

    fn remove_backend(&mut self, _: SocketSetId, _: &mut Vec<QuerySlot>) {}

    fn is_cold(&self, sockets: SocketSetId) -> bool {
        self.cold.contains(&sockets)
    }

    fn dial(&mut self, sockets: SocketSetId, _: Instant) {
        self.dialled.push(sockets);
    }

    fn opened(&self, socket: SocketId) -> Option<Instant> {
        self.opened.get(&socket.0).copied()
    }

    fn choose(&mut self, to: &Destination<'_, Self::Client>, _: Instant) -> Result<SocketId, NotSent> {
        let socket = SocketId(self.sockets[to.sockets.0 as usize]);
        self.refused.get(&to.sockets.0).map_or(Ok(socket), |why| Err(*why))
    }

    fn send(
        &mut self,
        slot: QuerySlot,
        to: &Destination<'_, Self::Client>,
        _: Outstanding,
        _: &SentAttempt<'_>,
        _: Instant,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), NotSent> {
        let mut query = Vec::new();
        write(&mut query);
        dns::set_id(&mut query, slot.id());
        self.sent.push(Sent { set: to.sockets, socket: slot.socket(), avoid: to.avoid, query, slot });
        Ok(())
    }

    fn free(&mut self, _: QuerySlot, _: Instant) {}

    fn take_back(&mut self, _: SocketSetId, _: &mut Vec<QuerySlot>) {}

    fn ask_by_tcp(&mut self, _: Outstanding, _: TcpQuery, _: AskedFor<'_, Self::Client>) -> bool {
        false
    }

    fn fetch(&mut self, _: RaceRef, query: FetchQuery, _: AskedFor<'_, Self::Client>, _: Instant) -> bool {
        self.fetched.push(query);
        true
    }

    fn respond(
        &mut self,
        waiter: &Waiter<Asker>,
        _: &ResponseOrigin<'_>,
        _: ResponseSummary,
        message: &mut Vec<u8>,
        _: Instant,
    ) {
        let earlier = self.reported.insert(waiter.client.0, std::mem::take(message));
        assert_eq!(earlier, None, "no query gets two responses");
    }

    fn respond_nothing(&mut self, _: &Waiter<Asker>, _: &ResponseOrigin<'_>, _: &[u8], _: Instant) {}

    fn signal_prober(&mut self, _: &Arc<SharedBackend>, signal: HealthSignal) {
        self.signals.push(signal);
    }

    fn race_over(&mut self, _: RaceReport<'_>) -> bool {
        false
    }
}

/// An engine, and what it has asked for.
pub(super) struct Table {
    engine: Engine<Asker>,
    shared: Arc<SharedEngineState>,
    wire: Wire,
    now: Instant,
}

impl Table {
    /// One pool with these keys.
    pub(super) fn new(pool: &str) -> Self {
        let text = format!("[forwarder]\n[pools.ts]\n{pool}");
        let config = Config::parse(&text, "c.toml", Path::new("")).expect("a config");
        let state =
            Arc::new(ForwarderState::new(&config, None, None, None, 1, Instant::now()).expect("there is a forwarder"));
        let now = Instant::now();
        let shared = Arc::new(SharedEngineState {
            single_flight: SingleFlight::new(1),
            hasher: HashSeed([1, 2]).question_hasher(),
            clients: Arc::new(Clients::new(1024, 1)),
            limited: Arc::new(LimitCounters::new("")),
            shortage: Shortage::new(now),
            catching_up_until: None,
        });
        let mut wire = Wire {
            sets: Vec::new(),
            sockets: Vec::new(),
            next_socket: 0,
            sent: Vec::new(),
            reported: HashMap::new(),
            cold: Vec::new(),
            refused: HashMap::new(),
            dialled: Vec::new(),
            opened: HashMap::new(),
            signals: Vec::new(),
            fetched: Vec::new(),
        };
        let seeds = Seeds { policy: 1, proof: [1; 16], ids: [1; 32] };
        let engines = Arc::clone(&shared);
        let counters = Arc::new(Counters::default());
        let mut engine = Engine::new(WorkerId(0), engines, counters, Arc::clone(&state), seeds);
        engine.tick(&mut wire, now).set_state(state);
        Self { engine, shared, wire, now }
    }

    /// A client asks for a name of its own number.
    pub(super) fn query(&mut self, number: u16, has_opt: bool, transport: Transport) {
        self.ask(number, number, has_opt, transport);
    }

    /// A client asks for a name of its own number with these flags in the second byte, by UDP and with OPT.
    pub(super) fn query_with(&mut self, number: u16, flags: u8) {
        self.ask_with(number, number, flags, true, Transport::Udp);
    }

    /// A client asks for the name of this number.
    pub(super) fn ask(&mut self, client: u16, number: u16, has_opt: bool, transport: Transport) {
        self.ask_with(client, number, 0, has_opt, transport);
    }

    /// A client asks for the name of this number, with these flags.
    fn ask_with(&mut self, client: u16, number: u16, flags: u8, has_opt: bool, transport: Transport) {
        let mut message = [&client.to_be_bytes()[..], &[1, flags, 0, 1, 0, 0, 0, 0, 0, u8::from(has_opt)]].concat();
        message.extend([7, b'n']);
        message.extend(format!("{number:06}").bytes());
        message.extend([0, 0, 1, 0, 1]);
        if has_opt {
            message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        let query = dns::read_query(&message).expect("a sound query");
        let mut octets = Vec::new();
        let flags = query.fold_question(&mut octets);
        let question = HashedQuestion { octets: &octets, flags, hash: self.shared.hash(&octets) };
        let pool = self.engine.state().routes.find(question.qname()).expect("each name has a pool");
        let (message, query, reason) = (&message[..], &query, LookupReason::Query);
        let valid =
            ValidQuery { message, query, cookie: None, question, pool, reason, subnet: None, is_handed_over: false };
        self.engine.tick(&mut self.wire, self.now).on_query(valid, Asker(client, transport));
        self.engine.tick(&mut self.wire, self.now).end();
    }

    /// The query that was sent with this number.
    #[track_caller]
    pub(super) fn sent(&self, number: usize) -> Sent {
        self.wire.sent[number].clone()
    }

    /// How many were sent.
    pub(super) fn sent_count(&self) -> usize {
        self.wire.sent.len()
    }

    /// The response to a client.
    #[track_caller]
    pub(super) fn reported(&self, number: u16) -> Vec<u8> {
        self.wire.reported.get(&number).expect("it has its response").clone()
    }

    /// The rcode of the response to a client, if it has one.
    pub(super) fn rcode_told(&self, number: u16) -> Option<u8> {
        self.wire.reported.get(&number).map(|reported| reported[3] & 0x0F)
    }

    /// A sound reply to the query of this number arrives.
    pub(super) fn reply(&mut self, number: usize, rcode: Rcode, is_padded: bool) {
        let reply = answer(&self.wire.sent[number].query, rcode, is_padded);
        self.receive(number, &reply);
    }

    /// The reply arrives at the socket that sent the query of this number.
    pub(super) fn receive(&mut self, number: usize, reply: &[u8]) {
        let socket = self.wire.sent[number].socket;
        self.engine.tick(&mut self.wire, self.now).on_reply(socket, reply);
        self.engine.tick(&mut self.wire, self.now).end();
    }

    /// Advances the clock and runs what is due.
    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.engine.tick(&mut self.wire, self.now).on_time();
        self.engine.tick(&mut self.wire, self.now).end();
    }

    /// A connection was opened just now.
    pub(super) fn open_now(&mut self, socket: SocketId) {
        self.wire.opened.insert(socket.0, self.now);
    }

    /// Takes back the queries of a connection, which is replaced by another one.
    fn take(&mut self, socket: SocketId) -> (SocketSetId, Vec<QuerySlot>) {
        let set = self.wire.set(socket).expect("something was sent there");
        self.wire.sockets[set.0 as usize] = self.wire.next_socket;
        self.wire.next_socket += 1;
        (set, self.wire.sent.iter().filter(|sent| sent.socket == socket).map(|sent| sent.slot).collect())
    }

    /// Ends a connection with its queries.
    pub(super) fn lose(&mut self, socket: SocketId) {
        let (set, taken) = self.take(socket);
        assert!(taken.iter().any(|slot| self.engine.slots().find(*slot).is_some()));
        self.engine.tick(&mut self.wire, self.now).on_connection_lost(set, &taken);
        self.engine.tick(&mut self.wire, self.now).end();
    }

    /// A backend answers the queries of a connection by transport errors. `meanwhile` runs before the engine
    /// learns of it.
    pub(super) fn reject(&mut self, socket: SocketId, meanwhile: impl FnOnce(&mut Self)) {
        let (set, taken) = self.take(socket);
        meanwhile(self);
        self.engine.tick(&mut self.wire, self.now).on_rejected(set, &taken);
        self.engine.tick(&mut self.wire, self.now).end();
    }

    /// A connection could not be opened.
    pub(super) fn fail(&mut self, socket: SocketId, is_refused: bool) {
        let (set, taken) = self.take(socket);
        self.engine.tick(&mut self.wire, self.now).on_connection_failed(set, &taken, is_refused);
        self.engine.tick(&mut self.wire, self.now).end();
    }

    /// The set of the backend with this number in the config.
    pub(super) fn set_of(&self, backend: usize) -> SocketSetId {
        let backend = &self.backends()[backend];
        let set = self.wire.sets.iter().position(|known| Arc::ptr_eq(known, backend));
        SocketSetId(set.expect("it is known") as u32)
    }

    /// Nothing can be sent to a backend.
    pub(super) fn refuse(&mut self, backend: usize, why: NotSent) {
        self.wire.refused.insert(self.set_of(backend).0, why);
    }

    /// A backend has no open connection, or has one.
    pub(super) fn cool(&mut self, backend: usize, is_cold: bool) {
        let set = self.set_of(backend);
        self.wire.cold.retain(|known| *known != set);
        self.wire.cold.extend(is_cold.then_some(set));
    }

    /// The backends that were to be connected to.
    pub(super) fn dialled(&self) -> Vec<SocketSetId> {
        self.wire.dialled.clone()
    }

    /// The signals that the prober received.
    pub(super) fn signals(&self) -> Vec<HealthSignal> {
        self.wire.signals.clone()
    }

    /// The backends from which whole answers were to be fetched.
    pub(super) fn fetched(&self) -> Vec<SocketAddr> {
        let backends = self.wire.fetched.iter().flat_map(|query| &query.backends);
        backends.map(|backend| backend.address).collect()
    }

    /// The query by which the first whole answer was to be fetched.
    pub(super) fn fetch_query(&self) -> Vec<u8> {
        self.wire.fetched[0].message.clone()
    }

    pub(super) fn backends(&self) -> Vec<Arc<SharedBackend>> {
        self.engine.state().pools[0].backends.clone()
    }

    pub(super) fn p99(&self, backend: usize) -> Option<Duration> {
        self.engine.p99(self.set_of(backend))
    }

    /// Checks what must hold between two events.
    pub(super) fn audit(&self) {
        let waiting = self.engine.audit().expect("what must hold between two events");
        assert_eq!(self.engine.worker.shared.clients.waiting(), waiting as u64, "waiting clients are counted");
    }
}

/// A reply to a query, with an address if it is no failure; with padding, if it is to have that.
pub(super) fn answer(query: &[u8], rcode: Rcode, is_padded: bool) -> Vec<u8> {
    let read = dns::read_query(query).expect("a sound query");
    let question = read.question.as_wire();
    let is_good = rcode == Rcode::NOERROR;
    let counts = [0, 1, 0, u8::from(is_good), 0, 0, 0, u8::from(is_padded)];
    let mut reply = [&query[..2], &[0x84, rcode.0 as u8], &counts, question].concat();
    if is_good {
        reply.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    }
    if is_padded {
        reply.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 9, 0, 12, 0, 5, 0, 0, 0, 0, 0]);
    }
    reply
}
