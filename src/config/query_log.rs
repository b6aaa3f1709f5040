//! `[query_log]`: the logged queries, their detail, and the target.

use std::path::{Path, PathBuf};

use super::limits::{self, Limits};
use super::readers::{flags, integer, number, size, text, word};
use super::section::{ConfigNode, ConfigSection};
use super::words::{self, Expectation};

config_section! {
    /// `[query_log]`.
    pub struct QueryLogConfig {
        /// The target of log lines.
        to: LogTarget = LogTarget::File("queries.jsonl".into()), |node| node.parsed(|text| read_target(text, node.folder()));
        /// The format of lines. Most tools read JSON.
        format: LogFormat = LogFormat::Json, word;
        /// The share of logged questions.
        sample: f64 = 1.0, number(limits::SHARE);
        /// The events logged regardless of `sample`. Slow and failed queries are too rare for a sample.
        always: Always = Always { slow: true, failed: true, hedged: false }, read_always;
        /// The detail of client addresses. The default identifies sites, but not people.
        client: ClientDetail = ClientDetail::Prefix, word;
        /// The detail of names. A log without names answers few questions.
        names: NameDetail = NameDetail::Full, word;
        /// The size in bytes at which the file is rotated. Less than the minimum would be hundreds of files a
        /// minute; the default is some 400,000 lines.
        rotate: Option<usize> = Some(100 << 20), text(|text| words::or_off(text, |text| ROTATE.parse_size(text)));
        /// The number of rotated files kept.
        keep: u16 = 5, integer(1..=1000);
        /// The memory for queued lines in bytes. The default is a tenth of a second of the busiest server.
        buffer: usize = 4 << 20, size(limits::TAP_BUFFER);
    }
}

const ROTATE: Limits<usize> = Limits { min: 1 << 20, max: 1 << 40 };

/// `query_log.to`: the target of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// A file, already resolved against the folder of the config file.
    File(PathBuf),
    /// The standard error stream, shared with the log.
    Stderr,
    /// The unix datagram socket at this path, already resolved; one line per datagram.
    Unix(PathBuf),
}

/// `query_log.format`: the format of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Keys and values in logfmt, `key=value`.
    Logfmt,
}

/// `query_log.always`: the events logged regardless of the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Always {
    /// Queries that took longer than the pool's threshold.
    pub slow: bool,
    /// Queries with SERVFAIL, a synthesized response, or no response.
    pub failed: bool,
    /// Queries with a hedge.
    pub hedged: bool,
}

/// `client`: the detail of client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDetail {
    /// The full client address.
    Full,
    /// The IPv4 /24 or IPv6 /56 prefix of the address.
    Prefix,
    /// No address at all.
    None,
}

/// `names`: the detail of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameDetail {
    /// The full query name.
    Full,
    /// The name without its first label.
    Parent,
    /// No name at all.
    None,
}

pub(super) fn read(section: &mut ConfigSection<'_>) -> QueryLogConfig {
    let mut log = QueryLogConfig::read_keys(section);
    if let LogTarget::File(file) = &mut log.to {
        *file = section.folder().join(&*file);
    }
    log
}

fn read_target(text: &str, folder: &Path) -> Result<LogTarget, Expectation> {
    match text.strip_prefix("unix:") {
        Some(path) => words::socket_path(path, folder).map(LogTarget::Unix),
        None if text == "stderr" => Ok(LogTarget::Stderr),
        None => words::file_name(text)
            .map(|file| LogTarget::File(file.into()))
            .map_err(|expected| expected.or("stderr, or unix:PATH")),
    }
}

fn read_always(node: &ConfigNode<'_>) -> Option<Always> {
    let [slow, failed, hedged] = flags(&node.any_items("[\"slow\", \"failed\"]"), ["slow", "failed", "hedged"]);
    Some(Always { slow, failed, hedged })
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    const REST: &str = "[authorities.a]\nlisten = [\"127.0.0.1:5301\"]\nzones = [\"a.txt\"]\n";

    fn read_section(content: &str) -> QueryLogConfig {
        let text = format!("[query_log]\n{content}\n{REST}");
        let config =
            Config::parse(&text, "c.toml", Path::new("/etc/hedgerow")).unwrap_or_else(|p| panic!("{text}\n{p}"));
        config.query_log.expect("a query log")
    }

    #[test]
    fn an_empty_section_is_a_log_of_defaults() {
        let usual = QueryLogConfig {
            to: LogTarget::File("/etc/hedgerow/queries.jsonl".into()),
            format: LogFormat::Json,
            sample: 1.0,
            always: Always { slow: true, failed: true, hedged: false },
            client: ClientDetail::Prefix,
            names: NameDetail::Full,
            rotate: Some(100 << 20),
            keep: 5,
            buffer: 4 << 20,
        };
        assert_eq!(read_section(""), usual);
        let text = format!("[query_log]\n{REST}").replace("[query_log]", "");
        assert_eq!(Config::parse(&text, "c.toml", Path::new("")).expect("a config").query_log, None);
    }

    #[test]
    fn every_key_of_the_query_log_is_read() {
        let read = read_section(
            r#"
            to = "unix:log.sock"
            format = "logfmt"
            sample = 0.01
            always = ["hedged"]
            client = "none"
            names = "parent"
            rotate = "off"
            keep = 1
            buffer = "1MiB"
            "#,
        );
        let expected = QueryLogConfig {
            to: LogTarget::Unix("/etc/hedgerow/log.sock".into()),
            format: LogFormat::Logfmt,
            sample: 0.01,
            always: Always { slow: false, failed: false, hedged: true },
            client: ClientDetail::None,
            names: NameDetail::Parent,
            rotate: None,
            keep: 1,
            buffer: 1 << 20,
        };
        assert_eq!(read, expected);
        assert_eq!(read_section("to = \"stderr\"").to, LogTarget::Stderr);
        assert_eq!(read_section("to = \"/var/log/q\"").to, LogTarget::File("/var/log/q".into()));
        assert_eq!(read_section("always = []").always, Always { slow: false, failed: false, hedged: false });
        assert_eq!(read_section("rotate = \"1024GiB\"").rotate, Some(1 << 40));
    }

    #[test]
    fn a_query_log_is_checked() {
        for (line, expected) in [
            (
                "to = \"\"",
                "2:6: query_log.to: invalid value \"\": expected the name of a file, or stderr, or unix:PATH",
            ),
            ("to = \"unix:\"", "2:6: query_log.to: invalid value \"unix:\": expected the path of a socket"),
            (
                "format = \"jsno\"",
                "2:10: query_log.format: invalid value \"jsno\": expected one of json, logfmt; did you mean \"json\"?",
            ),
            ("sample = 1.5", "2:10: query_log.sample: invalid value 1.5: expected a number from 0 to 1"),
            (
                "always = [\"slwo\"]",
                "2:11: query_log.always[0]: invalid value \"slwo\": expected one of slow, failed, hedged; did you mean \"slow\"?",
            ),
            (
                "rotate = \"1KiB\"",
                "2:10: query_log.rotate: invalid value \"1KiB\": expected off or a size from 1MiB to 1TiB",
            ),
            ("keep = 0", "2:8: query_log.keep: invalid value 0: expected an integer from 1 to 1000"),
            (
                "buffer = \"64KiB\"",
                "2:10: query_log.buffer: invalid value \"64KiB\": expected a size from 1MiB to 1GiB",
            ),
            ("samples = 1", "2:1: query_log: unknown key \"samples\", did you mean \"sample\"?"),
        ] {
            check(&format!("[query_log]\n{line}\n{REST}"), &[expected]);
        }
    }
}
