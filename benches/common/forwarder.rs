//! The config of the LS under load.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The listener that the system gives a port to.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// A config with one pool, whose rules end with the lines given. Silence shows as a wrong answer, not as a
/// loss.
pub(crate) fn config(workers: u32, listen: SocketAddr, backends: &[SocketAddr], rules: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    config_of(workers, listen, &backends, rules)
}

/// Returns the config with backends written as in the config file.
pub(crate) fn config_of(workers: u32, listen: SocketAddr, backends: &[String], rules: &str) -> String {
    format!(
        r#"
workers = {workers}
[forwarder]
listen = ["{listen}"]
allow = ["127.0.0.0/8", "198.18.0.0/15"]
[forwarder.routes]
"." = "bench"
[pools.bench]
backends = [{}]
on_timeout = "servfail"
on_all_down = "servfail"
{rules}
"#,
        backends.join(", ")
    )
}
