//! Pools that would deny every name during an outage, with servers that are likely to be resolvers.

use std::net::IpAddr;

use crate::config::{BackendConfig, Config, PoolConfig};

/// Returns a warning for each pool without `serves` that denies names in an outage and has a public backend.
pub fn warnings(config: &Config) -> Vec<String> {
    let denies = |pool: &&PoolConfig| pool.serves.is_none() && pool.rules.denies_in_an_outage();
    let pools = config.pools.iter().filter(|_| config.forwarder.is_some()).filter(denies);
    let public = pools
        .filter_map(|pool| Some((pool, pool.backends.iter().find(|backend| is_public(backend.address.socket.ip()))?)));
    let warning = |(pool, backend): (&PoolConfig, &BackendConfig)| {
        format!(
            "pools.{}: {} is a public address and serves is not set: an outage will be NXDOMAIN for every name; \
             set serves = \"same\" (or \"split\")",
            pool.name, backend.address
        )
    };
    public.map(warning).collect()
}

/// Returns true for an address outside this host, private networks, links, and documentation (RFC 5737, RFC
/// 3849).
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            // RFC 6598: addresses behind a carrier's NAT.
            let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
            let is_here = ip.is_loopback() || ip.is_unspecified();
            !(is_here || is_shared || ip.is_private() || ip.is_link_local() || ip.is_documentation())
        }
        IpAddr::V6(ip) => {
            // RFC 3849.
            let is_documentation = matches!(ip.segments(), [0x2001, 0xdb8, ..]);
            let is_here = ip.is_loopback() || ip.is_unspecified();
            !(is_here || ip.is_unique_local() || ip.is_unicast_link_local() || is_documentation)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The warnings of a config with this pool.
    fn warnings_of(pool: &str) -> Vec<String> {
        let text = format!("[forwarder]\n[pools.resolvers]\n{pool}\n");
        warnings(&Config::parse(&text, "c.toml", Path::new("")).unwrap_or_else(|problems| panic!("{text}\n{problems}")))
    }

    #[test]
    fn public_backends_of_a_pool_without_serves_are_warned_of() {
        let public = "backends = [\"10.0.0.1\", \"tls://9.9.9.9#dns.quad9.net\"]";
        let expected = "pools.resolvers: tls://9.9.9.9:853 is a public address and serves is not set: an outage will be NXDOMAIN for every \
                        name; set serves = \"same\" (or \"split\")";
        assert_eq!(warnings_of(public), [expected]);
        assert_eq!(warnings_of(&format!("{public}\non_timeout = \"servfail\"")), [expected]);
        for lines in [
            "serves = \"same\"",
            "serves = \"split\"",
            "on_timeout = \"servfail\"\non_all_down = \"drop\"",
            "[defaults.pool]\nserves = \"same\"",
        ] {
            assert_eq!(warnings_of(&format!("{public}\n{lines}")), [""; 0], "{lines}");
        }
        assert_eq!(warnings_of("backends = [\"127.0.0.1\", \"192.168.0.1\", \"[fe80::1]\"]"), [""; 0]);
    }

    #[test]
    fn addresses_of_hosts_networks_and_links_are_not_public() {
        for (address, expected) in [
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("172.31.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.0.1", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("9.9.9.9", true),
            ("::ffff:10.0.0.1", false),
            ("::1", false),
            ("fd00::1", false),
            ("fe80::1", false),
            ("2620:fe::fe", true),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), expected, "{address}");
        }
    }
}
