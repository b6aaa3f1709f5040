//! Reads files of names: one name per line, or the format of hosts files.

use std::fmt;
use std::net::IpAddr;

use dns::Name;

use super::{NamePattern, NameSet};

/// The largest number of names in a file. Their entries then stay below 4 GiB.
pub const MAX_NAMES: usize = 10_000_000;

/// The largest number of problems that are kept with their text.
pub const MAX_SHOWN: usize = 20;

/// The problems of a names file: the first ones, and the number of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineProblems {
    /// The first problems, at most [`MAX_SHOWN`].
    pub shown: Vec<LineProblem>,
    /// The number of problems that are not shown.
    pub more: usize,
}

impl LineProblems {
    /// Returns true if there are no problems.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn push(&mut self, line: usize, what: impl fmt::Display) {
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(LineProblem { line, what: what.to_string() });
        } else {
            self.more += 1;
        }
    }
}

/// A problem of a line. It prints the line's number and the remedy: `17: expected a name such as ...`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {what}")]
pub struct LineProblem {
    /// The number of the line, from 1.
    pub line: usize,
    /// The problem and its remedy.
    pub what: String,
}

impl NameSet {
    /// Compiles the text of a names file. Use the set only if there are no problems.
    pub fn parse(text: &[u8], problems: &mut LineProblems) -> Self {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let lines = text.iter().filter(|&&octet| octet == b'\n').count() + 1;
        let mut names = Self::with_capacity(lines.min(MAX_NAMES), text.len());
        for (number, line) in text.split(|&octet| octet == b'\n').enumerate() {
            if let Err(what) = read_line(line, &mut names) {
                problems.push(number + 1, what);
            }
            if names.len() > MAX_NAMES {
                problems.push(number + 1, format_args!("more than {MAX_NAMES} names: split the file"));
                break;
            }
        }
        names.shrink();
        names
    }
}

fn read_line(line: &[u8], names: &mut NameSet) -> Result<(), String> {
    let line = str::from_utf8(without_comment(line))
        .map_err(|_| "octets that are not UTF-8: save the file as UTF-8, or write names in Punycode (xn--...)")?;
    let mut fields = line.split_ascii_whitespace();
    let Some(first) = fields.next() else { return Ok(()) };
    if is_address(first) {
        return read_hosts(first, fields, names);
    }
    if fields.next().is_some() {
        return Err("expected one name, or an address and names".to_owned());
    }
    let pattern = first.parse::<NamePattern>().map_err(|error| format!("expected {error}"))?;
    names.insert(&pattern);
    Ok(())
}

/// Adds the names of a line of a hosts file, which stand for themselves only.
fn read_hosts<'a>(address: &str, fields: impl Iterator<Item = &'a str>, names: &mut NameSet) -> Result<(), String> {
    let mut fields = fields.peekable();
    if fields.peek().is_none() {
        return Err(format!("expected names behind the address, such as \"{address} ads.example\""));
    }
    for field in fields.filter(|field| !LOCAL_NAMES.iter().any(|local| local.eq_ignore_ascii_case(field))) {
        let pattern = field.parse().ok().and_then(|pattern| match pattern {
            NamePattern::AtAndBelow(name) => Some(NamePattern::Exactly(name)),
            NamePattern::Below(_) | NamePattern::Exactly(_) => None,
        });
        let expected = || format!("expected the name of a host behind the address, not {field:?}");
        names.insert(&pattern.ok_or_else(expected)?);
    }
    Ok(())
}

/// Returns true for an address, with or without the zone of an interface (RFC 4007 section 11).
fn is_address(field: &str) -> bool {
    let may_be = field.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.') || field.contains(':');
    may_be && field.split('%').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
}

/// Returns the line up to a `#` that is not escaped.
fn without_comment(line: &[u8]) -> &[u8] {
    let mut from = 0;
    while let Some(at) = line[from..].iter().position(|octet| matches!(octet, b'#' | b'\\')) {
        if line[from + at] == b'#' {
            return &line[..from + at];
        }
        from = line.len().min(from + at + 2);
    }
    line
}

/// Names in hosts files that are no hosts to block: the machine itself and multicast groups.
const LOCAL_NAMES: [&str; 12] = [
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",
];

/// The byte order mark that some editors write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

