//! Starting, ending and reloading: the ready line, exit codes, and that no query is lost.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;

use rustix::process::Signal;
use socket2::SockRef;
use testkit::*;

const ADDRESS: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.2";

/// Deadlines that must not matter.
const PATIENT: &str = "timeout = '20s'\nattempt_timeout = '20s'";

#[test]
fn ready_line_names_every_listener() {
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "").listen("['127.0.0.1:0', '127.0.0.2:0']").to_toml()
        + "[authorities.ts1]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n";
    let server = Server::start_with_files(&config, &[("hosts.txt", "www.example 192.0.2.9 A\n")]);
    for listener in server.listeners("forwarder") {
        assert_eq!(Client::of(*listener).ask(&query("www.example", A)).answers(), [ADDRESS]);
    }
    let ts1 = Client::of(server.listener("ts1"));
    assert_eq!(ts1.ask(&query("www.example", A)).answers(), ["192.0.2.9"]);
    assert_eq!(server.process.log().matches(" ready ").count(), 1);
}

#[test]
fn ls_serves_without_a_config_file() {
    let backends = [Backend::new(servfail()), Backend::new(answer(ADDRESS))];
    let [failing, backend] = backends.each_ref().map(|b| b.address().to_string());
    let options = "ls -l 127.0.0.1:0 --dispatch sequential --balance ordered --accept positive \
                   --timeout 20s --on-timeout servfail --hedge-delay 5ms --hedge-budget 0.1 \
                   --workers 2 --probe-every 100";
    let arguments = options.split_whitespace().chain([failing.as_str(), backend.as_str()]);
    let server = Server::run(arguments);
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    assert_eq!(server.tcp_client().ask(&query("www.example", A)).answers(), [ADDRESS]);
    assert_eq!(backends[0].queries().len(), 2);
}

#[test]
fn ts_serves_without_a_config_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hosts = folder.path().join("hosts.txt");
    std::fs::write(&hosts, "www.example 192.0.2.1 A\n").expect("our own folder");
    let hosts = hosts.to_str().expect("temporary folders have plain names");
    let server = Server::run(["ts", "-l", "127.0.0.1:0", "--miss", "nxdomain", "--ttl", "99s", hosts]);
    let client = Client::of(server.listener("authority"));
    let response = client.ask(&query("www.example", A));
    assert_eq!(response.answers(), [ADDRESS]);
    assert_eq!(response.message().answers[0].ttl, 99);
    assert_eq!(client.ask(&query("missing.test", A)).rcode(), NXDOMAIN);
}

#[test]
fn debug_log_explains_a_race() {
    let (missing, known) = (Backend::new(nxdomain()), Backend::new(answer(ADDRESS)));
    let [first, second] = [&missing, &known].map(|backend| backend.address().to_string());
    let options = ["--log", "info,hedgerow::worker::forwarder=debug", "ls", "-l", "127.0.0.1:0"];
    let pool = ["--dispatch", "sequential", "--balance", "ordered", &first, &second];
    let server = Server::run(options.into_iter().chain(pool));
    let client = Client::of(server.listener("forwarder"));
    assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
    let line = server.process.wait_for_log("race over");
    for part in [
        " qname=www.example. qtype=A outcome=\"won\" ".to_owned(),
        format!(" winner=\"{second}\" kept=NXDOMAIN of {first} "),
        format!(" attempts={first} first at 0 µs, ended; {second} failover at "),
    ] {
        assert!(line.contains(&part), "no {part:?} in {line}");
    }
}

#[test]
fn json_log_tells_the_same() {
    let (missing, known) = (Backend::new(nxdomain()), Backend::new(answer(ADDRESS)));
    let [first, second] = [&missing, &known].map(|backend| backend.address().to_string());
    let json = ["--log", "debug", "--log-format", "json"];
    let pool = ["-l", "127.0.0.1:0", "--dispatch", "sequential", "--balance", "ordered", &first, &second];
    for arguments in [[&json[..], &["ls"], &pool].concat(), [&["ls"], &json[..], &pool].concat()] {
        let process = Process::run(arguments);
        let fields = |text: &str| {
            let line = process.wait_for_log(text);
            let event: serde_json::Value = serde_json::from_str(&line).expect("a line is an object");
            event["fields"].clone()
        };
        let ready = fields("\"ready ");
        let message = ready["message"].as_str().expect("an event has a message");
        let listener = message.strip_prefix("ready forwarder=").expect("the only listener");
        let client = Client::of(listener.parse().expect("an address"));
        assert_eq!(client.ask(&query("www.example", A)).answers(), [ADDRESS]);
        // A race can be queried by what it was about.
        let race = fields("race over");
        assert_eq!((&race["qname"], &race["qtype"]), (&"www.example.".into(), &"A".into()));
        assert_eq!((&race["outcome"], &race["winner"]), (&"won".into(), &second.as_str().into()));
        assert_eq!((&race["kept"], &race["hedges_denied"]), (&format!("NXDOMAIN of {first}").into(), &0.into()));
        assert!(race["took_us"].as_u64().is_some_and(|took| took > 0) && race["pool"].is_string(), "{race}");
    }
}

