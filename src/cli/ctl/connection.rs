//! The running server as `ctl` reaches it: where it is, how it is asked, and what went wrong if it does not answer.
//!
//! ureq is a small blocking client, and one exchange after the other is all there is to do; without TLS it brings in little
//! that the admin server does not need anyway. It is told to use no proxy, since what is asked is this host or a near one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::json;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::Trouble;
use crate::admin::Token;
use crate::admin::status::{Done, EntryStatus, Failed, Status};
use crate::cli::load::{self, LoadError};
use crate::config::AdminConfig;
use crate::wire::Name;

/// Where an admin server is: `http://HOST:PORT`, without a final slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Url(String);

impl Url {
    /// Of a server that listens at this address. One that listens on any address is on this host, too.
    fn of(listen: SocketAddr) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self(format!("http://{}", SocketAddr::new(ip, listen.port())))
    }
}

impl FromStr for Url {
    type Err = String;

    /// Takes `HOST:PORT` too.
    fn from_str(text: &str) -> Result<Self, String> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri =
            full.parse().map_err(|error| format!("{error}, expected a URL such as http://127.0.0.1:5380"))?;
        if uri.scheme_str() != Some("http") {
            return Err("expected http://: the admin server speaks no TLS".to_owned());
        }
        match (uri.authority(), uri.path_and_query().map_or("/", |path| path.as_str())) {
            (Some(authority), "/") => Ok(Self(format!("http://{authority}"))),
            (Some(authority), path) => Err(format!("expected no path, http://{authority} in place of {path}")),
            (None, _) => Err("expected a URL such as http://127.0.0.1:5380".to_owned()),
        }
    }
}

/// A server to ask.
#[derive(Debug)]
pub(in crate::cli) struct Connection {
    /// Where it is.
    url: Url,
    /// What it may want to see.
    token: Option<Token>,
    /// Asks.
    agent: Agent,
}

impl Connection {
    /// The server that the command line names, or else the one of the config.
    pub(in crate::cli) fn find(
        url: Option<&Url>,
        token_file: Option<&Path>,
        config: Option<&Path>,
    ) -> Result<Self, Trouble> {
        let given = token_file.map(Token::read).transpose().map_err(|error| Trouble::Usage(error.to_string()))?;
        let (url, configured) = match url {
            // The token of the config is for the server of the config, and not to be told to others.
            Some(url) => (url.clone(), None),
            None => configured(config)?,
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        Ok(Self { url, token: given.or(configured), agent })
    }

    /// Asks how the server does.
    pub(in crate::cli) fn status(&self) -> Result<Status, Trouble> {
        self.get("status")
    }

    /// Asks what the cache keeps of a name.
    pub(super) fn entries(&self, name: &Name) -> Result<Vec<EntryStatus>, Trouble> {
        self.get(&format!("cache/names/{}", encoded(&name.to_string())))
    }

    /// Asks for what is below `/api/v1/`.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Trouble> {
        let mut question = self.agent.get(format!("{}/api/v1/{path}", self.url.0));
        if let Some(token) = &self.token {
            question = question.header("Authorization", token.to_header());
        }
        self.read(question.call())
    }

    /// Asks for a change; returns what was done.
    pub(super) fn change(&self, order: Order) -> Result<String, Trouble> {
        let url = format!("{}/api/v1/{}", self.url.0, order.path);
        // That it is no web page's doing: see the admin server's guard.
        let marks = [("X-Requested-With", "hedgerow ctl".to_owned()), ("Content-Type", "application/json".to_owned())];
        let token = self.token.iter().map(|token| ("Authorization", token.to_header()));
        let headers = marks.into_iter().chain(token);
        let answer = match order.kind {
            Kind::Post(body) => {
                headers.fold(self.agent.post(url), |to, (name, value)| to.header(name, value)).send(body)
            }
            Kind::Delete => headers.fold(self.agent.delete(url), |to, (name, value)| to.header(name, value)).call(),
        };
        self.read(answer).map(|Done { message }| message)
    }

    /// Reads what the server answers.
    fn read<T: DeserializeOwned>(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<T, Trouble> {
        let url = &self.url.0;
        let unreachable = |error: ureq::Error| {
            Trouble::Server(format!(
                "{url} cannot be reached: {error}; is this the admin address of a server that is running?"
            ))
        };
        let mut response = answer.map_err(unreachable)?;
        let status = response.status();
        let body = response.body_mut().read_to_string().map_err(unreachable)?;
        let stranger =
            || Trouble::Server(format!("{url} answers {status}, but not as the admin server of hedgerow does"));
        if status.is_success() {
            return serde_json::from_str(&body).map_err(|_| stranger());
        }
        match serde_json::from_str(&body) {
            Ok(Failed { error }) => Err(Trouble::Server(format!("{url} says no: {error}"))),
            Err(_) => Err(stranger()),
        }
    }
}

/// The server of the config and its token, or the usual place if there is no config or none with an admin server.
fn configured(config: Option<&Path>) -> Result<(Url, Option<Token>), Trouble> {
    let admin = match load::load(config) {
        Ok((config, _)) => config.admin,
        Err(LoadError::NotFound(_)) if config.is_none() => None,
        // Perhaps broken by an edit that a reload is to bring in force: then somebody must say where the server is.
        Err(error) => return Err(Trouble::Usage(format!("{error}\nname the admin server with --admin URL"))),
    };
    let Some(admin) = admin else {
        return Ok((Url::of(AdminConfig::LISTEN), None));
    };
    if admin.listen.port() == 0 {
        let message = "admin.listen has port 0: the port is in the server's ready line, name it with --admin URL";
        return Err(Trouble::Usage(message.to_owned()));
    }
    // Not everybody who may ask may read the token, and reading needs none.
    let token = admin.token_file.and_then(|file| Token::read(&file).ok());
    Ok((Url::of(admin.listen), token))
}

/// A change, as HTTP has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Below `/api/v1/`.
    path: String,
    /// Method and body.
    kind: Kind,
}

