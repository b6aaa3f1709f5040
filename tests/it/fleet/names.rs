//! Members that a DNS name lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::*;

/// A source that asks this resolver, with so little patience that tests see it.
fn by_name(resolver: SocketAddr, name: &str) -> String {
    forwarder(&format!("dns = '{name}'\nresolvers = ['{resolver}']\nhold = '0s'"), "")
}

#[test]
fn a_zone_of_our_own_lists_members() {
    let backends = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| Backend::at(address, answer("192.0.2.1")));
    let [one, two] = backends.each_ref().map(|backend| backend.address());
    let zone = |records: &str, serial: u32| {
        format!(
            "$TTL 1\n@ SOA ns h {serial} 3600 600 86400 1\n@ NS ns\nns A 127.0.0.1\nalias CNAME both\nboth A {}\nboth A {}\n{records}",
            one.ip(),
            two.ip()
        )
    };
    let srv = |port: u16, host: &str| format!("_dns._udp 1 SRV 10 5 {port} {host}\n");
    let hosts = format!("one A {}\ntwo A {}\n", one.ip(), two.ip());
    let both = format!("{hosts}{}{}_dns._udp 1 SRV 20 5 9 one\n", srv(one.port(), "one"), srv(two.port(), "two"));
    let config = "[authorities.ns]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'e.zone', origin = 'e.example' }]\n[admin]\nlisten = '127.0.0.1:0'\n";
    let ns = Server::start_with_files(config, &[("e.zone", &zone(&both, 1))]);
    let server = Server::start(&by_name(ns.listener("ns"), "_dns._udp.e.example"));
    wait_for_up(&server, 2);
    wait_for_members(&server, &[one, two]);
    // By its addresses, all at one port, over an alias that the server itself follows.
    let by_address = Server::start(&by_name(ns.listener("ns"), "alias.e.example:5353"));
    wait_for_members(&by_address, &[SocketAddr::new(one.ip(), 5353), SocketAddr::new(two.ip(), 5353)]);
    // One less, at the end of the TTL.
    ns.reload("e.zone", &zone(&format!("{hosts}{}", srv(one.port(), "one")), 2));
    wait_for_members(&server, &[one]);
    // None at all: that is a list too, and doubted.
    ns.reload("e.zone", &zone(&hosts, 3));
    wait_for_source(&server, "doubted");
    wait_for_members(&server, &[one]);
    drop(ns);
    wait_for_source(&server, "stale");
    wait_for_members(&server, &[one]);
}

#[test]
fn a_name_that_nobody_can_tell_changes_nothing() {
    let backend = Backend::at("127.0.0.3:0", answer("192.0.2.1"));
    let port = backend.address().port();
    let rcode = Arc::new(AtomicU16::new(0));
    let told = Arc::clone(&rcode);
    let resolver = Backend::new(reply(move |reply| match told.load(Ordering::SeqCst) {
        0 => reply.with_flags(AA).answer(a("127.0.0.3").lasting(1)),
        rcode => reply.rcode(rcode),
    }));
    let server = Server::start(&by_name(resolver.address(), &format!("ts.example:{port}")));
    wait_for_up(&server, 1);
    assert!(resolver.queries().iter().all(|seen| seen.tcp));
    for failure in [SERVFAIL, REFUSED] {
        rcode.store(failure, Ordering::SeqCst);
        let source = wait_for_source(&server, "stale");
        assert!(source["failure"].as_str().is_some_and(|failure| failure.contains("ts.example")), "{source}");
        wait_for_members(&server, &[backend.address()]);
        rcode.store(0, Ordering::SeqCst);
        wait_for_source(&server, "fresh");
    }
    resolver.play_dead(true);
    rcode.store(SERVFAIL, Ordering::SeqCst);
    wait_for_source(&server, "stale");
    // Where there is no TCP, by UDP.
    let by_udp = Backend::without_tcp(answer("127.0.0.3"));
    let other = Server::start(&by_name(by_udp.address(), &format!("ts.example:{port}")));
    wait_for_up(&other, 1);
}

#[test]
fn a_resolver_that_is_this_server_is_not_asked() {
    let listen = free_address();
    let config = by_name(listen, "ts.example:53").replace("127.0.0.1:0'", &format!("{listen}'"));
    let config = config.replacen(&format!("[admin]\nlisten = '{listen}'"), "[admin]\nlisten = '127.0.0.1:0'", 1);
    let server = Server::start(&config);
    let source = until("it has failed", || {
        let source = pool(&server)["sources"][0].clone();
        source["failure"].is_string().then_some(source)
    });
    assert!(source["failure"].as_str().is_some_and(|failure| failure.contains("listener of this process")), "{source}");
    assert_eq!(source["state"], "never");
}
