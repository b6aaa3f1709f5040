//! The component `monitoring`. kubernetes-validate has no schema for the objects of the Prometheus Operator,
//! so these tests compare their fields.

use std::fs;

use serde_json::{Value, json};

use super::overlays::monitored;
use super::{OVERLAYS, Objects, python, text_of, top};

#[test]
fn prometheus_finds_the_pods_and_the_rules() {
    let test = "manifests::monitoring::prometheus_finds_the_pods_and_the_rules";
    for overlay in OVERLAYS {
        let (_copy, folder) = monitored(overlay);
        let Some(objects) = Objects::render(test, &folder) else { return };
        let monitor = objects.find("PodMonitor", "hedgerow");
        let endpoint = json!({
            "port": "admin", "path": "/metrics", "interval": "15s",
            "relabelings": [{ "targetLabel": "job", "replacement": "hedgerow" }],
        });
        let selected = json!({ "app.kubernetes.io/name": "hedgerow" });
        let spec = json!({ "selector": { "matchLabels": selected }, "podMetricsEndpoints": [endpoint] });
        assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
        assert_eq!(monitor["spec"], spec, "{overlay}");
        for object in objects.0.iter().filter(|object| object["kind"] == "Deployment" || object["kind"] == "DaemonSet")
        {
            let labels = &object["spec"]["template"]["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/name"], selected["app.kubernetes.io/name"], "{overlay}");
        }
        for policy in objects.0.iter().filter(|object| object["kind"] == "NetworkPolicy") {
            let scrape = &policy["spec"]["ingress"][1];
            assert_eq!(scrape["ports"], json!([{ "port": 5380, "protocol": "TCP" }]), "{overlay}");
        }
        let dashboard = objects.find("ConfigMap", "hedgerow-dashboard");
        assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
        let text = fs::read_to_string(top().join("deploy/grafana/hedgerow.json")).expect("it is there");
        assert_eq!(dashboard["data"]["hedgerow.json"], text);
    }
}

#[test]
fn rules_of_the_operator_are_those_of_prometheus() {
    let test = "manifests::monitoring::rules_of_the_operator_are_those_of_prometheus";
    let Some(objects) = Objects::of_overlay(test, "node-local") else { return };
    let as_json = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let Some(mut python) = python(test) else { return };
    let rules = python.args(["-c", as_json]).arg(top().join("deploy/prometheus/hedgerow.rules.yml")).output();
    let rules = rules.expect("python3 runs");
    assert!(rules.status.success(), "{}", text_of(&rules));
    let rules: Value = serde_json::from_slice(&rules.stdout).expect("JSON");
    let object = objects.find("PrometheusRule", "hedgerow");
    assert_eq!(object["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(object["spec"], rules);
}
