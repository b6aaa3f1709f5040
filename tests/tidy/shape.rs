//! The sizes of structs, functions and types: a larger one has a second noun. The exceptions that remain are
//! listed, and the lists may only shrink.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, is_word};
use super::{below, report};

/// The most fields of a struct.
const MAX_FIELDS: usize = 12;

/// The most lines of a function, from its first to its last.
const MAX_LINES: usize = 60;

/// The most files with methods of one type.
const MAX_FILES: usize = 3;

/// Structs with more fields.
const LARGE_STRUCTS: &[&str] = &[];

/// Functions with more lines.
const LONG_FUNCTIONS: &[&str] = &[];

/// Types with methods in more files.
const SPREAD_TYPES: &[&str] = &[];

#[test]
fn structs_have_few_fields() {
    let large = code().flat_map(|source| {
        let structs = items(source, "struct").filter(|(_, lines)| fields(lines) > MAX_FIELDS);
        structs.map(|(name, _)| format!("{} {name}", source.path))
    });
    compare(large.collect(), LARGE_STRUCTS, "a struct has at most 12 fields");
}

#[test]
fn functions_are_short() {
    let long = code().flat_map(|source| {
        let functions = items(source, "fn").filter(|(_, lines)| lines.len() > MAX_LINES);
        functions.map(|(name, _)| format!("{} {name}", source.path))
    });
    compare(long.collect(), LONG_FUNCTIONS, "a function has at most 60 lines");
}

#[test]
fn methods_of_a_type_are_in_few_files() {
    let mut files: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for source in code() {
        for name in source.lines.iter().filter(|line| !line.is_test).filter_map(|line| implemented(&line.code)) {
            files.entry(name).or_default().insert(&source.path);
        }
    }
    let spread = files.into_iter().filter(|(_, files)| files.len() > MAX_FILES).map(|(name, _)| name);
    compare(spread.collect(), SPREAD_TYPES, "the methods of a type are in at most 3 files");
}

/// The sources of the program, without its tests.
fn code() -> impl Iterator<Item = &'static Source> {
    below(&["src"])
}

/// Fails for a finding that is not listed, and for a listed one that is not found.
fn compare(found: BTreeSet<String>, listed: &[&str], rule: &str) {
    let new = found.iter().filter(|found| !listed.contains(&found.as_str()));
    let new = new.map(|found| format!("{found}: {rule}"));
    let gone = listed.iter().filter(|listed| !found.contains(**listed));
    let gone = gone.map(|listed| format!("{listed}: no exception is needed, take it off the list"));
    report(&new.chain(gone).collect::<Vec<_>>());
}

/// The items of a kind outside tests that have a body, each with its name and its lines.
fn items<'a>(source: &'a Source, kind: &'a str) -> impl Iterator<Item = (&'a str, Vec<&'a str>)> {
    let lines: Vec<&str> = source.lines.iter().take_while(|line| !line.is_test).map(|line| &*line.code).collect();
    (0..lines.len()).filter_map(move |first| {
        let name = named(lines[first], kind)?;
        let indent = lines[first].len() - lines[first].trim_start().len();
        let is_end = |line: &&str| {
            let text = line.trim();
            line.len() - line.trim_start().len() == indent
                && (text == "}" || text.ends_with(['}', ';']) && text != lines[first].trim())
        };
        let is_whole = lines[first].trim_end().ends_with(['}', ';']);
        let last = if is_whole { first } else { first + 1 + lines[first + 1..].iter().position(is_end)? };
        Some((name, lines[first..=last].to_vec()))
    })
}

/// The name of an item of this kind, if one begins on the line.
fn named<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    let text = line.trim_start();
    let (before, rest) = text.split_once(&format!("{kind} "))?;
    let is_qualifier = |word: &str| {
        matches!(word, "pub" | "const" | "async" | "unsafe" | "extern" | "\"\"")
            || word.starts_with("pub(")
            || word.starts_with("crate::")
            || word.ends_with(')')
    };
    let name = rest.split(|c| !is_word(c)).next().filter(|name| !name.is_empty())?;
    before.split_whitespace().all(is_qualifier).then_some(name)
}

fn fields(lines: &[&str]) -> usize {
    let indent = lines[0].len() - lines[0].trim_start().len() + 4;
    let is_field = |line: &&&str| {
        let text = line.trim_start();
        let name = text.split_once(": ").map_or("", |(name, _)| name.rsplit(' ').next().unwrap_or_default());
        line.len() - text.len() == indent && !name.is_empty() && name.chars().all(is_word)
    };
    lines.iter().filter(is_field).count()
}

/// The type whose own methods begin on the line.
fn implemented(line: &str) -> Option<String> {
    let rest = line.strip_prefix("impl")?;
    let rest = match rest.strip_prefix('<') {
        Some(generics) => {
            let mut depth = 1;
            let end = generics.find(|c| {
                depth += i32::from(c == '<') - i32::from(c == '>');
                depth == 0
            })?;
            &generics[end + 1..]
        }
        None => rest,
    };
    if rest.contains(" for ") {
        return None;
    }
    let path = rest.trim_start().split(|c: char| !is_word(c) && c != ':').next()?;
    path.rsplit(':').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[test]
fn sizes_are_measured() {
    let text = "pub(crate) struct A {\n    a: u8,\n    /// b: c\n    pub b: u8,\n}\nimpl<T: Into<u8>> A<T> {\n    const fn f() {}\n    \
                pub async fn g(\n        a: u8,\n    ) {\n        a\n    }\n}\nimpl Into<u8> for A {\n}\n";
    let source = Source::read("src/x.rs".to_owned(), text);
    let structs: Vec<_> = items(&source, "struct").map(|(name, lines)| (name, fields(&lines))).collect();
    assert_eq!(structs, [("A", 2)]);
    let functions: Vec<_> = items(&source, "fn").map(|(name, lines)| (name, lines.len())).collect();
    assert_eq!(functions, [("f", 1), ("g", 5)]);
    let types: Vec<_> = source.lines.iter().filter_map(|line| implemented(&line.code)).collect();
    assert_eq!(types, ["A"]);
}
