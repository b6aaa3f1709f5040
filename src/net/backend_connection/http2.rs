//! Messages by HTTP/2 within TLS (RFC 8484): `h2` over octets in memory, polled where other protocols would just be called.
//!
//! There is no task and no runtime. [`drive`](Http2Connection::drive) polls the connection and those requests that a waker has marked
//! ([`ready`]), until nothing moves any more. A query is a request whose stream is found by its place among those that are open, and
//! by its ID from outside.
//!
//! | what a backend may fill | bound |
//! |---|---|
//! | bodies of responses that are not whole | `pipeline` times 65,535 octets |
//! | what was received and not read by us | the window of the connection, a MiB: it is read at once |
//! | headers of a response | [`HEADERS`] octets, with a table of 4,096 |
//! | streams that it opens (pushes) | none |
//! | queries that wait for a stream | `pipeline`: [`has_room`](BackendConnection::has_room) says no before |
//! | octets that it does not read | what was asked, and the caller's bound on [`unwritten`](BackendConnection::unwritten) |
//! | tiny frames, streams that break the rules | [`FRAMING`] octets, [`BROKEN_STREAMS`] |
//! | PING, SETTINGS, empty frames | those of `h2`, which ends the connection past them; answers that are not read, [`UNREAD`] octets |

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
use self::exchange::{MAX_MESSAGE, Refused, body, check_head, check_length, reply};
use self::pipe::Pipe;
use self::ready::{FlagWaker, PlaceWaker, ReadyList};
use super::records::{has_ended, hear_records, opened, take_records};
use super::{BackendConnection, Broken, ConnectionState, FailedQuery, News, Opened};
use crate::wire::append_frame;

/// A connection by HTTP/2.
pub(super) struct Http2Connection {
    target: HttpTarget,
    tls: Box<ClientConnection>,
    state: ConnectionState,
    /// Something has come.
    has_heard: bool,
    /// Where `h2` reads and writes.
    pipe: Pipe,
    connection: Connection<Pipe, Bytes>,
    /// Begins requests; none when no more are begun.
    requests: Option<SendRequest<Bytes>>,
    pings: Option<PingPong>,
    /// A pong is waited for.
    is_pinged: bool,
    /// Says that the connection is to be polled.
    woken: Arc<FlagWaker>,
    waker: Waker,
    /// Requests that are to be polled.
    ready: Arc<ReadyList>,
    /// Those that are open, by place.
    open: Vec<Place>,
    /// Places that nobody has.
    free: Vec<usize>,
    /// The places of the IDs.
    places: HashMap<u16, usize>,
    /// Queries that have no stream yet.
    waiting: VecDeque<(u16, Bytes)>,
    /// Octets of queries since something was last taken to be written.
    queued: usize,
    /// Frames of replies.
    input: Vec<u8>,
    news: News,
    /// The backend takes no further requests.
    is_ending: bool,
    /// It is over, and since when: what came before that is to be taken first.
    over: Option<(Broken, Instant)>,
    /// What is to be written.
    output: Vec<u8>,
    /// How much of that was.
    written: usize,
}

/// Where a request may be.
struct Place {
    request: Option<OpenRequest>,
    mark: Arc<PlaceWaker>,
    waker: Waker,
}

/// A request that was sent.
struct OpenRequest {
    id: u16,
    awaits: Awaits,
}

/// What comes next.
enum Awaits {
    Head(ResponseFuture),
    Body(RecvStream, Vec<u8>),
}

/// What came of looking at a request.
enum Looked {
    /// Nothing yet.
    Pending,
    Reply(Vec<u8>),
    Refused(Refused),
    /// The backend has not looked at it.
    Lost,
}

impl Http2Connection {
    /// One that is dialled; `tls` has said nothing yet, and is to agree on `h2`.
    pub(super) fn new(tls: ClientConnection, target: HttpTarget) -> Result<Self, String> {
        Self::built_by(&builder(), tls, target)
    }

