//! The sets of backends, the choice of a connection for a query, and the queueing of the query.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dns::{append_frame, ask_keepalive};
use engine::query_slots::{QuerySlot, SocketId, SocketSetId};
use metrics::Want;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::dial::{Dial, Fault, SharedBuffers};
use super::{
    ConnectionEnd, ConnectionPool, DIALS, EndedConnection, FIRST, PooledConnection, StreamSet, StreamWay, Whose,
    place_of,
};
use crate::proxy_protocol::ClientHeader;
use crate::refusal::{SendRefusal, connect_problem, is_unreachable};

impl ConnectionPool {
    /// Creates an empty pool, whose sockets `epoll` watches.
    pub(crate) fn new(epoll: Rc<OwnedFd>) -> io::Result<Self> {
        Ok(Self {
            sets: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            dirty: Vec::new(),
            ended: Vec::new(),
            next_check: None,
            now: Instant::now(),
            room: SharedBuffers::default(),
            message: Vec::new(),
            epoll,
            rng: StdRng::try_from_rng(&mut rand::rngs::SysRng).map_err(io::Error::other)?,
        })
    }

    pub(crate) fn add(&mut self, set_id: SocketSetId, address: SocketAddr, way: StreamWay) {
        self.room.make_for(way.protocol.is_by_udp());
        let place = set_id.0 as usize;
        if self.sets.len() <= place {
            self.sets.resize_with(place + 1, || None);
        }
        self.sets[place] = Some(Box::new(StreamSet::new(address, way)));
    }

    /// Removes a backend whose connections are closed. Returns its address.
    pub(crate) fn remove(&mut self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.sets.get_mut(set_id.0 as usize)?.take().map(|set| set.address)
    }

    /// Replaces the settings of a backend. Open connections stay.
    pub fn set_way(&mut self, set_id: SocketSetId, way: StreamWay) {
        if let Some(set) = self.set_mut(set_id) {
            set.way = way;
        }
    }

    /// Returns true if a backend is asked by stream.
    pub fn has(&self, set_id: SocketSetId) -> bool {
        self.set(set_id).is_some()
    }

    /// Returns true if the backend has no sound open connection, or wants no queries now.
    pub fn is_cold(&self, set_id: SocketSetId) -> bool {
        let Some(set) = self.set(set_id) else { return false };
        if set.way.names_clients {
            return set.paused_until.is_some();
        }
        let is_good = |connection: &PooledConnection| {
            connection.is_open() && !connection.is_retired && !connection.clock.is_asked()
        };
        set.paused_until.is_some() || !set.connections.iter().any(|number| self.get(*number).is_some_and(is_good))
    }

    /// Returns the time when a connection was opened, or `None` if it is not open.
    pub fn opened_at(&self, number: SocketId) -> Option<Instant> {
        self.get(number)?.opened
    }

    /// Dials a backend that has no open connection, except during another dial or the back-off.
    pub fn dial(&mut self, set_id: SocketSetId, now: Instant) {
        if !self.is_cold(set_id) {
            return;
        }
        let may_be = |set: &&StreamSet| !set.is_paused(now) && !set.way.names_clients;
        let Some(set) = self.set(set_id).filter(may_be) else { return };
        let is_dialled = |number: &SocketId| self.get(*number).is_some_and(|connection| !connection.is_open());
        let may = !set.connections.iter().any(is_dialled) && set.backoff.until(now).is_none();
        if may && set.connections.len() < 2 * usize::from(set.way.rules.max) {
            let _ = self.begin_connection(set_id, None, now);
        }
    }

    pub(crate) fn address(&self, set_id: SocketSetId) -> Option<SocketAddr> {
        self.set(set_id).map(|set| set.address)
    }

    pub(crate) fn free_closed(&mut self) {
        self.free.append(&mut self.closed);
    }

    pub(super) fn set(&self, set_id: SocketSetId) -> Option<&StreamSet> {
        self.sets.get(set_id.0 as usize)?.as_deref()
    }

    pub(super) fn set_mut(&mut self, set_id: SocketSetId) -> Option<&mut StreamSet> {
        self.sets.get_mut(set_id.0 as usize)?.as_deref_mut()
    }

