//! Tables of master files that are right, and of those that are not, each with its message.

use super::*;
use crate::zone::rdata_to_text;

/// Files by path, for `$INCLUDE`.
type Files<'f> = &'f [(&'f str, &'f str)];

/// Reads a zone of `example.org` whose other files are these: its records, one a line, or its errors.
fn read_with(text: &str, files: Files<'_>) -> Result<String, String> {
    let source = Source { name: "zone".to_owned(), octets: text.as_bytes().to_vec() };
    let origin = "example.org".parse().expect("a name");
    let mut include = |path: &str| {
        let found = files.iter().find(|(name, _)| *name == path);
        let (name, text) = found.ok_or("no such file")?;
        Ok(Source { name: (*name).to_owned(), octets: text.as_bytes().to_vec() })
    };
    let mut records = String::new();
    let mut sink = |record: Record<'_>, _: Place| {
        let owner = crate::wire::display_name(record.owner);
        let data = rdata_to_text(record.rtype, record.rdata);
        records.push_str(&format!("{owner} {} {} {data}\n", record.ttl, record.rtype));
    };
    let task = Task { origin: Some(&origin), default_ttl: None, include: &mut include };
    match read(&source, task, &mut sink) {
        Ok(_) => Ok(records),
        Err(errors) => Err(errors.to_string()),
    }
}

/// The records of a zone, without their ends of line.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let records = read_with(text, &[]).unwrap_or_else(|errors| panic!("{text:?}\n{errors}"));
    assert_eq!(records.lines().collect::<Vec<_>>(), expected, "{text:?}");
}

/// The errors of a zone.
#[track_caller]
fn check_bad(text: &str, expected: &[&str]) {
    let errors = read_with(text, &[]).expect_err(text);
    assert_eq!(errors.lines().collect::<Vec<_>>(), expected, "{text:?}");
}

#[test]
fn owners_are_relative_absolute_or_left_out() {
    check("a 1 A 192.0.2.1\n", &["a.example.org. 1 A 192.0.2.1"]);
    check("a. 1 A 192.0.2.1", &["a. 1 A 192.0.2.1"]);
    check("@ 1 NS @\n", &["example.org. 1 NS example.org."]);
    check(". 1 NS .\n", &[". 1 NS ."]);
    check("a 1 A 192.0.2.1\n  1 A 192.0.2.2\n", &["a.example.org. 1 A 192.0.2.1", "a.example.org. 1 A 192.0.2.2"]);
    check(r"a\.b\032\@ 1 A 192.0.2.1", &[r"a\.b\032\@.example.org. 1 A 192.0.2.1"]);
    check(r"\@ 1 A 192.0.2.1", &[r"\@.example.org. 1 A 192.0.2.1"]);
    check("*.A 1 A 192.0.2.1", &["*.A.example.org. 1 A 192.0.2.1"]);
    // An owner may look like anything.
    check(
        "IN 1 IN A 192.0.2.1\nA 1 A 192.0.2.1\n300 1 A 192.0.2.1",
        &["IN.example.org. 1 A 192.0.2.1", "A.example.org. 1 A 192.0.2.1", "300.example.org. 1 A 192.0.2.1"],
    );
}

#[test]
fn origins_and_ttls_come_from_directives() {
    check(
        "$ORIGIN sub\na 1 A 192.0.2.1\n$origin net.\nb 1 A 192.0.2.1",
        &["a.sub.example.org. 1 A 192.0.2.1", "b.net. 1 A 192.0.2.1"],
    );
    check(
        "$TTL 1h\na A 192.0.2.1\nb 5 A 192.0.2.1\nc A 192.0.2.1\n$TTL 2\nd A 192.0.2.1",
        &[
            "a.example.org. 3600 A 192.0.2.1",
            "b.example.org. 5 A 192.0.2.1",
            "c.example.org. 3600 A 192.0.2.1",
            "d.example.org. 2 A 192.0.2.1",
        ],
    );
}

#[test]
fn a_ttl_that_is_not_stated_is_the_last_one_or_the_minimum() {
    check(
        "a 5 A 192.0.2.1\nb A 192.0.2.1\n 6 A 192.0.2.2\nc A 192.0.2.1",
        &[
            "a.example.org. 5 A 192.0.2.1",
            "b.example.org. 5 A 192.0.2.1",
            "b.example.org. 6 A 192.0.2.2",
            "c.example.org. 6 A 192.0.2.1",
        ],
    );
    check(
        "@ SOA a b 1 2 3 4 5m\na A 192.0.2.1",
        &["example.org. 300 SOA a.example.org. b.example.org. 1 2 3 4 300", "a.example.org. 300 A 192.0.2.1"],
    );
}

