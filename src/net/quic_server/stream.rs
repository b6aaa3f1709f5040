//! A stream of a connection, from its query to the acknowledgement of its response, and how both ends say that something is over.

use std::time::Instant;

use quinn_proto::VarInt;
use tokio::sync::mpsc;

use super::query_stream::{QueryStream, Violation};

/// What has become of a stream.
pub(super) enum Stream {
    /// Its query is not whole.
    Receiving { since: Instant, query: QueryStream, is_unread: bool },
    /// Its query waits for the end of the handshake.
    Held(Vec<u8>),
    /// Its query waits for the response.
    Asked,
    /// The same, but nobody wants that any more.
    GivenUp,
    /// Its response comes in parts, and the last one is written.
    BetweenParts(mpsc::Receiver<Vec<u8>>),
    /// QUIC takes no more at the moment.
    Writing { output: Vec<u8>, written: usize, parts: Option<mpsc::Receiver<Vec<u8>>> },
    /// All of the response is written; it counts with so many octets.
    Written(usize),
}

impl Stream {
    /// Octets of it that count as waiting for the client.
    pub(super) fn counted(&self) -> usize {
        match self {
            Self::Receiving { .. } | Self::Held(_) | Self::Asked | Self::GivenUp | Self::BetweenParts(_) => 0,
            Self::Writing { output, .. } => output.len(),
            Self::Written(octets) => *octets,
        }
    }
}

/// Why we close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) code: Code,
    pub(super) reason: &'static str,
}

/// The error codes of DoQ (RFC 9250 section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0x0,
    ProtocolError = 0x2,
    RequestCancelled = 0x3,
    ExcessiveLoad = 0x4,
    UnspecifiedError = 0x5,
}

impl Code {
    pub(super) fn to_wire(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

impl From<Violation> for Closed {
    fn from(violation: Violation) -> Self {
        Self { code: Code::ProtocolError, reason: violation.reason() }
    }
}
