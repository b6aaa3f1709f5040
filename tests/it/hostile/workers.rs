//! Tests that a panicked worker is replaced: other workers are not affected, its queries in flight are
//! released, and its sockets go on.
//!
//! `cargo test --features faults --test it hostile::workers::`: in such a build, a query for
//! `panic.hedgerow.test.` makes the worker panic that takes it.

use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testkit::*;

/// A query that makes the worker panic that takes it.
fn fatal() -> Query {
    query("panic.hedgerow.test", A)
}

/// How many workers were replaced.
fn replacements(server: &Server) -> u64 {
    server.admin().metrics().sum("hedgerow_worker_replacements_total", &[])
}

/// Waits until so many were.
fn wait_for_replacements(server: &Server, count: u64) {
    until("a replacement", || (replacements(server) >= count).then_some(()));
}

#[test]
fn one_worker_panics_under_load_and_the_others_go_on() {
    let table = load_table();
    let authority = Authority::start(&table);
    let server = Forwarder::to(&[&authority], "").workers(2).admin().start();
    let load = Load::start_with(server.address(), 1_000, 10);
    load.run_for(ms(500));
    let queries = || server.admin().metrics().sum("hedgerow_queries_total", &[]);
    let taken = queries();
    for count in 1..=5 {
        server.client().send(&fatal());
        wait_for_replacements(&server, count);
        assert_eq!((server.admin().get("/readyz").status, server.admin().get("/healthz").status), (200, 200));
        load.run_for(ms(300));
    }
    assert!(queries() > taken, "counters are kept");
    let report = load.stop();
    let (sent, lost, longest) =
        (report.queries.len(), report.lost_by_udp(), report.times(report.queries[0].at, Instant::now()));
    let longest = longest.last().copied().unwrap_or_default();
    eprintln!("{sent} sent, {lost} lost by UDP, {} connections closed, longest {longest:?}", report.closed);
    // What five workers had in flight, and the batch that held the question.
    assert!(lost <= 5 * 64 && report.wrong() == 0 && report.strays == 0 && report.refused == 0, "{report:?}");
    assert!(report.closed <= 5 * 10, "{}", report.closed);
    let line = server.process.wait_for_log("; replaced");
    assert!(line.contains("worker ") && line.contains(" panicked: asked for panic.hedgerow.test.; replaced"), "{line}");
}

#[test]
fn whichever_way_the_question_comes_only_one_worker_ends() {
    let backend = Backend::new(answer("192.0.2.7"));
    let ts = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n";
    let config = Forwarder::to(&[&backend], "").workers(2).admin().to_toml() + ts;
    let server = Server::start_with_files(&config, &[("a.txt", "a.example 192.0.2.1 A\n")]);
    let mut count = 0;
    for listener in ["forwarder", "ts"] {
        let address = server.listener(listener);
        let by_tcp = || {
            let mut client = TcpClient::of(address);
            client.send(&[fatal()]);
            client.expect_end();
        };
        let ways: [&dyn Fn(); 2] = [&|| Client::of(address).send(&fatal()), &by_tcp];
        for ask in ways {
            ask();
            count += 1;
            wait_for_replacements(&server, count);
            assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
            assert_eq!(Client::of(server.listener("ts")).ask(&query("a.example", A)).answers(), ["192.0.2.1"]);
        }
    }
}

#[test]
fn what_it_had_in_flight_is_given_back() {
    // The slot of the question, the share of the client, the place at the backend, and the gauges.
    let backend = Backend::new(answer("192.0.2.7").except("silent", silent()));
    let keys = "timeout = '60s'\nattempt_timeout = '60s'\nmax_in_flight = 4\n[health]\ninterval = '1h'";
    let server = Forwarder::to(&[&backend], keys).keys("[forwarder.limits]\nwaiting = 1").workers(2).admin().start();
    let admin = server.admin();
    let in_flight = || admin.metrics().sum("hedgerow_in_flight", &[]);
    for round in 1..=5 {
        // One socket: one worker, as the kernel has it.
        let client = server.client();
        client.send(&query("silent.example", A));
        backend.wait_for_name("silent.example", round);
        assert_eq!(in_flight(), 1);
        let refused = client.ask(&query("other.example", A));
        assert_eq!(refused.rcode(), SERVFAIL, "one may wait");
        client.send(&fatal());
        wait_for_replacements(&server, round as u64);
        assert_eq!(in_flight(), 0);
        assert_eq!(client.ask(&query("other.example", A)).answers(), ["192.0.2.7"]);
    }
}

