//! `hedgerow simulate` as it is typed: its table, its JSON, its exit codes, and what it asks of a running
//! server.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use testkit::*;

/// Runs `hedgerow simulate` with these arguments in a folder.
fn simulate(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedgerow"));
    command.arg("simulate").args(arguments).current_dir(folder).env("http_proxy", "http://127.0.0.1:1");
    command.output().expect("cargo has built the binary")
}

/// The same where files do not matter.
fn simulate_anywhere(arguments: &[&str]) -> Output {
    simulate(TempDir::new().expect("a folder for the test").path(), arguments)
}

/// Stdout of a run that went well.
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The JSON of a run that went well.
fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

/// Checks the exit code of a run and what it said of the mistake.
fn check_mistake(output: &Output, code: i32, reported: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(reported), "{said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn table_has_a_row_for_each_policy_and_the_scenario_above() {
    let arguments =
        ["-b", "latency=1ms", "-b", "latency=2ms", "-p", "first", "-p", "race", "-n", "3000", "--seed", "7"];
    let text = stdout(&simulate_anywhere(&arguments));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "3000 queries at 3000/s (1s) to 2 backends, seed 7");
    let columns = "POLICY P50 ms P90 ms P99 ms P99.9 ms MAX ms EXTRA LOAD HEDGES DENIED LOST";
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(lines[2]), columns);
    assert_eq!(words(lines[3]), "first 1.00 1.00 1.00 1.00 1.00 0.00 % 0 0");
    assert_eq!(words(lines[4]), "race 1.00 1.00 1.00 1.00 1.00 100.00 % 0 0");
    assert_eq!(lines.len(), 5);
}

#[test]
fn without_a_word_there_is_a_demonstration() {
    let text = stdout(&simulate_anywhere(&["-n", "5000"]));
    let policies = ["sequential", "race", "hedge delay=auto budget=5%", "auto budget=5%", "hedge delay=p90"];
    assert!(policies.iter().all(|policy| text.contains(&format!("\n{policy} "))), "{text}");
}

#[test]
fn same_seed_makes_the_same_table() {
    let of_seed = |seed| stdout(&simulate_anywhere(&["-n", "5000", "--seed", seed]));
    let one = of_seed("1");
    assert_eq!(one, of_seed("1"));
    assert_ne!(one.lines().nth(4), of_seed("2").lines().nth(4));
}

#[test]
fn json_is_for_scripts() {
    let found = json(&simulate_anywhere(&["-b", "loss=100%", "-b", "", "-p", "race", "-n", "500", "--json"]));
    assert_eq!((&found["queries"], &found["seed"], &found["backends"]), (&500.into(), &1.into(), &2.into()));
    let policy = &found["policies"][0];
    assert_eq!((&policy["policy"], &policy["lost"], &policy["hedges_wasted"]), (&"race".into(), &0.into(), &0.into()));
    assert_eq!((&policy["attempts"]["hedge"], &policy["extra_load"]), (&0.into(), &1.0.into()));
    let keys = |value: &Value| {
        let mut keys: Vec<_> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort_unstable();
        keys.join(" ")
    };
    // As docs/src/simulate.md has them: scripts rely on it.
    assert_eq!(keys(&found), "backends policies queries rate seed");
    let expected = "attempts cached extra_load hedges_denied hedges_wasted hedges_won joined latency_ms lost policy";
    assert_eq!(keys(policy), expected);
    assert_eq!(keys(&policy["attempts"]), "failover first hedge");
    assert_eq!(keys(&policy["latency_ms"]), "max p50 p90 p99 p99.9");
    assert!(policy["latency_ms"]["p99.9"].as_f64().is_some_and(|ms| (0.99..=1.01).contains(&ms)), "{policy}");
}

#[test]
fn scenario_is_read_from_a_file_and_the_command_line_goes_before() {
    let folder = TempDir::new().expect("a folder for the test");
    let text = "queries = 2_000\nseed = 5\npolicies = ['race', { dispatch = 'hedge', budget = 0.1 }]\n\
                [[backends]]\nlatency = '7ms'\ncount = 2\n";
    std::fs::write(folder.path().join("s.toml"), text).expect("a file of the test");
    let text = stdout(&simulate(folder.path(), &["-f", "s.toml", "-n", "1000"]));
    assert!(text.starts_with("1000 queries at 3000/s (333ms) to 2 backends, seed 5\n"), "{text}");
    assert!(text.contains("\nhedge budget=0.1 ") && text.contains(" 7.00 "), "{text}");
    std::fs::write(folder.path().join("s.toml"), "qeries = 1").expect("a file of the test");
    let output = simulate(folder.path(), &["-f", "s.toml"]);
    check_mistake(&output, 2, "s.toml:1:1: qeries: unknown key, did you mean \"queries\"?");
}

