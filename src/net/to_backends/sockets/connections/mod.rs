//! The connections to backends that are asked by stream. [`BackendConnection`] implements the protocols; this
//! module has the sockets and the rules:
//!
//! 1. A query takes the open connection with the fewest pending queries. If those are many, another
//!    connection is opened, up to `max`.
//! 2. Without an open connection the query waits for a dial. After 250 ms without an answer a second dial
//!    starts, and the first to finish is the connection (happy eyeballs, with one address). During the
//!    back-off after a failed dial queries are refused, except those to the only backend of a pool, which
//!    wait.
//! 3. A silent connection is suspicious ([`SilenceClock`]): it gets no new query, is pinged, and is given up
//!    without a response; at once, if the backend acknowledges nothing.
//! 4. An idle connection is closed after a while ([`LearnedIdleTimeout`]), except one that stays warm.
//! 5. If the backend requires client addresses, a connection begins with a header and carries the queries of
//!    that client alone. At the limit, the connection that is idle for the longest time is closed.
//! 6. The end of a connection with pending queries is reported ([`EndedConnection`]); without such queries no
//!    backend is blamed.

mod check;
mod dial;
mod hear;
mod queue;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::dial::{Dial, Fault, SharedBuffers};
use super::BackendSockets;
use super::sent::SentIds;
use crate::metrics::{BackendConnectionCounters, ConnectionKind, LostCause};
use crate::net::proxy_protocol::ClientHeader;
use crate::net::to_backends::connection::{
    AskedIds, ConnectionBackoff, LearnedIdleTimeout, SilenceClock, StreamProtocol, silence_limit,
};
use crate::net::to_backends::tls::ClientTls;
use crate::policy::connections::ConnectionPoolRules;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId, SocketSetId};

/// The settings for a backend that is asked by stream.
pub struct StreamWay {
    /// The protocol of the connections.
    pub protocol: StreamProtocol,
    /// Returns the current TLS settings, if they are available; `None` for plain TCP.
    pub tls: Option<Box<TlsSource>>,
    /// The limits and timeouts of its connections.
    pub rules: ConnectionPoolRules,
    /// True if the pool has no other backend: during the back-off, queries wait for the next dial.
    pub is_alone: bool,
    /// The maximum wait for the response to a ping.
    pub health_timeout: Duration,
    /// The maximum back-off after failed dials.
    pub health_interval: Duration,
    /// True if each connection begins with a header, and carries the queries of that client alone.
    pub names_clients: bool,
    /// The query that serves as a ping, with any ID.
    pub sign_of_life: Vec<u8>,
    /// The counters of its connections.
    pub counters: Arc<BackendConnectionCounters>,
}

/// Returns the current TLS settings of a backend, which a reload may change.
pub type TlsSource = dyn Fn() -> Option<Arc<ClientTls>>;

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

/// The kind of the end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// An open connection is lost, because of this cause and perhaps TLS problem.
    Lost(LostCause, Option<String>),
    /// The connection stays open, but these queries failed with errors, of which this is one.
    Rejected(String),
    /// The connection could not be opened.
    Failed {
        /// A description of the problem.
        problem: String,
        /// True if the backend is unreachable or not the expected one.
        is_refused: bool,
    },
}

pub(super) struct ConnectionPool<T, L> {
    places: Vec<Option<Box<PooledConnection>>>,
    free: Vec<SocketId>,
    /// Numbers that become free once no caller can hold a reply that was received under them.
    closed: Vec<SocketId>,
    dirty: Vec<SocketId>,
    ended: Vec<EndedConnection<T, L>>,
    next_check: Option<Instant>,
    /// The time of the last query, input or check.
    now: Instant,
    room: SharedBuffers,
    message: Vec<u8>,
}

pub(super) struct StreamSet {
    way: StreamWay,
    connections: Vec<SocketId>,
    backoff: ConnectionBackoff,
    patience: LearnedIdleTimeout,
    /// The number of successive connections that opened and received nothing.
    barren: u8,
    was_refused: bool,
    last_query: Option<Instant>,
    /// The silence after which a connection is suspicious.
    limit: Duration,
    paused_until: Option<Instant>,
}

/// One connection: up to two dials, one of which becomes it.
struct PooledConnection {
    set_id: SocketSetId,
    whose: Whose,
    begun: Instant,
    dials: [Option<Dial>; 2],
    is_doubled: bool,
    is_open: bool,
    opened: Option<Instant>,
    /// Frames that wait for the connection to open.
    waiting: Vec<u8>,
    taken_slots: u32,
    sent: SentIds,
    asked: AskedIds,
    clock: SilenceClock,
    /// The time when it was opened, or its last slot became free.
    idle_since: Instant,
    heard: u32,
    is_retired: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    All,
    /// The queries of the client in its header, or hedgerow's queries.
    Of(Option<IpAddr>),
}

