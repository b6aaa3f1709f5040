//! A supervisor, a server and those that stand by: whoever is killed, the others bring it back, and no query is lost that nobody
//! had read.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::support::*;

const ADDRESS: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// All processes of one start, in a process group of their own.
struct Tree {
    server: Server,
    group: Pid,
    standbys: usize,
}

/// What all of them serve.
fn config(keys: &str) -> String {
    format!(
        "workers = 2\n[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n[admin]\nlisten = '127.0.0.1:0'\n\
         [supervisor]\n{keys}\n"
    )
}

/// A table in which the name has this address.
fn table(address: &str) -> String {
    format!("www.example {address} A\n")
}

impl Tree {
    fn start(keys: &str) -> Self {
        Self::start_as(keys, 2, |_| {})
    }

    /// The same, by another file.
    fn start_program(program: &std::path::Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, config("")).expect("our own folder");
        std::fs::write(folder.path().join("a.txt"), table(ADDRESS)).expect("our own folder");
        let mut command = Command::new(program);
        command.args(["serve", "-c"]).arg(&file).process_group(0);
        let server = Server::ready(Process::run_by(command, |_| {}), folder);
        let group = Pid::from_child(server.process.child());
        let tree = Self { server, group, standbys: 2 };
        tree.wait_until_whole();
        tree
    }

    fn start_as(keys: &str, standbys: usize, set_up: impl FnOnce(&mut Command)) -> Self {
        let server = Server::start_as(&config(keys), &[("a.txt", &table(ADDRESS))], |command| {
            command.process_group(0);
            set_up(command);
        });
        let group = Pid::from_child(server.process.child());
        let tree = Self { server, group, standbys };
        tree.wait_until_whole();
        tree
    }

    /// What the admin server says of all. Whoever is killed answers no more, so that it is asked again.
    fn status(&self) -> Value {
        until("a status", || {
            let mut stream = TcpStream::connect(self.server.listener("admin")).ok()?;
            stream.write_all(b"GET /api/v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
        })
    }

    /// All processes as the admin server lists them.
    fn processes(&self) -> Vec<(u32, String)> {
        let status: Value = self.status();
        let processes = status["processes"].as_array().expect("a list").iter();
        let process = |process: &Value| {
            let pid = process["pid"].as_u64().expect("a number");
            (u32::try_from(pid).expect("a small one"), process["role"].as_str().expect("a word").to_owned())
        };
        processes.map(process).collect()
    }

    fn pids(&self, role: &str) -> Vec<u32> {
        self.processes().into_iter().filter(|(_, found)| found == role).map(|(pid, _)| pid).collect()
    }

    fn pid(&self, role: &str) -> u32 {
        let pids = self.pids(role);
        assert_eq!(pids.len(), 1, "one {role}: {:?}", self.processes());
        pids[0]
    }

    /// Waits until there are a supervisor, a server and all that are to stand by, and nothing else.
    fn wait_until_whole(&self) -> Vec<(u32, String)> {
        let expected = [("supervisor", 1), ("server", 1), ("standby", self.standbys)];
        until("a whole tree", || {
            let processes = self.processes();
            let count = |role: &str| processes.iter().filter(|(_, found)| found == role).count();
            let is_whole = expected.iter().all(|(role, number)| count(role) == *number);
            (is_whole && processes.len() == self.standbys + 2 && self.left().len() == processes.len())
                .then_some(processes)
        })
    }

    /// All processes of the group that run, as the system has them.
    fn left(&self) -> Vec<u32> {
        let folders = std::fs::read_dir("/proc").expect("a /proc").filter_map(Result::ok);
        let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| state_of(*pid).is_some_and(|(_, group)| group == self.group.as_raw_nonzero().get())).collect()
    }

    /// Kills processes, all at once, and waits until they are dead.
    fn kill(&self, pids: &[u32]) {
        pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
        for pid in pids {
            until("its end", || (!is_running(*pid)).then_some(()));
        }
    }

    fn address(&self) -> String {
        self.client().ask(&query("www.example", A)).answers().remove(0)
    }

    fn client(&self) -> Client {
        Client::of(self.server.listener("a"))
    }

    /// The first start's last words, when it was told to end.
    fn assert_ended(&mut self) {
        let status = self.server.process.wait_for_exit();
        assert_eq!(status.code(), Some(0), "{}", self.server.process.log());
        assert_eq!(self.left(), [0; 0]);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).expect("a small number"))
}

