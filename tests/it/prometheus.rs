//! What comes for Prometheus, Alertmanager and Grafana beside what it is for: their own checkers, and a real
//! Prometheus that scrapes a real server.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hedgerow::control::observe::sight::verdict::{RULES, VerdictRule};
use serde_json::Value;
use tempfile::TempDir;
use testkit::*;

use crate::docs::{Document, top};

/// A file of `deploy/`.
fn deployed(path: &str) -> String {
    fs::read_to_string(top().join("deploy").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a program in the folder of the rules; none if it is not there.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).current_dir(top().join("deploy/prometheus")).output().ok()
}

/// Checks that a program is content.
fn check(test: &str, program: &str, arguments: &[&str]) {
    let Some(output) = run(program, arguments) else { return leave_out(test, &format!("there is no {program}")) };
    let reported = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {reported}");
}

#[test]
fn rules_are_right_on_both_sides_of_their_bounds() {
    let test = "rules_are_right_on_both_sides_of_their_bounds";
    check(test, "promtool", &["check", "rules", "hedgerow.rules.yml"]);
    check(test, "promtool", &["test", "rules", "hedgerow.test.yml"]);
    check(test, "amtool", &["check-config", "alertmanager.yml"]);
    let (rules, tests) = (deployed("prometheus/hedgerow.rules.yml"), deployed("prometheus/hedgerow.test.yml"));
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect::<Vec<_>>();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        let reported = tests.matches(&format!("alertname: {alert}\n        exp_alerts")).count();
        let silent = tests.matches(&format!("alertname: {alert} }}")).count();
        assert!(reported > 0 && silent > 0, "{alert} is tried on one side of its bound only, or on none");
    }
}

/// Reasons of the verdict and alerts have the same names and severities.
#[test]
fn every_rule_of_the_verdict_has_an_alert() {
    let rules = deployed("prometheus/hedgerow.rules.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("labels: { severity: ")).collect();
    for VerdictRule { code, state, .. } in RULES {
        let alert = format!("{}, code: {code} }}", state.label());
        assert!(alerts.contains(&alert.as_str()), "no alert is labelled {alert}: {alerts:?}");
    }
}

/// Each alert links to instructions.
#[test]
fn every_alert_has_a_runbook() {
    let rules = deployed("prometheus/hedgerow.rules.yml");
    let anchors = Document::read("docs/src/operate.md").anchors();
    let alerts = rules.matches("- alert: ").count();
    let runbooks: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(runbooks.len(), alerts);
    for runbook in runbooks {
        let anchor = runbook.strip_prefix("docs/src/operate.md#").unwrap_or_else(|| panic!("{runbook} is elsewhere"));
        assert!(anchors.iter().any(|known| known == anchor), "operate.md has no #{anchor}");
    }
}

#[test]
fn alerts_and_panels_name_metrics_that_are_told_of() {
    let known: BTreeSet<String> =
        Document::read("docs/src/metrics.md").table("Name").into_iter().map(|row| row[0].replace('`', "")).collect();
    for path in ["prometheus/hedgerow.rules.yml", "grafana/hedgerow.json"] {
        let text = deployed(path);
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
        let words: BTreeSet<_> = text.split(|c| !is_part(c)).collect();
        let is_metric = |word: &&&str| {
            (word.starts_with("hedgerow_") || word.starts_with("process_")) && !word.contains(':') && word.len() > 9
        };
        let metrics: Vec<_> = words.iter().filter(is_metric).collect();
        assert!(metrics.len() >= 8, "{path}: {metrics:?}");
        for metric in metrics {
            let family =
                ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
            assert!(known.contains(family), "{path}: docs/src/metrics.md has no {family}");
        }
    }
}

/// A Prometheus that scrapes each second.
struct Prometheus {
    _daemon: Daemon,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one that scrapes this address; none if there is none here.
    fn start(test: &str, scraped: SocketAddr) -> Option<Self> {
        let mut command = Command::new(need_program(test, "prometheus")?);
        let address = free_address();
        let rules = top().join("deploy/prometheus/hedgerow.rules.yml");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n  \
             - {{ job_name: hedgerow, static_configs: [{{ targets: ['{scraped}'] }}] }}\n",
            rules.display()
        );
        let daemon = Daemon::start(|folder| {
            let file = folder.join("prometheus.yml");
            fs::write(&file, config).expect("our own folder");
            command.arg(format!("--config.file={}", file.display()));
            command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
            command.arg(format!("--web.listen-address={address}"));
            command
        });
        Some(Self { _daemon: daemon, address })
    }

    /// Returns the response below `/api/v1/`, or `None` if Prometheus does not answer yet.
    fn ask(&self, path: &str, query: &str) -> Option<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let query = format!("query={query}");
        let mut command = Command::new("curl");
        let output = command.args(["-sG", "--noproxy", "*", "--data-urlencode", &query, &url]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }
}

/// The expressions of all panels, with all instances and pools chosen, and a window that a scrape each second
/// fills.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&deployed("grafana/hedgerow.json")).expect("JSON");
    let variables: Vec<_> =
        dashboard["templating"]["list"].as_array().expect("variables").iter().map(|v| &v["name"]).collect();
    assert!(variables.contains(&&"instance".into()) && variables.contains(&&"pool".into()), "{variables:?}");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let expression = |target: &Value| {
        let text = target["expr"].as_str().expect("an expression");
        text.replace("$instance", ".*").replace("$pool", ".*").replace("$__rate_interval", "15s")
    };
    targets.map(expression).collect()
}

#[test]
fn a_real_prometheus_finds_what_panels_and_rules_ask_for() {
    let test = "a_real_prometheus_finds_what_panels_and_rules_ask_for";
    let backend = Backend::new(answer("192.0.2.1"));
    let config = format!(
        "workers = 1\n[cache]\n[admin]\nlisten = '127.0.0.1:0'\n[forwarder]\nlisten = ['127.0.0.1:0']\n\
         [pools.all]\nbackends = ['{}']\n",
        backend.address()
    );
    let server = Server::start(&config);
    let Some(prometheus) = Prometheus::start(test, server.admin().address()) else { return };
    let mut missing = expressions();
    assert!(missing.len() >= 20, "{missing:?}");
    let client = server.client();
    // A rate needs two scrapes, and a busy machine its time.
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut last = Value::Null;
    while !missing.is_empty() {
        assert!(Instant::now() < deadline, "no series for {missing:#?}: {last}");
        assert_eq!(client.ask(&query("www.example", A)).rcode(), NOERROR);
        missing.retain(|expression| {
            let Some(reported) = prometheus.ask("query", expression) else { return true };
            last = reported;
            last["data"]["result"].as_array().is_none_or(Vec::is_empty)
        });
    }
    let rules = until("the rules are evaluated", || {
        let reported = prometheus.ask("rules", "")?;
        let groups = reported["data"]["groups"].as_array()?.clone();
        let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().cloned()).flatten().collect();
        let is_evaluated = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
        is_evaluated.then_some(rules)
    });
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert!(rule["state"] != "firing", "{rule}");
    }
    let metrics = server.admin().get("/metrics").body;
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("metrics");
    fs::write(&file, metrics).expect("our own folder");
    let input = fs::File::open(&file).expect("it was written");
    match Command::new("promtool").args(["check", "metrics"]).stdin(input).output() {
        Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{output:?}"),
        Err(_) => leave_out(test, "there is no promtool"),
    }
}
