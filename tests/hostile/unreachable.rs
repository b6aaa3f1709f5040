//! ICMP moves a race on; it does not judge a backend, and it cuts no datagram into pieces.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use super::support::*;

/// The datagrams that were cut into pieces in this namespace, of the version of IP that an address has.
fn cut(address: SocketAddr) -> u64 {
    let counters = |path| fs::read_to_string(path).expect("the counters of the namespace");
    let number = match address {
        SocketAddr::V4(_) => {
            // Two lines: the names, and the numbers.
            let counters = counters("/proc/net/snmp");
            let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Ip: "));
            let (names, numbers) = lines.next().zip(lines.next()).expect("the kernel counts");
            let place = names.split(' ').position(|name| name == "FragOKs");
            place.and_then(|place| numbers.split(' ').nth(place)?.parse().ok())
        }
        SocketAddr::V6(_) => {
            let counters = counters("/proc/net/snmp6");
            counters.lines().find_map(|line| line.strip_prefix("Ip6FragOKs")?.trim().parse().ok())
        }
    };
    number.expect("the kernel counts them")
}

/// Says to whoever has this socket that what it sends to `to` is too long for a link on the way.
fn claim_a_narrow_link(victim: SocketAddr, to: SocketAddr) {
    let forger = Forger::new();
    match (victim, to) {
        (SocketAddr::V4(victim), SocketAddr::V4(to)) => forger.too_long(576, victim, to),
        (SocketAddr::V6(victim), SocketAddr::V6(to)) => forger.too_long_6(1280, victim, to),
        _ => panic!("{victim} and {to} are of two families"),
    }
}

#[test]
fn forged_icmp_makes_no_fragments() {
    if !namespace::enter("unreachable::forged_icmp_makes_no_fragments") {
        return;
    }
    let backend = Backend::new(reply(|reply| reply.with_flags(AA).answer(txt(1_400))));
    let server =
        Forwarder::to(&[&backend], "").listen("['127.0.0.1:0', '[::1]:0']").keys("edns_udp_size = 4096").start();
    for &address in server.listeners("forwarder") {
        let client = Client::of(address);
        let ask = || assert!(client.ask(&query("big.example", TXT).edns(4096)).bytes.len() > 1_400);
        ask();
        claim_a_narrow_link(address, client.address());
        let before = cut(address);
        ask();
        assert_eq!(cut(address), before, "{address}");
        // A socket that believes it does cut: else this test could not fail.
        let believer = UdpSocket::bind((address.ip(), 0)).expect("a port is free");
        believer.connect(client.address()).expect("loopback can be reached");
        claim_a_narrow_link(believer.local_addr().expect("a bound socket has an address"), client.address());
        until("a forgery is believed", || {
            let _ = believer.send(&[0; 1_400]);
            (cut(address) > before).then_some(())
        });
    }
}
