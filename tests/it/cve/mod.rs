//! The corpus of `docs/src/cve.md`: attacks on other servers of 2024 to 2026, each sent to hedgerow. The
//! names of the tests state the rule that holds; comments give the CVE numbers.

mod cache;
mod edns;
mod messages;
mod names;
mod page;
mod replies;
mod transports;
mod web;

use std::time::Duration;

use testkit::*;

/// The address in honest replies.
const TRUE: &str = "192.0.2.1";

/// The address in forged records.
const FORGED: &str = "203.0.113.66";

/// The CPU time that a server has used so far.
fn cpu_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.process.id())).expect("it is running");
    let (_, fields) = stat.rsplit_once(") ").expect("the name of the program is in parentheses");
    // proc(5): fields 14 and 15, in ticks of 10 ms; the state is field 3.
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// A forwarder with a cache, and an authority for `www.example.org`, in one process.
fn both(backend: &Backend, pool: &str) -> Server {
    let config = Forwarder::to(&[backend], pool).cache("").admin().to_toml()
        + "[authorities.ts]\nlisten = ['127.0.0.1:0']\nzones = ['hosts.txt']\nmiss = 'nxdomain'\n";
    Server::start_with_files(&config, &[("hosts.txt", "www.example.org 192.0.2.1 A\n")])
}

/// Asserts that a new client gets its answer, from the forwarder's backend.
fn assert_served(server: &Server) {
    assert_eq!(server.client().ask(&query("served.example", A)).answers(), [TRUE]);
}

/// Returns a name of 255 octets, the longest there is.
fn longest_name() -> String {
    let label = "a".repeat(63);
    format!("{label}.{label}.{label}.{}", "a".repeat(61))
}
