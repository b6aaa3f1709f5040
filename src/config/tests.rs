//! Tests of whole files: what they give, every message, and that no text at all makes the reader panic.

use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::{Config, ProbeConfig, Problem};
use crate::policy::balance::Balance;
use crate::policy::{Accept, Dispatch, Grace, HedgeDelay, Rules, Silence};
use crate::zone::Miss;

/// The file that stands at the top of the repository.
const REFERENCE: &str = include_str!("../../config.toml");

/// Reads a text that has no problems.
fn parse(text: &str) -> Config {
    Config::parse(text, "c.toml", Path::new("/etc/hedgerow"))
        .unwrap_or_else(|p| panic!("{text}\n{p}"))
}

/// Checks the headlines of all problems of a text, each without the file's name.
fn check(text: &str, expected: &[&str]) {
    let problems = match Config::parse(text, "c.toml", Path::new("")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(Problem::headline).collect(),
    };
    let expected: Vec<_> = expected
        .iter()
        .map(|line| format!("c.toml:{line}"))
        .collect();
    assert_eq!(problems, expected, "\n{text}");
}

/// Checks the problem of a pool that has backends and then `line`, the third line of the file.
fn check_pool(line: &str, expected: &str) {
    let text = format!("[forwarder]\n[pools.ts]\n{line}\nbackends = [\"192.0.2.1:53\"]");
    check(&text, &[&format!("3:{expected}")]);
}

/// Checks the problem of an authority with `line`, the second line of the file.
fn check_authority(line: &str, expected: &str) {
    let mut text = format!("[authorities.ts1]\n{line}\n");
    for (key, value) in [
        ("listen", "[\"127.0.0.1:5301\"]"),
        ("zones", "[\"ts1.txt\"]"),
    ] {
        if !line.starts_with(key) {
            text += &format!("{key} = {value}\n");
        }
    }
    check(&text, &[&format!("2:{expected}")]);
}

#[test]
fn the_reference_shows_the_defaults() {
    let config = parse(REFERENCE);
    let least = parse(
        r#"
        [forwarder]
        [pools.ts]
        backends = ["127.0.0.1:5301", { address = "127.0.0.1:5302", name = "ts2" }]
        [authorities.ts1]
        listen = ["127.0.0.1:5301"]
        zones = ["zones/ts1.txt"]
        [authorities.ts2]
        listen = ["127.0.0.1:5302"]
        zones = ["zones/ts2.txt"]
        "#,
    );
    assert_eq!(config, least);
    assert_eq!(config.pools[0].rules, Rules::default());
    assert_eq!(config.pools[0].probe, ProbeConfig::default());
}