#[test]
fn authorities_and_connections_by_tcp_are_served_again() {
    let config =
        "workers = 1\n[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n[admin]\nlisten = '127.0.0.1:0'\n";
    let server = Server::start_with_files(config, &[("a.txt", "a.example 192.0.2.1 A\n")]);
    let address = server.listener("ts");
    for count in 1..=3 {
        let mut kept = TcpClient::of(address);
        kept.send(&[query("a.example", A)]);
        assert_eq!(kept.receive().answers(), ["192.0.2.1"]);
        TcpClient::of(address).send(&[fatal()]);
        kept.expect_end();
        // A client that connects and asks meanwhile waits in the kernel.
        let mut next = TcpClient::of(address);
        next.send(&[query("a.example", A)]);
        assert_eq!(next.receive().answers(), ["192.0.2.1"]);
        assert_eq!(Client::of(address).ask(&query("a.example", A)).answers(), ["192.0.2.1"]);
        assert_eq!(replacements(&server), count);
    }
    // The state that applies is the newest one, and the end is clean.
    server.reload("a.txt", "b.example 192.0.2.2 A\n");
    server.process.wait_for_log("reloaded: edition 2");
    Client::of(address).send(&fatal());
    wait_for_replacements(&server, 4);
    assert_eq!(Client::of(address).ask(&query("b.example", A)).answers(), ["192.0.2.2"]);
    let mut server = server;
    server.process.signal(Signal::TERM);
    assert!(server.process.wait_for_exit().success(), "{}", server.process.log());
}

#[test]
fn a_worker_is_never_given_up() {
    let backend = Backend::new(answer("192.0.2.7"));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let client = server.client();
    let began = Instant::now();
    for count in 1..=15 {
        client.send(&fatal());
        wait_for_replacements(&server, count);
    }
    // At once, after 10, 20, ... 100 ms, and then 100 ms each: 0.95 s in all.
    assert!(began.elapsed() > ms(900), "{:?}", began.elapsed());
    assert_eq!(client.ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
    assert_eq!(server.admin().metrics().sum("hedgerow_tasks_lost_total", &[]), 15);
}

#[test]
fn datagrams_wait_for_the_replacement() {
    let backend = Backend::new(answer("192.0.2.7"));
    let server = Forwarder::to(&[&backend], "").admin().start();
    let client = server.client();
    // The second one is replaced after 10 ms, in which the socket is not read.
    client.send(&fatal());
    wait_for_replacements(&server, 1);
    client.send(&fatal());
    let queries: Vec<_> = (0..100).map(|number| query(&format!("q{number}.example"), A)).collect();
    until("the socket is not read", || {
        (server.admin().metrics().sum("hedgerow_tasks_lost_total", &[]) == 2).then_some(())
    });
    queries.iter().for_each(|query| client.send(query));
    for _ in &queries {
        assert_eq!(client.receive().answers(), ["192.0.2.7"]);
    }
    wait_for_replacements(&server, 2);
}

/// Runs `hedgerow ctl status`.
fn status(server: &Server) -> Output {
    server.process.ctl(&["status", "--admin", &format!("http://{}", server.listener("admin"))])
}

#[test]
fn a_worker_without_progress_is_seen_by_health_checks() {
    // A worker that begins to fetch is stuck for ever.
    let backend = Backend::new(truncated().by_tcp(answer("192.0.2.7")));
    let forwarder = Forwarder::to(&[&backend], "").admin().to_toml();
    let server = Server::start_as(&forwarder, &[], |command| {
        command.env("HEDGEROW_STUCK_TASK", "fetch");
    });
    assert_eq!(server.admin().get("/healthz").status, 200);
    let mut client = server.tcp_client();
    client.send(&[query("www.example", A)]);
    let stuck = Instant::now();
    until("the stuck worker is seen", || (server.admin().get("/healthz").status == 503).then_some(()));
    assert!(stuck.elapsed() > Duration::from_secs(9), "{:?}", stuck.elapsed());
    let answer = server.admin().get("/healthz");
    assert!(answer.body.contains("worker 0 has made no progress for "), "{answer:?}");
    assert!(status(&server).status.success(), "the control thread goes on");
}