#[test]
fn default_config_serves_the_main_job() {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/config.toml")).expect("config.toml");
    // The pool must know the ports of the authorities beforehand, so port 0 will not do: free ones
    // take the place of those in the file.
    let mut config = text;
    for port in ["5300", "5301", "5302", "5380"] {
        config = config.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{}", free_port()));
    }
    let config = config.replace("\"zones/", &format!("\"{root}/zones/"));
    let server = Server::start(&config);
    let client = server.client();
    let response = client.ask(&query("www.princeton.edu", A));
    assert_eq!(response.answers(), ["128.1.1.4"]);
    let nodata = client.ask(&query("www.princeton.edu", AAAA));
    assert_eq!((nodata.rcode(), nodata.has(AA), nodata.answers().len()), (NOERROR, true, 0));
    let missing = client.ask(&query("nothinghere.com", A).edns(1232));
    assert_eq!((missing.rcode(), missing.extended_error()), (NXDOMAIN, Some(SYNTHESIZED)));
    // `hedgerow ctl` reaches the server, too.
    let config = server.path("config.toml").display().to_string();
    let status = server.process.ctl(&["status", "-c", &config]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("ts2"), "{status:?}");
}

/// A port that is free by UDP and by TCP, below those that the system gives to outgoing connections of other
/// tests.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() % 1000 * 16;
    let is_free =
        |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_ok() && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = (0..1000).map(|_| 10_000 + (start as u16 + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    ports.into_iter().find(is_free).expect("one of a thousand ports is free")
}

#[test]
fn port_that_is_taken_is_named_with_exit_code_1() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    let mut process = Process::run(["ls", "-l", &address, "192.0.2.1:53"]);
    assert_eq!(process.wait_for_exit().code(), Some(1), "{}", process.log());
    assert!(process.log().contains(&address), "{}", process.log());
}

#[test]
fn port_that_is_taken_by_tcp_alone_is_named_with_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    let mut process = Process::run(["ls", "-l", &address, "192.0.2.1:53"]);
    assert_eq!(process.wait_for_exit().code(), Some(1), "{}", process.log());
    assert!(process.log().contains(&address), "{}", process.log());
}

/// Workers share a port among themselves, and must not share it with another server unawares.
#[test]
fn second_server_does_not_take_queries_from_the_first() {
    let backend = Backend::new(answer(ADDRESS));
    let first = Forwarder::to(&[&backend], "").workers(2).start();
    let address = first.address().to_string();
    let mut second = Process::run(["ls", "-l", &address, "-N", "2", "192.0.2.1:53"]);
    assert_eq!(second.wait_for_exit().code(), Some(1), "{}", second.log());
    assert!(second.log().contains(&address), "{}", second.log());
    assert_eq!(first.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
}

#[test]
fn all_problems_of_a_config_are_told_at_once_with_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    let text = "workers = -1\n[forwarder]\nlisten = ['localhost:53']\n[forwarder.routes]\n'.' = 'tss'\n\
                [pools.ts]\nbackends = ['127.0.0.1:53']\ndispatch = 'hegde'\nfan_out = 2\ntimeout = 3\n";
    std::fs::write(&file, text).expect("our own folder");
    let file = file.to_str().expect("temporary folders have plain names");
    for command in ["serve", "check"] {
        let mut process = Process::run([command, "-c", file]);
        assert_eq!(process.wait_for_exit().code(), Some(2), "{command}: {}", process.log());
        for expected in [
            "config.toml:1:11",
            "config.toml:3:11",
            "config.toml:5:7",
            "there is no pool \"tss\"",
            "config.toml:8:12",
            "did you mean \"hedge\"",
            "config.toml:9:1",
            "did you mean \"fanout\"",
            "config.toml:10:11",
        ] {
            assert!(process.log().contains(expected), "{expected} in: {}", process.log());
        }
    }
}

