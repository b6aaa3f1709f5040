//! Domain names as text, both ways. hickory-proto reads and writes `\DDD` in octal, master files mean
//! decimal (RFC 1035 section 5.1), so text is handled here and hickory only sees labels.

use std::fmt;

use hickory_proto::rr::Name;

/// What is wrong with a name, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadName {
    /// Octets of the text before the place that is wrong.
    pub(super) offset: usize,
    /// The thing and the remedy.
    pub(super) what: String,
}

/// Reads a name; with or without a final dot, it is taken as absolute.
pub(super) fn parse(text: &str) -> Result<Name, BadName> {
    if text == "." {
        return Ok(Name::root());
    }
    // Results show the text as it was given, maybe on a terminal.
    if let Some((offset, letter)) = text.char_indices().find(|(_, letter)| is_unseen(*letter)) {
        let what = format!("control character or blank {letter:?}, in a name it is written as \"\\DDD\"");
        return Err(BadName { offset, what });
    }
    if !text.is_ascii() {
        return parse_international(text);
    }
    let mut labels: Vec<Vec<u8>> = Vec::new();
    let mut label = Vec::new();
    let mut label_at = 0;
    let mut rest = text.bytes().enumerate();
    while let Some((at, octet)) = rest.next() {
        match octet {
            b'.' => {
                labels.push(checked_label(std::mem::take(&mut label), label_at)?);
                label_at = at + 1;
            }
            b'\\' => match unescape(&mut rest) {
                Some(octet) => label.push(octet),
                None => {
                    return Err(BadName { offset: at, what: BAD_ESCAPE.into() });
                }
            },
            _ => label.push(octet),
        }
    }
    if label_at < text.len() || text.is_empty() {
        labels.push(checked_label(label, label_at)?);
    }
    // RFC 1035 section 3.1: each label has a length octet, and the root is one more.
    let octets = labels.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
    if octets > MAX_NAME {
        let what = format!("name of {octets} octets, {MAX_NAME} is the most");
        return Err(BadName { offset: 0, what });
    }
    absolute(Name::from_labels(labels), text)
}

/// A name that displays in master-file form with its final dot.
pub(super) struct Absolute<'a>(pub(super) &'a Name);

impl fmt::Display for Absolute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_root() {
            return f.write_str(".");
        }
        for label in self.0 {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => write!(f, "\\{}", char::from(octet))?,
                    0x21..=0x7e => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

/// A name with letters outside ASCII goes through IDNA (RFC 5891), as in dig.
fn parse_international(text: &str) -> Result<Name, BadName> {
    absolute(Name::from_utf8(text), text)
}

/// Whether a character would do something to a terminal or to the fields of a line, other than being seen.
fn is_unseen(letter: char) -> bool {
    letter.is_control() || letter.is_whitespace()
}

/// Marks what hickory made as absolute: its names are unequal if only one has a final dot.
fn absolute<E: fmt::Display>(name: Result<Name, E>, text: &str) -> Result<Name, BadName> {
    let mut name = name.map_err(|error| BadName { offset: 0, what: format!("{text:?} is no domain name: {error}") })?;
    name.set_fqdn(true);
    Ok(name)
}

/// A label that is neither empty nor too long.
fn checked_label(label: Vec<u8>, offset: usize) -> Result<Vec<u8>, BadName> {
    match label.len() {
        0 => Err(BadName { offset, what: "empty label, a name has no dot in front and no two dots in a row".into() }),
        1..=MAX_LABEL => Ok(label),
        octets => Err(BadName { offset, what: format!("label of {octets} octets, {MAX_LABEL} is the most") }),
    }
}

/// The octet that the text behind a backslash stands for.
fn unescape(rest: &mut impl Iterator<Item = (usize, u8)>) -> Option<u8> {
    let (_, first) = rest.next()?;
    if !first.is_ascii_digit() {
        return Some(first);
    }
    let mut value = u16::from(first - b'0');
    for _ in 0..2 {
        let (_, digit) = rest.next().filter(|(_, octet)| octet.is_ascii_digit())?;
        value = value * 10 + u16::from(digit - b'0');
    }
    u8::try_from(value).ok()
}

/// RFC 1035 section 5.1.
const BAD_ESCAPE: &str = r#"bad escape, expected "\" and a character, or "\" and three decimal digits up to 255"#;
/// RFC 1035 section 2.3.4.
const MAX_LABEL: usize = 63;
/// RFC 1035 section 2.3.4, in octets on the wire.
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use hickory_proto::serialize::binary::BinEncodable;
    use proptest::prelude::*;

    use super::*;

    /// `text` is read, and written as `written`.
    fn check(text: &str, written: &str) {
        let name = parse(text).unwrap_or_else(|bad| panic!("{text}: {bad:?}"));
        assert_eq!(Absolute(&name).to_string(), written);
    }

    /// `text` is refused at `offset`.
    fn check_bad(text: &str, offset: usize) {
        let bad = parse(text).expect_err(text);
        assert_eq!(bad.offset, offset, "{text}: {}", bad.what);
    }

    #[test]
    fn names_are_read_and_written() {
        check(".", ".");
        check("WWW.Google.com", "WWW.Google.com.");
        check("a.", "a.");
        check("_dmarc.example.org.", "_dmarc.example.org.");
        check("*.example", "*.example.");
        check(r"a\.b.c", r"a\.b.c.");
        check(r"\097\255\000.c", r"a\255\000.c.");
        check("bücher.example", "xn--bcher-kva.example.");
        check(&"a".repeat(63), &format!("{}.", "a".repeat(63)));
        check(&"a.".repeat(127), &"a.".repeat(127));
    }

    #[test]
    fn bad_names_say_where() {
        check_bad("", 0);
        check_bad("..", 0);
        check_bad(".a", 0);
        check_bad("a..b", 2);
        check_bad(r"ab\", 2);
        check_bad(r"ab\25", 2);
        check_bad(r"ab\256", 2);
        check_bad("a\u{7}b", 1);
        check_bad("a b", 1);
        check_bad("ü\u{9b}b", 2);
        check_bad(&"bücher.".repeat(40), 0);
        check_bad(&format!("x.{}", "a".repeat(64)), 2);
        check_bad(&"a.".repeat(128), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..10),
        ) {
            let mut name = Name::from_labels(labels).expect("labels are short");
            name.set_fqdn(true);
            let read = parse(&Absolute(&name).to_string()).expect("written by us");
            prop_assert!(read.eq_case(&name));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            match parse(&text) {
                Ok(name) => prop_assert!(name.to_bytes().is_ok()),
                Err(bad) => prop_assert!(bad.offset <= text.len()),
            }
        }
    }
}
