//! Tests with a service manager such as systemd, which the test plays: sockets that it passes, sockets that
//! it keeps over a crash, and the messages that it gets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use testkit::*;

/// A server of this authority, on this address.
fn authority(listen: &str, workers: usize) -> String {
    format!(
        "workers = {workers}\n[authorities.ts]\nlisten = {listen}\nzones = ['hosts']\nmiss = 'nxdomain'\n\
         [admin]\nlisten = '127.0.0.1:0'\n"
    )
}

const HOSTS: &[(&str, &str)] = &[("hosts", "www.example 192.0.2.7 A\n")];

/// Asks so many clients' questions; all must be answered.
fn all_are_answered(address: SocketAddr, clients: usize) {
    for _ in 0..clients {
        let response = Client::of(address).ask(&query("www.example", A));
        assert_eq!(response.answers(), ["192.0.2.7"]);
    }
}

/// A UDP socket and a TCP listener of one port, both blocking, as systemd makes them.
fn pair() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("it is bound")) {
            return (udp, tcp);
        }
    }
}

/// Two sockets of each kind of one address, which a group may be added to.
fn group() -> (SocketAddr, Vec<OwnedFd>) {
    let socket = |address: SocketAddr, kind| {
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        if kind == Type::STREAM {
            socket.listen(16)?;
        }
        io::Result::Ok(socket)
    };
    // A port that is free by UDP may be taken by TCP.
    until("a port that is free by both", || {
        let first = socket("127.0.0.1:0".parse().expect("an address"), Type::DGRAM).ok()?;
        let address = first.local_addr().ok()?.as_socket()?;
        let mut sockets = vec![OwnedFd::from(first)];
        for kind in [Type::DGRAM, Type::STREAM, Type::STREAM] {
            sockets.push(socket(address, kind).ok()?.into());
        }
        Some((address, sockets))
    })
}

#[test]
fn sockets_in_the_store_keep_queries_over_a_kill() {
    if !namespace::alone("service_manager::sockets_in_the_store_keep_queries_over_a_kill") {
        return;
    }
    let mut manager = ServiceManager::new(&authority("['127.0.0.1:0']", 2), HOSTS);
    let server = manager.start();
    let address = server.listener("ts");
    assert_eq!(manager.names(), ["admin.0", "ts.0", "ts.0", "ts.0", "ts.0"]);
    for message in manager.reported.iter().filter(|message| message[0] == "FDSTORE=1") {
        assert!(message[1].starts_with("FDNAME=") && message[2] == "FDPOLL=0" && message.len() == 3, "{message:?}");
    }
    for round in 0..2 {
        let server = if round == 0 { &server } else { &manager.start() };
        assert_eq!((server.listener("ts"), server.listeners("admin").len()), (address, 1));
        all_are_answered(address, 8);
        // Queries that the kernel has taken, and that the stopped server does not read.
        tree::stop(server.process.id());
        let clients: Vec<_> = (0..100).map(|_| Client::of(address)).collect();
        clients.iter().for_each(|client| client.send(&query("www.example", A)));
        let mut by_tcp = TcpStream::connect(address).expect("the kernel accepts it");
        by_tcp.write_all(&framed(&query("www.example", A).to_vec())).expect("the kernel takes it");
        server.process.signal(Signal::KILL);
        let next = manager.start();
        for client in &clients {
            assert_eq!(client.receive().answers(), ["192.0.2.7"]);
        }
        by_tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        by_tcp.read_exact(&mut [0; 2]).expect("a response");
        // What it keeps already is not sent again.
        assert_eq!(manager.names(), ["admin.0", "ts.0", "ts.0", "ts.0", "ts.0"]);
        drop(next);
    }
}

