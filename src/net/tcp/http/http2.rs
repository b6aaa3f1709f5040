//! HTTP/2 (RFC 9113) of one client, by `h2`, which parses and frames. It is polled until it has nothing more, so that all requests of a
//! read are handed over in one turn, and all responses of a turn leave in one write.
//!
//! Everything a client can have us keep has a bound: streams by `max_concurrent_streams`, bodies that are not whole by the window of the
//! connection, header fields and their table by octets, what is reset by numbers of its own. Beyond the last ones `h2` ends the connection
//! with `ENHANCE_YOUR_CALM`. A query that was handed over counts until it has its response, whether its stream is reset or not: so resets
//! buy nobody more queries than `in_flight` (Rapid Reset).

use std::cell::RefCell;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use http::request::Parts;

use super::exchange::Exchange;
use super::io::HttpStream;
use super::request::{Asked, MAX_MESSAGE, check_message, read_head};
use crate::limit::ConnectionRules;
use crate::metrics::HttpStatus;
use crate::net::tcp::responder::Message;

/// The beginning of a connection: its client's preface is to come.
pub(super) fn begin(stream: HttpStream, rules: &ConnectionRules) -> Pin<Box<Handshake<HttpStream, Bytes>>> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(u32::try_from(rules.in_flight).unwrap_or(u32::MAX))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .header_table_size(HEADER_TABLE)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_KEPT)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(Some(RESET_BY_US))
        .max_send_buffer_size(MAX_MESSAGE + 1)
        .data_frame_budget(DATA_FRAME_BUDGET);
    Box::pin(builder.handshake(stream))
}

/// A connection by HTTP/2.
pub(super) struct Http2 {
    connection: Connection<HttpStream, Bytes>,
    /// The ways back of queries that were handed over, by the number that the query has.
    ways: Vec<Option<SendResponse<Bytes>>>,
    /// Numbers of `ways` that are free.
    free: Vec<u32>,
    /// Requests that have not come whole, the oldest first.
    bodies: Vec<Body>,
    /// Responses that the client has no window for.
    held: Vec<Held>,
    /// Octets that requests have had beyond [`USUAL_PART`] each.
    excess: usize,
    /// Requests that did not come whole in time, less one for each that did.
    late: usize,
    exchange: Rc<RefCell<Exchange>>,
}

/// A request whose body is to come.
struct Body {
    stream: RecvStream,
    respond: SendResponse<Bytes>,
    /// What has come of it.
    octets: Octets,
    since: Instant,
    /// What it is answered with whatever comes, if that is known.
    refusal: Option<HttpStatus>,
}

/// The octets of a body: mostly they come at once.
enum Octets {
    Whole(Bytes),
    Parts(Vec<u8>),
}

/// A response, or what is left of it.
struct Held {
    stream: SendStream<Bytes>,
    octets: Bytes,
}

impl Http2 {
    pub(super) fn new(connection: Connection<HttpStream, Bytes>, exchange: Rc<RefCell<Exchange>>) -> Self {
        let (ways, free, bodies, held) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { connection, ways, free, bodies, held, excess: 0, late: 0, exchange }
    }

