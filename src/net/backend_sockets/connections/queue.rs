//! Which connection a query takes, and how it gets there.

use std::io;
use std::time::Instant;

use super::check::SECOND_DIAL;
use super::dial::{Dial, Fault};
use super::hear::DIALS;
use super::{Connection, End, Ended, StreamSet, Whose, place_of};
use crate::metrics::Want;
use crate::net::backend_connection::{AskedIds, SilenceClock};
use crate::net::backend_sockets::BackendSockets;
use crate::net::backend_sockets::sent::SentIds;
use crate::net::proxy_protocol::ClientHeader;
use crate::net::refusal::{Refusal, connect_problem, is_unreachable};
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};
use crate::wire::{append_frame, ask_keepalive};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    /// Queues a message for a backend that is asked by stream, on another connection than `avoid`.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn queue_by_stream(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        (avoid, header): (Option<SocketId>, Option<&ClientHeader>),
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, Refusal> {
        self.connections.now = now;
        let number = self.choose_connection(set_id, avoid, header, now)?;
        let is_first = self.connections.get(number).is_some_and(|it| it.taken_slots == 0 && it.heard == 0)
            && self.stream(set_id).is_some_and(|stream| stream.way.protocol.has_keepalive());
        let slot = self.draw_on(number, user_data).ok_or(Refusal::Full)?;
        let mut message = std::mem::take(&mut self.connections.message);
        message.clear();
        fill(slot, &mut message);
        if is_first {
            ask_keepalive(&mut message);
        }
        let queued = self.push(number, slot.id(), &mut message, now);
        self.connections.message = message;
        if queued.is_none() {
            self.withdraw(slot);
            return Err(Refusal::Unsent(Want::Size));
        }
        Ok(slot)
    }

    /// Dials a backend that has no open connection, unless somebody does so already or it is left in peace.
    pub fn dial(&mut self, set_id: SocketSetId, now: Instant) {
        if !self.is_cold(set_id) {
            return;
        }
        let may_be = |stream: &&StreamSet| !stream.is_paused(now) && !stream.way.names_clients;
        let Some(stream) = self.stream(set_id).filter(may_be) else { return };
        let is_dialled =
            |number: &SocketId| self.connections.get(*number).is_some_and(|connection| !connection.is_open);
        let may = !stream.connections.iter().any(is_dialled) && stream.backoff.until(now).is_none();
        if may && stream.connections.len() < 2 * usize::from(stream.way.rules.max) {
            // What is wrong shows again when there is a query.
            let _ = self.begin_connection(set_id, None, now);
        }
    }

    /// The connection that a query takes: the open one with the fewest waiting, or else one that is dialled. One that brings nothing
    /// takes none, and does not count for `max`: of those there are never more than as many again.
    fn choose_connection(
        &mut self,
        set_id: SocketSetId,
        avoid: Option<SocketId>,
        header: Option<&ClientHeader>,
        now: Instant,
    ) -> Result<SocketId, Refusal> {
        let whose = Whose::of(header);
        let (stream, connections) = self.stream_mut(set_id).ok_or(Refusal::Unreachable)?;
        stream.last_query = Some(now);
        if stream.is_paused(now) {
            return Err(Refusal::Paused);
        }
        stream.paused_until = None;
        let (max, pipeline) = (usize::from(stream.way.rules.max), u32::from(stream.way.rules.pipeline));
        let (mut sound, mut dialled, mut best, mut held) = (0, None, None, None);
        for number in &stream.connections {
            let Some(connection) = connections.get(*number).filter(|connection| !connection.is_retired) else {
                continue;
            };
            if connection.is_open && connection.clock.is_suspicious(stream.limit, now) {
                continue;
            }
            sound += 1;
            if connection.whose != whose {
                continue;
            }
            let waiting = connection.taken_slots;
            let has_room = waiting < pipeline && connection.has_room();
            if !connection.is_open {
                dialled = dialled.filter(|(_, has_room)| *has_room).or(Some((*number, has_room)));
            } else if has_room && Some(*number) != avoid && best.is_none_or(|(least, _)| waiting < least) {
                best = Some((waiting, *number));
            } else if stream.way.is_alone && waiting < pipeline && connection.may_hold() && Some(*number) != avoid {
                // Until the backend allows another stream.
                held = Some(*number);
            }
        }
        let peace = stream.backoff.until(now);
        let is_wanted = best.is_none() && dialled.is_none();
        let may_be_another = sound < max && stream.connections.len() < 2 * max;
        // Where those that end have all places, queries wait until one of them has ended.
        let may_wait = sound < max && stream.way.is_alone && peace.is_none();
        let mut has_place = may_be_another && dialled.is_none();
        if !has_place && is_wanted && header.is_some() && peace.is_none() {
            has_place = self.make_room(set_id, whose, now);
        }
        let (stream, _) = self.stream_mut(set_id).ok_or(Refusal::Unreachable)?;
        let may_open = has_place && peace.is_none();
        let was_refused = stream.was_refused && peace.is_some();
        match (best, dialled) {
            (Some((waiting, number)), _) => {
                if waiting > pipeline / BUSY_SHARE && may_open {
                    // The query has a way already.
                    let _ = self.begin_connection(set_id, header, now);
                }
                Ok(number)
            }
            (None, Some((number, true))) if Some(number) != avoid => Ok(number),
            (None, Some(_)) => {
                // It is dialled when the one before it is open, or as a second dial would be.
                let next = || may_wait.then(|| self.await_turn(set_id, header, now + SECOND_DIAL)).flatten();
                held.or_else(next).ok_or(Refusal::Full)
            }
            (None, None) if may_open => self.begin_connection(set_id, header, now).or_else(|error| {
                let refusal = Refusal::of(&error);
                let waits_on = self.await_dial(set_id, header, now).ok_or(refusal)?;
                // Nobody else tells that there is nobody, since the query has not failed.
                let how = End::Failed { problem: connect_problem(&error), is_refused: is_unreachable(&error) };
                self.connections.ended.push(Ended { socket_set: set_id, taken: Vec::new(), how });
                Ok(waits_on)
            }),
            (None, None) => {
                let waits_on = has_place.then(|| self.await_dial(set_id, header, now)).flatten();
                let next = || may_wait.then(|| self.await_turn(set_id, header, now)).flatten();
                waits_on.or(held).or_else(next).ok_or(if was_refused { Refusal::Unreachable } else { Refusal::Full })
            }
        }
    }

    /// Adds a connection that is dialled when its backend is not left in peace any more, if queries wait for that.
    fn await_dial(&mut self, set_id: SocketSetId, header: Option<&ClientHeader>, now: Instant) -> Option<SocketId> {
        let at = self.stream(set_id)?.awaited_dial(now)?;
        self.await_turn(set_id, header, at)
    }

    /// Adds a connection that is dialled then at the earliest, when there is a place for it: queries wait on it.
    fn await_turn(&mut self, set_id: SocketSetId, header: Option<&ClientHeader>, at: Instant) -> Option<SocketId> {
        let number = self.connections.number()?;
        self.add_connection(set_id, number, None, (at, header));
        Some(number)
    }

    /// A connection is open: the next one is dialled for which queries wait.
    pub(super) fn dial_next(&mut self, set_id: SocketSetId, now: Instant) {
        let Some((stream, connections)) = self.stream_mut(set_id) else { return };
        for number in &stream.connections {
            let Some(connection) = connections.get_mut(*number) else { continue };
            if !connection.is_open && connection.dials.iter().all(Option::is_none) {
                connection.begun = now;
                return connections.check_at(now);
            }
        }
    }

    /// Closes the connection on which nobody has waited for the longest time, and that is of another client. Returns whether there was one.
    fn make_room(&mut self, set_id: SocketSetId, whose: Whose, now: Instant) -> bool {
        let Some(stream) = self.stream(set_id) else { return false };
        let idle = stream.connections.iter().filter_map(|number| Some((*number, self.connections.get(*number)?)));
        let idle = idle.filter(|(_, connection)| {
            !connection.is_retired && connection.taken_slots == 0 && connection.whose != whose
        });
        let Some((number, _)) = idle.min_by_key(|(_, connection)| connection.idle_since) else { return false };
        self.close_connection(number, &mut Vec::new(), now);
        if let Some((stream, _)) = self.stream_mut(set_id) {
            stream.connections.retain(|other| *other != number);
        }
        true
    }

    /// Begins a connection.
    pub(super) fn begin_connection(
        &mut self,
        set_id: SocketSetId,
        header: Option<&ClientHeader>,
        now: Instant,
    ) -> io::Result<SocketId> {
        let number = self.connections.number().ok_or(io::ErrorKind::ResourceBusy)?;
        let dial = match self.begin_dial(set_id, number, now) {
            Ok(dial) => dial,
            Err(error) => {
                self.connections.free.push(number);
                self.dial_failed(set_id, &error, now);
                return Err(error);
            }
        };
        self.add_connection(set_id, number, Some(dial), (now, header));
        Ok(number)
    }

    /// Adds a connection that is being dialled, or is to be dialled then, and begins with a header if there is one.
    fn add_connection(
        &mut self,
        set_id: SocketSetId,
        number: SocketId,
        dial: Option<Dial>,
        (begun, header): (Instant, Option<&ClientHeader>),
    ) {
        let connection = Connection {
            set_id,
            whose: Whose::of(header),
            begun,
            dials: [dial, None],
            is_doubled: false,
            is_open: false,
            opened: None,
            waiting: header.map(|header| header.octets.clone()).unwrap_or_default(),
            taken_slots: 0,
            sent: self.spare.pop().unwrap_or_else(SentIds::new),
            asked: AskedIds::new(),
            clock: SilenceClock::default(),
            idle_since: begun,
            heard: 0,
            is_retired: false,
        };
        if let Some(place) = place_of(number).and_then(|place| self.connections.places.get_mut(place)) {
            *place = Some(Box::new(connection));
        }
        if let Some((stream, connections)) = self.stream_mut(set_id) {
            stream.connections.push(number);
            connections.check_at(begun);
        }
    }

    /// Begins a dial for a connection.
    pub(super) fn begin_dial(&self, set_id: SocketSetId, number: SocketId, now: Instant) -> io::Result<Dial> {
        let address = self.address(set_id).ok_or(io::ErrorKind::NotFound)?;
        let stream = self.stream(set_id).ok_or(io::ErrorKind::NotFound)?;
        Dial::begin(address, &stream.way, &self.epoll, number, now)
    }

    /// Takes a free ID of a connection, which no reply is due to either.
    fn draw_on(&mut self, number: SocketId, user_data: T) -> Option<QuerySlot> {
        let Self { connections, slots, rng, .. } = self;
        let connection = connections.get_mut(number)?;
        let slot = loop {
            let slot = slots.draw(number, user_data, rng);
            if connection.asked.insert(slot.id()) {
                break slot;
            }
            slots.remove(slot);
        };
        let has = |id| QuerySlot::new(number, id).is_some_and(|slot| slots.has(slot));
        connection.sent.push(slot.id(), connection.taken_slots, has);
        connection.taken_slots += 1;
        // A backend that ignores most of what it is asked gets another connection in time.
        connection.is_retired |= connection.asked.are_too_many();
        Some(slot)
    }

    /// Puts a message with this ID on a connection. It leaves with the next [`flush`](Self::flush), or when the connection is open.
    pub(super) fn push(&mut self, number: SocketId, id: u16, message: &mut [u8], now: Instant) -> Option<()> {
        if let Some(first) = message.first_chunk_mut() {
            *first = id.to_be_bytes();
        }
        let connection = self.connections.get_mut(number)?;
        if !connection.is_open {
            append_frame(message, &mut connection.waiting)?;
            // By one dial alone: what nobody answers need not go twice.
            if let [Some(dial), _] = &mut connection.dials {
                dial.stream.queue_early(message);
                self.connections.note_queued(number);
            }
            return Some(());
        }
        let dial = connection.open_dial()?;
        let was_empty = dial.stream.unwritten() == 0;
        dial.stream.queue(message)?;
        connection.clock.sent(now);
        let limit = connection.set_id;
        let limit = self.stream(limit).map(|stream| stream.limit).unwrap_or_default();
        self.connections.check_at(now + limit);
        if was_empty {
            self.connections.note_queued(number);
        }
        Some(())
    }

    /// Writes what is queued, of each connection by one call.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn flush_connections(&mut self) {
        let now = self.connections.now;
        while let Some(number) = self.connections.dirty.pop() {
            for which in 0..DIALS {
                let mut room = std::mem::take(&mut self.connections.room);
                let connection = self.connections.get_mut(number);
                let dial = connection.and_then(|connection| connection.dials.get_mut(which)?.as_mut());
                let wrote =
                    dial.map(|dial| (dial.write_batched(&mut room, now), dial.is_by_udp(), dial.stream.next_timer()));
                self.connections.room = room;
                let Some((wrote, is_by_udp, timer)) = wrote else { continue };
                if let Some(at) = timer {
                    self.connections.check_at(at);
                }
                // Of streams epoll tells, and reading says why; of an ICMP error the kernel tells once.
                if let Err(error) = wrote.map_err(Fault::Socket)
                    && is_by_udp
                {
                    self.dial_ended(number, which, error, now);
                }
            }
        }
    }
}

impl Connection {
    /// Whether queries may wait on it that the backend does not take yet.
    fn may_hold(&self) -> bool {
        let unwritten = self.dials.iter().flatten().map(|dial| dial.stream.unwritten());
        self.dials.iter().flatten().all(|dial| dial.stream.may_hold()) && unwritten.sum::<usize>() <= MAX_UNWRITTEN
    }

    /// Whether it takes another query, as far as the backend and what it has not read yet go.
    fn has_room(&self) -> bool {
        let unwritten = self.dials.iter().flatten().map(|dial| dial.stream.unwritten());
        let takes_more = !self.is_open || self.dials.iter().flatten().all(|dial| dial.stream.has_room());
        takes_more && self.waiting.len() + unwritten.sum::<usize>() <= MAX_UNWRITTEN
    }
}

/// One part in so many of `pipeline` on one connection has another opened beside it.
const BUSY_SHARE: u32 = 4;

/// Octets that may wait for a backend that does not read, before it is asked no more on this connection.
const MAX_UNWRITTEN: usize = 256 * 1024;