#[test]
fn problems_of_a_zone_file_are_told_with_exit_code_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hosts = folder.path().join("hosts.txt");
    let text = "www.example 192.0.2.1 A\nwww.example 192.0.2 A\n\nfine.example 192.0.2.1 A\nwww.example ::1 AAA\n";
    std::fs::write(&hosts, text).expect("our own folder");
    let file = hosts.to_str().expect("temporary folders have plain names");
    let mut process = Process::run(["ts", "-l", "127.0.0.1:0", file]);
    assert_eq!(process.wait_for_exit().code(), Some(2), "{}", process.log());
    for expected in ["hosts.txt:2:13", "hosts.txt:5:17"] {
        assert!(process.log().contains(expected), "{expected} in: {}", process.log());
    }
}

#[test]
fn check_finds_nothing_wrong_with_the_default_config() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");
    for arguments in [["check", "-c", file], ["-c", file, "check"]] {
        let mut process = Process::run(arguments);
        assert_eq!(process.wait_for_exit().code(), Some(0), "{}", process.log());
    }
}

#[test]
fn wrong_usage_and_missing_files_have_exit_code_2() {
    for arguments in [
        vec!["serve", "-c", "/nonexistent/config.toml"],
        vec!["check", "-c", "/nonexistent/config.toml"],
        vec!["ts", "-l", "127.0.0.1:0", "/nonexistent/hosts.txt"],
        vec!["ls", "-l", "127.0.0.1:0"],
        vec!["ls", "-l", "127.0.0.1:0", "--dispatch", "hegde", "127.0.0.1:53"],
        vec!["ls", "-l", "127.0.0.1:0", "localhost:53"],
        vec!["serv"],
    ] {
        let mut process = Process::run(&arguments);
        assert_eq!(process.wait_for_exit().code(), Some(2), "{arguments:?}: {}", process.log());
        assert!(!process.log().is_empty());
    }
}

/// Sixty different queries in flight, over UDP and TCP, with two workers.
struct InFlight {
    server: Server,
    clients: Vec<(Client, Query)>,
    tcp: TcpClient,
}

impl InFlight {
    const UDP: usize = 50;
    const TCP: usize = 10;

    fn start(config: &Forwarder, backend: &Backend) -> Self {
        let server = config.start();
        let clients: Vec<_> = (0..Self::UDP).map(|i| (server.client(), query(&format!("{i}.example"), A))).collect();
        for (client, question) in &clients {
            client.send(question);
        }
        let mut tcp = server.tcp_client();
        let by_tcp: Vec<_> = (0..Self::TCP).map(|i| query(&format!("tcp{i}.example"), A)).collect();
        tcp.send(&by_tcp);
        backend.wait_for(Self::UDP + Self::TCP);
        Self { server, clients, tcp }
    }

