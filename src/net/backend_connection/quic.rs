//! A connection by QUIC (RFC 9250) as a value: datagrams in, whole messages out; queries in, datagrams out.
//!
//! Each query has a stream of its own, on which its ID is 0. Whoever asks knows queries by IDs all the same: here they are kept beside
//! the streams, and stand in the replies that are given out. What waits for a stream, because the server allows no more of them, is
//! held here; so is the end of what the server has no room for. Both are bounded by those who ask, who see them in
//! [`unsent`](QuicConnection::unsent).
//!
//! ```text
//!                 the handshake is complete        close
//!   Handshaking ───────────────────────────▶ Open ─────▶ Closing
//! ```

mod buffered;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    RandomConnectionIdGenerator, ReadError, SendStream, Side, StreamEvent, StreamId, TransportConfig,
    TransportErrorCode, VarInt,
};

pub(super) use self::buffered::BufferedQuic;
use super::{ConnectionState, Opened};
use crate::net::tls::{ClientTls, QuicHandshake, tls_alert};
use crate::wire::{FRAME_PREFIX, HEADER_LEN, append_frame, first_message};

/// A connection by QUIC to a backend.
pub struct QuicConnection {
    /// Knows which datagrams belong to the connection: all that do are for this one.
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: Connection,
    remote: SocketAddr,
    state: ConnectionState,
    /// Something of the connection has come.
    has_heard: bool,
    /// Queries whose reply is due, by the number of their stream.
    streams: HashMap<u64, Asked>,
    /// The stream for the next query; `None` while the server allows no more.
    next: Option<StreamId>,
    /// Frames that wait for a stream.
    held: VecDeque<Vec<u8>>,
    /// Octets of those, and of what else the server has no room for.
    unsent: usize,
    /// The IDs of the queries that went before the handshake was complete.
    early: Vec<u16>,
    /// Frames of the replies that have come.
    replies: Vec<u8>,
    /// The IDs of the queries that get no reply, and by which code.
    failed: Vec<(u16, VarInt)>,
    /// The server has said that it is asked too much.
    is_overloaded: bool,
    /// For how long the server keeps a connection on which nothing goes.
    idle_timeout: Option<Duration>,
    is_resumed: bool,
    /// Acknowledgements that have come.
    acknowledgements: u64,
    /// Since when something is not acknowledged.
    unacknowledged: Option<Instant>,
    /// How many acknowledgements had come when a sign of life was asked for.
    sign: Option<u64>,
    /// It is over.
    end: Option<QuicEnd>,
    /// A frame, while it is made.
    frame: Vec<u8>,
}

/// A query whose reply is due.
struct Asked {
    id: u16,
    /// The end of its frame, for which there was no room yet.
    unsent: Vec<u8>,
    /// What has come of the frame of its reply.
    received: Vec<u8>,
}

/// How a connection has ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuicEnd {
    /// The server has closed it.
    Closed,
    /// The server knows nothing of it any more (stateless reset).
    Reset,
    /// Nothing went for as long as the server keeps a connection.
    TimedOut,
    /// By the rules of TLS.
    Tls(String),
    /// What came is nothing that a server may send, or the server says that of us.
    Protocol,
}

impl QuicConnection {
    /// One that is about to be dialled.
    ///
    /// # Errors
    /// If the rules of TLS do not go together: there is no server to blame.
    pub fn new(tls: &ClientTls, remote: SocketAddr, now: Instant) -> Result<Self, String> {
        let mut endpoint = Endpoint::new(Arc::new(endpoint_config()), None, false, None);
        let mut config = tls.quic();
        config.version(VERSION);
        config.transport_config(Arc::new(transport_config()));
        // The name that is asked for stands in the configuration of TLS: this one only tells tokens apart, of which each backend has its own.
        let (handle, quic) = endpoint.connect(now, config, remote, "").map_err(|error| error.to_string())?;
        let mut connection = Self {
            endpoint,
            handle,
            quic,
            remote,
            state: ConnectionState::Handshaking,
            has_heard: false,
            streams: HashMap::new(),
            next: None,
            held: VecDeque::new(),
            unsent: 0,
            early: Vec::new(),
            replies: Vec::new(),
            failed: Vec::new(),
            is_overloaded: false,
            idle_timeout: None,
            is_resumed: false,
            acknowledgements: 0,
            unacknowledged: None,
            sign: None,
            end: None,
            frame: Vec::new(),
        };
        if connection.quic.has_0rtt() {
            connection.next = connection.quic.streams().open(Dir::Bi);
        }
        Ok(connection)
    }

