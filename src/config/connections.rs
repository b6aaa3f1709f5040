//! `[forwarder.connections]` and `[authorities.*.connections]`: limits of TCP clients.

use super::limits::{self, ms, secs};
use super::readers::{boolean, duration, integer, size};
use super::section::ConfigSection;
use crate::limit::ConnectionRules;

pub(super) fn read(section: &mut ConfigSection<'_>) -> ConnectionRules {
    let usual = ConnectionRules::default();
    ConnectionRules {
        // 0 is as many as there is room for. A process rarely has more descriptors.
        max: section.read("max", usual.max, integer(0..=1_000_000)),
        per_client: section.read("per_client", usual.per_client, integer(0..=1_000_000)),
        // Zero would answer none; each has a slot in a channel.
        in_flight: section.read("in_flight", usual.in_flight, integer(1..=10_000)),
        // Less than a round trip would close every connection.
        first_query: section.read("first_query", usual.first_query, duration(ms(100)..=secs(60))),
        idle: section.read("idle", usual.idle, duration(limits::CONNECTION_IDLE)),
        // Shorter, every other query would meet a closing connection.
        lifetime: section.read("lifetime", usual.lifetime, duration(secs(1)..=secs(7 * 86_400))),
        unsent: section.read("unsent", usual.unsent, size(limits::CACHE_SIZE)),
        // Handshakes per second of one client; 0 is no limit.
        handshakes: section.read("handshakes", usual.handshakes, integer(0..=1_000_000)),
        early_data: section.read("early_data", usual.early_data, boolean),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::Config;
    use super::super::tests::check;
    use super::*;

    fn config(lines: &str) -> String {
        format!(
            "[forwarder.connections]\n{lines}\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[authorities.a]\n\
             listen = [\"127.0.0.1:53\"]\nzones = [\"a\"]\n[authorities.a.connections]\n{lines}\n"
        )
    }

    #[test]
    fn both_sections_have_all_keys() {
        let lines = "max = 1\nper_client = 2\nin_flight = 3\nfirst_query = \"4s\"\nidle = \"5s\"\nlifetime = \"6s\"\nunsent = \"7MiB\"\nhandshakes = 8\nearly_data = true";
        let rules = ConnectionRules {
            max: 1,
            per_client: 2,
            in_flight: 3,
            first_query: Duration::from_secs(4),
            idle: Duration::from_secs(5),
            lifetime: Duration::from_secs(6),
            unsent: 7 << 20,
            handshakes: 8,
            early_data: true,
        };
        for (lines, rules) in [(lines, rules), ("", ConnectionRules::default())] {
            let config = Config::parse(&config(lines), "c.toml", Path::new("")).expect("a good config");
            let forwarder = config.forwarder.expect("there is one").connections;
            assert_eq!([forwarder, config.authorities[0].connections], [rules, rules]);
        }
    }

    #[test]
    fn values_are_checked() {
        for (line, expected) in [
            ("max = -1", "7: forwarder.connections.max: invalid value -1: expected an integer from 0 to 1000000"),
            (
                "in_flight = 0",
                "13: forwarder.connections.in_flight: invalid value 0: expected an integer from 1 to 10000",
            ),
            (
                "first_query = \"50ms\"",
                "15: forwarder.connections.first_query: invalid value \"50ms\": expected a duration from 100ms to 1m",
            ),
            (
                "lifetime = \"500ms\"",
                "12: forwarder.connections.lifetime: invalid value \"500ms\": expected a duration from 1s to 7days",
            ),
            (
                "unsent = \"64KiB\"",
                "10: forwarder.connections.unsent: invalid value \"64KiB\": expected a size from 1MiB to 64GiB",
            ),
            ("perclient = 1", "1: forwarder.connections: unknown key \"perclient\", did you mean \"per_client\"?"),
        ] {
            let text = format!("[forwarder.connections]\n{line}\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n");
            check(&text, &[&format!("2:{expected}")]);
        }
    }
}
