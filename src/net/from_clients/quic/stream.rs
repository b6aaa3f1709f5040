//! The states of a stream, from its query to the acknowledgement of its response, and the close codes.

use std::time::Instant;

use quinn_proto::VarInt;
use tokio::sync::mpsc;

use super::query_stream::{QueryStream, Violation};

pub(super) enum QuicStream {
    /// The query is incomplete.
    Receiving { since: Instant, query: QueryStream, is_unread: bool },
    /// The query waits for the end of the handshake.
    Held(Vec<u8>),
    /// The query waits for its response.
    Asked,
    /// The query waits for its response, which the client no longer wants.
    GivenUp,
    /// The stream waits for the next part of its response.
    BetweenParts(mpsc::Receiver<Vec<u8>>),
    /// QUIC accepts no more for now.
    Writing { output: Vec<u8>, written: usize, parts: Option<mpsc::Receiver<Vec<u8>>> },
    /// All of the response is written; it counts this many bytes.
    Written(usize),
}

impl QuicStream {
    pub(super) fn counted(&self) -> usize {
        match self {
            Self::Receiving { .. } | Self::Held(_) | Self::Asked | Self::GivenUp | Self::BetweenParts(_) => 0,
            Self::Writing { output, .. } => output.len(),
            Self::Written(octets) => *octets,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionClose {
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

impl From<Violation> for ConnectionClose {
    fn from(violation: Violation) -> Self {
        Self { code: Code::ProtocolError, reason: violation.reason() }
    }
}