    /// How far it is.
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// Whether the backend has answered so far.
    pub fn is_answered(&self) -> bool {
        self.has_heard
    }

    /// How its handshake went.
    pub fn opened(&self) -> Opened {
        match self.is_resumed {
            true if self.quic.accepted_0rtt() && !self.early.is_empty() => Opened::Early,
            true => Opened::Resumed,
            false => Opened::Full,
        }
    }

    /// For how long the server keeps a connection on which nothing goes, if it says so.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// Whether the server allows another query now.
    pub fn has_room(&self) -> bool {
        self.next.is_some() && self.held.is_empty()
    }

    /// Octets of queries that the server has no room for.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Sends a query before the handshake is complete, if the server may take it so (0-RTT): whoever listens may send it again, so that
    /// it must be one that does nothing but ask (RFC 9250 section 4.5). It must be queued all the same: what is not taken goes then.
    pub fn queue_early(&mut self, id: u16, message: &[u8], now: Instant) {
        // RFC 1035 section 4.1.1: the opcode.
        let is_question = message.get(2).is_some_and(|flags| flags >> 3 & 0xF == 0);
        if self.state != ConnectionState::Handshaking || !self.quic.has_0rtt() || !is_question {
            return;
        }
        let Some(stream) = self.next.take() else { return };
        self.frame.clear();
        if append_frame(message, &mut self.frame).is_some() {
            self.early.push(id);
            self.send(stream, id, now);
        }
        self.next = self.quic.streams().open(Dir::Bi);
    }

    /// Queues a query, whose reply will have this ID; `None` if it is longer than a frame.
    pub fn queue(&mut self, id: u16, message: &[u8], now: Instant) -> Option<()> {
        self.frame.clear();
        append_frame(message, &mut self.frame)?;
        if let Some([first, second]) = self.frame.get_mut(FRAME_PREFIX..FRAME_PREFIX + 2) {
            [*first, *second] = id.to_be_bytes();
        }
        self.queue_frame(now);
        Some(())
    }

    /// Queues frames that waited until it is open: those of them that went early and were taken are on their way.
    pub fn queue_frames(&mut self, mut frames: &[u8], now: Instant) {
        let were_taken = self.quic.accepted_0rtt();
        while let Some((message, end)) = first_message(frames) {
            let id = message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
            let (frame, rest) = frames.split_at(end);
            frames = rest;
            if were_taken && self.early.contains(&id) {
                continue;
            }
            self.frame.clear();
            self.frame.extend_from_slice(frame);
            self.queue_frame(now);
        }
    }

    /// Sends the frame that was made, or has it wait for a stream.
    fn queue_frame(&mut self, now: Instant) {
        match self.next.take().filter(|_| self.held.is_empty()) {
            Some(stream) => {
                let id = self.frame.get(FRAME_PREFIX..).and_then(|id| id.first_chunk());
                self.send(stream, id.map_or(0, |id| u16::from_be_bytes(*id)), now);
                self.next = self.quic.streams().open(Dir::Bi);
            }
            None => {
                self.unsent += self.frame.len();
                self.held.push_back(self.frame.clone());
            }
        }
    }

