//! The transports of messages: datagrams and streams.

use serde::{Deserialize, Serialize};

labels! {
    /// The transport of a message and of its response, in order of their number.
    #[derive(Serialize, Deserialize)]
    pub enum Transport {
        /// UDP: the client's EDNS limits the length of a response.
        Udp = "udp",
        /// TCP: a message has at most 65535 bytes (RFC 1035 section 4.2.2).
        Tcp = "tcp",
        /// DNS over TLS (RFC 7858).
        Tls = "tls",
        /// DNS over HTTPS (RFC 8484).
        Https = "https",
        /// DNS over HTTP without encryption.
        Http = "http",
        /// DNS over QUIC (RFC 9250).
        Quic = "quic",
    }
}

impl Transport {
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
