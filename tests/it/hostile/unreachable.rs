//! ICMP moves a race on; it does not judge a backend, and it cuts no datagram into pieces.

use std::collections::HashSet;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use testkit::*;

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

/// Sends ICMP to the owner of this socket: its datagrams to `to` are too long for a link on the way.
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
    if !namespace::enter("hostile::unreachable::forged_icmp_makes_no_fragments") {
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

/// A held reply with another question than the one of the query.
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
    let learnt = |metrics: &Metrics| metrics.sum("hedgerow_backend_latency_seconds_count", &[("backend", &name)]);
    // What is learnt is counted last.
    let metrics = admin.wait_for("both have come", |metrics| dropped(metrics, "late") == 1 && learnt(metrics) > 0);
    assert_eq!((dropped(&metrics, "spoofed"), learnt(&metrics)), (1, 1));
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

/// Deadlines that must not matter, and no probe but those at the start and those that are asked for.
const PATIENT: &str = "timeout = '20s'\nattempt_timeout = '20s'\n[health]\ninterval = '1h'";

/// The address as a forger takes it.
fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

#[test]
fn forged_icmp_asks_the_next_backend_and_leaves_the_attempt_open() {
    if !namespace::enter("hostile::unreachable::forged_icmp_asks_the_next_backend_and_leaves_the_attempt_open") {
        return;
    }
    for dispatch in ["sequential", "hedge"] {
        let asked = Backend::new(answer(ONE).held());
        let next = Backend::new(silent());
        let keys = format!("dispatch = '{dispatch}'\nbalance = 'ordered'\n{PATIENT}\n[hedge]\nbudget = 0.0");
        let server = Forwarder::to(&[&asked, &next], &keys).admin().start();
        asked.wait_for_probes(1);
        let client = server.client();
        client.send(&query("www.example", A));
        let victim = asked.wait_for(1)[0].peer;
        Forger::new().port_unreachable(v4(victim), v4(asked.address()));
        next.wait_for(1);
        // It was brought forward.
        asked.wait_for_probes(2);
        asked.release();
        assert_eq!(client.receive().answers(), [ONE], "{dispatch}");
        let metrics = server.admin().metrics();
        assert_eq!(metrics.attempts(next.address(), Some("failover")), 1, "{dispatch}");
        assert_eq!(metrics.sum("hedgerow_backend_up", &[]), 2, "{dispatch}");
        let backend = asked.address().to_string();
        assert_eq!(metrics.sum("hedgerow_unreachable_total", &[("backend", &backend)]), 1, "{dispatch}");
    }
}

/// A backend that is well, and of whose every reply a forger who knows the ports says before that it will not
/// come.
fn slandered() -> Backend {
    let address = Arc::new(OnceLock::new());
    let forger = Forger::new();
    let script = Script::new({
        let address = Arc::clone(&address);
        move |seen| {
            let (victim, backend) = (v4(seen.peer), *address.get()?);
            forger.too_long(576, victim, backend);
            forger.port_unreachable(victim, backend);
            Some(reply_to(&seen.bytes).with_flags(AA).answer(a(ONE)).to_vec())
        }
    });
    let backend = Backend::new(script.after(ms(5)));
    address.set(v4(backend.address())).expect("it is set once");
    backend
}

#[test]
fn forged_icmp_to_every_attempt_and_probe_is_seen_by_no_client() {
    if !namespace::enter("hostile::unreachable::forged_icmp_to_every_attempt_and_probe_is_seen_by_no_client") {
        return;
    }
    for dispatch in ["race", "sequential", "hedge"] {
        let backends = [slandered(), slandered()];
        let keys = format!(
            "dispatch = '{dispatch}'\ntimeout = '20s'\nattempt_timeout = '10s'\n\
             [health]\ninterval = '100ms'\ntimeout = '10s'\nprobe = {{ name = 'probe.example', type = 'A' }}"
        );
        let start = Instant::now();
        let server = Forwarder::to(&[&backends[0], &backends[1]], &keys).admin().start();
        let client = server.client();
        for round in 0..30 {
            (0..20).for_each(|number| client.send(&query(&format!("{round}-{number}.example"), A)));
            (0..20).for_each(|_| assert_eq!(client.receive().answers(), [ONE], "{dispatch}"));
        }
        let metrics = server.admin().metrics();
        assert!(!server.process.log().contains(" down"), "{dispatch}: {}", server.process.log());
        assert_eq!(metrics.sum("hedgerow_backend_up", &[]), 2, "{dispatch}");
        // Several queries that leave together meet one error.
        assert!(metrics.sum("hedgerow_unreachable_total", &[]) >= 30, "{dispatch}: {}", metrics.0);
        for backend in &backends {
            let probes = backend.queries_for("probe.example");
            let probes = probes.iter().map(|seen| (seen.id(), seen.peer)).collect::<HashSet<_>>().len();
            let most = start.elapsed().as_millis() / 50 + 2;
            assert!((3..=most).contains(&(probes as u128)), "{dispatch}: {probes} probes, not {most} at most");
        }
    }
}

#[test]
fn a_storm_of_forged_icmp_is_seen_by_no_client() {
    if !namespace::enter("hostile::unreachable::a_storm_of_forged_icmp_is_seen_by_no_client") {
        return;
    }
    let backends = [(); 2].map(|()| Backend::new(answer(ONE).after(ms(20))));
    let server = Forwarder::to(&[&backends[0], &backends[1]], "").admin().start();
    let is_over = Arc::new(OnceLock::new());
    let storm = std::thread::spawn({
        let (is_over, targets) = (Arc::clone(&is_over), backends.each_ref().map(|backend| v4(backend.address())));
        move || {
            let (forger, mut sent) = (Forger::new(), 0);
            // All ports, over and over.
            for port in (1024..=u16::MAX).cycle() {
                if is_over.get().is_some() {
                    return sent;
                }
                for target in targets {
                    forger.port_unreachable(SocketAddrV4::new(*target.ip(), port), target);
                    sent += 1;
                }
            }
            sent
        }
    });
    let (client, fence, forger) = (server.client(), server.client(), Forger::new());
    let start = Instant::now();
    let mut rounds = 0;
    until("the storm has met many sockets", || {
        for number in 0..40 {
            client.send(&query(&format!("{rounds}-{number}.example"), A));
            // What is refused at once is a turn between the two, so that each leaves from a socket of its
            // own.
            assert_eq!(fence.ask(&query("example", AXFR)).rcode(), REFUSED);
        }
        // However slow the storm is on a busy machine, some of it hits.
        for backend in &backends {
            let asked = backend.queries();
            asked.iter().rev().take(5).for_each(|seen| forger.port_unreachable(v4(seen.peer), v4(backend.address())));
        }
        (0..40).for_each(|_| assert_eq!(client.receive().answers(), [ONE]));
        rounds += 1;
        let heard = server.admin().metrics().sum("hedgerow_unreachable_total", &[]);
        (heard >= 5 && start.elapsed() >= ms(2_000)).then_some(())
    });
    is_over.set(()).expect("it is set once");
    let sent: u64 = storm.join().expect("the storm does not panic");
    println!("{} forged ICMP messages a second, {} queries", sent / start.elapsed().as_secs().max(1), 40 * rounds);
    assert!(!server.process.log().contains(" down"), "{}", server.process.log());
}

#[test]
fn attempts_end_once_their_backends_are_found_down() {
    // Keeps other programs from taking the port meanwhile.
    if !namespace::enter("hostile::unreachable::attempts_end_once_their_backends_are_found_down") {
        return;
    }
    let backends = [(); 2].map(|()| Backend::new(silent()));
    let server = Forwarder::to(&[&backends[0], &backends[1]], PATIENT).workers(2).admin().start();
    let clients: Vec<_> = (0..16).map(|_| server.client()).collect();
    let ask = |number: usize, client: &Client| client.send(&query(&format!("{number}.example"), A).edns(1232));
    clients.iter().enumerate().for_each(|(number, client)| ask(number, client));
    backends.iter().for_each(|backend| {
        backend.wait_for(16);
        backend.wait_for_probes(1);
    });
    drop(backends);
    // This client's attempts get ICMP errors. Two probes do too, and then no query waits any more.
    let last = server.client();
    let start = Instant::now();
    ask(16, &last);
    for client in clients.iter().chain([&last]) {
        let response = client.receive();
        assert_eq!((response.rcode(), response.extended_error()), (NXDOMAIN, Some(NO_REACHABLE_AUTHORITY)));
    }
    let took = start.elapsed();
    // Now that this is known, an attempt that meets ICMP has failed at once.
    let start = Instant::now();
    assert_eq!(last.ask(&query("again.example", A).edns(1232)).extended_error(), Some(NO_REACHABLE_AUTHORITY));
    println!(
        "17 queries of backends that died were answered {} ms after, the next in {} µs",
        took.as_millis(),
        start.elapsed().as_micros()
    );
    assert!(took + start.elapsed() < ms(5_000), "a busy machine, but no timeout: {took:?}");
}

#[test]
fn restart_of_a_backend_costs_nobody_a_wait() {
    // Keeps other programs from taking the port meanwhile.
    if !namespace::enter("hostile::unreachable::restart_of_a_backend_costs_nobody_a_wait") {
        return;
    }
    let restarted = Backend::new(answer(ONE));
    let stays = Backend::new(answer(TWO));
    let keys = format!("dispatch = 'sequential'\nbalance = 'ordered'\n{PATIENT}");
    let server = Forwarder::to(&[&restarted, &stays], &keys).admin().start();
    let client = server.client();
    let ask = |name: &str| {
        let start = Instant::now();
        let answers = client.ask(&query(name, A)).answers();
        assert!(start.elapsed() < ms(5_000), "a busy machine, but no timeout: {:?}", start.elapsed());
        answers
    };
    assert_eq!(ask("before.example"), [ONE]);
    restarted.wait_for_probes(1);
    let address = restarted.address();
    drop(restarted);
    (0..50).for_each(|number| assert_eq!(ask(&format!("{number}.meanwhile.example")), [TWO]));
    let _restarted = Backend::at(&address.to_string(), answer(ONE));
    let mut numbers = 0..;
    until("it is asked again", || (ask(&format!("{}.after.example", numbers.next()?)) == [ONE]).then_some(()));
}

/// The sockets of this network namespace that are connected to a port.
fn connected_to(address: SocketAddr) -> usize {
    let sockets = fs::read_to_string("/proc/net/udp").expect("the kernel lists sockets");
    let peer = format!(":{:04X}", address.port());
    sockets.lines().filter(|line| line.split_whitespace().nth(2).is_some_and(|remote| remote.ends_with(&peer))).count()
}

#[test]
fn sockets_that_nobody_needs_are_closed() {
    let backend = Backend::new(answer(ONE).held());
    let server = Forwarder::to(&[&backend], PATIENT).start();
    let client = server.client();
    // From each batch a socket; more than are renewed at once.
    for number in 0..100 {
        client.send(&query(&format!("{number}.example"), A));
        backend.wait_for(number + 1);
    }
    assert!(connected_to(backend.address()) > 10);
    backend.release();
    (0..100).for_each(|_| drop(client.receive()));
    until("all are closed", || (connected_to(backend.address()) == 0).then_some(()));
}

#[test]
fn what_would_leave_in_pieces_leaves_with_tc() {
    if !namespace::enter("hostile::unreachable::what_would_leave_in_pieces_leaves_with_tc") {
        return;
    }
    let narrow = Command::new("ip").args(["link", "set", "lo", "mtu", "1400"]).status();
    assert!(narrow.is_ok_and(|status| status.success()), "the loopback device has an MTU");
    let backend = Backend::new(reply(|reply| reply.with_flags(AA).answer(txt(1_500))).except("small", answer(ONE)));
    let server = Forwarder::to(&[&backend], "").listen("['[::1]:0']").keys("edns_udp_size = 4096").start();
    let (client, address) = (server.client(), server.address());
    let before = cut(address);
    for _ in 0..5 {
        let response = client.ask(&query("big.example", TXT).edns(4096));
        assert!(response.has(TC) && response.bytes.len() < 100, "{response:?}");
        assert_eq!(opt_of(&response.bytes), Some(Vec::new()), "{response:?}");
        assert_eq!(client.ask(&query("small.example", A).edns(4096)).answers(), [ONE]);
    }
    assert_eq!(cut(address), before);
    let whole = server.tcp_client().ask(&query("big.example", TXT).edns(4096));
    assert!(!whole.has(TC) && whole.bytes.len() > 1_500, "{whole:?}");
}
