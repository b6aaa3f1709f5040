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
use crate::limit::{Doing, TableFullness};
use crate::metrics::{Counters, HttpStatus};
use crate::net::from_clients::account::{ConnectionAccount, DueAction};
use crate::net::from_clients::tcp::WayBack;
use crate::net::from_clients::tcp::connection::is_sound;
use crate::net::from_clients::tcp::responder::{self, Responder, ResponseMessage};
use crate::net::from_clients::tcp::table::WAITING;

pub(crate) struct HttpExchange {
    pub(crate) account: ConnectionAccount,
    pub(crate) path: HttpPath,
    counters: Arc<Counters>,
    handle: Handle,
    responder: Responder,
    responses: mpsc::Receiver<responder::ResponseOutput>,
    flow: Rc<Flow>,
    was_writing: bool,
    given: usize,
    given_now: usize,
    held: usize,
}

pub(crate) type Handle = Rc<dyn Fn(&[u8], &Responder)>;

impl HttpExchange {
    pub(crate) fn new(
        account: ConnectionAccount,
        path: HttpPath,
        way: WayBack,
        counters: Arc<Counters>,
        handle: Handle,
        flow: Rc<Flow>,
    ) -> Self {
        let (responder, responses) = Responder::new(&account.slot, way);
        Self {
            account,
            path,
            counters,
            handle,
            responder,
            responses,
            flow,
            was_writing: false,
            given: 0,
            given_now: 0,
            held: 0,
        }
    }

    pub(crate) fn hand_over(&mut self, message: &[u8], stream: u32) {
        let is_sound = is_sound(message);
        self.account.begin_query(is_sound);
        if is_sound {
            self.account.on_queries(Instant::now());
        }
        (self.handle)(message, self.responder.for_stream(stream));
    }

    pub(crate) fn refuse(&mut self, status: HttpStatus) -> Response<()> {
        self.account.count_useless();
        self.counters.connections.http_response(status);
        head_of_refusal(status)
    }

    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<ResponseMessage>> {
        if self.given + self.held >= WAITING {
            return Poll::Pending;
        }
        match ready!(self.responses.poll_recv(cx)) {
            Some(responder::ResponseOutput::Whole(message)) => {
                self.account.end_query();
                Poll::Ready(Some(message))
            }
            // HTTP refuses transfers, so a response in parts is a bug: close the connection.
            Some(responder::ResponseOutput::Parts(_)) => {
                self.account.slot.seat.close();
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }

    /// Returns the head and body of a response; an empty message becomes an error status.
    pub(crate) fn answer(&mut self, message: ResponseMessage) -> (Response<()>, Vec<u8>) {
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

    pub(crate) fn give(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.given += octets;
        self.given_now += octets;
    }

    pub(crate) fn drop_held(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.account.slot.seat.settle(octets);
    }

    pub(crate) fn end_turn(&mut self) {
        let (written, given) = (self.flow.take_written(), std::mem::take(&mut self.given_now));
        let is_blocked = self.flow.is_blocked();
        if !is_blocked {
            self.account.slot.seat.settle(std::mem::take(&mut self.given));
        }
        let is_writing = self.doing() == Doing::Writing;
        if is_writing && !self.was_writing {
            self.account.on_unwritten(Instant::now());
        } else if is_writing {
            // A client that accepts pings but no responses makes no progress.
            let taken = if is_blocked { written } else { given };
            if taken > 0 {
                self.account.on_written(taken, Instant::now());
            }
        }
        self.was_writing = is_writing;
        self.account.note_idle(self.doing(), Instant::now);
        let is_shut = self.flow.is_shut() && !self.account.is_ending();
        if is_shut || self.account.is_ending() && self.doing() != Doing::Reading {
            self.begin_end();
        }
    }

    pub(crate) fn begin_end(&mut self) {
        self.account.end_queries(Instant::now() + GRACE);
    }

    pub(crate) fn alarm(&self, pressure: TableFullness) -> Option<Instant> {
        self.account.due(self.doing(), pressure)
    }

    pub(crate) fn on_alarm(&self, pressure: TableFullness, now: Instant) -> AlarmAction {
        let doing = self.doing();
        match self.account.on_alarm(doing, pressure, now) {
            DueAction::Nothing => AlarmAction::Nothing,
            DueAction::EndQueries => AlarmAction::End,
            DueAction::Close if doing == Doing::Writing || self.account.is_ending() => AlarmAction::Close(Ok(())),
            DueAction::Close if self.account.is_fresh() => AlarmAction::Close(Err(io::ErrorKind::TimedOut.into())),
            // Requests on their way are still answered.
            DueAction::Close => AlarmAction::End,
        }
    }

    fn doing(&self) -> Doing {
        self.account.doing(self.flow.is_blocked() || self.held > 0)
    }
}

impl Drop for HttpExchange {
    fn drop(&mut self) {
        self.account.slot.seat.settle(self.given + self.held);
    }
}

pub(crate) enum AlarmAction {
    Nothing,
    End,
    Close(io::Result<()>),
}

/// How long a connection that is ending stays open while idle. Requests sent before the client learns of the
/// end are still answered.
const GRACE: Duration = Duration::from_secs(1);
