//! Backends that are the forwarder itself. A listener on all addresses of this host makes any of them a loop;
//! only the host knows these addresses.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, ListenConfig};
use crate::net::sys::bind::is_of_this_host;

/// Returns an error line for each backend that is the forwarder itself.
pub fn describe(config: &Config) -> String {
    describe_with(config, is_of_this_host)
}

fn describe_with(config: &Config, is_ours: impl Fn(IpAddr) -> bool) -> String {
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
            let describe = describe_with(&config, |ip| ip.to_string() == "192.0.2.1");
            assert_eq!(!describe.is_empty(), expected, "{listen} {backend}: {describe}");
            assert!(!expected || describe.contains(&format!("{backend} is this forwarder itself")), "{describe}");
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
        // RFC 5737: a documentation address, which no host has.
        assert!(!is_of_this_host("192.0.2.77".parse().expect("an address")));
    }
}
