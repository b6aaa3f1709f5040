//! One client's connection by QUIC: its streams, each with one query, and how long it is waited for. A value: datagrams, responses and time are
//! brought to it by the task that has it (`worker.rs`).
//!
//! ```text
//!     receiving ──whole query──▶ asked ──response──▶ writing ──all handed to QUIC──▶ written ──acknowledged──▶ gone
//!         │                        ▲                  ▲   │
//!         │ not a QUERY, early     │ handshake        └───┴── between parts
//!         └──────▶ held ───────────┘ complete
//! ```
//!
//! A client has `in_flight` streams at once, and as many queries that wait for their response: one that it has given up counts until its
//! response has come, so that nobody asks for more by giving up. What is counted of a response counts until the client has
//! acknowledged it.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionHandle, Dir, Endpoint, Event, ReadError, Side, StreamEvent, StreamId, WriteError,
};
use tokio::sync::mpsc;

use super::query_stream::{QueryStream, is_replayable, whole_query};
use super::stream::{Closed, Code, Stream};
use super::worker::Tools;
use crate::limit::{Doing, Patience, Pressure};
use crate::metrics::{ConnectionFate, Counters, ShakenBy};
use crate::net::batch::LocalAddress;
use crate::net::tcp::{ConnectionSlot, Responder, Response, WayBack};
use crate::wire::{FRAME_PREFIX, Transport};

/// One client's connection.
pub(super) struct Connection {
    pub(super) quic: quinn_proto::Connection,
    pub(super) handle: ConnectionHandle,
    /// The number that responses bear.
    number: u64,
    /// Its place among all connections. None once it is over, and QUIC only waits for what may be on its way still.
    open: Option<Open>,
    /// Where its last datagram arrived.
    pub(super) local: Option<LocalAddress>,
    streams: HashMap<StreamId, Stream, foldhash::fast::RandomState>,
    /// Streams that may have something to be read.
    unread: VecDeque<StreamId>,
    /// Queries that wait for their response.
    asked: usize,
    /// Streams with a response that the client has not acknowledged.
    unacknowledged: usize,
    /// Streams whose next part is waited for.
    between_parts: usize,
    /// Octets of queries that are not whole, or that are held.
    partial: usize,
    /// Streams in a row that were given up before they had a query.
    fruitless: u32,
    /// A sound query was handed over since the connection was last idle.
    is_busy: bool,
    /// No more queries are taken.
    is_at_end: bool,
    /// A ticket was good.
    pub(super) is_resumed: bool,
    /// When the last response was all handed to QUIC.
    written_at: Instant,
    /// Not before then a query is overdue that has begun.
    overdue_at: Option<Instant>,
    patience: Patience,
    /// Datagrams that wait at the gate.
    pub(super) steps: u32,
    /// When it is to be looked at.
    pub(super) alarm: Option<Instant>,
    /// Its handshake is not complete.
    pub(super) is_shaking: bool,
    /// It stands in the list of those with work.
    pub(super) has_work: bool,
    /// It stands in the list of those with something to be sent.
    pub(super) is_sending: bool,
}

/// A place among all connections, which counts as open.
struct Open {
    slot: ConnectionSlot,
    counters: Arc<Counters>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counters.connections.closed(Transport::Quic);
    }
}

impl Connection {
    /// A connection that has just been accepted.
    pub(super) fn new(
        (handle, quic): (ConnectionHandle, quinn_proto::Connection),
        number: u64,
        slot: ConnectionSlot,
        counters: &Arc<Counters>,
        local: Option<LocalAddress>,
        now: Instant,
    ) -> Self {
        counters.connections.opened(Transport::Quic);
        Self {
            quic,
            handle,
            number,
            open: Some(Open { slot, counters: Arc::clone(counters) }),
            local,
            streams: HashMap::default(),
            unread: VecDeque::new(),
            asked: 0,
            unacknowledged: 0,
            between_parts: 0,
            partial: 0,
            fruitless: 0,
            is_busy: false,
            is_at_end: false,
            is_resumed: false,
            written_at: now,
            overdue_at: None,
            patience: Patience::new(now),
            steps: 0,
            alarm: None,
            is_shaking: true,
            has_work: false,
            is_sending: false,
        }
    }

