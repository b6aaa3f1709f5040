//! Orders for all LS.

use std::process::Output;

use serde_json::Value;

use super::*;

/// An LS with these backends in its config, and orders from etcd.
fn ls(backends: &[&Backend], etcd: &Etcd) -> Server {
    let addresses: Vec<_> = backends.iter().map(|backend| format!("'{}'", backend.address())).collect();
    Server::start(&format!(
        "[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.ts]\nbackends = [{}]\nhealth.interval = '200ms'\n[admin]\nlisten = '127.0.0.1:0'\n{}",
        addresses.join(", "),
        etcd.section()
    ))
}

fn ctl(server: &Server, words: &[&str]) -> Output {
    let url = format!("http://{}", server.admin().address());
    server.process.ctl(&[&["--admin", &url], words].concat())
}

/// How a backend stands, and the order that it is under.
fn backend(server: &Server, backend: &Backend) -> (String, Value) {
    let all = pool(server)["backends"].as_array().expect("a list").clone();
    let address = backend.address().to_string();
    let found = all.iter().find(|known| known["address"] == address).expect("it is there");
    (found["state"].as_str().expect("text").to_owned(), found["order"].clone())
}

fn wait_for(server: &Server, of: &Backend, state: &str) {
    until(&format!("it is {state}"), || (backend(server, of).0 == state).then_some(()));
}

#[test]
fn all_obey_and_by_hand_goes_first() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::new(answer("192.0.2.1")), Backend::new(answer("192.0.2.1")));
    let servers = [ls(&[&one, &two], &etcd), ls(&[&one, &two], &etcd)];
    let name = one.address().to_string();
    let output = ctl(&servers[0], &["drain", "ts", &name, "--fleet"]);
    assert!(output.status.success(), "{output:?}");
    for server in &servers {
        wait_for(server, &one, "draining");
        let (_, order) = backend(server, &one);
        assert_eq!(order["order"], "drain");
        assert!(order["by"].as_str().is_some_and(|by| by.contains('@')) && order["at"].is_string(), "{order}");
    }
    // What is set by hand on one of them goes before.
    assert!(ctl(&servers[0], &["up", "ts", &name]).status.success());
    wait_for(&servers[0], &one, "up");
    assert_eq!(backend(&servers[1], &one).0, "draining");
    assert!(ctl(&servers[0], &["auto", "ts", &name]).status.success());
    wait_for(&servers[0], &one, "draining");
    assert!(ctl(&servers[1], &["auto", "ts", &name, "--fleet"]).status.success());
    for server in &servers {
        wait_for(server, &one, "up");
        assert_eq!(backend(server, &one).1, Value::Null);
    }
}

#[test]
fn an_order_that_leaves_nobody_must_be_forced() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::new(answer("192.0.2.1")), Backend::new(answer("192.0.2.1")));
    let server = ls(&[&one, &two], &etcd);
    let [first, second] = [&one, &two].map(|backend| backend.address().to_string());
    assert!(ctl(&server, &["down", "ts", &first, "--fleet"]).status.success());
    wait_for(&server, &one, "down");
    let output = ctl(&server, &["drain", "ts", &second, "--fleet"]);
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && reported.contains("no other backend of pool ts takes queries"),
        "{reported}"
    );
    assert!(ctl(&server, &["drain", "ts", &second, "--fleet", "--force"]).status.success());
    wait_for(&server, &two, "draining");
}

#[test]
fn a_forgotten_order_ends_by_itself() {
    let Some(etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::new(answer("192.0.2.1")), Backend::new(answer("192.0.2.1")));
    let server = ls(&[&one, &two], &etcd);
    let name = one.address().to_string();
    let output = ctl(&server, &["down", "ts", &name, "--fleet", "--for", "5s"]);
    assert!(output.status.success(), "{output:?}");
    wait_for(&server, &one, "down");
    assert!(backend(&server, &one).1["until"].is_string());
    wait_for(&server, &one, "up");
    let output = ctl(&server, &["down", "ts", &name, "--fleet", "--for", "4s"]);
    assert_eq!(output.status.code(), Some(1), "a lease of etcd lasts 5 s at least");
}

#[test]
fn orders_in_force_stay_without_etcd_and_none_can_be_given() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (one, two) = (Backend::new(answer("192.0.2.1")), Backend::new(answer("192.0.2.1")));
    let server = ls(&[&one, &two], &etcd);
    let name = one.address().to_string();
    // An order as another program may write it, and beside it a value that is no order.
    etcd.put("hedgerow/orders/ts/x", "nonsense");
    etcd.put(&format!("hedgerow/orders/ts/{name}"), r#"{"order":"drain","by":"cron","at":"2026-11-23T00:00:00Z"}"#);
    wait_for(&server, &one, "draining");
    server.process.wait_for_log("an order in etcd is invalid");
    etcd.kill();
    server.process.wait_for_log("orders cannot be read from etcd");
    assert_eq!(backend(&server, &one).0, "draining");
    let output = ctl(&server, &["auto", "ts", &name, "--fleet"]);
    let reported = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1)
            && reported.contains(&format!("for this forwarder alone: hedgerow ctl auto ts {name}")),
        "{reported}"
    );
    etcd.restart();
    etcd.ctl(&["del", "--prefix", "hedgerow/orders/"]);
    wait_for(&server, &one, "up");
}
