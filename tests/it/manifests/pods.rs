//! The pods of the overlays: their configs are right, and agree with the pods around them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use config::Config;
use serde_json::Value;
use tempfile::TempDir;

use super::{Objects, text_of};

/// Runs `hedgerow check` on a config with these files beside it.
fn check(config: &str, files: &[(&str, &str)]) -> Output {
    let folder = TempDir::new().expect("a temporary folder");
    fs::write(folder.path().join("config.toml"), config).expect("our own folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("our own folder");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.args(["check", "-c"]).arg(folder.path().join("config.toml")).output().expect("cargo has built the binary")
}

/// Checks the config of a part, and its pods.
fn require_right(objects: &Objects, kind: &str, name: &str, files: &[(&str, &str)]) {
    let text = objects.file(name, "config.toml");
    let output = check(&text.replace("/var/lib/hedgerow", "state"), files);
    assert!(output.status.success(), "{name}: {}", text_of(&output));
    let config = Config::parse(text, "config.toml", Path::new("/etc/hedgerow")).expect("it was right");
    let pod = &objects.find(kind, name)["spec"]["template"]["spec"];
    ends_in_time(name, pod, &config);
    is_probed(name, pod, &config);
    assert_eq!(pod["volumes"].as_array().and_then(|all| all.last()).expect("a volume")["configMap"]["name"], name);
}

/// A pod has time to end in: the sleep of preStop, `drain_delay`, the longest timeout of a pool, and a
/// second.
fn ends_in_time(name: &str, pod: &Value, config: &Config) {
    let sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap_or_default();
    let timeout = config.pools.iter().map(|pool| pool.rules.race.timeout.as_secs()).max().unwrap_or_default();
    let longest = sleep + config.process.drain_delay.as_secs() + timeout + 1;
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
    assert!(grace > longest, "{name} needs {longest} s");
}

/// The probes ask the port of the admin server, and all ports have names.
fn is_probed(name: &str, pod: &Value, config: &Config) {
    let container = &pod["containers"][0];
    let ports: Vec<_> = container["ports"].as_array().expect("a list").iter().map(|port| &port["name"]).collect();
    assert_eq!(ports, ["dns", "dns-tcp", "admin"], "{name}");
    let admin = config.admin.as_ref().expect("probes ask it").listen;
    assert_eq!(container["ports"][2]["containerPort"], admin.port(), "{name}");
    for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path, "{name}");
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name}");
    }
}

#[test]
fn pods_of_the_forwarder_are_right() {
    let test = "manifests::pods::pods_of_the_forwarder_are_right";
    let Some(objects) = Objects::of_overlay(test, "forwarder") else { return };
    require_right(&objects, "Deployment", "hedgerow", &[]);
}

#[test]
fn pods_of_the_fleet_are_right() {
    let test = "manifests::pods::pods_of_the_fleet_are_right";
    let Some(objects) = Objects::of_overlay(test, "fleet") else { return };
    require_right(&objects, "Deployment", "hedgerow-ls", &[]);
    let zone = objects.file("hedgerow-ts", "example.zone");
    require_right(&objects, "Deployment", "hedgerow-ts", &[("example.zone", zone)]);
    // The forwarders look for the service that selects the authorities, and for nothing else.
    let service = objects.find("Service", "hedgerow-ts");
    assert_eq!(service["spec"]["clusterIP"], "None");
    let pods = &objects.find("Deployment", "hedgerow-ts")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&service["spec"]["selector"], pods);
    assert_ne!(pods, &objects.find("Deployment", "hedgerow-ls")["spec"]["template"]["metadata"]["labels"]);
    assert!(objects.file("hedgerow-ls", "config.toml").contains("_dns._udp.hedgerow-ts.default.svc.cluster.local"));
}

#[test]
fn pods_of_nodes_are_right() {
    let test = "manifests::pods::pods_of_nodes_are_right";
    let Some(objects) = Objects::of_overlay(test, "node-local") else { return };
    require_right(&objects, "DaemonSet", "hedgerow-node-local", &[]);
    let pod = &objects.find("DaemonSet", "hedgerow-node-local")["spec"]["template"]["spec"];
    assert_eq!((&pod["hostNetwork"], &pod["dnsPolicy"]), (&true.into(), &"Default".into()));
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    let text = objects.file("hedgerow-node-local", "config.toml");
    assert!(text.contains("\nlisten = [\"169.254.20.10:53\"]\n"));
    // The config asks the services of this overlay, which select the pods of CoreDNS.
    let service = objects.find("Service", "kube-dns-upstream");
    let address = service["spec"]["clusterIP"].as_str().expect("an address");
    assert_eq!(text.matches(&format!("\"{address}:53\"")).count(), 2, "{address}");
    assert!(text.contains("_dns._udp.kube-dns-pods.kube-system.svc.cluster.local"));
    for name in ["kube-dns-upstream", "kube-dns-pods"] {
        let spec = &objects.find("Service", name)["spec"];
        assert_eq!(spec["selector"], serde_json::json!({ "k8s-app": "kube-dns" }));
        assert_eq!(spec["ports"][0]["name"], "dns");
    }
    // hedgerow becomes another user, and needs no more than that and the port.
    assert!(text.contains("\nuser = \"65534:65534\"\n"));
    let rights = &pod["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(rights, &serde_json::json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE", "SETGID", "SETUID"] }));
    // hedgerow starts when the addresses are there, and they stay until it has ended.
    let addresses = &pod["initContainers"][0];
    assert_eq!(addresses["restartPolicy"], "Always");
    let command: Vec<_> = addresses["command"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(command, ["sh", "/etc/hedgerow/addresses"]);
    assert!(objects.file("hedgerow-node-local", "addresses").starts_with("#!/bin/sh\n"));
}
