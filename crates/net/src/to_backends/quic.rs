//! A QUIC connection (RFC 9250) as a value: datagrams in, whole messages out; queries in, datagrams out.
//!
//! Each query has its own stream, on which its ID is 0; the caller's ID is stored with the stream. The caller
//! bounds the waiting queries by [`unwritten`](BackendConnection::unwritten).
//!
//! ```text
//!                 the handshake is complete        close
//!   Handshaking ───────────────────────────▶ Open ─────▶ Closing
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dns::{FRAME_PREFIX, HEADER_LEN, append_frame, first_message};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    RandomConnectionIdGenerator, ReadError, SendStream, Side, StreamEvent, StreamId, TransportConfig,
    TransportErrorCode, VarInt,
};

use super::connection::{
    BackendConnection, BackendHandshake, ConnectionEvents, ConnectionFailure, ConnectionState, FailedQuery,
};
use crate::to_backends::tls::{ClientTls, QuicHandshake, tls_alert};

/// A connection by QUIC to a backend.
pub(crate) struct QuicConnection {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    quic: Connection,
    state: ConnectionState,
    queries: QuicQueries,
    news: ConnectionEvents,
    handshake: QuicHandshake,
    silence: QuicSilence,
    end: Option<ConnectionFailure>,
    output: Vec<u8>,
    /// The time of the last call.
    now: Instant,
    timer: Option<Instant>,
}

/// The queries of a connection, and the frames of their replies.
#[derive(Default)]
struct QuicQueries {
    streams: HashMap<u64, QuicQuery, foldhash::fast::RandomState>,
    /// The stream of the next query, if the server allows one.
    next: Option<StreamId>,
    held: VecDeque<Vec<u8>>,
    unsent: usize,
    early: Vec<u16>,
    frame: Vec<u8>,
    replies: Vec<u8>,
}

#[derive(Default)]
struct QuicSilence {
    acknowledgements: u64,
    unacknowledged: Option<Instant>,
    /// The value of `acknowledgements` when a ping was sent.
    sign: Option<u64>,
}

