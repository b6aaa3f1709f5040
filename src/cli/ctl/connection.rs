//! Finds the running server for `ctl`, and sends requests to its admin server.
//!
//! The unix socket is preferred, because changes need no token there; otherwise HTTP over TCP. Each
//! connection carries one exchange.
//!
//! While the server is down, any user of this host may listen on its port. Therefore only requests that need
//! the config's token carry it, and on this host only to a socket of root, of this user, or of the config's
//! `user`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use config::{AdminConfig, AdminSocket};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode, Uri, header};
use net::http_client::{self, TakePiece};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime;
use tokio::time::timeout;

use super::CommandFailure;
use crate::admin::status::{ChangeResponse, ErrorResponse, Status};
use crate::admin::{Token, is_private, usual_places};
use crate::load::{self, LoadError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum AdminTarget {
    Host(Authority),
    Socket(PathBuf),
}

impl AdminTarget {
    /// Returns the target for a listen address; an unspecified address becomes loopback.
    fn of(listen: SocketAddr) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(ip, listen.port()).to_string();
        Self::Host(address.parse().expect("an IP address and a port are an authority"))
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Host(authority) if authority.port_u16().is_some() => authority.as_str().parse().ok(),
            Self::Host(authority) => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                host.parse().ok().map(|ip| SocketAddr::new(ip, HTTP_PORT))
            }
            Self::Socket(_) => None,
        }
    }

    fn host(&self) -> &str {
        match self {
            Self::Host(authority) => authority.as_str(),
            Self::Socket(_) => "localhost",
        }
    }

    async fn connect(&self) -> io::Result<(Box<dyn ServerStream>, Option<SocketAddr>)> {
        Ok(match self {
            Self::Host(authority) => {
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(HTTP_PORT))).await?;
                let (near, far) = (stream.local_addr()?, stream.peer_addr()?);
                let is_here = far.ip().to_canonical().is_loopback() || near.ip() == far.ip();
                (Box::new(stream), is_here.then_some(far))
            }
            Self::Socket(path) => (Box::new(UnixStream::connect(path).await?), None),
        })
    }
}

impl std::fmt::Display for AdminTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(authority) => write!(f, "http://{authority}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for AdminTarget {
    type Err = String;

    /// Accepts `HOST:PORT` as well as a URL.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a URL such as http://127.0.0.1:5380, or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(EXPECTED.to_owned()) } else { Ok(Self::Socket(path.into())) };
        }
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = full.parse().map_err(|error| format!("{error}, {EXPECTED}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("expected http://: the admin server speaks no TLS".to_owned());
        }
        match (uri.authority(), uri.path_and_query().map_or("/", |path| path.as_str())) {
            (Some(authority), "/") => Ok(Self::Host(authority.clone())),
            (Some(authority), path) => Err(format!("expected no path, http://{authority} in place of {path}")),
            (None, _) => Err(EXPECTED.to_owned()),
        }
    }
}

trait ServerStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ServerStream for S {}

/// An admin server with the credentials to use it.
#[derive(Debug)]
pub(in crate::cli) struct AdminConnection {
    target: AdminTarget,
    token: Option<Token>,
    /// The users whose sockets on this host may receive the token. `None`: all, because the command line
    /// names the token.
    trusted: Option<Vec<u32>>,
    closed: Option<(PathBuf, io::Error)>,
}

