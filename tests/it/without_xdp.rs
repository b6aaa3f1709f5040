//! Tests of a build without the cargo feature `xdp`: it rejects `[xdp]` with the place and a remedy, and
//! serves by sockets. Run them by `cargo test --no-default-features --test it without_xdp::`.

use std::fs;
use std::process::{Command, Output};

use testkit::*;

use crate::support::admin_site::check_output;

/// Runs `check` on a config with this text in front of an authority.
fn check(text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("config.toml");
    let authority = "[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n";
    fs::write(&file, format!("{text}{authority}")).expect("our own folder");
    fs::write(folder.path().join("a.txt"), "a.example 192.0.2.1 A\n").expect("our own folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(["check", "-c"]).arg(file).output().expect("cargo has built it")
}

#[test]
fn a_config_with_the_section_is_rejected_with_place_and_remedy() {
    let expected = "config.toml:2:1: xdp: this hedgerow is built without AF_XDP, remove the section or build with";
    check_output(&check("workers = 1\n[xdp]\ninterfaces = ['eth0']\n"), 2, "", expected);
    check_output(&check("workers = 1\n"), 0, ": ok (1 authority", "");
}

#[test]
fn keys_of_the_section_are_checked_all_the_same() {
    let expected = "xdp: unknown key \"interface\", did you mean \"interfaces\"?";
    check_output(&check("[xdp]\ninterface = ['eth0']\n"), 2, "", expected);
}

#[test]
fn datagrams_are_answered_by_sockets() {
    let backend = Backend::new(answer("192.0.2.1"));
    let server = Forwarder::to(&[&backend], "").start();
    assert_eq!(server.client().ask(&query("a.example", A)).answers(), ["192.0.2.1"]);
}
