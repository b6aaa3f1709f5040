//! Tests of the addresses that XDP serves, and of the traffic that stays with the kernel: loopback, VLANs,
//! ports of other processes.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use socket2::{Domain, Socket, Type};
use testkit::*;

use crate::world::{self, CLIENT, DEVICE, SERVER, SERVER_6, Way, World, at, both_ways};

both_ways! {
    wildcards_have_every_address
    loopback_is_served_beside
    port_that_nobody_has_is_told
    vlans_are_the_kernels
    vlan_that_asks_for_the_address_outside_is_answered_in_it
    answers_come_from_the_address_that_was_asked
    clients_behind_a_router_are_answered
    datagrams_for_others_reach_them
    another_process_listens_beside
}

const TABLE: &str = "www.example 192.0.2.1 A\n";

fn ask(server: SocketAddr, count: u64) {
    let client = Client::of(server);
    for number in 0..count {
        assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.1"], "number {number} to {server}");
    }
}

fn taken(server: &Server) -> u64 {
    world::frames(&world::metrics(server), DEVICE, "in", "taken")
}

fn wildcards_have_every_address(way: Way) {
    let world = World::new(way);
    let server = world.start(&World::authority(&["0.0.0.0", "::"]), &[("hosts.txt", TABLE)]);
    ask(at(SERVER, 53), 20);
    ask(at(SERVER_6, 53), 20);
    assert_eq!(TcpClient::of(at(SERVER, 53)).ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
    world.check_served(&server, DEVICE, [40, 40]);
    // The server follows addresses that are added and removed.
    for (address, prefix) in [("10.77.0.9", "10.77.0.9/24"), ("fd77::9", "fd77::9/64 nodad")] {
        world.ip(&format!("address add {prefix} dev v0"));
        ask(at(address, 53), 20);
        if way == Way::Xdp {
            let before = taken(&server);
            until("the new address is served by XDP", || {
                ask(at(address, 53), 1);
                (taken(&server) > before).then_some(())
            });
        }
        world.ip(&format!("address del {} dev v0", prefix.trim_end_matches(" nodad")));
        let client = Client::of(at(address, 53));
        if way == Way::Xdp {
            // A client with a stale neighbor entry gets no answer from a removed address, after a short time.
            until("it is gone", || client.try_ask(&query("www.example", A)).is_none().then_some(()));
        }
        ask(at(SERVER, 53), 5);
        ask(at(SERVER_6, 53), 5);
    }
}

fn loopback_is_served_beside(way: Way) {
    let world = World::new(way);
    let server = world.start(&World::authority(&[SERVER, "127.0.0.1", "::1"]), &[("hosts.txt", TABLE)]);
    for address in ["127.0.0.1", "::1", SERVER] {
        for option in ["", "+tcp"] {
            let said = world.host.run("kdig", &format!("@{address} www.example A +short +timeout=5 {option}"));
            assert_eq!(said.trim(), "192.0.2.1", "{address} {option}");
        }
    }
    ask(at(SERVER, 53), 20);
    world.check_served(&server, DEVICE, [20, 20]);
}

fn port_that_nobody_has_is_told(way: Way) {
    let world = World::new(way);
    let server = world.start(&World::authority(&[SERVER, SERVER_6]), &[("hosts.txt", TABLE)]);
    for address in [SERVER, SERVER_6] {
        let socket = UdpSocket::bind(if address == SERVER { "0.0.0.0:0" } else { "[::]:0" }).expect("a free port");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        socket.connect(at(address, 54)).expect("there is a route");
        socket.send(&query("www.example", A).to_vec()).expect("there is a route");
        let error = socket.recv(&mut [0; 512]).expect_err("no server is there");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
        let refused = std::net::TcpStream::connect(at(address, 54)).expect_err("no server is there");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    ask(at(SERVER, 53), 5);
    world.check_served(&server, DEVICE, [5, 5]);
}

/// Adds a VLAN over the pair. Returns false if the kernel does not support VLAN devices; then only the tests
/// in `oracle` cover tags, by raw frames.
fn add_vlan(world: &World) -> bool {
    let mut command = Command::new("ip");
    let made = command.args(["link", "add", "link", "c0", "name", "c0.9", "type", "vlan", "id", "9"]).output();
    if !made.expect("it is installed").status.success() {
        // No package can add VLAN support to a kernel, so `HEDGEROW_REQUIRED` does not apply here.
        eprintln!("devices of VLANs: not tested, the kernel has none");
        return false;
    }
    world.ip("link add link v0 name v0.10 type vlan id 10");
    world.ip("address add 10.90.0.1/24 dev v0.10");
    world.ip("link set v0.10 up");
    hosts::run("ip", "link add link c0 name c0.10 type vlan id 10");
    hosts::run("ip", "address add 10.90.0.2/24 dev c0.10");
    hosts::run("ip", "link set c0.10 up");
    true
}

/// Values of the VLAN offload: `on` keeps the tag beside the frame, `off` writes the tag into the frame.
const OFFLOADS: [&str; 2] = ["on", "off"];

fn set_offload(value: &str) {
    hosts::run("ethtool", &format!("-K c0 txvlan {value}"));
}

fn vlans_are_the_kernels(way: Way) {
    for listen in [&[SERVER, "10.90.0.1"][..], &["0.0.0.0"]] {
        for offload in OFFLOADS {
            let world = World::new(way);
            if !add_vlan(&world) {
                return;
            }
            set_offload(offload);
            let server = world.start(&World::authority(listen), &[("hosts.txt", TABLE)]);
            ask(at("10.90.0.1", 53), 20);
            ask(at(SERVER, 53), 20);
            assert_eq!(TcpClient::of(at("10.90.0.1", 53)).ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
            world.check_served(&server, DEVICE, [20, 20]);
        }
    }
}

fn vlan_that_asks_for_the_address_outside_is_answered_in_it(way: Way) {
    for offload in OFFLOADS {
        let world = World::new(way);
        if !add_vlan(&world) {
            return;
        }
        set_offload(offload);
        let server = world.start(&World::authority(&[SERVER]), &[("hosts.txt", TABLE)]);
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
        socket.bind_device(Some(b"c0.10")).expect("root may do so");
        socket.bind(&at("10.90.0.2", 0).into()).expect("an address of ours");
        socket.connect(&at(SERVER, 53).into()).expect("there is a route");
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let question = query("www.example", A);
        socket.send(&question.to_vec()).expect("there is a route");
        let mut buffer = [0; 512];
        let length =
            socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: tags beside the frame: {offload}"));
        assert_eq!(Response { bytes: buffer[..length].to_vec() }.id(), question.id);
        ask(at(SERVER, 53), 5);
        world.check_served(&server, DEVICE, [5, 5]);
    }
}

fn answers_come_from_the_address_that_was_asked(way: Way) {
    let world = World::new(way);
    world.ip("address add 10.77.0.8/24 dev v0");
    world.ip("address add fd77::8/64 dev v0 nodad");
    // The host has this address on its loopback device, not on a card.
    world.ip("address add 192.0.2.53/32 dev lo");
    hosts::run("ip", &format!("route add 192.0.2.53 via {SERVER}"));
    let config = World::authority(&["0.0.0.0", "::"]);
    let server = world.start(&config, &[("hosts.txt", TABLE)]);
    for address in [SERVER, "10.77.0.8", SERVER_6, "fd77::8", "192.0.2.53"] {
        ask(at(address, 53), 20);
    }
    world.check_served(&server, DEVICE, [80, 80]);
}

fn clients_behind_a_router_are_answered(way: Way) {
    let world = World::new(way);
    hosts::run("ip", "address add 198.51.100.7/32 dev lo");
    hosts::run("ip", "address add 2001:db8::7/128 dev lo nodad");
    world.ip(&format!("route add 198.51.100.0/24 via {CLIENT}"));
    world.ip(&format!("route add 2001:db8::/64 via {}", world::CLIENT_6));
    let server = world.start(&World::authority(&[SERVER, SERVER_6]), &[("hosts.txt", TABLE)]);
    for (from, to) in [("198.51.100.7", SERVER), ("2001:db8::7", SERVER_6)] {
        // This query fills the neighbor tables, because Linux does not look up an IPv6 router while that
        // router looks up the host.
        ask(at(to, 53), 1);
        let client = Client::at(from, at(to, 53));
        for _ in 0..20 {
            assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
        }
    }
    world.check_served(&server, DEVICE, [42, 42]);
}

fn datagrams_for_others_reach_them(way: Way) {
    let world = World::new(way);
    let server = world.start(&World::authority(&[SERVER, SERVER_6]), &[("hosts.txt", TABLE)]);
    // A program beside the server queries a backend, from ports that the server does not hold.
    for address in [CLIENT, world::CLIENT_6] {
        let backend = Backend::at(&at(address, 53).to_string(), answer("192.0.2.77"));
        for option in ["", "+tcp"] {
            let said = world.host.run("kdig", &format!("@{address} www.example A +short +timeout=5 {option}"));
            assert_eq!(said.trim(), "192.0.2.77", "{address} {option}");
        }
        assert_eq!(backend.queries().len(), 2);
    }
    ask(at(SERVER, 53), 5);
    world.check_served(&server, DEVICE, [5, 5]);
}

fn another_process_listens_beside(way: Way) {
    let world = World::new(way);
    let server = world.start(&World::authority(&[SERVER]), &[("hosts.txt", TABLE)]);
    let config = World::authority(&[SERVER]).replace(":53'", ":5353'");
    let other = world.start_exactly(&config, &[("hosts.txt", "www.example 192.0.2.2 A\n")], |_| {});
    let client = Client::of(at(SERVER, 5_353));
    for _ in 0..10 {
        assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.2"]);
    }
    ask(at(SERVER, 53), 10);
    world.check_served(&server, DEVICE, [10, 10]);
    drop(other);
}
