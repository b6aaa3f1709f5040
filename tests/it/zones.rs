//! Zone files through the real program: what is loaded, what is refused and why, what a reload changes, what
//! `check` prints.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use testkit::*;

/// The first records of a zone.
const APEX: &str = "@ 300 SOA ns hostmaster 1 2 3 4 5\n@ 300 NS ns\nns 300 A 192.0.2.1\n";

/// A config of one authority with these zones, as TOML has them.
fn config(zones: &str) -> String {
    format!("[authorities.ts]\nlisten = ['127.0.0.1:0']\nmiss = 'refused'\nzones = [{zones}]\n")
}

/// A folder with a config and files.
fn folder(zones: &str, files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, text) in files.iter().copied().chain([("config.toml", config(zones).as_str())]) {
        fs::write(folder.path().join(name), text).expect("a file in our own folder");
    }
    folder
}

/// Runs `hedgerow check` in a folder: exit status, stdout, stderr.
fn check(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    let Output { status, stdout, stderr } =
        command.arg("check").args(arguments).current_dir(folder).output().expect("cargo has built the binary");
    let text = |octets| String::from_utf8(octets).expect("text");
    (status.code().expect("an exit status"), text(stdout), text(stderr))
}

/// The top of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reference_and_the_zones_that_come_with_it_are_right() {
    let (status, stdout, stderr) = check(repository(), &[]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    let zone = repository().join("zones/example.org.zone");
    let folder = folder(&format!("'{}'", zone.display()), &[]);
    let (status, stdout, stderr) = check(folder.path(), &[]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(stdout.contains("1 zone with 27 records"), "{stdout}");
}

#[test]
fn a_dump_loads_to_the_same_zone() {
    let sample = fs::read_to_string(repository().join("zones/example.org.zone")).expect("it is in the repository");
    let odd = "$TTL 1\n@ SOA . . 1 2 3 4 5\n@ NS .\n\\000\\. TXT \"\" \"\\\"\\;\\255\"\n*.a\\032b TYPE65280 \\# 0\nx LOC 1 N 1 E 0";
    for (origin, text) in [("example.org", sample.as_str()), (".", odd)] {
        let zones = |file: &str| format!("{{ file = '{file}', origin = '{origin}' }}");
        let first = folder(&zones("z"), &[("z", text)]);
        let (status, dump, stderr) = check(first.path(), &["--dump"]);
        assert_eq!(status, 0, "{stderr}");
        let second = folder(&zones("z"), &[("z", &dump)]);
        let (status, again, stderr) = check(second.path(), &["--dump", origin]);
        assert_eq!((status, again), (0, dump), "{stderr}");
    }
}

#[test]
fn all_that_is_wrong_ends_the_start_with_status_2() {
    let zones = "{ file = 'a', origin = 'a' }, { file = 'b', origin = 'b' }";
    let files = [("a", "@ 1 AX 1\n@ 1 A 1.2.3\n"), ("b", &format!("{APEX}ns 300 CNAME x\n"))];
    let folder = folder(zones, &files);
    let file = folder.path().join("config.toml");
    let mut process = Process::run(["serve".as_ref(), "-c".as_ref(), file.as_os_str()]);
    let status = process.wait_for_exit();
    let log = process.log();
    assert_eq!(status.code(), Some(2), "{log}");
    for place in ["a:1:5: ", "a:2:7: ", "b:4:1: "] {
        assert!(log.contains(place), "{place} in\n{log}");
    }
    let (status, stdout, stderr) = check(folder.path(), &[]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
}

#[test]
fn what_is_odd_is_a_warning() {
    let folder = folder("{ file = 'a', origin = 'a' }", &[("a", &format!("{APEX}sub 300 NS ns.sub\n"))]);
    let (status, stdout, stderr) = check(folder.path(), &[]);
    assert_eq!(status, 0);
    assert!(stdout.contains("ok (1 authority"), "{stdout}");
    assert_eq!(stderr, "warning: a:4:1: sub.a.: name server ns.sub.a. has no address in this zone\n");
}

#[test]
fn includes_stay_within_the_folder_of_the_zone() {
    let outer = TempDir::new().expect("a temporary folder");
    fs::write(outer.path().join("secret"), "x 300 A 192.0.2.1\n").expect("a file in our own folder");
    let folder = folder("{ file = 'a', origin = 'a' }", &[("a", &format!("{APEX}$INCLUDE link\n"))]);
    symlink(outer.path().join("secret"), folder.path().join("link")).expect("a link in our own folder");
    let (status, _, stderr) = check(folder.path(), &[]);
    assert_eq!(status, 2);
    assert!(stderr.contains("a:4:10: ") && stderr.contains("leads out of the folder"), "{stderr}");
}

#[test]
fn zones_and_tables_answer_side_by_side() {
    let files = [("a", APEX), ("t", "h.b 192.0.2.2 A\nh.a 192.0.2.3 A\n")];
    let server = Server::start_with_files(&config("{ file = 'a', origin = 'a' }, 't'"), &files);
    let client = Client::of(server.listener("ts"));
    assert_eq!(client.ask(&query("ns.a", A)).answers(), ["192.0.2.1"]);
    assert_eq!(client.ask(&query("h.b", A)).answers(), ["192.0.2.2"]);
    // The deepest zone that encloses a name has the say, whatever tables have.
    assert_eq!(client.ask(&query("h.a", A)).rcode(), NXDOMAIN);
    assert_eq!(client.ask(&query("x.b", A)).rcode(), REFUSED);
}

#[test]
fn a_reload_swaps_all_zones_or_none() {
    let files = [("a", APEX), ("b", APEX)];
    let server =
        Server::start_with_files(&config("{ file = 'a', origin = 'a' }, { file = 'b', origin = 'b' }"), &files);
    let client = Client::of(server.listener("ts"));
    let changed = APEX.replace("192.0.2.1", "192.0.2.2");
    server.rewrite("a", &changed);
    server.reload("b", "@ 300 SOA\n");
    server.process.wait_for_log("reload failed");
    assert_eq!(client.ask(&query("ns.a", A)).answers(), ["192.0.2.1"]);
    assert_eq!(client.ask(&query("ns.b", A)).answers(), ["192.0.2.1"]);
    server.reload("b", APEX);
    until("the other zone is in force", || (client.ask(&query("ns.a", A)).answers() == ["192.0.2.2"]).then_some(()));
    assert_eq!(client.ask(&query("ns.b", A)).answers(), ["192.0.2.1"]);
}

#[test]
fn a_reload_tells_whoever_asks_for_it_what_is_wrong() {
    let zones = config("{ file = 'a', origin = 'a' }, 'b'");
    let b = format!("$ORIGIN b.\n{APEX}");
    let server =
        Server::start_with_files(&format!("{zones}[admin]\nlisten = '127.0.0.1:0'\n"), &[("a", APEX), ("b", &b)]);
    let client = Client::of(server.listener("ts"));
    let ask = || ["ns.a", "ns.b"].map(|name| client.ask(&query(name, A)).answers().concat());
    let reload = || {
        let admin = format!("http://{}", server.listener("admin"));
        let Output { status, stderr, .. } = server.process.ctl(&["--admin", &admin, "reload"]);
        (status.success(), String::from_utf8(stderr).expect("text"))
    };
    server.rewrite("a", "@ 300 SOA ns hostmaster 1 2 3 4\n@ 300 A 192.0.2\n");
    let (is_done, message) = reload();
    assert!(!is_done && message.contains("a:1:32: ") && message.contains("a:2:9: "), "{message}");
    assert_eq!(ask(), ["192.0.2.1", "192.0.2.1"]);
    // One of the two has changed: the other stays as it is.
    server.rewrite("a", &APEX.replace("192.0.2.1", "192.0.2.2"));
    assert_eq!(reload(), (true, String::new()));
    assert_eq!(ask(), ["192.0.2.2", "192.0.2.1"]);
}

#[test]
fn files_are_what_they_look_like() {
    let zone = "example.org. 300 SOA ns hostmaster.example.org. 1 2 3 4 5\nexample.org. 300 NS ns.example.org.\n";
    let relative = format!("; zone\n$ORIGIN example.org.\n{APEX}");
    let one_zone = |hosts: u8| format!("1 authority with 1 zone file: 1 zone with {hosts} records");
    for (text, expected) in [
        // Names that look like directives or types, in a table.
        ("soa.example 192.0.2.1 A\n$origin.example 192.0.2.2 A\n", Ok("2 hosts, 2 addresses".into())),
        (
            "origin.example 192.0.2.1 A\nttl 192.0.2.1 A\nsoa 192.0.2.2 A\nA 192.0.2.3 a\n",
            Ok("4 hosts, 4 addresses".into()),
        ),
        ("# SOA $TTL\r\nh.example 192.0.2.1 A # SOA\r\n", Ok("1 host, 1 address".into())),
        (&relative, Ok(one_zone(3))),
        (&relative.replace('\n', "\r\n"), Ok(one_zone(3))),
        (&zone.replace(" ns ", " ns.example.org. "), Ok(one_zone(2))),
        // No origin for a relative name.
        (zone, Err("f:1:22: ")),
        ("$ORIGIN example.org.\n", Err("f: .: no SOA record")),
        ("$ORIGIN example.org.\n@ 300 NS ns\n", Err("f: .: no SOA record")),
        ("example.org. 300 IN NS ns.example.org.\n", Err("f:1:21: ")),
    ] {
        let folder = folder("'f'", &[("f", text)]);
        let (status, stdout, stderr) = check(folder.path(), &[]);
        match expected {
            Ok(summary) => assert!(status == 0 && stdout.contains(&summary), "{text:?}: {stdout}{stderr}"),
            Err(place) => assert!(status == 2 && stderr.contains(place), "{text:?}: {stdout}{stderr}"),
        }
    }
}

#[test]
fn a_zone_needs_no_config_file() {
    let folder = folder("'a'", &[("a", APEX)]);
    let file = folder.path().join("a");
    let words = ["ts", "-l", "127.0.0.1:0", "--origin", "Example.org", file.to_str().expect("an ASCII path")];
    let server = Server::run(words);
    let client = Client::of(server.listener("authority"));
    assert_eq!(client.ask(&query("ns.example.org", A)).answers(), ["192.0.2.1"]);
}

#[test]
fn a_server_says_of_itself_what_it_is_told_to() {
    let files = [("a", APEX)];
    let zones = config("{ file = 'a', origin = 'a' }");
    let (ch, txt, nsid) = (3, 16, 3);
    let ask = |config: &str| {
        let server = Server::start_with_files(config, &files);
        let client = Client::of(server.listener("ts"));
        let version = client.ask(&query("version.bind", txt).class(ch));
        (
            version.rcode(),
            version.message().answers.len(),
            client.ask(&query("a", A).edns(1232).option(nsid, b"")).options(),
        )
    };
    assert_eq!(ask(&zones), (REFUSED, 0, Vec::new()));
    let (rcode, count, options) = ask(&format!("{zones}version = 'one'\nnsid = 'two'\n"));
    assert_eq!((rcode, count, options), (NOERROR, 1, vec![(nsid, b"two".to_vec())]));
}
