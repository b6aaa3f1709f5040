//! Members that a DNS name lists.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
    let reported = Arc::clone(&rcode);
    let resolver = Backend::new(reply(move |reply| match reported.load(Ordering::SeqCst) {
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

#[test]
fn whatever_a_name_lists_no_query_is_lost() {
    // One TS at all addresses of this host is two hundred members.
    let config = "workers = 1\n[authorities.one]\nlisten = ['0.0.0.0:0']\nzones = ['hosts.txt']\n";
    let ts = Server::start_with_files(config, &[("hosts.txt", &load_table())]);
    let port = ts.listener("one").port();
    let (service, host) =
        (ScriptedNames::new(services(port, |_| true)), ScriptedNames::new(answer_for(0, "127.0.1.1")));
    let resolver = Backend::new(service.script().except("host", host.script()));
    let looked = |name: &str| resolver.queries_for(name).len();
    let begun = Instant::now();
    let resolvers = format!("resolvers = ['{}']", resolver.address());
    let of_service = forwarder(&format!("dns = '{SERVICE}'\n{resolvers}"), "");
    // A thousand probes a second would take from the loads of other tests, which this one waits for.
    let server = Server::start(&of_service.replace("interval = '200ms'", "interval = '2s'"));
    let of_host = format!("dns = 'host.example:{port}'\n{resolvers}\nhold = '0s'");
    let by_host = Server::start(&forwarder(&of_host, ""));
    wait_for_up(&server, 200);
    wait_for_up(&by_host, 1);
    let load = Load::start_at_both([server.address(), by_host.address()], RATE_OF_MANY);
    host.becomes(answer_for(0, "127.0.1.2"));
    // Each answer lists another half of the hosts: a host that is no longer listed is held, and returns
    // before the hold is over.
    let mut is_odd = false;
    let [mut odd, mut even] = [services(port, |host| host % 2 == 1), services(port, |host| host % 2 == 0)];
    service.becomes(Script::each_of(move |seen| {
        is_odd = !is_odd;
        if is_odd { odd.react(seen) } else { even.react(seen) }
    }));
    resolver.wait_for_name(SERVICE, looked(SERVICE) + 4);
    assert_eq!((members(&server).len(), pool(&server)["sources"][0]["state"].clone()), (200, "fresh".into()));
    let held = changes(&server, "held");
    assert!(held >= 200, "each half was held at least once: {held}");
    for (script, state, what) in [
        (servfail(), "stale", "SERVFAIL"),
        (nxdomain_for(1), "doubted", "NXDOMAIN"),
        (silent(), "stale", "a name server that hangs"),
        (nodata_for(1), "doubted", "no records"),
        (services(port, |_| true), "fresh", "all again"),
    ] {
        service.becomes(script);
        wait_for_source(&server, state);
        assert_eq!(members(&server).len(), 200, "{what}");
    }
    // A TTL of 0 is 5 s: it is followed, and is no reason to ask all the time.
    wait_for_members(&by_host, &[SocketAddr::from(([127, 0, 1, 2], port))]);
    let (times, seconds) = (looked("host.example") / 2, begun.elapsed().as_secs());
    assert!(times as u64 <= seconds / 5 + 1, "looked up {times} times in {seconds} s");
    load.stop().check_all("a name", &[&server.admin(), &by_host.admin()]);
    assert_eq!((changes(&server, "joined"), changes(&server, "left")), (200, 0));
    assert!(resolver.queries().iter().all(|seen| seen.tcp));
}

/// The name of the service.
const SERVICE: &str = "_dns._udp.ts.example";

/// The script of a name server, which the test can replace.
#[derive(Clone)]
struct ScriptedNames(Arc<Mutex<Script>>);

impl ScriptedNames {
    fn new(script: Script) -> Self {
        Self(Arc::new(Mutex::new(script)))
    }

    /// From now on it says this.
    fn becomes(&self, script: Script) {
        *self.0.lock().expect("nothing panics here") = script;
    }

    /// Returns the current script.
    fn script(&self) -> Script {
        let reported = self.clone();
        Script::each_of(move |seen| reported.0.lock().expect("nothing panics here").react(seen))
    }
}

/// SRV records of those of two hundred hosts that are listed, with their addresses.
fn services(port: u16, is_listed: fn(u8) -> bool) -> Script {
    reply(move |reply| {
        (1..=200).filter(|host| is_listed(*host)).fold(reply.with_flags(AA), |reply, host| {
            let name = format!("h{host}.ts.example");
            let service = [&[0, 1, 0, 1][..], &port.to_be_bytes(), &wire_name(&name)].concat();
            let address = record(&name, A, &[127, 0, 1, host]);
            reply.answer(record("@", SRV, &service).lasting(1)).additional(address.lasting(1))
        })
    })
}
