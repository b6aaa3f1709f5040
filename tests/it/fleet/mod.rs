//! Beyond one machine: members that come by themselves, orders for all.

mod etcd;
mod files;
mod gateway;
mod names;
mod orders;
mod poison;
mod register;

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::*;

/// A config of an LS whose pool `ts` has these lines below `[pools.ts.discover]`, and whatever else.
fn forwarder(discover: &str, rest: &str) -> String {
    format!(
        "workers = 2\n[forwarder]\nlisten = ['127.0.0.1:0']\n[pools.ts]\ndispatch = 'hedge'\ntimeout = '10s'\n\
         attempt_timeout = '500ms'\nhealth = {{ interval = '200ms', timeout = '500ms' }}\n[pools.ts.discover]\n{discover}\n\
         [admin]\nlisten = '127.0.0.1:0'\n{rest}"
    )
}

/// The pool of a server, as its status has it.
fn pool(server: &Server) -> Value {
    let status: Value = serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("JSON");
    status["pools"][0].clone()
}

/// Who is a member, in order, each with its state.
fn members(server: &Server) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let backends = pool(server)["backends"].as_array().expect("a list").clone();
    backends.iter().map(|backend| (text(&backend["address"]), text(&backend["state"]))).collect()
}

/// Waits until these are the members, in whatever state.
fn wait_for_members(server: &Server, expected: &[SocketAddr]) {
    let mut expected: Vec<_> = expected.to_vec();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(SocketAddr::to_string).collect();
    until(&format!("{expected:?} are the members"), || {
        let found: Vec<_> = members(server).into_iter().map(|(address, _)| address).collect();
        (found == expected).then_some(())
    });
}

/// Waits until all members are up, and there are so many.
fn wait_for_up(server: &Server, count: usize) {
    until(&format!("{count} members are up"), || {
        let members = members(server);
        (members.len() == count && members.iter().all(|(_, state)| state == "up")).then_some(())
    });
}

/// Waits until the source of this place in the status is in this state.
fn wait_for_source(server: &Server, state: &str) -> Value {
    until(&format!("the source is {state}"), || {
        let source = pool(server)["sources"][0].clone();
        (source["state"] == state).then_some(source)
    })
}

/// What is refused of the first source.
fn refused(server: &Server) -> Vec<String> {
    let refused = pool(server)["sources"][0]["refused"].as_array().expect("a list").clone();
    let text = |refused: &Value| format!("{}: {}", refused["entry"], refused["reason"]).replace('"', "");
    refused.iter().map(text).collect()
}

/// The JSON of a member.
fn member(address: SocketAddr) -> String {
    format!(r#"{{"address":"{address}"}}"#)
}
