//! Tests of one address on several machines by routes, as in `deploy/bird` and `deploy/exabgp`: the real
//! daemons, and a router that runs bird.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use testkit::hosts::{self, Host, WHILE};
use testkit::one_address::OneAddress;
use testkit::*;

use super::docs::top;

/// The address that is announced.
const ADDRESS: ([u8; 4], u16) = ([192, 0, 2, 53], 53);
/// Where the LS of each host listens.
const LISTEN: &str = "listen = ['192.0.2.53:53']";
/// Shortens the wait for the second attempt of a peering, of which each side may make the first.
const HASTE: &str = "connect delay time 1; connect retry time 1; error wait time 1, 2;";

/// A file that comes with hedgerow.
fn deployed(name: &str) -> String {
    fs::read_to_string(top().join("deploy").join(name)).expect("it is there")
}

/// Starts bird with a config, by a command that may be one on a host.
fn bird(config: &str, command: impl FnOnce(&Path) -> Command) -> Daemon {
    Daemon::start(|folder| {
        fs::write(folder.join("bird.conf"), config.replace("log syslog", "log stderr")).expect("our own folder");
        let mut command = command(&find_program("bird").expect("it was looked for"));
        for (option, file) in [("-c", "bird.conf"), ("-s", "control"), ("-P", "pid")] {
            command.arg(option).arg(folder.join(file));
        }
        command.arg("-f");
        command
    })
}

/// The router: puts the routes of both hosts into this namespace; the better one applies.
fn router() -> Daemon {
    let config = format!(
        "log syslog all;
         router id 198.51.100.254;
         protocol device {{ scan time 1; }}
         protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}
         protocol kernel {{ ipv4 {{ import none; export all; }}; }}
         template bgp site {{
             local 198.51.100.254 as 64500;
             {HASTE}
             ipv4 {{ import all; export none; }};
         }}
         protocol bgp site1 from site {{ neighbor 198.51.100.1 as 64512; bfd on; }}
         protocol bgp site2 from site {{ neighbor 198.51.100.2 as 64512; bfd on; }}
         protocol bgp exabgp from site {{ neighbor 198.51.100.3 as 64512; passive; }}\n"
    );
    bird(&config, |program| Command::new(program))
}

/// A host with the address of the service beside its own.
fn host(number: usize) -> Host {
    let host = Host::new(number, &format!("198.51.100.{number}/24"));
    host.run("ip", "address add 192.0.2.53/32 dev lo");
    host
}

/// bird and the check on a host, with the files that come with hedgerow.
fn announcer(host: &Host, number: usize) -> (Daemon, Daemon) {
    let config = deployed("bird/bird.conf").replace("198.51.100.1", &format!("198.51.100.{number}"));
    let config = config.replace("    bfd on;\n", &format!("    bfd on;\n{HASTE}\n"));
    assert!(config.contains(HASTE));
    let bird = bird(&config, |program| host.command(program));
    let control = bird.path("control");
    until("bird takes commands", || control.exists().then_some(()));
    let check = Daemon::start(|_| {
        let mut check = host.command(top().join("deploy/bird/hedgerow-anycast"));
        check.env("BIRD_CONTROL", &control);
        check
    });
    (bird, check)
}

/// Where the router sends what is for the address.
fn next_hop() -> Option<String> {
    let route = hosts::run("ip", "-4 route show 192.0.2.53");
    route.split_whitespace().skip_while(|word| *word != "via").nth(1).map(str::to_owned)
}

/// Waits until the route leads to the host of this number, or to none.
fn wait_for_route(number: Option<usize>) {
    let expected = number.map(|number| format!("198.51.100.{number}"));
    until("the route moves", || (next_hop() == expected).then_some(()));
}

