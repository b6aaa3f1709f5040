//! The list of questions, one `NAME [TYPE]` per line. The whole list is parsed before the first query leaves,
//! so that a bad line causes no partial run.

use dns::{Name, RecordType};
use hickory_proto::rr::Name as InternationalName;
use hickory_proto::serialize::binary::BinEncodable;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookupQuestion {
    /// The name as given; results show it in this form.
    pub(super) text: Box<str>,
    pub(super) name: Name,
    pub(super) rtype: RecordType,
}

impl LookupQuestion {
    pub(super) fn new(text: &str, rtype: RecordType) -> Result<Self, BadName> {
        Ok(Self { text: text.into(), name: parse_name(text)?, rtype })
    }
}

/// Parses a whole list; lines without a type have type `default`. All bad lines are reported together, each
/// as `place:line:column: what`.
pub(super) fn read(place: &str, bytes: &[u8], default: RecordType) -> Result<Vec<LookupQuestion>, Vec<String>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let (mut questions, mut bad) = (Vec::new(), Vec::new());
    for (line, bytes) in (1..).zip(bytes.split(|&octet| octet == b'\n')) {
        match read_line(bytes, default) {
            Ok(question) => questions.extend(question),
            Err(BadName { offset, what }) => {
                let before = bytes.get(..offset).unwrap_or(bytes);
                let column = String::from_utf8_lossy(before).chars().count() + 1;
                bad.push(format!("{place}:{line}:{column}: {what}"));
            }
        }
    }
    if bad.is_empty() { Ok(questions) } else { Err(bad) }
}

fn read_line(line: &[u8], default: RecordType) -> Result<Option<LookupQuestion>, BadName> {
    let line = str::from_utf8(line)
        .map_err(|error| BadName { offset: error.valid_up_to(), what: "not UTF-8, expected NAME [TYPE]".into() })?;
    let mut fields = fields(line);
    let Some((name_at, name)) = fields.next() else {
        return Ok(None);
    };
    let rtype = match fields.next() {
        Some((offset, text)) => parse_type(text).map_err(|what| BadName { offset, what })?,
        None => default,
    };
    if let Some((offset, text)) = fields.next() {
        return Err(BadName { offset, what: format!("unexpected {text:?}, expected NAME [TYPE]") });
    }
    let question = LookupQuestion::new(name, rtype);
    question.map(Some).map_err(|bad| BadName { offset: name_at + bad.offset, ..bad })
}

/// Returns true if a word after a name on the command line is its type, as in dig: a type in capitals. A host
/// of this name is written with a final dot.
pub(super) fn is_type(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase()) && word.parse::<RecordType>().is_ok()
}

pub(super) fn parse_type(text: &str) -> Result<RecordType, String> {
    let unknown = |_| format!("unknown type {text:?}, expected one such as A, AAAA, MX, ANY or TYPE65280");
    match text.parse().map_err(unknown)? {
        rtype @ (RecordType::AXFR | RecordType::IXFR) => {
            Err(format!("{rtype} is a zone transfer, expected a record type such as A or SOA"))
        }
        // RFC 6895 section 3.1: 0 is reserved, and these belong to a message as a whole.
        rtype @ (RecordType(0) | RecordType::OPT | RecordType::TKEY | RecordType::TSIG) => {
            Err(format!("{rtype} cannot be asked for, expected a record type such as A or MX"))
        }
        rtype => Ok(rtype),
    }
}

/// Splits a line into fields up to a comment, each with its offset. A carriage return counts as a blank.
fn fields(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    line.split([' ', '\t', '\r'])
        .map(move |field| {
            let offset = next;
            next += field.len() + 1;
            (offset, field)
        })
        .filter(|(_, field)| !field.is_empty())
        .take_while(|(_, field)| !field.starts_with('#'))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadName {
    pub(super) offset: usize,
    pub(super) what: String,
}

/// Parses a name as absolute, with or without a final dot. hickory-proto converts letters outside ASCII to
/// Punycode (IDNA).
fn parse_name(text: &str) -> Result<Name, BadName> {
    // Results show the text as given, possibly on a terminal.
    if let Some((offset, letter)) =
        text.char_indices().find(|(_, letter)| letter.is_control() || letter.is_whitespace())
    {
        let what = format!("control character or blank {letter:?}, in a name it is written as \"\\DDD\"");
        return Err(BadName { offset, what });
    }
    if text.is_ascii() {
        return Name::parse(text).map_err(|(offset, error)| BadName { offset, what: error.to_string() });
    }
    // RFC 5891, as in dig.
    let mut name = InternationalName::from_utf8(text)
        .map_err(|error| BadName { offset: 0, what: format!("{text:?} is no domain name: {error}") })?;
    name.set_fqdn(true);
    let wire = name.to_bytes().unwrap_or_default();
    Name::from_wire(&wire).map_err(|error| BadName { offset: 0, what: error.to_string() })
}

/// The byte order mark that some editors write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests;
