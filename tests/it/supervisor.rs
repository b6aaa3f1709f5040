//! Tests of a supervisor, a server and standbys: after any of them is killed, the others restart it, and no
//! query is lost that no process had read.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use testkit::tree::*;
use testkit::*;

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
    for (config, zone, status, reported) in [
        (config(""), "www.example 192.0.2.1\n", 2, "a.txt:1"),
        (config("standbys = 9"), "", 2, "supervisor.standbys"),
        (config("").replace("['127.0.0.1:0']", &format!("['127.0.0.1:{port}']")), &table(ADDRESS), 1, "in use"),
    ] {
        std::fs::write(&file, &config).expect("our own folder");
        std::fs::write(folder.path().join("a.txt"), zone).expect("our own folder");
        let mut process = Process::run(["serve", "-c", file.to_str().expect("UTF-8")]);
        assert_eq!(process.wait_for_exit().code(), Some(status), "{config}");
        assert_eq!(process.log().matches(reported).count(), 1, "{reported}: {}", process.log());
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
    let end = format!("process {server} ended: signal 9");
    assert!(log.lines().any(|line| line.contains(&end) && line.contains("ERROR")), "{log}");
    assert_eq!(log.matches(" ready ").count(), 1);
    let metrics = tree.server.admin().metrics();
    assert_eq!(metrics.sum("hedgerow_takeovers_total", &[("reason", "crash")]), 1);
}

/// The sockets hold more of one client than may wait of it otherwise.
#[test]
fn a_backlog_beyond_the_limit_of_a_client_is_answered_by_a_standby() {
    let backend = Backend::new(answer(ADDRESS).after(Duration::from_millis(20)));
    let pool = Forwarder::to(&[&backend], "").keys("limits = { waiting = 16 }").admin().to_toml();
    let tree = Tree::start_config(&format!("{pool}\n[supervisor]\n"), &[], 2, |_| {});
    let server = tree.pid("server");
    stop(server);
    // Fewer than a socket of the backend holds, because the standby sends all of them at once.
    let clients: Vec<_> = (0..5).map(|_| tree.server.client()).collect();
    for (number, client) in clients.iter().enumerate() {
        (0..20).for_each(|id| client.send(&query(&format!("n{number}-{id}.example"), A).id(id).edns(1232)));
    }
    tree.kill(&[server]);
    for client in &clients {
        for _ in 0..20 {
            let response = client.receive();
            assert_eq!(response.answers(), [ADDRESS], "{response:?}");
        }
    }
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
        tree.server.process.wait_for_log(&format!("replaces supervisor {supervisor}"));
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        tree.wait_until_whole();
        assert_eq!(tree.pid("server"), server, "no other process serves for that");
        let count = || tree.server.admin().metrics().sum("hedgerow_successions_total", &[]);
        until("the succession is counted", || (count() == round).then_some(()));
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
    until("no process is left", || tree.left().is_empty().then_some(()));
}

/// Chance decides which of the two locks the standby gets first, and whether it has heard of the end before.
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
    until("no process is left", || tree.left().is_empty().then_some(()));
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
    until("no process is left", || tree.left().is_empty().then_some(()));
}

#[test]
fn the_edition_in_force_survives_a_kill_and_an_unread_edit_does_not_come_into_force() {
    let tree = Tree::start("");
    let other = config("").replace("a.txt", "b.txt");
    tree.server.rewrite("b.txt", &table(OTHER_ADDRESS));
    tree.server.reload("config.toml", &other);
    tree.server.process.wait_for_log("reloaded: edition 2");
    tree.wait_for_edition(2);
    // No reload was requested for this change.
    tree.server.rewrite("config.toml", &config(""));
    tree.kill(&[tree.pid("server")]);
    assert_eq!(tree.address(), OTHER_ADDRESS);
    tree.wait_until_whole();
    tree.kill(&[tree.pid("supervisor"), tree.pid("server")]);
    assert_eq!(tree.address(), OTHER_ADDRESS);
    tree.wait_until_whole();
    tree.wait_for_edition(2);
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
    // A failed process is tried again from time to time, so each look is at one moment.
    tree.server.process.wait_for_log("standby failed: ");
    let admin = tree.server.admin();
    admin.wait_for("one waits, and one has failed", |metrics| {
        ["standby", "failed"].iter().all(|role| metrics.sum("hedgerow_processes", &[("role", role)]) == 1)
    });
    let problem = admin.wait_for_status("what has failed", |status| {
        let failed = status["processes"].as_array()?.iter().find(|process| process["role"] == "failed")?;
        failed["problem"].as_str().map(str::to_owned)
    });
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

/// After any process is killed while queries come in, all queries are answered but those that the server had
/// in hand.
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
    primary.reload("z.zone", &text(2, OTHER_ADDRESS));
    until("a newer copy", || has(OTHER_ADDRESS).then_some(()));
    let read = "a saved zone is read zone=example.org. serial=2";
    until("two standbys have it", || (tree.server.process.log().matches(read).count() >= 2).then_some(()));
    drop(primary);
    // Another content of the same file and length: a process that reads it now finds no zone there.
    let len = std::fs::metadata(&file).expect("what was saved").len();
    std::fs::write(&file, vec![b'('; usize::try_from(len).expect("small")]).expect("our own file");
    tree.kill(&[tree.pid("server")]);
    until("the first answer", || {
        let response = ask()?;
        assert_eq!(response.answers(), [OTHER_ADDRESS], "the standby has read it before");
        Some(())
    });
}
