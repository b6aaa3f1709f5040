//! Tests of lists of names, and of their names.

use proptest::prelude::*;

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
    check_bad(b"a\x1b[31m", &[r#"list:1:2: control character or blank '\u{1b}', in a name it is written as "\DDD""#]);
}

/// Checks that `text` is parsed, and written as `written`.
fn check_name(text: &str, written: &str) {
    let name = parse_name(text).unwrap_or_else(|bad| panic!("{text}: {bad:?}"));
    assert_eq!(name.to_string(), written);
}

/// Checks that `text` is rejected at `offset`.
fn check_bad_name(text: &str, offset: usize) {
    let bad = parse_name(text).expect_err(text);
    assert_eq!(bad.offset, offset, "{text}: {}", bad.what);
}

#[test]
fn names_are_read_and_written() {
    check_name(".", ".");
    check_name("WWW.Google.com", "WWW.Google.com.");
    check_name("a.", "a.");
    check_name("_dmarc.example.org.", "_dmarc.example.org.");
    check_name("*.example", "*.example.");
    check_name(r"a\.b.c", r"a\.b.c.");
    check_name(r"\097\255\000.c", r"a\255\000.c.");
    check_name("bücher.example", "xn--bcher-kva.example.");
    check_name(&"a".repeat(63), &format!("{}.", "a".repeat(63)));
    check_name(&"a.".repeat(127), &"a.".repeat(127));
}

#[test]
fn bad_names_say_where() {
    check_bad_name("", 0);
    check_bad_name("..", 0);
    check_bad_name(".a", 0);
    check_bad_name("a..b", 2);
    check_bad_name(r"ab\", 2);
    check_bad_name(r"ab\25", 2);
    check_bad_name(r"ab\256", 2);
    check_bad_name("a\u{7}b", 1);
    check_bad_name("a b", 1);
    check_bad_name("ü\u{9b}b", 2);
    check_bad_name(&"bücher.".repeat(40), 0);
    check_bad_name(&format!("x.{}", "a".repeat(64)), 2);
    // The first label beyond the limit.
    check_bad_name(&"a.".repeat(128), 254);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        match parse_name(&text) {
            Ok(name) => prop_assert_eq!(parse_name(&name.to_string()), Ok(name)),
            Err(bad) => prop_assert!(bad.offset <= text.len()),
        }
    }
}
