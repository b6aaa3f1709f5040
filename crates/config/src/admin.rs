//! `[admin]`: where the admin server listens, how it accepts changes, and what it shows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use dns::address::{ListenAddress, Scheme};

use super::readers::{boolean, file, integer, some, text};
use super::references::References;
use super::section::ConfigSection;
use super::words::{self, Expectation};

config_section! {
    /// `[admin]`.
    pub struct AdminConfig {
        /// The HTTP address. By default reachable from this host only.
        listen: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5380), text(words::listen_address);
        /// The file with the token for changes by HTTP, already resolved. `None`: no changes by HTTP.
        token_file: Option<PathBuf> = None, some(file);
        /// The unix socket for changes without a token. By default where `hedgerow ctl` looks by itself.
        socket: AdminSocket = AdminSocket::Auto, |node| node.parsed(|text| read_socket(text, node.folder()));
        /// True if a page is served at `/`. By default, because it shows only what the listener serves
        /// anyway.
        page: bool = true, boolean;
        /// True if the most frequent names and clients are counted. Both are private.
        names: bool = false, boolean;
        /// The number of backends above which a pool has no series per backend. Each backend adds some 50
        /// lines to `/metrics`. At most the limit of members.
        backend_series: u16 = 200, integer(0..=10_000);
    }
}

/// `admin.socket`: a unix socket for changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// The default path, derived from the address of the admin server.
    Auto,
    /// A path, already resolved against the folder of the config file.
    At(PathBuf),
    /// No socket at all.
    Off,
}

impl AdminConfig {
    /// Reads the legible part of `[admin]` and the name of `user` from a broken config.
    pub fn salvage(text: &str, folder: &Path) -> (Option<Self>, Option<String>) {
        let table: toml::Table = text.parse().unwrap_or_default();
        let admin = table.get("admin").and_then(toml::Value::as_table).map(|admin| {
            let word = |key| admin.get(key).and_then(toml::Value::as_str);
            let token_file = word("token_file").and_then(|file| words::file_name(file).ok());
            let usual = Self::default();
            Self {
                listen: word("listen").and_then(|listen| listen.parse().ok()).unwrap_or(usual.listen),
                token_file: token_file.map(|file| folder.join(file)),
                socket: word("socket").and_then(|path| read_socket(path, folder).ok()).unwrap_or(usual.socket),
                ..usual
            }
        });
        (admin, table.get("user").and_then(toml::Value::as_str).map(str::to_owned))
    }
}

pub(super) fn read<'d>(section: &mut ConfigSection<'d>, references: &mut References<'d>) -> AdminConfig {
    let admin = AdminConfig::read_keys(section);
    let address = ListenAddress { scheme: Scheme::Tcp, socket: admin.listen };
    references.listening.push(address, section.spot_of("listen"));
    admin
}

