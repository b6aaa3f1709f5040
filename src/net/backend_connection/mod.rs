//! A connection to a backend as a value: octets in, whole messages out; queries in, octets out. It has no socket and no clock.
//!
//! What was queued before the connection is open leaves when it is; all that is queued between two looks at
//! [`output`](BackendConnection::output) leaves together. Each protocol is a file: `frames` by TCP and TLS, `http2` by HTTPS, `quic`. A query
//! is known by the ID in its first two octets, and so is its reply; where the wire has streams in place of IDs, the protocol keeps which is whose.

mod asked;
mod backoff;
mod frames;
pub(super) mod http2;
mod news;
mod patience;
mod quic;
mod records;
mod silence_clock;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use self::asked::AskedIds;
pub use self::backoff::Backoff;
use self::frames::FrameConnection;
use self::http2::Http2Connection;
pub use self::http2::HttpTarget;
pub use self::news::{FailedQuery, News};
pub use self::patience::Patience;
use self::quic::BufferedQuic;
pub use self::quic::QuicConnection;
#[cfg(test)]
pub(crate) use self::quic::server::{Query, QuicServer, tls as server_tls};
pub use self::silence_clock::{SilenceClock, Suspicion, silence_limit};
use super::tls::ClientTls;
use crate::address::{BackendAddress, HttpPath, Scheme};
use crate::wire::first_message;

/// A connection to a backend, by whatever protocol.
pub trait BackendConnection: Send {
    /// How far it is.
    fn state(&self) -> ConnectionState;

    /// Whether the backend has answered so far: by TCP to the dial, by TLS and QUIC to the first flight.
    fn is_answered(&self) -> bool;

    /// How its handshake went, as far as is known.
    fn opened(&self) -> Opened;

    /// TCP is there.
    fn connected(&mut self);

    /// Queues a message; `None` if it is too long.
    fn queue(&mut self, message: &[u8]) -> Option<()>;

    /// Queues frames of another connection that did not come to be.
    fn queue_frames(&mut self, frames: &[u8]) {
        let mut rest = frames;
        while let Some((message, end)) = first_message(rest) {
            // They were looked at when they came into their frames.
            let _ = self.queue(message);
            rest = rest.get(end..).unwrap_or_default();
        }
    }

    /// Sends a query before the connection is open, if that may be and the backend may take it. It is queued all the same when the
    /// connection is open, which then knows whether it was taken.
    fn queue_early(&mut self, _message: &[u8]) {}

    /// For how long the backend keeps a connection on which nothing goes, if it says so outright.
    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    /// What is to be written now. Of datagrams, those that one call sends: [`segment`](Self::segment) says where each ends.
    fn output(&mut self, now: Instant) -> &[u8];

    /// The length of all datagrams of the last [`output`](Self::output) but the last one; none: it is one, or octets of a stream.
    fn segment(&self) -> Option<usize> {
        None
    }

    /// So much of it was written.
    fn wrote(&mut self, octets: usize);

    /// Octets that wait to be written.
    fn unwritten(&self) -> usize;

    /// Octets have come, or one datagram. What messages are whole then, [`take_messages`](Self::take_messages) gives.
    ///
    /// # Errors
    /// If it is nothing that a backend may say, or the connection is over: nothing more is heard, and [`output`](Self::output) is the
    /// alert, if one is due.
    fn hear(&mut self, octets: &[u8], now: Instant) -> Result<(), Broken>;

    /// Moves the frames of all whole messages that have come to `messages`, which is empty.
    fn take_messages(&mut self, messages: &mut Vec<u8>);

    /// Whether half a message has come.
    fn is_amid_message(&self) -> bool;

    /// Takes what has come besides messages, if anything has.
    fn take_news(&mut self) -> Option<News> {
        None
    }

    /// Whether the backend takes another query on it now.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether queries may wait on it until the backend takes them, where they have nowhere else to go.
    fn may_hold(&self) -> bool {
        false
    }

    /// True if the backend has ended its side, so that nothing comes behind what was heard.
    fn has_ended(&mut self) -> bool {
        false
    }

