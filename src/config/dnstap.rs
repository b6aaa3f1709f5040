//! `[dnstap]`: the messages sent to a dnstap collector, their detail, and the target.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::limits;
use super::query_log::{ClientDetail, NameDetail};
use super::readers::{flags, label, number, size, some, text, word};
use super::section::ConfigNode;
use super::words::{self, Expectation};

config_section! {
    /// `[dnstap]`.
    pub struct DnstapConfig {
        /// The target of frames.
        to: DnstapTarget = DnstapTarget::File(PathBuf::new()), |node| node.parsed(|text| read_target(text, node.folder())),
            required "\"unix:/run/dnstap.sock\"";
        /// The kinds of tapped messages. By default all messages of the forwarder.
        messages: TappedMessages = TappedMessages { client: true, backend: true, authority: false }, read_messages;
        /// The identity sent to the reader. `None`: the host name.
        identity: Option<String> = None, some(label);
        /// The share of tapped questions.
        sample: f64 = 1.0, number(limits::SHARE);
        /// The detail of client addresses. Readers of dnstap expect whole messages.
        client: ClientDetail = ClientDetail::Full, word;
        /// The detail of names; messages in full or without their bytes.
        names: NameDetail = NameDetail::Full, text(words::message_detail);
        /// The memory for queued frames in bytes. Twice that of a log, because each query has four messages.
        buffer: usize = 8 << 20, size(limits::TAP_BUFFER);
    }
}

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

impl DnstapConfig {}

fn read_target(text: &str, folder: &Path) -> Result<DnstapTarget, Expectation> {
    match text.split_once(':') {
        Some(("unix", path)) => words::socket_path(path, folder).map(DnstapTarget::Unix),
        Some(("tcp", address)) => words::backend_address(address).map(DnstapTarget::Tcp),
        Some(("file", path)) => words::file_name(path).map(|path| DnstapTarget::File(folder.join(path))),
        Some(_) | None => Err(Expectation::new("unix:PATH, tcp:ADDRESS or file:PATH").matching("^(unix|tcp|file):.")),
    }
}

fn read_messages(node: &ConfigNode<'_>) -> Option<TappedMessages> {
    let items = node.items("[\"client\", \"backend\"]");
    let [client, backend, authority] = flags(&items, ["client", "backend", "authority"]);
    Some(TappedMessages { client, backend, authority })
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
