//! Tests that use the kernel's network stack as the oracle for valid frames. A server by sockets and a server
//! by XDP, alike in all else, receive the same frames and must send the same answers.

use std::net::SocketAddr;

use testkit::*;

use crate::frames::*;
use crate::wire::Wire;
use crate::world::{self, PLAIN, SERVER, SERVER_6, Way, World, at, both_ways};

both_ways! { odd_frames_have_the_answers_of_the_kernel fragments_are_put_together }

/// The hosts table of both servers.
pub(crate) const TABLE: &str = "www.example 192.0.2.1 A\nwww.example 2001:db8::1 AAAA\n";

/// Ethernet addresses of both servers, and of the test.
pub(crate) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Returns the addresses and ports of a valid IPv4 query.
pub(crate) fn path_4() -> Path {
    Path { macs: [SERVER_MAC, CLIENT_MAC], source: at(world::CLIENT, 4_000), destination: at(SERVER, 53) }
}

pub(crate) fn path_6() -> Path {
    Path { macs: [SERVER_MAC, CLIENT_MAC], source: at(world::CLIENT_6, 4_000), destination: at(SERVER_6, 53) }
}

/// Returns a query that has an answer.
pub(crate) fn question() -> Query {
    query("www.example", A)
}

/// Two servers that differ only in how they receive datagrams.
pub(crate) struct Twins {
    pub(crate) members: [Twin; 2],
}

/// One server of [`Twins`], with its host and the test's end of its pair.
pub(crate) struct Twin {
    pub(crate) world: World,
    pub(crate) server: Server,
    wire: Wire,
}

impl Twins {
    /// Starts a server by sockets and a server that receives datagrams this way.
    pub(crate) fn start(way: Way) -> Self {
        let members = [(Way::Socket, "c0"), (way, "c1")].map(|(way, device)| Twin::start(way, device));
        let twins = Self { members };
        assert_eq!(twins.answers(&[path_4().query(&question()), path_6().query(&question())]).len(), 2);
        twins
    }

    /// Returns the sorted answers to these frames, which must be the same from both servers.
    pub(crate) fn answers(&self, frames: &[Vec<u8>]) -> Vec<Heard> {
        let [socket, other] = self.members.each_ref().map(|twin| twin.answers(frames));
        if socket == other {
            return other;
        }
        // Find the frame with different answers.
        for frame in frames {
            let frame = std::slice::from_ref(frame);
            let [socket, other] = self.members.each_ref().map(|twin| twin.answers(frame));
            assert_eq!(other, socket, "answers, then those of the oracle, to {:02x?}", frame[0]);
        }
        panic!("answers together: {other:?}, and those of the oracle: {socket:?}");
    }

    /// Asserts that neither server answers a frame.
    fn check_silence(&self, what: &str, frame: &[u8]) {
        let heard = self.answers(&[frame.to_vec()]);
        assert!(heard.is_empty(), "{what}: {heard:?}");
    }

    /// Asserts that both servers send the same DNS response, and nothing else.
    fn check_answer(&self, what: &str, frames: &[Vec<u8>]) {
        let heard = self.answers(frames);
        assert!(matches!(&heard[..], [Heard::Datagram { .. }]), "{what}: {heard:?}");
    }

    /// Asserts that both servers send the same answer to a frame, or none.
    fn check_same(&self, what: &str, frame: &[u8]) {
        eprintln!("{what}: {} heard", self.answers(&[frame.to_vec()]).len());
    }
}

impl Twin {
    fn start(way: Way, device: &'static str) -> Self {
        let mut world = World::bare(way);
        world.connect(PLAIN, [world::DEVICE, device], [&[], &[]]);
        hosts::run("ip", &format!("link set {device} address 02:00:00:00:00:02"));
        world.ip("link set v0 address 02:00:00:00:00:01");
        // Every client is behind the same router, so the server knows the route and the neighbor of any
        // source.
        for (address, router) in [("10.77.0.1/32", world::CLIENT), ("fd77::1/128 nodad", world::CLIENT_6)] {
            world.ip(&format!("address add {address} dev v0"));
            world.ip(&format!("neighbor add {router} lladdr 02:00:00:00:00:02 dev v0 nud permanent"));
            world.ip(&format!("route add {router} dev v0"));
            world.ip(&format!("route add default via {router} dev v0"));
        }
        // The kernel computes checksums before a frame leaves, and does not limit ICMP errors.
        world.host.run("ethtool", "-K v0 tx off");
        for key in ["ipv4.icmp_ratelimit=0", "ipv4.icmp_ratemask=0", "ipv6.icmp.ratelimit=0", "ipv6.icmp.ratemask="] {
            world.host.run("sysctl", &format!("--quiet net.{key}"));
        }
        let config = World::authority(&[SERVER, SERVER_6]).replace("zones", "cookies = false\nzones");
        let server = world.start(&config, &[("hosts.txt", TABLE)]);
        Self { world, server, wire: Wire::open(device) }
    }

