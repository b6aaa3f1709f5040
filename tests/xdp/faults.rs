//! Faults of devices while a server uses them: the server keeps answering by sockets or by XDP, and does not
//! end.

use std::net::SocketAddr;

use rustix::process::Signal;
use testkit::*;

use crate::world::{
    self, CLIENT, CLIENT_6, DEVICE, PLAIN, Pair, SERVER, SERVER_6, Way, World, at, both_ways, by_xdp_alone,
};

both_ways! {
    link_goes_down_and_up
    device_is_taken_away_and_comes_back
    device_is_renamed
    number_of_queues_changes
    reload_loses_nothing
    who_becomes_another_user_goes_on
    server_that_is_stopped_answers_what_waited
}

by_xdp_alone! {
    others_cannot_take_the_program_off
    program_of_another_is_left_alone
    load_above_what_is_served_is_not_lost_for_good
}

const TABLE: &str = "www.example 192.0.2.1 A\n";

fn start(world: &World) -> Server {
    world.start(&World::authority(&[SERVER, SERVER_6]), &[("hosts.txt", TABLE)])
}

/// Sends `count` queries by IPv4 and `count` by IPv6.
fn ask(count: u64) {
    for address in [SERVER, SERVER_6] {
        let client = Client::of(at(address, 53));
        for number in 0..count {
            assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.1"], "number {number} to {address}");
        }
    }
}

fn wait_for_answer(address: SocketAddr) {
    let client = Client::of(address);
    until("an answer", || client.try_ask(&query("www.example", A)));
}

fn taken(server: &Server) -> u64 {
    world::frames(&world::metrics(server), DEVICE, "in", "taken")
}

/// Sends queries until XDP serves again. Returns at once in a run with sockets.
fn wait_for_xdp(world: &World, server: &Server) {
    if world.way == Way::Xdp {
        let before = taken(server);
        until("XDP serves again", || {
            ask(1);
            (taken(server) > before).then_some(())
        });
    }
}

fn link_goes_down_and_up(way: Way) {
    let world = World::new(way);
    let server = start(&world);
    ask(10);
    for end in ["server", "client"] {
        for _ in 0..3 {
            if end == "server" {
                world.ip("link set v0 down");
                world.ip("link set v0 up");
                // The kernel removes the IPv6 addresses of a link that goes down.
                world.ip("address replace fd77::1/64 dev v0 nodad");
            } else {
                hosts::run("ip", "link set c0 down");
                hosts::run("ip", "link set c0 up");
                hosts::run("ip", &format!("address replace {CLIENT_6}/64 dev c0 nodad"));
            }
            for address in [SERVER, SERVER_6] {
                wait_for_answer(at(address, 53));
            }
            ask(10);
        }
    }
    wait_for_xdp(&world, &server);
}

fn device_is_taken_away_and_comes_back(way: Way) {
    let mut world = World::new(way);
    let server = world.start(&World::authority(&["0.0.0.0", "::"]), &[("hosts.txt", TABLE)]);
    ask(10);
    for _ in 0..2 {
        world.ip("link del v0");
        let said = world.host.run("kdig", "@127.0.0.1 www.example A +short +timeout=5");
        assert_eq!(said.trim(), "192.0.2.1", "the rest goes on");
        world.connect(PLAIN, [DEVICE, "c0"], [&[SERVER, SERVER_6], &[CLIENT, CLIENT_6]]);
        for address in [SERVER, SERVER_6] {
            wait_for_answer(at(address, 53));
        }
        ask(10);
    }
    assert_eq!(world::metrics(&server).sum("hedgerow_worker_replacements_total", &[]), 0);
    wait_for_xdp(&world, &server);
}

fn device_is_renamed(way: Way) {
    let world = World::new(way);
    let server = start(&world);
    ask(10);
    world.ip("link set v0 down");
    world.ip("link set v0 name other0");
    world.ip("link set other0 up");
    world.ip("address replace fd77::1/64 dev other0 nodad");
    for address in [SERVER, SERVER_6] {
        wait_for_answer(at(address, 53));
    }
    ask(10);
    assert_eq!(world::metrics(&server).sum("hedgerow_worker_replacements_total", &[]), 0);
}

fn number_of_queues_changes(way: Way) {
    let world = World::over(way, Pair { queues: 2, mtu: 1500 });
    // The server starts with one queue of two.
    world.host.run("ethtool", "-L v0 rx 1 tx 1");
    // A veth pair has a native mode only while neither end has more transmit queues than the other has
    // receive queues.
    hosts::run("ethtool", "-L c0 rx 1 tx 1");
    let server = start(&world);
    let ask_by_many_ports = || (0..20).for_each(|_| ask(1));
    ask_by_many_ports();
    for queues in [2, 1, 2] {
        // The kernel may refuse to remove a queue that is in use.
        let mut command = world.host.command("ethtool");
        let changed = command.args(["-L", DEVICE, "rx", &queues.to_string(), "tx", &queues.to_string()]).output();
        let changed = changed.expect("it is installed");
        eprintln!("{queues} queues: {} {}", changed.status, String::from_utf8_lossy(&changed.stderr).trim());
        ask_by_many_ports();
        ask_by_many_ports();
    }
    world.check_served(&server, DEVICE, [40, 40]);
}

