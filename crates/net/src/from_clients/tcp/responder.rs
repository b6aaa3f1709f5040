//! The reply channel to one connection, usable from any thread. On a connection with several streams
//! (HTTP/2), each query and its response carry the stream number.
//!
//! The channel has one slot for each query in flight, and each query is owed one response, so the channel is
//! never full. The bytes in it count as unsent until they are written or dropped.

use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dns::{Asks, RESPONSE_BLOCK, Transport, append_hop_options};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::table::{ConnectionSlot, Seat};

/// Handles a message from a client, and calls its responder once.
pub type QueryHandler = Rc<dyn Fn(&[u8], &Responder)>;

/// The reply channel to one connection.
#[derive(Clone, Debug)]
pub struct Responder {
    to: WayTo,
    seat: Arc<Seat>,
    way: WayBack,
    /// The HTTP/2 stream of the query; 0 for protocols without streams.
    stream: u32,
}

/// The cacheability of a response (RFC 8484 section 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cacheability {
    /// An answer, cacheable for its TTLs.
    #[default]
    Answer,
    /// A made-up response for this client only, not cacheable.
    MadeUp,
}

#[derive(Clone, Debug)]
enum WayTo {
    Connection(mpsc::Sender<ResponseOutput>),
    /// The task of a QUIC listener, which owns all its connections.
    Stream {
        listener: mpsc::UnboundedSender<ToListener>,
        connection: u64,
        stream: u64,
    },
}

/// A message to the task of a QUIC listener. The queue holds at most one response per query in flight and one
/// close per connection.
#[derive(Debug)]
pub(crate) enum ToListener {
    Respond { connection: u64, stream: u64, response: ResponseOutput },
    Close(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WayBack {
    pub(crate) peer: SocketAddr,
    pub(crate) asked: Option<SocketAddr>,
    pub(crate) transport: Transport,
    pub(crate) idle: Duration,
}

#[derive(Debug)]
pub(crate) enum ResponseOutput {
    Whole(ResponseMessage),
    /// Several messages, sent at the pace of the client.
    Parts(mpsc::Receiver<Vec<u8>>),
}

impl Responder {
    pub(crate) fn new(slot: &ConnectionSlot, way: WayBack) -> (Self, mpsc::Receiver<ResponseOutput>) {
        let (responses, receiver) = mpsc::channel(slot.rules.in_flight);
        (Self { to: WayTo::Connection(responses), seat: Arc::clone(&slot.seat), way, stream: 0 }, receiver)
    }

    pub(crate) fn for_stream(&mut self, stream: u32) -> &Self {
        self.stream = stream;
        self
    }

    pub(crate) fn of_stream(
        slot: &ConnectionSlot,
        way: WayBack,
        listener: mpsc::UnboundedSender<ToListener>,
        connection: u64,
        stream: u64,
    ) -> Self {
        Self { to: WayTo::Stream { listener, connection, stream }, seat: Arc::clone(&slot.seat), way, stream: 0 }
    }

    /// Sends a response that `fill` appends to an empty buffer; an empty one means that there will be no
    /// response. If too many bytes are unsent, the connection is closed.
    pub fn respond(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.respond_with(Cacheability::Answer, fill);
    }

    /// Sends a response as [`respond`](Self::respond) does, with its cacheability.
    pub fn respond_with(&self, content: Cacheability, fill: impl FnOnce(&mut Vec<u8>)) {
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
        if !self.seat.admit(octets.len()) {
            return self.seat.close();
        }
        let seat = Arc::clone(&self.seat);
        self.send(ResponseOutput::Whole(ResponseMessage { octets, stream: self.stream, content, seat }));
    }

    /// Begins a response of several messages, which ends when the returned sender is dropped. The sender
    /// moves at the pace of the client.
    pub fn respond_in_parts(&self) -> mpsc::Sender<Vec<u8>> {
        let (parts, receiver) = mpsc::channel(1);
        self.send(ResponseOutput::Parts(receiver));
        parts
    }

    /// Returns the address of the client.
    pub fn peer(&self) -> SocketAddr {
        self.way.peer
    }

    /// Returns the local address of the connection, if the system still knows it.
    pub fn asked(&self) -> Option<SocketAddr> {
        self.way.asked
    }

    /// Returns the transport of the query.
    pub fn transport(&self) -> Transport {
        self.way.transport
    }

    /// Adds the options of this connection to a response: the idle timeout, if the query requests it (RFC
    /// 7828), and padding on encrypted transports only (RFC 7830 section 6).
    pub fn add_hop_options(&self, asks: Asks, response: &mut Vec<u8>) {
        let transport = self.way.transport;
        // RFC 9250 section 5.4: by QUIC each message is padded, whether the query requests it or not.
        let is_padded = transport == Transport::Quic || transport.is_encrypted() && asks.padding();
        // HTTP and QUIC have other means to announce the idle timeout.
        let is_kept = matches!(transport, Transport::Tcp | Transport::Tls) && asks.keepalive();
        if is_padded || is_kept {
            let idle = is_kept.then(|| self.seat.shrink(self.way.idle));
            append_hop_options(response, idle, is_padded.then_some(RESPONSE_BLOCK));
        }
    }

    fn send(&self, response: ResponseOutput) {
        match &self.to {
            WayTo::Connection(responses) => match responses.try_send(response) {
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                // A second response to one query is a bug: close the connection.
                Err(TrySendError::Full(_)) => self.seat.close(),
            },
            WayTo::Stream { listener, connection, stream } => {
                let _ = listener.send(ToListener::Respond { connection: *connection, stream: *stream, response });
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct ResponseMessage {
    /// Empty if there is no response.
    octets: Vec<u8>,
    stream: u32,
    content: Cacheability,
    seat: Arc<Seat>,
}

impl ResponseMessage {
    pub(crate) fn stream(&self) -> u32 {
        self.stream
    }

    pub(crate) fn content(&self) -> Cacheability {
        self.content
    }

    pub(crate) fn take(mut self) -> Vec<u8> {
        mem::take(&mut self.octets)
    }
}

impl Drop for ResponseMessage {
    fn drop(&mut self) {
        self.seat.settle(self.octets.len());
    }
}

const SLACK: usize = 4096;
