//! `[forwarder.connections]` and `[authorities.*.connections]`: limits of TCP clients.

use super::section::ConfigSection;
use super::{limits, words};
use crate::limit::ConnectionRules;

pub(super) fn read(mut section: ConfigSection<'_>) -> ConnectionRules {
    let usual = ConnectionRules::default();
    let rules = ConnectionRules {
        max: section.integer("max", limits::CONNECTIONS, usual.max),
        per_client: section.integer("per_client", limits::CONNECTIONS_PER_CLIENT, usual.per_client),
        in_flight: section.integer("in_flight", limits::CONNECTION_IN_FLIGHT, usual.in_flight),
        first_query: section.parsed("first_query", |text| limits::FIRST_QUERY.parse(text), usual.first_query),
        idle: section.parsed("idle", |text| limits::CONNECTION_IDLE.parse(text), usual.idle),
        lifetime: section.parsed("lifetime", |text| limits::CONNECTION_LIFETIME.parse(text), usual.lifetime),
        unsent: section.parsed("unsent", words::size, usual.unsent),
        handshakes: section.integer("handshakes", limits::HANDSHAKES, usual.handshakes),
        early_data: section.boolean("early_data", usual.early_data),
    };
    section.finish();
    rules
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
