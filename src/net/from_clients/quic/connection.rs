//! One client's QUIC connection: its streams, each with one query, and its clock. It is a value; the task
//! that owns it (`worker.rs`) passes in datagrams, responses and time.
//!
//! ```text
//!     receiving ──whole query──▶ asked ──response──▶ writing ──all in QUIC──▶ written ──acknowledged──▶ gone
//!         │                        ▲                  ▲   │
//!         │ not a QUERY, early     │ handshake        └───┴── between parts
//!         └──────▶ held ───────────┘ complete
//! ```
//!
//! A client has up to `in_flight` streams and as many pending queries: a query whose stream is reset counts
//! until its response arrives, so resets do not get a client more queries. A response counts as unsent until
//! the client has acknowledged it.

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
use super::stream::{Code, ConnectionClose, QuicStream};
use super::worker::Tools;
use crate::limit::{ConnectionClock, Doing, TableFullness};
use crate::metrics::{ConnectionFate, Counters, ShakenBy};
use crate::net::from_clients::tcp::{ConnectionSlot, Responder, ResponseOutput, WayBack};
use crate::net::sys::batch::LocalAddress;
use crate::wire::{FRAME_PREFIX, Transport};

pub(super) struct QuicServerConnection {
    pub(super) quic: quinn_proto::Connection,
    pub(super) handle: ConnectionHandle,
    number: u64,
    /// `None` once the connection is over, and QUIC only waits for late datagrams.
    open: Option<OpenConnection>,
    pub(super) local: Option<LocalAddress>,
    streams: HashMap<StreamId, QuicStream, foldhash::fast::RandomState>,
    unread: VecDeque<StreamId>,
    asked: usize,
    unacknowledged: usize,
    between_parts: usize,
    partial: usize,
    fruitless: u32,
    /// True if a valid query was handed over since the connection was last idle.
    is_busy: bool,
    is_at_end: bool,
    /// True if the handshake used a valid ticket.
    pub(super) is_resumed: bool,
    written_at: Instant,
    overdue_at: Option<Instant>,
    patience: ConnectionClock,
    pub(super) steps: u32,
    pub(super) alarm: Option<Instant>,
    pub(super) is_shaking: bool,
    /// True if the connection is in the worker's `working` list.
    pub(super) has_work: bool,
    /// True if the connection is in the worker's `sending` list.
    pub(super) is_sending: bool,
}

struct OpenConnection {
    slot: ConnectionSlot,
    counters: Arc<Counters>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.counters.connections.closed(Transport::Quic);
    }
}