    /// Sends the frame that was made on a stream, as far as the server has room for it.
    fn send(&mut self, stream: StreamId, id: u16, now: Instant) {
        // RFC 9250 section 4.2.1: the ID is 0.
        if let Some(zero) = self.frame.get_mut(FRAME_PREFIX..FRAME_PREFIX + 2) {
            zero.fill(0);
        }
        let sent = write_all(&mut self.quic.send_stream(stream), &self.frame);
        let rest = self.frame.get(sent..).unwrap_or_default();
        self.unsent += rest.len();
        self.streams.insert(stream.index(), Asked { id, unsent: rest.to_vec(), received: Vec::new() });
        self.unacknowledged.get_or_insert(now);
    }

    /// Sends what waits for streams, as far as there are some now.
    fn send_held(&mut self, now: Instant) {
        if self.state != ConnectionState::Open {
            return;
        }
        loop {
            if self.next.is_none() {
                self.next = self.quic.streams().open(Dir::Bi);
            }
            if self.next.is_none() {
                return;
            }
            let Some(frame) = self.held.pop_front() else { return };
            self.unsent -= frame.len();
            self.frame = frame;
            let (Some(stream), Some(id)) =
                (self.next.take(), self.frame.get(FRAME_PREFIX..).and_then(|id| id.first_chunk()))
            else {
                return;
            };
            self.send(stream, u16::from_be_bytes(*id), now);
        }
    }

    /// Sends more of a query that the server had no room for.
    fn send_rest(&mut self, stream: StreamId) {
        let Some(asked) = self.streams.get_mut(&stream.index()).filter(|asked| !asked.unsent.is_empty()) else {
            return;
        };
        let sent = write_all(&mut self.quic.send_stream(stream), &asked.unsent);
        asked.unsent.drain(..sent);
        self.unsent -= sent;
    }

    /// A datagram has come. What it has changed, [`advance`](Self::advance) finds.
    pub fn hear(&mut self, datagram: &[u8], now: Instant) {
        // What the endpoint would like to answer by itself is for strangers, and there are none on a connected socket.
        let mut unwanted = Vec::new();
        let heard = self.endpoint.handle(now, self.remote, None, None, BytesMut::from(datagram), &mut unwanted);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = heard {
            self.has_heard = true;
            self.quic.handle_event(event);
        }
    }

    /// What is due by time is done, and all that has happened is looked at.
    ///
    /// # Errors
    /// If the connection is over: [`next_datagram`](Self::next_datagram) may still have something to tell the server.
    pub fn advance(&mut self, now: Instant) -> Result<(), QuicEnd> {
        if self.next_timeout().is_some_and(|timeout| timeout <= now) {
            self.quic.handle_timeout(now);
        }
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.connected(now),
                Event::ConnectionLost { reason } => {
                    self.note_overload(&reason);
                    self.end.get_or_insert_with(|| QuicEnd::of(reason));
                    self.state = ConnectionState::Closing;
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id, now),
                Event::Stream(StreamEvent::Writable { id }) => self.send_rest(id),
                Event::Stream(StreamEvent::Stopped { id, error_code }) => self.refused(id, error_code),
                Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => self.send_held(now),
                // None is allowed that the server begins.
                Event::Stream(StreamEvent::Opened { .. } | StreamEvent::Available { dir: Dir::Uni }) => {}
                Event::Stream(StreamEvent::Finished { .. }) => {}
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        self.note_acknowledgements(now);
        self.end.clone().map_or(Ok(()), Err)
    }

    /// The handshake is complete.
    fn connected(&mut self, now: Instant) {
        self.state = ConnectionState::Open;
        let handshake = self.quic.crypto_session().handshake_data();
        if let Some(handshake) = handshake.and_then(|data| data.downcast::<QuicHandshake>().ok()) {
            self.is_resumed = handshake.is_resumed;
            self.idle_timeout = handshake.max_idle_timeout;
        }
        if !self.quic.accepted_0rtt() {
            // What went early was for nothing, with its streams.
            self.streams.clear();
            self.unsent = self.held.iter().map(Vec::len).sum();
            self.next = None;
        }
        self.send_held(now);
    }

