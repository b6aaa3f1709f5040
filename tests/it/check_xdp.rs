//! `hedgerow check` of a config with `[xdp]`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use testkit::hosts::run;
use testkit::*;

use crate::support::admin_site::check_output;

/// Runs `check` on a config with this section and a listener on all addresses.
fn check(xdp: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    let text = format!("workers = 2\n[xdp]\n{xdp}\n[authorities.a]\nlisten = ['0.0.0.0:5353']\nzones = ['a.txt']\n");
    fs::write(&file, text).expect("our own folder");
    fs::write(folder.path().join("a.txt"), "a.example 192.0.2.1 A\n").expect("our own folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(["check", "-c"]).arg(file).output().expect("cargo has built it")
}

#[test]
fn an_interface_that_is_not_there_is_a_warning_or_an_error() {
    let name = "interfaces = ['no-such-one']";
    let expected = "xdp.interfaces[0]: there is no interface no-such-one, expected one of ";
    check_output(&check(name), 0, ": ok (1 authority", &format!("warning: {expected}"));
    let output = check(&format!("{name}\nfallback = false"));
    check_output(&output, 2, "", expected);
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn the_loopback_device_cannot_be_had() {
    let expected = "xdp.interfaces[0]: lo is not an Ethernet interface";
    check_output(&check("interfaces = ['lo']"), 0, "xdp: lo: up, no driver", &format!("warning: {expected}"));
    check_output(&check("interfaces = ['lo']\nfallback = false"), 2, "", expected);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let output = check("interfaces = ['lo', 'no-such-one']\nfallback = false");
    check_output(&output, 2, "", "xdp.interfaces[0]: lo is no");
    check_output(&output, 2, "", "xdp.interfaces[1]: there is no interface no-such-one");
}

#[test]
fn what_an_interface_can_do_is_told() {
    if !namespace::enter("check_xdp::what_an_interface_can_do_is_told") {
        return;
    }
    run("ip", "link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1 numrxqueues 2 numtxqueues 2");
    run("ip", "link set v1 up");
    let down = check("interfaces = ['v0']");
    check_output(&down, 0, "xdp: v0: down, driver veth, 2 queues, ", "warning: xdp.interfaces[0]: v0 is down");
    check_output(&down, 0, "no listener, 0 backends", "warning: xdp.interfaces[0]: nothing here uses v0");

    run("ip", "address add 198.18.0.1/24 dev v0");
    run("ip", "link set v0 up");
    let is_up = || Some(check("interfaces = ['v0']")).filter(|output| contains(&output.stdout, "v0: up"));
    let up = until("the pair has a carrier", is_up);
    check_output(&up, 0, "native XDP, no zero copy; listeners 0.0.0.0:5353, 0 backends", "");
    check_output(&up, 0, "xdp: v0: set mode = \"native\", zero_copy = \"off\", and workers = 2", "");
    assert!(!contains(&up.stderr, "xdp.interfaces"), "{up:?}");

    let demanding = "interfaces = [{ name = 'v0', queues = [2], zero_copy = 'on' }]\nfallback = false";
    let refused = check(demanding);
    check_output(&refused, 2, "", "xdp.interfaces[0]: there is no queue 2, expected 0 to 1");
    check_output(&refused, 2, "", "xdp.interfaces[0]: the driver of v0 cannot do without copies");
    check_output(&check("interfaces = ['v2']"), 0, "", "there is no interface v2, expected one of lo, v0, v1");
}

#[test]
fn what_the_user_lacks_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    let text = "[xdp]\ninterfaces = ['lo']\n[forwarder]\n[pools.p]\nbackends = ['192.0.2.1:53']\n";
    fs::write(&file, text).expect("our own folder");
    let binary = fs::File::open(env!("CARGO_BIN_EXE_hedgerow")).expect("cargo has built it");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
    let mut command = namespace::ordinary("/proc/self/fd/0");
    let output = command.args(["check", "-c"]).arg(file).stdin(binary).output().expect("it runs");
    check_output(&output, 0, "", "warning: xdp: this user lacks CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF");
}

fn contains(printed: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(printed).contains(text)
}
