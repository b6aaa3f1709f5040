//! A connection to a backend as a value, without socket and clock: bytes in, whole messages out; queries in,
//! bytes out.
//!
//! Each protocol is a file: `frames` (TCP and TLS), `http2` (HTTPS), `quic`. The ID in the first two bytes
//! identifies a query and its reply; where the protocol has streams instead, its file maps them to IDs.

pub(crate) mod asked;
pub(crate) mod clocks;
pub(crate) mod transport;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dns::address::{Scheme, StreamServer};
use dns::first_message;

pub use self::asked::AskedIds;
pub(crate) use self::clocks::silence_limit;
pub use self::clocks::{ConnectionBackoff, LearnedIdleTimeout, SilenceAction, SilenceClock};
use super::http::Http2Connection;
pub use super::http::HttpTarget;
use super::quic::QuicConnection;
use super::tcp::FrameConnection;
use super::tls::ClientTls;

/// A connection to a backend, independent of the protocol.
pub trait BackendConnection: Send {
    /// Returns the state of the connection.
    fn state(&self) -> ConnectionState;

    /// Returns true if the backend has answered: the connect of TCP, or the first flight of TLS and QUIC.
    fn is_answered(&self) -> bool;

    /// Returns the kind of handshake, as far as it is known.
    fn opened(&self) -> BackendHandshake;

    /// Notes that TCP is connected.
    fn connected(&mut self);

    /// Queues a message; `None` if it is too long.
    fn queue(&mut self, message: &[u8]) -> Option<()>;

    /// Queues the frames of another connection that failed to open.
    fn queue_frames(&mut self, frames: &[u8]) {
        let mut rest = frames;
        while let Some((message, end)) = first_message(rest) {
            let _ = self.queue(message);
            rest = rest.get(end..).unwrap_or_default();
        }
    }

    /// Sends a query before the connection is open, if the protocol and the backend permit it. The caller
    /// queues it again when the connection is open, which drops it if the early copy was accepted.
    fn queue_early(&mut self, _message: &[u8]) {}

    /// Returns the idle timeout of the backend, if it states one.
    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    /// Returns the bytes or the datagram for one write.
    fn output(&mut self, now: Instant) -> &[u8];

    /// Notes that this many bytes were written.
    fn wrote(&mut self, octets: usize);

    /// Returns the number of bytes to be written.
    fn unwritten(&self) -> usize;

    /// Receives bytes or one datagram.
    ///
    /// # Errors
    /// If the input violates the protocol or the connection is over. Further input is ignored, and
    /// [`output`](Self::output) is the alert, if one is due.
    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), ConnectionFailure>;

    /// Moves the frames of all whole messages to `messages`, which must be empty.
    fn take_messages(&mut self, messages: &mut Vec<u8>);

    /// Takes the events since the last call, if there are any.
    fn take_news(&mut self) -> Option<ConnectionEvents> {
        None
    }

    /// Returns true if the backend accepts another query now.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns true if queries that have no other connection may wait here until the backend accepts them.
    fn may_hold(&self) -> bool {
        false
    }

    /// Returns true if the backend has ended its side, so that no data follows.
    fn has_ended(&mut self) -> bool {
        false
    }

    /// Returns true if the backend accepts no further queries, but replies to the earlier ones.
    fn is_ending(&self) -> bool {
        false
    }

    /// Sends a ping, which [`ConnectionEvents::has_sign`] confirms. Returns false if the protocol has none:
    /// then send a query.
    fn ping(&mut self) -> bool {
        false
    }

    /// Gives up the reply to this ID. Returns true if none will come: then the ID is free.
    fn forget(&mut self, _id: u16) -> bool {
        false
    }

    /// Returns the time when [`on_timer`](Self::on_timer) must be called.
    fn next_timer(&self) -> Option<Instant> {
        None
    }

    /// Runs the timers that are due.
    fn on_timer(&mut self, _now: Instant) -> Result<(), ConnectionFailure> {
        Ok(())
    }

    /// Returns for how long sent data is unacknowledged, for protocols where the kernel does not know it.
    fn unacknowledged_for(&self, _now: Instant) -> Option<Duration> {
        None
    }

    /// Sends the closing message (RFC 7858 section 3.4, RFC 8446 section 6.1). Drops queued messages.
    fn close(&mut self, now: Instant);
}