    /// Reads what there is on a stream.
    fn read(&mut self, stream: StreamId, now: Instant) {
        let Some(asked) = self.streams.get_mut(&stream.index()) else { return };
        let mut recv = self.quic.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else { return };
        let heard = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => asked.received.extend_from_slice(&chunk.bytes),
                Ok(None) => break Heard::All,
                Err(ReadError::Blocked) => break Heard::Some,
                Err(ReadError::Reset(code)) => break Heard::Reset(code),
            }
            // RFC 9250 section 4.3.3: one response on a stream, and nothing behind it. So no more is kept than is needed.
            if first_message(&asked.received).is_some_and(|(_, end)| end < asked.received.len()) {
                break Heard::TooMuch;
            }
        };
        drop(chunks);
        if matches!(heard, Heard::All) && self.next.is_none() {
            // The server allows another when it knows that this one has come: at once, not with what is said next.
            self.quic.ping();
        }
        match heard {
            Heard::All => self.replied(stream, now),
            Heard::Some => {}
            Heard::Reset(code) => self.refused(stream, code),
            Heard::TooMuch => self.break_off(now),
        }
    }

    /// All of a stream has come.
    fn replied(&mut self, stream: StreamId, now: Instant) {
        let Some(asked) = self.streams.remove(&stream.index()) else { return };
        if !asked.unsent.is_empty() {
            // It has not waited for the end of the query.
            self.unsent -= asked.unsent.len();
            let _ = self.quic.send_stream(stream).reset(DOQ_REQUEST_CANCELLED);
        }
        let at = self.replies.len();
        match first_message(&asked.received) {
            // RFC 9250 section 4.2.1: the ID is 0. RFC 1035 section 4.1.1: QR is the first bit behind it.
            Some(([0, 0, flags, ..], end)) if end >= FRAME_PREFIX + HEADER_LEN && flags & 0x80 != 0 => {
                self.replies.extend_from_slice(&asked.received);
                if let Some(id) = self.replies.get_mut(at + FRAME_PREFIX..at + FRAME_PREFIX + 2) {
                    id.copy_from_slice(&asked.id.to_be_bytes());
                }
            }
            Some(_) | None => self.break_off(now),
        }
    }

    /// The server does not answer a query.
    fn refused(&mut self, stream: StreamId, code: VarInt) {
        self.is_overloaded |= code == DOQ_EXCESSIVE_LOAD;
        if let Some(asked) = self.streams.remove(&stream.index()) {
            self.failed.push((asked.id, code));
            self.drop_stream(stream, &asked);
            // It wants no more of the query either (RFC 9000 section 3.5).
            let _ = self.quic.send_stream(stream).reset(DOQ_REQUEST_CANCELLED);
        }
    }

    /// Nobody waits for the reply with this ID any more. Returns whether it was still to come: now it is not.
    pub fn cancel(&mut self, id: u16) -> bool {
        // What went early may be sent again, all of it.
        if self.state != ConnectionState::Open {
            return false;
        }
        let is_meant =
            |frame: &Vec<u8>| frame.get(FRAME_PREFIX..).is_some_and(|rest| rest.starts_with(&id.to_be_bytes()));
        if let Some(frame) = self.held.iter().position(is_meant).and_then(|at| self.held.remove(at)) {
            self.unsent -= frame.len();
            return true;
        }
        let stream = self.streams.iter().find_map(|(number, asked)| (asked.id == id).then_some(*number));
        if let Some((number, asked)) = stream.and_then(|number| self.streams.remove_entry(&number)) {
            self.drop_stream(StreamId::new(Side::Client, Dir::Bi, number), &asked);
            return true;
        }
        false
    }

    /// Gives a stream up that is not answered: the server may allow another in its place.
    fn drop_stream(&mut self, stream: StreamId, asked: &Asked) {
        self.unsent -= asked.unsent.len();
        // RFC 9250 section 4.3.1. Each of these fails only if that side of the stream is over.
        let _ = self.quic.recv_stream(stream).stop(DOQ_REQUEST_CANCELLED);
        if !asked.unsent.is_empty() {
            let _ = self.quic.send_stream(stream).reset(DOQ_REQUEST_CANCELLED);
        }
    }

    /// The server has sent what it must not.
    fn break_off(&mut self, now: Instant) {
        self.end.get_or_insert(QuicEnd::Protocol);
        self.state = ConnectionState::Closing;
        self.quic.close(now, DOQ_PROTOCOL_ERROR, Bytes::new());
    }

    fn note_overload(&mut self, reason: &ConnectionError) {
        if let ConnectionError::ApplicationClosed(close) = reason {
            self.is_overloaded |= close.error_code == DOQ_EXCESSIVE_LOAD;
        }
    }

    fn note_acknowledgements(&mut self, now: Instant) {
        let acknowledgements = self.quic.stats().frame_rx.acks;
        if std::mem::replace(&mut self.acknowledgements, acknowledgements) != acknowledgements {
            // The stream for the next query counts as well.
            let is_all = self.quic.streams().send_streams() <= usize::from(self.next.is_some());
            self.unacknowledged = (!is_all).then_some(now);
        }
    }

    /// Moves the frames of the replies that have come to `messages`, which is empty.
    pub fn take_messages(&mut self, messages: &mut Vec<u8>) {
        std::mem::swap(&mut self.replies, messages);
    }

    /// Takes the IDs of the queries that get no reply, with the error codes that they got.
    pub fn take_failed(&mut self) -> Vec<(u16, VarInt)> {
        std::mem::take(&mut self.failed)
    }

    /// Whether half a reply has come.
    pub fn is_amid_message(&self) -> bool {
        self.streams.values().any(|asked| !asked.received.is_empty())
    }

    /// Whether the server has said since this was asked last that it is asked too much.
    pub fn take_overload(&mut self) -> bool {
        std::mem::take(&mut self.is_overloaded)
    }

    /// Asks for a sign of life.
    pub fn ask_for_sign(&mut self, now: Instant) {
        self.quic.ping();
        self.sign = Some(self.acknowledgements);
        self.unacknowledged.get_or_insert(now);
    }

    /// Whether the sign of life has come that was asked for.
    pub fn take_sign(&mut self) -> bool {
        let has_come = self.sign.is_some_and(|before| self.acknowledgements > before);
        if has_come {
            self.sign = None;
        }
        has_come
    }

    /// For how long nothing of what was sent is acknowledged.
    pub fn unacknowledged_for(&self, now: Instant) -> Option<Duration> {
        self.unacknowledged.map(|since| now.saturating_duration_since(since))
    }

    /// When [`advance`](Self::advance) has something to do at the latest.
    pub fn next_timeout(&mut self) -> Option<Instant> {
        self.quic.poll_timeout()
    }

    /// Writes the next datagram that is to be sent, behind what is in `datagram`; returns whether there is one.
    pub fn next_datagram(&mut self, datagram: &mut Vec<u8>, now: Instant) -> bool {
        self.quic.poll_transmit(now, 1, datagram).is_some()
    }

    /// Says good-bye: [`next_datagram`](Self::next_datagram) has it.
    pub fn close(&mut self, now: Instant) {
        self.quic.close(now, DOQ_NO_ERROR, Bytes::new());
        self.state = ConnectionState::Closing;
    }
}

