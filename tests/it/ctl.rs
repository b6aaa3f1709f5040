//! `hedgerow ctl` as it is typed: what it prints, and its exit codes.

use std::process::{Command, Output};

use crate::support::admin_site::{Site, TOKEN, check_output, write};
use hedgerow::admin::{ManualHealth, ServerChange};
use tempfile::TempDir;

/// Runs `hedgerow ctl` with these words, in a folder with a config that names `site`.
fn ctl(site: &Site, words: &str) -> Output {
    let folder = TempDir::new().expect("a folder for the test");
    write(
        &folder.path().join("config.toml"),
        &format!(
            "[authorities.a]\nlisten = ['127.0.0.1:0']\nzones = ['a.txt']\n[admin]\nlisten = '{}'\n\
             token_file = 'admin.token'\n",
            site.address
        ),
    );
    write(&folder.path().join("admin.token"), TOKEN);
    write(&folder.path().join("wrong.token"), "fedcba9876543210");
    let broken =
        format!("[pools]\nx = 1\n[admin]\nlisten = '{}'\ntoken_file = 'admin.token'\nlsiten = 1\n", site.address);
    write(&folder.path().join("broken.toml"), &broken);
    run(&folder, words)
}

/// Runs `hedgerow ctl` with these words in a folder.
fn run(folder: &TempDir, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hedgerow"))
        .arg("ctl")
        .args(words.split_whitespace())
        .current_dir(folder)
        .env("http_proxy", "http://127.0.0.1:1")
        .output()
        .expect("cargo has built the binary")
}

#[test]
fn status_and_backends_are_tables() {
    let site = Site::start();
    let output = ctl(&site, "status");
    check_output(
        &output,
        0,
        "trouble since 2026-01-01 00:00:00 UTC\n  pool-down: no backend of pool ts is up: ts1 has been down",
        "",
    );
    let counts = "queries 13  NOERROR 13  NXDOMAIN 0  SERVFAIL 0  REFUSED 0";
    check_output(&output, 0, &format!("up 1h, 2 workers\n{counts}\n\nin the last minute:\nPOOL"), "");
    check_output(&output, 0, "down (by hand)  1m 3", "");
    let output = ctl(&site, "backends");
    assert!(output.stdout.starts_with(b"POOL  BACKEND"), "{output:?}");
}

#[test]
fn json_is_for_scripts() {
    let site = Site::start();
    let read = |words| serde_json::from_slice::<serde_json::Value>(&ctl(&site, words).stdout).expect("JSON");
    assert_eq!(read("status --json")["pools"][0]["backends"][0]["name"], "ts1");
    let backends = read("backends --json");
    assert_eq!((&backends[0]["pool"], &backends[0]["state"]), (&"ts".into(), &"down".into()));
}

#[test]
fn changes_are_carried_out_and_told() {
    let site = Site::start();
    check_output(&ctl(&site, "add ts 192.0.2.9:53 --weight 5"), 0, "192.0.2.9:53 is added to ts with weight 5\n", "");
    for action in ["drain", "remove", "up", "down", "auto"] {
        check_output(&ctl(&site, &format!("{action} ts ts1")), 0, "ts1 of ts is changed\n", "");
    }
    check_output(&ctl(&site, "remove ts [::1]:53"), 0, "[::1]:53 of ts is changed\n", "");
    let place = || ("ts".to_owned(), "ts1".to_owned());
    let set = |to| {
        let (pool, backend) = place();
        ServerChange::Set { pool, backend, to, lasts: None, is_forced: false }
    };
    let (pool, backend) = place();
    let expected = [
        ServerChange::Add { pool: pool.clone(), address: "192.0.2.9:53".parse().expect("an address"), weight: 5 },
        ServerChange::Drain { pool: pool.clone(), backend: backend.clone(), lasts: None, is_forced: false },
        ServerChange::Remove { pool: pool.clone(), backend },
        set(ManualHealth::Up),
        set(ManualHealth::Down),
        set(ManualHealth::Auto),
        ServerChange::Remove { pool, backend: "[::1]:53".to_owned() },
    ];
    assert_eq!(site.changes(), expected);
}

