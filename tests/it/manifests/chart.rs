//! The Helm chart, rendered by the code of Helm in a Python package: its objects are those of the overlays.

use serde_json::Value;
use testkit::leave_out;

use super::overlays::{monitored, require_valid};
use super::{OVERLAYS, Objects, change, python, text_of, tool, top};

/// Prints the objects of a chart as JSON. Arguments: the package, the chart, the namespace, the values.
const RENDER: &str = "
import json, sys, yaml
sys.path.insert(0, sys.argv[1])
import helm_python
with helm_python.Chart.load(sys.argv[2]) as chart:
    files = chart.render(json.loads(sys.argv[4]), name='hedgerow', namespace=sys.argv[3])
print(json.dumps([each for file in files.values() for each in yaml.safe_load_all(file) if each]))
";

/// The objects of the chart with these values; an error with what Helm has said.
fn by_helm(test: &str, namespace: &str, values: &Value) -> Option<Result<Objects, String>> {
    let package = tool("helm-python-sdk");
    if !package.exists() {
        leave_out(test, "helm-python-sdk is not installed");
        return None;
    }
    let mut command = python(test)?;
    command.args(["-c", RENDER]).arg(package).arg(top().join("deploy/helm/hedgerow"));
    let output = command.arg(namespace).arg(values.to_string()).output().expect("python3 runs");
    if !output.status.success() {
        return Some(Err(text_of(&output)));
    }
    Some(Ok(Objects(serde_json::from_slice(&output.stdout).expect("JSON"))))
}

/// The objects without what a release adds: its name among the labels. Helm has the namespace outside of
/// them.
fn comparable(objects: Objects) -> Vec<Value> {
    let mut objects = objects.sorted();
    for object in &mut objects {
        change(object, &|value| {
            if let Value::Object(fields) = value {
                fields.remove("app.kubernetes.io/instance");
                fields.remove("namespace");
            }
        });
    }
    objects
}

#[test]
fn chart_and_overlays_have_the_same_objects() {
    let test = "manifests::chart::chart_and_overlays_have_the_same_objects";
    for overlay in OVERLAYS {
        let namespace = if overlay == "node-local" { "kube-system" } else { "default" };
        let values = serde_json::json!({ "mode": overlay, "monitoring": { "enabled": true } });
        let (_copy, folder) = monitored(overlay);
        let Some(rendered) = Objects::render(test, &folder) else { return };
        let Some(chart) = by_helm(test, namespace, &values) else { return };
        let chart = chart.unwrap_or_else(|said| panic!("{said}"));
        if !require_valid(test, &chart) {
            return;
        }
        let (chart, rendered) = (comparable(chart), comparable(rendered));
        assert_eq!(chart.len(), rendered.len(), "{overlay}");
        for (chart, rendered) in chart.iter().zip(&rendered) {
            assert_eq!(chart, rendered, "{overlay}");
        }
    }
}

#[test]
fn values_of_the_chart_have_an_effect() {
    let test = "manifests::chart::values_of_the_chart_have_an_effect";
    let config = "[forwarder]\nlisten = [\"0.0.0.0:53\"]\n";
    let values = serde_json::json!({
        "config": { "forwarder": config }, "image": { "repository": "r.example/hedgerow", "tag": "7" },
        "replicas": { "forwarder": 5 }, "resources": { "forwarder": { "limits": { "memory": "1Gi" } } },
    });
    let Some(objects) = by_helm(test, "other", &values) else { return };
    let objects = objects.unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(objects.file("hedgerow", "config.toml"), config);
    let deployment = objects.find("Deployment", "hedgerow");
    assert_eq!(deployment["spec"]["replicas"], 5);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "r.example/hedgerow:7");
    assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
    assert!(objects.0.iter().all(|object| object["kind"] != "PodMonitor"));
    // The forwarders look for the service in the namespace of the release.
    let Some(objects) = by_helm(test, "other", &serde_json::json!({ "mode": "fleet" })) else { return };
    let objects = objects.unwrap_or_else(|said| panic!("{said}"));
    assert!(objects.file("hedgerow-ls", "config.toml").contains("\"_dns._udp.hedgerow-ts.other.svc.cluster.local\""));
    let Some(Err(said)) = by_helm(test, "other", &serde_json::json!({ "mode": "ls" })) else {
        panic!("an unknown mode was rendered");
    };
    assert!(said.contains("mode \"ls\" is not forwarder, fleet or node-local"), "{said}");
}