/// Writes a message as far as there is room for it, and that it is all. Returns how much that was; what is left may go when the stream is
/// told to be writable.
fn write_all(stream: &mut SendStream<'_>, octets: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(more) => written += more,
            // Only who was told so is told of more room.
            Err(_) => return written,
        }
    }
    // RFC 9250 section 4.2. It fails only on a stream that is over.
    let _ = stream.finish();
    written
}

/// What there was on a stream.
enum Heard {
    /// Part of the reply.
    Some,
    /// All of it.
    All,
    /// More than that.
    TooMuch,
    /// That there is none.
    Reset(VarInt),
}

impl QuicEnd {
    fn of(reason: ConnectionError) -> Self {
        match reason {
            ConnectionError::VersionMismatch => Self::Tls("it speaks no version of QUIC that we do".to_owned()),
            ConnectionError::TransportError(error) if tls_alert(error.code).is_some() => Self::Tls(error.reason),
            ConnectionError::TransportError(_) => Self::Protocol,
            ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code) {
                Some(problem) => Self::Tls(problem),
                // RFC 9000 section 20.1: what is no matter of ours.
                None if is_friendly(close.error_code) => Self::Closed,
                None => Self::Protocol,
            },
            ConnectionError::ApplicationClosed(close) if close.error_code == DOQ_PROTOCOL_ERROR => Self::Protocol,
            ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => Self::Closed,
            ConnectionError::Reset => Self::Reset,
            // RFC 9000 section 10.1. No ID is exhausted that is empty.
            ConnectionError::TimedOut | ConnectionError::CidsExhausted => Self::TimedOut,
        }
    }
}

