//! One address for two machines by keepalived, as `deploy/keepalived` has it: the real one, on two hosts.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use rustix::process::Signal;

use super::docs::top;
use crate::support::hosts::{self, Daemon, Host, WHILE};
use crate::support::*;

/// The address that moves.
const ADDRESS: ([u8; 4], u16) = ([192, 0, 2, 53], 53);

/// A host that is set up as the config says.
fn host(number: usize) -> Host {
    let host = Host::new(number, &format!("192.0.2.{number}/24"));
    host.run("ip", "address add 192.0.2.53/32 dev lo");
    for (key, value) in [("arp_ignore", 1), ("arp_announce", 2)] {
        host.run("sysctl", &format!("--quiet net.ipv4.conf.all.{key}={value}"));
    }
    host
}

/// keepalived on a host, with the config that comes with hedgerow; the second host has what that says of the other machine.
struct Keepalived {
    _daemon: Daemon,
    /// What runs the check, where keepalived cannot.
    _check: Option<Daemon>,
}

impl Keepalived {
    fn start(host: &Host, is_first: bool) -> Self {
        let config = fs::read_to_string(top().join("deploy/keepalived/keepalived.conf")).expect("it is there");
        let mut config = config.replace("script_user nobody", "script_user root");
        if !is_first {
            config = config.replace("router_id ls1 ", "router_id ls2 ").replace("priority 150 ", "priority 100 ");
            assert!(config.contains("router_id ls2") && config.contains("priority 100 "), "{config}");
        }
        let check = (!may_run_scripts()).then(|| Self::check_beside(host, &mut config));
        let daemon = Daemon::start(|folder| {
            fs::write(folder.join("keepalived.conf"), config).expect("our own folder");
            let mut command = host.command(hosts::find("keepalived").expect("it was looked for"));
            command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
            for (option, file) in [("--use-file", "keepalived.conf"), ("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
                command.arg(option).arg(folder.join(file));
            }
            command
        });
        Self { _daemon: daemon, _check: check }
    }

    /// Runs the check of this config beside keepalived, by the same numbers, and has that read what it says from a file.
    fn check_beside(host: &Host, config: &mut String) -> Daemon {
        let (before, rest) = config.split_once("vrrp_script hedgerow {").expect("it has a script");
        let (section, after) = rest.split_once("\n}\n").expect("it ends");
        let script = section.split('"').nth(1).expect("a command").to_owned();
        let (before, after) = (before.to_owned(), after.replace("track_script", "track_file"));
        Daemon::start(|folder| {
            let file = folder.join("weight").display().to_string();
            fs::write(&file, "0").expect("our own folder");
            *config = format!("{before}track_file hedgerow {{\n file \"{file}\"\n weight 1\n}}\n{after}");
            let mut command = host.command("/bin/sh");
            let round = format!(
                "if {script}; then bad=0; else bad=$((bad + 1)); fi
                 if [ $bad -lt 2 ]; then echo 0; else echo -60; fi >'{file}'"
            );
            command.args(["-c", &format!("bad=0; while :; do {round}; sleep 1; done")]);
            command
        })
    }
}

/// Whether keepalived may run scripts: not where the system's root is nobody, in a user namespace, for who may not set groups.
fn may_run_scripts() -> bool {
    let curl = fs::metadata(hosts::find("curl").expect("it was looked for")).expect("it is there");
    curl.uid() == 0
}

/// Whether a host has the address.
fn has_address(host: &Host) -> bool {
    host.run("ip", "-brief -4 address show dev eth0").contains(" 192.0.2.53/24")
}

/// Waits until a host has the address, and the other has not.
fn wait_until_it_moves(to: &Host, from: &Host) {
    until("the address moves", || (has_address(to) && !has_address(from)).then_some(()));
}

#[test]
fn the_address_moves_without_a_lost_query_and_comes_back() {
    const TEST: &str = "vrrp::the_address_moves_without_a_lost_query_and_comes_back";
    if !hosts::enter(TEST, &["keepalived", "curl", "nsenter", "sysctl"]) {
        return;
    }
    hosts::network("192.0.2.254/24");
    let [first, second] = [1, 2].map(host);
    let listen = "listen = ['192.0.2.53:53']";
    let (mut one, _two) = (first.start(listen), second.start(listen));
    let _both = [Keepalived::start(&first, true), Keepalived::start(&second, false)];
    wait_until_it_moves(&first, &second);

    // SIGTERM: it says that it is not ready, and answers until the other has the address.
    let load = Load::start(SocketAddr::from(ADDRESS), 1000);
    load.run_for(WHILE);
    let before = Instant::now();
    one.process.signal(Signal::TERM);
    wait_until_it_moves(&second, &first);
    eprintln!("SIGTERM until the other machine alone has the address: {:?}", before.elapsed());
    load.run_for(WHILE);
    let moved = second.answered();
    let ended = first.answered();
    load.run_for(WHILE);
    assert_eq!(first.answered(), ended, "nobody asks there any more");
    assert!(second.answered() > moved, "everybody asks here");
    // A second signal ends it at once: nobody is kept waiting.
    one.process.signal(Signal::TERM);
    assert_eq!(one.process.wait_for_exit().code(), Some(1));
    load.run_for(WHILE);

    // It comes back, and has the address again: no query is lost by that either.
    one = first.start(listen);
    let before = Instant::now();
    wait_until_it_moves(&first, &second);
    eprintln!("start until the first machine has the address again: {:?}", before.elapsed());
    load.run_for(WHILE);
    let report = load.stop();
    let (sent, answered) = (report.queries.len(), ended + first.answered() + second.answered());
    assert_eq!((report.lost(), report.wrong(), report.strays, report.refused), (0, 0, 0, 0), "of {sent}");
    assert_eq!(answered, sent, "each by one machine, once");

    // A crash costs what the timers say.
    let load = Load::start(SocketAddr::from(ADDRESS), 1000);
    load.run_for(WHILE);
    let before = Instant::now();
    one.process.signal(Signal::KILL);
    wait_until_it_moves(&second, &first);
    let took = before.elapsed();
    load.run_for(WHILE);
    let report = load.stop();
    eprintln!("kill -9 until the other machine has the address: {took:?}; lost: {} of 1000 a second", report.lost());
    assert!(report.lost() + report.refused > 0 && report.wrong() == 0, "nobody was there for a while");
    // So does the death of a machine, which says nothing any more.
    one = first.start(listen);
    wait_until_it_moves(&first, &second);
    let load = Load::start(SocketAddr::from(ADDRESS), 1000);
    load.run_for(WHILE);
    let before = Instant::now();
    first.run("ip", "link set eth0 down");
    until("the other has the address", || has_address(&second).then_some(()));
    let took = before.elapsed();
    load.run_for(WHILE);
    let report = load.stop();
    eprintln!("a machine cut off until the other has the address: {took:?}; lost: {} of 1000 a second", report.lost());
    assert_eq!(report.wrong(), 0);
    let load = Load::start(SocketAddr::from(ADDRESS), 1000);
    load.run_for(WHILE);
    let report = load.stop();
    assert_eq!((report.lost(), report.wrong(), report.strays, report.refused), (0, 0, 0, 0), "all is well again");
    drop(one);
}