    pub(super) fn get(&self, number: SocketId) -> Option<&PooledConnection> {
        self.places.get(place_of(number)?)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: SocketId) -> Option<&mut PooledConnection> {
        self.places.get_mut(place_of(number)?)?.as_deref_mut()
    }

    pub(super) fn check_at(&mut self, at: Instant) {
        self.next_check = Some(self.next_check.map_or(at, |next| next.min(at)));
    }

    pub(super) fn note_queued(&mut self, number: SocketId) {
        if self.dirty.last() != Some(&number) {
            self.dirty.push(number);
        }
    }

    /// Chooses the open connection with the fewest pending queries, or else one that is being dialled. A
    /// silent one does not count towards `max`; the total is at most twice `max`.
    #[cold]
    #[inline(never)]
    pub(crate) fn choose(
        &mut self,
        set_id: SocketSetId,
        avoid: Option<SocketId>,
        header: Option<&ClientHeader>,
        now: Instant,
    ) -> Result<SocketId, SendRefusal> {
        self.now = now;
        let whose = Whose::of(header);
        let set = self.set_mut(set_id).ok_or(SendRefusal::Unreachable)?;
        set.last_query = Some(now);
        if set.is_paused(now) {
            return Err(SendRefusal::Paused);
        }
        set.paused_until = None;
        let (max, pipeline) = (usize::from(set.way.rules.max), usize::from(set.way.rules.pipeline));
        let peace = set.backoff.until(now);
        let was_refused = set.was_refused && peace.is_some();
        let is_alone = set.way.is_alone;
        let ConnectionCandidates { best, dialled, held, sound, all } = self.candidates(set_id, whose, avoid, now);
        let may_be_another = sound < max && all < 2 * max;
        // If ending connections use all places, queries wait until one of them has ended.
        let may_wait = sound < max && is_alone && peace.is_none();
        let mut has_place = may_be_another && dialled.is_none();
        if !has_place && best.is_none() && dialled.is_none() && header.is_some() && peace.is_none() {
            has_place = self.make_room(set_id, whose, now);
        }
        let may_open = has_place && peace.is_none();
        match (best, dialled) {
            (Some((waiting, number)), _) => {
                if waiting > pipeline / BUSY_SHARE && may_open {
                    let _ = self.begin_connection(set_id, header, now);
                }
                Ok(number)
            }
            (None, Some((number, true))) if Some(number) != avoid => Ok(number),
            (None, Some(_)) => {
                // The dial starts when the previous one is open, or after the delay of a second dial.
                let next = || may_wait.then(|| self.await_turn(set_id, header, now + SECOND_DIAL)).flatten();
                held.or_else(next).ok_or(SendRefusal::Full)
            }
            (None, None) if may_open => self.begin_connection(set_id, header, now).or_else(|error| {
                let refusal = SendRefusal::of(&error);
                let waits_on = self.await_dial(set_id, header, now).ok_or(refusal)?;
                // The query has not failed, so only this event reports that the backend is unreachable.
                let how =
                    ConnectionEnd::Failed { problem: connect_problem(&error), is_refused: is_unreachable(&error) };
                self.ended.push(EndedConnection { socket_set: set_id, slots: Vec::new(), how });
                Ok(waits_on)
            }),
            (None, None) => {
                let waits_on = has_place.then(|| self.await_dial(set_id, header, now)).flatten();
                let next = || may_wait.then(|| self.await_turn(set_id, header, now)).flatten();
                let refusal = if was_refused { SendRefusal::Unreachable } else { SendRefusal::Full };
                waits_on.or(held).or_else(next).ok_or(refusal)
            }
        }
    }