/// A key that the reference leaves out would be one that nobody finds.
#[test]
fn the_reference_shows_every_key() {
    for table in [
        "forwarder",
        "pools.ts",
        "pools.ts.hedge",
        "pools.ts.health",
        "authorities.ts1",
    ] {
        let header = format!("[{table}]\n");
        assert!(REFERENCE.contains(&header), "{header}");
        let text = REFERENCE.replacen(&header, &format!("{header}no_such_key = 1\n"), 1);
        let problems = Config::parse(&text, "c.toml", Path::new("")).expect_err("unknown key");
        let message = problems.to_string();
        let (_, keys) = message
            .split_once("expected one of ")
            .expect("the known keys");
        let keys = keys.lines().next().expect("a line").split(", ");
        let (_, section) = REFERENCE.split_once(&header).expect("the section");
        let section = section
            .split("\n[authorities.ts2]")
            .next()
            .expect("its text");
        for key in keys {
            let shown = section
                .lines()
                .any(|line| line.starts_with(&format!("{key} ")))
                || REFERENCE.contains(&format!(
                    "
[{table}.{key}]
"
                ));
            assert!(shown, "{table}.{key} is not in config.toml");
        }
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        workers = 2
        [forwarder]
        listen = ["[::1]:53", "127.0.0.1:0", "127.0.0.1:0"]
        edns_udp_size = 1400
        routes = { "Example.ORG" = "b", "." = "a" }
        [pools.b]
        backends = [{ address = "192.0.2.1:53", weight = 3 }]
        dispatch = "hedge"
        fanout = 2
        balance = "random"
        accept = "any"
        timeout = "2s"
        grace = "20ms"
        attempt_timeout = "30s"
        tries = 3
        on_timeout = "drop"
        on_all_down = "servfail"
        hedge = { delay = "p90", min_delay = "2ms", max_delay = "90ms", budget = 1, max = 2 }
        [pools.b.health]
        interval = "1m"
        every_queries = 1000
        timeout = "200ms"
        fall = 3
        rise = 4
        probe = { name = "example.org", type = "SOA" }
        [pools.a]
        backends = ["[2001:db8::1]:53"]
        [authorities.x]
        listen = ["127.0.0.1:5301"]
        zones = ["a.txt", { file = "/srv/b.txt" }]
        miss = "refused"
        ttl = "1h"
        "#,
    );
    assert_eq!(config.workers, NonZeroUsize::new(2));
    let forwarder = config.forwarder.expect("a forwarder");
    assert_eq!(forwarder.listen.len(), 3);
    assert_eq!(forwarder.edns_udp_size, 1400);
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "in the order of the file");
    let routes: Vec<_> = forwarder
        .routes
        .iter()
        .map(|r| (r.suffix.to_string(), r.pool))
        .collect();
    assert_eq!(
        routes,
        [("Example.ORG.".to_owned(), 0), (".".to_owned(), 1)]
    );

    let pool = &config.pools[0];
    assert_eq!(
        (pool.backends[0].name.as_str(), pool.backends[0].weight),
        ("192.0.2.1:53", 3)
    );
    let rules = &pool.rules;
    assert_eq!(rules.dispatch, Dispatch::Hedge);
    assert_eq!((rules.fanout, rules.tries), (2, 3));
    assert_eq!(rules.balance, Balance::Random);
    assert_eq!(rules.accept, Accept::Any);
    assert_eq!(rules.timeout, Duration::from_secs(2));
    assert_eq!(rules.grace, Grace::After(Duration::from_millis(20)));
    assert_eq!(rules.attempt_timeout, Duration::from_secs(30));
    assert_eq!(
        (rules.on_timeout, rules.on_all_down),
        (Silence::Drop, Silence::Servfail)
    );
    assert_eq!(rules.hedge.delay, HedgeDelay::Percentile(0.9));
    assert_eq!(rules.hedge.min_delay, Duration::from_millis(2));
    assert_eq!(rules.hedge.max_delay, Duration::from_millis(90));
    assert_eq!((rules.hedge.budget, rules.hedge.max), (1.0, 2));
    assert_eq!(rules.health.interval, Duration::from_secs(60));
    assert_eq!(rules.health.timeout, Duration::from_millis(200));
    assert_eq!(rules.health.every_queries, 1000);
    assert_eq!((rules.health.fall, rules.health.rise), (3, 4));
    assert_eq!(pool.probe.name.to_string(), "example.org.");

    let authority = &config.authorities[0];
    let files: Vec<_> = authority
        .zones
        .iter()
        .map(|zone| zone.file.as_path())
        .collect();
    assert_eq!(
        files,
        [Path::new("/etc/hedgerow/a.txt"), Path::new("/srv/b.txt")]
    );
    assert_eq!(
        (authority.miss, authority.ttl),
        (Miss::Refused, Duration::from_secs(3600))
    );
}