fn signal(pid: u32, signal: Signal) {
    let _ = kill_process(pid_of(pid).expect("a number above zero"), signal);
}

/// Stops a process, and waits until none of its threads runs: what comes then, it does not read.
fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    until("all threads are stopped", || {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is there").filter_map(Result::ok);
        let mut states = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        states.all(|state| state.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))).then_some(())
    });
}

/// What a process does, if it has not ended, and its process group.
fn state_of(pid: u32) -> Option<(char, i32)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = status.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, 'Z' | 'X')).then_some((state, group))
}

/// Whether there is such a process that has not ended.
fn is_running(pid: u32) -> bool {
    state_of(pid).is_some()
}

#[test]
fn sections_start_a_supervisor_a_server_and_standbys() {
    let mut tree = Tree::start("");
    assert_eq!(tree.pid("supervisor"), tree.server.process.id());
    assert_eq!(tree.address(), ADDRESS);
    // All in one group, and no zombie.
    assert_eq!(tree.left().len(), 4);
    assert_eq!(tree.server.process.log().matches(" ready ").count(), 1);
    tree.server.process.signal(Signal::TERM);
    tree.assert_ended();
}

#[test]
fn as_many_stand_by_as_the_config_says() {
    for standbys in [0, 1, 4] {
        let mut tree = Tree::start_as(&format!("standbys = {standbys}"), standbys, |_| {});
        tree.server.process.signal(Signal::INT);
        tree.assert_ended();
    }
}

#[test]
fn status_of_a_first_start_that_fails_is_passed_on_and_the_error_told_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port();
    for (config, zone, status, told) in [
        (config(""), "www.example 192.0.2.1\n", 2, "a.txt:1"),
        (config("standbys = 9"), "", 2, "supervisor.standbys"),
        (config("").replace("['127.0.0.1:0']", &format!("['127.0.0.1:{port}']")), &table(ADDRESS), 1, "in use"),
    ] {
        std::fs::write(&file, &config).expect("our own folder");
        std::fs::write(folder.path().join("a.txt"), zone).expect("our own folder");
        let mut process = Process::run(["serve", "-c", file.to_str().expect("UTF-8")]);
        assert_eq!(process.wait_for_exit().code(), Some(status), "{config}");
        assert_eq!(process.log().matches(told).count(), 1, "{told}: {}", process.log());
    }
}

#[test]
fn queries_that_wait_when_the_server_is_killed_are_answered_by_a_standby() {
    let tree = Tree::start("");
    let server = tree.pid("server");
    stop(server);
    let clients: Vec<_> = (0..20).map(|_| tree.client()).collect();
    let queries: Vec<Vec<_>> =
        (0..20).map(|_| (0..10).map(|number| query("www.example", A).id(number)).collect()).collect();
    for (client, queries) in clients.iter().zip(&queries) {
        queries.iter().for_each(|query| client.send(query));
    }
    tree.kill(&[server]);
    let mut answers = 0;
    for client in &clients {
        for _ in 0..10 {
            assert_eq!(client.receive().answers(), [ADDRESS]);
            answers += 1;
        }
    }
    assert_eq!(answers, 200);
    let processes = tree.wait_until_whole();
    let log = tree.server.process.log();
    let next = processes.iter().find(|(_, role)| role == "server").expect("one serves").0;
    assert!(log.contains(&format!("process {next} serves after {server} (crash): ")), "{log}");
    assert!(log.contains(&format!("process {server} ended: signal 9")), "{log}");
    assert_eq!(log.matches(" ready ").count(), 1);
    let metrics = tree.server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_takeovers_total", &[("reason", "crash")]), 1);
}

