//! hedgerow on a node, as the DaemonSet runs it, in network namespaces. The program that measures the five
//! seconds runs the config and the program `addresses`, here without losses and with few look-ups.

use std::fs;
use std::process::{Command, Stdio};

use testkit::hosts;

use super::{text_of, top};

#[test]
fn pods_reach_hedgerow_by_both_addresses() {
    // Not by `leave_out`: hedgerow becomes another user, which only root of the machine can.
    if !rustix::process::geteuid().is_root() {
        return eprintln!("manifests::node_local::pods_reach_hedgerow_by_both_addresses: not tested, needs root");
    }
    let test = "manifests::node_local::pods_reach_hedgerow_by_both_addresses";
    if !["ip", "nft", "curl", "setpriv", "unshare"].iter().all(|program| testkit::need_program(test, program).is_some())
    {
        return;
    }
    for way in ["link-local", "kube-dns"] {
        let mut command = Command::new(top().join("deploy/kubernetes/five-seconds"));
        command.args(["--loss", "0", "--lookups", "200", "--stubs", "10", "--metrics", way, "--hedgerow"]);
        let output = command.arg(env!("CARGO_BIN_EXE_hedgerow")).stdin(Stdio::null()).output().expect("python3 runs");
        let said = text_of(&output);
        assert!(
            output.status.success() && said.contains("\"look-ups\": 200, \"over 1 s\": 0, \"half\": 0, \"failed\": 0"),
            "{said}"
        );
        // An A and an AAAA query for each look-up have come to hedgerow.
        assert!(said.contains("\nhedgerow_queries_total{transport=\"udp\"} 400\n"), "{said}");
    }
}

#[test]
fn addresses_come_and_go_with_the_pod() {
    let test = "manifests::node_local::addresses_come_and_go_with_the_pod";
    if !hosts::enter(test, &["ip", "nft"]) {
        return;
    }
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let config = folder.path().join("config.toml");
    let listen = "[\"169.254.20.10:53\", \"[fd00:10:96::a]:53\"]";
    fs::write(&config, format!("[forwarder]\nlisten = {listen}\n[admin]\nlisten = \"0.0.0.0:5380\"\n")).expect("ours");
    hosts::run("ip", "link set lo up");
    let program = top().join("deploy/kubernetes/overlays/node-local/pods/addresses");
    let mut addresses = Command::new("sh").arg(&program).arg(&config).spawn().expect("a shell");
    let rules = || Command::new("nft").args(["list", "table", "inet", "hedgerow"]).output().expect("it is installed");
    testkit::until("rules are there", || rules().status.success().then_some(()));
    let text = text_of(&rules());
    for rule in ["ip daddr 169.254.20.10 udp dport 53 notrack", "ip6 saddr fd00:10:96::a tcp sport 53 notrack"] {
        assert!(text.contains(rule), "{text}");
    }
    let present = || hosts::run("ip", "-oneline address show dev lo");
    assert!(present().contains(" 169.254.20.10/32 ") && present().contains(" fd00:10:96::a/128 "), "{}", present());
    rustix::process::kill_process(rustix::process::Pid::from_child(&addresses), rustix::process::Signal::TERM)
        .expect("it runs");
    assert!(addresses.wait().expect("it was started").success());
    assert!(!present().contains("169.254.20.10") && !present().contains("fd00"), "{}", present());
    assert!(!rules().status.success());
    // A config without the line.
    fs::write(&config, "[forwarder]\n").expect("our own folder");
    let output = Command::new("sh").arg(&program).arg(&config).output().expect("a shell");
    assert!(!output.status.success() && text_of(&output).contains("no line listen"), "{}", text_of(&output));
}
