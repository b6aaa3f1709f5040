//! The faults of `tests/mutants/faults.txt`: each still fits its file.

use std::fs;
use std::path::Path;

use super::report;

/// The number of faults that the list has at least.
const MIN_FAULTS: usize = 100;

/// Returns what is wrong with one fault of the list.
fn fault_of(block: &str, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let code = |marks: &'static [char]| words(block.lines().filter_map(move |line| line.strip_prefix(marks)));
    let (old, new) = (code(&['-', ' ']), code(&['+', ' ']));
    let Some(file) = block.lines().find(|line| !line.starts_with(['#', '-', '+', ' '])) else {
        return Some(format!("name the file of {old:?}"));
    };
    if !block.starts_with("# ") {
        return Some(format!("{file}: describe the fault {old:?}"));
    }
    let Some(text) = read(file) else {
        return Some(format!("there is no file {file}"));
    };
    let count = words(text.lines()).matches(&old).count();
    if count != 1 {
        return Some(format!("{file}: {old:?} occurs {count} times"));
    }
    (old == new).then(|| format!("{file}: {old:?} is no change"))
}

/// Joins the words of some lines with one blank each.
fn words<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_fault_of_the_list_has_a_snippet_that_occurs_once() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(top.join("tests/mutants/faults.txt")).expect("the list of faults");
    let faults: Vec<_> = list.split("\n\n").map(str::trim).filter(|block| block.contains("\n-")).collect();
    assert!(faults.len() >= MIN_FAULTS, "the list has {} faults", faults.len());
    let read = |file: &str| fs::read_to_string(top.join(file)).ok();
    report(&faults.iter().filter_map(|block| fault_of(block, read)).collect::<Vec<_>>());
}

#[test]
fn faults_that_do_not_fit_their_file_are_found() {
    let read = |file: &str| (file == "a.rs").then(|| "one();\n    two();\ntwo();".to_owned());
    assert_eq!(fault_of("# In one place.\na.rs\n  one();\n- two();\n+", read), None);
    assert_eq!(fault_of("# No call.\na.rs\n- one();\n- two();\n+ two();", read), None);
    for broken in [
        "# Twice.\na.rs\n- two();\n+ one();",
        "# Missing.\na.rs\n- three();\n+ one();",
        "# No change.\na.rs\n- one();\n+ one();",
        "# No such place.\na.rs\n  three();\n- two();\n+ one();",
        "# No file.\nb.rs\n- one();\n+ two();",
        "# No name.\n- one();\n+ two();",
        "a.rs\n- one();\n+ two();",
    ] {
        assert!(fault_of(broken, read).is_some(), "{broken}");
    }
}
