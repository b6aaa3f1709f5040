//! The measured latency of backends outlives a stop with `state_dir`, and a crash with `[supervisor]`. A new
//! backend starts with the latency of its pool.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hedgerow::control::CarriedState;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::tree::Tree;
use testkit::*;

use crate::support::running::Running;

const ADDRESS: &str = "192.0.2.1";

/// Returns the p50 of a backend as `ctl explain` shows it; `None` if hedgerow does not know it.
fn p50(admin: &Admin, backend: SocketAddr) -> Option<f64> {
    let answer = admin.try_post("/api/v1/explain", &json!({ "name": "explained.example", "type": "A" }).to_string());
    let explained: Value = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("JSON: {answer:?}"));
    let candidates = explained["candidates"].as_array().expect("a list");
    let known = candidates.iter().find(|candidate| candidate["backend"] == backend.to_string())?;
    known["p50_ms"].as_f64()
}

fn ask(client: &Client, names: usize) {
    (0..names).for_each(|number| drop(client.ask(&query(&format!("n{number}.example"), A))));
}

#[test]
fn a_start_continues_with_the_latency_in_state_dir() {
    let (folder, backend) = (TempDir::new().expect("a folder"), Backend::new(answer(ADDRESS)));
    let file = folder.path().join("state/latency.json");
    let state = format!("state_dir = '{}'\n", folder.path().join("state").display());
    let config = format!("{state}{}", Forwarder::to(&[&backend], "").workers(2).admin().to_toml());
    let in_process = config.replace("[admin]\n", "[admin]\nsocket = 'SOCKET'\n");
    {
        let first = Running::start(&in_process, |_| CarriedState::default());
        assert_eq!(p50(&first.admin, backend.address()), None);
        ask(&first.client(), 100);
        first.run(|server| {
            server.save_latency(Instant::now() + Duration::from_secs(60));
            std::future::ready(())
        });
        until("the file", || file.exists().then_some(()));
    }
    let second = Running::start(&in_process, |_| CarriedState::default());
    assert!(p50(&second.admin, backend.address()).is_some());
    drop(second);
    let whole = std::fs::read_to_string(&file).expect("our own folder");
    for (text, is_known, logged) in [
        (whole.clone(), true, "ready"),
        (whole[..whole.len() / 2].to_owned(), false, "WARN"),
        (whole.replace("\"version\":1", "\"version\":0"), false, "WARN"),
        (whole.replace("\"history\":{", "\"history\":7,\"unknown\":{"), true, "the saved history is ignored"),
    ] {
        std::fs::write(&file, text).expect("our own folder");
        let server = Server::start(&config);
        assert_eq!(p50(&server.admin(), backend.address()).is_some(), is_known, "{}", server.process.log());
        let warnings = server.process.log().matches("the saved latency is ignored").count();
        assert_eq!(warnings, usize::from(!is_known), "{}", server.process.log());
        server.process.wait_for_log(logged);
        ask(&server.client(), 1);
    }
}

#[test]
fn a_standby_continues_with_the_latency_of_a_killed_server() {
    let backend = Backend::new(answer(ADDRESS));
    let config = format!("{}[supervisor]\n", Forwarder::to(&[&backend], "").workers(2).admin().to_toml());
    let tree = Tree::start_config(&config, &[], 2, |command| {
        command.env("HEDGEROW_LOG", "info,hedgerow::supervisor=debug");
    });
    ask(&tree.server.client(), 100);
    until("both standbys have the latency", || {
        (tree.server.process.log().matches("the saved latency has come").count() >= 2).then_some(())
    });
    let server = tree.pid("server");
    tree.kill(&[server]);
    tree.server_other_than(&[server]);
    assert!(p50(&tree.server.admin(), backend.address()).is_some(), "{}", tree.server.process.log());
    tree.wait_until_whole();
    assert_eq!(backend.queries().iter().filter(|query| query.name().starts_with('n')).count(), 100);
}

#[test]
fn a_new_backend_starts_with_the_latency_of_its_pool() {
    let (old, new) = (Backend::new(answer(ADDRESS)), Backend::new(answer(ADDRESS)));
    for workers in [1, 2] {
        let server = Forwarder::to(&[&old], "").workers(workers).admin().start();
        ask(&server.client(), 100);
        server.admin().post("/api/v1/pools/all/backends", &json!({ "address": new.address() }).to_string());
        let asked = until("the latency of the new backend", || {
            p50(&server.admin(), new.address())?;
            Some(server.admin().metrics().attempts(new.address(), None))
        });
        assert!(asked < 50, "{asked} attempts were enough for a latency without the saved one");
    }
}
