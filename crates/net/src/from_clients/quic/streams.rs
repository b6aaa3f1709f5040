//! The streams of one QUIC connection, each with one query, and their account.
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
use dns::{FRAME_PREFIX, Transport};
use limit::{Doing, TableFullness};
use metrics::{ConnectionFate, Counters};
use quinn_proto::{Connection, Dir, ReadError, Side, StreamEvent, StreamId, VarInt, WriteError};
use tokio::sync::mpsc;

use super::query_stream::{QueryStream, Violation, is_replayable, whole_query};
use super::worker::Tools;
use crate::from_clients::account::{ConnectionAccount, DueAction};
use crate::from_clients::tcp::{ConnectionSlot, Responder, ResponseOutput, WayBack};

/// A stream, from its query to the acknowledgement of its response.
enum QuicStream {
    /// The query is incomplete.
    Receiving { since: Instant, query: QueryStream, is_unread: bool },
    /// The query waits for the end of the handshake.
    Held(Vec<u8>),
    /// The query waits for its response.
    Asked,
    /// The query waits for its response, which the client no longer wants.
    GivenUp,
    /// The stream waits for the next part of its response.
    BetweenParts(mpsc::Receiver<Vec<u8>>),
    /// QUIC accepts no more for now.
    Writing { output: Vec<u8>, written: usize, parts: Option<mpsc::Receiver<Vec<u8>>> },
    /// All of the response is written; it counts this many bytes.
    Written(usize),
}

impl QuicStream {
    fn counted(&self) -> usize {
        match self {
            Self::Receiving { .. } | Self::Held(_) | Self::Asked | Self::GivenUp | Self::BetweenParts(_) => 0,
            Self::Writing { output, .. } => output.len(),
            Self::Written(octets) => *octets,
        }
    }
}

/// The streams of an open connection. Dropping it gives up the place of the connection.
pub(super) struct QuicStreams {
    /// The number of the connection in its worker.
    number: u64,
    pub(super) account: ConnectionAccount,
    counters: Arc<Counters>,
    streams: HashMap<StreamId, QuicStream, foldhash::fast::RandomState>,
    unread: VecDeque<StreamId>,
    unacknowledged: usize,
    between_parts: usize,
    partial: usize,
    written_at: Instant,
    overdue_at: Option<Instant>,
}

impl Drop for QuicStreams {
    fn drop(&mut self) {
        self.account.slot.seat.settle(self.streams.values().map(QuicStream::counted).sum());
        self.counters.connections.closed(Transport::Quic);
    }
}

impl QuicStreams {
    pub(super) fn new(number: u64, slot: ConnectionSlot, counters: Arc<Counters>, now: Instant) -> Self {
        counters.connections.opened(Transport::Quic);
        Self {
            number,
            account: ConnectionAccount::new(slot, now),
            counters,
            streams: HashMap::default(),
            unread: VecDeque::new(),
            unacknowledged: 0,
            between_parts: 0,
            partial: 0,
            written_at: now,
            overdue_at: None,
        }
    }

    /// Hands over queries, and detects the end of the connection.
    pub(super) fn work(&mut self, quic: &mut Connection, tools: &Tools<'_>) -> Result<(), ConnectionClose> {
        while !self.account.is_ending()
            && self.account.has_room()
            && let Some(id) = self.unread.pop_front()
        {
            self.read(quic, id, tools)?;
        }
        self.account.note_idle(self.doing(), || tools.now);
        // Its turn is over: other connections may need the worker.
        let no_more = ConnectionClose { code: Code::NoError, reason: "no more queries" };
        if self.is_finished(true, tools.now) { Err(no_more) } else { Ok(()) }
    }