#[test]
fn a_server_that_makes_no_progress_is_killed_and_its_queries_are_answered() {
    let tree = Tree::start("watchdog = '1s'");
    let server = tree.pid("server");
    stop(server);
    let client = tree.client();
    for number in 0..200 {
        client.send(&query("www.example", A).id(number));
    }
    for _ in 0..200 {
        assert_eq!(client.receive().answers(), [ADDRESS]);
    }
    tree.wait_until_whole();
    tree.server.process.wait_for_log(&format!("serves after {server} (hang)"));
}

#[test]
fn standbys_and_the_supervisor_are_replaced_when_they_hang() {
    let tree = Tree::start("watchdog = '1s'");
    for role in ["standby", "supervisor"] {
        let pid = tree.pids(role)[0];
        signal(pid, Signal::STOP);
        until("its end", || (!is_running(pid)).then_some(()));
        tree.wait_until_whole();
    }
    assert_eq!(tree.address(), ADDRESS);
}

#[test]
fn the_supervisor_is_succeeded_three_times_in_a_row() {
    let tree = Tree::start("");
    let server = tree.pid("server");
    let client = tree.client();
    for round in 1..=3 {
        let supervisor = tree.pid("supervisor");
        tree.kill(&[supervisor]);
        tree.server.process.wait_for_log(&format!("succeeds {supervisor}"));
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        tree.wait_until_whole();
        assert_eq!(tree.pid("server"), server, "nobody else has to serve for that");
        assert_eq!(tree.server.admin().metrics().sum("hedgerow_successions_total", &[]), round);
    }
}

#[test]
fn whoever_is_left_brings_back_the_rest() {
    let tree = Tree::start("");
    let pick = |role: &str| tree.pids(role);
    // Supervisor and server at once.
    tree.kill(&[pick("supervisor"), pick("server")].concat());
    assert_eq!(tree.address(), ADDRESS);
    tree.wait_until_whole();
    // All but the server.
    tree.kill(&[pick("supervisor"), pick("standby")].concat());
    assert_eq!(tree.address(), ADDRESS);
    tree.wait_until_whole();
    // All but the supervisor.
    tree.kill(&[pick("server"), pick("standby")].concat());
    assert_eq!(tree.address(), ADDRESS);
    tree.wait_until_whole();
    let supervisor = tree.pid("supervisor");
    signal(supervisor, Signal::TERM);
    until("nobody is left", || tree.left().is_empty().then_some(()));
}

/// Which of the two locks it has first, and whether it has heard of the end before, is chance.
#[test]
fn the_last_standby_serves_and_brings_back_the_rest_whatever_it_hears_of_first() {
    let tree = Tree::start("");
    for _ in 0..10 {
        let left = tree.pids("standby")[0];
        let others: Vec<_> = tree.processes().into_iter().map(|(pid, _)| pid).filter(|pid| *pid != left).collect();
        tree.kill(&others);
        assert_eq!(tree.address(), ADDRESS);
        tree.wait_until_whole();
    }
}

#[test]
fn without_succession_all_drain_and_end() {
    let tree = Tree::start("succession = false");
    tree.kill(&[tree.pid("supervisor")]);
    until("nobody is left", || tree.left().is_empty().then_some(()));
    tree.server.process.wait_for_log("drained");
}

#[test]
fn a_server_that_is_told_to_end_alone_is_followed_by_a_standby() {
    let tree = Tree::start("");
    let server = tree.pid("server");
    signal(server, Signal::TERM);
    tree.server.process.wait_for_log(&format!("serves after {server} (restart)"));
    until("its end", || (!is_running(server)).then_some(()));
    assert_eq!(tree.address(), ADDRESS);
    tree.wait_until_whole();
    assert_eq!(tree.server.admin().metrics().sum("hedgerow_takeovers_total", &[("reason", "restart")]), 1);
}

#[test]
fn a_second_signal_ends_all_at_once() {
    let mut tree = Tree::start("");
    // It cannot drain, since it is stopped.
    signal(tree.pid("server"), Signal::STOP);
    tree.server.process.signal(Signal::TERM);
    tree.server.process.wait_for_log("SIGTERM: ");
    tree.server.process.signal(Signal::TERM);
    assert_eq!(tree.server.process.wait_for_exit().code(), Some(1));
    until("nobody is left", || tree.left().is_empty().then_some(()));
}

