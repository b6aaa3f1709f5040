//! The list of questions: one `NAME [TYPE]` a line. All of it is read before the first query leaves, so
//! that a bad line costs no half-done work.

use std::fmt;

use hickory_proto::rr::Name;

use super::name::{self, BadName};
use super::rtype::Type;

/// One question to look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The name as it was given: results show it like this.
    pub(super) text: Box<str>,
    /// The same, understood.
    pub(super) name: Name,
    /// The type asked for.
    pub(super) rtype: Type,
}

impl Question {
    /// A question for the name `text`.
    pub(super) fn new(text: &str, rtype: Type) -> Result<Self, BadName> {
        Ok(Self { text: text.into(), name: name::parse(text)?, rtype })
    }
}

/// A line that cannot be read; displays as `place:line:column: what`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// The file.
    place: String,
    /// The line, from 1.
    line: usize,
    /// The character in the line, from 1.
    column: usize,
    /// The thing and the remedy.
    what: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.place, self.line, self.column, self.what)
    }
}

/// Reads a whole list; a line without a type is of type `default`. All bad lines are reported at once.
pub(super) fn read(place: &str, bytes: &[u8], default: Type) -> Result<Vec<Question>, Vec<BadLine>> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let (mut questions, mut bad) = (Vec::new(), Vec::new());
    for (line, bytes) in (1..).zip(bytes.split(|&octet| octet == b'\n')) {
        match read_line(bytes, default) {
            Ok(question) => questions.extend(question),
            Err(BadName { offset, what }) => {
                let before = bytes.get(..offset).unwrap_or(bytes);
                let column = String::from_utf8_lossy(before).chars().count() + 1;
                bad.push(BadLine { place: place.to_owned(), line, column, what });
            }
        }
    }
    if bad.is_empty() { Ok(questions) } else { Err(bad) }
}

/// Reads one line; `None` if it is blank or a comment.
fn read_line(line: &[u8], default: Type) -> Result<Option<Question>, BadName> {
    let line = str::from_utf8(line)
        .map_err(|error| BadName { offset: error.valid_up_to(), what: "not UTF-8, expected NAME [TYPE]".into() })?;
    let mut fields = fields(line);
    let Some((name_at, name)) = fields.next() else {
        return Ok(None);
    };
    let rtype = match fields.next() {
        Some((offset, text)) => text.parse().map_err(|what| BadName { offset, what })?,
        None => default,
    };
    if let Some((offset, text)) = fields.next() {
        return Err(BadName { offset, what: format!("unexpected {text:?}, expected NAME [TYPE]") });
    }
    let question = Question::new(name, rtype);
    question.map(Some).map_err(|bad| BadName { offset: name_at + bad.offset, ..bad })
}

/// The fields of a line up to a comment, each with its offset. A carriage return counts as a blank.
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

/// What some editors write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

#[cfg(test)]
mod tests {
    use super::*;

    /// The list is read as these names and types.
    fn check(list: &str, expected: &[(&str, &str)]) {
        let questions = read("list", list.as_bytes(), Type::A).expect(list);
        let read: Vec<_> = questions.iter().map(|one| (one.text.to_string(), one.rtype.to_string())).collect();
        let expected: Vec<_> = expected.iter().map(|(name, rtype)| (name.to_string(), rtype.to_string())).collect();
        assert_eq!(read, expected, "{list:?}");
    }

    /// The list is refused with these messages.
    fn check_bad(list: &[u8], expected: &[&str]) {
        let bad = read("list", list, Type::A).expect_err("the list is bad");
        assert_eq!(bad.iter().map(BadLine::to_string).collect::<Vec<_>>(), expected);
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
    fn every_bad_line_is_reported_with_its_place() {
        check_bad(
            b"a..b\nok.example\n  c.example  AAA\nd.example A A\r\n",
            &[
                "list:1:3: empty label, a name has no dot in front and no two dots in a row",
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
