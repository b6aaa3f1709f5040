//! `[query_log]`: the logged queries, their detail, and the target.

use std::path::{Path, PathBuf};

use super::section::{ConfigNode, ConfigSection};
use super::words::Expectation;
use super::{QueryLogConfig, limits, words};

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

impl QueryLogConfig {
    /// The default of `to`.
    pub const TO: &'static str = "queries.jsonl";

    /// The default of `format`: most tools read JSON.
    pub const FORMAT: LogFormat = LogFormat::Json;

    /// The default of `sample`: all queries.
    pub const SAMPLE: f64 = 1.0;

    /// The default of `always`: slow and failed queries, which are too rare for a sample.
    pub const ALWAYS: Always = Always { slow: true, failed: true, hedged: false };

    /// The default of `client`: identifies sites, but not people.
    pub const CLIENT: ClientDetail = ClientDetail::Prefix;

    /// The default of `names`: a log without names answers few questions.
    pub const NAMES: NameDetail = NameDetail::Full;

    /// The default of `rotate`: some 400,000 lines.
    pub const ROTATE: Option<usize> = Some(100 << 20);

    /// The default of `keep`.
    pub const KEEP: u16 = 5;

    /// The default of `buffer`: a tenth of a second of the busiest server.
    pub const BUFFER: usize = 4 << 20;
}

pub(super) fn read(mut section: ConfigSection<'_>, folder: &Path) -> QueryLogConfig {
    let to = section.parsed("to", |text| read_target(text, folder), LogTarget::File(folder.join(QueryLogConfig::TO)));
    let format = section.parsed("format", words::log_format, QueryLogConfig::FORMAT);
    let sample = section.take("sample").and_then(|node| node.number(limits::SAMPLE)).unwrap_or(QueryLogConfig::SAMPLE);
    let always = section.take("always").map_or(QueryLogConfig::ALWAYS, |node| read_always(&node));
    let client = section.parsed("client", words::client_detail, QueryLogConfig::CLIENT);
    let names = section.parsed("names", words::name_detail, QueryLogConfig::NAMES);
    let rotate = section.parsed("rotate", |text| limits::ROTATE.parse_size_or_off(text), QueryLogConfig::ROTATE);
    let keep = section.integer("keep", limits::KEPT_FILES, QueryLogConfig::KEEP);
    let buffer = section.parsed("buffer", |text| limits::TAP_BUFFER.parse_size(text), QueryLogConfig::BUFFER);
    section.finish();
    QueryLogConfig { to, format, sample, always, client, names, rotate, keep, buffer }
}

fn read_target(text: &str, folder: &Path) -> Result<LogTarget, Expectation> {
    match text.strip_prefix("unix:") {
        Some(path) => words::socket_path(path, folder).map(LogTarget::Unix),
        None if text == "stderr" => Ok(LogTarget::Stderr),
        None => words::file_name(text)
            .map(|file| LogTarget::File(folder.join(file)))
            .map_err(|expected| expected.or("stderr, or unix:PATH")),
    }
}

fn read_always(node: &ConfigNode<'_>) -> Always {
    let mut always = Always { slow: false, failed: false, hedged: false };
    for item in node.any_items("[\"slow\", \"failed\"]") {
        match item.parsed(words::always) {
            Some(words::AlwaysWord::Slow) => always.slow = true,
            Some(words::AlwaysWord::Failed) => always.failed = true,
            Some(words::AlwaysWord::Hedged) => always.hedged = true,
            None => {}
        }
    }
    always
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