    /// Looks for a connection among those that are not silent.
    fn candidates(
        &self,
        set_id: SocketSetId,
        whose: Whose,
        avoid: Option<SocketId>,
        now: Instant,
    ) -> ConnectionCandidates {
        let mut found = ConnectionCandidates::default();
        let Some(set) = self.set(set_id) else { return found };
        let (pipeline, is_alone) = (usize::from(set.way.rules.pipeline), set.way.is_alone);
        found.all = set.connections.len();
        for number in &set.connections {
            let Some(connection) = self.get(*number).filter(|connection| !connection.is_retired) else { continue };
            if connection.is_open() && connection.clock.is_suspicious(set.limit, now) {
                continue;
            }
            found.sound += 1;
            if connection.whose != whose {
                continue;
            }
            let waiting = connection.taken.len();
            let has_room = waiting < pipeline && connection.has_room();
            if !connection.is_open() {
                found.dialled = found.dialled.filter(|(_, has_room)| *has_room).or(Some((*number, has_room)));
            } else if has_room && Some(*number) != avoid && found.best.is_none_or(|(least, _)| waiting < least) {
                found.best = Some((waiting, *number));
            } else if is_alone && waiting < pipeline && connection.may_hold() && Some(*number) != avoid {
                found.held = Some(*number);
            }
        }
        found
    }

    /// Adds a connection that is dialled after the back-off, if queries may wait for that.
    fn await_dial(&mut self, set_id: SocketSetId, header: Option<&ClientHeader>, now: Instant) -> Option<SocketId> {
        let at = self.set(set_id)?.awaited_dial(now)?;
        self.await_turn(set_id, header, at)
    }

    /// Adds a connection for waiting queries, which is dialled at `at` at the earliest.
    fn await_turn(&mut self, set_id: SocketSetId, header: Option<&ClientHeader>, at: Instant) -> Option<SocketId> {
        let number = self.number()?;
        self.add_connection(number, PooledConnection::new(set_id, None, at, header));
        Some(number)
    }

    /// Closes the longest idle connection of another client. Returns false if there is none.
    fn make_room(&mut self, set_id: SocketSetId, whose: Whose, now: Instant) -> bool {
        let Some(set) = self.set(set_id) else { return false };
        let all = set.connections.iter().filter_map(|number| Some((*number, self.get(*number)?)));
        let idle = all.filter(|(_, connection)| {
            !connection.is_retired && connection.taken.is_empty() && connection.whose != whose
        });
        let Some((number, _)) = idle.min_by_key(|(_, connection)| connection.idle_since) else { return false };
        self.close(number, now);
        true
    }