struct QuicQuery {
    id: u16,
    /// The rest of its frame, which exceeds flow control.
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl QuicConnection {
    /// Creates a connection that is about to be dialled.
    pub(crate) fn new(tls: &ClientTls, remote: SocketAddr, now: Instant) -> Result<Self, String> {
        let mut endpoint = Endpoint::new(Arc::new(endpoint_config()), None, false, None);
        let mut config = tls.quic();
        config.version(VERSION);
        config.transport_config(Arc::new(transport_config()));
        // The TLS configuration holds the name to verify. This name only separates the tokens of servers, and
        // each backend has its own store.
        let (handle, quic) = endpoint.connect(now, config, remote, "").map_err(|error| error.to_string())?;
        let mut connection = Self {
            endpoint,
            handle,
            quic,
            state: ConnectionState::Handshaking,
            queries: QuicQueries::default(),
            news: ConnectionEvents::default(),
            handshake: QuicHandshake::default(),
            silence: QuicSilence::default(),
            end: None,
            output: Vec::new(),
            now,
            timer: None,
        };
        if connection.quic.has_0rtt() {
            connection.queries.next = connection.quic.streams().open(Dir::Bi);
        }
        Ok(connection)
    }

    fn queue_frame(&mut self) {
        match self.queries.next.take().filter(|_| self.queries.held.is_empty()) {
            Some(stream) => {
                self.send(stream, id_of(self.queries.frame.get(FRAME_PREFIX..).unwrap_or_default()));
                self.queries.next = self.quic.streams().open(Dir::Bi);
            }
            None => {
                self.queries.unsent += self.queries.frame.len();
                self.queries.held.push_back(self.queries.frame.clone());
            }
        }
    }

    fn send(&mut self, stream: StreamId, id: u16) {
        // RFC 9250 section 4.2.1: the ID is 0.
        if let Some(zero) = self.queries.frame.get_mut(FRAME_PREFIX..FRAME_PREFIX + 2) {
            zero.fill(0);
        }
        let sent = write_all(&mut self.quic.send_stream(stream), &self.queries.frame);
        let rest = self.queries.frame.get(sent..).unwrap_or_default();
        self.queries.unsent += rest.len();
        self.queries.streams.insert(stream.index(), QuicQuery { id, unsent: rest.to_vec(), received: Vec::new() });
        self.silence.unacknowledged.get_or_insert(self.now);
    }

    fn send_held(&mut self) {
        if self.state != ConnectionState::Open {
            return;
        }
        loop {
            self.queries.next = self.queries.next.or_else(|| self.quic.streams().open(Dir::Bi));
            let Some(stream) = self.queries.next else { return };
            let Some(frame) = self.queries.held.pop_front() else { return };
            self.queries.next = None;
            self.queries.unsent -= frame.len();
            self.queries.frame = frame;
            self.send(stream, id_of(self.queries.frame.get(FRAME_PREFIX..).unwrap_or_default()));
        }
    }

    fn send_rest(&mut self, stream: StreamId) {
        let Some(asked) = self.queries.streams.get_mut(&stream.index()).filter(|asked| !asked.unsent.is_empty()) else {
            return;
        };
        let sent = write_all(&mut self.quic.send_stream(stream), &asked.unsent);
        asked.unsent.drain(..sent);
        self.queries.unsent -= sent;
    }

    /// Runs due timers and processes the events.
    fn advance(&mut self) {
        if self.quic.poll_timeout().is_some_and(|timeout| timeout <= self.now) {
            self.quic.handle_timeout(self.now);
        }
        while let Some(event) = self.quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.note_open(),
                Event::ConnectionLost { reason } => {
                    if let ConnectionError::ApplicationClosed(close) = &reason {
                        self.note_overload(close.error_code);
                    }
                    self.end.get_or_insert_with(|| failure_of(reason));
                    self.state = ConnectionState::Closing;
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id),
                Event::Stream(StreamEvent::Writable { id }) => self.send_rest(id),
                Event::Stream(StreamEvent::Stopped { id, error_code }) => self.refused(id, error_code),
                Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => self.send_held(),
                Event::Stream(StreamEvent::Opened { .. } | StreamEvent::Available { dir: Dir::Uni }) => {}
                Event::Stream(StreamEvent::Finished { .. }) => {}
                Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        self.note_acknowledgements();
    }

    fn note_open(&mut self) {
        self.state = ConnectionState::Open;
        let handshake = self.quic.crypto_session().handshake_data();
        if let Some(handshake) = handshake.and_then(|data| data.downcast::<QuicHandshake>().ok()) {
            self.handshake = *handshake;
        }
        if !self.quic.accepted_0rtt() {
            // The server rejected the early data, and its streams are gone.
            self.queries.streams.clear();
            self.queries.unsent = self.queries.held.iter().map(Vec::len).sum();
            self.queries.next = None;
        }
        self.send_held();
    }

    fn read(&mut self, stream: StreamId) {
        let Some(asked) = self.queries.streams.get_mut(&stream.index()) else { return };
        let mut recv = self.quic.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else { return };
        let heard = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => asked.received.extend_from_slice(&chunk.bytes),
                Ok(None) => break StreamRead::All,
                Err(ReadError::Blocked) => break StreamRead::Some,
                Err(ReadError::Reset(code)) => break StreamRead::Reset(code),
            }
            // RFC 9250 section 4.3.3: a stream has one response. This also bounds the memory.
            if first_message(&asked.received).is_some_and(|(_, end)| end < asked.received.len()) {
                break StreamRead::TooMuch;
            }
        };
        drop(chunks);
        if matches!(heard, StreamRead::All) && self.queries.next.is_none() {
            // The ping carries the acknowledgement at once, so that the server allows another stream.
            self.quic.ping();
        }
        match heard {
            StreamRead::All => self.replied(stream),
            StreamRead::Some => {}
            StreamRead::Reset(code) => self.refused(stream, code),
            StreamRead::TooMuch => self.break_off(),
        }
    }

    fn replied(&mut self, stream: StreamId) {
        let Some(asked) = self.queries.streams.remove(&stream.index()) else { return };
        if !asked.unsent.is_empty() {
            self.queries.unsent -= asked.unsent.len();
            let _ = self.quic.send_stream(stream).reset(DOQ_REQUEST_CANCELLED);
        }
        let at = self.queries.replies.len();
        match first_message(&asked.received) {
            // RFC 9250 section 4.2.1: the ID is 0. RFC 1035 section 4.1.1: QR is the first bit behind it.
            Some(([0, 0, flags, ..], end)) if end >= FRAME_PREFIX + HEADER_LEN && flags & 0x80 != 0 => {
                self.queries.replies.extend_from_slice(&asked.received);
                if let Some(id) = self.queries.replies.get_mut(at + FRAME_PREFIX..at + FRAME_PREFIX + 2) {
                    id.copy_from_slice(&asked.id.to_be_bytes());
                }
            }
            Some(_) | None => self.break_off(),
        }
    }

    fn refused(&mut self, stream: StreamId, code: VarInt) {
        self.note_overload(code);
        if let Some(asked) = self.queries.streams.remove(&stream.index()) {
            let problem = format!("it reset the stream with the error code {:#x}", code.into_inner());
            self.news.failed.push(FailedQuery { id: asked.id, problem });
            self.drop_stream(stream, &asked);
            // The server does not need the rest of the query either (RFC 9000 section 3.5).
            let _ = self.quic.send_stream(stream).reset(DOQ_REQUEST_CANCELLED);
        }
    }

    fn drop_stream(&mut self, stream: StreamId, asked: &QuicQuery) {
        self.queries.unsent -= asked.unsent.len();
        // RFC 9250 section 4.3.1. Each call fails only if that side of the stream is over.
        let _ = self.quic.recv_stream(stream).stop(DOQ_REQUEST_CANCELLED);
        if !asked.unsent.is_empty() {
            let _ = self.quic.send_stream(stream).reset(DOQ_REQUEST_CANCELLED);
        }
    }

    fn break_off(&mut self) {
        self.end.get_or_insert(ConnectionFailure::Protocol);
        self.state = ConnectionState::Closing;
        self.quic.close(self.now, DOQ_PROTOCOL_ERROR, Bytes::new());
    }

    fn note_overload(&mut self, code: VarInt) {
        if code == DOQ_EXCESSIVE_LOAD {
            self.news.pause = Some(PAUSE);
        }
    }

    fn note_acknowledgements(&mut self) {
        let acknowledgements = self.quic.stats().frame_rx.acks;
        if std::mem::replace(&mut self.silence.acknowledgements, acknowledgements) != acknowledgements {
            // The stream for the next query counts as well.
            let is_all = self.quic.streams().send_streams() <= usize::from(self.queries.next.is_some());
            self.silence.unacknowledged = (!is_all).then_some(self.now);
        }
    }
}

