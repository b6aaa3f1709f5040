//! What a connection by HTTP has in common with all others, whichever version it speaks: queries that are handed over, responses that
//! come back, octets that count as waiting, and the clock.
//!
//! Whoever parses HTTP keeps octets of responses until the kernel takes them. Which those are nobody tells, but when: all that was given
//! to it is gone as soon as it has been polled and the connection takes more. Until then all of it counts.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::Response;
use tokio::sync::mpsc;

use super::io::Flow;
use super::response::{head_of_answer, head_of_refusal};
use crate::address::HttpPath;
use crate::limit::{Doing, Patience, Pressure};
use crate::metrics::{Counters, HttpStatus};
use crate::net::tcp::connection::{MALFORMED, is_sound};
use crate::net::tcp::responder::{self, Message, Responder};
use crate::net::tcp::table::{ConnectionSlot, WAITING};

/// How requests become queries: what HTTP/1.1 and HTTP/2 share.
pub(super) struct Exchange {
    /// Its place among all connections.
    pub(super) place: ConnectionSlot,
    /// Under which path queries come.
    pub(super) path: HttpPath,
    counters: Arc<Counters>,
    handle: Handle,
    responder: Responder,
    responses: mpsc::Receiver<responder::Response>,
    flow: Rc<Flow>,
    /// How long it is waited for.
    patience: Patience,
    /// Queries that wait for their response.
    in_flight: usize,
    /// A sound query was handed over since the connection was last idle.
    is_asked: bool,
    /// Whether the client had to take something at the end of the last turn.
    was_writing: bool,
    /// Requests in a row that ask nothing.
    malformed: u32,
    /// Octets of responses that the protocol has, and that the kernel may not have taken.
    given: usize,
    /// Those of them that it was given in this turn.
    given_now: usize,
    /// Octets of responses that the client does not want yet.
    held: usize,
    /// By when it ends, once its end has begun and it has nothing to do.
    end: Option<Instant>,
}

/// Who gets each message, and owes its [`Responder`] one call.
pub(in crate::net::tcp) type Handle = Rc<dyn Fn(&[u8], &Responder)>;

/// What an exchange is made of.
pub(super) struct Parts {
    pub(super) place: ConnectionSlot,
    pub(super) path: HttpPath,
    pub(super) counters: Arc<Counters>,
    pub(super) handle: Handle,
    pub(super) responder: Responder,
    pub(super) responses: mpsc::Receiver<responder::Response>,
    pub(super) flow: Rc<Flow>,
    /// When the connection was accepted.
    pub(super) accepted: Instant,
}