    /// Does all that can be done; ready when the connection is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let is_taken = match self.poll_requests(cx) {
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => self.poll_bodies(cx),
            };
            let is_answered = self.poll_responses(cx);
            let is_sent = self.poll_held(cx);
            if !(is_taken || is_answered || is_sent) {
                return Poll::Pending;
            }
        }
    }

    /// Tells the client that no request is taken that it has not sent before it hears so (RFC 9113 section 6.8).
    pub(super) fn end(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// By when the oldest request must have come whole.
    pub(super) fn alarm(&self) -> Option<Instant> {
        let patience = self.exchange.borrow().patience_for_bodies();
        self.bodies.first().map(|body| body.since + patience)
    }

    /// Gives up requests that do not come whole.
    pub(super) fn on_alarm(&mut self, now: Instant) {
        let patience = self.exchange.borrow().patience_for_bodies();
        let late = self.bodies.iter().take_while(|body| body.since + patience <= now).count();
        for mut body in self.bodies.drain(..late) {
            body.respond.send_reset(Reason::CANCEL);
        }
        self.late += late;
        if self.late > MAX_LATE {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// Counts a head or a body. `h2` keeps fields in the table of header fields as parts of what it has read, so that a short field may
    /// hold a long read for as long as the connection lasts. A client whose requests are long goes on by another connection.
    fn count_part(&mut self, octets: usize) {
        let before = self.excess;
        self.excess = before.saturating_add(octets.saturating_sub(USUAL_PART));
        if self.excess > MAX_EXCESS + MAX_EXCESS / 2 {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        } else if before <= MAX_EXCESS && self.excess > MAX_EXCESS {
            self.exchange.borrow_mut().begin_end();
            self.end();
        }
    }

    /// Takes requests until there is none, or no room for more.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Bodies count, too: each of them may be whole with the next octet.
            let has_room = self.exchange.borrow().has_room();
            if !has_room {
                return self.connection.poll_closed(cx).map_err(to_io);
            }
            match ready!(self.connection.poll_accept(cx)) {
                Some(Ok((request, respond))) => self.take_request(request, respond, cx),
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    fn take_request(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>, cx: &mut Context<'_>) {
        let (head, stream) = request.into_parts();
        let octets = octets_of(&head);
        self.count_part(octets);
        if !stream.is_end_stream() && octets > MAX_HEAD_OF_BODY {
            return respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
        let asked = read_head(&head, &self.exchange.borrow().path);
        let refusal = match asked {
            Asked::Message(message) => return self.hand_over(&message, respond),
            Asked::Refused(status) if stream.is_end_stream() || status == HttpStatus::ContentTooLarge => {
                return self.refuse(&mut respond, status);
            }
            // Who is answered while he sends hears that he need not go on (RFC 9113 section 8.1), which some clients take for a failure.
            Asked::Refused(status) => Some(status),
            Asked::Body => None,
        };
        let mut body = Body { stream, respond, octets: Octets::Whole(Bytes::new()), since: Instant::now(), refusal };
        match body.poll(cx) {
            Poll::Ready(whole) => self.finish_body(body, whole),
            Poll::Pending => self.bodies.push(body),
        }
    }

    /// Goes on with bodies; whether one of them is over.
    fn poll_bodies(&mut self, cx: &mut Context<'_>) -> bool {
        let mut place = 0;
        let before = self.bodies.len();
        while let Some(body) = self.bodies.get_mut(place) {
            if !self.exchange.borrow().has_room() {
                break;
            }
            match body.poll(cx) {
                Poll::Ready(whole) => {
                    let body = self.bodies.remove(place);
                    self.finish_body(body, whole);
                }
                Poll::Pending => place += 1,
            }
        }
        self.bodies.len() < before
    }

    fn finish_body(&mut self, mut body: Body, whole: Result<(), Option<HttpStatus>>) {
        let length = body.octets.as_slice().len();
        self.count_part(length);
        // Has the window of the connection open again.
        let _ = body.stream.flow_control().release_capacity(length);
        let whole = match body.refusal {
            Some(status) => whole.and(Err(Some(status))),
            None => whole,
        };
        match whole.and_then(|()| check_message(body.octets.as_slice()).map_err(Some)) {
            Ok(()) => {
                self.late = self.late.saturating_sub(1);
                let octets = mem::replace(&mut body.octets, Octets::Parts(Vec::new()));
                self.hand_over(octets.as_slice(), body.respond);
            }
            Err(Some(status)) => self.refuse(&mut body.respond, status),
            // Its client has given it up.
            Err(None) => {}
        }
    }

    fn hand_over(&mut self, message: &[u8], respond: SendResponse<Bytes>) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.ways.push(None);
            u32::try_from(self.ways.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(way) = self.ways.get_mut(number as usize) {
            *way = Some(respond);
        }
        self.exchange.borrow_mut().hand_over(message, number);
    }

    /// Who has given the request up by now hears nothing.
    fn refuse(&mut self, respond: &mut SendResponse<Bytes>, status: HttpStatus) {
        let _ = respond.send_response(self.exchange.borrow_mut().refuse(status), true);
    }

    /// Takes the responses that have come; whether there were any.
    fn poll_responses(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_answered = false;
        loop {
            let response = self.exchange.borrow_mut().poll_response(cx);
            let Poll::Ready(Some(message)) = response else { return is_answered };
            self.respond(message);
            is_answered = true;
        }
    }

    fn respond(&mut self, message: Message) {
        let number = message.stream();
        let (head, octets) = self.exchange.borrow_mut().answer(message);
        let length = octets.len();
        let Some(mut respond) = self.ways.get_mut(number as usize).and_then(Option::take) else {
            return self.exchange.borrow_mut().drop_held(length);
        };
        self.free.push(number);
        match respond.send_response(head, length == 0) {
            Ok(mut stream) if length > 0 => {
                stream.reserve_capacity(length);
                self.held.push(Held { stream, octets: octets.into() });
                // Mostly there is a window for all of it.
                if let Some(place) = self.held.len().checked_sub(1) {
                    self.send(place);
                }
            }
            // Who has given the request up by now hears nothing.
            Ok(_) | Err(_) => self.exchange.borrow_mut().drop_held(length),
        }
    }

    /// Sends as much of a response as there is a window for, and forgets it if that is all; whether it did.
    fn send(&mut self, place: usize) -> bool {
        let Some(Held { stream, octets }) = self.held.get_mut(place) else { return false };
        let fits = stream.capacity().min(octets.len());
        if fits > 0 {
            let part = octets.split_to(fits);
            let is_sent = stream.send_data(part, octets.is_empty()).is_ok();
            self.exchange.borrow_mut().give(fits);
            if is_sent && !octets.is_empty() {
                return false;
            }
        } else if !octets.is_empty() {
            return false;
        }
        let Held { octets, .. } = self.held.swap_remove(place);
        self.exchange.borrow_mut().drop_held(octets.len());
        true
    }

    /// Goes on with responses for which the client opens its window; whether anything could be sent.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut place, mut is_sent) = (0, false);
        while let Some(Held { stream, octets }) = self.held.get_mut(place) {
            match stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {
                    is_sent = true;
                    if !self.send(place) {
                        place += 1;
                    }
                }
                // The client has given it up.
                Poll::Ready(Some(Err(_)) | None) => {
                    let left = octets.len();
                    self.held.swap_remove(place);
                    self.exchange.borrow_mut().drop_held(left);
                }
                Poll::Pending => place += 1,
            }
        }
        is_sent
    }
}

impl Body {
    /// Takes what has come; ready when that is all, or as much as it may be.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Option<HttpStatus>>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(part)) => self.octets.append(part),
                Some(Err(_)) => return Poll::Ready(Err(None)),
                None => return Poll::Ready(Ok(())),
            }
            if self.octets.as_slice().len() > MAX_MESSAGE {
                return Poll::Ready(Err(Some(HttpStatus::ContentTooLarge)));
            }
            if self.stream.is_end_stream() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Whole(octets) => octets,
            Self::Parts(octets) => octets,
        }
    }

    fn append(&mut self, part: Bytes) {
        match self {
            Self::Whole(octets) if octets.is_empty() => *octets = part,
            Self::Whole(octets) => *self = Self::Parts([&**octets, &*part].concat()),
            Self::Parts(octets) => octets.extend_from_slice(&part),
        }
    }
}

