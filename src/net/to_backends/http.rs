//! Messages by HTTP/2 over TLS (RFC 8484): the `h2` crate works on bytes in memory and is polled without a
//! task or a runtime.
//!
//! [`drive`](Http2Connection::drive) polls the connection and the requests that a waker has marked
//! ([`ready`]) until nothing moves. `places` maps the ID of a query to its place in `open`.
//!
//! | input or state that a backend may fill | bound |
//! |---|---|
//! | bodies of unfinished responses | `pipeline` times 65,535 bytes |
//! | received bytes that are not processed | the connection window, 1 MiB: it is read at once |
//! | headers of a response | [`HEADERS`] bytes, with a table of 4,096 |
//! | streams that it opens (pushes) | none |
//! | queries that wait for a stream | `pipeline`, by [`has_room`](BackendConnection::has_room) |
//! | bytes that it does not read | the caller's bound on [`unwritten`](BackendConnection::unwritten) |
//! | tiny frames, streams that break the rules | [`FRAMING`] bytes, [`BROKEN_STREAMS`] |
//! | PING, SETTINGS, empty frames | the bounds of `h2`; unread replies, [`UNREAD`] bytes |

mod exchange;
mod pipe;
mod ready;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::future::Future;
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use hashbrown::HashMap;
use tokio_rustls::rustls::ClientConnection;

pub use self::exchange::HttpTarget;
use self::exchange::{HttpRefusal, MAX_MESSAGE, body, check_head, check_length, reply};
use self::pipe::Pipe;
use self::ready::{FlagWaker, PlaceWaker, ReadyList};
use super::connection::{
    BackendConnection, BackendHandshake, ConnectionEvents, ConnectionFailure, ConnectionState, FailedQuery,
};
use crate::net::to_backends::connection::records::{OutputBuffer, has_ended, hear_records, opened, take_records};
use crate::wire::append_frame;

pub(in crate::net) struct Http2Connection {
    target: HttpTarget,
    tls: Box<ClientConnection>,
    state: ConnectionState,
    has_heard: bool,
    pipe: Pipe,
    connection: Connection<Pipe, Bytes>,
    requests: Option<SendRequest<Bytes>>,
    pings: Option<PingPong>,
    is_pinged: bool,
    woken: Arc<FlagWaker>,
    waker: Waker,
    ready: Arc<ReadyList>,
    open: Vec<StreamPlace>,
    free: Vec<usize>,
    places: HashMap<u16, usize>,
    waiting: VecDeque<(u16, Bytes)>,
    /// Query bytes queued since `h2` last produced output.
    queued: usize,
    input: Vec<u8>,
    news: ConnectionEvents,
    is_ending: bool,
    over: Option<(ConnectionFailure, Instant)>,
    output: OutputBuffer,
}

struct StreamPlace {
    request: Option<OpenRequest>,
    mark: Arc<PlaceWaker>,
    waker: Waker,
}

struct OpenRequest {
    id: u16,
    awaits: Awaits,
}

enum Awaits {
    Head(ResponseFuture),
    Body(RecvStream, Vec<u8>),
}

enum StreamProgress {
    Pending,
    Reply(Vec<u8>),
    Refused(HttpRefusal),
    Lost,
}

impl Http2Connection {
    /// Creates a connection over a fresh `tls` that offers the ALPN `h2`.
    pub(in crate::net) fn new(tls: ClientConnection, target: HttpTarget) -> Result<Self, String> {
        Self::built_by(&builder(), tls, target)
    }

    fn built_by(builder: &Builder, mut tls: ClientConnection, target: HttpTarget) -> Result<Self, String> {
        tls.set_buffer_limit(None);
        let (pipe, woken) = (Pipe::default(), Arc::new(FlagWaker::default()));
        let waker = woken.waker();
        let begun = pin!(builder.handshake(pipe.clone())).poll(&mut Context::from_waker(&waker));
        // The handshake of `h2` only writes to memory, so it never waits.
        let Poll::Ready(Ok((requests, mut connection))) = begun else { return Err("HTTP/2 cannot begin".to_owned()) };
        Ok(Self {
            target,
            tls: Box::new(tls),
            state: ConnectionState::Dialling,
            has_heard: false,
            pipe,
            pings: connection.ping_pong(),
            connection,
            requests: Some(requests),
            is_pinged: false,
            woken,
            waker,
            ready: Arc::default(),
            open: Vec::new(),
            free: Vec::new(),
            places: HashMap::new(),
            waiting: VecDeque::new(),
            queued: 0,
            input: Vec::new(),
            news: ConnectionEvents::default(),
            is_ending: false,
            over: None,
            output: OutputBuffer::default(),
        })
    }