#[test]
fn every_problem_is_told_at_once_in_the_order_of_the_file() {
    let text = r#"
[forwarder]
listen = ["localhost:53"]
[forwarder.routes]
"." = "tz"

[pools.ts]
backends = ["127.0.0.1:5301"]
dispatch = "hegde"
fan_out = 2
timeout = 3
"#;
    check(
        text,
        &[
            "3:11: forwarder.listen[0]: invalid value \"localhost:53\": expected an IP address with its \
             port, not a host name, such as \"127.0.0.1:53\" or \"[::1]:53\"",
            "5:7: forwarder.routes.\".\": there is no pool \"tz\", expected one of ts",
            "9:12: pools.ts.dispatch: invalid value \"hegde\": expected one of race, hedge, sequential; \
             did you mean \"hedge\"?",
            "10:1: pools.ts: unknown key \"fan_out\", did you mean \"fanout\"?",
            "11:11: pools.ts.timeout: expected a duration with its unit, such as \"3s\" or \"3ms\", \
             not an integer",
        ],
    );
}

#[test]
fn a_problem_shows_its_line_and_a_caret() {
    let text = "[forwarder]\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\nfan_out = 2\n";
    let problems = Config::parse(text, "config.toml", Path::new("")).expect_err("unknown key");
    let expected = "config.toml:4:1: pools.ts: unknown key \"fan_out\", did you mean \"fanout\"?\n  \
                    4 | fan_out = 2\n    | ^^^^^^^";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn broken_toml_is_told_before_anything_else() {
    check(
        "worker = 1\na = \nb = 1__0\n[e]\n[e]\n[d\n",
        &[
            "2:5: string values must be quoted, expected literal string",
            "3:6: `_` may only go between digits",
            "5:2: duplicate key",
            "6:3: unclosed table, expected `]`",
        ],
    );
}

#[test]
fn something_must_be_there_to_run() {
    let expected = " nothing to run, add [forwarder] with [pools.NAME], or [authorities.NAME]";
    check("", &[expected]);
    check("[pools.ts]\nbackends = [\"192.0.2.1:53\"]", &[expected]);
    check(
        "[forwarder]",
        &["1:1: forwarder: there is nobody to ask, add [pools.NAME] with backends"],
    );
}

#[test]
fn sections_of_the_top_are_known() {
    let one = "[authorities.a]\nlisten = [\"127.0.0.1:53\"]\nzones = [\"a.txt\"]\n";
    for (line, expected) in [
        (
            "cache = 1",
            "1:1: unknown key \"cache\", expected one of workers, forwarder, pools, authorities",
        ),
        (
            "forwader = 1",
            "1:1: unknown key \"forwader\", did you mean \"forwarder\"?",
        ),
        (
            "forwarder = [{}]",
            "1:13: forwarder: expected a table, not an array",
        ),
        ("pools = 1", "1:9: pools: expected a table, not an integer"),
        (
            "pools.ts = 1",
            "1:12: pools.ts: expected a table, not an integer",
        ),
    ] {
        check(&format!("{line}\n{one}"), &[expected]);
    }
    check(
        "authorities.b = 1",
        &["1:17: authorities.b: expected a table, not an integer"],
    );
    check(
        "authorities = []",
        &["1:15: authorities: expected a table, not an array"],
    );
    for (value, what) in [
        (
            "1025",
            "invalid value 1025: expected an integer from 0 to 1024",
        ),
        ("-1", "invalid value -1: expected an integer from 0 to 1024"),
        (
            "\"all\"",
            "expected an integer from 0 to 1024, not a string",
        ),
        (
            "0xffff",
            "invalid value 0xffff: expected an integer from 0 to 1024",
        ),
        (
            "99999999999999999999",
            "invalid value 99999999999999999999: expected an integer from 0 to 1024",
        ),
    ] {
        check(
            &format!("workers = {value}\n{one}"),
            &[&format!("1:11: workers: {what}")],
        );
    }
}

#[test]
fn forwarder_is_checked() {
    let pools =
        "[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[pools.tt]\nbackends = [\"192.0.2.1:53\"]\n";
    for (line, expected) in [
        (
            "listen = []",
            "2:10: forwarder.listen: expected at least one, such as [\"127.0.0.1:5300\"]",
        ),
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
            "2:1: forwarder: unknown key \"port\", expected one of listen, edns_udp_size, routes",
        ),
        (
            "routes = \"ts\"",
            "2:10: forwarder.routes: expected a table, not a string",
        ),
        (
            "routes = { \".\" = \"tss\" }",
            "2:18: forwarder.routes.\".\": there is no pool \"tss\", expected one of ts, tt",
        ),
        (
            "routes = { \".\" = 1 }",
            "2:18: forwarder.routes.\".\": expected a string: put the integer in quotes",
        ),
        (
            "routes = { \".\" = [\"ts\"] }",
            "2:18: forwarder.routes.\".\": expected a name, not an array",
        ),
        (
            "routes = { example.org = \"ts\" }",
            "2:12: forwarder.routes.example: expected the name of a pool, not a table; \
             a suffix with dots needs quotes",
        ),
    ] {
        let line = if line.starts_with("routes") {
            line.to_owned()
        } else {
            format!("{line}\nroutes.\".\" = \"ts\"")
        };
        check(&format!("[forwarder]\n{line}\n{pools}"), &[expected]);
    }
}

