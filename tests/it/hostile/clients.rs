//! Tests that no client can use up the server: which clients are answered, how many queries of a client may
//! wait, how many responses it gets a second and how many at once.

use std::collections::HashSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::process::Command;
use std::time::Instant;

use rustix::process::Signal;
use testkit::*;

const ONE: &str = "192.0.2.1";

/// The code of the Extended DNS Error of a response that fails for a limit, and its text.
fn reason(response: &Response) -> Option<(u16, String)> {
    let options = response.options();
    let (_, data) = options.iter().find(|(code, _)| *code == EXTENDED_ERROR)?;
    Some((word(data, 0), String::from_utf8(data[2..].to_vec()).expect("RFC 8914 section 2: UTF-8")))
}

/// Queries with EDNS for so many names, none of which was asked for before.
fn queries(count: usize) -> Vec<Query> {
    (0..count).map(|_| query("x", A)).map(|fresh| query(&format!("n{}.example", fresh.id), A).edns(1232)).collect()
}

/// Runs a program of the system, which must succeed.
fn run(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {arguments}");
}

/// The address of a listener of IPv4.
fn ipv4_of(address: SocketAddr) -> SocketAddrV4 {
    let SocketAddr::V4(address) = address else { panic!("{address} is of IPv4") };
    address
}

/// How often a limit was met.
fn limited(metrics: &Metrics, listener: &str, limit: &str) -> u64 {
    metrics.sum("hedgerow_limited_total", &[("listener", listener), ("limit", limit)])
}

/// How much was dropped for this reason.
fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    metrics.sum("hedgerow_dropped_total", &[("reason", reason)])
}

#[test]
fn who_is_not_allowed_is_refused_and_told_why() {
    let backend = Backend::new(answer(ONE));
    let server = Forwarder::to(&[&backend], "").keys("allow = ['127.0.0.0/30']\ndeny = ['127.0.0.1']").start();
    let (denied, allowed) = (server.client(), Client::at("127.0.0.2", server.address()));
    let plain = denied.ask(&query("www.example", A));
    assert_eq!((plain.rcode(), plain.has_opt(), plain.answers().len()), (REFUSED, false, 0));
    let reported = denied.ask(&query("www.example", A).edns(1232));
    assert_eq!((reported.rcode(), reported.extended_error()), (REFUSED, Some(18)));
    let mut by_tcp = server.tcp_client();
    let reported = by_tcp.ask(&query("www.example", A).edns(1232));
    assert_eq!((reported.rcode(), reported.extended_error()), (REFUSED, Some(18)));
    assert_eq!(denied.ask(&query("www.example", A).opcode(2)).rcode(), REFUSED, "whatever it asks");
    assert!(backend.queries().is_empty(), "no backend hears of that");
    assert_eq!(allowed.ask(&query("www.example", A)).answers(), [ONE]);
    let elsewhere = Client::at("127.0.0.4", server.address());
    assert_eq!(elsewhere.ask(&query("www.example", A)).rcode(), REFUSED, "no rule allows it");
}

#[test]
fn who_is_not_allowed_hears_nothing_if_that_is_wanted() {
    let backend = Backend::new(answer(ONE));
    let config = |keys: &str| Forwarder::to(&[&backend], "").keys(keys).admin();
    let server = config("deny = ['127.0.0.1']\non_denied = 'drop'").start();
    let denied = server.client();
    queries(5).iter().for_each(|query| denied.send(query));
    server.tcp_client().expect_end();
    let metrics = server.admin().wait_for("six are dropped", |metrics| dropped(metrics, "denied") == 6);
    assert_eq!(metrics.sum("hedgerow_responses_total", &[]), 0);
    // A reload lets it in, and says so to what comes from then on.
    server.reload("config.toml", &config("").to_toml());
    server.process.wait_for_log("reloaded");
    assert_eq!(denied.ask(&query("www.example", A)).answers(), [ONE]);
}