impl BackendConnection for QuicConnection {
    fn state(&self) -> ConnectionState {
        self.state
    }

    fn is_answered(&self) -> bool {
        self.quic.stats().udp_rx.datagrams > 0
    }

    fn opened(&self) -> BackendHandshake {
        match self.handshake.is_resumed {
            true if self.quic.accepted_0rtt() && !self.queries.early.is_empty() => BackendHandshake::Early,
            true => BackendHandshake::Resumed,
            false => BackendHandshake::Full,
        }
    }

    fn connected(&mut self) {}

    fn queue(&mut self, message: &[u8]) -> Option<()> {
        self.queries.frame.clear();
        append_frame(message, &mut self.queries.frame)?;
        self.queue_frame();
        Some(())
    }

    /// Sends a query before the handshake is complete (0-RTT). An eavesdropper may replay it, so only an
    /// ordinary query is sent (RFC 9250 section 4.5).
    fn queue_early(&mut self, message: &[u8]) {
        // RFC 1035 section 4.1.1: the opcode.
        let is_question = message.get(2).is_some_and(|flags| flags >> 3 & 0xF == 0);
        if self.state != ConnectionState::Handshaking || !self.quic.has_0rtt() || !is_question {
            return;
        }
        let Some(stream) = self.queries.next.take() else { return };
        self.queries.frame.clear();
        if append_frame(message, &mut self.queries.frame).is_some() {
            let id = id_of(message);
            self.queries.early.push(id);
            self.send(stream, id);
        }
        self.queries.next = self.quic.streams().open(Dir::Bi);
    }

