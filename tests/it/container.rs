//! In a container: as its first process, without root, on a file system that cannot be written, without a
//! folder for temporary files. Namespaces of an ordinary user are container enough; where they are not
//! allowed, the tests report it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testkit::*;

use super::docs::top;

/// A folder that everybody may read, with this config and the table of an authority.
fn folder(config: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("config.toml"), config).expect("our own folder");
    fs::write(folder.path().join("hosts"), "www.example 192.0.2.7 A\n").expect("our own folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our own folder");
    folder
}

/// A config with that table.
const CONFIG: &str = "workers = 2\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts']\n\
                      [admin]\nlisten = '127.0.0.1:0'\n";

/// Starts the server by a script that ends in `exec /proc/self/fd/0 serve`, for the folder of the binary may
/// be closed to others; the folder of the config is its first argument.
fn start(unshare: &[&str], script: &str, folder: TempDir) -> Server {
    let binary = File::open(env!("CARGO_BIN_EXE_hedgerow")).expect("cargo has built the binary");
    let mut command = namespace::ordinary("unshare");
    command.args(unshare).args(["--", "bash", "-ec", script, "bash"]).arg(folder.path());
    let process = Process::run_by(command, |command| {
        command.stdin(Stdio::from(binary)).env_remove("RUNTIME_DIRECTORY").env_remove("XDG_RUNTIME_DIR");
    });
    Server::ready(process, folder)
}

#[test]
fn as_the_first_process_it_reaps_what_it_did_not_start() {
    let namespaces = ["-Urpf", "--mount-proc"];
    if !namespace::may("as_the_first_process_it_reaps_what_it_did_not_start", &namespaces) {
        return;
    }
    let folder = folder(CONFIG);
    let fifo = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()));
    fs::set_permissions(&fifo, Permissions::from_mode(0o666)).expect("our own folder");
    // Orphans: the subshells that start them end at once. They hold the FIFO open both ways until they have
    // read their line.
    let script = "for number in 1 2 3 4 5 6 7 8; do (exec 3<>\"$1/fifo\"; read -r line <&3 &) done
                  (exit 0) &
                  exec /proc/self/fd/0 serve -c \"$1/config.toml\"";
    let mut server = start(&namespaces, script, folder);
    let [first] = namespace::children(server.process.id())[..] else { panic!("one process, that of the namespace") };
    let status = fs::read_to_string(format!("/proc/{first}/status")).expect("it is running");
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("a line");
    assert_eq!(numbers.split_whitespace().last(), Some("1"), "{status}");
    // The one that had ended before is gone already, or is soon.
    until("eight orphans", || (namespace::children(first).len() == 8).then_some(()));
    let mut fifo = File::options().read(true).write(true).open(&fifo).expect("it is there");
    std::io::Write::write_all(&mut fifo, b"1\n2\n3\n4\n5\n6\n7\n8\n").expect("it takes that much");
    until("nothing is left of them", || namespace::children(first).is_empty().then_some(()));
    assert_eq!(Client::of(server.listener("ts")).ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
    let first = Pid::from_raw(i32::try_from(first).expect("a number of a process")).expect("not 0");
    kill_process(first, Signal::TERM).expect("it is ours");
    assert_eq!(server.process.wait_for_exit().code(), Some(0), "{}", server.process.log());
}

