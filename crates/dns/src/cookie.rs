//! DNS cookie options in queries, in responses to clients and in queries to backends (RFC 7873 section 4).

use super::codes::OptionCode;

/// A COOKIE option of a legal length, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieOption<'a> {
    /// The client cookie.
    pub client: ClientCookie,
    /// The server cookie: 8 to 32 bytes, or empty.
    pub server: &'a [u8],
}

/// The cookie of a client (RFC 7873 section 4.1).
pub type ClientCookie = [u8; 8];

/// The cookie of a server as all servers make them (RFC 9018 section 4).
pub type ServerCookie = [u8; 16];

impl<'a> CookieOption<'a> {
    const MAX_SERVER: usize = 32;

    /// Reads the data of an option. Fails if the length is neither 8 nor 16 to 40 bytes (RFC 7873 section
    /// 5.2.2).
    pub fn read(data: &'a [u8]) -> Result<Self, MalformedCookie> {
        let (&client, server) = data.split_first_chunk().ok_or(MalformedCookie)?;
        match server.len() {
            0 | 8..=Self::MAX_SERVER => Ok(Self { client, server }),
            _ => Err(MalformedCookie),
        }
    }
}

/// The error for a COOKIE option that is neither 8 nor 16 to 40 bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedCookie;

/// The cookies of a response to a client, and the state of the client's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The client cookie, copied from the query.
    pub client: ClientCookie,
    /// The new server cookie for the next query.
    pub server: ServerCookie,
    /// The state of the received cookie.
    pub state: CookieState,
}

/// The proof that a COOKIE option gives about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieState {
    /// No server cookie yet.
    Missing,
    /// A server cookie that is not valid, which counts as none (RFC 7873 section 5.2.4).
    Invalid,
    /// A valid server cookie: the source address is genuine (RFC 7873 section 5.2.5).
    Valid,
}

/// The cookie of a client that waits. The server cookie is computed again for the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownCookie {
    /// The client cookie.
    pub client: ClientCookie,
    /// The state of the received cookie.
    pub state: CookieState,
}

/// The client cookie of hedgerow and the server cookie of a backend, if known (RFC 7873 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookiePair {
    client: ClientCookie,
    server_len: u8,
    server: [u8; CookieOption::MAX_SERVER],
}

impl CookiePair {
    /// Makes a pair without a server cookie.
    pub fn new(client: ClientCookie) -> Self {
        Self { client, server_len: 0, server: [0; CookieOption::MAX_SERVER] }
    }

    /// Makes a pair from the option of a reply; `None` if the option has no server cookie.
    pub fn given(option: CookieOption<'_>) -> Option<Self> {
        let CookieOption { client, server } = option;
        let mut pair = Self::new(client);
        pair.server_len = server.len() as u8;
        pair.server.get_mut(..server.len())?.copy_from_slice(server);
        (!server.is_empty()).then_some(pair)
    }

    /// Returns the client cookie.
    pub fn client(&self) -> ClientCookie {
        self.client
    }

    pub(super) fn wire_len(&self) -> usize {
        4 + self.client.len() + usize::from(self.server_len)
    }

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let [c0, c1] = OptionCode::COOKIE.0.to_be_bytes();
        out.extend_from_slice(&[c0, c1, 0, self.client.len() as u8 + self.server_len]);
        out.extend_from_slice(&self.client);
        out.extend_from_slice(&self.server[..usize::from(self.server_len)]);
    }
}

impl Cookie {
    pub(super) const WIRE_LEN: u16 = 28;

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let Self { client, server, state: _ } = self;
        let [c0, c1] = OptionCode::COOKIE.0.to_be_bytes();
        out.extend_from_slice(&[c0, c1, 0, (client.len() + server.len()) as u8]);
        out.extend_from_slice(client);
        out.extend_from_slice(server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_8_or_16_to_40_octets_long() {
        for len in 0..=300 {
            let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let read = CookieOption::read(&data);
            match read {
                Ok(CookieOption { client, server }) => {
                    assert!(len == 8 || (16..=40).contains(&len), "{len}");
                    assert_eq!([&client, server].concat(), data);
                }
                Err(MalformedCookie) => assert!(len != 8 && !(16..=40).contains(&len), "{len}"),
            }
        }
    }

    #[test]
    fn what_is_given_is_an_option_of_24_octets() {
        let cookie = Cookie { client: *b"abcdefgh", server: *b"0123456789ABCDEF", state: CookieState::Valid };
        let mut out = b"before".to_vec();
        cookie.append(&mut out);
        assert_eq!(out, b"before\0\x0A\0\x18abcdefgh0123456789ABCDEF");
        assert_eq!(out.len() - 6, usize::from(Cookie::WIRE_LEN));
    }

    #[test]
    fn a_pair_is_what_a_reply_has_given() {
        let check = |server: &[u8]| {
            let option = CookieOption { client: *b"abcdefgh", server };
            let pair = CookiePair::given(option);
            assert_eq!(pair.is_some(), !server.is_empty());
            let pair = pair.unwrap_or_else(|| CookiePair::new(option.client));
            let mut out = Vec::new();
            pair.append(&mut out);
            assert_eq!((out.len(), &out[..4]), (pair.wire_len(), &[0, 10, 0, 8 + server.len() as u8][..]));
            assert_eq!((CookieOption::read(&out[4..]), pair.client()), (Ok(option), option.client));
        };
        check(b"");
        check(b"01234567");
        check(&[0xA5; 32]);
        let long = CookieOption { client: *b"abcdefgh", server: &[0; 33] };
        assert_eq!(CookiePair::given(long), None);
    }

    #[test]
    fn whether_there_is_one_takes_no_octet() {
        assert_eq!((size_of::<Option<Cookie>>(), size_of::<Option<ShownCookie>>()), (25, 9));
    }
}
