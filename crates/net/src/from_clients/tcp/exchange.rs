//! The queries of one connection and its responses: their hand-over, their unsent bytes, and the clock. It
//! is shared by the connection and the protocol that it speaks.
//!
//! An HTTP library does not report when it has written a response. So all bytes given to it count as unsent
//! until it has been polled and accepts more.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use dns::{QueryRejection, Rcode, read_query};
use http::Response;
use limit::{Doing, TableFullness};
use metrics::{Counters, HttpStatus};
use tokio::sync::mpsc;

use super::responder::{QueryHandler, Responder, ResponseMessage, ResponseOutput, WayBack};
use super::stream::Flow;
use super::table::WAITING;
use crate::from_clients::account::{ConnectionAccount, DueAction};
use crate::from_clients::http::response::{head_of_answer, head_of_refusal};

pub(crate) struct Exchange {
    pub(crate) account: ConnectionAccount,
    counters: Arc<Counters>,
    handle: QueryHandler,
    responder: Responder,
    responses: mpsc::Receiver<ResponseOutput>,
    flow: Rc<Flow>,
    was_writing: bool,
    /// Bytes of responses that an HTTP library has.
    given: usize,
    given_now: usize,
    /// Bytes of responses that still wait for room.
    held: usize,
}

impl Exchange {
    pub(crate) fn new(
        account: ConnectionAccount,
        way: WayBack,
        counters: Arc<Counters>,
        handle: QueryHandler,
        flow: Rc<Flow>,
    ) -> Self {
        let (responder, responses) = Responder::new(&account.slot, way);
        Self {
            account,
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

    /// Returns the head of a response to an HTTP request without a query.
    pub(crate) fn refuse(&mut self, status: HttpStatus) -> Response<()> {
        self.account.count_useless();
        self.counters.connections.http_response(status);
        head_of_refusal(status)
    }

    pub(crate) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Option<ResponseOutput>> {
        if self.given + self.held >= WAITING {
            return Poll::Pending;
        }
        let response = ready!(self.responses.poll_recv(cx));
        if let Some(ResponseOutput::Whole(_)) = response {
            self.account.end_query();
        }
        Poll::Ready(response)
    }

    /// Polls for a response by HTTP.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<ResponseMessage>> {
        match ready!(self.poll_response(cx)) {
            Some(ResponseOutput::Whole(message)) => Poll::Ready(Some(message)),
            // HTTP refuses transfers, so a response in parts is a bug: close the connection.
            Some(ResponseOutput::Parts(_)) => {
                self.account.slot.seat.close();
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }

    /// Returns the HTTP head and body of a response; an empty message becomes an error status.
    pub(crate) fn answer(&mut self, message: ResponseMessage) -> (Response<()>, Vec<u8>) {
        let content = message.content();
        let octets = message.take();
        self.hold(octets.len());
        if octets.is_empty() {
            self.counters.connections.http_response(HttpStatus::GatewayTimeout);
            return (head_of_refusal(HttpStatus::GatewayTimeout), octets);
        }
        self.counters.connections.http_response(HttpStatus::Ok);
        (head_of_answer(&octets, content), octets)
    }

    pub(crate) fn hold(&mut self, octets: usize) {
        self.held += octets;
    }

    pub(crate) fn give(&mut self, octets: usize) {
        self.held -= octets.min(self.held);
        self.given += octets;
        self.given_now += octets;
    }

    /// Ends the count of held bytes that the kernel has accepted, or that are dropped.
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
            self.account.clock.on_unwritten(Instant::now());
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
            DueAction::Close if self.account.clock.is_fresh() => {
                AlarmAction::Close(Err(io::ErrorKind::TimedOut.into()))
            }
            // Queries on their way are still answered.
            DueAction::Close => AlarmAction::End,
        }
    }

    pub(crate) fn doing(&self) -> Doing {
        self.account.doing(self.flow.is_blocked() || self.held > 0)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.account.slot.seat.settle(self.given + self.held);
    }
}

pub(crate) enum AlarmAction {
    Nothing,
    End,
    Close(io::Result<()>),
}

/// Returns true if a message is a readable request, whatever its answer is.
fn is_sound(message: &[u8]) -> bool {
    match read_query(message) {
        Ok(_) => true,
        Err(QueryRejection::Answer(rcode)) => rcode != Rcode::FORMERR,
        Err(QueryRejection::Short | QueryRejection::NotAQuery) => false,
    }
}

/// How long a connection that is ending stays open while idle. Requests sent before the client learns of the
/// end are still answered.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use dns::first_message;

    use super::*;

    #[test]
    fn messages_are_taken_out_of_their_frames() {
        for (octets, message) in [
            (&b""[..], None),
            (b"\0", None),
            (b"\0\0", Some((&b""[..], 2))),
            (b"\0\x02a", None),
            (b"\0\x02abc", Some((b"ab", 4))),
            (b"\xff\xff0", None),
        ] {
            assert_eq!(first_message(octets), message, "{octets:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_query() {
        let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";
        let mut update = *query;
        update[2] |= 5 << 3;
        let mut reply = *query;
        reply[2] |= 0x80;
        for (message, sound) in [
            (&query[..], true),
            // NOTIMP is a useful answer.
            (&update, true),
            (&reply, false),
            (&query[..16], false),
            (&query[..11], false),
            (b"", false),
        ] {
            assert_eq!(is_sound(message), sound, "{message:?}");
        }
    }
}