    /// Whether the backend has said that it takes no further queries on it, and replies to those that it has.
    fn is_ending(&self) -> bool {
        false
    }

    /// Asks for a sign of life, which [`News::has_sign`] tells of. Returns whether there is one: where there is none a question
    /// is to be asked.
    fn ping(&mut self) -> bool {
        false
    }

    /// Nobody wants the reply to this ID any more. Returns whether none will come: then the ID is free.
    fn forget(&mut self, _id: u16) -> bool {
        false
    }

    /// When [`on_timer`](Self::on_timer) has something to do.
    fn next_timer(&self) -> Option<Instant> {
        None
    }

    /// The time has come that [`next_timer`](Self::next_timer) gave.
    ///
    /// # Errors
    /// If the connection is over by that.
    fn on_timer(&mut self, _now: Instant) -> Result<(), Broken> {
        Ok(())
    }

    /// How long something that was sent is not acknowledged, where the kernel does not know it.
    fn unacknowledged_for(&self, _now: Instant) -> Option<Duration> {
        None
    }

    /// Says good-bye, if that is due (RFC 7858 section 3.4, RFC 8446 section 6.1): what was queued does not leave any more.
    fn close(&mut self, now: Instant);
}

/// How a backend is spoken to by stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamProtocol {
    /// In frames, by TCP or TLS.
    #[default]
    Frames,
    /// By HTTP/2, to here.
    Http(HttpTarget),
    /// By QUIC, a stream for each query.
    Quic,
}

impl StreamProtocol {
    /// The protocol of a backend with this address. `name`: the one that its certificate bears, if it has one.
    pub fn of(address: BackendAddress, name: Option<&str>, path: &HttpPath) -> Self {
        match address.scheme {
            Scheme::Https => Self::Http(HttpTarget::new(address.socket, name, path)),
            Scheme::Quic => Self::Quic,
            Scheme::Plain | Scheme::Tcp | Scheme::Tls | Scheme::Http => Self::Frames,
        }
    }

    /// A connection to a server at this address that is dialled; nothing was said yet.
    ///
    /// # Errors
    /// If what it needs is not given.
    pub fn begin(
        &self,
        tls: Option<&ClientTls>,
        address: SocketAddr,
        now: Instant,
    ) -> Result<Box<dyn BackendConnection>, String> {
        let known = || tls.ok_or("it is not known by what to tell who it is");
        match self {
            Self::Frames => Ok(Box::new(FrameConnection::new(tls.map(ClientTls::begin).transpose()?))),
            Self::Http(target) => Ok(Box::new(Http2Connection::new(known()?.begin()?, target.clone())?)),
            Self::Quic => Ok(Box::new(BufferedQuic::new(QuicConnection::new(known()?, address, now)?, now))),
        }
    }

    /// Whether a backend tells by the keepalive option how long it keeps a connection (RFC 7828).
    pub fn has_keepalive(&self) -> bool {
        match self {
            Self::Frames => true,
            // RFC 9250 section 5.5.2: by QUIC it must not be asked for.
            Self::Http(_) | Self::Quic => false,
        }
    }

    /// Whether it goes by datagrams.
    pub fn is_by_udp(&self) -> bool {
        match self {
            Self::Frames | Self::Http(_) => false,
            Self::Quic => true,
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// There is no answer to the first segment.
    Dialling,
    /// TCP is there, TLS is not.
    Handshaking,
    /// Messages go.
    Open,
    /// Nothing more goes.
    Closing,
}

/// What has come is nothing that a backend may say, or says that it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// By the rules of TLS.
    Tls(String),
    /// By those of DNS: a frame that holds no reply; or by those of HTTP or QUIC.
    Protocol,
    /// The backend has ended it.
    Ended,
    /// The backend knows nothing of it any more.
    Reset,
    /// The backend does not keep it any longer, since nothing went on it.
    TimedOut,
    /// The backend has said that it ends, and left queries unanswered.
    Goaway,
}

/// How a handshake went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// From the beginning, or there was none.
    Full,
    /// With what is known from an earlier one.
    Resumed,
    /// So, and queries went with the first flight.
    Early,
}
