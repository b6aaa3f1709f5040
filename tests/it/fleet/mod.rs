//! Beyond one machine: members that come by themselves, orders for all.

mod churn;
mod etcd;
mod faults;
mod files;
mod gateway;
mod names;
mod orders;
mod poison;
mod quorum;
mod random;
mod register;
mod replaced;

use std::net::SocketAddr;

use serde_json::Value;
use testkit::peers::etcd::Etcd;
use testkit::*;

/// A config of a forwarder whose pool `ts` has these lines below `[pools.ts.discover]`, and the rest. The
/// client of a load stands for many clients: its queries may all wait.
fn forwarder(discover: &str, rest: &str) -> String {
    format!(
        "workers = 2\n[forwarder]\nlisten = ['127.0.0.1:0']\n[forwarder.limits]\nwaiting = 100000\n\
         [pools.ts]\ndispatch = 'hedge'\ntimeout = '10s'\n\
         attempt_timeout = '500ms'\nhealth = {{ interval = '200ms', timeout = '500ms' }}\n[pools.ts.discover]\n{discover}\n\
         [admin]\nlisten = '127.0.0.1:0'\n{rest}"
    )
}

/// The pool of a server, as its status has it.
fn pool(server: &Server) -> Value {
    let status: Value = serde_json::from_str(&server.admin().get("/api/v1/status").body).expect("JSON");
    status["pools"][0].clone()
}

/// Returns the members in order, each with its state.
fn members(server: &Server) -> Vec<(String, String)> {
    members_of(&pool(server))
}

fn members_of(pool: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let backends = pool["backends"].as_array().expect("a list");
    backends.iter().map(|backend| (text(&backend["address"]), text(&backend["state"]))).collect()
}

/// Waits until the pool, as the status has it, has a value that is looked for.
fn wait_for_pool<T>(server: &Server, what: &str, find: impl Fn(&Value) -> Option<T>) -> T {
    server.admin().wait_for_status(what, |status| find(&status["pools"][0]))
}

/// Waits until these are the members, in whatever state.
fn wait_for_members(server: &Server, expected: &[SocketAddr]) {
    let mut expected: Vec<_> = expected.to_vec();
    expected.sort();
    let expected: Vec<_> = expected.iter().map(SocketAddr::to_string).collect();
    wait_for_pool(server, &format!("{expected:?} are the members"), |pool| {
        members_of(pool).into_iter().map(|(address, _)| address).eq(expected.iter().cloned()).then_some(())
    });
}

/// Waits until all members are up, and there are so many.
fn wait_for_up(server: &Server, count: usize) {
    wait_for_pool(server, &format!("{count} members are up"), |pool| {
        let members = members_of(pool);
        (members.len() == count && members.iter().all(|(_, state)| state == "up")).then_some(())
    });
}

/// Waits until the first source of the pool is in this state.
fn wait_for_source(server: &Server, state: &str) -> Value {
    wait_for_pool(server, &format!("the source is {state}"), |pool| {
        let source = &pool["sources"][0];
        (source["state"] == state).then(|| source.clone())
    })
}

/// How often something has become of members of the pool.
fn changes(server: &Server, change: &str) -> u64 {
    server.admin().metrics().sum("hedgerow_discovery_changes_total", &[("pool", "ts"), ("change", change)])
}

/// Returns the refused entries of the first source.
fn refused(server: &Server) -> Vec<String> {
    let refused = pool(server)["sources"][0]["refused"].as_array().expect("a list").clone();
    let text = |refused: &Value| format!("{}: {}", refused["entry"], refused["reason"]).replace('"', "");
    refused.iter().map(text).collect()
}

/// Backends that have an answer for each query of a load.
fn backends(count: usize) -> Vec<Backend> {
    (0..count).map(|_| Backend::new(load_answer())).collect()
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(Backend::address).collect()
}

/// The key of a member.
fn key(address: SocketAddr) -> String {
    format!("hedgerow/pools/ts/members/{address}")
}

/// Backends with their keys in etcd.
fn registered(etcd: &Etcd, count: usize) -> Vec<Backend> {
    let backends = backends(count);
    for backend in &backends {
        etcd.put(&key(backend.address()), &member(backend.address()));
    }
    backends
}

/// Starts a TS that registers under `ts`.
fn authority(etcd: &Etcd) -> Server {
    authority_with(etcd, "127.0.0.1:0", "", "")
}

/// The same, that listens there, with these lines at the head of its config, and these of its registration.
fn authority_with(etcd: &Etcd, listen: &str, head: &str, register: &str) -> Server {
    let config = format!(
        "workers = 1\n{head}\n[authorities.one]\nlisten = ['{listen}']\nzones = ['hosts.txt']\n[authorities.one.register]\netcd = 'ts'\n\
         lease = '2s'\n{register}\n[admin]\nlisten = '127.0.0.1:0'\n{}",
        etcd.section()
    );
    Server::start_with_files(&config, &[("hosts.txt", &load_table())])
}

fn listeners(authorities: &[Server]) -> Vec<SocketAddr> {
    authorities.iter().map(|authority| authority.listener("one")).collect()
}

/// An answer comes, whatever else.
fn is_answered(server: &Server) {
    assert_eq!(server.client().ask(&query("www.example", A)).answers(), ["192.0.2.1"]);
}

/// The JSON of a member.
fn member(address: SocketAddr) -> String {
    format!(r#"{{"address":"{address}"}}"#)
}

/// Queries per second of the loads here. A debug build needs a whole core for 5,000 (4.0 s of CPU in 4 s), so
/// on a machine that is a little busy it falls behind and drops queries as overload.
const RATE: u32 = if cfg!(debug_assertions) { 2_000 } else { 5_000 };

/// The same where a test has many processes or members on the cores of that server. When 20 members gave way
/// to 20 others at 5,000 on two cores that were busy already, a worker ran for 10 ms of each 100 ms and
/// waited for a core for the rest; what it could not answer it dropped, as it should
/// (`hedgerow_dropped_total{reason="overload"}`).
const RATE_OF_MANY: u32 = 1_000;