impl Exchange {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { place, path, counters, handle, responder, responses, flow, accepted } = parts;
        Self {
            place,
            path,
            counters,
            handle,
            responder,
            responses,
            flow,
            patience: Patience::new(accepted),
            in_flight: 0,
            is_asked: false,
            was_writing: false,
            malformed: 0,
            given: 0,
            given_now: 0,
            held: 0,
            end: None,
        }
    }

    /// Whether one more request may be taken, if there is one.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < self.place.rules.in_flight && self.place.seat.has_room()
    }

    /// Whether the client asks nothing, again and again.
    pub(super) fn is_noise(&self) -> bool {
        self.malformed >= MALFORMED
    }

    /// Hands over a query, which owes this stream one response.
    pub(super) fn hand_over(&mut self, message: &[u8], stream: u32) {
        self.in_flight += 1;
        if is_sound(message) {
            let now = Instant::now();
            (self.is_asked, self.malformed) = (true, 0);
            self.patience.on_activity(now);
            self.place.seat.set_standing(true, now);
        } else {
            self.malformed += 1;
        }
        (self.handle)(message, self.responder.for_stream(stream));
    }

    /// Answers a request that asks nothing.
    pub(super) fn refuse(&mut self, status: HttpStatus) -> Response<()> {
        self.malformed += 1;
        self.counters.connections.http_response(status);
        head_of_refusal(status)
    }

    /// The next response, unless too much waits for the client already.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if self.given + self.held >= WAITING {
            return Poll::Pending;
        }
        match ready!(self.responses.poll_recv(cx)) {
            Some(responder::Response::Whole(message)) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                Poll::Ready(Some(message))
            }
            // Transfers are refused by HTTP: whatever this is, the connection cannot be right any more.
            Some(responder::Response::Parts(_)) => {
                self.place.seat.close();
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }

    /// The head of a response and its octets, which count as held; none if the query has none.
    pub(super) fn answer(&mut self, message: Message) -> (Response<()>, Vec<u8>) {
        let content = message.content();
        let octets = message.take();
        self.held += octets.len();
        if octets.is_empty() {
            self.counters.connections.http_response(HttpStatus::GatewayTimeout);
            return (head_of_refusal(HttpStatus::GatewayTimeout), octets);
        }
        self.counters.connections.http_response(HttpStatus::Ok);
        (head_of_answer(&octets, content), octets)
    }

    /// So many octets that were held are the protocol's now.
    pub(super) fn give(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.given += octets;
        self.given_now += octets;
    }

    /// So many octets that were held go to nobody.
    pub(super) fn drop_held(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.place.seat.settle(octets);
    }

    /// Takes note of what has become of a turn.
    pub(super) fn end_turn(&mut self) {
        let (written, given) = (self.flow.take_written(), std::mem::take(&mut self.given_now));
        let is_blocked = self.flow.is_blocked();
        if !is_blocked {
            self.place.seat.settle(std::mem::take(&mut self.given));
        }
        let is_writing = self.doing() == Doing::Writing;
        if is_writing && !self.was_writing {
            self.patience.on_unwritten(Instant::now());
        } else if is_writing {
            // Who lets us send him a sign of life and no response takes nothing.
            let taken = if is_blocked { written } else { given };
            if taken > 0 {
                self.patience.on_written(taken, &self.place.rules, Instant::now());
            }
        }
        self.was_writing = is_writing;
        if self.is_asked && self.doing() == Doing::Reading {
            self.is_asked = false;
            let now = Instant::now();
            self.patience.on_activity(now);
            self.place.seat.set_standing(false, now);
        }
        let is_shut = self.flow.is_shut() && self.end.is_none();
        if is_shut || self.end.is_some() && self.doing() != Doing::Reading {
            self.begin_end();
        }
    }

    /// No request is waited for any more, but for those that are on their way.
    pub(super) fn begin_end(&mut self) {
        self.end = Some(Instant::now() + GRACE);
    }

    /// Whether the end has begun.
    pub(super) fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// When something is to be done even if nothing happens until then.
    pub(super) fn alarm(&self, pressure: Pressure) -> Option<Instant> {
        let (doing, rules) = (self.doing(), &self.place.rules);
        match (self.end, doing) {
            (Some(end), Doing::Reading) => Some(end),
            (Some(_), Doing::Answering | Doing::Writing) => self.patience.end(doing, rules, pressure),
            (None, _) => {
                let end = self.patience.end(doing, rules, pressure);
                [end, Some(self.patience.end_of_queries(rules))].into_iter().flatten().min()
            }
        }
    }

    /// What is to be done at this time.
    pub(super) fn on_alarm(&self, pressure: Pressure, now: Instant) -> Due {
        let (doing, rules) = (self.doing(), &self.place.rules);
        let is_over = self.patience.end(doing, rules, pressure).is_some_and(|end| end <= now);
        match (self.end, doing) {
            (Some(end), Doing::Reading) if end <= now => Due::Close(Ok(())),
            (Some(_), Doing::Reading) => Due::Nothing,
            (_, Doing::Writing) if is_over => Due::Close(Ok(())),
            (None, Doing::Reading) if is_over && self.patience.is_fresh() => {
                Due::Close(Err(io::ErrorKind::TimedOut.into()))
            }
            (None, Doing::Reading) if is_over => Due::End,
            (None, _) if self.patience.end_of_queries(rules) <= now => Due::End,
            (Some(_) | None, Doing::Reading | Doing::Answering | Doing::Writing) => Due::Nothing,
        }
    }

    /// How long a request may take to come whole.
    pub(super) fn patience_for_bodies(&self) -> Duration {
        self.place.rules.first_query
    }

    /// What the connection waits for.
    fn doing(&self) -> Doing {
        if self.flow.is_blocked() || self.held > 0 {
            Doing::Writing
        } else if self.in_flight > 0 {
            Doing::Answering
        } else {
            Doing::Reading
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.place.seat.settle(self.given + self.held);
    }
}

/// What is to be done when time is up.
pub(super) enum Due {
    Nothing,
    /// The client hears that it is to go.
    End,
    /// It is left.
    Close(io::Result<()>),
}

/// How long a connection that ends is waited for while it has nothing to do: what was sent before its client hears of the end is still
/// answered.
const GRACE: Duration = Duration::from_secs(1);
