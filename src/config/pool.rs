//! `[pools.*]`: who is asked, and under which rules.

use std::path::Path;
use std::time::Duration;

use super::backend::{self, Asked, BACKENDS_EXAMPLE, BackendConfig};
use super::section::{Section, Spot};
use super::{PoolConfig, ProbeConfig, discover, limits, words};
use crate::policy::connections::ConnectionPoolRules;
use crate::policy::{HealthRules, Hedge, Rules};

/// Reads `[pools.NAME]`. What is to be looked at when all is read goes to `asked`.
pub(super) fn read<'d>(
    name: &str,
    mut section: Section<'d>,
    folder: &Path,
    asked: &mut Asked<'d>,
    etcd_uses: &mut Vec<Spot<'d>>,
) -> PoolConfig {
    section.need_any(&["backends", "discover"], &format!("backends is missing, write backends = {BACKENDS_EXAMPLE}"));
    let backends_node = section.take("backends");
    let discover = section.section("discover").map(|section| discover::read(section, folder, etcd_uses));
    let backends =
        backends_node.map(|node| backend::read_all(&node, discover.is_some(), folder, asked)).unwrap_or_default();
    let (health, probe) = match section.section("health") {
        Some(health) => read_health(health),
        None => (HealthRules::default(), ProbeConfig::default()),
    };
    let hedge = section.section("hedge").map(read_hedge).unwrap_or_default();
    let usual = Rules::default();
    let rules = Rules {
        dispatch: section.parsed("dispatch", words::dispatch, usual.dispatch),
        fanout: section.integer("fanout", limits::FANOUT, usual.fanout),
        balance: section.parsed("balance", words::balance, usual.balance),
        accept: section.parsed("accept", words::accept, usual.accept),
        believe_ede: section.boolean("believe_ede", usual.believe_ede),
        timeout: section.parsed("timeout", |text| limits::TIMEOUT.parse(text), usual.timeout),
        grace: section.parsed("grace", words::grace, usual.grace),
        attempt_timeout: section.parsed(
            "attempt_timeout",
            |text| limits::ATTEMPT_TIMEOUT.parse(text),
            usual.attempt_timeout,
        ),
        tries: section.integer("tries", limits::TRIES, usual.tries),
        on_timeout: section.parsed("on_timeout", words::silence, usual.on_timeout),
        on_all_down: section.parsed("on_all_down", words::silence, usual.on_all_down),
        hedge,
        health,
    };
    let replicas = section.boolean("replicas", PoolConfig::REPLICAS);
    let max_lag = section.parsed("max_lag", |text| limits::MAX_LAG.parse(text), PoolConfig::MAX_LAG);
    let compare = read_compare(&mut section, replicas);
    let audit = read_audit(&mut section, replicas);
    let cache = read_cache(&mut section, &backends);
    let case = section.parsed("case", words::case, PoolConfig::CASE);
    let cookies = section.boolean("cookies", PoolConfig::COOKIES);
    let trust_ad = section.take("trust_ad").and_then(|node| node.boolean());
    let max_in_flight = section.integer("max_in_flight", limits::MAX_IN_FLIGHT, PoolConfig::MAX_IN_FLIGHT);
    let connections = section.section("connections").map(read_connections).unwrap_or_default();
    section.finish();
    PoolConfig {
        name: name.to_owned(),
        backends,
        discover,
        rules,
        probe,
        replicas,
        max_lag,
        compare,
        audit,
        cache,
        case,
        cookies,
        trust_ad,
        max_in_flight,
        connections,
    }
}

/// Reads `cache`. What backends answer that are told who asks may be for that client alone.
fn read_cache(section: &mut Section<'_>, backends: &[BackendConfig]) -> bool {
    let names_clients = backends.iter().any(|backend| backend.proxy_protocol);
    let Some(node) = section.take("cache") else { return PoolConfig::CACHE && !names_clients };
    let cache = node.boolean();
    if names_clients && cache == Some(true) {
        node.spot.note("answers of backends with proxy_protocol may be for one client alone, write cache = false");
    }
    cache.unwrap_or(PoolConfig::CACHE)
}