    pub(super) fn begin_connection(
        &mut self,
        set_id: SocketSetId,
        header: Option<&ClientHeader>,
        now: Instant,
    ) -> io::Result<SocketId> {
        let number = self.number().ok_or(io::ErrorKind::ResourceBusy)?;
        match self.begin_dial(set_id, number, now) {
            Ok(dial) => {
                self.add_connection(number, PooledConnection::new(set_id, Some(dial), now, header));
                Ok(number)
            }
            Err(error) => {
                self.free.push(number);
                self.dial_failed(set_id, &error, now);
                Err(error)
            }
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

    fn add_connection(&mut self, number: SocketId, connection: Box<PooledConnection>) {
        let (set_id, begun) = (connection.set_id, connection.dials.begun);
        if let Some(place) = place_of(number).and_then(|place| self.places.get_mut(place)) {
            *place = Some(connection);
        }
        if let Some(set) = self.set_mut(set_id) {
            set.connections.push(number);
            self.check_at(begun);
        }
    }

    pub(super) fn begin_dial(&self, set_id: SocketSetId, number: SocketId, now: Instant) -> io::Result<Dial> {
        self.set(set_id).ok_or(io::ErrorKind::NotFound)?.begin_dial(&self.epoll, number, now)
    }

    /// Returns false if the reply to an earlier query in this slot of a connection is due.
    #[inline]
    pub fn permits(&self, slot: QuerySlot) -> bool {
        self.get(slot.socket()).is_none_or(|connection| !connection.asked.contains(slot.id()))
    }

    /// Frees a slot after its reply, or because none is needed.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_slot(&mut self, slot: QuerySlot, now: Option<Instant>) {
        let Some(connection) = self.get_mut(slot.socket()) else { return };
        let is_asked = connection.asked.contains(slot.id());
        // A canceled stream is reset, and no longer counts towards the backend's limit.
        let is_canceled = is_asked && connection.open_dial().is_some_and(|dial| dial.stream.forget(slot.id()));
        if is_canceled {
            connection.asked.remove(slot.id());
        }
        connection.taken.retain(|taken| *taken != slot.id());
        let is_idle = connection.taken.is_empty();
        if let (true, Some(now)) = (is_idle, now) {
            connection.idle_since = now;
        }
        let is_over = is_idle && connection.is_retired;
        if let (true, Some(now)) = (is_over, now) {
            self.check_at(now);
        }
        if is_canceled {
            self.note_queued(slot.socket());
        }
    }

    /// Queues the message that `fill` writes, in this slot. It leaves with the next [`flush`](Self::flush),
    /// or when the connection is open.
    ///
    /// # Errors
    /// If it is too long. The slot is then free.
    #[cold]
    #[inline(never)]
    pub(crate) fn queue(&mut self, slot: QuerySlot, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendRefusal> {
        let connection = self.get_mut(slot.socket()).ok_or(SendRefusal::Unreachable)?;
        connection.asked.insert(slot.id());
        connection.taken.push(slot.id());
        connection.is_retired |= connection.asked.are_too_many();
        let (set_id, is_first) = (connection.set_id, connection.taken.len() == 1 && connection.heard == 0);
        let is_first = is_first && self.set(set_id).is_some_and(|set| set.way.protocol.has_keepalive());
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        fill(&mut message);
        if is_first {
            ask_keepalive(&mut message);
        }
        let queued = self.push(slot.socket(), slot.id(), &mut message, self.now);
        self.message = message;
        queued.ok_or_else(|| {
            self.free_slot(slot, None);
            SendRefusal::Unsent(Want::Size)
        })
    }

    pub(super) fn push(&mut self, number: SocketId, id: u16, message: &mut [u8], now: Instant) -> Option<()> {
        if let Some(first) = message.first_chunk_mut() {
            *first = id.to_be_bytes();
        }
        let connection = self.get_mut(number)?;
        if !connection.is_open() {
            append_frame(message, &mut connection.dials.waiting)?;
            // Early data uses one dial alone, because a duplicate has no use.
            if let [Some(dial), _] = &mut connection.dials.both {
                dial.stream.queue_early(message);
                self.note_queued(number);
            }
            return Some(());
        }
        let dial = connection.open_dial()?;
        let was_empty = dial.stream.unwritten() == 0;
        dial.stream.queue(message)?;
        connection.clock.sent(now);
        let set_id = connection.set_id;
        let limit = self.set(set_id).map(|set| set.limit).unwrap_or_default();
        self.check_at(now + limit);
        if was_empty {
            self.note_queued(number);
        }
        Some(())
    }

    /// Sends all queued messages.
    pub(crate) fn flush(&mut self) {
        if !self.dirty.is_empty() {
            self.flush_dirty();
        }
    }

    #[cold]
    #[inline(never)]
    fn flush_dirty(&mut self) {
        let now = self.now;
        while let Some(number) = self.dirty.pop() {
            for which in 0..DIALS {
                let mut room = std::mem::take(&mut self.room);
                let dial = self.get_mut(number).and_then(|connection| connection.dials.get_mut(which));
                let wrote =
                    dial.map(|dial| (dial.write_batched(&mut room, now), dial.is_by_udp(), dial.stream.next_timer()));
                self.room = room;
                let Some((wrote, is_by_udp, timer)) = wrote else { continue };
                if let Some(at) = timer {
                    self.check_at(at);
                }
                // Reading returns the reason of a stream error. The kernel reports an ICMP error only once.
                if let Err(error) = wrote.map_err(Fault::Socket)
                    && is_by_udp
                {
                    self.dial_ended(number, which, error, now);
                }
            }
        }
    }
}

/// The connections that may carry a query.
#[derive(Default)]
struct ConnectionCandidates {
    /// The open connection with room and the fewest pending queries, and their number.
    best: Option<(usize, SocketId)>,
    /// A connection that is being dialled, and true if it has room.
    dialled: Option<(SocketId, bool)>,
    /// An open connection where a query may wait until the backend accepts it.
    held: Option<SocketId>,
    /// The number of connections that are not silent.
    sound: usize,
    all: usize,
}

/// Another connection is opened when this part (1/n) of `pipeline` is pending.
const BUSY_SHARE: usize = 4;

/// The kernel repeats a lost segment only after a second.
pub(super) const SECOND_DIAL: Duration = Duration::from_millis(250);
