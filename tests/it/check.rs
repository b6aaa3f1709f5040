//! `hedgerow check`: its warnings, which `--strict` makes errors.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use config::Config;
use tempfile::TempDir;

use crate::docs::{Document, completed_fragment, top};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.arg("check").args(arguments).current_dir(folder).output().expect("cargo has built it")
}

/// Checks that a config has these warnings, which are errors with `--strict` alone.
fn check(config: &str, expected: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("c.toml"), config).expect("our own folder");
    let strict_status = if expected.is_empty() { 0 } else { 2 };
    for (arguments, status) in [(&["-c", "c.toml"][..], 0), (&["-c", "c.toml", "--strict"], strict_status)] {
        let output = run(folder.path(), arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).expect("UTF-8");
        let (summary, warnings) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{config} {arguments:?}: {summary}{warnings}");
        assert!(summary.starts_with("c.toml: ok ("), "{summary}");
        let lines: Vec<_> = warnings.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{config}: {warnings}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(&format!("warning: {expected}")), "{line}, not {expected}");
        }
    }
}

#[test]
fn warnings_are_errors_if_the_operator_is_strict() {
    let forwarder = |keys: &str, more: &str| {
        let pool = |name: &str| format!("[pools.{name}]\nbackends = [\"192.0.2.1:53\"]\n");
        format!("[forwarder]\nlisten = [\"127.0.0.1:0\"]\n{keys}\n{}{more}\n", pool("a"))
    };
    let other = "[pools.b]\nbackends = [\"192.0.2.2:53\"]\n[forwarder.routes]\n\".\" = \"a\"\n";
    check(&forwarder("", ""), &[]);
    check(
        &forwarder("", other),
        &["c.toml:6:8: pools.b: nothing uses it: add \"SUFFIX\" = \"b\" to [forwarder.routes]"],
    );
    check(&forwarder("", &format!("{other}\"*.corp.example\" = \"b\"")), &[]);
    check(
        &forwarder("", &format!("{other}example = \"b\"\n\"www.example\" = \"b\"\n\"*.a.example\" = \"a\"")),
        &["forwarder.routes.\"www.example.\": without this route its names go to pool b too"],
    );
    // This one has home.arpa forwarded.
    check(&forwarder("", &format!("{other}example = \"b\"\n\"home.arpa\" = \"a\"")), &[]);
    check(
        &forwarder("", "dispatch = \"sequential\"\ntimeout = \"1s\"\nattempt_timeout = \"2s\"\nhedge.max = 1"),
        &["c.toml:8:19: pools.a.attempt_timeout: has no effect above", "c.toml:9:1: pools.a.hedge: has no effect"],
    );
    check(
        &forwarder("", "dispatch = \"hedge\"\n[pools.a.hedge]\nbudget = 0.0"),
        &["c.toml:7:1: pools.a.hedge: budget = 0 allows no hedge"],
    );
    let open = ["forwarder.listen[0]: 0.0.0.0:0 answers every client"];
    for (listen, allow, expected) in [
        ("'0.0.0.0:0'", "'0.0.0.0/0'", &open[..]),
        ("'0.0.0.0:0'", "'0.0.0.0/1', '128.0.0.0/1'", &open),
        ("'0.0.0.0:0'", "'::/0'", &[]),
        ("'[::]:0'", "'0.0.0.0/0'", &["forwarder.listen[0]: [::]:0 answers every client"]),
        ("'127.0.0.1:0'", "'0.0.0.0/0', '::/0'", &[]),
        ("{ address = '0.0.0.0:0', proxy_from = ['10.0.0.1'] }", "'0.0.0.0/0'", &[]),
    ] {
        let config = format!(
            "[forwarder]\nlisten = [{listen}]\nallow = [{allow}]\ndeny = ['192.0.2.0/24']\n\
             [pools.a]\nbackends = ['192.0.2.1:53']\n"
        );
        check(&config, expected);
    }
    let admin = |listen: &str| forwarder("", &format!("[admin]\nlisten = '{listen}'"));
    check(&admin("[::1]:0"), &[]);
    check(&admin("0.0.0.0:0"), &["admin.listen: other hosts can reach 0.0.0.0:0"]);
}

#[test]
fn the_shipped_config_and_the_documents_have_no_warnings() {
    let output = run(top(), &["--strict"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    for document in Document::all() {
        for block in document.blocks().iter().filter(|block| block.has("toml") && !block.has("wrong")) {
            let text = if block.has("fragment") { completed_fragment(&block.text) } else { block.text.clone() };
            let warnings = Config::warnings(&text, "config.toml");
            let is_of_fragment = |warning: &String| block.has("fragment") && warning.contains("nothing uses it");
            assert!(warnings.iter().all(is_of_fragment), "{}:{}: {warnings:?}", document.path, block.line);
        }
    }
}
