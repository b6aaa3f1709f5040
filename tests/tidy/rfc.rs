//! The tables of `docs/rfc`: each requirement has code and a test that exist, or a reason.

use std::fs;
use std::path::Path;

use super::source::has_words;
use super::{TREE, report};

/// The keywords of RFC 2119 that a row may have.
const LEVELS: &[&str] = &["MUST", "SHOULD"];

/// The words that stand before the name of an item in code.
const ITEMS: &[&str] = &["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "macro_rules!"];

/// The beginnings of a reason, which stands in place of a test.
const REASONS: &[&str] = &["Does not apply: ", "Departure: ", "Open: "];

/// The share of requirements at the level SHOULD that may be open, in percent. Of those at MUST none may.
const MAX_OPEN: usize = 5;

/// One requirement: a row of a table.
struct Row {
    /// The file and its line.
    place: String,
    /// Section, level, requirement, code and test, or fewer cells if the row is broken.
    cells: Vec<String>,
}

impl Row {
    fn is_open(&self) -> bool {
        self.cells[4].starts_with("Open: ")
    }

    /// Says what is wrong with this row.
    fn fault(&self) -> Option<String> {
        let [section, level, requirement, code, test] = self.cells.as_slice() else {
            return Some("a row has five cells: section, level, requirement, code, test".to_owned());
        };
        if section.is_empty() || requirement.is_empty() {
            return Some("name the section and the requirement".to_owned());
        }
        if !LEVELS.contains(&level.as_str()) {
            return Some(format!("the level is one of {LEVELS:?}"));
        }
        if code == "none" {
            let has_reason = REASONS.iter().any(|reason| test.strip_prefix(reason).is_some_and(|why| !why.is_empty()));
            return (!has_reason).then(|| format!("without code, the last cell begins with one of {REASONS:?}"));
        }
        fault_of_items(code, false).or_else(|| fault_of_items(test, true))
    }
}

/// Says what is wrong with a cell of items, each written as `` `FILE::NAME` ``, with commas between them.
fn fault_of_items(cell: &str, must_be_test: bool) -> Option<String> {
    cell.split(", ").find_map(|item| {
        let quoted = item.strip_prefix('`').and_then(|item| item.strip_suffix('`'));
        let Some((file, name)) = quoted.and_then(|item| item.rsplit_once("::")) else {
            return Some(format!("write an item as `FILE::NAME`: {item}"));
        };
        let Some(source) = TREE.iter().find(|source| source.path == file) else {
            return Some(format!("there is no file {file}"));
        };
        let is_here = source.lines.iter().enumerate().any(|(at, line)| {
            let is_named = ITEMS.iter().any(|kind| has_words(&line.code, &format!("{kind} {name}")));
            let mut above = source.lines[..at].iter().rev().take_while(|line| line.code.trim_start().starts_with("#["));
            is_named && (!must_be_test || above.any(|line| has_words(&line.code, "test")))
        });
        (!is_here).then(|| format!("{file} has no {} `{name}`", if must_be_test { "test" } else { "item" }))
    })
}

/// Reads the rows of all tables of one page. Only tables of requirements are on it.
fn rows_of(page: &str, text: &str) -> Vec<Row> {
    let is_row = |line: &str| line.starts_with("| ") && !line.starts_with("| Section ");
    let rows = text.lines().enumerate().filter(|(_, line)| is_row(line));
    rows.map(|(number, line)| Row {
        place: format!("{page}:{}", number + 1),
        cells: line.trim().trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect(),
    })
    .collect()
}

#[test]
fn each_requirement_of_an_rfc_has_code_and_a_test_or_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rfc");
    let index = fs::read_to_string(folder.join("README.md")).expect("the index of the tables");
    let mut findings = Vec::new();
    let mut rows = Vec::new();
    for entry in fs::read_dir(&folder).expect("the tables are there") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let page = format!("docs/rfc/{name}");
        if !index.contains(&format!("]({name})")) {
            findings.push(format!("{page}: docs/rfc/README.md does not link it"));
        }
        let text = fs::read_to_string(folder.join(&name)).expect("a page");
        rows.extend(rows_of(&page, &text));
    }
    findings.extend(rows.iter().filter_map(|row| row.fault().map(|fault| format!("{}: {fault}", row.place))));
    rows.retain(|row| row.fault().is_none());
    let open = |level: &str| rows.iter().filter(|row| row.cells[1] == level && row.is_open()).collect::<Vec<_>>();
    findings.extend(open("MUST").iter().map(|row| format!("{}: a MUST is open", row.place)));
    let (open, all) = (open("SHOULD").len(), rows.iter().filter(|row| row.cells[1] == "SHOULD").count());
    if open * 100 > all * MAX_OPEN {
        findings.push(format!("{open} of {all} requirements at SHOULD are open, more than {MAX_OPEN} %"));
    }
    report(&findings);
}

#[test]
fn rows_without_code_test_or_reason_are_found() {
    let head = "| Section | Level | Requirement | Code | Test |\n|---|---|---|---|---|\n";
    let fault = |row: &str| rows_of("page", &format!("{head}{row}\n"))[0].fault();
    let here = "`tests/tidy/rfc.rs::rows_of`";
    let test = "`tests/tidy/rfc.rs::rows_without_code_test_or_reason_are_found`";
    assert_eq!(fault(&format!("| 1 | MUST | Do. | {here} | {test} |")), None);
    assert_eq!(fault(&format!("| 1 | SHOULD | Do. | {here}, {here} | {test}, {test} |")), None);
    assert_eq!(fault("| 1 | MUST | Do. | none | Does not apply: nothing here does it. |"), None);
    for broken in [
        format!("| 1 | MUST | Do. | {here} |"),
        format!("| | MUST | Do. | {here} | {test} |"),
        format!("| 1 | MAY | Do. | {here} | {test} |"),
        "| 1 | MUST | Do. | none | none |".to_owned(),
        "| 1 | MUST | Do. | none | Open: |".to_owned(),
        format!("| 1 | MUST | Do. | `tests/tidy/rfc.rs::missing` | {test} |"),
        format!("| 1 | MUST | Do. | `tests/tidy/missing.rs::rows_of` | {test} |"),
        format!("| 1 | MUST | Do. | {here} | none |"),
        format!("| 1 | MUST | Do. | {here} | {here} |"),
    ] {
        assert!(fault(&broken).is_some(), "{broken}");
    }
}
