//! Tests valid and invalid master files, with the message for each error.

use super::*;
use crate::rdata_to_text;

/// Paths and contents of files for `$INCLUDE`.
type Files<'f> = &'f [(&'f str, &'f str)];

/// Reads a zone `example.org` with these other files. Returns its records, one per line, or its errors.
fn read_with(text: &str, files: Files<'_>) -> Result<String, String> {
    let source = ZoneFileSource { name: "zone".to_owned(), octets: text.as_bytes().to_vec() };
    let origin = "example.org".parse().expect("a name");
    let mut include = |path: &str| {
        let found = files.iter().find(|(name, _)| *name == path);
        let (name, text) = found.ok_or("no such file")?;
        Ok(ZoneFileSource { name: (*name).to_owned(), octets: text.as_bytes().to_vec() })
    };
    let mut records = String::new();
    let mut sink = |record: Record<'_>, _: FilePlace| {
        let owner = dns::display_name(record.owner);
        let data = rdata_to_text(record.rtype, record.rdata);
        records.push_str(&format!("{owner} {} {} {data}\n", record.ttl, record.rtype));
    };
    let task = ZoneFileContext { origin: Some(&origin), default_ttl: None, include: &mut include };
    match read(&source, task, &mut sink) {
        Ok(_) => Ok(records),
        Err(errors) => Err(errors.to_string()),
    }
}

/// Checks the records of a zone, without line ends.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let records = read_with(text, &[]).unwrap_or_else(|errors| panic!("{text:?}\n{errors}"));
    assert_eq!(records.lines().collect::<Vec<_>>(), expected, "{text:?}");
}

