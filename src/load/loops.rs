//! Backends that are the forwarder itself. Where it listens on all addresses of this host, any of them may be; which these are,
//! only the host knows.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, ListenConfig};
use crate::net::bind::is_of_this_host;

/// What is wrong with backends that are the forwarder itself, a line for each; empty if none is.
pub fn told(config: &Config) -> String {
    told_by(config, is_of_this_host)
}

fn told_by(config: &Config, is_ours: impl Fn(IpAddr) -> bool) -> String {
    let mut lines = String::new();
    let listen = config.forwarder.iter().flat_map(|forwarder| &forwarder.listen).map(ListenConfig::socket);
    for pool in &config.pools {
        for backend in &pool.backends {
            let reaches = |own: &SocketAddr| {
                own.port() == backend.address.port()
                    && (own.ip().to_canonical() == backend.address.ip().to_canonical()
                        || own.ip().is_unspecified() && is_ours(backend.address.ip()))
            };
            if let Some(own) = listen.clone().find(reaches) {
                let (pool, address) = (&pool.name, backend.address);
                let separator = if lines.is_empty() { "" } else { "\n" };
                let _ = write!(
                    lines,
                    "{separator}pools.{pool}: {address} is this forwarder itself, which listens on {own}, expected another server"
                );
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_forwarder_is_found_among_its_backends() {
        let check = |listen: &str, backend: &str, expected: bool| {
            let text = format!("[forwarder]\nlisten = [\"{listen}\"]\n[pools.p]\nbackends = [\"{backend}\"]\n");
            let config = Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{problems}"));
            let told = told_by(&config, |ip| ip.to_string() == "192.0.2.1");
            assert_eq!(!told.is_empty(), expected, "{listen} {backend}: {told}");
            assert!(!expected || told.contains(&format!("{backend} is this forwarder itself")), "{told}");
        };
        check("0.0.0.0:53", "192.0.2.1:53", true);
        check("[::]:53", "192.0.2.1:53", true);
        check("0.0.0.0:53", "192.0.2.1:54", false);
        check("0.0.0.0:53", "192.0.2.2:53", false);
        check("127.0.0.1:53", "192.0.2.1:53", false);
    }

    #[test]
    fn addresses_of_this_host_are_known() {
        assert!(is_of_this_host("127.0.0.1".parse().expect("an address")));
        // RFC 5737: for documentation, so that no host has it.
        assert!(!is_of_this_host("192.0.2.77".parse().expect("an address")));
    }
}