    /// Waits until the server has stopped to listen: new connections are refused.
    fn wait_until_closed(&self) {
        until("the listeners close", || {
            let refused = TcpStream::connect_timeout(&self.server.address(), PATIENCE).err()?;
            (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
    }

    fn expect_all(&mut self, check: impl Fn(&Response)) {
        for (client, question) in &self.clients {
            let response = client.receive();
            assert_eq!(response.id(), question.id);
            check(&response);
        }
        self.tcp.receive_all(Self::TCP).iter().for_each(check);
        self.tcp.expect_end();
    }
}

#[test]
fn drain_loses_none_of_sixty_queries_in_flight() {
    for signal in [Signal::TERM, Signal::INT] {
        let backend = Backend::new(answer(ADDRESS).held());
        let config = Forwarder::to(&[&backend], PATIENT).workers(2);
        let mut in_flight = InFlight::start(&config, &backend);
        in_flight.server.process.signal(signal);
        in_flight.wait_until_closed();
        backend.release();
        in_flight.expect_all(|response| assert_eq!(response.answers(), [ADDRESS]));
        assert_eq!(in_flight.server.process.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn drain_takes_the_connections_that_wait_to_be_accepted() {
    let backend = Backend::new(answer(ADDRESS));
    for _ in 0..8 {
        let mut server = Forwarder::to(&[&backend], PATIENT).workers(2).start();
        // While it sleeps the kernel takes connections and queries for it; it wakes to those and the signal
        // at once.
        server.process.signal(Signal::STOP);
        let question = query("www.example", A);
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let mut client = server.tcp_client();
                client.send(std::slice::from_ref(&question));
                client
            })
            .collect();
        server.process.signal(Signal::TERM);
        server.process.signal(Signal::CONT);
        for mut client in clients {
            assert_eq!(client.receive().answers(), [ADDRESS]);
            client.expect_end();
        }
        assert_eq!(server.process.wait_for_exit().code(), Some(0));
    }
}

#[test]
fn authorities_of_the_same_process_outlive_the_races_that_ask_them() {
    let authority: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let config = Forwarder::to(&[&authority], "timeout = '1s'\nattempt_timeout = '20ms'\ntries = 8").to_toml()
        + &format!("[authorities.ts]\nlisten = ['{authority}']\nzones = ['hosts.txt']\nmiss = 'silent'\n");
    let mut server = Server::start_with_files(&config, &[("hosts.txt", "www.example 192.0.2.1 A\n")]);
    let client = server.client();
    let missing = query("missing.example", A).edns(1232);
    client.send(&missing);
    // Once this is answered, the other query was taken.
    client.ask(&query("www.example", A));
    server.process.signal(Signal::TERM);
    let response = client.receive();
    // Had the authority died before the race was over, its port would have reported it (22).
    assert_eq!((response.id(), response.extended_error()), (missing.id, Some(SYNTHESIZED)));
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn drain_takes_no_longer_than_the_deadlines_of_the_races() {
    let backend = Backend::new(silent());
    let keys = "timeout = '1s'\non_timeout = 'servfail'";
    let config = Forwarder::to(&[&backend], keys).workers(2);
    let mut in_flight = InFlight::start(&config, &backend);
    in_flight.server.process.signal(Signal::TERM);
    in_flight.expect_all(|response| assert_eq!(response.rcode(), SERVFAIL));
    assert_eq!(in_flight.server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn client_that_does_not_take_its_responses_does_not_keep_a_drain() {
    let large = reply(|reply| reply.answer(txt(60_000)));
    let backend = Backend::new(truncated().by_tcp(large));
    let mut server = Forwarder::to(&[&backend], "timeout = '2s'\nattempt_timeout = '2s'").start();
    let stream = TcpStream::connect(server.address()).expect("it listens");
    // Much less than the responses take.
    SockRef::from(&stream).set_recv_buffer_size(4096).expect("a small buffer is allowed");
    let queries: Vec<_> = (0..100).flat_map(|i| framed(&query(&format!("{i}.example"), TXT).to_vec())).collect();
    (&stream).write_all(&queries).expect("it reads");
    // By then it writes; the rest of the queries is taken at the latest when the drain begins.
    backend.wait_for(20);
    server.process.signal(Signal::TERM);
    server.process.wait_for_log("the drain timed out");
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn idle_server_ends_at_once() {
    let backend = Backend::new(answer(ADDRESS));
    let mut server = Forwarder::to(&[&backend], "timeout = '60s'").workers(2).start();
    // A connection without queries in flight does not keep it.
    let mut idle = server.tcp_client();
    idle.ask(&query("www.example", A));
    server.process.signal(Signal::TERM);
    idle.expect_end();
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn authority_alone_ends_with_exit_code_0() {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n";
    let mut server = Server::start_with_files(config, &[("hosts.txt", "www.example 192.0.2.1 A")]);
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
}

#[test]
fn second_signal_ends_at_once() {
    let backend = Backend::new(silent());
    let keys = "timeout = '60s'\nattempt_timeout = '60s'";
    let mut in_flight = InFlight::start(&Forwarder::to(&[&backend], keys), &backend);
    in_flight.server.process.signal(Signal::TERM);
    in_flight.wait_until_closed();
    in_flight.server.process.signal(Signal::TERM);
    in_flight.server.process.wait_for_exit();
}

#[test]
fn sighup_swaps_zones_and_loses_no_query() {
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n";
    let table = |address| format!("www.example {address} A\n");
    let server = Server::start_with_files(config, &[("hosts.txt", &table(ADDRESS))]);
    let listener = server.listener("ts");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let client = Client::of(listener);
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                // Each query has its response: a lost one fails here, in time.
                assert_eq!(client.ask(&query("www.example", A)).answers().len(), 1);
                asked += 1;
            }
            asked
        });
        let client = Client::of(listener);
        for round in 0..10 {
            let address = [OTHER, ADDRESS][round % 2];
            server.reload("hosts.txt", &table(address));
            until("the new table is in force", || {
                (client.ask(&query("www.example", A)).answers() == [address]).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
        assert!(asking.join().expect("no query is lost") > 0);
    });
}

#[test]
fn sighup_swaps_the_pool_while_races_of_the_old_one_go_on() {
    let old = Backend::new(answer(ADDRESS).held());
    let new = Backend::new(answer(OTHER));
    let config = Forwarder::to(&[&old], PATIENT).workers(2);
    let mut in_flight = InFlight::start(&config, &old);
    let server = &in_flight.server;
    let next = Forwarder::to(&[&new], PATIENT).workers(2);
    server.reload("config.toml", &next.to_toml());
    let mut names = 0..;
    until("the new backend is asked", || {
        let name = format!("new{}.example", names.next()?);
        // One at a time: those that still go to the old backend count against what one client may have.
        server.client().try_ask(&query(&name, A))
    });
    old.release();
    let clients = std::mem::take(&mut in_flight.clients);
    for (client, question) in &clients {
        let response = client.receive();
        assert_eq!((response.id(), response.answers()), (question.id, vec![ADDRESS.to_owned()]), "{response:?}");
    }
    for response in in_flight.tcp.receive_all(InFlight::TCP) {
        assert_eq!(response.answers(), [ADDRESS]);
    }
}

#[test]
fn reload_changes_rules_and_routes() {
    let backend = Backend::new(silent());
    let config = |word: &str, suffix| {
        let keys = format!("timeout = '50ms'\non_timeout = '{word}'");
        Forwarder::new().pool("all", suffix, &[&backend], &keys)
    };
    let server = config("servfail", ".").start();
    let client = server.client();
    assert_eq!(client.ask(&query("www.example", A)).rcode(), SERVFAIL);
    server.reload("config.toml", &config("nxdomain", "example").to_toml());
    until("the new word is said", || (client.ask(&query("www.example", A)).rcode() == NXDOMAIN).then_some(()));
    assert_eq!(client.ask(&query("www.test", A)).rcode(), REFUSED);
}

#[test]
fn reload_with_any_error_keeps_what_was_and_logs_it() {
    let backend = Backend::new(answer(ADDRESS));
    let good = Forwarder::to(&[&backend], "").to_toml()
        + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\n";
    let table = "www.example 192.0.2.1 A\n";
    let server = Server::start_with_files(&good, &[("hosts.txt", table)]);
    let check = |complaint: &str| {
        server.process.wait_for_log(complaint);
        for listener in ["forwarder", "ts"] {
            let response = Client::of(server.listener(listener)).ask(&query("www.example", A));
            assert_eq!(response.answers(), [ADDRESS], "{listener} after {complaint}");
        }
    };
    server.reload("config.toml", &good.replace("routes", "ruotes"));
    check("ruotes");
    server.rewrite("config.toml", &good.replace("0'", "0', 'nonsense'"));
    server.process.signal(Signal::HUP);
    check("nonsense");
    server.rewrite("config.toml", &good);
    server.reload("hosts.txt", "www.example 192.0.2.2 A\nwww.example 192.0.2.2 AAAA\n");
    check("hosts.txt:2:");
    std::fs::remove_file(server.path("hosts.txt")).expect("it was there");
    server.process.signal(Signal::HUP);
    server.process.wait_for_log("hosts.txt: ");
    // What is right again is taken, after all that.
    server.reload("hosts.txt", "www.example 192.0.2.3 A\n");
    let client = Client::of(server.listener("ts"));
    until("the new table is in force", || {
        (client.ask(&query("www.example", A)).answers() == ["192.0.2.3"]).then_some(())
    });
}

#[test]
fn settings_that_need_a_restart_say_so_and_stay() {
    let backend = Backend::new(answer(ADDRESS));
    let config = Forwarder::to(&[&backend], "");
    let server = config.start();
    server.reload("config.toml", &config.workers(2).to_toml());
    let line = server.process.wait_for_log("needs a restart");
    assert!(line.contains("workers"), "{line}");
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), [ADDRESS]);
}
