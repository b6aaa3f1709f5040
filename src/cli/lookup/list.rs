//! The list of questions, one `NAME [TYPE]` per line. The whole list is parsed before the first query leaves,
//! so that a bad line causes no partial run.

use super::name::{self, BadName};
use crate::wire::{Name, RecordType};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookupQuestion {
    /// The name as given; results show it in this form.
    pub(super) text: Box<str>,
    pub(super) name: Name,
    pub(super) rtype: RecordType,
}

impl LookupQuestion {
    pub(super) fn new(text: &str, rtype: RecordType) -> Result<Self, BadName> {
        Ok(Self { text: text.into(), name: name::parse(text)?, rtype })
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

/// The byte order mark that some editors write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_in_capitals_behind_a_name_is_its_type() {
        for (word, expected) in
            [("MX", true), ("TYPE65280", true), ("AXFR", true), ("mx", false), ("MX.", false), ("WWW", false)]
        {
            assert_eq!(is_type(word), expected, "{word}");
        }
    }

    fn check(list: &str, expected: &[(&str, &str)]) {
        let questions = read("list", list.as_bytes(), RecordType::A).expect(list);
        let read: Vec<_> = questions.iter().map(|one| (one.text.to_string(), one.rtype.to_string())).collect();
        let expected: Vec<_> = expected.iter().map(|(name, rtype)| (name.to_string(), rtype.to_string())).collect();
        assert_eq!(read, expected, "{list:?}");
    }

    /// Checks that the list is rejected with these messages.
    fn check_bad(list: &[u8], expected: &[&str]) {
        let bad = read("list", list, RecordType::A).expect_err("the list is bad");
        assert_eq!(bad, expected);
    }

    #[test]
    fn lists_are_read() {
        check("", &[]);
        check("\n \t\n\r\n# all\n  # indented\n", &[]);
        check("WWW.Google.com\r\n", &[("WWW.Google.com", "A")]);
        check("a.example\r\nb.example", &[("a.example", "A"), ("b.example", "A")]);
        check("\u{feff}a.example\n", &[("a.example", "A")]);
        check(" a.example\t mx \t# mail\n", &[("a.example", "MX")]);
        check(". ns\n", &[(".", "NS")]);
    }

    #[test]
    fn every_type_that_has_a_name_can_be_asked_for() {
        let refused: Vec<_> = RecordType::NAMED
            .iter()
            .filter(|(name, rtype)| parse_type(name) != Ok(*rtype))
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(refused, ["OPT", "TKEY", "TSIG", "IXFR", "AXFR"]);
        assert_eq!(parse_type("type65280"), Ok(RecordType(65280)));
        for text in ["", "AAA", "TYPE", "TYPE+1", "TYPE65536", "TYPE251", "TYPE0", "1"] {
            assert!(parse_type(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_bad_line_is_reported_with_its_place() {
        check_bad(
            b"a..b\nok.example\n  c.example  AAA\nd.example A A\r\n",
            &[
                "list:1:3: empty label: dots stand between labels, one at a time",
                "list:3:14: unknown type \"AAA\", expected one such as A, AAAA, MX, ANY or TYPE65280",
                "list:4:13: unexpected \"A\", expected NAME [TYPE]",
            ],
        );
        check_bad(b"a.example AXFR", &["list:1:11: AXFR is a zone transfer, expected a record type such as A or SOA"]);
        check_bad(b"ok\nab\xff", &["list:2:3: not UTF-8, expected NAME [TYPE]"]);
        check_bad(
            "bücher.example ä".as_bytes(),
            &["list:1:16: unknown type \"ä\", expected one such as A, AAAA, MX, ANY or TYPE65280"],
        );
        check_bad(
            b"a\x1b[31m",
            &[r#"list:1:2: control character or blank '\u{1b}', in a name it is written as "\DDD""#],
        );
    }
}
