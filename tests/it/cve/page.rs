//! The page of the corpus: its numbers are right, and the tests that it names are there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// The cells of the rows about a CVE.
fn rows(page: &str) -> Vec<[&str; 5]> {
    let rows = page.lines().filter(|line| line.starts_with("| CVE-"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("five cells: {cells:?}"))
    })
    .collect()
}

/// Returns the source of the module with this path below `tests/it`.
fn source(path: &str) -> Option<String> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(path.replace("::", "/"));
    let files = [base.with_extension("rs"), base.join("mod.rs")];
    files.iter().find_map(|file| fs::read_to_string(file).ok())
}

fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/cve.md");
    fs::read_to_string(file).expect("a page of the manual")
}

#[test]
fn every_test_that_the_page_names_is_there() {
    let page = page();
    let mut known = HashMap::new();
    for [cve, .., test] in rows(&page) {
        let Some(test) = test.strip_prefix('`').and_then(|test| test.strip_suffix('`')) else {
            assert_eq!(test, "none", "{cve}");
            continue;
        };
        let (module, name) = test.rsplit_once("::").expect("a module and a name");
        let source = known.entry(module).or_insert_with(|| source(module).unwrap_or_default());
        assert!(source.contains(&format!("#[test]\nfn {name}() {{")), "{cve}: no test {test}");
    }
}

#[test]
fn the_numbers_of_the_page_are_those_of_its_rows() {
    let page = page();
    let rows = rows(&page);
    let distinct: HashSet<_> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(distinct.len(), rows.len(), "each CVE has one row");
    let tested = rows.iter().filter(|row| row[4] != "none").count();
    assert!(rows.len() >= 60 && tested >= 40, "{} rows, {tested} with a test", rows.len());
    let years = ["CVE-2024-", "CVE-2025-", "CVE-2026-"];
    assert!(rows.iter().all(|row| years.iter().any(|year| row[0].starts_with(year))));
    assert!(page.contains(&format!("This page lists {} vulnerabilities", rows.len())), "{} rows", rows.len());
    assert!(page.contains(&format!(" {tested} rows name a test")), "{tested} with a test");
}

#[test]
fn what_a_test_of_the_corpus_cites_has_a_row_that_names_the_test() {
    let page = page();
    let named: HashMap<_, _> = rows(&page).into_iter().map(|row| (row[0], row[4])).collect();
    for module in ["cache", "edns", "messages", "names", "replies", "transports", "web"] {
        let source = source(&format!("cve::{module}")).expect("a module of the corpus");
        for cited in source.match_indices("CVE-").map(|(at, _)| &source[at..]) {
            let end = cited[4..].find(|c: char| !c.is_ascii_digit() && c != '-').expect("more text") + 4;
            let row = named.get(&cited[..end]).unwrap_or_else(|| panic!("{module}: {} has no row", &cited[..end]));
            assert!(row.starts_with(&format!("`cve::{module}::")), "{module}: {} is tested by {row}", &cited[..end]);
        }
    }
}