#[test]
fn an_authority_answers_everybody_but_who_is_denied() {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['t.txt']\ndeny = ['127.0.0.1']\n\
                  [authorities.quiet]\nlisten = ['127.0.0.1:0']\nzones = ['t.txt']\nallow = []\non_denied = 'drop'\n\
                  [admin]\nlisten = '127.0.0.1:0'\n";
    let server = Server::start_with_files(config, &[("t.txt", "www.example 192.0.2.1 A\n")]);
    let ts = server.listener("ts");
    let reported = Client::of(ts).ask(&query("www.example", A).edns(1232));
    assert_eq!((reported.rcode(), reported.extended_error()), (REFUSED, Some(18)));
    assert_eq!(TcpClient::of(ts).ask(&query("www.example", A)).rcode(), REFUSED);
    assert_eq!(Client::at("127.0.0.2", ts).ask(&query("www.example", A)).answers(), [ONE]);
    Client::of(server.listener("quiet")).send(&query("www.example", A));
    server.admin().wait_for("it is dropped", |metrics| dropped(metrics, "denied") == 1);
}

#[test]
fn an_ls_answers_by_default_who_is_local() {
    if !namespace::enter("hostile::clients::an_ls_answers_by_default_who_is_local") {
        return;
    }
    run("ip", "address add 192.0.2.1/32 dev lo");
    run("ip", "address add 10.1.2.3/32 dev lo");
    let backend = Backend::new(answer(ONE));
    let from_config = Forwarder::to(&[&backend], "").listen("['0.0.0.0:0']").start();
    let from_arguments = Server::run(["ls", "-l", "0.0.0.0:0", &backend.address().to_string()]);
    for server in [from_config, from_arguments] {
        let port = server.address().port();
        let ask = |from: &str| {
            Client::at(from, format!("{from}:{port}").parse().expect("an address")).ask(&query("www.example", A))
        };
        assert_eq!(ask("192.0.2.1").rcode(), REFUSED);
        for local in ["127.0.0.1", "127.9.9.9", "10.1.2.3"] {
            assert_eq!(ask(local).answers(), [ONE], "{local}");
        }
    }
}

#[test]
fn nobody_asks_from_port_0_or_from_our_own_address() {
    if !namespace::enter("hostile::clients::nobody_asks_from_port_0_or_from_our_own_address") {
        return;
    }
    let backend = Backend::new(answer(ONE));
    let table = "[authorities.ts]\nlisten = ['127.0.0.1:0', '0.0.0.0:5399']\nzones = ['t.txt']\n";
    let config = Forwarder::to(&[&backend], "").admin().to_toml() + table;
    let server = Server::start_with_files(&config, &[("t.txt", "www.example 192.0.2.1 A\n")]);
    let (ls, ts) = (ipv4_of(server.address()), ipv4_of(server.listener("ts")));
    let wildcard: SocketAddrV4 = "127.0.0.1:5399".parse().expect("an address");
    let forger = Forger::new();
    let mut sent = 0;
    for to in [ls, ts, wildcard] {
        let port_0 = SocketAddrV4::new(*to.ip(), 0);
        for from in [port_0, ls, ts, wildcard] {
            forger.udp(from, to, &query("www.example", A).to_vec());
            sent += 1;
        }
    }
    let metrics = server.admin().wait_for("all are dropped", |metrics| dropped(metrics, "source") == sent);
    assert_eq!((backend.queries().len(), metrics.sum("hedgerow_queries_total", &[])), (0, 0));
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ONE]);
}

#[test]
fn a_forwarder_is_no_backend_of_its_own() {
    if !namespace::enter("hostile::clients::a_forwarder_is_no_backend_of_its_own") {
        return;
    }
    run("ip", "address add 192.0.2.1/32 dev lo");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("c.toml");
    for (listen, backend, is_loop) in [
        ("0.0.0.0:5300", "127.0.0.1:5300", true),
        ("0.0.0.0:5300", "192.0.2.1:5300", true),
        ("[::]:5300", "[::1]:5300", true),
        ("0.0.0.0:5300", "192.0.2.2:5300", false),
        ("0.0.0.0:5300", "127.0.0.1:5301", false),
    ] {
        let config = format!("[forwarder]\nlisten = [\"{listen}\"]\n[pools.p]\nbackends = [\"{backend}\"]\n");
        std::fs::write(&file, config).expect("a file can be written");
        let mut check = Process::run([std::ffi::OsStr::new("check"), "-c".as_ref(), file.as_os_str()]);
        let status = check.wait_for_exit().code();
        assert_eq!(status, Some(if is_loop { 2 } else { 0 }), "{listen} {backend}: {}", check.log());
        assert_eq!(check.log().contains("is this forwarder itself"), is_loop, "{}", check.log());
    }
    let mut ls = Process::run(["ls", "-l", "0.0.0.0:5300", "192.0.2.1:5300"]);
    assert_eq!(ls.wait_for_exit().code(), Some(2), "{}", ls.log());
}

