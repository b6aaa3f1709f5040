//! The observers of queries: `[slow]` races, the `[query_log]`, `[dnstap]` and `[traces]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::limits::{self, Limits};
use super::readers::{flags, integer, label, number, size, some, text, word};
use super::section::{ConfigNode, ConfigSection, DocumentSpot};
use super::words::{self, Expectation};

/// The sections about observed queries; each is `None` if the config has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TapsConfig {
    /// The recording of slow races.
    pub slow: Option<SlowConfig>,
    /// The query log.
    pub query_log: Option<QueryLogConfig>,
    /// The dnstap output.
    pub dnstap: Option<DnstapConfig>,
    /// The export of slow races as traces.
    pub traces: Option<TracesConfig>,
}

pub(super) fn read(document: &mut ConfigSection<'_>) -> TapsConfig {
    TapsConfig {
        slow: document.below("slow", SlowConfig::read_keys),
        query_log: document.below("query_log", |section| {
            let mut log = QueryLogConfig::read_keys(section);
            if let LogTarget::File(file) = &mut log.to {
                *file = section.folder().join(&*file);
            }
            log
        }),
        dnstap: document.below("dnstap", DnstapConfig::read_keys),
        traces: document.below("traces", TracesConfig::read_keys),
    }
}

config_section! {
    /// `[slow]`.
    #[derive(Copy, Eq)]
    pub struct SlowConfig {
        /// The duration from which a race is slow. The default adapts to the pool's latency.
        threshold: SlowThreshold = SlowThreshold::Auto, text(words::slow_threshold);
        /// The number of newest races kept. Fewer than 10 would vanish before an operator looks; each may
        /// take a kilobyte. The default is more than an operator reads.
        keep: usize = 1_000, integer(10..=100_000);
    }
}

/// `slow.threshold`: the duration from which a race is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowThreshold {
    /// Slower than 99.9 % of the pool's races of the last minute.
    Auto,
    /// Slower than this duration.
    Above(Duration),
    /// No race is slow, regardless of its duration.
    Off,
}

impl SlowConfig {
    /// The lower bound of `auto`: faster races need no analysis.
    pub const MIN_AUTO: Duration = Duration::from_millis(1);
}

config_section! {
    /// `[query_log]`.
    pub struct QueryLogConfig {
        /// The target of log lines.
        to: LogTarget = LogTarget::File("queries.jsonl".into()), |node| node.parsed(|text| read_log_target(text, node.folder()));
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
        /// The memory for queued lines in bytes. The default is some 19,000 lines.
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

fn read_log_target(text: &str, folder: &Path) -> Result<LogTarget, Expectation> {
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

config_section! {
    /// `[dnstap]`.
    pub struct DnstapConfig {
        /// The target of frames.
        to: DnstapTarget = DnstapTarget::File(PathBuf::new()), |node| node.parsed(|text| read_dnstap_target(text, node.folder())),
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

fn read_dnstap_target(text: &str, folder: &Path) -> Result<DnstapTarget, Expectation> {
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

config_section! {
    /// `[traces]`.
    #[derive(Eq)]
    pub struct TracesConfig {
        /// The collector that gets the traces.
        otlp: OtlpTarget = OtlpTarget { address: ([0; 4], 0).into(), path: String::new() }, text(read_otlp),
            required "\"http://127.0.0.1:4318/v1/traces\"";
        /// The detail of names. A trace without the name explains little.
        names: NameDetail = NameDetail::Full, word;
    }
}

/// `traces.otlp`: a collector of OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpTarget {
    /// The address of the collector.
    pub address: SocketAddr,
    /// The path of POST requests, including any query string.
    pub path: String,
}

pub(super) fn check_source(spot: &DocumentSpot<'_>, slow: Option<SlowConfig>, has_forwarder: bool) {
    let remedy = match slow {
        Some(SlowConfig { threshold: SlowThreshold::Off, .. }) => {
            "slow.threshold is \"off\", write \"auto\" or a duration"
        }
        None => "add [slow] or [admin]",
        Some(_) if !has_forwarder => "only a forwarder has races, add [forwarder] with [pools.NAME]",
        Some(_) => return,
    };
    spot.note(format!("there are no slow races to send: {remedy}"));
}

fn read_otlp(text: &str) -> Result<OtlpTarget, Expectation> {
    let expected = |what: &str| Expectation::new(what).matching(OTLP_URL);
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(expected(if text.starts_with("https://") { OTLP_NO_TLS } else { OTLP_FORM }));
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_known = |octet: u8| octet.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&octet);
    if path.is_empty() || !path.bytes().all(is_known) {
        return Err(expected(OTLP_FORM));
    }
    let is_address =
        host.starts_with('[') || host.split(':').next().is_some_and(|host| host.parse::<Ipv4Addr>().is_ok());
    if !is_address {
        return Err(expected(if host.is_empty() { OTLP_FORM } else { OTLP_NO_NAMES }));
    }
    Ok(OtlpTarget { address: words::backend_address(host)?, path: path.to_owned() })
}

const OTLP_FORM: &str = "a URL such as \"http://127.0.0.1:4318/v1/traces\"";

const OTLP_NO_TLS: &str =
    "http://, since traces are sent without TLS: run a collector on this host, or a proxy that speaks TLS to yours";

const OTLP_NO_NAMES: &str = "an IP address for the host, as in \"http://127.0.0.1:4318/v1/traces\", since hedgerow does not resolve names for itself";

const OTLP_URL: &str = "^http://[0-9\\[][^/]*:[0-9]+/";
