//! Restarts and upgrades: a newcomer takes over, or nothing changes.

use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use testkit::tree::*;
use testkit::*;

#[test]
fn a_restart_has_a_newcomer_serve_and_carries_the_counters_on() {
    let tree = Tree::start("");
    let client = tree.client();
    for number in 0..100 {
        client.ask(&query("www.example", A).id(number));
    }
    let (before, supervisor) = (tree.pid("server"), tree.pid("supervisor"));
    // A restart reads what is on the disk.
    tree.server.rewrite("a.txt", &table(OTHER_ADDRESS));
    let (status, said) = ctl(&tree, &["restart"]);
    assert_eq!(status, Some(0), "{said}{}", tree.server.process.log());
    assert_eq!(client.ask(&query("www.example", A)).answers(), [OTHER_ADDRESS]);
    tree.server.process.wait_for_log(&format!("serves after {before} (restart)"));
    tree.wait_until_whole();
    tree.server_other_than(&[before]);
    assert_eq!(tree.pid("supervisor"), supervisor);
    let is_carried = |metrics: &Metrics| metrics.sum("hedgerow_queries_total", &[]) == 101;
    tree.server.admin().wait_for("all queries counted", is_carried);
    // The standbys have that edition too.
    tree.wait_for_edition(2);
    tree.kill(&[tree.pid("server")]);
    assert_eq!(tree.address(), OTHER_ADDRESS);
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
fn many_connections_go_on_over_a_restart() {
    // More than the channel between the two processes holds.
    let keys = "[authorities.a.connections]\nper_client = 0\nfirst_query = '1m'\nidle = '1m'\n";
    let tree = Tree::start_config(&(config("") + keys), &[("a.txt", &table(ADDRESS))], 2, |_| {});
    let mut clients: Vec<_> = (0..2_000).map(|_| TcpClient::of(tree.server.listener("a"))).collect();
    let queries: Vec<_> = (0..2_000).map(|number| query("www.example", A).id(number)).collect();
    for (client, query) in clients.iter_mut().zip(&queries) {
        assert_eq!(client.ask(query).answers(), [ADDRESS]);
    }
    let (status, said) = ctl(&tree, &["restart"]);
    assert_eq!(status, Some(0), "{said}");
    tree.wait_until_whole();
    for (client, query) in clients.iter_mut().zip(&queries) {
        assert_eq!(client.ask(query).answers(), [ADDRESS]);
    }
}

#[test]
fn part_of_a_long_message_goes_on_over_a_restart() {
    let tree = Tree::start("");
    let mut clients: Vec<_> = (0..4).map(|_| TcpClient::of(tree.server.listener("a"))).collect();
    // An option for private use (RFC 6891 section 9) makes the message as long as it can be.
    let long = query("www.example", A).option(65_001, &[0xff; 65_000]);
    let message = framed(&long.to_vec());
    let (first, rest) = message.split_at(message.len() - 1);
    clients.iter_mut().for_each(|client| client.send_bytes(first));
    let (status, said) = ctl(&tree, &["restart"]);
    assert_eq!(status, Some(0), "{said}");
    tree.wait_until_whole();
    for client in &mut clients {
        client.send_bytes(rest);
        assert_eq!(client.receive().answers(), [ADDRESS]);
    }
}

#[test]
fn a_restart_waits_for_the_connections_of_the_process_before() {
    let backend = Backend::new(answer(ADDRESS).held());
    let config = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").admin().to_toml();
    let tree = Tree::start_config(&(config + "[supervisor]\n"), &[], 2, |_| {});
    let mut client = TcpClient::of(tree.server.address());
    client.send(&[query("www.example", A)]);
    backend.wait_for(1);
    let admin = format!("unix:{}", tree.server.process.admin_socket(tree.server.listener("admin")).display());
    let restart = || {
        let output = tree.server.process.ctl(&["--admin", &admin, "restart"]);
        assert!(output.status.success(), "{output:?}");
    };
    restart();
    let between = tree.pid("server");
    thread::scope(|scope| {
        let second = scope.spawn(restart);
        tree.server.process.wait_for_log("restart waits for the last responses");
        backend.release();
        assert_eq!(client.receive().answers(), [ADDRESS]);
        second.join().expect("it succeeds");
    });
    tree.server_other_than(&[between]);
    client.send(&[query("www.example", A).id(2)]);
    backend.wait_for(2);
    backend.release();
    assert_eq!(client.receive().answers(), [ADDRESS]);
    let is_exact = |metrics: &Metrics| {
        [("hedgerow_queries_total", &[][..]), ("hedgerow_responses_total", &[])]
            .iter()
            .all(|(name, labels)| metrics.sum(name, labels) == 2)
    };
    tree.server.admin().wait_for("all queries and responses counted", is_exact);
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
    tree.server.process.wait_for_log("workers has changed; restart to apply it");
    tree.server.process.wait_for_log("(restart): ");
    let status = || {
        let answer = tree.server.admin().try_get("/api/v1/status")?;
        serde_json::from_str::<Value>(&answer.body).ok()
    };
    until("three workers", || (status()?["workers"] == 3).then_some(()));
    tree.wait_until_whole();
    tree.server_other_than(&[server]);
    // The key that applies since the restart needs no other restart.
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
    copy_program(std::path::Path::new(env!("CARGO_BIN_EXE_hedgerow")), &program);
    let tree = Tree::start_program(&program);
    (tree, folder, program)
}

/// Puts something else in the place of the program, as a package does.
fn replace(program: &std::path::Path, content: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    let (draft, new) = (program.with_extension("draft"), program.with_extension("new"));
    std::fs::write(&draft, content).expect("our own folder");
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    copy_program(&draft, &new);
    std::fs::rename(&new, program).expect("our own folder");
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
    // Half of the file may be all that runs: the rest is debug information.
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
fn an_upgrade_of_root_runs_no_program_of_others() {
    if !rustix::process::geteuid().is_root() {
        return leave_out("takeovers::an_upgrade_of_root_runs_no_program_of_others", "this is not root");
    }
    let (tree, folder, program) = start_copy();
    let before = tree.wait_until_whole();
    let replaced = "users other than root may replace it";
    for place in [program.as_path(), folder.path()] {
        std::os::unix::fs::chown(place, Some(65534), None).expect("root may");
        let (status, said) = ctl(&tree, &["upgrade"]);
        assert_eq!(status, Some(1), "{said}");
        let reported = format!("{}: {replaced} (owner 65534, ", place.display());
        assert!(said.contains(&reported), "{reported}: {said}");
        assert_eq!(tree.wait_until_whole(), before);
        assert_eq!(tree.address(), ADDRESS);
        std::os::unix::fs::chown(place, Some(0), None).expect("root may");
    }
    let (status, said) = ctl(&tree, &["upgrade"]);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn an_upgrade_that_dies_soon_is_rolled_back() {
    let (tree, _folder, program) = start_copy();
    let before: Vec<_> = tree.wait_until_whole().into_iter().map(|(pid, _)| pid).collect();
    replace(&program, &std::fs::read(&program).expect("our own file"));
    let (status, said) = ctl(&tree, &["upgrade"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(ctl(&tree, &["upgrade"]).0, Some(1), "the last one is still on trial");
    let new = tree.server_other_than(&before);
    tree.kill(&[new]);
    assert_eq!(tree.address(), ADDRESS);
    tree.server.process.wait_for_log("upgrade rolled back: ");
    tree.server.process.wait_for_log(&format!("serves after {new} (rollback)"));
    until("one of the program before", || before.contains(&tree.pid("server")).then_some(()));
    tree.wait_until_whole();
}

#[test]
fn a_roll_back_puts_the_config_before_the_upgrade_back_in_force() {
    let (tree, _folder, program) = start_copy();
    tree.server.rewrite("b.txt", &table(OTHER_ADDRESS));
    let text = std::fs::read_to_string(tree.server.path("config.toml")).expect("our own file");
    tree.server.rewrite("config.toml", &text.replace("a.txt", "b.txt"));
    replace(&program, &std::fs::read(&program).expect("our own file"));
    assert_eq!(ctl(&tree, &["upgrade"]).0, Some(0));
    assert_eq!(tree.address(), OTHER_ADDRESS, "the upgrade reads what is on the disk");
    // A standby that starts during the trial is not to bring the new config along.
    tree.kill(&[tree.pids("standby")[0]]);
    tree.wait_until_whole();
    tree.kill(&[tree.pid("server")]);
    tree.server.process.wait_for_log("upgrade rolled back: ");
    for round in 0..4 {
        assert_eq!(tree.address(), ADDRESS, "after {round} more deaths");
        tree.wait_until_whole();
        tree.kill(&[tree.pid("server")]);
    }
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
    // Later processes get their places, too.
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
        let (status, said) = ctl(&tree, &["restart"]);
        assert_eq!(status, Some(0), "after the death of a {victim}: {said}");
    }
}
