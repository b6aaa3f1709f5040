//! The words of the config file and of the command line, with their values.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns::address::{self, BackendAddress, BackendUrl, BadAddress, Pin, Verify};
use dns::{Name, Rcode, RecordType, Transport};
use hedge::balance::Balance;
use hedge::{AttemptTimeout, Dispatch, Expect, Grace, HedgeDelay};
use limit::{OnDenied, Prefix};
use zone::Miss;
use zone::transfer::acl::AclRule;
use zone::transfer::tsig::Algorithm;

use super::limits::{self, Limits, ms, secs};
use super::taps::{ClientDetail, LogFormat, NameDetail, SlowThreshold};
use super::{Accept, Case, ClientSubnetRule, PrivateAnswers, Serves, Silence};

/// The accepted values in place of a wrong text. Shown as `expected ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {what}{}", .nearest.map_or_else(String::new, |word| format!("; did you mean {word:?}?")))]
pub struct Expectation {
    what: String,
    nearest: Option<&'static str>,
    forms: Vec<Form>,
}

/// A form of accepted text, as far as JSON Schema can express it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Exactly this word.
    Word(&'static str),
    /// Texts that match this regular expression; not all of them are valid.
    Matching(&'static str),
}

impl Expectation {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), nearest: None, forms: Vec::new() }
    }

    pub(super) fn matching(mut self, pattern: &'static str) -> Self {
        self.forms.push(Form::Matching(pattern));
        self
    }

    pub(super) fn one_of(typed: &str, words: impl Iterator<Item = &'static str> + Clone, other: Option<Self>) -> Self {
        let listed = words.clone().collect::<Vec<_>>().join(", ");
        let what = match &other {
            None => format!("one of {listed}"),
            Some(other) => format!("{listed} or {}", other.what),
        };
        let forms = words.clone().map(Form::Word).chain(other.into_iter().flat_map(|other| other.forms)).collect();
        Self { what, nearest: nearest(typed, words), forms }
    }

    pub(super) fn or(self, other: &str) -> Self {
        Self { what: format!("{}, or {other}", self.what), ..self }
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn forms(&self) -> &[Form] {
        &self.forms
    }
}

/// The values of a key that have a word each.
pub trait KeyWord: Copy + PartialEq + 'static {
    /// The words with their values.
    const WORDS: &'static [(&'static str, Self)];

    /// Returns the word in the config.
    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|&&(_, known)| known == self).map_or("?", |&(word, _)| word)
    }
}

macro_rules! words {
    ($($type:ident { $($word:literal = $variant:ident),+ })+) => { $(
        impl KeyWord for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }
    )+ };
}

words! {
    Dispatch { "race" = Race, "hedge" = Hedge, "sequential" = Sequential, "auto" = Auto }
    Balance {
        "ordered" = Ordered, "round-robin" = RoundRobin, "random" = Random, "sticky" = Sticky, "hash" = Hash,
        "least-load" = LeastLoad, "fastest" = Fastest
    }
    Accept { "positive" = Positive, "conclusive" = Conclusive, "any" = Any }
    Silence { "nxdomain" = Nxdomain, "servfail" = Servfail, "refused" = Refused, "drop" = Drop }
    Serves { "split" = Split, "same" = Same }
    Expect { "reply" = Reply, "no-failure" = NoFailure }
    ClientSubnetRule { "strip" = Strip, "pass" = Pass }
    PrivateAnswers { "allow" = Allow, "drop" = Drop }
    Case { "keep" = Keep, "random" = Random }
    Verify { "full" = Full, "pin" = Pin, "none" = None }
    Miss { "silent" = Silent, "nxdomain" = Nxdomain, "refused" = Refused }
    OnDenied { "refused" = Refused, "drop" = Drop }
    Algorithm { "hmac-sha256" = HmacSha256, "hmac-sha512" = HmacSha512 }
    Grace { "off" = Off, "auto" = Auto }
    AttemptTimeout { "auto" = AUTO }
    SlowThreshold { "auto" = Auto, "off" = Off }
    HedgeDelay { "auto" = Auto }
    LogFormat { "json" = Json, "logfmt" = Logfmt }
    ClientDetail { "full" = Full, "prefix" = Prefix, "none" = None }
    NameDetail { "full" = Full, "parent" = Parent, "none" = None }
    Transport { "udp" = Udp, "tcp" = Tcp, "tls" = Tls, "https" = Https, "http" = Http, "quic" = Quic }
}

