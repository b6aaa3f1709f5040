//! HTTP/2 (RFC 9113) of one client, by `h2`. The task polls it until it makes no progress, so that all
//! requests of one read are handed over in one turn, and all responses of a turn leave in one write.
//!
//! All state of a client is bounded: streams by `max_concurrent_streams`, incomplete bodies by the connection
//! window, header fields and their table by bytes, resets by counts. Beyond the reset limits `h2` ends the
//! connection with `ENHANCE_YOUR_CALM`. A query in flight counts until its response arrives, even if its
//! stream is reset, so resets do not get a client more than `in_flight` queries (Rapid Reset).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dns::address::HttpPath;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use http::request::Parts;
use limit::ConnectionRules;
use metrics::HttpStatus;

use super::request::{MAX_MESSAGE, RequestContent, check_message, read_head};
use crate::from_clients::tcp::exchange::Exchange;
use crate::from_clients::tcp::responder::ResponseMessage;
use crate::from_clients::tcp::stream::ClientStream;

pub(crate) fn begin(stream: ClientStream, rules: &ConnectionRules) -> Pin<Box<Handshake<ClientStream, Bytes>>> {
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

pub(crate) struct Http2 {
    connection: Connection<ClientStream, Bytes>,
    /// The streams whose queries wait for a response, by number.
    ways: HashMap<u32, SendResponse<Bytes>, foldhash::fast::RandomState>,
    bodies: Vec<RequestBody>,
    held: Vec<HeldResponse>,
    excess: usize,
    late: usize,
    path: HttpPath,
    exchange: Rc<RefCell<Exchange>>,
}

struct RequestBody {
    stream: RecvStream,
    respond: SendResponse<Bytes>,
    octets: Vec<u8>,
    since: Instant,
    refusal: Option<HttpStatus>,
}

struct HeldResponse {
    stream: SendStream<Bytes>,
    octets: Bytes,
}

impl Http2 {
    pub(crate) fn new(
        connection: Connection<ClientStream, Bytes>,
        path: HttpPath,
        exchange: Rc<RefCell<Exchange>>,
    ) -> Self {
        let (ways, bodies, held) = (HashMap::default(), Vec::new(), Vec::new());
        Self { connection, ways, bodies, held, excess: 0, late: 0, path, exchange }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    /// Sends GOAWAY: only requests sent before the client receives it are accepted (RFC 9113 section 6.8).
    pub(crate) fn end(&mut self) {
        self.connection.graceful_shutdown();
    }

    pub(crate) fn alarm(&self) -> Option<Instant> {
        let patience = self.exchange.borrow().account.slot.rules.first_query;
        self.bodies.first().map(|body| body.since + patience)
    }

    pub(crate) fn on_alarm(&mut self, now: Instant) {
        let patience = self.exchange.borrow().account.slot.rules.first_query;
        let late = self.bodies.iter().take_while(|body| body.since + patience <= now).count();
        for mut body in self.bodies.drain(..late) {
            body.respond.send_reset(Reason::CANCEL);
        }
        self.late += late;
        if self.late > MAX_LATE {
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }

    /// Counts the bytes of a head or body. `h2` keeps header fields in its table as slices of the read
    /// buffer, so a short field can hold a large buffer while the connection lasts.
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

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Incomplete bodies count because each may become complete with the next byte.
            let has_room = self.exchange.borrow().account.has_room();
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
        let refusal = match read_head(&head, &self.path) {
            RequestContent::Message(message) => return self.hand_over(&message, respond),
            RequestContent::Refused(status) if stream.is_end_stream() || status == HttpStatus::ContentTooLarge => {
                return self.refuse(&mut respond, status);
            }
            // The response waits for the end of the body: after an early one `h2` resets the stream with
            // NO_ERROR (RFC 9113 section 8.1), which some clients treat as a failure.
            RequestContent::Refused(status) => Some(status),
            RequestContent::Body => None,
        };
        let mut body = RequestBody { stream, respond, octets: Vec::new(), since: Instant::now(), refusal };
        match body.poll(cx) {
            Poll::Ready(whole) => self.finish_body(body, whole),
            Poll::Pending => self.bodies.push(body),
        }
    }

    fn poll_bodies(&mut self, cx: &mut Context<'_>) -> bool {
        let mut place = 0;
        let before = self.bodies.len();
        while let Some(body) = self.bodies.get_mut(place) {
            if !self.exchange.borrow().account.has_room() {
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

    fn finish_body(&mut self, mut body: RequestBody, whole: Result<(), Option<HttpStatus>>) {
        let length = body.octets.len();
        self.count_part(length);
        // Reopens the connection window.
        let _ = body.stream.flow_control().release_capacity(length);
        let whole = match body.refusal {
            Some(status) => whole.and(Err(Some(status))),
            None => whole,
        };
        match whole.and_then(|()| check_message(&body.octets).map_err(Some)) {
            Ok(()) => {
                self.late = self.late.saturating_sub(1);
                self.hand_over(&body.octets, body.respond);
            }
            Err(Some(status)) => self.refuse(&mut body.respond, status),
            Err(None) => {}
        }
    }

    fn hand_over(&mut self, message: &[u8], respond: SendResponse<Bytes>) {
        let number = respond.stream_id().as_u32();
        self.ways.insert(number, respond);
        self.exchange.borrow_mut().hand_over(message, number);
    }

    fn refuse(&mut self, respond: &mut SendResponse<Bytes>, status: HttpStatus) {
        let _ = respond.send_response(self.exchange.borrow_mut().refuse(status), true);
    }

    fn poll_responses(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_answered = false;
        loop {
            let response = self.exchange.borrow_mut().poll_message(cx);
            let Poll::Ready(Some(message)) = response else { return is_answered };
            self.respond(message);
            is_answered = true;
        }
    }

    fn respond(&mut self, message: ResponseMessage) {
        let number = message.stream();
        let (head, octets) = self.exchange.borrow_mut().answer(message);
        let length = octets.len();
        let Some(mut respond) = self.ways.remove(&number) else {
            return self.exchange.borrow_mut().drop_held(length);
        };
        match respond.send_response(head, length == 0) {
            Ok(mut stream) if length > 0 => {
                stream.reserve_capacity(length);
                self.held.push(HeldResponse { stream, octets: octets.into() });
            }
            Ok(_) | Err(_) => self.exchange.borrow_mut().drop_held(length),
        }
    }

    /// Sends as much of the responses as their windows allow. Returns true if there was progress.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> bool {
        let mut exchange = self.exchange.borrow_mut();
        let mut is_sent = false;
        self.held.retain_mut(|HeldResponse { stream, octets }| {
            match stream.poll_capacity(cx) {
                Poll::Pending | Poll::Ready(Some(Ok(0))) => return true,
                Poll::Ready(Some(Ok(capacity))) => {
                    is_sent = true;
                    let part = octets.split_to(capacity.min(octets.len()));
                    exchange.give(part.len());
                    if stream.send_data(part, octets.is_empty()).is_ok() && !octets.is_empty() {
                        return true;
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => {}
            }
            exchange.drop_held(octets.len());
            false
        });
        is_sent
    }
}

impl RequestBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Option<HttpStatus>>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(part)) => self.octets.extend_from_slice(&part),
                Some(Err(_)) => return Poll::Ready(Err(None)),
                None => return Poll::Ready(Ok(())),
            }
            if self.octets.len() > MAX_MESSAGE {
                return Poll::Ready(Err(Some(HttpStatus::ContentTooLarge)));
            }
            if self.stream.is_end_stream() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Returns the size of a head by RFC 9113 section 6.5.2, with a fixed amount for the path and the authority.
fn octets_of(head: &Parts) -> usize {
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD);
    let path = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    fields.sum::<usize>() + path
}

pub(crate) fn to_io(error: h2::Error) -> io::Error {
    if error.is_io() { error.into_io().unwrap_or_else(|| io::ErrorKind::Other.into()) } else { io::Error::other(error) }
}

/// The window of one body: one byte more than the longest message, so that a longer body is detected.
const STREAM_WINDOW: u32 = 64 << 10;

/// The window for all incomplete bodies of a connection: four of the longest messages.
const CONNECTION_WINDOW: u32 = 256 << 10;

/// The byte limit of header fields of a request (RFC 9113 section 6.5.2, 32 bytes overhead per field). A GET
/// request has room for a query of 11,000 bytes.
const MAX_HEADERS: u32 = 16 << 10;

const FIELD: usize = 32;

const MAX_HEAD_OF_BODY: usize = 4 << 10;

const USUAL_PART: usize = 1 << 10;

const MAX_EXCESS: usize = 128 << 10;

const MAX_LATE: usize = 64;

/// The size of the header table (RFC 7541 section 4.2).
const HEADER_TABLE: u32 = 4096;

const RESET_STREAMS: usize = 50;
const RESET_KEPT: Duration = Duration::from_secs(1);

/// The limit of streams that the client resets before we accept them (Rapid Reset, CVE-2023-44487).
const RESET_UNSEEN: usize = 20;

/// The limit of streams that we reset because of client errors (MadeYouReset, CVE-2025-8671), refused ones
/// included.
const RESET_BY_US: usize = 128;

const DATA_FRAME_BUDGET: usize = 25_600;
