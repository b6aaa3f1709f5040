//! Problems of a config file, all at once, each with its place and remedy.
//!
//! A problem reads `config.toml:14:1: pools.ts: unknown key "fan_out", did you mean "fanout"?`.

use std::fmt;
use std::ops::Range;

/// All problems of one file, in file order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(mut found: Vec<Problem>) -> Self {
        debug_assert!(!found.is_empty(), "problems without a problem");
        found.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.line, place.column)));
        Self(found)
    }

    /// The number of problems.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The problems in file order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

/// One problem with its place and remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    file: String,
    place: Option<Position>,
    path: String,
    message: String,
}

impl Problem {
    pub(super) fn new(file: &str, text: &str, span: Option<Range<usize>>, path: &str, message: String) -> Self {
        let place = span.map(|span| {
            let mut place = Position::of(text, &span);
            if may_hold_secret(text, &span, path, &place.source) {
                place.blank_strings();
            }
            place
        });
        Self { file: file.to_owned(), place, path: path.to_owned(), message }
    }

    /// The line in the file, counted from 1.
    #[cfg(test)]
    pub(crate) fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// Position, key path and message in one line, without the line of the file.
    pub fn headline(&self) -> String {
        let Self { file, place, path, message } = self;
        let place = place.as_ref().map(|place| format!("{}:{}:", place.line, place.column));
        let place = place.unwrap_or_default();
        let path = if path.is_empty() { String::new() } else { format!(" {path}:") };
        format!("{file}:{place}{path} {message}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.headline())?;
        let Some(place) = &self.place else {
            return Ok(());
        };
        let line = place.line.to_string();
        let gutter = " ".repeat(line.len());
        write!(f, "\n  {line} | {}", place.source)?;
        write!(f, "\n  {gutter} | {}{}", place.indent(), "^".repeat(place.width))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    line: usize,
    column: usize,
    source: String,
    width: usize,
}

impl Position {
    /// Finds `span` in `text`, cut to its first line and moved to a character boundary.
    fn of(text: &str, span: &Range<usize>) -> Self {
        let start = char_boundary(text, span.start);
        let end = char_boundary(text, span.end.max(start));
        let (before, rest) = text.split_at(start);
        let left = before.rsplit('\n').next().unwrap_or_default();
        // Editors hide a byte order mark, so it is not a column.
        let left = left.strip_prefix('\u{feff}').unwrap_or(left);
        let right = rest.split('\n').next().unwrap_or_default();
        let right = right.strip_suffix('\r').unwrap_or(right);
        let marked = rest.get(..end - start).unwrap_or_default();
        let marked = marked.lines().next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: left.chars().count() + 1,
            source: left.chars().chain(right.chars()).map(printable).collect(),
            width: marked.chars().count().max(1),
        }
    }

    fn blank_strings(&mut self) {
        let starts = self.source.find(['"', '\'']).or_else(|| self.source.find('=').map(|at| at + 1)).unwrap_or(0);
        let (kept, blanked) = self.source.split_at(starts);
        let is_form = |c: char| c.is_whitespace() || "\"'=,{}[]#".contains(c);
        let blanked = blanked.chars().map(|c| if is_form(c) { c } else { '*' });
        self.source = kept.chars().chain(blanked).collect();
    }

    /// The blanks before the carets. Tabs stay tabs, so that both lines have the same width on any terminal.
    fn indent(&self) -> String {
        let before = self.source.chars().take(self.column - 1);
        before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect()
    }
}

/// Returns true if a line may hold a secret: in `[keys]`, or near it in text that cannot be parsed.
fn may_hold_secret(text: &str, span: &Range<usize>, path: &str, line: &str) -> bool {
    if !path.is_empty() {
        return path == "keys" || path.starts_with("keys.");
    }
    let before = text.get(..char_boundary(text, span.start)).unwrap_or_default();
    let header = before.lines().rev().map(str::trim_start).find(|line| line.starts_with('['));
    let is_in_keys = header.is_some_and(|header| header.trim_start_matches(['[', ' ', '"', '\'']).starts_with("keys"));
    is_in_keys || line.contains("keys") || line.contains("secret")
}

fn char_boundary(text: &str, offset: usize) -> usize {
    let mut boundary = offset.min(text.len());
    while !text.is_char_boundary(boundary) {
        boundary -= 1;
    }
    boundary
}

fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Range<usize>, expected: &str) {
        let problem = Problem::new("c.toml", text, Some(span.clone()), "key", "wrong".to_owned());
        assert_eq!(problem.to_string(), expected, "{text:?} at {span:?}");
    }

    #[test]
    fn carets_stand_under_the_span() {
        check("a = 1\nbc = 22\n", 11..13, "c.toml:2:6: key: wrong\n  2 | bc = 22\n    |      ^^");
        check("a = 1", 0..1, "c.toml:1:1: key: wrong\n  1 | a = 1\n    | ^");
    }

    #[test]
    fn lines_that_may_hold_a_secret_show_no_strings() {
        let shown = |text: &str, path: &str| {
            let start = text.find('!').expect("the culprit");
            Problem::new("c.toml", text, Some(start..start + 1), path, "wrong".to_owned()).to_string()
        };
        for (text, path) in [
            ("[keys.a]\nsecret = \"!c2VjcmV0\"", "keys.a.secret"),
            ("[keys.a]\n!secert = \"c2VjcmV0\"", "keys.a"),
            ("keys = { a = { secret = 'c2VjcmV0', ! = 1 } }", "keys.a"),
            ("[keys.a]\nsecret = \"c2VjcmV0!", ""),
            ("[keys.a]\nsecret = \"\"\"\n!c2VjcmV0", ""),
            ("keys.a.secret = c2VjcmV0!", ""),
            ("a.b.secret = \"c2VjcmV0!", ""),
        ] {
            let shown = shown(text, path);
            assert!(!shown.contains("c2VjcmV0") && shown.contains('^'), "{shown}");
        }
        assert!(shown("[pools.a]\nbackends = \"!192.0.2.1\"", "pools.a.backends").contains("192.0.2.1"));
    }

    #[test]
    fn tabs_are_kept_in_both_lines() {
        check("\ta = 1", 5..6, "c.toml:1:6: key: wrong\n  1 | \ta = 1\n    | \t    ^");
    }

    #[test]
    fn columns_count_characters() {
        check("\"é\" = 1", 6..7, "c.toml:1:6: key: wrong\n  1 | \"é\" = 1\n    |      ^");
        check("\u{feff}a = 1", 3..4, "c.toml:1:1: key: wrong\n  1 | a = 1\n    | ^");
    }

    #[test]
    fn a_span_over_lines_ends_with_the_first() {
        check("a = [\r\n1]\r\n", 4..9, "c.toml:1:5: key: wrong\n  1 | a = [\n    |     ^");
    }

    #[test]
    fn an_empty_span_has_one_caret_even_at_the_end() {
        check("a = ", 4..4, "c.toml:1:5: key: wrong\n  1 | a = \n    |     ^");
        check("", 7..9, "c.toml:1:1: key: wrong\n  1 | \n    | ^");
    }

    #[test]
    fn the_terminal_is_not_steered() {
        check("a\u{1b}[2J", 0..1, "c.toml:1:1: key: wrong\n  1 | a\u{fffd}[2J\n    | ^");
    }
}
