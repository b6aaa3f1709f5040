//! Parses domain names from users. hickory-proto converts letters outside ASCII to Punycode (IDNA).

use hickory_proto::rr::Name as InternationalName;
use hickory_proto::serialize::binary::BinEncodable;

use crate::wire::Name;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadName {
    pub(super) offset: usize,
    pub(super) what: String,
}

/// Parses a name as absolute, with or without a final dot.
pub(super) fn parse(text: &str) -> Result<Name, BadName> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Checks that `text` is parsed, and written as `written`.
    fn check(text: &str, written: &str) {
        let name = parse(text).unwrap_or_else(|bad| panic!("{text}: {bad:?}"));
        assert_eq!(name.to_string(), written);
    }

    /// Checks that `text` is rejected at `offset`.
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
        // The first label beyond the limit.
        check_bad(&"a.".repeat(128), 254);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            match parse(&text) {
                Ok(name) => prop_assert_eq!(parse(&name.to_string()), Ok(name)),
                Err(bad) => prop_assert!(bad.offset <= text.len()),
            }
        }
    }
}
