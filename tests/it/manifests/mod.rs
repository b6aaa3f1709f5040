//! What `deploy/` has for Kubernetes and etcd. `render`, kustomize and Helm make objects of the files. A
//! program that knows the schemas of Kubernetes checks them, and hedgerow the configs in them.

mod chart;
mod etcd;
mod monitoring;
mod node_local;
mod overlays;
mod pods;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testkit::leave_out;

use super::docs::top;

const OVERLAYS: [&str; 3] = ["forwarder", "fleet", "node-local"];

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The folder where `.ci/run` puts a tool.
fn tool(name: &str) -> PathBuf {
    top().join("target/tools").join(name)
}

/// Python with PyYAML, which comes with kubernetes-validate. Without it, the test is left out.
fn python(test: &str) -> Option<Command> {
    let command = || {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", tool("kubernetes-validate")).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        command
    };
    if command().args(["-c", "import yaml"]).output().is_ok_and(|ran| ran.status.success()) {
        return Some(command());
    }
    leave_out(test, "python3 has no PyYAML");
    None
}

/// The objects that one program has rendered of one folder or chart.
struct Objects(Vec<Value>);

impl Objects {
    /// The objects that `render` makes of a folder. Without PyYAML, the test is left out.
    fn render(test: &str, folder: &Path) -> Option<Self> {
        let mut command = python(test)?;
        let output = command.arg(top().join("deploy/kubernetes/render")).arg("--json").arg(folder).output();
        let output = output.expect("python3 runs");
        assert!(output.status.success(), "{}", text_of(&output));
        Some(Self(serde_json::from_slice(&output.stdout).expect("JSON")))
    }

    /// The objects of an overlay.
    fn of_overlay(test: &str, overlay: &str) -> Option<Self> {
        Self::render(test, &top().join("deploy/kubernetes/overlays").join(overlay))
    }

    fn find(&self, kind: &str, name: &str) -> &Value {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.0.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    /// A file of a ConfigMap.
    fn file(&self, map: &str, file: &str) -> &str {
        self.find("ConfigMap", map)["data"][file].as_str().unwrap_or_else(|| panic!("{map} has no {file}"))
    }

    /// Sorted by kind and name, for comparisons.
    fn sorted(mut self) -> Vec<Value> {
        self.0.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
        self.0
    }
}

/// Changes each text and each table in a value, from the inside out.
fn change(value: &mut Value, with: &impl Fn(&mut Value)) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|field| change(field, with)),
        Value::Array(elements) => elements.iter_mut().for_each(|element| change(element, with)),
        _ => {}
    }
    with(value);
}