impl AdminConnection {
    pub(in crate::cli) fn find(
        target: Option<&AdminTarget>,
        token_file: Option<&Path>,
        config: Option<&Path>,
    ) -> Result<Self, CommandFailure> {
        let given =
            token_file.map(Token::read).transpose().map_err(|error| CommandFailure::Usage(error.to_string()))?;
        let known = match target {
            // The config's token is only for the config's server.
            Some(target) => ConfiguredServer {
                target: target.clone(),
                token: None,
                sockets: target.address().map(|address| usual_places(address, own_uid())).unwrap_or_default(),
                user: None,
            },
            None => configured(config)?,
        };
        let ConfiguredServer { target, token, sockets, user } = known;
        // A given token is used for the given target, without a search for a socket.
        if given.is_some() {
            return Ok(Self { target, token: given, trusted: None, closed: None });
        }
        let trusted = Some([ROOT, own_uid()].into_iter().chain(user).collect());
        let mut closed = None;
        for path in sockets {
            match StdUnixStream::connect(&path) {
                Ok(_) => return Ok(Self { target: AdminTarget::Socket(path), token: None, trusted, closed: None }),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => closed = Some((path, error)),
                // No socket file, or one that a dead process left.
                Err(_) => {}
            }
        }
        Ok(Self { target, token, trusted, closed })
    }

    pub(in crate::cli) fn target(&self) -> &AdminTarget {
        &self.target
    }

    pub(in crate::cli) fn status(&self) -> Result<Status, CommandFailure> {
        self.get("status")
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CommandFailure> {
        self.send(&AdminOrder::get(path))
    }

    /// Fetches a path below `/api/v1/` with a query string, without the parameters that are `None`.
    pub(super) fn fetch_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T, CommandFailure> {
        self.get(&with_query(path, query))
    }

    /// Fetches text that the server sends for so long, and passes it on in pieces.
    pub(super) fn download(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
        lasts: Duration,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), CommandFailure> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let order = AdminOrder::get(&with_query(path, query));
        let accepted = self.accepted(&order, lasts + PATIENCE, Some(&mut take));
        runtime.map_err(|error| self.unreachable(&error))?.block_on(accepted).map(drop)
    }

    pub(super) fn change(&self, order: &AdminOrder) -> Result<String, CommandFailure> {
        self.send(order).map(|ChangeResponse { message }| message)
    }

    pub(super) fn send<T: DeserializeOwned>(&self, order: &AdminOrder) -> Result<T, CommandFailure> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.unreachable(&error))?.block_on(self.ask(order, PATIENCE))
    }

    pub(in crate::cli) async fn fetch<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, CommandFailure> {
        self.ask(&AdminOrder::get(path), patience).await
    }

    async fn ask<T: DeserializeOwned>(&self, order: &AdminOrder, patience: Duration) -> Result<T, CommandFailure> {
        let (status, body) = self.accepted(order, patience, None).await?;
        serde_json::from_slice(&body).map_err(|_| self.stranger(status))
    }

    /// Returns the body of a response with a successful status.
    async fn accepted(
        &self,
        order: &AdminOrder,
        patience: Duration,
        take: Option<TakePiece<'_>>,
    ) -> Result<(StatusCode, Bytes), CommandFailure> {
        let target = &self.target;
        let exchanged = timeout(patience, self.exchange(order, take)).await;
        let (status, body) = exchanged.map_err(|error| self.unreachable(&error.into()))??;
        if status.is_success() {
            return Ok((status, body));
        }
        let ErrorResponse { error } = serde_json::from_slice(&body).map_err(|_| self.stranger(status))?;
        let mut message = format!("{target} refused: {error}");
        if let (StatusCode::FORBIDDEN, Some((path, error))) = (status, &self.closed) {
            let path = path.display();
            message.push_str(&format!("; {path} is not for you ({error}): be root or the user of the server"));
        }
        Err(CommandFailure::Server(message))
    }

    fn stranger(&self, status: StatusCode) -> CommandFailure {
        let target = &self.target;
        CommandFailure::Server(format!("{target} answers {status}, but not as the admin server of hedgerow does"))
    }

    fn unreachable(&self, error: &io::Error) -> CommandFailure {
        let target = &self.target;
        let question = "is this the admin address of a server that is running?";
        CommandFailure::Server(format!("{target} cannot be reached: {error}; {question}"))
    }

    async fn exchange(
        &self,
        order: &AdminOrder,
        take: Option<TakePiece<'_>>,
    ) -> Result<(StatusCode, Bytes), CommandFailure> {
        let AdminOrder { method, path, body } = order;
        let path = format!("/api/v1/{path}");
        let is_needed = !method.is_safe() || is_private(path.split('?').next().unwrap_or_default());
        let token = self.token.as_ref().filter(|_| is_needed || self.trusted.is_none());
        let mut request = http_client::request(method.clone(), &path, self.target.host());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.to_header());
        }
        let failed = |error| self.unreachable(&error);
        let request = request.body(Full::new(Bytes::from(body.clone()))).map_err(io::Error::other).map_err(failed)?;
        // The port may change its owner between this look and the connection, but is unlikely to change back
        // before the second look.
        let before = self.target.address().filter(|_| token.is_some()).map(owners).transpose();
        let (stream, here) = self.target.connect().await.map_err(failed)?;
        if let (Some(address), Some(trusted), true) = (here, &self.trusted, token.is_some()) {
            let found = before.and_then(|before| owners(address).map(|after| (before.unwrap_or_default(), after)));
            if let Some(doubt) = doubt(found, trusted) {
                let remedy = "name the token by --token-file to send it anyway";
                return Err(CommandFailure::Server(format!(
                    "refusing to send the token to {address}: {doubt}; {remedy}"
                )));
            }
        }
        http_client::download(stream, request, MAX_ANSWER, take).await.map_err(io::Error::other).map_err(failed)
    }
}

