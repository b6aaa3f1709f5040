//! Tests of the AF_XDP sockets alone, against a model. Two sockets at the ends of a veth pair send each other
//! random payloads, and every payload arrives once, in order and whole. If a frame were lost or used twice,
//! later rounds would find no frame, or the bytes of another payload.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use af_xdp::bpf::{BpfLink as Attached, Mode};
use af_xdp::filter::XdpFilter;
use af_xdp::frame::{self, EthernetLink};
use af_xdp::netlink;
use af_xdp::socket::{Copying, Xsk};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use testkit::hosts;
use testkit::*;

use crate::world::{Way, by_xdp_alone};

by_xdp_alone! { what_is_sent_arrives_once_and_in_order frames_that_wait_leave_when_the_link_is_up }

/// One end of the pair: its socket, and the program that hands frames to the socket.
struct End {
    xsk: Xsk,
    link: EthernetLink,
    address: SocketAddr,
    _attached: Attached,
    _filter: XdpFilter,
}

const NAMES: [&str; 2] = ["a0", "b0"];
const ADDRESSES: [&str; 2] = ["192.0.2.1:53", "192.0.2.2:53"];

/// Creates a veth pair with both ends in this namespace.
fn ends(mode: Mode) -> [End; 2] {
    hosts::run("ip", "link add a0 numrxqueues 1 numtxqueues 1 type veth peer name b0 numrxqueues 1 numtxqueues 1");
    for name in NAMES {
        hosts::run("ip", &format!("link set {name} up"));
    }
    let facts = NAMES.map(|name| netlink::interface(name).expect("netlink").expect("it was just made"));
    let macs = [facts[0].mac, facts[1].mac];
    [0, 1].map(|end| {
        let filter = XdpFilter::load(macs[end], 1, 1).expect("the program is sound");
        let attached = filter.attach(facts[end].index, mode).expect("veth takes programs");
        let xsk = Xsk::new(0, Arc::new(AtomicU32::new(facts[end].mtu)), Copying::Auto).expect("root may");
        xsk.bind(facts[end].index).expect("no socket has the queue");
        filter.set_socket(0, std::os::fd::AsFd::as_fd(&xsk)).expect("the map has room");
        let address = ADDRESSES[end].parse().expect("an address");
        filter.listen(address).expect("the map has room");
        let link = EthernetLink { ours: macs[end], theirs: macs[1 - end] };
        End { xsk, link, address, _attached: attached, _filter: filter }
    })
}

impl End {
    fn send(&self, other: &Self, payload: &[u8]) -> bool {
        self.xsk.push(self.link, self.address, other.address, payload)
    }

    /// Waits for frames and passes each payload to `each`.
    fn take(&self, mut each: impl FnMut(&[u8])) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let taken = self.xsk.receive(|frames| {
                for frame in frames {
                    each(frame::read(frame, frame::Checksums::MaybePartial).expect("what we have sent").payload);
                }
            });
            if taken > 0 {
                return;
            }
            assert!(Instant::now() < deadline, "nothing comes");
            let span = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            poll(&mut [PollFd::new(&self.xsk, PollFlags::IN)], Some(&span)).expect("the descriptor is open");
        }
    }
}

/// Enough rounds to use each frame several times, in either mode.
const ROUNDS: usize = 400;

fn what_is_sent_arrives_once_and_in_order(_: Way) {
    for (mode, seed) in [(Mode::Native, 1), (Mode::Generic, 2)] {
        println!("{mode:?}, seed {seed}");
        let ends = ends(mode);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut under_way: [VecDeque<Vec<u8>>; 2] = Default::default();
        let mut sent = 0;
        for _ in 0..ROUNDS {
            let from = rng.random_range(0..2);
            // A veth pair can queue more frames than this.
            for _ in 0..rng.random_range(0..100) {
                let payload: Vec<u8> = (0..rng.random_range(1..1_400)).map(|_| rng.random()).collect();
                assert!(ends[from].send(&ends[1 - from], &payload), "there is room");
                under_way[from].push_back(payload);
                sent += 1;
            }
            ends[from].xsk.flush();
            while !under_way[from].is_empty() {
                ends[1 - from].take(|payload| assert_eq!(Some(payload), under_way[from].pop_front().as_deref()));
            }
        }
        let counts = ends.each_ref().map(|end| {
            let counts = end.xsk.counts();
            (counts.sent.load(Relaxed), counts.unsent.load(Relaxed), counts.taken.load(Relaxed))
        });
        assert_eq!(counts[0].0 + counts[1].0, sent);
        assert_eq!([counts[0].1, counts[1].1], [0, 0]);
        assert_eq!([counts[0].2, counts[1].2], [counts[1].0, counts[0].0]);
        assert!(sent > 4 * 2_048, "each frame has been used several times");
        hosts::run("ip", "link del a0");
    }
}

fn frames_that_wait_leave_when_the_link_is_up(_: Way) {
    let ends = ends(Mode::Generic);
    hosts::run("ip", "link set a0 down");
    let mut queued = 0_u32;
    while ends[0].send(&ends[1], &queued.to_be_bytes()) {
        queued += 1;
        ends[0].xsk.flush();
    }
    assert!(queued >= 512, "{queued}");
    let unsent = ends[0].xsk.counts().unsent.load(Relaxed);
    assert!(ends[0].xsk.is_stuck() && unsent > 0);
    assert!(!ends[0].send(&ends[1], &[0; 2_000]), "too long");
    assert_eq!(ends[0].xsk.counts().unsent.load(Relaxed), unsent);

    hosts::run("ip", "link set a0 up");
    let mut expected = 0_u32;
    while expected < queued {
        ends[0].xsk.flush();
        ends[1].take(|payload| {
            assert_eq!(payload, expected.to_be_bytes());
            expected += 1;
        });
    }
    assert!(!ends[0].xsk.is_stuck());
    assert!(ends[0].send(&ends[1], b"more"), "all frames are free again");
}
