//! What `deploy/` has for Kubernetes and etcd: manifests by a program that knows all schemas, configs in them
//! by hedgerow, roles by an etcd that enforces them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use config::Config;
use tempfile::TempDir;
use testkit::peers::etcd::Etcd;
use testkit::*;

use super::docs::top;

const MANIFESTS: [&str; 2] = ["deploy/kubernetes.yaml", "deploy/kubernetes/fleet.yaml"];

/// The checker of manifests, if there is one that runs: from where `.ci/run` puts it, or as the machine has
/// it.
fn kubernetes_validate() -> Option<Command> {
    let folder = top().join("target/tools/kubernetes-validate");
    let programs = [folder.join("bin/kubernetes-validate"), PathBuf::from("kubernetes-validate")];
    let command = |program: &PathBuf| {
        let mut command = Command::new(program);
        command.env("PYTHONPATH", &folder);
        command
    };
    let runs = |program: &&PathBuf| command(program).arg("--version").output().is_ok_and(|ran| ran.status.success());
    programs.iter().find(runs).map(command)
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn manifests_are_what_kubernetes_takes() {
    let check = |files: &[PathBuf]| {
        let mut command = kubernetes_validate()?;
        command.args(["--strict", "--kubernetes-version", "1.37"]).args(files).stdin(Stdio::null());
        Some(command.output().expect("it is installed"))
    };
    let Some(output) = check(&MANIFESTS.map(|file| top().join(file))) else {
        return leave_out("manifests::manifests_are_what_kubernetes_takes", "kubernetes-validate is not installed");
    };
    assert!(output.status.success(), "{}", text_of(&output));
    let documents = MANIFESTS.map(|file| manifest(file).split("\n---\n").count()).iter().sum::<usize>();
    assert_eq!(text_of(&output).matches(" passed for resource ").count(), documents, "{}", text_of(&output));
    // And it would say so.
    let folder = TempDir::new().expect("a temporary folder");
    let wrong = folder.path().join("wrong.yaml");
    fs::write(&wrong, manifest(MANIFESTS[1]).replacen("preStop:", "preStopp:", 1)).expect("our own folder");
    let output = check(&[wrong]).expect("it was there");
    assert!(!output.status.success() && text_of(&output).contains("preStopp"), "{}", text_of(&output));
}

fn manifest(file: &str) -> String {
    fs::read_to_string(top().join(file)).expect("it is there")
}

/// A file of a ConfigMap of the fleet, with the indentation taken off.
fn file_of(map: &str, file: &str) -> String {
    let manifest = manifest(MANIFESTS[1]);
    let (_, rest) = manifest.split_once(&format!("name: {map}\ndata:\n")).expect("there is such a map");
    let (data, _) = rest.split_once("\n---\n").expect("another document comes behind");
    let (_, text) = data.split_once(&format!("  {file}: |\n")).expect("there is such a file");
    let lines = text.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or_default())).collect()
}

/// Runs `hedgerow check` on a config with these files beside it.
fn check(config: &str, files: &[(&str, String)]) -> Output {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("config.toml"), config).expect("our own folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("our own folder");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(["check", "-c"]).arg(folder.path().join("config.toml")).output().expect("cargo has built the binary")
}

#[test]
fn the_ts_of_the_fleet_has_a_config_and_a_zone_that_are_right() {
    let (config, zone) = (file_of("hedgerow-ts", "config.toml"), file_of("hedgerow-ts", "example.zone"));
    let output = check(&config, &[("example.zone", zone)]);
    assert!(output.status.success(), "{}", text_of(&output));
    let config = Config::parse(&config, "config.toml", Path::new("/etc/hedgerow")).expect("it was right");
    ends_in_time("hedgerow-ts", config.process.drain_delay.as_secs());
}

#[test]
fn the_ls_of_the_fleet_has_a_config_that_is_right() {
    let config = file_of("hedgerow-ls", "config.toml").replace("/var/lib/hedgerow", "state");
    let output = check(&config, &[]);
    assert!(output.status.success(), "{}", text_of(&output));
    let config = Config::parse(&config, "config.toml", Path::new("/etc/hedgerow")).expect("it was right");
    ends_in_time("hedgerow-ls", config.process.drain_delay.as_secs());
}