impl KeyWord for Rcode {
    const WORDS: &'static [(&'static str, Self)] = Self::NAMED;
}

/// Reads a word.
pub fn word<T: KeyWord>(text: &str) -> Result<T, Expectation> {
    one_of(T::WORDS, text)
}

/// Reads `dnstap.names`: a name cannot be cut in a message that is sent whole.
pub(super) fn message_detail(text: &str) -> Result<NameDetail, Expectation> {
    one_of(&[("full", NameDetail::Full), ("none", NameDetail::None)], text)
}

fn one_of<T: Copy>(words: &'static [(&'static str, T)], text: &str) -> Result<T, Expectation> {
    let found = words.iter().find(|&&(word, _)| word == text);
    found.map(|&(_, value)| value).ok_or_else(|| Expectation::one_of(text, words.iter().map(|&(word, _)| word), None))
}

/// Reads a word or another form of a value.
fn word_or<T: KeyWord>(text: &str, other: impl FnOnce() -> Result<T, Expectation>) -> Result<T, Expectation> {
    let words = T::WORDS.iter().map(|&(word, _)| word);
    word(text).or_else(|_| other().map_err(|expected| Expectation::one_of(text, words, Some(expected))))
}

/// Reads a value, or "off" for none.
pub(super) fn or_off<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, Expectation>,
) -> Result<Option<T>, Expectation> {
    match text {
        "off" => Ok(None),
        _ => parse(text).map(Some).map_err(|other| Expectation::one_of(text, ["off"].into_iter(), Some(other))),
    }
}

/// Reads an address to listen on: IP and port, where port 0 lets the system choose.
pub fn listen_address(text: &str) -> Result<SocketAddr, Expectation> {
    let expected = |what: String| Expectation::new(what).matching(ADDRESS);
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(expected(format!("an address with its port, such as \"{}\"", SocketAddr::new(ip, 53))));
    }
    address::read_socket(text, None).map_err(|bad| expected(bad.to_string()))
}

/// Reads the address of a backend: IP and port, such as one can send to.
pub fn backend_address(text: &str) -> Result<SocketAddr, Expectation> {
    let socket = listen_address(text)?;
    address::check_reachable(socket).map_err(|bad| Expectation::new(bad.to_string()))?;
    Ok(socket)
}

/// Reads a backend or a primary: an address, optionally with a scheme and the name in its certificate.
pub fn backend(text: &str) -> Result<BackendUrl, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(URL))
}

/// Reads a backend that joins at run time: an address, optionally with a scheme.
pub fn member_address(text: &str) -> Result<BackendAddress, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(URL))
}

/// Reads the pin of a public key.
pub fn pin(text: &str) -> Result<Pin, Expectation> {
    text.parse().map_err(|bad: BadAddress| Expectation::new(bad.to_string()).matching(PIN))
}

/// Reads one entry of `allow` or `deny`.
pub fn prefix(text: &str) -> Result<Prefix, Expectation> {
    let expected = |error| Expectation::new(format!("an address or a prefix ({error})")).matching(PREFIX);
    text.parse::<Prefix>().map_err(expected)
}

/// Reads the secret of a key, from the config or from a file.
pub fn secret(text: &str) -> Result<Vec<u8>, Expectation> {
    let secret = data_encoding::BASE64.decode(text.trim().as_bytes()).ok();
    let secret = secret.filter(|secret| secret.len() >= limits::MIN_SECRET);
    let least = limits::MIN_SECRET;
    secret.ok_or_else(|| Expectation::new(format!("a secret in base64, {least} octets or more")))
}

