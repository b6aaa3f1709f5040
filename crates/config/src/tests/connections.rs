//! Tests of the limits of connections.

use std::path::Path;
use std::time::Duration;

use limit::ConnectionRules;

use super::super::Config;
use super::check;

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
        ("in_flight = 0", "13: forwarder.connections.in_flight: invalid value 0: expected an integer from 1 to 10000"),
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
