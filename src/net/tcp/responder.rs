//! The way back to one connection, from whichever thread the response is made on. Where a connection has several streams (HTTP/2), each
//! query is handed over with the number of its own, which comes back with the response.
//!
//! The channel has as many places as the connection may have queries in flight, each of which is owed one response, so it is
//! never full. The octets in it are counted until they are written or gone.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::table::Seat;
use crate::wire::{Asks, RESPONSE_BLOCK, Transport, append_hop_options};

/// The way back to one connection.
#[derive(Clone, Debug)]
pub struct Responder {
    to: WayTo,
    /// The connection.
    seat: Arc<Seat>,
    /// The client.
    way: WayBack,
    /// The stream of the query, by HTTP/2; 0 where a connection has one alone.
    stream: u32,
}

/// What a response is good for, for who keeps it (RFC 8484 section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Its times to live say for how long it holds.
    #[default]
    Answer,
    /// It was made up in the place of an answer, and holds for nobody else.
    MadeUp,
}

/// Who writes a response.
#[derive(Clone, Debug)]
enum WayTo {
    /// The task of the connection.
    Connection(mpsc::Sender<Response>),
    /// The task that has all connections of a listener by QUIC.
    Stream { listener: mpsc::UnboundedSender<ToListener>, connection: u64, stream: u64 },
}

/// What a listener that has all its connections in one task is told from outside. There are never more than its connections may have
/// queries in flight, and one more of each.
#[derive(Debug)]
pub(in crate::net) enum ToListener {
    /// A response, to the query of a stream.
    Respond { connection: u64, stream: u64, response: Response },
    /// This connection is to be closed.
    Close(u64),
}

/// The client of a connection, and how it came.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct WayBack {
    pub(in crate::net) peer: SocketAddr,
    /// The address of ours that it has asked.
    pub(in crate::net) asked: Option<SocketAddr>,
    pub(in crate::net) transport: Transport,
    /// How long the connection may go without a query.
    pub(in crate::net) idle: Duration,
}

/// What a handler has to say to one message.
#[derive(Debug)]
pub(in crate::net) enum Response {
    /// One message.
    Whole(Message),
    /// Messages, one after the other, as the client takes them.
    Parts(mpsc::Receiver<Vec<u8>>),
}

impl Responder {
    /// To the connection of this seat, which has up to `in_flight` queries in flight; and what it is to read.
    pub(super) fn new(seat: Arc<Seat>, way: WayBack, in_flight: usize) -> (Self, mpsc::Receiver<Response>) {
        let (responses, receiver) = mpsc::channel(in_flight);
        (Self { to: WayTo::Connection(responses), seat, way, stream: 0 }, receiver)
    }

    /// The same for a query of the stream of this number.
    pub(super) fn for_stream(&mut self, stream: u32) -> &Self {
        self.stream = stream;
        self
    }

    /// To one stream of a connection, whose listener has this number for it.
    pub(in crate::net) fn of_stream(
        (seat, way): (Arc<Seat>, WayBack),
        listener: mpsc::UnboundedSender<ToListener>,
        (connection, stream): (u64, u64),
    ) -> Self {
        Self { to: WayTo::Stream { listener, connection, stream }, seat, way, stream: 0 }
    }

    /// Sends a response that `fill` appends to an empty buffer; an empty one says that there will be no response. If the
    /// connection is gone, so is the response. If too much waits for clients already, the connection is closed.
    pub fn respond(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.respond_with(Content::Answer, fill);
    }

    /// The same, and says what the response is good for.
    pub fn respond_with(&self, content: Content, fill: impl FnOnce(&mut Vec<u8>)) {
        let is_gone = match &self.to {
            WayTo::Connection(responses) => responses.is_closed(),
            WayTo::Stream { listener, .. } => listener.is_closed(),
        };
        if is_gone {
            return;
        }
        let mut octets = Vec::new();
        fill(&mut octets);
        if octets.capacity() - octets.len() > SLACK {
            octets.shrink_to_fit();
        }
        match Message::admitted(octets, (self.stream, content), &self.seat) {
            Some(message) => self.send(Response::Whole(message)),
            None => self.seat.close(),
        }
    }

    /// Begins a response of several messages, which ends when what this returns is dropped. No more than one waits while the
    /// client takes another: who sends into it waits for the client, and learns when that is gone.
    pub fn respond_in_parts(&self) -> mpsc::Sender<Vec<u8>> {
        let (parts, receiver) = mpsc::channel(1);
        self.send(Response::Parts(receiver));
        parts
    }

    /// The client.
    pub fn peer(&self) -> SocketAddr {
        self.way.peer
    }

    /// The address of ours that it has asked, if the system still knows.
    pub fn asked(&self) -> Option<SocketAddr> {
        self.way.asked
    }

    /// How it came.
    pub fn transport(&self) -> Transport {
        self.way.transport
    }

    /// Adds to a response what its query asked of the connection: how long that may be idle (RFC 7828), and padding, where nobody is
    /// to read along (RFC 7830 section 6: without encryption it would only be a burden).
    pub fn add_hop_options(&self, asks: Asks, response: &mut Vec<u8>) {
        if !asks.is_of_hop() {
            return;
        }
        let block = (self.way.transport.is_encrypted() && asks.padding()).then_some(RESPONSE_BLOCK);
        // HTTP and QUIC have means of their own for how long a connection is kept.
        let is_kept = matches!(self.way.transport, Transport::Tcp | Transport::Tls) && asks.keepalive();
        append_hop_options(response, is_kept.then_some(self.way.idle), block);
    }

    /// Hands a response to the connection.
    fn send(&self, response: Response) {
        match &self.to {
            WayTo::Connection(responses) => match responses.try_send(response) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                // A second response to one query: whatever that was, the connection cannot be right any more.
                Err(TrySendError::Full(_)) => self.seat.close(),
            },
            WayTo::Stream { listener, connection, stream } => {
                let _ = listener.send(ToListener::Respond { connection: *connection, stream: *stream, response });
            }
        }
    }
}

/// A message on its way to its connection. It counts as waiting until it is taken, or dropped with a connection that is gone.
#[derive(Debug)]
pub(in crate::net) struct Message {
    /// Its octets; none if there is no response.
    octets: Vec<u8>,
    /// The stream of its query.
    stream: u32,
    content: Content,
    /// Where they count.
    seat: Arc<Seat>,
}

impl Message {
    /// A message, if its octets may wait.
    fn admitted(octets: Vec<u8>, (stream, content): (u32, Content), seat: &Arc<Seat>) -> Option<Self> {
        seat.admit(octets.len()).then(|| Self { octets, stream, content, seat: Arc::clone(seat) })
    }

    /// The stream of its query.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    pub(super) fn content(&self) -> Content {
        self.content
    }

    /// Its octets, which whoever takes them counts from now on.
    pub(in crate::net) fn take(mut self) -> Vec<u8> {
        mem::take(&mut self.octets)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.seat.settle(self.octets.len());
    }
}

/// Octets that a buffer may have too many while it waits.
const SLACK: usize = 4096;