#[test]
fn processes_are_a_table_or_json() {
    let site = Site::start();
    let output = ctl(&site, "processes");
    check_output(&output, 0, "PID  ROLE        VERSION  EDITION  FOR     PROBLEM\n 10  supervisor  1.2.3 ", "");
    check_output(&output, 0, "a.txt:1: wrong\n", "");
    let processes: serde_json::Value = serde_json::from_slice(&ctl(&site, "processes --json").stdout).expect("JSON");
    assert_eq!((&processes[1]["pid"], &processes[1]["role"]), (&11.into(), &"server".into()));
}

#[test]
fn zones_are_shown_and_what_is_doubted_is_taken() {
    let site = Site::start();
    check_output(&ctl(&site, "zones"), 0, "no zones\n", "");
    let zones: serde_json::Value = serde_json::from_slice(&ctl(&site, "zones --json").stdout).expect("JSON");
    assert_eq!((&zones["zones"], &zones["catalogs"]), (&serde_json::json!([]), &serde_json::json!([])));
    check_output(&ctl(&site, "accept cat"), 0, "catalog cat. is taken\n", "");
    check_output(&ctl(&site, "accept cta."), 1, "", "there is no catalog \"cta.\", did you mean \"cat.\"?");
    let name = |name: &str| ServerChange::Accept { name: name.to_owned() };
    assert_eq!(site.changes(), [name("cat"), name("cta.")]);
}

#[test]
fn another_process_is_asked_for_or_none() {
    let site = Site::start();
    check_output(&ctl(&site, "restart"), 0, "restart is done\n", "");
    check_output(&ctl(&site, "upgrade"), 0, "upgrade is done\n", "");
    check_output(&ctl(&site, "stop"), 0, "stop is done\n", "");
    check_output(&ctl(&site, "restart --cold"), 1, "", "refused: another restart is under way");
    check_output(&ctl(&site, "upgrade --cold"), 1, "", "refused: the new process has ended: status 2");
    check_output(&ctl(&site, "upgrade /bin/sh"), 2, "", "unexpected argument");
    assert_eq!(site.changes().len(), 5);
}

#[test]
fn a_no_of_the_server_is_told_from_silence() {
    let site = Site::start();
    check_output(&ctl(&site, "reload"), 1, "", "refused: config.toml:1:1: nothing to run");
    check_output(&ctl(&site, "drain ts bsuy"), 1, "", "there is no backend \"bsuy\", did you mean \"busy\"?");
    check_output(&ctl(&site, "down ts busy"), 1, "", "busy is the last backend of ts");
    check_output(&ctl(&site, "down ts ts1 --token-file wrong.token"), 1, "", "this is not the token");
    // No server can listen on port 0.
    check_output(&ctl(&site, "status --admin http://127.0.0.1:0"), 1, "", "http://127.0.0.1:0 cannot be reached");
    assert_eq!(site.changes().len(), 3);
}

#[test]
fn a_broken_config_on_the_disk_keeps_no_one_from_the_server() {
    let site = Site::start();
    check_output(&ctl(&site, "status -c broken.toml"), 0, "up 1h", "");
    check_output(&ctl(&site, "reload -c broken.toml"), 1, "", "refused: config.toml:1:1: nothing to run");
    check_output(&ctl(&site, "restart --cold -c broken.toml"), 1, "", "refused: another restart is under way");
    assert_eq!(site.changes().len(), 2);
}

#[test]
fn the_command_line_goes_before_the_config() {
    let (named, configured) = (Site::start(), Site::start());
    check_output(&ctl(&configured, &format!("up ts ts1 --admin unix:{}", named.socket.display())), 0, "is changed", "");
    check_output(
        &ctl(&configured, &format!("--admin {} --token-file admin.token down ts ts1", named.address)),
        0,
        "is changed",
        "",
    );
    assert_eq!((named.changes().len(), configured.changes().len()), (2, 0));
}

#[test]
fn what_is_typed_wrong_is_exit_code_2() {
    let site = Site::start();
    for (words, message) in [
        ("", "hedgerow ctl: missing command; see hedgerow ctl --help\n"),
        ("stauts", "status"),
        ("drain ts", "BACKEND"),
        ("add ts dns.example", "an IP address with its port, not a host name"),
        ("add ts 192.0.2.1:53 --weight 0", "1..=1000"),
        ("status --admin https://127.0.0.1:5380", "no TLS"),
        ("status --token-file no.token", "no.token: the token cannot be read"),
        ("status -c no.toml", "no.toml: there is no such config file"),
    ] {
        check_output(&ctl(&site, words), 2, "", message);
    }
}