/// Reads `compare`, which only makes sense where all have the same data.
fn read_compare(section: &mut Section<'_>, are_replicas: bool) -> f64 {
    let Some(node) = section.take("compare") else { return PoolConfig::COMPARE };
    let compare = node.number(limits::COMPARE).unwrap_or(PoolConfig::COMPARE);
    if compare > 0.0 && !are_replicas {
        node.spot.note(NO_REPLICAS.to_owned());
    }
    compare
}

/// Reads `audit`, of which the same is true.
fn read_audit(section: &mut Section<'_>, are_replicas: bool) -> Option<Duration> {
    let node = section.take("audit")?;
    let audit = node.parsed(|text| limits::AUDIT.parse_or_off(text))?;
    if audit.is_some() && !are_replicas {
        node.spot.note(NO_REPLICAS.to_owned());
    }
    audit
}

/// What is wrong with comparing backends that may differ.
const NO_REPLICAS: &str = "backends are compared that may have different data, write replicas = true if they have not";

/// Reads `[pools.*.hedge]`.
fn read_hedge(mut section: Section<'_>) -> Hedge {
    let usual = Hedge::default();
    let (min_delay, min_spot) = read_clamp(&mut section, "min_delay", usual.min_delay);
    let (max_delay, max_spot) = read_clamp(&mut section, "max_delay", usual.max_delay);
    if let (Some(min), Some(max)) = (min_delay, max_delay)
        && min > max
    {
        let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
        // One of the two may be a default: then the other one is to be mended.
        let spot = min_spot.or(max_spot).unwrap_or_else(|| section.spot.clone());
        spot.note(format!("min_delay {min} is above max_delay {max}"));
    }
    let budget = section.take("budget").and_then(|node| node.number(limits::BUDGET));
    let hedge = Hedge {
        delay: section.parsed("delay", words::hedge_delay, usual.delay),
        min_delay: min_delay.unwrap_or(usual.min_delay),
        max_delay: max_delay.unwrap_or(usual.max_delay),
        budget: budget.unwrap_or(usual.budget),
        max: section.integer("max", limits::HEDGES, usual.max),
    };
    section.finish();
    hedge
}

/// Reads one clamp of the hedge delay: its value, unless what stands there is wrong, and its spot,
/// if it is there.
fn read_clamp<'d>(
    section: &mut Section<'d>,
    key: &'static str,
    usual: Duration,
) -> (Option<Duration>, Option<Spot<'d>>) {
    match section.take(key) {
        Some(node) => (node.parsed(|text| limits::HEDGE_CLAMP.parse(text)), Some(node.spot)),
        None => (Some(usual), None),
    }
}

/// Reads `[pools.*.connections]`.
fn read_connections(mut section: Section<'_>) -> ConnectionPoolRules {
    let usual = ConnectionPoolRules::default();
    let rules = ConnectionPoolRules {
        max: section.integer("max", limits::BACKEND_CONNECTIONS, usual.max),
        pipeline: section.integer("pipeline", limits::PIPELINE, usual.pipeline),
        warm: section.boolean("warm", usual.warm),
        idle: section.parsed("idle", |text| limits::CONNECTION_IDLE.parse(text), usual.idle),
        connect_timeout: section.parsed(
            "connect_timeout",
            |text| limits::CONNECT_TIMEOUT.parse(text),
            usual.connect_timeout,
        ),
        padding: section.boolean("padding", usual.padding),
        early_data: section.boolean("early_data", usual.early_data),
    };
    section.finish();
    rules
}

