//! Tests of README, for a reader who has five minutes, and of CHANGELOG, for a reader before an update.

use std::collections::HashSet;

use super::markdown::Document;

/// More than this belongs to the book.
const MAX_LINES: usize = 250;

#[test]
fn the_readme_is_short() {
    let count = Document::read("README.md").text.lines().count();
    assert!(count <= MAX_LINES, "README.md has {count} lines, the book is in docs/");
}

/// A user with a fresh machine types these two commands, and nothing before them.
#[test]
fn two_commands_do() {
    let readme = Document::read("README.md");
    let (_, section) = readme.text.split_once("\n## Two commands\n").expect("the section");
    let block = Document { path: readme.path.clone(), text: section.to_owned() }.blocks().remove(0);
    let commands: Vec<_> = block.text.lines().map(|line| line.split('#').next().unwrap_or(line).trim()).collect();
    assert_eq!(commands, ["cargo run --release", "cargo test"]);
    let version = concat!("[Rust](https://rustup.rs) ", env!("CARGO_PKG_RUST_VERSION"));
    assert!(readme.text.contains(version), "{version}");
}

/// Branches that are joined line by line bring lines twice.
#[test]
fn the_changelog_says_nothing_twice() {
    let changelog = Document::read("CHANGELOG.md");
    let mut seen = HashSet::new();
    for (number, line) in changelog.prose() {
        // A release has each of its sections once, and the next one has them again.
        if line.starts_with("## ") {
            seen.clear();
        }
        let is_new = line.is_empty() || seen.insert(line);
        assert!(is_new, "CHANGELOG.md:{number}: stands there twice: {line}");
        let known = ["### Added", "### Changed", "### Deprecated", "### Removed", "### Fixed", "### Security"];
        assert!(!line.starts_with("### ") || known.contains(&line), "CHANGELOG.md:{number}: no section: {line}");
    }
}
