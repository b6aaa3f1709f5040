//! Lines of the query log: JSON or logfmt, and always exactly one line, whatever bytes a name has.

use std::cell::Cell;
use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use config::{LogFormat, QueryLogConfig};
use dns::{RecordClass, RecordType, display_name};

use super::super::privacy::{CutAddress, cut_client, cut_name};
use super::super::{TapOrigin, TapResponse};

/// The text before a value in each format: a separator and the key.
macro_rules! key {
    ($name:literal) => {
        [concat!(" ", $name, "="), concat!(",\"", $name, "\":")]
    };
}

/// Returns the maximum length of a line: each byte of a configured name may take six.
pub(super) fn max_len(response: &TapResponse<'_>) -> usize {
    let TapOrigin { rule, resolution } = response.origin;
    let winner = resolution.and_then(|resolution| resolution.winner);
    let names = [rule, resolution.map(|resolution| resolution.pool), winner.map(|(backend, _)| backend)];
    MAX_LINE + 6 * names.into_iter().flatten().map(str::len).sum::<usize>()
}

/// Appends a response, or the lack of one, as a line. `weight` is the number of queries that it stands for.
pub(super) fn write(config: &QueryLogConfig, response: &TapResponse<'_>, at: Duration, weight: f64, out: &mut Vec<u8>) {
    let is_json = config.format == LogFormat::Json;
    let mut line = Line { is_json, out };
    line.time(at);
    if let Some(client) = cut_client(config.client, response.client.ip()) {
        line.client(client);
    }
    line.text(key!("transport"), response.transport.label());
    if let Some((qname, &[t0, t1, c0, c1])) = response.question.and_then(<[u8]>::split_last_chunk) {
        let qname = cut_name(config.names, qname);
        if !qname.is_empty() {
            line.name(key!("name"), qname);
        }
        let (qtype, qclass) = (RecordType(u16::from_be_bytes([t0, t1])), RecordClass(u16::from_be_bytes([c0, c1])));
        line.code(key!("type"), qtype.name(), qtype);
        if qclass != RecordClass::IN {
            line.code(key!("class"), qclass.name(), qclass);
        }
    }
    if let Some((source, rcode)) = response.said {
        line.code(key!("rcode"), rcode.name(), rcode);
        line.text(key!("source"), source.label());
    }
    if let Some(rule) = response.origin.rule {
        line.text(key!("rule"), rule);
    }
    let resolution = response.origin.resolution.as_ref();
    if let Some(resolution) = resolution {
        line.text(key!("pool"), resolution.pool);
        if let Some((backend, kind)) = resolution.winner {
            line.text(key!("backend"), backend);
            line.text(key!("kind"), kind.label());
        }
    }
    if let Some(since) = response.since {
        let micros = response.now.saturating_duration_since(since).as_micros() as u64;
        line.number(key!("took_ms"), micros / 1000);
        line.out.push(b'.');
        line.digits(micros % 1000, 3);
    }
    if let Some(resolution) = resolution {
        line.number(key!("attempts"), resolution.attempts.into());
    }
    if response.said.is_some() {
        line.number(key!("size"), response.message.len() as u64);
    }
    if let Some(ede) = dns::extended_error(response.message) {
        line.number(key!("ede"), ede.into());
    }
    // Only a few shares have a weight with a fraction.
    match weight as u64 {
        whole if whole as f64 == weight => line.number(key!("weight"), whole),
        _ => {
            line.key(key!("weight"));
            let _ = write!(line.out, "{weight}");
        }
    }
    out.extend_from_slice(if is_json { b"}\n" } else { b"\n" });
}

thread_local! {
    /// The second in the previous line and its text, which most lines share.
    static SECOND: Cell<(u64, [u8; SECOND_LEN])> = const { Cell::new((u64::MAX, [0; SECOND_LEN])) };
}

const SECOND_LEN: usize = "2023-11-14T22:13:20".len();

type Key = [&'static str; 2];

struct Line<'a> {
    is_json: bool,
    out: &'a mut Vec<u8>,
}

