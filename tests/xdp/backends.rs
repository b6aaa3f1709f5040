//! Tests that misbehaving and forged backends cannot harm a server by XDP, any more than one by sockets.

use std::net::UdpSocket;

use testkit::*;

use crate::forwarder::{PATIENT, backend, unique};
use crate::world::{
    self, BACKEND, BACKEND_2, BACKEND_DEVICE, DEVICE, NEAR_BACKENDS, SERVER, Way, World, at, both_ways, forwarder,
};

both_ways! {
    forged_replies_are_not_believed
    replies_from_elsewhere_are_not_believed
    replies_above_the_device_are_put_together
    backend_that_moves_is_found_again
    backend_behind_a_router_is_asked
    backend_whose_route_changes_is_asked_the_new_way
    probes_find_a_backend_down_and_up
}

const TRUE: &str = "192.0.2.1";
const FORGED: &str = "203.0.113.66";

/// Checks that the client receives only the true reply, which the backend holds until after the forgery.
fn check(world: &World, script: Script) {
    let backend = backend(BACKEND, script.and(answer(TRUE).held()).except("fence", answer(TRUE)));
    let other = self::backend(BACKEND_2, answer(FORGED));
    let keys = format!("dispatch = 'sequential'\naccept = 'any'\n{PATIENT}");
    let server = world.start(&forwarder(&[SERVER], &[&backend, &other], &keys).to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    world.ask_until_sent(&server, BACKEND_DEVICE, || {
        assert_eq!(client.ask(&query(&format!("fence.{}", unique()), A)).answers(), [TRUE]);
    });
    let question = query("www.example", A).edns(1232);
    client.send(&question);
    backend.wait_for_name("www.example", 1);
    assert_eq!(client.receive_only(&query("fence.example", A)).answers(), [TRUE]);
    backend.release();
    let response = client.receive();
    assert_eq!((response.id(), response.answers()), (question.id, vec![TRUE.to_owned()]));
    assert_eq!(other.queries().len(), 0);
    world.check_served(&server, DEVICE, [2, 2]);
}

fn forged_replies_are_not_believed(way: Way) {
    let forged = |edit: fn(&mut Vec<u8>)| answer(FORGED).edited(edit);
    for edit in [
        |reply: &mut Vec<u8>| reply[1] ^= 1,
        |reply: &mut Vec<u8>| reply[13] ^= 1,
        |reply: &mut Vec<u8>| reply[2] &= 0x7f,
        |reply: &mut Vec<u8>| reply.truncate(11),
        Vec::clear,
        |reply: &mut Vec<u8>| reply.push(0),
    ] {
        check(&World::with_backends(way), forged(edit));
    }
}

fn replies_from_elsewhere_are_not_believed(way: Way) {
    check(&World::with_backends(way), answer(FORGED).sent_from(Source::OtherPort));
    // The forger uses the right port of another address, or the device of the clients. Neither is the
    // backend.
    for from in ["10.78.0.3", "10.77.0.2"] {
        let world = World::with_backends(way);
        check(
            &world,
            Script::new(move |seen| {
                if !seen.name().starts_with("fence") {
                    let reply = reply_to(&seen.bytes).with_flags(AA).answer(a(FORGED)).to_vec();
                    let forger = UdpSocket::bind(at(from, 0)).expect("an address of ours");
                    forger.send_to(&reply, seen.peer).expect("there is a route");
                }
                None
            }),
        );
    }
}

fn replies_above_the_device_are_put_together(way: Way) {
    let world = World::with_backends(way);
    let backend = backend(BACKEND, reply(|reply| reply.with_flags(AA).answer(txt(3_000))));
    let keys = "dispatch = 'sequential'\ntimeout = '5s'\nattempt_timeout = '4s'\n";
    let config = forwarder(&[SERVER], &[&backend], keys).to_toml();
    let config = config.replacen("rate_limit", "edns_udp_size = 4096\nrate_limit", 1);
    let server = world.start(&config, &[]);
    let client = Client::of(at(SERVER, 53));
    for number in 0..10 {
        // The backend and the server both send the response in fragments.
        let response = client.ask(&query(&format!("n{number}.example"), TXT).edns(4096));
        assert!(!response.has(TC) && response.bytes.len() > 3_000, "{response:?}");
    }
    assert!(backend.queries().iter().all(|seen| !seen.tcp));
    world.check_served(&server, DEVICE, [10, 0]);
}

fn backend_that_moves_is_found_again(way: Way) {
    let world = World::with_backends(way);
    let backend = backend(BACKEND, answer(TRUE));
    let server = world.start(&forwarder(&[SERVER], &[&backend], PATIENT).to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    let ask = |round: &str| {
        for number in 0..30 {
            assert_eq!(client.ask(&query(&format!("{round}{number}.example"), A)).answers(), [TRUE], "{round}");
        }
    };
    world.ask_until_sent(&server, BACKEND_DEVICE, || ask("first"));
    ask("before");
    // The backend's IP address moves to another MAC address, and the neighbor table has the new one.
    hosts::run("ip", "link set b0 address 02:00:00:00:00:77");
    world.ip("neighbor replace 10.78.0.2 lladdr 02:00:00:00:00:77 dev v1 nud reachable");
    // A query that leaves before the kernel has reported the change is lost, as on a wire.
    until("an answer", || Client::of(at(SERVER, 53)).try_ask(&query(&unique(), A)));
    ask("moved");
    // The kernel must look up the backend's MAC address again.
    world.ip("neighbor flush dev v1");
    ask("flushed");
    world.ask_until_sent(&server, BACKEND_DEVICE, || ask("found"));
    world.check_served(&server, BACKEND_DEVICE, [30, 30]);
}

fn backend_behind_a_router_is_asked(way: Way) {
    let world = World::with_backends(way);
    hosts::run("ip", "address add 203.0.113.5/32 dev lo");
    world.ip(&format!("route add 203.0.113.0/24 via {BACKEND}"));
    let backend = backend("203.0.113.5", answer(TRUE));
    let server = world.start(&forwarder(&[SERVER], &[&backend], PATIENT).to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
    for number in 0..30 {
        assert_eq!(client.ask(&query(&format!("n{number}.example"), A)).answers(), [TRUE]);
    }
    world.check_served(&server, BACKEND_DEVICE, [30, 30]);
}

fn backend_whose_route_changes_is_asked_the_new_way(way: Way) {
    let mut world = World::with_backends(way);
    world.connect(world::PLAIN, ["v2", "d0"], [&["10.79.0.1"], &["10.79.0.2"]]);
    hosts::run("ip", "address add 203.0.113.5/32 dev lo");
    world.ip(&format!("route add 203.0.113.0/24 via {BACKEND} src {NEAR_BACKENDS}"));
    let backend = backend("203.0.113.5", answer(TRUE));
    let server = world.start(&forwarder(&[SERVER], &[&backend], "").to_toml(), &[]);
    let client = Client::of(at(SERVER, 53));
    let ask = |round: &str| {
        for number in 0..30 {
            assert_eq!(client.ask(&query(&format!("{round}{number}.example"), A)).answers(), [TRUE], "{round}");
        }
    };
    world.ask_until_sent(&server, BACKEND_DEVICE, || ask("first"));
    ask("before");
    world.ip(&format!("route replace 203.0.113.0/24 via 10.79.0.2 src {NEAR_BACKENDS}"));
    ask("after");
    world.ask_until_sent(&server, "v2", || ask("found"));
    let sent = |device| world::frames(&world::metrics(&server), device, "out", "sent");
    let old = sent(BACKEND_DEVICE);
    ask("later");
    assert_eq!(sent(BACKEND_DEVICE), old, "nothing goes the old way");
}

fn probes_find_a_backend_down_and_up(way: Way) {
    let world = World::with_backends(way);
    let (first, second) = (backend(BACKEND, answer(TRUE)), backend(BACKEND_2, answer(TRUE)));
    let keys = "dispatch = 'sequential'\nbalance = 'ordered'\ntimeout = '3s'\nattempt_timeout = '200ms'\n\
                [health]\ninterval = '100ms'\n";
    let server = world.start(&forwarder(&[SERVER], &[&first, &second], keys).to_toml(), &[]);
    let name = first.address().to_string();
    let is_up = |metrics: &Metrics| metrics.sum("hedgerow_backend_up", &[("backend", &name)]) == 1;
    world::wait_for(&server, "up", is_up);
    first.play_dead(true);
    world::wait_for(&server, "down", |metrics| !is_up(metrics));
    first.play_dead(false);
    world::wait_for(&server, "up again", is_up);
    // Probes are few and use sockets; queries use XDP.
    let client = Client::of(at(SERVER, 53));
    assert_eq!(client.ask(&query("www.example", A)).answers(), [TRUE]);
    world.ask_until_sent(&server, BACKEND_DEVICE, || drop(client.ask(&query(&unique(), A))));
}
