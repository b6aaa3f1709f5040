//! Lines of the query log: JSON or logfmt, and always exactly one line, whatever bytes a name has.

use std::fmt::{self, Display, Write};
use std::time::UNIX_EPOCH;

use config::LogFormat;
use dns::{Rcode, RecordClass, RecordType, display_name};

use super::record::{QueryRecord, RecordAddress};

/// Appends a record as a line. `weight` is the number of queries that a sampled one stands for.
pub(super) fn write(format: LogFormat, record: &QueryRecord<'_>, weight: f64, out: &mut Vec<u8>) {
    let mut fields = Fields { format, out, is_first: true };
    if format == LogFormat::Json {
        fields.out.push(b'{');
    }
    fields.text("at", humantime::format_rfc3339_micros(UNIX_EPOCH + record.at));
    if let Some(RecordAddress { ip, prefix }) = record.client {
        match prefix {
            Some(prefix) => fields.text("client", format_args!("{ip}/{prefix}")),
            None => fields.text("client", ip),
        }
    }
    if let Some(transport) = record.transport {
        fields.text("transport", transport.label());
    }
    if !record.qname.is_empty() {
        fields.name("name", record.qname);
    }
    if let Some((qtype, qclass)) = record.qtype_qclass {
        fields.text("type", RecordType(qtype));
        if RecordClass(qclass) != RecordClass::IN {
            fields.text("class", RecordClass(qclass));
        }
    }
    if let Some((source, rcode)) = record.said {
        fields.text("rcode", Rcode(rcode));
        fields.text("source", source.label());
    }
    for (key, value) in [("rule", record.origin.rule), ("pool", record.origin.pool), ("backend", record.origin.backend)]
    {
        if !value.is_empty() {
            fields.text(key, value);
        }
    }
    if let Some(kind) = record.origin.kind {
        fields.text("kind", kind.label());
    }
    if let Some(took) = record.took {
        let micros = took.as_micros();
        fields.number("took_ms", format_args!("{}.{:03}", micros / 1000, micros % 1000));
    }
    if !record.origin.pool.is_empty() {
        fields.number("attempts", record.origin.attempts);
    }
    if record.said.is_some() {
        fields.number("size", record.size);
    }
    if let Some(ede) = record.ede {
        fields.number("ede", ede);
    }
    let weight = if record.is_certain { 1.0 } else { weight };
    fields.number("weight", weight * f64::from(record.queries));
    if format == LogFormat::Json {
        fields.out.push(b'}');
    }
    fields.out.push(b'\n');
}

struct Fields<'a> {
    format: LogFormat,
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl Fields<'_> {
    fn key(&mut self, key: &str) {
        match (self.format, self.is_first) {
            (_, true) => {}
            (LogFormat::Json, false) => self.out.push(b','),
            (LogFormat::Logfmt, false) => self.out.push(b' '),
        }
        self.is_first = false;
        match self.format {
            LogFormat::Json => {
                self.out.push(b'"');
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            LogFormat::Logfmt => {
                self.out.extend_from_slice(key.as_bytes());
                self.out.push(b'=');
            }
        }
    }

    fn number(&mut self, key: &str, value: impl Display) {
        self.key(key);
        let _ = write!(Plain(self.out), "{value}");
    }

    /// Writes any text, in logfmt with quotes if it needs them.
    fn text(&mut self, key: &str, value: impl Display) {
        self.key(key);
        let start = self.out.len();
        self.out.push(b'"');
        let mut escaped = JsonEscaper { out: self.out, needs_quotes: false };
        let _ = write!(escaped, "{value}");
        let needs_quotes = escaped.needs_quotes || self.out.len() == start + 1;
        match self.format {
            LogFormat::Logfmt if !needs_quotes => drop(self.out.remove(start)),
            LogFormat::Logfmt | LogFormat::Json => self.out.push(b'"'),
        }
    }

    /// Writes a name in wire form as text (RFC 1035 section 5.1). Most names need no escapes, and are copied.
    fn name(&mut self, key: &str, wire: &[u8]) {
        if !labels(wire).flatten().all(|octet| is_plain(*octet)) || labels(wire).next().is_none() {
            return self.text(key, display_name(wire));
        }
        self.key(key);
        let quote: &[u8] = if self.format == LogFormat::Json { b"\"" } else { b"" };
        self.out.extend_from_slice(quote);
        for label in labels(wire) {
            self.out.extend_from_slice(label);
            self.out.push(b'.');
        }
        self.out.extend_from_slice(quote);
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
fn is_plain(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'*')
}

struct Plain<'a>(&'a mut Vec<u8>);