    fn built_by(builder: &Builder, mut tls: ClientConnection, target: HttpTarget) -> Result<Self, String> {
        // What waits is bounded before it comes here.
        tls.set_buffer_limit(None);
        let (pipe, woken) = (Pipe::default(), Arc::new(FlagWaker::default()));
        let waker = woken.waker();
        let begun = pin!(builder.handshake(pipe.clone())).poll(&mut Context::from_waker(&waker));
        // It only writes, and that is never waited for.
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
            news: News::default(),
            is_ending: false,
            over: None,
            output: Vec::new(),
            written: 0,
        })
    }

    /// Polls all that has something to do, until nothing has.
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
                    Ok(()) => Broken::Ended,
                    Err(error) if error.is_go_away() && error.is_remote() => Broken::Goaway,
                    Err(error) if error.is_io() => Broken::Ended,
                    Err(_) => Broken::Protocol,
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

    /// Gives waiting queries their streams, as many as the backend allows.
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
                self.open.push(Place { request: None, waker: Waker::from(Arc::clone(&mark)), mark });
                self.open.len() - 1
            });
            if let Some(earlier) = self.places.insert(id, place)
                && let Some(held) = self.open.get_mut(earlier)
            {
                // Its reply is not wanted any more, or the ID would not be asked again.
                held.request = None;
                self.free.push(earlier);
            }
            if let Some(free) = self.open.get_mut(place) {
                free.request = Some(OpenRequest { id, awaits: Awaits::Head(response) });
                // It is to be looked at once, for its waker to be known.
                free.waker.wake_by_ref();
            }
        }
    }

    /// The backend may have said that it takes no further requests: who begins some learns of it.
    fn look_for_goaway(&mut self) {
        let Some(requests) = &mut self.requests else { return };
        if let Poll::Ready(Err(_)) = requests.poll_ready(&mut Context::from_waker(&self.waker)) {
            self.is_ending = true;
            self.news.lost.extend(self.waiting.drain(..).map(|(id, _)| id));
        }
    }

    /// How many streams the backend allows; none if it takes no more.
    fn allowed(&self) -> usize {
        let allowed = self.requests.as_ref().map_or(0, SendRequest::current_max_send_streams);
        if self.is_ending { 0 } else { allowed }
    }

    /// Looks at the requests that have something new.
    fn look_at_ready(&mut self) {
        while let Some(place) = self.ready.pop() {
            self.look_at(place);
        }
    }

    fn look_at(&mut self, place: usize) {
        let Some(Place { request, mark, waker }) = self.open.get_mut(place) else { return };
        mark.clear();
        let Some(OpenRequest { id, awaits }) = request else { return };
        let (id, looked) = (*id, awaits.look(*id, &mut Context::from_waker(waker)));
        match looked {
            Looked::Pending => return,
            Looked::Reply(reply) => {
                // Its length was looked at.
                let _ = append_frame(&reply, &mut self.input);
            }
            Looked::Refused(Refused { problem, pause }) => {
                self.news.pause = self.news.pause.max(pause);
                self.news.failed.push(FailedQuery { id, problem });
            }
            Looked::Lost => self.news.lost.push(id),
        }
        self.remove(id);
    }

    /// Forgets a request: its stream is reset if it is not at its end.
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

    /// The handshake is complete: whether the backend speaks HTTP/2.
    fn check_protocol(&self) -> Result<(), Broken> {
        match self.tls.alpn_protocol() {
            Some(b"h2") => Ok(()),
            Some(_) | None => Err(Broken::Tls("it does not speak HTTP/2 (ALPN)".to_owned())),
        }
    }

    /// Moves what `h2` has written into records.
    fn take_output(&mut self) {
        let Self { pipe, tls, output, .. } = self;
        pipe.drain(|octets| tls.writer().write_all(octets).expect("without a limit it takes everything"));
        take_records(tls, output);
    }
}

impl BackendConnection for Http2Connection {
    fn state(&self) -> ConnectionState {
        self.state
    }

    fn is_answered(&self) -> bool {
        match self.state {
            ConnectionState::Dialling => false,
            ConnectionState::Handshaking => self.has_heard,
            ConnectionState::Open | ConnectionState::Closing => true,
        }
    }

    fn opened(&self) -> Opened {
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
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        match self.state {
            ConnectionState::Dialling | ConnectionState::Closing => {}
            ConnectionState::Handshaking => take_records(&mut self.tls, &mut self.output),
            ConnectionState::Open => {
                self.queued = 0;
                self.drive(now);
                self.take_output();
            }
        }
        self.output.get(self.written..).unwrap_or_default()
    }

    fn wrote(&mut self, octets: usize) {
        self.written = self.output.len().min(self.written + octets);
        if self.written == self.output.len() && self.output.capacity() > MAX_KEPT {
            self.output = Vec::new();
            self.written = 0;
        }
    }