    fn drive(&mut self, now: Instant) {
        while self.over.is_none() {
            self.woken.take();
            self.begin_requests();
            let mut context = Context::from_waker(&self.waker);
            let polled = Pin::new(&mut self.connection).poll(&mut context);
            self.look_for_goaway();
            self.look_at_ready();
            self.take_pong();
            if let Poll::Ready(ended) = polled {
                let broken = match ended {
                    Ok(()) => ConnectionFailure::Ended,
                    Err(error) if error.is_go_away() && error.is_remote() => ConnectionFailure::Goaway,
                    Err(error) if error.is_io() => ConnectionFailure::Ended,
                    Err(_) => ConnectionFailure::Protocol,
                };
                self.over = Some((broken, now));
                return;
            }
            let may_begin = !self.waiting.is_empty() && self.allowed() > self.places.len();
            if !self.woken.take() && !may_begin {
                return;
            }
        }
    }

    fn begin_requests(&mut self) {
        let Some(requests) = &mut self.requests else { return };
        while !self.is_ending
            && self.places.len() < requests.current_max_send_streams()
            && let Some((id, body)) = self.waiting.pop_front()
        {
            let begun =
                requests.send_request(self.target.request(body.len()), false).and_then(|(response, mut stream)| {
                    stream.send_data(body, true)?;
                    Ok(response)
                });
            let Ok(response) = begun else {
                self.news.lost.push(id);
                continue;
            };
            let place = self.free.pop().unwrap_or_else(|| {
                let mark = PlaceWaker::new(self.open.len(), &self.ready);
                self.open.push(StreamPlace { request: None, waker: Waker::from(Arc::clone(&mark)), mark });
                self.open.len() - 1
            });
            if let Some(earlier) = self.places.insert(id, place)
                && let Some(held) = self.open.get_mut(earlier)
            {
                // The reply is no longer wanted; otherwise the ID would not be in use again.
                held.request = None;
                self.free.push(earlier);
            }
            if let Some(free) = self.open.get_mut(place) {
                free.request = Some(OpenRequest { id, awaits: Awaits::Head(response) });
                // The request is polled at once so that its waker is registered.
                free.waker.wake_by_ref();
            }
        }
    }

    /// Checks for GOAWAY: `h2` reports it only to the sender of requests.
    fn look_for_goaway(&mut self) {
        let Some(requests) = &mut self.requests else { return };
        if let Poll::Ready(Err(_)) = requests.poll_ready(&mut Context::from_waker(&self.waker)) {
            self.is_ending = true;
            self.news.lost.extend(self.waiting.drain(..).map(|(id, _)| id));
        }
    }

    fn allowed(&self) -> usize {
        let allowed = self.requests.as_ref().map_or(0, SendRequest::current_max_send_streams);
        if self.is_ending { 0 } else { allowed }
    }

    fn look_at_ready(&mut self) {
        while let Some(place) = self.ready.pop() {
            self.look_at(place);
        }
    }

    fn look_at(&mut self, place: usize) {
        let Some(StreamPlace { request, mark, waker }) = self.open.get_mut(place) else { return };
        mark.clear();
        let Some(OpenRequest { id, awaits }) = request else { return };
        let (id, looked) = (*id, awaits.look(*id, &mut Context::from_waker(waker)));
        match looked {
            StreamProgress::Pending => return,
            StreamProgress::Reply(reply) => {
                let _ = append_frame(&reply, &mut self.input);
            }
            StreamProgress::Refused(HttpRefusal { problem, pause }) => {
                self.news.pause = self.news.pause.max(pause);
                self.news.failed.push(FailedQuery { id, problem });
            }
            StreamProgress::Lost => self.news.lost.push(id),
        }
        self.remove(id);
    }

    fn remove(&mut self, id: u16) -> bool {
        let Some(place) = self.places.remove(&id) else { return false };
        if let Some(held) = self.open.get_mut(place) {
            held.request = None;
        }
        self.free.push(place);
        true
    }

