//! Who may read and who may change, by what an HTTP request says of its sender.
//!
//! Whoever bears the token may do all. Without it, reading is open to whoever reaches the listener, and changes are taken from
//! this host only. But a browser on this host sends what any web page tells it to: so a change must bear a header that pages
//! cannot set without being allowed to (a form cannot, and `fetch` asks first and gets no leave), and the `Host` header must
//! be a loopback one, since a page whose own name was rebound to 127.0.0.1 is otherwise at home here.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::token::Token;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The rules of one listener.
#[derive(Debug)]
pub(super) struct Guard {
    /// What lets anybody in.
    token: Option<Token>,
    /// Nobody else can reach the listener but this host.
    is_local: bool,
}

impl Guard {
    /// The rules for a listener at this address.
    pub(super) fn new(token: Option<Token>, address: IpAddr) -> Self {
        Self { token, is_local: address.to_canonical().is_loopback() }
    }

    /// Lets a request pass or says why not.
    pub(super) fn check(&self, method: &Method, headers: &HeaderMap, peer: Peer) -> Result<(), Denied> {
        let credentials = headers.get(header::AUTHORIZATION);
        if let (Some(token), Some(credentials)) = (&self.token, credentials)
            && bearer(credentials).is_some_and(|given| token.is(given))
        {
            return Ok(());
        }
        let is_change = !method.is_safe();
        if (is_change || self.is_local) && !headers.get_all(header::HOST).iter().all(is_loopback_host) {
            return Err(Denied::ForeignHost);
        }
        if !is_change {
            return Ok(());
        }
        if credentials.is_some() {
            return Err(Denied::WrongToken);
        }
        if !peer.0.to_canonical().is_loopback() || FORWARDED.iter().any(|name| headers.contains_key(name)) {
            return Err(Denied::FromElsewhere);
        }
        if !headers.contains_key(&REQUESTED_WITH) && !is_json(headers) {
            return Err(Denied::PerhapsABrowser);
        }
        Ok(())
    }
}

/// Why a request does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It names another host than this one.
    ForeignHost,
    /// It bears a token, but not ours.
    WrongToken,
    /// It comes from another host and bears no token.
    FromElsewhere,
    /// Any web page could have made a browser send it.
    PerhapsABrowser,
}

impl Denied {
    /// What would be right.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::ForeignHost => {
                "without the token, the Host header must name this host: 127.0.0.1, [::1] or localhost, with the port"
            }
            Self::WrongToken => "this is not the token of token_file",
            Self::FromElsewhere => {
                "changes from another host or through a proxy need the token of token_file: \
                 Authorization: Bearer TOKEN (ctl: --token-file FILE)"
            }
            Self::PerhapsABrowser => {
                "a change needs a header that web pages cannot send unasked: \
                 Content-Type: application/json, or X-Requested-With with any value"
            }
        }
    }
}

/// The token of an `Authorization` header (RFC 6750 section 2.1); the scheme is of any case.
fn bearer(credentials: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = credentials.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Whether a `Host` header names this host in a way that nobody can rebind. RFC 6761 section 6.3: names in "localhost." are
/// loopback addresses.
fn is_loopback_host(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let host = authority.host().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether the body is said to be JSON, which a form cannot say.
fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What proxies add: behind one on this host, everybody seems to come from this host.
const FORWARDED: [HeaderName; 3] = [header::FORWARDED, HeaderName::from_static("x-forwarded-for"), header::VIA];

/// Set by scripts; a page may set it only where it is allowed to.
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The token of the tests.
    const TOKEN: &str = "0123456789abcdef";

    /// Checks what becomes of a request with these headers, at a loopback listener and at another.
    fn check(
        method: Method,
        peer: &str,
        lines: &[(&str, &str)],
        at_loopback: Option<Denied>,
        elsewhere: Option<Denied>,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name of a header");
            headers.append(name, value.parse().expect("a value of a header"));
        }
        let file = tempfile::NamedTempFile::new().expect("a file for the test");
        fs::write(file.path(), TOKEN).expect("a file of the test");
        let peer = Peer(peer.parse().expect("an address"));
        for (listen, expected) in [("127.0.0.1", at_loopback), ("0.0.0.0", elsewhere)] {
            let token = Token::read(file.path()).expect("a token");
            let guard = Guard::new(Some(token), listen.parse().expect("an address"));
            assert_eq!(guard.check(&method, &headers, peer).err(), expected, "{method} at {listen} with {lines:?}");
        }
    }

    #[test]
    fn reading_is_open_but_for_rebound_names() {
        for host in ["127.0.0.1:5380", "localhost", "LocalHost:5380", "[::1]:5380", "127.1.2.3:1", "a.localhost"] {
            check(Method::GET, "127.0.0.1", &[("host", host)], None, None);
        }
        for host in ["evil.example:5380", "192.0.2.1:5380", "127.0.0.1.evil.example", "localhost.evil.example", "@", ""]
        {
            check(Method::GET, "127.0.0.1", &[("host", host)], Some(Denied::ForeignHost), None);
        }
        // HTTP/1.0, which no browser speaks.
        check(Method::HEAD, "127.0.0.1", &[], None, None);
        let two = [("host", "localhost"), ("host", "evil.example")];
        check(Method::GET, "127.0.0.1", &two, Some(Denied::ForeignHost), None);
    }

    #[test]
    fn changes_from_this_host_are_taken_from_scripts_only() {
        let host = ("host", "127.0.0.1:5380");
        let check =
            |method: Method, lines: &[(&str, &str)], denied| check(method, "::ffff:127.0.0.1", lines, denied, denied);
        check(Method::POST, &[host, ("content-type", "application/json; charset=utf-8")], None);
        check(Method::DELETE, &[host, ("x-requested-with", "curl")], None);
        check(Method::POST, &[host], Some(Denied::PerhapsABrowser));
        check(Method::DELETE, &[host], Some(Denied::PerhapsABrowser));
        check(Method::POST, &[host, ("content-type", "text/plain")], Some(Denied::PerhapsABrowser));
        let rebound = [("host", "evil.example"), ("content-type", "application/json")];
        check(Method::POST, &rebound, Some(Denied::ForeignHost));
        let proxied = [host, ("content-type", "application/json"), ("x-forwarded-for", "192.0.2.1")];
        check(Method::POST, &proxied, Some(Denied::FromElsewhere));
    }

    #[test]
    fn changes_from_elsewhere_need_the_token() {
        let json = ("content-type", "application/json");
        let local = ("host", "localhost");
        check(Method::POST, "192.0.2.1", &[json, local], Some(Denied::FromElsewhere), Some(Denied::FromElsewhere));
        for credentials in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
            let lines = [("authorization", credentials), ("host", "ls1.example:5380")];
            check(Method::DELETE, "192.0.2.1", &lines, None, None);
        }
        for credentials in
            ["Bearer 0123456789abcdeg", "Basic 0123456789abcdef", "Bearer", "Bearer ", "0123456789abcdef"]
        {
            let denied = Some(Denied::WrongToken);
            check(Method::POST, "127.0.0.1", &[("authorization", credentials), local, json], denied, denied);
        }
    }

    #[test]
    fn without_a_token_file_no_token_is_right() {
        let guard = Guard::new(None, IpAddr::from([0, 0, 0, 0]));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer "));
        assert_eq!(guard.check(&Method::POST, &headers, Peer([127, 0, 0, 1].into())), Err(Denied::WrongToken));
    }
}