#[test]
fn so_many_queries_of_a_client_wait_and_the_rest_are_told() {
    let backend = Backend::new(answer(ONE).held());
    let server = Forwarder::to(&[&backend], "").keys("limits = { waiting = 5 }").cache("").admin().start();
    let (client, other) = (server.client(), Client::at("127.0.0.2", server.address()));
    let asked = queries(8);
    asked.iter().for_each(|query| client.send(query));
    for above in &asked[5..] {
        let reported = client.receive();
        assert_eq!((reported.id(), reported.rcode()), (above.id, SERVFAIL));
        let (code, text) = reason(&reported).expect("a reason");
        assert!(code == 0 && text.contains("wait"), "{code} {text}");
    }
    backend.wait_for(5);
    other.send(&queries(1)[0]);
    backend.wait_for(6);
    // One more for a question that others wait for waits as well.
    client.send(&asked[0].clone().id(1));
    assert_eq!(client.receive().rcode(), SERVFAIL);
    // What is sent again does not: it is no further query.
    client.send(&asked[0]);
    let metrics = server.admin().wait_for("four are refused", |metrics| limited(metrics, "forwarder", "waiting") == 4);
    assert_eq!(limited(&metrics, "forwarder", "in_flight"), 0);
    backend.release();
    assert_eq!(other.receive().answers(), [ONE]);
    let served: HashSet<_> =
        (0..5).map(|_| client.receive()).map(|response| (response.id(), response.rcode())).collect();
    assert_eq!(served, asked[..5].iter().map(|query| (query.id, NOERROR)).collect());
    // Nothing is kept of a refusal, and there is room again.
    client.send(&asked[7]);
    backend.wait_for_name(&name_of(&asked[7]), 1);
    backend.release();
    assert_eq!(client.receive().answers(), [ONE]);
}

/// The name that a query asks for.
fn name_of(query: &Query) -> String {
    let question = query.question();
    let label = &question[1..=usize::from(question[0])];
    format!("{}.example", String::from_utf8_lossy(label))
}

#[test]
fn so_many_queries_of_all_clients_wait() {
    let backend = Backend::new(answer(ONE).held());
    let server = Forwarder::to(&[&backend], "").keys("limits = { in_flight = 100 }").admin().start();
    let clients: Vec<_> = (1..=4).map(|number| Client::at(&format!("127.0.1.{number}"), server.address())).collect();
    for client in &clients {
        queries(25).iter().for_each(|query| client.send(query));
    }
    backend.wait_for(100);
    let another = Client::at("127.0.2.1", server.address());
    let reported = another.ask(&queries(1)[0]);
    assert_eq!((reported.rcode(), reported.extended_error()), (SERVFAIL, Some(0)));
    assert_eq!(limited(&server.admin().metrics(), "forwarder", "in_flight"), 1);
    backend.release();
    clients.iter().for_each(|client| (0..25).for_each(|_| assert_eq!(client.receive().answers(), [ONE])));
    another.send(&queries(1)[0]);
    backend.wait_for(101);
    backend.release();
    assert_eq!(another.receive().answers(), [ONE]);
}

