//! The connections to backends that are asked by stream: what sockets are for datagrams.
//!
//! They stand beside the sockets, with numbers of their own, so that a slot is a connection and an ID as it is a socket and an ID
//! elsewhere; and in the same epoll set, TCP sockets and, for QUIC, UDP sockets. What goes through one is decided in [`BackendConnection`], as a value; here are the sockets
//! and the rules: which connection a query takes, when another is opened, when one is given up.
//!
//! 1. A query takes the open connection on which the fewest wait. If those are many, another is opened meanwhile, up to `max`.
//! 2. Without one that is open it waits for one that is being dialled, or has it dialled. After 250 ms without an answer a
//!    second dial goes beside the first, and the first to finish is the connection (happy eyeballs, with one address). While a
//!    backend is left in peace after a dial that failed it is refused, but the only one of its pool has queries wait for the next dial.
//! 3. A connection that brings nothing for too long is suspicious ([`SilenceClock`]): it gets no new query, is asked for a sign
//!    of life, and given up without one; at once, if the other side acknowledges nothing.
//! 4. One on which nobody waits is closed after a while ([`Patience`]), but for one that stays warm.
//! 5. Where the backend wants to know who asks, a connection begins with a header and is for the queries of that client alone. When all
//!    that there may be are of others, the one on which nobody has waited for the longest time makes room.
//! 6. What ends with queries on it is told: [`Ended`]. What ends without counts against nobody.

mod check;
mod dial;
mod hear;
mod queue;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::dial::{Dial, Fault, Room};
use super::BackendSockets;
use super::sent::SentIds;
use crate::metrics::{BackendConnectionCounters, ConnectionKind, LostCause};
use crate::net::backend_connection::{AskedIds, Backoff, Patience, SilenceClock, StreamProtocol, silence_limit};
use crate::net::proxy_protocol::ClientHeader;
use crate::net::tls::ClientTls;
use crate::policy::connections::ConnectionPoolRules;
use crate::policy::query_slots::{QuerySlot, SlotState, SocketId, SocketSetId};

/// How a backend is asked by stream.
pub struct StreamWay {
    /// By which protocol.
    pub protocol: StreamProtocol,
    /// Gives what TLS needs as it is now, if that can be had; `None` by TCP.
    pub tls: Option<Box<TlsSource>>,
    /// How its connections are kept.
    pub rules: ConnectionPoolRules,
    /// Nobody else can be asked: while it cannot be dialled, queries wait for the next dial.
    pub is_alone: bool,
    /// How long a sign of life is waited for.
    pub health_timeout: Duration,
    /// How long it is left in peace at the most after dials that failed.
    pub health_interval: Duration,
    /// Each connection begins with a header, and has queries of that client alone.
    pub names_clients: bool,
    /// The question that asks for a sign of life, with any ID.
    pub sign_of_life: Vec<u8>,
    /// What is counted.
    pub counters: Arc<BackendConnectionCounters>,
}

/// Gives what a connection by TLS needs: a reload may change it.
pub type TlsSource = dyn Fn() -> Option<Arc<ClientTls>>;

/// A connection has ended, and somebody is to know.
#[derive(Debug)]
pub struct Ended<T, L> {
    /// Whom it led to.
    pub socket_set: SocketSetId,
    /// What had taken its slots.
    pub taken: Vec<SlotState<T, L>>,
    /// What has become of it.
    pub how: End,
}

/// How a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was open.
    Lost(LostCause, Option<String>),
    /// It has not: it stays, but these queries were answered by errors, and no other answer comes to them. Why one of them was.
    Rejected(String),
    /// It did not come to be: in what way, and whether somebody has refused it.
    Failed {
        /// What the matter was, in plain words.
        problem: String,
        /// Nobody is there, or somebody else than was meant.
        is_refused: bool,
    },
}

/// The connections of one worker.
pub(super) struct Connections<T, L> {
    /// By number, counted from [`FIRST`]; `None` is free.
    places: Vec<Option<Box<Connection>>>,
    /// Free numbers.
    free: Vec<SocketId>,
    /// Numbers that will be free once nobody can still hold a reply that was received under them.
    closed: Vec<SocketId>,
    /// Connections with something to write.
    dirty: Vec<SocketId>,
    /// What has ended and was not told yet.
    ended: Vec<Ended<T, L>>,
    /// When they are to be looked at.
    next_check: Option<Instant>,
    /// When something was asked, heard or looked at last.
    now: Instant,
    room: Room,
    /// The message that is being queued.
    message: Vec<u8>,
}