impl Line<'_> {
    fn time(&mut self, at: Duration) {
        let (mut second, mut text) = SECOND.get();
        if second != at.as_secs() {
            second = at.as_secs();
            let _ = write!(&mut text[..], "{}", humantime::format_rfc3339_seconds(UNIX_EPOCH + at));
            SECOND.set((second, text));
        }
        self.out.extend_from_slice(if self.is_json { b"{\"at\":\"" } else { b"at=" });
        self.out.extend_from_slice(&text);
        self.out.push(b'.');
        self.digits(at.subsec_micros().into(), 6);
        self.out.push(b'Z');
        self.quote();
    }

    fn client(&mut self, CutAddress { ip, prefix }: CutAddress) {
        self.key(key!("client"));
        self.quote();
        match ip {
            IpAddr::V4(ip) => {
                for octet in ip.octets() {
                    self.digits(octet.into(), 1);
                    self.out.push(b'.');
                }
                self.out.pop();
            }
            IpAddr::V6(ip) => drop(write!(self.out, "{ip}")),
        }
        if let Some(prefix) = prefix {
            self.out.push(b'/');
            self.digits(prefix.into(), 1);
        }
        self.quote();
    }

    fn key(&mut self, key: Key) {
        self.out.extend_from_slice(key[usize::from(self.is_json)].as_bytes());
    }

    /// Writes a quotation mark around a value that logfmt does not quote.
    fn quote(&mut self) {
        if self.is_json {
            self.out.push(b'"');
        }
    }

    /// Writes a number with at least this many digits.
    fn digits(&mut self, mut number: u64, least: usize) {
        let mut text = [b'0'; 20];
        let mut at = text.len();
        while number > 0 || text.len() - at < least {
            at -= 1;
            text[at] += (number % 10) as u8;
            number /= 10;
        }
        self.out.extend_from_slice(&text[at..]);
    }

    fn number(&mut self, key: Key, number: u64) {
        self.key(key);
        self.digits(number, 1);
    }

    fn code(&mut self, key: Key, name: Option<&str>, code: impl Display) {
        match name {
            Some(name) => self.text(key, name),
            None => self.escaped(key, code),
        }
    }

    fn text(&mut self, key: Key, value: &str) {
        if !value.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'"' | b'\\' | b'=')) {
            return self.escaped(key, value);
        }
        self.key(key);
        self.quote();
        self.out.extend_from_slice(value.as_bytes());
        self.quote();
    }

    /// Writes any text, in logfmt with quotes if it needs them.
    fn escaped(&mut self, key: Key, value: impl Display) {
        self.key(key);
        let start = self.out.len();
        self.out.push(b'"');
        let mut escaped = JsonEscaper { out: self.out, needs_quotes: false };
        let _ = write!(escaped, "{value}");
        let needs_quotes = escaped.needs_quotes || self.out.len() == start + 1;
        match self.is_json || needs_quotes {
            true => self.out.push(b'"'),
            false => drop(self.out.remove(start)),
        }
    }

    /// Writes a name in wire form as text (RFC 1035 section 5.1). Most names need no escapes, and are copied.
    fn name(&mut self, key: Key, wire: &[u8]) {
        if !labels(wire).all(|label| label.iter().all(is_plain)) || labels(wire).next().is_none() {
            return self.escaped(key, display_name(wire));
        }
        self.key(key);
        self.quote();
        for label in labels(wire) {
            self.out.extend_from_slice(label);
            self.out.push(b'.');
        }
        self.quote();
    }
}

fn labels(mut wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&len, rest) = wire.split_first().filter(|(len, _)| **len > 0)?;
        let (label, rest) = rest.split_at_checked(len.into())?;
        wire = rest;
        Some(label)
    })
}

/// Returns true if a byte of a label needs no escape, in master files and in both formats.
fn is_plain(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'*')
}

/// Writes text as in a JSON string (RFC 8259 section 7), which logfmt shares.
struct JsonEscaper<'a> {
    out: &'a mut Vec<u8>,
    /// True if the text contains a character that ends an unquoted value of logfmt.
    needs_quotes: bool,
}

impl fmt::Write for JsonEscaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' | '\\' => self.out.extend_from_slice(&[b'\\', character as u8]),
                // Some readers take controls of Latin-1 and the Unicode separators for line ends.
                '\0'..='\x1F' | '\x7F'..='\u{9F}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self.out, "\\u{:04x}", u32::from(character));
                }
                _ => self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            self.needs_quotes |= !matches!(character, '!'..='~') || matches!(character, '"' | '\\' | '=');
        }
        Ok(())
    }
}

