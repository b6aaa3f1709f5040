//! One address for two machines by keepalived, as `deploy/keepalived` has it: the real one, on two hosts.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use testkit::hosts::{self, Host};
use testkit::one_address::OneAddress;
use testkit::*;

use super::docs::top;

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

/// keepalived on a host, with the config that comes with hedgerow; the second host has what that says of the
/// other machine.
struct Keepalived {
    _daemon: Daemon,
    /// The process that runs the check, where keepalived cannot.
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
            let mut command = host.command(find_program("keepalived").expect("it was looked for"));
            command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
            for (option, file) in [("--use-file", "keepalived.conf"), ("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
                command.arg(option).arg(folder.join(file));
            }
            command
        });
        Self { _daemon: daemon, _check: check }
    }

    /// Runs the check of this config beside keepalived, by the same numbers, and has that read what it says
    /// from a file.
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

/// Returns true if keepalived may run scripts. It may not in a user namespace that cannot set groups, where
/// the system's root appears as another user.
fn may_run_scripts() -> bool {
    let curl = fs::metadata(find_program("curl").expect("it was looked for")).expect("it is there");
    curl.uid() == 0
}

fn has_address(host: &Host) -> bool {
    host.run("ip", "-brief -4 address show dev eth0").contains(" 192.0.2.53/24")
}

/// Waits until a host has the address, and the other has not.
fn wait_until_it_moves(to: &Host, from: &Host) {
    until("the address moves", || (has_address(to) && !has_address(from)).then_some(()));
}

/// Takes 2 s for each of five changes: keepalived counts `interval` in whole seconds, and two checks in a row
/// decide.
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

    let pair = OneAddress {
        first: &first,
        second: &second,
        address: SocketAddr::from(ADDRESS),
        listen,
        wait_for_first: &|| wait_until_it_moves(&first, &second),
        wait_for_second: &|| wait_until_it_moves(&second, &first),
    };
    one = pair.end_and_come_back(one);
    // A crash costs what the timers say.
    assert!(pair.crash(&one) > 0, "no machine had the address for a while");
    // So does the death of a machine, which says nothing any more.
    one = first.start(listen);
    (pair.wait_for_first)();
    pair.cut_off(&|| until("the other has the address", || has_address(&second).then_some(())));
    pair.check();
    drop(one);
}