/// Reads an access rule of a zone: a prefix or a key.
pub(crate) fn access_rule(text: &str) -> Result<AclRule, Expectation> {
    text.parse::<AclRule>().map_err(|error| {
        Expectation::new(format!("an address, a prefix, key:NAME, or an address or prefix and key:NAME ({error})"))
    })
}

/// Reads `pools.*.grace`: a word or a duration. For none, an operator sets `accept = "conclusive"`.
pub fn grace(text: &str) -> Result<Grace, Expectation> {
    word_or(text, || Limits { min: ms(1), max: secs(60) }.parse(text).map(Grace::After))
}

/// Reads `pools.*.attempt_timeout`: a word or a duration.
pub fn attempt_timeout(text: &str) -> Result<AttemptTimeout, Expectation> {
    word_or(text, || limits::ATTEMPT_TIMEOUT.parse(text).map(AttemptTimeout::after))
}

/// Reads `slow.threshold`: a word or a duration. No race takes longer than its pool's `timeout`.
pub(super) fn slow_threshold(text: &str) -> Result<SlowThreshold, Expectation> {
    let limits = Limits { min: Duration::from_micros(1), max: secs(60) };
    word_or(text, || limits.parse(text).map(SlowThreshold::Above))
}

/// Reads `pools.*.hedge.delay`: a word, a percentile such as `p95`, or a duration; 0 starts the hedge at
/// once.
pub fn hedge_delay(text: &str) -> Result<HedgeDelay, Expectation> {
    let limits = Limits { min: ms(0), max: secs(60) };
    // Below the minimum most hedges are useless; above the maximum there are too few samples.
    word_or(text, || match percentile(text, 50.0..=99.9) {
        Some(part) => Ok(HedgeDelay::Percentile(part)),
        None => limits.parse(text).map(HedgeDelay::Fixed).map_err(|expected| {
            let what = format!("a percentile from \"p50\" to \"p99.9\" or {}", expected.what);
            Expectation { what, ..expected }.matching(PERCENTILE)
        }),
    })
}

/// Reads `pools.*.hedge.target`: a percentile such as `p99.9`.
pub fn hedge_target(text: &str) -> Result<f64, Expectation> {
    let expected = || Expectation::new("a percentile from \"p90\" to \"p99.99\"").matching(PERCENTILE);
    percentile(text, 90.0..=99.99).ok_or_else(expected)
}

fn percentile(text: &str, limits: RangeInclusive<f64>) -> Option<f64> {
    let digits = text.strip_prefix('p')?;
    if !digits.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.') {
        return None;
    }
    digits.parse().ok().filter(|percent| limits.contains(percent)).map(|percent: f64| (percent * 1e4).round() / 1e6)
}

/// Reads a duration with a unit, of any length; [`Limits::parse`](super::Limits::parse) checks bounds.
pub fn duration(text: &str) -> Result<Duration, Expectation> {
    // humantime accepts a bare 0, and other numbers without a unit are ambiguous.
    let error = |what: String| Expectation::new(what).matching(DURATION);
    if text.parse::<f64>().is_ok() {
        return Err(error(format!("a duration with its unit, such as \"{text}s\" or \"{text}ms\"")));
    }
    humantime::parse_duration(text).map_err(|_| error("a duration such as \"250ms\" or \"3s\"".to_owned()))
}

/// Reads `cache.size`.
pub fn size(text: &str) -> Result<usize, Expectation> {
    limits::CACHE_SIZE.parse_size(text)
}

pub(super) fn octets(text: &str) -> Result<usize, Expectation> {
    let read = |(unit, shift): (&str, u32)| {
        let number = text.strip_suffix(unit)?.trim_end();
        let number = Some(number).filter(|number| number.bytes().all(|octet| octet.is_ascii_digit()))?;
        number.parse::<usize>().ok()?.checked_mul(1 << shift)
    };
    let octets = SIZE_UNITS.into_iter().find_map(read);
    let error = || Expectation::new("a size with its unit, KiB, MiB or GiB, such as \"64MiB\"").matching(SIZE);
    octets.ok_or_else(error)
}

