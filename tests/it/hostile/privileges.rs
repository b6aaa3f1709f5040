//! What the process could do to its host, were it taken over; and what becomes of it when a part of it fails.

use std::fs::{self, Permissions};
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::sockopt::{socket_peercred, socket_type};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, geteuid, pidfd_getfd, pidfd_open};
use tempfile::TempDir;
use testkit::*;

/// The number of the system's unprivileged user, and of its group.
const NOBODY: u32 = 65_534;

/// Returns true if the tests run as root, which alone can become another user.
fn is_root(test: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        leave_out(test, "only root can become another user");
    }
    is_root
}

/// A file that a reload can replace, and where: as editors do it.
fn replace(server: &Server, name: &str, content: &str) {
    server.rewrite("draft", content);
    fs::set_permissions(server.path("draft"), Permissions::from_mode(0o644)).expect("our own file");
    fs::rename(server.path("draft"), server.path(name)).expect("our own folder");
}

/// A host for each of these names, as a table.
fn table(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name} 192.0.2.1 A\n")).collect()
}

/// A config with an authority for these files, and an admin server.
fn authority(zones: &str, rest: &str) -> String {
    format!(
        "{rest}\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{zones}]\nmiss = 'nxdomain'\n[admin]\nlisten = '127.0.0.1:0'\n"
    )
}

/// The values of a line of the status of each thread.
fn of_threads(server: &Server, key: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.process.id())).expect("it is running");
    let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let line = |status: String| {
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    status.filter_map(line).collect()
}

/// The folder of the config that a command is to serve.
fn folder_of(command: &Command) -> PathBuf {
    let file = command.get_args().last().map(PathBuf::from).expect("serve -c FILE");
    file.parent().expect("it is in a folder").to_owned()
}

/// Runs the binary as a user without any right. Its folder may be closed to others, so it comes by a
/// descriptor.
fn as_nobody(arguments: &[&str]) -> Output {
    let binary = fs::File::open(env!("CARGO_BIN_EXE_hedgerow")).expect("cargo has built the binary");
    let mut command = Command::new("/proc/self/fd/0");
    command.args(arguments).stdin(binary).current_dir("/").uid(NOBODY).gid(NOBODY);
    command.output().expect("a program")
}

#[test]
fn a_server_that_root_starts_becomes_its_user_and_goes_on_as_ever() {
    let test = "hostile::privileges::a_server_that_root_starts_becomes_its_user_and_goes_on_as_ever";
    if !is_root(test) || !namespace::enter(test) {
        return;
    }
    let backend = Backend::new(answer("192.0.2.7"));
    let forwarder = Forwarder::to(&[&backend], "").listen("['127.0.0.1:53']").workers(2);
    let forwarder = forwarder.cache("persist = 'state/cache.bin'").to_toml();
    let config = |zones: &str| authority(zones, &format!("user = 'nobody'\n{forwarder}"));
    let files = [("a.txt", &*table(&["a.example"]))];
    let mut server = Server::start_as(&config("'a.txt'"), &files, |command| {
        let state = folder_of(command).join("state");
        fs::create_dir(&state).expect("our own folder");
        chown(&state, Some(NOBODY), Some(NOBODY)).expect("we are root");
    });
    assert!(!server.process.log().contains("user nobody cannot"), "{}", server.process.log());

    let identity = [NOBODY.to_string(), NOBODY.to_string(), NOBODY.to_string(), NOBODY.to_string()].join(" ");
    assert!(of_threads(&server, "Uid").len() >= 3, "a control thread and two workers");
    for (key, expected) in [("Uid", identity.as_str()), ("Gid", &identity), ("NoNewPrivs", "1")] {
        assert!(
            of_threads(&server, key).iter().all(|value| value == expected),
            "{key}: {:?}",
            of_threads(&server, key)
        );
    }
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let none = |value: &String| value.bytes().all(|digit| digit == b'0');
        assert!(of_threads(&server, key).iter().all(none), "{key}: {:?}", of_threads(&server, key));
    }
    let groups = of_threads(&server, "Groups");
    assert!(groups.iter().all(|groups| groups.split(' ').all(|group| group != "0")), "{groups:?}");

    let question = query("www.example.org", A);
    assert_eq!(server.client().ask(&question).answers(), ["192.0.2.7"]);
    assert_eq!(server.tcp_client().ask(&question).answers(), ["192.0.2.7"]);
    let ts = Client::of(server.listener("ts"));
    assert_eq!(ts.ask(&query("b.example", A)).rcode(), NXDOMAIN);
    replace(&server, "b.txt", &table(&["b.example"]));
    replace(&server, "config.toml", &config("'a.txt', 'b.txt'"));
    server.admin().post("/api/v1/reload", "");
    assert_eq!(ts.ask(&query("b.example", A)).answers(), ["192.0.2.1"]);
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success(), "{}", server.process.log());
    server.process.wait_for_log("cache: saved answers=1 ");
    assert!(fs::metadata(server.path("state/cache.bin")).is_ok_and(|file| file.len() > 0));
}

