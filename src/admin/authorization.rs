//! Access control by the origin of a request and its token.
//!
//! Every client that reaches the listener may read, with exceptions. Browsers mark requests of foreign web
//! pages with `Sec-Fetch-Site` (W3C Fetch Metadata); these are denied. On a loopback listener the `Host`
//! header must be a loopback name, which defeats DNS rebinding. Names that clients query are private: they
//! need the unix socket, the token, or, if no token is configured, a loopback listener.
//!
//! Changes need the unix socket (server's own user or root) or the token. A loopback source address proves
//! nothing, because every user of the host has one.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::Settings;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    Host(IpAddr),
    /// The server's own user or root, over the unix socket, with the user ID.
    Owner(u32),
}

impl fmt::Display for RequestOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(ip) => write!(f, "{ip} with the token"),
            Self::Owner(0) => f.write_str("root over the socket"),
            Self::Owner(uid) => write!(f, "uid {uid} over the socket"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Guard {
    settings: Rc<RefCell<Settings>>,
    is_local: bool,
    socket: Option<PathBuf>,
}

impl Guard {
    pub(super) fn new(settings: Rc<RefCell<Settings>>, address: IpAddr, socket: Option<PathBuf>) -> Self {
        Self { settings, is_local: address.to_canonical().is_loopback(), socket }
    }

    pub(super) fn has_page(&self) -> bool {
        self.settings.borrow().has_page
    }

    pub(super) fn check(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        peer: RequestOrigin,
    ) -> Result<(), AccessDenial> {
        // First, because a browser may have a token, and a proxy may use the socket.
        if is_api(path) && !headers.get_all(SEC_FETCH_SITE).iter().all(is_own_site) {
            return Err(AccessDenial::ForeignSite);
        }
        let has_token = self.settings.borrow().token.is_some();
        let credentials = headers.get(header::AUTHORIZATION);
        if let (Some(token), Some(credentials)) = (&self.settings.borrow().token, credentials)
            && bearer(credentials).is_some_and(|given| token.is(given))
        {
            return Ok(());
        }
        let is_forwarded = FORWARDED.iter().any(|name| headers.contains_key(name));
        let is_here = || headers.get_all(header::HOST).iter().all(is_loopback_host);
        match (peer, method.is_safe()) {
            // A proxy that runs as root proves nothing about its clients.
            (RequestOrigin::Owner(_), true) if is_forwarded && is_private(path) => Err(AccessDenial::Private),
            (RequestOrigin::Owner(_), true) => Ok(()),
            (RequestOrigin::Owner(_), false) if is_forwarded => Err(AccessDenial::ThroughProxy),
            (RequestOrigin::Owner(_), false) => Ok(()),
            (RequestOrigin::Host(ip), true)
                if is_private(path)
                    && (has_token || is_forwarded || !ip.to_canonical().is_loopback() || !is_here()) =>
            {
                Err(AccessDenial::Private)
            }
            (RequestOrigin::Host(_), true) if !self.is_local => Ok(()),
            (RequestOrigin::Host(_), true) if is_here() => Ok(()),
            (RequestOrigin::Host(_), true) => Err(AccessDenial::ForeignHost),
            (RequestOrigin::Host(_), false) if credentials.is_some() && has_token => Err(AccessDenial::WrongToken),
            (RequestOrigin::Host(_), false) => Err(AccessDenial::NoToken),
        }
    }

    /// Returns true if the token would let the request in.
    pub(super) fn wants_token(&self, denied: AccessDenial) -> bool {
        denied != AccessDenial::ForeignSite && self.settings.borrow().token.is_some()
    }

    pub(super) fn remedy(&self, denied: AccessDenial) -> String {
        let over_socket = self.socket.as_ref().map(|path| {
            format!(
                "the unix socket {} (from root or the user of the server; hedgerow ctl goes there by itself, curl with --unix-socket)",
                path.display()
            )
        });
        let with_token = "the token of admin.token_file, as Authorization: Bearer TOKEN (ctl: --token-file FILE)";
        match denied {
            AccessDenial::ForeignHost => {
                "without the token, the Host header must name this host: 127.0.0.1, [::1] or localhost, with the port"
                    .to_owned()
            }
            AccessDenial::ForeignSite => "a page of another site may not ask for this (Sec-Fetch-Site)".to_owned(),
            AccessDenial::Private => {
                let over_socket = over_socket.map(|socket| format!("over {socket}, ")).unwrap_or_default();
                match self.settings.borrow().token {
                    Some(_) => {
                        format!("names are private: read them {over_socket}or with {with_token}").replace(", or", " or")
                    }
                    None => format!(
                        "names are private: read them {over_socket}or on this host, at 127.0.0.1, [::1] or localhost and not through a proxy"
                    ),
                }
            }
            AccessDenial::WrongToken => "this is not the token of admin.token_file".to_owned(),
            AccessDenial::ThroughProxy => format!("changes through a proxy need {with_token}"),
            AccessDenial::NoToken => match (&self.settings.borrow().token, over_socket) {
                (Some(_), Some(socket)) => format!("changes need {with_token}, or come over {socket}"),
                (Some(_), None) => format!("changes need {with_token}"),
                (None, Some(socket)) => {
                    format!(
                        "changes are taken over {socket} alone; from elsewhere they need a token: set admin.token_file"
                    )
                }
                (None, None) => "changes are disabled: set admin.socket or admin.token_file".to_owned(),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessDenial {
    ForeignSite,
    Private,
    ForeignHost,
    WrongToken,
    NoToken,
    ThroughProxy,
}

/// Returns the token of an `Authorization` header (RFC 6750 section 2.1). The scheme ignores case.
fn bearer(credentials: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = credentials.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Returns true for names of this host that DNS rebinding cannot forge (RFC 6761 section 6.3: "localhost.").
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

fn is_api(path: &str) -> bool {
    path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns true if the path shows names that clients have queried.
pub(crate) fn is_private(path: &str) -> bool {
    matches!(path, "/api/v1/slow" | "/api/v1/names" | "/api/v1/divergence") || path.starts_with("/api/v1/cache/names/")
}

fn is_own_site(site: &HeaderValue) -> bool {
    [&b"same-origin"[..], b"none"].contains(&site.as_bytes())
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const FORWARDED: [HeaderName; 3] = [header::FORWARDED, HeaderName::from_static("x-forwarded-for"), header::VIA];

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Token;
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    /// Returns a guard at this address, with or without a token.
    fn guard(listen: &str, has_token: bool) -> Guard {
        let file = tempfile::NamedTempFile::new().expect("a file for the test");
        fs::write(file.path(), TOKEN).expect("a file of the test");
        let token = has_token.then(|| Token::read(file.path()).expect("a token"));
        let settings = Settings { token, has_page: true };
        Guard::new(Rc::new(RefCell::new(settings)), listen.parse().expect("an address"), Some("/run/admin.sock".into()))
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name of a header");
            headers.append(name, value.parse().expect("a value of a header"));
        }
        headers
    }

    /// Checks the decision on a request with these headers, at a loopback listener and at another.
    fn check(
        method: Method,
        peer: RequestOrigin,
        lines: &[(&str, &str)],
        at_loopback: Option<AccessDenial>,
        elsewhere: Option<AccessDenial>,
    ) {
        for (listen, expected) in [("127.0.0.1", at_loopback), ("0.0.0.0", elsewhere)] {
            let found = guard(listen, true).check(&method, "/api/v1/status", &headers(lines), peer).err();
            assert_eq!(found, expected, "{method} at {listen} with {lines:?}");
        }
    }

    /// Checks the decisions on a path with private names, another path of the API, and one outside the API.
    fn check_paths(method: &Method, peer: RequestOrigin, lines: &[(&str, &str)], expected: [Option<AccessDenial>; 3]) {
        check_paths_of(&guard("0.0.0.0", true), method, peer, lines, expected);
    }

    /// Checks the decisions of this guard on the same three paths.
    fn check_paths_of(
        guard: &Guard,
        method: &Method,
        peer: RequestOrigin,
        lines: &[(&str, &str)],
        expected: [Option<AccessDenial>; 3],
    ) {
        let [names, api, other] = expected;
        for (path, expected) in [
            ("/api/v1/slow", names),
            ("/api/v1/names", names),
            ("/api/v1/divergence", names),
            ("/api/v1/cache/names/example.org", names),
            ("/api/v1/live", api),
            ("/api", api),
            ("/metrics", other),
            ("/", other),
            ("/apiary", other),
        ] {
            let found = guard.check(method, path, &headers(lines), peer).err();
            assert_eq!(found, expected, "{method} {path} from {peer:?} with {lines:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_below_the_api() {
        let token = ("authorization", "Bearer 0123456789abcdef");
        let denied = Some(AccessDenial::ForeignSite);
        for peer in [host("127.0.0.1"), host("192.0.2.1"), RequestOrigin::Owner(0)] {
            for site in ["cross-site", "same-site", "Same-Origin", "same-origin, none", ""] {
                let lines = [("sec-fetch-site", site), token, ("host", "localhost")];
                check_paths(&Method::GET, peer, &lines, [denied, denied, None]);
                check_paths(&Method::POST, peer, &lines, [denied, denied, None]);
            }
            for site in ["same-origin", "none"] {
                check_paths(&Method::GET, peer, &[("sec-fetch-site", site), token], [None; 3]);
            }
            let two = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"), token];
            check_paths(&Method::GET, peer, &two, [denied, denied, None]);
        }
    }

    #[test]
    fn with_a_token_names_are_for_who_bears_it_and_else_for_this_host() {
        let (local, token) = (("host", "localhost:5380"), ("authorization", "Bearer 0123456789abcdef"));
        let private = [Some(AccessDenial::Private), None, None];
        let without = guard("0.0.0.0", false);
        let check_without = |here, lines: &[_], expected| {
            check_paths_of(&without, &Method::GET, host(here), lines, expected);
        };
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            check_without(here, &[local], [None; 3]);
            check_paths(&Method::GET, host(here), &[local], private);
            check_paths(&Method::GET, host(here), &[local, token], [None; 3]);
            // A rebound name, and a proxy on this host.
            check_without(here, &[("host", "evil.example")], private);
            check_without(here, &[("host", "ls1.example:5380")], private);
            for name in ["x-forwarded-for", "forwarded", "via"] {
                check_without(here, &[local, (name, "127.0.0.1")], private);
            }
        }
        for elsewhere in ["192.0.2.1", "2001:db8::1"] {
            check_without(elsewhere, &[local], private);
            check_paths(&Method::GET, host(elsewhere), &[local], private);
            check_paths(&Method::GET, host(elsewhere), &[("host", "ls1.example"), token], [None; 3]);
            let wrong = ("authorization", "Bearer 0123456789abcdeg");
            check_paths(&Method::GET, host(elsewhere), &[local, wrong], private);
        }
        check_paths(&Method::GET, RequestOrigin::Owner(0), &[], [None; 3]);
        check_paths(&Method::GET, RequestOrigin::Owner(0), &[("x-forwarded-for", "192.0.2.1")], private);
    }

    fn host(address: &str) -> RequestOrigin {
        RequestOrigin::Host(address.parse().expect("an address"))
    }

    #[test]
    fn reading_is_open_but_for_rebound_names() {
        let here = host("127.0.0.1");
        for host in ["127.0.0.1:5380", "localhost", "LocalHost:5380", "[::1]:5380", "127.1.2.3:1", "a.localhost"] {
            check(Method::GET, here, &[("host", host)], None, None);
        }
        for host in ["evil.example:5380", "192.0.2.1:5380", "127.0.0.1.evil.example", "localhost.evil.example", "@", ""]
        {
            check(Method::GET, here, &[("host", host)], Some(AccessDenial::ForeignHost), None);
            check(Method::GET, RequestOrigin::Owner(0), &[("host", host)], None, None);
        }
        // HTTP/1.0, which no browser uses.
        check(Method::HEAD, here, &[], None, None);
        let two = [("host", "localhost"), ("host", "evil.example")];
        check(Method::GET, here, &two, Some(AccessDenial::ForeignHost), None);
    }

    #[test]
    fn a_host_changes_nothing_without_the_token() {
        let json = ("content-type", "application/json");
        let local = ("host", "localhost");
        let marked = ("x-requested-with", "curl");
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.1"] {
            let denied = Some(AccessDenial::NoToken);
            check(Method::POST, host(address), &[json, local, marked], denied, denied);
            check(Method::DELETE, host(address), &[json, local, marked], denied, denied);
            for credentials in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef"] {
                let lines = [("authorization", credentials), ("host", "ls1.example:5380")];
                check(Method::DELETE, host(address), &lines, None, None);
            }
            for credentials in
                ["Bearer 0123456789abcdeg", "Basic 0123456789abcdef", "Bearer", "Bearer ", "0123456789abcdef"]
            {
                let denied = Some(AccessDenial::WrongToken);
                check(Method::POST, host(address), &[("authorization", credentials), local, json], denied, denied);
            }
        }
    }

    #[test]
    fn over_the_socket_changes_need_nothing_but_to_come_directly() {
        check(Method::POST, RequestOrigin::Owner(0), &[], None, None);
        check(Method::DELETE, RequestOrigin::Owner(0), &[("host", "anything.example")], None, None);
        let denied = Some(AccessDenial::ThroughProxy);
        check(Method::POST, RequestOrigin::Owner(0), &[("x-forwarded-for", "192.0.2.1")], denied, denied);
    }

    #[test]
    fn without_a_token_file_no_token_is_right() {
        let found = guard("0.0.0.0", false).check(
            &Method::POST,
            "/api/v1/reload",
            &headers(&[("authorization", "Bearer ")]),
            host("127.0.0.1"),
        );
        assert_eq!(found, Err(AccessDenial::NoToken));
    }

    #[test]
    fn every_refusal_names_a_way_that_is_open() {
        for (has_token, socket, ways) in [
            (true, true, &["admin.token_file", "/run/admin.sock"][..]),
            (true, false, &["admin.token_file", "--token-file"]),
            (false, true, &["/run/admin.sock", "set admin.token_file"]),
            (false, false, &["set admin.socket"]),
        ] {
            let mut guard = guard("127.0.0.1", has_token);
            guard.socket = guard.socket.filter(|_| socket);
            let reported = guard.remedy(AccessDenial::NoToken);
            assert_eq!(guard.wants_token(AccessDenial::NoToken), has_token);
            assert!(!guard.wants_token(AccessDenial::ForeignSite));
            assert!(ways.iter().all(|way| reported.contains(way)), "{reported}");
            assert_eq!(reported.contains("/run/admin.sock"), socket, "{reported}");
        }
    }
}
