//! The choice of a connection for a query, and the queueing of the query.

use std::io;
use std::time::Instant;

use super::ConnectionEnd;
use super::EndedConnection;
use super::PooledConnection;
use super::StreamSet;
use super::Whose;
use super::check::SECOND_DIAL;
use super::dial::{Dial, Fault};
use super::hear::DIALS;
use super::place_of;
use crate::metrics::Want;
use crate::net::proxy_protocol::ClientHeader;
use crate::net::refusal::{SendRefusal, connect_problem, is_unreachable};
use crate::net::to_backends::connection::{AskedIds, SilenceClock};
use crate::net::to_backends::sockets::BackendSockets;
use crate::net::to_backends::sockets::sent::SentIds;
use crate::policy::query_slots::{QuerySlot, SocketId, SocketSetId};
use crate::wire::{append_frame, ask_keepalive};

impl<T: Copy, L: Copy> BackendSockets<T, L> {
    #[cold]
    #[inline(never)]
    pub(in crate::net) fn queue_by_stream(
        &mut self,
        set_id: SocketSetId,
        user_data: T,
        (avoid, header): (Option<SocketId>, Option<&ClientHeader>),
        now: Instant,
        fill: impl FnOnce(QuerySlot, &mut Vec<u8>),
    ) -> Result<QuerySlot, SendRefusal> {
        self.connections.now = now;
        let number = self.choose_connection(set_id, avoid, header, now)?;
        let is_first = self.connections.get(number).is_some_and(|it| it.taken_slots == 0 && it.heard == 0)
            && self.stream(set_id).is_some_and(|stream| stream.way.protocol.has_keepalive());
        let slot = self.draw_on(number, user_data).ok_or(SendRefusal::Full)?;
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
            return Err(SendRefusal::Unsent(Want::Size));
        }
        Ok(slot)
    }

    /// Dials a backend that has no open connection, except during another dial or the back-off.
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
            let _ = self.begin_connection(set_id, None, now);
        }
    }

    /// Chooses the open connection with the fewest pending queries, or else one that is being dialled. A
    /// silent one does not count towards `max`; the total is at most twice `max`.
    fn choose_connection(
        &mut self,
        set_id: SocketSetId,
        avoid: Option<SocketId>,
        header: Option<&ClientHeader>,
        now: Instant,
    ) -> Result<SocketId, SendRefusal> {
        let whose = Whose::of(header);
        let (stream, connections) = self.stream_mut(set_id).ok_or(SendRefusal::Unreachable)?;
        stream.last_query = Some(now);
        if stream.is_paused(now) {
            return Err(SendRefusal::Paused);
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
                held = Some(*number);
            }
        }
        let peace = stream.backoff.until(now);
        let is_wanted = best.is_none() && dialled.is_none();
        let may_be_another = sound < max && stream.connections.len() < 2 * max;
        // If ending connections use all places, queries wait until one of them has ended.
        let may_wait = sound < max && stream.way.is_alone && peace.is_none();
        let mut has_place = may_be_another && dialled.is_none();
        if !has_place && is_wanted && header.is_some() && peace.is_none() {
            has_place = self.make_room(set_id, whose, now);
        }
        let (stream, _) = self.stream_mut(set_id).ok_or(SendRefusal::Unreachable)?;
        let may_open = has_place && peace.is_none();
        let was_refused = stream.was_refused && peace.is_some();
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
                self.connections.ended.push(EndedConnection { socket_set: set_id, taken: Vec::new(), how });
                Ok(waits_on)
            }),
            (None, None) => {
                let waits_on = has_place.then(|| self.await_dial(set_id, header, now)).flatten();
                let next = || may_wait.then(|| self.await_turn(set_id, header, now)).flatten();
                waits_on.or(held).or_else(next).ok_or(if was_refused {
                    SendRefusal::Unreachable
                } else {
                    SendRefusal::Full
                })
            }
        }
    }

    /// Adds a connection that is dialled after the back-off, if queries may wait for that.
    fn await_dial(&mut self, set_id: SocketSetId, header: Option<&ClientHeader>, now: Instant) -> Option<SocketId> {
        let at = self.stream(set_id)?.awaited_dial(now)?;
        self.await_turn(set_id, header, at)
    }

    /// Adds a connection for waiting queries, which is dialled at `at` at the earliest.
    fn await_turn(&mut self, set_id: SocketSetId, header: Option<&ClientHeader>, at: Instant) -> Option<SocketId> {
        let number = self.connections.number()?;
        self.add_connection(set_id, number, None, (at, header));
        Some(number)
    }

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

    /// Closes the longest idle connection of another client. Returns false if there is none.
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

    fn add_connection(
        &mut self,
        set_id: SocketSetId,
        number: SocketId,
        dial: Option<Dial>,
        (begun, header): (Instant, Option<&ClientHeader>),
    ) {
        let connection = PooledConnection {
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

    pub(super) fn begin_dial(&self, set_id: SocketSetId, number: SocketId, now: Instant) -> io::Result<Dial> {
        let address = self.address(set_id).ok_or(io::ErrorKind::NotFound)?;
        let stream = self.stream(set_id).ok_or(io::ErrorKind::NotFound)?;
        Dial::begin(address, &stream.way, &self.epoll, number, now)
    }

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
        connection.is_retired |= connection.asked.are_too_many();
        Some(slot)
    }

    /// Queues a message. It leaves with the next [`flush`](Self::flush), or when the connection is open.
    pub(super) fn push(&mut self, number: SocketId, id: u16, message: &mut [u8], now: Instant) -> Option<()> {
        if let Some(first) = message.first_chunk_mut() {
            *first = id.to_be_bytes();
        }
        let connection = self.connections.get_mut(number)?;
        if !connection.is_open {
            append_frame(message, &mut connection.waiting)?;
            // Early data uses one dial alone, because a duplicate has no use.
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

    #[cold]
    #[inline(never)]
    pub(in crate::net) fn flush_connections(&mut self) {
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

impl PooledConnection {
    fn may_hold(&self) -> bool {
        let unwritten = self.dials.iter().flatten().map(|dial| dial.stream.unwritten());
        self.dials.iter().flatten().all(|dial| dial.stream.may_hold()) && unwritten.sum::<usize>() <= MAX_UNWRITTEN
    }

    fn has_room(&self) -> bool {
        let unwritten = self.dials.iter().flatten().map(|dial| dial.stream.unwritten());
        let takes_more = !self.is_open || self.dials.iter().flatten().all(|dial| dial.stream.has_room());
        takes_more && self.waiting.len() + unwritten.sum::<usize>() <= MAX_UNWRITTEN
    }
}

/// Another connection is opened when this part (1/n) of `pipeline` is pending.
const BUSY_SHARE: u32 = 4;

const MAX_UNWRITTEN: usize = 256 * 1024;