#[test]
fn what_needs_no_backend_is_answered_on() {
    let backend =
        Backend::new(answer_for(300, ONE).except("held", silent()).except("old", answer_for(1, ONE).then(silent())));
    let table = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['t.txt']\n";
    let config = Forwarder::to(&[&backend], "timeout = '20s'").keys("limits = { waiting = 1 }").cache("");
    let server = Server::start_with_files(&(config.to_toml() + table), &[("t.txt", "www.example 192.0.2.1 A\n")]);
    let client = server.client();
    for name in ["www.example", "old.example"] {
        assert_eq!(client.ask(&query(name, A)).answers(), [ONE]);
    }
    client.send(&query("held.example", A));
    backend.wait_for_name("held.example", 1);
    until("the place is taken", || (client.ask(&queries(1)[0]).rcode() == SERVFAIL).then_some(()));
    for _ in 0..20 {
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ONE], "from the cache");
        assert_eq!(Client::of(server.listener("ts")).ask(&query("www.example", A)).answers(), [ONE]);
    }
    // What has run out is better than a refusal (RFC 8767 section 4).
    until("it has run out", || {
        let response = client.ask(&query("old.example", A).edns(1232));
        assert_eq!(response.answers(), [ONE]);
        (response.extended_error() == Some(3)).then_some(())
    });
}

/// However a wait ends, its place is free again: by a reply, by silence, unanswered, by TCP, with a reload,
/// in another worker.
#[test]
fn every_place_is_given_back() {
    const LIMIT: usize = 40;
    let script = answer(ONE).except("silent", silent()).except("large", truncated().by_tcp(answer(ONE)));
    let backend = Backend::new(script.except("failed", servfail()));
    let config = Forwarder::new()
        .pool("all", ".", &[&backend], "timeout = '300ms'\n")
        .pool("drop", "drop.example", &[&backend], "timeout = '200ms'\non_timeout = 'drop'\n")
        .workers(4)
        .keys(&format!("limits = {{ waiting = {LIMIT} }}"))
        .admin();
    let server = config.start();
    let names = ["www.example", "silent.example", "large.example", "failed.example", "silent.drop.example"];
    let clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    for round in 0..6 {
        for client in &clients {
            names.iter().for_each(|name| client.send(&query(name, A)));
        }
        // Connections that end before their responses come.
        for _ in 0..3 {
            server.tcp_client().send(&names.map(|name| query(name, A)));
        }
        if round % 2 == 1 {
            server.reload("config.toml", &config.to_toml());
        }
        server.admin().wait_for("all races are over", |metrics| metrics.sum("hedgerow_in_flight", &[]) == 0);
    }
    // As many as may wait do, and not one more or less.
    let counted = |metrics: &Metrics| limited(metrics, "forwarder", "waiting");
    let before = counted(&server.admin().metrics());
    let client = server.client();
    (0..LIMIT).for_each(|number| client.send(&query(&format!("silent.n{number}.example"), A)));
    backend.wait_for_name(&format!("silent.n{}.example", LIMIT - 1), 1);
    client.send(&query("silent.last.example", A));
    server.admin().wait_for("one is refused", |metrics| counted(metrics) == before + 1);
}

#[test]
fn the_rate_of_an_ls_is_limited_too() {
    let backend = Backend::new(answer_for(300, ONE));
    let rates = "rate_limit = { answers = 5, slip = 1, total = 30, loopback = true }";
    let server = Forwarder::to(&[&backend], "").keys(rates).cache("").admin().start();
    let (udp, mut tcp) = (server.client(), server.tcp_client());
    let responses: Vec<_> = (0..40).map(|_| udp.ask(&query("www.example", A).edns(1232))).collect();
    let (cut, whole): (Vec<_>, Vec<_>) = responses.iter().partition(|response| response.has(TC));
    assert!((5..20).contains(&whole.len()) && cut.len() >= 20, "{} whole", whole.len());
    assert!(cut.iter().all(|response| response.answers().is_empty() && response.has_opt()));
    assert_eq!(tcp.ask(&query("www.example", A)).answers(), [ONE], "who comes by TCP is where it says");
    // Names in turn: the prefix as a whole has had its share.
    let names = (0..100).map(|number| format!("n{number}.example"));
    let cut = names.filter(|name| udp.ask(&query(name, A)).has(TC)).count();
    assert!(cut >= 50, "{cut} of 100 are cut");
    assert!(limited(&server.admin().metrics(), "forwarder", "rate") >= 70);
}