    pub(super) fn on_event(
        &mut self,
        quic: &mut Connection,
        event: StreamEvent,
        now: Instant,
    ) -> Result<(), ConnectionClose> {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                return Err(ConnectionClose { code: Code::ProtocolError, reason: "a unidirectional stream" });
            }
            StreamEvent::Opened { dir: Dir::Bi } => {
                while let Some(id) = quic.streams().accept(Dir::Bi) {
                    let query = QueryStream::default();
                    self.streams.insert(id, QuicStream::Receiving { since: now, query, is_unread: true });
                    self.unread.push_back(id);
                }
            }
            StreamEvent::Readable { id } => {
                // Queue the stream once, however many bytes arrive meanwhile.
                if let Some(QuicStream::Receiving { is_unread, .. }) = self.streams.get_mut(&id)
                    && !mem::replace(is_unread, true)
                {
                    self.unread.push_back(id);
                }
            }
            StreamEvent::Writable { id } => self.write_on(quic, id, now),
            StreamEvent::Finished { id } => {
                if matches!(self.streams.get(&id), Some(QuicStream::Written(_))) {
                    self.forget(id, now);
                }
            }
            StreamEvent::Stopped { id, .. } => return self.give_up(quic, id, now),
            StreamEvent::Available { .. } => {}
        }
        Ok(())
    }

    fn give_up(&mut self, quic: &mut Connection, id: StreamId, now: Instant) -> Result<(), ConnectionClose> {
        // RFC 9250 section 4.3.1.
        let _ = quic.send_stream(id).reset(Code::RequestCancelled.to_wire());
        match self.streams.get_mut(&id) {
            Some(stream @ QuicStream::Asked) => *stream = QuicStream::GivenUp,
            Some(QuicStream::Receiving { .. } | QuicStream::Held(_)) => {
                let _ = quic.recv_stream(id).stop(Code::RequestCancelled.to_wire());
                self.forget(id, now);
                return self.count_useless();
            }
            Some(QuicStream::BetweenParts(_) | QuicStream::Writing { .. } | QuicStream::Written(_)) => {
                self.forget(id, now)
            }
            Some(QuicStream::GivenUp) | None => {}
        }
        Ok(())
    }

    fn count_useless(&mut self) -> Result<(), ConnectionClose> {
        self.account.count_useless();
        let noise = ConnectionClose { code: Code::ExcessiveLoad, reason: "streams without queries" };
        if self.account.is_noise() { Err(noise) } else { Ok(()) }
    }

    fn forget(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.remove(&id) else { return };
        match &stream {
            QuicStream::Receiving { query, .. } => self.partial -= query.len(),
            QuicStream::Held(message) => self.partial -= message.len(),
            QuicStream::Asked | QuicStream::GivenUp => self.account.end_query(),
            QuicStream::BetweenParts(_) => {
                self.account.end_query();
                self.between_parts -= 1;
            }
            QuicStream::Writing { parts, .. } => {
                if parts.is_some() {
                    self.account.end_query();
                }
                self.unacknowledged -= 1;
            }
            QuicStream::Written(_) => self.unacknowledged -= 1,
        }
        self.settle(stream.counted(), now);
    }

    /// Counts bytes as read by the client.
    fn settle(&mut self, octets: usize, now: Instant) {
        if octets > 0 {
            self.account.slot.seat.settle(octets);
            self.account.on_written(octets, now);
        }
    }

    fn read(&mut self, quic: &mut Connection, id: StreamId, tools: &Tools<'_>) -> Result<(), ConnectionClose> {
        // Data after a query that was handed over is detected at the end of the stream.
        let Some(QuicStream::Receiving { since, query, is_unread }) = self.streams.get_mut(&id) else { return Ok(()) };
        *is_unread = false;
        let (since, had) = (*since, query.len());
        // A query usually arrives as one chunk and is read without a copy.
        let mut whole: Option<Bytes> = None;
        let mut stream = quic.recv_stream(id);
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
                let message = match &whole {
                    Some(whole) => whole_query(whole)?,
                    None => query.end()?,
                };
                self.take_query(quic, id, message, tools);
                self.check_partial()
            }
            Err(ReadError::Blocked) => {
                if let Some(first) = whole {
                    query.take(&first)?;
                }
                self.partial = self.partial - had + query.len();
                self.check_partial()?;
                let overdue = since + self.account.slot.rules.first_query;
                self.overdue_at = Some(self.overdue_at.map_or(overdue, |at| at.min(overdue)));
                Ok(())
            }
            Err(ReadError::Reset(_)) => {
                // RFC 9250 section 4.3.1: the response is cancelled as well.
                let _ = quic.send_stream(id).reset(Code::RequestCancelled.to_wire());
                self.forget(id, tools.now);
                self.count_useless()
            }
        }
    }

    fn check_partial(&self) -> Result<(), ConnectionClose> {
        let too_much = ConnectionClose { code: Code::ExcessiveLoad, reason: "too many queries in parts" };
        if self.partial > MAX_PARTIAL { Err(too_much) } else { Ok(()) }
    }

    fn take_query(&mut self, quic: &Connection, id: StreamId, message: &[u8], tools: &Tools<'_>) {
        // RFC 9250 section 4.5: a request that changes state waits until the handshake rules out a replay.
        if quic.is_handshaking() && !is_replayable(message) {
            self.partial += message.len();
            self.streams.insert(id, QuicStream::Held(message.to_vec()));
            return;
        }
        self.streams.insert(id, QuicStream::Asked);
        self.account.begin_query(true);
        self.account.on_queries(tools.now);
        let idle = self.account.slot.rules.idle;
        let way = WayBack { peer: quic.remote_address(), asked: Some(tools.address), transport: Transport::Quic, idle };
        let to = tools.listener.clone();
        let responder = Responder::of_stream(&self.account.slot, way, to, self.number, id.index());
        (tools.handle)(message, &responder);
    }

    pub(super) fn release_held(&mut self, quic: &Connection, tools: &Tools<'_>) {
        let held = self.streams.extract_if(|_, stream| matches!(stream, QuicStream::Held(_)));
        let held: Vec<_> = held.collect();
        for (id, stream) in held {
            if let QuicStream::Held(message) = stream {
                self.partial -= message.len();
                self.take_query(quic, id, &message, tools);
            }
        }
    }

    pub(super) fn respond(
        &mut self,
        quic: &mut Connection,
        stream: u64,
        response: ResponseOutput,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) {
        let id = StreamId::new(Side::Client, Dir::Bi, stream);
        match (self.streams.get(&id), response) {
            (Some(QuicStream::Asked), ResponseOutput::Whole(message)) => {
                self.account.end_query();
                match message.take() {
                    message if message.is_empty() => {
                        // There will be no response, and no DoQ code gives the reason.
                        let _ = quic.send_stream(id).reset(Code::UnspecifiedError.to_wire());
                        self.streams.remove(&id);
                    }
                    message => self.write(quic, id, message, None, scratch, now),
                }
            }
            (Some(QuicStream::Asked), ResponseOutput::Parts(parts)) => {
                self.between_parts += 1;
                self.streams.insert(id, QuicStream::BetweenParts(parts));
            }
            (Some(QuicStream::GivenUp), _) => self.forget(id, now),
            (Some(_) | None, response) => drop(response),
        }
    }

    pub(super) fn has_parts(&self) -> bool {
        self.between_parts > 0
    }

    /// Takes the available parts. Pending if there is none.
    pub(super) fn poll_parts(
        &mut self,
        quic: &mut Connection,
        scratch: &mut Vec<u8>,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut came = Vec::new();
        for (id, stream) in &mut self.streams {
            if let QuicStream::BetweenParts(parts) = stream
                && let Poll::Ready(part) = parts.poll_recv(cx)
            {
                came.push((*id, part));
            }
        }
        if came.is_empty() {
            return Poll::Pending;
        }
        for (id, part) in came {
            let Some(QuicStream::BetweenParts(parts)) = self.streams.remove(&id) else { continue };
            self.between_parts -= 1;
            match part {
                Some(part) => {
                    // The number of transfers bounds this, and load by other clients must not abort a
                    // transfer.
                    self.account.slot.seat.add(part.len());
                    self.write(quic, id, part, Some(parts), scratch, now);
                }
                None => {
                    self.account.end_query();
                    self.begin_unacknowledged(now);
                    self.finish(quic, id, 0, now);
                }
            }
        }
        Poll::Ready(())
    }

    fn write(
        &mut self,
        quic: &mut Connection,
        id: StreamId,
        message: Vec<u8>,
        parts: Option<mpsc::Receiver<Vec<u8>>>,
        scratch: &mut Vec<u8>,
        now: Instant,
    ) {
        let Ok(length) = u16::try_from(message.len()) else {
            self.account.slot.seat.settle(message.len());
            let _ = quic.send_stream(id).reset(Code::UnspecifiedError.to_wire());
            if parts.is_some() {
                self.account.end_query();
            }
            self.streams.remove(&id);
            return;
        };
        self.account.slot.seat.add(FRAME_PREFIX);
        scratch.clear();
        scratch.extend_from_slice(&length.to_be_bytes());
        scratch.extend_from_slice(&message);
        self.begin_unacknowledged(now);
        let written = match quic.send_stream(id).write(scratch) {
            Ok(written) => written,
            Err(WriteError::Blocked) => 0,
            // The event with the reason follows, or has arrived.
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                self.streams.insert(id, QuicStream::Writing { output: scratch.clone(), written: 0, parts });
                return self.forget(id, now);
            }
        };
        if written == scratch.len() {
            return self.on_written(quic, id, scratch.len(), parts, now);
        }
        self.streams.insert(id, QuicStream::Writing { output: scratch.clone(), written, parts });
        // QUIC reports room only after a write that found none.
        self.write_on(quic, id, now);
    }

    fn write_on(&mut self, quic: &mut Connection, id: StreamId, now: Instant) {
        let Some(QuicStream::Writing { output, written, .. }) = self.streams.get_mut(&id) else { return };
        while let Some(rest @ [_, ..]) = output.get(*written..) {
            match quic.send_stream(id).write(rest) {
                Ok(octets) => {
                    *written += octets;
                    self.account.on_written(octets, now);
                }
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return self.forget(id, now),
            }
        }
        if let Some(QuicStream::Writing { output, parts, .. }) = self.streams.remove(&id) {
            self.on_written(quic, id, output.len(), parts, now);
        }
    }

    fn on_written(
        &mut self,
        quic: &mut Connection,
        id: StreamId,
        counted: usize,
        parts: Option<mpsc::Receiver<Vec<u8>>>,
        now: Instant,
    ) {
        match parts {
            None => self.finish(quic, id, counted, now),
            // QUIC's own window bounds its part.
            Some(parts) => {
                self.unacknowledged -= 1;
                self.settle(counted, now);
                self.between_parts += 1;
                self.streams.insert(id, QuicStream::BetweenParts(parts));
            }
        }
    }

    fn finish(&mut self, quic: &mut Connection, id: StreamId, counted: usize, now: Instant) {
        let _ = quic.send_stream(id).finish();
        self.written_at = now;
        self.streams.insert(id, QuicStream::Written(counted));
    }

    fn begin_unacknowledged(&mut self, now: Instant) {
        if self.unacknowledged == 0 {
            self.account.clock.on_unwritten(now);
        }
        self.unacknowledged += 1;
    }

    pub(super) fn doing(&self) -> Doing {
        self.account.doing(self.unacknowledged > 0)
    }

    pub(super) fn due(&self, pressure: TableFullness) -> Option<Instant> {
        let own = self.account.due(self.doing(), pressure);
        let is_last = self.account.is_ending() && self.unacknowledged > 0;
        let last_look = is_last.then(|| self.written_at + LAST_LOOK);
        [own, last_look, self.overdue_at].into_iter().flatten().min()
    }

    pub(super) fn on_alarm(&mut self, pressure: TableFullness, now: Instant) -> Result<(), ConnectionClose> {
        let first_query = self.account.slot.rules.first_query;
        let begun = self.streams.values().filter_map(|stream| match stream {
            QuicStream::Receiving { since, .. } => Some(*since + first_query),
            _ => None,
        });
        let unfinished = ConnectionClose { code: Code::ProtocolError, reason: "the query does not end" };
        match self.account.on_alarm(self.doing(), pressure, now) {
            DueAction::Nothing => {}
            DueAction::EndQueries => self.account.end_queries(now),
            DueAction::Close => {
                if self.account.clock.is_fresh() {
                    self.counters.connections.fate(Transport::Quic, ConnectionFate::TimedOut);
                }
                let is_begun = self.doing() == Doing::Reading && begun.min().is_some();
                let idle = ConnectionClose { code: Code::NoError, reason: "idle" };
                return Err(if is_begun { unfinished } else { idle });
            }
        }
        if self.overdue_at.is_some_and(|at| at <= now) {
            self.overdue_at = begun.min();
            if self.overdue_at.is_some_and(|at| at <= now) {
                return Err(unfinished);
            }
        }
        Ok(())
    }

    /// Returns true if all responses are sent and, if `reads` and for a short time only, acknowledged.
    pub(super) fn is_finished(&self, reads: bool, now: Instant) -> bool {
        let is_written = || !self.streams.values().any(|stream| matches!(stream, QuicStream::Writing { .. }));
        let is_waited_for = reads && now < self.written_at + LAST_LOOK;
        self.account.is_ending()
            && self.account.in_flight() == 0
            && (self.unacknowledged == 0 || !is_waited_for && is_written())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionClose {
    pub(super) code: Code,
    pub(super) reason: &'static str,
}

/// The error codes of DoQ (RFC 9250 section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0x0,
    ProtocolError = 0x2,
    RequestCancelled = 0x3,
    ExcessiveLoad = 0x4,
    UnspecifiedError = 0x5,
}

impl Code {
    pub(super) fn to_wire(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

impl From<Violation> for ConnectionClose {
    fn from(violation: Violation) -> Self {
        Self { code: Code::ProtocolError, reason: violation.reason() }
    }
}

/// The limit of incomplete query bytes per connection: two of the longest queries. A usual query arrives as
/// one chunk.
const MAX_PARTIAL: usize = 128 << 10;

/// How long a connection waits for the last acknowledgement at the end of its listener: a round trip across
/// the world, and the client's acknowledgement delay.
const LAST_LOOK: Duration = Duration::from_millis(500);