    fn queue_frames(&mut self, mut frames: &[u8]) {
        let were_taken = self.quic.accepted_0rtt();
        while let Some((message, end)) = first_message(frames) {
            let (frame, rest) = frames.split_at(end);
            frames = rest;
            if were_taken && self.queries.early.contains(&id_of(message)) {
                continue;
            }
            self.queries.frame.clear();
            self.queries.frame.extend_from_slice(frame);
            self.queue_frame();
        }
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.handshake.max_idle_timeout
    }

    fn output(&mut self, now: Instant) -> &[u8] {
        self.now = now;
        if self.output.is_empty() {
            // Without a datagram the output stays empty.
            let _ = self.quic.poll_transmit(now, 1, &mut self.output);
            self.timer = self.quic.poll_timeout();
        }
        &self.output
    }

    fn wrote(&mut self, _octets: usize) {
        self.output.clear();
    }

    fn unwritten(&self) -> usize {
        self.queries.unsent
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure> {
        // The endpoint's own responses are for unknown peers, and a connected socket has none.
        let mut unwanted = Vec::new();
        let heard =
            self.endpoint.handle(now, self.quic.remote_address(), None, None, BytesMut::from(octets), &mut unwanted);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = heard {
            self.quic.handle_event(event);
        }
        self.on_timer(now)
    }

    fn take_messages(&mut self, messages: &mut Vec<u8>) {
        std::mem::swap(&mut self.queries.replies, messages);
    }

    fn take_news(&mut self) -> Option<ConnectionEvents> {
        let QuicSilence { sign, acknowledgements, .. } = &mut self.silence;
        self.news.has_sign = sign.take_if(|before| acknowledgements > before).is_some();
        std::mem::take(&mut self.news).some()
    }

    fn has_room(&self) -> bool {
        self.queries.next.is_some() && self.queries.held.is_empty()
    }

    fn may_hold(&self) -> bool {
        true
    }

    fn ping(&mut self) -> bool {
        self.quic.ping();
        self.silence.sign = Some(self.silence.acknowledgements);
        self.silence.unacknowledged.get_or_insert(self.now);
        true
    }

    fn forget(&mut self, id: u16) -> bool {
        // Early data may be sent again as a whole.
        if self.state != ConnectionState::Open {
            return false;
        }
        let is_meant =
            |frame: &Vec<u8>| frame.get(FRAME_PREFIX..).is_some_and(|rest| rest.starts_with(&id.to_be_bytes()));
        if let Some(frame) = self.queries.held.iter().position(is_meant).and_then(|at| self.queries.held.remove(at)) {
            self.queries.unsent -= frame.len();
            return true;
        }
        let stream = self.queries.streams.iter().find_map(|(number, asked)| (asked.id == id).then_some(*number));
        if let Some((number, asked)) = stream.and_then(|number| self.queries.streams.remove_entry(&number)) {
            self.drop_stream(StreamId::new(Side::Client, Dir::Bi, number), &asked);
            return true;
        }
        false
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timer
    }

    fn on_timer(&mut self, now: Instant) -> Result<(), ConnectionFailure> {
        self.now = now;
        self.advance();
        self.timer = self.quic.poll_timeout();
        self.end.clone().map_or(Ok(()), Err)
    }

    fn unacknowledged_for(&self, now: Instant) -> Option<Duration> {
        self.silence.unacknowledged.map(|since| now.saturating_duration_since(since))
    }

    fn close(&mut self, now: Instant) {
        self.quic.close(now, DOQ_NO_ERROR, Bytes::new());
        self.state = ConnectionState::Closing;
    }
}

fn id_of(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |id| u16::from_be_bytes(*id))
}

