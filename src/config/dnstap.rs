//! `[dnstap]`: the messages sent to a dnstap collector, their detail, and the target.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::section::{ConfigNode, ConfigSection};
use super::words::{DnstapMessages, Expectation};
use super::{ClientDetail, DnstapConfig, NameDetail, QueryLogConfig, limits, words};

/// `dnstap.to`: the target of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnstapTarget {
    /// The unix socket at this path, already resolved against the folder of the config file.
    Unix(PathBuf),
    /// The TCP address of a collector.
    Tcp(SocketAddr),
    /// A file, already resolved.
    File(PathBuf),
}

/// `dnstap.messages`: the kinds of tapped messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TappedMessages {
    /// Queries of the forwarder's clients, and their responses.
    pub client: bool,
    /// Queries to backends, and their replies.
    pub backend: bool,
    /// Queries of the authorities' clients, and their responses.
    pub authority: bool,
}

impl DnstapConfig {
    /// The default of `messages`: all messages of the forwarder.
    pub const MESSAGES: TappedMessages = TappedMessages { client: true, backend: true, authority: false };

    /// The default of `client`: readers of dnstap expect whole messages.
    pub const CLIENT: ClientDetail = ClientDetail::Full;

    /// The default of `names`.
    pub const NAMES: NameDetail = NameDetail::Full;

    /// The default of `buffer`: twice that of a log, because each query has four messages.
    pub const BUFFER: usize = 8 << 20;
}

pub(super) fn read(mut section: ConfigSection<'_>, folder: &Path) -> DnstapConfig {
    let to = section.require("to", "\"unix:/run/dnstap.sock\"");
    let to = to.and_then(|node| node.parsed(|text| read_target(text, folder)));
    let messages = section.take("messages").map_or(DnstapConfig::MESSAGES, |node| read_messages(&node));
    let identity = section.take("identity").and_then(|node| node.parsed(words::label));
    let sample = section.take("sample").and_then(|node| node.number(limits::SAMPLE)).unwrap_or(QueryLogConfig::SAMPLE);
    let client = section.parsed("client", words::client_detail, DnstapConfig::CLIENT);
    let names = section.parsed("names", words::message_detail, DnstapConfig::NAMES);
    let buffer = section.parsed("buffer", |text| limits::TAP_BUFFER.parse_size(text), DnstapConfig::BUFFER);
    section.finish();
    let to = to.unwrap_or_else(|| DnstapTarget::File(PathBuf::new()));
    DnstapConfig { to, messages, identity, sample, client, names, buffer }
}

fn read_target(text: &str, folder: &Path) -> Result<DnstapTarget, Expectation> {
    match text.split_once(':') {
        Some(("unix", path)) => words::socket_path(path, folder).map(DnstapTarget::Unix),
        Some(("tcp", address)) => words::backend_address(address).map(DnstapTarget::Tcp),
        Some(("file", path)) => words::file_name(path).map(|path| DnstapTarget::File(folder.join(path))),
        Some(_) | None => Err(Expectation::new("unix:PATH, tcp:ADDRESS or file:PATH").matching(words::DNSTAP_TARGET)),
    }
}

fn read_messages(node: &ConfigNode<'_>) -> TappedMessages {
    let mut messages = TappedMessages { client: false, backend: false, authority: false };
    for item in node.items("[\"client\", \"backend\"]") {
        match item.parsed(words::dnstap_messages) {
            Some(DnstapMessages::Client) => messages.client = true,
            Some(DnstapMessages::Backend) => messages.backend = true,
            Some(DnstapMessages::Authority) => messages.authority = true,
            None => {}
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

    fn read_section(content: &str) -> DnstapConfig {
        let text = format!("[dnstap]\n{content}\n{REST}");
        let config =
            Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        config.dnstap.expect("dnstap")
    }

    #[test]
    fn every_key_of_dnstap_is_read() {
        let usual = DnstapConfig {
            to: DnstapTarget::Unix("/run/dnstap.sock".into()),
            messages: TappedMessages { client: true, backend: true, authority: false },
            identity: None,
            sample: 1.0,
            client: ClientDetail::Full,
            names: NameDetail::Full,
            buffer: 8 << 20,
        };
        assert_eq!(read_section("to = \"unix:/run/dnstap.sock\""), usual);
        let read = read_section(
            r#"
            to = "tcp:192.0.2.1:6000"
            messages = ["authority"]
            identity = "ls1"
            sample = 0.5
            client = "none"
            names = "none"
            buffer = "1MiB"
            "#,
        );
        let expected = DnstapConfig {
            to: DnstapTarget::Tcp("192.0.2.1:6000".parse().expect("an address")),
            messages: TappedMessages { client: false, backend: false, authority: true },
            identity: Some("ls1".to_owned()),
            sample: 0.5,
            client: ClientDetail::None,
            names: NameDetail::None,
            buffer: 1 << 20,
        };
        assert_eq!(read, expected);
        assert_eq!(read_section("to = \"file:a\"").to, DnstapTarget::File("/etc/hedgerow/a".into()));
    }

    #[test]
    fn dnstap_is_checked() {
        let to = "to = \"file:a\"\n";
        for (lines, expected) in [
            ("", "1:1: dnstap: to is missing, write to = \"unix:/run/dnstap.sock\""),
            (
                "to = \"/run/a\"",
                "2:6: dnstap.to: invalid value \"/run/a\": expected unix:PATH, tcp:ADDRESS or file:PATH",
            ),
            (
                "to = \"tcp:192.0.2.1\"",
                "2:6: dnstap.to: invalid value \"tcp:192.0.2.1\": expected an address with its port, such as \"192.0.2.1:53\"",
            ),
            (
                &*format!("{to}messages = []"),
                "3:12: dnstap.messages: expected at least one, such as [\"client\", \"backend\"]",
            ),
            (
                &format!("{to}messages = [\"clients\"]"),
                "3:13: dnstap.messages[0]: invalid value \"clients\": expected one of client, backend, authority; did you mean \"client\"?",
            ),
            (
                &format!("{to}names = \"parent\""),
                "3:9: dnstap.names: invalid value \"parent\": expected one of full, none",
            ),
        ] {
            check(&format!("[dnstap]\n{lines}\n{REST}"), &[expected]);
        }
    }
}