#[test]
fn plot_is_an_svg_file() {
    let folder = TempDir::new().expect("a folder for the test");
    stdout(&simulate(folder.path(), &["-n", "2000", "-p", "race", "-p", "sequential", "--plot", "tail.svg"]));
    let svg = std::fs::read_to_string(folder.path().join("tail.svg")).expect("the plot");
    assert!(svg.contains("<svg") && svg.contains("sequential"), "{svg}");
    // The error comes before the first query is played: so many queries would take all day.
    let output = simulate(folder.path(), &["-n", "1000000000", "--plot", "no/such.svg"]);
    check_mistake(&output, 1, "--plot: no/such.svg: cannot be written: entity not found: folder no");
    let names: Vec<_> =
        folder.path().read_dir().expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(names, ["tail.svg"], "nothing else is left behind");
}

#[test]
fn mistakes_are_exit_code_2_and_told_with_their_place() {
    let folder = TempDir::new().expect("a folder for the test");
    let pool = "[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.ts]\nbackends = ['192.0.2.1:53']\n";
    std::fs::write(folder.path().join("c.toml"), pool).expect("a file of the test");
    for (arguments, reported) in [
        (&["-b", "latnecy=1ms"][..], "--backend \"latnecy=1ms\": latnecy: unknown key, did you mean \"latency\"?"),
        (&["-b", "latency=fast"], "invalid value \"fast\": expected a latency such as 1ms, uniform(1ms,3ms)"),
        (&["-p", "hegde"], "--policy \"hegde\": dispatch: invalid value \"hegde\": expected one of race"),
        (&["--plot", "-"], "expected the name of a file, such as tail.svg"),
        (&["-p", "present"], "there is no pool yet, name its config with --from"),
        (&["-n", "0"], "expected a number from 1"),
        (&["--rate", "fast"], "expected queries per second"),
        (&["--slow", "20"], "expected a factor such as 20x"),
        (&["-f", "no.toml"], "no.toml: cannot be read"),
        (&["--status", "127.0.0.1:1"], "--from"),
        (&["--from", "no.toml"], "no.toml: there is no such config file"),
        (&["--from", "c.toml"], "has only the rules, expected --status URL or --backend WORDS too"),
        (&["--from", "c.toml", "--pool", "st"], "c.toml: there is no pool \"st\""),
        (&["--from", "c.toml", "--status", "https://a.example"], "speaks no TLS"),
    ] {
        check_mistake(&simulate(folder.path(), arguments), 2, reported);
    }
    // No server can listen on port 0.
    let output = simulate(folder.path(), &["--from", "c.toml", "--status", "127.0.0.1:0"]);
    check_mistake(&output, 1, "cannot be reached");
}

#[test]
fn rules_of_a_config_are_compared_with_others() {
    let folder = TempDir::new().expect("a folder for the test");
    let pool = "[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.ts]\nbackends = ['192.0.2.1:53']\n\
                dispatch = 'sequential'\nattempt_timeout = '50ms'\n";
    std::fs::write(folder.path().join("c.toml"), pool).expect("a file of the test");
    let arguments = ["--from", "c.toml", "-b", "loss=100%", "-b", "", "-p", "present", "-n", "1000", "--json"];
    let found = json(&simulate(folder.path(), &arguments));
    // A query that goes to the lossy backend first gets the other's answer after the pool's
    // `attempt_timeout`.
    let max = found["policies"][0]["latency_ms"]["max"].as_f64();
    assert!(max.is_some_and(|max| (50.9..51.1).contains(&max)), "{found}");
}

#[test]
fn backends_are_played_as_a_running_server_found_them() {
    let one = Backend::new(answer("192.0.2.1").after(ms(20)));
    let other = Backend::new(answer("192.0.2.1").after(ms(20)));
    let keys = "dispatch = 'sequential'\nbalance = 'round-robin'";
    let server = Forwarder::to(&[&one, &other], keys).admin().start();
    let config = server.path("config.toml");
    let config = config.to_str().expect("UTF-8");
    let admin = server.listener("admin").to_string();
    let ask = |arguments: &[&str]| {
        let from = ["--from", config, "--status", &admin, "-n", "5000"];
        simulate_anywhere(&[&from[..], arguments].concat())
    };
    check_mistake(&ask(&[]), 1, "expected 50 at least: let it serve for a while");

    let client = server.client();
    for name in 0..120 {
        client.send(&query(&format!("{name}.example"), A));
    }
    (0..120).for_each(|_| drop(client.receive()));
    let text = stdout(&ask(&[]));
    for policy in ["present", "race", "hedge delay=p90", "hedge delay=auto budget=2%"] {
        assert!(text.contains(&format!("\n{policy} ")), "{text}");
    }
    let found = json(&ask(&["--json", "-p", "present", "-p", "hedge delay=p90"]));
    for policy in found["policies"].as_array().expect("a list") {
        let p50 = policy["latency_ms"]["p50"].as_f64().expect("a number");
        assert!(p50 >= 18.0 && policy["lost"] == 0, "{policy}");
    }
}