pub(super) const SIZE_UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

/// Reads `authorities.*.ttl`. A TTL counts whole seconds.
pub fn ttl(text: &str) -> Result<Duration, Expectation> {
    let value = duration(text)?;
    if value.subsec_nanos() == 0 && limits::TTL.holds(&value) {
        return Ok(value);
    }
    Err(Expectation::new(format!("whole seconds, at most {}s", limits::TTL.max.as_secs())).matching(DURATION))
}

pub(super) fn label(text: &str) -> Result<String, Expectation> {
    non_empty(text, "a name")
}

pub(super) fn file_name(text: &str) -> Result<String, Expectation> {
    non_empty(text, "the name of a file")
}

pub(super) fn socket_path(text: &str, folder: &Path) -> Result<PathBuf, Expectation> {
    let path = folder.join(non_empty(text, "the path of a socket")?);
    if path.as_os_str().len() > MAX_SOCKET {
        return Err(Expectation::new(format!("a path of {MAX_SOCKET} octets at most, with its folder")));
    }
    Ok(path)
}

/// Longest path of a unix socket in bytes: `sun_path` of unix(7) has 108, including the terminator.
pub(super) const MAX_SOCKET: usize = 107;

pub(super) fn non_empty(text: &str, what: &str) -> Result<String, Expectation> {
    if text.is_empty() { Err(Expectation::new(what).matching(NOT_EMPTY)) } else { Ok(text.to_owned()) }
}

/// Reads a domain name; the final dot is optional.
pub fn domain_name(text: &str) -> Result<Name, Expectation> {
    text.parse::<Name>().map_err(|error| Expectation::new(format!("a domain name such as \"example.org\" ({error})")))
}

/// Reads a host name: letters, digits and hyphens (RFC 1123 section 2.1), as certificates can contain.
pub(super) fn host_name(text: &str) -> Result<Name, Expectation> {
    let is_label = |label: &[u8]| label.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-');
    let is_host = |name: &Name| !name.is_root() && name.labels().all(is_label) && text.parse::<IpAddr>().is_err();
    let name = text.parse::<Name>().ok().filter(is_host);
    name.ok_or_else(|| Expectation::new("the name of a host, such as \"dns.example\""))
}

/// Reads a record type by its mnemonic or number.
pub fn record_type(text: &str) -> Result<RecordType, Expectation> {
    let expected = || Expectation::new("a record type such as \"NS\", \"AAAA\" or \"TYPE65\"").matching(RECORD_TYPE);
    text.parse::<RecordType>().map_err(|_| expected())
}

pub(super) const DURATION: &str = "^ *([0-9]+(\\.[0-9]+)? *(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y) *)+$";

pub(super) const SIZE: &str = "^[0-9]+ *(KiB|MiB|GiB|TiB)$";

const PERCENTILE: &str = "^p[0-9.]+$";

const ADDRESS: &str = "^([0-9.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]):[0-9]+$";

const URL: &str =
    "^([A-Za-z0-9]+://)?([0-9.]+|[0-9A-Fa-f:.]+|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\])(:[0-9]+)?(/[^#]*)?(#.+)?$";

const PIN: &str = "^sha256/[A-Za-z0-9+/]{43}=$";

const PREFIX: &str = "^[0-9A-Fa-f:.]+(/[0-9]+)?$";

const RECORD_TYPE: &str = "^[A-Za-z0-9-]+$";

pub(super) const NOT_EMPTY: &str = ".";

/// The word closest to `typed`, if close enough. Ignores case; the first of equally close words wins.
pub fn nearest<'w>(typed: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let folded = typed.to_lowercase();
    // Swapped neighbors count as one slip, because they are the most common.
    let distance = |word: &str| strsim::osa_distance(&folded, &word.to_lowercase());
    let (slips, word) = known.into_iter().map(|word| (distance(word), word)).min_by_key(|&(slips, _)| slips)?;
    (slips <= allowed(word)).then_some(word)
}