impl Whose {
    fn of(header: Option<&ClientHeader>) -> Self {
        header.map_or(Self::All, |header| Self::Of(header.client))
    }
}

impl<T: Copy, L: Copy> ConnectionPool<T, L> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            dirty: Vec::new(),
            ended: Vec::new(),
            next_check: None,
            now: Instant::now(),
            room: SharedBuffers::default(),
            message: Vec::new(),
        }
    }

    pub(super) fn free_closed(&mut self) {
        self.free.append(&mut self.closed);
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    pub(super) fn set_of(&self, number: SocketId) -> Option<SocketSetId> {
        self.get(number).map(|connection| connection.set_id)
    }

    fn get(&self, number: SocketId) -> Option<&PooledConnection> {
        self.places.get(place_of(number)?)?.as_deref()
    }

    fn get_mut(&mut self, number: SocketId) -> Option<&mut PooledConnection> {
        self.places.get_mut(place_of(number)?)?.as_deref_mut()
    }

    fn check_at(&mut self, at: Instant) {
        self.next_check = Some(self.next_check.map_or(at, |next| next.min(at)));
    }

    fn note_queued(&mut self, number: SocketId) {
        if self.dirty.last() != Some(&number) {
            self.dirty.push(number);
        }
    }

    fn number(&mut self) -> Option<SocketId> {
        if let Some(free) = self.free.pop() {
            return Some(free);
        }
        let number = FIRST + self.places.len() as u32;
        (number < QuerySlot::MAX_SOCKETS as u32).then(|| {
            self.places.push(None);
            SocketId(number)
        })
    }
}

impl PooledConnection {
    fn open_dial(&mut self) -> Option<&mut Dial> {
        if self.is_open { self.dials.iter_mut().flatten().next() } else { None }
    }
}

impl StreamSet {
    fn new(way: StreamWay) -> Self {
        Self {
            connections: Vec::with_capacity(2 * usize::from(way.rules.max)),
            way,
            backoff: ConnectionBackoff::new(),
            patience: LearnedIdleTimeout::default(),
            barren: 0,
            was_refused: false,
            last_query: None,
            limit: silence_limit(None),
            paused_until: None,
        }
    }
}

