//! DNS cookies for clients: a valid one proves a client's address (RFC 7873), so the limits against forged
//! addresses do not apply to it. The format is the standard one (RFC 9018 section 4), so that servers with
//! one secret accept each other's:
//!
//! ```text
//!     version 1 | reserved, 3 octets | timestamp, 4 octets | hash, 8 octets
//!
//!     hash = SipHash-2-4(client cookie | version | reserved | timestamp | address of the client; secret)
//! ```
//!
//! A cookie is valid for an hour and renewed after half of that. One secret signs, another is only accepted.

use std::net::IpAddr;
use std::sync::Arc;
use std::{fmt, mem};

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER_PERMISSIVE;
use dns::{
    ClientCookie, Cookie, CookieOption, CookieState, Edns, MalformedCookie, Query, QueryRejection, ServerCookie,
    ShownCookie, edns_of_rejected,
};
use siphasher::sip::SipHasher24;
use subtle::ConstantTimeEq;

/// The source of cookies for clients, shared by all workers. The secrets may change at any time.
#[derive(Debug)]
pub struct Cookies {
    secrets: ArcSwap<CookieSecrets>,
}

impl Cookies {
    /// Creates it with these secrets.
    pub fn new(secrets: CookieSecrets) -> Self {
        Self { secrets: ArcSwap::from_pointee(secrets) }
    }

    /// Signs with a fresh secret from now on, and still accepts the previous one.
    pub fn roll(&self, fresh: CookieSecret) {
        let before = self.secrets.load().signing.clone();
        self.secrets.store(Arc::new(CookieSecrets { signing: fresh, other: Some(before) }));
    }

    /// Stops accepting the previous secret.
    pub fn retire(&self) {
        let signing = self.secrets.load().signing.clone();
        self.secrets.store(Arc::new(CookieSecrets { signing, other: None }));
    }

    /// Returns the cookie for the response to a message with a COOKIE option. `read` is the parsed message,
    /// `address` its sender's, `now` in seconds since 1970.
    ///
    /// # Errors
    /// A query with an option of invalid length, which is answered with FORMERR.
    pub fn answer(
        &self,
        read: &Result<Query<'_>, QueryRejection>,
        message: &[u8],
        address: IpAddr,
        now: impl FnOnce() -> u32,
    ) -> Result<Option<Cookie>, MalformedCookie> {
        let option = match read {
            Ok(query) => query.edns.as_ref().map_or(Ok(None), Edns::cookie)?,
            Err(QueryRejection::Answer(_)) => edns_of_rejected(message).and_then(|edns| edns.cookie().ok().flatten()),
            Err(QueryRejection::Short | QueryRejection::NotAQuery) => None,
        };
        Ok(option.map(|option| self.secrets.load().answer(option, address, now())))
    }

    /// Returns the cookie for a client that has waited since it sent its own.
    pub fn answer_late(&self, shown: ShownCookie, address: IpAddr, now: u32) -> Cookie {
        let ShownCookie { client, state } = shown;
        let server = self.secrets.load().signing.make(&client, address.to_canonical(), now);
        Cookie { client, server, state }
    }
}

/// The secrets for cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieSecrets {
    signing: CookieSecret,
    /// RFC 9018 section 5: to change the secret of a fleet, every server must accept the new one before the
    /// first signs with it, and the old one until its cookies have expired.
    other: Option<CookieSecret>,
}

impl CookieSecrets {
    /// Creates the secrets from one that signs and perhaps one that is only accepted.
    pub fn new(signing: CookieSecret, other: Option<CookieSecret>) -> Self {
        Self { signing, other }
    }

    /// Parses the text of a file: one or two lines of 32 hexadecimal digits, of which the first signs.
    ///
    /// # Errors
    /// The line that is invalid.
    pub fn parse(text: &str) -> Result<Self, UnfitSecrets> {
        let mut lines = text.lines();
        let mut secret = |line| match lines.next().map(str::trim_end) {
            None => Ok(None),
            Some(text) => CookieSecret::parse(text).map(Some).ok_or(UnfitSecrets { line, is_surplus: false }),
        };
        let unfit = |line, is_surplus| UnfitSecrets { line, is_surplus };
        let signing = secret(1)?.ok_or_else(|| unfit(1, false))?;
        let other = secret(2)?;
        if lines.next().is_some() { Err(unfit(3, true)) } else { Ok(Self { signing, other }) }
    }

