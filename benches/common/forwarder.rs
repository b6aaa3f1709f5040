//! The config of the LS under load.

use std::net::SocketAddr;

/// A config with one pool, whose rules end with the lines given. Silence shows as a wrong answer, not as a loss.
pub(crate) fn config(backends: &[SocketAddr], rules: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    format!(
        r#"
workers = 1
[forwarder]
listen = ["127.0.0.1:0"]
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
