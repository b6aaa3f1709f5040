//! The transports of messages: datagrams and streams.

use serde::{Deserialize, Serialize};

/// The transport of a message and of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// UDP: the client's EDNS limits the length of a response.
    Udp,
    /// TCP: a message has at most 65535 bytes (RFC 1035 section 4.2.2).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
    /// DNS over HTTP without encryption.
    Http,
    /// DNS over QUIC (RFC 9250).
    Quic,
}

impl Transport {
    /// All transports, in order of their number.
    pub const ALL: [Self; 6] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Http, Self::Quic];

    /// Returns true if messages come in a stream: they are not truncated, and the source address of the
    /// sender is not forged.
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }

    /// Returns true if the transport is encrypted.
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Udp | Self::Tcp | Self::Http => false,
            Self::Tls | Self::Https | Self::Quic => true,
        }
    }

    /// Returns the name in metrics and results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Https => "https",
            Self::Http => "http",
            Self::Quic => "quic",
        }
    }
}

/// Returns the first message of a stream, if it is complete, and the end of its frame.
pub fn first_message(octets: &[u8]) -> Option<(&[u8], usize)> {
    // RFC 1035 section 4.2.2: two bytes of length before each message.
    let (prefix, rest) = octets.split_first_chunk::<FRAME_PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*prefix));
    Some((rest.get(..length)?, FRAME_PREFIX + length))
}

/// Appends a message in its frame. Returns `None` and appends nothing if the message is too long for a frame.
pub fn append_frame(message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(message.len()).ok()?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
    Some(())
}

/// Bytes of the length before each message.
pub const FRAME_PREFIX: usize = 2;
