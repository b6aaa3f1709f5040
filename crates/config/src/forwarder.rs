//! `[forwarder]`: the listeners of the forwarder, and the routes from names to pools.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dns::Name;
use dns::address::ListenAddress;
use limit::AccessRules;

use super::clients::{read_access, read_connections, read_cookies, read_rate_limit, read_waiting};
use super::readers::{integer, text};
use super::references::References;
use super::rule::{self, RuleSurroundings};
use super::section::{ConfigNode, ConfigSection, DocumentSpot, note_repeats};
use super::{ForwarderConfig, PoolIndex, Route, listen, names, words};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);

pub(super) fn read<'d>(
    section: &mut ConfigSection<'d>,
    pools: &[&str],
    references: &mut References<'d>,
) -> ForwarderConfig {
    let listen = section.take("listen").map(|node| listen::read(&node, references)).unwrap_or_else(|| {
        references.listening.push(ListenAddress::plain(LISTEN), section.spot.clone());
        vec![LISTEN.into()]
    });
    ForwarderConfig {
        // RFC 6891 section 6.2.3 and section 6.2.5.
        edns_udp_size: section.read("edns_udp_size", ForwarderConfig::EDNS_UDP_SIZE, integer(512..=4096)),
        designated_resolver: section.optional("designated_resolver", text(words::host_name)),
        routes: match section.take("routes") {
            Some(node) => node.section().map(|routes| read_routes(&routes, pools)).unwrap_or_default(),
            None => default_routes(&section.spot, pools),
        },
        names: names::read(section),
        rules: {
            let around = RuleSurroundings { listen: &listen, pools };
            section.read("rules", Vec::new(), |node| rule::read(node, &around))
        },
        connections: section.below("connections", read_connections).unwrap_or_default(),
        cookies: read_cookies(section),
        access: read_access(section, &AccessRules::LOCAL),
        limits: section.below("limits", read_waiting).unwrap_or_default(),
        rate_limit: read_rate_limit(section, &listen),
        listen,
    }
}

fn read_routes(section: &ConfigSection<'_>, pools: &[&str]) -> Vec<Route> {
    let entries = section.named();
    if entries.is_empty() {
        return default_routes(&section.spot, pools);
    }
    let mut routes = Vec::new();
    let mut suffixes = Vec::new();
    for (key, node) in entries {
        // An unquoted example.org is two keys in TOML: a table "example" with a key "org".
        if node.table().is_some() {
            node.key.note("expected the name of a pool, not a table; a suffix with dots needs quotes");
            continue;
        }
        let pool = node.parsed(words::label).and_then(|pool| read_pool(&node, &pool, pools));
        let (is_below_only, suffix) = match key.strip_prefix("*.") {
            Some(suffix) => (true, suffix),
            None => (false, key),
        };
        let suffix = match words::domain_name(suffix) {
            Ok(suffix) => suffix,
            Err(expected) => {
                node.key.note(format!("invalid suffix {key:?}: {expected}"));
                continue;
            }
        };
        suffixes.push(((is_below_only, suffix.folded()), node.key));
        routes.extend(pool.map(|pool| Route { suffix, is_below_only, pool }));
    }
    note_repeats(suffixes, |(is_below_only, suffix)| {
        format!("{}{suffix} is routed", if *is_below_only { "*." } else { "" })
    });
    routes
}

pub(super) fn read_pool(node: &ConfigNode<'_>, pool: &str, pools: &[&str]) -> Option<PoolIndex> {
    let index = pools.iter().position(|&known| known == pool).map(PoolIndex);
    if index.is_none() {
        let remedy = match pools {
            [] => format!("add [pools.{pool}]"),
            pools => words::remedy(pool, pools.iter().copied()),
        };
        node.spot.note(format!("there is no pool {pool:?}, {remedy}"));
    }
    index
}