#[test]
fn routes_are_checked() {
    let pools =
        "[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n[pools.other]\nbackends = [\"192.0.2.1:53\"]\n";
    let expected = "1:1: forwarder: routes are missing and there are 2 pools, \
                    add [forwarder.routes] with \".\" = \"ts\"";
    check(&format!("[forwarder]\n{pools}"), &[expected]);
    check(
        &format!(
            "{pools}[forwarder.routes]\n\"Example.org\" = \"ts\"\n\"example.ORG.\" = \"othr\"\n"
        ),
        &[
            "7:1: forwarder.routes.\"example.ORG.\": example.org. is routed twice, first on line 6",
            "7:18: forwarder.routes.\"example.ORG.\": there is no pool \"othr\", did you mean \"other\"?",
        ],
    );
}

#[test]
fn a_bad_suffix_is_told() {
    let text = "[forwarder.routes]\n\"a..b\" = \"ts\"\n[pools.ts]\nbackends = [\"192.0.2.1:53\"]\n";
    let problems = Config::parse(text, "c.toml", Path::new(""))
        .expect_err("a bad suffix")
        .to_string();
    let start = "c.toml:2:1: forwarder.routes.\"a..b\": invalid suffix \"a..b\": \
                 expected a domain name such as \"example.org\" (";
    assert!(problems.starts_with(start), "{problems}");
}

#[test]
fn pools_are_checked() {
    for (line, expected) in [
        (
            "timeout = \"0s\"",
            "11: pools.ts.timeout: invalid value \"0s\": expected a duration from 1ms to 1m",
        ),
        (
            "timeout = \"61s\"",
            "11: pools.ts.timeout: invalid value \"61s\": expected a duration from 1ms to 1m",
        ),
        (
            "timeout = \"soon\"",
            "11: pools.ts.timeout: invalid value \"soon\": expected a duration such as \"250ms\" or \"3s\"",
        ),
        (
            "attempt_timeout = \"0ms\"",
            "19: pools.ts.attempt_timeout: invalid value \"0ms\": expected a duration from 1ms to 1m",
        ),
        (
            "tries = 0",
            "9: pools.ts.tries: invalid value 0: expected an integer from 1 to 8",
        ),
        (
            "tries = 9",
            "9: pools.ts.tries: invalid value 9: expected an integer from 1 to 8",
        ),
        (
            "fanout = 9",
            "10: pools.ts.fanout: invalid value 9: expected an integer from 0 to 8",
        ),
        (
            "fanout = 1.0",
            "10: pools.ts.fanout: expected an integer from 0 to 8, not a float",
        ),
        (
            "accept = true",
            "10: pools.ts.accept: expected one of positive, conclusive, any, not a boolean",
        ),
        (
            "balance = \"sticky\"",
            "11: pools.ts.balance: invalid value \"sticky\": expected one of ordered, round-robin, random",
        ),
        (
            "on_timeout = \"servfial\"",
            "14: pools.ts.on_timeout: invalid value \"servfial\": \
             expected one of nxdomain, servfail, refused, drop; did you mean \"servfail\"?",
        ),
        (
            "on_all_down = []",
            "15: pools.ts.on_all_down: expected one of nxdomain, servfail, refused, drop, not an array",
        ),
        (
            "grace = \"0s\"",
            "9: pools.ts.grace: invalid value \"0s\": expected off, auto or a duration from 1ms to 1m",
        ),
        (
            "hedge = 1",
            "9: pools.ts.hedge: expected a table, not an integer",
        ),
    ] {
        check_pool(line, expected);
    }
}

