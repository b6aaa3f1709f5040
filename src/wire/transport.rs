//! How messages are carried: each in a datagram, or behind one another in a stream.

use serde::{Deserialize, Serialize};

/// How a message came, and how what follows it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// In a datagram: a response is as long as the client's EDNS allows.
    Udp,
    /// In a stream: a message is at most 65535 octets long (RFC 1035 section 4.2.2).
    Tcp,
    /// In a stream of which nobody on the way reads anything (RFC 7858).
    Tls,
    /// In a request of HTTP over TLS (RFC 8484).
    Https,
    /// In a request of HTTP in the clear.
    Http,
    /// In a stream of QUIC (RFC 9250).
    Quic,
}

impl Transport {
    /// All, in order of their number.
    pub const ALL: [Self; 6] = [Self::Udp, Self::Tcp, Self::Tls, Self::Https, Self::Http, Self::Quic];

    /// Whether messages come in a stream: then nothing is cut, and who has sent them is where its address says.
    pub fn is_stream(self) -> bool {
        self != Self::Udp
    }

    /// Whether nobody on the way can read along.
    pub fn is_encrypted(self) -> bool {
        match self {
            Self::Udp | Self::Tcp | Self::Http => false,
            Self::Tls | Self::Https | Self::Quic => true,
        }
    }

    /// The word for it in metrics and results.
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

/// The first message of some octets of a stream, if it is whole, and where its frame ends.
pub fn first_message(octets: &[u8]) -> Option<(&[u8], usize)> {
    // RFC 1035 section 4.2.2: two octets of length before each message.
    let (prefix, rest) = octets.split_first_chunk::<FRAME_PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*prefix));
    Some((rest.get(..length)?, FRAME_PREFIX + length))
}

/// Appends a message in its frame; `None`, and nothing is appended, if it is longer than a frame holds.
pub fn append_frame(message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let length = u16::try_from(message.len()).ok()?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
    Some(())
}

/// Octets before each message.
pub const FRAME_PREFIX: usize = 2;
