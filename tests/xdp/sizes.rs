//! Messages of all lengths over devices with an MTU below, equal to and above that of Ethernet.

use nix::sys::socket::{setsockopt, sockopt};
use testkit::*;

use crate::forwarder::backend;
use crate::world::{CLIENT, DEVICE, Pair, SERVER, SERVER_6, Way, World, at, both_ways};

both_ways! {
    mtu_of_1280
    mtu_of_1500
    mtu_of_9000
    mtu_that_changes
    segments_are_told_apart
}

/// Lengths of the text in answers, in bytes.
const LENGTHS: [usize; 15] =
    [100, 400, 1_000, 1_150, 1_180, 1_190, 1_200, 1_210, 1_220, 1_390, 1_410, 1_430, 2_900, 3_500, 4_000];

/// Returns a script that answers with as many bytes of text as the query name states.
fn answer_of_length() -> Script {
    Script::new(|seen| {
        let length = seen.name().split('.').next()?.strip_prefix('t')?.parse().ok()?;
        Some(reply_to(&seen.bytes).with_flags(AA).answer(txt(length).lasting(3_600)).to_vec())
    })
}

/// Returns the config of a forwarder with a cache, because only that one sends as much as a client accepts.
fn config(port: u16, backend: &Backend) -> String {
    let listen = format!("['{}', '{}']", at(SERVER, port), at(SERVER_6, port));
    let keys = "rate_limit = { answers = 0, referrals = 0, nxdomains = 0, errors = 0, total = 0 }\n\
                edns_udp_size = 4096\ncookies = false\n";
    Forwarder::to(&[backend], "").listen(&listen).keys(keys).cache("").admin().to_toml()
}

/// Returns a response with the TTL of its answer set to 0, because a cache counts the TTL down.
fn without_ttl(mut response: Vec<u8>) -> Vec<u8> {
    if word(&response, 6) > 0 {
        let at = 12 + question_of(&response).len() + 6;
        response[at..at + 4].fill(0);
    }
    response
}

/// Sends queries of all lengths to a server and to its twin by sockets, and compares the answers. Returns the
/// number of answers.
fn ask_all() -> u64 {
    let mut count = 0;
    for address in [SERVER, SERVER_6] {
        let [client, other] = [53, 5_353].map(|port| Client::of(at(address, port)));
        for length in LENGTHS {
            for size in [512, 1_232, 1_452, 4_096] {
                let question = query(&format!("t{length}.example"), TXT).edns(size);
                let [response, expected] = [&client, &other].map(|client| without_ttl(client.ask(&question).bytes));
                assert_eq!(response, expected, "{length} octets, EDNS {size}, {address}");
                assert!(response.len() <= usize::from(size));
                count += 1;
            }
        }
        // Long queries: whole, in fragments, and too long for any device to carry at once.
        for padding in [100, 1_100, 1_160, 1_200, 1_380, 1_400, 1_450, 2_000, 3_900, 8_800, 8_950, 20_000, 60_000] {
            let question = query("t100.example", TXT).edns(4_096).option(PADDING, &vec![0; padding]);
            let [response, expected] = [&client, &other].map(|client| {
                client.send(&question);
                // One fence arrives in fragments, the other by XDP if the long query does. The fence on the
                // path of the long query is answered after it.
                let short = query("t100.example", TXT);
                let fences = [short.clone().option(PADDING, &[0; 30_000]).id(short.id ^ 0x8000), short];
                let mut heard = Vec::new();
                let mut left = fences.each_ref().map(|fence| fence.id).to_vec();
                fences.iter().for_each(|fence| client.send(fence));
                while !left.is_empty() {
                    let response = client.receive();
                    let is_fence = left.contains(&response.id());
                    left.retain(|id| *id != response.id());
                    if !is_fence {
                        heard.push(without_ttl(response.bytes));
                    }
                }
                heard
            });
            assert_eq!(response, expected, "a query with {padding} octets of padding, {address}");
            count += 2;
        }
    }
    count
}

fn check(way: Way, mtu: u32) {
    // The pair has no native mode for this MTU.
    let mode = if mtu > 4_000 { "generic" } else { "auto" };
    let world = World::over(way, Pair { queues: 1, mtu }).mode(mode);
    let backend = backend(CLIENT, answer_of_length());
    let server = world.start(&config(53, &backend), &[]);
    let _oracle = world.start_exactly(&config(5_353, &backend), &[], |_| {});
    let count = ask_all();
    // Messages above the MTU go through the kernel.
    world.check_served(&server, DEVICE, [count * 3 / 4, count / 2]);
}

fn mtu_of_1280(way: Way) {
    check(way, 1_280);
}

fn mtu_of_1500(way: Way) {
    check(way, 1_500);
}

fn mtu_of_9000(way: Way) {
    check(way, 9_000);
}

fn mtu_that_changes(way: Way) {
    let world = World::new(way);
    let backend = backend(CLIENT, answer_of_length());
    let server = world.start(&config(53, &backend), &[]);
    let _oracle = world.start_exactly(&config(5_353, &backend), &[], |_| {});
    ask_all();
    // Both ends get a smaller MTU, then the original one.
    for mtu in [1_280, 1_500] {
        hosts::run("ip", &format!("link set c0 mtu {mtu}"));
        world.ip(&format!("link set v0 mtu {mtu}"));
        // The kernel drops longer frames at once, and the server hears of the change a little later.
        let client = Client::of(at(SERVER, 53));
        until("an answer longer than the smaller MTU", || client.try_ask(&query("t1390.example", TXT).edns(1_452)));
        ask_all();
    }
    world.check_served(&server, DEVICE, [300, 200]);
}

/// A sender with GSO hands several datagrams to a veth pair as one, and the pair splits them for a native
/// program. Each datagram gets an answer.
fn segments_are_told_apart(way: Way) {
    let world = World::new(way);
    let backend = backend(CLIENT, answer_of_length());
    let server = world.start(&config(53, &backend), &[]);
    for gro in ["off", "on"] {
        world.host.run("ethtool", &format!("-K v0 gro {gro}"));
        for address in [SERVER, SERVER_6] {
            let socket =
                std::net::UdpSocket::bind(if address == SERVER { "0.0.0.0:0" } else { "[::]:0" }).expect("a port");
            socket.connect(at(address, 53)).expect("there is a route");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
            let questions: Vec<_> = (0..20).map(|_| query("t100.example", TXT)).collect();
            let octets: Vec<_> = questions.iter().flat_map(Query::to_vec).collect();
            let length = (octets.len() / questions.len()) as i32;
            setsockopt(&socket, sockopt::UdpGsoSegment, &length).expect("the kernel can do so");
            socket.send(&octets).expect("there is a route");
            let mut ids: Vec<_> = questions.iter().map(|question| question.id).collect();
            let mut buffer = [0; 1_500];
            while !ids.is_empty() {
                let length = socket.recv(&mut buffer);
                let length = length.unwrap_or_else(|error| panic!("{error}: GRO {gro}, {address}: {ids:?}"));
                let response = Response { bytes: buffer[..length].to_vec() };
                assert_eq!(response.answers().len(), 1, "GRO {gro}, {address}");
                ids.retain(|id| *id != response.id());
            }
        }
    }
    world.check_served(&server, DEVICE, [1, 1]);
}