fn is_friendly(code: TransportErrorCode) -> bool {
    let friendly = [
        TransportErrorCode::NO_ERROR,
        TransportErrorCode::INTERNAL_ERROR,
        TransportErrorCode::CONNECTION_REFUSED,
        TransportErrorCode::APPLICATION_ERROR,
        TransportErrorCode::NO_VIABLE_PATH,
    ];
    friendly.contains(&code)
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    // Each connection has a socket of its own, which says whose a datagram is: nothing has to be written into each.
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(0)));
    config.supported_versions(vec![VERSION]);
    config
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        // RFC 9250 section 4.2: a server begins no streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // RFC 9221: nor are there datagrams of that kind.
        .datagram_receive_buffer_size(None)
        // The longest reply; and how much of all replies may lie here out of order.
        .stream_receive_window(VarInt::from_u32(MAX_FRAME))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        // What is sent and not acknowledged; the rest waits where it is counted.
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        // Who keeps connections closes them when they are idle, and knows by their silence when they are dead.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        // RFC 9002 section 6.2.2 would send a lost first flight again after a second. A backend is near: after 0.3 s.
        .initial_rtt(INITIAL_RTT)
        // Queries are short: longer datagrams gain nothing, and to find out what the path takes costs some.
        .mtu_discovery_config(None)
        // RFC 9000 section 17.4: a bit that tells the way's latency to who listens.
        .allow_spin(false)
        // Those of one turn are put together where they are sent.
        .enable_segmentation_offload(false);
    config
}

/// QUIC version 1 (RFC 9000).
const VERSION: u32 = 1;

/// RFC 9250 section 4.3: the codes that both sides may give.
const DOQ_NO_ERROR: VarInt = VarInt::from_u32(0);
const DOQ_PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const DOQ_REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);
const DOQ_EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

/// Octets of the longest frame.
const MAX_FRAME: u32 = 2 + u16::MAX as u32;

/// Octets of all streams that may have come and wait for others before them.
const RECEIVE_WINDOW: u32 = 512 * 1024;

/// Octets that may be on their way, or be kept until it is known that they came.
const SEND_WINDOW: u64 = 128 * 1024;

/// Octets of a handshake that wait for others before them: chains of certificates may be long.
const CRYPTO_BUFFER: usize = 64 * 1024;

/// The round trip time that is believed before one was measured.
const INITIAL_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
pub(crate) mod server;
#[cfg(test)]
mod tests;
