//! The JSON Schema of the configuration beside the readers that it comes from, by a program that editors use:
//! `taplo`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use config::Config;
use tempfile::TempDir;
use testkit::*;

use crate::docs::{Document, completed_fragment, top};

/// A config that mistakes are made in.
const GOOD: &str = r#"
workers = 2
busy_poll = "20us"
[forwarder]
listen = ["127.0.0.1:5300", "[::1]:5300"]
allow = ["192.0.2.0/24", "::1"]
edns_udp_size = 1232
[forwarder.routes]
"." = "ts"
"example.org" = "ts"
[forwarder.rate_limit]
slip = 2
[pools.ts]
backends = ["127.0.0.1:5301", { address = "127.0.0.1:5302", name = "b", weight = 2 }]
dispatch = "hedge"
balance = "fastest"
grace = "auto"
timeout = "1s 30ms"
tries = 1
cache = true
[pools.ts.hedge]
delay = "p99.9"
budget = 0.5
[pools.ts.health]
probe = { name = ".", type = "NS" }
[authorities.a]
listen = ["127.0.0.1:5301", "tls://127.0.0.1", { address = "tls://[::1]:8853", certificate = "main" }, "TCP://127.0.0.2"]
ttl = "1h"
zones = ["a.txt", { file = "b.zone", origin = "b.example", transfer_to = ["key:k"] }, { zone = "c.example", primaries = ["192.0.2.1:53"] }, { catalog = "d.example", primaries = ["192.0.2.1:53"], groups.red = { tsig = "k" } }, { catalog = "e.example", produce = true }]
[certificates.main]
chain = "c.pem"
key = "k.pem"
names = ["*.a.example"]
[keys.k]
secret_file = "k.key"
[cache]
size = "64 MiB"
persist_every = "0s"
[admin]
listen = "127.0.0.1:5380"
socket = "off"
[supervisor]
watchdog = "10s"
[xdp]
interfaces = ["eth0", { name = "eth1", queues = [0, 3], mode = "native", zero_copy = "on" }]
"#;

/// Changes of [`GOOD`]: what stands there, and what is wrong instead.
const MISTAKES: &[(&str, &str)] = &[
    ("workers = 2", "wrokers = 2"),
    ("workers = 2", "workers = -1"),
    ("workers = 2", "workers = 1025"),
    ("workers = 2", "workers = \"2\""),
    ("workers = 2", "workers = 2.5"),
    ("\"20us\"", "20"),
    ("\"20us\"", "\"20\""),
    ("\"20us\"", "\"20 parsecs\""),
    ("listen = [\"127.0.0.1:5300\", \"[::1]:5300\"]", "listen = \"127.0.0.1:5300\""),
    ("listen = [\"127.0.0.1:5300\", \"[::1]:5300\"]", "listen = []"),
    ("[\"127.0.0.1:5300\", \"[::1]:5300\"]", "[\"localhost:5300\"]"),
    ("[\"127.0.0.1:5300\", \"[::1]:5300\"]", "[\"dot://127.0.0.1\"]"),
    ("[\"127.0.0.1:5300\", \"[::1]:5300\"]", "[{ address = \"tls://127.0.0.1\", certficate = \"main\" }]"),
    ("[\"192.0.2.0/24\", \"::1\"]", "[\"everybody\"]"),
    ("edns_udp_size = 1232", "edns_udp_size = 65535"),
    ("edns_udp_size = 1232", "upstream = \"192.0.2.1\""),
    ("\".\" = \"ts\"", "\".\" = [\"ts\"]"),
    ("slip = 2", "slip = 11"),
    ("slip = 2", "slips = 2"),
    ("backends = [", "backend = ["),
    ("\"127.0.0.1:5301\", {", "5301, {"),
    ("address = \"127.0.0.1:5302\", ", ""),
    ("weight = 2", "weight = 0"),
    ("weight = 2", "weigth = 2"),
    ("dispatch = \"hedge\"", "dispatch = \"hegde\""),
    ("dispatch = \"hedge\"", "dispatch = true"),
    ("balance = \"fastest\"", "balance = \"least_load\""),
    ("grace = \"auto\"", "grace = \"atuo\""),
    ("grace = \"auto\"", "grace = \"\""),
    ("tries = 1", "tries = 9"),
    ("cache = true", "cache = \"yes\""),
    ("delay = \"p99.9\"", "delay = \"99\""),
    ("delay = \"p99.9\"", "delay = 0.99"),
    ("budget = 0.5", "budget = 1.5"),
    ("budget = 0.5", "budget = \"5%\""),
    ("probe = { name = \".\", type = \"NS\" }", "probe = \".\""),
    ("ttl = \"1h\"", "ttl = 3600"),
    ("{ file = \"b.zone\", origin", "{ flie = \"b.zone\", origin"),
    ("primaries = [\"192.0.2.1:53\"]", "primary = [\"192.0.2.1:53\"]"),
    ("groups.red = { tsig", "groups.red = { tsgi"),
    ("produce = true", "produce = \"true\""),
    ("secret_file = \"k.key\"", "algorithm = \"hmac-sha256\""),
    ("secret_file = \"k.key\"", "secret_file = \"k.key\"\nsecret = \"c2VjcmV0IG9mIDE2IG9j\""),
    ("size = \"64 MiB\"", "size = \"64MB\""),
    ("size = \"64 MiB\"", "size = 67108864"),
    ("socket = \"off\"", "socket = false"),
    ("[supervisor]", "[supervisors]"),
    ("interfaces = [\"eth0\", {", "interfaces = [\"eth 0\", {"),
    ("interfaces = [\"eth0\", {", "interfaces = [0, {"),
    ("name = \"eth1\", ", ""),
    ("queues = [0, 3]", "queues = [0, 1024]"),
    ("queues = [0, 3]", "queues = []"),
    ("mode = \"native\"", "mode = \"driver\""),
    ("zero_copy = \"on\"", "zero_copy = true"),
];