fn read_socket(text: &str, folder: &Path) -> Result<AdminSocket, Expectation> {
    match text {
        "auto" => Ok(AdminSocket::Auto),
        "off" => Ok(AdminSocket::Off),
        "" => Err(Expectation::new("auto, off, or the path of a socket").matching(words::NOT_EMPTY)),
        path => words::socket_path(path, folder).map(AdminSocket::At),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

    fn check_read(content: &str, listen: &str, token_file: Option<&str>) {
        check_all(content, listen, token_file, AdminSocket::Auto);
    }

    fn check_all(content: &str, listen: &str, token_file: Option<&str>, socket: AdminSocket) {
        let text = format!("[admin]\n{content}\n{REST}");
        let config =
            Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        let listen = listen.parse().expect("an address");
        let (page, names) = (!content.contains("page = false"), content.contains("names = true"));
        let token_file = token_file.map(PathBuf::from);
        let backend_series = if content.contains("backend_series = 0") { 0 } else { 200 };
        assert_eq!(config.admin, Some(AdminConfig { listen, token_file, socket, page, names, backend_series }));
    }

    #[test]
    fn admin_is_read() {
        check_read("", "127.0.0.1:5380", None);
        check_read("listen = \"[::]:0\"", "[::]:0", None);
        check_read("token_file = \"admin.token\"", "127.0.0.1:5380", Some("/etc/hedgerow/admin.token"));
        check_read("page = true", "127.0.0.1:5380", None);
        check_read("page = false", "127.0.0.1:5380", None);
        check_read("names = true", "127.0.0.1:5380", None);
        check_read("names = false", "127.0.0.1:5380", None);
        check_read("backend_series = 0", "127.0.0.1:5380", None);
        check_read("backend_series = 200", "127.0.0.1:5380", None);
        check_read("token_file = \"/run/token\"", "127.0.0.1:5380", Some("/run/token"));
        for (value, socket) in [
            ("auto", AdminSocket::Auto),
            ("off", AdminSocket::Off),
            ("admin.sock", AdminSocket::At("/etc/hedgerow/admin.sock".into())),
            ("/run/admin.sock", AdminSocket::At("/run/admin.sock".into())),
        ] {
            check_all(&format!("socket = \"{value}\""), "127.0.0.1:5380", None, socket);
        }
    }

    #[test]
    fn what_can_be_read_of_a_broken_config_is_read() {
        let read = |text: &str| {
            let (admin, user) = AdminConfig::salvage(text, Path::new("/etc/hedgerow"));
            (admin.map(|admin| (admin.listen.to_string(), admin.token_file, admin.socket)), user)
        };
        let usual = || "127.0.0.1:5380".to_owned();
        let token = || Some(PathBuf::from("/etc/hedgerow/t"));
        let all =
            "user = \"dns\"\nx = 1\n[admin]\nlisten = \"[::1]:7\"\ntoken_file = \"t\"\nsocket = \"s\"\nlsiten = 1\n";
        let at = AdminSocket::At("/etc/hedgerow/s".into());
        assert_eq!(read(all), (Some(("[::1]:7".to_owned(), token(), at)), Some("dns".to_owned())));
        let wrong = "user = 7\n[admin]\nlisten = \"localhost:7\"\ntoken_file = \"t\"\nsocket = 1\n";
        assert_eq!(read(wrong), (Some((usual(), token(), AdminSocket::Auto)), None));
        for text in ["admin = 1", "[admni]", "[admin", "[admin]\nlisten = \"127.0.0.1:7\"\n[pools"] {
            assert_eq!(read(text), (None, None), "{text}");
        }
    }

    #[test]
    fn admin_is_checked() {
        for (line, expected) in [
            (
                "listen = \"localhost:5380\"",
                "2:10: admin.listen: invalid value \"localhost:5380\": expected an IP address with its port, \
                 not a host name, such as \"127.0.0.1:53\" or \"[::1]:53\"",
            ),
            (
                "listen = [\"127.0.0.1:5380\"]",
                "2:10: admin.listen: expected an IP address with its port, \
                 such as \"127.0.0.1:53\" or \"[::1]:53\", not an array",
            ),
            ("token_file = \"\"", "2:14: admin.token_file: invalid value \"\": expected the name of a file"),
            (
                "token = \"x\"",
                "2:1: admin: unknown key \"token\", expected one of listen, token_file, socket, page, names, \
                 backend_series",
            ),
            ("socket = \"\"", "2:10: admin.socket: invalid value \"\": expected auto, off, or the path of a socket"),
            (
                "backend_series = 10001",
                "2:18: admin.backend_series: invalid value 10001: expected an integer from 0 to 10000",
            ),
            ("page = \"no\"", "2:8: admin.page: expected true or false, not a string"),
            ("socket = true", "2:10: admin.socket: expected a string: put the boolean in quotes"),
            (
                "listen = \"127.0.0.1:5301\"",
                "4:11: authorities.a.listen[0]: 127.0.0.1:5301 is listened on twice, first on line 2",
            ),
        ] {
            check(&format!("[admin]\n{line}\n{REST}"), &[expected]);
        }
        let long = "x".repeat(108);
        let expected = format!(
            "2:10: admin.socket: invalid value {long:?}: expected a path of 107 octets at most, with its folder"
        );
        check(&format!("[admin]\nsocket = {long:?}\n{REST}"), &[&expected]);
        let expected = "1:9: admin: expected a table, not an integer";
        check(&format!("admin = 1\n{REST}"), &[expected]);
    }

    #[test]
    fn an_admin_server_alone_is_nothing_to_run() {
        let expected = " nothing to run, add [forwarder] with [pools.NAME], or [authorities.NAME]";
        check("[admin]", &[expected]);
    }
}
