//! Names in documents of what can be run or asked for: commands of hedgerow, targets of cargo, files of the
//! source, paths of the admin server.

use std::process::Command;

use testkit::*;

use super::markdown::{Document, top};

/// The words behind each `mark` in a document's text, code included.
fn words_behind<'d>(document: &'d Document, mark: &str) -> Vec<&'d str> {
    let rests = document.text.split(mark).skip(1);
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    rests.map(|rest| rest.split(is_end).next().unwrap_or(rest)).filter(|word| !word.is_empty()).collect()
}

#[test]
fn targets_of_cargo_are_there() {
    let mut count = 0;
    for document in Document::all() {
        for (mark, folders) in [("--bench ", &["benches", "crates/engine/benches"][..]), ("--test ", &["tests"])] {
            for name in words_behind(&document, mark) {
                let files = |folder| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/main.rs")];
                let is_there = folders.iter().flat_map(files).any(|file| top().join(file).exists());
                assert!(is_there, "{}: there is no {mark}{name}", document.path);
                count += 1;
            }
        }
    }
    assert!(count > 20, "{count} were found");
}

/// A file that has moved leaves a document behind.
#[test]
fn files_of_the_source_are_there() {
    let mut count = 0;
    for document in Document::all().iter().filter(|document| document.path != "CHANGELOG.md") {
        for (line, text) in document.prose() {
            for code in text.split('`').skip(1).step_by(2) {
                let is_path =
                    ["src/", "crates/", "tests/", "benches/", "fuzz/", ".ci/"].iter().any(|top| code.starts_with(top));
                if is_path
                    && !code.contains(|c: char| c == '*' || c == ' ' || c.is_ascii_uppercase())
                    && !code.contains("/room")
                {
                    assert!(top().join(code).exists(), "{}:{line}: there is no {code}", document.path);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 20, "{count} were found");
}

#[test]
fn commands_are_those_of_the_program() {
    for row in Document::read("docs/src/commands.md").table("Command") {
        let command = row[0].trim_matches('`').split_whitespace().nth(1).expect("a word behind hedgerow");
        let command = command.trim_matches(['[', ']']);
        let output =
            Command::new(env!("CARGO_BIN_EXE_hedgerow")).args([command, "--help"]).output().expect("it is built");
        assert!(output.status.success(), "hedgerow {command}: {output:?}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(["ctl", "--help"]).output().expect("it is built");
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    let reported = Document::read("docs/src/admin.md");
    let (_, listed) = help.split_once("Commands:\n").expect("its actions");
    for action in listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next()) {
        let is_told = action == "help"
            || reported.table("`hedgerow ctl`").iter().any(|row| row[0].contains(&format!("`{action}")));
        assert!(is_told, "docs/src/admin.md does not describe ctl {action}");
    }
}

#[test]
fn paths_of_the_admin_server_are_there() {
    let config = "[cache]\n[admin]\nlisten = '127.0.0.1:0'\nnames = true\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
                  [pools.all]\nbackends = ['127.0.0.1:9']\n";
    let server = Server::start(config);
    let rows = Document::read("docs/src/admin.md").table("Path");
    assert!(rows.len() >= 5, "{rows:?}");
    for row in rows {
        let path = row[0].trim_matches('`').replace("NAME", "www.example");
        assert_eq!(server.admin().get(&path).status, 200, "{path}");
    }
}