#[test]
fn ttl_and_class_stand_in_either_order() {
    for head in ["1m", "1m IN", "IN 1m", "in 60", "CLASS1 60", "60 class1"] {
        check(&format!("a {head} A 192.0.2.1"), &["a.example.org. 60 A 192.0.2.1"]);
    }
    check("a 1w2d3h4m5s TYPE1 192.0.2.1", &["a.example.org. 788645 A 192.0.2.1"]);
    check("a 1H30M a 192.0.2.1", &["a.example.org. 5400 A 192.0.2.1"]);
}

#[test]
fn parentheses_comments_and_ends_of_line_are_taken_everywhere() {
    let soa = ["example.org. 9 SOA a.example.org. b.example.org. 1 2 3 4 5"];
    check("@ 9 SOA a b ( 1 ; serial\n 2\n\n3 4 ; )\n 5 )\n", &soa);
    check("@ 9 SOA a b (1 2 3 4 5)", &soa);
    check("@ 9 ( SOA ( a b 1 ) 2 3 4\n) 5 ; end", &soa);
    check("(@ 9 SOA\na b 1 2 3 4 5)\n", &soa);
    check("; head\r\n\r\n   \t ; more\r\n@ 9 SOA a b 1 2 3 4 5\r\n", &soa);
    check("\u{FEFF}@ 9 SOA a b 1 2 3 4 5;end", &soa);
    check("", &[]);
    check("\n ( \n ) \n", &[]);
}