#[test]
fn a_cookie_is_good_for_an_ls_too() {
    let backend = Backend::new(answer_for(300, ONE));
    let rates = "rate_limit = { answers = 5, slip = 1, loopback = true }";
    let server = Forwarder::to(&[&backend], "").keys(rates).cache("").admin().start();
    let client = server.client();
    let asking = |cookie: &[u8]| query("www.example", A).edns(1232).option(COOKIE, cookie);
    // RFC 7873 section 5.2.3: above the rate a client cookie alone is not enough.
    let given = until("BADCOOKIE", || {
        let response = client.ask(&asking(b"CLIENT01"));
        (response.rcode() == BADCOOKIE).then(|| {
            assert!(response.answers().is_empty() && !response.has(TC), "{response:?}");
            response.cookie().expect("a cookie")
        })
    });
    for _ in 0..50 {
        assert_eq!(client.ask(&asking(&given)).answers(), [ONE], "the client is where it says");
    }
    let metrics = server.admin().metrics();
    assert!(metrics.sum("hedgerow_responses_total", &[("rcode", "BADCOOKIE"), ("source", "error")]) >= 1);
    assert!(limited(&metrics, "forwarder", "rate") >= 1);
}

#[test]
fn names_in_turn_are_limited_as_one_prefix() {
    let config = "workers = 1\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['t.txt']\n\
                  [authorities.ts.rate_limit]\nanswers = 20\ntotal = 50\nslip = 2\nloopback = true\n\
                  [admin]\nlisten = '127.0.0.1:0'\n";
    let table: String = (0..1_000).map(|number| format!("n{number}.example 192.0.2.1 A\n")).collect();
    let server = Server::start_with_files(config, &[("t.txt", &table)]);
    let client = Client::of(server.listener("ts"));
    let start = Instant::now();
    let responses = |metrics: &Metrics| metrics.sum("hedgerow_responses_total", &[]) + dropped(metrics, "limited");
    for sent in (100..=1_000).step_by(100) {
        (sent - 100..sent).for_each(|number| client.send(&query(&format!("n{number}.example"), A)));
        // More at once might not have room in the socket of a server that waits for the processor.
        server.admin().wait_for("all are taken", |metrics| responses(metrics) == sent);
    }
    let metrics = server.admin().metrics();
    let (sent, late) = (metrics.sum("hedgerow_responses_total", &[]), start.elapsed().as_secs() + 1);
    let left_out = dropped(&metrics, "limited");
    let whole = sent - left_out;
    assert!(whole <= 50 + 50 * late && sent + left_out == 1_000, "{sent} sent, {left_out} dropped");
    assert_eq!(limited(&metrics, "ts", "rate"), 2 * left_out, "each second one is cut, each second dropped");
}

#[test]
fn rates_are_limited_where_others_can_ask() {
    if !namespace::enter("hostile::clients::rates_are_limited_where_others_can_ask") {
        return;
    }
    run("ip", "address add 10.1.2.3/32 dev lo");
    let backend = Backend::new(answer_for(300, ONE));
    let table = "[authorities.ts]\nlisten = ['0.0.0.0:0']\nzones = ['t.txt']\n";
    let config = Forwarder::to(&[&backend], "").listen("['0.0.0.0:0']").cache("").admin().to_toml() + table;
    let server = Server::start_with_files(&config, &[("t.txt", "www.example 192.0.2.1 A\n")]);
    let metrics = |listener| limited(&server.admin().metrics(), listener, "rate");
    for (listener, name) in [("forwarder", "forwarder"), ("ts", "ts")] {
        let port = server.listener(listener).port();
        let flood = |from: &str| {
            let client = Client::at(from, format!("{from}:{port}").parse().expect("an address"));
            // The first fills the cache.
            assert_eq!(client.ask(&query("www.example", A)).answers(), [ONE]);
            (0..450).for_each(|_| client.send(&query("www.example", A)));
        };
        flood("127.0.0.1");
        let from_here = Client::at("127.0.0.1", format!("127.0.0.1:{port}").parse().expect("an address"));
        assert_eq!(from_here.ask(&query("www.example", A)).answers(), [ONE], "this host is not limited");
        assert_eq!(metrics(name), 0);
        flood("10.1.2.3");
        until("200 a second are enough", || (metrics(name) > 0).then_some(()));
    }
}