/// As in a container: no file needs to name the user.
#[test]
fn a_user_by_numbers_has_no_other_groups() {
    if !is_root("hostile::privileges::a_user_by_numbers_has_no_other_groups") {
        return;
    }
    let text = authority("'a.txt'", "user = '64123:64124'\n[cache]\npersist = 'cache.bin'\n");
    let text = format!("{text}[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.all]\nbackends = ['127.0.0.1:53']\n");
    let server = Server::start_as(&text, &[("a.txt", &table(&["a.example"]))], |_| {});
    for (key, id) in [("Uid", 64123), ("Gid", 64124)] {
        let expected = [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join(" ");
        let found = of_threads(&server, key);
        assert!(found.len() >= 2 && found.iter().all(|value| *value == expected), "{key}: {found:?}");
    }
    let groups = of_threads(&server, "Groups");
    assert!(groups.iter().all(String::is_empty), "{groups:?}");
    server.process.wait_for_log("make a folder for it alone (install -d -o 64123 /var/lib/hedgerow)");
    assert_eq!(Client::of(server.listener("ts")).ask(&query("a.example", A)).answers(), ["192.0.2.1"]);
}

#[test]
fn files_that_the_user_cannot_use_are_told_at_start() {
    if !is_root("hostile::privileges::files_that_the_user_cannot_use_are_told_at_start") {
        return;
    }
    let text = authority(
        "'a.txt'",
        "user = 'nobody'\n[forwarder]\nlisten = ['127.0.0.1:0']\n[cache]\npersist = 'cache.bin'\n",
    );
    let text = format!("{text}[pools.all]\nbackends = ['127.0.0.1:53']\n");
    let files = [("a.txt", &*table(&["a.example"])), ("cache.bin", "")];
    let server = Server::start_as(&text, &files, |command| {
        let file = folder_of(command).join("a.txt");
        fs::set_permissions(file, Permissions::from_mode(0o600)).expect("our own file");
    });
    let file = |name: &str| server.path(name).display().to_string();
    server
        .process
        .wait_for_log(&format!("{}: user nobody cannot read it, so a reload will fail; chgrp", file("a.txt")));
    server.process.wait_for_log(&format!(
        "{}: user nobody cannot write it, so it will not be saved; make a folder for it alone (install -d -o nobody \
         /var/lib/hedgerow)",
        file("cache.bin")
    ));
    server.process.wait_for_log("user: other programs run as nobody, too");
}

#[test]
fn root_without_a_user_is_told_what_to_do() {
    let backend = Backend::new(answer("192.0.2.7"));
    let server = Forwarder::to(&[&backend], "").start();
    let reported = server.process.log().contains("running as root, with all its rights; set user = ");
    assert_eq!(reported, geteuid().is_root(), "{}", server.process.log());
    assert!(of_threads(&server, "NoNewPrivs").iter().all(|value| value == "1"));
}

#[test]
fn a_user_that_is_not_there_is_told_with_its_place() {
    let folder = TempDir::new().expect("a folder for the test");
    let file = folder.path().join("config.toml");
    fs::write(&file, authority("'a.txt'", "user = 'no-such-user'")).expect("a file of the test");
    fs::write(folder.path().join("a.txt"), table(&["a.example"])).expect("a file of the test");
    for command in ["check", "serve"] {
        let output = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args([command, "-c"]).arg(&file).output();
        let output = output.expect("cargo has built the binary");
        let reported = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{reported}");
        let expected =
            format!("{}:1:8: user: invalid value \"no-such-user\": expected the name of a user", file.display());
        assert!(reported.contains(&expected), "{reported}");
    }
}

#[test]
fn only_root_becomes_another_user() {
    if !is_root("hostile::privileges::only_root_becomes_another_user") {
        return;
    }
    let folder = TempDir::new().expect("a folder for the test");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our own folder");
    let file = folder.path().join("config.toml");
    fs::write(folder.path().join("a.txt"), table(&["a.example"])).expect("a file of the test");
    let text = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n";
    fs::write(&file, format!("user = 'daemon'\n{text}")).expect("a file of the test");
    let output = as_nobody(&["serve", "-c", &file.display().to_string()]);
    let reported = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert!(reported.contains("user: only root can become daemon; start as root or as daemon"), "{reported}");
    let output = as_nobody(&["check", "-c", &file.display().to_string()]);
    assert!(output.status.success(), "also when another user starts it later: {output:?}");
}

#[test]
fn a_reload_reaches_the_folders_of_the_config_and_no_others() {
    let elsewhere = TempDir::new().expect("a folder for the test");
    let other = elsewhere.path().join("other.txt");
    fs::write(&other, table(&["other.example"])).expect("a file of the test");
    let server = Server::start_as(&authority("'a.txt'", ""), &[("a.txt", &table(&["a.example"]))], |command| {
        command.env("HEDGEROW_LOG", "debug");
    });
    let ts = Client::of(server.listener("ts"));
    let has = |name: &str| ts.ask(&query(name, A)).answers() == ["192.0.2.1"];
    // A zone that was replaced, a new one beside it, and the config itself, as editors write them.
    replace(&server, "a.txt", &table(&["a.example", "new.example"]));
    replace(&server, "b.txt", &table(&["b.example"]));
    replace(&server, "config.toml", &authority("'a.txt', 'b.txt'", ""));
    server.admin().post("/api/v1/reload", "");
    assert!(has("a.example") && has("new.example") && has("b.example"));
    replace(&server, "config.toml", &authority(&format!("'a.txt', {other:?}"), ""));
    let answer = server.admin().try_post("/api/v1/reload", "");
    if server.process.log().contains("this kernel has no Landlock") {
        let test = "hostile::privileges::a_reload_reaches_the_folders_of_the_config_and_no_others";
        return leave_out(test, "this kernel has no landlock");
    }
    server.process.wait_for_log("confined to the folders of its config");
    assert_eq!(answer.status, 400, "{answer:?}");
    let expected =
        format!("{}: the process cannot open it, since it was not in the config at the start", other.display());
    assert!(answer.body.contains(&expected), "{answer:?}");
    assert!(!has("other.example") && has("b.example"), "what was in force stays");
}

/// The user that a process is.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// Duplicates of the channels of a process that another process has made, or itself.
fn channels_of(pid: u32, maker: u32) -> Vec<OwnedFd> {
    let process = pidfd_open(tree::pid_of(pid).expect("a number"), PidfdFlags::empty()).expect("it runs");
    let numbers = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").filter_map(Result::ok);
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let copies = numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let is_channel = |fd: &OwnedFd| {
        socket_type(fd) == Ok(SocketType::SEQPACKET)
            && socket_peercred(fd).is_ok_and(|made| Some(made.pid) == i32::try_from(maker).ok().and_then(Pid::from_raw))
    };
    copies.filter(is_channel).collect()
}

/// Sends what a process that is taken over might send.
fn send(channel: &OwnedFd, message: &str, descriptor: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(channel, &[IoSlice::new(message.as_bytes())], &mut control, flags).expect("the supervisor reads");
}

/// A tree whose server is another user than its supervisor.
fn tree_of_nobody() -> tree::Tree {
    let config = format!("user = 'nobody'\n{}", tree::config("standbys = 1"));
    tree::Tree::start_config(&config, &[("a.txt", &tree::table(tree::ADDRESS))], 1, |_| {})
}

#[test]
fn a_server_that_is_taken_over_gets_no_rights_from_its_supervisor() {
    if !is_root("hostile::privileges::a_server_that_is_taken_over_gets_no_rights_from_its_supervisor") {
        return;
    }
    let tree = tree_of_nobody();
    let secret = TempDir::new().expect("a folder for the test");
    let file = secret.path().join("secret.txt");
    fs::write(&file, "TOPSECRET of root\n").expect("our own folder");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("our own file");
    let (supervisor, server) = (tree.pid("supervisor"), tree.pid("server"));
    assert_eq!(user_of(supervisor), Some(0), "the supervisor keeps its rights");
    assert!(tree.left().iter().all(|pid| *pid == supervisor || user_of(*pid) == Some(NOBODY)));

    // A config that names a file of root, with more processes than any config may have.
    let mut text = fs::File::from(memfd_create("text", MemfdFlags::CLOEXEC).expect("memory"));
    write!(text, "[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = [{file:?}]\n").expect("memory");
    let rules = r#"{"standbys":100,"watchdog":{"secs":10,"nanos":0}}"#;
    let edition = format!(r#"{{"Edition":{{"number":7,"file":"/evil.toml","rules":{rules}}}}}"#);
    for channel in channels_of(server, server) {
        send(&channel, &edition, text.as_fd());
    }
    tree.server.process.wait_for_log("standby failed: ");
    // The places that the rules ask for, up to the limit of the config.
    until("eight that stand by", || (tree.left().len() >= 10).then_some(()));
    let left = tree.left();
    assert!(left.len() <= 11, "{left:?}");
    let log = tree.server.process.log();
    assert!(!log.contains("TOPSECRET"), "{log}");
    // Each becomes the user before it reads anything, and has read the config by the time that it complains
    // of it.
    until("no process of root but the supervisor", || {
        let mut others = tree.left().into_iter().filter(|pid| *pid != supervisor);
        others.all(|pid| user_of(pid) == Some(NOBODY)).then_some(())
    });
}

#[test]
fn the_supervisor_takes_no_process_for_its_own_that_it_has_not_started() {
    if !is_root("hostile::privileges::the_supervisor_takes_no_process_for_its_own_that_it_has_not_started") {
        return;
    }
    let tree = tree_of_nobody();
    let (supervisor, server) = (tree.pid("supervisor"), tree.pid("server"));
    // A channel on which a careless reader waits for ever.
    let (_ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("descriptors");
    let state = r#"{"role":"Server","edition":7,"problem":null,"took":0}"#;
    let introduction = format!(r#"{{"protocol":2,"pid":{},"version":"1","state":{state}}}"#, std::process::id());
    let channels = channels_of(server, supervisor);
    assert!(!channels.is_empty(), "the way of introductions");
    for channel in channels {
        send(&channel, &introduction, theirs.as_fd());
    }
    tree.kill(&tree.pids("standby"));
    let whole = tree.wait_until_whole();
    assert!(whole.iter().all(|(pid, _)| *pid != std::process::id()), "{whole:?}");
    assert_eq!(tree.address(), tree::ADDRESS);
}

#[test]
fn processes_that_a_restart_and_a_crash_bring_have_no_rights_of_root() {
    if !is_root("hostile::privileges::processes_that_a_restart_and_a_crash_bring_have_no_rights_of_root") {
        return;
    }
    let tree = tree_of_nobody();
    let supervisor = tree.pid("supervisor");
    let first = tree.pid("server");
    let (status, said) = tree::ctl(&tree, &["restart"]);
    assert_eq!(status, Some(0), "{said}");
    let second = tree.server_other_than(&[first]);
    tree.kill(&[second]);
    tree.server_other_than(&[first, second]);
    for (pid, role) in tree.wait_until_whole() {
        let (user, name) = (user_of(pid), fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
        let expected = if pid == supervisor { Some(0) } else { Some(NOBODY) };
        assert_eq!(user, expected, "{role}");
        let expected = match role.as_str() {
            "server" => "hedgerow-server",
            "supervisor" => "hedgerow-super",
            _ => "hedgerow-spare",
        };
        assert_eq!(name.trim_end(), expected);
        if pid != supervisor {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
            let none = |line: &&str| line.trim_end().ends_with("0000000000000000");
            assert!(status.lines().filter(|line| line.starts_with("CapPrm")).all(|line| none(&line)), "{status}");
        }
    }
    assert_eq!(tree.address(), tree::ADDRESS);
}