#[test]
fn the_edition_in_force_survives_a_kill_and_an_unread_edit_does_not_come_into_force() {
    let tree = Tree::start("");
    let edition = |number: u64| {
        until("the edition everywhere", || {
            let status: Value = tree.status();
            let processes = status["processes"].as_array().expect("a list").clone();
            processes.iter().all(|process| process["edition"] == number).then_some(())
        });
    };
    let other = config("").replace("a.txt", "b.txt");
    tree.server.rewrite("b.txt", &table(OTHER));
    tree.server.reload("config.toml", &other);
    tree.server.process.wait_for_log("reloaded: edition 2");
    edition(2);
    // Nobody has asked for this one.
    tree.server.rewrite("config.toml", &config(""));
    tree.kill(&[tree.pid("server")]);
    assert_eq!(tree.address(), OTHER);
    tree.wait_until_whole();
    tree.kill(&[tree.pid("supervisor"), tree.pid("server")]);
    assert_eq!(tree.address(), OTHER);
    tree.wait_until_whole();
    edition(2);
    signal(tree.pid("supervisor"), Signal::HUP);
    tree.server.process.wait_for_log("reloaded: edition 3");
    assert_eq!(tree.address(), ADDRESS);
}

#[test]
fn standbys_keep_what_they_have_when_a_zone_file_is_broken_and_new_ones_fail() {
    let tree = Tree::start("");
    tree.server.rewrite("a.txt", "broken\n");
    tree.kill(&[tree.pid("server")]);
    assert_eq!(tree.address(), ADDRESS);
    until("one has failed", || (tree.pids("failed").len() == 1).then_some(()));
    tree.server.process.wait_for_log("standby failed: ");
    let metrics = tree.server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_processes", &[("role", "standby")]), 1);
    assert_eq!(metrics.sum("hedgerow_processes", &[("role", "failed")]), 1);
    let status: Value = tree.status();
    let failed = status["processes"].as_array().expect("a list").iter().find(|process| process["role"] == "failed");
    let problem = failed.expect("there is one")["problem"].as_str().expect("a text").to_owned();
    assert!(problem.contains("a.txt:1"), "{problem}");
    tree.server.rewrite("a.txt", &table(ADDRESS));
    tree.wait_until_whole();
}

#[test]
fn sigusr2_without_a_supervisor_is_told_and_ignored() {
    let config = config("").replace("[supervisor]", "");
    let server = Server::start_with_files(&config, &[("a.txt", &table(ADDRESS))]);
    server.process.signal(Signal::USR2);
    server.process.wait_for_log("SIGUSR2: upgrade refused: ");
    let client = Client::of(server.listener("a"));
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
}

/// Whoever is killed while queries come in, each of them is answered but for what the server had in hand.
#[test]
fn the_death_of_the_supervisor_costs_no_query() {
    let tree = Tree::start("");
    let client = tree.client();
    let supervisor = tree.pid("supervisor");
    let killed = thread::spawn(move || signal(supervisor, Signal::KILL));
    for number in 0..2000 {
        assert_eq!(client.ask(&query("www.example", A).id(number)).answers(), [ADDRESS]);
    }
    killed.join().expect("nothing panics there");
    tree.wait_until_whole();
}