/// Takes some 8 s: bird counts the waits before a peering in whole seconds, and two checks without a reply
/// decide.
#[test]
fn a_route_of_bird_moves_without_a_lost_query_and_comes_back() {
    const TEST: &str = "anycast::a_route_of_bird_moves_without_a_lost_query_and_comes_back";
    if !hosts::enter(TEST, &["bird", "birdc", "curl", "nsenter"]) {
        return;
    }
    hosts::network("198.51.100.254/24");
    let router = router();
    let [first, second] = [1, 2].map(host);
    let (b1, b2) = (announcer(&first, 1), announcer(&second, 2));
    // The check does not take silence for readiness.
    let two = second.start(LISTEN);
    wait_for_route(Some(2));
    let mut one = first.start(LISTEN);
    wait_for_route(Some(1));

    let pair = OneAddress {
        first: &first,
        second: &second,
        address: SocketAddr::from(ADDRESS),
        listen: LISTEN,
        wait_for_first: &|| wait_for_route(Some(1)),
        wait_for_second: &|| wait_for_route(Some(2)),
    };
    // SIGTERM: the route is withdrawn first, and the server stops later.
    one = pair.end_and_come_back(one);
    // The server crashes: the check gets no reply.
    pair.crash(&one);

    // The machine dies: BFD misses it, since it withdraws nothing.
    one = first.start(LISTEN);
    wait_for_route(Some(1));
    let sessions = hosts::run("birdc", &format!("-s {} show bfd sessions", router.path("control").display()));
    assert_eq!(sessions.matches(" Up ").count(), 2, "{sessions}");
    pair.cut_off(pair.wait_for_second);

    // A check that ends withdraws the route, because the address would no longer be checked.
    let (_b2, check) = b2;
    check.stop();
    wait_for_route(None);
    drop((one, two, b1));
}

#[test]
fn exabgp_withdraws_the_route_first_and_then_the_server_stops() {
    const TEST: &str = "anycast::exabgp_withdraws_the_route_first_and_then_the_server_stops";
    if !hosts::enter(TEST, &["bird", "exabgp", "curl", "nsenter"]) {
        return;
    }
    hosts::network("198.51.100.254/24");
    let _router = router();
    let host = host(3);
    let _exabgp = Daemon::start(|folder| {
        let config = deployed("exabgp/exabgp.conf").replace("198.51.100.1;", "198.51.100.3;");
        fs::write(folder.join("exabgp.conf"), config).expect("our own folder");
        let mut command = host.command(find_program("exabgp").expect("it was looked for"));
        command.arg(folder.join("exabgp.conf"));
        // A user namespace has no other users, and no pipes for its own command line.
        command
            .env("exabgp.daemon.user", "root")
            .env("exabgp.api.cli", "false")
            .env("exabgp.log.destination", "stderr");
        command
    });
    // No server runs yet.
    let mut server = host.start(LISTEN);
    let before = Instant::now();
    wait_for_route(Some(3));
    eprintln!("start until exabgp has announced the route: {:?}", before.elapsed());
    let load = Load::start(SocketAddr::from(ADDRESS), 1000);
    load.run_for(WHILE);
    let report = load.stop();
    assert_eq!((report.lost(), report.wrong(), report.refused), (0, 0, 0));
    let before = Instant::now();
    server.process.signal(Signal::TERM);
    wait_for_route(None);
    eprintln!("SIGTERM until exabgp has withdrawn the route: {:?}", before.elapsed());
    // Clients whose router does not know of the withdrawal yet are still answered.
    hosts::run("ip", "route add 192.0.2.53 via 198.51.100.3");
    let answer = Client::of(SocketAddr::from(ADDRESS)).ask(&query("www.example", A));
    assert_eq!(answer.rcode(), 3, "the table has no such name, and the server says so");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait_for_exit().code(), Some(1));
}

#[test]
fn the_config_of_exabgp_is_right() {
    const TEST: &str = "anycast::the_config_of_exabgp_is_right";
    let Some(exabgp) = find_program("exabgp") else {
        return leave_out(TEST, "exabgp is not installed");
    };
    let file = top().join("deploy/exabgp/exabgp.conf");
    let check = |flag: &str, file: &Path| {
        let mut command = Command::new(&exabgp);
        let output = command.arg(flag).arg(file).stdin(Stdio::null()).output().expect("it is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    for flag in ["--validate", "--test"] {
        let (is_right, text) = check(flag, &file);
        assert!(is_right, "{flag}: {text}");
    }
    // And it would say so.
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let wrong = folder.path().join("exabgp.conf");
    fs::write(&wrong, deployed("exabgp/exabgp.conf").replace("peer-as 64500", "peer-as many")).expect("our own folder");
    let (is_right, text) = check("--validate", &wrong);
    assert!(!is_right && text.contains("invalid ASN"), "{text}");
}