impl QuicServerConnection {
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
            open: Some(OpenConnection { slot, counters: Arc::clone(counters) }),
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
            patience: ConnectionClock::new(now),
            steps: 0,
            alarm: None,
            is_shaking: true,
            has_work: false,
            is_sending: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Handles QUIC events and hands over queries. Returns true if QUIC has finished with the connection.
    pub(super) fn work<H: Fn(&[u8], &Responder)>(
        &mut self,
        tools: &mut Tools<'_, H>,
    ) -> (bool, Result<(), ConnectionClose>) {
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
            // Its turn is over: other connections may need the worker.
            if self.is_open() && self.is_finished(true, tools.now) {
                result = Err(ConnectionClose { code: Code::NoError, reason: "no more queries" });
            }
        }
        (self.notify_endpoint(tools.endpoint), result)
    }

    /// Passes events to the endpoint. Returns true if one of them says that the connection is drained.
    pub(super) fn notify_endpoint(&mut self, endpoint: &mut Endpoint) -> bool {
        let mut is_drained = false;
        while let Some(event) = self.quic.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(answer) = endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(answer);
            }
        }
        is_drained
    }

    fn on_event<H: Fn(&[u8], &Responder)>(
        &mut self,
        event: Event,
        tools: &mut Tools<'_, H>,
    ) -> Result<(), ConnectionClose> {
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

    fn on_stream_event(&mut self, event: StreamEvent, now: Instant) -> Result<(), ConnectionClose> {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                Err(ConnectionClose { code: Code::ProtocolError, reason: "a unidirectional stream" })
            }
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = self.quic.streams().accept(Dir::Bi) {
                    let query = QueryStream::default();
                    self.streams.insert(id, QuicStream::Receiving { since: now, query, is_unread: true });
                    self.unread.push_back(id);
                }
                Ok(())
            }
            StreamEvent::Readable { id } => {
                // Queue the stream once, however many bytes arrive meanwhile.
                if let Some(QuicStream::Receiving { is_unread, .. }) = self.streams.get_mut(&id)
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
                if matches!(self.streams.get(&id), Some(QuicStream::Written(_))) {
                    self.forget(id, now);
                }
                Ok(())
            }
            StreamEvent::Stopped { id, .. } => self.give_up(id, now),
            StreamEvent::Available { .. } => Ok(()),
        }
    }

    fn give_up(&mut self, id: StreamId, now: Instant) -> Result<(), ConnectionClose> {
        // RFC 9250 section 4.3.1.
        let _ = self.quic.send_stream(id).reset(Code::RequestCancelled.to_wire());
        match self.streams.get_mut(&id) {
            Some(stream @ QuicStream::Asked) => *stream = QuicStream::GivenUp,
            Some(QuicStream::Receiving { .. } | QuicStream::Held(_)) => {
                let _ = self.quic.recv_stream(id).stop(Code::RequestCancelled.to_wire());
                self.forget(id, now);
                return self.count_fruitless();
            }
            Some(QuicStream::BetweenParts(_) | QuicStream::Writing { .. } | QuicStream::Written(_)) => {
                self.forget(id, now)
            }
            Some(QuicStream::GivenUp) | None => {}
        }
        Ok(())
    }

    fn count_fruitless(&mut self) -> Result<(), ConnectionClose> {
        self.fruitless += 1;
        if self.fruitless < MAX_FRUITLESS {
            return Ok(());
        }
        Err(ConnectionClose { code: Code::ExcessiveLoad, reason: "streams without queries" })
    }

    fn forget(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.remove(&id) else { return };
        match &stream {
            QuicStream::Receiving { query, .. } => self.partial -= query.len(),
            QuicStream::Held(message) => self.partial -= message.len(),
            QuicStream::Asked | QuicStream::GivenUp => self.asked -= 1,
            QuicStream::BetweenParts(_) => {
                self.asked -= 1;
                self.between_parts -= 1;
            }
            QuicStream::Writing { parts, .. } => {
                self.asked -= usize::from(parts.is_some());
                self.unacknowledged -= 1;
            }
            QuicStream::Written(_) => self.unacknowledged -= 1,
        }
        let counted = stream.counted();
        if let Some(open) = &self.open {
            open.slot.seat.settle(counted);
            if counted > 0 {
                self.patience.on_written(counted, &open.slot.rules, now);
            }
        }
    }

    fn hand_over_all<H: Fn(&[u8], &Responder)>(&mut self, tools: &mut Tools<'_, H>) -> Result<(), ConnectionClose> {
        while self.can_hand_over()
            && let Some(id) = self.unread.pop_front()
        {
            self.read(id, tools)?;
        }
        Ok(())
    }

    fn can_hand_over(&self) -> bool {
        let Some(OpenConnection { slot, .. }) = &self.open else { return false };
        !self.is_at_end && self.asked < slot.rules.in_flight && slot.seat.has_room()
    }

    fn read<H: Fn(&[u8], &Responder)>(&mut self, id: StreamId, tools: &Tools<'_, H>) -> Result<(), ConnectionClose> {
        // Data after a query that was handed over is detected at the end of the stream.
        let Some(QuicStream::Receiving { since, query, is_unread }) = self.streams.get_mut(&id) else { return Ok(()) };
        *is_unread = false;
        let (since, had) = (*since, query.len());
        // A query usually arrives as one chunk and is read without a copy.
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
                // From here on the stream has no more bytes.
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
                if let Some(OpenConnection { slot, .. }) = &self.open {
                    let overdue = since + slot.rules.first_query;
                    self.overdue_at = Some(self.overdue_at.map_or(overdue, |at| at.min(overdue)));
                }
                Ok(())
            }
            Err(ReadError::Reset(_)) => {
                // RFC 9250 section 4.3.1: the response is cancelled as well.
                let _ = self.quic.send_stream(id).reset(Code::RequestCancelled.to_wire());
                self.forget(id, tools.now);
                self.count_fruitless()
            }
        }
    }

    fn check_partial(&self) -> Result<(), ConnectionClose> {
        let too_much = ConnectionClose { code: Code::ExcessiveLoad, reason: "too many queries in parts" };
        if self.partial > MAX_PARTIAL { Err(too_much) } else { Ok(()) }
    }

    fn take_query<H: Fn(&[u8], &Responder)>(&mut self, id: StreamId, message: &[u8], tools: &Tools<'_, H>) {
        // RFC 9250 section 4.5: a request that changes state waits until the handshake rules out a replay.
        if self.quic.is_handshaking() && !is_replayable(message) {
            self.partial += message.len();
            self.streams.insert(id, QuicStream::Held(message.to_vec()));
            return;
        }
        let Some(OpenConnection { slot, .. }) = &self.open else { return };
        self.streams.insert(id, QuicStream::Asked);
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

    fn release_held<H: Fn(&[u8], &Responder)>(&mut self, tools: &Tools<'_, H>) {
        let held = self.streams.extract_if(|_, stream| matches!(stream, QuicStream::Held(_)));
        let held: Vec<_> = held.collect();
        for (id, stream) in held {
            if let QuicStream::Held(message) = stream {
                self.partial -= message.len();
                self.take_query(id, &message, tools);
            }
        }
    }

    pub(super) fn respond(&mut self, stream: u64, response: ResponseOutput, scratch: &mut Vec<u8>, now: Instant) {
        let id = StreamId::new(Side::Client, Dir::Bi, stream);
        match (self.streams.get(&id), response) {
            (Some(QuicStream::Asked), ResponseOutput::Whole(message)) => {
                self.asked -= 1;
                match message.take() {
                    message if message.is_empty() => {
                        // There will be no response, and no DoQ code gives the reason.
                        let _ = self.quic.send_stream(id).reset(Code::UnspecifiedError.to_wire());
                        self.streams.remove(&id);
                    }
                    message => self.write(id, message, None, scratch, now),
                }
            }
            (Some(QuicStream::Asked), ResponseOutput::Parts(parts)) => {
                self.between_parts += 1;
                self.streams.insert(id, QuicStream::BetweenParts(parts));
            }
            (Some(QuicStream::GivenUp), _) => self.forget(id, now),
            (Some(_) | None, ResponseOutput::Whole(message)) => drop(message),
            (Some(_) | None, ResponseOutput::Parts(parts)) => drop(parts),
        }
    }

    pub(super) fn has_parts(&self) -> bool {
        self.between_parts > 0
    }

    /// Takes the available parts. Returns true if there were any.
    pub(super) fn poll_parts(&mut self, scratch: &mut Vec<u8>, now: Instant, cx: &mut Context<'_>) -> bool {
        let mut came = Vec::new();
        for (id, stream) in &mut self.streams {
            if let QuicStream::BetweenParts(parts) = stream
                && let Poll::Ready(part) = parts.poll_recv(cx)
            {
                came.push((*id, part));
            }
        }
        let has_come = !came.is_empty();
        for (id, part) in came {
            let Some(QuicStream::BetweenParts(parts)) = self.streams.remove(&id) else { continue };
            self.between_parts -= 1;
            match part {
                Some(part) => {
                    // The number of transfers bounds this, and load by other clients must not abort a
                    // transfer.
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
                    self.streams.insert(id, QuicStream::Written(0));
                }
            }
        }
        has_come
    }

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
            // The event with the reason follows, or has arrived.
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                self.streams.insert(id, QuicStream::Written(scratch.len()));
                self.asked -= usize::from(parts.is_some());
                return self.forget(id, now);
            }
        };
        if written == scratch.len() {
            return self.on_written(id, scratch.len(), parts, now);
        }
        self.streams.insert(id, QuicStream::Writing { output: scratch.clone(), written, parts });
        // QUIC reports room only after a write that found none.
        self.write_on(id, now);
    }

    fn write_on(&mut self, id: StreamId, now: Instant) {
        let Some(QuicStream::Writing { output, written, .. }) = self.streams.get_mut(&id) else { return };
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
        if let Some(QuicStream::Writing { output, parts, .. }) = self.streams.remove(&id) {
            self.on_written(id, output.len(), parts, now);
        }
    }

    fn on_written(&mut self, id: StreamId, counted: usize, parts: Option<mpsc::Receiver<Vec<u8>>>, now: Instant) {
        match parts {
            None => {
                let _ = self.quic.send_stream(id).finish();
                self.written_at = now;
                self.streams.insert(id, QuicStream::Written(counted));
            }
            // QUIC's own window bounds its part.
            Some(parts) => {
                self.unacknowledged -= 1;
                if let Some(open) = &self.open {
                    open.slot.seat.settle(counted);
                    self.patience.on_written(counted, &open.slot.rules, now);
                }
                self.between_parts += 1;
                self.streams.insert(id, QuicStream::BetweenParts(parts));
            }
        }
    }

    fn begin_unacknowledged(&mut self, now: Instant) {
        if self.unacknowledged == 0 {
            self.patience.on_unwritten(now);
        }
        self.unacknowledged += 1;
    }

    fn doing(&self) -> Doing {
        if self.unacknowledged > 0 {
            Doing::Writing
        } else if self.asked > 0 {
            Doing::Answering
        } else {
            Doing::Reading
        }
    }

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

    pub(super) fn due(&mut self, pressure: TableFullness) -> Option<Instant> {
        let by_quic = self.quic.poll_timeout();
        let Some(OpenConnection { slot, .. }) = &self.open else { return by_quic };
        let end = self.patience.end(self.doing(), &slot.rules, pressure);
        let end_of_queries = Some(self.patience.end_of_queries(&slot.rules)).filter(|_| !self.is_at_end);
        let last_look = Some(self.written_at + LAST_LOOK).filter(|_| self.is_at_end && self.unacknowledged > 0);
        [by_quic, end, end_of_queries, last_look, self.overdue_at].into_iter().flatten().min()
    }

    pub(super) fn on_alarm(
        &mut self,
        pressure: TableFullness,
        counters: &Counters,
        now: Instant,
    ) -> Result<(), ConnectionClose> {
        self.quic.handle_timeout(now);
        let Some(OpenConnection { slot, .. }) = &self.open else { return Ok(()) };
        let rules = slot.rules;
        let has_begun = |stream: &QuicStream| matches!(stream, QuicStream::Receiving { .. });
        let unfinished = ConnectionClose { code: Code::ProtocolError, reason: "the query does not end" };
        if self.patience.end(self.doing(), &rules, pressure).is_some_and(|end| end <= now) {
            if self.patience.is_fresh() {
                counters.connections.fate(Transport::Quic, ConnectionFate::TimedOut);
            }
            let is_begun = self.doing() == Doing::Reading && self.streams.values().any(has_begun);
            let idle = ConnectionClose { code: Code::NoError, reason: "idle" };
            return Err(if is_begun { unfinished } else { idle });
        }
        if self.overdue_at.is_some_and(|at| at <= now) {
            let begun = self.streams.values().filter_map(|stream| match stream {
                QuicStream::Receiving { since, .. } => Some(*since + rules.first_query),
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

    pub(super) fn end_queries(&mut self) {
        self.is_at_end = true;
    }

    /// Returns true if all responses are sent and, if `reads` and for a short time only, acknowledged.
    pub(super) fn is_finished(&self, reads: bool, now: Instant) -> bool {
        let is_written = || !self.streams.values().any(|stream| matches!(stream, QuicStream::Writing { .. }));
        let is_waited_for = reads && now < self.written_at + LAST_LOOK;
        self.is_at_end && self.asked == 0 && (self.unacknowledged == 0 || !is_waited_for && is_written())
    }

    pub(super) fn pushed_out(&self) -> ConnectionClose {
        match self.doing() {
            Doing::Reading => ConnectionClose { code: Code::NoError, reason: "room for others" },
            Doing::Answering | Doing::Writing => {
                ConnectionClose { code: Code::ExcessiveLoad, reason: "too much to read" }
            }
        }
    }

    pub(super) fn close(&mut self, ConnectionClose { code, reason }: ConnectionClose, now: Instant) {
        tracing::trace!(?code, reason, "a connection by QUIC is closed");
        self.quic.close(now, code.to_wire(), Bytes::from_static(reason.as_bytes()));
        self.give_up_place();
    }

    pub(super) fn give_up_place(&mut self) {
        let streams = mem::take(&mut self.streams);
        if let Some(open) = self.open.take() {
            open.slot.seat.settle(streams.values().map(QuicStream::counted).sum());
        }
        self.unread = VecDeque::new();
        (self.asked, self.unacknowledged, self.between_parts) = (0, 0, 0);
        (self.partial, self.overdue_at) = (0, None);
    }
}

impl Drop for QuicServerConnection {
    fn drop(&mut self) {
        self.give_up_place();
    }
}

/// The limit of incomplete query bytes per connection: two of the longest queries. A usual query arrives as
/// one chunk.
const MAX_PARTIAL: usize = 128 << 10;

const MAX_FRUITLESS: u32 = 100;

/// How long a connection waits for the last acknowledgement at the end of its listener: a round trip across
/// the world, and the client's acknowledgement delay.
const LAST_LOOK: Duration = Duration::from_millis(500);