/// Suggests the word that was meant, or lists all.
pub fn remedy<'w>(typed: &str, known: impl IntoIterator<Item = &'w str> + Clone) -> String {
    match nearest(typed, known.clone()) {
        Some(known) => format!("did you mean {known:?}?"),
        None => format!("expected one of {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// The number of slips allowed: two in a short word make another word.
fn allowed(word: &str) -> usize {
    match word.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error<T: std::fmt::Debug>(read: Result<T, Expectation>, expected: &str) {
        assert_eq!(read.expect_err("taken").to_string(), expected);
    }

    /// Lists all variants: the compiler reports a variant without a word here.
    #[test]
    fn every_variant_has_its_word() {
        for &(word, value) in Dispatch::WORDS {
            assert_eq!(
                word,
                match value {
                    Dispatch::Race => "race",
                    Dispatch::Hedge => "hedge",
                    Dispatch::Sequential => "sequential",
                    Dispatch::Auto => "auto",
                }
            );
        }
        for &(word, value) in Balance::WORDS {
            assert_eq!(
                word,
                match value {
                    Balance::Ordered => "ordered",
                    Balance::RoundRobin => "round-robin",
                    Balance::Random => "random",
                    Balance::Sticky => "sticky",
                    Balance::Hash => "hash",
                    Balance::LeastLoad => "least-load",
                    Balance::Fastest => "fastest",
                }
            );
        }
        for &(word, value) in Case::WORDS {
            assert_eq!(
                word,
                match value {
                    Case::Keep => "keep",
                    Case::Random => "random",
                }
            );
        }
        for &(word, value) in Accept::WORDS {
            assert_eq!(
                word,
                match value {
                    Accept::Positive => "positive",
                    Accept::Conclusive => "conclusive",
                    Accept::Any => "any",
                }
            );
        }
        for &(word, value) in Silence::WORDS {
            assert_eq!(
                word,
                match value {
                    Silence::Nxdomain => "nxdomain",
                    Silence::Servfail => "servfail",
                    Silence::Refused => "refused",
                    Silence::Drop => "drop",
                }
            );
        }
        for &(word, value) in Algorithm::WORDS {
            assert_eq!(
                word,
                match value {
                    Algorithm::HmacSha256 => "hmac-sha256",
                    Algorithm::HmacSha512 => "hmac-sha512",
                }
            );
        }
        for &(word, value) in LogFormat::WORDS {
            assert_eq!(
                word,
                match value {
                    LogFormat::Json => "json",
                    LogFormat::Logfmt => "logfmt",
                }
            );
        }
        for &(word, value) in ClientDetail::WORDS {
            assert_eq!(
                word,
                match value {
                    ClientDetail::Full => "full",
                    ClientDetail::Prefix => "prefix",
                    ClientDetail::None => "none",
                }
            );
        }
        for &(word, value) in NameDetail::WORDS {
            assert_eq!(
                word,
                match value {
                    NameDetail::Full => "full",
                    NameDetail::Parent => "parent",
                    NameDetail::None => "none",
                }
            );
        }
        for &(word, value) in Miss::WORDS {
            assert_eq!(
                word,
                match value {
                    Miss::Silent => "silent",
                    Miss::Nxdomain => "nxdomain",
                    Miss::Refused => "refused",
                }
            );
        }
    }

    #[test]
    fn words_are_read() {
        assert_eq!(word("sequential"), Ok(Dispatch::Sequential));
        assert_eq!(word("round-robin"), Ok(Balance::RoundRobin));
        assert_eq!(word("any"), Ok(Accept::Any));
        assert_eq!(word("drop"), Ok(Silence::Drop));
        assert_eq!(word("silent"), Ok(Miss::Silent));
        assert_eq!(grace("auto"), Ok(Grace::Auto));
        assert_eq!(attempt_timeout("auto"), Ok(AttemptTimeout::AUTO));
        assert_eq!(attempt_timeout("20ms"), Ok(AttemptTimeout::after(Duration::from_millis(20))));
        assert_eq!(grace("20ms"), Ok(Grace::After(Duration::from_millis(20))));
    }

    #[test]
    fn unknown_words_are_told_what_is_known() {
        check_error(
            word::<Dispatch>("hegde"),
            "expected one of race, hedge, sequential, auto; did you mean \"hedge\"?",
        );
        check_error(
            word::<Balance>("quickest"),
            "expected one of ordered, round-robin, random, sticky, hash, least-load, fastest",
        );
        check_error(
            grace("atuo"),
            "expected off, auto or a duration such as \"250ms\" or \"3s\"; did you mean \"auto\"?",
        );
    }

    #[test]
    fn hedge_delays_are_read() {
        for (text, delay) in [
            ("auto", HedgeDelay::Auto),
            ("p50", HedgeDelay::Percentile(0.5)),
            ("p95", HedgeDelay::Percentile(0.95)),
            ("40ms", HedgeDelay::Fixed(Duration::from_millis(40))),
            ("0s", HedgeDelay::Fixed(Duration::ZERO)),
        ] {
            assert_eq!(hedge_delay(text), Ok(delay), "{text}");
        }
        let Ok(HedgeDelay::Percentile(p)) = hedge_delay("p99.9") else { panic!("no percentile") };
        assert!((p - 0.999).abs() < 1e-12, "{p}");
        for text in ["p49.9", "p100", "p", "p-5", "pNaN", "pinf", "p5e1", "95", "2m"] {
            assert!(hedge_delay(text).is_err(), "{text}");
        }
        check_error(
            hedge_delay("p100"),
            "expected auto or a percentile from \"p50\" to \"p99.9\" \
             or a duration such as \"250ms\" or \"3s\"",
        );
    }

    #[test]
    fn a_bare_number_is_asked_for_its_unit() {
        for text in ["3", "0", "0.5"] {
            let expected = format!("expected a duration with its unit, such as \"{text}s\" or \"{text}ms\"");
            check_error(duration(text), &expected);
        }
        check_error(duration("3 parsecs"), "expected a duration such as \"250ms\" or \"3s\"");
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
    }

    #[test]
    fn ttls_are_whole_seconds_of_31_bits() {
        assert_eq!(ttl("0s"), Ok(Duration::ZERO));
        assert_eq!(ttl("2147483647s"), Ok(limits::TTL.max));
        for text in ["2147483648s", "1500ms"] {
            check_error(ttl(text), "expected whole seconds, at most 2147483647s");
        }
    }

    #[test]
    fn addresses_are_read_or_explained() {
        assert!(listen_address("[::1]:53").is_ok());
        assert!(listen_address("0.0.0.0:0").is_ok());
        let example = "such as \"127.0.0.1:53\" or \"[::1]:53\"";
        for (text, expected) in [
            ("localhost:53", format!("an IP address with its port, not a host name, {example}")),
            ("ns1.example", format!("an IP address with its port, not a host name, {example}")),
            ("127.0.0.1", "an address with its port, such as \"127.0.0.1:53\"".to_owned()),
            ("::1", "an address with its port, such as \"[::1]:53\"".to_owned()),
            ("127.0.0.1:99999", format!("an IP address with its port, {example}")),
            (":53", format!("an IP address with its port, {example}")),
            ("", format!("an IP address with its port, {example}")),
            ("fe80::x:53", format!("an IP address with its port, {example}")),
        ] {
            check_error(listen_address(text), &format!("expected {expected}"));
        }
    }

    #[test]
    fn backends_must_be_reachable_addresses() {
        check_error(backend_address("127.0.0.1:0"), "expected a port from 1 to 65535, since port 0 cannot be reached");
        for text in ["0.0.0.0:53", "[::]:53", "224.0.0.251:5353"] {
            assert!(backend_address(text).is_err(), "{text}");
        }
    }
}
