//! ICMP moves a race on; it does not judge a backend, and it cuts no datagram into pieces.

use std::fs;
use std::net::{SocketAddr, UdpSocket};

use super::support::*;

const ONE: &str = "192.0.2.1";
const TWO: &str = "192.0.2.2";

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

/// What a backend says, with another question in it than was asked; when that may leave.
fn beside_the_question(script: Script) -> Script {
    // The first letter of the name.
    script.edited(|message| message[13] ^= 1).held()
}

#[test]
fn late_reply_to_another_question_teaches_nothing() {
    let quick = Backend::new(answer(ONE));
    let slow = Backend::new(beside_the_question(answer(TWO)).and(answer(TWO).held()));
    let server = Forwarder::to(&[&quick, &slow], "[health]\ninterval = '1h'").admin().start();
    let (admin, name) = (server.admin(), slow.address().to_string());
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    slow.wait_for(1);
    slow.release();
    let dropped = |metrics: &Metrics, reason| metrics.sum("hedgerow_dropped_total", &[("reason", reason)]);
    // The second is taken for what it is: the ID was not free by then.
    let metrics = admin.wait_for("both have come", |metrics| dropped(metrics, "late") == 1);
    assert_eq!(dropped(&metrics, "spoofed"), 1);
    assert_eq!(metrics.sum("hedgerow_backend_latency_seconds_count", &[("backend", &name)]), 1);
}

#[test]
fn late_reply_to_another_question_sets_nobody_up() {
    let backends = [Backend::new(answer(ONE)), Backend::new(beside_the_question(answer(TWO)))];
    backends.iter().for_each(|backend| backend.play_dead(true));
    let health = "[health]\ninterval = '1h'\ntimeout = '50ms'\nfall = 1";
    let server = Forwarder::to(&[&backends[0], &backends[1]], health).admin().start();
    let admin = server.admin();
    backends.iter().for_each(|backend| admin.wait_for_state(backend.address(), false));
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
    backends[1].wait_for(1);
    backends[1].release();
    admin.wait_for("it has come", |metrics| metrics.sum("hedgerow_dropped_total", &[("reason", "spoofed")]) == 1);
    assert_eq!(admin.backend(&backends[1].address().to_string())["state"], "down");
    assert_eq!(admin.backend(&backends[0].address().to_string())["state"], "up", "a true reply is life");
}