/// The protocol of connections to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamProtocol {
    /// DNS frames over TCP or TLS.
    #[default]
    Frames,
    /// HTTP/2, with this URI.
    Http(HttpTarget),
    /// QUIC, with a stream for each query.
    Quic,
}

impl StreamProtocol {
    /// Returns the protocol of connections to a server.
    pub fn of(server: &StreamServer) -> Self {
        let StreamServer { address, trust, path, .. } = server;
        match address.scheme {
            Scheme::Https => Self::Http(HttpTarget::new(address.socket, trust.identity.name.as_deref(), path)),
            Scheme::Quic => Self::Quic,
            Scheme::Plain | Scheme::Tcp | Scheme::Tls | Scheme::Http => Self::Frames,
        }
    }

    /// Creates a connection that is being dialled to this server.
    pub(crate) fn begin(
        &self,
        tls: Option<&ClientTls>,
        address: SocketAddr,
        now: Instant,
    ) -> Result<Box<dyn BackendConnection>, String> {
        let known = || tls.ok_or("no trust anchors are configured for this backend");
        match self {
            Self::Frames => Ok(Box::new(FrameConnection::new(tls.map(ClientTls::begin).transpose()?))),
            Self::Http(target) => Ok(Box::new(Http2Connection::new(known()?.begin()?, target.clone())?)),
            Self::Quic => Ok(Box::new(QuicConnection::new(known()?, address, now)?)),
        }
    }

    /// Returns true if a backend can state its idle timeout by the keepalive option (RFC 7828).
    pub(crate) fn has_keepalive(&self) -> bool {
        match self {
            Self::Frames => true,
            // RFC 9250 section 5.5.2: the option must not be sent over QUIC.
            Self::Http(_) | Self::Quic => false,
        }
    }

    /// Returns true if the protocol uses UDP.
    pub(crate) fn is_by_udp(&self) -> bool {
        match self {
            Self::Frames | Self::Http(_) => false,
            Self::Quic => true,
        }
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// The first segment is not answered yet.
    Dialling,
    /// TCP is connected, TLS is not.
    Handshaking,
    /// Messages can be exchanged.
    Open,
    /// No more messages are sent.
    Closing,
}

/// The reason why a connection is over: invalid input, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionFailure {
    /// An error of the TLS layer.
    Tls(String),
    /// A violation of DNS (a frame without a reply), HTTP or QUIC.
    Protocol,
    /// The backend has ended the connection.
    Ended,
    /// The backend no longer knows the connection.
    Reset,
    /// The idle timeout of the backend has expired.
    TimedOut,
    /// The backend has sent GOAWAY, and left queries unanswered.
    Goaway,
}

/// The kind of handshake of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendHandshake {
    /// A full handshake, or the protocol has none.
    Full,
    /// A handshake with an earlier session.
    Resumed,
    /// A resumed handshake with queries in the first flight.
    Early,
}

/// Events since the last call of `take_news`.
#[derive(Debug, Default)]
pub struct ConnectionEvents {
    /// Queries that were answered by an error; no other reply comes.
    pub failed: Vec<FailedQuery>,
    /// IDs of queries that the backend did not process and will not answer; it is not to blame.
    pub lost: Vec<u16>,
    /// The time for which the backend wants no queries.
    pub pause: Option<Duration>,
    /// True if the requested pong has arrived.
    pub has_sign: bool,
}

/// A query that was answered by an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedQuery {
    /// The message ID of the query.
    pub id: u16,
    /// A description of the error.
    pub problem: String,
}

impl ConnectionEvents {
    /// Returns `None` if there are no events.
    pub(crate) fn some(self) -> Option<Self> {
        let Self { failed, lost, pause, has_sign } = &self;
        let is_nothing = failed.is_empty() && lost.is_empty() && pause.is_none() && !has_sign;
        (!is_nothing).then_some(self)
    }
}