    /// Returns the sorted answers to these frames.
    ///
    /// Fence queries follow the frames on each path to a worker: by XDP and by each of its sockets. Every
    /// answer to the frames arrives before the answers to the fences.
    pub(crate) fn answers(&self, frames: &[Vec<u8>]) -> Vec<Heard> {
        for frame in frames {
            self.wire.send(frame);
        }
        let [four, six] = [path_4().from(at(world::CLIENT, FENCE)), path_6().from(at(world::CLIENT_6, FENCE))];
        let fences = [
            four.query(&question()),
            with_options_4(&four.query(&question())),
            six.query(&question()),
            with_options_6(&six.query(&question()), DESTINATION_OPTIONS),
        ];
        let mut left = fences.len();
        for fence in fences {
            assert!(self.wire.send(&fence), "it is one");
        }
        let mut heard = Vec::new();
        while left > 0 {
            match read(&self.wire.receive()) {
                Some(Heard::Datagram { destination, .. }) if destination.port() == FENCE => left -= 1,
                other => heard.extend(other),
            }
        }
        heard.sort();
        heard
    }
}

/// Source port of the fence queries, which are answered after all frames before them.
const FENCE: u16 = 4_999;

fn odd_frames_have_the_answers_of_the_kernel(way: Way) {
    let twins = Twins::start(way);
    for path in [path_4(), path_6()] {
        for (what, frame) in answered(path) {
            twins.check_answer(&what, &[frame]);
        }
        for (what, frame) in silent_ones(path) {
            twins.check_silence(&what, &frame);
        }
        for (what, frame) in either(path) {
            twins.check_same(&what, &frame);
        }
    }
    let [_, twin] = &twins.members;
    twin.world.check_served(&twin.server, world::DEVICE, [20, 20]);
}

/// Returns frames that get an answer, each with a description of its oddity.
fn answered(path: Path) -> Vec<(String, Vec<u8>)> {
    let frame = path.query(&question());
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        edit(&mut frame);
        seal(&mut frame);
        frame
    };
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", frame.clone()),
        ("padding of Ethernet", [&frame[..], &[0xa5; 18]].concat()),
        ("a datagram that ends before IP does", {
            let udp = path.udp(&question().to_vec());
            path.around(UDP, &[&udp[..], &[0xa5; 7]].concat())
        }),
        ("the port of the server", path.from(at(&path.source.ip().to_string(), 53)).query(&question())),
        ("a hop that is the last", edited(&|frame| frame[if path.source.is_ipv4() { IP + 8 } else { IP + 7 }] = 0)),
        ("a frame for everybody", {
            let mut path = path;
            path.macs[0] = [0xff; 6];
            path.query(&question())
        }),
        ("a frame for a group", {
            let mut path = path;
            path.macs[0] = [1, 0, 0x5e, 0, 0, 1];
            path.query(&question())
        }),
        ("a checksum of all ones", with_sum_of_ones(path)),
    ];
    if path.source.is_ipv4() {
        cases.extend([
            ("no checksum of UDP", {
                let mut frame = frame.clone();
                frame[IP + IPV4_HEADER + 6..][..2].fill(0);
                frame
            }),
            ("options", with_options_4(&frame)),
            ("not to be fragmented", edited(&|frame| frame[IP + 6] = 0x40)),
            ("the bit that is reserved", edited(&|frame| frame[IP + 6] = 0x80)),
            ("a class of traffic", edited(&|frame| frame[IP + 1] = 0xff)),
        ]);
    } else {
        cases.extend([
            ("options of the destination", with_options_6(&frame, DESTINATION_OPTIONS)),
            ("a whole datagram that says it is a fragment", fragments_6(&frame, 1_200).remove(0)),
            (
                "a class of traffic and a flow",
                edited(&|frame| frame[IP..IP + 4].copy_from_slice(&[0x6f, 0xff, 0xff, 0xff])),
            ),
        ]);
    }
    cases.into_iter().map(|(what, frame)| (format!("{what}, {}", path.source), frame)).collect()
}