/// Sockets that the manager keeps are not shut down when the process drains.
#[test]
fn sockets_in_the_store_outlive_a_restart() {
    if !namespace::alone("service_manager::sockets_in_the_store_outlive_a_restart") {
        return;
    }
    let mut manager = ServiceManager::new(&authority("['127.0.0.1:0']", 2), HOSTS);
    // Those that were bound, and those that were passed.
    for _ in 0..3 {
        let mut server = manager.start();
        let address = server.listener("ts");
        all_are_answered(address, 4);
        server.process.signal(Signal::TERM);
        assert_eq!(server.process.wait_for_exit().code(), Some(0), "{}", server.process.log());
        manager.read_all();
        let clients: Vec<_> = (0..50).map(|_| Client::of(address)).collect();
        clients.iter().for_each(|client| client.send(&query("www.example", A)));
        let mut by_tcp = TcpStream::connect(address).expect("the kernel accepts it");
        by_tcp.write_all(&framed(&query("www.example", A).to_vec())).expect("the kernel takes it");
        let next = manager.start();
        assert_eq!(next.listener("ts"), address);
        for client in &clients {
            assert_eq!(client.receive().answers(), ["192.0.2.7"]);
        }
        by_tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        by_tcp.read_exact(&mut [0; 2]).expect("a response");
        all_are_answered(address, 20);
        assert_eq!(TcpClient::of(address).ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
        assert_eq!(next.admin().get("/readyz").status, 200);
    }
}

#[test]
fn what_leaves_the_config_leaves_the_store() {
    if !namespace::alone("service_manager::what_leaves_the_config_leaves_the_store") {
        return;
    }
    let [first, second, third] = std::array::from_fn(|_| free_address());
    let config = |listen: &[SocketAddr]| {
        let listen: Vec<_> = listen.iter().map(|address| format!("'{address}'")).collect();
        authority(&format!("[{}]", listen.join(", ")), 1)
    };
    let mut manager = ServiceManager::new(&config(&[first, second]), HOSTS);
    let mut server = manager.start();
    assert_eq!(manager.names(), ["admin.0", "ts.0", "ts.0", "ts.1", "ts.1"]);
    // The second stays, under the name that it is known by.
    for (listen, names, edition) in [
        (&[second, third][..], &["admin.0", "ts.1", "ts.1", "ts.1", "ts.1"][..], 2),
        (&[second], &["admin.0", "ts.0", "ts.0"], 3),
    ] {
        std::fs::write(manager.path("config.toml"), config(listen)).expect("our own folder");
        server.process.signal(Signal::HUP);
        server.process.wait_for_log(&format!("reloaded: edition {edition}"));
        manager.wait_for("READY=1");
        assert_eq!(manager.names(), names);
        listen.iter().for_each(|address| all_are_answered(*address, 4));
    }
    // What has left is free for others.
    for address in [first, third] {
        until("it is closed", || UdpSocket::bind(address).and_then(|_| TcpListener::bind(address)).ok());
    }
    // What stays is passed on.
    server.process.signal(Signal::KILL);
    server.process.wait_for_exit();
    Client::of(second).send(&query("www.example", A));
    let next = manager.start();
    assert_eq!(next.listeners("ts"), [second]);
    all_are_answered(second, 4);
}

#[test]
fn a_manager_is_told_of_reloads_and_of_the_end() {
    if !namespace::alone("service_manager::a_manager_is_told_of_reloads_and_of_the_end") {
        return;
    }
    let config = authority("['127.0.0.1:0']", 1);
    let mut manager = ServiceManager::new(&config, HOSTS);
    let mut server = manager.start();
    let ready = manager.reported.last().expect("a message").clone();
    let serving = format!(
        "STATUS=serving {}",
        server.process.wait_for_log(" ready ").split(" ready ").nth(1).expect("it is there")
    );
    assert_eq!(ready, ["READY=1", &serving]);
    // Each of them, the one that fails as well.
    for (text, result) in [(config.as_str(), "edition 2"), ("worker = 1", "reload failed: ")] {
        std::fs::write(manager.path("config.toml"), text).expect("our own folder");
        server.process.signal(Signal::HUP);
        let reloading = manager.wait_for("RELOADING=1");
        let began = reloading[1].strip_prefix("MONOTONIC_USEC=").and_then(|usec| usec.parse::<u64>().ok());
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec as u64;
        assert!(began.is_some_and(|began| now.abs_diff(began / 1_000_000) < 60), "{reloading:?}");
        let ready = manager.wait_for("READY=1");
        assert!(ready[1].starts_with(&serving) && ready[1].contains(result), "{ready:?}");
    }
    server.process.ctl(&[
        "--admin",
        &format!("unix:{}", server.process.admin_socket(server.listener("admin")).display()),
        "reload",
    ]);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    server.process.signal(Signal::TERM);
    assert_eq!(manager.wait_for("STOPPING=1"), ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(server.process.wait_for_exit().code(), Some(0));
    manager.read_all();
    // No watchdog was asked for.
    assert!(!manager.reported.iter().flatten().any(|line| line.starts_with("WATCHDOG")), "{:?}", manager.reported);
}

#[test]
fn the_watchdog_hears_of_progress() {
    if !namespace::alone("service_manager::the_watchdog_hears_of_progress") {
        return;
    }
    let mut manager = ServiceManager::new(&authority("['127.0.0.1:0']", 1), HOSTS);
    manager.environment = vec![("WATCHDOG_USEC", "300000".to_owned())];
    let server = manager.start();
    for _ in 0..5 {
        manager.wait_for("WATCHDOG=1");
    }
    // Three times in that span, not in each millisecond of it.
    let begin = std::time::Instant::now();
    (0..6).for_each(|_| drop(manager.wait_for("WATCHDOG=1")));
    assert!(begin.elapsed() > Duration::from_millis(300), "{:?}", begin.elapsed());
    drop(server);
    // That of another process is not ours to feed.
    manager.read_all();
    manager.reported.clear();
    manager.environment.push(("WATCHDOG_PID", "1".to_owned()));
    let server = manager.start();
    server.process.signal(Signal::HUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    assert!(!manager.reported.iter().flatten().any(|line| line == "WATCHDOG=1"), "{:?}", manager.reported);
}

/// The supervisor alone talks to the manager; when it dies, its successor does, and says so.
#[test]
fn the_supervisor_talks_to_the_manager_and_its_successor_does() {
    if !namespace::alone("service_manager::the_supervisor_talks_to_the_manager_and_its_successor_does") {
        return;
    }
    let config = format!("{}[supervisor]\nstandbys = 2\n", authority("['127.0.0.1:0']", 1));
    let mut manager = ServiceManager::new(&config, HOSTS);
    manager.environment = vec![("WATCHDOG_USEC", "900000".to_owned())];
    let server = manager.start();
    let address = server.listener("ts");
    until("its sockets are kept", || {
        manager.read_all();
        (manager.names() == ["admin.0", "ts.0", "ts.0"]).then_some(())
    });
    manager.wait_for("WATCHDOG=1");
    let first = server.process.id();
    let others = until("three others", || Some(namespace::children(first)).filter(|children| children.len() == 3));
    for pid in &others {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("it is running");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
            assert!(!environment.contains(variable), "process {pid} has inherited {variable}");
        }
    }
    server.process.signal(Signal::KILL);
    let reported = until("a successor", || {
        manager.read_all();
        manager.reported.iter().flatten().find_map(|line| line.strip_prefix("MAINPID=")?.parse::<i32>().ok())
    });
    assert!(others.contains(&reported.unsigned_abs()), "{reported}");
    all_are_answered(address, 8);
    // A unit that was succeeded would be restarted if it said that it reloads.
    manager.reported.clear();
    let successor = Pid::from_raw(reported).expect("a number");
    kill_process(successor, Signal::HUP).expect("it is ours");
    manager.wait_for("STATUS=reloading");
    manager.wait_for("READY=1");
    assert!(!manager.reported.iter().flatten().any(|line| line == "RELOADING=1"), "{:?}", manager.reported);
    kill_process(successor, Signal::TERM).expect("it is ours");
    manager.wait_for("STOPPING=1");
    until("all have ended", || (!std::path::Path::new(&format!("/proc/{reported}")).exists()).then_some(()));
}

#[test]
fn a_manager_that_does_not_read_is_told_of_once_and_not_waited_for() {
    if !namespace::alone("service_manager::a_manager_that_does_not_read_is_told_of_once_and_not_waited_for") {
        return;
    }
    let manager = ServiceManager::new(&authority("['127.0.0.1:0']", 1), HOSTS);
    let full = manager.path("full");
    let reader = UnixDatagram::bind(&full).expect("our own folder");
    let writer = UnixDatagram::unbound().expect("a socket");
    writer.set_nonblocking(true).expect("a flag");
    while writer.send_to(b"X=1", &full).is_ok() {}
    for path in [full, manager.path("nobody"), "/nowhere".into()] {
        let mut manager = ServiceManager::new(&authority("['127.0.0.1:0']", 1), HOSTS);
        manager.environment = vec![("NOTIFY_SOCKET", path.display().to_string())];
        let mut server = Server::ready(manager.run(Vec::new()), tempfile::TempDir::new().expect("a temporary folder"));
        all_are_answered(server.listener("ts"), 1);
        server.process.signal(Signal::HUP);
        server.process.wait_for_log("reloaded: edition 2");
        server.process.signal(Signal::TERM);
        assert_eq!(server.process.wait_for_exit().code(), Some(0));
        let log = server.process.log();
        let warnings = log.lines().filter(|line| line.contains("NOTIFY_SOCKET=")).count();
        assert_eq!(warnings, 1, "{log}");
    }
    drop(reader);
}

#[test]
fn passed_sockets_serve_listeners_by_address_or_by_name() {
    if !namespace::alone("service_manager::passed_sockets_serve_listeners_by_address_or_by_name") {
        return;
    }
    for (by_name, workers) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let (udp, tcp) = pair();
        let address = udp.local_addr().expect("it is bound");
        let (other, _) = pair();
        let unused = other.local_addr().expect("it is bound");
        let listen = if by_name { "['127.0.0.1:0']".to_owned() } else { format!("['{address}']") };
        let manager = ServiceManager::new(&authority(&listen, workers), HOSTS);
        let name = if by_name { "ts.0" } else { "hedgerow.socket" };
        let process = manager.run(vec![(name, udp.into()), (name, tcp.into()), ("other", other.into())]);
        let server = Server::ready(process, tempfile::TempDir::new().expect("a temporary folder"));
        assert_eq!(server.listener("ts"), address);
        // Fewer sockets than workers, and none may be added: some workers share one, and all are read.
        all_are_answered(address, 20);
        let mut by_tcp = TcpClient::of(address);
        assert_eq!(by_tcp.ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
        let line = server.process.wait_for_log("is not in the config");
        assert!(line.contains(&unused.to_string()) && line.contains("closed"), "{line}");
        UdpSocket::bind(unused).expect("it is closed");
    }
}

#[test]
fn several_passed_sockets_of_an_address_are_all_read() {
    if !namespace::alone("service_manager::several_passed_sockets_of_an_address_are_all_read") {
        return;
    }
    for workers in [1, 2, 5] {
        let (address, sockets) = group();
        let manager = ServiceManager::new(&authority(&format!("['{address}']"), workers), HOSTS);
        let server = Server::ready(
            manager.run(sockets.into_iter().map(|socket| ("any", socket)).collect()),
            tempfile::TempDir::new().expect("a temporary folder"),
        );
        assert_eq!(server.listener("ts"), address);
        // The kernel deals clients to all of them.
        all_are_answered(address, 40);
        for _ in 0..20 {
            assert_eq!(TcpClient::of(address).ask(&query("www.example", A)).answers(), ["192.0.2.7"]);
        }
    }
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    if !namespace::alone("service_manager::sockets_for_another_process_are_not_taken") {
        return;
    }
    let (udp, tcp) = pair();
    let address = udp.local_addr().expect("it is bound");
    let (udp, tcp): (OwnedFd, OwnedFd) = (udp.into(), tcp.into());
    let mut manager = ServiceManager::new(&authority(&format!("['{address}']"), 1), HOSTS);
    manager.environment = vec![("OTHER_PID", "1".to_owned())];
    let mut process = manager.run_with(vec![&udp, &tcp], 2, "a:b");
    assert_eq!(process.wait_for_exit().code(), Some(1));
    assert!(process.log().contains(&format!("port {} is in use", address.port())), "{}", process.log());
}

#[test]
fn wrong_sockets_are_refused_with_number_name_and_remedy() {
    if !namespace::alone("service_manager::wrong_sockets_are_refused_with_number_name_and_remedy") {
        return;
    }
    let manager = ServiceManager::new(&authority("['127.0.0.1:0']", 1), HOSTS);
    let socket = |domain, kind| Socket::new(domain, kind, None).expect("a socket");
    let any_v4: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let bound = socket(Domain::IPV4, Type::STREAM);
    bound.bind(&any_v4.into()).expect("loopback");
    let both = socket(Domain::IPV6, Type::DGRAM);
    both.set_only_v6(false).expect("both families");
    both.bind(&"[::]:0".parse::<SocketAddr>().expect("an address").into()).expect("a free port");
    let unix = UnixListener::bind(manager.path("other.sock")).expect("our own folder");
    drop(unix);
    let file = std::fs::File::open("/dev/null").expect("it is there");
    let table: Vec<(OwnedFd, &str)> = vec![
        (file.into(), "it is not a socket; pass only listening sockets"),
        (socket(Domain::IPV4, Type::DGRAM).into(), "it is not bound to an address; bind it"),
        (socket(Domain::IPV6, Type::DGRAM).into(), "it is not bound to an address; bind it"),
        (bound.into(), "it does not listen; call listen()"),
        (both.into(), "takes IPv4 too; set BindIPv6Only=ipv6-only"),
        (
            UnixDatagram::unbound().expect("a socket").into(),
            "address family 1 or of a type that is not listened on; pass",
        ),
    ];
    let good: OwnedFd = UdpSocket::bind("127.0.0.1:0").expect("loopback").into();
    for (wrong, reported) in &table {
        let mut process = manager.run_with(vec![&good, wrong], 2, "ts.0:odd");
        assert_eq!(process.wait_for_exit().code(), Some(1), "{}", process.log());
        let log = process.log();
        assert!(log.contains("passed socket 4 (odd): ") && log.contains(reported), "{reported}: {log}");
    }
    for (count, number) in [(2, 4), (1_000_000_000, 0)] {
        let mut process = manager.run_with(vec![&good], count, "ts.0:gone");
        assert_eq!(process.wait_for_exit().code(), Some(1), "{}", process.log());
        let log = process.log();
        assert!(log.contains("it is closed; LISTEN_FDS must count"), "{log}");
        assert!(number == 0 || log.contains("passed socket 4 (gone): "), "{log}");
    }
}