/// The longest line without the configured names: each byte of a queried name may take five.
const MAX_LINE: usize = 2048;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use config::ClientDetail;
    use dns::{Name, Rcode, Transport};
    use hedge::race::AttemptKind;
    use metrics::ResponseSource;
    use proptest::prelude::*;

    use super::super::super::{Side, TapResolution};
    use super::*;

    const AT: Duration = Duration::new(1_700_000_000, 123_456_789);

    const QUESTION: &[u8] = b"\x03www\x07example\0\0\x1C\0\x01";

    /// Returns a response of 512 octets with the extended error 22, padded (RFC 7830).
    fn message() -> Vec<u8> {
        let head = [&b"\0\0\x80\0\0\x01\0\0\0\0\0\x01"[..], QUESTION].concat();
        let padding = 512 - head.len() - 21;
        let opt =
            [&b"\0\0\x29\x04\xD0\0\0\0\0"[..], &(padding as u16 + 10).to_be_bytes(), b"\0\x0F\0\x02\0\x16"].concat();
        [&head[..], &opt, b"\0\x0C", &(padding as u16).to_be_bytes(), &vec![0; padding]].concat()
    }

    fn response<'a>(question: &'a [u8], pool: &'a str, message: &'a [u8]) -> TapResponse<'a> {
        let since = Instant::now();
        let resolution = TapResolution {
            pool,
            slow_threshold: Duration::ZERO,
            winner: Some(("ts 1", AttemptKind::Failover)),
            attempts: 2,
            is_hedged: false,
        };
        TapResponse {
            side: Side::Forwarder,
            client: "[2001:db8::1]:53".parse().expect("an address"),
            local: None,
            transport: Transport::Tcp,
            since: Some(since),
            now: since + Duration::from_nanos(12_345_678),
            hash: None,
            question: Some(question),
            message,
            said: Some((ResponseSource::Backend, Rcode::NOERROR)),
            queries: 1,
            origin: TapOrigin { rule: None, resolution: Some(resolution) },
        }
    }

    fn line(format: LogFormat, response: &TapResponse<'_>) -> String {
        let mut out = Vec::new();
        write(&QueryLogConfig { format, ..QueryLogConfig::default() }, response, AT, 1.0 / 0.3, &mut out);
        assert!(out.len() <= max_len(response));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_line_has_what_is_known() {
        let message = message();
        let response = response(QUESTION, "ts", &message);
        let json = concat!(
            r#"{"at":"2023-11-14T22:13:20.123456Z","client":"2001:db8::/56","transport":"tcp","name":"www.example.","#,
            r#""type":"AAAA","rcode":"NOERROR","source":"backend","pool":"ts","backend":"ts 1","kind":"failover","#,
            r#""took_ms":12.345,"attempts":2,"size":512,"ede":22,"weight":3.3333333333333335}"#,
            "\n"
        );
        assert_eq!(line(LogFormat::Json, &response), json);
        let logfmt = concat!(
            "at=2023-11-14T22:13:20.123456Z client=2001:db8::/56 transport=tcp name=www.example. type=AAAA ",
            "rcode=NOERROR source=backend pool=ts backend=\"ts 1\" kind=failover took_ms=12.345 attempts=2 size=512 ",
            "ede=22 weight=3.3333333333333335\n"
        );
        assert_eq!(line(LogFormat::Logfmt, &response), logfmt);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let known = response(b"\0\0\x10\0\x03", "ts", &[]);
        let nothing = TapResponse { since: None, question: None, said: None, origin: TapOrigin::default(), ..known };
        let config = QueryLogConfig { client: ClientDetail::Full, ..QueryLogConfig::default() };
        let mut lines = Vec::new();
        write(&config, &TapResponse { client: "192.0.2.10:1".parse().unwrap(), ..nothing }, AT, 2.0, &mut lines);
        write(
            &QueryLogConfig { client: ClientDetail::None, ..config },
            &nothing,
            AT + Duration::from_secs(1),
            100.0,
            &mut lines,
        );
        let expected = concat!(
            r#"{"at":"2023-11-14T22:13:20.123456Z","client":"192.0.2.10","transport":"tcp","weight":2}"#,
            "\n",
            r#"{"at":"2023-11-14T22:13:21.123456Z","transport":"tcp","weight":100}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(lines).as_deref(), Ok(expected));
        assert!(line(LogFormat::Json, &known).contains(r#""name":".","type":"TXT","class":"CH""#));
    }

    proptest! {
        /// Any name and any labels of the config make one line with these values.
        #[test]
        fn no_name_breaks_a_line(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..=63), 0..=3),
            pool in ".{0,9}",
        ) {
            let mut wire = Vec::new();
            for label in labels {
                wire.push(label.len() as u8);
                wire.extend_from_slice(&label);
            }
            wire.push(0);
            let question = [&wire[..], &[0, 28, 0, 1]].concat();
            let response = response(&question, &pool, &[]);
            let json = line(LogFormat::Json, &response);
            prop_assert_eq!(json.lines().count(), 1);
            prop_assert!(json.ends_with('\n') && !json.contains('\r'));
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            let name: Name = value["name"].as_str().expect("a string").parse().expect("a name");
            prop_assert_eq!(name.as_wire(), &wire[..]);
            prop_assert_eq!(value["pool"].as_str().unwrap_or_default(), &*pool);
            let logfmt = line(LogFormat::Logfmt, &response);
            prop_assert_eq!(logfmt.lines().count(), 1);
            let (_, rest) = logfmt.split_once(" name=").expect("the key");
            let (quoted, rest) = match rest.strip_prefix('"') {
                Some(rest) => rest.split_once("\" type=").expect("the end of the value"),
                None => rest.split_once(" type=").expect("the next key"),
            };
            prop_assert!(rest.starts_with("AAAA "));
            let name: Name = serde_json::from_str::<String>(&format!("\"{quoted}\"")).expect("a string").parse().expect("a name");
            prop_assert_eq!(name.as_wire(), &wire[..]);
        }
    }
}