    /// Returns the cookie for a COOKIE option from this address, at this time in seconds since 1970.
    pub fn answer(&self, option: CookieOption<'_>, address: IpAddr, now: u32) -> Cookie {
        let CookieOption { client, server } = option;
        // On a dual-stack socket, IPv4 clients count by their IPv4 address.
        let address = address.to_canonical();
        let (server, state) = match self.check(&client, server, address, now) {
            Some(Valid::AsItIs(server)) => (server, CookieState::Valid),
            Some(Valid::Renewed) => (self.signing.make(&client, address, now), CookieState::Valid),
            None if server.is_empty() => (self.signing.make(&client, address, now), CookieState::Missing),
            None => (self.signing.make(&client, address, now), CookieState::Invalid),
        };
        Cookie { client, server, state }
    }

    fn check(&self, client: &ClientCookie, server: &[u8], address: IpAddr, now: u32) -> Option<Valid> {
        let &server: &ServerCookie = server.try_into().ok()?;
        let [version, _, _, _, t0, t1, t2, t3, ..] = server;
        // RFC 9018 section 4.3: in serial arithmetic (RFC 1982), which works beyond 2106.
        let age = now.wrapping_sub(u32::from_be_bytes([t0, t1, t2, t3])).cast_signed();
        if version != VERSION || !(-FUTURE..=LIFETIME).contains(&age) {
            return None;
        }
        if self.signing.has_made(client, &server, address) {
            return Some(if age > RENEWAL { Valid::Renewed } else { Valid::AsItIs(server) });
        }
        // RFC 7873 section 7.1: a cookie by the other secret is accepted and replaced.
        let is_of_other = self.other.as_ref().is_some_and(|other| other.has_made(client, &server, address));
        is_of_other.then_some(Valid::Renewed)
    }
}

enum Valid {
    AsItIs(ServerCookie),
    Renewed,
}

/// A secret for cookies, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieSecret([u8; 16]);

impl CookieSecret {
    /// Creates it from secret bytes.
    pub fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    fn parse(text: &str) -> Option<Self> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }

    fn make(&self, client: &ClientCookie, address: IpAddr, now: u32) -> ServerCookie {
        let [t0, t1, t2, t3] = now.to_be_bytes();
        let mut cookie = [VERSION, 0, 0, 0, t0, t1, t2, t3, 0, 0, 0, 0, 0, 0, 0, 0];
        let hash = self.hash(client, &cookie, address);
        cookie[HASHED..].copy_from_slice(&hash);
        cookie
    }

    /// Returns true if this secret made the server cookie. RFC 9018 section 4.2: the reserved octets are
    /// hashed as received. The comparison takes constant time.
    fn has_made(&self, client: &ClientCookie, server: &ServerCookie, address: IpAddr) -> bool {
        self.hash(client, server, address).ct_eq(&server[HASHED..]).into()
    }

    fn hash(&self, client: &ClientCookie, server: &ServerCookie, address: IpAddr) -> [u8; 8] {
        let mut octets = [0; MAX_INPUT];
        let mut rest = &mut octets[..];
        let mut put = |part: &[u8]| {
            let (first, behind) = mem::take(&mut rest).split_at_mut(part.len());
            first.copy_from_slice(part);
            rest = behind;
        };
        put(client);
        put(&server[..HASHED]);
        match address {
            IpAddr::V4(address) => put(&address.octets()),
            IpAddr::V6(address) => put(&address.octets()),
        }
        let len = MAX_INPUT - rest.len();
        SipHasher24::new_with_key(&self.0).hash(&octets[..len]).to_le_bytes()
    }
}

impl fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecret(..)")
    }
}

/// The error of a text without valid secrets. It does not show the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfitSecrets {
    /// The invalid line, counted from 1.
    pub line: usize,
    is_surplus: bool,
}

impl fmt::Display for UnfitSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.is_surplus {
            true => "expected two lines at most: the secret that signs, and one that is accepted besides",
            false => "expected 32 hexadecimal digits, as from `openssl rand -hex 16`",
        })
    }
}

/// The interoperable version of server cookies (RFC 9018 section 4.1).
const VERSION: u8 = 1;