/// Reads `[pools.*.health]`.
fn read_health(mut section: Section<'_>) -> (HealthRules, ProbeConfig) {
    let usual = HealthRules::default();
    let rules = HealthRules {
        interval: section.parsed("interval", |text| limits::PROBE_INTERVAL.parse(text), usual.interval),
        every_queries: section.integer("every_queries", limits::PROBE_EVERY, usual.every_queries),
        timeout: section.parsed("timeout", |text| limits::PROBE_TIMEOUT.parse(text), usual.timeout),
        fall: section.integer("fall", limits::PROBES, usual.fall),
        rise: section.integer("rise", limits::PROBES, usual.rise),
    };
    let probe = section.section("probe").map(read_probe).unwrap_or_default();
    section.finish();
    (rules, probe)
}

/// Reads `pools.*.health.probe`.
fn read_probe(mut section: Section<'_>) -> ProbeConfig {
    let usual = ProbeConfig::default();
    let probe = ProbeConfig {
        name: section.parsed("name", words::domain_name, usual.name),
        rtype: section.parsed("type", words::record_type, usual.rtype),
    };
    section.finish();
    probe
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    /// Checks the problem of a pool that has backends and then `line`, the third line of the file.
    fn check_pool(line: &str, expected: &str) {
        let text = format!("[forwarder]\n[pools.ts]\n{line}\nbackends = [\"192.0.2.1:53\"]");
        check(&text, &[&format!("3:{expected}")]);
    }

    #[test]
    fn pools_are_checked() {
        for (line, expected) in [
            ("timeout = \"0s\"", "11: pools.ts.timeout: invalid value \"0s\": expected a duration from 1ms to 1m"),
            ("timeout = \"61s\"", "11: pools.ts.timeout: invalid value \"61s\": expected a duration from 1ms to 1m"),
            (
                "timeout = \"soon\"",
                "11: pools.ts.timeout: invalid value \"soon\": expected a duration such as \"250ms\" or \"3s\"",
            ),
            (
                "attempt_timeout = \"0ms\"",
                "19: pools.ts.attempt_timeout: invalid value \"0ms\": expected a duration from 1ms to 1m",
            ),
            ("tries = 0", "9: pools.ts.tries: invalid value 0: expected an integer from 1 to 8"),
            ("tries = 9", "9: pools.ts.tries: invalid value 9: expected an integer from 1 to 8"),
            ("fanout = 9", "10: pools.ts.fanout: invalid value 9: expected an integer from 0 to 8"),
            ("fanout = 1.0", "10: pools.ts.fanout: expected an integer from 0 to 8, not a float"),
            ("accept = true", "10: pools.ts.accept: expected one of positive, conclusive, any, not a boolean"),
            (
                "balance = \"stiky\"",
                "11: pools.ts.balance: invalid value \"stiky\": expected one of ordered, round-robin, random, sticky, \
             hash, least-load, fastest; did you mean \"sticky\"?",
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
            ("case = \"mixed\"", "8: pools.ts.case: invalid value \"mixed\": expected one of keep, random"),
            ("cookies = \"on\"", "11: pools.ts.cookies: expected true or false, not a string"),
            ("compare = 2", "11: pools.ts.compare: invalid value 2: expected a number from 0 to 1"),
            (
                "compare = 0.5",
                "11: pools.ts.compare: backends are compared that may have different data, write replicas = true if they have not",
            ),
            (
                "audit = \"10ms\"",
                "9: pools.ts.audit: invalid value \"10ms\": expected off or a duration from 100ms to 1h",
            ),
            (
                "audit = \"1s\"",
                "9: pools.ts.audit: backends are compared that may have different data, write replicas = true if they have not",
            ),
            ("connections.max = 0", "19: pools.ts.connections.max: invalid value 0: expected an integer from 1 to 16"),
            (
                "connections.pipeline = 0",
                "24: pools.ts.connections.pipeline: invalid value 0: expected an integer from 1 to 10000",
            ),
            (
                "connections.connect_timeout = \"1ms\"",
                "31: pools.ts.connections.connect_timeout: invalid value \"1ms\": expected a duration from 10ms to 1m",
            ),
            ("connections.warm = 1", "20: pools.ts.connections.warm: expected true or false, not an integer"),
            ("compere = 1.0", "1: pools.ts: unknown key \"compere\", did you mean \"compare\"?"),
            ("cookie = true", "1: pools.ts: unknown key \"cookie\", did you mean \"cookies\"?"),
            ("hedge = 1", "9: pools.ts.hedge: expected a table, not an integer"),
            (
                "max_in_flight = 0",
                "17: pools.ts.max_in_flight: invalid value 0: expected an integer from 1 to 10000000",
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
            ("hedge.budget = 1.1", "16: pools.ts.hedge.budget: invalid value 1.1: expected a number from 0 to 1"),
            ("hedge.budget = nan", "16: pools.ts.hedge.budget: invalid value nan: expected a number from 0 to 1"),
            ("hedge.budget = \"5%\"", "16: pools.ts.hedge.budget: expected a number from 0 to 1, not a string"),
            ("hedge.max = 0", "13: pools.ts.hedge.max: invalid value 0: expected an integer from 1 to 7"),
            ("hedge.min_delay = \"1s\"", "19: pools.ts.hedge.min_delay: min_delay 1s is above max_delay 250ms"),
            ("hedge.max_delay = \"1us\"", "19: pools.ts.hedge.max_delay: min_delay 1ms is above max_delay 1us"),
            (
                "hedge = { min_delay = \"1s\", max_delay = \"1x\" }",
                "41: pools.ts.hedge.max_delay: invalid value \"1x\": \
             expected a duration such as \"250ms\" or \"3s\"",
            ),
            ("hedge.dely = 1", "7: pools.ts.hedge: unknown key \"dely\", did you mean \"delay\"?"),
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
            ("health.fall = 0", "15: pools.ts.health.fall: invalid value 0: expected an integer from 1 to 100"),
            ("health.rise = 101", "15: pools.ts.health.rise: invalid value 101: expected an integer from 1 to 100"),
            ("health.raise = 2", "8: pools.ts.health: unknown key \"raise\", did you mean \"rise\"?"),
            ("health.probe = \".\"", "16: pools.ts.health.probe: expected a table, not a string"),
            (
                "health.probe.type = \"NSS\"",
                "21: pools.ts.health.probe.type: invalid value \"NSS\": \
             expected a record type such as \"NS\", \"AAAA\" or \"TYPE65\"",
            ),
            ("health.probe.qtype = \"NS\"", "14: pools.ts.health.probe: unknown key \"qtype\", did you mean \"type\"?"),
        ] {
            check_pool(line, expected);
        }
    }

    #[test]
    fn backends_are_checked() {
        for (value, expected) in [
            ("[]", "2:12: pools.ts.backends: expected at least one, such as [\"127.0.0.1:5301\"]"),
            (
                "\"192.0.2.1:53\"",
                "2:12: pools.ts.backends: expected an array such as [\"127.0.0.1:5301\"], not a string",
            ),
            (
                "[\"192.0.2.300\"]",
                "2:13: pools.ts.backends[0]: invalid value \"192.0.2.300\": \
             expected an IP address with its port, such as \"127.0.0.1:53\" or \"[::1]:53\"",
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
                "2:50: pools.ts.backends[0].weight: invalid value 0: expected an integer from 1 to 1000",
            ),
            (
                "[{ address = \"192.0.2.1:53\", weihgt = 2 }]",
                "2:41: pools.ts.backends[0]: unknown key \"weihgt\", did you mean \"weight\"?",
            ),
            (
                "[{ address = \"192.0.2.1:53\", name = \"\" }]",
                "2:48: pools.ts.backends[0].name: invalid value \"\": expected a name",
            ),
            (
                "[\"127.0.0.1:5300\"]",
                "2:13: pools.ts.backends[0]: 127.0.0.1:5300 is this forwarder itself, expected another server",
            ),
        ] {
            check(&format!("[pools.ts]\nbackends = {value}\n[forwarder]\n"), &[expected]);
        }
        check(
            "[forwarder]\n[pools.ts]\n",
            &["2:1: pools.ts: backends is missing, write backends = [\"127.0.0.1:5301\"]"],
        );
    }
}
