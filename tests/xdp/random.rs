//! Random frames from a fixed seed, with the kernel's network stack as the oracle.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use testkit::*;

use crate::frames::*;
use crate::oracle::{CLIENT_MAC, SERVER_MAC, Twins, path_4, path_6, seal};
use crate::world::{self, SERVER, SERVER_6, Way, at, both_ways};

both_ways! { frames_by_chance_have_the_answers_of_the_kernel }

/// Number of frames in all, and per batch. A batch is small enough that no buffer overflows.
const FRAMES: usize = 10_000;
const BATCH: usize = 50;

/// The fixed seed makes a failure repeatable.
const SEED: u64 = 0x4865_6467_6572_6f77;

fn frames_by_chance_have_the_answers_of_the_kernel(way: Way) {
    let mut rng = StdRng::seed_from_u64(SEED);
    let twins = Twins::start(way);
    let mut answers = 0;
    for _ in 0..FRAMES / BATCH {
        let batch: Vec<_> = (0..BATCH).map(|_| by_chance(&mut rng)).collect();
        answers += twins.answers(&batch).len();
    }
    // The frames are neither all noise nor all valid.
    assert!((FRAMES / 20..FRAMES).contains(&answers), "{answers} answers");
    let [_, twin] = &twins.members;
    if twin.world.way == Way::Xdp {
        // The server counts every frame that reaches the device. The kernel does not send some of the invalid
        // ones.
        let count = |metrics: &Metrics| {
            ["taken", "passed", "dropped"]
                .map(|fate| world::frames(metrics, world::DEVICE, "in", fate))
                .iter()
                .sum::<u64>()
        };
        world::wait_for(&twin.server, "all frames are counted", |metrics| count(metrics) >= FRAMES as u64 * 9 / 10);
    }
    twin.world.check_served(&twin.server, world::DEVICE, [100, 100]);
}

/// Returns a random frame: a query, mostly with something wrong.
fn by_chance(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 20) {
        return noise(rng);
    }
    let mut path = if rng.random() { path_4() } else { path_6() };
    path.source.set_port(rng.random_range(1_000..4_900));
    if rng.random_ratio(1, 10) {
        path.destination.set_port(rng.random());
    }
    let name = ["www.example", "WWW.example", "nobody.example", "."][rng.random_range(0..4)];
    let mut question = query(name, [A, AAAA, TXT, ANY][rng.random_range(0..4)]).id(rng.random());
    if rng.random() {
        question = question.edns(rng.random());
    }
    let mut frame = path.query(&question);
    if rng.random_ratio(1, 4) {
        return frame;
    }
    frame = match rng.random_range(0..8) {
        0 if path.source.is_ipv4() => with_options_4(&frame),
        0 => with_options_6(&frame, [HOP_BY_HOP, DESTINATION_OPTIONS, FRAGMENT, 43, 50, 51][rng.random_range(0..6)]),
        1 => tagged(&frame, &[(VLAN, rng.random_range(0..4_096))]),
        _ => frame,
    };
    for _ in 0..rng.random_range(1..5) {
        change(&mut frame, rng);
    }
    // Without this step, a wrong checksum would hide the other changes.
    if rng.random_ratio(3, 4) {
        seal(&mut frame);
    }
    frame
}

/// Changes one thing in a frame but not its sender, because no other host would receive the answer.
fn change(frame: &mut Vec<u8>, rng: &mut StdRng) {
    if frame.len() <= 14 {
        return;
    }
    let headers = frame.len().min(70);
    // The source MAC address (bytes 6 to 11) stays as it is: the change moves to the destination MAC address.
    let at = |rng: &mut StdRng, end: usize| match rng.random_range(0..end) {
        place @ 6..12 => place - 6,
        place => place,
    };
    match rng.random_range(0..8) {
        0 => frame.truncate(rng.random_range(14..frame.len())),
        1 => frame.extend((0..rng.random_range(1..100)).map(|_| 0xa5)),
        2 => {
            let place = rng.random_range(14..frame.len());
            frame[place] = rng.random();
        }
        3 => {
            let place = at(rng, headers.min(14));
            frame[place] = rng.random();
        }
        // These offsets usually hold a length.
        4 => {
            let place = [IP + 2, IP + 4, IP + IPV4_HEADER + 4, IP + IPV6_HEADER + 4][rng.random_range(0..4)];
            if let Some(length) = frame.get_mut(place..place + 2) {
                let near = word(length, 0).wrapping_add(rng.random_range(0..20)).wrapping_sub(10);
                length.copy_from_slice(&near.to_be_bytes());
            }
        }
        _ => {
            let place = at(rng, headers);
            frame[place] ^= 1 << rng.random_range(0..8);
        }
    }
}

/// Returns random bytes, either as the payload of a valid datagram or directly behind an Ethernet header.
fn noise(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(0..200);
    let mut octets = vec![0; length];
    rng.fill_bytes(&mut octets);
    if rng.random() {
        let path = if rng.random() { path_4() } else { path_6() };
        return path.to(at(if path.source.is_ipv4() { SERVER } else { SERVER_6 }, 53)).frame(&octets);
    }
    let ethertype = [IPV4, IPV6, VLAN, ARP][rng.random_range(0..4)];
    [&SERVER_MAC[..], &CLIENT_MAC, &ethertype.to_be_bytes(), &octets].concat()
}