#[test]
fn as_the_first_process_a_supervisor_reaps_as_well_replaces_who_dies_and_ends_all() {
    let namespaces = ["-Urpf", "--mount-proc"];
    if !namespace::may("as_the_first_process_a_supervisor_reaps_as_well_replaces_who_dies_and_ends_all", &namespaces) {
        return;
    }
    let folder = folder(&format!("{CONFIG}[supervisor]\nstandbys = 1\n"));
    let fifo = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()));
    fs::set_permissions(&fifo, Permissions::from_mode(0o666)).expect("our own folder");
    let script = "for number in 1 2 3; do (exec 3<>\"$1/fifo\"; read -r line <&3 &) done
                  exec /proc/self/fd/0 serve -c \"$1/config.toml\"";
    let mut server = start(&namespaces, script, folder);
    let [first] = namespace::children(server.process.id())[..] else { panic!("one process, that of the namespace") };
    // Orphans, the server, and one that stands by.
    until("five children", || (namespace::children(first).len() == 5).then_some(()));
    let mut fifo = File::options().read(true).write(true).open(&fifo).expect("it is there");
    std::io::Write::write_all(&mut fifo, b"1\n2\n3\n").expect("it takes that much");
    until("the orphans are gone", || (namespace::children(first).len() == 2).then_some(()));
    let ask = || Client::of(server.listener("ts")).ask(&query("www.example", A)).answers();
    assert_eq!(ask(), ["192.0.2.7"]);
    let pid = |number: u32| Pid::from_raw(i32::try_from(number).expect("a number of a process")).expect("not 0");
    for child in namespace::children(first) {
        kill_process(pid(child), Signal::KILL).expect("it is ours");
    }
    assert_eq!(ask(), ["192.0.2.7"]);
    until("two others", || (namespace::children(first).len() == 2).then_some(()));
    kill_process(pid(first), Signal::TERM).expect("it is ours");
    assert_eq!(server.process.wait_for_exit().code(), Some(0), "{}", server.process.log());
    assert!(!server.process.log().contains("succeeds"), "{}", server.process.log());
}

#[test]
fn it_needs_no_root_no_writable_file_and_no_temporary_folder() {
    let namespaces = ["-Urm"];
    if !namespace::may("it_needs_no_root_no_writable_file_and_no_temporary_folder", &namespaces) {
        return;
    }
    let script = "mount --bind \"$1\" /mnt
                  mount -o remount,bind,ro /mnt
                  mount -t tmpfs -o ro,mode=000 none /tmp
                  mount -o remount,bind,ro /
                  cd /
                  ! touch /mnt/new /var/new 2>/dev/null
                  exec unshare --user --map-user=65534 --map-group=65534 -- /proc/self/fd/0 serve -c /mnt/config.toml";
    let mut server = start(&namespaces, script, folder(CONFIG));
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).expect("it is running");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("a line");
    assert_eq!(capabilities.trim().trim_start_matches('0'), "", "{status}");
    assert_eq!(Client::of(server.listener("ts")).ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
    assert_eq!(server.admin().get("/readyz").status, 200);
    // There is no place for the socket, which the log reports; changes need the token then.
    assert!(server.process.log().contains("admin: no socket can be opened"), "{}", server.process.log());
    server.process.signal(Signal::HUP);
    server.process.wait_for_log("reloaded: edition 2");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(0), "{}", server.process.log());
}

/// No image can be built everywhere that tests run; but the files that it has must be there, and its health
/// check must be a command of the program. `deploy/container-test` runs the image.
#[test]
fn the_image_has_the_program_alone() {
    let read = |file: &str| fs::read_to_string(top().join(file)).expect("it is there");
    let (dockerfile, script) = (read("Dockerfile"), read("deploy/container-image"));
    let values = |key: &str| -> Vec<String> {
        dockerfile.lines().filter_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()).collect()
    };
    assert_eq!(values("FROM "), ["scratch"]);
    assert_eq!(values("USER "), ["65534:65534"]);
    assert_eq!(values("COPY hedgerow-${TARGETARCH} "), ["/usr/bin/hedgerow"]);
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        assert!(top().join(license).exists() && script.contains(license) && dockerfile.contains(license), "{license}");
    }
    assert_eq!(values("ENTRYPOINT "), [r#"["/usr/bin/hedgerow"]"#]);
    assert_eq!(values("CMD "), [r#"["serve", "-c", "/etc/hedgerow/config.toml"]"#]);
    let checks = values("HEALTHCHECK ");
    let [check] = &checks[..] else { panic!("{checks:?}") };
    let (_, check) = check.split_once("CMD ").expect("a command");
    let check: Vec<String> = serde_json::from_str(check).expect("a list");
    let server = Server::start_as(CONFIG, &[("hosts", "www.example 192.0.2.7 A\n")], |_| {});
    let mut healthy = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    healthy.args(&check[1..]).arg("--admin").arg(format!("http://{}", server.listener("admin")));
    let output = healthy.output().expect("cargo has built it");
    assert!(check[0] == "/usr/bin/hedgerow" && output.status.success(), "{check:?}: {output:?}");
}