/// The lifetime of a cookie in seconds (RFC 9018 section 4.3).
pub const LIFETIME: i32 = 3600;

/// The age in seconds at which it is renewed (RFC 9018 section 4.3).
const RENEWAL: i32 = LIFETIME / 2;

/// The seconds by which another server's clock may be ahead (RFC 9018 section 4.3).
const FUTURE: i32 = 300;

const HASHED: usize = 8;

const MAX_INPUT: usize = 8 + HASHED + 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(lines: &[&str]) -> CookieSecrets {
        CookieSecrets::parse(&lines.join("\n")).expect("secrets")
    }

    /// The first of two secrets.
    const ONE: &str = "000102030405060708090a0b0c0d0e0f";
    const TWO: &str = "F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF";

    #[test]
    fn files_have_one_or_two_lines_of_32_digits() {
        let check = |text: &str, expected: Result<CookieSecrets, (usize, bool)>| {
            let read = CookieSecrets::parse(text).map_err(|unfit| (unfit.line, unfit.is_surplus));
            assert_eq!(read, expected, "{text:?}");
        };
        let one = CookieSecret(std::array::from_fn(|at| at as u8));
        let two = CookieSecret(std::array::from_fn(|at| 0xF0 | at as u8));
        check(ONE, Ok(CookieSecrets::new(one.clone(), None)));
        check(&format!("{ONE}\n"), Ok(CookieSecrets::new(one.clone(), None)));
        check(&format!("{ONE} \r\n{TWO}\r\n"), Ok(CookieSecrets::new(one, Some(two))));
        check("", Err((1, false)));
        check("\n", Err((1, false)));
        check(&ONE[1..], Err((1, false)));
        check(&format!("{ONE}0"), Err((1, false)));
        check(&ONE.replace('0', "g"), Err((1, false)));
        check(&format!("{ONE}\n\n"), Err((2, false)));
        check(&format!("{ONE}\n{TWO}\n{ONE}"), Err((3, true)));
    }

    #[test]
    fn no_form_of_printing_shows_a_secret() {
        let cookies = Cookies::new(secrets(&[ONE, TWO]));
        let shown = format!("{cookies:?} {cookies:#?}").to_lowercase();
        assert!(shown.contains("cookiesecret(..)") && !shown.contains("0a0b") && !shown.contains("10, 11"), "{shown}");
    }

    #[test]
    fn secrets_are_rolled_and_retired() {
        let address: IpAddr = "192.0.2.1".parse().expect("an address");
        let cookies = Cookies::new(secrets(&[ONE]));
        let answer =
            |server: &[u8]| cookies.secrets.load().answer(CookieOption { client: *b"CLIENT01", server }, address, 1000);
        let first = answer(b"");
        assert_eq!(
            (first.state, answer(&first.server)),
            (CookieState::Missing, Cookie { state: CookieState::Valid, ..first })
        );
        cookies.roll(CookieSecret::parse(TWO).expect("a secret"));
        let second = answer(&first.server);
        assert_eq!(second.state, CookieState::Valid);
        assert_ne!(second.server, first.server, "what was made with another secret is replaced");
        assert_eq!(answer(&second.server), second);
        cookies.retire();
        assert_eq!(answer(&first.server).state, CookieState::Invalid);
        assert_eq!(answer(&second.server), second);
    }

    #[test]
    fn an_address_in_ipv6_form_is_the_ipv4_address() {
        let secrets = secrets(&[ONE]);
        let option = CookieOption { client: *b"CLIENT01", server: b"" };
        let [plain, mapped, other] = ["192.0.2.1", "::ffff:192.0.2.1", "::192.0.2.1"]
            .map(|address| secrets.answer(option, address.parse().expect("an address"), 7).server);
        assert_eq!(plain, mapped);
        assert_ne!(plain, other);
        let (cookies, shown) =
            (Cookies::new(secrets), ShownCookie { client: *b"CLIENT01", state: CookieState::Invalid });
        for address in ["192.0.2.1", "::ffff:192.0.2.1"] {
            let late = cookies.answer_late(shown, address.parse().expect("an address"), 7);
            assert_eq!(late, Cookie { client: *b"CLIENT01", server: plain, state: CookieState::Invalid });
        }
    }
}