/// Octets of a head as RFC 9113 section 6.5.2 counts them, but for what stands in place of a path and a name.
fn octets_of(head: &Parts) -> usize {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    fields.sum::<usize>() + path
}

/// What has ended a connection, as others end.
pub(super) fn to_io(error: h2::Error) -> io::Error {
    if error.is_io() { error.into_io().unwrap_or_else(|| io::ErrorKind::Other.into()) } else { io::Error::other(error) }
}

/// Octets of one body that may come without our leave: one more than the longest message has, so that it shows who sends more.
const STREAM_WINDOW: u32 = 64 << 10;

/// Octets of all bodies of a connection that are not whole: four messages of the longest, or hundreds of usual ones.
const CONNECTION_WINDOW: u32 = 256 << 10;

/// Octets of the header fields of one request (RFC 9113 section 6.5.2), of which 32 count for each field beside its own: by GET there is
/// room for a query of 11,000.
const MAX_HEADERS: u32 = 16 << 10;

/// Octets that each field counts beside its own.
const FIELD: usize = 32;

/// Octets of the header fields of a request whose body is to come: only the query of a GET needs more.
const MAX_HEAD_OF_BODY: usize = 4 << 10;

/// Octets of a head, or of a body, that nothing counts.
const USUAL_PART: usize = 1 << 10;

/// Octets of heads and bodies beyond those before a connection is ended. A client that goes on in spite of that has half as many again.
const MAX_EXCESS: usize = 128 << 10;

/// Requests of a connection that may be late, beyond those that came whole.
const MAX_LATE: usize = 64;

/// Octets of the table of header fields, as RFC 7541 section 4.2 has it.
const HEADER_TABLE: u32 = 4096;

/// Streams of which it is remembered that we have reset them, and for how long.
const RESET_STREAMS: usize = 50;
const RESET_KEPT: Duration = Duration::from_secs(1);

/// Streams that a client has reset before we have looked at them (Rapid Reset, CVE-2023-44487).
const RESET_UNSEEN: usize = 20;

/// Streams that a client has had us reset by what it may not do (MadeYouReset, CVE-2025-8671), refused ones included.
const RESET_BY_US: usize = 128;

/// What small DATA frames may cost beyond their octets.
const DATA_FRAME_BUDGET: usize = 25_600;
