//! The query of one stream (RFC 9250 section 4.2): a two-byte length, one message, and the end of the stream.

use dns::{Asks, Header, Opcode, QueryRejection, edns_of_rejected, first_message, read_query};

/// Collects the bytes of a query.
#[derive(Debug, Default)]
pub struct QueryStream {
    octets: Vec<u8>,
}

/// A violation of RFC 9250 section 4.3.3, which closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// There are more bytes than the length says: a second query, or noise.
    TooMuch,
    /// The stream ended before the end of the message.
    TooLittle,
    /// The message ID is not 0 (section 4.2.1).
    MessageId,
    /// The query has the edns-tcp-keepalive option (section 5.5.2).
    Keepalive,
    /// The message is no query: it has no header, or is a response.
    NoQuery,
}

impl Violation {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::TooMuch => "octets after the query",
            Self::TooLittle => "the stream ends within the query",
            Self::MessageId => "message ID not 0",
            Self::Keepalive => "edns-tcp-keepalive option",
            Self::NoQuery => "no query",
        }
    }
}

impl QueryStream {
    /// Appends bytes.
    pub fn take(&mut self, octets: &[u8]) -> Result<(), Violation> {
        self.octets.extend_from_slice(octets);
        match first_message(&self.octets) {
            Some((_, end)) if end < self.octets.len() => Err(Violation::TooMuch),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    /// Returns the message at the end of the stream.
    pub fn end(&self) -> Result<&[u8], Violation> {
        whole_query(&self.octets)
    }
}

/// Returns the message of a complete stream.
pub fn whole_query(octets: &[u8]) -> Result<&[u8], Violation> {
    let (message, end) = first_message(octets).ok_or(Violation::TooLittle)?;
    if end < octets.len() {
        return Err(Violation::TooMuch);
    }
    if message.first_chunk().is_some_and(|id| *id != [0, 0]) {
        return Err(Violation::MessageId);
    }
    let edns = match read_query(message) {
        Ok(query) => query.edns,
        Err(QueryRejection::Short | QueryRejection::NotAQuery) => return Err(Violation::NoQuery),
        Err(QueryRejection::Answer(_)) => edns_of_rejected(message),
    };
    match edns {
        Some(edns) if Asks::of(&edns).keepalive() => Err(Violation::Keepalive),
        Some(_) | None => Ok(message),
    }
}

/// Returns true if a message may be answered before the handshake rules out a replay (RFC 9250 section 4.5).
pub(super) fn is_replayable(message: &[u8]) -> bool {
    Header::read(message).is_some_and(|header| header.opcode() == Opcode::QUERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(id: u8, opcode: u8, options: &[u8]) -> Vec<u8> {
        let mut message = vec![0, id, opcode << 3, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1];
        message.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, options.len() as u8]);
        message.extend(options);
        let mut framed = (message.len() as u16).to_be_bytes().to_vec();
        framed.extend(message);
        framed
    }

    #[test]
    fn a_query_comes_whole_wherever_it_was_cut() {
        let framed = framed(0, 0, &[]);
        for cut in 0..=framed.len() {
            let mut stream = QueryStream::default();
            let (one, two) = framed.split_at(cut);
            stream.take(one).expect("a part");
            let early = stream.end().err();
            assert_eq!(early, (cut < framed.len()).then_some(Violation::TooLittle), "cut at {cut}");
            stream.take(two).expect("the rest");
            assert_eq!((stream.end(), stream.len()), (Ok(&framed[2..]), framed.len()), "cut at {cut}");
            assert_eq!(stream.take(&[0]), Err(Violation::TooMuch));
        }
    }

    #[test]
    fn what_quic_does_not_allow_is_found() {
        let twice = [framed(0, 0, &[]), framed(0, 0, &[])].concat();
        let mut response = framed(0, 0, &[]);
        response[4] |= 0x80;
        for (octets, expected) in [
            (&b""[..], Err(Violation::TooLittle)),
            (&b"\0"[..], Err(Violation::TooLittle)),
            (&b"\0\0"[..], Err(Violation::NoQuery)),
            (&b"\0\x02\0\0"[..], Err(Violation::NoQuery)),
            (&twice, Err(Violation::TooMuch)),
            (&response, Err(Violation::NoQuery)),
            (&framed(1, 0, &[]), Err(Violation::MessageId)),
            // RFC 7828: option 11. Padding is allowed.
            (&framed(0, 0, &[0, 11, 0, 0]), Err(Violation::Keepalive)),
            (&framed(0, 4, &[0, 11, 0, 0]), Err(Violation::Keepalive)),
            (&framed(0, 0, &[0, 12, 0, 1, 0]), Ok(true)),
            (&framed(0, 0, &[]), Ok(true)),
            (&framed(0, 4, &[]), Ok(false)),
            (&framed(0, 5, &[]), Ok(false)),
        ] {
            let found = whole_query(octets);
            assert_eq!(found.map(is_replayable), expected, "{octets:?}");
        }
    }
}