/// `taplo`, from where `.ci/run` puts it, or as the machine has it.
fn taplo() -> Option<PathBuf> {
    let own = top().join("target/tools/taplo/bin/taplo");
    let found = [own, PathBuf::from("taplo")].into_iter();
    let is_there = |path: &PathBuf| Command::new(path).arg("--version").output().is_ok_and(|ran| ran.status.success());
    found.into_iter().find(is_there)
}

/// Runs `taplo check` on files, with the schema of the repository.
fn check(taplo: &Path, files: &[PathBuf]) -> Output {
    let schema = format!("file://{}", top().join("config.schema.json").display());
    let mut command = Command::new(taplo);
    command.args(["check", "--no-auto-config", "--schema", &schema]).args(files);
    command.output().expect("it is there")
}

/// Writes configs into files of a folder, each by its name.
fn write_all<'t>(folder: &TempDir, texts: impl IntoIterator<Item = (String, &'t str)>) -> Vec<PathBuf> {
    let write = |(name, text): (String, &str)| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("our own folder");
        path
    };
    texts.into_iter().map(write).collect()
}

#[test]
#[cfg_attr(not(feature = "xdp"), ignore = "some configs have [xdp]")]
fn every_config_of_ours_fits_the_schema() {
    let Some(taplo) = taplo() else {
        return leave_out("every_config_of_ours_fits_the_schema", "there is no taplo");
    };
    let mut texts = vec![("good.toml".to_owned(), GOOD.to_owned())];
    for document in Document::all() {
        for block in document.blocks().into_iter().filter(|block| block.has("toml") && !block.has("wrong")) {
            let text = if block.has("fragment") { completed_fragment(&block.text) } else { block.text };
            texts.push((format!("{}-{}.toml", document.path.replace('/', "-"), block.line), text));
        }
    }
    assert!(texts.len() >= 8, "{} configs", texts.len());
    for (name, text) in &texts {
        Config::parse(text, name, Path::new("/etc/hedgerow")).unwrap_or_else(|problems| panic!("{problems}"));
    }
    let folder = TempDir::new().expect("a temporary folder");
    let mut files = write_all(&folder, texts.iter().map(|(name, text)| (name.clone(), text.as_str())));
    files.push(top().join("config.toml"));
    let checked = check(&taplo, &files);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    // The file says itself where its schema is.
    let own = Command::new(&taplo).args(["check", "config.toml"]).current_dir(top()).output().expect("it is there");
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
}

#[test]
#[cfg_attr(not(feature = "xdp"), ignore = "the good config has [xdp]")]
fn mistakes_are_found_by_the_schema_as_by_the_readers() {
    let mut texts = Vec::new();
    for (index, (right, wrong)) in MISTAKES.iter().enumerate() {
        assert!(GOOD.contains(right), "{right}");
        let text = GOOD.replacen(right, wrong, 1);
        let read = Config::parse(&text, "c.toml", Path::new("/etc/hedgerow"));
        assert!(read.is_err(), "the readers take {wrong}");
        texts.push((format!("{index}.toml"), text));
    }
    assert!(texts.len() >= 30);
    let Some(taplo) = taplo() else {
        return leave_out("mistakes_are_found_by_the_schema_as_by_the_readers", "there is no taplo");
    };
    let folder = TempDir::new().expect("a temporary folder");
    let files = write_all(&folder, texts.iter().map(|(name, text)| (name.clone(), text.as_str())));
    for (file, (right, wrong)) in files.iter().zip(MISTAKES) {
        let checked = check(&taplo, std::slice::from_ref(file));
        assert!(!checked.status.success(), "the schema takes {wrong} in place of {right}");
    }
}