impl Write for Plain<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Writes text as in a JSON string (RFC 8259 section 7), which logfmt shares.
struct JsonEscaper<'a> {
    out: &'a mut Vec<u8>,
    /// True if the text contains a character that ends an unquoted value of logfmt.
    needs_quotes: bool,
}

impl Write for JsonEscaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '"' | '\\' => self.out.extend_from_slice(&[b'\\', character as u8]),
                // Some readers take controls of Latin-1 and the Unicode separators for line ends.
                '\0'..='\x1F' | '\x7F'..='\u{9F}' | '\u{2028}' | '\u{2029}' => {
                    write!(Plain(self.out), "\\u{:04x}", u32::from(character))?;
                }
                _ => self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            self.needs_quotes |= !matches!(character, '!'..='~') || matches!(character, '"' | '\\' | '=');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dns::{Name, Transport};
    use hedge::race::AttemptKind;
    use metrics::ResponseSource;
    use proptest::prelude::*;

    use super::super::record::RecordOrigin;
    use super::*;

    /// The longest line without the names of pool and backend: each byte of a name may take five.
    const MAX_LINE: usize = 2048;

    fn line(format: LogFormat, record: &QueryRecord<'_>) -> String {
        let mut out = Vec::new();
        write(format, record, 1.0 / 0.3, &mut out);
        String::from_utf8(out).expect("text")
    }

    fn record() -> QueryRecord<'static> {
        QueryRecord {
            at: Duration::new(1_700_000_000, 123_456_789),
            client: Some(RecordAddress { ip: "2001:db8::".parse().expect("an address"), prefix: Some(56) }),
            transport: Some(Transport::Tcp),
            qname: b"\x03www\x07example\0",
            qtype_qclass: Some((28, 1)),
            said: Some((ResponseSource::Backend, 0)),
            origin: RecordOrigin {
                rule: "",
                pool: "ts",
                backend: "ts 1",
                kind: Some(AttemptKind::Failover),
                attempts: 2,
            },
            took: Some(Duration::from_nanos(12_345_678)),
            size: 512,
            ede: Some(22),
            queries: 1,
            is_certain: false,
        }
    }

    #[test]
    fn a_line_has_what_is_known() {
        let json = concat!(
            r#"{"at":"2023-11-14T22:13:20.123456Z","client":"2001:db8::/56","transport":"tcp","name":"www.example.","#,
            r#""type":"AAAA","rcode":"NOERROR","source":"backend","pool":"ts","backend":"ts 1","kind":"failover","#,
            r#""took_ms":12.345,"attempts":2,"size":512,"ede":22,"weight":3.3333333333333335}"#,
            "\n"
        );
        assert_eq!(line(LogFormat::Json, &record()), json);
        let logfmt = concat!(
            "at=2023-11-14T22:13:20.123456Z client=2001:db8::/56 transport=tcp name=www.example. type=AAAA ",
            "rcode=NOERROR source=backend pool=ts backend=\"ts 1\" kind=failover took_ms=12.345 attempts=2 size=512 ",
            "ede=22 weight=3.3333333333333335\n"
        );
        assert_eq!(line(LogFormat::Logfmt, &record()), logfmt);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let record = QueryRecord { at: Duration::from_secs(1), queries: 2, is_certain: true, ..QueryRecord::default() };
        assert_eq!(line(LogFormat::Json, &record), "{\"at\":\"1970-01-01T00:00:01.000000Z\",\"weight\":2}\n");
        assert_eq!(line(LogFormat::Logfmt, &record), "at=1970-01-01T00:00:01.000000Z weight=2\n");
        let chaos = QueryRecord { qname: b"\0", qtype_qclass: Some((16, 3)), ..record };
        assert!(line(LogFormat::Json, &chaos).contains(r#""name":".","type":"TXT","class":"CH""#));
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
            let known = record();
            let origin = RecordOrigin { pool: &pool, ..known.origin };
            let record = QueryRecord { qname: &wire, origin, ..known };
            let json = line(LogFormat::Json, &record);
            prop_assert!(json.len() < MAX_LINE);
            prop_assert_eq!(json.lines().count(), 1);
            prop_assert!(json.ends_with('\n') && !json.contains('\r'));
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            let name: Name = value["name"].as_str().expect("a string").parse().expect("a name");
            prop_assert_eq!(name.as_wire(), &wire[..]);
            prop_assert_eq!(value["pool"].as_str().unwrap_or_default(), &*pool);
            let logfmt = line(LogFormat::Logfmt, &record);
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
