//! A separate process, or namespace, for one test: there it may forge addresses, drop datagrams, use up ports
//! and mount file systems, without effect on other tests or the machine.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use rustix::process::geteuid;

/// Returns true if this process is inside the network namespace of the test of this name, which is its path
/// below the crate.
///
/// Outside, the test runs once more by itself in a namespace that is made for it, and fails as that does;
/// then there is nothing left to do. Where no namespace can be made, that is said, and is a failure only
/// where `HEDGEROW_REQUIRED` is set.
pub fn enter(test: &str) -> bool {
    if env::var(INSIDE).as_deref() == Ok(test) {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|status| status.success()), "the loopback device of a new namespace goes up");
        return true;
    }
    run_in_namespace("--net", &["ip", "link", "set", "lo", "up"], test);
    false
}

/// Returns true inside a mount namespace, where file systems can be mounted; else runs the test in one.
pub fn enter_mounts(test: &str) -> bool {
    let is_inside = env::var(INSIDE).as_deref() == Ok(test);
    if !is_inside {
        run_in_namespace("--mount", &["mount", "-t", "tmpfs", "none", "/tmp"], test);
    }
    is_inside
}

/// Runs one test in a new namespace of this kind, if one can be made in which this command succeeds.
fn run_in_namespace(kind: &str, trial: &[&str], test: &str) {
    match can_be_made(kind, trial) {
        Ok(()) => run_inside(unshare(kind).arg(binary()), test),
        Err(why) => crate::leave_out(test, &format!("no namespace can be made by unshare {kind}: {why}")),
    }
}

/// Returns true if this process runs the test of this name, and no other: what it opens for its children no
/// child of another test gets.
///
/// Elsewhere, the test runs once more by itself, and fails as that does; then there is nothing left to do.
pub fn alone(test: &str) -> bool {
    let is_alone = env::var(INSIDE).as_deref() == Ok(test);
    if !is_alone {
        run_inside(&mut Command::new(binary()), test);
    }
    is_alone
}

fn binary() -> PathBuf {
    env::current_exe().expect("the path of this test binary")
}

/// Runs one test by a command that ends in the test binary, and fails if that does.
fn run_inside(command: &mut Command, test: &str) {
    let inside = command.args([test, "--exact", "--nocapture", "--include-ignored"]).env(INSIDE, test);
    let output = inside.stdin(Stdio::null()).output().expect("the command was there a moment ago");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // What it prints are figures that some tests are run for.
    eprint!("{stderr}");
    print!("{stdout}");
    assert!(output.status.success(), "{test} failed where it ran by itself");
    assert!(stdout.contains("1 passed"), "there is no test {test}");
}

/// The number of the unprivileged user of most systems, and of its group: root runs these tests as this user.
const NOBODY: u32 = 65_534;

/// A command of an ordinary user.
pub fn ordinary(program: &str) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    command
}

/// Returns true if an ordinary user may make these namespaces; says so if not.
pub fn may(test: &str, unshare: &[&str]) -> bool {
    let made = ordinary("unshare").args(unshare).args(["--", "true"]).output();
    let why = match made {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    crate::leave_out(test, &format!("unshare {}: {why}", unshare.join(" ")));
    false
}

/// The processes whose parent this one is.
pub fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").expect("it is there").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let stat = |pid: &String| fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    // Behind the name in parentheses: the state and the parent.
    let parent_of = |stat: String| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let ours = processes.filter(|pid| stat(pid).and_then(parent_of) == Some(parent));
    ours.filter_map(|pid| pid.parse().ok()).collect()
}

/// Why no namespace of this kind can be made here, in which this command succeeds.
fn can_be_made(kind: &str, trial: &[&str]) -> Result<(), String> {
    let made = unshare(kind).args(trial).output();
    match made {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// The command that runs another in a new namespace of this kind. Who is not root becomes root of a user
/// namespace for that.
fn unshare(kind: &str) -> Command {
    let mut command = Command::new("unshare");
    command.arg(kind);
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--");
    command
}

/// Bears the name of the test that runs inside.
const INSIDE: &str = "HEDGEROW_NAMESPACE";