/// DNSBomb (CVE-2024-33655): what waits for a slow backend would leave in one moment, as a pulse.
#[test]
fn what_has_waited_does_not_leave_as_a_pulse() {
    const WAITING: usize = 900;
    let backend = Backend::new(reply(|reply| reply.with_flags(AA).answer(txt(1_000))).held());
    let server = Forwarder::to(&[&backend], "timeout = '10s'").admin().start();
    let (client, another) = (server.client(), Client::at("127.0.1.1", server.address()));
    let asked = query("bomb.example", TXT).edns(1232);
    for number in 0..WAITING {
        client.send(&asked.clone().id(number as u16));
        if number % 100 == 99 {
            // What was sent so far has been taken before this is.
            let fence = query(&format!("fence-{number}.example"), A).edns(1232);
            another.send(&fence);
            backend.wait_for_name(&format!("fence-{number}.example"), 1);
        }
    }
    let waited = Instant::now() + ms(150);
    until("they have waited", || (Instant::now() >= waited).then_some(()));
    backend.release();
    let first = client.receive();
    let start = Instant::now();
    let mut ids = HashSet::from([first.id()]);
    while ids.len() < WAITING {
        let response = client.receive();
        assert!(!response.has(TC) && ids.insert(response.id()), "all are there, and whole: {response:?}");
    }
    assert!(start.elapsed() >= ms(600), "900 kB took {:?}", start.elapsed());
    (0..WAITING / 100).for_each(|_| assert!(!another.receive().has(TC), "another prefix is another matter"));
    assert_eq!(limited(&server.admin().metrics(), "forwarder", "rate"), 0);
}

/// Responses that would have to wait for too long are truncated, and then left out; those that wait are not
/// lost when the server ends.
#[test]
fn what_cannot_leave_soon_is_cut() {
    const WAITING: usize = 4_000;
    let backend = Backend::new(reply(|reply| reply.with_flags(AA).answer(txt(1_000))).held());
    let config = Forwarder::to(&[&backend], "timeout = '10s'").keys("limits = { waiting = 5000 }").admin();
    let mut server = config.start();
    let (client, another) = (server.client(), Client::at("127.0.1.1", server.address()));
    for number in 0..WAITING {
        client.send(&query("bomb.example", TXT).edns(1232).id(number as u16));
        if number % 100 == 99 {
            another.send(&query(&format!("fence-{number}.example"), A).edns(1232));
            backend.wait_for_name(&format!("fence-{number}.example"), 1);
        }
    }
    let waited = Instant::now() + ms(150);
    until("they have waited", || (Instant::now() >= waited).then_some(()));
    backend.release();
    let metrics = server.admin().wait_for("it is decided", |metrics| limited(metrics, "forwarder", "rate") > 2_000);
    assert_eq!(dropped(&metrics, "limited"), 0, "cut is enough");
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success());
    assert!(server.process.log().contains("drained"));
}

#[test]
fn made_up_answers_come_to_all_who_wait() {
    let backend = Backend::new(silent());
    let server = Forwarder::to(&[&backend], "timeout = '1s'").start();
    let asked = queries(400);
    // All responses leave at once. The receive buffer of a client that is not scheduled holds those of 200
    // queries.
    let clients: Vec<_> = asked.chunks(200).map(|queries| (server.client(), queries)).collect();
    clients.iter().for_each(|(client, queries)| queries.iter().for_each(|query| client.send(query)));
    for (client, queries) in &clients {
        let responses = queries.iter().map(|_| client.receive()).map(|response| (response.id(), response.rcode()));
        let responses: HashSet<_> = responses.collect();
        assert_eq!(responses, queries.iter().map(|query| (query.id, NXDOMAIN)).collect());
    }
}