    fn take_pong(&mut self) {
        if let (true, Some(pings)) = (self.is_pinged, &mut self.pings)
            && let Poll::Ready(Ok(_)) = pings.poll_pong(&mut Context::from_waker(&self.waker))
        {
            self.is_pinged = false;
            self.news.has_sign = true;
        }
    }

    fn check_protocol(&self) -> Result<(), ConnectionFailure> {
        match self.tls.alpn_protocol() {
            Some(b"h2") => Ok(()),
            Some(_) | None => Err(ConnectionFailure::Tls("it does not speak HTTP/2 (ALPN)".to_owned())),
        }
    }

    fn take_output(&mut self) {
        let Self { pipe, tls, output, .. } = self;
        pipe.drain(|octets| tls.writer().write_all(octets).expect("without a limit it takes everything"));
        take_records(tls, output.octets());
    }
}

impl BackendConnection for Http2Connection {
    fn state(&self) -> ConnectionState {
        self.state
    }

    fn is_answered(&self) -> bool {
        self.state.is_answered(self.has_heard)
    }

    fn opened(&self) -> BackendHandshake {
        opened(&self.tls)
    }

    fn connected(&mut self) {
        if self.state == ConnectionState::Dialling {
            self.state = ConnectionState::Handshaking;
        }
    }

    fn queue(&mut self, message: &[u8]) -> Option<()> {
        let id = u16::from_be_bytes(*message.first_chunk()?);
        if message.len() > MAX_MESSAGE {
            return None;
        }
        self.queued += message.len();
        self.waiting.push_back((id, body(message)));
        Some(())
    }

    fn output(&mut self, now: Instant) -> &[u8] {
        match self.state {
            ConnectionState::Dialling | ConnectionState::Closing => {}
            ConnectionState::Handshaking => take_records(&mut self.tls, self.output.octets()),
            ConnectionState::Open => {
                self.queued = 0;
                self.drive(now);
                self.take_output();
            }
        }
        self.output.rest()
    }

    fn wrote(&mut self, octets: usize) {
        self.output.wrote(octets);
    }