#[test]
fn strings_are_quoted_or_not() {
    check(
        r#"a 1 TXT "a b;(" c\;d "" "\"\\\065\255" e\ f"#,
        &[r#"a.example.org. 1 TXT "a b;(" "c;d" "" "\"\\A\255" "e f""#],
    );
    check(r#"a 1 TXT "a""b""#, &[r#"a.example.org. 1 TXT "a" "b""#]);
    check("a 1 TXT \u{e9}", &[r#"a.example.org. 1 TXT "\195\169""#]);
}

#[test]
fn unknown_types_and_classes_are_written_in_numbers() {
    check(r"a 1 CLASS1 TYPE65280 \# 3 ab cdEF", &[r"a.example.org. 1 TYPE65280 \# 3 abcdef"]);
    check(r"a 1 TYPE65280 \# 0", &[r"a.example.org. 1 TYPE65280 \# 0"]);
    check(r"a 1 A \# 4 C0000201", &["a.example.org. 1 A 192.0.2.1"]);
    check(r"a 1 TYPE15 \# 5 ( 000a 0161 00 )", &["a.example.org. 1 MX 10 a."]);
}

#[test]
fn ranges_are_generated() {
    check(
        "$GENERATE 1-5/2 h-$ 9 A 192.0.2.$",
        &["h-1.example.org. 9 A 192.0.2.1", "h-3.example.org. 9 A 192.0.2.3", "h-5.example.org. 9 A 192.0.2.5"],
    );
    check(
        "$TTL 9\n$GENERATE 9-10 ${-9,3,d}.$$ CNAME ${0,2,X}\\$${1,0,o}",
        &[r"000.\$.example.org. 9 CNAME 09\$12.example.org.", r"001.\$.example.org. 9 CNAME 0A\$13.example.org."],
    );
    check("$GENERATE 18-18 ${0,7,n}.ip6.arpa. 9 IN TXT \"a $\" b", &[r#"2.1.0.0.ip6.arpa. 9 TXT "a 18" "b""#]);
}

#[test]
fn files_are_included() {
    let files = &[("sub/a", "a 2 A 192.0.2.1\n$ORIGIN net.\nb 3 A 192.0.2.2\n$INCLUDE c\n"), ("c", "c 4 A 192.0.2.3")];
    let text = "x 1 A 192.0.2.9\n$INCLUDE ./sub/../sub/a sub\n A 192.0.2.8\ny A 192.0.2.7";
    let expected = "x.example.org. 1 A 192.0.2.9\na.sub.example.org. 2 A 192.0.2.1\nb.net. 3 A 192.0.2.2\n\
                    c.net. 4 A 192.0.2.3\nx.example.org. 4 A 192.0.2.8\ny.example.org. 4 A 192.0.2.7\n";
    assert_eq!(read_with(text, files).as_deref(), Ok(expected));
}

#[test]
fn errors_in_included_files_say_how_one_came_there() {
    let files = &[("sub/a", "\n$INCLUDE c\n"), ("c", "c 4 A 192.0.2.x"), ("d", "$INCLUDE sub/../d")];
    let check = |text: &str, expected: &str| assert_eq!(read_with(text, files), Err(expected.to_owned()), "{text:?}");
    check(
        "$INCLUDE sub/a\n",
        "c:1:7: bad IPv4 address \"192.0.2.x\", expected four numbers of 0 to 255 such as 192.0.2.1, included at \
         sub/a:2:10, included at zone:1:10",
    );
    check(
        "$INCLUDE d",
        "d:1:10: \"d\" is being read already, expected no file to include itself, included at zone:1:10",
    );
    check("$INCLUDE none", "zone:1:10: cannot read \"none\": no such file");
    for path in ["/etc/passwd", "../a", "sub/../../a", "."] {
        let message = "is outside the folder of the zone file, expected a file in it or below it";
        check(&format!("$INCLUDE {path}"), &format!("zone:1:10: {path:?} {message}"));
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, expected) in [
        ("a", ""),
        ("a 1 IN", ""),
        ("a 1 A", ""),
        ("a 1 A ; comment", ""),
        ("a 1 A 192.0.2.1 x", ""),
        ("a 1 MX ten b", ""),
        ("a 1 MX 65536 b", ""),
        ("a 1 MX +1 b", ""),
        ("a 1 MX 10 b..c", ""),
        ("a\u{fc} 1 A 192.0.2.1", ""),
        ("a 1 CH TXT x", ""),
        ("a 1 CLASS4 TXT x", ""),
        ("a 1 AAAAA ::1", ""),
        ("a 1 QQQ ::1", ""),
        ("a 1 AXFR x", ""),
        ("a 1 OPT x", ""),
        ("a 1 NULL x", ""),
        ("a 2147483648 A 192.0.2.1", ""),
        ("a 1h30 A 192.0.2.1", ""),
        ("a A 192.0.2.1", ""),
        (" 1 A 192.0.2.1", ""),
        ("$FOO x", ""),
        ("$ORIGIN", ""),
        ("$TTL -1", ""),
        ("$GENERATE 3-1 a A 192.0.2.1", ""),
        ("$GENERATE 1-2000000 a$ A 192.0.2.1", ""),
        ("$GENERATE 1-2 a$", ""),
        ("$GENERATE 1-2 ${1,2,q} A 192.0.2.1", ""),
        ("$GENERATE 1-2 ${-2} 1 A 192.0.2.1", ""),
        ("$GENERATE 255-300 a$ 1 A 192.0.2.$", ""),
        ("a 1 TXT \"x\nb 1 TXT y", ""),
        ("a 1 TXT x\"y\"", ""),
        ("a 1 TXT \\300", ""),
        ("a 1 TXT (x\nb 1 A 192.0.2.1", ""),
        ("a 1 TXT x)\nb 1 A x", ""),
        (r"a 1 TYPE65280 \# 2 abcdef", ""),
        (r"a 1 TYPE65280 \# 2 abc", ""),
        (r"a 1 TYPE65280 x", ""),
        (r"a 1 A \# 3 010203", ""),
        ("a 1 SVCB 1 . port=http", ""),
        ("a 1 SVCB 1 . port=1 port=2", ""),
        ("a 1 SVCB 1 . mandatory=alpn", ""),
        ("a 1 LOC 91 N 0 E 0", ""),
        ("a 1 APL 1:192.0.2.0/33", ""),
        ("a 1 RRSIG A 8 2 1 20261301000000 1 1 . AQID", ""),
        ("a 1 DS 1 8 2 abc", ""),
        ("a 1 DNSKEY 256 3 NOPE AQID", ""),
        ("a 1 DNSKEY 256 3 8 A", ""),
        ("a 1 NSEC b A FOO", ""),
        ("a 1 CAA 0 is-sue x", ""),
    ] {
        check_bad(text, &[expected]);
    }
}

#[test]
fn reading_goes_on_behind_an_error() {
    check_bad(
        "a 1 A x (\n y )\nb 1 TXT \"\n\nc 1 FOO (\n) x\nd 1 A 192.0.2.1\n",
        &[
            "zone:1:7: bad IPv4 address \"x\", expected four numbers of 0 to 255 such as 192.0.2.1",
            "zone:3:9: quote is not closed on its line, expected \" (a newline is \\010)",
            "zone:5:5: unknown type \"FOO\", expected one such as A or MX, or TYPE and its number",
        ],
    );
}

#[test]
fn errors_beyond_the_first_hundred_are_counted() {
    let errors = read_with(&"a 1 A x\n".repeat(102), &[]).expect_err("bad lines");
    assert_eq!(errors.lines().count(), 101);
    assert_eq!(errors.lines().last(), Some("zone:101:7: and 2 more errors from here on"));
}