/// Returns frames that get no answer, each with a description of its fault.
fn silent_ones(path: Path) -> Vec<(String, Vec<u8>)> {
    let frame = path.query(&question());
    let ip_header = if path.source.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let udp = IP + ip_header;
    // Makes the checksums match again after the edit.
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        edit(&mut frame);
        seal(&mut frame);
        frame
    };
    let broken = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        edit(&mut frame);
        frame
    };
    let with_word =
        |at: usize, word: u16| edited(&|frame: &mut Vec<u8>| frame[at..at + 2].copy_from_slice(&word.to_be_bytes()));
    let other_mac = {
        let mut path = path;
        path.macs[0] = [2, 0, 0, 0, 0, 9];
        path.query(&question())
    };
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("a frame for another device".into(), other_mac),
        ("a wrong checksum of UDP".into(), broken(&|frame| frame[udp + 6] ^= 0x10)),
        ("a payload that the checksum is not of".into(), broken(&|frame| frame[udp + 12] ^= 1)),
        ("a response".into(), edited(&|frame| frame[udp + 10] |= 0x80)),
        ("no payload".into(), path.frame(&[])),
        ("half a header of DNS".into(), path.frame(&question().to_vec()[..6])),
        ("a length of UDP above that of IP".into(), with_word(udp + 4, (frame.len() - udp + 1) as u16)),
        ("a length of UDP far above".into(), with_word(udp + 4, 0xffff)),
        ("a length of UDP without its header".into(), with_word(udp + 4, 7)),
        ("another version of IP".into(), edited(&|frame| frame[IP] ^= 0x20)),
        ("an unknown type of Ethernet".into(), with_word(12, 0x88b5)),
    ];
    // Frames that end before their headers say so, at every length.
    cases.extend((14..frame.len()).map(|length| (format!("{length} octets"), frame[..length].to_vec())));
    let sources: &[&str] = if path.source.is_ipv4() {
        cases.extend([
            ("a length of IP below its header".into(), with_word(IP + 2, 19)),
            ("a length of IP above the frame".into(), with_word(IP + 2, (frame.len() - IP + 1) as u16)),
            ("a length of IP of 0".into(), with_word(IP + 2, 0)),
            ("a header of IP below the least".into(), broken(&|frame| frame[IP] = 0x44)),
            ("a header of IP above the frame".into(), broken(&|frame| frame[IP] = 0x4f)),
            ("a wrong checksum of IP".into(), broken(&|frame| frame[IP + 10] ^= 1)),
            ("a length of UDP of 0".into(), with_word(udp + 4, 0)),
        ]);
        // Martians: loopback, multicast, unspecified, broadcast, and the server's address.
        &["127.0.0.1", "224.0.0.1", "239.255.255.255", "0.0.0.0", "255.255.255.255", SERVER]
    } else {
        cases.extend([
            ("no checksum of UDP".into(), broken(&|frame| frame[udp + 6..udp + 8].fill(0))),
            ("a length of IP above the frame".into(), with_word(IP + 4, (frame.len() - udp + 1) as u16)),
            ("a length of IP of 0".into(), with_word(IP + 4, 0)),
        ]);
        &["::1", "ff02::1", "::", "::ffff:10.77.0.2", SERVER_6]
    };
    cases.extend(
        sources
            .iter()
            .map(|source| (format!("from {source}"), path.from(at(source, path.source.port())).query(&question()))),
    );
    cases.push(("from port 0".into(), path.from(SocketAddr::new(path.source.ip(), 0)).query(&question())));
    cases
}