    fn unwritten(&self) -> usize {
        self.queued + self.output.rest().len()
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure> {
        self.has_heard = true;
        let heard = match self.state {
            ConnectionState::Dialling => Err(ConnectionFailure::Protocol),
            ConnectionState::Closing => return Err(ConnectionFailure::Ended),
            // The backend causes responses that it does not read.
            ConnectionState::Handshaking | ConnectionState::Open if self.unwritten() > UNREAD => {
                Err(ConnectionFailure::Protocol)
            }
            ConnectionState::Handshaking | ConnectionState::Open => {
                let Self { pipe, tls, .. } = self;
                pipe.fill(|input| hear_records(tls, octets, input))
            }
        };
        let mut heard = heard;
        if heard.is_ok() && self.state == ConnectionState::Handshaking && !self.tls.is_handshaking() {
            heard = self.check_protocol();
            if heard.is_ok() {
                self.state = ConnectionState::Open;
            }
        }
        if heard.is_ok() && self.state == ConnectionState::Open {
            self.drive(now);
            // `on_timer` reports the end after the earlier messages are delivered.
            if let Some((broken, _)) = self.over.as_ref().filter(|_| self.input.is_empty()) {
                heard = Err(broken.clone());
            }
        }
        if heard.is_err() {
            self.close(now);
        }
        heard
    }

    fn take_messages(&mut self, messages: &mut Vec<u8>) {
        std::mem::swap(&mut self.input, messages);
    }

    fn take_news(&mut self) -> Option<ConnectionEvents> {
        std::mem::take(&mut self.news).some()
    }

    fn has_room(&self) -> bool {
        self.places.len() + self.waiting.len() < self.allowed()
    }

    fn has_ended(&mut self) -> bool {
        has_ended(&mut self.tls)
    }

    fn is_ending(&self) -> bool {
        self.is_ending
    }

    fn ping(&mut self) -> bool {
        let Some(pings) = &mut self.pings else { return false };
        // `send_ping` fails if a ping is already out, which serves as well.
        self.is_pinged |= pings.send_ping(Ping::opaque()).is_ok();
        self.is_pinged
    }

    fn forget(&mut self, id: u16) -> bool {
        let had = self.waiting.len();
        if !self.remove(id) {
            self.waiting.retain(|(waiting, _)| *waiting != id);
            return self.waiting.len() < had;
        }
        true
    }

    fn next_timer(&self) -> Option<Instant> {
        self.over.as_ref().map(|(_, since)| *since)
    }

    fn on_timer(&mut self, now: Instant) -> Result<(), ConnectionFailure> {
        let Some((broken, _)) = self.over.take() else { return Ok(()) };
        self.close(now);
        Err(broken)
    }

    fn close(&mut self, now: Instant) {
        if matches!(self.state, ConnectionState::Handshaking | ConnectionState::Open) {
            if self.state == ConnectionState::Open {
                self.waiting.clear();
                self.places.clear();
                self.open.clear();
                // `h2` sends GOAWAY once there are no requests and no `SendRequest`.
                self.requests = None;
                self.drive(now);
                self.take_output();
            }
            self.tls.send_close_notify();
            take_records(&mut self.tls, self.output.octets());
        }
        self.over = None;
        self.state = ConnectionState::Closing;
    }
}

impl Awaits {
    fn look(&mut self, id: u16, context: &mut Context<'_>) -> StreamProgress {
        loop {
            match self {
                Self::Head(response) => match Pin::new(response).poll(context) {
                    Poll::Pending => return StreamProgress::Pending,
                    Poll::Ready(Err(error)) => return StreamProgress::of_error(&error),
                    Poll::Ready(Ok(response)) => {
                        if let Err(refused) = check_head(&response) {
                            return StreamProgress::Refused(refused);
                        }
                        *self = Self::Body(response.into_body(), Vec::new());
                    }
                },
                Self::Body(stream, body) => match stream.poll_data(context) {
                    Poll::Pending => return StreamProgress::Pending,
                    Poll::Ready(Some(Err(error))) => return StreamProgress::of_error(&error),
                    Poll::Ready(Some(Ok(octets))) => {
                        // The stream window holds a whole message. The connection window is released at once.
                        let _ = stream.flow_control().release_capacity(octets.len());
                        let length = body.len() + octets.len();
                        if length > MAX_MESSAGE {
                            return check_length(length)
                                .map_or_else(StreamProgress::Refused, |()| StreamProgress::Pending);
                        }
                        body.extend_from_slice(&octets);
                    }
                    Poll::Ready(None) => {
                        return reply(std::mem::take(body), id)
                            .map_or_else(StreamProgress::Refused, StreamProgress::Reply);
                    }
                },
            }
        }
    }
}

impl StreamProgress {
    /// Classifies a stream error. A stream that was refused, or that GOAWAY does not cover, was not processed
    /// (RFC 9113 section 8.7). Any other reset is an answer.
    fn of_error(error: &h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() && reason != Reason::REFUSED_STREAM => {
                Self::Refused(HttpRefusal::new(format!("it reset the stream of a query ({reason:?})")))
            }
            Some(_) | None => Self::Lost,
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        // The longest message, so that no response waits for a window update.
        .initial_window_size(MAX_MESSAGE as u32)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Until the backend states its limit. RFC 9113 section 6.5.2 recommends at least this.
        .initial_max_send_streams(FIRST_STREAMS)
        .enable_push(false)
        .max_concurrent_streams(0)
        // The minimum that each peer must accept (RFC 9113 section 4.2): messages are short.
        .max_frame_size(16_384)
        .max_header_list_size(HEADERS)
        .header_table_size(HEADER_TABLE)
        .data_frame_budget(FRAMING)
        .max_local_error_reset_streams(Some(BROKEN_STREAMS))
        // Canceled streams whose response may still arrive.
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_KEPT);
    builder
}

/// Receive window of a connection in bytes: at 50 ms and 1 Gbit/s the backend does not wait for us.
const CONNECTION_WINDOW: u32 = 1 << 20;

const FIRST_STREAMS: usize = 100;

/// Maximum size of response headers in bytes: content networks add 1 or 2 KiB.
const HEADERS: u32 = 16 * 1024;

/// Size of the header compression table in bytes, the default of the protocol.
const HEADER_TABLE: u32 = 4096;

/// Bytes of frame overhead that a backend may send in addition to the bodies.
const FRAMING: usize = 256 * 1024;

const BROKEN_STREAMS: usize = 64;

const RESET_STREAMS: usize = 256;

const RESET_KEPT: Duration = Duration::from_secs(5);

/// Unread bytes of responses (to PING, SETTINGS) and queries: more than the queries that may wait.
const UNREAD: usize = 1 << 20;