/// Checks the errors of a zone.
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
    // An owner may look like any other word.
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
    let longest = "x".repeat(255);
    check(&format!("a 1 TXT {longest}"), &[&format!("a.example.org. 1 TXT \"{longest}\"")]);
    let error = read_with(&format!("a 1 TXT {longest}x"), &[]).expect_err("256 octets");
    assert!(error.ends_with("expected a string of at most 255 octets"), "{error}");
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
         sub/a:2:1, included at zone:1:1",
    );
    check(
        "$INCLUDE d",
        "d:1:10: \"d\" is being read already, expected no file to include itself, included at zone:1:1",
    );
    check("$INCLUDE none", "zone:1:10: cannot read \"none\": no such file");
    for path in ["/etc/passwd", "../a", "sub/../../a", "."] {
        let message = "is outside the folder of the zone file, expected a file in it or below it";
        check(&format!("$INCLUDE {path}"), &format!("zone:1:10: {path:?} {message}"));
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    check_bad("a", &["zone:1:2: type is missing, expected OWNER TTL CLASS TYPE DATA"]);
    check_bad("a 1 IN", &["zone:1:7: type is missing, expected OWNER TTL CLASS TYPE DATA"]);
    check_bad("a 1 A", &["zone:1:6: IPv4 address is missing, expected four numbers of 0 to 255 such as 192.0.2.1"]);
    check_bad(
        "a 1 A ; comment",
        &["zone:1:6: IPv4 address is missing, expected four numbers of 0 to 255 such as 192.0.2.1"],
    );
    check_bad(
        "a 1 A 192.0.2.1 x",
        &["zone:1:17: unexpected \"x\", expected the end of the entry (comments begin with ;)"],
    );
    check_bad("a 1 MX ten b", &["zone:1:8: bad number \"ten\", expected 0 to 65535"]);
    check_bad("a 1 MX 65536 b", &["zone:1:8: bad number \"65536\", expected 0 to 65535"]);
    check_bad("a 1 MX +1 b", &["zone:1:8: bad number \"+1\", expected 0 to 65535"]);
    check_bad(
        "a 1 MX 10 b..c",
        &["zone:1:11: bad name \"b..c\": empty label: dots stand between labels, one at a time"],
    );
    check_bad("aü 1 A 192.0.2.1", &["zone:1:1: bad name \"aü\": 'ü' in a name: write the label in Punycode (xn--...)"]);
    check_bad("a 1 CH TXT x", &["zone:1:5: class \"CH\" is not served, expected IN"]);
    check_bad("a 1 CLASS4 TXT x", &["zone:1:5: class \"CLASS4\" is not served, expected IN"]);
    check_bad(
        "a 1 AAAAA ::1",
        &[
            "zone:1:5: unknown type \"AAAAA\", expected one such as A or MX, or TYPE and its number, did you mean \"AAAA\"?",
        ],
    );
    check_bad("a 1 QQQ ::1", &["zone:1:5: unknown type \"QQQ\", expected one such as A or MX, or TYPE and its number"]);
    check_bad("a 1 AXFR x", &["zone:1:5: type AXFR holds no data, expected one such as A or MX"]);
    check_bad("a 1 OPT x", &["zone:1:5: type OPT holds no data, expected one such as A or MX"]);
    check_bad("a 1 NULL x", &["zone:1:5: data of type NULL have no text form, expected \\# LENGTH HEX"]);
    check_bad(
        "a 2147483648 A 192.0.2.1",
        &["zone:1:3: bad TTL \"2147483648\", expected 0 to 2147483647 seconds, or units such as 1h30m"],
    );
    check_bad(
        "a 1h30 A 192.0.2.1",
        &["zone:1:3: bad TTL \"1h30\", expected 0 to 2147483647 seconds, or units such as 1h30m"],
    );
    check_bad("a A 192.0.2.1", &["zone:1:3: TTL is missing, expected one here or in a $TTL above"]);
    check_bad(
        " 1 A 192.0.2.1",
        &["zone:1:2: no owner name to repeat, expected one at the start of the first record's line"],
    );
    check_bad("$FOO x", &["zone:1:1: unknown directive \"$FOO\", expected $ORIGIN, $TTL, $INCLUDE or $GENERATE"]);
    check_bad("$ORIGIN", &["zone:1:8: name is missing, expected a domain name"]);
    check_bad("$TTL -1", &["zone:1:6: bad TTL \"-1\", expected 0 to 2147483647 seconds, or units such as 1h30m"]);
    check_bad("$GENERATE 3-1 a A 192.0.2.1", &["zone:1:11: range 3-1 runs backwards, expected 1-3"]);
    check_bad(
        "$GENERATE 1-2/0 a A 192.0.2.1",
        &["zone:1:11: bad range \"1-2/0\", expected START-STOP or START-STOP/STEP, such as 1-254"],
    );
    for (range, number) in [
        ("0-2147483648", "2147483648 in the range"),
        ("4294967296-4294967297", "4294967296 in the range"),
        ("1-2/2147483648", "2147483648 in the range"),
        ("1-99999999999999999999", "a number in the range"),
    ] {
        check_bad(
            &format!("$GENERATE {range} a A 192.0.2.1"),
            &[&format!("zone:1:11: {number} is too large, expected at most 2147483647")],
        );
    }
    check("$GENERATE 2147483647-2147483647 a$ 9 A 192.0.2.1", &["a2147483647.example.org. 9 A 192.0.2.1"]);
    check_bad(
        "$GENERATE 1-2000000 a$ A 192.0.2.1",
        &["zone:1:11: range of 2000000 values is too long, expected at most 1048576"],
    );
    check_bad("$GENERATE 1-2 a$", &["zone:1:17: pattern is missing, expected RANGE OWNER TTL CLASS TYPE DATA"]);
    check_bad(
        "$GENERATE 1-2 ${1,2,q} A 192.0.2.1",
        &["zone:1:15: bad pattern \"${1,2,q}\", expected $, or ${OFFSET,WIDTH,BASE} with base d, o, x, X, n or N"],
    );
    check_bad(
        "$GENERATE 1-2 ${-2} 1 A 192.0.2.1",
        &["zone:1:11: value -1 is negative, expected an offset that keeps it above"],
    );
    check_bad(
        "$GENERATE 255-300 a$ 1 A 192.0.2.$",
        &[
            "zone:1:1: in the generated line \"a256 1 A 192.0.2.256 \": bad IPv4 address \"192.0.2.256\", expected four numbers of 0 to 255 such as 192.0.2.1",
        ],
    );
    check_bad(
        "a 1 TXT \"x\nb 1 TXT y",
        &["zone:1:9: quote is not closed on its line, expected \" (a newline is \\010)"],
    );
    check_bad(
        "a 1 TXT x\"y\"",
        &["zone:1:9: bad string \"x\\\"y\\\"\", expected quotes around all of it, or \\\" for a quote within"],
    );
    check_bad(
        "a 1 TXT \\300",
        &["zone:1:9: bad string \"\\\\300\", expected behind \\ a character, or three digits up to 255"],
    );
    check_bad(
        "a 1 TXT (x\nb 1 A 192.0.2.1",
        &["zone:1:9: parenthesis is never closed, expected ) at the end of the entry"],
    );
    check_bad(
        "a 1 TXT x)\nb 1 A x",
        &[
            "zone:1:10: unexpected \")\", expected ( in front of it",
            "zone:2:7: bad IPv4 address \"x\", expected four numbers of 0 to 255 such as 192.0.2.1",
        ],
    );
    check_bad("a 1 TYPE65280 \\# 2 abcdef", &["zone:1:15: data are 3 octets long, expected 2 as stated behind \\#"]);
    check_bad("a 1 TYPE65280 \\# 2 abc", &["zone:1:20: bad data \"abc\", expected pairs of hexadecimal digits"]);
    check_bad("a 1 TYPE65280 x", &["zone:1:5: data of type TYPE65280 have no text form, expected \\# LENGTH HEX"]);
    check_bad("a 1 A \\# 3 010203", &["zone:1:7: data are not in the form of type A, expected its wire form"]);
    check_bad(
        "a 1 SVCB 1 . port=http",
        &["zone:1:14: bad parameter \"port=http\", expected KEY or KEY=VALUE such as port=8443 or alpn=h2,h3"],
    );
    check_bad("a 1 SVCB 1 . port=1 port=2", &["zone:1:21: bad parameter \"port=2\", expected each key once"]);
    check_bad(
        "a 1 SVCB 1 . mandatory=alpn",
        &[
            "zone:1:28: parameter is missing, expected every key that \"mandatory\" names, and alpn beside no-default-alpn",
        ],
    );
    check_bad(
        "a 1 LOC 91 N 0 E 0",
        &[
            "zone:1:9: bad angle \"91\", expected degrees, minutes, seconds and side such as 52 22 23.000 N (E or W for the second)",
        ],
    );
    check_bad(
        "a 1 APL 1:192.0.2.0/33",
        &[
            "zone:1:9: bad address prefix \"1:192.0.2.0/33\", expected 1:192.0.2.0/24 or 2:2001:db8::/32, with ! in front if it is not meant",
        ],
    );
    check_bad(
        "a 1 RRSIG A 8 2 1 20261301000000 1 1 . AQID",
        &["zone:1:19: bad time \"20261301000000\", expected YYYYMMDDHHmmSS in UTC, or seconds since 1970"],
    );
    check_bad("a 1 DS 1 8 2 abc", &["zone:1:14: bad data \"abc\", expected pairs of hexadecimal digits"]);
    check_bad(
        "a 1 DNSKEY 256 3 NOPE AQID",
        &["zone:1:18: bad code \"NOPE\", expected 0 to 255, or a mnemonic of the registry"],
    );
    check_bad("a 1 DNSKEY 256 3 8 A", &["zone:1:20: bad data \"A\", expected base64 with its padding"]);
    check_bad(
        "a 1 NSEC b A FOO",
        &["zone:1:14: unknown type \"FOO\", expected one such as A or MX, or TYPE and its number"],
    );
    check_bad(
        "a 1 CAA 0 is-sue x",
        &["zone:1:11: bad tag \"is-sue\", expected 1 to 255 letters and digits such as issue"],
    );
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
fn errors_beyond_the_first_thousand_are_counted() {
    let errors = read_with(&"a 1 A x\n".repeat(1002), &[]).expect_err("bad lines");
    assert_eq!(errors.lines().count(), 1001);
    assert_eq!(errors.lines().last(), Some("zone:1001:7: and 2 more errors from here on"));
}