/// A pod has time to end in: the sleep of preStop, `drain_delay`, the default timeout of a pool, and a
/// second.
fn ends_in_time(name: &str, drain_delay: u64) {
    let manifest = manifest(MANIFESTS[1]);
    let deployment = manifest
        .split("\n---\n")
        .find(|document| document.contains("kind: Deployment") && document.contains(&format!("name: {name}\n")));
    let deployment = deployment.expect("there is such a deployment");
    let number = |key: &str| {
        let (_, rest) = deployment.split_once(&format!("{key}: ")).unwrap_or_else(|| panic!("no {key}"));
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().expect("a number")
    };
    let longest = number("seconds") + drain_delay + 3 + 1;
    assert!(number("terminationGracePeriodSeconds") > longest, "{name} needs {longest} s");
    for path in ["/readyz", "/healthz"] {
        assert!(deployment.contains(&format!("path: {path}, port: admin")), "{name}: no probe asks {path}");
    }
}

/// One etcd, and its command line.
struct Store(Etcd);

impl Store {
    /// Runs etcdctl as a user, if one is named: whether it has succeeded, and what it has said.
    fn control(&self, user: &str, words: &[&str]) -> (bool, String) {
        self.run(Command::new("etcdctl").args(words), user)
    }

    /// Runs a command that is etcdctl, or calls it.
    fn run(&self, command: &mut Command, user: &str) -> (bool, String) {
        command.env("ETCDCTL_API", "3").stdin(Stdio::null());
        command.env("ETCDCTL_ENDPOINTS", format!("http://{}", self.0.address()));
        if !user.is_empty() {
            command.env("ETCDCTL_USER", user);
        }
        let output = command.output().expect("it is installed");
        (output.status.success(), text_of(&output))
    }
}

#[test]
fn roles_of_etcd_let_everybody_do_what_it_has_to_and_no_more() {
    let Some(etcd) = Etcd::start() else { return };
    let etcd = Store(etcd);
    let roles = || {
        let mut roles = Command::new(top().join("deploy/etcd/roles"));
        roles.args(["fleet", "ts", "other"]);
        roles.envs([("LS_PASSWORD", "l"), ("TS_PASSWORD", "t"), ("OPERATOR_PASSWORD", "o")]);
        roles
    };
    // Twice: what is there is left.
    for _ in 0..2 {
        let (is_done, said) = etcd.run(&mut roles(), "");
        assert!(is_done, "{said}");
    }
    for words in [&["user", "add", "root:r"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]] {
        let (is_done, said) = etcd.control("", words);
        assert!(is_done, "{said}");
    }
    let (is_done, said) = etcd.run(&mut roles(), "root:r");
    assert!(is_done, "with authentication: {said}");
    let [ls, ts, operator] = ["fleet-ls:l", "fleet-ts-ts:t", "fleet-operator:o"];
    let may = |user: &str, words: &[&str]| {
        let (is_done, said) = etcd.control(user, words);
        assert!(is_done, "{user} {words:?}: {said}");
        said
    };
    let may_not = |user: &str, words: &[&str]| {
        let (is_done, said) = etcd.control(user, words);
        assert!(!is_done && said.contains("permission denied"), "{user} {words:?}: {said}");
    };
    let (member, others) = ("fleet/pools/ts/members/192.0.2.1:53", "fleet/pools/other/members/192.0.2.1:53");
    let order = "fleet/orders/ts/ts1";
    // A TS registers under a lease, reads its key, and takes it away with the lease.
    let granted = may(ts, &["lease", "grant", "60"]);
    let lease = granted.split_whitespace().nth(1).expect("its number");
    may(ts, &["put", "--lease", lease, member, "{\"address\":\"192.0.2.1:53\"}"]);
    may(ts, &["get", member]);
    may(ts, &["lease", "keep-alive", "--once", lease]);
    may_not(ts, &["put", others, "{}"]);
    may_not(ts, &["get", others]);
    may_not(ts, &["put", order, "{}"]);
    // An LS reads members and orders, by prefix, and writes nothing.
    for prefix in ["fleet/pools/ts/members/", "fleet/pools/other/members/", "fleet/orders/"] {
        may(ls, &["get", "--prefix", prefix]);
    }
    assert!(may(ls, &["get", "--prefix", "fleet/pools/ts/members/"]).contains("192.0.2.1:53"));
    for key in [member, order] {
        may_not(ls, &["put", key, "{}"]);
        may_not(ls, &["del", key]);
    }
    // The operator gives orders, and has no say about members.
    may(operator, &["put", order, "{\"order\":\"drain\"}"]);
    may(operator, &["del", order]);
    may_not(operator, &["put", member, "{}"]);
    may(ts, &["lease", "revoke", lease]);
    assert!(!may(ls, &["get", "--prefix", "fleet/pools/ts/members/"]).contains("192.0.2.1:53"));
}