/// `ctl restart` and the like; whether it was done, and what it said.
fn ctl(tree: &Tree, words: &[&str]) -> (Option<i32>, String) {
    let address = format!("http://{}", tree.server.listener("admin"));
    let processes = tree.left();
    let output = tree.server.process.ctl(&[&["--admin", &address], words].concat());
    if output.status.success() {
        // The one before takes requests until it has drained.
        until("the end of the one before", || (!processes.iter().all(|pid| is_running(*pid))).then_some(()));
    }
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[test]
fn a_restart_has_a_newcomer_serve_and_carries_the_counters_on() {
    let tree = Tree::start("");
    let client = tree.client();
    for number in 0..100 {
        client.ask(&query("www.example", A).id(number));
    }
    let (before, supervisor) = (tree.pid("server"), tree.pid("supervisor"));
    // A restart reads what is on the disk.
    tree.server.rewrite("a.txt", &table(OTHER));
    let (status, said) = ctl(&tree, &["restart"]);
    assert_eq!(status, Some(0), "{said}{}", tree.server.process.log());
    assert_eq!(client.ask(&query("www.example", A)).answers(), [OTHER]);
    tree.server.process.wait_for_log(&format!("serves after {before} (restart)"));
    tree.wait_until_whole();
    assert_ne!(tree.pid("server"), before);
    assert_eq!(tree.pid("supervisor"), supervisor);
    let is_carried = |metrics: &Metrics| metrics.sum("hedgerow_queries_total", &[]) == 101;
    tree.server.admin().wait_for("all queries counted", is_carried);
    // The standbys have that edition too.
    tree.kill(&[tree.pid("server")]);
    assert_eq!(tree.address(), OTHER);
}

#[test]
fn a_connection_goes_on_over_a_restart() {
    let tree = Tree::start("");
    let mut client = TcpClient::of(tree.server.listener("a"));
    for round in 0..3 {
        assert_eq!(client.ask(&query("www.example", A).id(round)).answers(), [ADDRESS]);
        let (status, said) = ctl(&tree, &["restart"]);
        assert_eq!(status, Some(0), "{said}");
        tree.wait_until_whole();
    }
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
}

#[test]
fn queries_of_a_load_are_all_answered_over_restarts() {
    let tree = Tree::start("");
    let listener = tree.server.listener("a");
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let is_over = std::sync::Arc::clone(&is_over);
            thread::spawn(move || {
                let (client, mut asked) = (Client::of(listener), 0_u16);
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    // It panics if there is no answer.
                    assert_eq!(client.ask(&query("www.example", A).id(asked)).answers(), [ADDRESS]);
                    asked = asked.wrapping_add(1);
                }
            })
        })
        .collect();
    for _ in 0..5 {
        let (status, said) = ctl(&tree, &["restart"]);
        assert_eq!(status, Some(0), "{said}");
        tree.wait_until_whole();
    }
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("each query was answered"));
}

#[test]
fn a_reload_that_changes_the_workers_is_followed_by_a_restart() {
    let tree = Tree::start("");
    let server = tree.pid("server");
    let text = std::fs::read_to_string(tree.server.path("config.toml")).expect("our own file");
    tree.server.rewrite("config.toml", &text.replace("workers = 2", "workers = 3"));
    tree.server.process.signal(Signal::HUP);
    tree.server.process.wait_for_log("workers has changed, which a restart puts in force now");
    tree.server.process.wait_for_log("(restart): ");
    let status = || {
        let answer = tree.server.admin().try_get("/api/v1/status")?;
        serde_json::from_str::<Value>(&answer.body).ok()
    };
    until("three workers", || (status()?["workers"] == 3).then_some(()));
    tree.wait_until_whole();
    assert_ne!(tree.pid("server"), server);
    // What is in force already needs none.
    tree.server.process.signal(Signal::HUP);
    tree.server.process.wait_for_log("reloaded: edition 4");
    assert_eq!(tree.address(), ADDRESS);
}

