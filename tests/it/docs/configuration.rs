//! What is made from the readers of configs and from `config.toml`: the reference in
//! `docs/src/configuration.md`, and the JSON Schema `config.schema.json`. Both are what `hedgerow schema`
//! writes.

use std::process::Command;

use config::reference::sections;

use super::markdown::top;

const FILE: &str = "docs/src/configuration.md";

/// Between these lines stands what is made here.
const MARKS: [&str; 2] = [
    "<!-- Made by `hedgerow schema --markdown` from config.toml and its readers: edit those, not this. -->\n",
    "<!-- So far made by `hedgerow schema --markdown`. -->\n",
];

/// The command that makes it anew.
const COMMAND: &str = "HEDGEROW_WRITE_DOCS=1 cargo test --test it docs::configuration";

#[test]
fn configuration_is_what_the_command_writes() {
    let page = file(FILE);
    let (head, rest) = page.split_once(MARKS[0]).unwrap_or_else(|| panic!("{FILE}: no line {}", MARKS[0]));
    let (_, tail) = rest.split_once(MARKS[1]).unwrap_or_else(|| panic!("{FILE}: no line {}", MARKS[1]));
    let made = [head, MARKS[0], &written(&["schema", "--markdown"]), MARKS[1], tail].concat();
    check_file(FILE, &made);
}

#[test]
fn the_schema_is_what_the_command_writes() {
    check_file("config.schema.json", &written(&["schema"]));
    let first = file("config.toml").lines().next().map(str::to_owned);
    assert_eq!(first.as_deref(), Some("#:schema ./config.schema.json"));
}

/// Checks that a file of the repository has this text, or writes it.
fn check_file(path: &str, made: &str) {
    if std::env::var_os("HEDGEROW_WRITE_DOCS").is_some() {
        return std::fs::write(top().join(path), made).expect("a file of ours");
    }
    let found = file(path);
    let difference = made.lines().zip(found.lines().chain([""])).find(|(made, found)| made != found);
    assert!(made == found, "{path} is behind: {difference:#?}\nThis makes it anew: {COMMAND}");
}

/// Returns the output of the program.
fn written(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(arguments).output().expect("cargo has built it");
    assert!(output.status.success(), "hedgerow {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A key without a word about it would be a riddle.
#[test]
fn every_key_is_told_of() {
    for section in sections() {
        for key in &section.keys {
            assert!(!key.comment.is_empty(), "config.toml says nothing of {} in [{}]", key.name, section.name);
        }
    }
}

/// Reads a file of the repository.
fn file(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
