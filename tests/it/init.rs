//! `hedgerow init`: configs to begin with.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `hedgerow` in a folder.
fn hedgerow(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(arguments).current_dir(folder).output().expect("cargo has built it")
}

/// Has the config of a job written, checked, refused and replaced; these files stand beside it.
fn check(job: &str, examples: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder");
    let run = |arguments: &[&str]| hedgerow(folder.path(), arguments);
    let written = run(&["init", job, "-o", "a.toml"]);
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .expect("our own folder")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("UTF-8"))
        .collect();
    files.sort_unstable();
    assert_eq!(files, [&["a.toml"][..], examples].concat(), "{job}");

    let checked = run(&["check", "-c", "a.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(checked.stderr.is_empty(), "{job}: {checked:?}");
    let printed = run(&["init", job]);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let config = folder.path().join("a.toml");
    assert_eq!(fs::read(&config).expect("it was written"), printed.stdout, "{job}");

    for kept in &files {
        files.iter().for_each(|file| drop(fs::remove_file(folder.path().join(file))));
        let path = folder.path().join(kept);
        fs::write(&path, "kept").expect("our own folder");
        let refused = run(&["init", job, "-o", "a.toml"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        let message = String::from_utf8(refused.stderr).expect("UTF-8");
        assert!(message.contains(&format!("{kept}: the file exists, add --force")), "{job}: {message}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "kept");
        assert_eq!(fs::read_dir(folder.path()).expect("our own folder").count(), 1, "{job}");
    }
    let replaced = run(&["init", job, "-o", "a.toml", "--force"]);
    assert_eq!(replaced.status.code(), Some(0), "{replaced:?}");
    assert_eq!(fs::read(&config).expect("it was written"), printed.stdout, "{job}");
    assert_eq!(run(&["check", "-c", "a.toml"]).status.code(), Some(0), "{job}");
}

#[test]
fn configs_to_begin_with_are_right_and_replace_nothing() {
    check("resolver", &[]);
    check("home", &[]);
    check("tables", &["ts1.txt", "ts2.txt"]);
    check("authority", &["example.org.zone"]);
}

#[test]
fn a_public_backend_without_serves_is_warned_of() {
    let folder = TempDir::new().expect("a temporary folder");
    let pool = "[forwarder]\nlisten = [\"127.0.0.1:0\"]\n[pools.resolvers]\nbackends = [\"9.9.9.9:53\"]\n";
    for (lines, expected) in [
        ("", "warning: pools.resolvers: 9.9.9.9:53 is a public address and serves is not set"),
        ("serves = \"same\"", ""),
    ] {
        fs::write(folder.path().join("a.toml"), format!("{pool}{lines}")).expect("our own folder");
        let checked = hedgerow(folder.path(), &["check", "-c", "a.toml"]);
        assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        let reported = String::from_utf8(checked.stderr).expect("UTF-8");
        assert!(reported.starts_with(expected) && reported.is_empty() == expected.is_empty(), "{lines}: {reported}");
    }
}
