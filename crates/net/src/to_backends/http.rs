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
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dns::append_frame;
use foldhash::fast::RandomState;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use hashbrown::HashMap;
use http::Request;
use tokio_rustls::rustls::ClientConnection;

pub use self::exchange::HttpTarget;
use self::exchange::{HttpRefusal, MAX_MESSAGE, age_of, body, check_head, check_length, reply};
use self::pipe::Pipe;
use self::ready::{FlagWaker, PlaceWaker, ReadyList};
use super::connection::{
    BackendConnection, BackendHandshake, ConnectionEvents, ConnectionFailure, ConnectionState, FailedQuery,
};
use crate::to_backends::connection::transport::StreamTransport;

pub(crate) struct Http2Connection {
    target: HttpTarget,
    transport: StreamTransport,
    session: Session,
    requests: OpenRequests,
    waiting: VecDeque<(u16, Bytes)>,
    /// Query bytes queued since `h2` last produced output.
    queued: usize,
    input: Vec<u8>,
    news: ConnectionEvents,
    is_ending: bool,
    over: Option<(ConnectionFailure, Instant)>,
}

/// The connection of `h2`, which reads and writes a pipe.
struct Session {
    pipe: Pipe,
    connection: Connection<Pipe, Bytes>,
    sender: Option<SendRequest<Bytes>>,
    pings: Option<PingPong>,
    is_pinged: bool,
    woken: Arc<FlagWaker>,
    waker: Waker,
}

/// The requests without a whole response.
#[derive(Default)]
struct OpenRequests {
    ready: Arc<ReadyList>,
    open: Vec<StreamPlace>,
    free: Vec<usize>,
    places: HashMap<u16, usize, RandomState>,
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
    /// The body so far, and its age in seconds.
    Body(RecvStream, Vec<u8>, u32),
}

enum StreamProgress {
    Pending,
    Reply(Vec<u8>),
    Refused(HttpRefusal),
    Lost,
}

impl Http2Connection {
    /// Creates a connection over a fresh `tls` that offers the ALPN `h2`.
    pub(crate) fn new(tls: ClientConnection, target: HttpTarget) -> Result<Self, String> {
        Self::built_by(&builder(), tls, target)
    }

    fn built_by(builder: &Builder, tls: ClientConnection, target: HttpTarget) -> Result<Self, String> {
        Ok(Self {
            target,
            transport: StreamTransport::new(Some(tls), true),
            session: Session::new(builder).ok_or("HTTP/2 cannot begin")?,
            requests: OpenRequests::default(),
            waiting: VecDeque::new(),
            queued: 0,
            input: Vec::new(),
            news: ConnectionEvents::default(),
            is_ending: false,
            over: None,
        })
    }

    fn drive(&mut self, now: Instant) {
        while self.over.is_none() {
            self.session.woken.take();
            self.begin_requests();
            let polled = self.session.poll();
            if self.session.has_goaway() {
                self.is_ending = true;
                self.news.lost.extend(self.waiting.drain(..).map(|(id, _)| id));
            }
            while let Some((id, looked)) = self.requests.next_ready() {
                self.finish(id, looked);
            }
            self.news.has_sign |= self.session.take_pong();
            if let Poll::Ready(broken) = polled {
                self.over = Some((broken, now));
                return;
            }
            let may_begin = !self.waiting.is_empty() && self.allowed() > self.requests.len();
            if !self.session.woken.take() && !may_begin {
                return;
            }
        }
    }

    fn begin_requests(&mut self) {
        while self.requests.len() < self.allowed()
            && let Some((id, body)) = self.waiting.pop_front()
        {
            match self.session.request(self.target.request(body.len()), body) {
                Some(response) => self.requests.begin(id, response),
                None => self.news.lost.push(id),
            }
        }
    }

    fn allowed(&self) -> usize {
        let allowed = self.session.sender.as_ref().map_or(0, SendRequest::current_max_send_streams);
        if self.is_ending { 0 } else { allowed }
    }

    fn finish(&mut self, id: u16, looked: StreamProgress) {
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
        self.requests.remove(id);
    }

    fn take_output(&mut self) {
        let Self { session, transport, .. } = self;
        session.pipe.drain(|octets| transport.send(octets));
        transport.take_records();
    }
}

impl Session {
    /// Begins HTTP/2. The handshake of `h2` only writes to memory, so it never waits.
    fn new(builder: &Builder) -> Option<Self> {
        let (pipe, woken) = (Pipe::default(), Arc::new(FlagWaker::default()));
        let waker = woken.waker();
        let begun = pin!(builder.handshake(pipe.clone())).poll(&mut Context::from_waker(&waker));
        let Poll::Ready(Ok((sender, mut connection))) = begun else { return None };
        let pings = connection.ping_pong();
        Some(Self { pipe, connection, sender: Some(sender), pings, is_pinged: false, woken, waker })
    }

