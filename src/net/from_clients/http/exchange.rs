//! The state that HTTP/1.1 and HTTP/2 connections share: queries in flight, responses, unsent bytes and the
//! clock.
//!
//! The HTTP library does not report when it has written a response. So all bytes given to it count as unsent
//! until it has been polled and accepts more.

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
use crate::limit::{ConnectionClock, Doing, TableFullness};
use crate::metrics::{Counters, HttpStatus};
use crate::net::from_clients::tcp::connection::{MALFORMED, is_sound};
use crate::net::from_clients::tcp::responder::{self, Responder, ResponseMessage};
use crate::net::from_clients::tcp::table::{ConnectionSlot, WAITING};

pub(in crate::net::from_clients) struct HttpExchange {
    pub(in crate::net::from_clients) place: ConnectionSlot,
    pub(in crate::net::from_clients) path: HttpPath,
    counters: Arc<Counters>,
    handle: Handle,
    responder: Responder,
    responses: mpsc::Receiver<responder::ResponseOutput>,
    flow: Rc<Flow>,
    patience: ConnectionClock,
    in_flight: usize,
    /// True if a valid query was handed over since the connection was last idle.
    is_asked: bool,
    was_writing: bool,
    malformed: u32,
    given: usize,
    given_now: usize,
    held: usize,
    end: Option<Instant>,
}

pub(in crate::net::from_clients) type Handle = Rc<dyn Fn(&[u8], &Responder)>;

pub(in crate::net::from_clients) struct HttpExchangeParts {
    pub(in crate::net::from_clients) place: ConnectionSlot,
    pub(in crate::net::from_clients) path: HttpPath,
    pub(in crate::net::from_clients) counters: Arc<Counters>,
    pub(in crate::net::from_clients) handle: Handle,
    pub(in crate::net::from_clients) responder: Responder,
    pub(in crate::net::from_clients) responses: mpsc::Receiver<responder::ResponseOutput>,
    pub(in crate::net::from_clients) flow: Rc<Flow>,
    pub(in crate::net::from_clients) accepted: Instant,
}

impl HttpExchange {
    pub(in crate::net::from_clients) fn new(parts: HttpExchangeParts) -> Self {
        let HttpExchangeParts { place, path, counters, handle, responder, responses, flow, accepted } = parts;
        Self {
            place,
            path,
            counters,
            handle,
            responder,
            responses,
            flow,
            patience: ConnectionClock::new(accepted),
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

    pub(in crate::net::from_clients) fn has_room(&self) -> bool {
        self.in_flight < self.place.rules.in_flight && self.place.seat.has_room()
    }

    /// Returns true if the client repeatedly sends requests without a valid query.
    pub(in crate::net::from_clients) fn is_noise(&self) -> bool {
        self.malformed >= MALFORMED
    }

    pub(in crate::net::from_clients) fn hand_over(&mut self, message: &[u8], stream: u32) {
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

    pub(in crate::net::from_clients) fn refuse(&mut self, status: HttpStatus) -> Response<()> {
        self.malformed += 1;
        self.counters.connections.http_response(status);
        head_of_refusal(status)
    }

    pub(in crate::net::from_clients) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<ResponseMessage>> {
        if self.given + self.held >= WAITING {
            return Poll::Pending;
        }
        match ready!(self.responses.poll_recv(cx)) {
            Some(responder::ResponseOutput::Whole(message)) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                Poll::Ready(Some(message))
            }
            // HTTP refuses transfers, so a response in parts is a bug: close the connection.
            Some(responder::ResponseOutput::Parts(_)) => {
                self.place.seat.close();
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }

    /// Returns the head and body of a response; an empty message becomes an error status.
    pub(in crate::net::from_clients) fn answer(&mut self, message: ResponseMessage) -> (Response<()>, Vec<u8>) {
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

    pub(in crate::net::from_clients) fn give(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.given += octets;
        self.given_now += octets;
    }

    pub(in crate::net::from_clients) fn drop_held(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.place.seat.settle(octets);
    }

    pub(in crate::net::from_clients) fn end_turn(&mut self) {
        let (written, given) = (self.flow.take_written(), std::mem::take(&mut self.given_now));
        let is_blocked = self.flow.is_blocked();
        if !is_blocked {
            self.place.seat.settle(std::mem::take(&mut self.given));
        }
        let is_writing = self.doing() == Doing::Writing;
        if is_writing && !self.was_writing {
            self.patience.on_unwritten(Instant::now());
        } else if is_writing {
            // A client that accepts pings but no responses makes no progress.
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

    pub(in crate::net::from_clients) fn begin_end(&mut self) {
        self.end = Some(Instant::now() + GRACE);
    }

    pub(in crate::net::from_clients) fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    pub(in crate::net::from_clients) fn alarm(&self, pressure: TableFullness) -> Option<Instant> {
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

    pub(in crate::net::from_clients) fn on_alarm(&self, pressure: TableFullness, now: Instant) -> AlarmAction {
        let (doing, rules) = (self.doing(), &self.place.rules);
        let is_over = self.patience.end(doing, rules, pressure).is_some_and(|end| end <= now);
        match (self.end, doing) {
            (Some(end), Doing::Reading) if end <= now => AlarmAction::Close(Ok(())),
            (Some(_), Doing::Reading) => AlarmAction::Nothing,
            (_, Doing::Writing) if is_over => AlarmAction::Close(Ok(())),
            (None, Doing::Reading) if is_over && self.patience.is_fresh() => {
                AlarmAction::Close(Err(io::ErrorKind::TimedOut.into()))
            }
            (None, Doing::Reading) if is_over => AlarmAction::End,
            (None, _) if self.patience.end_of_queries(rules) <= now => AlarmAction::End,
            (Some(_) | None, Doing::Reading | Doing::Answering | Doing::Writing) => AlarmAction::Nothing,
        }
    }

    pub(in crate::net::from_clients) fn patience_for_bodies(&self) -> Duration {
        self.place.rules.first_query
    }

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

impl Drop for HttpExchange {
    fn drop(&mut self) {
        self.place.seat.settle(self.given + self.held);
    }
}

pub(in crate::net::from_clients) enum AlarmAction {
    Nothing,
    End,
    Close(io::Result<()>),
}

/// How long a connection that is ending stays open while idle. Requests sent before the client learns of the
/// end are still answered.
const GRACE: Duration = Duration::from_secs(1);