// The offset of an entry is a `u32`; an entry is a byte and a name.
const _: () = assert!((MAX_NAMES + 1) * (1 + Name::MAX_LEN) < u32::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Name {
        text.parse::<Name>().expect("a name").folded()
    }

    fn set(text: &str) -> NameSet {
        let mut problems = LineProblems::default();
        let names = NameSet::parse(text.as_bytes(), &mut problems);
        assert_eq!(problems, LineProblems::default(), "{text:?}");
        names
    }

    #[test]
    fn lines_are_names_in_three_forms() {
        let text = "\u{feff}# a list\r\n\r\nads.example # with all below\r\n*.Below.example\n  =only.example\t\nbücher.example\nxn--mnchen-3ya.example\nescaped\\#.example#";
        let names = set(text);
        assert_eq!(names.len(), 6);
        for (name, expected) in [
            ("ads.example", true),
            ("www.ads.example", true),
            ("a.b.ads.example", true),
            ("badads.example", false),
            ("example", false),
            (".", false),
            ("below.example", false),
            ("www.below.example", true),
            ("only.example", true),
            ("www.only.example", false),
            ("xn--bcher-kva.example", true),
            ("www.xn--mnchen-3ya.example", true),
            (r"escaped\#.example", true),
            // One label that ends with the same octets.
            (r"x\003ads.example", false),
            (r"x\003ads\007example", false),
        ] {
            assert_eq!(names.contains(wire(name).as_wire()), expected, "{name}");
        }
    }

    #[test]
    fn hosts_files_name_hosts_exactly() {
        let text = "127.0.0.1 localhost\n127.0.0.1 localhost.localdomain local\n255.255.255.255 broadcasthost\n\
            ::1 LOCALHOST ip6-localhost ip6-loopback\nfe80::1%lo0 localhost\nff00::0 ip6-mcastprefix\n0.0.0.0 0.0.0.0\n\
            0.0.0.0 ads.example track.example # two\n:: Six.example\n192.0.2.7\tother.example\n";
        let names = set(text);
        assert_eq!(names.len(), 4);
        for name in ["ads.example", "track.example", "six.example", "other.example"] {
            assert!(names.contains(wire(name).as_wire()), "{name}");
        }
        for name in ["www.ads.example", "localhost", "local", "ip6-loopback"] {
            assert!(!names.contains(wire(name).as_wire()), "{name}");
        }
    }

    #[test]
    fn forms_of_one_name_add_up() {
        let names = set("*.ads.example\n=ads.example\n=.\n=ads.example\n");
        assert_eq!(names.len(), 2);
        assert!(names.contains(wire("ads.example").as_wire()) && names.contains(wire("a.ads.example").as_wire()));
        assert!(names.contains(wire(".").as_wire()) && !names.contains(wire("example").as_wire()));
        assert!(set(".").contains(wire("any.example").as_wire()));
        assert!(set("*.").contains(wire("any.example").as_wire()) && !set("*.").contains(wire(".").as_wire()));
        assert!(set("").is_empty() && !set("").contains(wire(".").as_wire()));
    }

    #[test]
    fn a_bad_line_has_its_number_and_the_remedy() {
        let check = |text: &[u8], line: usize, what: &str| {
            let mut problems = LineProblems::default();
            NameSet::parse(text, &mut problems);
            let shown: Vec<_> = problems.shown.iter().map(LineProblem::to_string).collect();
            assert_eq!(shown, [format!("{line}: {what}")], "{}", text.escape_ascii());
        };
        let form = "expected a name such as \"ads.example\", \"*.ads.example\" or \"=ads.example\"";
        let not_utf8 = "octets that are not UTF-8: save the file as UTF-8, or write names in Punycode (xn--...)";
        check(b"a.b\n||ads.example^\n", 2, &format!(r"{form} ('|' in a name: write it as \124 if it is meant)"));
        check(b"a..b", 1, &format!("{form} (empty label: dots stand between labels, one at a time)"));
        check(b"\n\nads.example track.example\n", 3, "expected one name, or an address and names");
        check(b"0.0.0.0 # none", 1, "expected names behind the address, such as \"0.0.0.0 ads.example\"");
        check(b"0.0.0.0 *.example", 1, "expected the name of a host behind the address, not \"*.example\"");
        check(b"b\xFCcher.example", 1, not_utf8);
        // A comment may have any octets.
        let mut problems = LineProblems::default();
        assert_eq!(NameSet::parse(b"a # \xFC", &mut problems).len(), 1);
        assert!(problems.is_empty());
    }

    #[test]
    fn further_problems_are_counted() {
        let mut problems = LineProblems::default();
        let names = NameSet::parse("..\n".repeat(50).as_bytes(), &mut problems);
        assert_eq!((problems.shown.len(), problems.more, names.len()), (MAX_SHOWN, 30, 0));
        assert_eq!(problems.shown.last().map(|problem| problem.line), Some(20));
    }
}