fn with_query(path: &str, query: &[(&str, Option<&str>)]) -> String {
    let given = query.iter().filter_map(|(key, value)| value.map(|value| format!("{key}={}", encoded(value))));
    let given = given.collect::<Vec<_>>().join("&");
    if given.is_empty() { path.to_owned() } else { format!("{path}?{given}") }
}

/// Returns the reason not to trust the users that listened before and after the connection was made.
fn doubt(found: io::Result<(Vec<u32>, Vec<u32>)>, trusted: &[u32]) -> Option<String> {
    match found {
        Err(error) => Some(format!("the user of the socket there is unknown ({error})")),
        Ok((before, after)) => match before.iter().chain(&after).find(|uid| !trusted.contains(uid)) {
            Some(uid) => Some(format!("the socket there belongs to user {uid}")),
            None if after.is_empty() => Some("the kernel lists no socket there".to_owned()),
            None => None,
        },
    }
}

/// Returns the users of the sockets of this host that listen on an address, as the kernel lists them
/// (proc_pid_net(5)).
fn owners(address: SocketAddr) -> io::Result<Vec<u32>> {
    let read = |path| match fs::read_to_string(path) {
        // A host without IPv6 has no such list.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path == TCP6 => Ok(String::new()),
        read => read.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}"))),
    };
    Ok(owners_in(&[read(TCP)?, read(TCP6)?].concat(), address))
}

/// Finds the users in these lists. Sockets of the exact address precede those of all IPv4 addresses, and
/// these precede sockets of all addresses.
fn owners_in(lists: &str, address: SocketAddr) -> Vec<u32> {
    let ip = address.ip().to_canonical();
    let ranks = [ip, Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let ranks = ranks.into_iter().filter(|rank| ip.is_ipv4() || *rank != IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let sockets: Vec<_> = lists.lines().filter_map(listening).collect();
    let of = |rank: IpAddr| -> Vec<u32> {
        let here = sockets.iter().filter(|(local, _)| local.ip() == rank && local.port() == address.port());
        here.map(|(_, uid)| *uid).collect()
    };
    ranks.map(of).find(|owners| !owners.is_empty()).unwrap_or_default()
}

fn listening(line: &str) -> Option<(SocketAddr, u32)> {
    let mut fields = line.split_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let (state, uid) = (fields.nth(1)?, fields.nth(3)?);
    // Words of 32 bits, each in native byte order.
    let word = |at: usize| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip: IpAddr = match ip.len() {
        8 => word(0)?.into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            <[u8; 16]>::try_from(words.concat()).ok()?.into()
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip.to_canonical(), port), uid.parse().ok()?)).filter(|_| state == LISTEN)
}