/// Returns frames for which the kernel's reaction defines the right one.
fn either(path: Path) -> Vec<(String, Vec<u8>)> {
    let frame = path.query(&question());
    let to = |port| SocketAddr::new(path.destination.ip(), port);
    let mut cases = vec![
        ("a port without a listener".to_owned(), path.to(to(54)).query(&question())),
        ("port 0".to_owned(), path.to(to(0)).query(&question())),
        ("a tag of a VLAN that is not there".to_owned(), tagged(&frame, &[(VLAN, 10)])),
        ("a tag of a priority".to_owned(), tagged(&frame, &[(VLAN, 0xe000)])),
        ("two tags".to_owned(), tagged(&frame, &[(SERVICE_VLAN, 10), (VLAN, 20)])),
        ("half a tag".to_owned(), [&frame[..12], &[0x81, 0, 0]].concat()),
        ("an echo request".to_owned(), {
            let protocol = if path.source.is_ipv4() { ICMP } else { ICMPV6 };
            path.around(protocol, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])
        }),
        ("TCP".to_owned(), path.around(6, &path.udp(&[0; 12]))),
        ("UDP-Lite".to_owned(), path.around(136, &path.udp(&question().to_vec()))),
        ("a message of noise".to_owned(), path.frame(&[0xa5; 80])),
        ("a long message".to_owned(), path.frame(&[&question().to_vec()[..], &[0; 1_300]].concat())),
        ("another opcode".to_owned(), path.query(&question().opcode(2))),
        ("another question".to_owned(), path.query(&query("nobody.example", A).edns(1232))),
    ];
    if path.source.is_ipv4() {
        let broadcast = SocketAddr::new("10.77.0.255".parse().expect("an address"), 53);
        cases.push(("the broadcast address".to_owned(), path.to(broadcast).query(&question())));
        cases.push(("another host".to_owned(), path.to(at("10.77.0.99", 53)).query(&question())));
        for source in ["240.1.2.3", "0.1.2.3", "10.77.0.255", "10.77.0.99"] {
            cases.push((format!("from {source}"), path.from(at(source, 4_000)).query(&question())));
        }
        cases.push(("the first fragment alone".to_owned(), fragments_4(&frame, 16).remove(0)));
        cases.push(("ARP".to_owned(), [&frame[..12], &ARP.to_be_bytes(), &[0; 28]].concat()));
    } else {
        let mut jumbo = frame.clone();
        jumbo[IP + IPV6_HEADER + 4..][..2].fill(0);
        cases.push(("a length of UDP of 0, which Linux takes for a jumbogram".to_owned(), jumbo));
        cases.push(("options of each hop".to_owned(), with_options_6(&frame, HOP_BY_HOP)));
        cases.push(("an unknown header".to_owned(), with_options_6(&frame, 254)));
        cases.push(("the end of headers".to_owned(), path.around(59, &path.udp(&question().to_vec()))));
    }
    cases.into_iter().map(|(what, frame)| (format!("{what}, {}", path.source), frame)).collect()
}

fn fragments_are_put_together(way: Way) {
    let twins = Twins::start(way);
    let long = [&query("www.example", A).edns(1232).option(PADDING, &[0; 300]).to_vec()[..]].concat();
    for size in [8, 16, 64, 200] {
        let [four, six] = [path_4().frame(&long), path_6().frame(&long)];
        for mut fragments in [fragments_4(&four, size), fragments_6(&six, size)] {
            let count = fragments.len();
            twins.check_answer(&format!("{count} fragments"), &fragments);
            fragments.reverse();
            twins.check_answer(&format!("{count} fragments, the last one first"), &fragments);
            fragments.pop();
            assert!(twins.answers(&fragments).is_empty(), "one of {count} fragments is missing");
        }
    }
}

/// Recomputes all checksums of a frame.
pub(crate) fn seal(frame: &mut [u8]) {
    if word(frame, 12) == IPV4 {
        seal_ip(frame);
    }
    seal_udp(frame);
}

/// Returns a query whose checksum is 0, and so is sent as all ones. The ID is chosen to reach that sum.
fn with_sum_of_ones(path: Path) -> Vec<u8> {
    let udp = IP + if path.source.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let without = path.query(&question().id(0));
    // An ID equal to the checksum brings the sum to all ones.
    let frame = path.query(&question().id(word(&without, udp + 6)));
    assert_eq!(word(&frame, udp + 6), 0xffff, "the sum was chosen");
    frame
}
