//! Reloads of where queries are taken: addresses, authorities, the forwarder and the admin server come, go
//! and move, and no query is lost.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use net::sys::batch::SendBatch;
use rustix::process::Signal;
use testkit::*;

use crate::support::admin_site::check_output;

const ADDRESS: &str = "192.0.2.1";

/// A config of authorities that listen there, each with the same table, and an admin server.
fn authorities(listen: &[(&str, &str)]) -> String {
    let of_one =
        |(name, listen): &(&str, &str)| format!("[authorities.{name}]\nlisten = {listen}\nzones = ['hosts.txt']\n");
    let all: String = listen.iter().map(of_one).collect();
    format!("workers = 2\n{all}[admin]\nlisten = '127.0.0.1:0'\n")
}

const HOSTS: &[(&str, &str)] = &[("hosts.txt", "www.example 192.0.2.1 A\n")];

/// Has a config come into force.
fn reload(server: &Server, config: &str) {
    server.rewrite("config.toml", config);
    let answer = server.admin().try_post("/api/v1/reload", "");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Queries are answered there, by both transports.
fn is_served(address: SocketAddr) {
    assert_eq!(Client::of(address).ask(&query("www.example", A)).answers(), [ADDRESS], "{address}");
    assert_eq!(TcpClient::of(address).ask(&query("www.example", A)).answers(), [ADDRESS], "{address}");
}

/// Checks that a query to this address gets an error at once, because no socket listens there.
fn is_refused(address: SocketAddr) {
    let client = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    client.connect(address).expect("loopback can be reached");
    let _ = client.send(&query("www.example", A).to_vec());
    let error = client.recv(&mut [0; 512]).expect_err("no server answers");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
    until("TCP is refused too", || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn listeners_come_and_go_and_are_replaced() {
    let backend = Backend::new(answer(ADDRESS));
    let config = |listen: &str| Forwarder::to(&[&backend], "").workers(2).listen(listen).admin().to_toml();
    let [first, second, third] = [(); 3].map(|()| free_address());
    let server = Server::start(&config(&format!("['{first}']")));
    is_served(first);
    let mut kept = TcpClient::of(first);
    kept.ask(&query("www.example", A));
    reload(&server, &config(&format!("['{second}', '{first}']")));
    [first, second].into_iter().for_each(is_served);
    reload(&server, &config(&format!("['{third}', '{first}']")));
    [first, third].into_iter().for_each(is_served);
    is_refused(second);
    // A client of an address that stays is not disturbed, and a client of one that goes gets the end.
    kept.ask(&query("www.example", A));
    reload(&server, &config(&format!("['{third}']")));
    kept.expect_end();
    is_refused(first);
    // It is free for others, once nothing is owed any more.
    until("the address is free", || UdpSocket::bind(first).ok());
    assert_eq!(server.admin().get("/readyz").status, 200);
    // And may come back.
    reload(&server, &config(&format!("['{second}', '{third}']")));
    [second, third].into_iter().for_each(is_served);
}

#[test]
fn queries_in_flight_get_their_answers_from_an_address_that_leaves() {
    let backend = Backend::new(answer(ADDRESS).held());
    let keys = "timeout = '20s'\nattempt_timeout = '20s'";
    let config = |listen: SocketAddr| {
        Forwarder::to(&[&backend], keys).workers(2).listen(&format!("['{listen}']")).admin().to_toml()
    };
    let [first, second] = [(); 2].map(|()| free_address());
    let server = Server::start(&config(first));
    let asked: Vec<_> = (0..20).map(|number| (Client::of(first), query(&format!("{number}.example"), A))).collect();
    asked.iter().for_each(|(client, question)| client.send(question));
    let mut by_tcp = TcpClient::of(first);
    by_tcp.send(&[query("tcp.example", A)]);
    backend.wait_for(21);
    reload(&server, &config(second));
    is_refused(first);
    backend.release();
    for (client, question) in &asked {
        let response = client.receive();
        assert_eq!((response.id(), response.answers()), (question.id, vec![ADDRESS.to_owned()]));
    }
    assert_eq!(by_tcp.receive().answers(), [ADDRESS]);
    by_tcp.expect_end();
    let client = Client::of(second);
    client.send(&query("last.example", A));
    backend.wait_for_name("last.example", 1);
    backend.release();
    assert_eq!(client.receive().answers(), [ADDRESS]);
}

#[test]
fn an_address_in_use_fails_the_whole_reload() {
    let config = |ts2: &str, ttl: u32| {
        authorities(&[("ts1", "['127.0.0.1:0']"), ("ts2", ts2)]).replace("[admin]", &format!("ttl = '{ttl}s'\n[admin]"))
    };
    let server = Server::start_with_files(&config("['127.0.0.1:0']", 300), HOSTS);
    let [in_use, free] = [(); 2].map(|()| free_address());
    let taken = UdpSocket::bind(in_use).expect("it is free");
    server.rewrite("config.toml", &config(&format!("['{free}', '{in_use}']"), 60));
    let url = format!("http://{}", server.listener("admin"));
    let port = in_use.port();
    let reported = format!(
        "authorities.ts2.listen[1]: cannot listen on {in_use} (UDP): port {port} is in use; stop what listens there or choose \
         another port"
    );
    check_output(&server.process.ctl(&["--admin", &url, "reload"]), 1, "", &reported);
    server.process.wait_for_log("reload failed, the previous config stays");
    // None of the new config applies.
    let client = Client::of(server.listener("ts2"));
    assert_eq!(client.ask(&query("www.example", A)).message().answers[0].ttl, 300);
    is_refused(free);
    let status: serde_json::Value = serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("JSON");
    assert_eq!((status["edition"].as_u64(), status["reload"]["ok"].as_bool()), (Some(1), Some(false)));
    assert!(status["reload"]["error"].as_str().is_some_and(|error| error.contains("is in use")), "{status}");
    assert_eq!(server.admin().metrics().sum("hedgerow_reloads_total", &[("result", "failed")]), 1);
    drop(taken);
    reload(&server, &config(&format!("['{free}', '{in_use}']"), 60));
    [free, in_use].into_iter().for_each(is_served);
}

#[test]
fn a_part_that_fails_leaves_the_others_as_they_were() {
    let [old, new] = ["192.0.2.7", "192.0.2.8"].map(|address| Backend::new(answer(address)));
    let in_use = free_address();
    let taken = UdpSocket::bind(in_use).expect("it is free");
    let config = |backend: &Backend, listen: &str, more: &str| {
        let authority = format!("[authorities.ts1]\nlisten = {listen}\nzones = ['hosts.txt']\n{more}");
        Forwarder::to(&[backend], "").admin().to_toml() + &authority
    };
    let server = Server::start_with_files(&config(&old, "['127.0.0.1:0']", ""), HOSTS);
    let is_answered = |name: &str, expected: &str| {
        assert_eq!(Client::of(server.listener("forwarder")).ask(&query(name, A)).answers(), [expected]);
    };
    let is_served = |expected: &str| {
        assert_eq!(Client::of(server.listener("ts1")).ask(&query("www.example", A)).answers(), [expected]);
    };
    server.rewrite("hosts.txt", "www.example 192.0.2.9 A\n");
    let changed = config(&new, &format!("['127.0.0.1:0', '{in_use}']"), "[slow]\nthreshold = '300ms'\n");
    server.rewrite("config.toml", &changed);
    let refused = server.admin().try_post("/api/v1/reload", "");
    assert!(refused.body.contains("is in use"), "{}", refused.body);
    is_answered("one.example", "192.0.2.7");
    is_served(ADDRESS);
    drop(taken);
    reload(&server, &changed);
    is_answered("two.example", "192.0.2.8");
    is_served("192.0.2.9");
}

#[test]
fn authorities_come_and_go() {
    let [one, other] = [(); 2].map(|()| free_address());
    let (of_one, of_other) = (format!("['{one}']"), format!("['{other}']"));
    let server = Server::start_with_files(&authorities(&[("a", &of_one)]), HOSTS);
    reload(&server, &authorities(&[("b", &of_other), ("a", &of_one)]));
    [one, other].into_iter().for_each(is_served);
    // The first one goes, and the other keeps what it has.
    let mut kept = TcpClient::of(other);
    kept.ask(&query("www.example", A));
    reload(&server, &authorities(&[("b", &of_other)]));
    is_refused(one);
    kept.ask(&query("www.example", A));
    // What is read again is its own, not that of the one that was the first.
    server.rewrite("hosts.txt", "www.example 192.0.2.2 A\n");
    reload(&server, &authorities(&[("b", &of_other)]));
    assert_eq!(Client::of(other).ask(&query("www.example", A)).answers(), ["192.0.2.2"]);
    // An address may go from one to another.
    server.rewrite("hosts.txt", "www.example 192.0.2.1 A\n");
    reload(&server, &authorities(&[("c", &of_other), ("b", &of_one)]));
    [one, other].into_iter().for_each(is_served);
    // A connection belongs to the section that it was opened to.
    kept.expect_end();
}

#[test]
fn secondary_zones_of_authorities_that_come_are_followed() {
    let [primary, other] = [(); 2].map(|()| free_address());
    let zone = |serial: u32| {
        format!(
            "@ 60 SOA ns hostmaster {serial} 60 60 600 60\n@ 60 NS ns\nns 60 A 192.0.2.53\nwww 60 A 192.0.2.{serial}\n"
        )
    };
    let first = Server::start_with_files(
        &format!(
            "[authorities.p]\nlisten = ['{primary}']\n\
             zones = [{{ file = 'z.zone', origin = 'example', transfer_to = ['127.0.0.1'], also_notify = ['{other}'] }}]\n\
             [admin]\nlisten = '127.0.0.1:0'\n"
        ),
        &[("z.zone", &zone(1))],
    );
    // The process may write beside its config, since one zone is saved there from the start.
    let saved =
        |name: &str| format!("zones = [{{ zone = '{name}', primaries = ['{primary}'], file = '{name}.saved' }}]\n");
    let base =
        format!("[admin]\nlisten = '127.0.0.1:0'\n[authorities.a]\nlisten = ['127.0.0.1:0']\n{}", saved("elsewhere"));
    let server = Server::start(&base);
    reload(&server, &format!("{base}[authorities.b]\nlisten = ['{other}']\n{}", saved("example")));
    let client = Client::of(other);
    let is_there = |address: &str| (client.ask(&query("www.example", A)).answers() == [address]).then_some(());
    until("the zone has come", || is_there("192.0.2.1"));
    // NOTIFY reaches the authority that has come.
    first.rewrite("z.zone", &zone(2));
    assert_eq!(first.admin().try_post("/api/v1/reload", "").status, 200);
    until("its next version has come", || is_there("192.0.2.2"));
}

#[test]
fn the_forwarder_comes_and_goes() {
    let backend = Backend::new(answer(ADDRESS));
    let [of_forwarder, of_authority] = [(); 2].map(|()| free_address());
    let authority = format!("[authorities.ts]\nlisten = ['{of_authority}']\nzones = ['hosts.txt']\n");
    let both = |timeout: &str| {
        let config = Forwarder::to(&[&backend], &format!("timeout = '{timeout}'")).workers(2).cache("");
        config.listen(&format!("['{of_forwarder}']")).admin().to_toml() + &authority
    };
    let alone = format!("workers = 2\n{authority}[admin]\nlisten = '127.0.0.1:0'\n");
    let server = Server::start_with_files(&both("2s"), HOSTS);
    let admin = server.admin();
    is_served(of_forwarder);
    let wins = [("pool", "all")];
    assert!(admin.metrics().sum("hedgerow_wins_total", &wins) > 0);
    let queries = admin.metrics().sum("hedgerow_queries_total", &[]);
    reload(&server, &alone);
    is_refused(of_forwarder);
    is_served(of_authority);
    let metrics = admin.metrics();
    assert!(
        !metrics.0.contains("hedgerow_wins_total{") && !metrics.0.contains("hedgerow_cache_entries"),
        "{}",
        metrics.0
    );
    assert!(metrics.sum("hedgerow_queries_total", &[]) >= queries, "what is not of a section goes on");
    reload(&server, &both("3s"));
    // What counters said of the one that went is gone; they start anew.
    assert_eq!(admin.metrics().sum("hedgerow_wins_total", &wins), 0);
    [of_forwarder, of_authority].into_iter().for_each(is_served);
    assert_eq!(admin.metrics().sum("hedgerow_wins_total", &wins), 1, "the second one came from the cache");
    // Workers hand queries over to each other as ever, and it drains.
    reload(&server, &alone);
    reload(&server, &both("3s"));
    is_served(of_forwarder);
    let mut server = server;
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn the_admin_server_moves_and_takes_another_token() {
    let [one, other] = [(); 2].map(|()| free_address());
    let config = |admin: &str| authorities(&[("ts", "['127.0.0.1:0']")]).replace("listen = '127.0.0.1:0'", admin);
    let files = [HOSTS[0], ("a.token", "correct-horse-battery\n"), ("b.token", "another-horse-battery\n")];
    let server = Server::start_with_files(&config(&format!("listen = '{one}'\ntoken_file = 'a.token'")), &files);
    let change = |address: SocketAddr, token: &str| {
        let bearer = format!("Bearer {token}");
        let admin = Admin::of(address, server.process.admin_socket(address));
        admin.send("POST", "/api/v1/reload", &[("Authorization", &bearer)], "").status
    };
    assert_eq!(change(one, "correct-horse-battery"), 200);
    assert_eq!(change(one, "another-horse-battery"), 403);
    // Another content of the same file, then another file.
    server.rewrite("a.token", "a-third-horse-battery\n");
    assert_eq!(change(one, "correct-horse-battery"), 200);
    assert_eq!((change(one, "correct-horse-battery"), change(one, "a-third-horse-battery")), (403, 200));
    server.rewrite("config.toml", &config(&format!("listen = '{one}'\ntoken_file = 'b.token'")));
    assert_eq!(change(one, "a-third-horse-battery"), 200);
    assert_eq!((change(one, "a-third-horse-battery"), change(one, "another-horse-battery")), (403, 200));
    // The requester of the move gets its result.
    server.rewrite("config.toml", &config(&format!("listen = '{other}'")));
    assert_eq!(change(one, "another-horse-battery"), 200);
    until("it has left", || TcpStream::connect(one).is_err().then_some(()));
    assert!(!server.process.admin_socket(one).exists() && server.process.admin_socket(other).exists());
    let admin = Admin::of(other, server.process.admin_socket(other));
    assert_eq!(admin.get("/readyz").status, 200);
    assert_eq!(change(other, "another-horse-battery"), 403, "there is no token any more");
    // To all addresses of the host, without a socket, and away.
    let any = format!("listen = '0.0.0.0:{}'\nsocket = 'off'", other.port());
    server.rewrite("config.toml", &config(&any));
    assert_eq!(admin.try_post("/api/v1/reload", "").status, 200);
    // A listener that closes resets the connections that it has not taken.
    let is_served_by_admin = || admin.try_get("/healthz").is_some_and(|answer| answer.status == 200);
    until("it serves on all addresses", || is_served_by_admin().then_some(()));
    assert!(!server.process.admin_socket(other).exists());
    server.reload("config.toml", &config("").replace("[admin]\n", ""));
    until("it is gone", || TcpStream::connect(other).is_err().then_some(()));
    is_served(server.listener("ts"));
}

#[test]
fn queries_that_wait_coalesced_get_their_answers_when_another_listener_leaves() {
    // One reload meets a socket that is not empty by chance.
    for _ in 0..8 {
        let [stays, leaves] = [(); 2].map(|()| free_address());
        let config = |listen: String| authorities(&[("a", &format!("[{listen}]"))]);
        let server = Server::start_with_files(&config(format!("'{stays}', '{leaves}'")), HOSTS);
        is_served(stays);
        let is_over = AtomicBool::new(false);
        let answered = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut out = SendBatch::new(20, 64);
                    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
                    socket.set_nonblocking(true).expect("a socket need not block");
                    let question = query("www.example", A).to_vec();
                    let mut response = [0; 512];
                    while !is_over.load(Relaxed) {
                        for _ in 0..20 {
                            out.push(Some(stays), None, |bytes| bytes.extend(&question));
                        }
                        out.flush(&socket, |_, _| {});
                        while let Ok(length) = socket.recv(&mut response) {
                            let response = &response[..length];
                            assert_eq!((response[3] & 15, response[7]), (0, 1), "{response:?}");
                            answered.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
            let wait =
                |enough: usize| until("queries are answered", || (answered.load(Relaxed) > enough).then_some(()));
            wait(200);
            reload(&server, &config(format!("'{stays}'")));
            wait(answered.load(Relaxed) + 200);
            is_over.store(true, Relaxed);
        });
    }
}

#[test]
fn one_address_becomes_all_and_back_without_loss() {
    let table = load_table();
    let backend = Authority::start(&table);
    let port = free_address().port();
    let config = |ip: &str, rest: &str| {
        let forwarder = Forwarder::to(&[&backend.address()], "").workers(2).cache("");
        forwarder.listen(&format!("['{ip}:{port}'{rest}]")).admin().to_toml()
    };
    let server = Server::start(&config("127.0.0.1", ""));
    let load = Load::start_with(([127, 0, 0, 1], port).into(), 1000, 4);
    let extra = free_address();
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        load.run_for(ms(100));
        let rest = if round % 3 == 0 { format!(", '{extra}'") } else { String::new() };
        let began = Instant::now();
        reload(&server, &config(["0.0.0.0", "127.0.0.1"][round % 2], &rest));
        longest = longest.max(began.elapsed());
        assert_eq!(server.admin().get("/readyz").status, 200);
    }
    load.run_for(ms(200));
    let report = load.stop();
    report.check("20 reloads that switch between one address and all", &server.admin());
    let sent = report.queries.len();
    assert_eq!((report.lost(), report.closed), (0, 0), "of {sent}, the longest reload took {longest:?}");
    assert_eq!(server.admin().metrics().sum("hedgerow_config_edition", &[]), 21);
    assert!(longest < PATIENCE);
}

#[test]
fn all_goes_on_for_the_drain_delay() {
    let table = load_table();
    let config = format!("drain_delay = '2s'\n{}", authorities(&[("ts", "['127.0.0.1:0']")]));
    let mut server = Server::start_with_files(&config, &[("hosts.txt", &table)]);
    let (admin, address) = (server.admin(), server.listener("ts"));
    assert_eq!(admin.get("/readyz").status, 200);
    let load = Load::start_with(address, 500, 2);
    load.run_for(ms(100));
    let began = Instant::now();
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("SIGTERM: not ready any more; after 2s taking no more queries");
    assert_eq!(admin.get("/readyz").status, 503);
    load.run_for(ms(1000));
    assert_eq!((admin.get("/readyz").status, admin.get("/healthz").status), (503, 200));
    let report = load.stop();
    assert_eq!((report.lost(), report.wrong(), report.closed), (0, 0, 0));
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    is_refused(address);
}

#[test]
fn a_second_signal_ends_the_delay_at_once() {
    let config = format!("drain_delay = '5m'\n{}", authorities(&[("ts", "['127.0.0.1:0']")]));
    let mut server = Server::start_with_files(&config, HOSTS);
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("SIGTERM: not ready any more; after 300s");
    is_served(server.listener("ts"));
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(1));
}

#[test]
fn clients_hear_of_a_drain_while_answers_are_owed() {
    let backend = Backend::new(answer(ADDRESS).held());
    let mut server = Forwarder::to(&[&backend], "timeout = '20s'\nattempt_timeout = '20s'").workers(2).start();
    let (client, question) = (server.client(), query("www.example", A));
    client.send(&question);
    backend.wait_for(1);
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("taking no more queries");
    until("others are refused", || {
        let other = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        other.set_read_timeout(Some(ms(100))).expect("a timeout above zero");
        other.connect(server.address()).expect("loopback can be reached");
        other.send(&query("other.example", A).to_vec()).ok()?;
        other.recv(&mut [0; 512]).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    is_refused(server.address());
    backend.release();
    assert_eq!(client.receive().answers(), [ADDRESS]);
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn what_moves_in_a_row_is_where_it_is_last() {
    // Each address leaves and comes back before its last response is sent: a client waits all the time.
    let backend = Backend::new(answer(ADDRESS).except("waiting", silent()));
    let [one, other] = [(); 2].map(|()| free_address());
    let config = |listen: SocketAddr| {
        let keys = "timeout = '30s'\nattempt_timeout = '30s'";
        Forwarder::to(&[&backend], keys).workers(2).listen(&format!("['{listen}']")).admin().to_toml()
    };
    let server = Server::start(&config(one));
    Client::of(one).send(&query("waiting.example", A));
    backend.wait_for_name("waiting.example", 1);
    for round in 0..10 {
        let (here, gone) = if round % 2 == 0 { (other, one) } else { (one, other) };
        reload(&server, &config(here));
        is_served(here);
        is_refused(gone);
    }
}

#[test]
fn the_log_names_each_change_its_author_and_its_result() {
    let (one, other) = (Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)));
    let config = |keys: &str| Forwarder::to(&[&one, &other], keys).admin().to_toml();
    let server = Server::start(&config(""));
    let start = server.process.wait_for_log("starting hedgerow");
    assert!(start.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{start}");
    let author = match rustix::process::geteuid().as_raw() {
        0 => "root over the socket".to_owned(),
        uid => format!("uid {uid} over the socket"),
    };
    let backend = one.address().to_string();
    let post = |action: &str, backend: &str| {
        server.admin().try_post(&format!("/api/v1/pools/all/backends/{backend}/{action}"), "").status
    };
    assert_eq!(post("drain", &backend), 200);
    let line = server.process.wait_for_log("/drain\"");
    assert!(line.contains(" INFO ") && line.contains(&format!("by={author}")) && line.contains(&backend), "{line}");
    assert_eq!(post("up", "127.0.0.9:9"), 404);
    let line = server.process.wait_for_log("/up\"");
    assert!(line.contains(" WARN ") && line.contains("change refused: there is no backend"), "{line}");
    reload(&server, &config("timeout = '2s'"));
    server.process.wait_for_log("reloaded: edition 2: 1 pool changed");
    reload(&server, &config("timeout = '2s'"));
    server.process.wait_for_log("reloaded: edition 3: nothing changed");
}

#[test]
fn memory_that_only_a_start_needs_is_released() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Server::start(&Forwarder::to(&[&backend], "").to_toml());
    let status = || fs::read_to_string(format!("/proc/{}/status", server.process.id())).expect("it is running");
    let of_line = |text: &str, key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
    };
    until("a third of the memory is released", || {
        let text = status();
        (3 * of_line(&text, "VmRSS:")? < 2 * of_line(&text, "VmHWM:")?).then_some(())
    });
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
}

#[test]
fn reloads_have_the_lowest_priority() {
    let backend = Backend::new(answer(ADDRESS));
    let server = Server::start(&Forwarder::to(&[&backend], "").to_toml());
    until("the reload thread has a nice value of 19", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.process.id())).expect("it is running");
        let mut tasks = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
        // The state, which follows the name, is the third field, and the nice value the nineteenth.
        tasks
            .any(|task| task.split_once("(reload) ").and_then(|(_, rest)| rest.split(' ').nth(16)) == Some("19"))
            .then_some(())
    });
}