#[test]
fn hedges_are_checked() {
    for (line, expected) in [
        (
            "hedge.delay = \"p100\"",
            "15: pools.ts.hedge.delay: invalid value \"p100\": expected auto or a percentile from \
             \"p50\" to \"p99.9\" or a duration such as \"250ms\" or \"3s\"",
        ),
        (
            "hedge.budget = 1.1",
            "16: pools.ts.hedge.budget: invalid value 1.1: expected a number from 0 to 1",
        ),
        (
            "hedge.budget = nan",
            "16: pools.ts.hedge.budget: invalid value nan: expected a number from 0 to 1",
        ),
        (
            "hedge.budget = \"5%\"",
            "16: pools.ts.hedge.budget: expected a number from 0 to 1, not a string",
        ),
        (
            "hedge.max = 0",
            "13: pools.ts.hedge.max: invalid value 0: expected an integer from 1 to 7",
        ),
        (
            "hedge.min_delay = \"1s\"",
            "19: pools.ts.hedge.min_delay: min_delay 1s is above max_delay 250ms",
        ),
        (
            "hedge.max_delay = \"1us\"",
            "19: pools.ts.hedge.max_delay: min_delay 1ms is above max_delay 1us",
        ),
        (
            "hedge = { min_delay = \"1s\", max_delay = \"1x\" }",
            "41: pools.ts.hedge.max_delay: invalid value \"1x\": \
             expected a duration such as \"250ms\" or \"3s\"",
        ),
        (
            "hedge.dely = 1",
            "7: pools.ts.hedge: unknown key \"dely\", did you mean \"delay\"?",
        ),
    ] {
        check_pool(line, expected);
    }
}

#[test]
fn health_is_checked() {
    for (line, expected) in [
        (
            "health.interval = \"1ms\"",
            "19: pools.ts.health.interval: invalid value \"1ms\": expected a duration from 100ms to 1h",
        ),
        (
            "health.timeout = \"0s\"",
            "18: pools.ts.health.timeout: invalid value \"0s\": expected a duration from 1ms to 1m",
        ),
        (
            "health.every_queries = -1",
            "24: pools.ts.health.every_queries: invalid value -1: expected an integer from 0 to 4294967295",
        ),
        (
            "health.fall = 0",
            "15: pools.ts.health.fall: invalid value 0: expected an integer from 1 to 100",
        ),
        (
            "health.rise = 101",
            "15: pools.ts.health.rise: invalid value 101: expected an integer from 1 to 100",
        ),
        (
            "health.raise = 2",
            "8: pools.ts.health: unknown key \"raise\", did you mean \"rise\"?",
        ),
        (
            "health.probe = \".\"",
            "16: pools.ts.health.probe: expected a table, not a string",
        ),
        (
            "health.probe.type = \"NSS\"",
            "21: pools.ts.health.probe.type: invalid value \"NSS\": \
             expected a record type such as \"NS\", \"AAAA\" or \"TYPE65\"",
        ),
        (
            "health.probe.qtype = \"NS\"",
            "14: pools.ts.health.probe: unknown key \"qtype\", did you mean \"type\"?",
        ),
    ] {
        check_pool(line, expected);
    }
}