/// Writes a message and the end of the stream, as far as flow control allows. Returns the bytes written.
fn write_all(stream: &mut SendStream<'_>, octets: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(more) => written += more,
            // Only a blocked write causes a later event that the stream is writable.
            Err(_) => return written,
        }
    }
    // RFC 9250 section 4.2. The call fails only on a stream that is over.
    let _ = stream.finish();
    written
}

enum StreamRead {
    Some,
    All,
    TooMuch,
    Reset(VarInt),
}

fn failure_of(reason: ConnectionError) -> ConnectionFailure {
    match reason {
        ConnectionError::VersionMismatch => {
            ConnectionFailure::Tls("it supports no version of QUIC that hedgerow supports".to_owned())
        }
        ConnectionError::TransportError(error) if tls_alert(error.code).is_some() => {
            ConnectionFailure::Tls(error.reason)
        }
        ConnectionError::TransportError(_) => ConnectionFailure::Protocol,
        ConnectionError::ConnectionClosed(close) => match tls_alert(close.error_code) {
            Some(problem) => ConnectionFailure::Tls(problem),
            // RFC 9000 section 20.1: errors that hedgerow did not cause.
            None if is_friendly(close.error_code) => ConnectionFailure::Ended,
            None => ConnectionFailure::Protocol,
        },
        ConnectionError::ApplicationClosed(close) if close.error_code == DOQ_PROTOCOL_ERROR => {
            ConnectionFailure::Protocol
        }
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => ConnectionFailure::Ended,
        ConnectionError::Reset => ConnectionFailure::Reset,
        // RFC 9000 section 10.1. Connection IDs are empty, so they are never exhausted.
        ConnectionError::TimedOut | ConnectionError::CidsExhausted => ConnectionFailure::TimedOut,
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
    // Each connection has its own socket, so datagrams need no connection ID.
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(0)));
    config.supported_versions(vec![VERSION]);
    config
}

fn transport_config() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        // RFC 9250 section 4.2: a server opens no streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // RFC 9221: the datagram extension is not used.
        .datagram_receive_buffer_size(None)
        // The longest reply per stream, and the total of replies that may arrive out of order.
        .stream_receive_window(VarInt::from_u32(MAX_FRAME))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        // Sent and unacknowledged bytes; the rest waits where the caller counts it.
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        // The connection pool closes idle connections and detects dead ones by their silence.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        // RFC 9002 section 6.2.2 would repeat a lost first flight after a second. A backend is near: 0.3 s.
        .initial_rtt(INITIAL_RTT)
        // Queries are short, so longer datagrams gain nothing, and path MTU probes cost traffic.
        .mtu_discovery_config(None)
        // RFC 9000 section 17.4: the spin bit reveals the path latency to observers.
        .allow_spin(false)
        // The sender combines the datagrams of a turn.
        .enable_segmentation_offload(false);
    config
}

const VERSION: u32 = 1;

/// RFC 9250 section 4.3: the error codes that both sides may send.
const DOQ_NO_ERROR: VarInt = VarInt::from_u32(0);
const DOQ_PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
const DOQ_REQUEST_CANCELLED: VarInt = VarInt::from_u32(3);
const DOQ_EXCESSIVE_LOAD: VarInt = VarInt::from_u32(4);

const MAX_FRAME: u32 = 2 + u16::MAX as u32;

const RECEIVE_WINDOW: u32 = 512 * 1024;

const SEND_WINDOW: u64 = 128 * 1024;

/// Bytes of a handshake that may wait for missing data: certificate chains may be long.
const CRYPTO_BUFFER: usize = 64 * 1024;

/// Pause of a server that reports DOQ_EXCESSIVE_LOAD: the protocol carries no time.
const PAUSE: Duration = Duration::from_secs(1);

const INITIAL_RTT: Duration = Duration::from_millis(100);

#[cfg(test)]
pub(crate) mod tests;
