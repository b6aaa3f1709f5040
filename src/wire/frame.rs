//! The frames of messages in a stream.

/// The first message of some octets of a stream, if it is whole, and where its frame ends.
pub fn first_message(octets: &[u8]) -> Option<(&[u8], usize)> {
    // RFC 1035 section 4.2.2: two octets of length before each message.
    let (prefix, rest) = octets.split_first_chunk::<FRAME_PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*prefix));
    Some((rest.get(..length)?, FRAME_PREFIX + length))
}

/// Octets before each message.
pub const FRAME_PREFIX: usize = 2;