#[test]
fn a_restart_with_a_wrong_config_is_refused_and_nothing_changes() {
    let tree = Tree::start("");
    let before = tree.wait_until_whole();
    tree.server.rewrite("config.toml", "wrong");
    let (status, said) = ctl(&tree, &["restart"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("config.toml:1"), "{said}");
    tree.server.process.wait_for_log("restart refused: ");
    assert_eq!(tree.wait_until_whole(), before);
    assert_eq!(tree.address(), ADDRESS);
}

/// A copy of the program that can be replaced.
fn start_copy() -> (Tree, tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = folder.path().join("hedgerow");
    std::fs::copy(env!("CARGO_BIN_EXE_hedgerow"), &program).expect("our own folder");
    let tree = Tree::start_program(&program);
    (tree, folder, program)
}

/// Puts something else in the place of the program, as a package does.
fn replace(program: &std::path::Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    let new = program.with_extension("new");
    std::fs::write(&new, content).expect("our own folder");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    std::fs::rename(&new, program).expect("our own folder");
}

/// Lets a process open no more descriptors than this from now on.
fn limit_descriptors(pid: u32, current: Option<u64>) {
    use rustix::process::{Resource, Rlimit, prlimit};
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    prlimit(pid_of(pid), Resource::Nofile, Rlimit { current: current.or(maximum), maximum }).expect("it is ours");
}

#[test]
fn a_supervisor_without_descriptors_tells_it_and_starts_others_when_there_are_some_again() {
    let tree = Tree::start("");
    let (supervisor, standby) = (tree.pid("supervisor"), tree.pids("standby")[0]);
    // As many as it polls, or that would fail; it has them, and they stay.
    limit_descriptors(supervisor, Some(10));
    tree.kill(&[standby]);
    tree.server.process.wait_for_log("standby failed: cannot start a process: ");
    let (status, said) = ctl(&tree, &["restart"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("cannot start a process"), "{said}");
    assert_eq!(tree.address(), ADDRESS, "the rest serves on");
    limit_descriptors(supervisor, None);
    tree.wait_until_whole();
    assert_eq!(tree.pid("supervisor"), supervisor);
}

#[test]
fn without_descriptors_for_its_locks_the_first_start_fails_and_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    std::fs::write(&file, config("")).expect("our own folder");
    std::fs::write(folder.path().join("a.txt"), table(ADDRESS)).expect("our own folder");
    // The limit is raised to what is allowed at most, so that is what is low.
    for limit in [8, 16] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$1\" && exec \"$2\" serve -c \"$3\"", "sh", &limit.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_hedgerow")).arg(&file);
        let mut process = Process::run_by(command, |_| {});
        assert_eq!(process.wait_for_exit().code(), Some(1), "{limit}: {}", process.log());
        assert!(process.log().contains("Too many open files"), "{limit}: {}", process.log());
    }
}

#[test]
fn standbys_read_what_the_server_has_saved_before_they_serve() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("saved.zone");
    // The copy asks each second for a newer one.
    let text = |serial, address| {
        format!("@ 300 SOA ns.elsewhere. h {serial} 1 1 86400 60\n@ NS ns.elsewhere.\nwww A {address}\n")
    };
    let primary = Server::start_with_files(
        "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z.zone', origin = 'example.org', \
         transfer_to = ['127.0.0.1'] }]\n",
        &[("z.zone", &text(1, ADDRESS))],
    );
    let keys = format!(
        "[authorities.copy]\nlisten = ['127.0.0.1:0']\nzones = [{{ zone = 'example.org', primaries = ['{}'], \
         file = '{}' }}]",
        primary.listener("ts"),
        file.display()
    );
    let tree = Tree::start_as(&keys, 2, |command| {
        command.env("HEDGEROW_LOG", "hedgerow=debug");
    });
    let ask = || Client::of(tree.server.listener("copy")).try_ask(&query("www.example.org", A));
    let has = |address: &str| ask().is_some_and(|response| response.answers() == [address]);
    until("a copy", || has(ADDRESS).then_some(()));
    primary.reload("z.zone", &text(2, OTHER));
    until("a newer copy", || has(OTHER).then_some(()));
    let read = "standby: has read what the server has saved zones=1";
    until("two standbys have it", || (tree.server.process.log().matches(read).count() >= 2).then_some(()));
    drop(primary);
    // Another content of the same file and length: who reads it now finds no zone there.
    let len = std::fs::metadata(&file).expect("what was saved").len();
    std::fs::write(&file, vec![b'('; usize::try_from(len).expect("small")]).expect("our own file");
    tree.kill(&[tree.pid("server")]);
    until("the first answer", || {
        let response = ask()?;
        assert_eq!(response.answers(), [OTHER], "the standby has read it before");
        Some(())
    });
}

