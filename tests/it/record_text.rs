//! One text for a record, wherever it is shown: by `lookup` out of a reply, by `check --dump` out of a zone.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use testkit::Server;

#[test]
fn lookup_and_check_print_every_type_alike() {
    let zone = &[include_str!("../nsd/example.org.zone"), MORE_TYPES].concat();
    let config = "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = [{ file = 'z', origin = 'example.org' }]\n";
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    fs::write(file("config.toml"), config).and_then(|()| fs::write(file("z"), zone)).expect("files");
    let dumped = run(&["check", "-c", &file("config.toml").display().to_string(), "--dump"]);
    let dumped: BTreeSet<Vec<&str>> = dumped.lines().map(|line| line.splitn(5, ' ').collect()).collect();
    let questions: BTreeSet<String> = dumped.iter().map(|record| format!("{} {}\n", record[0], record[3])).collect();
    fs::write(file("names"), questions.into_iter().collect::<String>()).expect("a file");

    let server = Server::start_with_files(config, &[("z", zone)]);
    let at = format!("@{}", server.listener("ts"));
    let shown = run(&["lookup", &at, "-f", &file("names").display().to_string(), "--format", "dig"]);
    let records = shown.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let shown: BTreeSet<Vec<&str>> = records.map(|line| line.splitn(5, '\t').collect()).collect();

    let missing: Vec<_> = dumped.difference(&shown).collect();
    assert!(missing.is_empty(), "in the zone, but not shown so: {missing:?}");
    let types: BTreeSet<_> = dumped.iter().map(|record| record[3]).collect();
    assert!(types.len() > 50, "{types:?}");
}

/// Types that NSD 4.6 does not read, and signatures.
const MORE_TYPES: &str = "
rrsig RRSIG A 8 2 3600 20300101000000 20200101000000 12345 example.org. c2lnbmF0dXJl
amtrelay AMTRELAY 10 0 2 2001:db8::7
hip HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cI server
zonemd ZONEMD 1 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
resinfo RESINFO qnamemin
talink TALINK a b
mb MB address
";

/// Returns the output of a command that succeeds.
fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hedgerow")).args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