/// How a set of connections stands.
pub(super) struct StreamSet {
    way: StreamWay,
    /// Its connections, open or dialled.
    connections: Vec<SocketId>,
    backoff: Backoff,
    patience: Patience,
    /// Connections in a row that were open and brought nothing.
    barren: u8,
    /// The last dial was refused.
    was_refused: bool,
    /// When a query came last.
    last_query: Option<Instant>,
    /// How long a connection may bring nothing before it is suspicious.
    limit: Duration,
    /// The backend wants no query until then.
    paused_until: Option<Instant>,
}

/// One connection: a dial or two, of which one becomes it.
struct Connection {
    set_id: SocketSetId,
    /// Whose queries it takes.
    whose: Whose,
    /// When it was dialled first, or is to be.
    begun: Instant,
    dials: [Option<Dial>; 2],
    /// A second dial was begun.
    is_doubled: bool,
    is_open: bool,
    /// When it was opened.
    opened: Option<Instant>,
    /// Frames that wait for it to be open.
    waiting: Vec<u8>,
    /// How many of its slots are taken.
    taken_slots: u32,
    /// The IDs of those.
    sent: SentIds,
    /// The IDs that no reply has come to.
    asked: AskedIds,
    clock: SilenceClock,
    /// When it was opened, or the last of its slots became free.
    idle_since: Instant,
    /// Messages that have come.
    heard: u32,
    /// It gets no further queries.
    is_retired: bool,
}

/// Whose queries a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Those of all.
    All,
    /// Those of the client that its header names, or our own.
    Of(Option<IpAddr>),
}

impl Whose {
    /// Whose queries go behind this header.
    fn of(header: Option<&ClientHeader>) -> Self {
        header.map_or(Self::All, |header| Self::Of(header.client))
    }
}

