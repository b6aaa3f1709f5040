//! The overlays as a whole: each is valid, and `render` makes the same of it as kustomize.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use testkit::leave_out;

use super::{OVERLAYS, Objects, change, python, text_of, tool, top};

/// The API group of the Prometheus Operator. kubernetes-validate has no schemas of it: see `monitoring`.
const OPERATOR: &str = "monitoring.coreos.com/v1";

/// The checker of manifests, if there is one that runs: from where `.ci/run` puts it, or as the machine has
/// it.
fn kubernetes_validate() -> Option<Command> {
    let folder = tool("kubernetes-validate");
    let programs = [folder.join("bin/kubernetes-validate"), PathBuf::from("kubernetes-validate")];
    let command = |program: &PathBuf| {
        let mut command = Command::new(program);
        command.env("PYTHONPATH", &folder);
        command
    };
    let runs = |program: &&PathBuf| command(program).arg("--version").output().is_ok_and(|ran| ran.status.success());
    programs.iter().find(runs).map(command)
}

/// Runs the checker of manifests on these objects.
pub(super) fn validate(objects: &[Value]) -> Option<Output> {
    let folder = TempDir::new().expect("a temporary folder");
    let texts: Vec<_> = objects.iter().map(Value::to_string).collect();
    let file = folder.path().join("objects.yaml");
    fs::write(&file, texts.join("\n---\n")).expect("our own folder");
    let mut command = kubernetes_validate()?;
    command.args(["--strict", "--kubernetes-version", "1.37"]).arg(file).stdin(Stdio::null());
    Some(command.output().expect("it is installed"))
}

/// Requires that these objects are valid, those of the Prometheus Operator apart. Returns false if the test
/// is left out.
pub(super) fn require_valid(test: &str, objects: &Objects) -> bool {
    let known: Vec<_> = objects.0.iter().filter(|object| object["apiVersion"] != OPERATOR).cloned().collect();
    let Some(output) = validate(&known) else {
        leave_out(test, "kubernetes-validate is not installed");
        return false;
    };
    assert!(output.status.success(), "{}", text_of(&output));
    assert_eq!(text_of(&output).matches(" passed for resource ").count(), known.len(), "{}", text_of(&output));
    true
}

#[test]
fn overlays_are_what_kubernetes_takes() {
    let test = "manifests::overlays::overlays_are_what_kubernetes_takes";
    for overlay in OVERLAYS {
        let Some(objects) = Objects::of_overlay(test, overlay) else { return };
        if !require_valid(test, &objects) {
            return;
        }
    }
    // And it would say so.
    let Some(objects) = Objects::of_overlay(test, "forwarder") else { return };
    let mut wrong = objects.find("Deployment", "hedgerow").to_string();
    wrong = wrong.replacen("preStop", "preStopp", 1);
    let output = validate(&[serde_json::from_str(&wrong).expect("JSON")]).expect("it was there");
    assert!(!output.status.success() && text_of(&output).contains("preStopp"), "{}", text_of(&output));
}

/// The program that renders with kustomize, if there is one that runs.
fn kustomize() -> Option<Command> {
    let kubectl = tool("kubectl").join("bin/kubectl");
    let candidates =
        [(kubectl.as_path(), "kustomize"), (Path::new("kubectl"), "kustomize"), (Path::new("kustomize"), "build")];
    let runs = |(program, word): &&(&Path, &str)| {
        Command::new(program).args([word, "--help"]).output().is_ok_and(|ran| ran.status.success())
    };
    let (program, word) = candidates.iter().find(runs)?;
    let mut command = Command::new(program);
    command.arg(word).stdin(Stdio::null());
    Some(command)
}

/// The objects that kustomize makes of a folder.
fn by_kustomize(test: &str, folder: &Path) -> Option<Objects> {
    let Some(mut kustomize) = kustomize() else {
        leave_out(test, "neither kubectl nor kustomize is installed");
        return None;
    };
    let output = kustomize.arg(folder).output().expect("it is installed");
    assert!(output.status.success(), "{}", text_of(&output));
    let file = folder.join("by-kustomize.yaml");
    fs::write(&file, &output.stdout).expect("our own folder");
    let as_json = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = python(test)?.args(["-c", as_json]).arg(&file).output().expect("python3 runs");
    assert!(output.status.success(), "{}", text_of(&output));
    Some(Objects(serde_json::from_slice(&output.stdout).expect("JSON")))
}

