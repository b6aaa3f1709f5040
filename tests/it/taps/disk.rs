//! The query log on a disk that gets full, and has room again: a small one in memory, in a mount namespace of
//! the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use testkit::*;

use super::query_log::{ask_all, parse, read_lines, records};

/// A file system in memory, there until the test ends.
struct Disk<'p>(&'p Path);

impl<'p> Disk<'p> {
    /// One with so much room, at an empty folder.
    fn mount(folder: &'p Path, size: &str) -> Self {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(folder));
        Self(folder)
    }

    /// Gives it so much room from now on.
    fn resize(&self, size: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.0));
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // A process that still writes to it may do so until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

/// Runs a command, which must succeed.
fn run(command: &mut Command) {
    let output = command.output().expect("it was there a moment ago");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_disk_that_gets_full_tears_no_line_and_goes_on_when_there_is_room() {
    if !namespace::enter_mounts("taps::disk::a_disk_that_gets_full_tears_no_line_and_goes_on_when_there_is_room") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::mount(folder.path(), "64k");
    let log = folder.path().join("queries.jsonl");
    let backend = Backend::new(answer(ONE));
    let forwarder = Forwarder::to(&[&backend], "").admin().to_toml();
    let server = Server::start(&format!("{forwarder}\n[query_log]\nto = '{}'\nbuffer = '1MiB'", log.display()));
    let (client, admin) = (server.client(), server.admin());
    let label = "long-label-that-takes-room.".repeat(7);
    let mut asked = Vec::new();
    let mut ask = |count: usize| {
        let from = asked.len();
        asked.extend((from..from + count).map(|number| format!("q{number}.{label}test")));
        ask_all(&client, &asked[from..]);
        asked.len() as u64
    };
    until("neither disk nor memory has room any more", || {
        ask(2000);
        (records(&admin.metrics(), "dropped") > 0).then_some(())
    });
    let reported = server.process.wait_for_log("query_log: records cannot be written");
    assert!(reported.contains("No space left on device"), "{reported}");
    let all = ask(500);
    assert_eq!(admin.metrics().sum("hedgerow_responses_total", &[]), all, "no query waited for the disk");
    let written = records(&admin.metrics(), "written");
    assert!(written > 0);
    // When it is tried again, what finds no room is there for a moment.
    let text = until("there are as many whole lines as are counted, and nothing else", || {
        let text = fs::read_to_string(&log).expect("text");
        (text.ends_with('\n') && text.lines().count() as u64 == written).then_some(text)
    });
    text.lines().for_each(|line| drop(parse(line)));

    disk.resize("64m");
    admin
        .wait_for("what waited is written", |metrics| records(metrics, "written") + records(metrics, "dropped") == all);
    let all = ask(500);
    let metrics = admin.wait_for("what comes now is written", |metrics| {
        records(metrics, "written") + records(metrics, "dropped") == all
    });
    let lines = read_lines(&log);
    assert_eq!(lines.len() as u64, records(&metrics, "written"));
    let names: BTreeSet<_> = lines.iter().map(|line| line["name"].as_str().expect("a name")).collect();
    assert_eq!(names.len(), lines.len(), "none comes twice");
    for name in &asked[asked.len() - 500..] {
        assert!(names.contains(&*format!("{name}.")), "{name} came when there was room");
    }
}

const ONE: &str = "192.0.2.1";