    fn poll(&mut self) -> Poll<ConnectionFailure> {
        Pin::new(&mut self.connection).poll(&mut Context::from_waker(&self.waker)).map(|ended| match ended {
            Ok(()) => ConnectionFailure::Ended,
            Err(error) if error.is_go_away() && error.is_remote() => ConnectionFailure::Goaway,
            Err(error) if error.is_io() => ConnectionFailure::Ended,
            Err(_) => ConnectionFailure::Protocol,
        })
    }

    fn request(&mut self, head: Request<()>, body: Bytes) -> Option<ResponseFuture> {
        let (response, mut stream) = self.sender.as_mut()?.send_request(head, false).ok()?;
        stream.send_data(body, true).ok()?;
        Some(response)
    }

    /// Checks for GOAWAY: `h2` reports it only to the sender of requests.
    fn has_goaway(&mut self) -> bool {
        let Some(sender) = &mut self.sender else { return false };
        matches!(sender.poll_ready(&mut Context::from_waker(&self.waker)), Poll::Ready(Err(_)))
    }

    fn take_pong(&mut self) -> bool {
        let (true, Some(pings)) = (self.is_pinged, &mut self.pings) else { return false };
        let has_come = matches!(pings.poll_pong(&mut Context::from_waker(&self.waker)), Poll::Ready(Ok(_)));
        self.is_pinged = !has_come;
        has_come
    }
}

impl OpenRequests {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn begin(&mut self, id: u16, response: ResponseFuture) {
        // The reply to an earlier query is no longer wanted; otherwise its ID would not be in use again.
        self.remove(id);
        let place = self.free.pop().unwrap_or_else(|| {
            let mark = PlaceWaker::new(self.open.len(), &self.ready);
            self.open.push(StreamPlace { request: None, waker: Waker::from(Arc::clone(&mark)), mark });
            self.open.len() - 1
        });
        self.places.insert(id, place);
        if let Some(free) = self.open.get_mut(place) {
            free.request = Some(OpenRequest { id, awaits: Awaits::Head(response) });
            // The request is polled at once so that its waker is registered.
            free.waker.wake_by_ref();
        }
    }

    /// Polls the next request that a waker has marked.
    fn next_ready(&mut self) -> Option<(u16, StreamProgress)> {
        loop {
            let place = self.ready.pop()?;
            let Some(StreamPlace { request, mark, waker }) = self.open.get_mut(place) else { continue };
            mark.clear();
            if let Some(OpenRequest { id, awaits }) = request {
                return Some((*id, awaits.look(*id, &mut Context::from_waker(waker))));
            }
        }
    }

    fn remove(&mut self, id: u16) -> bool {
        let Some(place) = self.places.remove(&id) else { return false };
        if let Some(held) = self.open.get_mut(place) {
            held.request = None;
        }
        self.free.push(place);
        true
    }
}

impl BackendConnection for Http2Connection {
    fn state(&self) -> ConnectionState {
        self.transport.state()
    }

    fn is_answered(&self) -> bool {
        self.transport.is_answered()
    }

    fn opened(&self) -> BackendHandshake {
        self.transport.opened()
    }

    fn connected(&mut self) {
        self.transport.connected();
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
        if self.state() == ConnectionState::Open {
            self.queued = 0;
            self.drive(now);
            self.take_output();
        } else {
            self.transport.take_records();
        }
        self.transport.rest()
    }

    fn wrote(&mut self, octets: usize) {
        self.transport.wrote(octets);
    }

    fn unwritten(&self) -> usize {
        self.queued + self.transport.rest().len()
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure> {
        if self.state() == ConnectionState::Closing {
            return Err(ConnectionFailure::Ended);
        }
        let mut heard = match self.unwritten() {
            // The backend causes responses that it does not read.
            unread if unread > UNREAD => Err(ConnectionFailure::Protocol),
            _ => self.session.pipe.fill(|input| self.transport.hear(octets, input)),
        };
        if heard.is_ok() && self.state() == ConnectionState::Open {
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
        self.requests.len() + self.waiting.len() < self.allowed()
    }

    fn has_ended(&mut self) -> bool {
        self.transport.has_ended()
    }

    fn is_ending(&self) -> bool {
        self.is_ending
    }

    fn ping(&mut self) -> bool {
        let Session { pings: Some(pings), is_pinged, .. } = &mut self.session else { return false };
        // `send_ping` fails if a ping is already out, which serves as well.
        *is_pinged |= pings.send_ping(Ping::opaque()).is_ok();
        *is_pinged
    }

    fn forget(&mut self, id: u16) -> bool {
        let had = self.waiting.len();
        if !self.requests.remove(id) {
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
        if self.state() == ConnectionState::Open {
            self.waiting.clear();
            self.requests = OpenRequests::default();
            // `h2` sends GOAWAY once there are no requests and no `SendRequest`.
            self.session.sender = None;
            self.drive(now);
            self.take_output();
        }
        self.transport.close();
        self.over = None;
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
                        let age = age_of(&response);
                        *self = Self::Body(response.into_body(), Vec::new(), age);
                    }
                },
                Self::Body(stream, body, age) => match stream.poll_data(context) {
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
                        return reply(std::mem::take(body), id, *age)
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