/// Kustomize adds an empty line to texts that it folds.
fn without_empty_lines(mut objects: Vec<Value>) -> Vec<Value> {
    for object in &mut objects {
        change(object, &|value| {
            if let Value::String(text) = value {
                *text = text.replace("\n\n", "\n");
            }
        });
    }
    objects
}

/// A copy of the folders with all kustomizations.
fn copy() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    for source in ["deploy/kubernetes", "deploy/grafana"] {
        let copied = Command::new("cp").arg("-r").arg(top().join(source)).arg(folder.path()).status();
        assert!(copied.is_ok_and(|status| status.success()));
    }
    folder
}

/// The folder of an overlay with the component `monitoring`, in such a copy. Only node-local has it by
/// default.
pub(super) fn monitored(overlay: &str) -> (TempDir, PathBuf) {
    let copy = copy();
    let overlays = copy.path().join("kubernetes/overlays");
    if overlay == "node-local" {
        return (copy, overlays.join(overlay));
    }
    let folder = overlays.join("monitored");
    fs::create_dir(&folder).expect("our own folder");
    let text = format!("kind: Kustomization\nresources: [../{overlay}]\ncomponents: [../../components/monitoring]\n");
    fs::write(folder.join("kustomization.yaml"), text).expect("our own folder");
    (copy, folder)
}

#[test]
fn render_and_kustomize_make_the_same_objects() {
    let test = "manifests::overlays::render_and_kustomize_make_the_same_objects";
    for overlay in OVERLAYS {
        let (_copy, folder) = monitored(overlay);
        let Some(rendered) = Objects::render(test, &folder) else { return };
        let Some(built) = by_kustomize(test, &folder) else { return };
        assert!(rendered.0.iter().any(|object| object["kind"] == "PodMonitor"), "{overlay}");
        let (rendered, built) = (without_empty_lines(rendered.sorted()), without_empty_lines(built.sorted()));
        assert_eq!(rendered.len(), built.len(), "{overlay}");
        for (rendered, built) in rendered.iter().zip(&built) {
            assert_eq!(rendered, built, "{overlay}");
        }
    }
}

#[test]
fn render_rejects_what_it_does_not_know() {
    let test = "manifests::overlays::render_rejects_what_it_does_not_know";
    let change = |file: &str, from: &str, to: &str| {
        let copy = copy();
        let file = copy.path().join("kubernetes/overlays").join(file);
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.contains(from), "{}: {from}", file.display());
        fs::write(&file, text.replace(from, to)).expect("our own folder");
        let overlay = copy.path().join("kubernetes/overlays/node-local");
        let output = python(test)?.arg(copy.path().join("kubernetes/render")).arg(overlay).output();
        let output = output.expect("python3 runs");
        Some((output.status.code(), text_of(&output)))
    };
    for (file, from, to, finding) in [
        ("node-local/kustomization.yaml", "namespace:", "namePrefix:", "unknown field namePrefix"),
        ("node-local/pods/kustomization.yaml", "includeSelectors: true", "includeSelectors: false", "not known"),
        (
            "node-local/pods/kustomization.yaml",
            "disableNameSuffixHash: true",
            "immutable: true",
            "unknown field immutable",
        ),
        ("node-local/pods/daemonset.yaml", "/spec/replicas", "/spec/replicass", "no /spec/replicass to remove"),
        ("node-local/pods/daemonset.yaml", "op: replace", "op: move", "unknown operation move"),
        ("node-local/pods/pod.yaml", "tolerations:", "hostAliases:", "neither a list that is merged"),
        ("node-local/pods/pod.yaml", "  name: hedgerow\n", "  name: other\n", "0 objects match DaemonSet other"),
        ("node-local/coredns.yaml", "kube-dns-pods", "kube-dns-upstream", "two objects with one name"),
    ] {
        let Some((status, said)) = change(file, from, to) else { return };
        assert!(status == Some(1) && said.contains(finding), "{finding}: {said}");
    }
}