fn default_routes(spot: &DocumentSpot<'_>, pools: &[&str]) -> Vec<Route> {
    match pools {
        [_] => return vec![Route { suffix: Name::root(), is_below_only: false, pool: PoolIndex(0) }],
        [] => spot.note("there are no pools, add [pools.NAME] with backends"),
        [first, ..] => spot.note(format!(
            "routes are missing and there are {} pools, add [forwarder.routes] with \".\" = {first:?}",
            pools.len()
        )),
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::super::Config;
    use super::super::tests::check;

    #[test]
    fn forwarder_is_checked() {
        let pools = "[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[pools.tt]\nbackends = [\"192.0.2.1:53\"]\n";
        for (line, expected) in [
            ("listen = []", "2:10: forwarder.listen: expected at least one, such as [\"127.0.0.1:5300\"]"),
            (
                "listen = \"127.0.0.1:53\"",
                "2:10: forwarder.listen: expected an array such as [\"127.0.0.1:5300\"], not a string",
            ),
            (
                "listen = [53]",
                "2:11: forwarder.listen[0]: expected an IP address with its port, \
             such as \"127.0.0.1:53\" or \"[::1]:53\", not an integer",
            ),
            (
                "edns_udp_size = 511",
                "2:17: forwarder.edns_udp_size: invalid value 511: expected an integer from 512 to 4096",
            ),
            (
                "port = 53",
                "2:1: forwarder: unknown key \"port\", expected one of listen, edns_udp_size, designated_resolver, routes, \
             names, hosts_files, special_names, rules, connections, cookies, cookie_secrets_file, allow, deny, on_denied, limits, rate_limit",
            ),
            (
                "designated_resolver = \".\"",
                "2:23: forwarder.designated_resolver: invalid value \".\": \
             expected the name of a host, such as \"dns.example\"",
            ),
            (
                "designated_resolver = \"*.example\"",
                "2:23: forwarder.designated_resolver: invalid value \"*.example\": \
             expected the name of a host, such as \"dns.example\"",
            ),
            (
                "designated_resolver = \"192.0.2.1\"",
                "2:23: forwarder.designated_resolver: invalid value \"192.0.2.1\": \
             expected the name of a host, such as \"dns.example\"",
            ),
            ("routes = \"ts\"", "2:10: forwarder.routes: expected a table, not a string"),
            (
                "routes = { \".\" = \"tss\" }",
                "2:18: forwarder.routes.\".\": there is no pool \"tss\", expected one of ts, tt",
            ),
            ("routes = { \".\" = 1 }", "2:18: forwarder.routes.\".\": expected a string: put the integer in quotes"),
            ("routes = { \".\" = [\"ts\"] }", "2:18: forwarder.routes.\".\": expected a name, not an array"),
            (
                "routes = { example.org = \"ts\" }",
                "2:12: forwarder.routes.example: expected the name of a pool, not a table; \
             a suffix with dots needs quotes",
            ),
        ] {
            let line =
                if line.starts_with("routes") { line.to_owned() } else { format!("{line}\nroutes.\".\" = \"ts\"") };
            check(&format!("[forwarder]\n{line}\n{pools}"), &[expected]);
        }
    }

    #[test]
    fn routes_are_checked() {
        let pools = "[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[pools.other]\nbackends = [\"192.0.2.1:53\"]\n";
        let expected = "1:1: forwarder: routes are missing and there are 2 pools, \
                    add [forwarder.routes] with \".\" = \"ts\"";
        check(&format!("[forwarder]\n{pools}"), &[expected]);
        check(
            &format!("{pools}[forwarder.routes]\n\"Example.org\" = \"ts\"\n\"example.ORG.\" = \"othr\"\n"),
            &[
                "7:1: forwarder.routes.\"example.ORG.\": example.org. is routed twice, first on line 6",
                "7:18: forwarder.routes.\"example.ORG.\": there is no pool \"othr\", did you mean \"other\"?",
            ],
        );
    }

    #[test]
    fn routes_load_in_linear_time() {
        let load = |count: usize| {
            let mut text = "[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[forwarder.routes]\n".to_owned();
            (0..count).for_each(|i| text.push_str(&format!("\"{i}.example\" = \"ts\"\n")));
            // CPU time, since other programs may have the CPU for most of the time.
            let start = clock_gettime(ClockId::ThreadCPUTime);
            let config = Config::parse(&text, "c.toml", Path::new("")).expect("a sound config");
            let took = clock_gettime(ClockId::ThreadCPUTime) - start;
            let took = Duration::try_from(took).expect("a clock that runs forwards");
            assert_eq!(config.forwarder.map(|forwarder| forwarder.routes.len()), Some(count));
            took
        };
        let few = load(25_000).min(load(25_000));
        let many = load(100_000).min(load(100_000));
        // Linear time is four times as long for four times as many, quadratic time sixteen times.
        assert!(many < few * 8 && many < Duration::from_secs(10), "{few:?} for 25,000, {many:?} for 100,000");
    }

    #[test]
    fn a_bad_suffix_is_told() {
        let text = "[forwarder.routes]\n\"a..b\" = \"ts\"\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n";
        let problems = Config::parse(text, "c.toml", Path::new("")).expect_err("a bad suffix").to_string();
        let start = "c.toml:2:1: forwarder.routes.\"a..b\": invalid suffix \"a..b\": \
                 expected a domain name such as \"example.org\" (";
        assert!(problems.starts_with(start), "{problems}");
    }
}