impl StreamSet {
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Returns the time of the next dial if queries may wait for it: it is soon and no other backend exists.
    fn awaited_dial(&self, now: Instant) -> Option<Instant> {
        let is_soon = |at: &Instant| at.saturating_duration_since(now) <= self.way.rules.connect_timeout;
        self.backoff.until(now).filter(|_| self.way.is_alone).filter(is_soon)
    }
}

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Adds a set for a backend that is asked by stream. Nothing is dialled yet.
    pub fn add_by_stream(&mut self, address: SocketAddr, way: StreamWay) -> SocketSetId {
        self.connections.room.make_for(way.protocol.is_by_udp());
        self.add_set(address, Some(Box::new(StreamSet::new(way))))
    }

    /// Replaces the settings of a backend. Open connections stay.
    pub fn set_stream_way(&mut self, set_id: SocketSetId, way: StreamWay) {
        if let Some((stream, _)) = self.stream_mut(set_id) {
            stream.way = way;
        }
    }

    /// Returns true if this is the number of a connection, not of a UDP socket.
    pub fn is_connection(number: SocketId) -> bool {
        number.0 >= FIRST
    }

    /// Returns true if a backend is asked by stream.
    pub fn is_by_stream(&self, set_id: SocketSetId) -> bool {
        self.stream(set_id).is_some()
    }

    /// Returns true if the backend has no sound open connection, or wants no queries now.
    pub fn is_cold(&self, set_id: SocketSetId) -> bool {
        let Some(stream) = self.stream(set_id) else { return false };
        if stream.way.names_clients {
            return stream.paused_until.is_some();
        }
        let is_good = |connection: &PooledConnection| {
            connection.is_open && !connection.is_retired && !connection.clock.is_asked()
        };
        stream.paused_until.is_some()
            || !stream.connections.iter().any(|number| self.connections.get(*number).is_some_and(is_good))
    }

    /// Returns the time when a connection was opened, or `None` if it is not open.
    pub fn opened_at(&self, number: SocketId) -> Option<Instant> {
        self.connections.get(number)?.opened
    }

    /// Takes a reported end of a connection. Its queries no longer wait.
    pub fn pop_ended(&mut self) -> Option<EndedConnection<T, L>> {
        self.connections.ended.pop()
    }

    fn stream(&self, set_id: SocketSetId) -> Option<&StreamSet> {
        self.sets.get(set_id.0 as usize)?.as_ref()?.stream.as_deref()
    }

    fn stream_mut(&mut self, set_id: SocketSetId) -> Option<(&mut StreamSet, &mut ConnectionPool<T, L>)> {
        let set = self.sets.get_mut(set_id.0 as usize)?.as_mut()?;
        Some((set.stream.as_deref_mut()?, &mut self.connections))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn free_on_connection(&mut self, slot: QuerySlot, now: Option<Instant>) {
        let Some(connection) = self.connections.get_mut(slot.socket()) else { return };
        // A canceled stream is reset, and no longer counts towards the backend's limit.
        if connection.asked.contains(slot.id())
            && let Some(dial) = connection.open_dial()
            && dial.stream.forget(slot.id())
        {
            connection.asked.remove(slot.id());
            self.connections.note_queued(slot.socket());
        }
        let Some(connection) = self.connections.get_mut(slot.socket()) else { return };
        connection.taken_slots = connection.taken_slots.saturating_sub(1);
        if connection.taken_slots > 0 {
            return;
        }
        connection.sent.clear();
        if let Some(now) = now {
            connection.idle_since = now;
            if connection.is_retired {
                self.connections.check_at(now);
            }
        }
    }

    /// Takes back all pending queries of a dead backend, and closes its connections.
    #[cold]
    #[inline(never)]
    pub(super) fn take_from_connections(&mut self, set_id: SocketSetId, taken: &mut Vec<SlotState<T, L>>) {
        let numbers = self.stream_mut(set_id).map(|(stream, _)| std::mem::take(&mut stream.connections));
        let now = self.connections.now;
        for number in numbers.unwrap_or_default() {
            self.close_connection(number, taken, now);
        }
    }

    /// Closes a connection and takes its queries. The caller removes it from its set.
    fn close_connection(
        &mut self,
        number: SocketId,
        taken: &mut Vec<SlotState<T, L>>,
        now: Instant,
    ) -> Option<Box<PooledConnection>> {
        let mut connection = self.connections.places.get_mut(place_of(number)?)?.take()?;
        self.connections.closed.push(number);
        if connection.taken_slots > 0 {
            let slots = connection.sent.all().iter().filter_map(|id| QuerySlot::new(number, *id));
            taken.extend(slots.filter_map(|slot| self.slots.remove(slot)));
        }
        for dial in connection.dials.iter_mut().flatten() {
            dial.say_good_bye(now);
        }
        if connection.is_open
            && let Some(stream) = self.stream(connection.set_id)
        {
            stream.way.counters.open.subtract(1);
        }
        Some(connection)
    }

    fn end_connection(&mut self, number: SocketId, fault: Fault, now: Instant) {
        let mut taken = Vec::new();
        let Some(connection) = self.close_connection(number, &mut taken, now) else { return };
        let set_id = connection.set_id;
        let Self { sets, rng, connections, .. } = self;
        let stream = sets.get_mut(set_id.0 as usize).and_then(Option::as_mut).and_then(|set| set.stream.as_deref_mut());
        let Some(stream) = stream else { return };
        stream.connections.retain(|other| *other != number);
        let counters = &stream.way.counters;
        let how = if connection.is_open {
            let (cause, problem) = fault.lost();
            if !taken.is_empty() {
                counters.lost(cause);
            }
            if connection.asked.is_empty() && matches!(cause, LostCause::Closed | LostCause::Reset) {
                stream.patience.closed_after(now.saturating_duration_since(connection.idle_since));
            }
            // Repeated useless connections count as failed dials. A single one is dialled again at once,
            // because its lost queries may have no other backend.
            stream.barren = if connection.heard == 0 { stream.barren.saturating_add(1) } else { 0 };
            if stream.barren > FREE_BARREN {
                stream.backoff.failed(stream.way.health_interval, now, rng);
            }
            ConnectionEnd::Lost(cause, problem)
        } else {
            counters.made(ConnectionKind::Failed);
            stream.backoff.failed(stream.way.health_interval, now, rng);
            let (problem, is_refused) = fault.failed();
            stream.was_refused = is_refused;
            ConnectionEnd::Failed { problem, is_refused }
        };
        connections.check_at(now);
        let is_reported = match &how {
            ConnectionEnd::Lost(_, problem) => !taken.is_empty() || problem.is_some(),
            ConnectionEnd::Failed { .. } | ConnectionEnd::Rejected(_) => true,
        };
        if is_reported {
            connections.ended.push(EndedConnection { socket_set: set_id, taken, how });
        }
    }
}

/// The first number of a connection: UDP sockets use the lower numbers.
pub(super) const FIRST: u32 = 0xC000;

fn place_of(number: SocketId) -> Option<usize> {
    number.0.checked_sub(FIRST).map(|place| place as usize)
}

/// Connections in a row that may end without any input before the back-off starts.
const FREE_BARREN: u8 = 2;