    fn unwritten(&self) -> usize {
        self.queued + self.output.len() - self.written
    }

    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), Broken> {
        self.has_heard = true;
        let heard = match self.state {
            ConnectionState::Dialling => Err(Broken::Protocol),
            ConnectionState::Closing => return Err(Broken::Ended),
            // It has us answer, and does not read that.
            ConnectionState::Handshaking | ConnectionState::Open if self.unwritten() > UNREAD => Err(Broken::Protocol),
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
            // What came before the end is taken before it is told: `on_timer` does.
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

    fn is_amid_message(&self) -> bool {
        !self.places.is_empty()
    }

    fn take_news(&mut self) -> Option<News> {
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
        // One that is out already is as good.
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

    fn on_timer(&mut self, now: Instant) -> Result<(), Broken> {
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
                // Without requests and whoever may begin some, it says GOAWAY.
                self.requests = None;
                self.drive(now);
                self.take_output();
            }
            self.tls.send_close_notify();
            take_records(&mut self.tls, &mut self.output);
        }
        self.over = None;
        self.state = ConnectionState::Closing;
    }
}

impl Awaits {
    /// Goes on as far as what has come goes.
    fn look(&mut self, id: u16, context: &mut Context<'_>) -> Looked {
        loop {
            match self {
                Self::Head(response) => match Pin::new(response).poll(context) {
                    Poll::Pending => return Looked::Pending,
                    Poll::Ready(Err(error)) => return Looked::of_error(&error),
                    Poll::Ready(Ok(response)) => {
                        if let Err(refused) = check_head(&response) {
                            return Looked::Refused(refused);
                        }
                        *self = Self::Body(response.into_body(), Vec::new());
                    }
                },
                Self::Body(stream, body) => match stream.poll_data(context) {
                    Poll::Pending => return Looked::Pending,
                    Poll::Ready(Some(Err(error))) => return Looked::of_error(&error),
                    Poll::Ready(Some(Ok(octets))) => {
                        // The window of the stream holds a whole message, that of the connection all that is taken at once.
                        let _ = stream.flow_control().release_capacity(octets.len());
                        let length = body.len() + octets.len();
                        if length > MAX_MESSAGE {
                            return check_length(length).map_or_else(Looked::Refused, |()| Looked::Pending);
                        }
                        body.extend_from_slice(&octets);
                    }
                    Poll::Ready(None) => {
                        return reply(std::mem::take(body), id).map_or_else(Looked::Refused, Looked::Reply);
                    }
                },
            }
        }
    }
}

impl Looked {
    /// A stream has ended by an error: by RFC 9113 section 8.7 nobody has looked at one that was refused, or that a GOAWAY does not
    /// cover. Any other reset is an answer.
    fn of_error(error: &h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() && reason != Reason::REFUSED_STREAM => {
                Self::Refused(Refused::new(format!("it reset the stream of a query ({reason:?})")))
            }
            Some(_) | None => Self::Lost,
        }
    }
}

/// How HTTP/2 is spoken: each bound with its reason.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        // A message is no longer; so no response waits for us.
        .initial_window_size(MAX_MESSAGE as u32)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Until the backend says how many it takes. RFC 9113 section 6.5.2 asks for no less.
        .initial_max_send_streams(FIRST_STREAMS)
        .enable_push(false)
        .max_concurrent_streams(0)
        // Which frames have in any case (RFC 9113 section 4.2): messages are short.
        .max_frame_size(16_384)
        .max_header_list_size(HEADERS)
        .header_table_size(HEADER_TABLE)
        // Tiny frames cost more than they hold.
        .data_frame_budget(FRAMING)
        // What breaks the rules of a stream is answered by a reset, and so often at the most.
        .max_local_error_reset_streams(Some(BROKEN_STREAMS))
        // Those of which nobody wants the response any more, and which may still come.
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_KEPT);
    builder
}

/// Octets that may come on one connection before we have said that they were read: at 50 ms and a gigabit they do not wait for us.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Streams that are begun before the backend has said how many it takes.
const FIRST_STREAMS: usize = 100;

/// Octets of the headers of a response: what content networks add is 1 or 2 KiB.
const HEADERS: u32 = 16 * 1024;

/// Octets of the table by which headers are shortened: what all have who say nothing.
const HEADER_TABLE: u32 = 4096;

/// Octets that the frames of bodies may take beyond what is in them.
const FRAMING: usize = 256 * 1024;

/// Streams that break the rules, on one connection.
const BROKEN_STREAMS: usize = 64;

/// Streams that were reset by us and are still known.
const RESET_STREAMS: usize = 256;

/// How long they are.
const RESET_KEPT: Duration = Duration::from_secs(5);

/// Octets of answers (to PING, SETTINGS) and queries that a backend may leave unread while it goes on to write: more than the queries
/// that are let wait.
const UNREAD: usize = 1 << 20;

/// Octets that the room for output may keep.
const MAX_KEPT: usize = 64 * 1024;
