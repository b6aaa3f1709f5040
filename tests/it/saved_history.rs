//! The history of the admin page outlives a restart and a crash with `[supervisor]`, and a stop with
//! `state_dir`.

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use testkit::tree::*;
use testkit::*;

/// Returns the queries of each second that the history shows, after it and each pool have all `expected` of
/// them. A killed process does not answer.
fn queries(server: &Server, expected: u64) -> Vec<(u64, u64)> {
    let numbers = |column: &Value| -> Vec<u64> {
        column.as_array().expect("a column").iter().map(|number| number.as_u64().unwrap_or(0)).collect()
    };
    until(&format!("{expected} queries in the history"), || {
        let answer = server.admin().try_get("/api/v1/history?span=10m")?;
        let history: Value = serde_json::from_str(&answer.body).expect("JSON");
        let (at, queries) = (numbers(&history["at"]), numbers(&history["queries"]));
        assert!(at.is_sorted() && at.len() == queries.len(), "{at:?}");
        let pools = history["pools"].as_array().expect("a list").iter().map(|pool| numbers(&pool["queries"]));
        let is_whole = |column: &Vec<u64>| column.iter().sum::<u64>() == expected;
        (is_whole(&queries) && pools.into_iter().all(|pool| is_whole(&pool)))
            .then(|| at.into_iter().zip(queries).collect())
    })
}

fn ask(client: &Client, count: usize) {
    (0..count).for_each(|_| drop(client.ask(&query("www.example", A))));
}

#[test]
fn a_restart_and_an_upgrade_hand_the_history_over() {
    let backend = Backend::new(answer(ADDRESS));
    let config = format!("{}[supervisor]\n", Forwarder::to(&[&backend], "").workers(2).admin().to_toml());
    let tree = Tree::start_config(&config, &[], 2, |_| {});
    ask(&tree.server.client(), 40);
    let mut before = queries(&tree.server, 40);
    for (command, expected) in [("restart", 45), ("upgrade", 50)] {
        let server = tree.pid("server");
        let (status, said) = ctl(&tree, &[command]);
        assert_eq!(status, Some(0), "{said}{}", tree.server.process.log());
        tree.server_other_than(&[server]);
        ask(&tree.server.client(), 5);
        let after = queries(&tree.server, expected);
        assert!(after.starts_with(&before), "{before:?} {after:?}");
        before = after;
    }
}

#[test]
fn a_standby_continues_the_history_of_a_killed_server() {
    let tree = Tree::start_as("", 2, |command| {
        command.env("HEDGEROW_LOG", "info,hedgerow::supervisor=debug");
    });
    ask(&tree.client(), 40);
    let before = queries(&tree.server, 40);
    until("both standbys have the history", || {
        (tree.server.process.log().matches("the saved latency has come").count() >= 2).then_some(())
    });
    let killed = [tree.pid("server"), tree.pid("supervisor")];
    tree.kill(&killed);
    tree.server_other_than(&killed);
    ask(&tree.client(), 5);
    let after = queries(&tree.server, 45);
    assert!(after.starts_with(&before), "{before:?} {after:?}");
    assert!(!tree.server.process.log().contains("is ignored"), "{}", tree.server.process.log());
}

#[test]
fn a_start_continues_the_history_in_state_dir() {
    let (folder, backend) = (TempDir::new().expect("a folder"), Backend::new(answer(ADDRESS)));
    let state = format!("state_dir = '{}'\n", folder.path().display());
    for (keys, is_kept) in [(&*state, true), ("", false)] {
        let config = format!("{keys}{}", Forwarder::to(&[&backend], "").admin().to_toml());
        let mut first = Server::start(&config);
        // The history begins with the first request for it.
        queries(&first, 0);
        ask(&first.client(), 40);
        let before = queries(&first, 40);
        first.process.signal(Signal::TERM);
        assert!(first.process.wait_for_exit().success());
        let second = Server::start(&config);
        let kept = if is_kept { 40 } else { 0 };
        queries(&second, kept);
        ask(&second.client(), 5);
        let after = queries(&second, kept + 5);
        assert_eq!(after.starts_with(&before), is_kept, "{before:?} {after:?}");
        assert!(!second.process.log().contains("is ignored"), "{}", second.process.log());
    }
}