/// Method and body.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// POST with JSON.
    Post(String),
    /// DELETE.
    Delete,
}

impl Order {
    /// A new backend.
    pub(super) fn add(pool: &str, address: SocketAddr, weight: u16) -> Self {
        let body = json!({ "address": address, "weight": weight }).to_string();
        Self { path: format!("pools/{}/backends", encoded(pool)), kind: Kind::Post(body) }
    }

    /// A backend less.
    pub(super) fn remove(pool: &str, backend: &str) -> Self {
        Self { path: format!("pools/{}/backends/{}", encoded(pool), encoded(backend)), kind: Kind::Delete }
    }

    /// Something else with a backend.
    pub(super) fn act(pool: &str, backend: &str, action: &str) -> Self {
        let path = format!("pools/{}/backends/{}/{action}", encoded(pool), encoded(backend));
        Self { path, kind: Kind::Post(String::new()) }
    }

    /// Read config and zones again.
    pub(super) fn reload() -> Self {
        Self { path: "reload".to_owned(), kind: Kind::Post(String::new()) }
    }

    /// A cache that forgets everything, or what it keeps of a name, with all below it or without.
    pub(super) fn flush(name: Option<&Name>, is_subtree: bool) -> Self {
        let path = match name {
            None => "cache".to_owned(),
            Some(name) => {
                let scope = if is_subtree { "subtrees" } else { "names" };
                format!("cache/{scope}/{}", encoded(&name.to_string()))
            }
        };
        Self { path, kind: Kind::Delete }
    }
}

/// A name as a part of a path.
fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

/// How long a change may take: a reload may read large zones.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn urls_are_read_or_explained() {
        for (text, expected) in [
            ("http://127.0.0.1:5380", Ok("http://127.0.0.1:5380")),
            ("http://ls1.example:5380/", Ok("http://ls1.example:5380")),
            ("[::1]:5380", Ok("http://[::1]:5380")),
            ("https://127.0.0.1:5380", Err("speaks no TLS")),
            ("http://127.0.0.1:5380/metrics", Err("expected no path")),
            ("http://", Err("expected a URL")),
            ("", Err("expected a URL")),
            ("127.0.0.1:5380:1", Err("expected a URL")),
        ] {
            match (text.parse::<Url>(), expected) {
                (Ok(Url(url)), Ok(expected)) => assert_eq!(url, expected, "{text}"),
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
            assert_eq!(Url::of(listen.parse().expect("an address")).0, url);
        }
    }

    #[test]
    fn names_are_hidden_from_the_path() {
        assert_eq!(Order::remove("a/b", "[::1]:53").path, "pools/a%2Fb/backends/%5B%3A%3A1%5D%3A53");
        let name = "a\\.b/c".parse().expect("a name");
        assert_eq!(Order::flush(Some(&name), true).path, "cache/subtrees/a%5C%2Eb%2Fc%2E");
    }

    /// Checks where the server is found with this config, or what is said of it; and whether a token is.
    fn check(config: &str, expected: Result<(&str, bool), &str>) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("config.toml");
        let rest = "[authorities.a]\nlisten = [\"127.0.0.1:0\"]\nzones = [\"a.txt\"]\n";
        fs::write(&file, format!("{rest}{config}")).expect("a file of the test");
        fs::write(folder.path().join("admin.token"), "0123456789abcdef\n").expect("a file of the test");
        match (Connection::find(None, None, Some(&file)), expected) {
            (Ok(found), Ok((url, has_token))) => {
                assert_eq!((found.url.0.as_str(), found.token.is_some()), (url, has_token), "{config}");
            }
            (Err(Trouble::Usage(message)), Err(expected)) => assert!(message.contains(expected), "{message}"),
            (found, _) => panic!("{config}: {found:?}"),
        }
    }

    #[test]
    fn the_config_tells_where_the_server_is() {
        check("", Ok(("http://127.0.0.1:5380", false)));
        check("[admin]\nlisten = \"[::]:5399\"", Ok(("http://[::1]:5399", false)));
        check("[admin]\ntoken_file = \"admin.token\"", Ok(("http://127.0.0.1:5380", true)));
        check("[admin]\ntoken_file = \"no.token\"", Ok(("http://127.0.0.1:5380", false)));
        check("[admin]\nlisten = \"127.0.0.1:0\"", Err("--admin URL"));
        check("[admni]", Err("--admin URL"));
    }

    #[test]
    fn the_token_of_the_config_is_not_told_to_others() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let token = folder.path().join("admin.token");
        fs::write(&token, "0123456789abcdef").expect("a file of the test");
        let url = Url("http://192.0.2.1:5380".to_owned());
        let found = Connection::find(Some(&url), None, None).expect("a connection");
        assert!(found.token.is_none());
        let found = Connection::find(Some(&url), Some(&token), None).expect("a connection");
        assert!(found.token.is_some());
        let error = Connection::find(Some(&url), Some(Path::new("no/such.token")), None);
        assert!(matches!(error, Err(Trouble::Usage(_))), "{error:?}");
    }
}