fn reload_loses_nothing(way: Way) {
    let world = World::new(way);
    let config = World::authority(&[SERVER]);
    let server = world.start(&config, &[("hosts.txt", &load_table())]);
    let load = Load::start(at(SERVER, 53), 2_000);
    for _ in 0..3 {
        load.run_for(ms(200));
        server.reload("hosts.txt", &load_table());
    }
    load.run_for(ms(400));
    let report = load.stop();
    let sent = report.queries.len();
    assert_eq!((report.lost(), report.wrong(), report.strays, report.refused), (0, 0, 0, 0), "of {sent}");
    world.check_served(&server, DEVICE, [sent as u64, sent as u64]);
}

fn who_becomes_another_user_goes_on(way: Way) {
    let world = World::new(way);
    let config = format!("user = 'nobody'\n{}", World::authority(&[SERVER, SERVER_6]));
    let server = world.start(&config, &[("hosts.txt", TABLE)]);
    ask(50);
    world.check_served(&server, DEVICE, [100, 100]);
    // The server without root privileges still follows changes of links and addresses.
    world.ip("link set v0 down");
    world.ip("link set v0 up");
    world.ip("address replace fd77::1/64 dev v0 nodad");
    for address in [SERVER, SERVER_6] {
        wait_for_answer(at(address, 53));
    }
    ask(10);
}

fn server_that_is_stopped_answers_what_waited(way: Way) {
    let world = World::new(way);
    let server = start(&world);
    ask(10);
    tree::stop(server.process.id());
    let clients: Vec<_> = (0..10).map(|_| Client::of(at(SERVER, 53))).collect();
    for client in &clients {
        (0..20).for_each(|number| client.send(&query("www.example", A).id(number)));
    }
    server.process.signal(Signal::CONT);
    for client in &clients {
        for _ in 0..20 {
            assert_eq!(client.receive().answers(), ["192.0.2.1"]);
        }
    }
    world.check_served(&server, DEVICE, [200, 200]);
}

fn others_cannot_take_the_program_off(way: Way) {
    let world = World::new(way);
    let server = start(&world);
    ask(10);
    for mode in ["xdp", "xdpdrv", "xdpgeneric"] {
        let mut command = world.host.command("ip");
        let output = command.args(["link", "set", "dev", DEVICE, mode, "off"]).output().expect("it is installed");
        eprintln!("{mode} off: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        ask(10);
    }
    world.check_served(&server, DEVICE, [80, 80]);
}

fn program_of_another_is_left_alone(way: Way) {
    let world = World::new(way);
    let one = start(&world);
    ask(10);
    // A second server asks for the same device. The first server keeps it.
    let config = World::authority(&[SERVER]).replace(":53'", ":5353'");
    let wanted = format!("{config}[xdp]\ninterfaces = ['v0']\nfallback = ");
    let (mut process, _folder) = world.launch(&format!("{wanted}false\n"), &[("hosts.txt", TABLE)], |_| {});
    assert_eq!(process.wait_for_exit().code(), Some(1));
    assert!(process.log().contains(DEVICE), "{}", process.log());
    let other = world.start_exactly(&format!("{wanted}true\n"), &[("hosts.txt", TABLE)], |_| {});
    let line = other.process.wait_for_log("served by sockets");
    assert!(line.contains("WARN") && line.contains(DEVICE), "{line}");
    let client = Client::of(at(SERVER, 5_353));
    for _ in 0..10 {
        assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    }
    ask(10);
    world.check_served(&one, DEVICE, [40, 40]);
}

fn load_above_what_is_served_is_not_lost_for_good(way: Way) {
    let world = World::new(way);
    let server = start(&world);
    ask(10);
    // Rings and buffers overflow while the server is stopped.
    tree::stop(server.process.id());
    let client = Client::of(at(SERVER, 53));
    for number in 0..20_000_u32 {
        client.send(&query("www.example", A).id(number as u16));
    }
    server.process.signal(Signal::CONT);
    for address in [SERVER, SERVER_6] {
        wait_for_answer(at(address, 53));
    }
    ask(100);
    world.check_served(&server, DEVICE, [300, 300]);
}

/// Tests for `cargo test --features faults --test xdp`. In such a build, a query for `panic.hedgerow.test.`
/// makes the worker that handles it panic.
#[cfg(feature = "faults")]
mod of_workers {
    use super::*;

    both_ways! { worker_that_panics_is_replaced }

    fn worker_that_panics_is_replaced(way: Way) {
        for workers in [1, 2] {
            let world = World::over(way, Pair { queues: 2, mtu: 1500 });
            let config = World::authority(&[SERVER, SERVER_6]).replace("workers = 1", &format!("workers = {workers}"));
            let server = world.start(&config, &[("hosts.txt", TABLE)]);
            ask(10);
            for count in 1..=5 {
                Client::of(at(SERVER, 53)).send(&query("panic.hedgerow.test", A));
                world::wait_for(&server, "a replacement", |metrics| {
                    metrics.sum("hedgerow_worker_replacements_total", &[]) >= count
                });
                for address in [SERVER, SERVER_6] {
                    for _ in 0..10 {
                        wait_for_answer(at(address, 53));
                    }
                }
                (0..10).for_each(|_| ask(2));
            }
            wait_for_xdp(&world, &server);
        }
    }
}
