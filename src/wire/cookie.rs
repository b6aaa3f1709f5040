//! DNS cookies as options: one that came, one that a response bears, and one that a query to a backend bears (RFC 7873 section
//! 4). What makes a cookie a good one is decided elsewhere.

use super::codes::OptionCode;

/// A COOKIE option of a legal length, as the other side sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieOption<'a> {
    /// What the client has chosen for this server.
    pub client: ClientCookie,
    /// What the server has given it: 8 to 32 octets, or none at all.
    pub server: &'a [u8],
}

/// The cookie of a client (RFC 7873 section 4.1).
pub type ClientCookie = [u8; 8];

/// The cookie of a server as all servers make them (RFC 9018 section 4).
pub type ServerCookie = [u8; 16];

impl<'a> CookieOption<'a> {
    /// Octets of the longest server cookie.
    const MAX_SERVER: usize = 32;

    /// Reads the data of an option.
    ///
    /// # Errors
    /// If it is as long as no cookie is: RFC 7873 section 5.2.2 takes 8 octets and 16 to 40.
    pub fn read(data: &'a [u8]) -> Result<Self, MalformedCookie> {
        let (&client, server) = data.split_first_chunk().ok_or(MalformedCookie)?;
        match server.len() {
            0 | 8..=Self::MAX_SERVER => Ok(Self { client, server }),
            _ => Err(MalformedCookie),
        }
    }
}

/// A COOKIE option is neither 8 nor 16 to 40 octets long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedCookie;

/// What is known of the client whose query had a COOKIE option, and the option that it gets in return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The client's own, given back.
    pub client: ClientCookie,
    /// Ours, to be sent along with the next query.
    pub server: ServerCookie,
    /// What it showed.
    pub state: CookieState,
}

/// What a COOKIE option shows of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieState {
    /// Nothing: it has no server cookie yet.
    Missing,
    /// A server cookie that is not valid, which is no more than none (RFC 7873 section 5.2.4).
    Invalid,
    /// That it is where its address says: it has had a response of ours there (RFC 7873 section 5.2.5).
    Valid,
}

/// A client's cookie as it is remembered while the client waits: the server's part is made again when there is a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownCookie {
    /// The client's own.
    pub client: ClientCookie,
    /// What it showed.
    pub state: CookieState,
}

/// Our cookie for a server, and the one that it has given us for that, if any yet: what our queries to it bear (RFC 7873 section
/// 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookiePair {
    /// Ours.
    client: ClientCookie,
    /// Octets of the server's.
    server_len: u8,
    /// The server's, and zeros.
    server: [u8; CookieOption::MAX_SERVER],
}

impl CookiePair {
    /// Ours alone.
    pub fn new(client: ClientCookie) -> Self {
        Self { client, server_len: 0, server: [0; CookieOption::MAX_SERVER] }
    }

    /// Both, from the option of a reply; `None` if that lacks the server's.
    pub fn given(option: CookieOption<'_>) -> Option<Self> {
        let CookieOption { client, server } = option;
        let mut pair = Self::new(client);
        pair.server_len = server.len() as u8;
        pair.server.get_mut(..server.len())?.copy_from_slice(server);
        (!server.is_empty()).then_some(pair)
    }

    /// Ours.
    pub fn client(&self) -> ClientCookie {
        self.client
    }

    /// Octets of the option with its code and length.
    pub(super) fn wire_len(&self) -> usize {
        4 + self.client.len() + usize::from(self.server_len)
    }

    /// Appends the option.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let [c0, c1] = OptionCode::COOKIE.0.to_be_bytes();
        out.extend_from_slice(&[c0, c1, 0, self.client.len() as u8 + self.server_len]);
        out.extend_from_slice(&self.client);
        out.extend_from_slice(&self.server[..usize::from(self.server_len)]);
    }
}

impl Cookie {
    /// Octets of the option with its code and length.
    pub(super) const WIRE_LEN: u16 = 28;

    /// Appends the option.
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