#[test]
fn backends_are_checked() {
    for (value, expected) in [
        (
            "[]",
            "2:12: pools.ts.backends: expected at least one, such as [\"127.0.0.1:5301\"]",
        ),
        (
            "\"192.0.2.1:53\"",
            "2:12: pools.ts.backends: expected an array such as [\"127.0.0.1:5301\"], not a string",
        ),
        (
            "[\"192.0.2.1\"]",
            "2:13: pools.ts.backends[0]: invalid value \"192.0.2.1\": \
             expected an address with its port, such as \"192.0.2.1:53\"",
        ),
        (
            "[\"192.0.2.1:0\"]",
            "2:13: pools.ts.backends[0]: invalid value \"192.0.2.1:0\": \
             expected a port from 1 to 65535, since nobody is reached at port 0",
        ),
        (
            "[\"192.0.2.1:53\", { address = \"192.0.2.1:53\", name = \"b\" }]",
            "2:29: pools.ts.backends[1]: backend 192.0.2.1:53 stands in this pool twice, first on line 2",
        ),
        (
            "[{ address = \"192.0.2.1:53\", name = \"b\" }, { address = \"192.0.2.2:53\", name = \"b\" }]",
            "2:55: pools.ts.backends[1]: the name \"b\" stands in this pool twice, first on line 2",
        ),
        (
            "[{ name = \"b\" }]",
            "2:13: pools.ts.backends[0]: address is missing, write address = \"127.0.0.1:5301\"",
        ),
        (
            "[{ address = \"192.0.2.1:53\", weight = 0 }]",
            "2:51: pools.ts.backends[0].weight: invalid value 0: expected an integer from 1 to 1000",
        ),
        (
            "[{ address = \"192.0.2.1:53\", weihgt = 2 }]",
            "2:42: pools.ts.backends[0]: unknown key \"weihgt\", did you mean \"weight\"?",
        ),
        (
            "[{ address = \"192.0.2.1:53\", name = \"\" }]",
            "2:49: pools.ts.backends[0].name: invalid value \"\": expected a name",
        ),
        (
            "[\"127.0.0.1:5300\"]",
            "2:13: pools.ts.backends[0]: 127.0.0.1:5300 is this forwarder itself, expected another server",
        ),
    ] {
        check(
            &format!("[pools.ts]\nbackends = {value}\n[forwarder]\n"),
            &[expected],
        );
    }
    check(
        "[forwarder]\n[pools.ts]\n",
        &["2:1: pools.ts: backends is missing, write backends = [\"127.0.0.1:5301\"]"],
    );
}

#[test]
fn authorities_are_checked() {
    for (line, expected) in [
        (
            "miss = \"silence\"",
            "8: authorities.ts1.miss: invalid value \"silence\": \
             expected one of silent, nxdomain, refused; did you mean \"silent\"?",
        ),
        (
            "ttl = 300",
            "7: authorities.ts1.ttl: expected a duration with its unit, such as \"300s\" or \"300ms\", \
             not an integer",
        ),
        (
            "ttl = \"1500ms\"",
            "7: authorities.ts1.ttl: invalid value \"1500ms\": \
             expected whole seconds, at most 2147483647s",
        ),
        (
            "listen = []",
            "10: authorities.ts1.listen: expected at least one, such as [\"127.0.0.1:5300\"]",
        ),
        (
            "zones = []",
            "9: authorities.ts1.zones: expected at least one, such as [\"zones/ts1.txt\"]",
        ),
        (
            "zones = [\"\"]",
            "10: authorities.ts1.zones[0]: invalid value \"\": expected the name of a file",
        ),
        (
            "zones = [\"a\", { file = \"a\" }]",
            "15: authorities.ts1.zones[1]: a is loaded twice, first on line 2",
        ),
        (
            "zones = [{ file = \"a\", origin = \"example.org\" }]",
            "24: authorities.ts1.zones[0]: unknown key \"origin\", expected one of file",
        ),
        (
            "zoens = [\"a\"]",
            "1: authorities.ts1: unknown key \"zoens\", did you mean \"zones\"?",
        ),
    ] {
        check_authority(line, expected);
    }
    check(
        "authorities.a = {}",
        &[
            "1:17: authorities.a: listen is missing, write listen = [\"127.0.0.1:5301\"]",
            "1:17: authorities.a: zones is missing, write zones = [\"zones/ts1.txt\"]",
        ],
    );
}