    /// Whether it has its place still.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Does what there is to do: events of QUIC, queries that can be handed over. Returns whether QUIC has done with it altogether.
    ///
    /// # Errors
    /// If it is to be closed.
    pub(super) fn work<H: Fn(&[u8], &Responder)>(&mut self, tools: &mut Tools<'_, H>) -> (bool, Result<(), Closed>) {
        let mut result = Ok(());
        while let Some(event) = self.quic.poll() {
            let done = self.on_event(event, tools);
            result = result.and(done);
        }
        if result.is_ok() {
            result = self.hand_over_all(tools);
        }
        if result.is_ok() {
            self.note_standing(tools.now);
            // It has had its time: others may have a worker anew.
            if self.is_open() && self.is_finished(true, tools.now) {
                result = Err(Closed { code: Code::NoError, reason: "no more queries" });
            }
        }
        (self.tell_endpoint(tools.endpoint), result)
    }

    /// Tells the endpoint what concerns it; whether that was that all is over.
    pub(super) fn tell_endpoint(&mut self, endpoint: &mut Endpoint) -> bool {
        let mut is_drained = false;
        while let Some(event) = self.quic.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(answer) = endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(answer);
            }
        }
        is_drained
    }

    fn on_event<H: Fn(&[u8], &Responder)>(&mut self, event: Event, tools: &mut Tools<'_, H>) -> Result<(), Closed> {
        match event {
            Event::Connected => {
                let by = match (self.quic.has_0rtt(), self.is_resumed) {
                    (true, _) => ShakenBy::Early,
                    (false, true) => ShakenBy::Resumed,
                    (false, false) => ShakenBy::Full,
                };
                tools.counters.connections.shaken(Transport::Quic, by);
                self.release_held(tools);
                Ok(())
            }
            Event::ConnectionLost { reason } => {
                self.on_lost(&reason, tools.counters);
                Ok(())
            }
            Event::Stream(event) => self.on_stream_event(event, tools.now),
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => Ok(()),
        }
    }

    /// QUIC has lost the connection.
    fn on_lost(&mut self, reason: &ConnectionError, counters: &Counters) {
        if self.open.is_some() && self.patience.is_fresh() {
            let fate = match reason {
                ConnectionError::TimedOut => Some(ConnectionFate::TimedOut),
                ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_) => {
                    Some(ConnectionFate::HandshakeFailed)
                }
                ConnectionError::VersionMismatch
                | ConnectionError::ApplicationClosed(_)
                | ConnectionError::Reset
                | ConnectionError::LocallyClosed
                | ConnectionError::CidsExhausted => None,
            };
            fate.into_iter().for_each(|fate| counters.connections.fate(Transport::Quic, fate));
        }
        tracing::trace!(%reason, "a connection by QUIC is lost");
        self.give_up_place();
    }

    fn on_stream_event(&mut self, event: StreamEvent, now: Instant) -> Result<(), Closed> {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                Err(Closed { code: Code::ProtocolError, reason: "a unidirectional stream" })
            }
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = self.quic.streams().accept(Dir::Bi) {
                    let query = QueryStream::default();
                    self.streams.insert(id, Stream::Receiving { since: now, query, is_unread: true });
                    self.unread.push_back(id);
                }
                Ok(())
            }
            StreamEvent::Readable { id } => {
                // Once, however many octets or none come while it waits.
                if let Some(Stream::Receiving { is_unread, .. }) = self.streams.get_mut(&id)
                    && !mem::replace(is_unread, true)
                {
                    self.unread.push_back(id);
                }
                Ok(())
            }
            StreamEvent::Writable { id } => {
                self.write_on(id, now);
                Ok(())
            }
            StreamEvent::Finished { id } => {
                if matches!(self.streams.get(&id), Some(Stream::Written(_))) {
                    self.forget(id, now);
                }
                Ok(())
            }
            StreamEvent::Stopped { id, .. } => self.give_up(id, now),
            StreamEvent::Available { .. } => Ok(()),
        }
    }

    /// The client does not want the response of a stream any more.
    fn give_up(&mut self, id: StreamId, now: Instant) -> Result<(), Closed> {
        // RFC 9250 section 4.3.1.
        let _ = self.quic.send_stream(id).reset(Code::RequestCancelled.to_wire());
        match self.streams.get_mut(&id) {
            Some(stream @ Stream::Asked) => *stream = Stream::GivenUp,
            Some(Stream::Receiving { .. } | Stream::Held(_)) => {
                let _ = self.quic.recv_stream(id).stop(Code::RequestCancelled.to_wire());
                self.forget(id, now);
                return self.count_fruitless();
            }
            Some(Stream::BetweenParts(_) | Stream::Writing { .. } | Stream::Written(_)) => self.forget(id, now),
            Some(Stream::GivenUp) | None => {}
        }
        Ok(())
    }

    /// One more stream was given up before it had a query.
    fn count_fruitless(&mut self) -> Result<(), Closed> {
        self.fruitless += 1;
        if self.fruitless < MAX_FRUITLESS {
            return Ok(());
        }
        Err(Closed { code: Code::ExcessiveLoad, reason: "streams without queries" })
    }

    /// Forgets a stream, and what counts of it.
    fn forget(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.remove(&id) else { return };
        match &stream {
            Stream::Receiving { query, .. } => self.partial -= query.len(),
            Stream::Held(message) => self.partial -= message.len(),
            Stream::Asked | Stream::GivenUp => self.asked -= 1,
            Stream::BetweenParts(_) => {
                self.asked -= 1;
                self.between_parts -= 1;
            }
            Stream::Writing { parts, .. } => {
                self.asked -= usize::from(parts.is_some());
                self.unacknowledged -= 1;
            }
            Stream::Written(_) => self.unacknowledged -= 1,
        }
        let counted = stream.counted();
        if let Some(open) = &self.open {
            open.slot.seat.settle(counted);
            if counted > 0 {
                self.patience.on_written(counted, &open.slot.rules, now);
            }
        }
    }

    /// Hands over the queries that are whole, as far as the client may have more in flight.
    fn hand_over_all<H: Fn(&[u8], &Responder)>(&mut self, tools: &mut Tools<'_, H>) -> Result<(), Closed> {
        while self.can_hand_over()
            && let Some(id) = self.unread.pop_front()
        {
            self.read(id, tools)?;
        }
        Ok(())
    }

    /// Whether a query may be handed over, if there is one.
    fn can_hand_over(&self) -> bool {
        let Some(Open { slot, .. }) = &self.open else { return false };
        !self.is_at_end && self.asked < slot.rules.in_flight && slot.seat.has_room()
    }

    /// Reads what has come on a stream, and hands its query over if that is whole.
    fn read<H: Fn(&[u8], &Responder)>(&mut self, id: StreamId, tools: &Tools<'_, H>) -> Result<(), Closed> {
        // What comes behind a query that was handed over is found when its end is.
        let Some(Stream::Receiving { since, query, is_unread }) = self.streams.get_mut(&id) else { return Ok(()) };
        *is_unread = false;
        let (since, had) = (*since, query.len());
        // A query mostly comes in one piece, which is then read where it lies.
        let mut whole: Option<Bytes> = None;
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            self.forget(id, tools.now);
            return Ok(());
        };
        let end = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) if had == 0 && query.len() == 0 && whole.is_none() => whole = Some(chunk.bytes),
                Ok(Some(chunk)) => {
                    if let Some(first) = whole.take() {
                        query.take(&first)?;
                    }
                    query.take(&chunk.bytes)?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let _ = chunks.finalize();
        match end {
            Ok(()) => {
                let query = mem::take(query);
                self.partial -= had;
                // From here on it is a stream without octets.
                self.fruitless = 0;
                let message = match &whole {
                    Some(whole) => whole_query(whole)?,
                    None => query.end()?,
                };
                self.take_query(id, message, tools);
                self.check_partial()
            }
            Err(ReadError::Blocked) => {
                if let Some(first) = whole {
                    query.take(&first)?;
                }
                self.partial = self.partial - had + query.len();
                self.check_partial()?;
                if let Some(Open { slot, .. }) = &self.open {
                    let overdue = since + slot.rules.first_query;
                    self.overdue_at = Some(self.overdue_at.map_or(overdue, |at| at.min(overdue)));
                }
                Ok(())
            }
            Err(ReadError::Reset(_)) => {
                // RFC 9250 section 4.3.1: the response is given up as well.
                let _ = self.quic.send_stream(id).reset(Code::RequestCancelled.to_wire());
                self.forget(id, tools.now);
                self.count_fruitless()
            }
        }
    }

    /// Whether the client has us hold too much of what is not asked yet.
    fn check_partial(&self) -> Result<(), Closed> {
        let too_much = Closed { code: Code::ExcessiveLoad, reason: "too many queries in parts" };
        if self.partial > MAX_PARTIAL { Err(too_much) } else { Ok(()) }
    }

    /// A query has come whole.
    fn take_query<H: Fn(&[u8], &Responder)>(&mut self, id: StreamId, message: &[u8], tools: &Tools<'_, H>) {
        // RFC 9250 section 4.5: what changes something is not done before it is sure that nobody has sent it anew.
        if self.quic.is_handshaking() && !is_replayable(message) {
            self.partial += message.len();
            self.streams.insert(id, Stream::Held(message.to_vec()));
            return;
        }
        let Some(Open { slot, .. }) = &self.open else { return };
        self.streams.insert(id, Stream::Asked);
        self.asked += 1;
        self.is_busy = true;
        self.patience.on_activity(tools.now);
        slot.seat.set_standing(true, tools.now);
        let mut asked = tools.address;
        if let Some(local) = self.local {
            asked.set_ip(local.ip());
        }
        let (peer, asked) = (self.quic.remote_address(), Some(asked));
        let way = WayBack { peer, asked, transport: Transport::Quic, idle: slot.rules.idle };
        let responder =
            Responder::of_stream((Arc::clone(&slot.seat), way), tools.listener.clone(), (self.number, id.index()));
        (tools.handle)(message, &responder);
    }

    /// The handshake is complete.
    fn release_held<H: Fn(&[u8], &Responder)>(&mut self, tools: &Tools<'_, H>) {
        let held = self.streams.extract_if(|_, stream| matches!(stream, Stream::Held(_)));
        let held: Vec<_> = held.collect();
        for (id, stream) in held {
            if let Stream::Held(message) = stream {
                self.partial -= message.len();
                self.take_query(id, &message, tools);
            }
        }
    }

    /// A response to the query of a stream.
    pub(super) fn respond(&mut self, stream: u64, response: Response, scratch: &mut Vec<u8>, now: Instant) {
        let id = StreamId::new(Side::Client, Dir::Bi, stream);
        match (self.streams.get(&id), response) {
            (Some(Stream::Asked), Response::Whole(message)) => {
                self.asked -= 1;
                match message.take() {
                    message if message.is_empty() => {
                        // There will be none, and no code of DoQ says why.
                        let _ = self.quic.send_stream(id).reset(Code::UnspecifiedError.to_wire());
                        self.streams.remove(&id);
                    }
                    message => self.write(id, message, None, scratch, now),
                }
            }
            (Some(Stream::Asked), Response::Parts(parts)) => {
                self.between_parts += 1;
                self.streams.insert(id, Stream::BetweenParts(parts));
            }
            (Some(Stream::GivenUp), _) => self.forget(id, now),
            (Some(_) | None, Response::Whole(message)) => drop(message),
            (Some(_) | None, Response::Parts(parts)) => drop(parts),
        }
    }

    /// Whether the next part of a response could be written.
    pub(super) fn has_parts(&self) -> bool {
        self.between_parts > 0
    }

    /// Takes the next parts that have come; whether any has. If not, the task is woken when there is one.
    pub(super) fn poll_parts(&mut self, scratch: &mut Vec<u8>, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut came = Vec::new();
        for (id, stream) in &mut self.streams {
            if let Stream::BetweenParts(parts) = stream
                && let Poll::Ready(part) = parts.poll_recv(cx)
            {
                came.push((*id, part));
            }
        }
        let has_come = !came.is_empty();
        for (id, part) in came {
            let Some(Stream::BetweenParts(parts)) = self.streams.remove(&id) else { continue };
            self.between_parts -= 1;
            match part {
                Some(part) => {
                    // Bounded by the number of transfers, and not to be broken off for what others do.
                    if let Some(open) = &self.open {
                        open.slot.seat.add(part.len());
                    }
                    self.write(id, part, Some(parts), scratch, now);
                }
                None => {
                    self.asked -= 1;
                    let _ = self.quic.send_stream(id).finish();
                    self.begin_unacknowledged(now);
                    self.written_at = now;
                    self.streams.insert(id, Stream::Written(0));
                }
            }
        }
        has_come
    }

    /// Writes a message, the octets of which count already.
    fn write(
        &mut self,
        id: StreamId,
        message: Vec<u8>,
        parts: Option<mpsc::Receiver<Vec<u8>>>,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) {
        let Some(open) = &self.open else { return };
        let Ok(length) = u16::try_from(message.len()) else {
            // Nothing of ours is longer than a message can be.
            open.slot.seat.settle(message.len());
            let _ = self.quic.send_stream(id).reset(Code::UnspecifiedError.to_wire());
            self.asked -= usize::from(parts.is_some());
            self.streams.remove(&id);
            return;
        };
        open.slot.seat.add(FRAME_PREFIX);
        scratch.clear();
        scratch.extend_from_slice(&length.to_be_bytes());
        scratch.extend_from_slice(&message);
        self.begin_unacknowledged(now);
        let written = match self.quic.send_stream(id).write(scratch) {
            Ok(written) => written,
            Err(WriteError::Blocked) => 0,
            // The event that says why comes, or has come.
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                self.streams.insert(id, Stream::Written(scratch.len()));
                self.asked -= usize::from(parts.is_some());
                return self.forget(id, now);
            }
        };
        if written == scratch.len() {
            return self.on_written(id, scratch.len(), parts, now);
        }
        self.streams.insert(id, Stream::Writing { output: scratch.clone(), written, parts });
        // QUIC tells of room only to who was told that there is none.
        self.write_on(id, now);
    }

    /// Goes on with a message that QUIC had no room for.
    fn write_on(&mut self, id: StreamId, now: Instant) {
        let Some(Stream::Writing { output, written, .. }) = self.streams.get_mut(&id) else { return };
        while let Some(rest @ [_, ..]) = output.get(*written..) {
            match self.quic.send_stream(id).write(rest) {
                Ok(octets) => {
                    *written += octets;
                    if let Some(open) = &self.open {
                        self.patience.on_written(octets, &open.slot.rules, now);
                    }
                }
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return self.forget(id, now),
            }
        }
        if let Some(Stream::Writing { output, parts, .. }) = self.streams.remove(&id) {
            self.on_written(id, output.len(), parts, now);
        }
    }

    /// QUIC has all of a message: so many octets that count.
    fn on_written(&mut self, id: StreamId, counted: usize, parts: Option<mpsc::Receiver<Vec<u8>>>, now: Instant) {
        match parts {
            None => {
                let _ = self.quic.send_stream(id).finish();
                self.written_at = now;
                self.streams.insert(id, Stream::Written(counted));
            }
            // What QUIC has of it is bounded by its own window.
            Some(parts) => {
                self.unacknowledged -= 1;
                if let Some(open) = &self.open {
                    open.slot.seat.settle(counted);
                    self.patience.on_written(counted, &open.slot.rules, now);
                }
                self.between_parts += 1;
                self.streams.insert(id, Stream::BetweenParts(parts));
            }
        }
    }

    /// One more stream has something that the client has to take.
    fn begin_unacknowledged(&mut self, now: Instant) {
        if self.unacknowledged == 0 {
            self.patience.on_unwritten(now);
        }
        self.unacknowledged += 1;
    }

    /// What the connection waits for.
    fn doing(&self) -> Doing {
        if self.unacknowledged > 0 {
            Doing::Writing
        } else if self.asked > 0 {
            Doing::Answering
        } else {
            Doing::Reading
        }
    }

    /// Takes note of when the connection becomes idle.
    fn note_standing(&mut self, now: Instant) {
        if self.is_busy
            && self.doing() == Doing::Reading
            && let Some(open) = &self.open
        {
            self.is_busy = false;
            self.patience.on_activity(now);
            open.slot.seat.set_standing(false, now);
        }
    }

    /// When it has to be looked at, whatever happens.
    pub(super) fn due(&mut self, pressure: Pressure) -> Option<Instant> {
        let by_quic = self.quic.poll_timeout();
        let Some(Open { slot, .. }) = &self.open else { return by_quic };
        let end = self.patience.end(self.doing(), &slot.rules, pressure);
        let end_of_queries = Some(self.patience.end_of_queries(&slot.rules)).filter(|_| !self.is_at_end);
        let last_look = Some(self.written_at + LAST_LOOK).filter(|_| self.is_at_end && self.unacknowledged > 0);
        [by_quic, end, end_of_queries, last_look, self.overdue_at].into_iter().flatten().min()
    }

    /// Its time has come.
    ///
    /// # Errors
    /// If that is the end of it.
    pub(super) fn on_alarm(&mut self, pressure: Pressure, counters: &Counters, now: Instant) -> Result<(), Closed> {
        self.quic.handle_timeout(now);
        let Some(Open { slot, .. }) = &self.open else { return Ok(()) };
        let rules = slot.rules;
        let has_begun = |stream: &Stream| matches!(stream, Stream::Receiving { .. });
        let unfinished = Closed { code: Code::ProtocolError, reason: "the query does not end" };
        if self.patience.end(self.doing(), &rules, pressure).is_some_and(|end| end <= now) {
            if self.patience.is_fresh() {
                counters.connections.fate(Transport::Quic, ConnectionFate::TimedOut);
            }
            let is_begun = self.doing() == Doing::Reading && self.streams.values().any(has_begun);
            let idle = Closed { code: Code::NoError, reason: "idle" };
            return Err(if is_begun { unfinished } else { idle });
        }
        if self.overdue_at.is_some_and(|at| at <= now) {
            let begun = self.streams.values().filter_map(|stream| match stream {
                Stream::Receiving { since, .. } => Some(*since + rules.first_query),
                _ => None,
            });
            self.overdue_at = begun.min();
            if self.overdue_at.is_some_and(|at| at <= now) {
                return Err(unfinished);
            }
        }
        if self.patience.end_of_queries(&rules) <= now {
            self.is_at_end = true;
        }
        Ok(())
    }

    /// No more queries are taken than those that are here.
    pub(super) fn end_queries(&mut self) {
        self.is_at_end = true;
    }

    /// Whether nothing is left to do of what was asked: the responses are sent, and acknowledged, where acknowledgements are read and come
    /// soon.
    pub(super) fn is_finished(&self, reads: bool, now: Instant) -> bool {
        let is_written = || !self.streams.values().any(|stream| matches!(stream, Stream::Writing { .. }));
        let is_waited_for = reads && now < self.written_at + LAST_LOOK;
        self.is_at_end && self.asked == 0 && (self.unacknowledged == 0 || !is_waited_for && is_written())
    }

    /// The code for a connection that has to make room, or holds too much.
    pub(super) fn pushed_out(&self) -> Closed {
        match self.doing() {
            Doing::Reading => Closed { code: Code::NoError, reason: "room for others" },
            Doing::Answering | Doing::Writing => Closed { code: Code::ExcessiveLoad, reason: "too much to read" },
        }
    }

    /// Closes it.
    pub(super) fn close(&mut self, Closed { code, reason }: Closed, now: Instant) {
        tracing::trace!(?code, reason, "a connection by QUIC is closed");
        self.quic.close(now, code.to_wire(), Bytes::from_static(reason.as_bytes()));
        self.give_up_place();
    }

    /// Forgets all that it holds.
    pub(super) fn give_up_place(&mut self) {
        let streams = mem::take(&mut self.streams);
        if let Some(open) = self.open.take() {
            open.slot.seat.settle(streams.values().map(Stream::counted).sum());
        }
        self.unread = VecDeque::new();
        (self.asked, self.unacknowledged, self.between_parts) = (0, 0, 0);
        (self.partial, self.overdue_at) = (0, None);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.give_up_place();
    }
}

/// Octets of queries of one connection that have begun and not ended: the longest one twice. A query of a usual size comes in one piece.
const MAX_PARTIAL: usize = 128 << 10;

/// Streams in a row that may be given up before they had a query. To open and reset them is all that such a client does.
const MAX_FRUITLESS: u32 = 100;

/// How long the acknowledgement of the last response is waited for before a connection is closed at the end of its listener: a round trip
/// across the world, and the time that a client may take to acknowledge.
const LAST_LOOK: Duration = Duration::from_millis(500);