struct ConfiguredServer {
    target: AdminTarget,
    token: Option<Token>,
    sockets: Vec<PathBuf>,
    user: Option<u32>,
}

/// Returns the server of the config, or the default address if there is no config or no admin section.
fn configured(config: Option<&Path>) -> Result<ConfiguredServer, CommandFailure> {
    // An edit may have broken the config while the server runs; only the admin section is needed here.
    let (admin, user) = match load::load_admin(config) {
        Ok((Some(admin), user)) => (admin, user.map(|user| user.uid)),
        Ok((None, _)) => (AdminConfig::default(), None),
        Err(LoadError::NotFound(_)) if config.is_none() => (AdminConfig::default(), None),
        Err(error) => return Err(CommandFailure::Usage(format!("{error}\nname the admin server with --admin URL"))),
    };
    let (target, sockets) = match (admin.socket, admin.listen.port()) {
        (AdminSocket::At(path), 0) => (AdminTarget::Socket(path), Vec::new()),
        (AdminSocket::Auto | AdminSocket::Off, 0) => {
            let message = "admin.listen has port 0: the port is in the server's ready line, name it with --admin URL";
            return Err(CommandFailure::Usage(message.to_owned()));
        }
        (AdminSocket::At(path), _) => (AdminTarget::of(admin.listen), vec![path]),
        (AdminSocket::Auto, _) => {
            (AdminTarget::of(admin.listen), usual_places(admin.listen, user.unwrap_or_else(own_uid)))
        }
        (AdminSocket::Off, _) => (AdminTarget::of(admin.listen), Vec::new()),
    };
    // The token file may be unreadable for this user, and reading the status needs no token.
    let token = admin.token_file.filter(|_| admin.listen.port() != 0).and_then(|file| Token::read(&file).ok());
    Ok(ConfiguredServer { target, token, sockets, user })
}

fn own_uid() -> u32 {
    geteuid().as_raw()
}

/// A request to the server.
#[derive(Debug)]
pub(super) struct AdminOrder {
    method: Method,
    /// The path below `/api/v1/`.
    path: String,
    body: String,
}

impl AdminOrder {
    fn get(path: &str) -> Self {
        Self { method: Method::GET, ..Self::post(path) }
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self { method: Method::POST, path: path.into(), body: String::new() }
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self { method: Method::DELETE, ..Self::post(path) }
    }

    pub(super) fn with(self, body: &serde_json::Value) -> Self {
        Self { body: body.to_string(), ..self }
    }
}

pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// The timeout of a change: a reload or a new process may read large zones.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest response in bytes. The status of 10,000 backends has about 8 million.
const MAX_ANSWER: usize = 64 << 20;
const ROOT: u32 = 0;
/// The kernel's list of IPv4 TCP sockets; `TCP6` has those of IPv6.
const TCP: &str = "/proc/net/tcp";
const TCP6: &str = "/proc/net/tcp6";
/// The kernel's state number of a listening socket (TCP_LISTEN).
const LISTEN: &str = "0A";
const HTTP_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn urls_are_read_or_explained() {
        for (text, expected) in [
            ("http://127.0.0.1:5380", Ok("http://127.0.0.1:5380")),
            ("http://ls1.example:5380/", Ok("http://ls1.example:5380")),
            ("[::1]:5380", Ok("http://[::1]:5380")),
            ("unix:/run/admin.sock", Ok("unix:/run/admin.sock")),
            ("unix:///run/admin.sock", Ok("unix:/run/admin.sock")),
            ("unix:admin.sock", Ok("unix:admin.sock")),
            ("unix:", Err("or unix:PATH")),
            ("https://127.0.0.1:5380", Err("speaks no TLS")),
            ("http://127.0.0.1:5380/metrics", Err("expected no path")),
            ("http://", Err("expected a URL")),
            ("", Err("expected a URL")),
            ("127.0.0.1:5380:1", Err("expected a URL")),
        ] {
            match (text.parse::<AdminTarget>(), expected) {
                (Ok(target), Ok(expected)) => assert_eq!(target.to_string(), expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{text}: {error}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_server_on_any_address_is_on_this_host() {
        for (listen, url) in [
            ("127.0.0.1:5380", "http://127.0.0.1:5380"),
            ("0.0.0.0:5380", "http://127.0.0.1:5380"),
            ("[::]:1", "http://[::1]:1"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            assert_eq!(AdminTarget::of(listen.parse().expect("an address")).to_string(), url);
        }
    }

    #[test]
    fn the_address_of_a_url_is_known_if_it_names_one() {
        for (url, address) in [
            ("http://127.0.0.1:5380", Some("127.0.0.1:5380")),
            ("http://[::1]", Some("[::1]:80")),
            ("http://localhost:5380", None),
            ("unix:/run/admin.sock", None),
        ] {
            let target: AdminTarget = url.parse().expect("a place");
            assert_eq!(target.address(), address.map(|text| text.parse().expect("an address")), "{url}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_socket_that_takes_a_connection_has_its_owner() {
        let rest = "00000000:0000 00:00000000 00000000";
        let line = |local: &str, state: &str, uid: u32| {
            let remote = "0".repeat(local.find(':').unwrap_or(0));
            format!(
                "   0: {local} {remote}:0000 {state} {rest} {uid:5}        0 4711 1 0000000000000000 100 0 0 10 0\n"
            )
        };
        let header =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let any = "00000000000000000000000000000000:1504";
        let (exact, any_4) = (line("0100007F:1504", "0A", 65_534), line("00000000:1504", "0A", 7));
        let any_6 = line(any, "0A", 8);
        let mapped = line("0000000000000000FFFF00000100007F:1504", "0A", 9);
        let one = line("00000000000000000000000001000000:1504", "0A", 10);
        let others = line("0100007F:1504", "01", 1) + &line("0100007F:1505", "0A", 2) + &line("0200007F:1504", "0A", 3);
        for (lists, address, expected) in [
            (format!("{header}{others}{exact}{any_4}{any_6}"), "127.0.0.1:5380", &[65_534][..]),
            (format!("{header}{others}{any_4}{any_6}"), "127.0.0.1:5380", &[7]),
            (format!("{header}{others}{any_6}"), "127.0.0.1:5380", &[8]),
            (format!("{header}{mapped}{any_4}"), "127.0.0.1:5380", &[9]),
            (format!("{header}{any_4}{any_6}{one}"), "[::1]:5380", &[10]),
            (format!("{header}{any_4}{any_6}"), "[::1]:5380", &[8]),
            (format!("{header}{exact}{mapped}"), "127.0.0.1:5380", &[65_534, 9]),
            (format!("{header}{others}x: y z\n   0: 0100007F\n"), "127.0.0.1:5380", &[]),
        ] {
            assert_eq!(owners_in(&lists, address.parse().expect("an address")), expected, "{lists}");
        }
    }

    #[test]
    fn a_socket_of_a_stranger_or_of_nobody_is_doubted() {
        let trusted = [0, 1000];
        assert_eq!(doubt(Ok((vec![0], vec![1000])), &trusted), None);
        assert_eq!(doubt(Ok((vec![], vec![0])), &trusted), None);
        for (before, after, expected) in
            [(vec![7], vec![0], "to user 7"), (vec![0], vec![0, 7], "to user 7"), (vec![0], vec![], "no socket")]
        {
            assert!(doubt(Ok((before, after)), &trusted).is_some_and(|doubt| doubt.contains(expected)));
        }
        assert!(
            doubt(Err(io::Error::other("/proc/net/tcp: gone")), &trusted).is_some_and(|doubt| doubt.contains("gone"))
        );
    }

    #[test]
    fn names_are_hidden_from_the_path() {
        let backend = crate::cli::ctl::WhichBackend { pool: "a/b".to_owned(), backend: "[::1]:53".to_owned() };
        assert_eq!(backend.path(), "pools/a%2Fb/backends/%5B%3A%3A1%5D%3A53");
    }

    /// Checks the server and the presence of a token for a config, or the error.
    fn check(config: &str, expected: Result<(&str, bool), &str>) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("config.toml");
        let rest = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\"]\n";
        fs::write(&file, format!("{rest}{config}")).expect("a file of the test");
        fs::write(folder.path().join("admin.token"), "0123456789abcdef\n").expect("a file of the test");
        let _socket = UnixListener::bind(folder.path().join("admin.sock")).expect("a socket of the test");
        match (AdminConnection::find(None, None, Some(&file)), expected) {
            (Ok(found), Ok((place, has_token))) => {
                let place = place.replace("FOLDER", &folder.path().display().to_string());
                assert_eq!((found.target.to_string(), found.token.is_some()), (place, has_token), "{config}");
            }
            (Err(CommandFailure::Usage(message)), Err(expected)) => assert!(message.contains(expected), "{message}"),
            (found, _) => panic!("{config}: {found:?}"),
        }
    }

    #[test]
    fn the_config_tells_where_the_server_is() {
        // A server of this machine may have its socket at the usual path.
        check("[admin]\nsocket = \"off\"", Ok(("http://127.0.0.1:5380", false)));
        check("[admin]\nlisten = \"[::]:7\"", Ok(("http://[::1]:7", false)));
        check("[admin]\nlisten = \"127.0.0.1:7\"\ntoken_file = \"admin.token\"", Ok(("http://127.0.0.1:7", true)));
        check("[admin]\nlisten = \"127.0.0.1:7\"\ntoken_file = \"no.token\"", Ok(("http://127.0.0.1:7", false)));
        check("[admin]\nlisten = \"127.0.0.1:0\"", Err("--admin URL"));
        // The server reports the problems of other sections.
        check(
            "[pools.a]\nx = 1\n[admin]\nlisten = \"127.0.0.1:7\"\nsocket = \"off\"",
            Ok(("http://127.0.0.1:7", false)),
        );
    }

    #[test]
    fn a_socket_that_somebody_listens_at_goes_before_the_token() {
        check("[admin]\ntoken_file = \"admin.token\"\nsocket = \"admin.sock\"", Ok(("unix:FOLDER/admin.sock", false)));
        check("[admin]\nlisten = \"127.0.0.1:0\"\nsocket = \"admin.sock\"", Ok(("unix:FOLDER/admin.sock", false)));
        check("[admin]\ntoken_file = \"admin.token\"\nsocket = \"no.sock\"", Ok(("http://127.0.0.1:5380", true)));
        check("[admin]\ntoken_file = \"admin.token\"\nsocket = \"off\"", Ok(("http://127.0.0.1:5380", true)));
    }

    #[test]
    fn the_token_of_the_config_is_not_told_to_others() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let token = folder.path().join("admin.token");
        fs::write(&token, "0123456789abcdef").expect("a file of the test");
        let url = "http://192.0.2.1:5380".parse().expect("a URL");
        let found = AdminConnection::find(Some(&url), None, None).expect("a connection");
        assert!(found.token.is_none());
        let found = AdminConnection::find(Some(&url), Some(&token), None).expect("a connection");
        assert!(found.token.is_some());
        let error = AdminConnection::find(Some(&url), Some(Path::new("no/such.token")), None);
        assert!(matches!(error, Err(CommandFailure::Usage(_))), "{error:?}");
    }
}