#[test]
fn upgrades_to_what_cannot_serve_are_refused_and_nothing_changes() {
    let (tree, _folder, program) = start_copy();
    let before = tree.wait_until_whole();
    let image = std::fs::read(&program).expect("our own file");
    let refused = |what: &str| {
        let (status, said) = ctl(&tree, &["upgrade"]);
        assert_eq!(status, Some(1), "{what}: {said}");
        assert_eq!(tree.wait_until_whole(), before, "{what}");
        assert_eq!(tree.address(), ADDRESS, "{what}");
    };
    std::fs::remove_file(&program).expect("our own file");
    refused("no file");
    replace(&program, b"#!/bin/sh\nexit 3\n");
    refused("a script");
    replace(&program, b"no program\n");
    refused("a text");
    // Half of it may be all that runs: the rest tells debuggers where things are.
    replace(&program, &image[..65_536]);
    refused("a program that was cut off");
    replace(&program, &std::fs::read("/bin/sleep").expect("there is one"));
    refused("another program");
    // And the same by signal.
    tree.server.process.signal(Signal::USR2);
    until("refused once more", || (tree.server.process.log().matches("upgrade refused").count() == 6).then_some(()));
    replace(&program, &image);
    let (status, said) = ctl(&tree, &["upgrade"]);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn an_upgrade_that_dies_soon_is_rolled_back() {
    let (tree, _folder, program) = start_copy();
    let before: Vec<_> = tree.wait_until_whole().into_iter().map(|(pid, _)| pid).collect();
    replace(&program, &std::fs::read(&program).expect("our own file"));
    assert_eq!(ctl(&tree, &["upgrade"]).0, Some(0));
    assert_eq!(ctl(&tree, &["upgrade"]).0, Some(1), "the last one is still on trial");
    let new = tree.pid("server");
    assert!(!before.contains(&new));
    tree.kill(&[new]);
    assert_eq!(tree.address(), ADDRESS);
    tree.server.process.wait_for_log("upgrade rolled back: ");
    tree.server.process.wait_for_log(&format!("serves after {new} (rollback)"));
    assert!(before.contains(&tree.pid("server")), "one of the program before");
    tree.wait_until_whole();
}

#[test]
fn all_processes_follow_an_upgrade() {
    let (tree, _folder, program) = start_copy();
    let before = tree.wait_until_whole();
    let supervisor = tree.pid("supervisor");
    replace(&program, &std::fs::read(&program).expect("our own file"));
    tree.server.process.signal(Signal::USR2);
    tree.server.process.wait_for_log("(upgrade)");
    // The file of the one before is no more.
    let runs_it = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == program);
    until("all run it", || tree.left().into_iter().all(runs_it).then_some(()));
    let after = tree.wait_until_whole();
    assert_eq!(tree.pid("supervisor"), supervisor, "the same process, become another program");
    let is_old = |pid: &u32| before.iter().any(|(old, _)| old == pid) && *pid != supervisor;
    assert!(!after.iter().any(|(pid, _)| is_old(pid)));
    assert_eq!(tree.address(), ADDRESS);
    let metrics = tree.server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_takeovers_total", &[("reason", "upgrade")]), 1);
    assert_eq!(metrics.sum("hedgerow_successions_total", &[]), 0);
    // And whoever comes now has its place.
    tree.kill(&[tree.pid("server"), supervisor]);
    assert_eq!(tree.address(), ADDRESS);
    tree.wait_until_whole();
}

#[test]
fn kills_in_the_middle_of_a_restart_leave_a_whole_tree() {
    let tree = Tree::start("");
    for victim in ["starting", "server", "supervisor"] {
        let processes = tree.wait_until_whole();
        let address = format!("http://{}", tree.server.listener("admin"));
        let known: Vec<_> = processes.iter().map(|(pid, _)| *pid).collect();
        thread::scope(|scope| {
            // Whether it is done or refused depends on the moment.
            scope.spawn(|| tree.server.process.ctl(&["--admin", &address, "restart"]));
            let newcomer = until("a newcomer", || tree.left().into_iter().find(|pid| !known.contains(pid)));
            let pid = match victim {
                "starting" => newcomer,
                role => processes.iter().find(|(_, found)| found == role).expect("there is one").0,
            };
            tree.kill(&[pid]);
        });
        assert_eq!(tree.address(), ADDRESS, "{victim}");
        tree.wait_until_whole();
    }
}