impl<T: Copy, L: Copy> Connections<T, L> {
    /// None yet.
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            dirty: Vec::new(),
            ended: Vec::new(),
            next_check: None,
            now: Instant::now(),
            room: Room::default(),
            message: Vec::new(),
        }
    }

    /// The numbers of what was closed may be given again.
    pub(super) fn free_closed(&mut self) {
        self.free.append(&mut self.closed);
    }

    /// Whether something is to be written.
    pub(super) fn has_queued(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// When they are to be looked at.
    pub(super) fn next_check(&self) -> Option<Instant> {
        self.next_check
    }

    /// The set that a connection belongs to.
    pub(super) fn set_of(&self, number: SocketId) -> Option<SocketSetId> {
        self.get(number).map(|connection| connection.set_id)
    }

    fn get(&self, number: SocketId) -> Option<&Connection> {
        self.places.get(place_of(number)?)?.as_deref()
    }

    fn get_mut(&mut self, number: SocketId) -> Option<&mut Connection> {
        self.places.get_mut(place_of(number)?)?.as_deref_mut()
    }

    /// They are looked at then at the latest.
    fn check_at(&mut self, at: Instant) {
        self.next_check = Some(self.next_check.map_or(at, |next| next.min(at)));
    }

    /// A connection has something to write.
    fn note_queued(&mut self, number: SocketId) {
        if self.dirty.last() != Some(&number) {
            self.dirty.push(number);
        }
    }

    /// A number for another one.
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

impl Connection {
    /// The dial that has become it, if it is open.
    fn open_dial(&mut self) -> Option<&mut Dial> {
        if self.is_open { self.dials.iter_mut().flatten().next() } else { None }
    }
}

impl StreamSet {
    fn new(way: StreamWay) -> Self {
        Self {
            connections: Vec::with_capacity(2 * usize::from(way.rules.max)),
            way,
            backoff: Backoff::new(),
            patience: Patience::default(),
            barren: 0,
            was_refused: false,
            last_query: None,
            limit: silence_limit(None),
            paused_until: None,
        }
    }
}

impl StreamSet {
    /// Whether the backend wants no query now.
    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// When the next dial is, if queries wait for it: it is soon, and nobody else can be asked.
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

    /// A backend is asked so from now on. Connections that are open stay.
    pub fn set_stream_way(&mut self, set_id: SocketSetId, way: StreamWay) {
        if let Some((stream, _)) = self.stream_mut(set_id) {
            stream.way = way;
        }
    }

    /// Whether this is a connection, and no socket for datagrams.
    pub fn is_connection(number: SocketId) -> bool {
        number.0 >= FIRST
    }

    /// Whether a backend is asked by stream.
    pub fn is_by_stream(&self, set_id: SocketSetId) -> bool {
        self.stream(set_id).is_some()
    }

    /// Whether a backend is asked by stream and has no open connection that brings what it should, or wants no queries now.
    pub fn is_cold(&self, set_id: SocketSetId) -> bool {
        let Some(stream) = self.stream(set_id) else { return false };
        if stream.way.names_clients {
            // No connection is for the next client.
            return stream.paused_until.is_some();
        }
        let is_good =
            |connection: &Connection| connection.is_open && !connection.is_retired && !connection.clock.is_asked();
        stream.paused_until.is_some()
            || !stream.connections.iter().any(|number| self.connections.get(*number).is_some_and(is_good))
    }

    /// When a connection was opened; none, if it is not open.
    pub fn opened_at(&self, number: SocketId) -> Option<Instant> {
        self.connections.get(number)?.opened
    }

    /// Takes what has ended, for the caller to be told of. What waited on it does not any more.
    pub fn pop_ended(&mut self) -> Option<Ended<T, L>> {
        self.connections.ended.pop()
    }

    fn stream(&self, set_id: SocketSetId) -> Option<&StreamSet> {
        self.sets.get(set_id.0 as usize)?.as_ref()?.stream.as_deref()
    }

    /// The stream part of a set, with what is beside it.
    fn stream_mut(&mut self, set_id: SocketSetId) -> Option<(&mut StreamSet, &mut Connections<T, L>)> {
        let set = self.sets.get_mut(set_id.0 as usize)?.as_mut()?;
        Some((set.stream.as_deref_mut()?, &mut self.connections))
    }

    /// A slot of a connection is free again.
    #[cold]
    #[inline(never)]
    pub(super) fn free_on_connection(&mut self, slot: QuerySlot, now: Option<Instant>) {
        let Some(connection) = self.connections.get_mut(slot.socket()) else { return };
        // Where nobody waits for a stream, it is reset, and does not count for those that the backend allows.
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

    /// Takes back all that waits for a backend that was found dead, and closes its connections.
    #[cold]
    #[inline(never)]
    pub(super) fn take_from_connections(&mut self, set_id: SocketSetId, taken: &mut Vec<SlotState<T, L>>) {
        let numbers = self.stream_mut(set_id).map(|(stream, _)| std::mem::take(&mut stream.connections));
        let now = self.connections.now;
        for number in numbers.unwrap_or_default() {
            self.close_connection(number, taken, now);
        }
    }

    /// Closes a connection with what good manners ask for, and takes what waits on it. The caller takes it out of its set.
    fn close_connection(
        &mut self,
        number: SocketId,
        taken: &mut Vec<SlotState<T, L>>,
        now: Instant,
    ) -> Option<Box<Connection>> {
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

    /// A connection has ended: it is closed, and told of if anybody has waited on it.
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
            // It opens and closes, and never says anything: as good as no connection, if that lasts. One alone is dialled again at once, or what
            // was lost with it would have nowhere to go.
            stream.barren = if connection.heard == 0 { stream.barren.saturating_add(1) } else { 0 };
            if stream.barren > FREE_BARREN {
                stream.backoff.failed(stream.way.health_interval, now, rng);
            }
            End::Lost(cause, problem)
        } else {
            counters.made(ConnectionKind::Failed);
            stream.backoff.failed(stream.way.health_interval, now, rng);
            let (problem, is_refused) = fault.failed();
            stream.was_refused = is_refused;
            End::Failed { problem, is_refused }
        };
        // Warm ones are dialled again.
        connections.check_at(now);
        let is_told = match &how {
            End::Lost(_, problem) => !taken.is_empty() || problem.is_some(),
            End::Failed { .. } | End::Rejected(_) => true,
        };
        if is_told {
            connections.ended.push(Ended { socket_set: set_id, taken, how });
        }
    }
}

/// The first number of a connection: sockets for datagrams have those below.
pub(super) const FIRST: u32 = 0xC000;

/// The place of a connection among them.
fn place_of(number: SocketId) -> Option<usize> {
    number.0.checked_sub(FIRST).map(|place| place as usize)
}

/// Connections in a row that may end without having brought anything, before the backend is left in peace for a while.
const FREE_BARREN: u8 = 2;