#[test]
fn listeners_do_not_share_an_address() {
    let text = r#"
[authorities.a]
listen = ["127.0.0.1:5300", "127.0.0.1:0"]
zones = ["a.txt"]
[authorities.b]
listen = ["[::1]:53", "127.0.0.1:0", "[::1]:53"]
zones = ["a.txt"]
[forwarder]
[pools.ts]
backends = ["192.0.2.1:53"]
"#;
    check(
        text,
        &[
            "6:38: authorities.b.listen[2]: [::1]:53 is listened on twice, first on line 6",
            "8:1: forwarder: 127.0.0.1:5300 is listened on twice, first on line 3",
        ],
    );
}

#[test]
fn what_looks_odd_but_is_right_is_taken() {
    for line in [
        "attempt_timeout = \"10s\"",
        "fanout = 2\ndispatch = \"sequential\"",
        "hedge.max = 2",
        "hedge.budget = 0",
        "hedge.min_delay = \"0s\"",
        "backends = [\"192.0.2.1:53\", \"192.0.2.1:54\"]",
    ] {
        let rest = if line.starts_with("backends") {
            ""
        } else {
            "backends = [\"192.0.2.1:53\"]"
        };
        check(
            &format!("[forwarder]\n[pools.\"a b\"]\n{line}\n{rest}"),
            &[],
        );
    }
    check(
        "\u{feff}[forwarder]\r\n[pools.ts]\r\nbackends = [\"192.0.2.1:53\"]\r\n",
        &[],
    );
}

proptest! {
    /// Whatever stands in the file: a value or problems, each with a line that is there.
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        check_places(&text)?;
    }

    /// The same for what is almost right: the reference with a stretch of it replaced.
    #[test]
    fn no_edit_makes_the_reader_panic(
        at in 0..REFERENCE.len(),
        cut in 0_usize..40,
        put in "[\\[\\]{}=\"'.,#\n 0-9a-z\\-é]{0,8}",
    ) {
        let text = REFERENCE.as_bytes();
        let end = (at + cut).min(text.len());
        let edited = [&text[..at], put.as_bytes(), &text[end..]].concat();
        check_places(&String::from_utf8_lossy(&edited))?;
    }
}

/// Checks that every problem of a text can be shown and stands on a line of it.
fn check_places(text: &str) -> Result<(), TestCaseError> {
    if let Err(problems) = Config::parse(text, "c.toml", Path::new("")) {
        prop_assert!(problems.count() > 0);
        for problem in problems.iter() {
            let lines = text.split('\n').count();
            prop_assert!(
                problem
                    .line()
                    .is_none_or(|line| (1..=lines).contains(&line)),
                "{problem}"
            );
        }
        prop_assert!(!problems.to_string().is_empty());
    }
    Ok(())
}

#[test]
fn depth_is_bounded() {
    for deep in [
        "a = ".to_owned() + &"[".repeat(100_000),
        vec!["a"; 100_000].join(".") + " = 1",
    ] {
        assert!(Config::parse(&deep, "c.toml", Path::new("")).is_err());
    }
}
