//! Tests of a supervised server that is killed: clients get answers by sockets until the next server has the
//! device.

use std::os::unix::process::CommandExt as _;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use testkit::*;

use crate::world::{self, DEVICE, SERVER, SERVER_6, Way, World, at, both_ways};

both_ways! { server_that_is_killed_is_replaced server_that_hangs_is_replaced restart_by_hand_loses_nothing }

/// A supervisor and all processes that it starts. They end with the test.
struct Tree {
    server: Server,
    group: Pid,
}

impl Tree {
    fn start(world: &World, keys: &str) -> Self {
        let config = World::authority(&[SERVER, SERVER_6]).replace("workers = 1", "workers = 2");
        let config = format!("{config}{}[supervisor]\n{keys}\n", world.section());
        let server = world.start_exactly(&config, &[("hosts.txt", &load_table())], |command| {
            command.process_group(0);
        });
        let group = Pid::from_child(server.process.child());
        let tree = Self { server, group };
        tree.pid("standby", &[]);
        tree
    }

    /// Waits for a process of this role that is not in `others`, and returns its ID.
    fn pid(&self, role: &str, others: &[u32]) -> u32 {
        until(&format!("a {role}"), || {
            let status = self.server.admin().send_over_socket("GET", "/api/v1/status", "");
            let status: Value = serde_json::from_str(&status.body).ok()?;
            let mut processes = status["processes"].as_array()?.iter().filter(|process| process["role"] == role);
            let pid = processes.find_map(|process| u32::try_from(process["pid"].as_u64()?).ok())?;
            (tree::is_running(pid) && !others.contains(&pid)).then_some(pid)
        })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// Sends queries until XDP serves. Returns at once in a run with sockets.
fn wait_for_xdp(world: &World, tree: &Tree) {
    if world.way == Way::Xdp {
        let taken = || world::frames(&world::metrics(&tree.server), DEVICE, "in", "taken");
        let before = taken();
        let client = Client::of(at(SERVER, 53));
        until("XDP serves", || {
            client.try_ask(&query("h1.example", A));
            (taken() > before).then_some(())
        });
    }
}

fn server_that_is_killed_is_replaced(way: Way) {
    let world = World::new(way);
    let tree = Tree::start(&world, "");
    wait_for_xdp(&world, &tree);
    let load = Load::start(at(SERVER, 53), 1_000);
    let mut killed = Vec::new();
    for _ in 0..3 {
        load.run_for(ms(300));
        killed.push(tree.pid("server", &killed));
        tree::signal(*killed.last().expect("one was pushed"), Signal::KILL);
        tree.pid("server", &killed);
        tree.pid("standby", &killed);
    }
    load.run_for(ms(300));
    let report = load.stop();
    let (sent, lost) = (report.queries.len(), report.lost());
    eprintln!("{sent} sent, {lost} lost by three crashes");
    // A crash loses the frames in rings and the queries in progress.
    assert!(
        lost <= 3 * 64 && report.wrong() == 0 && report.refused == 0,
        "{lost} of {sent} lost, {} refused",
        report.refused
    );
    wait_for_xdp(&world, &tree);
}

fn server_that_hangs_is_replaced(way: Way) {
    let world = World::new(way);
    let tree = Tree::start(&world, "watchdog = '1s'");
    wait_for_xdp(&world, &tree);
    let hung = tree.pid("server", &[]);
    tree::stop(hung);
    let client = Client::of(at(SERVER, 53));
    until("an answer", || client.try_ask(&query("h1.example", A)));
    assert_ne!(tree.pid("server", &[hung]), hung);
    wait_for_xdp(&world, &tree);
}

fn restart_by_hand_loses_nothing(way: Way) {
    let world = World::new(way);
    let tree = Tree::start(&world, "");
    wait_for_xdp(&world, &tree);
    let load = Load::start(at(SERVER, 53), 1_000);
    load.run_for(ms(300));
    let before = tree.pid("server", &[]);
    let output = tree.server.process.ctl(&["--admin", &admin(&tree), "restart"]);
    assert!(output.status.success(), "{output:?}");
    tree.pid("server", &[before]);
    load.run_for(ms(500));
    let report = load.stop();
    let sent = report.queries.len();
    assert_eq!((report.lost(), report.wrong(), report.strays, report.refused), (0, 0, 0, 0), "of {sent}");
    wait_for_xdp(&world, &tree);
}

/// Returns the `--admin` argument for the server's admin socket.
fn admin(tree: &Tree) -> String {
    let address = tree.server.listener("admin");
    format!("unix:{}", tree.server.process.admin_socket(address).display())
}
